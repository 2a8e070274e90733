//! An open directory of the target and what is done in it by name.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxAttributes, StatxFlags,
};
use rustix::io::Errno;

use super::durable::{Way, Writes, sync_dir, sync_file};
use super::meta::{self, Before, Handle, MetaReport, MetaToSet, Rules, Times};
use super::protect::Protection;
use super::temp::Replace;
use crate::sys::open_beneath;
use crate::types::{DeviceNumber, EntryKind, Timestamp};

/// Bytes of names read from a directory at once.
pub(super) const LISTING_BYTES: usize = 32 << 10;

// Without O_NOFOLLOW, so that a link gives ELOOP by RESOLVE_NO_SYMLINKS and not ENOTDIR.
const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// What was found at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// None for a kind that no entry has.
    pub kind: Option<EntryKind>,
    /// Bytes; of a link its target's length.
    pub size: u64,
    pub mtime: Timestamp,
    /// When the file system last changed the inode, by its own clock.
    pub ctime: Timestamp,
    /// The 12 permission bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub inode: u64,
    /// The device that holds the inode, as `makedev` puts it together.
    pub device: u64,
    pub nlink: u32,
    /// A device's own numbers; 0 and 0 for other kinds.
    pub rdev: DeviceNumber,
    /// Bytes allocated, holes left out.
    pub allocated: u64,
}

impl Existing {
    pub(super) fn of_handle(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
            .map(|found| Self::from(&found))
    }

    /// True if it has this modification time, or what its file system makes of it: some keep
    /// seconds (ext3, HFS+), pairs of them (FAT) or parts of a second (SMB, NTFS) alone, and cut
    /// off the rest. That this one does is seen by the time that it gave the inode itself.
    pub fn has_mtime(&self, wanted: Timestamp) -> bool {
        self.mtime == wanted
            || GRAINS.into_iter().any(|(seconds, nanos)| {
                let cut = |time: Timestamp| {
                    let kept = if seconds > 0 {
                        0
                    } else {
                        time.nanos() - time.nanos() % nanos
                    };
                    Timestamp::new(
                        time.seconds() - time.seconds().rem_euclid(seconds.max(1)),
                        kept,
                    )
                };
                cut(self.ctime) == Some(self.ctime) && cut(wanted) == Some(self.mtime)
            })
    }
}

/// How coarse times of file systems are: whole numbers of these seconds, or of these nanoseconds.
const GRAINS: [(i64, u32); 5] = [(0, 100), (0, 1000), (0, 1_000_000), (1, 1), (2, 1)];

impl From<&Statx> for Existing {
    fn from(found: &Statx) -> Self {
        let (mtime, ctime) = (found.stx_mtime, found.stx_ctime);
        Self {
            kind: kind_of(FileType::from_raw_mode(found.stx_mode.into())),
            size: found.stx_size,
            mtime: Timestamp::new(mtime.tv_sec, mtime.tv_nsec)
                .unwrap_or(Timestamp::from_seconds(mtime.tv_sec)),
            ctime: Timestamp::new(ctime.tv_sec, ctime.tv_nsec)
                .unwrap_or(Timestamp::from_seconds(ctime.tv_sec)),
            mode: found.stx_mode & 0o7777,
            uid: found.stx_uid,
            gid: found.stx_gid,
            inode: found.stx_ino,
            device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
            nlink: found.stx_nlink,
            rdev: DeviceNumber {
                major: found.stx_rdev_major,
                minor: found.stx_rdev_minor,
            },
            allocated: found.stx_blocks.saturating_mul(512),
        }
    }
}

pub(super) fn kind_of(file_type: FileType) -> Option<EntryKind> {
    Some(match file_type {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice => EntryKind::Char,
        FileType::BlockDevice => EntryKind::Block,
        FileType::Unknown => return None,
    })
}

