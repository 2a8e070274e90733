//! Entries and sources of a snapshot, as listings name them.

use serde::Serialize;

use super::value::{LinkTargetField, PathField, rfc3339};
use crate::format::{SourceKind, SourceRecord};
use crate::types::{Entry, EntryFlags, EntryKind, MissingNames, Node, Timestamp};

/// An entry. Keys that do not apply to its kind are absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "entry")]
pub struct EntryRecord {
    /// The snapshot, if a listing covers several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Name of the source.
    pub source: String,
    /// Relative to the source's root, which is the empty path.
    #[serde(flatten)]
    pub path: PathField,
    /// The kind, see [`entry_kind_name`].
    pub kind: &'static str,
    /// Plain size of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The 12 permission bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u16>,
    /// The owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Modification time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<String>,
    /// The target of a symbolic link.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub target: Option<LinkTargetField>,
    /// `stale`, `torn`, `provisional`; most entries have none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<&'static str>,
    /// Set if a directory held names that the snapshot lacks: `excluded` if only the rules of the
    /// backup left them out, otherwise `unseen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_names: Option<&'static str>,
    /// Why it could not be captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl EntryRecord {
    /// Creates the record of an entry. `snapshot` is set if there may be several.
    pub fn new(snapshot: Option<String>, source: &str, entry: &Entry) -> Self {
        let meta = entry.meta();
        Self {
            snapshot,
            source: source.to_owned(),
            path: PathField::new(&entry.path.to_slashed()),
            kind: entry_kind_name(entry.kind()),
            size: entry.content().map(|content| content.size),
            mode: meta.map(|meta| meta.mode),
            uid: meta.map(|meta| meta.owner.uid),
            gid: meta.map(|meta| meta.owner.gid),
            mtime: meta.and_then(|meta| rfc3339(meta.mtime)),
            target: match &entry.node {
                Node::Symlink { target, .. } => Some(LinkTargetField::new(target)),
                _ => None,
            },
            flags: flag_names(entry),
            missing_names: missing_names(entry),
            reason: match &entry.node {
                Node::Failed { reason } => Some(reason.clone()),
                _ => None,
            },
        }
    }
}

/// Returns the name of an entry's kind.
pub fn entry_kind_name(kind: Option<EntryKind>) -> &'static str {
    match kind {
        Some(EntryKind::File) => "file",
        Some(EntryKind::Directory) => "directory",
        Some(EntryKind::Symlink) => "symlink",
        Some(EntryKind::Fifo) => "fifo",
        Some(EntryKind::Socket) => "socket",
        Some(EntryKind::Char) => "char",
        Some(EntryKind::Block) => "block",
        Some(EntryKind::Failed) => "failed",
        Some(EntryKind::Removed) => "removed",
        None => "unknown",
    }
}

/// Returns the names of the flags of an entry that was not captured whole.
pub fn flag_names(entry: &Entry) -> Vec<&'static str> {
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

/// Returns why the snapshot lacks names of a directory, or `None` if it lacks none.
pub fn missing_names(entry: &Entry) -> Option<&'static str> {
    entry.missing_names().map(|why| match why {
        MissingNames::Excluded => "excluded",
        MissingNames::Unseen => "unseen",
    })
}

/// A source of a snapshot, as a listing of the snapshot names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "source")]
pub struct ListedSourceRecord {
    /// Name of the source.
    pub name: String,
    /// `tree` or `stream`.
    pub kind: &'static str,
    /// Plain size of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// `started`, or the time of the commit by the store's clock if they are more than a day apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// When the capture began, by the host's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Directories of a tree that held names that the snapshot lacks; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<u64>,
}

impl ListedSourceRecord {
    /// Creates the record of a source. `time`: the trusted time of its snapshot.
    pub fn new(source: &SourceRecord, time: Timestamp) -> Self {
        let (kind, size) = match &source.kind {
            SourceKind::Tree { .. } => ("tree", None),
            SourceKind::Stream { content, .. } => ("stream", Some(content.size)),
        };
        Self {
            name: source.name.clone(),
            kind,
            size,
            time: rfc3339(time),
            started: rfc3339(source.started),
            partial: source.counts.partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Metadata, RelPath};

    fn entry(path: &[u8], node: Node) -> Entry {
        Entry {
            path: RelPath::from_slashed(path).expect("a path"),
            flags: EntryFlags::empty(),
            node,
        }
    }

    #[test]
    fn keys_that_an_entry_does_not_have_are_absent() {
        let reason = "denied".to_owned();
        let failed = entry(b"a\xff", Node::Failed { reason });
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
            let record = EntryRecord::new(None, "home", &entry(b"l", node));
            serde_json::to_value(record).expect("JSON")
        };
        let odd = link(b"t\xfe");
        assert_eq!(
            (&odd["target"], &odd["target_hex"]),
            (&"t\u{fffd}".into(), &"74fe".into())
        );
        assert!(link(b"t").get("target_hex").is_none());
    }
}
