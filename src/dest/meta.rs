//! Sets owner, mode, extended attributes and times, in an order in which no step undoes another.
//!
//! chown clears setuid bits and capabilities. The mode's group bits are the ACL's mask, and without
//! the ACL they would be the owning group's rights. These calls do not change the mtime. So the
//! order is: owner, ACL, mode, other attributes, times. A part that cannot be set is reported and
//! is never fatal, because the content is already written.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::acl;
use super::found::FoundEntry;
use super::owner::{LocalOwners, MetaPolicy};
use crate::types::{EntryKind, Metadata, Timestamp};

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;
/// Times that every file system can store: 1970 to January 2038.
const COMMON_SECONDS: std::ops::Range<i64> = 0..1 << 31;
/// More than the coarsest granularity of a file system's times (FAT: 2 s).
const GRAIN_SECONDS: f64 = 4.0;
const DAY_SECONDS: i64 = 86_400;
/// Linux limits a list of names, and a value, to 64 KiB.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// The metadata that a path must get.
#[derive(Debug, Clone, Copy)]
pub struct MetaToSet<'a> {
    /// Source of mode, owner and mtime. Its `xattrs` are not used, because their values may be in
    /// chunks.
    pub meta: &'a Metadata,
    /// Name and value of each extended attribute.
    pub xattrs: &'a [(&'a [u8], &'a [u8])],
}

/// A part of a path's metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaPart {
    /// User, group or both.
    Owner,
    /// Permission bits; setuid and setgid are dropped if the owner differs from the entry's.
    Mode,
    /// The extended attribute of this name. An empty name: the attributes could not be listed.
    Xattr(Vec<u8>),
    /// The mtime.
    Times,
}

/// A part that was not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRefusal {
    pub what: MetaPart,
    /// As in `errno.h`; `EOVERFLOW` for a time that the file system cannot store.
    pub errno: i32,
}

/// The parts that were not set; empty if all were.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetaReport {
    pub refused: Vec<MetaRefusal>,
    /// Something was set or removed.
    pub is_changed: bool,
    /// The path's inode.
    pub device: u64,
    pub inode: u64,
}

impl MetaReport {
    /// Returns true if all metadata was set.
    pub fn is_clean(&self) -> bool {
        self.refused.is_empty()
    }

    fn note(&mut self, what: MetaPart, result: rustix::io::Result<()>) -> bool {
        if let Err(errno) = result {
            self.refused.push(MetaRefusal {
                what,
                errno: errno.raw_os_error(),
            });
        }
        result.is_ok()
    }

    /// Returns true if this part was refused.
    pub fn has_refused(&self, what: &MetaPart) -> bool {
        self.refused.iter().any(|refusal| refusal.what == *what)
    }
}

/// When a path gets its modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhichTimes {
    Now,
    /// In a later call; until then its time differs from the final one.
    Later,
}

/// Rules for the metadata of one tree.
#[derive(Debug)]
pub(super) struct MetadataRules {
    pub(super) policy: MetaPolicy,
    pub(super) owners: LocalOwners,
}

/// Metadata that a path may have before it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetadataBefore {
    /// This process has just made it: it has only attributes from a directory's default ACL.
    New { inherited_acl: bool },
    /// It existed before and may have anything.
    Existing,
}

/// An open path, so that no rename can replace it in the meantime.
#[derive(Debug)]
pub(super) struct MetadataHandle<'a> {
    fd: BorrowedFd<'a>,
    /// The descriptor's name under `/proc`, for handles opened with `O_PATH`, on which calls by
    /// descriptor fail. It resolves to the inode itself, even for a link.
    proc_path: Option<String>,
}

impl<'a> MetadataHandle<'a> {
    /// Wraps a descriptor opened for reading or writing.
    pub(super) fn open(fd: BorrowedFd<'a>) -> Self {
        Self {
            fd,
            proc_path: None,
        }
    }

