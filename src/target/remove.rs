//! Removing a folder with all below it, at any depth with one open handle.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, SeekFrom};
use rustix::io::Errno;

use super::dir::{Dir, Existing, component, list, open_writable};
use crate::types::EntryKind;

/// Names of folders still to be removed that are held at once, over all depths; each depth holds at least one.
const PENDING_NAMES_MAX: usize = 512;

/// An open folder under removal, or one above it.
struct Level {
    name: Vec<u8>,
    /// Device and inode, by which the way up is checked.
    identity: (u64, u64),
    /// Folders in it that were seen and are still there.
    pending: Vec<Vec<u8>>,
    /// The listing was cut short.
    has_more: bool,
}

impl Dir {
    /// Removes a folder and all below it, or whatever else has the name. Links are removed, never followed. What a
    /// crash leaves is a part of the tree.
    ///
    /// # Errors
    ///
    /// Stops at the first thing that cannot be removed. `EXDEV` at a mount point: what is mounted is not ours. If
    /// another process moves a folder from under the removal, that is an error too, and nothing outside is touched.
    pub fn remove_tree(&self, name: &[u8]) -> io::Result<()> {
        let name = component(name)?;
        let mut current = match self.open_to_remove(self.fd(), name) {
            Err(Errno::NOTDIR | Errno::LOOP) => return self.remove(name, false),
            result => result?,
        };
        self.changed();
        let mut pending_total = 0;
        let mut levels = vec![enter(name.to_vec(), &current, &mut pending_total)?];
        while let Some(level) = levels.last_mut() {
            if let Some(child) = level.pending.pop() {
                pending_total -= 1;
                match self.open_to_remove(current.as_fd(), &child) {
                    Ok(fd) => {
                        current = fd;
                        levels.push(enter(child, &current, &mut pending_total)?);
                    }
                    Err(Errno::NOENT) => {}
                    Err(Errno::NOTDIR | Errno::LOOP) => unlink(current.as_fd(), &child)?,
                    Err(errno) => return Err(errno.into()),
                }
            } else if level.has_more {
                rustix::fs::seek(&current, SeekFrom::Start(0))?;
                fill(level, current.as_fd(), &mut pending_total)?;
            } else {
                let Some(done) = levels.pop() else { break };
                match levels.last() {
                    None => remove_empty(self.fd(), &done.name)?,
                    Some(above) => {
                        current = open_parent(&current, above.identity)?;
                        remove_empty(current.as_fd(), &done.name)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn open_to_remove(&self, folder: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
        open_writable(self.shared(), folder, name, ResolveFlags::NO_XDEV)
    }
}

fn enter(name: Vec<u8>, folder: &OwnedFd, pending_total: &mut usize) -> io::Result<Level> {
    let found = Existing::of_handle(folder.as_fd())?;
    let identity = (found.device, found.inode);
    let mut level = Level { name, identity, pending: Vec::new(), has_more: false };
    fill(&mut level, folder.as_fd(), pending_total)?;
    Ok(level)
}

/// Removes all that is no folder and notes folders, until there are too many of these.
fn fill(level: &mut Level, folder: BorrowedFd<'_>, pending_total: &mut usize) -> io::Result<()> {
    level.has_more = false;
    list(folder, |name, kind| {
        if kind != Some(EntryKind::Folder) {
            unlink(folder, name)?;
            return Ok(true);
        }
        level.pending.push(name.to_vec());
        *pending_total += 1;
        level.has_more = *pending_total >= PENDING_NAMES_MAX;
        Ok(!level.has_more)
    })
}

fn unlink(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn remove_empty(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens the folder above, which must be the one that was come from.
fn open_parent(folder: &OwnedFd, identity: (u64, u64)) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(folder, c"..", flags, Mode::empty())?;
    let found = Existing::of_handle(fd.as_fd())?;
    if (found.device, found.inode) != identity {
        return Err(io::Error::other("another process moved a folder while it was removed"));
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::target::testing::{as_ordinary_user, errno, fixture, names, open, path, root_of};
    use crate::target::{OwnerPolicy, Tree};

    #[test]
    fn all_below_goes_and_links_are_not_followed() {
        let (folder, tree) = fixture();
        let outside = tempfile::tempdir().expect("a folder outside");
        std::fs::write(outside.path().join("keep"), b"x").expect("a file");
        tree.make_folder(&path("a")).expect("a folder");
        tree.make_folder(&path("a/b")).expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a/f"), b"").expect("a file");
        symlink(outside.path(), at("a/out")).expect("a link");
        symlink(outside.path(), at("a/b/out")).expect("a link");
        symlink(outside.path(), at("top")).expect("a link");
        let root = root_of(&tree);
        root.remove_tree(b"a").expect("removed");
        root.remove_tree(b"top").expect("removed");
        assert!(names(&root).is_empty());
        assert!(outside.path().join("keep").exists());
        assert_eq!(errno(root.remove_tree(b"a")), Some(Errno::NOENT));
    }

    #[test]
    fn more_folders_than_are_noted_at_once() {
        let (folder, tree) = fixture();
        for top in 0..3 {
            for number in 0..PENDING_NAMES_MAX / 2 {
                std::fs::create_dir_all(folder.path().join(format!("a/{top}/{number}"))).expect("a folder");
            }
        }
        root_of(&tree).remove_tree(b"a").expect("removed");
        assert!(names(&root_of(&tree)).is_empty());
    }

    #[test]
    fn the_way_up_is_checked() {
        let (folder, tree) = fixture();
        tree.make_folder(&path("a")).expect("a folder");
        let (below, _) = tree.make_folder(&path("a/b")).expect("a folder");
        let above = tree.folder(&path("a")).expect("a folder").stat_self().expect("stat");
        let fd = rustix::io::dup(below.fd()).expect("a handle");
        assert!(open_parent(&fd, (above.device, above.inode)).is_ok());
        std::fs::rename(folder.path().join("a/b"), folder.path().join("b")).expect("a move");
        assert!(open_parent(&fd, (above.device, above.inode)).is_err());
    }

    #[test]
    fn an_ordinary_users_locked_folders_can_be_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("open to all");
        as_ordinary_user(|| {
            let tree: Tree = open(folder.path(), OwnerPolicy::Numeric);
            tree.make_folder(&path("a")).expect("a folder");
            tree.make_folder(&path("a/b")).expect("a folder");
            std::fs::write(at("a/b/f"), b"").expect("a file");
            std::fs::set_permissions(at("a/b"), PermissionsExt::from_mode(0o000)).expect("locked");
            std::fs::set_permissions(at("a"), PermissionsExt::from_mode(0o500)).expect("locked");
            root_of(&tree).remove_tree(b"a").expect("removed");
        });
        assert!(!at("a").exists());
    }
}
