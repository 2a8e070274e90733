//! Files for coordination between processes: locks (flock) with a state byte, and helpers for their
//! directory and names.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::{PathContext, PathError};

/// A file to lock. Closing it releases the lock.
#[derive(Debug)]
pub struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Opens the file, creating it if it does not exist, without locking it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, PathError> {
        let path = path.into();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        Ok(Self {
            file: file.context("open", &path)?,
            path,
        })
    }

    /// Locks it exclusively. Waits until no other process holds a lock.
    pub fn lock(&self) -> Result<(), PathError> {
        self.file.lock().context("lock", &self.path)
    }

    /// Locks it exclusively, or returns false if another process holds a lock.
    pub fn try_lock(&self) -> Result<bool, PathError> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error).context("lock", &self.path),
        }
    }

    /// Locks it shared. An exclusive lock is released first, so another process may lock it in
    /// between.
    pub fn share(&self) -> Result<(), PathError> {
        self.file
            .unlock()
            .and_then(|()| self.file.lock_shared())
            .context("lock", &self.path)
    }

    /// Releases the lock.
    pub fn unlock(&self) -> Result<(), PathError> {
        self.file.unlock().context("unlock", &self.path)
    }

    /// Returns the file's first byte, or `None` if the file is empty.
    pub fn state(&self) -> Result<Option<u8>, PathError> {
        let mut byte = [0; 1];
        let read = self
            .file
            .read_at(&mut byte, 0)
            .context("read", &self.path)?;
        Ok((read == 1).then_some(byte[0]))
    }

    /// Sets the file's first byte; [`LockFile::sync`] makes it durable.
    pub fn set_state(&self, byte: u8) -> Result<(), PathError> {
        self.file
            .write_all_at(&[byte], 0)
            .context("write", &self.path)
    }

    /// Replaces the content of the file. The write is not durable, and not atomic for a process
    /// that reads without the lock.
    pub fn write(&self, bytes: &[u8]) -> Result<(), PathError> {
        self.file.set_len(0).context("write", &self.path)?;
        self.file
            .write_all_at(bytes, 0)
            .context("write", &self.path)
    }

    /// Returns the content of the file, up to 4 KiB.
    pub fn read(&self) -> Result<Vec<u8>, PathError> {
        let mut bytes = vec![0; 4096];
        let len = self
            .file
            .read_at(&mut bytes, 0)
            .context("read", &self.path)?;
        bytes.truncate(len);
        Ok(bytes)
    }

    /// Makes the state durable.
    pub fn sync(&self) -> Result<(), PathError> {
        self.file.sync_data().context("sync", &self.path)
    }
}

/// Creates a directory and its parents if they do not exist, and removes all permissions of group
/// and others.
pub fn private_directory(path: &Path) -> Result<(), PathError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .context("create", path)?;

    let mode = fs::metadata(path)
        .context("stat", path)?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).context("restrict", path)?;
    }

    Ok(())
}

/// Removes a file or an empty directory. A missing one is not an error.
pub fn remove_if_there(path: &Path) -> Result<(), PathError> {
    let removed = if path.is_dir() {
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("remove", path),
        _ => Ok(()),
    }
}

/// Removes the files of a directory that no process has locked and that were last written longer
/// than `age` ago. Files that cannot be removed stay.
pub fn remove_unlocked(dir: &Path, age: Duration) {
    let Ok(listed) = fs::read_dir(dir) else {
        return;
    };
    for path in listed.filter_map(|entry| Some(entry.ok()?.path())) {
        let written = fs::symlink_metadata(&path)
            .ok()
            .filter(fs::Metadata::is_file);
        let is_old = written
            .and_then(|found| found.modified().ok()?.elapsed().ok())
            .is_some_and(|elapsed| elapsed > age);
        if is_old && LockFile::open(&path).is_ok_and(|lock| matches!(lock.try_lock(), Ok(true))) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Returns true if `path` itself is a regular file (a symlink is not).
pub fn is_regular_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

/// Returns true if `path` leads to a directory, symlinks followed, that this user can see.
pub fn is_directory(path: &Path) -> bool {
    path.is_dir()
}

/// Returns true if this directory is on another file system than its parent.
pub fn is_mount_point(directory: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    directory
        .parent()
        .is_some_and(|parent| device(parent) != device(directory))
}

/// Returns true if a path leads to something other than a file or a directory: a device, a FIFO, a
/// socket. Symlinks are followed. A link into `/proc`, such as `/dev/stdout`, counts as special
/// too, regardless of its descriptor.
pub fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
        || fs::read_link(path).is_ok_and(|to| to.starts_with("/proc"))
}

/// Returns true if the file has any write permission bit.
pub fn is_writable_by_any(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.permissions().readonly())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_exclusive_or_shared() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("a/lock");
        private_directory(&root.path().join("a")).expect("made");
        let one = LockFile::open(&path).expect("opens");
        let two = LockFile::open(&path).expect("opens");

        one.lock().expect("locks");
        assert!(!two.try_lock().expect("asks"));
        one.share().expect("shares");
        two.share().expect("shares");
        assert!(!one.try_lock().expect("asks"));
        drop(two);
        assert!(one.try_lock().expect("asks"));
        assert_eq!(one.state().expect("reads"), None);
        one.set_state(b'd')
            .and_then(|()| one.sync())
            .expect("writes");
        assert_eq!(
            LockFile::open(&path)
                .expect("opens")
                .state()
                .expect("reads"),
            Some(b'd')
        );
    }

    #[test]
    fn a_private_directory_gets_its_mode_and_can_be_removed() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("a/b");
        private_directory(&path).expect("made");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("opened up");
        private_directory(&path).expect("restricted");
        assert_eq!(
            fs::metadata(&path).expect("stat").permissions().mode() & 0o7777,
            0o700
        );
        assert!(!is_regular_file(&path));
        remove_if_there(&path)
            .and_then(|()| remove_if_there(&path))
            .expect("gone");
        assert!(!path.exists() && path.parent().expect("a parent").exists());
    }
}
