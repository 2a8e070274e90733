//! Explains why a snapshot has no path of some name.

use crate::Error;
use crate::advice::{Advice, SnapshotAdvice};
use crate::format::{SourceKind, SourceRecord};
use crate::read::tree::TreeReader;
use crate::repo::{ChunkReader, OnDamage};
use crate::types::{Node, RelPath, SnapshotId};

/// Returns the error for a path that the source does not have in this snapshot. It names the
/// obstacle, a file or a link among the path's directories, or advises to list the last of its
/// directories that exists.
pub(super) fn no_path(
    reader: &ChunkReader<'_>,
    snapshot: SnapshotId,
    source: &SourceRecord,
    path: &RelPath,
) -> Error {
    let nearest = match &source.kind {
        SourceKind::Stream { .. } => {
            Nearest::Obstacle("it is a stream, and nothing is below it".to_owned())
        }
        SourceKind::Tree { .. } => std::iter::successors(path.parent(), RelPath::parent)
            .find_map(|above| existing(reader, source, above))
            .unwrap_or(Nearest::Directory(RelPath::root())),
    };
    let (why, advice) = match nearest {
        Nearest::Obstacle(why) => (Some(why), None),
        Nearest::Directory(directory) => (None, Some(list(snapshot, source, &directory))),
    };
    Error::NoPath {
        source: source.name.clone(),
        path: path.clone(),
        why,
        advice: advice.map(Box::new),
    }
}

/// The nearest ancestor of a path that exists.
enum Nearest {
    /// A description of an ancestor that is not a directory.
    Obstacle(String),
    Directory(RelPath),
}

/// Returns an ancestor of the path. `None` if it does not exist either, or cannot be read.
fn existing(reader: &ChunkReader<'_>, source: &SourceRecord, above: RelPath) -> Option<Nearest> {
    let SourceKind::Tree { runs, .. } = &source.kind else {
        return None;
    };
    let entry = TreeReader::open(reader, runs, OnDamage::Skip)
        .ok()?
        .entry_at(&above)
        .ok()??;
    if entry.is_directory() {
        return Some(Nearest::Directory(above));
    }
    Some(Nearest::Obstacle(match &entry.node {
        Node::Symlink { .. } => format!("'{above}' is a symbolic link, which is not followed"),
        Node::Failed { .. } => format!("'{above}' could not be read when it was backed up"),
        _ => format!("'{above}' is not a directory"),
    }))
}

/// Returns the advice to list a directory of the source.
fn list(snapshot: SnapshotId, source: &SourceRecord, directory: &RelPath) -> Advice {
    let below = if directory.is_root() {
        String::new()
    } else {
        format!("/{directory}")
    };
    let place = format!("{}:{}{below}", snapshot.short(), source.name);
    Advice::Snapshot(SnapshotAdvice::ListPaths { place })
}
