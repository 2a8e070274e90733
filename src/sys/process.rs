//! Processes of this machine, by their numbers.

use std::path::Path;

use rustix::process::{Pid, test_kill_process};

use super::read_bounded;

/// Names this boot of this machine and the process numbers seen here: the kernel's boot id, and the namespace in which
/// a process number means something (a container has one of its own). Empty where the system does not tell.
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
    }
}
