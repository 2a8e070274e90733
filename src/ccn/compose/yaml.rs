//! Parses YAML into a tree of text with line numbers. Memory and depth are bounded: a hostile file
//! costs no more than an honest one of the same size.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

/// Upper limit of nested collections, including those from aliases.
const DEPTH_MAX: usize = 64;
/// Cost of a node in addition to the bytes of its text.
const NODE_COST: usize = 64;
/// Upper limit of the cost of all nodes, including copies made for aliases.
const COST_MAX: usize = 16 << 20;

/// The reason why a text cannot be parsed, and the line of the error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct YamlError {
    pub line: usize,
    pub why: String,
}

/// How a tag merges a value with an earlier file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum MergeRule {
    #[default]
    Usual,
    /// `!reset`: the value of an earlier file is removed, and this one is ignored.
    Reset,
    /// `!override`: this value replaces that of an earlier file.
    Override,
}

/// A value and its first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct YamlNode {
    pub line: usize,
    pub merging: MergeRule,
    pub value: YamlValue,
}

/// A value. Scalars are text, even where YAML has another type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum YamlValue {
    Null,
    Text(String),
    List(Vec<YamlNode>),
    Map(Vec<YamlEntry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct YamlEntry {
    pub key: String,
    pub line: usize,
    pub value: YamlNode,
}

impl YamlNode {
    /// Returns the entry of a key; `None` if there is no such key or the node is not a map.
    pub fn get(&self, key: &str) -> Option<&YamlEntry> {
        match &self.value {
            YamlValue::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }
}

/// Parses a text with one document; `None` if it is empty.
pub(super) fn read(text: &str) -> Result<Option<YamlNode>, YamlError> {
    let mut builder = YamlBuilder::default();
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|err| YamlError {
            line: err.marker().line(),
            why: format!("invalid YAML: {}", err.info()),
        })?;
        builder.event(event, span)?;
    }
    Ok(builder.document)
}

/// A collection whose end has not been reached.
struct OpenNode {
    line: usize,
    anchor: usize,
    merging: MergeRule,
    /// The cost of its nodes so far.
    cost: usize,
    /// The greatest depth of nested collections in its nodes.
    height: usize,
    nodes: YamlNodes,
}

enum YamlNodes {
    List(Vec<YamlNode>),
    Map {
        entries: Vec<YamlEntry>,
        seen: BTreeSet<String>,
        /// The key of the next value, with its line.
        key: Option<(String, usize)>,
        /// The maps to merge for `<<`.
        merged: Vec<YamlNode>,
    },
}

/// A node with its cost and its depth of nested collections.
#[derive(Clone)]
struct WeighedNode {
    node: YamlNode,
    cost: usize,
    height: usize,
}

#[derive(Default)]
struct YamlBuilder {
    document: Option<YamlNode>,
    open: Vec<OpenNode>,
    anchors: BTreeMap<usize, WeighedNode>,
    cost: usize,
}

