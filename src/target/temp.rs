//! Files written under a temporary name and renamed when they are whole.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::dir::{Dir, Existing, Shared, component};
use super::durable::{Way, sync_file};
use super::meta::{self, Before, Handle, MetaRefusal, MetaReport, MetaToSet, Times};
use crate::types::{EntryKind, Timestamp};

const PREFIX: &[u8] = b".icecore-";
/// Names that are taken are passed over this often.
const NAME_TRIES_MAX: usize = 64;

/// True for the names that unfinished paths have: `.icecore-` and 16 hexadecimal digits in lower
/// case.
pub fn is_temporary_name(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == 16
            && digits
                .iter()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// What may be replaced by something that gets its name. A directory never is.
///
/// It keeps a file system that takes two names for one (without case, or with names that it
/// normalizes) from replacing what the same restore has just written: what was looked up under a
/// name is no longer what has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    Anything,
    /// Nothing has the name.
    Nothing,
    /// Only this inode, if anything has the name.
    Only {
        device: u64,
        inode: u64,
    },
}

impl Replace {
    /// What was found may be replaced, and nothing that came later.
    pub fn found(found: Option<&Existing>) -> Self {
        found.map_or(Self::Nothing, |found| Self::Only {
            device: found.device,
            inode: found.inode,
        })
    }
}

/// A file that has its name and all but its time, which waits until its content is durable:
/// whatever becomes of the machine, a file with the time that it had when it was backed up is
/// whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsettled {
    pub device: u64,
    pub inode: u64,
    /// The time that it is to have.
    pub mtime: Timestamp,
    /// Others may write to its directory, so it is looked at before it gets its time.
    pub is_shared: bool,
}

impl Shared {
    fn next_temporary_name(&self) -> Vec<u8> {
        // An odd factor gives every count its own number; the random start keeps runs apart.
        let count = self.temp_count.fetch_add(1, Ordering::Relaxed);
        let number = self
            .temp_seed
            .wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut name = PREFIX.to_vec();
        name.extend_from_slice(format!("{number:016x}").as_bytes());
        name
    }
}

/// A temporary name in use, removed when dropped unless renamed.
#[derive(Debug)]
pub(super) struct TempName {
    dir: Dir,
    /// Empty once renamed.
    name: Vec<u8>,
}

