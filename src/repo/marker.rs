//! A file beside the cache with which the machine of a lease's holder can prove that the holder is
//! gone.
//!
//! A process number is not proof. A virtual machine that was cloned from a memory image has the
//! boot id, the machine id and the host name of its twin, but not its processes. A prune in one
//! would take a living writer in the other for dead. But two clones never write to the same disk.
//! So a holder keeps a locked file on its own disk and writes the store time of each of its
//! heartbeats to it.
//!
//! The holder is certainly gone if that file is here, its lock is free, and the lease in the store
//! has the time in the file, so no other process has written the lease since. In any other case the
//! lease counts until it expires.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Repository;
use crate::sys::{LockFile, is_regular_file, private_directory, remove_if_there, remove_unlocked};
use crate::types::{LeaseId, Timestamp};

/// The age at which the file of a killed process is removed. No lease lives longer.
const KEPT: Duration = Duration::from_secs(15 * 24 * 3600);

/// The file of a held lease. Removed on drop.
#[derive(Debug)]
pub(super) struct HolderMarker {
    lock: LockFile,
    path: PathBuf,
}

impl HolderMarker {
    /// Creates and locks the file. Returns `None` if that fails; the lease then counts until it
    /// expires.
    pub fn set(repo: &Repository, id: LeaseId) -> Option<Self> {
        let dir = marker_dir(repo);
        private_directory(&dir).ok()?;
        remove_unlocked(&dir, KEPT);
        let path = dir.join(id.to_string());
        let lock = LockFile::open(&path).ok()?;
        lock.try_lock().ok()?.then_some(Self { lock, path })
    }

    /// Writes the store time of a heartbeat to the file. A crash before this leaves an older time,
    /// and nothing is proved then.
    pub fn note(&self, stamp: Timestamp) {
        let _ = self.lock.write(stamp_text(stamp).as_bytes());
    }
}

impl Drop for HolderMarker {
    fn drop(&mut self) {
        let _ = remove_if_there(&self.path);
    }
}

impl Repository {
    /// Returns true if the holder of a lease was a process of this machine that is gone, and no
    /// process wrote the lease since. `modified` is the lease's store time.
    pub(super) fn holder_is_gone(&self, id: LeaseId, modified: Timestamp) -> bool {
        let path = marker_dir(self).join(id.to_string());
        let is_gone = |lock: &LockFile| matches!(lock.try_lock(), Ok(true));
        let has_stamp = |lock: &LockFile| {
            lock.read()
                .is_ok_and(|text| text == stamp_text(modified).as_bytes())
        };
        is_regular_file(&path)
            && LockFile::open(&path).is_ok_and(|lock| is_gone(&lock) && has_stamp(&lock))
    }
}

fn marker_dir(repo: &Repository) -> PathBuf {
    repo.cache_dir().join(Path::new("leases"))
}

fn stamp_text(stamp: Timestamp) -> String {
    format!("{}.{:09}", stamp.seconds(), stamp.nanos())
}