impl YamlBuilder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref());
                let cost = NODE_COST + text.len();
                self.pay(cost, line)?;
                let node = YamlNode {
                    line,
                    merging: merging(tag.as_deref()),
                    value,
                };
                self.done(
                    WeighedNode {
                        node,
                        cost,
                        height: 0,
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, tag) => {
                self.begin(line, anchor, tag.as_deref(), YamlNodes::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let nodes = YamlNodes::Map {
                    entries: Vec::new(),
                    seen: BTreeSet::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.begin(line, anchor, tag.as_deref(), nodes)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(line),
            Event::Alias(anchor) => {
                let Some(cost) = self.anchors.get(&anchor).map(|found| found.cost) else {
                    return Err(wrong(line, "an alias within its own anchor"));
                };
                self.pay(cost, line)?;
                let mut copy = self.anchors[&anchor].clone();
                copy.node.line = line;
                self.place(copy)
            }
            Event::DocumentStart(_) if self.document.is_some() => {
                Err(wrong(line, "a second document begins; only one is read"))
            }
            _ => Ok(()),
        }
    }

    fn pay(&mut self, cost: usize, line: usize) -> Result<(), YamlError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > COST_MAX {
            return Err(wrong(
                line,
                "the file, or the expansion of its aliases, is too large",
            ));
        }
        Ok(())
    }

    fn begin(
        &mut self,
        line: usize,
        anchor: usize,
        tag: Option<&Tag>,
        nodes: YamlNodes,
    ) -> Result<(), YamlError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(line));
        }
        self.pay(NODE_COST, line)?;
        let merging = merging(tag);
        self.open.push(OpenNode {
            line,
            anchor,
            merging,
            cost: NODE_COST,
            height: 0,
            nodes,
        });
        Ok(())
    }

    fn end(&mut self, line: usize) -> Result<(), YamlError> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.nodes {
            YamlNodes::List(nodes) => YamlValue::List(nodes),
            YamlNodes::Map {
                mut entries,
                mut seen,
                merged,
                ..
            } => {
                for node in merged {
                    bring_in(node, &mut entries, &mut seen, line)?;
                }
                YamlValue::Map(entries)
            }
        };

        let node = YamlNode {
            line: open.line,
            merging: open.merging,
            value,
        };

        self.done(
            WeighedNode {
                node,
                cost: open.cost,
                height: open.height + 1,
            },
            open.anchor,
        )
    }

    /// Stores a copy of a node that has an anchor, and adds the node to its collection.
    fn done(&mut self, node: WeighedNode, anchor: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            self.pay(node.cost, node.node.line)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node)
    }

    fn place(&mut self, weighed: WeighedNode) -> Result<(), YamlError> {
        if self.open.len() + weighed.height > DEPTH_MAX {
            return Err(too_deep(weighed.node.line));
        }
        let Some(open) = self.open.last_mut() else {
            self.document = Some(weighed.node);
            return Ok(());
        };

        open.cost += weighed.cost;
        open.height = open.height.max(weighed.height);
        let node = weighed.node;

        match &mut open.nodes {
            YamlNodes::List(nodes) => nodes.push(node),
            YamlNodes::Map {
                entries,
                seen,
                key,
                merged,
            } => match key.take() {
                None => *key = Some((key_text(node.value, node.line)?, node.line)),
                Some((name, _)) if name == "<<" => merged.push(node),
                Some((name, line)) => {
                    if !seen.insert(name.clone()) {
                        return Err(wrong(line, format!("duplicate key '{}'", shown(&name))));
                    }
                    entries.push(YamlEntry {
                        key: name,
                        line,
                        value: node,
                    });
                }
            },
        }
        Ok(())
    }
}

/// Adds the entries that `<<` merges into a map. The map's own entries take precedence.
fn bring_in(
    node: YamlNode,
    entries: &mut Vec<YamlEntry>,
    seen: &mut BTreeSet<String>,
    line: usize,
) -> Result<(), YamlError> {
    let maps = match node.value {
        YamlValue::Map(_) => vec![node],
        YamlValue::List(nodes) => nodes,
        YamlValue::Null => Vec::new(),
        YamlValue::Text(_) => {
            return Err(wrong(
                node.line.min(line),
                "'<<' takes a map, or a list of maps",
            ));
        }
    };
    for map in maps {
        let YamlValue::Map(more) = map.value else {
            return Err(wrong(map.line, "'<<' takes a map, or a list of maps"));
        };
        for entry in more {
            if seen.insert(entry.key.clone()) {
                entries.push(entry);
            }
        }
    }
    Ok(())
}

