//! Reading runs: a k-way merge by path, newest first, under covers ([R8](docs/protocol.md#r8)).
//!
//! The newest mention of a path wins. A mention that covers hides everything below its path in
//! older runs. Their cursors seek past the subtree at once, so hidden pages are not read and no
//! stack of covers is needed.

use super::run_cursor::{OnDamage, RunCursor, UncertainPaths};
use super::{ChunkReader, RepoError};
use crate::format::{RunRef, RunRoot, decode_root};
use crate::types::{ChunkClass, Entry, EntryFlags, Node, RelPath};

/// The pages of a run to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStreams {
    /// All entries.
    All,
    /// Directory pages: directories, and entries that replaced a directory.
    Directories,
}

/// The merged record of a path; it may be a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryMention {
    /// The newest mention, with the cover flag if any mention of the path covers.
    pub entry: Entry,
    /// True if the path belongs in directory pages: it is a directory, or a run that was read has
    /// it there.
    pub in_directories: bool,
}

#[derive(Debug)]
struct RunStream {
    run: usize,
    in_directories: bool,
    cursor: RunCursor,
}

/// The merged runs of a source, read forward.
#[derive(Debug)]
pub struct MergedRuns<'a> {
    reader: &'a ChunkReader<'a>,
    streams: Vec<RunStream>,
    /// The key of the last path that was returned or passed.
    taken: Option<Vec<u8>>,
    /// A pending seek, done by the next read.
    target: Option<Vec<u8>>,
}

impl<'a> MergedRuns<'a> {
    /// Opens runs, newest first. With [`OnDamage::Skip`], [`MergedRuns::take_uncertain`] returns the
    /// ranges of paths that could not be read.
    pub fn open(
        reader: &'a ChunkReader<'a>,
        runs: &[RunRef],
        which: RunStreams,
        on_damage: OnDamage,
    ) -> Result<Self, RepoError> {
        let mut streams = Vec::new();
        for (run, at) in runs.iter().enumerate() {
            let root = match read_root(reader, at) {
                Err(err) if on_damage == OnDamage::Skip && err.is_unavailable() => {
                    let mut cursor = RunCursor::new(Default::default(), OnDamage::Skip);
                    let from = RelPath::root();
                    let why = err.to_string();
                    let now = err.is_unreadable_now();
                    let lost = UncertainPaths {
                        from,
                        until: None,
                        chunk: at.root,
                        why,
                        now,
                    };
                    cursor.uncertain = Some(vec![lost]);
                    streams.push(RunStream {
                        run,
                        in_directories: true,
                        cursor,
                    });
                    continue;
                }
                root => root?,
            };

            streams.push(RunStream {
                run,
                in_directories: true,
                cursor: RunCursor::new(root.directories, on_damage),
            });
            if which == RunStreams::All {
                streams.push(RunStream {
                    run,
                    in_directories: false,
                    cursor: RunCursor::new(root.others, on_damage),
                });
            }
        }

        Ok(Self {
            reader,
            streams,
            taken: None,
            target: None,
        })
    }

    /// Returns the next path that any run mentions, removals included.
    pub fn next_mention(&mut self) -> Result<Option<EntryMention>, RepoError> {
        if let Some(key) = self.target.take() {
            self.pass_above(&key)?;
            self.streams
                .iter_mut()
                .for_each(|stream| stream.cursor.seek(&key));
        }
        self.fill()?;
        let heads = self
            .streams
            .iter()
            .filter_map(|stream| stream.cursor.peek());
        let Some(path) = heads.map(|entry| &entry.path).min().cloned() else {
            return Ok(None);
        };
        Ok(self.take_path(&path))
    }

    fn fill(&mut self) -> Result<(), RepoError> {
        self.streams
            .iter_mut()
            .try_for_each(|stream| stream.cursor.fill(self.reader))
    }

