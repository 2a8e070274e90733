//! Durability: a file gets its time only after its content is on disk. So a file that looks
//! finished is complete after any crash, and a restore that reported success survives one.
//!
//! ```text
//! files written, renamed, with the current time ─▶ sync ─▶ files' times
//!     ─▶ directories' metadata ─▶ sync ─▶ success
//! ```
//!
//! The first two steps are repeated when enough files wait, so that an interrupted restore keeps
//! most of its work. Waiting files are sorted in scratch files. Where the next restore would trust
//! a file by its name or size alone, files get their names only after the sync.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::execute::{LastDir, WindowWriter};
use super::plan::RestoreWalk;
use super::window::WindowItem;
use crate::error::Error;
use crate::observe::{Phase, Severity};
use crate::repo::RepoError;
use crate::sys::{PathError, Sorter};
use crate::target::{UnsettledFile, WholeFile};
use crate::types::{RelPath, Timestamp};

/// Files that get their times in one batch.
const BATCH_FILES: usize = 4096;
/// Files that a thread takes at once.
const BATCH: usize = 64;
/// Open files that may wait for a sync before they get their names.
const NAMELESS_MAX: usize = 128;

/// Written files that wait for a sync.
pub(super) struct WaitingFiles {
    state: Mutex<WaitingState>,
    nameless: Mutex<Vec<NamelessFile>>,
}

struct WaitingState {
    /// Path in the target → [`UnsettledFile`].
    files: Sorter,
    count: u64,
    bytes: u64,
}

/// A complete file without its name.
pub(super) struct NamelessFile {
    pub file: WholeFile,
    pub path: RelPath,
    pub size: u64,
    pub leader: Option<std::sync::Arc<super::window::LinkLeader>>,
    /// The directory existed before, so other paths may have claims in it.
    pub is_claim: bool,
    pub identity: (u64, u64),
}

impl WaitingFiles {
    pub fn new(scratch: &std::path::Path, sorter_bytes: usize) -> Self {
        let state = WaitingState {
            files: Sorter::new(scratch, sorter_bytes),
            count: 0,
            bytes: 0,
        };
        Self {
            state: Mutex::new(state),
            nameless: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, WaitingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a file that has its name but not its time.
    pub fn push(&self, path: &RelPath, file: &UnsettledFile, bytes: u64) -> Result<(), PathError> {
        let mut state = self.state();
        state.count += 1;
        state.bytes += bytes;
        state.files.push(path.key(), &encode(file))
    }
}

fn encode(file: &UnsettledFile) -> [u8; 29] {
    let mut value = [0; 29];
    value[..8].copy_from_slice(&file.device.to_le_bytes());
    value[8..16].copy_from_slice(&file.inode.to_le_bytes());
    value[16..24].copy_from_slice(&file.mtime.seconds().to_le_bytes());
    value[24..28].copy_from_slice(&file.mtime.nanos().to_le_bytes());
    value[28] = u8::from(file.is_shared);
    value
}

fn decode(key: &[u8], value: &[u8]) -> Option<(RelPath, UnsettledFile)> {
    let (device, rest) = value.split_first_chunk::<8>()?;
    let (inode, rest) = rest.split_first_chunk::<8>()?;
    let (seconds, rest) = rest.split_first_chunk::<8>()?;
    let (nanos, rest) = rest.split_first_chunk::<4>()?;
    let mtime = Timestamp::new(i64::from_le_bytes(*seconds), u32::from_le_bytes(*nanos))?;
    let file = UnsettledFile {
        device: u64::from_le_bytes(*device),
        inode: u64::from_le_bytes(*inode),
        mtime,
        is_shared: *rest == [1],
    };
    Some((RelPath::from_key(key.to_vec()).ok()?, file))
}

impl RestoreWalk<'_> {
    /// Syncs written files if enough of them wait.
    pub(super) fn settle_if_due(&mut self) -> Result<(), Error> {
        let limits = &self.job.limits;
        let is_due = self.execution.as_ref().is_some_and(|execution| {
            let state = execution.waiting.state();
            state.count >= limits.unsettled_files || state.bytes >= limits.unsettled_bytes
        });
        if is_due { self.settle() } else { Ok(()) }
    }

    /// Makes written files durable, then sets their times.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        // A handle syncs its directory when it is dropped.
        self.dir = None;
        let Some(execution) = &self.execution else {
            return Ok(());
        };
        if self.job.options.dry_run {
            return Ok(());
        }
        self.job.task.observer.phase(&Phase::Sync {
            name: self.source.name.clone(),
        });
        execution
            .tree
            .sync()
            .map_err(|err| execution.not_durable(err))?;
        execution.set_times()?;
        self.job.task.observer.phase(&Phase::Restore {
            name: self.source.name.clone(),
        });
        Ok(())
    }

