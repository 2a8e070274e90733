//! Sources in which nothing may change: a changed or missing path raises an alarm.

use std::sync::{Mutex, PoisonError};

use crate::observe::{Observer, Severity, Subject};
use crate::ops::backup::suspect::suspect_problem;
use crate::types::{Entry, Node, RelPath, to_u64};

/// Paths that the snapshot's verdict names.
const NAMED_MAX: usize = 8;

/// Returns false if the entry only records that a path existed, so no change can be detected.
pub(in crate::ops::backup) fn was_captured(previous: &Entry) -> bool {
    !matches!(previous.node, Node::Failed { .. } | Node::Unknown { .. })
}

/// Returns true if an entry that must not change has another kind, content, target or device
/// number. Other times, owners or inodes do not count: a restore, a copy to another disk or a
/// `chmod` does not change a key.
pub(super) fn is_other(previous: &Entry, now: &Entry) -> bool {
    match (&previous.node, &now.node) {
        _ if !was_captured(previous) => false,
        (Node::File { content: old, .. }, Node::File { content: new, .. }) => old != new,
        (Node::Symlink { target: old, .. }, Node::Symlink { target: new, .. }) => old != new,
        (Node::Char { device: old, .. }, Node::Char { device: new, .. })
        | (Node::Block { device: old, .. }, Node::Block { device: new, .. }) => old != new,
        (old, new) => std::mem::discriminant(old) != std::mem::discriminant(new),
    }
}

/// The changes that were seen, by several threads.
#[derive(Debug, Default)]
pub(in crate::ops::backup) struct ImmutableWatch(Mutex<SeenPaths>);

#[derive(Debug, Default)]
struct SeenPaths {
    count: u64,
    first: Vec<String>,
}

impl ImmutableWatch {
    /// Reports a path that changed or vanished. `what` is `changed`, `is missing` or the like.
    pub fn alarm(&self, observer: &dyn Observer, source: &str, path: &RelPath, what: &str) {
        let subject = Subject::captured(source, path);
        let message = format!("{what}, which must never happen");
        observer.problem(&suspect_problem(Severity::Alarm, source, subject, &message));
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.count += 1;
        if seen.first.len() < NAMED_MAX {
            seen.first.push(format!("{path} {what}"));
        }
    }

    /// Returns the text that marks the source as suspect in the snapshot, if anything changed.
    pub fn verdict(&self) -> Option<String> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.count == 0 {
            return None;
        }
        // Threads report in any order.
        seen.first.sort();
        let more = seen.count - to_u64(seen.first.len());
        let more = if more > 0 {
            format!(", and {more} more")
        } else {
            String::new()
        };
        Some(format!("{}{more}", seen.first.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Content, DeviceNumber, EntryFlags, Extent, Metadata};

    fn entry(node: Node) -> Entry {
        Entry {
            path: RelPath::root(),
            flags: EntryFlags::empty(),
            node,
        }
    }

    fn meta(mode: u16) -> Metadata {
        Metadata {
            mode,
            inode: u64::from(mode),
            ..Metadata::default()
        }
    }

    fn file(mode: u16, bytes: &[u8]) -> Node {
        let content = Content {
            size: to_u64(bytes.len()),
            extents: vec![Extent::Literal(bytes.to_vec())],
        };
        Node::File {
            meta: meta(mode),
            content,
        }
    }

    #[test]
    fn a_change_is_one_of_kind_content_target_or_device() {
        let link = |mode, target: &[u8]| Node::Symlink {
            meta: meta(mode),
            target: target.to_vec(),
        };
        let device = |minor| DeviceNumber { major: 1, minor };
        let made = |mode, minor| Node::Char {
            meta: meta(mode),
            device: device(minor),
        };
        for (old, same, other) in [
            (file(1, b"x"), file(2, b"x"), file(1, b"y")),
            (link(1, b"x"), link(2, b"x"), link(1, b"y")),
            (made(1, 3), made(2, 3), made(1, 4)),
            (
                Node::Fifo { meta: meta(1) },
                Node::Fifo { meta: meta(2) },
                Node::Socket { meta: meta(1) },
            ),
            (
                Node::Directory { meta: meta(1) },
                Node::Directory { meta: meta(2) },
                file(1, b""),
            ),
        ] {
            let [old, same, other] = [old, same, other].map(entry);
            assert!(!is_other(&old, &same) && is_other(&old, &other), "{old:?}");
        }
    }

    /// An unreadable key in the good capture that can be read now.
    #[test]
    fn a_path_that_was_never_captured_has_not_changed() {
        for node in [
            Node::Failed {
                reason: "denied".into(),
            },
            Node::Unknown {
                kind: 99,
                body: Vec::new(),
            },
        ] {
            let old = entry(node);
            assert!(!was_captured(&old) && !is_other(&old, &entry(file(1, b"x"))));
        }
    }
}
