//! Reads the tables of `docs/json.md`, and compares objects with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// A key of an object as the page describes it.
#[derive(Debug, Clone)]
pub(crate) struct PageKey {
    /// `integer`, `array of strings` and so on; empty if the page refers to another table.
    kind: String,
    /// The page says when the key is absent.
    is_optional: bool,
}

/// The keys of an object.
pub(crate) type PageObject = BTreeMap<String, PageKey>;

/// The objects of the page, by section and name. The name has the words in backticks that stand
/// before the keys, such as `summary init`; it is empty for the only object of a section.
pub(crate) struct JsonPage {
    pub(crate) objects: BTreeMap<(String, String), PageObject>,
}

impl JsonPage {
    /// Reads the page.
    pub(crate) fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
        let text = std::fs::read_to_string(path).expect("the page");
        let mut objects: BTreeMap<(String, String), PageObject> = BTreeMap::new();

        let mut section = String::new();
        let mut table: Option<PageTable> = None;
        for line in text.lines() {
            if let Some(title) = line.trim_start_matches('#').strip_prefix(' ')
                && line.starts_with("##")
            {
                section = title.to_owned();
            }
            if !line.starts_with('|') {
                table = None;
                continue;
            }
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let Some(table) = &mut table else {
                table = Some(PageTable::new(&section, &cells));
                continue;
            };
            for (name, key, value) in table.row(&cells) {
                let object = objects.entry((section.clone(), name)).or_default();
                assert!(object.insert(key, value).is_none(), "twice: {line}");
            }
        }
        Self { objects }
    }

    /// Returns the object of a line in a section, if the page has it.
    fn find(&self, section: &str, is_it: impl Fn(&str) -> bool) -> Option<&PageObject> {
        self.objects
            .iter()
            .find(|((of, name), _)| of == section && is_it(name))
            .map(|(_, object)| object)
    }

    /// Checks that a line that a command printed has the keys of the page. `section`: that of the
    /// command.
    pub(crate) fn check_line(&self, section: &str, line: &Value) {
        let kind = line["type"].as_str().expect("a type");
        let mut expected = PageObject::new();
        let mut add = |object: Option<&PageObject>| match object {
            Some(object) => expected.extend(object.clone()),
            None => panic!("{section} has no table for {line}"),
        };
        match kind {
            "progress" | "problem" | "detail" | "planned" => add(self.find(kind, str::is_empty)),
            "error" => add(self.find("summary and error", |name| name == "error")),
            "summary" => {
                let command = line["command"].as_str().expect("a command");
                add(self.find("summary and error", |name| name == "summary"));
                add(self.find(section, |name| is_summary_of(name, command)));
            }
            _ => add(self.find(section, |name| name.is_empty() || name == kind)),
        }
        if kind == "progress" || line["command"] == "backup" {
            add(self.find("Counters", str::is_empty));
        }
        assert_keys(&format!("{section}: {line}"), line, &expected, false);
    }
}

/// Returns true if the object with this name describes the summary of a command.
fn is_summary_of(name: &str, command: &str) -> bool {
    let words: BTreeSet<&str> = name.split(' ').collect();
    let is_of_command = command.split(' ').all(|word| words.contains(word));
    name.is_empty() || name == "summary" || (name.starts_with("summary ") && is_of_command)
}

/// A table of the page. Only tables with a column `type` describe keys, and that of the counters.
struct PageTable {
    /// The column of the types. The keys stand before it.
    type_column: Option<usize>,
    /// All keys are integers, and stand in the first column.
    is_of_counters: bool,
    name: String,
    /// The name that the heading gives to all rows.
    heading: String,
}

impl PageTable {
    fn new(section: &str, cells: &[&str]) -> Self {
        Self {
            type_column: cells.iter().position(|cell| *cell == "type"),
            is_of_counters: section == "Counters",
            name: String::new(),
            heading: words_in_backticks(cells[0]).join(" "),
        }
    }

