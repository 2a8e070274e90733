//! Writes `icecore.toml` for a discovered node, with comments for the operator.

use std::fmt::Write;
use std::path::Path;

use super::discover::{FoundFiles, FoundTree, NodeDiscovery};
use super::kubo::PASSING;
use super::profile::SourceLocation;

/// The settings of the file apart from the node's parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TemplateSettings {
    /// The repository's address. If it is a path, it is absolute.
    pub repository: Option<String>,
    /// The id of the repository at that address, if it is known.
    pub repository_id: Option<String>,
    pub passphrase_file: Option<String>,
    pub passphrase_command: Option<String>,
    pub host: String,
    pub comments: TemplateComments,
}

/// Comments of the file that name commands, from the front end. Each is complete lines, or empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TemplateComments {
    /// The first lines: the file, and the commands that read it.
    pub head: &'static str,
    /// The commands that print the repository's id.
    pub repository_id: &'static str,
    /// The command that creates a key file if there is no passphrase.
    pub no_passphrase: &'static str,
    /// The effect of a dump that is smaller than its threshold.
    pub smallest: &'static str,
    /// The command that restores the repository of another kubo.
    pub other_ipfs: &'static str,
    /// The command that applies the retention.
    pub retention: &'static str,
}

/// Names of the sources, in the order of their capture.
const DATABASE: &str = "db";
const LOCAL_STORAGE: &str = "local-storage";
const IPFS: &str = "ipfs";
const KEYS: &str = "keys";
const CONFIG: &str = "config";
const COMPOSE: &str = "compose";

/// Paths to leave out of kubo's repository in addition to [`PASSING`]: its lock and addresses, and
/// unfinished files.
const IPFS_EXCLUDES: [&str; 7] = [
    "/repo.lock",
    "/api",
    "/gateway",
    "/datastore/LOCK",
    "/blocks/.temp/",
    "/blocks/*/put-*",
    "*.tmp",
];

const NO_REPOSITORY: &str = "\
# Where the backups go: the path of a directory, best on another machine's disk. Fill it in.
# repository = \"/mnt/backup/node\"
";

const NO_PASSPHRASE: &str = "\
# passphrase_file = \"/etc/icecore/passphrase\"
# passphrase_command = \"…\"
";

const HOST: &str = "\
# The snapshots' host name, to which 'latest' refers. A node that moves to another machine keeps it, and so its history.
";

const ORDER: &str = "
# Sources are captured in this order: the database first, the files after it, so that every file that the database
# references is captured.
";

const RETENTION: &str = "\
[retention]
keep_hourly = 48
keep_daily = 14
keep_weekly = 8
keep_monthly = \"all\"

# Commands around each backup, run without a shell; one, or a list. 'after' always runs, 'on_failure' after it
# for every exit code but 0. A [[source]] may have 'before' and 'after' too.
# [hooks]
# before = \"/usr/local/bin/before-backup\"
# after = \"/usr/local/bin/after-backup\"
# on_failure = \"/usr/local/bin/backup-failed\"
";

/// Renders the file.
pub fn render(node: &NodeDiscovery, settings: &TemplateSettings) -> String {
    let comments = &settings.comments;
    let mut out = String::from(comments.head);
    match &settings.repository {
        Some(repository) => {
            line(&mut out, "repository", &quoted(repository));
            out.push_str(comments.repository_id);
            match &settings.repository_id {
                Some(id) => line(&mut out, "repository_id", &quoted(id)),
                None => out.push_str("# repository_id = \"…\"\n"),
            }
        }
        None => out.push_str(NO_REPOSITORY),
    }

    match (&settings.passphrase_file, &settings.passphrase_command) {
        (Some(file), _) => line(&mut out, "passphrase_file", &quoted(file)),
        (None, Some(command)) => line(&mut out, "passphrase_command", &quoted(command)),
        (None, None) => {
            out.push_str(comments.no_passphrase);
            out.push_str(NO_PASSPHRASE);
        }
    }

    out.push_str(HOST);
    match settings.host.as_str() {
        "" => out.push_str("# host = \"node-1\"\n"),
        host => line(&mut out, "host", &quoted(host)),
    }

    out.push_str(ORDER);
    database(&mut out, node, comments);
    storage(&mut out, node);
    other_ipfs(&mut out, node, comments);
    keys_and_config(&mut out, node);

    out.push('\n');
    out.push_str(comments.retention);
    out.push_str(RETENTION);
    parts(&mut out, node);
    out
}

