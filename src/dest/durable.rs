//! Makes written data durable before a restore reports success.
//!
//! Where `syncfs` writes a whole file system and reports failed writes, files are written first and
//! synced together, and their times are set after that. Everywhere else (FUSE, network file
//! systems, overlays, Linux before 5.8) each file is synced before it gets its name, and each
//! directory when the last handle to it is dropped.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// Limit of the file systems with unsynced writes, each held by an open handle; beyond it, the
/// oldest is synced.
const UNSYNCED_MAX: usize = 64;
/// Devices whose sync method is cached.
const KNOWN_MAX: usize = 4096;

/// `statfs` types whose `syncfs` reports every failed write since Linux 5.8.
const SYNCED_AS_A_WHOLE: [u32; 14] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0xf2f5_2010, // F2FS
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x2fc1_2fc1, // ZFS
    0xca45_1a4e, // bcachefs
    0x2011_bab0, // exFAT
    0x4d44,      // FAT
    0x7366_746e, // NTFS (ntfs3)
    0x3153_464a, // JFS
    0x482b,      // HFS+
    0x3434,      // NILFS
];

/// How a tree is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMethod {
    /// The right method for each file system.
    #[default]
    Full,
    /// Sync each file, as on file systems whose `syncfs` is not reliable.
    EachFile,
    /// Sync nothing, for tests; times are still set last.
    Skipped,
}

/// How one file system makes writes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SyncWay {
    Together,
    EachFile,
    Never,
}

/// The file systems that have unsynced writes of one tree.
#[derive(Debug)]
pub(super) struct WrittenTo {
    durability: SyncMethod,
    /// `syncfs` reports failed writes.
    has_reports: bool,
    /// Number of times that file systems were removed from the list.
    generation: AtomicU64,
    list: Mutex<MountList>,
}

#[derive(Debug, Default)]
struct MountList {
    known: Vec<(u64, SyncWay)>,
    /// Device, and a handle opened before the writes: it reports errors since then.
    unsynced: Vec<(u64, OwnedFd)>,
    /// The first failure of a sync or of its preparation since the last call of `sync`.
    failure: Option<io::Error>,
}

impl WrittenTo {
    pub fn new(durability: SyncMethod) -> Self {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let has_reports = linux_version(&release).is_some_and(|version| version >= (5, 8));
        Self {
            durability,
            has_reports,
            generation: AtomicU64::new(1),
            list: Mutex::default(),
        }
    }

    fn list(&self) -> MutexGuard<'_, MountList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns how the file system of an open directory is synced.
    pub fn way(&self, device: u64, dir: BorrowedFd<'_>) -> SyncWay {
        match self.durability {
            SyncMethod::Skipped => return SyncWay::Never,
            SyncMethod::EachFile => return SyncWay::EachFile,
            SyncMethod::Full if !self.has_reports => return SyncWay::EachFile,
            SyncMethod::Full => {}
        }

        if let Some((_, way)) = self.list().known.iter().find(|(known, _)| *known == device) {
            return *way;
        }

        // Magic numbers are 32 bits wide, and sign-extended on some machines.
        let kind = rustix::fs::fstatfs(dir).map(|found| found.f_type as u32);
        let is_whole = kind.is_ok_and(|kind| SYNCED_AS_A_WHOLE.contains(&kind));
        let way = if is_whole {
            SyncWay::Together
        } else {
            SyncWay::EachFile
        };

        let mut list = self.list();
        if list.known.len() < KNOWN_MAX {
            list.known.push((device, way));
        }
        way
    }

    /// Records a directory with new writes whose file system is synced as a whole. Returns the
    /// generation in which it is recorded.
    pub fn note(&self, device: u64, dir: BorrowedFd<'_>) -> u64 {
        let mut list = self.list();
        if !list.unsynced.iter().any(|(known, _)| *known == device) {
            if list.unsynced.len() >= UNSYNCED_MAX {
                let (_, oldest) = list.unsynced.remove(0);
                self.generation.fetch_add(1, Ordering::AcqRel);
                if let Err(errno) = sync_whole(&oldest) {
                    list.failure.get_or_insert(errno.into());
                }
            }
            match rustix::io::fcntl_dupfd_cloexec(dir, 3) {
                Ok(fd) => list.unsynced.push((device, fd)),
                Err(errno) => {
                    list.failure.get_or_insert(errno.into());
                }
            }
        }
        self.generation()
    }

    /// Records a failed sync.
    pub fn fail(&self, err: io::Error) {
        self.list().failure.get_or_insert(err);
    }

    /// Syncs every file system that was written to.
    ///
    /// # Errors
    /// The first failure since the last call. Written data may then be lost.
    pub fn sync(&self) -> io::Result<()> {
        let unsynced = {
            let mut list = self.list();
            // Before the sync: later writes are recorded again.
            self.generation.fetch_add(1, Ordering::AcqRel);
            std::mem::take(&mut list.unsynced)
        };
        for (_, fd) in &unsynced {
            if let Err(errno) = sync_whole(fd) {
                self.fail(errno.into());
            }
        }
        self.list().failure.take().map_or(Ok(()), Err)
    }
}

fn sync_whole(fd: &OwnedFd) -> rustix::io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::syncfs(fd))
}

/// Syncs an open file.
pub(super) fn sync_file(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| rustix::fs::fsync(fd.as_fd()))?)
}

/// Syncs an open directory, if its file system supports that.
pub(super) fn sync_dir(fd: impl AsFd) -> io::Result<()> {
    match rustix::io::retry_on_intr(|| rustix::fs::fsync(fd.as_fd())) {
        Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns the first two numbers of a kernel release.
fn linux_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(linux_version("5.10.0-28-amd64"), Some((5, 10)));
        assert_eq!(linux_version("6.1"), Some((6, 1)));
        assert!(linux_version("5.7.19-generic").is_some_and(|version| version < (5, 8)));
        assert_eq!(linux_version("odd"), None);
    }

    #[test]
    fn a_failure_is_reported_once_and_by_the_next_sync() {
        let writes = WrittenTo::new(SyncMethod::Full);
        writes.fail(Errno::IO.into());
        writes.fail(Errno::NOSPC.into());
        assert_eq!(
            writes.sync().expect_err("failed").raw_os_error(),
            Some(Errno::IO.raw_os_error())
        );
        writes.sync().expect("nothing since");
    }

    #[test]
    fn file_systems_are_noted_once_and_never_without_bound() {
        let dir = tempfile::tempdir().expect("a directory");
        let fd = rustix::fs::open(
            dir.path(),
            rustix::fs::OFlags::RDONLY,
            rustix::fs::Mode::empty(),
        )
        .expect("open");
        let writes = WrittenTo::new(SyncMethod::Full);
        let first = writes.note(1, fd.as_fd());
        assert_eq!(writes.note(1, fd.as_fd()), first);
        for device in 2..=UNSYNCED_MAX as u64 {
            assert_eq!(writes.note(device, fd.as_fd()), first);
        }
        // One more: the oldest is synced, and directories on it must be recorded again.
        assert_ne!(writes.note(1000, fd.as_fd()), first);
        assert_eq!(writes.list().unsynced.len(), UNSYNCED_MAX);
        writes.sync().expect("synced");
        assert!(writes.list().unsynced.is_empty());
    }
}
