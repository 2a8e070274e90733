//! What the file system says of a path, by `statx`.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, StatxFlags, StatxTimestamp, makedev, statx};
use rustix::io::Errno;

use crate::types::{DeviceNumber, Timestamp};

/// What lies at a path of the outside world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    Char,
    Block,
}

impl Kind {
    /// The kind of a directory entry or a mode; none if the file system did not say (`DT_UNKNOWN`).
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

    /// A number for spilled listings; 0 is left for "unknown".
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

    /// Undoes [`Kind::to_byte`]; none for 0 and whatever is no kind.
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

/// Which directory or file this is, as long as it exists and the machine is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryId {
    pub device: u64,
    pub inode: u64,
}

/// What `statx` tells of a path, without following a symlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// The 12 permission bits, setuid, setgid and sticky included.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Bytes; a symlink's is its target's length.
    pub size: u64,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub inode: u64,
    /// The device that holds the inode; may change across boots.
    pub device: u64,
    pub nlink: u32,
    /// The numbers of a device node; zeros for all else.
    pub rdev: DeviceNumber,
    /// Allocated, in units of 512 bytes.
    pub blocks: u64,
    /// The mount that holds the path; 0 before Linux 5.8. Tells bind mounts apart, which `device`
    /// does not.
    pub mount_id: u64,
}

impl Stat {
    /// The identity of what was stat'ed.
    pub fn id(&self) -> DirectoryId {
        DirectoryId {
            device: self.device,
            inode: self.inode,
        }
    }

    /// True if less is allocated than the size says: holes are worth asking for (or the file system
    /// compresses).
    pub fn may_have_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }

    /// True if a change since this stat could be invisible to the next one: the file was modified
    /// or changed within `grain_seconds` of `now` (the clock just before the stat), or in the
    /// future.
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
        let kind = Kind::from_type(FileType::from_raw_mode(u32::from(x.stx_mode)))
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

/// File systems with broken clocks give nanoseconds of a second or more: these are cut off, the
/// same each time.
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
                Kind::from_byte(byte).map_or(0, Kind::to_byte),
                if byte == 8 { 0 } else { byte }
            );
        }
    }
}
