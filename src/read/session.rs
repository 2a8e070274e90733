//! A session that reads what snapshots contain. It owns the lease that keeps their packs, so nothing
//! can read packs without one.

use crate::Error;
use crate::format::{LeaseKind, decode_list_node};
use crate::repo::{ChunkReader, Lease, RepoError, Repository};
use crate::store::StoreError;
use crate::sys::host_name;
use crate::task::Task;
use crate::types::{ChunkClass, Content, Extent, at_most};

/// Memory for frames of metadata. A comparison reads two states and their mentions at different
/// positions.
const CACHE_BYTES: usize = 24 << 20;

/// An open session. The caller lists the snapshots that it reads after the session was opened, and
/// brings the index up to date after that.
///
/// Dropping the session ends the lease. A lease that cannot be deleted expires by itself.
#[derive(Debug)]
pub struct ReadSession<'a> {
    repo: &'a Repository,
    task: Task<'a>,
    reader: ChunkReader<'a>,
    /// `None` where the store cannot be written: a full or read-only repository can still be read.
    _lease: Option<Lease>,
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
        let lease = reading_lease(repo, LeaseKind::Restore, &host_name())?;
        Ok(Self {
            repo,
            task,
            reader: ChunkReader::new(repo, cache_bytes),
            _lease: lease,
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

/// Takes a lease for an operation that reads packs, so that no prune deletes a pack in the
/// meantime. Returns `None` if the store cannot be written. `host`: this machine's name.
pub fn reading_lease(
    repo: &Repository,
    kind: LeaseKind,
    host: &str,
) -> Result<Option<Lease>, Error> {
    if repo.store().properties().read_only {
        return Ok(None);
    }
    match Lease::take(repo, kind, host, repo.lease_times()) {
        Ok(lease) => Ok(Some(lease)),
        Err(RepoError::Store(
            StoreError::ReadOnly { .. } | StoreError::Denied { .. } | StoreError::Full { .. },
        )) => Ok(None),
        Err(err) => Err(err.into()),
    }
}
