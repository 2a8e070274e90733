//! Queries through `psql`, and its error messages.

use super::super::postgres::PostgresPrograms;

/// Upper limit of a quoted error message, in bytes.
const ERROR_BYTES_MAX: usize = 600;

/// Returns the command line of a query that prints one value.
pub(super) fn query(programs: &PostgresPrograms<'_>, database: &str, query: &str) -> Vec<String> {
    let database = format!("--dbname={}", conninfo(database));
    let command = format!("--command={query}");
    programs.words(
        "psql",
        &[
            "--no-psqlrc",
            "--no-align",
            "--tuples-only",
            "--quiet",
            &database,
            &command,
        ],
    )
}

/// Returns a connection string for a database. A bare name could be taken for a connection string.
pub(super) fn conninfo(database: &str) -> String {
    format!(
        "dbname='{}'",
        database.replace('\\', "\\\\").replace('\'', "\\'")
    )
}

/// Returns a text as an SQL literal, for `standard_conforming_strings = on`.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns the last error of psql and the lines after it, in one line.
pub(super) fn last_error(stderr: &str) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let is_error = |line: &&str| {
        ["ERROR:", "FATAL:", "error:", "PANIC:"]
            .iter()
            .any(|sign| line.contains(sign))
    };

    let from = lines
        .iter()
        .rposition(is_error)
        .unwrap_or(lines.len().saturating_sub(3));

    let mut text = lines.get(from..).unwrap_or_default().join("; ");
    // `psql:<stdin>:123: ERROR:  …`: the line number is that of the dump.
    if let Some(rest) = text.strip_prefix("psql:<stdin>:") {
        text = format!("line {rest}");
    }

    if text.len() > ERROR_BYTES_MAX {
        let cut = (0..=ERROR_BYTES_MAX)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }

    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psql_s_last_error_is_one_line() {
        let stderr = "NOTICE:  x\npsql:<stdin>:12: ERROR:  first\npsql:<stdin>:30: ERROR:  relation \"a\" does not exist\nLINE 1: select\n";
        assert_eq!(
            last_error(stderr),
            "line 30: ERROR:  relation \"a\" does not exist; LINE 1: select"
        );
        assert_eq!(last_error("a\nb\n\nc\nd"), "b; c; d");
        assert_eq!(last_error(""), "");
        assert!(last_error(&"é".repeat(2000)).len() < ERROR_BYTES_MAX + 9);
    }

    #[test]
    fn names_of_databases_are_quoted() {
        assert_eq!(conninfo("aleph"), "dbname='aleph'");
        assert_eq!(conninfo("a'b\\c"), "dbname='a\\'b\\\\c'");
    }
}
