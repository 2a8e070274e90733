//! Reads content in order: follows list nodes, and writes the bytes of a file or stream to a pipe
//! or another output.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;

use super::fetch::{ChunkRequest, Fetcher, PackTable};
use crate::error::Error;
use crate::format::decode_list_node;
use crate::observe::Counter;
use crate::repo::{ChunkReader, RepoError};
use crate::sys::PathError;
use crate::task::Task;
use crate::types::{ChunkClass, Content, Extent, PackId, PlainLen, at_most, to_u64};

/// Walks a content's extents in order, and replaces list nodes by their extents. A node is read
/// when it is reached.
#[derive(Debug)]
pub struct ContentReader<'r, 'a> {
    reader: &'r ChunkReader<'a>,
    /// At most one level for each depth of list, nine in all.
    levels: Vec<std::vec::IntoIter<Extent>>,
}

impl<'r, 'a> ContentReader<'r, 'a> {
    /// Starts at the content's first extent.
    pub fn new(reader: &'r ChunkReader<'a>, content: &Content) -> Self {
        Self {
            reader,
            levels: vec![content.extents.clone().into_iter()],
        }
    }

    /// Returns the next chunk, hole or literal, never a list. `None` at the end.
    pub fn next_extent(&mut self) -> Result<Option<Extent>, RepoError> {
        while let Some(level) = self.levels.last_mut() {
            match level.next() {
                None => {
                    self.levels.pop();
                }
                Some(Extent::List { id, len, depth }) => {
                    let bytes = self.reader.chunk(ChunkClass::Metadata, &id)?;
                    let extents = decode_list_node(&bytes, len, depth).map_err(|err| {
                        RepoError::damaged(format!("list node {}", id.short()), err)
                    })?;
                    self.levels.push(extents.into_iter());
                }
                Some(extent) => return Ok(Some(extent)),
            }
        }
        Ok(None)
    }
}

/// How much is assembled at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamLimits {
    /// Bytes of output in a window, which may be one chunk longer.
    pub window_bytes: usize,
    /// Chunks in a window, in case they are tiny.
    pub window_chunks: usize,
    /// Bytes of frames kept for the next window.
    pub kept_bytes: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            window_bytes: 64 << 20,
            window_chunks: 64 << 10,
            kept_bytes: 16 << 20,
        }
    }
}

/// Writes a content's bytes like [`ReadSession::write_content`](super::ReadSession), for a caller
/// that holds a lease which it does not renew.
pub fn write_content(
    reader: &ChunkReader<'_>,
    content: &Content,
    out: &mut dyn Write,
    task: Task<'_>,
) -> Result<(), Error> {
    let limits = StreamLimits::default();
    write_windows(reader, None, content, out, task, limits, &mut || Ok(false))
}

/// Writes a content's bytes window by window. `keep` is called before each mebibyte of output. If
/// it returns true, the reader's lease was renewed, and the places of chunks are looked up again.
pub(crate) fn write_windows(
    reader: &ChunkReader<'_>,
    pool: Option<&ThreadPool>,
    content: &Content,
    out: &mut dyn Write,
    task: Task<'_>,
    limits: StreamLimits,
    keep: &mut dyn FnMut() -> Result<bool, Error>,
) -> Result<(), Error> {
    let fetcher = Fetcher::new(reader, pool, limits.kept_bytes, task);
    let mut extents = ContentReader::new(reader, content);
    let mut buffer = Vec::new();

    let mut current = OutputWindow::plan(&mut extents, &fetcher, limits)?;
    while let Some(window) = current {
        task.check()?;
        // The next window is planned before this one is read, because it decides which frames are
        // kept.
        let mut next = OutputWindow::plan(&mut extents, &fetcher, limits)?;
        let kept = next.as_ref().map_or_else(HashSet::new, |next| {
            Fetcher::frames(&next.wants, &next.packs)
        });
        window.assemble(&fetcher, &kept, &mut buffer)?;

        // A slow reader of the output can take long for one window.
        let was_renewed = window.write(&buffer, out, task, keep)?;
        if let (true, Some(next)) = (was_renewed, &mut next) {
            fetcher.index_was_updated();
            next.packs = fetcher.locate(&mut next.wants)?;
        }
        current = next;
    }
    out.flush().map_err(output_error)
}

/// A run of output.
#[derive(Debug)]
enum ContentPiece {
    /// This many bytes of the window's buffer.
    Bytes(usize),
    Zeros(u64),
    Literal(Vec<u8>),
}

