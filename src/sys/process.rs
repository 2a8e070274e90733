//! Processes of this machine, by process id.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, test_kill_process};

use super::read_bounded;

/// Returns a string that identifies this boot of this machine and this process id namespace (a
/// container has a separate one). It is empty if the system does not provide both.
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

/// Returns this machine's name.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Checks that `/proc/self/fd` leads to open descriptors; attributes of symlinks and devices are
/// accessed through it. In a rescue system or a chroot it may not be mounted, or may be something
/// else.
///
/// # Errors
/// The reason why it cannot be used.
pub fn check_proc() -> io::Result<()> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let by_proc = rustix::fs::stat(format!("/proc/self/fd/{}", root.as_raw_fd()))?;
    let by_handle = rustix::fs::fstat(&root)?;
    if (by_proc.st_dev, by_proc.st_ino) == (by_handle.st_dev, by_handle.st_ino) {
        return Ok(());
    }
    Err(io::Error::other("it leads somewhere else"))
}

/// Returns true if there is no process with this id here. A process that we may not signal counts
/// as alive.
pub fn is_dead(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_reaped_child_is_dead() {
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