/// What all directories of one tree share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) rules: Rules,
    /// The effective user when the tree was opened.
    pub(super) euid: u32,
    /// Where temporary names start; random, so that two restores into one tree do not meet.
    pub(super) temp_seed: u64,
    pub(super) temp_count: AtomicU64,
    pub(super) writes: Writes,
    pub(super) protection: Protection,
}

/// An open directory of the target; clones share the handle.
///
/// Names are single components: one that is empty, `.`, `..` or holds a slash is `InvalidInput`
/// everywhere. Errors are those of the system calls, without a path.
#[derive(Debug, Clone)]
pub struct Dir {
    inner: Arc<Inner>,
    replace: Replace,
}

#[derive(Debug)]
struct Inner {
    fd: OwnedFd,
    shared: Arc<Shared>,
    /// Whether new paths inherit an ACL: one of the three states below.
    default_acl: AtomicU8,
    /// Its device, and how that is synced, once something was written in it.
    way: OnceLock<(u64, Way)>,
    /// The generation of [`Writes`] in which it was noted.
    noted: AtomicU64,
    /// It holds names that are to be synced by its own handle.
    is_unsynced: AtomicBool,
}

impl Inner {
    fn way(&self) -> (u64, Way) {
        *self
            .way
            .get_or_init(|| match Existing::of_handle(self.fd.as_fd()) {
                Ok(found) => (
                    found.device,
                    self.shared.writes.way(found.device, self.fd.as_fd()),
                ),
                // What cannot even be looked at is synced by itself, and that says what is wrong.
                Err(_) => (0, Way::EachFile),
            })
    }

    fn sync(&self) {
        if self.is_unsynced.swap(false, Ordering::AcqRel)
            && let Err(err) = sync_dir(&self.fd)
        {
            self.shared.writes.fail(err);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.sync();
    }
}

const ACL_UNKNOWN: u8 = 0;
const ACL_ABSENT: u8 = 1;
const ACL_PRESENT: u8 = 2;

impl Dir {
    pub(super) fn new(fd: OwnedFd, shared: Arc<Shared>) -> Self {
        let inner = Inner {
            fd,
            shared,
            default_acl: AtomicU8::new(ACL_UNKNOWN),
            way: OnceLock::new(),
            noted: AtomicU64::new(0),
            is_unsynced: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
            replace: Replace::Anything,
        }
    }

