//! Detects dumps that lost their end: they begin like a dump whose program writes a known last
//! line, and lack that line.
//!
//! In a pipe the reader does not learn how the program that wrote the dump ended.

/// The line at the end of a dump by `pg_dumpall`. A dump without it is incomplete.
pub const CLUSTER_DUMP_COMPLETE: &str = "-- PostgreSQL database cluster dump complete";
/// The line at the end of a dump by `pg_dump`, and of each database's part of a cluster dump.
pub const DATABASE_DUMP_COMPLETE: &str = "-- PostgreSQL database dump complete";

/// First words of one of a dump's first lines, and the program.
const BEGINNINGS: [(&str, &str); 4] = [
    ("-- PostgreSQL database cluster dump", "PostgreSQL"),
    ("-- PostgreSQL database dump", "PostgreSQL"),
    ("-- MySQL dump ", "MySQL"),
    ("-- MariaDB dump ", "MariaDB"),
];
/// First words of a line near the end. A stream may hold several dumps, so any of them counts.
const ENDINGS: [&str; 3] = [
    CLUSTER_DUMP_COMPLETE,
    DATABASE_DUMP_COMPLETE,
    "-- Dump completed",
];
/// Lines in which a dump names its type.
const FIRST_LINES: usize = 4;
/// Bytes at the beginning of a stream that hold these lines.
pub(super) const HEAD_BYTES: usize = 512;

/// Returns why a stream is incomplete, if that can be seen. `tail`: its last bytes.
pub(super) fn cut_off(head: &[u8], tail: &[u8]) -> Option<String> {
    let mut first = head.split(|&byte| byte == b'\n').take(FIRST_LINES);
    let program = first.find_map(|line| {
        BEGINNINGS
            .iter()
            .find(|(beginning, _)| line.starts_with(beginning.as_bytes()))
            .map(|(_, program)| program)
    })?;
    let mut last = tail.split(|&byte| byte == b'\n');
    if last.any(|line| {
        ENDINGS
            .iter()
            .any(|ending| line.starts_with(ending.as_bytes()))
    }) {
        return None;
    }
    Some(format!(
        "it begins like a dump of {program}, but the line that ends one is missing: the program that wrote it may have failed"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_without_its_last_line_is_cut_off() {
        let rows = "INSERT INTO t VALUES (1);\n".repeat(100);
        for (beginning, ending) in [
            (
                "--\n-- PostgreSQL database cluster dump\n--\n",
                "--\n-- PostgreSQL database cluster dump complete\n--\n\n",
            ),
            (
                "--\n-- PostgreSQL database dump\n--\n\n\\restrict k\n",
                "-- PostgreSQL database dump complete\n--\n\n\\unrestrict k\n",
            ),
            (
                "--\r\n-- PostgreSQL database dump\r\n--\r\n",
                "-- PostgreSQL database dump complete\r\n",
            ),
            (
                "-- MySQL dump 10.13  Distrib 8.0\n--\n",
                "-- Dump completed on 2026-01-01\n",
            ),
            (
                "/*!999999\\- enable the sandbox mode */ \n-- MariaDB dump 10.19\n",
                "-- Dump completed\n",
            ),
            // The roles of the cluster, then one database.
            (
                "--\n-- PostgreSQL database cluster dump\n--\n",
                "-- PostgreSQL database dump complete\n",
            ),
        ] {
            let judged = |text: &str| {
                let bytes = text.as_bytes();
                cut_off(
                    &bytes[..HEAD_BYTES.min(bytes.len())],
                    &bytes[bytes.len().saturating_sub(4096)..],
                )
            };

            assert_eq!(
                judged(&format!("{beginning}{rows}{ending}")),
                None,
                "{beginning}"
            );
            assert!(
                judged(&format!("{beginning}{rows}")).is_some(),
                "{beginning}"
            );
            assert!(judged(beginning).is_some(), "{beginning}");
        }

        for other in [
            "",
            "INSERT INTO t VALUES (1);\n",
            "PGDMP\u{1}",
            "-- a note on\n\n\n\n-- MySQL dump 1\n",
        ] {
            assert_eq!(cut_off(other.as_bytes(), other.as_bytes()), None, "{other}");
        }
    }
}