    /// Returns the name of the object, the key and its description for each key of a row.
    fn row(&mut self, cells: &[&str]) -> Vec<(String, String, PageKey)> {
        if cells[0].starts_with("---") {
            return Vec::new();
        }
        let (keys, types, meaning) = match (self.is_of_counters, self.type_column) {
            (true, _) => (cells[0], "integer", cells[1]),
            (false, Some(column)) => (cells[column - 1], cells[column], cells[column + 1]),
            (false, None) => return Vec::new(),
        };

        if self.type_column == Some(2) && !cells[0].is_empty() {
            let own = words_in_backticks(cells[0]).join(" ");
            self.name = format!("{} {own}", self.heading).trim().to_owned();
        } else if self.type_column == Some(1) {
            self.name.clone_from(&self.heading);
        }

        let kinds: Vec<&str> = types.split(", ").collect();
        let is_optional = meaning.contains("absent") || meaning.contains("only ");
        words_in_backticks(keys)
            .into_iter()
            .enumerate()
            .map(|(number, key)| {
                let kind = kinds.get(number).or(kinds.last()).unwrap_or(&"");
                let kind = (*kind).to_owned();
                (self.name.clone(), key, PageKey { kind, is_optional })
            })
            .collect()
    }
}

fn words_in_backticks(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Asserts that an object has the expected keys with values of their types. Fully filled samples
/// have all of them.
pub(crate) fn assert_keys(what: &str, value: &Value, expected: &PageObject, is_full: bool) {
    let object = value.as_object().expect("an object");
    for (key, value) in object {
        let is_twin = key
            .strip_suffix("_hex")
            .and_then(|key| expected.get(key))
            .is_some_and(|key| key.kind == "path");
        if key == "type" || is_twin {
            continue;
        }
        let Some(described) = expected.get(key) else {
            panic!("docs/json.md does not have '{key}' of {what}");
        };
        assert!(
            has_kind(value, &described.kind),
            "{what}: '{key}' is {value}, not {}",
            described.kind
        );
    }
    for (key, described) in expected {
        assert!(
            object.contains_key(key) || (described.is_optional && !is_full),
            "{what} lacks '{key}' of docs/json.md"
        );
    }
}

fn has_kind(value: &Value, kind: &str) -> bool {
    match kind {
        "" => true,
        "integer" | "bytes" => value.is_u64(),
        "number" => value.is_f64(),
        "boolean" => value.is_boolean(),
        "string" | "text" | "path" | "id" | "time" => value.is_string(),
        "object" | "amount" => value.is_object(),
        kind => kind.starts_with("array of ") && value.is_array(),
    }
}

/// A key that means the same everywhere has one type everywhere.
#[test]
fn a_key_has_one_type_on_the_whole_page() {
    /// Plural nouns are lists where their members stand, and counts elsewhere.
    const LISTS_AND_COUNTS: &[&str] = &["sources", "pins", "vanished_snapshots"];
    /// The amounts of a prune are objects. Other commands count snapshots, and `live` of
    /// `node check` is its option.
    const AMOUNTS: &[&str] = &["copied", "dropped", "live"];
    /// The name of a command, and the words of a stream's command.
    const COMMANDS: &[&str] = &["command"];
    /// The object of `node init` has the name in it.
    const OBJECTS: &[&str] = &["database"];

    let page = JsonPage::read();
    let mut kinds: BTreeMap<&String, BTreeSet<&str>> = BTreeMap::new();
    for (key, described) in page.objects.values().flatten() {
        let kind = match described.kind.as_str() {
            "" => continue,
            "integer" | "bytes" => "integer",
            "string" | "text" | "id" | "path" => "string",
            kind if kind.starts_with("array") => "array",
            kind => kind,
        };
        kinds.entry(key).or_default().insert(kind);
    }
    let several: Vec<&String> = kinds
        .into_iter()
        .filter(|(key, kinds)| {
            let is_known = [LISTS_AND_COUNTS, AMOUNTS, COMMANDS, OBJECTS]
                .iter()
                .any(|keys| keys.contains(&key.as_str()));
            kinds.len() > 1 && !is_known
        })
        .map(|(key, _)| key)
        .collect();
    assert!(several.is_empty(), "several types: {several:?}");
}
