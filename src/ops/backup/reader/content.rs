//! Bytes → chunks → extents: cuts through a window of bounded size, and keeps lists of extents
//! short.

use std::io;

use crate::Error;
use crate::chunk::next_cut;
use crate::format::{encode_list_node, ends_list_node};
use crate::repo::{FrameWriter, RepoError};
use crate::sys::PathError;
use crate::types::{ChunkId, ChunkProfile, Content, Extent, PlainLen, at_most, to_u64, to_usize};

/// Up to this many extents are stored in the entry itself.
const INLINE_EXTENTS: usize = 16;
/// Smallest read window. Chunks of up to a quarter of it are cut without moving bytes often.
const WINDOW_BYTES_MIN: usize = 1 << 20;

/// Writers of data chunks and of list nodes, used by one thread.
pub(in crate::ops) struct ChunkWriters<'a> {
    pub data: FrameWriter<'a>,
    pub metadata: FrameWriter<'a>,
}

impl ChunkWriters<'_> {
    /// Sends the pending chunks, at the end of a source.
    pub fn flush(&mut self) -> Result<(), RepoError> {
        self.data.flush()?;
        self.metadata.flush()
    }
}

/// Stores a chunk of 1 B to 2 MiB. Returns its id and its length.
pub(super) fn add_chunk(
    writer: &mut FrameWriter<'_>,
    bytes: &[u8],
) -> Result<(ChunkId, PlainLen), RepoError> {
    let len = PlainLen::of(bytes)
        .ok_or_else(|| RepoError::refused("cannot store a chunk: it is too long"))?;
    Ok((writer.add(bytes)?, len))
}

/// Collects a file's extents. More than 16 become list nodes, cut by content.
#[derive(Default)]
pub(in crate::ops) struct ContentBuilder {
    size: u64,
    levels: Vec<Vec<Extent>>,
    is_long: bool,
}

