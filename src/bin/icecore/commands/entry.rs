//! Formats the entries of a tree for `ls` and `find`.

use icecore::types::{Entry, EntryFlags, MissingNames, Node};
use serde::Serialize;

use crate::ui::{json, text};

/// An entry as JSON. Fields that do not apply to its kind are absent.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "entry")]
pub struct EntryRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    source: String,
    /// Relative to the source's root, which is the empty path.
    #[serde(flatten)]
    path: json::PathField,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// The 12 permission bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// The target's bytes in hex if they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    /// `stale`, `torn`, `provisional`; most entries have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
    /// Set if a directory held names that the snapshot lacks: `excluded` if only the rules of the
    /// backup left them out, otherwise `unseen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl EntryRecord {
    /// Creates the record of an entry. `snapshot` is set if there may be several.
    pub fn new(snapshot: Option<String>, source: &str, entry: &Entry) -> Self {
        let meta = entry.meta();
        let target = match &entry.node {
            Node::Symlink { target, .. } => Some(json::PathField::new(target)),
            _ => None,
        };
        let (target, target_hex) =
            target.map_or((None, None), |field| (Some(field.path), field.path_hex));
        let reason = match &entry.node {
            Node::Failed { reason } => Some(reason.clone()),
            _ => None,
        };
        Self {
            snapshot,
            source: source.to_owned(),
            path: json::PathField::new(&entry.path.to_slashed()),
            kind: text::kind(entry.kind()),
            size: entry.content().map(|c| c.size),
            mode: meta.map(|m| m.mode),
            uid: meta.map(|m| m.owner.uid),
            gid: meta.map(|m| m.owner.gid),
            mtime: meta.and_then(|m| json::time(m.mtime)),
            target,
            target_hex,
            flags: flags(entry),
            partial: partial(entry),
            reason,
        }
    }
}

fn flags(entry: &Entry) -> Vec<&'static str> {
    let names = [
        (EntryFlags::STALE, "stale"),
        (EntryFlags::TORN, "torn"),
        (EntryFlags::PROVISIONAL, "provisional"),
    ];
    names
        .into_iter()
        .filter(|(flag, _)| entry.flags.contains(*flag))
        .map(|(_, name)| name)
        .collect()
}

fn partial(entry: &Entry) -> Option<&'static str> {
    entry.missing_names().map(|why| match why {
        MissingNames::Excluded => "excluded",
        MissingNames::Unseen => "unseen",
    })
}

/// Formats the path, and the reason why the snapshot does not fully have it.
pub fn why(source: &str, entry: &Entry) -> String {
    let mut line = short(source, entry);
    if let Node::Failed { reason } = &entry.node {
        line.push_str(&format!(": {}", text::clean(reason)));
    }
    push_notes(&mut line, entry);
    line
}

/// Appends the flags of an entry that is not fully captured.
fn push_notes(line: &mut String, entry: &Entry) {
    let mut notes: Vec<String> = flags(entry).into_iter().map(str::to_owned).collect();
    notes.extend(partial(entry).map(|why| format!("partial: {why}")));
    if !notes.is_empty() {
        line.push_str(&format!(" [{}]", notes.join(", ")));
    }
}

/// Returns `source/path`, as the command line takes it after `SNAP:`.
pub fn short(source: &str, entry: &Entry) -> String {
    if entry.path.is_root() {
        source.to_owned()
    } else {
        format!("{source}/{}", entry.path)
    }
}

/// Formats mode, owner, size, time and name like `ls -l`, with the flags of an entry that is not
/// fully captured.
pub fn long(source: &str, entry: &Entry) -> String {
    let name = short(source, entry);
    let mut line = match entry.meta() {
        Some(meta) => {
            let person = |name: &[u8], id: u32| match name {
                [] => id.to_string(),
                name => text::bytes(name),
            };
            let user = person(&meta.owner.user, meta.owner.uid);
            let group = person(&meta.owner.group, meta.owner.gid);
            let size = match &entry.node {
                Node::File { content, .. } => text::size(content.size),
                Node::Char { device, .. } | Node::Block { device, .. } => {
                    format!("{}, {}", device.major, device.minor)
                }
                _ => "-".to_owned(),
            };
            let mode = text::mode(entry.kind(), meta.mode);
            format!(
                "{mode} {user:<8} {group:<8} {size:>10} {} {name}",
                text::when(meta.mtime)
            )
        }
        None => format!("{} {name}", text::kind(entry.kind())),
    };

    match &entry.node {
        Node::Symlink { target, .. } => {
            line.push_str(" -> ");
            line.push_str(&text::bytes(target));
        }
        Node::Failed { reason } => line.push_str(&format!(": {}", text::clean(reason))),
        _ => {}
    }

    push_notes(&mut line, entry);
    line
}

#[cfg(test)]
mod tests {
    use icecore::types::{Metadata, RelPath};

    use super::*;

    fn entry(path: &[u8], flags: EntryFlags, node: Node) -> Entry {
        Entry {
            path: RelPath::from_slashed(path).expect("a path"),
            flags,
            node,
        }
    }

    #[test]
    fn an_entry_is_shown_without_steering_the_terminal() {
        let meta = Metadata {
            mode: 0o777,
            ..Metadata::default()
        };
        let link = entry(
            b"a/\x1b[2J",
            EntryFlags::STALE,
            Node::Symlink {
                meta,
                target: b"x\n".to_vec(),
            },
        );
        let shown = long("home", &link);
        assert!(shown.starts_with("lrwxrwxrwx 0 "), "{shown}");
        assert!(
            shown.ends_with("home/a/\\u{1b}[2J -> x\\n [stale]"),
            "{shown}"
        );

        let node = Node::Symlink {
            meta: Metadata::default(),
            target: b"t\xfe".to_vec(),
        };
        let odd = long("home", &entry(b"l", EntryFlags::empty(), node));
        assert!(odd.ends_with("home/l -> t\\xfe"), "{odd}");
        assert_eq!(
            short("home", &entry(b"", EntryFlags::empty(), Node::Removed)),
            "home"
        );
    }

    #[test]
    fn json_leaves_out_what_an_entry_does_not_have() {
        let failed = entry(
            b"a\xff",
            EntryFlags::empty(),
            Node::Failed {
                reason: "denied".to_owned(),
            },
        );
        let value = serde_json::to_value(EntryRecord::new(None, "home", &failed)).expect("JSON");
        let expected = serde_json::json!({
            "type": "entry", "source": "home", "path": "a\u{fffd}", "path_hex": "61ff", "kind": "failed",
            "reason": "denied",
        });
        assert_eq!(value, expected);

        let link = |target: &[u8]| {
            let node = Node::Symlink {
                meta: Metadata::default(),
                target: target.to_vec(),
            };
            serde_json::to_value(EntryRecord::new(
                None,
                "home",
                &entry(b"l", EntryFlags::empty(), node),
            ))
            .expect("JSON")
        };
        let odd = link(b"t\xfe");
        assert_eq!(
            (&odd["target"], &odd["target_hex"]),
            (&"t\u{fffd}".into(), &"74fe".into())
        );
        assert!(link(b"t").get("target_hex").is_none());
    }
}
