//! The status of a path, from `statx`.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, StatxFlags, StatxTimestamp, makedev, statx};
use rustix::io::Errno;

use crate::types::{DeviceNumber, Timestamp};

/// The kind of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    Char,
    Block,
}

impl StatKind {
    /// Converts the type of a directory entry or a mode. `None` if the file system did not report
    /// it (`DT_UNKNOWN`).
    pub(super) fn from_type(file_type: FileType) -> Option<Self> {
        Some(match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::Char,
            FileType::BlockDevice => Self::Block,
            FileType::Unknown => return None,
        })
    }

    /// Returns a number for spilled listings; 0 is reserved for "unknown".
    pub(super) fn to_byte(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::Symlink => 3,
            Self::Fifo => 4,
            Self::Socket => 5,
            Self::Char => 6,
            Self::Block => 7,
        }
    }

    /// Inverse of [`StatKind::to_byte`]; returns `None` for 0 and unknown numbers.
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::File,
            Self::Directory,
            Self::Symlink,
            Self::Fifo,
            Self::Socket,
            Self::Char,
            Self::Block,
        ]
        .into_iter()
        .find(|kind| kind.to_byte() == byte)
    }
}

/// Identity of a directory or file, as long as it exists and the machine is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId {
    pub device: u64,
    pub inode: u64,
}

/// The status of a path from `statx`, without following a symlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceStat {
    pub kind: StatKind,
    /// The 12 permission bits, including setuid, setgid and sticky.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Bytes; for a symlink the length of its target.
    pub size: u64,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub inode: u64,
    /// The device that holds the inode; may change across boots.
    pub device: u64,
    pub nlink: u32,
    /// The numbers of a device node; zeros for other kinds.
    pub rdev: DeviceNumber,
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    /// The mount that holds the path; 0 before Linux 5.8. It distinguishes bind mounts, which
    /// `device` does not.
    pub mount_id: u64,
}

impl SourceStat {
    /// Returns the identity of the path.
    pub fn id(&self) -> DirectoryId {
        DirectoryId {
            device: self.device,
            inode: self.inode,
        }
    }

    /// Returns true if less is allocated than the size, so there may be holes (or the file system
    /// compresses).
    pub fn may_have_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }

    /// Returns true if a change after this stat could be invisible to the next one: the file was
    /// modified or changed within `grain_seconds` of `now` (the clock just before the stat), or in
    /// the future.
    pub fn is_racy(&self, now: Timestamp, grain_seconds: i64) -> bool {
        self.mtime.max(self.ctime) > now.plus_seconds(-grain_seconds)
    }

    /// Stats `name` in a directory, or the handle itself if `name` is empty.
    pub(super) fn of(fd: BorrowedFd<'_>, name: &[u8]) -> io::Result<Self> {
        let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        if name.is_empty() {
            flags |= AtFlags::EMPTY_PATH;
        }

        let x = loop {
            match statx(
                fd,
                name,
                flags,
                StatxFlags::BASIC_STATS | StatxFlags::MNT_ID,
            ) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };

        let kind = StatKind::from_type(FileType::from_raw_mode(u32::from(x.stx_mode)))
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "a file of unknown type"))?;
        let has_mount_id = StatxFlags::from_bits_retain(x.stx_mask).contains(StatxFlags::MNT_ID);
        Ok(Self {
            kind,
            mode: x.stx_mode & 0o7777,
            uid: x.stx_uid,
            gid: x.stx_gid,
            size: x.stx_size,
            mtime: timestamp(&x.stx_mtime),
            ctime: timestamp(&x.stx_ctime),
            inode: x.stx_ino,
            device: makedev(x.stx_dev_major, x.stx_dev_minor),
            nlink: x.stx_nlink,
            rdev: DeviceNumber {
                major: x.stx_rdev_major,
                minor: x.stx_rdev_minor,
            },
            blocks: x.stx_blocks,
            mount_id: if has_mount_id { x.stx_mnt_id } else { 0 },
        })
    }
}

/// Converts a time. File systems with broken clocks return nanoseconds of a second or more; these
/// are dropped, with the same result each time.
fn timestamp(time: &StatxTimestamp) -> Timestamp {
    Timestamp::new(time.tv_sec, time.tv_nsec).unwrap_or(Timestamp::from_seconds(time.tv_sec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_survive_their_byte() {
        for byte in 0..=8 {
            assert_eq!(
                StatKind::from_byte(byte).map_or(0, StatKind::to_byte),
                if byte == 8 { 0 } else { byte }
            );
        }
    }
}
