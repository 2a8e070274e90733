//! Processes of this machine, by their numbers.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, test_kill_process};

use super::read_bounded;

/// Names this boot of this machine and the process numbers seen here: the kernel's boot id, and the
/// namespace in which a process number means something (a container has one of its own). Empty
/// where the system does not tell.
pub fn boot_id() -> String {
    let boot = read_bounded(Path::new("/proc/sys/kernel/random/boot_id"), 64).unwrap_or_default();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    match String::from_utf8(boot) {
        Ok(boot) if !boot.is_empty() && !namespace.as_os_str().is_empty() => {
            format!("{} {}", boot.trim(), namespace.display())
        }
        _ => String::new(),
    }
}

/// Looks whether `/proc/self/fd` leads to open descriptors, which is how attributes of links and
/// devices are reached. In a rescue system or a chroot it may not be mounted, or something else may
/// lie there.
///
/// # Errors
/// Why it cannot be used.
pub fn check_proc() -> io::Result<()> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let by_proc = rustix::fs::stat(format!("/proc/self/fd/{}", root.as_raw_fd()))?;
    let by_handle = rustix::fs::fstat(&root)?;
    if (by_proc.st_dev, by_proc.st_ino) == (by_handle.st_dev, by_handle.st_ino) {
        return Ok(());
    }
    Err(io::Error::other("it leads somewhere else"))
}

/// True if there is no process of this number here. One that may not be signalled is there.
pub fn is_dead(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_live_and_a_reaped_child_does_not() {
        assert!(!is_dead(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().expect("runs");
        let pid = child.id();
        child.wait().expect("ends");
        assert!(is_dead(pid));
        assert!(!is_dead(0) && !is_dead(u32::MAX), "no number of a process");
        assert!(boot_id().contains("pid:["), "{}", boot_id());
        check_proc().expect("the tests need /proc too");
    }
}
