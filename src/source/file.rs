//! One file of a source, opened for reading.

use std::io::{self, Read};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::{Errno, pread};

use crate::source::stat::{SourceStat, StatKind};
use crate::source::xattr::{self, XattrReader};
use crate::types::{at_most, to_u64};

/// Bytes that a search for zeros reads at once, and the size of the blocks that it distinguishes.
const ZERO_READ_BYTES: usize = 1 << 20;
const ZERO_BLOCK_BYTES: usize = 4 << 10;

/// A regular file opened for reading. It keeps its own offset, so `read` and `next_data` do not
/// disturb each other.
#[derive(Debug)]
pub struct SourceFile {
    fd: OwnedFd,
    opened: SourceStat,
    position: u64,
}

impl SourceFile {
    /// Wraps an opened file.
    ///
    /// # Errors
    /// `InvalidInput` for anything but a regular file: it was replaced after it was listed.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let opened = SourceStat::of(fd.as_fd(), b"")?;
        if opened.kind != StatKind::File {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no longer a regular file",
            ));
        }
        Ok(Self {
            fd,
            opened,
            position: 0,
        })
    }

    /// Returns the stat made when the file was opened.
    pub fn opened_stat(&self) -> &SourceStat {
        &self.opened
    }

    /// Stats the open file again.
    pub fn stat(&self) -> io::Result<SourceStat> {
        SourceStat::of(self.fd.as_fd(), b"")
    }

    /// Reads the extended attributes. Returns no attributes if the file system does not support
    /// them.
    pub fn xattrs(&self) -> XattrReader {
        xattr::read_all(&xattr::XattrPlace::Handle(self.fd.as_fd()))
    }

    /// Reads up to `buf.len()` bytes at `offset`, fewer only at the end of the file. Returns their
    /// number.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match pread(&self.fd, &mut buf[done..], offset + to_u64(done)) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    /// Sets the position where `read` continues.
    pub fn set_position(&mut self, position: u64) {
        self.position = position;
    }

    /// Finds the next data at or after `offset`; the range before it is a hole. Returns `None` if
    /// only a hole follows, or nothing. A file system without support for holes returns everything
    /// up to the current size.
    pub fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let start = match seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => {
                let size = self.stat()?.size;
                return Ok((offset < size).then_some(offset..size));
            }
            Err(error) => return Err(error.into()),
        };
        match seek(&self.fd, SeekFrom::Hole(start)) {
            // The file's end counts as a hole.
            Ok(end) => Ok((start < end).then_some(start..end)),
            // The file was truncated in between.
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the offset of the first block of 4 KiB in `range` with a byte other than zero, or
    /// the end of the range. Calls `stop` before each MiB.
    ///
    /// # Errors
    /// `Interrupted` once `stop` returns true.
    pub fn zeros_until(&self, range: Range<u64>, stop: &dyn Fn() -> bool) -> io::Result<u64> {
        let len = range.end.saturating_sub(range.start);
        let mut buf = vec![0; at_most(len, ZERO_READ_BYTES)];
        let mut at = range.start;

        while at < range.end {
            if stop() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let wanted = at_most(range.end - at, buf.len());
            let read = self.read_at(&mut buf[..wanted], at)?;

            let blocks = buf[..read].chunks(ZERO_BLOCK_BYTES);
            if let Some(block) = blocks
                .into_iter()
                .position(|block| block.iter().any(|&byte| byte != 0))
            {
                return Ok(at + to_u64(block * ZERO_BLOCK_BYTES));
            }
            if read < wanted {
                // The file was truncated; the next stat shows that.
                return Ok(range.end);
            }

            // Cached pages of a hole are useless.
            let done = to_u64(read);
            let _ = fadvise(&self.fd, at, NonZeroU64::new(done), Advice::DontNeed);
            at += done;
        }
        Ok(range.end)
    }

    /// Advises the kernel that the file is read from front to back, so that it reads ahead further.
    /// Pages that other processes have in the page cache stay there.
    pub fn advise_sequential(&self) {
        // Only advice: the kernel reads the file without it too.
        let _ = fadvise(&self.fd, 0, None, Advice::Sequential);
    }
}

impl Read for SourceFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match pread(&self.fd, &mut *buf, self.position) {
                Ok(read) => {
                    self.position += to_u64(read);
                    return Ok(read);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for SourceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for SourceFile {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
