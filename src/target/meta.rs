//! Setting owner, mode, extended attributes and times, in the order in which none undoes another.
//!
//! chown clears setuid bits and capabilities, chmod changes an ACL's mask, and both change nothing of the times: so
//! owner, mode, attributes, times. What cannot be set is reported, never fatal: the content is there by then.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::acl;
use super::dir::Existing;
use super::owner::{MetaPolicy, Owners};
use crate::types::{EntryKind, Metadata, Timestamp};

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;
/// Times that every file system holds: 1970 to January 2038.
const COMMON_SECONDS: std::ops::Range<i64> = 0..1 << 31;
/// Linux stops at 64 KiB for a list of names and for a value.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// The metadata that a path is to have.
#[derive(Debug, Clone, Copy)]
pub struct MetaToSet<'a> {
    /// Mode, owner and mtime are taken from here; its `xattrs` are not, as their values may lie in chunks.
    pub meta: &'a Metadata,
    /// Name and value of each extended attribute.
    pub xattrs: &'a [(&'a [u8], &'a [u8])],
}

/// A part of a path's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaPart {
    /// User, group or both.
    Owner,
    /// Permission bits; setuid and setgid are dropped where the owner is not the entry's.
    Mode,
    /// The extended attribute of this name; an empty name: the attributes could not be listed.
    Xattr(Vec<u8>),
    /// The mtime.
    Times,
}

/// A part that was not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRefusal {
    pub what: MetaPart,
    /// As in `errno.h`; `EOVERFLOW` for a time that the file system cannot hold.
    pub errno: i32,
}

/// What was not set; empty if all was.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetaReport {
    pub refused: Vec<MetaRefusal>,
}

impl MetaReport {
    /// True if all metadata was set.
    pub fn is_clean(&self) -> bool {
        self.refused.is_empty()
    }

    fn note(&mut self, what: MetaPart, result: rustix::io::Result<()>) -> bool {
        if let Err(errno) = result {
            self.refused.push(MetaRefusal { what, errno: errno.raw_os_error() });
        }
        result.is_ok()
    }
}

/// How metadata is set in one tree.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) policy: MetaPolicy,
    pub(super) owners: Owners,
}

/// What may be on a path before its metadata is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Just made by us: no attributes but those that a folder's default ACL gives.
    New { inherited_acl: bool },
    /// Was there: anything.
    Existing,
}

/// An open path, so that no rename can put another in its place meanwhile.
#[derive(Debug)]
pub(super) struct Handle<'a> {
    fd: BorrowedFd<'a>,
    /// For handles opened with `O_PATH`, on which the calls by descriptor fail: the descriptor's name under
    /// `/proc`, which leads to the inode itself, even a link's.
    proc_path: Option<String>,
}

impl<'a> Handle<'a> {
    /// A handle opened for reading or writing.
    pub(super) fn open(fd: BorrowedFd<'a>) -> Self {
        Self { fd, proc_path: None }
    }

    /// A handle opened with `O_PATH | O_NOFOLLOW`.
    pub(super) fn path(fd: BorrowedFd<'a>) -> Self {
        Self { fd, proc_path: Some(proc_path(fd)) }
    }

    fn chown(&self, uid: Option<Uid>, gid: Option<Gid>) -> rustix::io::Result<()> {
        rustix::fs::chownat(self.fd, c"", uid, gid, AtFlags::EMPTY_PATH)
    }

