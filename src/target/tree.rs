//! The root of a target and the way from it to any folder below.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::dir::{Dir, Shared, open_beneath, open_writable};
use super::meta::Rules;
use super::owner::{MetaPolicy, Owners};
use crate::sys::{PathContext, PathError};
use crate::types::RelPath;

/// Open folders kept at hand.
const CACHED_FOLDERS_MAX: usize = 64;
/// Bytes of a path given to the kernel at once; it takes 4,096 with the NUL.
const PATH_STEP_BYTES_MAX: usize = 4000;

/// An open target; shared by threads.
#[derive(Debug)]
pub struct Tree {
    root: Dir,
    /// Path key and handle, the last used at the end.
    cached: Mutex<Vec<(Vec<u8>, Dir)>>,
}

impl Tree {
    /// Opens the folder that all is written below. Links in `root` itself are followed: it is the user's word.
    /// With `create`, missing folders on the way are made, mode 0700.
    ///
    /// # Errors
    ///
    /// `Unsupported` where the kernel, or a sandbox around us, does not offer `openat2`.
    pub fn open(root: &Path, create: bool, policy: MetaPolicy) -> Result<Self, PathError> {
        if create {
            make_all(root)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(root, flags, Mode::empty()).context("open the target", root)?;
        match open_beneath(fd.as_fd(), b".", flags, ResolveFlags::empty()) {
            // EPERM is what older container runtimes answer to calls that they do not know.
            Err(Errno::NOSYS | Errno::PERM) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the system call openat2 is not offered: Linux 5.6 or later is needed, or a container runtime that lets it through",
            )),
            Err(errno) => Err(errno.into()),
            Ok(_) => Ok(()),
        }
        .context("open the target safely", root)?;
        let shared = Shared {
            rules: Rules { policy, owners: Owners::load(policy.owner) },
            euid: rustix::process::geteuid().as_raw(),
            temp_seed: getrandom::u64()
                .map_err(|error| io::Error::other(error.to_string()))
                .context("choose temporary names in", root)?,
            temp_count: AtomicU64::new(0),
        };
        Ok(Self { root: Dir::new(fd, Arc::new(shared)), cached: Mutex::new(Vec::new()) })
    }

    /// Opens a folder that is there.
    ///
    /// # Errors
    ///
    /// `ELOOP` if any component is a link, `ENOTDIR` or `ENOENT` as usual. Never leads outside the root.
    pub fn folder(&self, path: &RelPath) -> io::Result<Dir> {
        let (mut folder, mut done) = self.deepest_cached(path);
        let key = path.key();
        while done < key.len() {
            let rest = &key[done..];
            let step = step_len(rest);
            let slashed: Vec<u8> = rest[..step].iter().map(|&b| if b == 0 { b'/' } else { b }).collect();
            let fd = open_writable(folder.shared(), folder.fd(), &slashed, ResolveFlags::empty())?;
            folder = Dir::new(fd, Arc::clone(self.root.shared()));
            done += step;
            self.remember(&key[..done], &folder);
            // The separator.
            done += 1;
        }
        Ok(folder)
    }

    /// [`Dir::make_folder`] by path; the folder above must be there. The root is there always.
    pub fn make_folder(&self, path: &RelPath) -> io::Result<(Dir, bool)> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Ok((self.root.clone(), false));
        };
        let (folder, is_new) = self.folder(&parent)?.make_folder(name)?;
        self.remember(path.key(), &folder);
        Ok((folder, is_new))
    }

    /// Makes all that was written durable: `syncfs` of the root's file system.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(self.root.fd())?)
    }

    /// The deepest open folder on the way to `path`, and how many bytes of its key (with the separator) lead there.
    fn deepest_cached(&self, path: &RelPath) -> (Dir, usize) {
        let key = path.key();
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let leads =
                |known: &[u8]| key.starts_with(known) && matches!(key.get(known.len()), None | Some(0));
            let found = cached
                .iter()
                .enumerate()
                .filter(|(_, (known, _))| leads(known))
                .max_by_key(|(_, (known, _))| known.len())
                .map(|(at, _)| at);
            let Some(at) = found else { return (self.root.clone(), 0) };
            let (known, folder) = cached.remove(at);
            // A folder that was removed meanwhile has no name left; another may have been made in its place.
            if folder.stat_self().is_ok_and(|found| found.nlink > 0) {
                let done = known.len() + 1;
                cached.push((known, folder.clone()));
                return (folder, done);
            }
        }
    }

    fn remember(&self, key: &[u8], folder: &Dir) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        cached.retain(|(known, _)| known != key);
        if cached.len() >= CACHED_FOLDERS_MAX {
            cached.remove(0);
        }
        cached.push((key.to_vec(), folder.clone()));
    }
}

/// How many bytes of a path's key to resolve in one call: whole components, at least one.
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

/// Makes a folder and those above it that are missing.
fn make_all(path: &Path) -> Result<(), PathError> {
    let mut sofar = PathBuf::new();
    for part in path.components() {
        sofar.push(part);
        if matches!(part, Component::Normal(_)) {
            match rustix::fs::mkdir(sofar.as_os_str().as_bytes(), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                // Part of a read-only or foreign tree that is there: whether it is all there, opening it tells.
                Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) if sofar != path => {}
                Err(errno) => return Err(errno).context("create the target folder", &sofar),
            }
        }
    }
    Ok(())
}
