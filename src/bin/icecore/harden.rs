//! The limits of this process: no core files, which would hold keys; enough open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that are enough for a backup with 64 workers, which are the most: each has up to 24
/// directories waiting for it.
const OPEN_FILES: u64 = 4096;

/// Forbids core files of this process and its children, as far as the system lets us.
///
/// A limit of 0 does not hold where cores are piped to a program; an empty dump filter does.
/// PR_SET_DUMPABLE is not used: it would take /proc/self/fd away from ordinary users.
pub fn forbid_core_files() {
    // Neither can fail in a way that should keep anyone from a backup.
    let _ = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    );
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}

/// Raises the limit of open files, 1,024 as a rule, as far as is of use and allowed.
///
/// Not as far as allowed: commands inherit it, and some of them close every number up to it before
/// they begin, of which there are a thousand million in many a container.
pub fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        // With what there is it works all the same, as a rule.
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

    /// 64 readers had up to 6,000 directories waiting for them.
    #[test]
    fn a_low_limit_of_open_files_is_raised_and_a_high_one_left() {
        let before = getrlimit(Resource::Nofile);
        let most = before.maximum.unwrap_or(u64::MAX);
        for (given, expected) in [(1024, OPEN_FILES), (OPEN_FILES + 1, OPEN_FILES + 1)] {
            let (given, expected) = (most.min(given), most.min(expected));
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
