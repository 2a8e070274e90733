//! The state directory: small files that this machine must keep across runs and that no repository
//! holds.
//!
//! Losing them does not lose a backup, but unlike the cache they cannot be derived: for example
//! which repository was at which address. Each file is replaced in one durable step, so a crash
//! leaves the old bytes or the new ones.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sys::random::random_bytes;
use crate::sys::{Dir, ExistingFile, LockFile, PathContext, PathError, TempFile, read_bounded};

/// Permission bits that let other users change the content of a directory.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// An open state directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    dir: Arc<Dir>,
}

impl StateDir {
    /// Opens the directory. Creates it and its missing parents durably (mode 0700).
    ///
    /// # Errors
    /// `PermissionDenied` also if other users can write to an existing directory, since they could
    /// have written its files. A directory that this process can read but not write opens;
    /// [`StateDir::write`] fails then.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PathError> {
        let dir = Dir::create_all(path.as_ref(), 0o700)?;
        let found = dir.stat_self()?;
        let trusted = found.mode & WRITABLE_BY_OTHERS == 0
            && (found.owner == 0 || found.owner == effective_user());
        if !trusted {
            let text = format!(
                "other users can write to it (mode {:04o}, owner {})",
                found.mode, found.owner
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
                .context("trust", dir.path());
        }
        Ok(Self { dir: Arc::new(dir) })
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Opens a subdirectory. Creates it durably if it is missing (mode 0700).
    pub fn sub(&self, name: &str) -> Result<Self, PathError> {
        if self.dir.make_dir(name, 0o700)? {
            self.dir.sync()?;
        }
        Ok(Self {
            dir: Arc::new(self.dir.open_dir(name)?),
        })
    }

    /// Opens an existing subdirectory.
    pub fn existing_sub(&self, name: &str) -> Result<Self, PathError> {
        Ok(Self {
            dir: Arc::new(self.dir.open_dir(name)?),
        })
    }

    /// Reads a file of at most `max_bytes`. Returns `None` if there is no file of this name.
    pub fn read(&self, name: &str, max_bytes: usize) -> Result<Option<Vec<u8>>, PathError> {
        match read_bounded(&self.path().join(name), max_bytes) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a whole file (mode 0600). When it returns `Ok` the file survives a power failure;
    /// otherwise the previous content stays.
    pub fn write(&self, name: &str, bytes: &[u8], existing: ExistingFile) -> Result<(), PathError> {
        let mut temp = TempFile::create(&self.dir, 0o600)?;
        temp.write_all(bytes)?;
        temp.publish(&self.dir, name, existing)?;
        self.dir.sync()
    }

    /// Opens a lock file of this name without locking it.
    pub fn lock(&self, name: &str) -> Result<LockFile, PathError> {
        LockFile::open(self.path().join(name))
    }

    /// Renames a file that cannot be read to `NAME.damaged-…` and returns the new path.
    pub fn set_aside(&self, name: &str) -> Result<PathBuf, PathError> {
        let random = random_bytes::<4>().context("name a file in", self.path())?;
        let aside = format!("{name}.damaged-{:08x}", u32::from_le_bytes(random));
        if !self.dir.rename_new(name, &self.dir, Path::new(&aside))? {
            self.dir.remove_file(name)?;
        }
        self.dir.sync()?;
        Ok(self.path().join(aside))
    }
}

fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("stat").permissions().mode() & 0o7777
    }

    #[test]
    fn files_are_private_and_replaced_whole() {
        let root = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(root.path().join("a/state")).expect("made");
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(state.read("f", 10).expect("absent"), None);
        state
            .write("f", b"one", ExistingFile::Refuse)
            .expect("written");
        assert_eq!(mode(&state.path().join("f")), 0o600);
        let taken = state
            .write("f", b"two", ExistingFile::Refuse)
            .expect_err("taken");
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        state
            .write("f", b"three", ExistingFile::Replace)
            .expect("replaced");
        assert_eq!(
            state.read("f", 10).expect("read").as_deref(),
            Some(&b"three"[..])
        );
        assert!(state.read("f", 4).is_err(), "a longer file is no valid one");
        let inner = state
            .sub("inner")
            .and_then(|_| state.sub("inner"))
            .expect("made once, opened twice");
        inner
            .write("f", b"x", ExistingFile::Refuse)
            .expect("written");
        assert_eq!(fs::read(state.path().join("inner/f")).expect("read"), b"x");
    }

    #[test]
    fn an_unreadable_file_is_set_aside() {
        let root = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(root.path()).expect("opens");
        state
            .write("f", b"junk", ExistingFile::Refuse)
            .expect("written");
        let aside = state.set_aside("f").expect("moved");
        assert_eq!(fs::read(aside).expect("read"), b"junk");
        assert_eq!(state.read("f", 10).expect("absent"), None);
        assert!(state.set_aside("f").is_err(), "there is nothing to move");
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_trusted() {
        let root = tempfile::tempdir().expect("a directory");
        for (bits, trusted) in [
            (0o700, true),
            (0o755, true),
            (0o775, false),
            (0o1777, false),
        ] {
            fs::set_permissions(root.path(), fs::Permissions::from_mode(bits)).expect("mode");
            assert_eq!(StateDir::open(root.path()).is_ok(), trusted, "{bits:o}");
            assert_eq!(mode(root.path()), bits, "the mode is the user's own choice");
        }
    }
}
