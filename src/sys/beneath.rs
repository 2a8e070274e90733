//! Paths resolved below an open directory, and nowhere else.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// A rename anywhere on the machine may make `openat2` ask for another try; this often, then its
/// error counts.
const TRIES_MAX: usize = 128;

/// Opens what a path below `directory` names, without following a link on the way; `resolve` may
/// ask for more than that.
///
/// # Errors
/// `LOOP` where the path leads through a link, `XDEV` where it leads out of the directory.
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
