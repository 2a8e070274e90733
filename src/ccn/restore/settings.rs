//! The session settings of a restore.
//!
//! A database, a role or the server's configuration may have its own settings, such as read-only
//! transactions, a time limit for statements, or another role. They are meant for the application.
//! They would stop a restore half-way or, like `array_nulls = off`, change the restored data.
//! Settings that the client requests when it connects override all of them, in each connection that
//! `psql` makes.

/// Settings of every session, including those that only read. Any role may set these, in every
/// version.
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

/// Settings of the session that receives the dump, each with the first major version that has it. A
/// superuser may set them.
const WRITING: [(&str, &str, u32); 12] = [
    ("idle_session_timeout", "0", 14),
    ("transaction_timeout", "0", 17),
    ("default_transaction_isolation", "read committed", 0),
    ("default_transaction_deferrable", "off", 0),
    ("session_preload_libraries", "", 0),
    ("session_replication_role", "origin", 0),
    ("temp_file_limit", "-1", 0),
    // Commits wait for the server's own disk, but not for a standby, which may be unreachable.
    ("synchronous_commit", "local", 0),
    ("array_nulls", "on", 0),
    ("transform_null_equals", "off", 0),
    ("IntervalStyle", "postgres", 0),
    // icecore searches the server's messages for English texts.
    ("lc_messages", "C", 0),
];

/// Returns `PGOPTIONS` for a session that only reads. `inherited`: the operator's own value.
pub(super) fn asking(inherited: Option<&str>) -> String {
    let mut out = inherited.unwrap_or_default().trim().to_owned();
    ALWAYS
        .iter()
        .for_each(|(name, value)| add(&mut out, name, value));
    out
}

/// Returns `PGOPTIONS` for the session that receives the dump.
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

/// Appends a setting. If a setting occurs more than once, the last value counts.
fn add(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    // A space would end the value.
    out.push_str(&format!("-c {name}={}", value.replace(' ', "\\ ")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_s_options_stay_and_ours_come_last() {
        let options = asking(Some(" -c work_mem=1GB -c statement_timeout=5 "));
        assert!(options.starts_with(
            "-c work_mem=1GB -c statement_timeout=5 -c default_transaction_read_only=off"
        ));
        assert!(
            options.contains("-c statement_timeout=0 ")
                && !options.contains("idle_session_timeout")
        );
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
