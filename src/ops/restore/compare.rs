//! Compares an existing file with the snapshot's content, byte for byte. Chunks are compared by
//! their ids, so no chunk is read from the repository.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::job::RestoreJob;
use super::walk::RestoreWalk;
use crate::dest::FoundEntry;
use crate::error::Error;
use crate::observe::{Counter, Severity};
use crate::read::content::ContentReader;
use crate::read::fetch::{is_of_one_object, with_sources};
use crate::source::HashName;
use crate::types::{ChunkClass, Content, EntryKind, Extent, Node, RelPath, at_most, to_u64};

/// Bytes of a hole checked at once.
const ZEROS: usize = 64 << 10;
/// Bytes hashed at once.
const HASH_BYTES: usize = 256 << 10;

impl RestoreWalk<'_> {
    /// Decides about a file that is left as it is. Returns true if its content must be compared.
    /// Otherwise counts it, and reports it if it is known to differ.
    pub(super) fn looks(&self, path: &RelPath, found: &FoundEntry, node: &Node) -> bool {
        let Node::File { content, .. } = node else {
            self.job.tally.unchanged();
            return false;
        };
        let is_alike = found.kind == Some(EntryKind::File) && found.size == content.size;
        if self.job.options.verify && is_alike {
            return true;
        }
        if self.job.options.verify {
            self.job.tally.differs();
            self.fail(
                Severity::Missing,
                path,
                "it differs from the snapshot's, and was left unchanged",
            );
        } else {
            self.job.tally.unchanged();
        }
        false
    }

    /// Returns true if the name of an existing file is a hash, and its content has that hash.
    pub(super) fn is_what_its_name_says(
        &mut self,
        found: &FoundEntry,
        target: &RelPath,
    ) -> Result<bool, Error> {
        let name = target.name().unwrap_or_default();
        let checker = HashName::parse(name).and_then(|hash| hash.checker());
        let (Some(mut checker), Some(EntryKind::File)) = (checker, found.kind) else {
            return Ok(false);
        };
        let Ok(Some(dir)) = self.parent_dir(target) else {
            return Ok(false);
        };
        let Ok(file) = dir.open_existing_file(name) else {
            return Ok(false);
        };

        let mut buffer = vec![0; HASH_BYTES];
        let mut at = 0;
        loop {
            self.job.task.check()?;
            match rustix::io::retry_on_intr(|| rustix::io::pread(&file, buffer.as_mut_slice(), at))
            {
                Ok(0) => return Ok(checker.finish()),
                Ok(count) => {
                    checker.update(&buffer[..count]);
                    at += to_u64(count);
                }
                Err(_) => return Ok(false),
            }
        }
    }
}

/// Result of a comparison.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ComparedFile {
    Equal,
    Differs,
    /// The expected content is unknown, because a part of the repository cannot be read.
    Unknown(String),
}

impl RestoreJob<'_> {
    /// Compares an open file with a content. The caller has checked that the sizes are equal.
    ///
    /// # Errors
    /// The outer error ends the restore; the inner one is a failure to read the file.
    pub(super) fn compare(
        &self,
        file: impl AsFd,
        content: &Content,
    ) -> Result<io::Result<ComparedFile>, Error> {
        let file = file.as_fd();
        let mut at = 0;
        let mut extents = ContentReader::new(self.reader, content);
        let mut buffer = Vec::new();

        loop {
            self.task.check()?;
            let extent = match extents.next_extent() {
                Ok(Some(extent)) => extent,
                Ok(None) => return Ok(Ok(ComparedFile::Equal)),
                Err(err) if is_of_one_object(&err) => {
                    return Ok(Ok(ComparedFile::Unknown(with_sources(&err))));
                }
                Err(err) => return Err(err.into()),
            };

            let is_equal = match self.is_equal(file, at, &extent, &mut buffer) {
                Ok(is_equal) => is_equal,
                Err(err) => return Ok(Err(err)),
            };
            if !is_equal {
                return Ok(Ok(ComparedFile::Differs));
            }

            at += extent.len();
            self.task.observer.add(Counter::BytesRead, extent.len());
        }
    }

    fn is_equal(
        &self,
        file: BorrowedFd<'_>,
        at: u64,
        extent: &Extent,
        buffer: &mut Vec<u8>,
    ) -> io::Result<bool> {
        match extent {
            Extent::Hole { len } => self.is_zero(file, at, *len, buffer),
            Extent::Literal(bytes) => {
                Ok(read_at(file, at, bytes.len(), buffer)? && buffer == bytes)
            }
            Extent::Chunk { id, len } => Ok(read_at(file, at, len.to_usize(), buffer)?
                && self.repo.keys().chunk_id(ChunkClass::Data, buffer) == *id),
            // The reader replaces a list by its extents.
            Extent::List { .. } => Ok(false),
        }
    }

    fn is_zero(
        &self,
        file: BorrowedFd<'_>,
        mut at: u64,
        len: u64,
        buffer: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let end = at + len;
        while at < end {
            // Skip unallocated ranges.
            match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) if data >= end => return Ok(true),
                Err(Errno::NXIO) => return Ok(true),
                Ok(data) => at = at.max(data),
                Err(_) => {}
            }
            let step = at_most(end - at, ZEROS);
            if !read_at(file, at, step, buffer)? || buffer.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            at += to_u64(step);
            if self.task.cancel.is_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        Ok(true)
    }
}

/// Reads `len` bytes into the buffer. Returns false if the file ends before.
fn read_at(file: BorrowedFd<'_>, at: u64, len: usize, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.resize(len, 0);
    let mut done = 0;
    while done < len {
        match rustix::io::pread(file, &mut buffer[done..], at + to_u64(done)) {
            Ok(0) => return Ok(false),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}
