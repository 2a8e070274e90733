//! Links: rules that comments cite exist, and links between documents lead to a file and a heading.

use std::collections::BTreeSet;
use std::path::Path;

use super::words::files;

/// The anchor that a forge makes of a heading: lower case, blanks as `-`, no punctuation.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// The anchors of a document's headings, outside of code blocks.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let mut out = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if line.starts_with('#') && !is_code {
            out.insert(anchor(line));
        }
    }
    out
}

/// The targets of the links in a text: what stands in `](…)`, without links to other hosts.
fn targets(text: &str) -> Vec<&str> {
    let links = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    links
        .filter(|target| !target.contains("://") && !target.is_empty())
        .collect()
}

/// Why a link in the file at `path` leads nowhere, if so.
fn broken(root: &Path, path: &str, target: &str) -> Option<String> {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    // Comments give paths from the root, documents from their own directory.
    let from = if path.ends_with(".rs") {
        Path::new("")
    } else {
        Path::new(path).parent()?
    };
    let to = if file.is_empty() {
        root.join(path)
    } else {
        root.join(from).join(file)
    };
    if !to.exists() {
        return Some(format!("{path}: no file {target}"));
    }
    if heading.is_empty() {
        return None;
    }
    let text = std::fs::read_to_string(&to).unwrap_or_default();
    (!anchors(&text).contains(heading)).then(|| format!("{path}: no heading {target}"))
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut cited = 0;

    for directory in ["src", "tests"] {
        for (path, text) in files(directory, "rs")
            .iter()
            .filter(|(path, _)| !path.contains("tidy/"))
        {
            let documents = targets(text)
                .into_iter()
                .filter(|target| target.starts_with("docs/"));
            for target in documents {
                cited += 1;
                found.extend(broken(root, path, target));
            }
            if text.contains("PROTOCOL") {
                found.push(format!(
                    "{path}: rules are cited as [R7](docs/protocol.md#r7)"
                ));
            }
        }
    }
    assert!(cited > 20, "only {cited} citations found");

    let mut documents = files("docs", "md");
    for name in [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    ] {
        let text = std::fs::read_to_string(root.join(name)).expect("a document");
        documents.push((name.to_owned(), text));
    }
    for (path, text) in &documents {
        // Code is no link.
        let prose: String = text.split('`').step_by(2).collect();
        found.extend(
            targets(&prose)
                .into_iter()
                .filter_map(|target| broken(root, path, target)),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn anchors_are_those_of_a_forge() {
    assert_eq!(
        anchor("## A node's backup and restore"),
        "a-nodes-backup-and-restore"
    );
    assert_eq!(anchor("### R7"), "r7");
    assert_eq!(anchors("# One\n```\n# no\n```\n## Two, three\n").len(), 2);
    assert_eq!(
        targets("a [b](c.md#d) and [e](https://f) [g](#h)"),
        ["c.md#d", "#h"]
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(broken(root, "src/lib.rs", "docs/protocol.md#r99").is_some());
    assert!(broken(root, "docs/format.md", "none.md").is_some());
    assert_eq!(broken(root, "src/lib.rs", "docs/protocol.md#r7"), None);
}
