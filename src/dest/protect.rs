//! Directories and files that the program itself needs, and that no restore enters, replaces or
//! deletes.
//!
//! They are recognized by device and inode, so by every path that leads to them: at any depth,
//! below another mount of the same file system, or by a link.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::found::FoundEntry;
use crate::types::EntryKind;

/// Directories and files that restores leave alone.
#[derive(Debug, Clone, Default)]
pub struct ProtectedDirs {
    held: Vec<HeldDir>,
}

#[derive(Debug, Clone)]
struct HeldDir {
    /// Device and inode.
    identity: (u64, u64),
    /// Description, such as `the repository in use`.
    what: &'static str,
    /// Name of a file: only paths with this name are compared with it.
    file_name: Option<Vec<u8>>,
    /// A restore into it is refused too.
    is_closed: bool,
}

/// Why a path was left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is {what}, which a restore never changes: restore into another directory and copy from there"
)]
pub struct InUse {
    pub what: &'static str,
}

impl InUse {
    /// Returns the reason, if an error of this layer has it.
    pub fn of(err: &io::Error) -> Option<&Self> {
        err.get_ref()?.downcast_ref()
    }
}

impl From<InUse> for io::Error {
    fn from(reason: InUse) -> Self {
        Self::other(reason)
    }
}

impl ProtectedDirs {
    /// Adds the directory or file at a path, following links. A missing path is ignored.
    pub fn add(&mut self, path: &Path, what: &'static str) {
        self.hold(path, what, true);
    }

    /// Adds a directory that is not entered from above, but into which the user may restore
    /// explicitly.
    pub fn add_open(&mut self, path: &Path, what: &'static str) {
        self.hold(path, what, false);
    }

    /// Adds a directory by its device and inode, like [`add`](Self::add).
    pub fn add_directory(&mut self, identity: (u64, u64), what: &'static str) {
        self.push(HeldDir {
            identity,
            what,
            file_name: None,
            is_closed: true,
        });
    }

    fn hold(&mut self, path: &Path, what: &'static str, is_closed: bool) {
        // A path that is missing, or that this user cannot reach, cannot be found below a target
        // either.
        let Ok(fd) = open_path(CWD, path.as_os_str().as_bytes(), OFlags::empty()) else {
            return;
        };
        let Ok(found) = FoundEntry::of_handle(fd.as_fd()) else {
            return;
        };

        let is_directory = found.kind == Some(EntryKind::Directory);
        let file_name = if is_directory {
            None
        } else {
            path.file_name().map(|name| name.as_bytes().to_vec())
        };

        self.push(HeldDir {
            identity: (found.device, found.inode),
            what,
            file_name,
            is_closed,
        });
    }

    fn push(&mut self, new: HeldDir) {
        match self
            .held
            .iter_mut()
            .find(|held| held.identity == new.identity)
        {
            Some(held) => held.is_closed |= new.is_closed,
            None => self.held.push(new),
        }
    }

    /// Returns an error if the path is protected.
    pub fn check(&self, found: &FoundEntry) -> Result<(), InUse> {
        match self
            .held
            .iter()
            .find(|held| held.identity == (found.device, found.inode))
        {
            Some(HeldDir { what, .. }) => Err(InUse { what }),
            None => Ok(()),
        }
    }

    /// Returns true if anything is protected.
    pub(super) fn is_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Returns true if a protected file has this name.
    pub(super) fn may_be_file(&self, name: &[u8]) -> bool {
        self.held
            .iter()
            .any(|held| held.file_name.as_deref() == Some(name))
    }

    /// Returns an error if a path is protected or inside a protected directory. The path need not
    /// exist.
    ///
    /// # Errors
    /// [`InUse`] (see [`InUse::of`]), or an error of the system for a directory above the path.
    pub fn check_around(&self, path: &Path) -> io::Result<()> {
        if !self.held.iter().any(|held| held.is_closed) {
            return Ok(());
        }

        // Find the deepest existing directory.
        let there = path.ancestors().map(|above| {
            if above.as_os_str().is_empty() {
                Path::new(".")
            } else {
                above
            }
        });
        let mut directory = None;
        for above in there {
            match open_path(CWD, above.as_os_str().as_bytes(), OFlags::empty()) {
                Ok(fd) => {
                    directory = Some(fd);
                    break;
                }
                Err(err)
                    if matches!(
                        err.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                Err(err) => return Err(err),
            }
        }

        let Some(mut directory) = directory else {
            return Ok(());
        };

        // Go up from there to the root.
        let mut found = FoundEntry::of_handle(directory.as_fd())?;
        if found.kind != Some(EntryKind::Directory) {
            return Ok(self.check_closed(&found)?);
        }
        loop {
            self.check_closed(&found)?;
            directory = open_path(directory.as_fd(), b"..", OFlags::DIRECTORY)?;
            let above = FoundEntry::of_handle(directory.as_fd())?;
            // The root is its own parent.
            if (above.device, above.inode) == (found.device, found.inode) {
                return Ok(());
            }
            found = above;
        }
    }

    fn check_closed(&self, found: &FoundEntry) -> Result<(), InUse> {
        let is_it =
            |held: &&HeldDir| held.is_closed && held.identity == (found.device, found.inode);
        self.held
            .iter()
            .find(is_it)
            .map_or(Ok(()), |held| Err(InUse { what: held.what }))
    }
}

fn open_path(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        from,
        path,
        flags | OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}
