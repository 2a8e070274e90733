//! Status of an existing name of the target.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};

use crate::types::{DeviceNumber, EntryKind, Timestamp};

/// Status of an existing name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundEntry {
    /// `None` for a kind that no entry has.
    pub kind: Option<EntryKind>,
    /// Bytes; for a link the length of its target.
    pub size: u64,
    pub mtime: Timestamp,
    /// Time of the last change of the inode, by the file system's clock.
    pub ctime: Timestamp,
    /// The 12 permission bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub inode: u64,
    /// The device that holds the inode, encoded as by `makedev`.
    pub device: u64,
    pub nlink: u32,
    /// The numbers of a device itself; 0 and 0 for other kinds.
    pub rdev: DeviceNumber,
    /// Allocated bytes, without holes.
    pub allocated: u64,
}

impl FoundEntry {
    pub(super) fn of_handle(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
            .map(|found| Self::from(&found))
    }

    /// Returns true if the path has this modification time, possibly truncated by the file system.
    /// Some store only seconds (ext3, HFS+), even seconds (FAT) or parts of a second (SMB, NTFS).
    /// The ctime, which the file system sets itself, shows whether this one truncates.
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

/// Granularities of file system times: multiples of this many seconds, or of this many nanoseconds.
const GRAINS: [(i64, u32); 5] = [(0, 100), (0, 1000), (0, 1_000_000), (1, 1), (2, 1)];

impl From<&Statx> for FoundEntry {
    fn from(found: &Statx) -> Self {
        let mtime = found.stx_mtime;
        let ctime = found.stx_ctime;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_truncated_by_the_file_system_counts_as_equal() {
        let dir = tempfile::tempdir().expect("a directory");
        let of = |mtime: Timestamp, ctime: Timestamp| {
            let stat = rustix::fs::statx(
                rustix::fs::CWD,
                dir.path(),
                AtFlags::empty(),
                StatxFlags::BASIC_STATS,
            );
            FoundEntry {
                mtime,
                ctime,
                ..FoundEntry::from(&stat.expect("stat"))
            }
        };
        let time = |seconds, nanos| Timestamp::new(seconds, nanos).expect("a time");
        let wanted = time(1001, 678_901_234);
        let fine = time(2001, 123_456_789);

        for (mtime, ctime, is_same) in [
            (wanted, fine, true),
            (time(1001, 678_901_200), time(2001, 123_456_700), true),
            (time(1001, 678_901_000), time(2001, 123_456_000), true),
            (time(1001, 0), time(2001, 0), true),
            (time(1000, 0), time(2000, 0), true),
            // The file system stores finer times, so another process set this one.
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
