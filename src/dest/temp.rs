//! Files that are written under a temporary name and renamed when they are complete.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::dir::{DestDir, DestShared, ReplaceRule, component};
use super::durable::{SyncWay, sync_file};
use super::found::FoundEntry;
use super::meta::{
    self, MetaRefusal, MetaReport, MetaToSet, MetadataBefore, MetadataHandle, WhichTimes,
};
use crate::types::{EntryKind, Timestamp, to_u64};

const PREFIX: &[u8] = b".icecore-";
/// Limit of the attempts to find a free name.
const NAME_TRIES_MAX: usize = 64;

/// Returns true for names of unfinished paths: `.icecore-` and 16 lower-case hexadecimal digits.
pub fn is_temporary_name(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == 16
            && digits
                .iter()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// A file that has everything but its time, which is set once its content is durable. So even after
/// a power failure, a file with its original time is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsettledFile {
    pub device: u64,
    pub inode: u64,
    /// The time that it must get.
    pub mtime: Timestamp,
    /// Other processes may write to its directory, so check the inode before setting the time.
    pub is_shared: bool,
}

impl DestShared {
    fn next_temporary_name(&self) -> Vec<u8> {
        // An odd factor gives each count a different number; the random start separates runs.
        let count = self.temp_count.fetch_add(1, Ordering::Relaxed);
        let number = self
            .temp_seed
            .wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut name = PREFIX.to_vec();
        name.extend_from_slice(format!("{number:016x}").as_bytes());
        name
    }
}

/// A temporary name in use. Dropping it removes the name, unless it was renamed.
#[derive(Debug)]
pub(super) struct TempName {
    dir: DestDir,
    /// Empty once renamed.
    name: Vec<u8>,
}

