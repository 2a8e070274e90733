//! The settings with which the sessions of a restore begin.
//!
//! A database, a role or the server's configuration may have settings of its own: transactions that
//! only read, a time limit for statements, another role. They are meant for the application, and
//! would end a restore half-way or, as `array_nulls = off`, change what comes back. What the client
//! asks for when it connects comes before all of them, and holds for each connection that `psql`
//! makes.

/// Of every session, also one that only asks. Any role may set these, in every version.
const ALWAYS: [(&str, &str); 8] = [
    ("default_transaction_read_only", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("local_preload_libraries", ""),
    ("role", "none"),
    ("search_path", "pg_catalog"),
    ("standard_conforming_strings", "on"),
];

/// Of the session that takes the dump: each with the major version since which the server knows it.
/// A superuser may set them.
const WRITING: [(&str, &str, u32); 12] = [
    ("idle_session_timeout", "0", 14),
    ("transaction_timeout", "0", 17),
    ("default_transaction_isolation", "read committed", 0),
    ("default_transaction_deferrable", "off", 0),
    ("session_preload_libraries", "", 0),
    ("session_replication_role", "origin", 0),
    ("temp_file_limit", "-1", 0),
    // On this server's own disk at once; a standby that is away is not waited for.
    ("synchronous_commit", "local", 0),
    ("array_nulls", "on", 0),
    ("transform_null_equals", "off", 0),
    ("IntervalStyle", "postgres", 0),
    // What the server says is looked at.
    ("lc_messages", "C", 0),
];

/// `PGOPTIONS` of a session that only asks; `inherited`: what the operator has set there.
pub(super) fn asking(inherited: Option<&str>) -> String {
    let mut out = inherited.unwrap_or_default().trim().to_owned();
    ALWAYS
        .iter()
        .for_each(|(name, value)| add(&mut out, name, value));
    out
}

/// `PGOPTIONS` of the session that takes the dump.
pub(super) fn writing(inherited: Option<&str>, server_major: u32) -> String {
    let mut out = asking(inherited);
    for (name, value, _) in WRITING
        .iter()
        .filter(|(_, _, since)| *since <= server_major)
    {
        add(&mut out, name, value);
    }
    out
}

/// The last mention of a setting counts.
fn add(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    // A blank would end the value.
    out.push_str(&format!("-c {name}={}", value.replace(' ', "\\ ")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_s_options_stay_and_ours_come_last() {
        let said = asking(Some(" -c work_mem=1GB -c statement_timeout=5 "));
        assert!(said.starts_with(
            "-c work_mem=1GB -c statement_timeout=5 -c default_transaction_read_only=off"
        ));
        assert!(said.contains("-c statement_timeout=0 ") && !said.contains("idle_session_timeout"));
        assert!(asking(None).starts_with("-c default"));
    }

    #[test]
    fn a_server_gets_the_settings_that_it_knows() {
        let known = |major| writing(None, major);
        assert!(
            known(15).contains("-c idle_session_timeout=0")
                && !known(15).contains("transaction_timeout=0")
        );
        assert!(
            known(17).contains("-c transaction_timeout=0")
                && !known(13).contains("idle_session_timeout")
        );
        assert!(known(15).contains("-c default_transaction_isolation=read\\ committed -c"));
    }
}
