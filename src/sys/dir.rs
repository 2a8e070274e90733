//! Open directories. Files are accessed by one name at a time, so no symlink can lead elsewhere,
//! and a directory that is renamed, unmounted or replaced under its path is never mistaken for the
//! one that was opened.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, Mode, OFlags, RenameFlags, StatVfsMountFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::sys::{FileKind, FileStat, PathContext, PathError};

/// Types of file systems whose listings and times may lag behind changes by other machines
/// (`statfs(2)`).
const NETWORK_MAGIC: [u64; 9] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x6573_5546, // FUSE: sshfs and the like; includes local ones
    0x00c3_6400, // Ceph
    0x5346_414f, // AFS
    0x0102_1997, // 9P
    0x0bd0_0bd0, // Lustre
];

/// An open directory. Its methods take a single name each, never a path.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// The path when it was opened, used only for messages.
    path: PathBuf,
}

impl Dir {
    /// Opens a directory by its path. Symlinks in the path are followed, since the caller chose the
    /// path.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, PathError> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())).context("open", path)?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Opens a directory by its canonical absolute path, which messages then name.
    pub fn open_canonical(path: impl AsRef<Path>) -> Result<Self, PathError> {
        let path = path.as_ref();
        Self::open(path.canonicalize().context("open", path)?)
    }

