//! Each rule is tried on a sample that breaks it.

use std::collections::BTreeSet;

use super::dependencies;
use super::lexer::{tokens, without_tests};
use super::rules::{LINES_MAX, check};

/// What `check` says of a file with this body (a doc line is put before it), as `line: message`.
fn findings_in(path: &str, body: &str) -> String {
    let crates = ["serde", "blake3", "rusqlite", "clap"]
        .map(str::to_owned)
        .into();
    let text = format!("//! A sample.\n{body}");
    check(path, &text, &crates, false)
        .iter()
        .map(|f| format!("{}: {}\n", f.line, f.message))
        .collect()
}

#[track_caller]
fn refused(path: &str, body: &str, line: usize, part: &str) {
    let findings = findings_in(path, body);
    let hit = findings
        .lines()
        .any(|l| l.starts_with(&format!("{line}: ")) && l.contains(part));
    assert!(
        hit,
        "{path} with {body:?}: wanted line {line} with {part:?}, got:\n{findings}"
    );
}

#[track_caller]
fn accepted(path: &str, body: &str) {
    let findings = findings_in(path, body);
    assert!(findings.is_empty(), "{path} with {body:?}:\n{findings}");
}

#[test]
fn layers_are_kept() {
    refused(
        "src/store/local.rs",
        "use crate::format::Pack;",
        2,
        "`store` may use types, observe, sys",
    );
    refused(
        "src/types/id.rs",
        "use crate::sys::PathError;",
        2,
        "std alone",
    );
    refused(
        "src/chunk/cut.rs",
        "fn f() {\n    crate::store::get();\n}",
        3,
        "`chunk` may use types",
    );
    refused(
        "src/repo/mod.rs",
        "use crate::{types::Id,\n    ops::backup};",
        3,
        "crate::ops::backup",
    );
    refused(
        "src/repo/mod.rs",
        "use crate::{types::{Id, Len}, ccn};",
        2,
        "crate::ccn",
    );
    refused(
        "src/store/mod.rs",
        "use super::index::Index;",
        2,
        "crate::index::Index",
    );
    refused(
        "src/store/local.rs",
        "use super::super::index::Index;",
        2,
        "crate::index::Index",
    );
    refused(
        "src/store/mod.rs",
        "mod a {\n    use super::super::index::Index;\n}",
        3,
        "crate::index::Index",
    );
    refused(
        "src/source/walk.rs",
        "use crate::dest;",
        2,
        "`source` may use",
    );
    refused(
        "src/ops/list.rs",
        "use crate::ccn::check;",
        2,
        "`ops` may use",
    );
    refused(
        "src/ops/list.rs",
        "use crate::Pack;",
        2,
        "not the crate's root",
    );
    refused("src/ops/list.rs", "use crate::*;", 2, "hides");
    refused("src/extra.rs", "fn f() {}", 1, "not in the layer table");
    refused("src/ops/list.rs", "use icecore::types;", 2, "calls itself");
    accepted(
        "src/repo/mod.rs",
        "use crate::{types::Id, store::{self, Store as S}};\npub(crate) fn f() {}",
    );
    accepted(
        "src/store/mod.rs",
        "use super::types::Id;\nuse self::local::Local;",
    );
    accepted(
        "src/store/local.rs",
        "use super::Store;\n// crate::format::Pack\nconst A: &str = \"crate::format\";",
    );
    accepted(
        "src/ccn/mod.rs",
        "use crate::ops;\nuse crate::error::Error;",
    );
    accepted("src/lib.rs", "pub mod types;\npub use crate::error::Error;");
    accepted(
        "src/bin/icecore/main.rs",
        "use crate::args::Args;\nuse icecore::ops;",
    );
}