    pub(super) fn chmod(&self, mode: u16) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(mode.into());
        match &self.proc_path {
            None => rustix::fs::fchmod(self.fd, mode),
            Some(path) => rustix::fs::chmod(path, mode),
        }
    }

    fn set_mtime(&self, mtime: Timestamp) -> rustix::io::Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: mtime.seconds(), tv_nsec: mtime.nanos().into() },
        };
        match &self.proc_path {
            None => rustix::fs::futimens(self.fd, &times),
            Some(path) => rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::empty()),
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match &self.proc_path {
            None => rustix::fs::fsetxattr(self.fd, name, value, XattrFlags::empty()),
            Some(path) => rustix::fs::setxattr(path, name, value, XattrFlags::empty()),
        }
    }

    /// Removes an attribute; one that is not there is no error.
    fn remove_xattr(&self, name: &[u8]) -> rustix::io::Result<()> {
        let result = match &self.proc_path {
            None => rustix::fs::fremovexattr(self.fd, name),
            Some(path) => rustix::fs::removexattr(path, name),
        };
        match result {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    fn xattr(&self, name: &[u8], room: &mut [u8]) -> rustix::io::Result<usize> {
        match &self.proc_path {
            None => rustix::fs::fgetxattr(self.fd, name, room),
            Some(path) => rustix::fs::getxattr(path, name, room),
        }
    }

    /// The attributes' names, each ended by NUL.
    fn xattr_names(&self) -> rustix::io::Result<Vec<u8>> {
        // Asked for its length first: hardly any path has attributes.
        let length = match &self.proc_path {
            None => rustix::fs::flistxattr_query(self.fd),
            Some(path) => rustix::fs::listxattr_query(path),
        };
        match length {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(errno) => return Err(errno),
        }
        let mut names = vec![0; XATTR_BYTES_MAX];
        let length = match &self.proc_path {
            None => rustix::fs::flistxattr(self.fd, names.as_mut_slice())?,
            Some(path) => rustix::fs::listxattr(path, names.as_mut_slice())?,
        };
        names.truncate(length);
        Ok(names)
    }
}

/// The name of a descriptor under `/proc`, for calls that refuse `O_PATH` handles.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// True if new paths in this folder inherit an ACL. When in doubt, yes.
pub(super) fn has_default_acl(folder: impl AsFd) -> bool {
    let result = rustix::fs::fgetxattr_query(folder, acl::DEFAULT);
    !matches!(result, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

/// Removes the ACLs that a folder just made has inherited, so that nothing made in it inherits them in turn.
pub(super) fn remove_inherited_acls(folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let handle = Handle::open(folder);
    handle.remove_xattr(acl::DEFAULT)?;
    handle.remove_xattr(acl::ACCESS)
}

/// Gives a path its metadata; what it has already is not set again.
///
/// # Errors
///
/// Only if `handle` cannot be stat'ed, or is not of `kind` (another process swapped it).
pub(super) fn apply(
    rules: &Rules,
    handle: &Handle<'_>,
    kind: EntryKind,
    before: Before,
    to_set: &MetaToSet<'_>,
) -> io::Result<MetaReport> {
    let now = Existing::of_handle(handle.fd)?;
    if now.kind != Some(kind) {
        return Err(io::Error::other("another process replaced the path while it was written"));
    }
    let mut setter = Setter { rules, handle, kind, now, report: MetaReport::default() };
    let (uid, gid) = rules.owners.local_ids(&to_set.meta.owner);
    let mut mode = to_set.meta.mode & 0o7777;
    let is_chowned = setter.set_owner(uid, gid);
    if kind != EntryKind::Symlink {
        mode = setter.set_mode(mode, uid, gid, is_chowned);
    }
    setter.set_xattrs(before, mode, to_set.xattrs);
    setter.set_times(before, to_set.meta.mtime);
    Ok(setter.report)
}

struct Setter<'a> {
    rules: &'a Rules,
    handle: &'a Handle<'a>,
    kind: EntryKind,
    /// What the path was found to be; user and group are kept up to date.
    now: Existing,
    report: MetaReport,
}

impl Setter<'_> {
    /// Returns true if user or group were changed.
    fn set_owner(&mut self, uid: u32, gid: u32) -> bool {
        if !self.rules.owners.are_set() || (self.now.uid, self.now.gid) == (uid, gid) {
            return false;
        }
        let user = (uid != self.now.uid).then_some(uid);
        let group = (gid != self.now.gid).then_some(gid);
        let mut result = self.chown(user, group);
        if result.is_err() && user.is_some() && group.is_some() {
            // An ordinary user may give a path to a group of his.
            if self.chown(None, group).is_ok() {
                self.now.gid = gid;
            }
        } else if result.is_ok() {
            (self.now.uid, self.now.gid) = (uid, gid);
        }
        let is_changed = result.is_ok() || group.is_some() && self.now.gid == gid;
        if uid == u32::MAX || gid == u32::MAX {
            result = Err(Errno::INVAL);
        }
        self.report.note(MetaPart::Owner, result);
        is_changed
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
        // The largest number means 'leave as it is' to the kernel.
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        self.handle.chown(uid.map(Uid::from_raw), gid.map(Gid::from_raw))
    }

    /// Returns the mode that the path is to have now: without setuid and setgid bits if it belongs to another than
    /// the entry's owner, whose rights a program would else take.
    fn set_mode(&mut self, wanted: u16, uid: u32, gid: u32, is_chowned: bool) -> u16 {
        let mut mode = wanted;
        if self.kind != EntryKind::Folder {
            if self.now.uid != uid {
                mode &= !SETUID;
            }
            if self.now.gid != gid {
                mode &= !SETGID;
            }
        }
        let is_cleared_by_chown = is_chowned && mode & (SETUID | SETGID) != 0;
        let mut result =
            if mode != self.now.mode || is_cleared_by_chown { self.handle.chmod(mode) } else { Ok(()) };
        if result.is_ok() && !self.rules.policy.is_root && mode & SETGID != 0 {
            // The kernel drops setgid without a word where the caller is not in the group.
            match Existing::of_handle(self.handle.fd) {
                Ok(found) if found.mode == mode => {}
                _ => result = Err(Errno::PERM),
            }
        }
        if result.is_ok() && mode != wanted {
            result = Err(Errno::PERM);
        }
        self.report.note(MetaPart::Mode, result);
        mode
    }

    fn set_xattrs(&mut self, before: Before, mode: u16, wanted: &[(&[u8], &[u8])]) {
        let is_wanted = |name: &[u8]| wanted.iter().any(|(other, _)| *other == name);
        match before {
            Before::New { inherited_acl: false } => {}
            Before::New { inherited_acl: true } => {
                if self.kind != EntryKind::Symlink && !is_wanted(acl::ACCESS) {
                    self.remove_xattr(acl::ACCESS);
                }
            }
            Before::Existing => match self.handle.xattr_names() {
                Ok(names) => names
                    .split(|&b| b == 0)
                    .filter(|name| is_managed(name) && !is_wanted(name))
                    .for_each(|name| self.remove_xattr(name)),
                Err(errno) => {
                    self.report.note(MetaPart::Xattr(Vec::new()), Err(errno));
                }
            },
        }
        for (name, value) in wanted {
            if before == Before::Existing && self.has_xattr(name, value) {
                continue;
            }
            let is_set = self.report.note(MetaPart::Xattr(name.to_vec()), self.handle.set_xattr(name, value));
            if !is_set && *name == acl::ACCESS {
                self.tighten_group(mode, value);
            }
        }
    }

    fn remove_xattr(&mut self, name: &[u8]) {
        self.report.note(MetaPart::Xattr(name.to_vec()), self.handle.remove_xattr(name));
    }

    fn has_xattr(&self, name: &[u8], value: &[u8]) -> bool {
        // One byte more than needed tells a longer value.
        let mut found = vec![0; value.len() + 1];
        self.handle.xattr(name, &mut found).is_ok_and(|len| found.get(..len) == Some(value))
    }

    /// Takes from the owning group what only the ACL's mask allowed, the ACL being refused.
    fn tighten_group(&mut self, mode: u16, acl_value: &[u8]) {
        let rights = acl::owning_group_rights(acl_value).unwrap_or(0);
        let tight = mode & (!0o070 | rights << 3);
        if tight != mode {
            self.report.note(MetaPart::Mode, self.handle.chmod(tight));
        }
    }

    fn set_times(&mut self, before: Before, mtime: Timestamp) {
        if before == Before::Existing && self.now.mtime == mtime {
            return;
        }
        let mut result = self.handle.set_mtime(mtime);
        if result.is_ok() && !COMMON_SECONDS.contains(&mtime.seconds()) {
            // A file system clamps what it cannot hold, without a word.
            match Existing::of_handle(self.handle.fd) {
                Ok(found) if found.mtime.seconds() == mtime.seconds() => {}
                _ => result = Err(Errno::OVERFLOW),
            }
        }
        self.report.note(MetaPart::Times, result);
    }
}

/// True for attributes that are part of what a backup holds and are removed where the entry lacks them; labels of
/// security modules and attributes that a file system makes up are left to the machine.
fn is_managed(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || [acl::ACCESS, acl::DEFAULT, b"security.capability"].contains(&name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::OFlags;

    use super::*;
    use crate::target::testing::{
        acl_value, as_ordinary_user, fixture, found, is_root, open, own_meta, path, plain, root_of,
    };
    use crate::target::{Dir, OwnerPolicy};

    fn xattrs_of(dir: &Dir, name: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let fd = rustix::fs::openat(dir.fd(), name, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())
            .expect("open");
        let handle = Handle::open(fd.as_fd());
        let names = handle.xattr_names().expect("names");
        let mut found: Vec<_> = names
            .split(|&b| b == 0)
            .filter(|name| is_managed(name))
            .map(|name| {
                let mut value = vec![0; XATTR_BYTES_MAX];
                let length = handle.xattr(name, &mut value).expect("a value");
                (name.to_vec(), value[..length].to_vec())
            })
            .collect();
        found.sort();
        found
    }

    fn refused(report: &MetaReport) -> Vec<(MetaPart, Errno)> {
        report.refused.iter().map(|r| (r.what.clone(), Errno::from_raw_os_error(r.errno))).collect()
    }

    #[test]
    fn attributes_and_acls_are_set() {
        let (_folder, tree) = fixture();
        let root = root_of(&tree);
        let meta = own_meta(0o770);
        let acl = acl_value(4321);
        let long = vec![7; 3000];
        let xattrs: [(&[u8], &[u8]); 4] = [
            (b"system.posix_acl_access", &acl),
            (b"user.empty", b""),
            (b"user.long", &long),
            (b"user.\xff", b"\0\x01"),
        ];
        let to_set = MetaToSet { meta: &meta, xattrs: &xattrs };
        assert_eq!(refused(&root.write_file(b"f", b"x", &to_set).expect("a file")), []);
        let expected = xattrs.map(|(name, value)| (name.to_vec(), value.to_vec()));
        assert_eq!(xattrs_of(&root, b"f"), expected);
        assert_eq!(found(&root, b"f").mode, 0o770);
        // What the entry lacks goes, what differs is changed.
        let fewer: [(&[u8], &[u8]); 1] = [(b"user.empty", b"no more")];
        let to_set = MetaToSet { meta: &meta, xattrs: &fewer };
        assert!(root.set_meta(b"f", EntryKind::File, &to_set).expect("set").is_clean());
        assert_eq!(xattrs_of(&root, b"f"), [(b"user.empty".to_vec(), b"no more".to_vec())]);
        assert_eq!(found(&root, b"f").mode, 0o770);
    }

    #[test]
    fn what_a_default_acl_gives_is_taken_away() {
        let (_folder, tree) = fixture();
        let root = root_of(&tree);
        let acl = acl_value(4321);
        let (folder, _) = tree.make_folder(&path("d")).expect("a folder");
        // Known to give none, until it is given one.
        assert!(!folder.gives_acl());
        let meta = own_meta(0o750);
        let with_default: [(&[u8], &[u8]); 1] = [(acl::DEFAULT, &acl)];
        let to_set = MetaToSet { meta: &meta, xattrs: &with_default };
        assert!(folder.set_folder_meta(&to_set).expect("set").is_clean());
        // The test's own check: it does inherit.
        rustix::fs::mkdirat(folder.fd(), c"control", Mode::RWXU).expect("a folder");
        assert_eq!(xattrs_of(&folder, b"control").len(), 2);

        let meta = own_meta(0o644);
        assert!(folder.write_file(b"f", b"x", &plain(&meta)).expect("a file").is_clean());
        assert_eq!(xattrs_of(&folder, b"f"), []);
        assert_eq!(found(&folder, b"f").mode, 0o644);
        assert!(folder.fifo(b"p", &plain(&meta)).expect("a pipe").is_clean());
        assert_eq!(found(&folder, b"p").mode, 0o644);
        let fd = crate::target::dir::open_path(folder.fd(), b"p").expect("a handle");
        assert_eq!(Handle::path(fd.as_fd()).xattr_names().expect("names"), b"");
        let (inner, _) = folder.make_folder(b"inner").expect("a folder");
        assert_eq!(xattrs_of(&folder, b"inner"), []);
        assert!(!inner.gives_acl());

        // An update of the folder itself removes it.
        assert!(folder.set_folder_meta(&plain(&own_meta(0o755))).expect("set").is_clean());
        assert_eq!(xattrs_of(&root, b"d"), []);
        assert_eq!(found(&root, b"d").mode, 0o755);
    }

    #[test]
    fn capabilities_and_setuid_survive_a_change_of_owner() {
        if !is_root() {
            return;
        }
        let (_folder, tree) = fixture();
        let root = root_of(&tree);
        let mut meta = own_meta(0o6755);
        (meta.owner.uid, meta.owner.gid) = (1000, 1000);
        // cap_net_raw=ep, revision 2 (linux/capability.h).
        let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
        capability.extend_from_slice(&(1_u32 << 13).to_le_bytes());
        capability.extend_from_slice(&[0; 12]);
        let xattrs: [(&[u8], &[u8]); 2] = [(b"security.capability", &capability), (b"trusted.x", b"y")];
        let to_set = MetaToSet { meta: &meta, xattrs: &xattrs };
        assert_eq!(refused(&root.write_file(b"f", b"x", &to_set).expect("a file")), []);
        let expected = xattrs.map(|(name, value)| (name.to_vec(), value.to_vec()));
        assert_eq!(xattrs_of(&root, b"f"), expected);
        (meta.owner.uid, meta.owner.gid) = (1001, 1001);
        let to_set = MetaToSet { meta: &meta, xattrs: &xattrs };
        assert_eq!(refused(&root.set_meta(b"f", EntryKind::File, &to_set).expect("set")), []);
        assert_eq!(xattrs_of(&root, b"f"), expected);
        let found = found(&root, b"f");
        assert_eq!((found.mode, found.uid, found.gid), (0o6755, 1001, 1001));
    }

    #[test]
    fn times_before_1970_and_after_2038_and_beyond() {
        let (_folder, tree) = fixture();
        let root = root_of(&tree);
        let mut meta = own_meta(0o644);
        for (seconds, nanos) in [(-1, 1), (-2_000_000_000, 999_999_999), (0, 0), (5_000_000_000, 1)] {
            meta.mtime = Timestamp::new(seconds, nanos).expect("a time");
            assert_eq!(refused(&root.write_file(b"f", b"", &plain(&meta)).expect("a file")), []);
            assert_eq!(found(&root, b"f").mtime, meta.mtime);
        }
        // No file system of Linux holds this: it is told, the file is there.
        meta.mtime = Timestamp::from_seconds(i64::MAX);
        let report = root.write_file(b"far", b"x", &plain(&meta)).expect("a file");
        if found(&root, b"far").mtime != meta.mtime {
            assert_eq!(refused(&report), [(MetaPart::Times, Errno::OVERFLOW)]);
        }
    }

    #[test]
    fn folders_get_their_times_after_what_is_in_them() {
        let (_folder, tree) = fixture();
        let (folder, _) = tree.make_folder(&path("d")).expect("a folder");
        let meta = own_meta(0o2750);
        let _ = folder.write_file(b"f", b"", &plain(&meta)).expect("a file");
        assert!(folder.set_folder_meta(&plain(&meta)).expect("set").is_clean());
        let found = found(&root_of(&tree), b"d");
        assert_eq!((found.mode, found.mtime), (0o2750, meta.mtime));
        // A folder with the setgid bit gives its group to what is made in it, which is put right.
        assert!(folder.write_file(b"g", b"", &plain(&meta)).expect("a file").is_clean());
    }

    #[test]
    fn an_equal_path_is_left_alone() {
        let (_folder, tree) = fixture();
        let root = root_of(&tree);
        let meta = own_meta(0o644);
        let _ = root.write_file(b"f", b"", &plain(&meta)).expect("a file");
        let changed = |dir: &Dir| {
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            let mask = rustix::fs::StatxFlags::BASIC_STATS;
            let found = rustix::fs::statx(dir.fd(), b"f".as_slice(), flags, mask).expect("stat");
            (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec)
        };
        let before = changed(&root);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(root.set_meta(b"f", EntryKind::File, &plain(&meta)).expect("set").is_clean());
        assert_eq!(changed(&root), before);
    }

    #[test]
    fn without_owners_no_program_runs_as_another() {
        if !is_root() {
            return;
        }
        let (folder, _) = fixture();
        let tree = open(folder.path(), OwnerPolicy::Keep);
        let root = root_of(&tree);
        let mut meta = own_meta(0o6755);
        (meta.owner.uid, meta.owner.gid) = (1000, 0);
        let report = root.write_file(b"f", b"x", &plain(&meta)).expect("a file");
        assert_eq!(refused(&report), [(MetaPart::Mode, Errno::PERM)]);
        let found = found(&root, b"f");
        assert_eq!((found.mode, found.uid), (0o2755, 0), "setuid to root would be another's program as root");
    }

    #[test]
    fn an_owner_that_the_kernel_cannot_have_is_refused() {
        let (_folder, tree) = fixture();
        let mut meta = own_meta(0o4755);
        meta.owner.uid = u32::MAX;
        let report = root_of(&tree).write_file(b"f", b"x", &plain(&meta)).expect("a file");
        assert_eq!(refused(&report), [(MetaPart::Owner, Errno::INVAL), (MetaPart::Mode, Errno::PERM)]);
    }

    #[test]
    fn an_ordinary_user_is_told_what_was_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("open to all");
        as_ordinary_user(|| {
            let tree = open(folder.path(), OwnerPolicy::Numeric);
            let root = root_of(&tree);
            let own = own_meta(0o4755);
            assert_eq!(refused(&root.write_file(b"own", b"x", &plain(&own)).expect("a file")), []);
            assert_eq!(found(&root, b"own").mode, 0o4755);

            let mut other = own_meta(0o6755);
            (other.owner.uid, other.owner.gid) = (0, 0);
            let xattrs: [(&[u8], &[u8]); 2] = [(b"trusted.x", b"y"), (b"user.x", b"y")];
            let to_set = MetaToSet { meta: &other, xattrs: &xattrs };
            let report = root.write_file(b"other", b"x", &to_set).expect("a file all the same");
            let expected = [
                (MetaPart::Owner, Errno::PERM),
                (MetaPart::Mode, Errno::PERM),
                (MetaPart::Xattr(b"trusted.x".to_vec()), Errno::PERM),
            ];
            assert_eq!(refused(&report), expected);
            let found = found(&root, b"other");
            assert_eq!((found.mode, found.mtime), (0o755, other.mtime));
            assert_eq!(xattrs_of(&root, b"other"), [(b"user.x".to_vec(), b"y".to_vec())]);

            // A folder of one's own that one has locked is restored into.
            let (inner, _) = tree.make_folder(&path("locked")).expect("a folder");
            assert!(inner.set_folder_meta(&plain(&own_meta(0o100))).expect("set").is_clean());
            let tree = open(folder.path(), OwnerPolicy::Numeric);
            let (inner, is_new) = tree.make_folder(&path("locked/below")).expect("a folder");
            assert!(is_new);
            let _ = inner.write_file(b"f", b"", &plain(&own)).expect("a file");
        });
    }

    #[test]
    fn a_refused_acl_gives_the_owning_group_no_more_than_it_had() {
        let (_folder, tree) = fixture();
        let root = root_of(&tree);
        let meta = own_meta(0o670);
        let _ = root.write_file(b"f", b"", &plain(&meta)).expect("a file");
        let fd = root.open_existing_file(b"f").expect("a file");
        let mut setter = Setter {
            rules: root.rules(),
            handle: &Handle::open(fd.as_fd()),
            kind: EntryKind::File,
            now: found(&root, b"f"),
            report: MetaReport::default(),
        };
        setter.tighten_group(0o670, &acl_value(4321));
        assert_eq!(found(&root, b"f").mode, 0o640);
        setter.tighten_group(0o670, b"no acl");
        assert_eq!(found(&root, b"f").mode, 0o600);
    }
}
