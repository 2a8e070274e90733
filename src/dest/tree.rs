//! The root of a target, and access to any directory below it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::dir::{DestDir, DestShared, open_writable};
use super::durable::{SyncMethod, WrittenTo};
use super::meta::{MetadataHandle, MetadataRules};
use super::owner::{LocalOwners, MetaPolicy};
use super::protect::ProtectedDirs;
use crate::sys::open_beneath;
use crate::sys::{PathContext, PathError};
use crate::types::RelPath;

/// Limit of the open directories in the cache.
const CACHED_DIRECTORIES_MAX: usize = 64;
/// Bytes of a path resolved in one call; the kernel's limit is 4,096 with the NUL.
const PATH_STEP_BYTES_MAX: usize = 4000;

/// An open target, shared by threads.
#[derive(Debug)]
pub struct DestTree {
    root: DestDir,
    /// Path key and handle, the last used at the end.
    cached: Mutex<Vec<(Vec<u8>, DestDir)>>,
    /// Opening the tree made the root.
    is_made: bool,
    /// Directories outside of the tree in which a directory above the root was made, until they are
    /// synced.
    above: Mutex<Vec<DestDir>>,
}

impl DestTree {
    /// Opens the root directory. Links in `root` itself are followed, because the user chose the
    /// path. With `create`, missing directories are made with mode 0700.
    ///
    /// # Errors
    ///
    /// `Unsupported` if the kernel or a sandbox does not offer `openat2`.
    pub fn open(root: &Path, create: bool, policy: MetaPolicy) -> Result<Self, PathError> {
        Self::open_with(
            root,
            create,
            policy,
            SyncMethod::Full,
            ProtectedDirs::default(),
        )
    }

    /// Opens the root directory like [`DestTree::open`], with a choice of durability and protection.
    /// Nothing protected below the root is entered, replaced or removed ([`super::InUse`]). The
    /// caller checks first whether the root itself is inside something protected
    /// ([`ProtectedDirs::check_around`]).
    pub fn open_with(
        root: &Path,
        create: bool,
        policy: MetaPolicy,
        durability: SyncMethod,
        protection: ProtectedDirs,
    ) -> Result<Self, PathError> {
        // Open the root, and check that openat2 works.
        let made = if create { make_all(root)? } else { Vec::new() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(root, flags, Mode::empty()).context("open the target", root)?;
        match open_beneath(fd.as_fd(), b".", flags, ResolveFlags::empty()) {
            // Older container runtimes return EPERM for calls that they do not know.
            Err(Errno::NOSYS | Errno::PERM) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the system call openat2 is not available: Linux 5.6 or later is needed, or a container runtime that allows it",
            )),
            Err(errno) => Err(errno.into()),
            Ok(_) => Ok(()),
        }
        .context("open the target safely", root)?;

        let shared = DestShared {
            rules: MetadataRules {
                policy,
                owners: LocalOwners::load(policy.owner),
            },
            euid: rustix::process::geteuid().as_raw(),
            temp_seed: getrandom::u64()
                .map_err(|error| io::Error::other(error.to_string()))
                .context("choose temporary names in", root)?,
            temp_count: AtomicU64::new(0),
            writes: WrittenTo::new(durability),
            protection,
        };
        let shared = Arc::new(shared);

        // New directories must be synced through the directories above them.
        let mut above = Vec::new();
        for path in &made {
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let fd = rustix::fs::open(parent, flags, Mode::empty()).context("open", parent)?;
            let dir = DestDir::new(fd, Arc::clone(&shared));
            dir.changed();
            above.push(dir);
        }

