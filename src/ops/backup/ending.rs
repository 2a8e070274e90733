//! Dumps that end with a line of their own: what begins as one and lacks it lost its end.
//!
//! In a pipe the reader does not learn how the program that wrote the dump ended.

/// The line at the end of what `pg_dumpall` writes. A dump without it is not whole.
pub const CLUSTER_DUMP_COMPLETE: &str = "-- PostgreSQL database cluster dump complete";
/// The line at the end of what `pg_dump` writes, and of each database's part of a cluster's dump.
pub const DATABASE_DUMP_COMPLETE: &str = "-- PostgreSQL database dump complete";

/// How dumps of programs begin, in one of their first lines.
const BEGINNINGS: [(&str, &str); 4] = [
    ("-- PostgreSQL database cluster dump", "PostgreSQL"),
    ("-- PostgreSQL database dump", "PostgreSQL"),
    ("-- MySQL dump ", "MySQL"),
    ("-- MariaDB dump ", "MariaDB"),
];
/// How a line near their end begins. Several dumps may stand in one stream, so any will do.
const ENDINGS: [&str; 3] = [
    CLUSTER_DUMP_COMPLETE,
    DATABASE_DUMP_COMPLETE,
    "-- Dump completed",
];
/// Lines in which a dump says what it is.
const FIRST_LINES: usize = 4;
/// Bytes at a stream's beginning that hold these.
pub(super) const HEAD_BYTES: usize = 512;

/// Why a stream is not whole, if that can be said. `tail`: its last bytes.
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
        "it begins as a dump of {program} and lacks the line with which one ends: the program that wrote it may have failed; the snapshot does not count until --accept takes it"
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