    /// Wraps a descriptor opened with `O_PATH | O_NOFOLLOW`.
    pub(super) fn path(fd: BorrowedFd<'a>) -> Self {
        Self {
            fd,
            proc_path: Some(proc_path(fd)),
        }
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
        let times = mtime_alone(mtime);
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

    /// Removes an attribute. A missing attribute is not an error.
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

    pub(super) fn may_have_xattrs(&self) -> bool {
        self.xattr_names().map_or(true, |names| !names.is_empty())
    }

    /// Returns the attributes' names, each ended by NUL.
    fn xattr_names(&self) -> rustix::io::Result<Vec<u8>> {
        // Query the length first: hardly any path has attributes.
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

/// Returns the name of a descriptor under `/proc`, for calls that refuse `O_PATH` handles.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Returns true if new paths in this directory inherit an ACL, or if that is unknown.
pub(super) fn has_default_acl(directory: impl AsFd) -> bool {
    let result = rustix::fs::fgetxattr_query(directory, acl::DEFAULT);
    !matches!(result, Err(Errno::NODATA | Errno::OPNOTSUPP))
}

/// Removes the ACLs that a new directory has inherited, so that nothing in it inherits them.
pub(super) fn remove_inherited_acls(directory: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let handle = MetadataHandle::open(directory);
    handle.remove_xattr(acl::DEFAULT)?;
    handle.remove_xattr(acl::ACCESS)
}

/// Sets a path's metadata; parts that are already right are not set again.
///
/// # Errors
///
/// Only if `handle` cannot be stat'ed, or is not of `kind` because another process replaced it.
pub(super) fn apply(
    rules: &MetadataRules,
    handle: &MetadataHandle<'_>,
    kind: EntryKind,
    before: MetadataBefore,
    to_set: &MetaToSet<'_>,
    times: WhichTimes,
) -> io::Result<MetaReport> {
    let now = FoundEntry::of_handle(handle.fd)?;
    if now.kind != Some(kind) {
        return Err(io::Error::other(
            "another process replaced the path while it was written",
        ));
    }

    let report = MetaReport {
        device: now.device,
        inode: now.inode,
        ..MetaReport::default()
    };
    let mut setter = MetadataSetter {
        rules,
        handle,
        kind,
        now,
        report,
    };

    let (uid, gid) = rules.owners.local_ids(&to_set.meta.owner);
    let mut mode = to_set.meta.mode & 0o7777;

    let is_chowned = setter.set_owner(uid, gid);
    if kind != EntryKind::Symlink {
        mode &= setter.set_acl(before, to_set.xattrs);
        setter.set_mode(mode, uid, gid, is_chowned);
    }
    setter.set_xattrs(before, to_set.xattrs);
    match times {
        WhichTimes::Now => setter.set_times(before, to_set.meta.mtime),
        WhichTimes::Later => setter.keep_from(to_set.meta.mtime),
    }

    Ok(setter.report)
}

/// Sets the mtime of a name in a directory, without following links. Returns the reason if it was
/// refused.
pub(super) fn set_mtime_of(
    dir: BorrowedFd<'_>,
    name: &[u8],
    mtime: Timestamp,
) -> Option<MetaRefusal> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    let mut result = rustix::fs::utimensat(dir, name, &mtime_alone(mtime), flags);
    if result.is_ok() && !COMMON_SECONDS.contains(&mtime.seconds()) {
        match rustix::fs::statx(dir, name, flags, rustix::fs::StatxFlags::BASIC_STATS) {
            Ok(found) if found.stx_mtime.tv_sec == mtime.seconds() => {}
            _ => result = Err(Errno::OVERFLOW),
        }
    }
    result.err().map(|errno| MetaRefusal {
        what: MetaPart::Times,
        errno: errno.raw_os_error(),
    })
}

fn mtime_alone(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds(),
            tv_nsec: mtime.nanos().into(),
        },
    }
}

struct MetadataSetter<'a> {
    rules: &'a MetadataRules,
    handle: &'a MetadataHandle<'a>,
    kind: EntryKind,
    /// Status of the path before the changes; user and group are kept up to date.
    now: FoundEntry,
    report: MetaReport,
}

