//! Path resolution below an open directory.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// Limit for retries: a rename anywhere on the machine may make `openat2` return `EAGAIN`.
const TRIES_MAX: usize = 128;

/// Opens a path below `directory` without following symlinks. `resolve` may add restrictions.
///
/// # Errors
/// `LOOP` if the path leads through a symlink, `XDEV` if it leads out of the directory.
pub fn open_beneath(
    directory: impl AsFd,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = resolve | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut tries = 1;
    loop {
        match openat2(directory.as_fd(), path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < TRIES_MAX => tries += 1,
            result => return result,
        }
    }
}
