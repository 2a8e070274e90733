//! Finds leftovers of killed restores: paths under temporary names that no running process holds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::dir::DestDir;
use super::temp::is_temporary_name;
use crate::sys::now;

/// Limit of the leftovers checked in one directory at once; the next restore finds the others.
const NAMES_MAX: usize = 4096;
/// Upper limit of the time for which a running restore keeps an unlocked path under its temporary
/// name.
const PAUSE: Duration = Duration::from_secs(1);
/// A path that has not changed for this long needs no second check.
const RECENT_SECONDS: i64 = 10;
/// Where files cannot be locked, a file younger than this may belong to a running restore.
const AGE_SECONDS_MIN: i64 = 3600;

impl DestDir {
    /// Finds leftovers of killed restores in this directory and, with `remove`, removes them.
    /// Returns their names.
    ///
    /// A path is a leftover only if its name has exactly the form of a temporary name, it is not a
    /// directory, no running restore holds it, and it belongs to this user. Root gives files
    /// away, so as root any owner counts unless the directory is writable by everyone. A running
    /// restore locks the file, or renames it within a moment.
    pub fn leftovers(&self, remove: bool) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        self.names(|name, _| {
            if is_temporary_name(name) && names.len() < NAMES_MAX {
                names.push(name.to_vec());
            }
            Ok(())
        })?;
        if names.is_empty() {
            return Ok(Vec::new());
        }

        let from_all = self.rules().policy.is_root && self.stat_self()?.mode & 0o002 == 0;
        let mut found: Vec<(Vec<u8>, Statx)> = names
            .into_iter()
            .filter_map(|name| self.look(&name, from_all).map(|stat| (name, stat)))
            .collect();

        found.retain(|(name, stat)| self.is_free(name, stat));
        let clock = now().seconds();
        if found.iter().any(|(_, stat)| is_recent(stat, clock)) {
            std::thread::sleep(PAUSE);
            found.retain(|(name, stat)| {
                self.is_still(name, stat, from_all) && self.is_free(name, stat)
            });
        }

        if remove {
            found.retain(|(name, _)| self.remove(name, false).is_ok());
        }

        Ok(found.into_iter().map(|(name, _)| name).collect())
    }

    fn look(&self, name: &[u8], from_all: bool) -> Option<Statx> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statx(self.fd(), name, flags, StatxFlags::BASIC_STATS).ok()?;
        let is_ours = from_all || stat.stx_uid == self.shared().euid;
        (is_ours && kind(&stat) != FileType::Directory).then_some(stat)
    }

    /// Returns true if the path has not changed since `before`.
    fn is_still(&self, name: &[u8], before: &Statx, from_all: bool) -> bool {
        let all = |stat: &Statx| {
            (
                stat.stx_ino,
                stat.stx_size,
                stat.stx_nlink,
                stat.stx_ctime.tv_sec,
                stat.stx_ctime.tv_nsec,
            )
        };
        self.look(name, from_all)
            .is_some_and(|stat| all(&stat) == all(before))
    }

    /// Returns true if no running restore has locked the path.
    fn is_free(&self, name: &[u8], stat: &Statx) -> bool {
        if kind(stat) != FileType::RegularFile {
            return true;
        }

        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let Ok(fd) = rustix::fs::openat(self.fd(), name, flags, Mode::empty()) else {
            return false;
        };

        match lock(&fd) {
            Ok(()) => true,
            Err(Errno::WOULDBLOCK) => false,
            Err(_) => now().seconds().saturating_sub(stat.stx_ctime.tv_sec) > AGE_SECONDS_MIN,
        }
    }
}

/// Returns true if a running restore may just have made it. A ctime in the future counts as recent.
fn is_recent(stat: &Statx, clock: i64) -> bool {
    clock.saturating_sub(stat.stx_ctime.tv_sec) < RECENT_SECONDS
}

fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

fn lock(fd: &OwnedFd) -> rustix::io::Result<()> {
    rustix::fs::flock(fd.as_fd(), FlockOperation::NonBlockingLockExclusive)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use crate::dest::OwnerPolicy;
    use crate::dest::testing::{
        as_ordinary_user, fixture, is_root, names, open, own_meta, plain, root_of,
    };

    #[test]
    fn only_leftovers_without_a_holder_are_removed() {
        let (directory, tree) = fixture();
        let root = root_of(&tree);
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at(".icecore-0123456789abcdef"), "dead").expect("a file");
        std::fs::write(at(".icecore-1123456789abcdef"), "").expect("a file");
        symlink("x", at(".icecore-2123456789abcdef")).expect("a link");

        for other in [
            ".icecore-0123456789abcde",
            ".icecore-0123456789abcdef0",
            "icecore-0123456789abcdef",
            ".icecore-0123456789ABCDEF",
        ] {
            std::fs::write(at(other), "another's").expect("a file");
        }
        std::fs::create_dir(at(".icecore-3123456789abcdef")).expect("a directory");
        let living = root.temp_file().expect("a file");
        living.write_at(b"x", 0).expect("written");
        living.hold();

        // Another restore, with its own handle.
        let other = root_of(&open(directory.path(), OwnerPolicy::Numeric));
        assert_eq!(other.leftovers(false).expect("listed").len(), 3);
        assert_eq!(names(&root).len(), 9);
        assert_eq!(other.leftovers(true).expect("removed").len(), 3);
        assert_eq!(names(&root).len(), 6);

        assert!(
            living
                .persist(b"done", &plain(&own_meta(0o644)))
                .expect("in place")
                .is_clean()
        );
        assert_eq!(std::fs::read(at("done")).expect("read"), b"x");
    }

    #[test]
    fn an_ordinary_user_does_not_remove_leftovers_of_others() {
        if !is_root() {
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777))
            .expect("open to all");
        std::fs::write(directory.path().join(".icecore-0123456789abcdef"), "root's")
            .expect("a file");
        as_ordinary_user(|| {
            let tree = open(directory.path(), OwnerPolicy::Numeric);
            assert!(root_of(&tree).leftovers(true).expect("listed").is_empty());
        });
        assert!(directory.path().join(".icecore-0123456789abcdef").exists());
    }
}
