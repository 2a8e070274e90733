//! Directories of this machine as sides of the join: lists names in order, and reads and hashes
//! files on all cores.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rayon::prelude::*;
use rustix::io::Errno;

use super::stored::{FileFault, FileSide, HeldFile, StoredFile};
use crate::Error;
use crate::ccn::NodeError;
use crate::observe::{Counter, Problem, ProgressUnit, Severity, Subject};
use crate::source::{HashChecker, HashName, ListedName, NameListing, SourceDir, StatKind};
use crate::sys::{PathContext, PathError, now};
use crate::task::Task;
use crate::types::{RelPath, to_u64};

/// Number of names per batch.
const BATCH_NAMES: usize = 256;
/// Read buffer of each thread, in bytes.
const READ_BYTES: usize = 256 << 10;
/// Memory for sorting a directory's names, in bytes.
const LIST_BYTES: usize = 16 << 20;
/// The node writes files under their final names. A file younger than `YOUNG_SECONDS` may be half
/// written. It is read up to `TRIES` times, with a pause in between.
const YOUNG_SECONDS: i64 = 10;
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

/// Parameters for reading a directory.
pub(super) struct LiveCheck<'a> {
    pub path: PathBuf,
    pub source: String,
    pub scratch: PathBuf,
    pub quick: bool,
    pub task: Task<'a>,
}

/// A flat directory.
pub(super) struct LiveDirectory<'a> {
    looking: LiveCheck<'a>,
    batches: HashBatches,
}

impl<'a> LiveDirectory<'a> {
    pub fn open(directory: SourceDir, looking: LiveCheck<'a>) -> Result<Self, PathError> {
        let batches = HashBatches::list(directory, Vec::new(), &looking)?;
        looking
            .task
            .observer
            .expect(batches.listing.total(), ProgressUnit::Items);
        Ok(Self { looking, batches })
    }
}

impl FileSide for LiveDirectory<'_> {
    fn next(&mut self) -> Result<Option<StoredFile>, NodeError> {
        self.batches.next(&self.looking, true)
    }
}

/// kubo's repository: the directories in `blocks`, in order.
pub(super) struct LiveBlocks<'a> {
    looking: LiveCheck<'a>,
    blocks: SourceDir,
    directories: NameListing,
    open: Option<HashBatches>,
}

impl<'a> LiveBlocks<'a> {
    pub fn open(directory: SourceDir, mut looking: LiveCheck<'a>) -> Result<Self, PathError> {
        looking.path.push("blocks");
        let blocks = directory
            .open_child(b"blocks")
            .map_err(|source| PathError {
                action: "open directory",
                path: looking.path.clone(),
                source,
            })?;
        let directories = listed(blocks.list(&looking.scratch, LIST_BYTES), &looking.path)?;
        Ok(Self {
            looking,
            blocks,
            directories,
            open: None,
        })
    }
}

impl FileSide for LiveBlocks<'_> {
    fn next(&mut self) -> Result<Option<StoredFile>, NodeError> {
        loop {
            if let Some(open) = &mut self.open
                && let Some(stored) = open.next(&self.looking, false)?
            {
                return Ok(Some(stored));
            }
            self.open = None;
            let mut one = Vec::new();
            listed(self.directories.next_batch(&mut one, 1), &self.looking.path)?;
            let Some(ListedName { name, .. }) = one.pop() else {
                return Ok(None);
            };

            match self.blocks.open_child(&name) {
                Ok(directory) => {
                    let above = [b"blocks\0", name.as_slice(), b"\0"].concat();
                    self.open = Some(HashBatches::list(directory, above, &self.looking)?);
                }
                // SHARDING, _README, and directories that vanished after they were listed.
                Err(err)
                    if matches!(err.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound) => {}
                Err(source) => {
                    let path = self.looking.path.join(name.escape_ascii().to_string());
                    return Err(PathError {
                        action: "open directory",
                        path,
                        source,
                    }
                    .into());
                }
            }
        }
    }
}

/// A directory's names, processed in batches.
struct HashBatches {
    directory: SourceDir,
    /// The directory's key, with a separator at its end.
    above: Vec<u8>,
    listing: NameListing,
    names: Vec<ListedName>,
    ready: VecDeque<StoredFile>,
}

impl HashBatches {
    fn list(
        directory: SourceDir,
        above: Vec<u8>,
        looking: &LiveCheck<'_>,
    ) -> Result<Self, PathError> {
        let listing = listed(directory.list(&looking.scratch, LIST_BYTES), &looking.path)?;
        Ok(Self {
            directory,
            above,
            listing,
            names: Vec::new(),
            ready: VecDeque::new(),
        })
    }

