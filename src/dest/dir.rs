//! An open directory of the target, and the operations on names in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, StatxAttributes, StatxFlags,
};
use rustix::io::Errno;

use super::durable::{SyncWay, WrittenTo, sync_dir, sync_file};
use super::found::{FoundEntry, kind_of};
use super::meta::{
    self, MetaReport, MetaToSet, MetadataBefore, MetadataHandle, MetadataRules, WhichTimes,
};
use super::protect::ProtectedDirs;
use crate::sys::open_beneath;
use crate::types::EntryKind;

/// Bytes of names read from a directory at once.
pub(super) const LISTING_BYTES: usize = 32 << 10;

// Without O_NOFOLLOW, a link fails with ELOOP by RESOLVE_NO_SYMLINKS, and not with ENOTDIR.
const DIRECTORY_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// State shared by all directories of one tree.
#[derive(Debug)]
pub(super) struct DestShared {
    pub(super) rules: MetadataRules,
    /// The effective user when the tree was opened.
    pub(super) euid: u32,
    /// Start of the temporary names; random, so that two restores into one tree do not collide.
    pub(super) temp_seed: u64,
    pub(super) temp_count: AtomicU64,
    pub(super) writes: WrittenTo,
    pub(super) protection: ProtectedDirs,
}

/// The existing paths that a new path may replace. It never replaces a directory.
///
/// On a file system that treats two names as one (without case, or with normalized names), this
/// keeps a restore from replacing a file that it has just written: the name then no longer belongs
/// to the inode that was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplaceRule {
    Anything,
    /// Nothing may have the name.
    Nothing,
    /// Only this inode, if anything has the name.
    Only {
        device: u64,
        inode: u64,
    },
}

impl ReplaceRule {
    /// Allows replacing the file that was found, and nothing that appeared later.
    pub fn found(found: Option<&FoundEntry>) -> Self {
        found.map_or(Self::Nothing, |found| Self::Only {
            device: found.device,
            inode: found.inode,
        })
    }
}

/// An open directory of the target; clones share the handle.
///
/// Names are single components: one that is empty, `.`, `..` or holds a slash is `InvalidInput`
/// everywhere. Errors are those of the system calls, without a path.
#[derive(Debug, Clone)]
pub struct DestDir {
    inner: Arc<DestDirInner>,
    replace: ReplaceRule,
}

#[derive(Debug)]
struct DestDirInner {
    fd: OwnedFd,
    shared: Arc<DestShared>,
    /// Whether new paths inherit an ACL: one of the three constants below.
    default_acl: AtomicU8,
    /// Its device and the device's sync method, known after the first write in it.
    way: OnceLock<(u64, SyncWay)>,
    /// The generation of [`WrittenTo`] in which the directory was recorded.
    noted: AtomicU64,
    /// It holds names that must be synced by its own handle.
    is_unsynced: AtomicBool,
}