fn key_text(value: YamlValue, line: usize) -> Result<String, YamlError> {
    match value {
        YamlValue::Text(text) => Ok(text),
        YamlValue::Null => Ok(String::new()),
        YamlValue::List(_) | YamlValue::Map(_) => Err(wrong(line, "a key must be a word")),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> YamlValue {
    let null = style == ScalarStyle::Plain
        && tag.is_none_or(|tag| !tag.is_yaml_core_schema())
        && matches!(text, "" | "~" | "null" | "Null" | "NULL");
    if null {
        YamlValue::Null
    } else {
        YamlValue::Text(text.to_owned())
    }
}

fn merging(tag: Option<&Tag>) -> MergeRule {
    match tag.map(|tag| (tag.handle.as_str(), tag.suffix.as_str())) {
        Some(("!", "reset")) => MergeRule::Reset,
        Some(("!", "override")) => MergeRule::Override,
        _ => MergeRule::Usual,
    }
}

fn wrong(line: usize, why: impl Into<String>) -> YamlError {
    YamlError {
        line,
        why: why.into(),
    }
}

fn too_deep(line: usize) -> YamlError {
    wrong(line, format!("more than {DEPTH_MAX} nested lists and maps"))
}

/// Returns at most 40 characters of a text, for messages.
pub(super) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> YamlNode {
        read(text).expect("YAML").expect("a document")
    }

    fn why(text: &str) -> (usize, String) {
        let err = read(text).expect_err("not read");
        (err.line, err.why)
    }

    fn text<'a>(node: &'a YamlNode, path: &[&str]) -> &'a str {
        let node = path
            .iter()
            .fold(node, |node, key| &node.get(key).expect("the key").value);
        match &node.value {
            YamlValue::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scalars_stay_text_and_lines_are_known() {
        let node =
            tree("---\na: 1\nb:\n  - yes\n  - '~'\n  - ~\nc: |\n  x\n  y\n'd': \"\\u00e9\"\n");
        assert_eq!(text(&node, &["a"]), "1");
        assert_eq!(text(&node, &["c"]), "x\ny\n");
        assert_eq!(text(&node, &["d"]), "é");
        let list = node.get("b").expect("b");
        let YamlValue::List(items) = &list.value.value else {
            panic!("{list:?}")
        };
        assert_eq!((list.line, items[0].line, items[2].line), (3, 4, 6));
        assert_eq!(items[1].value, YamlValue::Text("~".into()));
        assert_eq!(items[2].value, YamlValue::Null);
        assert_eq!(read("# nothing\n").expect("YAML"), None);
    }

    #[test]
    fn anchors_and_merge_keys_are_followed() {
        let node = tree(
            "x: &x {a: 1, b: 2}\ny: &y {a: 3, c: 4}\none:\n  <<: *x\n  b: 5\ntwo: {<<: [*y, *x], d: *x}\n",
        );
        assert_eq!(
            (text(&node, &["one", "a"]), text(&node, &["one", "b"])),
            ("1", "5")
        );
        assert_eq!(
            (text(&node, &["two", "a"]), text(&node, &["two", "b"])),
            ("3", "2")
        );
        assert_eq!(text(&node, &["two", "d", "b"]), "2");
        assert_eq!(
            node.get("one")
                .expect("one")
                .value
                .get("a")
                .map(|entry| entry.line),
            Some(1)
        );
    }

    #[test]
    fn tags_of_merging_are_kept() {
        let node = tree("a: !reset null\nb: !override [1]\nc: !other x\n");
        let merging = |key| node.get(key).expect("the key").value.merging;
        assert_eq!(
            [merging("a"), merging("b"), merging("c")],
            [MergeRule::Reset, MergeRule::Override, MergeRule::Usual]
        );
    }

    #[test]
    fn errors_name_their_line() {
        assert_eq!(why("a: 1\nb: [1, 2\nc: 3\n").0, 3);
        assert_eq!(why("a: 1\nb: 2\na: 3\n"), (3, "duplicate key 'a'".into()));
        assert_eq!(
            why("a: 1\n? [x]\n: y\n"),
            (2, "a key must be a word".into())
        );
        assert_eq!(why("a: 1\n---\nb: 2\n").0, 2);
        assert_eq!(
            why("a: 1\nb:\n  <<: text\n").1,
            "'<<' takes a map, or a list of maps"
        );
        assert!(why("a: &a [*a]\n").1.contains("within its own anchor"));
        assert!(why("a: *missing\n").1.contains("invalid YAML"));
    }

    #[test]
    fn hostile_files_end_early() {
        for deep in [
            "- ".repeat(1 << 19),
            "[".repeat(1 << 19),
            "{a: ".repeat(1 << 18),
            "? ".repeat(1 << 19),
        ] {
            why(&deep);
        }

        let staircase: String = (0..500)
            .map(|depth| format!("{}a:\n", " ".repeat(depth)))
            .collect();
        assert!(why(&staircase).1.contains("nested lists and maps"));

        // Each line expands to ten copies of the one before.
        let mut laughs = "a0: &a0 [lol, lol]\n".to_owned();
        for n in 1..20 {
            let ten = vec![format!("*a{}", n - 1); 10].join(", ");
            laughs.push_str(&format!("a{n}: &a{n} [{ten}]\n"));
        }
        assert!(why(&laughs).1.contains("is too large"));

        // Each line holds the one before in a list.
        let mut chain = "a0: &a0 [x]\n".to_owned();
        for n in 1..1000 {
            chain.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
        }
        assert!(why(&chain).1.contains("nested lists and maps"));

        let merges: String = (1..200)
            .map(|n| format!("m{n}: &m{n} {{<<: *m{}, k{n}: v}}\n", n - 1))
            .collect();
        assert!(read(&format!("m0: &m0 {{a: b}}\n{merges}")).is_err());
    }
}
