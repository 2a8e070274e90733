//! Removes a directory with everything below it, at any depth with one open handle.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, SeekFrom};
use rustix::io::Errno;

use super::dir::{DestDir, component, list, open_writable};
use super::durable::{SyncWay, sync_dir};
use super::found::FoundEntry;
use super::protect::InUse;
use crate::types::EntryKind;

/// Limit of the pending directory names in memory, over all depths. Each depth may hold at least
/// one.
const PENDING_NAMES_MAX: usize = 512;

/// Decides whether a path stays, with everything below it. Arguments: the path's components from
/// the removed name on, joined by 0x00, and its kind.
pub type Stays<'s> = dyn FnMut(&[u8], Option<EntryKind>) -> bool + 's;

/// Result of the removal of a tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RemovedCounts {
    /// Removed names, including directories.
    pub names: u64,
    /// A path that stayed, as [`Stays`] gets it, and the reason. The directories above it stay too.
    /// `None`: everything is gone.
    pub kept: Option<(Vec<u8>, KeptNames)>,
}

/// Why a path was not removed. The more surprising reason is the greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptNames {
    /// The caller wants it to stay.
    Asked,
    /// It is protected.
    InUse(&'static str),
    /// Something is mounted there, which the removal must not touch.
    Mount,
}

/// An open directory that is being removed, or one above it.
struct RemovalLevel {
    name: Vec<u8>,
    /// Length of its path in [`Removal::key`].
    key_len: usize,
    /// Device and inode, to check the way up.
    identity: (u64, u64),
    /// Its known subdirectories that are not yet removed; the last is removed next.
    pending: Vec<Vec<u8>>,
    /// The listing was cut short.
    has_more: bool,
    /// Something in it stays.
    has_kept: bool,
    /// Subdirectories up to this name are done. Set once something stays: then listings are
    /// processed in order of names, because a kept path would otherwise be found again and again.
    after: Option<Vec<u8>>,
}

/// Result of opening a name.
enum OpenedName {
    Directory(OwnedFd),
    NoDirectory,
    Gone,
    Kept(KeptNames),
}

struct Removal<'r> {
    root: &'r DestDir,
    stays: &'r mut Stays<'r>,
    /// The path of the current directory.
    key: Vec<u8>,
    pending_total: usize,
    done: RemovedCounts,
}

impl DestDir {
    /// Removes a directory and everything below it, or any other kind of path. Paths for which
    /// `stays` returns true, protected paths, and mounts below stay. Links are removed, never
    /// followed. After a crash, a part of the tree remains.
    ///
    /// # Errors
    ///
    /// The first path that cannot be removed stops the removal. It is also an error if another
    /// process moves a directory during the removal; nothing outside is touched.
    pub fn remove_tree(&self, name: &[u8], stays: &mut Stays<'_>) -> io::Result<RemovedCounts> {
        let name = component(name)?;
        let mut removal = Removal {
            root: self,
            stays,
            key: Vec::new(),
            pending_total: 0,
            done: RemovedCounts::default(),
        };

        match removal.open(self.fd(), name)? {
            OpenedName::Directory(directory) => {
                self.changed();
                removal.run(name, directory)?;
            }
            OpenedName::NoDirectory => {
                self.remove(name, false)?;
                removal.done.names += 1;
            }
            OpenedName::Gone => return Err(Errno::NOENT.into()),
            OpenedName::Kept(why) => removal.done.kept = Some((name.to_vec(), why)),
        }

        Ok(removal.done)
    }
}

