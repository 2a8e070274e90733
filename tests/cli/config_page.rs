//! `docs/configuration.md` describes exactly the keys that `icecore.toml` may have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use icecore::jobs::config::{Config, EffectiveConfig};

/// Tables of the file by the headings of the page, each with the beginning of a file to which a key
/// of the table can be added.
const TABLES: [(&str, &str); 10] = [
    ("## Top level", ""),
    ("## `[backup]`", "[backup]\n"),
    ("## `[[source]]`", ""),
    (
        "### kind = \"tree\"",
        "[[source]]\nname = \"a\"\nkind = \"tree\"\n",
    ),
    (
        "### kind = \"command\"",
        "[[source]]\nname = \"a\"\nkind = \"command\"\n",
    ),
    (
        "### kind = \"postgresql\"",
        "[[source]]\nname = \"a\"\nkind = \"postgresql\"\n",
    ),
    ("## `[retention]`", "[retention]\n"),
    ("## `[prune]`", "[prune]\n"),
    ("## `[verify]`", "[verify]\n"),
    ("## `[hooks]`", "[hooks]\n"),
];

/// The last table of the page.
const NODE: (&str, &str) = ("## `[node]`", "[node]\n");

/// The heading of the keys that all sources have.
const ALL_SOURCES: &str = "## `[[source]]`";

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    std::fs::read_to_string(path).expect("the page")
}

/// Returns the keys of the page's tables by heading.
fn keys_of_page() -> BTreeMap<String, BTreeSet<String>> {
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut heading = String::new();
    for line in page().lines() {
        if line.starts_with('#') {
            heading = line.to_owned();
        }
        let key = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split('`').next());
        if let Some(key) = key {
            let is_new = keys
                .entry(heading.clone())
                .or_default()
                .insert(key.to_owned());
            assert!(is_new, "{heading}: `{key}` stands there twice");
        }
    }
    keys
}

/// Returns the keys that a table may have, as the error about an unknown key names them.
fn known_keys(start: &str) -> BTreeSet<String> {
    let text = format!("{start}no_such_key = 1\n");
    let err = Config::parse(Path::new("/icecore.toml"), &text, None).expect_err("an unknown key");
    let (_, keys) = err
        .why
        .split_once("the keys here are ")
        .expect("the known keys");
    keys.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_page_has_the_keys_of_the_file() {
    let page = keys_of_page();
    let all_sources = &page[ALL_SOURCES];
    let mut headings: BTreeSet<&str> = BTreeSet::new();
    for (heading, start) in TABLES.into_iter().chain([NODE]) {
        headings.insert(heading);
        let mut keys = page[heading].clone();
        match heading {
            ALL_SOURCES => continue,
            // Each table has a section of its own.
            "## Top level" => keys.extend(
                [
                    "backup",
                    "hooks",
                    "node",
                    "prune",
                    "retention",
                    "source",
                    "verify",
                ]
                .map(str::to_owned),
            ),
            kind if kind.starts_with("### kind") => keys.extend(all_sources.iter().cloned()),
            _ => {}
        }
        assert_eq!(keys, known_keys(start), "{heading}");
    }
    let found: BTreeSet<&str> = page.keys().map(String::as_str).collect();
    assert_eq!(found, headings);
}

#[test]
fn the_examples_of_the_page_are_accepted() {
    let page = page();
    let blocks: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!blocks.is_empty(), "no example");
    let known = keys_of_page();
    for block in blocks {
        let config = Config::parse(Path::new("/etc/icecore/icecore.toml"), block, None);
        let config = config.unwrap_or_else(|err| panic!("{err}\n{block}"));
        assert!(
            !config.sources.is_empty() && !config.retention.is_empty(),
            "{block}"
        );

        // What `config show` prints has the names of the page.
        for setting in EffectiveConfig::new(&config, Vec::new()).settings {
            let (heading, key) = match setting.key.split_once('.') {
                Some((table, key)) => (format!("## `[{table}]`"), key),
                None => ("## Top level".to_owned(), setting.key),
            };
            assert!(known[&heading].contains(key), "{heading}: {key}");
        }
    }
}
