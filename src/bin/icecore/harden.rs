//! Keeps keys out of core files.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Forbids core files of this process and its children, as far as the system lets us.
///
/// A limit of 0 does not hold where cores are piped to a program; an empty dump filter does. PR_SET_DUMPABLE is not
/// used: it would take /proc/self/fd away from ordinary users.
pub fn forbid_core_files() {
    // Neither can fail in a way that should keep anyone from a backup.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}
