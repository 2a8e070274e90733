//! Explains why a snapshot has no path of some name, and what to ask for instead.

use crate::Error;
use crate::format::{SourceKind, SourceRecord};
use crate::read::tree::TreeReader;
use crate::repo::ChunkReader;
use crate::types::{Node, RelPath, SnapshotId};

/// Returns the error for a path that the source does not have in this snapshot. It names the
/// obstacle: a file or a link among the path's directories, or the last of its directories that
/// exists.
pub(super) fn no_path(
    reader: &ChunkReader<'_>,
    snapshot: SnapshotId,
    source: &SourceRecord,
    path: &RelPath,
) -> Error {
    let why = match &source.kind {
        SourceKind::Stream { .. } => "it is a stream, and nothing is below it".to_owned(),
        SourceKind::Tree { .. } => std::iter::successors(path.parent(), RelPath::parent)
            .find_map(|above| in_the_way(reader, snapshot, source, &above))
            .unwrap_or_else(|| listed_by(snapshot, source, &RelPath::root())),
    };
    let source = &source.name;
    Error::NotThere(format!(
        "source '{source}' has no path '{path}' in this snapshot: {why}"
    ))
}

/// Describes an ancestor of the path. `None` if it does not exist either, or cannot be read.
fn in_the_way(
    reader: &ChunkReader<'_>,
    snapshot: SnapshotId,
    source: &SourceRecord,
    above: &RelPath,
) -> Option<String> {
    let SourceKind::Tree { runs, .. } = &source.kind else {
        return None;
    };
    let entry = TreeReader::open(reader, runs, true)
        .ok()?
        .entry_at(above)
        .ok()??;
    match &entry.node {
        Node::Symlink { .. } => Some(format!(
            "'{above}' is a symbolic link, which is not followed"
        )),
        Node::Failed { .. } => Some(format!("'{above}' could not be read when it was backed up")),
        _ if entry.is_directory() => Some(listed_by(snapshot, source, above)),
        _ => Some(format!("'{above}' is not a directory")),
    }
}

fn listed_by(snapshot: SnapshotId, source: &SourceRecord, path: &RelPath) -> String {
    let below = if path.is_root() {
        String::new()
    } else {
        format!("/{path}")
    };
    format!(
        "'icecore ls {}:{}{below}' lists the existing paths",
        snapshot.short(),
        source.name
    )
}
