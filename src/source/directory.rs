//! Directories by handle: a tree is walked name by name from its root's handle, so its depth has no
//! limit and nothing is followed out of it.

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
use crate::source::listing::{self, Listing};
use crate::source::stat::{DirectoryId, Kind, Stat};
use crate::source::xattr::{self, Attributes};
use crate::sys::{PathContext, PathError, open_beneath};
use crate::types::RelPath;

/// From this many names on, `stat_many` uses all cores.
const PARALLEL_STATS_MIN: usize = 256;
/// A file under a lease (Samba, NFS server) refuses a non-blocking open until its holder gives way.
const LEASE_RETRIES: u32 = 20;
const LEASE_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of a path that are resolved at once; the kernel takes 4095.
const RESOLVED_BYTES: usize = 2048;

/// An open directory. Clones share one descriptor, which closes with the last of them.
#[derive(Debug, Clone)]
pub struct SourceDir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    id: DirectoryId,
    mount_id: u64,
    /// Clones share the descriptor's offset: one listing at a time.
    listing: Mutex<()>,
}

impl SourceDir {
    /// Opens a source's root; here, and only here, symlinks in the path are followed.
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

    /// Opens the directory that holds this one, by `..`, so that a walk of any depth needs but a
    /// few descriptors.
    ///
    /// # Errors
    /// `StaleNetworkFileHandle` if it is not the directory `expect`: something was moved.
    /// `PermissionDenied` if this directory may be listed but not searched: hold on to the parent's
    /// handle in that case.
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
        let stat = Stat::of(fd.as_fd(), b"")?;
        let inner = Inner {
            fd,
            id: stat.id(),
            mount_id: stat.mount_id,
            listing: Mutex::new(()),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Device and inode, as they were when the directory was opened.
    pub fn id(&self) -> DirectoryId {
        self.inner.id
    }

    /// The mount that holds this directory; 0 before Linux 5.8. With the device it tells where
    /// another file system or a bind mount begins.
    pub fn mount_id(&self) -> u64 {
        self.inner.mount_id
    }

    /// Stats this directory itself.
    pub fn stat_self(&self) -> io::Result<Stat> {
        Stat::of(self.inner.fd.as_fd(), b"")
    }

    /// Reads all names, sorted as unsigned bytes. Above 4 MiB of names (or `memory_bytes` if that
    /// is less) they are sorted outside memory: about `memory_bytes` in memory, the rest in
    /// unlinked files in the directory `scratch`.
    ///
    /// # Errors
    /// A failure of the scratch directory carries a [`PathError`] that names it.
    pub fn list(&self, scratch: &Path, memory_bytes: usize) -> io::Result<Listing> {
        let _one_at_a_time = self
            .inner
            .listing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Listing::read(self.inner.fd.as_fd(), scratch, memory_bytes)
    }

    /// Looks for a name of a listing. None only if it is gone: `statx` does not find it, and a
    /// second listing does not show it either. One file system lists names that it cannot find (SMB
    /// names that end in a dot), another loses one for a moment.
    ///
    /// # Errors
    /// Why it cannot be reached; a name that is listed again and again and cannot be found is
    /// `Other`.
    pub fn look(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        self.confirm(&[name], vec![self.stat(name)])
            .pop()
            .unwrap_or(Ok(None))
    }

    /// True if an error can mean that a name is gone, and calls for a second look. `STALE`: another
    /// machine removed what was found before.
    pub fn is_missing(err: &io::Error) -> bool {
        matches!(
            err.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle
        )
    }

    /// As [`SourceDir::look`] for many names, on all cores where that pays; what is missing costs
    /// one listing in all.
    pub fn look_many<N: AsRef<[u8]> + Sync>(&self, names: &[N]) -> Vec<io::Result<Option<Stat>>> {
        self.confirm(names, self.stat_many(names))
    }

    fn confirm<N: AsRef<[u8]>>(
        &self,
        names: &[N],
        stats: Vec<io::Result<Stat>>,
    ) -> Vec<io::Result<Option<Stat>>> {
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
                        "it is listed, and cannot be found: {err}"
                    ))),
                    other => other.map(Some),
                },
                Err(why) => Err(io::Error::other(format!(
                    "it cannot be found, nor its directory be listed: {why}"
                ))),
            }
        });
        looked.collect()
    }

    /// Looks for a name that a listing does not show: none if it is gone, or if what it leads to is
    /// listed by another name, as on a file system without case.
    ///
    /// # Errors
    /// Why it cannot be reached.
    pub fn look_unlisted(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        let stat = match self.stat(name) {
            Err(err) if Self::is_missing(&err) => return Ok(None),
            other => other?,
        };
        let has_one_name = stat.kind == Kind::Directory || stat.nlink == 1;
        let folded = |name: &[u8]| String::from_utf8_lossy(name).to_lowercase();
        let (wanted, mut is_listed, mut is_other) = (folded(name), false, false);
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

    /// Those of the names that a listing shows now.
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
    pub fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        Stat::of(self.inner.fd.as_fd(), check(name)?)
    }

    /// Looks whether there is anything at a path below this directory, without listing what lies on
    /// the way.
    ///
    /// # Errors
    /// Why it cannot be reached; `FilesystemLoop` where the way leads through a symlink, which a
    /// walk does not follow.
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

    /// Stats many names, on all cores where that pays; results in the order of the names.
    pub fn stat_many<N: AsRef<[u8]> + Sync>(&self, names: &[N]) -> Vec<io::Result<Stat>> {
        if names.len() < PARALLEL_STATS_MIN {
            return names.iter().map(|name| self.stat(name.as_ref())).collect();
        }
        names
            .par_iter()
            .with_min_len(64)
            .map(|name| self.stat(name.as_ref()))
            .collect()
    }

    /// The target of the symlink `name`: any bytes but NUL.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(readlinkat(&self.inner.fd, check(name)?, Vec::new())?.into_bytes())
    }

    /// Extended attributes of `name` itself, not of what a symlink points to, with values up to 64
    /// KiB; none where the file system has no such thing.
    ///
    /// Goes through `/proc/self/fd`, which must be mounted.
    ///
    /// # Errors
    /// Only for what is no name.
    pub fn xattrs(&self, name: &[u8]) -> io::Result<Attributes> {
        // User attributes lie on files and directories alone, but security labels and trusted ones
        // on every kind, so the stat's kind spares no question.
        let mut path = format!("/proc/self/fd/{}/", self.inner.fd.as_raw_fd()).into_bytes();
        path.extend_from_slice(check(name)?);
        Ok(xattr::read_all(&xattr::Of::Path(&path)))
    }

    /// Extended attributes of this directory itself.
    pub fn xattrs_self(&self) -> Attributes {
        xattr::read_all(&xattr::Of::Handle(self.inner.fd.as_fd()))
    }

    /// Opens the regular file `name` for reading; never blocks on a FIFO, leaves the access time
    /// alone where it may.
    ///
    /// # Errors
    /// A symlink is `FilesystemLoop`; any other kind is `InvalidInput`.
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

    /// Tells what kind of file system holds the directory.
    pub fn fs_kind(&self) -> io::Result<FsKind> {
        // Magic numbers are 32 bits wide and sign-extended on some machines.
        Ok(FsKind::of(fstatfs(&self.inner.fd)?.f_type as u32))
    }
}

/// Refuses what is no single component, so that no call can leave the directory.
fn check(name: &[u8]) -> io::Result<&[u8]> {
    match name {
        b"" | b"." | b".." => Err(Errno::INVAL.into()),
        _ if name.contains(&b'/') || name.contains(&0) => Err(Errno::INVAL.into()),
        _ => Ok(name),
    }
}

/// A handle that only says where: nothing is opened for reading, no device is woken.
fn reach(directory: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(open_beneath(directory, path, flags, ResolveFlags::empty())?)
}

/// Opens without touching the access time; the kernel allows that to owners and root alone, so
/// others try again.
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