        Ok(Self {
            root: DestDir::new(fd, shared),
            cached: Mutex::new(Vec::new()),
            is_made: !made.is_empty(),
            above: Mutex::new(above),
        })
    }

    /// Opens an existing directory. Never leads outside the root.
    ///
    /// # Errors
    ///
    /// `ELOOP` if any component is a link, `ENOTDIR` or `ENOENT` as usual.
    pub fn directory(&self, path: &RelPath) -> io::Result<DestDir> {
        let (mut directory, mut done) = self.deepest_cached(path);
        let key = path.key();
        while done < key.len() {
            let rest = &key[done..];
            // An ordinary user may have to unlock each directory, so resolve one component at a
            // time.
            let is_root = directory.rules().policy.is_root;
            let step = if is_root {
                step_len(rest)
            } else {
                first_len(rest)
            };

            let slashed: Vec<u8> = rest[..step]
                .iter()
                .map(|&b| if b == 0 { b'/' } else { b })
                .collect();
            let fd = open_writable(
                directory.shared(),
                directory.fd(),
                &slashed,
                ResolveFlags::empty(),
            )?;

            directory = DestDir::new(fd, Arc::clone(self.root.shared()));
            done += step;
            self.remember(&key[..done], &directory);
            // The separator.
            done += 1;
        }
        Ok(directory)
    }

    /// Makes a directory by path, like [`DestDir::make_directory`]; the directory above must exist. The
    /// root always exists, and counts as made if opening the tree has made it.
    pub fn make_directory(&self, path: &RelPath) -> io::Result<(DestDir, bool)> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Ok((self.root.clone(), self.is_made));
        };
        let (directory, is_new) = self.directory(&parent)?.make_directory(name)?;
        self.remember(path.key(), &directory);
        Ok((directory, is_new))
    }

    /// Makes the root writable for an ordinary user that owns it, as for every directory below it.
    /// Returns the previous mode if it was changed; restore it if nothing else sets the mode.
    pub fn unlock_root(&self) -> io::Result<Option<u16>> {
        let found = self.root.stat_self()?;
        let shared = self.root.shared();
        if shared.rules.policy.is_root || found.uid != shared.euid || found.mode & 0o700 == 0o700 {
            return Ok(None);
        }
        self.set_root_mode(found.mode | 0o700)?;
        Ok(Some(found.mode))
    }

    /// Sets the root's permission bits.
    pub fn set_root_mode(&self, mode: u16) -> io::Result<()> {
        MetadataHandle::open(self.root.fd()).chmod(mode)?;
        self.root.changed();
        Ok(())
    }

    /// Returns true if the restoring user is root.
    pub fn is_roots(&self) -> bool {
        self.root.rules().policy.is_root
    }

    /// Makes everything written through this tree durable, on every file system below its root. The
    /// caller must drop other handles to directories first.
    ///
    /// # Errors
    ///
    /// A write failed, now or in the background: data written since the last call may be lost in a
    /// crash.
    pub fn sync(&self) -> io::Result<()> {
        // Dropped handles sync their directories where directories are synced individually.
        self.cached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.above
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.root.sync_names();
        self.root.shared().writes.sync()
    }

    /// Makes the content of files written through this tree durable, but not their names.
    ///
    /// # Errors
    ///
    /// As [`sync`](Self::sync).
    pub fn sync_files(&self) -> io::Result<()> {
        self.root.shared().writes.sync()
    }

    /// Makes everything durable like [`sync`](Self::sync), and syncs the root's file system even if
    /// nothing was written: a kept file may not be durable yet.
    pub fn sync_all(&self) -> io::Result<()> {
        self.root.changed();
        self.sync()
    }

    /// Returns the deepest cached directory above `path`, and the number of bytes of its key,
    /// including the separator, that lead there.
    fn deepest_cached(&self, path: &RelPath) -> (DestDir, usize) {
        let key = path.key();
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let leads = |known: &[u8]| {
                key.starts_with(known) && matches!(key.get(known.len()), None | Some(0))
            };
            let found = cached
                .iter()
                .enumerate()
                .filter(|(_, (known, _))| leads(known))
                .max_by_key(|(_, (known, _))| known.len())
                .map(|(at, _)| at);
            let Some(at) = found else {
                return (self.root.clone(), 0);
            };
            let (known, directory) = cached.remove(at);
            // A directory that was removed in the meantime has no name left, and another one may
            // have its path.
            if directory.stat_self().is_ok_and(|found| found.nlink > 0) {
                let done = known.len() + 1;
                cached.push((known, directory.clone()));
                return (directory, done);
            }
        }
    }

    fn remember(&self, key: &[u8], directory: &DestDir) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.retain(|(known, _)| known != key);
        if cached.len() >= CACHED_DIRECTORIES_MAX {
            cached.remove(0);
        }
        cached.push((key.to_vec(), directory.clone()));
    }
}

/// Returns the length of the first component in bytes.
fn first_len(rest: &[u8]) -> usize {
    rest.iter().position(|&b| b == 0).unwrap_or(rest.len())
}

/// Returns the number of bytes of a path's key to resolve in one call: whole components, at least
/// one.
fn step_len(rest: &[u8]) -> usize {
    if rest.len() <= PATH_STEP_BYTES_MAX {
        return rest.len();
    }
    let is_separator = |&at: &usize| rest[at] == 0;
    (1..PATH_STEP_BYTES_MAX)
        .rev()
        .find(is_separator)
        .or_else(|| (PATH_STEP_BYTES_MAX..rest.len()).find(is_separator))
        .unwrap_or(rest.len())
}