    /// Opens a directory. Creates it and its missing parents durably with these permission bits.
    pub fn create_all(path: impl AsRef<Path>, mode: u32) -> Result<Self, PathError> {
        let path = path.as_ref();
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Self::open(path);
        };
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        let parent = Self::create_all(parent, mode)?;
        parent.make_dir(name, mode)?;
        parent.sync()?;
        Self::open(path)
    }

    /// Returns the path of the directory when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a subdirectory; a symlink of that name is refused.
    pub fn open_dir(&self, name: impl AsRef<Path>) -> Result<Self, PathError> {
        let (name, path) = self.child(name.as_ref())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.fd, name, flags, Mode::empty()))
            .context("open", &path)?;
        Ok(Self { fd, path })
    }

    /// Creates a directory with these permission bits regardless of the umask. Returns false if the
    /// name exists already.
    ///
    /// It survives a power failure only after [`Dir::sync`].
    pub fn make_dir(&self, name: impl AsRef<Path>, mode: u32) -> Result<bool, PathError> {
        let (name, path) = self.child(name.as_ref())?;
        let bits = Mode::from_raw_mode(mode);
        match rustix::fs::mkdirat(&self.fd, name, bits) {
            Err(Errno::EXIST) => return Ok(false),
            made => made.context("create", &path)?,
        }
        // Only if the umask removed bits: some file systems refuse every chmod.
        if self.stat(name)?.mode & mode != mode {
            rustix::fs::chmodat(&self.fd, name, bits, AtFlags::empty())
                .context("set the mode of", &path)?;
        }
        Ok(true)
    }

    /// Opens a regular file for reading; symlinks, devices and pipes are refused.
    pub fn open_file(&self, name: impl AsRef<Path>) -> Result<ReadFile, PathError> {
        let (name, path) = self.child(name.as_ref())?;
        // NONBLOCK: opening a pipe must not wait for its writer. It has no effect on a regular
        // file.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| rustix::fs::openat(&self.fd, name, flags, Mode::empty()))
            .context("open", &path)?;
        let file = ReadFile {
            file: File::from(fd),
            path,
        };
        if file.stat()?.kind != FileKind::File {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(PathError {
                action: "open",
                path: file.path,
                source,
            });
        }
        Ok(file)
    }

    /// Creates a new file for reading and writing, with these permission bits regardless of the
    /// umask.
    pub(super) fn create_file(&self, name: impl AsRef<Path>, mode: u32) -> Result<File, PathError> {
        let (name, path) = self.child(name.as_ref())?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let bits = Mode::from_raw_mode(mode);
        let fd = retry_on_intr(|| rustix::fs::openat(&self.fd, name, flags, bits))
            .context("create", &path)?;
        if FileStat::from(rustix::fs::fstat(&fd).context("stat", &path)?).mode & mode != mode {
            rustix::fs::fchmod(&fd, bits).context("set the mode of", &path)?;
        }
        Ok(File::from(fd))
    }

    /// Renames a file of this directory, replacing a file of the new name.
    pub(super) fn rename_over(
        &self,
        from: &str,
        to_dir: &Self,
        to: &Path,
    ) -> Result<(), PathError> {
        let (to, path) = to_dir.child(to)?;
        rustix::fs::renameat(&self.fd, from, &to_dir.fd, to).context("rename to", path)
    }

    /// Renames a file of this directory; `AlreadyExists` if the new name is taken. Returns true if
    /// the old name is gone, false if the file now has both names, on file systems that cannot
    /// rename without replacing.
    pub(super) fn rename_new(
        &self,
        from: &str,
        to_dir: &Self,
        to: &Path,
    ) -> Result<bool, PathError> {
        let (to, path) = to_dir.child(to)?;
        match rustix::fs::renameat_with(&self.fd, from, &to_dir.fd, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            done => return done.map(|()| true).context("rename to", path),
        }
        self.link_new(from, to_dir, to, &path)?;
        Ok(false)
    }

    /// Renames a file of this directory if the new name looks free; `AlreadyExists` if it does not.
    pub(super) fn rename_if_unseen(
        &self,
        from: &str,
        to_dir: &Self,
        to: &Path,
    ) -> Result<(), PathError> {
        match to_dir.stat(to) {
            Ok(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists))
                .context("rename to", to_dir.path.join(to)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.rename_over(from, to_dir, to)
            }
            Err(error) => Err(error),
        }
    }

    fn link_new(&self, from: &str, to_dir: &Self, to: &Path, path: &Path) -> Result<(), PathError> {
        match rustix::fs::linkat(&self.fd, from, &to_dir.fd, to, AtFlags::empty()) {
            // NFS repeats a request whose reply was lost, so our own first attempt may have created
            // the name.
            Err(Errno::EXIST) if self.stat(from)?.id == to_dir.stat(to)?.id => Ok(()),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {
                let text =
                    "the file system can neither rename without replacing nor make hard links";
                Err(io::Error::new(io::ErrorKind::Unsupported, text)).context("link", path)
            }
            done => done.context("link", path),
        }
    }

    /// Renames a file of this directory to a free name, durably; `AlreadyExists` if another file
    /// has the name. A crash leaves one of the names or both, and calling it again completes the
    /// move.
    pub fn move_file(&self, from: &str, to_dir: &Self, to: &str) -> Result<(), PathError> {
        let is_moved = match self.rename_new(from, to_dir, Path::new(to)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A crash of an earlier call left the same file with both names.
                let is_same = self.stat(from)?.id == to_dir.stat(to)?.id;
                if is_same { Ok(false) } else { Err(error) }
            }
            // No process gives the name of an object to other bytes.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self
                .rename_if_unseen(from, to_dir, Path::new(to))
                .map(|()| true),
            done => done,
        }?;
        to_dir.sync()?;
        if !is_moved {
            self.remove_file(from)?;
        }
        self.sync()
    }

    /// Sets the times of a file to now, by the clock of the file system.
    pub fn touch(&self, name: impl AsRef<Path>) -> Result<(), PathError> {
        let (name, path) = self.child(name.as_ref())?;
        let now = rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_NOW,
        };
        let times = rustix::fs::Timestamps {
            last_access: now,
            last_modification: now,
        };
        rustix::fs::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .context("set the time of", path)
    }

    /// Removes a file, or a symlink itself.
    pub fn remove_file(&self, name: impl AsRef<Path>) -> Result<(), PathError> {
        let (name, path) = self.child(name.as_ref())?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()).context("remove", path)
    }

    /// Returns the `stat` of a name; a symlink is not followed.
    pub fn stat(&self, name: impl AsRef<Path>) -> Result<FileStat, PathError> {
        let (name, path) = self.child(name.as_ref())?;
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map(FileStat::from)
            .context("stat", path)
    }

    /// Returns the `stat` of the directory itself.
    pub fn stat_self(&self) -> Result<FileStat, PathError> {
        rustix::fs::fstat(&self.fd)
            .map(FileStat::from)
            .context("stat", &self.path)
    }

    /// Iterates over the names in the directory that are UTF-8, without `.` and `..`, in the
    /// kernel's order. Memory does not grow with the directory. Names created or removed in the
    /// meantime may be missing or included.
    pub fn names(&self) -> Result<impl Iterator<Item = Result<String, PathError>> + '_, PathError> {
        Ok(self
            .all_names()?
            .filter_map(|name| name.map(|name| name.into_string().ok()).transpose()))
    }

    /// Iterates like [`Dir::names`], including names that are not UTF-8.
    pub fn all_names(
        &self,
    ) -> Result<impl Iterator<Item = Result<OsString, PathError>> + '_, PathError> {
        let entries = rustix::fs::Dir::read_from(&self.fd).context("list", &self.path)?;
        Ok(entries.filter_map(|entry| match entry {
            Ok(entry) => match entry.file_name().to_bytes() {
                b"." | b".." => None,
                name => Some(Ok(OsStr::from_bytes(name).to_owned())),
            },
            Err(error) => Some(Err(error).context("list", &self.path)),
        }))
    }

    /// Returns the number of bytes that an ordinary user can still write to the file system; an
    /// error if the file system does not report its size.
    pub fn available_bytes(&self) -> Result<u64, PathError> {
        let system =
            rustix::fs::fstatvfs(&self.fd).context("stat the file system of", &self.path)?;
        if system.f_blocks == 0 {
            let unknown = io::Error::new(io::ErrorKind::Unsupported, "it does not report its size");
            return Err(unknown).context("stat the file system of", &self.path);
        }
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Makes the names in the directory durable, if the file system supports this (see
    /// [`Dir::try_sync`]).
    pub fn sync(&self) -> Result<(), PathError> {
        self.try_sync().map(drop)
    }

    /// Works like [`Dir::sync`]. Returns false on file systems that do not support syncing
    /// directories, where nothing better is possible.
    pub fn try_sync(&self) -> Result<bool, PathError> {
        match retry_on_intr(|| rustix::fs::fsync(&self.fd)) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(false),
            done => done.map(|()| true).context("sync", &self.path),
        }
    }

    /// Returns true if the directory cannot be written to: a read-only mount, or no permission.
    pub fn is_read_only(&self) -> Result<bool, PathError> {
        let mount =
            rustix::fs::fstatvfs(&self.fd).context("stat the file system of", &self.path)?;
        if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(true);
        }
        let wanted = Access::WRITE_OK | Access::EXEC_OK;
        // Without flags: they need a system call that is newer than Linux 5.6 and that older
        // sandboxes deny, which would look like a directory without permission.
        match rustix::fs::accessat(&self.fd, ".", wanted, AtFlags::empty()) {
            Ok(()) => Ok(false),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Ok(true),
            Err(error) => Err(error).context("check access to", &self.path),
        }
    }

    /// Returns true if other machines may write to the file system, so that listings and times may
    /// lag.
    pub fn is_network(&self) -> Result<bool, PathError> {
        Ok(NETWORK_MAGIC.contains(&self.file_system_magic()?))
    }

    /// Returns true if setting a file's time to "now" uses the same clock that dates writes: the
    /// machine's on a local file system, the server's on NFS. SMB, sshfs and the like would use the
    /// time of this machine.
    pub fn dates_by_its_own_clock(&self) -> Result<bool, PathError> {
        Ok(self.file_system_magic()? == NETWORK_MAGIC[0] || !self.is_network()?)
    }

    fn file_system_magic(&self) -> Result<u64, PathError> {
        let system =
            rustix::fs::fstatfs(&self.fd).context("stat the file system of", &self.path)?;
        // A cast, because the field's width and sign differ between architectures. The magic
        // numbers have 32 bits.
        Ok(system.f_type as u64 & 0xffff_ffff)
    }

    /// Checks a name. Returns it and its path for messages.
    fn child<'a>(&self, name: &'a Path) -> Result<(&'a Path, PathBuf), PathError> {
        let path = self.path.join(name);
        let mut parts = name.components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(part)), None) if part == name.as_os_str() => Ok((name, path)),
            _ => Err(PathError {
                action: "use",
                path,
                source: io::Error::new(io::ErrorKind::InvalidInput, "not a single file name"),
            }),
        }
    }
}