    /// Takes the mentions of all paths above `key` that were not passed yet. A newer run may record
    /// that one of them is no longer a directory, which hides the entries of older runs at `key`.
    fn pass_above(&mut self, key: &[u8]) -> Result<(), RepoError> {
        let ends = key
            .iter()
            .enumerate()
            .filter(|&(_, &byte)| byte == 0)
            .map(|(at, _)| at);
        for end in std::iter::once(0).chain(ends) {
            let above = &key[..end];
            if above == key
                || self
                    .taken
                    .as_ref()
                    .is_some_and(|taken| taken.as_slice() >= above)
            {
                continue;
            }

            self.streams
                .iter_mut()
                .for_each(|stream| stream.cursor.seek(above));
            self.fill()?;
            let heads = self
                .streams
                .iter()
                .filter_map(|stream| stream.cursor.peek());
            let found = heads
                .map(|entry| &entry.path)
                .find(|path| path.key() == above)
                .cloned();
            if let Some(path) = found {
                self.take_path(&path);
            }
        }
        Ok(())
    }

    /// Takes every mention of `path`, the lowest of all heads, and skips the paths that they cover.
    fn take_path(&mut self, path: &RelPath) -> Option<EntryMention> {
        let taken = self.taken.get_or_insert_default();
        taken.clear();
        taken.extend_from_slice(path.key());

        let mut newest: Option<(usize, EntryMention)> = None;
        let mut in_directories = false;
        let mut cover: Option<usize> = None;
        for stream in &mut self.streams {
            if stream.cursor.peek().is_none_or(|head| head.path != *path) {
                continue;
            }
            let Some(entry) = stream.cursor.take() else {
                continue;
            };
            in_directories |= stream.in_directories;

            if entry.covers() {
                cover = Some(cover.map_or(stream.run, |run| run.min(stream.run)));
            }
            // Streams are sorted newest first. A valid run has a path in one stream only. If a
            // hostile run has it in both, an entry wins over its removal.
            let wins = newest.as_ref().is_none_or(|(run, held)| {
                *run == stream.run && matches!(held.entry.node, Node::Removed)
            });
            if wins {
                newest = Some((
                    stream.run,
                    EntryMention {
                        entry,
                        in_directories: false,
                    },
                ));
            }
        }

        if let Some(cover) = cover {
            let after = path.after_subtree();
            for stream in self.streams.iter_mut().filter(|stream| stream.run > cover) {
                match &after {
                    Some(after) => stream.cursor.seek(after),
                    None => stream.cursor.exhaust(),
                }
            }
        }

        let (_, mut mention) = newest?;
        if cover.is_some() && mention.entry.is_directory() {
            mention.entry.flags = mention.entry.flags.with(EntryFlags::COVER);
        }
        mention.in_directories = in_directories || mention.entry.is_directory();
        Some(mention)
    }

    /// Returns the next entry of the state that the runs describe, without removals.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, RepoError> {
        while let Some(mention) = self.next_mention()? {
            if !matches!(mention.entry.node, Node::Removed) {
                return Ok(Some(mention.entry));
            }
        }
        Ok(None)
    }

    /// Moves forward to the first path whose key is not below `key`; never moves back. Skipped
    /// pages are not read, except for the mentions of paths above `key`.
    pub fn seek(&mut self, key: &[u8]) {
        if self
            .target
            .as_ref()
            .is_none_or(|target| target.as_slice() < key)
        {
            self.target = Some(key.to_vec());
        }
    }

    /// Moves to the end.
    pub(super) fn exhaust(&mut self) {
        self.target = None;
        self.streams
            .iter_mut()
            .for_each(|stream| stream.cursor.exhaust());
    }

    /// Removes and returns the uncertain ranges noted so far.
    pub fn take_uncertain(&mut self) -> Vec<UncertainPaths> {
        let noted = self
            .streams
            .iter_mut()
            .filter_map(|stream| stream.cursor.uncertain.as_mut());
        noted.flat_map(std::mem::take).collect()
    }
}

/// Reads a run's root.
pub(super) fn read_root(reader: &ChunkReader<'_>, run: &RunRef) -> Result<RunRoot, RepoError> {
    let bytes = reader.chunk(ChunkClass::Metadata, &run.root)?;
    decode_root(&bytes).map_err(|err| RepoError::damaged(format!("run {}", run.root.short()), err))
}
