//! Files written under a temporary name and renamed when they are whole.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::dir::{Dir, Shared, component};
use super::meta::{self, Before, Handle, MetaReport, MetaToSet};
use crate::types::EntryKind;

const PREFIX: &[u8] = b".icecore-";
/// Names that are taken are passed over this often.
const NAME_TRIES_MAX: usize = 64;

/// True for the names that unfinished paths have: `.icecore-` and 16 hexadecimal digits.
pub fn is_temporary_name(name: &[u8]) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
}

impl Shared {
    fn next_temporary_name(&self) -> Vec<u8> {
        // An odd factor gives every count its own number; the random start keeps runs apart.
        let count = self.temp_count.fetch_add(1, Ordering::Relaxed);
        let number = self.temp_seed.wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
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
                Ok(made) => return Ok((Self { dir: dir.clone(), name }, made)),
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
        rustix::fs::renameat(self.dir.fd(), &self.name, self.dir.fd(), component(name)?)?;
        self.name.clear();
        Ok(())
    }
}

impl Drop for TempName {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // Best effort: a left-over is recognised by its name.
            let _ = rustix::fs::unlinkat(self.dir.fd(), &self.name, AtFlags::empty());
        }
    }
}

/// A regular file under way; mode 0600 and the restoring user's until it is whole. Removed when dropped.
#[derive(Debug)]
pub struct TempFile {
    fd: OwnedFd,
    name: TempName,
}

impl Dir {
    /// Makes an empty file under a temporary name in this folder.
    pub fn temp_file(&self) -> io::Result<TempFile> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (name, fd) =
            TempName::make(self, |name| rustix::fs::openat(self.fd(), name, flags, Mode::RUSR | Mode::WUSR))?;
        Ok(TempFile { fd, name })
    }

    /// Writes a whole file that is at hand: seven system calls where neither owner nor attributes are to be set.
    ///
    /// # Errors
    ///
    /// As [`TempFile::persist`]; `name` is as it was then.
    pub fn write_file(&self, name: &[u8], content: &[u8], to_set: &MetaToSet<'_>) -> io::Result<MetaReport> {
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

    /// Reads what lies at an offset, to compare it: as many bytes as there are, up to the buffer's length.
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

    /// Sets metadata and puts the file in the place of `name`, which it replaces if that is no folder. Not synced.
    ///
    /// # Errors
    ///
    /// `EISDIR` for a folder of that name. The temporary file is removed then, `name` is as it was.
    pub fn persist(self, name: &[u8], to_set: &MetaToSet<'_>) -> io::Result<MetaReport> {
        let dir = &self.name.dir;
        let before = Before::New { inherited_acl: dir.gives_acl() };
        let handle = Handle::open(self.fd.as_fd());
        let report = meta::apply(dir.rules(), &handle, EntryKind::File, before, to_set)?;
        self.name.rename(name)?;
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::testing::{errno, fixture, found, names, own_meta, plain, root_of};

    #[test]
    fn an_unfinished_file_is_removed_and_its_name_is_known() {
        let (_folder, tree) = fixture();
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
        let (_folder, tree) = fixture();
        let root = root_of(&tree);
        let first = root.temp_file().expect("a file");
        root.shared().temp_count.store(0, Ordering::Relaxed);
        let second = root.temp_file().expect("a file");
        assert_eq!(names(&root).len(), 2);
        drop((first, second));
    }

    #[test]
    fn holes_take_no_room() {
        let (_folder, tree) = fixture();
        let root = root_of(&tree);
        let file = root.temp_file().expect("a file");
        file.write_at(b"middle", 5 << 20).expect("written");
        file.set_len(10 << 20).expect("a length");
        assert!(file.persist(b"sparse", &plain(&own_meta(0o644))).expect("in place").is_clean());
        let found = found(&root, b"sparse");
        assert_eq!(found.size, 10 << 20);
        assert!(found.allocated <= 64 << 10, "{} bytes allocated", found.allocated);
        let fd = root.open_existing_file(b"sparse").expect("a file");
        let mut read = [1; 8];
        rustix::io::pread(&fd, &mut read, (5 << 20) - 1).expect("read");
        assert_eq!(&read, b"\0middle\0");
    }

    #[test]
    fn replacing_a_file_leaves_its_other_names_alone() {
        let (_folder, tree) = fixture();
        let root = root_of(&tree);
        let meta = own_meta(0o644);
        let _ = root.write_file(b"a", b"old", &plain(&meta)).expect("a file");
        root.hard_link(b"b", &root, b"a").expect("a link");
        let _ = root.write_file(b"a", b"newer", &plain(&meta)).expect("a file");
        assert_eq!((found(&root, b"a").size, found(&root, b"b").size), (5, 3));
        root.remove(b"a", false).expect("removed");
        assert_eq!(errno(root.remove(b"b", true)), Some(Errno::NOTDIR));
        assert_eq!(names(&root), [b"b"]);
    }
}