fn database(out: &mut String, node: &NodeDiscovery, comments: &TemplateComments) {
    let Some(found) = &node.database else {
        missing(
            out,
            "The database was not found. Fill in its container, or without Docker an address and a port.",
            &[
                ("name", quoted(DATABASE)),
                ("kind", quoted("postgresql")),
                ("container", quoted("pyaleph-postgres-1")),
                ("user", quoted("aleph")),
            ],
        );
        return;
    };
    out.push_str("\n# The database, dumped inside its container, which needs no password. Without Docker: address, port and\n");
    out.push_str("# password_file (a file in the format of .pgpass) instead of 'container'.\n");
    source(out, DATABASE, "postgresql");
    line(out, "container", &quoted(&found.container));
    line(out, "user", &quoted(&found.user));
    out.push_str(comments.smallest);
    line(out, "smallest", &quoted("50%"));
}

fn storage(out: &mut String, node: &NodeDiscovery) {
    match &node.local_storage {
        Some(found) => {
            out.push_str("\n# pyaleph's files, named by their hashes. A name that was captured once is not read again.\n");
            source(out, LOCAL_STORAGE, "tree");
            place(out, found);
            immutable(out, node);
            line(out, "exclude", &list(["*.tmp"]));
        }
        None => missing(
            out,
            "pyaleph's files (/var/lib/pyaleph in its container) were not found. Fill in the volume, or a path.",
            &tree(LOCAL_STORAGE, "volume", "pyaleph_pyaleph-local-storage"),
        ),
    }

    match &node.ipfs {
        Some(found) => {
            out.push_str("\n# kubo's repository: its blocks are named by their hashes; its lock, unfinished files and files that it\n# recreates by itself are left out.\n");
            source(out, IPFS, "tree");
            place(out, found);
            immutable(out, node);
            line(
                out,
                "exclude",
                &list(IPFS_EXCLUDES.into_iter().chain(PASSING)),
            );
        }
        None => missing(
            out,
            "kubo's repository (/data/ipfs in its container) was not found. Fill in the volume, or a path.",
            &tree(IPFS, "volume", "pyaleph_pyaleph-ipfs"),
        ),
    }
}

/// Writes the repositories of other kubo services. A restore of the node does not treat them as
/// parts of it.
fn other_ipfs(out: &mut String, node: &NodeDiscovery, comments: &TemplateComments) {
    for (number, found) in node.other_ipfs.iter().enumerate() {
        out.push('\n');
        out.push_str(comments.other_ipfs);
        source(out, &format!("{IPFS}-{}", number + 2), "tree");
        place(out, found);
        immutable(out, node);
        line(
            out,
            "exclude",
            &list(IPFS_EXCLUDES.into_iter().chain(PASSING)),
        );
    }
}

fn keys_and_config(out: &mut String, node: &NodeDiscovery) {
    match &node.keys {
        Some(found) => {
            out.push_str(
                "\n# The node's keys never change: one that did, or is missing, is an alarm (exit code 5).\n",
            );
            source(out, KEYS, "tree");
            place(out, found);
            line(out, "unchanged", &quoted("alarm"));
        }
        None => missing(
            out,
            "The directory with the node's keys was not found. Fill it in: without the keys the node's identity is lost.",
            &tree(KEYS, "path", "/opt/pyaleph/keys"),
        ),
    }

    match &node.config {
        Some(found) => {
            out.push_str(
                "\n# The configuration, and what compose needs to start the node again.\n",
            );
            files(out, CONFIG, found);
        }
        None => {
            let mut lines = tree(CONFIG, "path", "/opt/pyaleph");
            lines.push(("only", list(["config.yml"])));
            missing(
                out,
                "The directory with config.yml was not found. Fill it in.",
                &lines,
            );
        }
    }

    if let Some(found) = &node.compose {
        out.push_str("\n# What compose needs to start the node again.\n");
        files(out, COMPOSE, found);
    }
}

/// Writes the table that assigns sources to the parts of the node.
fn parts(out: &mut String, node: &NodeDiscovery) {
    out.push_str("\n# Which source is which part of the node, and the containers that must not run during a restore.\n");
    out.push_str("[node]\n");
    let parts = [
        ("database", DATABASE, node.database.is_some()),
        ("local_storage", LOCAL_STORAGE, node.local_storage.is_some()),
        ("ipfs", IPFS, node.ipfs.is_some()),
        ("keys", KEYS, node.keys.is_some()),
        ("config", CONFIG, node.config.is_some()),
    ];
    for (key, name, is_there) in parts {
        if !is_there {
            out.push_str("# ");
        }
        line(out, key, &quoted(name));
    }

    line(out, "project", &quoted(&node.project));
    line(
        out,
        "writers",
        &list(node.writers.iter().map(String::as_str)),
    );
}

fn source(out: &mut String, name: &str, kind: &str) {
    out.push_str("[[source]]\n");
    line(out, "name", &quoted(name));
    line(out, "kind", &quoted(kind));
}

fn place(out: &mut String, found: &FoundTree) {
    match &found.place {
        SourceLocation::Volume(name) => line(out, "volume", &quoted(name)),
        SourceLocation::Path(path) => line(out, "path", &path_text(path)),
    }
}