    /// Makes times, directories' metadata and kept files durable. This is the last step.
    pub(super) fn finish_durably(&self) -> Result<(), Error> {
        let Some(execution) = &self.execution else {
            return Ok(());
        };
        if self.job.options.dry_run {
            return Ok(());
        }
        self.job.task.observer.phase(&Phase::Sync {
            name: self.source.name.clone(),
        });
        execution
            .tree
            .sync_all()
            .map_err(|err| execution.not_durable(err))
    }
}

impl WindowWriter<'_> {
    fn not_durable(&self, err: io::Error) -> Error {
        Error::NotDurable(PathError {
            action: "sync the files restored to",
            path: self.place.path.clone(),
            source: err,
        })
    }

    fn set_times(&self) -> Result<(), Error> {
        let scratch = self.job.repo.scratch_dir();
        let files = {
            let mut state = self.waiting.state();
            (state.count, state.bytes) = (0, 0);
            let next = Sorter::new(&scratch, self.job.sorter_bytes / 3);
            std::mem::replace(&mut state.files, next)
        };

        let mut files = files.finish()?;
        let mut batch = Vec::new();

        loop {
            while batch.len() < BATCH_FILES
                && let Some((key, value)) = files.next()?
            {
                let record = decode(key, value);
                batch.push(
                    record.ok_or_else(|| RepoError::damaged("a sorted record", "a file's time"))?,
                );
            }

            if batch.is_empty() {
                return Ok(());
            }

            self.fetcher.on_all_threads(
                batch.len().div_ceil(BATCH),
                |hand: &mut LastDir, number| {
                    let end = batch.len().min((number + 1) * BATCH);
                    batch[number * BATCH..end]
                        .iter()
                        .try_for_each(|(path, file)| self.set_time(hand, path, file))
                },
            )?;
            batch.clear();
        }
    }

    fn set_time(
        &self,
        hand: &mut LastDir,
        path: &RelPath,
        file: &UnsettledFile,
    ) -> Result<(), Error> {
        let name = path.name().unwrap_or_default();
        let done = self
            .dir_of(hand, path)
            .and_then(|dir| dir.settle(name, file));
        let why = match done {
            Ok(None) => return Ok(()),
            Ok(Some(refusal)) => {
                let error = io::Error::from_raw_os_error(refusal.errno);
                let why = format!("cannot set modification time: {error}");
                self.job.tally.refused(self.subject(path), &why);
                return Ok(());
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                "another program replaced or removed it during the restore".to_owned()
            }
            Err(err) => format!("its modification time cannot be set: {err}"),
        };
        self.job
            .tally
            .fail(Severity::Missing, self.subject(path), &why);
        Ok(())
    }

    /// Keeps a complete file until it is durable. Once there are too many, all get their names.
    pub(super) fn keep_nameless(&self, file: NamelessFile) -> Result<(), Error> {
        let mut nameless = self
            .waiting
            .nameless
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        nameless.push(file);
        // Under the lock, so that other threads do not open more files in the meantime.
        if nameless.len() >= NAMELESS_MAX {
            self.name_files(&mut nameless)
        } else {
            Ok(())
        }
    }

    /// Gives all complete files their names.
    pub(super) fn name_all(&self) -> Result<(), Error> {
        self.name_files(
            &mut self
                .waiting
                .nameless
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn name_files(&self, files: &mut Vec<NamelessFile>) -> Result<(), Error> {
        if files.is_empty() {
            return Ok(());
        }
        self.tree
            .sync_files()
            .map_err(|err| self.not_durable(err))?;

        for NamelessFile {
            file,
            path,
            size,
            leader,
            is_claim,
            identity,
        } in files.drain(..)
        {
            let named = file.put(path.name().unwrap_or_default());
            if named.is_ok() && is_claim {
                self.job
                    .claimed
                    .add(&path.parent().unwrap_or_default(), identity);
            }

            match named {
                Ok(()) => self.written(&path, size, true),
                Err(err) => {
                    self.came_to_nothing(&path, leader.as_deref(), self.trouble(&path, err))?;
                }
            }
        }
        Ok(())
    }
}

/// The data that a file needs while it waits for its name.
impl NamelessFile {
    pub fn new(item: &WindowItem, file: WholeFile, identity: (u64, u64)) -> Self {
        let path = item.path.clone();
        let leader = item.leader.clone();
        Self {
            file,
            path,
            size: item.size,
            leader,
            is_claim: item.rule.is_claim,
            identity,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsettled_file_survives_the_sorter() {
        for (seconds, nanos) in [(0, 0), (-5, 999_999_999), (i64::MAX, 1), (i64::MIN, 2)] {
            let mtime = Timestamp::new(seconds, nanos).expect("a time");
            let file = UnsettledFile {
                device: u64::MAX,
                inode: 7,
                mtime,
                is_shared: nanos > 0,
            };
            let path = RelPath::from_slashed(b"a/b").expect("a path");
            assert_eq!(decode(path.key(), &encode(&file)), Some((path, file)));
        }
        assert_eq!(decode(b"a", b"short"), None);
    }
}
