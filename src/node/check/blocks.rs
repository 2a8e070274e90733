//! The block layout of the kubo repository to check.

use super::{Against, Surroundings};
use crate::Error;
use crate::format::{RunRef, SourceKind, SourceRecord};
use crate::node::NodeError;
use crate::node::kubo::{Blocks, FILE_BYTES_MAX, SHARDING, SPEC};
use crate::node::profile::Part;
use crate::observe::Counters;
use crate::ops::Cancel;
use crate::ops::content::write_content;
use crate::repo::{ChunkReader, MergedRuns, Streams};
use crate::types::{Node, RelPath};

impl Surroundings<'_> {
    /// Determines the block layout from the snapshot or from the live directory. If there is
    /// neither, it is the default one.
    pub(super) fn blocks(&self, part: Option<&Part>) -> Result<Blocks, NodeError> {
        let Some(part) = part else {
            return Ok(Blocks::default());
        };
        match self.against {
            Against::Live { .. } => Ok(self
                .directory(|directories| &directories.ipfs)
                .map_or_else(Blocks::default, Blocks::at)),
            Against::Snapshot => match self.found.snapshot.source(&part.source) {
                Some(SourceRecord {
                    kind: SourceKind::Tree { runs, .. },
                    ..
                }) => Ok(stored_blocks(self.reader, runs, self.cancel)?),
                _ => Ok(Blocks::default()),
            },
        }
    }
}

/// Determines the block layout of a captured kubo repository.
pub(in super::super) fn stored_blocks(
    reader: &ChunkReader<'_>,
    runs: &[RunRef],
    cancel: &Cancel,
) -> Result<Blocks, Error> {
    let sharding = stored_file(reader, runs, SHARDING.as_bytes(), FILE_BYTES_MAX, cancel)?;
    let spec = stored_file(reader, runs, SPEC.as_bytes(), FILE_BYTES_MAX, cancel)?;
    Ok(Blocks::read(sharding.as_deref(), spec.as_deref()))
}

/// Returns a small file of a captured tree; `None` if it does not exist or has more than `longest`
/// bytes.
pub(in super::super) fn stored_file(
    reader: &ChunkReader<'_>,
    runs: &[RunRef],
    path: &[u8],
    longest: u64,
    cancel: &Cancel,
) -> Result<Option<Vec<u8>>, Error> {
    let Ok(path) = RelPath::from_slashed(path) else {
        return Ok(None);
    };
    // Skip unreadable pages: the caller that reads the whole tree reports them.
    let mut merged = MergedRuns::open(reader, runs, Streams::All, true)?;
    merged.seek(path.key());
    let Some(entry) = merged.next_entry()? else {
        return Ok(None);
    };
    let Node::File { content, .. } = &entry.node else {
        return Ok(None);
    };
    if entry.path != path || content.size > longest {
        return Ok(None);
    }
    let mut out = Vec::new();
    write_content(reader, content, &mut out, cancel, &Counters::default())?;
    Ok(Some(out))
}