fn files(out: &mut String, name: &str, found: &FoundFiles) {
    source(out, name, "tree");
    line(out, "path", &path_text(&found.directory));
    line(out, "only", &list(found.names.iter().map(String::as_str)));
}

fn immutable(out: &mut String, node: &NodeDiscovery) {
    line(out, "immutable", "true");
    // A key may not name a source that was not found: the file does not have it.
    if node.database.is_none() {
        out.push_str("# ");
    }
    line(out, "not_older_than", &quoted(DATABASE));
}

fn tree(name: &str, place: &'static str, value: &str) -> Vec<(&'static str, String)> {
    vec![
        ("name", quoted(name)),
        ("kind", quoted("tree")),
        (place, quoted(value)),
    ]
}

/// Writes a source that was not found, as a comment.
fn missing(out: &mut String, why: &str, lines: &[(&str, String)]) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "\n# {why}");
    let _ = writeln!(out, "# [[source]]");
    for (key, value) in lines {
        out.push_str("# ");
        line(out, key, value);
    }
}

fn line(out: &mut String, key: &str, value: &str) {
    let _ = writeln!(out, "{key} = {value}");
}

fn path_text(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<String> = texts.into_iter().map(quoted).collect();
    format!("[{}]", texts.join(", "))
}

/// Returns the text as a basic string of TOML, always on one line.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::ccn::discover::FoundDatabase;

    fn node() -> NodeDiscovery {
        let volume = |name: &str| {
            Some(FoundTree {
                place: SourceLocation::Volume(name.into()),
                service: Some("x".into()),
                directory: None,
            })
        };
        let keys = PathBuf::from("/opt/no\"de/keys");
        NodeDiscovery {
            project: "pyaleph".into(),
            database: Some(FoundDatabase {
                service: "postgres".into(),
                container: "pyaleph-postgres-1".into(),
                state: None,
                user: "al\\eph\u{7f}\n".into(),
                database: "aleph".into(),
                data: None,
            }),
            local_storage: volume("p_local"),
            ipfs: volume("p_ipfs"),
            keys: Some(FoundTree {
                place: SourceLocation::Path(keys.clone()),
                service: None,
                directory: Some(keys),
            }),
            config: Some(FoundFiles {
                directory: "/opt/node".into(),
                names: vec!["config.yml".into()],
            }),
            writers: vec!["pyaleph-ipfs-1".into(), "a".into()],
            ..NodeDiscovery::default()
        }
    }

    fn read(text: &str) -> toml::Table {
        text.parse().unwrap_or_else(|err| panic!("{err}\n{text}"))
    }

    #[test]
    fn found_parts_are_written_in_their_order() {
        let settings = TemplateSettings {
            repository: Some("s3://b/p".into()),
            ..TemplateSettings::default()
        };
        let table = read(&render(&node(), &settings));
        assert_eq!(table["repository"].as_str(), Some("s3://b/p"));
        let sources = table["source"].as_array().expect("sources");
        let names: Vec<&str> = sources
            .iter()
            .filter_map(|source| source["name"].as_str())
            .collect();
        assert_eq!(names, ["db", "local-storage", "ipfs", "keys", "config"]);
        assert_eq!(sources[0]["user"].as_str(), Some("al\\eph\u{7f}\n"));
        assert_eq!(sources[1]["not_older_than"].as_str(), Some("db"));
        assert_eq!(sources[2]["exclude"].as_array().map(Vec::len), Some(10));
        assert_eq!(sources[3]["path"].as_str(), Some("/opt/no\"de/keys"));
        assert_eq!(sources[3]["unchanged"].as_str(), Some("alarm"));
        assert_eq!(table["node"]["writers"][1].as_str(), Some("a"));
        assert_eq!(table["retention"]["keep_hourly"].as_integer(), Some(48));
    }

    #[test]
    fn parts_that_were_not_found_are_comments() {
        let text = render(
            &NodeDiscovery {
                project: "p".into(),
                ..NodeDiscovery::default()
            },
            &TemplateSettings::default(),
        );
        let table = read(&text);
        assert!(!table.contains_key("source") && !table.contains_key("repository"));
        assert_eq!(table["node"].as_table().map(toml::Table::len), Some(2));
        // Without the comment signs, the file would be complete.
        for name in ["db", "local-storage", "ipfs", "keys", "config"] {
            assert!(text.contains(&format!("# name = \"{name}\"")), "{name}");
        }
        let only_files = NodeDiscovery {
            database: None,
            ..node()
        };
        let table = read(&render(&only_files, &TemplateSettings::default()));
        assert!(table["source"][0].get("not_older_than").is_none());
    }

    #[test]
    fn any_text_stays_one_string() {
        for text in [
            "",
            "a\"b",
            "a\\",
            "\u{1}\u{7f}\u{85}\r\n\t",
            "é…",
            "'''",
            "# x",
        ] {
            let table = read(&format!("x = {}\n", quoted(text)));
            assert_eq!(table["x"].as_str(), Some(text));
        }
    }
}
