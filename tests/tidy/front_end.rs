//! Strings of the library that name the command line: its commands, options and variables are known
//! only to the binary.

use super::words::{comments_and_strings, files, is_of_tests};

/// Commands whose names are also plain words count only after the program's name.
const COMMANDS: &[&str] = &[
    "backup",
    "cat",
    "config",
    "copy",
    "diff",
    "find",
    "forget",
    "init",
    "key",
    "ls",
    "node",
    "prune",
    "repair",
    "restore",
    "snapshots",
    "stats",
    "status",
    "tag",
    "undelete",
    "verify",
];

/// Files that pass options to other programs, or know them, and the template of `icecore.toml`.
const FILES_OF_OTHER_OPTIONS: &[&str] = &[
    "src/ccn/compose/",
    "src/ccn/discover.rs",
    "src/ccn/docker.rs",
    "src/ccn/dump/",
    "src/ccn/postgres.rs",
    "src/ccn/restore/psql.rs",
    "src/ccn/template.rs",
    "src/sys/shown.rs",
    "src/dest/command.rs",
];

/// Sentences about options of other programs.
const OTHER_PROGRAMS: &[&str] = &["pg_dumpall", "docker"];

/// The mark of a key slot, which is stored.
const KEY_SLOT_MARK: &str = "\"icecore key\"";

fn names_a_command(text: &str) -> bool {
    text.contains("ICECORE_")
        || COMMANDS
            .iter()
            .any(|command| text.contains(&format!("icecore {command}")))
}

fn names_an_option(text: &str) -> bool {
    let is_option = |word: &str| {
        word.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '-')
            .strip_prefix("--")
            .is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
    };
    let has_words = text.split_whitespace().count() > 1;
    has_words
        && !OTHER_PROGRAMS.iter().any(|program| text.contains(program))
        && text.split_whitespace().any(is_option)
}

#[test]
fn the_library_does_not_name_the_command_line() {
    let mut hits = Vec::new();
    for (path, text) in files("src", "rs") {
        if path.starts_with("src/bin/") || is_of_tests(&path) {
            continue;
        }
        let code = text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        let has_other_options = FILES_OF_OTHER_OPTIONS
            .iter()
            .any(|other| path.starts_with(other));
        for string in comments_and_strings(code).1 {
            if string.text == KEY_SLOT_MARK {
                continue;
            }
            if names_a_command(&string.text) || !has_other_options && names_an_option(&string.text)
            {
                hits.push(format!("{path}:{}: {}", string.line, string.text));
            }
        }
    }
    assert!(
        hits.is_empty(),
        "{} strings:\n{}",
        hits.len(),
        hits.join("\n")
    );
}

#[test]
fn commands_and_options_are_known() {
    for text in [
        "run 'icecore verify' first",
        "set ICECORE_CACHE_DIR",
        "use --force to replace it",
        "accepted with (--accept)",
    ] {
        assert!(names_a_command(text) || names_an_option(text), "{text}");
    }
    for text in [
        "--format",
        "a dump of pg_dumpall without --clean",
        "icecore-cache-1",
        "an em -- dash",
        "the prune",
    ] {
        assert!(!names_a_command(text) && !names_an_option(text), "{text}");
    }
}
