//! The root of a tree source, its filter, and the digest of the rules by which it is captured.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::Error;
use crate::ops::backup::options::TreeSpec;
use crate::ops::backup::reason::about_mount;
use crate::ops::backup::scan::candidate::TimedStat;
use crate::repo::Repository;
use crate::source::{DirectoryId, FilesFrom, Filter, SourceDir, StatKind};
use crate::sys::{PathContext, PathError, StateDir, now, recorded_path};
use crate::types::{RelPath, to_u64};

/// Increased whenever the capture rules change. The next walk then skips nothing
/// ([R17](docs/protocol.md#r17)).
const RULES_VERSION: u32 = 3;

/// A tree source whose root is open: it exists and can be listed.
pub(in crate::ops::backup) struct OpenTree<'o> {
    pub spec: &'o TreeSpec,
    pub filter: Filter,
    /// Warnings about the filter.
    pub misread: Vec<String>,
    pub root: TreeRoot,
    /// The root, or the single file.
    pub seen: TimedStat,
}

pub(in crate::ops::backup) enum TreeRoot {
    Directory(SourceDir),
    /// The source is a single file: its directory, and its name there.
    Single(SourceDir, Vec<u8>),
}

/// Returns true for paths in which containers keep their files: below the engines' usual
/// directories, and volumes wherever they are. Their owners are user numbers of the containers.
pub(super) fn is_of_containers(path: &Path) -> bool {
    let parts: Vec<&std::ffi::OsStr> = path.iter().collect();
    let is_volume = |window: &[&std::ffi::OsStr]| window[0] == "volumes" && window[2] == "_data";
    ["/var/lib/docker", "/var/lib/containers", "/var/snap/docker"]
        .iter()
        .any(|root| path.starts_with(root))
        || parts.windows(3).any(is_volume)
}

/// Opens a tree's root and compiles its filter. A root that is missing or cannot be listed ends the
/// backup before anything is stored.
pub(in crate::ops::backup) fn open_tree<'o>(
    repo: &Repository,
    spec: &'o TreeSpec,
) -> Result<OpenTree<'o>, Error> {
    let refused = |err: &dyn std::fmt::Display| Error::Source {
        name: spec.name.clone(),
        why: err.to_string(),
    };
    let named = |err: PathError| {
        refused(&format!(
            "{err}: {}{}",
            err.source,
            about_mount(&err.source).unwrap_or_default()
        ))
    };

    let mut options = spec.filter.clone();
    options.never.extend(own_directories(repo));
    let filter = Filter::new(&options)?;
    let mut misread = Vec::new();

    let clock = now();
    let (root, stat) = match SourceDir::open_root(&spec.path) {
        Ok(directory) => {
            let stat = directory
                .stat_self()
                .context("stat", &spec.path)
                .map_err(named)?;
            if filter.is_never(stat.id()) {
                return Err(refused(
                    &"it is the directory of the repository, of the cache or of the state itself",
                ));
            }

            let path = std::path::absolute(&spec.path).unwrap_or_else(|_| spec.path.clone());
            filter.refuse_absolute(&path, |name| directory.stat(name).is_ok())?;
            misread = filter.misread(&spec.name, &path, |name| directory.stat(name).is_ok());
            if let Some(list) = &spec.files_from {
                refuse_absolute_list(list, &path, &directory)?;
            }
            (TreeRoot::Directory(directory), stat)
        }
        Err(err) if err.kind() == std::io::ErrorKind::NotADirectory => {
            // The source may be a single file: open its directory.
            let name = spec
                .path
                .file_name()
                .ok_or_else(|| refused(&"it has no name"))?;
            let above = match spec.path.parent() {
                Some(above) if !above.as_os_str().is_empty() => above,
                _ => Path::new("."),
            };
            let directory = SourceDir::open_root(above).map_err(named)?;
            let name = std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec();
            let stat = directory
                .stat(&name)
                .context("stat", &spec.path)
                .map_err(named)?;
            if stat.kind != StatKind::File {
                let path = spec.path.display();
                let advice = match stat.kind {
                    StatKind::Symlink => {
                        "it is a link to something other than a directory: give its target (readlink -f)"
                    }
                    StatKind::Fifo => {
                        "it is a pipe: give it as standard input, or give the command that writes to it"
                    }
                    _ => "only directories, files, commands and standard input are sources",
                };
                return Err(refused(&format!(
                    "{path} is neither a directory nor a regular file: {advice}"
                )));
            }
            (TreeRoot::Single(directory, name), stat)
        }
        Err(err) => return Err(named(err)),
    };

    Ok(OpenTree {
        spec,
        filter,
        misread,
        root,
        seen: TimedStat { stat, clock },
    })
}

/// Refuses a list of absolute paths, as other programs take them: below the root they match
/// nothing, and the files would be missing from the backup. The list is accepted if the root has an
/// entry with the name of the first component of its own path.
fn refuse_absolute_list(list: &FilesFrom, path: &Path, root: &SourceDir) -> Result<(), Error> {
    let Ok(own) = RelPath::from_slashed(path.as_os_str().as_bytes()) else {
        return Ok(());
    };
    let Some(below) = list.first_below(&own) else {
        return Ok(());
    };
    let first = own
        .key()
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default();
    if root.stat(first).is_ok() {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the list of files has '{own}/{below}', which begins with the source's own path; listed paths begin at the source's root: write '{below}'"
    )))
}

/// Returns the directories of the repository, the cache and the state, which are never captured.
/// They are compared by device and inode, not by path.
fn own_directories(repo: &Repository) -> Vec<DirectoryId> {
    let cache_root = repo.cache_dir().parent().unwrap_or(repo.cache_dir());
    let others = [
        Some(cache_root),
        Some(repo.cache_dir()),
        repo.state().map(StateDir::path),
    ];
    let others = others
        .into_iter()
        .flatten()
        .filter(|path| !path.as_os_str().is_empty());
    let others = others
        .filter_map(|path| SourceDir::open_root(path).ok())
        .map(|directory| directory.id());
    repository_directory(repo)
        .into_iter()
        .chain(others)
        .collect()
}

pub(super) fn repository_directory(repo: &Repository) -> Option<DirectoryId> {
    repo.store().directory().map(|id| DirectoryId {
        device: id.device,
        inode: id.inode,
    })
}

impl OpenTree<'_> {
    /// Returns a digest of everything that decides which paths are captured.
    pub fn digest(&self) -> [u8; 32] {
        let spec = self.spec;
        let path = recorded_path(&spec.path).into_os_string();
        let path = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
        let mut hasher = blake3::Hasher::new();
        for part in [
            format!("icecore capture rules {RULES_VERSION}").as_bytes(),
            path,
            self.filter.digest_text().as_bytes(),
            if spec.immutable {
                b"immutable"
            } else {
                b"mutable"
            },
        ] {
            hasher.update(&to_u64(part.len()).to_le_bytes());
            hasher.update(part);
        }
        if let Some(list) = &spec.files_from {
            hasher.update(b"files from");
            for key in list.keys() {
                hasher.update(&to_u64(key.len()).to_le_bytes());
                hasher.update(key);
            }
        }
        *hasher.finalize().as_bytes()
    }
}
