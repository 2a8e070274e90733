//! The index directory: which database file is current, who has it open, and whether it was left in
//! order.
//!
//! | file | what it is |
//! |---|---|
//! | `lock` | held exclusively (flock) while a process opens, replaces or clears away databases |
//! | `current` | text naming the current generation; replaced by rename |
//! | `index-<generation>.sqlite`, `-wal`, `-shm` | a database |
//! | `index-<generation>.open` | held shared (flock) by all who have that database open; its text is the mark |
//!
//! A database file is removed only by who holds its `.open` file exclusively while `current` names
//! another: nobody has it open, and under `lock` nobody can come to open it. No file of SQLite's is
//! opened here, since closing one would drop the locks that SQLite holds on it in this process.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::sys::{
    Dir, Existing, LockFile, PathError, private_directory, read_bounded, remove_if_there,
    write_file,
};

const POINTER_MAGIC: &str = "icecore index";
/// A pointer file is three short lines.
const POINTER_BYTES_MAX: usize = 4096;

/// The index directory, locked: others wait before they open or replace anything in it.
pub(super) struct IndexDir {
    dir: PathBuf,
    _lock: LockFile,
}

/// What the pointer file says.
pub(super) enum Pointer {
    Absent,
    Unusable(String),
    Generation(u64),
}

impl IndexDir {
    /// Makes the directory (0700) if need be, and waits for its lock.
    pub(super) fn enter(dir: &Path) -> Result<Self, PathError> {
        private_directory(dir)?;
        let lock = LockFile::open(dir.join("lock"))?;
        lock.lock()?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    pub(super) fn pointer(&self) -> Result<Pointer, PathError> {
        let path = self.dir.join("current");
        let bytes = match read_bounded(&path, POINTER_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Pointer::Absent),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::FileTooLarge | ErrorKind::IsADirectory
                ) =>
            {
                return Ok(Pointer::Unusable(error.to_string()));
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
            || Pointer::Unusable(format!("{} names no database", path.display())),
            Pointer::Generation,
        ))
    }

    /// A generation that no database in this directory has had: the time in microseconds, or the
    /// next free number.
    pub(super) fn new_generation(&self) -> Result<u64, PathError> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_micros());
        let highest = self.generations()?.into_iter().max().unwrap_or(0);
        Ok(u64::try_from(now)
            .unwrap_or(0)
            .max(highest.saturating_add(1)))
    }

    /// Makes `generation` the current one; a crash leaves the old pointer or the new one.
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
        write_file(&path, text.as_bytes(), 0o600, Existing::Replace)
    }

    /// Removes all databases but `current` that nobody has open. What cannot be removed stays for
    /// the next time.
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

    /// The generations that have a file of any kind here.
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

/// Where the database of a generation lies.
pub(super) fn database_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("index-{generation:016x}.sqlite"))
}

fn mark_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("index-{generation:016x}.open"))
}

/// In what order a database was left by the last who had it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// All who wrote closed it, or others have it open now.
    Clean,
    /// Somebody wrote and did not close it: the machine may have stopped between two writes.
    Unclean,
    /// Somebody met damage in it.
    Damaged,
}

/// Says to others that a database is open in this process.
pub(super) struct Hold {
    file: LockFile,
    written: bool,
}

impl Hold {
    /// Joins those who have the database open; to be called with the directory locked.
    pub(super) fn take(
        _directory: &IndexDir,
        dir: &Path,
        generation: u64,
    ) -> Result<(Self, Mark), PathError> {
        let file = LockFile::open(mark_path(dir, generation))?;
        let alone = file.try_lock()?;
        // Under the directory's lock nobody else comes in between.
        file.share()?;
        let mark = match file.state()? {
            Some(b'x') => Mark::Damaged,
            Some(b'd') if alone => Mark::Unclean,
            _ => Mark::Clean,
        };
        Ok((
            Self {
                file,
                written: false,
            },
            mark,
        ))
    }

    /// To be called before the first write: until all have closed the database, it counts as
    /// unclean.
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

    /// Makes the next who opens this generation begin a new one.
    pub(super) fn met_damage(&self) {
        // A mark that cannot be written costs the next command the same discovery.
        let _ = self.file.set_state(b'x');
    }

    /// Leaves, after the database was closed; the last to leave marks it clean.
    pub(super) fn leave(self) {
        // On any failure the mark stays as it is and the next opening checks the database.
        let is_last = self.file.unlock().is_ok() && matches!(self.file.try_lock(), Ok(true));
        if is_last && matches!(self.file.state(), Ok(Some(b'd'))) {
            let _ = self.file.set_state(b'c');
        }
    }
}
