//! Describes why a path of a source could not be captured.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// Longest reason that an entry carries.
const REASON_BYTES_MAX: usize = 1024;

/// Returns a reason for an entry: the whole error chain, and advice, at most 1 KiB.
pub(super) fn reason(action: &str, err: &(dyn Error + 'static)) -> String {
    let mut text = format!("cannot {action}: {err}");
    let mut advice = about_error(err);
    let mut next = err.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        advice = advice.or_else(|| about_error(source));
        next = source.source();
    }
    let advice = advice.unwrap_or_default();
    let mut end = text.len().min(REASON_BYTES_MAX - advice.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text + advice
}

fn about_error(err: &(dyn Error + 'static)) -> Option<&'static str> {
    err.downcast_ref::<io::Error>().and_then(about_mount)
}

/// Returns advice for errors of a mount whose server or process is gone, to be appended to the
/// error's text.
pub(super) fn about_mount(err: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(err)? {
        Errno::STALE | Errno::NOTCONN | Errno::HOSTDOWN | Errno::HOSTUNREACH | Errno::TIMEDOUT => {
            Some(": its mount does not answer; unmount it and mount it again")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::PathError;

    fn of(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.raw_os_error())
    }

    #[test]
    fn a_dead_mount_is_named_at_each_of_its_paths() {
        for errno in [Errno::STALE, Errno::NOTCONN, Errno::TIMEDOUT] {
            assert!(
                reason("read", &of(errno)).ends_with("mount it again"),
                "{errno:?}"
            );
            let path = "/mnt/file".into();
            let nested = PathError {
                action: "stat",
                path,
                source: of(errno),
            };
            assert!(
                reason("find", &nested).ends_with("mount it again"),
                "{errno:?}"
            );
        }
        for errno in [Errno::IO, Errno::ACCESS, Errno::NOENT] {
            assert!(!reason("read", &of(errno)).contains("mount"), "{errno:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_and_its_advice_is_not() {
        let path = "é".repeat(4096).into();
        let text = reason(
            "find",
            &PathError {
                action: "stat",
                path,
                source: of(Errno::STALE),
            },
        );
        assert!(text.len() <= REASON_BYTES_MAX, "{} bytes", text.len());
    }
}
