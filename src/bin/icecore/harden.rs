//! Limits of this process: no core files, which would contain keys, and enough open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough open files for a backup with 64 workers, the maximum. Each worker has up to 24
/// directories waiting for it.
const OPEN_FILES: u64 = 4096;

/// Disables core files of this process and its children, as far as the system allows.
///
/// A limit of 0 has no effect if cores are piped to a program; an empty dump filter does.
/// PR_SET_DUMPABLE is not used: it would make /proc/self/fd inaccessible to ordinary users.
pub fn forbid_core_files() {
    // Neither failure is a reason to refuse a backup.
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}

/// Raises the limit of open files, usually 1,024, to [`OPEN_FILES`] or as far as allowed.
///
/// It is not raised to the allowed maximum: child processes inherit the limit, and some of them
/// close every number up to it at start. In many containers that is a thousand million.
pub fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        // Not fatal: the default limit is usually enough.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(wanted),
                ..limit
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression test: 64 readers had up to 6,000 directories waiting for them.
    #[test]
    fn a_low_limit_of_open_files_is_raised_and_a_high_one_left() {
        let before = getrlimit(Resource::Nofile);
        let most = before.maximum.unwrap_or(u64::MAX);
        for (given, expected) in [(1024, OPEN_FILES), (OPEN_FILES + 1, OPEN_FILES + 1)] {
            let given = most.min(given);
            let expected = most.min(expected);
            setrlimit(
                Resource::Nofile,
                Rlimit {
                    current: Some(given),
                    ..before
                },
            )
            .expect("set");
            allow_open_files();
            assert_eq!(
                getrlimit(Resource::Nofile),
                Rlimit {
                    current: Some(expected),
                    ..before
                }
            );
        }
        setrlimit(Resource::Nofile, before).expect("set");
    }
}