    fn next(
        &mut self,
        looking: &LiveCheck<'_>,
        with_sizes: bool,
    ) -> Result<Option<StoredFile>, NodeError> {
        if self.ready.is_empty() {
            looking.task.check()?;
            listed(
                self.listing.next_batch(&mut self.names, BATCH_NAMES),
                &looking.path,
            )?;

            let directory = &self.directory;
            let above = &self.above;
            let looked: Result<Vec<StoredFile>, Error> = self
                .names
                .par_iter()
                .map_init(Vec::new, |buffer, listed| {
                    let hash = HashName::parse(&listed.name);
                    let held = looking.look(directory, listed, hash, with_sizes, buffer)?;
                    let key = [above.as_slice(), &listed.name].concat();
                    Ok(StoredFile {
                        key,
                        is_hash: hash.is_some(),
                        held,
                    })
                })
                .collect();

            self.ready = looked?.into();
            looking
                .task
                .observer
                .add(Counter::Entries, to_u64(self.ready.len()));
            looking
                .task
                .observer
                .add(Counter::Done, to_u64(self.ready.len()));
        }
        Ok(self.ready.pop_front())
    }
}

impl LiveCheck<'_> {
    fn look(
        &self,
        directory: &SourceDir,
        listed: &ListedName,
        hash: Option<HashName>,
        with_sizes: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<HeldFile, Error> {
        let name = listed.name.as_slice();
        let decided = hash.filter(|hash| !self.quick && hash.expected_sha256().is_some());

        let looked = match decided {
            Some(hash) => self.read(directory, name, hash, buffer)?,
            // For a block only its presence matters.
            None if !with_sizes && listed.kind_hint == Some(StatKind::File) => Ok(HeldFile::File {
                size: None,
                fault: None,
            }),
            None => directory.stat(name).map(|stat| match stat.kind {
                StatKind::File => HeldFile::File {
                    size: Some(stat.size),
                    fault: None,
                },
                _ => HeldFile::NoFile,
            }),
        };

        Ok(looked.unwrap_or_else(|err| match err.kind() {
            ErrorKind::NotFound => {
                self.task.observer.add(Counter::Vanished, 1);
                HeldFile::Vanished
            }
            // Not a regular file, or a symlink.
            ErrorKind::InvalidInput => HeldFile::NoFile,
            _ if Errno::from_io_error(&err) == Some(Errno::LOOP) => HeldFile::NoFile,
            _ => {
                let subject = match RelPath::root().join(name) {
                    Ok(path) => Subject::captured(&self.source, &path),
                    Err(_) => Subject::from(format!("{}:{}", self.source, name.escape_ascii())),
                };
                let message = format!("cannot be read: {err}");
                self.task
                    .observer
                    .problem(&Problem::new(Severity::Missing, subject, message));
                HeldFile::File {
                    size: None,
                    fault: None,
                }
            }
        }))
    }

    /// Reads a file and compares it with its name. The outer error is a cancellation.
    fn read(
        &self,
        directory: &SourceDir,
        name: &[u8],
        hash: HashName,
        buffer: &mut Vec<u8>,
    ) -> Result<io::Result<HeldFile>, Error> {
        buffer.resize(READ_BYTES, 0);
        let mut tries = 1;
        loop {
            let Some(checker) = hash.checker() else {
                return Ok(Ok(HeldFile::NoFile));
            };
            let (size, agrees, is_young) = match self.read_once(directory, name, checker, buffer)? {
                Ok(read) => read,
                Err(err) => return Ok(Err(err)),
            };
            if agrees || !is_young || tries == TRIES {
                let fault = if agrees { None } else { Some(FileFault::Name) };
                return Ok(Ok(HeldFile::File {
                    size: Some(size),
                    fault,
                }));
            }
            tries += 1;
            std::thread::sleep(PAUSE);
        }
    }

    /// Returns the number of bytes, whether they have the name's hash, and whether the file is
    /// young, so that another process may still be writing it.
    fn read_once(
        &self,
        directory: &SourceDir,
        name: &[u8],
        mut checker: HashChecker,
        buffer: &mut [u8],
    ) -> Result<io::Result<(u64, bool, bool)>, Error> {
        let mut file = match directory.open_file(name) {
            Ok(file) => file,
            Err(err) => return Ok(Err(err)),
        };
        let mut size = 0;
        loop {
            self.task.check()?;
            match file.read(buffer) {
                Ok(0) => break,
                Ok(read) => {
                    checker.update(&buffer[..read]);
                    self.task.observer.add(Counter::BytesRead, to_u64(read));
                    size += to_u64(read);
                }
                Err(err) => return Ok(Err(err)),
            }
        }
        let is_young = file.opened_stat().mtime > now().plus_seconds(-YOUNG_SECONDS);
        Ok(Ok((size, checker.finish(), is_young)))
    }
}

/// Adds the directory to an error.
fn listed<T>(result: io::Result<T>, directory: &Path) -> Result<T, PathError> {
    result.context("list", directory)
}