impl Removal<'_> {
    fn run(&mut self, name: &[u8], mut current: OwnedFd) -> io::Result<()> {
        let mut levels = vec![self.enter(name, &current)?];
        while let Some(level) = levels.last_mut() {
            if let Some(child) = level.pending.pop() {
                self.pending_total -= 1;
                match self.open(current.as_fd(), &child)? {
                    OpenedName::Directory(fd) => {
                        current = fd;
                        levels.push(self.enter(&child, &current)?);
                    }
                    OpenedName::Gone => {}
                    OpenedName::NoDirectory => self.unlink(current.as_fd(), &child)?,
                    OpenedName::Kept(why) => {
                        level.has_kept = true;
                        self.keep(level.key_len, &child, why);
                    }
                }
            } else if level.has_more {
                rustix::fs::seek(&current, SeekFrom::Start(0))?;
                self.fill(level, current.as_fd())?;
            } else {
                // The directory is finished: go up, and remove it there if it is empty.
                let Some(done) = levels.pop() else { break };
                if done.has_kept && self.root.way() == SyncWay::EachFile {
                    sync_dir(&current)?;
                }

                let above = match levels.last_mut() {
                    None => self.root.fd(),
                    Some(above) => {
                        above.has_kept |= done.has_kept;
                        self.key.truncate(above.key_len);
                        current = open_parent(&current, above.identity)?;
                        current.as_fd()
                    }
                };

                if !done.has_kept {
                    remove_empty(above, &done.name)?;
                    self.done.names += 1;
                }
            }
        }
        Ok(())
    }

    fn open(&self, directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<OpenedName> {
        match open_writable(self.root.shared(), directory, name, ResolveFlags::NO_XDEV) {
            Ok(fd) => Ok(OpenedName::Directory(fd)),
            Err(err) => match (InUse::of(&err), Errno::from_io_error(&err)) {
                (Some(reason), _) => Ok(OpenedName::Kept(KeptNames::InUse(reason.what))),
                (_, Some(Errno::NOTDIR | Errno::LOOP)) => Ok(OpenedName::NoDirectory),
                (_, Some(Errno::NOENT)) => Ok(OpenedName::Gone),
                (_, Some(Errno::XDEV)) => Ok(OpenedName::Kept(KeptNames::Mount)),
                _ => Err(err),
            },
        }
    }

    fn enter(&mut self, name: &[u8], directory: &OwnedFd) -> io::Result<RemovalLevel> {
        let found = FoundEntry::of_handle(directory.as_fd())?;
        push(&mut self.key, name);
        let mut level = RemovalLevel {
            name: name.to_vec(),
            key_len: self.key.len(),
            identity: (found.device, found.inode),
            pending: Vec::new(),
            has_more: false,
            has_kept: false,
            after: None,
        };
        self.fill(&mut level, directory.as_fd())?;
        Ok(level)
    }

    /// Removes everything except directories, and collects directories up to the limit.
    fn fill(&mut self, level: &mut RemovalLevel, directory: BorrowedFd<'_>) -> io::Result<()> {
        let room = PENDING_NAMES_MAX.saturating_sub(self.pending_total).max(1);
        let in_order = level.has_kept;
        let mut noted = BTreeSet::new();
        level.has_more = false;

        list(directory, |name, kind| {
            self.key.truncate(level.key_len);
            push(&mut self.key, name);
            if (self.stays)(&self.key, kind) {
                level.has_kept = true;
                self.keep(level.key_len, name, KeptNames::Asked);
            } else if kind != Some(EntryKind::Directory) {
                level.has_kept |= self.remove_leaf(level.key_len, directory, name)?;
            } else if !in_order {
                noted.insert(name.to_vec());
                level.has_more = noted.len() >= room;
            } else if level.after.as_deref().is_none_or(|after| name > after) {
                noted.insert(name.to_vec());
                if noted.len() > room {
                    noted.pop_last();
                    level.has_more = true;
                }
            }
            Ok(in_order || !level.has_more)
        })?;

        self.key.truncate(level.key_len);
        if in_order {
            level.after = noted.last().cloned().or(level.after.take());
        }
        self.pending_total += noted.len();
        level.pending = noted.into_iter().rev().collect();
        Ok(())
    }

    /// Removes a path that is not a directory. Returns true if it is protected and stays.
    fn remove_leaf(
        &mut self,
        key_len: usize,
        directory: BorrowedFd<'_>,
        name: &[u8],
    ) -> io::Result<bool> {
        let protection = &self.root.shared().protection;
        if protection.may_be_file(name) {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let found =
                rustix::fs::statx(directory, name, flags, rustix::fs::StatxFlags::BASIC_STATS)?;
            if let Err(reason) = protection.check(&FoundEntry::from(&found)) {
                self.keep(key_len, name, KeptNames::InUse(reason.what));
                return Ok(true);
            }
        }
        self.unlink(directory, name)?;
        Ok(false)
    }

    fn unlink(&mut self, directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) => {
                self.done.names += 1;
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Records a path that stays, if its reason is more surprising than the recorded one.
    fn keep(&mut self, key_len: usize, name: &[u8], why: KeptNames) {
        if self
            .done
            .kept
            .as_ref()
            .is_none_or(|(_, known)| *known < why)
        {
            let mut key = self.key[..key_len].to_vec();
            push(&mut key, name);
            self.done.kept = Some((key, why));
        }
    }
}

fn push(key: &mut Vec<u8>, name: &[u8]) {
    if !key.is_empty() {
        key.push(0);
    }
    key.extend_from_slice(name);
}

fn remove_empty(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens the directory above, and checks that it has the expected identity.
fn open_parent(directory: &OwnedFd, identity: (u64, u64)) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, c"..", flags, Mode::empty())?;
    let found = FoundEntry::of_handle(fd.as_fd())?;
    if (found.device, found.inode) != identity {
        return Err(io::Error::other(
            "another process moved a directory while it was removed",
        ));
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::dest::testing::{
        as_ordinary_user, errno, fixture, names, open, path, removed, root_of,
    };
    use crate::dest::{DestTree, OwnerPolicy, SyncMethod};

    #[test]
    fn a_whole_tree_is_removed_and_links_are_not_followed() {
        let (directory, tree) = fixture();
        let outside = tempfile::tempdir().expect("a directory outside");
        std::fs::write(outside.path().join("keep"), b"x").expect("a file");
        tree.make_directory(&path("a")).expect("a directory");
        tree.make_directory(&path("a/b")).expect("a directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("a/f"), b"").expect("a file");
        symlink(outside.path(), at("a/out")).expect("a link");
        symlink(outside.path(), at("a/b/out")).expect("a link");
        symlink(outside.path(), at("top")).expect("a link");

        let root = root_of(&tree);
        assert_eq!(
            removed(&root, b"a"),
            RemovedCounts {
                names: 5,
                kept: None
            }
        );
        assert_eq!(
            removed(&root, b"top"),
            RemovedCounts {
                names: 1,
                kept: None
            }
        );

        assert!(names(&root).is_empty());
        assert!(outside.path().join("keep").exists());
        assert_eq!(
            errno(root.remove_tree(b"a", &mut |_, _| false)),
            Some(Errno::NOENT)
        );
    }

    #[test]
    fn more_directories_than_fit_in_memory_are_removed() {
        let (directory, tree) = fixture();
        for top in 0..3 {
            for number in 0..PENDING_NAMES_MAX / 2 {
                std::fs::create_dir_all(directory.path().join(format!("a/{top}/{number}")))
                    .expect("a directory");
            }
        }
        removed(&root_of(&tree), b"a");
        assert!(names(&root_of(&tree)).is_empty());
    }

    #[test]
    fn a_parent_is_opened_only_if_it_is_the_expected_one() {
        let (directory, tree) = fixture();
        tree.make_directory(&path("a")).expect("a directory");
        let (below, _) = tree.make_directory(&path("a/b")).expect("a directory");
        let above = tree
            .directory(&path("a"))
            .expect("a directory")
            .stat_self()
            .expect("stat");
        let fd = rustix::io::dup(below.fd()).expect("a handle");
        assert!(open_parent(&fd, (above.device, above.inode)).is_ok());
        std::fs::rename(directory.path().join("a/b"), directory.path().join("b")).expect("a move");
        assert!(open_parent(&fd, (above.device, above.inode)).is_err());
    }

    #[test]
    fn an_ordinary_users_locked_directories_can_be_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777))
            .expect("open to all");
        as_ordinary_user(|| {
            let tree: DestTree = open(directory.path(), OwnerPolicy::Numeric);
            tree.make_directory(&path("a")).expect("a directory");
            tree.make_directory(&path("a/b")).expect("a directory");
            std::fs::write(at("a/b/f"), b"").expect("a file");
            std::fs::set_permissions(at("a/b"), PermissionsExt::from_mode(0o000)).expect("locked");
            std::fs::set_permissions(at("a"), PermissionsExt::from_mode(0o500)).expect("locked");
            removed(&root_of(&tree), b"a");
        });
        assert!(!at("a").exists());
    }

    /// A path that stays must not be processed forever, nor hide later ones: there are more
    /// directories with kept paths than fit in memory.
    #[test]
    fn kept_paths_do_not_prevent_the_removal_of_others() {
        let (directory, tree) = fixture();
        for number in 0..PENDING_NAMES_MAX + 100 {
            std::fs::create_dir_all(directory.path().join(format!("a/{number}/gone")))
                .expect("a directory");
            if number % 5 != 0 {
                std::fs::write(directory.path().join(format!("a/{number}/keep")), b"")
                    .expect("a file");
            }
        }

        let root = root_of(&tree);
        let removed = root
            .remove_tree(b"a", &mut |path, _| path.ends_with(b"keep"))
            .expect("removed");
        assert!(
            matches!(removed.kept, Some((_, KeptNames::Asked))),
            "{removed:?}"
        );

        for number in 0..PENDING_NAMES_MAX + 100 {
            let at = directory.path().join(format!("a/{number}"));
            assert_eq!(at.join("keep").exists(), number % 5 != 0, "{number}");
            assert_eq!(at.exists(), number % 5 != 0, "{number}");
            assert!(!at.join("gone").exists(), "{number}");
        }
    }

    #[test]
    fn protected_paths_are_kept_at_any_depth() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for name in ["a/b/repo/packs", "a/b/other", "a/c"] {
            std::fs::create_dir_all(at(name)).expect("a directory");
        }
        for name in [
            "a/b/repo/config",
            "a/b/other/config",
            "a/c/icecore.toml",
            "icecore.toml",
        ] {
            std::fs::write(at(name), b"x").expect("a file");
        }

        let mut protection = crate::dest::ProtectedDirs::default();
        protection.add(&at("a/b/repo"), "the repository");
        protection.add(&at("a/c/icecore.toml"), "the settings");

        let policy = crate::dest::MetaPolicy::of_this_user(OwnerPolicy::Numeric);
        let tree = DestTree::open_with(
            directory.path(),
            false,
            policy,
            SyncMethod::default(),
            protection.clone(),
        )
        .expect("a target");

        let root = root_of(&tree);

        let removed = root.remove_tree(b"a", &mut |_, _| false).expect("removed");
        assert!(
            matches!(removed.kept, Some((_, KeptNames::InUse(_)))),
            "{removed:?}"
        );
        assert!(at("a/b/repo/packs").exists() && at("a/b/repo/config").exists());
        assert!(at("a/c/icecore.toml").exists() && !at("a/b/other").exists());

        let is_in_use = |result: io::Result<()>| InUse::of(&result.expect_err("refused")).is_some();
        assert!(
            is_in_use(tree.make_directory(&path("a/b/repo")).map(drop)),
            "not entered"
        );
        let below = tree.directory(&path("a/c")).expect("a directory");
        assert!(
            is_in_use(below.remove(b"icecore.toml", false)),
            "not removed"
        );
        let meta = crate::dest::testing::own_meta(0o600);
        let written = below.write_file(
            b"icecore.toml",
            b"other",
            &crate::dest::testing::plain(&meta),
        );
        assert!(is_in_use(written.map(drop)), "not replaced");
        assert_eq!(std::fs::read(at("a/c/icecore.toml")).expect("read"), b"x");
        let written = root.write_file(
            b"icecore.toml",
            b"other",
            &crate::dest::testing::plain(&meta),
        );
        assert!(
            written.is_ok(),
            "another file of that name is not protected"
        );

        for (place, is_refused) in [
            ("a/b/repo", true),
            ("a/b/repo/packs/not/there", true),
            ("a/b", false),
            ("new/place", false),
        ] {
            assert_eq!(
                protection.check_around(&at(place)).is_err(),
                is_refused,
                "{place}"
            );
        }
    }
}
