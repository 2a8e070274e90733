//! Tests of a dump's shape: a complete one passes, and damage by a pipe, a terminal or an option is
//! found.

use std::io::Write;

use proptest::prelude::*;

use super::super::needs::NeedsReader;
use super::*;

/// A short dump in the form that `pg_dumpall --clean` writes.
const DUMP: &str = "--\n-- PostgreSQL database cluster dump\n--\n\n\\restrict k\nSET client_encoding = 'UTF8';\nDROP DATABASE aleph;\nCREATE ROLE aleph;\n\\unrestrict k\n\n--\n-- PostgreSQL database dump\n--\n\nCREATE DATABASE aleph WITH TEMPLATE = template0;\n\\connect aleph\nCREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $$begin\r\n  return 'x';\r\nend$$;\nCREATE TABLE t (\n    a integer,\n    b text\n);\n/* odd\n*/\nCOPY t (a, b) FROM stdin;\n1\tno statement\n2\tpg_dump: warning: x\\tx\n\\.\nSELECT pg_catalog.setval('s', 2, true);\n--\n-- PostgreSQL database dump complete\n--\n\n--\n-- PostgreSQL database cluster dump complete\n--\n\n";

fn judge(dump: &[u8], step: usize) -> Option<ShapeError> {
    let mut reader = NeedsReader::new();
    for part in dump.chunks(step) {
        reader.write_all(part).expect("taken");
    }
    reader.into_needs().misshapen
}

fn torn(dump: &str) -> String {
    match judge(dump.as_bytes(), usize::MAX) {
        Some(ShapeError::Torn(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_dump_passes() {
    for step in [1, 7, usize::MAX] {
        assert_eq!(judge(DUMP.as_bytes(), step), None);
    }
    let inserts = DUMP.replace(
        "COPY t (a, b) FROM stdin;\n1\tno statement\n2\tpg_dump: warning: x\\tx\n\\.\n",
        "INSERT INTO t VALUES (1, '');\n",
    );
    assert_eq!(judge(inserts.as_bytes(), 5), None);
    // The tables are empty, or store no rows.
    assert_eq!(
        judge(
            DUMP.replace("1\tno statement\n2\tpg_dump: warning: x\\tx\n", "")
                .as_bytes(),
            5
        ),
        None
    );
}

#[test]
fn damage_in_transit_is_found() {
    assert!(torn(&DUMP.replace('\n', "\r\n")).contains("CR LF"));
    assert!(torn(&DUMP.replace("\tno", "\t\0no")).contains("NUL bytes"));
    assert!(torn(&DUMP.replace("1\tno", "1\tno\tno")).contains("has 3 columns instead of 2"));
    let message = torn(&DUMP.replace("CREATE TABLE", "pg_dump: warning: circular\nCREATE TABLE"));
    assert!(
        message.starts_with("line 20 is not a statement: 'pg_dump: warning: circular'"),
        "{message}"
    );
    let message = torn(&DUMP.replace("2\tpg", "pg_dump: error: connection lost\n2\tpg"));
    assert!(
        message.contains("a row of 't', has 1 columns instead of 2"),
        "{message}"
    );
    let part = "-- PostgreSQL database dump complete\n";
    let twice = DUMP.replace(part, "--\n-- PostgreSQL database dump\n--\n");
    assert!(torn(&twice).contains("is cut off"));
}

#[test]
fn partial_dumps_are_recognized() {
    let partial = |dump: &str| match judge(dump.as_bytes(), usize::MAX) {
        Some(ShapeError::Partial(why)) => why,
        other => panic!("{other:?}"),
    };
    let end = "--\n-- PostgreSQL database cluster dump complete\n--\n";
    let globals = DUMP
        .split("--\n-- PostgreSQL database dump\n")
        .next()
        .unwrap_or_default()
        .to_owned()
        + end;
    assert!(partial(&globals).contains("--globals-only"));
    let (before, rest) = DUMP.split_once("COPY").expect("rows");
    let (_, after) = rest.split_once("\\.\n").expect("their end");
    assert!(partial(&format!("{before}{after}")).contains("--schema-only"));
    let from = DUMP.find("CREATE FUNCTION").expect("objects");
    let to = DUMP.find("/* odd").expect("their end");
    assert!(partial(&format!("{}{}", &DUMP[..from], &DUMP[to..])).contains("--data-only"));
}

proptest! {
    /// A dump that is cut anywhere before its last line does not pass.
    #[test]
    fn a_dump_that_lost_its_end_is_torn(at in 0..DUMP.len(), step in 1usize..50) {
        let complete = DUMP.find("cluster dump complete").expect("its end") + "cluster dump complete".len();
        let judged = judge(&DUMP.as_bytes()[..at], step);
        prop_assert_eq!(judged.is_some(), at <= complete, "cut at {}", at);
    }
}