impl TempName {
    /// Calls `make` with temporary names until one is free.
    pub(super) fn make<T>(
        dir: &DestDir,
        mut make: impl FnMut(&[u8]) -> rustix::io::Result<T>,
    ) -> io::Result<(Self, T)> {
        let mut tries = 0;
        loop {
            let name = dir.shared().next_temporary_name();
            match make(&name) {
                Ok(made) => {
                    return Ok((
                        Self {
                            dir: dir.clone(),
                            name,
                        },
                        made,
                    ));
                }
                Err(Errno::EXIST) if tries < NAME_TRIES_MAX => tries += 1,
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.name
    }

    /// Renames the temporary path to `name`.
    pub(super) fn rename(mut self, name: &[u8]) -> io::Result<()> {
        let protection = &self.dir.shared().protection;
        if protection.may_be_file(name)
            && let Some(found) = self.dir.stat(name)?
        {
            protection.check(&found)?;
        }
        put(&self.dir, &self.name, component(name)?)?;
        self.name.clear();
        self.dir.changed();
        Ok(())
    }
}

/// Renames within a directory, subject to the handle's rule for replacing.
fn put(dir: &DestDir, from: &[u8], to: &[u8]) -> io::Result<()> {
    let taken = || io::Error::from(io::ErrorKind::AlreadyExists);
    let is_free = match dir.replace() {
        ReplaceRule::Anything => false,
        ReplaceRule::Nothing => true,
        ReplaceRule::Only { device, inode } => match dir.stat(to)? {
            None => true,
            Some(found) if (found.device, found.inode) == (device, inode) => false,
            Some(_) => return Err(taken()),
        },
    };

    if is_free {
        match rustix::fs::renameat_with(dir.fd(), from, dir.fd(), to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => return Err(taken()),
            // Not every file system supports RENAME_NOREPLACE.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if dir.stat(to)?.is_some() => {
                return Err(taken());
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(rustix::fs::renameat(dir.fd(), from, dir.fd(), to)?)
}

impl Drop for TempName {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // Best effort: a leftover is recognized by its name.
            let _ = rustix::fs::unlinkat(self.dir.fd(), &self.name, AtFlags::empty());
        }
    }
}

/// A regular file that is being written. Until it is complete it has mode 0600 and belongs to the
/// restoring user. Dropping it removes it.
#[derive(Debug)]
pub struct DestTempFile {
    fd: OwnedFd,
    name: TempName,
}

impl DestDir {
    /// Creates an empty file under a temporary name in this directory.
    pub fn temp_file(&self) -> io::Result<DestTempFile> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (name, fd) = TempName::make(self, |name| {
            rustix::fs::openat(self.fd(), name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        Ok(DestTempFile { fd, name })
    }

    /// Writes a complete file from memory, with seven system calls if neither owner nor attributes
    /// must be set.
    ///
    /// # Errors
    ///
    /// As [`DestTempFile::persist`]; `name` is then unchanged.
    pub fn write_file(
        &self,
        name: &[u8],
        content: &[u8],
        to_set: &MetaToSet<'_>,
    ) -> io::Result<MetaReport> {
        let file = self.temp_file()?;
        file.write_at(content, 0)?;
        file.persist(name, to_set)
    }
}

/// The open file, to read back written data.
impl AsFd for DestTempFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl DestTempFile {
    /// Locks the file, to show other restores that it is not a leftover. For files that keep their
    /// temporary name longer than a moment.
    pub fn hold(&self) {
        // Not every file system has locks; there, only the file's age counts.
        let _ = rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive);
    }

    /// Writes all bytes at an offset, from any thread. Ranges that are never written are holes.
    pub fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.fd, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += to_u64(count);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Reads bytes at an offset, to compare them: up to the buffer's length, or to the end of the
    /// file.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pread(&self.fd, &mut bytes[done..], offset + to_u64(done)) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(done)
    }

    /// Sets the file's length in bytes, which makes a hole at its end.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.fd, size)?)
    }

    /// Sets metadata and gives the file its name, subject to the directory handle's rule for
    /// replacing. Does not sync.
    ///
    /// # Errors
    ///
    /// `EISDIR` if the name is a directory, `AlreadyExists` if the existing path must not be
    /// replaced. The temporary file is then removed, and `name` is unchanged.
    pub fn persist(self, name: &[u8], to_set: &MetaToSet<'_>) -> io::Result<MetaReport> {
        self.put(name, to_set, WhichTimes::Now)
            .map(|(report, _)| report)
    }

    /// Gives the file its name like [`persist`](Self::persist), but a crash never leaves an
    /// incomplete file that looks finished. Where files are synced together, the file gets its time
    /// by [`DestDir::settle`] after [`DestTree::sync`](super::DestTree::sync). Elsewhere it is synced before it
    /// gets its name, and `None` is returned.
    pub fn persist_unsettled(
        self,
        name: &[u8],
        to_set: &MetaToSet<'_>,
    ) -> io::Result<(MetaReport, Option<UnsettledFile>)> {
        let times = match self.name.dir.way() {
            SyncWay::EachFile => WhichTimes::Now,
            SyncWay::Together | SyncWay::Never => WhichTimes::Later,
        };
        self.put(name, to_set, times)
    }

    /// Sets all metadata but keeps the temporary name, until
    /// [`DestTree::sync_files`](super::DestTree::sync_files) has made the content durable. For files that
    /// are trusted by their name, regardless of their time.
    pub fn complete(self, to_set: &MetaToSet<'_>) -> io::Result<(MetaReport, WholeFile)> {
        let before = MetadataBefore::New {
            inherited_acl: self.name.dir.gives_acl(),
        };
        let dir = &self.name.dir;
        let report = meta::apply(
            dir.rules(),
            &MetadataHandle::open(self.fd.as_fd()),
            EntryKind::File,
            before,
            to_set,
            WhichTimes::Now,
        )?;
        if dir.way() == SyncWay::EachFile {
            sync_file(&self.fd)?;
        }
        dir.changed();
        self.hold();
        Ok((report, WholeFile(self)))
    }

    fn put(
        self,
        name: &[u8],
        to_set: &MetaToSet<'_>,
        times: WhichTimes,
    ) -> io::Result<(MetaReport, Option<UnsettledFile>)> {
        let dir = &self.name.dir;
        let before = MetadataBefore::New {
            inherited_acl: dir.gives_acl(),
        };
        let handle = MetadataHandle::open(self.fd.as_fd());
        let report = meta::apply(dir.rules(), &handle, EntryKind::File, before, to_set, times)?;
        if dir.way() == SyncWay::EachFile {
            sync_file(&self.fd)?;
        }
        self.name.rename(name)?;
        let unsettled = (times == WhichTimes::Later).then_some(UnsettledFile {
            device: report.device,
            inode: report.inode,
            mtime: to_set.meta.mtime,
            is_shared: true,
        });
        Ok((report, unsettled))
    }
}

/// A file with content and metadata that still has its temporary name. Dropping it removes it.
#[derive(Debug)]
pub struct WholeFile(DestTempFile);

impl WholeFile {
    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// As [`DestTempFile::persist`].
    pub fn put(self, name: &[u8]) -> io::Result<()> {
        self.0.name.rename(name)
    }
}

impl DestDir {
    /// Sets the time of a file whose content is durable. Returns the reason if it was refused.
    ///
    /// # Errors
    ///
    /// `NotFound` if another process has replaced it.
    pub fn settle(&self, name: &[u8], file: &UnsettledFile) -> io::Result<Option<MetaRefusal>> {
        let is_it = |found: FoundEntry| (found.device, found.inode) == (file.device, file.inode);
        if file.is_shared && !self.stat(name)?.is_some_and(is_it) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let refusal = meta::set_mtime_of(self.fd(), name, file.mtime);
        self.changed();
        Ok(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dest::testing::{errno, fixture, found, names, own_meta, plain, root_of};

    #[test]
    fn an_unfinished_file_is_removed_and_its_name_is_known() {
        let (_directory, tree) = fixture();
        let root = root_of(&tree);
        let file = root.temp_file().expect("a file");
        file.write_at(b"secret", 0).expect("written");
        let held = names(&root);
        assert!(is_temporary_name(&held[0]));
        assert_eq!(found(&root, &held[0]).mode, 0o600);
        drop(file);
        assert!(names(&root).is_empty());
        assert!(!is_temporary_name(b".icecore-0123"));
        assert!(!is_temporary_name(b"x.icecore-0123456789abcdef"));
    }

    #[test]
    fn names_in_use_are_passed_over() {
        let (_directory, tree) = fixture();
        let root = root_of(&tree);
        let first = root.temp_file().expect("a file");
        root.shared().temp_count.store(0, Ordering::Relaxed);
        let second = root.temp_file().expect("a file");
        assert_eq!(names(&root).len(), 2);
        drop((first, second));
    }

    #[test]
    fn holes_take_no_room() {
        let (_directory, tree) = fixture();
        let root = root_of(&tree);
        let file = root.temp_file().expect("a file");
        file.write_at(b"middle", 5 << 20).expect("written");
        file.set_len(10 << 20).expect("a length");
        assert!(
            file.persist(b"sparse", &plain(&own_meta(0o644)))
                .expect("in place")
                .is_clean()
        );
        let found = found(&root, b"sparse");
        assert_eq!(found.size, 10 << 20);
        assert!(
            found.allocated <= 64 << 10,
            "{} bytes allocated",
            found.allocated
        );
        let fd = root.open_existing_file(b"sparse").expect("a file");
        let mut read = [1; 8];
        rustix::io::pread(&fd, &mut read, (5 << 20) - 1).expect("read");
        assert_eq!(&read, b"\0middle\0");
    }

    #[test]
    fn replacing_a_file_leaves_its_other_names_alone() {
        let (_directory, tree) = fixture();
        let root = root_of(&tree);
        let meta = own_meta(0o644);
        let _ = root
            .write_file(b"a", b"old", &plain(&meta))
            .expect("a file");
        root.hard_link(b"b", &root, b"a").expect("a link");
        let _ = root
            .write_file(b"a", b"newer", &plain(&meta))
            .expect("a file");
        assert_eq!((found(&root, b"a").size, found(&root, b"b").size), (5, 3));
        root.remove(b"a", false).expect("removed");
        assert_eq!(errno(root.remove(b"b", true)), Some(Errno::NOTDIR));
        assert_eq!(names(&root), [b"b"]);
    }
}