    /// This directory, where what gets a name through the handle replaces only what `replace` says.
    #[must_use]
    pub fn replacing(&self, replace: Replace) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            replace,
        }
    }

    pub(super) fn replace(&self) -> Replace {
        self.replace
    }

    /// How the file system of this directory is synced.
    pub(super) fn way(&self) -> Way {
        self.inner.way().1
    }

    /// Notes that something in this directory, or the directory itself, has changed. Called after
    /// the change.
    pub(super) fn changed(&self) {
        let (device, way) = self.inner.way();
        match way {
            Way::Never => {}
            Way::EachFile => self.inner.is_unsynced.store(true, Ordering::Release),
            Way::Together => {
                let writes = &self.inner.shared.writes;
                if self.inner.noted.load(Ordering::Acquire) != writes.generation() {
                    self.inner
                        .noted
                        .store(writes.note(device, self.fd()), Ordering::Release);
                }
            }
        }
    }

    /// Syncs this directory where that is done one by one.
    pub(super) fn sync_names(&self) {
        self.inner.sync();
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.inner.shared.rules
    }

    /// What is there under this name, links not followed; none if nothing is.
    pub fn stat(&self, name: &[u8]) -> io::Result<Option<Existing>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::statx(self.fd(), component(name)?, flags, StatxFlags::BASIC_STATS) {
            Ok(found) => Ok(Some(Existing::from(&found))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What this directory itself is.
    pub fn stat_self(&self) -> io::Result<Existing> {
        Ok(Existing::of_handle(self.fd())?)
    }

    /// True if something is mounted on this directory: its `..` is on another file system, or the
    /// kernel says so (Linux 5.8), also of bind mounts.
    pub fn is_mount_point(&self) -> io::Result<bool> {
        let stat = |path: &std::ffi::CStr| {
            let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::statx(self.fd(), path, flags, StatxFlags::BASIC_STATS)
        };
        let own = stat(c"")?;
        if own
            .stx_attributes_mask
            .contains(StatxAttributes::MOUNT_ROOT)
        {
            return Ok(own.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        }
        let above = stat(c"..")?;
        Ok((own.stx_dev_major, own.stx_dev_minor) != (above.stx_dev_major, above.stx_dev_minor))
    }

    /// A symlink's target, 1–4095 bytes.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(self.fd(), component(name)?, Vec::new())?.into_bytes())
    }

    /// Opens a directory of this directory.
    ///
    /// # Errors
    ///
    /// A link, whatever it leads to: `ELOOP`. Anything else that is no directory: `ENOTDIR`.
    pub fn open_directory(&self, name: &[u8]) -> io::Result<Self> {
        let fd = open_writable(
            &self.inner.shared,
            self.fd(),
            component(name)?,
            ResolveFlags::empty(),
        )?;
        Ok(Self::new(fd, Arc::clone(&self.inner.shared)))
    }

    /// Makes a directory, or opens the one that is there; true if it was made.
    ///
    /// A new one has mode 0700 and no inherited ACL until
    /// [`set_directory_meta`](Self::set_directory_meta); one that is there and belongs to an
    /// ordinary user who restores gets that user's read, write and search bits.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if something else has the name, a link to a directory included.
    pub fn make_directory(&self, name: &[u8]) -> io::Result<(Self, bool)> {
        let name = component(name)?;
        let is_new = match rustix::fs::mkdirat(self.fd(), name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(errno.into()),
        };
        let directory =
            self.open_directory(name)
                .map_err(|error| match Errno::from_io_error(&error) {
                    Some(Errno::LOOP | Errno::NOTDIR) => io::ErrorKind::AlreadyExists.into(),
                    _ => error,
                })?;
        if is_new {
            self.changed();
        }
        if is_new && self.gives_acl() {
            meta::remove_inherited_acls(directory.fd())?;
        }
        Ok((directory, is_new))
    }

    /// Opens a regular file for reading, to compare it.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for every other kind: opening a device may act on it.
    pub fn open_existing_file(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let not_a_file = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        if self.stat(name)?.ok_or(io::ErrorKind::NotFound)?.kind != Some(EntryKind::File) {
            return Err(not_a_file());
        }
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.fd(), name, flags, Mode::empty())?;
        // It may have been replaced since.
        match Existing::of_handle(fd.as_fd())?.kind {
            Some(EntryKind::File) => Ok(fd),
            _ => Err(not_a_file()),
        }
    }

    /// Calls `each` with every name and its kind, in no order, until it fails. Names that come or
    /// go meanwhile may or may not be told; removing told ones is safe.
    pub fn names(
        &self,
        mut each: impl FnMut(&[u8], Option<EntryKind>) -> io::Result<()>,
    ) -> io::Result<()> {
        // A handle of its own, as clones share the place in the listing.
        let fd = rustix::fs::openat(self.fd(), c".", DIRECTORY_FLAGS, Mode::empty())?;
        list(fd.as_fd(), |name, kind| each(name, kind).map(|()| true))
    }

    /// True if the listing has exactly this name, not only one that the file system takes for the
    /// same.
    pub fn lists(&self, name: &[u8]) -> io::Result<bool> {
        let fd = rustix::fs::openat(self.fd(), c".", DIRECTORY_FLAGS, Mode::empty())?;
        let mut is_there = false;
        list(fd.as_fd(), |listed, _| {
            is_there |= listed == name;
            Ok(!is_there)
        })?;
        Ok(is_there)
    }

    /// The attributes that keep this user from replacing a name, as `chattr` calls them: `i`
    /// (immutable) or `a` (append only), of the path itself or of this directory; true for the
    /// directory.
    pub fn locked_by_flag(&self, name: &[u8]) -> Option<(char, bool)> {
        let flags_of = |name: &[u8], is_dir: bool| {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
            let found = rustix::fs::statx(self.fd(), name, flags, StatxFlags::BASIC_STATS).ok()?;
            if found.stx_attributes.contains(StatxAttributes::IMMUTABLE) {
                return Some(('i', is_dir));
            }
            found
                .stx_attributes
                .contains(StatxAttributes::APPEND)
                .then_some(('a', is_dir))
        };
        flags_of(name, false).or_else(|| flags_of(b"", true))
    }

    /// False if a path is known to have no extended attribute.
    pub fn may_have_xattrs(&self, name: &[u8]) -> bool {
        let opened = component(name)
            .ok()
            .and_then(|name| open_path(self.fd(), name).ok());
        opened.is_none_or(|fd| Handle::path(fd.as_fd()).may_have_xattrs())
    }

    /// Removes one name; a directory must be empty.
    ///
    /// # Errors
    ///
    /// `EISDIR` or `ENOTDIR` if it is not what `is_directory` says; [`super::InUse`] if it is
    /// protected.
    pub fn remove(&self, name: &[u8], is_directory: bool) -> io::Result<()> {
        let protection = &self.inner.shared.protection;
        if protection.is_any()
            && let Some(found) = self.stat(name)?
        {
            protection.check(&found)?;
        }
        let flags = if is_directory {
            AtFlags::REMOVEDIR
        } else {
            AtFlags::empty()
        };
        rustix::fs::unlinkat(self.fd(), component(name)?, flags)?;
        self.changed();
        Ok(())
    }

    /// Gives this directory its metadata, attributes that the entry lacks removed. To be called
    /// when all below it is done: making a name in it changes its mtime, and its mode may shut its
    /// owner out.
    pub fn set_directory_meta(&self, to_set: &MetaToSet<'_>) -> io::Result<MetaReport> {
        let handle = Handle::open(self.fd());
        let report = meta::apply(
            self.rules(),
            &handle,
            EntryKind::Directory,
            Before::Existing,
            to_set,
            Times::Now,
        );
        self.inner.default_acl.store(ACL_UNKNOWN, Ordering::Relaxed);
        // One that is as it was may hold files that are kept and not durable yet: that costs
        // nothing where all of a file system is synced together.
        if self.way() == Way::Together || report.as_ref().is_ok_and(|report| report.is_changed) {
            self.changed();
        }
        report
    }

    /// Gives a path that is there its metadata and leaves its content: for what is found equal.
    pub fn set_meta(
        &self,
        name: &[u8],
        kind: EntryKind,
        to_set: &MetaToSet<'_>,
    ) -> io::Result<MetaReport> {
        let fd = open_path(self.fd(), component(name)?)?;
        let handle = Handle::path(fd.as_fd());
        let report = meta::apply(
            self.rules(),
            &handle,
            kind,
            Before::Existing,
            to_set,
            Times::Now,
        )?;
        if report.is_changed {
            if kind == EntryKind::File && self.way() == Way::EachFile {
                sync_file(self.open_existing_file(name)?)?;
            }
            self.changed();
        }
        Ok(report)
    }

    /// True if new paths in this directory inherit an ACL; asked once for each handle.
    pub(super) fn gives_acl(&self) -> bool {
        match self.inner.default_acl.load(Ordering::Relaxed) {
            ACL_ABSENT => false,
            ACL_PRESENT => true,
            _ => {
                let found = meta::has_default_acl(self.fd());
                let state = if found { ACL_PRESENT } else { ACL_ABSENT };
                self.inner.default_acl.store(state, Ordering::Relaxed);
                found
            }
        }
    }
}