/// A regular file open for reading, from many threads at once.
#[derive(Debug)]
pub struct ReadFile {
    file: File,
    path: PathBuf,
}

impl ReadFile {
    /// Returns the current `stat` of the file; `links` is 0 if it was removed in the meantime.
    pub fn stat(&self) -> Result<FileStat, PathError> {
        rustix::fs::fstat(&self.file)
            .map(FileStat::from)
            .context("stat", &self.path)
    }

    /// Fills `buf` with the bytes at `offset`; `UnexpectedEof` if the file is too short.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<(), PathError> {
        self.file
            .read_exact_at(buf, offset)
            .context("read", &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let root = tempfile::tempdir().expect("a directory");
        let inner = Dir::create_all(root.path().join("a/b"), 0o700).expect("create");
        std::fs::write(root.path().join("secret"), b"x").expect("write");
        for name in ["", ".", "..", "../secret", "a/b", "/etc/passwd", "x/"] {
            assert!(inner.stat(name).is_err(), "{name:?}");
            assert!(inner.open_file(name).is_err(), "{name:?}");
        }
        symlink("../../secret", inner.path().join("link")).expect("symlink");
        symlink(root.path(), inner.path().join("directory")).expect("symlink");
        assert!(inner.open_file("link").is_err());
        assert!(inner.open_dir("directory").is_err());
        assert_eq!(inner.stat("link").expect("stat").kind, FileKind::Symlink);
    }

    #[test]
    fn linking_is_create_only_too() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = Dir::open(root.path()).expect("open");
        for name in ["one", "two", "old"] {
            std::fs::write(root.path().join(name), name).expect("write");
        }
        let link = |from, to: &str| dir.link_new(from, &dir, Path::new(to), &root.path().join(to));
        let error = link("one", "old").expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        link("one", "new").expect("link");
        link("one", "new").expect("the same file again is our own lost answer");
        assert_eq!(
            link("two", "new").expect_err("taken").kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(
            std::fs::read(root.path().join("new")).expect("read"),
            b"one"
        );
    }
}
