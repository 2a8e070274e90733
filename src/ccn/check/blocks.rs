//! The block layout of the kubo repository to check.

use super::context::CheckContext;
use super::target::CheckTarget;
use crate::Error;
use crate::ccn::NodeError;
use crate::ccn::kubo::{BlockStore, FILE_BYTES_MAX, SHARDING, SPEC};
use crate::ccn::profile::NodeSource;
use crate::format::{RunRef, SourceKind, SourceRecord};
use crate::observe::Counters;
use crate::read::content::write_content;
use crate::repo::{ChunkReader, MergedRuns, OnDamage, RunStreams};
use crate::task::{Cancel, Task};
use crate::types::{Node, RelPath, to_u64};

impl CheckContext<'_> {
    /// Determines the block layout from the snapshot or from the live directory. If there is
    /// neither, it is the default one.
    pub(super) fn blocks(&self, part: Option<&NodeSource>) -> Result<BlockStore, NodeError> {
        let Some(part) = part else {
            return Ok(BlockStore::default());
        };
        match self.against {
            CheckTarget::Live { .. } => Ok(self
                .directory(|directories| &directories.ipfs)
                .map_or_else(BlockStore::default, BlockStore::at)),
            CheckTarget::Snapshot => match self.found.snapshot.source(&part.source) {
                Some(SourceRecord {
                    kind: SourceKind::Tree { runs, .. },
                    ..
                }) => Ok(stored_blocks(
                    self.session.reader(),
                    runs,
                    self.task.cancel,
                )?),
                _ => Ok(BlockStore::default()),
            },
        }
    }
}

/// Determines the block layout of a captured kubo repository.
pub(in super::super) fn stored_blocks(
    reader: &ChunkReader<'_>,
    runs: &[RunRef],
    cancel: &Cancel,
) -> Result<BlockStore, Error> {
    let sharding = stored_file(reader, runs, SHARDING.as_bytes(), FILE_BYTES_MAX, cancel)?;
    let spec = stored_file(reader, runs, SPEC.as_bytes(), FILE_BYTES_MAX, cancel)?;
    Ok(BlockStore::read(sharding.as_deref(), spec.as_deref()))
}

/// Returns a small file of a captured tree; `None` if it does not exist or has more than `longest`
/// bytes.
pub(in super::super) fn stored_file(
    reader: &ChunkReader<'_>,
    runs: &[RunRef],
    path: &[u8],
    longest: usize,
    cancel: &Cancel,
) -> Result<Option<Vec<u8>>, Error> {
    let Ok(path) = RelPath::from_slashed(path) else {
        return Ok(None);
    };
    // Skip unreadable pages: the caller that reads the whole tree reports them.
    let mut merged = MergedRuns::open(reader, runs, RunStreams::All, OnDamage::Skip)?;
    merged.seek(path.key());
    let Some(entry) = merged.next_entry()? else {
        return Ok(None);
    };
    let Node::File { content, .. } = &entry.node else {
        return Ok(None);
    };
    if entry.path != path || content.size > to_u64(longest) {
        return Ok(None);
    }
    let mut out = Vec::new();
    write_content(
        reader,
        content,
        &mut out,
        Task::new(&Counters::default(), cancel),
    )?;
    Ok(Some(out))
}
