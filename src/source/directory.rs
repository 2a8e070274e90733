//! Reads directories by handle. A tree is walked name by name from its root's handle, so its depth
//! is not limited, and no link leads out of it.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rayon::prelude::*;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, openat, readlinkat};
use rustix::io::Errno;

use crate::source::file::SourceFile;
use crate::source::filesystem::FsKind;
use crate::source::listing::{self, NameListing};
use crate::source::stat::{DirectoryId, SourceStat, StatKind};
use crate::source::xattr::{self, XattrReader};
use crate::sys::{PathContext, PathError, open_beneath};
use crate::types::RelPath;

/// From this number of names on, `stat_many` uses all cores.
const PARALLEL_STATS_MIN: usize = 256;
/// A non-blocking open of a file under a lease (Samba, NFS server) fails until its holder releases
/// it.
const LEASE_RETRIES: u32 = 20;
const LEASE_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a path resolved in one call; the kernel's limit is 4095.
const RESOLVED_BYTES: usize = 2048;

/// An open directory. Clones share one descriptor, which closes with the last of them.
#[derive(Debug, Clone)]
pub struct SourceDir {
    inner: Arc<DirInner>,
}

#[derive(Debug)]
struct DirInner {
    fd: OwnedFd,
    id: DirectoryId,
    mount_id: u64,
    /// Clones share the descriptor's offset, so only one listing runs at a time.
    listing: Mutex<()>,
}