impl TempName {
    /// Finds a free name by calling `make` until it meets none that exists.
    pub(super) fn make<T>(
        dir: &Dir,
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

    /// Puts what was made in the place of `name`.
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

/// Renames within a directory, replacing only what the handle says.
fn put(dir: &Dir, from: &[u8], to: &[u8]) -> io::Result<()> {
    let taken = || io::Error::from(io::ErrorKind::AlreadyExists);
    let is_free = match dir.replace() {
        Replace::Anything => false,
        Replace::Nothing => true,
        Replace::Only { device, inode } => match dir.stat(to)? {
            None => true,
            Some(found) if (found.device, found.inode) == (device, inode) => false,
            Some(_) => return Err(taken()),
        },
    };
    if is_free {
        match rustix::fs::renameat_with(dir.fd(), from, dir.fd(), to, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => return Err(taken()),
            // Not every file system knows it.
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
            // Best effort: a left-over is recognised by its name.
            let _ = rustix::fs::unlinkat(self.dir.fd(), &self.name, AtFlags::empty());
        }
    }
}

/// A regular file under way; mode 0600 and the restoring user's until it is whole. Removed when
/// dropped.
#[derive(Debug)]
pub struct TempFile {
    fd: OwnedFd,
    name: TempName,
}

impl Dir {
    /// Makes an empty file under a temporary name in this directory.
    pub fn temp_file(&self) -> io::Result<TempFile> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (name, fd) = TempName::make(self, |name| {
            rustix::fs::openat(self.fd(), name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        Ok(TempFile { fd, name })
    }

    /// Writes a whole file that is at hand: seven system calls where neither owner nor attributes
    /// are to be set.
    ///
    /// # Errors
    ///
    /// As [`TempFile::persist`]; `name` is as it was then.
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

/// The open file, to read back what was written.
impl AsFd for TempFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl TempFile {
    /// Shows other restores that this file is not a remnant: for files that keep their temporary
    /// name longer than a moment.
    pub fn hold(&self) {
        // Not every file system has locks; then its age has to tell.
        let _ = rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive);
    }

    /// Writes all bytes at an offset, from any thread; what is never written is a hole.
    pub fn write_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.fd, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Reads what lies at an offset, to compare it: as many bytes as there are, up to the buffer's
    /// length.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match rustix::io::pread(&self.fd, &mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(done)
    }

    /// Sets the file's length in bytes: a hole at its end is made so.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.fd, size)?)
    }

    /// Sets metadata and gives the file its name; what may be replaced is the directory handle's
    /// rule. Not synced.
    ///
    /// # Errors
    ///
    /// `EISDIR` for a directory of that name, `AlreadyExists` for something that must not be
    /// replaced. The temporary file is removed then, `name` is as it was.
    pub fn persist(self, name: &[u8], to_set: &MetaToSet<'_>) -> io::Result<MetaReport> {
        self.put(name, to_set, Times::Now).map(|(report, _)| report)
    }

    /// As [`persist`](Self::persist), but a crash leaves no file of this name that looks finished
    /// and is not: where files are synced together it gets its time by [`Dir::settle`], after
    /// [`Tree::sync`](super::Tree::sync); elsewhere it is synced before it gets its name, and
    /// nothing is returned to settle.
    pub fn persist_unsettled(
        self,
        name: &[u8],
        to_set: &MetaToSet<'_>,
    ) -> io::Result<(MetaReport, Option<Unsettled>)> {
        let times = match self.name.dir.way() {
            Way::EachFile => Times::Now,
            Way::Together | Way::Never => Times::Later,
        };
        self.put(name, to_set, times)
    }

    /// Sets all metadata and leaves the temporary name, until
    /// [`Tree::sync_files`](super::Tree::sync_files) has made the content durable: for files that
    /// count as whole once they have their name, whatever their time.
    pub fn complete(self, to_set: &MetaToSet<'_>) -> io::Result<(MetaReport, WholeFile)> {
        let before = Before::New {
            inherited_acl: self.name.dir.gives_acl(),
        };
        let dir = &self.name.dir;
        let report = meta::apply(
            dir.rules(),
            &Handle::open(self.fd.as_fd()),
            EntryKind::File,
            before,
            to_set,
            Times::Now,
        )?;
        if dir.way() == Way::EachFile {
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
        times: Times,
    ) -> io::Result<(MetaReport, Option<Unsettled>)> {
        let dir = &self.name.dir;
        let before = Before::New {
            inherited_acl: dir.gives_acl(),
        };
        let handle = Handle::open(self.fd.as_fd());
        let report = meta::apply(dir.rules(), &handle, EntryKind::File, before, to_set, times)?;
        if dir.way() == Way::EachFile {
            sync_file(&self.fd)?;
        }
        self.name.rename(name)?;
        let unsettled = (times == Times::Later).then_some(Unsettled {
            device: report.device,
            inode: report.inode,
            mtime: to_set.meta.mtime,
            is_shared: true,
        });
        Ok((report, unsettled))
    }
}

/// A file with content and metadata that has its temporary name still; removed when dropped.
#[derive(Debug)]
pub struct WholeFile(TempFile);

impl WholeFile {
    /// Gives the file its name.
    ///
    /// # Errors
    ///
    /// As [`TempFile::persist`].
    pub fn put(self, name: &[u8]) -> io::Result<()> {
        self.0.name.rename(name)
    }
}

impl Dir {
    /// Gives a file the time that waited until its content was durable. Returns why that was
    /// refused, if it was.
    ///
    /// # Errors
    ///
    /// `NotFound` if another process has put something else in its place.
    pub fn settle(&self, name: &[u8], file: &Unsettled) -> io::Result<Option<MetaRefusal>> {
        let is_it = |found: Existing| (found.device, found.inode) == (file.device, file.inode);
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
    use crate::target::testing::{errno, fixture, found, names, own_meta, plain, root_of};

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
