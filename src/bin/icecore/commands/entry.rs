//! Formats the entries of a tree for `ls` and `find`, for people.

use icecore::jobs::report::{entry_kind_name, flag_names, missing_names};
use icecore::types::{Entry, Node};

use crate::ui::text;

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
    let mut notes: Vec<String> = flag_names(entry).into_iter().map(str::to_owned).collect();
    notes.extend(missing_names(entry).map(|why| format!("partial: {why}")));
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
        None => format!("{} {name}", entry_kind_name(entry.kind())),
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
    use icecore::types::{EntryFlags, Metadata, RelPath};

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
}