impl MetadataSetter<'_> {
    /// Sets user and group. Returns true if either was changed.
    fn set_owner(&mut self, uid: u32, gid: u32) -> bool {
        if !self.rules.owners.are_set() || (self.now.uid, self.now.gid) == (uid, gid) {
            return false;
        }
        let user = (uid != self.now.uid).then_some(uid);
        let group = (gid != self.now.gid).then_some(gid);
        let mut result = self.chown(user, group);
        if result.is_err() && user.is_some() && group.is_some() {
            // An ordinary user may give a path to one of the user's groups.
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
        self.report.is_changed |= is_changed;
        is_changed
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
        // To the kernel, the largest number means 'leave unchanged'.
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        self.handle
            .chown(uid.map(Uid::from_raw), gid.map(Gid::from_raw))
    }

    /// Sets the mode. If the path's owner or group is not the entry's, the setuid or setgid bit is
    /// dropped: a program would otherwise run with the rights of the wrong owner.
    fn set_mode(&mut self, wanted: u16, uid: u32, gid: u32, is_chowned: bool) {
        let mut mode = wanted;
        if self.kind != EntryKind::Directory {
            if self.now.uid != uid {
                mode &= !SETUID;
            }
            if self.now.gid != gid {
                mode &= !SETGID;
            }
        }

        let is_cleared_by_chown = is_chowned && mode & (SETUID | SETGID) != 0;
        let mut result = Ok(());
        if mode != self.now.mode || is_cleared_by_chown {
            self.report.is_changed = true;
            result = self.handle.chmod(mode);
        }

        if result.is_ok() && !self.rules.policy.is_root && mode & SETGID != 0 {
            // The kernel silently drops setgid if the caller is not in the group.
            match FoundEntry::of_handle(self.handle.fd) {
                Ok(found) if found.mode == mode => {}
                _ => result = Err(Errno::PERM),
            }
        }
        if result.is_ok() && mode != wanted {
            result = Err(Errno::PERM);
        }
        self.report.note(MetaPart::Mode, result);
    }

    /// Sets or removes the ACL. Call it before `set_mode`: the mode's group bits must not exceed
    /// the ACL's mask. Returns the mode bits that may be set: if the ACL is refused, the owning
    /// group gets only the rights that the ACL gives it.
    fn set_acl(&mut self, before: MetadataBefore, wanted: &[(&[u8], &[u8])]) -> u16 {
        let Some((name, value)) = wanted.iter().find(|(name, _)| *name == acl::ACCESS) else {
            if before
                == (MetadataBefore::New {
                    inherited_acl: true,
                })
            {
                self.remove_xattr(acl::ACCESS);
            }
            return 0o7777;
        };
        if before == MetadataBefore::Existing && self.has_xattr(name, value) {
            return 0o7777;
        }
        if self.set_xattr(name, value) {
            0o7777
        } else {
            bits_without_acl(value)
        }
    }

    fn set_xattrs(&mut self, before: MetadataBefore, wanted: &[(&[u8], &[u8])]) {
        // The ACL was set before the mode.
        let is_link = self.kind == EntryKind::Symlink;
        let is_set_before = |name: &[u8]| name == acl::ACCESS && !is_link;
        let is_wanted = |name: &[u8]| wanted.iter().any(|(other, _)| *other == name);

        match before {
            MetadataBefore::New { .. } => {}
            MetadataBefore::Existing => match self.handle.xattr_names() {
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
            let is_there = before == MetadataBefore::Existing && self.has_xattr(name, value);
            if !is_set_before(name) && !is_there {
                self.set_xattr(name, value);
            }
        }
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.report.is_changed = true;
        self.report.note(
            MetaPart::Xattr(name.to_vec()),
            self.handle.set_xattr(name, value),
        )
    }

    fn remove_xattr(&mut self, name: &[u8]) {
        self.report.is_changed = true;
        self.report.note(
            MetaPart::Xattr(name.to_vec()),
            self.handle.remove_xattr(name),
        );
    }

    fn has_xattr(&self, name: &[u8], value: &[u8]) -> bool {
        // One byte more than needed reveals a longer value.
        let mut found = vec![0; value.len() + 1];
        self.handle
            .xattr(name, &mut found)
            .is_ok_and(|len| found.get(..len) == Some(value))
    }

    /// Makes sure that the path's time differs from its later time by more than a file system's
    /// granularity. The current time may be close to it.
    fn keep_from(&mut self, mtime: Timestamp) {
        if mtime.seconds_since(self.now.mtime).abs() >= GRAIN_SECONDS {
            return;
        }
        let day = if mtime.seconds() > DAY_SECONDS * 365 * 20 {
            -DAY_SECONDS
        } else {
            DAY_SECONDS
        };
        if let Err(errno) = self.handle.set_mtime(mtime.plus_seconds(day)) {
            self.report.note(MetaPart::Times, Err(errno));
        }
    }

    fn set_times(&mut self, before: MetadataBefore, mtime: Timestamp) {
        if before == MetadataBefore::Existing && self.now.mtime == mtime {
            return;
        }
        self.report.is_changed = true;
        let mut result = self.handle.set_mtime(mtime);
        if result.is_ok() && !COMMON_SECONDS.contains(&mtime.seconds()) {
            // A file system silently clamps a time that it cannot store.
            match FoundEntry::of_handle(self.handle.fd) {
                Ok(found) if found.mtime.seconds() == mtime.seconds() => {}
                _ => result = Err(Errno::OVERFLOW),
            }
        }
        self.report.note(MetaPart::Times, result);
    }
}

/// Returns the mode bits that remain if an ACL is refused: the owning group gets the rights that
/// the ACL gives it, not those of the mask.
fn bits_without_acl(acl_value: &[u8]) -> u16 {
    let rights = acl::owning_group_rights(acl_value).unwrap_or(0);
    0o7707 | rights << 3
}

/// Returns true for attributes that belong to a backup and are removed if the entry lacks them.
/// Labels of security modules, and attributes that a file system makes up, are left to the machine.
fn is_managed(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || [acl::ACCESS, acl::DEFAULT, b"security.capability"].contains(&name)
}

#[cfg(test)]
#[path = "meta_tests.rs"]
mod tests;
