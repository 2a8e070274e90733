//! Operations: each command of a user as one function over a repository and the outside world.

mod absent;
pub mod backup;
pub mod copy;
pub mod diff;
pub mod forget;
pub mod list;
pub mod memory;
mod packs;
pub mod prune;
#[cfg(test)]
mod reading_tests;
#[cfg(test)]
mod renewal_tests;
pub mod repair;
pub mod restore;
pub mod status;
pub mod tag;
#[cfg(test)]
pub(crate) mod testing;
mod things;
#[cfg(test)]
mod vanished_tests;
pub mod verify;

/// Returns an error if `/proc` is not mounted: paths that are only reachable through it would be
/// missing.
fn check_proc(action: &str) -> Result<(), crate::Error> {
    crate::sys::check_proc().map_err(|err| crate::Error::Refused {
        why: format!("cannot {action} without /proc/self/fd: {err}"),
        advice: "mount it: mount -t proc proc /proc".into(),
    })
}
