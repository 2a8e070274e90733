//! The reserve of a local store: a file of random bytes in the root. A command on a full disk frees
//! its space.

use std::io;
use std::sync::Arc;

use crate::sys::{Dir, ExistingFile, PathContext, PathError, TempFile, random_bytes};

pub(super) const NAME: &str = ".reserve";
/// The sizes to try, in bytes: on a nearly full disk a smaller reserve is better than none.
const SIZES: [usize; 3] = [4 << 20, 2 << 20, 1 << 20];
const BLOCK_BYTES: usize = 64 << 10;
/// The reserve is not needed if more bytes than this are available.
const ROOM_BYTES: u64 = 16 << 20;

/// Creates the reserve, a file of this mode, if it does not exist.
pub(super) fn hold(root: &Arc<Dir>, mode: u32) -> Result<(), PathError> {
    if root.stat(NAME).is_ok() {
        return Ok(());
    }
    let mut done = Ok(());
    for bytes in SIZES {
        done = write(root, mode, bytes);
        match &done {
            Err(error) if is_full(error) => {}
            _ => break,
        }
    }
    match done {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Writes the reserve with random bytes, so that a file system with compression or hole detection
/// allocates all of them.
fn write(root: &Arc<Dir>, mode: u32, bytes: usize) -> Result<(), PathError> {
    let mut file = TempFile::create(root, mode)?;
    for _ in 0..bytes / BLOCK_BYTES {
        let noise: [u8; BLOCK_BYTES] =
            random_bytes().context("read", "the system's random source")?;
        file.write_all(&noise)?;
    }
    file.publish(root, NAME, ExistingFile::Refuse)
}

fn is_full(error: &PathError) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Removes the reserve if it exists.
pub(super) fn give_back(root: &Dir) -> Result<(), PathError> {
    match root.remove_file(NAME) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns true if the disk is nearly full, or its free space is unknown.
pub(super) fn is_of_use(root: &Dir) -> bool {
    root.available_bytes()
        .map_or(true, |bytes| bytes < ROOM_BYTES)
}