/// Makes a directory and the missing ones above it; returns those that were made.
fn make_all(path: &Path) -> Result<Vec<PathBuf>, PathError> {
    let mut sofar = PathBuf::new();
    let mut made = Vec::new();
    for part in path.components() {
        sofar.push(part);
        if matches!(part, Component::Normal(_)) {
            match rustix::fs::mkdir(sofar.as_os_str().as_bytes(), Mode::RWXU) {
                Ok(()) => made.push(sofar.clone()),
                Err(Errno::EXIST) => {}
                // Part of a read-only or foreign tree that exists. If it does not, opening it
                // fails.
                Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) if sofar != path => {}
                Err(errno) => return Err(errno).context("create the target directory", &sofar),
            }
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::dest::OwnerPolicy;
    use crate::dest::testing::{errno, fixture, names, own_meta, path, plain, removed, root_of};

    /// A hostile repository holds the link `a -> /etc` and then `a/passwd`.
    #[test]
    fn a_link_that_was_restored_is_not_written_through() {
        let (_directory, tree) = fixture();
        let outside = tempfile::tempdir().expect("a directory outside");
        let meta = own_meta(0o777);
        let target = outside.path().as_os_str().as_bytes();
        let _ = root_of(&tree)
            .symlink(b"a", target, &plain(&meta))
            .expect("a link");
        assert_eq!(errno(tree.directory(&path("a"))), Some(Errno::LOOP));
        assert_eq!(errno(tree.directory(&path("a/b"))), Some(Errno::LOOP));
        let error = tree
            .make_directory(&path("a"))
            .expect_err("a link in the way");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(errno(tree.make_directory(&path("a/b"))), Some(Errno::LOOP));
        // A link that stays inside is refused too.
        let _ = root_of(&tree)
            .symlink(b"here", b".", &plain(&meta))
            .expect("a link");
        assert_eq!(errno(tree.directory(&path("here"))), Some(Errno::LOOP));
        assert_eq!(outside.path().read_dir().expect("a listing").count(), 0);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let (_directory, tree) = fixture();
        let root = root_of(&tree);
        let meta = own_meta(0o600);
        for name in [
            b"..".as_slice(),
            b".",
            b"",
            b"a/b",
            b"/etc/x",
            b"../x",
            b"a\0b",
        ] {
            let kind = |result: io::Result<()>| result.expect_err("refused").kind();
            assert_eq!(
                kind(root.make_directory(name).map(drop)),
                io::ErrorKind::InvalidInput
            );
            assert_eq!(
                kind(root.open_directory(name).map(drop)),
                io::ErrorKind::InvalidInput
            );
            assert_eq!(
                kind(root.write_file(name, b"x", &plain(&meta)).map(drop)),
                io::ErrorKind::InvalidInput
            );
            assert_eq!(
                kind(root.symlink(name, b"x", &plain(&meta)).map(drop)),
                io::ErrorKind::InvalidInput
            );
            assert_eq!(
                kind(root.hard_link(name, &root, b"x")),
                io::ErrorKind::InvalidInput
            );
            assert_eq!(
                kind(root.hard_link(b"x", &root, name)),
                io::ErrorKind::InvalidInput
            );
            assert_eq!(kind(root.remove(name, false)), io::ErrorKind::InvalidInput);
            assert_eq!(
                kind(root.remove_tree(name, &mut |_, _| false).map(drop)),
                io::ErrorKind::InvalidInput
            );
            assert_eq!(kind(root.stat(name).map(drop)), io::ErrorKind::InvalidInput);
        }
        assert!(names(&root).is_empty());
    }

    #[test]
    fn a_directory_swapped_for_a_link_does_not_lead_outside() {
        let (directory, tree) = fixture();
        let outside = tempfile::tempdir().expect("a directory outside");
        std::fs::create_dir(outside.path().join("b")).expect("a directory");
        tree.make_directory(&path("a")).expect("a directory");
        let (below, _) = tree.make_directory(&path("a/b")).expect("a directory");
        std::fs::rename(directory.path().join("a"), directory.path().join("moved"))
            .expect("a move");
        symlink(outside.path(), directory.path().join("a")).expect("a link");
        // An open handle stays on the directory that was opened.
        let _ = below
            .write_file(b"f", b"x", &plain(&own_meta(0o600)))
            .expect("a file");
        assert!(directory.path().join("moved/b/f").exists());
        // A directory that is not open is refused.
        let fresh = crate::dest::testing::open(directory.path(), OwnerPolicy::Numeric);
        assert_eq!(errno(fresh.directory(&path("a/b"))), Some(Errno::LOOP));
        assert_eq!(
            outside
                .path()
                .join("b")
                .read_dir()
                .expect("a listing")
                .count(),
            0
        );
    }

    #[test]
    fn a_root_behind_a_link_is_the_users_choice() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("real")).expect("a directory");
        symlink("real", directory.path().join("link")).expect("a link");
        let tree =
            crate::dest::testing::open(&directory.path().join("link/new/er"), OwnerPolicy::Keep);
        tree.make_directory(&path("x")).expect("a directory");
        let made = std::fs::metadata(directory.path().join("real/new")).expect("made on the way");
        assert_eq!(made.permissions().mode() & 0o7777, 0o700);
        assert!(directory.path().join("real/new/er/x").is_dir());
        let policy = MetaPolicy::of_this_user(OwnerPolicy::Keep);
        let error =
            DestTree::open(&directory.path().join("absent"), false, policy).expect_err("not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        std::fs::write(directory.path().join("file"), b"").expect("a file");
        assert!(DestTree::open(&directory.path().join("file"), true, policy).is_err());
    }

    #[test]
    fn a_removed_directory_is_not_written_to_from_memory() {
        let (directory, tree) = fixture();
        let (old, _) = tree.make_directory(&path("a")).expect("a directory");
        tree.make_directory(&path("a/b")).expect("a directory");
        removed(&root_of(&tree), b"a");
        assert_eq!(errno(tree.directory(&path("a/b"))), Some(Errno::NOENT));
        let (new, is_new) = tree.make_directory(&path("a")).expect("a directory");
        assert!(is_new && new.stat_self().expect("stat").nlink > 0);
        assert_eq!(old.stat_self().expect("stat").nlink, 0);
        let inode = std::fs::metadata(directory.path().join("a"))
            .expect("stat")
            .ino();
        assert_eq!(
            tree.directory(&path("a"))
                .expect("a directory")
                .stat_self()
                .expect("stat")
                .inode,
            inode
        );
    }

    #[test]
    fn any_depth_is_reached_and_removed() {
        let (_directory, tree) = fixture();
        // 300 levels of short names, and 250 levels of long ones: 60 KB, fifteen times the limit of
        // one call.
        for (levels, name) in [(300, "d".to_owned()), (250, "n".repeat(240))] {
            let mut deep = RelPath::root();
            for _ in 0..levels {
                deep = deep.join(name.as_bytes()).expect("a path");
                assert!(tree.make_directory(&deep).expect("a directory").1);
            }
            let file = tree.directory(&deep).expect("the deepest");
            let _ = file
                .write_file(b"f", b"x", &plain(&own_meta(0o600)))
                .expect("a file");
            // Without any cached handle.
            tree.cached.lock().expect("the cache").clear();
            assert_eq!(names(&tree.directory(&deep).expect("the deepest")), [b"f"]);
            removed(&root_of(&tree), name.as_bytes());
            assert!(names(&root_of(&tree)).is_empty());
        }
    }

    #[test]
    fn steps_are_whole_components_short_enough_for_the_kernel() {
        assert_eq!(step_len(b"a\0b"), 3);
        let long = [vec![b'x'; 3000], vec![b'y'; 3000], vec![b'z'; 10]].join(&0);
        assert_eq!(step_len(&long), 3000);
        // A component too long for any file system is passed to the kernel whole, for its error.
        let longest = [vec![b'x'; 4095], vec![b'y'; 10]].join(&0);
        assert_eq!(step_len(&longest), 4095);
        let (_directory, tree) = fixture();
        let path = RelPath::from_key(longest).expect("a path of the format");
        assert_eq!(errno(tree.directory(&path)), Some(Errno::NAMETOOLONG));
    }

    #[test]
    fn few_handles_are_kept() {
        let (_directory, tree) = fixture();
        for number in 0..CACHED_DIRECTORIES_MAX + 10 {
            tree.make_directory(&path(&format!("d{number}")))
                .expect("a directory");
        }
        assert_eq!(
            tree.cached.lock().expect("the cache").len(),
            CACHED_DIRECTORIES_MAX
        );
    }
}
