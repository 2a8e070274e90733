//! Written files that wait for a sync: those without their times, and those without their names.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::link_group::LinkLeader;
use super::window::WindowItem;
use crate::dest::{UnsettledFile, WholeFile};
use crate::sys::{PathError, Sorter};
use crate::types::{RelPath, Timestamp};

/// Written files that wait for a sync.
pub(super) struct WaitingFiles {
    state: Mutex<WaitingState>,
    pub(super) nameless: Mutex<Vec<NamelessFile>>,
}

pub(super) struct WaitingState {
    /// Path in the target → [`UnsettledFile`].
    pub(super) files: Sorter,
    pub(super) count: u64,
    pub(super) bytes: u64,
}

impl WaitingFiles {
    pub fn new(scratch: &Path, sorter_bytes: usize) -> Self {
        let state = WaitingState {
            files: Sorter::new(scratch, sorter_bytes),
            count: 0,
            bytes: 0,
        };
        Self {
            state: Mutex::new(state),
            nameless: Mutex::default(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, WaitingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a file that has its name but not its time.
    pub fn push(&self, path: &RelPath, file: &UnsettledFile, bytes: u64) -> Result<(), PathError> {
        let mut state = self.state();
        state.count += 1;
        state.bytes += bytes;
        state.files.push(path.key(), &encode(file))
    }
}

fn encode(file: &UnsettledFile) -> [u8; 29] {
    let mut value = [0; 29];
    value[..8].copy_from_slice(&file.device.to_le_bytes());
    value[8..16].copy_from_slice(&file.inode.to_le_bytes());
    value[16..24].copy_from_slice(&file.mtime.seconds().to_le_bytes());
    value[24..28].copy_from_slice(&file.mtime.nanos().to_le_bytes());
    value[28] = u8::from(file.is_shared);
    value
}

pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<(RelPath, UnsettledFile)> {
    let (device, rest) = value.split_first_chunk::<8>()?;
    let (inode, rest) = rest.split_first_chunk::<8>()?;
    let (seconds, rest) = rest.split_first_chunk::<8>()?;
    let (nanos, rest) = rest.split_first_chunk::<4>()?;
    let mtime = Timestamp::new(i64::from_le_bytes(*seconds), u32::from_le_bytes(*nanos))?;
    let file = UnsettledFile {
        device: u64::from_le_bytes(*device),
        inode: u64::from_le_bytes(*inode),
        mtime,
        is_shared: *rest == [1],
    };
    Some((RelPath::from_key(key.to_vec()).ok()?, file))
}

/// A complete file without its name.
pub(super) struct NamelessFile {
    pub file: WholeFile,
    pub path: RelPath,
    pub size: u64,
    pub leader: Option<Arc<LinkLeader>>,
    /// The directory existed before, so other paths may have claims in it.
    pub is_claim: bool,
    pub identity: (u64, u64),
}

/// The data that a file needs while it waits for its name.
impl NamelessFile {
    pub fn new(item: &WindowItem, file: WholeFile, identity: (u64, u64)) -> Self {
        let path = item.path.clone();
        let leader = item.leader.clone();
        Self {
            file,
            path,
            size: item.size,
            leader,
            is_claim: item.rule.is_claim,
            identity,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsettled_file_survives_the_sorter() {
        for (seconds, nanos) in [(0, 0), (-5, 999_999_999), (i64::MAX, 1), (i64::MIN, 2)] {
            let mtime = Timestamp::new(seconds, nanos).expect("a time");
            let file = UnsettledFile {
                device: u64::MAX,
                inode: 7,
                mtime,
                is_shared: nanos > 0,
            };
            let path = RelPath::from_slashed(b"a/b").expect("a path");
            assert_eq!(decode(path.key(), &encode(&file)), Some((path, file)));
        }
        assert_eq!(decode(b"a", b"short"), None);
    }
}