impl ContentBuilder {
    /// Adds the next extent.
    pub fn push(
        &mut self,
        extent: Extent,
        writers: &mut ChunkWriters<'_>,
    ) -> Result<(), RepoError> {
        self.size += extent.len();
        if self.is_long {
            return self.add(0, extent, writers);
        }
        if self.levels.is_empty() {
            self.levels.push(Vec::new());
        }
        self.levels[0].push(extent);
        if self.levels[0].len() > INLINE_EXTENTS {
            self.is_long = true;
            for extent in std::mem::take(&mut self.levels[0]) {
                self.add(0, extent, writers)?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        level: u8,
        extent: Extent,
        writers: &mut ChunkWriters<'_>,
    ) -> Result<(), RepoError> {
        let place = usize::from(level);
        if self.levels.len() == place {
            self.levels.push(Vec::new());
        }
        let list = &mut self.levels[place];
        list.push(extent);
        let count = list.len();
        if list.last().is_some_and(|last| ends_list_node(count, last)) {
            self.close(level, writers)
        } else {
            Ok(())
        }
    }

    fn close(&mut self, level: u8, writers: &mut ChunkWriters<'_>) -> Result<(), RepoError> {
        let extents = std::mem::take(&mut self.levels[usize::from(level)]);
        if extents.is_empty() {
            return Ok(());
        }
        let len = extents.iter().map(Extent::len).sum();
        let id = writers.metadata.add(&encode_list_node(&extents))?;
        self.add(
            level + 1,
            Extent::List {
                id,
                len,
                depth: level + 1,
            },
            writers,
        )
    }

    /// Finishes the content.
    pub fn finish(mut self, writers: &mut ChunkWriters<'_>) -> Result<Content, RepoError> {
        if self.is_long {
            let mut level = 0u8;
            // The top level goes into the entry once it is short and holds everything.
            while usize::from(level) + 1 < self.levels.len()
                || level == 0
                || self.levels[usize::from(level)].len() > INLINE_EXTENTS
            {
                self.close(level, writers)?;
                level += 1;
            }
        }
        Ok(Content {
            size: self.size,
            extents: self.levels.pop().unwrap_or_default(),
        })
    }
}

/// A buffer for reading and cutting sources, reused from file to file.
#[derive(Default)]
pub(in crate::ops::backup) struct CutBuffer {
    buf: Vec<u8>,
}

/// Reads bytes into a buffer. Returns 0 at the end.
pub(super) type ReadBytes<'r> = dyn FnMut(&mut [u8]) -> io::Result<usize> + 'r;

/// The range to cut in one call.
#[derive(Clone, Copy)]
pub(in crate::ops::backup) struct DataSpan {
    /// Offset in the file or stream; chunk sizes may depend on it.
    pub start: u64,
    /// Most bytes to read.
    pub limit: u64,
    pub profile: ChunkProfile,
}

/// The reason why cutting ended early: the source, the repository, or a refused content.
pub(in crate::ops::backup) enum CutError {
    Read(io::Error),
    Repo(RepoError),
    Refused(Error),
}

impl From<RepoError> for CutError {
    fn from(err: RepoError) -> Self {
        Self::Repo(err)
    }
}

impl CutError {
    /// Returns this as a public error that names the source.
    pub fn named(self, name: &str) -> Error {
        match self {
            Self::Repo(err) => err.into(),
            Self::Refused(err) => err,
            Self::Read(source) => PathError {
                action: "read",
                path: name.into(),
                source,
            }
            .into(),
        }
    }
}

impl CutBuffer {
    /// Cuts the bytes from `read` into chunks and adds them to `content`. `seen` gets every byte
    /// once. Returns the number of bytes.
    pub fn cut(
        &mut self,
        read: &mut ReadBytes<'_>,
        DataSpan {
            start,
            limit,
            profile,
        }: DataSpan,
        content: &mut ContentBuilder,
        writers: &mut ChunkWriters<'_>,
        seen: &mut dyn FnMut(&[u8]),
    ) -> Result<u64, CutError> {
        let window = WINDOW_BYTES_MIN.max(4 * to_usize(profile.sizes_at(start).max()));
        let mut held = 0usize;
        let mut done = 0u64;
        let mut at_end = false;
        loop {
            // Fill the window.
            let wanted = at_most(limit - done - to_u64(held), window - held);
            if self.buf.len() < held + wanted {
                self.buf.resize(held + wanted, 0);
            }
            let mut filled = 0;
            while filled < wanted {
                match read(&mut self.buf[held + filled..held + wanted]) {
                    Ok(0) => {
                        at_end = true;
                        break;
                    }
                    Ok(n) => filled += n,
                    Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                    Err(err) => return Err(CutError::Read(err)),
                }
            }
            seen(&self.buf[held..held + filled]);
            held += filled;
            at_end |= done + to_u64(held) == limit;

            // Cut chunks while the window holds enough bytes for the next one.
            let mut at = 0;
            while at < held {
                let sizes = profile.sizes_at(start + done);
                if !at_end && held - at < to_usize(sizes.max()) {
                    break;
                }
                let length = next_cut(&self.buf[at..held], sizes);
                let (id, len) = add_chunk(&mut writers.data, &self.buf[at..at + length])?;
                content.push(Extent::Chunk { id, len }, writers)?;
                at += length;
                done += to_u64(length);
            }

            // Move the rest to the front.
            self.buf.copy_within(at..held, 0);
            held -= at;
            if at_end {
                return Ok(done);
            }
        }
    }

    /// Reads up to `limit` bytes (at most 2 MiB) into the window.
    pub fn whole(&mut self, read: &mut ReadBytes<'_>, limit: u64) -> io::Result<&[u8]> {
        let limit = usize::try_from(limit).map_err(io::Error::other)?;
        if self.buf.len() < limit {
            self.buf.resize(limit, 0);
        }
        let mut filled = 0;
        while filled < limit {
            match read(&mut self.buf[filled..limit]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(&self.buf[..filled])
    }
}