/// A part of the output in order, and the chunks that it consists of.
struct OutputWindow {
    pieces: Vec<ContentPiece>,
    /// `owner`: number of the chunk in the buffer; `at`: not used.
    wants: Vec<ChunkRequest>,
    packs: PackTable,
    /// Lengths of the chunks, in the order of output.
    lens: Vec<PlainLen>,
}

impl OutputWindow {
    fn plan(
        extents: &mut ContentReader<'_, '_>,
        fetcher: &Fetcher<'_>,
        limits: StreamLimits,
    ) -> Result<Option<Self>, Error> {
        let mut pieces = Vec::new();
        let mut wants = Vec::new();
        let mut lens = Vec::new();
        let mut bytes = 0;

        while bytes < limits.window_bytes && pieces.len() + wants.len() < limits.window_chunks {
            let Some(extent) = extents.next_extent()? else {
                break;
            };
            match extent {
                Extent::Chunk { id, len } => {
                    wants.push(ChunkRequest::new(id, len, lens.len(), 0));
                    lens.push(len);
                    let len = len.to_usize();
                    bytes += len;
                    match pieces.last_mut() {
                        Some(ContentPiece::Bytes(sum)) => *sum += len,
                        _ => pieces.push(ContentPiece::Bytes(len)),
                    }
                }
                Extent::Hole { len } => pieces.push(ContentPiece::Zeros(len)),
                Extent::Literal(bytes) => pieces.push(ContentPiece::Literal(bytes)),
                Extent::List { .. } => unreachable!("the reader follows lists"),
            }
        }

        if pieces.is_empty() {
            return Ok(None);
        }

        let packs = fetcher.locate(&mut wants)?;
        Ok(Some(Self {
            pieces,
            wants,
            packs,
            lens,
        }))
    }

    /// Reads all chunks into the buffer.
    fn assemble(
        &self,
        fetcher: &Fetcher<'_>,
        keep: &HashSet<(PackId, u32)>,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Error> {
        buffer.resize(self.lens.iter().map(|len| len.to_usize()).sum(), 0);
        let mut rest = buffer.as_mut_slice();
        let mut slots = Vec::with_capacity(self.lens.len());
        for len in &self.lens {
            let (slot, after) = rest.split_at_mut(len.to_usize());
            slots.push(Mutex::new(slot));
            rest = after;
        }

        fetcher.each_frame(&self.wants, &self.packs, keep, |(): &mut (), opened| {
            for (number, want) in opened.wants.iter().enumerate() {
                let bytes = opened.bytes(number).map_err(|why| {
                    Error::Repo(RepoError::ChunkUnreadable {
                        id: want.id,
                        why: why.to_owned(),
                        now: false,
                    })
                })?;
                let mut slot = slots[want.owner]
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                slot.copy_from_slice(bytes);
            }
            Ok(())
        })
    }

    /// Writes the window, and returns true if `keep` did for any part.
    fn write(
        &self,
        buffer: &[u8],
        out: &mut dyn Write,
        task: Task<'_>,
        keep: &mut dyn FnMut() -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        const STEP: usize = 1 << 20;
        let mut rest = buffer;
        let mut was_renewed = false;
        let mut put = |bytes: &[u8]| -> Result<(), Error> {
            for part in bytes.chunks(STEP) {
                task.check()?;
                was_renewed |= keep()?;
                out.write_all(part).map_err(output_error)?;
                task.observer.add(Counter::BytesRead, to_u64(part.len()));
                task.observer.add(Counter::Done, to_u64(part.len()));
            }
            Ok(())
        };

        for piece in &self.pieces {
            match piece {
                ContentPiece::Bytes(len) => {
                    let (bytes, after) = rest.split_at(*len);
                    rest = after;
                    put(bytes)?;
                }
                ContentPiece::Literal(bytes) => put(bytes)?,
                ContentPiece::Zeros(len) => {
                    let zeros = vec![0; at_most(*len, STEP)];
                    let mut left = *len;
                    while left > 0 {
                        let step = at_most(left, zeros.len());
                        put(&zeros[..step])?;
                        left -= to_u64(step);
                    }
                }
            }
        }
        Ok(was_renewed)
    }
}

fn output_error(source: io::Error) -> Error {
    Error::Path(PathError {
        action: "write to",
        path: PathBuf::from("the output"),
        source,
    })
}