impl DestDirInner {
    fn way(&self) -> (u64, SyncWay) {
        *self
            .way
            .get_or_init(|| match FoundEntry::of_handle(self.fd.as_fd()) {
                Ok(found) => (
                    found.device,
                    self.shared.writes.way(found.device, self.fd.as_fd()),
                ),
                // If it cannot be stat'ed, sync it individually; that reports the error.
                Err(_) => (0, SyncWay::EachFile),
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

impl Drop for DestDirInner {
    fn drop(&mut self) {
        self.sync();
    }
}

const ACL_UNKNOWN: u8 = 0;
const ACL_ABSENT: u8 = 1;
const ACL_PRESENT: u8 = 2;

impl DestDir {
    pub(super) fn new(fd: OwnedFd, shared: Arc<DestShared>) -> Self {
        let inner = DestDirInner {
            fd,
            shared,
            default_acl: AtomicU8::new(ACL_UNKNOWN),
            way: OnceLock::new(),
            noted: AtomicU64::new(0),
            is_unsynced: AtomicBool::new(false),
        };
        Self {
            inner: Arc::new(inner),
            replace: ReplaceRule::Anything,
        }
    }

    /// Returns this directory with a handle through which a new name replaces only what `replace`
    /// allows.
    #[must_use]
    pub fn replacing(&self, replace: ReplaceRule) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            replace,
        }
    }

    pub(super) fn replace(&self) -> ReplaceRule {
        self.replace
    }

    /// Returns how the file system of this directory is synced.
    pub(super) fn way(&self) -> SyncWay {
        self.inner.way().1
    }

    /// Records that the directory, or something in it, has changed. Call it after the change.
    pub(super) fn changed(&self) {
        let (device, way) = self.inner.way();
        match way {
            SyncWay::Never => {}
            SyncWay::EachFile => self.inner.is_unsynced.store(true, Ordering::Release),
            SyncWay::Together => {
                let writes = &self.inner.shared.writes;
                if self.inner.noted.load(Ordering::Acquire) != writes.generation() {
                    self.inner
                        .noted
                        .store(writes.note(device, self.fd()), Ordering::Release);
                }
            }
        }
    }

    /// Syncs this directory if its file system needs directories synced individually.
    pub(super) fn sync_names(&self) {
        self.inner.sync();
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }

    pub(super) fn shared(&self) -> &Arc<DestShared> {
        &self.inner.shared
    }

    pub(super) fn rules(&self) -> &MetadataRules {
        &self.inner.shared.rules
    }

    /// Returns the status of a name, without following links. `None` if it does not exist.
    pub fn stat(&self, name: &[u8]) -> io::Result<Option<FoundEntry>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::statx(self.fd(), component(name)?, flags, StatxFlags::BASIC_STATS) {
            Ok(found) => Ok(Some(FoundEntry::from(&found))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Returns the status of this directory itself.
    pub fn stat_self(&self) -> io::Result<FoundEntry> {
        Ok(FoundEntry::of_handle(self.fd())?)
    }

    /// Returns true if something is mounted on this directory. The kernel reports that since Linux
    /// 5.8, for bind mounts too; before, a mount point is a directory whose `..` is on another file
    /// system.
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

    /// Returns a symlink's target, 1–4095 bytes.
    pub fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(self.fd(), component(name)?, Vec::new())?.into_bytes())
    }

    /// Opens a subdirectory.
    ///
    /// # Errors
    ///
    /// `ELOOP` for any link, `ENOTDIR` for anything else that is not a directory.
    pub fn open_directory(&self, name: &[u8]) -> io::Result<Self> {
        let fd = open_writable(
            &self.inner.shared,
            self.fd(),
            component(name)?,
            ResolveFlags::empty(),
        )?;
        Ok(Self::new(fd, Arc::clone(&self.inner.shared)))
    }

    /// Makes a directory, or opens the existing one; returns true if it was made.
    ///
    /// A new directory has mode 0700 and no inherited ACL until
    /// [`set_directory_meta`](Self::set_directory_meta). If an ordinary user restores, an existing
    /// directory of that user gets the user's read, write and search bits.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if the name is anything else, including a link to a directory.
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
    /// `InvalidInput` for every other kind: opening a device may have effects.
    pub fn open_existing_file(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let not_a_file = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        if self.stat(name)?.ok_or(io::ErrorKind::NotFound)?.kind != Some(EntryKind::File) {
            return Err(not_a_file());
        }
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.fd(), name, flags, Mode::empty())?;
        // It may have been replaced in the meantime.
        match FoundEntry::of_handle(fd.as_fd())?.kind {
            Some(EntryKind::File) => Ok(fd),
            _ => Err(not_a_file()),
        }
    }

    /// Calls `each` with every name and its kind, in no order, until it fails. Names that are
    /// created or removed during the listing may or may not be included. `each` may remove the name
    /// that it gets.
    pub fn names(
        &self,
        mut each: impl FnMut(&[u8], Option<EntryKind>) -> io::Result<()>,
    ) -> io::Result<()> {
        // A separate handle, because clones share the position in the listing.
        let fd = rustix::fs::openat(self.fd(), c".", DIRECTORY_FLAGS, Mode::empty())?;
        list(fd.as_fd(), |name, kind| each(name, kind).map(|()| true))
    }

    /// Returns true if the listing has exactly this name, and not only one that the file system
    /// treats as equal.
    pub fn lists(&self, name: &[u8]) -> io::Result<bool> {
        let fd = rustix::fs::openat(self.fd(), c".", DIRECTORY_FLAGS, Mode::empty())?;
        let mut is_there = false;
        list(fd.as_fd(), |listed, _| {
            is_there |= listed == name;
            Ok(!is_there)
        })?;
        Ok(is_there)
    }

    /// Returns the attribute that keeps this user from replacing a name: `i` (immutable) or `a`
    /// (append only), as in `chattr`, and true if the directory has it, not the path itself.
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

    /// Returns false if a path is known to have no extended attribute.
    pub fn may_have_xattrs(&self, name: &[u8]) -> bool {
        let opened = component(name)
            .ok()
            .and_then(|name| open_path(self.fd(), name).ok());
        opened.is_none_or(|fd| MetadataHandle::path(fd.as_fd()).may_have_xattrs())
    }

    /// Removes one name; a directory must be empty.
    ///
    /// # Errors
    ///
    /// `EISDIR` or `ENOTDIR` if `is_directory` is wrong; [`super::InUse`] if the path is protected.
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

    /// Sets this directory's metadata and removes attributes that the entry lacks. Call it when
    /// everything below is done: a new name in the directory changes its mtime, and the mode may
    /// lock out its owner.
    pub fn set_directory_meta(&self, to_set: &MetaToSet<'_>) -> io::Result<MetaReport> {
        let handle = MetadataHandle::open(self.fd());
        let report = meta::apply(
            self.rules(),
            &handle,
            EntryKind::Directory,
            MetadataBefore::Existing,
            to_set,
            WhichTimes::Now,
        );
        self.inner.default_acl.store(ACL_UNKNOWN, Ordering::Relaxed);
        // An unchanged directory may hold kept files that are not durable yet. Recording it costs
        // nothing where a file system is synced as a whole.
        if self.way() == SyncWay::Together || report.as_ref().is_ok_and(|report| report.is_changed)
        {
            self.changed();
        }
        report
    }

    /// Sets the metadata of an existing path without changing its content: for paths found equal.
    pub fn set_meta(
        &self,
        name: &[u8],
        kind: EntryKind,
        to_set: &MetaToSet<'_>,
    ) -> io::Result<MetaReport> {
        let fd = open_path(self.fd(), component(name)?)?;
        let handle = MetadataHandle::path(fd.as_fd());
        let report = meta::apply(
            self.rules(),
            &handle,
            kind,
            MetadataBefore::Existing,
            to_set,
            WhichTimes::Now,
        )?;
        if report.is_changed {
            if kind == EntryKind::File && self.way() == SyncWay::EachFile {
                sync_file(self.open_existing_file(name)?)?;
            }
            self.changed();
        }
        Ok(report)
    }

    /// Returns true if new paths in this directory inherit an ACL. The result is cached in the
    /// handle.
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

/// Rejects a name that is not a single component.
pub(super) fn component(name: &[u8]) -> io::Result<&[u8]> {
    match name {
        b"" | b"." | b".." => Err(io::ErrorKind::InvalidInput.into()),
        _ if name.iter().any(|&b| b == b'/' || b == 0) => Err(io::ErrorKind::InvalidInput.into()),
        _ => Ok(name),
    }
}

/// Opens an inode by name without acting on it; a link is not followed.
pub(super) fn open_path(directory: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens a directory like [`open_beneath`], but fails for a protected one ([`super::InUse`]). If an
/// ordinary user restores, a directory of that user is made readable and writable; its final mode
/// is set at the end.
pub(super) fn open_writable(
    shared: &DestShared,
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
            unlock(shared, fd.as_fd(), &MetadataHandle::open(fd.as_fd()))?;
            Ok(fd)
        }
        Err(Errno::ACCESS) if !shared.rules.policy.is_root => {
            let fd = open_beneath(
                directory,
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                resolve,
            )?;
            unlock(shared, fd.as_fd(), &MetadataHandle::path(fd.as_fd()))?;
            Ok(open_beneath(directory, path, DIRECTORY_FLAGS, resolve)?)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Makes an ordinary user's own directory usable for that user. Fails if it is protected.
fn unlock(shared: &DestShared, fd: BorrowedFd<'_>, handle: &MetadataHandle<'_>) -> io::Result<()> {
    let found = FoundEntry::of_handle(fd)?;
    shared.protection.check(&found)?;

    if shared.rules.policy.is_root {
        return Ok(());
    }
    if found.uid == shared.euid && found.mode & 0o700 != 0o700 {
        handle.chmod(found.mode | 0o700)?;
    }
    Ok(())
}

/// Lists an open directory from the current position of its handle, without `.` and `..`, as long
/// as `each` returns true.
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
        // Some file systems do not return kinds in listings.
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