impl SourceDir {
    /// Opens a source's root. Symlinks in the path are followed here, and nowhere else.
    pub fn open_root(path: &Path) -> Result<Self, PathError> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        open_noatime(flags, |flags| openat(CWD, path, flags, Mode::empty()))
            .and_then(Self::new)
            .context("open directory", path)
    }

    /// Opens the directory `name` in this one. A symlink is not followed (`NotADirectory`).
    pub fn open_child(&self, name: &[u8]) -> io::Result<Self> {
        self.open_directory(check(name)?)
    }

    /// Opens the directory that holds this one, by `..`, so that a walk of any depth needs only a
    /// few descriptors.
    ///
    /// # Errors
    /// `StaleNetworkFileHandle` if it is not the directory `expect`, because one was moved.
    /// `PermissionDenied` if this directory may be listed but not searched: then keep the parent's
    /// handle.
    pub fn reopen_parent(&self, expect: DirectoryId) -> io::Result<Self> {
        let parent = self.open_directory(b"..")?;
        if parent.id() == expect {
            Ok(parent)
        } else {
            Err(Errno::STALE.into())
        }
    }

    fn open_directory(&self, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        Self::new(open_noatime(flags, |flags| {
            openat(&self.inner.fd, name, flags, Mode::empty())
        })?)
    }

    fn new(fd: OwnedFd) -> io::Result<Self> {
        let stat = SourceStat::of(fd.as_fd(), b"")?;
        let inner = DirInner {
            fd,
            id: stat.id(),
            mount_id: stat.mount_id,
            listing: Mutex::new(()),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Returns device and inode, as they were when the directory was opened.
    pub fn id(&self) -> DirectoryId {
        self.inner.id
    }

    /// Returns the id of the mount that holds this directory; 0 before Linux 5.8. Together with the
    /// device, it shows where another file system or a bind mount begins.
    pub fn mount_id(&self) -> u64 {
        self.inner.mount_id
    }

    /// Stats this directory itself.
    pub fn stat_self(&self) -> io::Result<SourceStat> {
        SourceStat::of(self.inner.fd.as_fd(), b"")
    }

    /// Reads all names, sorted as unsigned bytes. More than 4 MiB of names (or `memory_bytes` if
    /// that is less) are sorted with the help of unlinked files in the directory `scratch`: about
    /// `memory_bytes` stay in memory.
    ///
    /// # Errors
    /// A failure of the scratch directory carries a [`PathError`] that names it.
    pub fn list(&self, scratch: &Path, memory_bytes: usize) -> io::Result<NameListing> {
        let _one_at_a_time = self
            .inner
            .listing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        NameListing::read(self.inner.fd.as_fd(), scratch, memory_bytes)
    }

    /// Stats a name of a listing. Returns `None` only if it is gone: `statx` does not find it, and
    /// a second listing does not contain it. Some file systems list names that they cannot find
    /// (SMB names that end in a dot), and others lose a name for a moment.
    ///
    /// # Errors
    /// The reason why the name cannot be reached. `Other` if it is listed but cannot be found.
    pub fn look(&self, name: &[u8]) -> io::Result<Option<SourceStat>> {
        self.confirm(&[name], vec![self.stat(name)])
            .pop()
            .unwrap_or(Ok(None))
    }

    /// Returns true if an error can mean that a name is gone, and a second look is needed. `STALE`
    /// means that another machine removed a file that was found before.
    pub fn is_missing(err: &io::Error) -> bool {
        matches!(
            err.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle
        )
    }

    /// Stats many names of a listing like [`SourceDir::look`], on all cores where that pays. All
    /// missing names together cost one listing.
    pub fn look_many<N: AsRef<[u8]> + Sync>(
        &self,
        names: &[N],
    ) -> Vec<io::Result<Option<SourceStat>>> {
        self.confirm(names, self.stat_many(names))
    }

    fn confirm<N: AsRef<[u8]>>(
        &self,
        names: &[N],
        stats: Vec<io::Result<SourceStat>>,
    ) -> Vec<io::Result<Option<SourceStat>>> {
        let mut listed: Option<Result<HashSet<Vec<u8>>, String>> = None;
        let looked = stats.into_iter().zip(names).map(|(stat, name)| {
            let name = name.as_ref();
            if !stat.as_ref().is_err_and(Self::is_missing) {
                return stat.map(Some);
            }

            let listed = listed.get_or_insert_with(|| {
                let names = names.iter().map(AsRef::as_ref);
                self.listed_of(names).map_err(|err| err.to_string())
            });

            match listed {
                Ok(listed) if !listed.contains(name) => Ok(None),
                Ok(_) => match self.stat(name) {
                    Err(err) if Self::is_missing(&err) => Err(io::Error::other(format!(
                        "it is listed but cannot be found: {err}"
                    ))),
                    other => other.map(Some),
                },
                Err(why) => Err(io::Error::other(format!(
                    "it cannot be found, and its directory cannot be listed: {why}"
                ))),
            }
        });

        looked.collect()
    }

    /// Stats a name that a listing does not contain. Returns `None` if it is gone, or if the
    /// listing has the same file by another name, as on a case-insensitive file system.
    ///
    /// # Errors
    /// The reason why the name cannot be reached.
    pub fn look_unlisted(&self, name: &[u8]) -> io::Result<Option<SourceStat>> {
        let stat = match self.stat(name) {
            Err(err) if Self::is_missing(&err) => return Ok(None),
            other => other?,
        };
        let has_one_name = stat.kind == StatKind::Directory || stat.nlink == 1;
        let folded = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
        let wanted = folded(name);
        let mut is_listed = false;
        let mut is_other = false;
        let _one_at_a_time = self
            .inner
            .listing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listing::each_name(self.inner.fd.as_fd(), |entry| {
            let listed = entry.file_name().to_bytes();
            is_listed |= listed == name;
            is_other |= has_one_name && entry.ino() == stat.inode || folded(listed) == wanted;
            Ok(())
        })?;
        Ok((is_listed || !is_other).then_some(stat))
    }

    /// Returns those of the names that a new listing contains.
    fn listed_of<'n>(&self, names: impl Iterator<Item = &'n [u8]>) -> io::Result<HashSet<Vec<u8>>> {
        let wanted: HashSet<&[u8]> = names.collect();
        let _one_at_a_time = self
            .inner
            .listing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut found = HashSet::new();
        listing::each_name(self.inner.fd.as_fd(), |entry| {
            let name = entry.file_name().to_bytes();
            if wanted.contains(name) {
                found.insert(name.to_vec());
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Stats `name` without following a symlink or mounting anything.
    pub fn stat(&self, name: &[u8]) -> io::Result<SourceStat> {
        SourceStat::of(self.inner.fd.as_fd(), check(name)?)
    }

    /// Checks that a path below this directory exists, without listing the directories above it.
    ///
    /// # Errors
    /// The reason why the path cannot be reached; `FilesystemLoop` if it leads through a symlink,
    /// which a walk does not follow.
    pub fn find(&self, path: &RelPath) -> io::Result<()> {
        let mut at: Option<OwnedFd> = None;
        let mut piece: Vec<u8> = Vec::new();
        for name in path.components() {
            if !piece.is_empty() && piece.len() + name.len() >= RESOLVED_BYTES {
                at = Some(reach(at.as_ref().unwrap_or(&self.inner.fd), &piece)?);
                piece.clear();
            }
            if !piece.is_empty() {
                piece.push(b'/');
            }
            piece.extend_from_slice(check(name)?);
        }
        if !piece.is_empty() {
            reach(at.as_ref().unwrap_or(&self.inner.fd), &piece)?;
        }
        Ok(())
    }

    /// Stats many names, on all cores where that pays. Results are in the order of the names.
    pub fn stat_many<N: AsRef<[u8]> + Sync>(&self, names: &[N]) -> Vec<io::Result<SourceStat>> {
        if names.len() < PARALLEL_STATS_MIN {
            return names.iter().map(|name| self.stat(name.as_ref())).collect();
        }
        names
            .par_iter()
            .with_min_len(64)
            .map(|name| self.stat(name.as_ref()))
            .collect()
    }

    /// Returns the target of the symlink `name`: any bytes except NUL.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&self.inner.fd, check(name)?, Vec::new())?.into_bytes())
    }

    /// Reads the extended attributes of `name` itself, without following a symlink, with values up
    /// to 64 KiB. Returns no attributes if the file system does not support them.
    ///
    /// Uses `/proc/self/fd`, which must be mounted.
    ///
    /// # Errors
    /// Only if `name` is not a single component.
    pub fn xattrs(&self, name: &[u8]) -> io::Result<XattrReader> {
        // User attributes exist only on files and directories, but security labels and trusted ones
        // on every kind, so every kind must be queried.
        let mut path = format!("/proc/self/fd/{}/", self.inner.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(check(name)?);
        Ok(xattr::read_all(&xattr::XattrPlace::Path(&path)))
    }

    /// Reads the extended attributes of this directory itself.
    pub fn xattrs_self(&self) -> XattrReader {
        xattr::read_all(&xattr::XattrPlace::Handle(self.inner.fd.as_fd()))
    }

    /// Opens the regular file `name` for reading. Never blocks on a FIFO, and does not change the
    /// access time if permitted.
    ///
    /// # Errors
    /// `FilesystemLoop` for a symlink, `InvalidInput` for any other kind.
    pub fn open_file(&self, name: &[u8]) -> io::Result<SourceFile> {
        let name = check(name)?;
        let flags =
            OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::RDONLY;
        let mut tries = 0;
        loop {
            match open_noatime(flags, |flags| {
                openat(&self.inner.fd, name, flags, Mode::empty())
            }) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && tries < LEASE_RETRIES =>
                {
                    tries += 1;
                    std::thread::sleep(LEASE_PAUSE);
                }
                other => return SourceFile::new(other?),
            }
        }
    }

    /// Returns the kind of file system that holds the directory.
    pub fn fs_kind(&self) -> io::Result<FsKind> {
        // Magic numbers are 32 bits wide, and sign-extended on some machines.
        Ok(FsKind::of(fstatfs(&self.inner.fd)?.f_type as u32))
    }
}

/// Rejects anything but a single component, so that no call can leave the directory.
fn check(name: &[u8]) -> io::Result<&[u8]> {
    match name {
        b"" | b"." | b".." => Err(Errno::INVAL.into()),
        _ if name.contains(&b'/') || name.contains(&0) => Err(Errno::INVAL.into()),
        _ => Ok(name),
    }
}

/// Opens a handle that only marks the place, without opening a file for reading or waking a device.
fn reach(directory: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(open_beneath(directory, path, flags, ResolveFlags::empty())?)
}

/// Opens without changing the access time. The kernel permits that only to owners and root, so for
/// other users it tries again without the flag.
fn open_noatime(
    flags: OFlags,
    open: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
) -> io::Result<OwnedFd> {
    let mut flags = flags | OFlags::NOATIME;
    loop {
        match open(flags) {
            Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => flags.remove(OFlags::NOATIME),
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