/// Refuses what is not one component.
pub(super) fn component(name: &[u8]) -> io::Result<&[u8]> {
    match name {
        b"" | b"." | b".." => Err(io::ErrorKind::InvalidInput.into()),
        _ if name.iter().any(|&b| b == b'/' || b == 0) => Err(io::ErrorKind::InvalidInput.into()),
        _ => Ok(name),
    }
}

/// Opens an inode by name without acting on it, a link too.
pub(super) fn open_path(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// As [`open_beneath`], but a protected directory is not opened ([`super::InUse`]); a directory
/// that belongs to the ordinary user who restores is made readable and writable for that user, as
/// its final mode is set at the end.
pub(super) fn open_writable(
    shared: &Shared,
    directory: BorrowedFd<'_>,
    path: &[u8],
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let opened = open_beneath(directory, path, DIRECTORY_FLAGS, resolve);
    if shared.rules.policy.is_root && !shared.protection.is_any() {
        return Ok(opened?);
    }
    match opened {
        Ok(fd) => {
            unlock(shared, fd.as_fd(), &Handle::open(fd.as_fd()))?;
            Ok(fd)
        }
        Err(Errno::ACCESS) if !shared.rules.policy.is_root => {
            let fd = open_beneath(
                directory,
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                resolve,
            )?;
            unlock(shared, fd.as_fd(), &Handle::path(fd.as_fd()))?;
            Ok(open_beneath(directory, path, DIRECTORY_FLAGS, resolve)?)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Makes an ordinary user's own directory usable for that user; one that is protected is an error.
fn unlock(shared: &Shared, fd: BorrowedFd<'_>, handle: &Handle<'_>) -> io::Result<()> {
    let found = Existing::of_handle(fd)?;
    shared.protection.check(&found)?;
    if shared.rules.policy.is_root {
        return Ok(());
    }
    if found.uid == shared.euid && found.mode & 0o700 != 0o700 {
        handle.chmod(found.mode | 0o700)?;
    }
    Ok(())
}

/// Lists an open directory from where its handle stands, `.` and `..` left out, while `each`
/// returns true.
pub(super) fn list(
    directory: BorrowedFd<'_>,
    mut each: impl FnMut(&[u8], Option<EntryKind>) -> io::Result<bool>,
) -> io::Result<()> {
    let mut buffer: Vec<u8> = Vec::with_capacity(LISTING_BYTES);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        // Some file systems do not tell kinds in listings.
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                match rustix::fs::statx(directory, entry.file_name(), flags, StatxFlags::TYPE) {
                    Ok(found) => kind_of(FileType::from_raw_mode(found.stx_mode.into())),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno.into()),
                }
            }
            known => kind_of(known),
        };
        if !each(name, kind)? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_the_file_system_cut_is_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let of = |mtime: Timestamp, ctime: Timestamp| {
            let stat = rustix::fs::statx(
                rustix::fs::CWD,
                dir.path(),
                AtFlags::empty(),
                StatxFlags::BASIC_STATS,
            );
            Existing {
                mtime,
                ctime,
                ..Existing::from(&stat.expect("stat"))
            }
        };
        let time = |seconds, nanos| Timestamp::new(seconds, nanos).expect("a time");
        let (wanted, fine) = (time(1001, 678_901_234), time(2001, 123_456_789));
        for (mtime, ctime, is_same) in [
            (wanted, fine, true),
            (time(1001, 678_901_200), time(2001, 123_456_700), true),
            (time(1001, 678_901_000), time(2001, 123_456_000), true),
            (time(1001, 0), time(2001, 0), true),
            (time(1000, 0), time(2000, 0), true),
            // The file system keeps more than that: somebody else set the time.
            (time(1001, 0), fine, false),
            (time(1001, 678_901_200), fine, false),
            (time(1000, 0), time(2001, 0), false),
            (time(1002, 0), time(2000, 0), false),
            (time(1001, 678_901_300), time(2001, 123_456_700), false),
        ] {
            assert_eq!(
                of(mtime, ctime).has_mtime(wanted),
                is_same,
                "{mtime:?} {ctime:?}"
            );
        }
        let early = time(-3, 500_000_000);
        assert!(
            of(time(-4, 0), time(2000, 0)).has_mtime(early)
                && of(time(-3, 0), time(2001, 0)).has_mtime(early)
        );
    }
}
