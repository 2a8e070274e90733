//! A session that reads what snapshots contain. It owns the lease that keeps their packs, so nothing
//! can read packs without one.

use std::io::Write;

use super::content::{StreamLimits, write_windows};
use super::lease::ReadLease;
use super::{choose, sync_until};
use crate::Error;
use crate::format::decode_list_node;
use crate::repo::{ChunkReader, HostChoice, RepoError, Repository, StoredSnapshot};
use crate::task::Task;
use crate::types::{ChunkClass, Content, Extent, SnapshotId, at_most};

/// Memory for frames of metadata. A comparison reads two states and their mentions at different
/// positions.
const CACHE_BYTES: usize = 24 << 20;

/// An open session. The caller first chooses or lists the snapshots that it reads, and records the
/// listed ones with [`ReadSession::add_snapshots`]; then it brings the index up to date with
/// [`ReadSession::sync`]; then it reads, and calls [`ReadSession::keep`] again and again.
///
/// Dropping the session ends the lease. A lease that cannot be deleted expires by itself.
#[derive(Debug)]
pub struct ReadSession<'a> {
    repo: &'a Repository,
    task: Task<'a>,
    reader: ChunkReader<'a>,
    lease: ReadLease<'a>,
}

impl<'a> ReadSession<'a> {
    /// Takes a lease, so that no prune that begins later deletes packs of the snapshots listed now.
    ///
    /// # Errors
    /// The lease could not be written although the store is not full, read-only or denied to this
    /// user.
    pub fn open(repo: &'a Repository, task: Task<'a>) -> Result<Self, Error> {
        Self::with_cache(repo, CACHE_BYTES, task)
    }

    /// Like [`ReadSession::open`], with this much memory for frames.
    pub fn with_cache(
        repo: &'a Repository,
        cache_bytes: usize,
        task: Task<'a>,
    ) -> Result<Self, Error> {
        Ok(Self {
            repo,
            task,
            reader: ChunkReader::new(repo, cache_bytes),
            lease: ReadLease::take(repo)?,
        })
    }

    pub fn repo(&self) -> &'a Repository {
        self.repo
    }

    /// Returns the task that the session was opened for.
    pub fn task(&self) -> Task<'a> {
        self.task
    }

    /// Returns the reader of the session's chunks.
    pub fn reader(&self) -> &ChunkReader<'a> {
        &self.reader
    }

    /// Finds a snapshot to read, as [`choose`](fn@choose) does, and records that this session reads it.
    pub fn choose(
        &self,
        text: &str,
        hosts: &HostChoice,
        source: Option<&str>,
    ) -> Result<StoredSnapshot, Error> {
        let found = choose(self.repo, text, hosts, source, self.task.observer)?;
        self.add_snapshots([found.id]);
        Ok(found)
    }

    /// Records snapshots that this session reads. They were listed after it was opened.
    pub fn add_snapshots(&self, ids: impl IntoIterator<Item = SnapshotId>) {
        self.lease.add_snapshots(ids);
    }

    /// Brings the index up to date, after the snapshots were chosen. See [`sync_until`].
    pub fn sync(&self) -> Result<(), Error> {
        sync_until(self.repo, self.task)
    }

    /// Returns an error if the task was cancelled, and renews the session's lease if that is due:
    /// see [`ReadLease::renew_if_due`]. Returns true if it was renewed; packs must then not be read
    /// at places that were looked up before.
    ///
    /// A reader that takes long calls it from one thread, between the parts of its work. It costs
    /// no request unless a renewal is due.
    pub fn keep(&self) -> Result<bool, Error> {
        self.task.check()?;
        self.lease.renew_if_due(self.task, &mut || {
            self.sync()?;
            self.reader.index_was_updated();
            Ok(())
        })
    }

    /// Writes a content's bytes to `out` in order, with holes as zeros. Every chunk is checked
    /// against its name. The session is kept while it writes.
    ///
    /// Each frame is opened once per window of 64 MiB of output, on all cores, and kept if the next
    /// window needs it: about 100 MiB of memory. Bytes that were written before an error stay
    /// written.
    pub fn write_content(
        &self,
        content: &Content,
        out: &mut dyn Write,
        task: Task<'_>,
    ) -> Result<(), Error> {
        let limits = StreamLimits::default();
        write_windows(&self.reader, None, content, out, task, limits, &mut || {
            self.keep()
        })
    }

    /// Reads a content from byte `at` into `buffer`, with holes as zeros. Returns the number of
    /// bytes: less than the buffer's length only at the content's end. Only the chunks and list
    /// nodes of that range are read.
    ///
    /// # Errors
    /// A chunk or list node of the range cannot be read. Nothing else was wrong, so the caller may
    /// read other ranges.
    pub fn content_at(
        &self,
        content: &Content,
        at: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        let len = at_most(content.size.saturating_sub(at), buffer.len());
        let mut range = ContentRange {
            reader: &self.reader,
            task: self.task,
            skip: at,
            left: &mut buffer[..len],
        };
        range.read(&content.extents)?;
        Ok(len)
    }
}

/// A range of a content that is being read from its first byte on.
struct ContentRange<'r, 'a> {
    reader: &'r ChunkReader<'a>,
    task: Task<'a>,
    /// Bytes of the next extents before the range begins.
    skip: u64,
    /// The part of the caller's buffer that is not filled yet.
    left: &'r mut [u8],
}

impl ContentRange<'_, '_> {
    /// Reads the part of the range that these extents cover. Lists are at most eight levels deep.
    fn read(&mut self, extents: &[Extent]) -> Result<(), Error> {
        for extent in extents {
            if self.left.is_empty() {
                break;
            }
            if self.skip >= extent.len() {
                self.skip -= extent.len();
                continue;
            }
            self.task.check()?;
            self.extent(extent)?;
        }
        Ok(())
    }

    fn extent(&mut self, extent: &Extent) -> Result<(), Error> {
        match extent {
            Extent::Chunk { id, len } => {
                let bytes = self.reader.chunk(ChunkClass::Data, id)?;
                if bytes.len() != len.to_usize() {
                    let what = "it has a different length than the file records";
                    return Err(RepoError::damaged(format!("chunk {}", id.short()), what).into());
                }
                self.copy(&bytes);
            }
            Extent::Literal(bytes) => self.copy(bytes),
            Extent::Hole { len } => {
                let len = at_most(len - self.skip, self.left.len());
                self.next(len).fill(0);
            }
            Extent::List { id, len, depth } => {
                let bytes = self.reader.chunk(ChunkClass::Metadata, id)?;
                let extents = decode_list_node(&bytes, *len, *depth)
                    .map_err(|err| RepoError::damaged(format!("list node {}", id.short()), err))?;
                self.read(&extents)?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, bytes: &[u8]) {
        let bytes = &bytes[at_most(self.skip, bytes.len())..];
        let len = bytes.len().min(self.left.len());
        self.next(len).copy_from_slice(&bytes[..len]);
    }

    /// Takes the next `len` bytes of the buffer, which are in the current extent.
    fn next(&mut self, len: usize) -> &mut [u8] {
        self.skip = 0;
        let (next, left) = std::mem::take(&mut self.left).split_at_mut(len);
        self.left = left;
        next
    }
}