#[test]
fn homes_are_kept() {
    refused("src/store/local.rs", "use std::fs;", 2, "`sys` alone");
    refused(
        "src/store/local.rs",
        "use std::{io, fs::{self, File}};",
        2,
        "std::fs::File",
    );
    refused(
        "src/store/spool.rs",
        "fn f() {\n    std::fs::File::open(p);\n}",
        3,
        "std::fs::File::open",
    );
    refused(
        "src/repo/mod.rs",
        "fn f() { let x = std::env::var(\"A\"); }",
        2,
        "environment",
    );
    refused("src/ops/list.rs", "use std::{env};", 2, "environment");
    refused(
        "src/ops/list.rs",
        "fn f() { std::process::exit(1) }",
        2,
        "ends the process",
    );
    refused(
        "src/ops/list.rs",
        "use std::process::{Command, exit};",
        2,
        "ends the process",
    );
    refused(
        "src/ops/list.rs",
        "use std::process;\nfn f() { process::exit(1) }",
        3,
        "ends the process",
    );
    refused(
        "src/ops/list.rs",
        "fn f() { println!(\"a\") }",
        2,
        "`println!`",
    );
    refused(
        "src/ops/list.rs",
        "fn f() { eprintln!(\"a\") }",
        2,
        "`eprintln!`",
    );
    refused("src/ops/list.rs", "fn f() { io::stdout() }", 2, "terminal");
    refused(
        "src/ops/list.rs",
        "use std::io::{self, stderr};",
        2,
        "terminal",
    );
    refused("src/ops/list.rs", "use clap::Parser;", 2, "binary's");
    refused(
        "src/repo/sync.rs",
        "use rusqlite::Connection;",
        2,
        "`index` alone",
    );
    refused("src/types/id.rs", "use serde::Serialize;", 2, "not `serde`");
    refused(
        "src/types/id.rs",
        "fn f() { blake3::hash(b\"\") }",
        2,
        "not `blake3`",
    );
    refused("src/types/id.rs", "use blake3;", 2, "not `blake3`");
    accepted("src/sys/files.rs", "use std::fs;");
    accepted("src/store/spool.rs", "use std::fs::File;");
    accepted("src/index/chunks.rs", "use rusqlite::Connection;");
    accepted(
        "src/bin/icecore/main.rs",
        "fn main() { println!(\"a\"); std::process::exit(std::env::args().len() as i32) }",
    );
    accepted(
        "src/repo/mod.rs",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n    use crate::ops;\n    fn f() { x.unwrap(); println!() }\n}",
    );
    accepted(
        "src/repo/mod.rs",
        "const V: &str = env!(\"CARGO_PKG_VERSION\");",
    );
    refused(
        "src/repo/mod.rs",
        "#[cfg(test)]\nmod tests {\n}\nuse std::fs;",
        5,
        "`sys` alone",
    );
    refused(
        "src/repo/mod.rs",
        "#[cfg(test)]\nfn f(a: [u8; 3]) -> u8 { 1 }\nuse std::fs;",
        4,
        "`sys` alone",
    );
}

#[test]
fn files_are_in_order() {
    let none = BTreeSet::new();
    assert_eq!(
        check("tests/a.rs", "fn f() {}\n", &none, false).len(),
        1,
        "a file without a doc line"
    );
    let long = format!("//! Long.\n{}", "\n".repeat(LINES_MAX));
    assert_eq!(
        check("tests/a.rs", &long, &none, false).len(),
        1,
        "a long file"
    );
    assert_eq!(
        check("tests/a.rs", &long[..long.len() - 1], &none, false).len(),
        0,
        "a file just short enough"
    );
    refused(
        "tests/a.rs",
        "#[test]\n#[ignore]\nfn f() {}",
        3,
        "#[ignore]",
    );
    refused(
        "tests/a.rs",
        "#[ignore = \"slow\"]\nfn f() {}",
        2,
        "#[ignore]",
    );
    refused("benches/a.rs", "fn f() { todo!() }", 2, "`todo!`");
    refused(
        "src/types/id.rs",
        "fn f() {\n    unimplemented!()\n}",
        3,
        "`unimplemented!`",
    );
    refused(
        "src/types/id.rs",
        "fn f() {\n    x\n        .unwrap();\n}",
        4,
        "`.unwrap()`",
    );
    refused(
        "src/types/id.rs",
        "#[allow(dead_code)]\nfn f() {}",
        2,
        "`reason`",
    );
    refused(
        "src/types/id.rs",
        "#[path = \"x.rs\"]\nmod x;",
        2,
        "`mod` alone",
    );
    accepted(
        "src/types/id.rs",
        "#[expect(dead_code, reason = \"x\")]\nfn f() { x.unwrap_or(1) }",
    );
    accepted(
        "src/types/id.rs",
        "/// `todo!()`\nfn f() { /* a.unwrap() /* b */ todo!() */ }",
    );
}

#[test]
fn the_lexer_keeps_its_place() {
    let words = |text: &str| {
        tokens(text)
            .into_iter()
            .map(|t| t.text)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(words("a(\"x\\\"y\") b"), "a ( ) b");
    assert_eq!(words("a r#\"x\"y\"# b r\"z\" c br##\"\"#\"## d"), "a b c d");
    assert_eq!(
        words("'a' b '\\'' c 'x: loop {} fn f<'a>() '\"' d"),
        "b c x : loop { } fn f < a > ( ) d"
    );
    assert_eq!(words("a // b\nc /* d /* e */ f */ g"), "a c g");
    assert_eq!(words("r#type b#"), "r # type b #");
    let lines: Vec<usize> = tokens("a\n\"x\ny\"\nb /*\n*/ c")
        .iter()
        .map(|t| t.line)
        .collect();
    assert_eq!(lines, [1, 4, 5]);
}

#[test]
fn test_modules_in_files_are_known() {
    let (_, modules) = without_tests(&tokens(
        "#[cfg(test)]\nmod tests;\n#[cfg(feature = \"x\")] mod other;",
    ));
    assert_eq!(modules, ["tests"]);
}

#[test]
fn the_manifest_is_read() {
    let read = dependencies(
        "[package]\nname = \"x\"\n[dependencies]\n# no = 1\na-b = \"1\"\n[dependencies.c]\nv = 1\n[dev-dependencies]\nd = 1",
    );
    assert_eq!(read.into_iter().collect::<Vec<_>>(), ["a_b", "c"]);
}
