//! The index directory: which database file is current, which processes have it open, and whether
//! it was closed cleanly.
//!
//! | file | content |
//! |---|---|
//! | `lock` | locked exclusively (flock) while a process opens, replaces or removes databases |
//! | `current` | text naming the current generation; replaced by rename |
//! | `index-<generation>.sqlite`, `-wal`, `-shm` | a database |
//! | `index-<generation>.open` | locked shared (flock) by every process that has that database open; its text is the mark |
//!
//! A process removes a database file only while it holds the `.open` file exclusively and `current`
//! names another generation: then no process has the database open, and under `lock` no process can
//! open it. No file of SQLite's is opened here, since closing one would drop the locks that SQLite
//! holds on it in this process.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys::{
    Dir, ExistingFile, LockFile, PathError, private_directory, read_bounded, remove_if_there,
    write_file,
};

const POINTER_MAGIC: &str = "icecore index";
/// A pointer file has three short lines.
const POINTER_BYTES_MAX: usize = 4096;

/// The locked index directory: other processes wait before they open or replace anything in it.
pub(super) struct IndexDir {
    dir: PathBuf,
    _lock: LockFile,
}

/// Content of the pointer file.
pub(super) enum DatabasePointer {
    Absent,
    Unusable(String),
    Generation(u64),
}

impl IndexDir {
    /// Creates the directory (0700) if it does not exist, and waits for its lock.
    pub(super) fn enter(dir: &Path) -> Result<Self, PathError> {
        private_directory(dir)?;
        let lock = LockFile::open(dir.join("lock"))?;
        lock.lock()?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    pub(super) fn pointer(&self) -> Result<DatabasePointer, PathError> {
        let path = self.dir.join("current");
        let bytes = match read_bounded(&path, POINTER_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(DatabasePointer::Absent);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::FileTooLarge | ErrorKind::IsADirectory
                ) =>
            {
                return Ok(DatabasePointer::Unusable(error.to_string()));
            }
            Err(error) => return Err(error),
        };

        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let generation = match (lines.next(), lines.next()) {
            (Some(POINTER_MAGIC), Some(number)) if number.len() == 16 => {
                u64::from_str_radix(number, 16).ok()
            }
            _ => None,
        };
        Ok(generation.map_or_else(
            || DatabasePointer::Unusable(format!("{} names no database", path.display())),
            DatabasePointer::Generation,
        ))
    }

    /// Returns a generation that no database in this directory has had: the time in microseconds,
    /// or the next free number.
    pub(super) fn new_generation(&self) -> Result<u64, PathError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_micros());
        let highest = self.generations()?.into_iter().max().unwrap_or(0);
        Ok(u64::try_from(now)
            .unwrap_or(0)
            .max(highest.saturating_add(1)))
    }

    /// Makes `generation` the current one. A crash leaves the old pointer or the new one.
    pub(super) fn point_to(&self, generation: u64, why: &str) -> Result<(), PathError> {
        let path = self.dir.join("current");
        let why: String = why
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(500)
            .collect();
        let text = format!("{POINTER_MAGIC}\n{generation:016x}\n{why}\n");
        if path.is_dir() {
            remove_if_there(&path)?;
        }
        write_file(&path, text.as_bytes(), 0o600, ExistingFile::Replace)
    }

    /// Removes all databases except `current` that no process has open. Files that cannot be
    /// removed stay until the next call.
    pub(super) fn remove_others(&self, current: u64) {
        for generation in self.generations().unwrap_or_default() {
            let mark = mark_path(&self.dir, generation);
            if generation == current {
                continue;
            }
            let Ok(lock) = LockFile::open(&mark) else {
                continue;
            };
            if !matches!(lock.try_lock(), Ok(true)) {
                continue;
            }

            let database = database_path(&self.dir, generation);
            let gone = ["", "-wal", "-shm"].iter().all(|suffix| {
                let mut name = database.clone().into_os_string();
                name.push(suffix);
                remove_if_there(Path::new(&name)).is_ok()
            });
            if gone {
                // If this fails, the next opening tries again.
                let _ = remove_if_there(&mark);
            }
        }
    }

    /// Returns the generations that have a file of any kind here.
    fn generations(&self) -> Result<Vec<u64>, PathError> {
        let mut found = Vec::new();
        for name in Dir::open(&self.dir)?.names()? {
            let name = name?;
            let number = name.strip_prefix("index-").and_then(|rest| rest.get(..16));
            if let Some(generation) = number.and_then(|number| u64::from_str_radix(number, 16).ok())
            {
                found.push(generation);
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

/// Returns the path of a generation's database.
pub(super) fn database_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("index-{generation:016x}.sqlite"))
}

fn mark_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("index-{generation:016x}.open"))
}

/// State in which the last user of a database left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenMark {
    /// All writers closed it, or other processes have it open now.
    Clean,
    /// A writer did not close it: the machine may have stopped between two writes.
    Unclean,
    /// A process found damage in it.
    Damaged,
}

/// Signals to other processes that this process has a database open.
pub(super) struct DatabaseHold {
    file: LockFile,
    written: bool,
}

impl DatabaseHold {
    /// Registers this process as a user of the database. The caller holds the directory's lock.
    pub(super) fn take(
        _directory: &IndexDir,
        dir: &Path,
        generation: u64,
    ) -> Result<(Self, OpenMark), PathError> {
        let file = LockFile::open(mark_path(dir, generation))?;
        let alone = file.try_lock()?;
        // The directory's lock keeps other processes out between these two steps.
        file.share()?;
        let mark = match file.state()? {
            Some(b'x') => OpenMark::Damaged,
            Some(b'd') if alone => OpenMark::Unclean,
            _ => OpenMark::Clean,
        };
        Ok((
            Self {
                file,
                written: false,
            },
            mark,
        ))
    }

    /// Marks the database unclean until all users have closed it. To be called before the first
    /// write.
    pub(super) fn will_write(&mut self) -> Result<(), PathError> {
        if !self.written {
            if !matches!(self.file.state()?, Some(b'd' | b'x')) {
                self.file.set_state(b'd')?;
                self.file.sync()?;
            }
            self.written = true;
        }
        Ok(())
    }

    /// Makes the next process that opens this generation start a new one.
    pub(super) fn met_damage(&self) {
        // If the mark cannot be written, the next command finds the damage itself.
        let _ = self.file.set_state(b'x');
    }

    /// Unregisters this process after the database was closed. The last user marks the database
    /// clean.
    pub(super) fn leave(self) {
        // On any failure the mark stays as it is, and the next open checks the database.
        let is_last = self.file.unlock().is_ok() && matches!(self.file.try_lock(), Ok(true));
        if is_last && matches!(self.file.state(), Ok(Some(b'd'))) {
            let _ = self.file.set_state(b'c');
        }
    }
}
