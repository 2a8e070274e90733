//! Classification of the names in a repository's directory: the repository's own, the system's, or
//! foreign.

use std::os::unix::ffi::OsStrExt;

use super::reserve;
use crate::store::{ObjectDir, ObjectKey, Replica};
use crate::sys::{Dir, FileKind, PathError, TEMP_PREFIX};

/// The directories of every repository. Those for parity and quarantine are created when needed.
pub(super) const DIRECTORIES: [ObjectDir; 6] = [
    ObjectDir::Keys,
    ObjectDir::Packs,
    ObjectDir::Index,
    ObjectDir::Snapshots,
    ObjectDir::Forgotten,
    ObjectDir::Leases,
];

/// Names that operating systems, file servers and file managers create in the root of a disk or
/// share.
const OF_THE_SYSTEM: [&str; 18] = [
    "lost+found",
    "System Volume Information",
    "$RECYCLE.BIN",
    "RECYCLER",
    "desktop.ini",
    "Thumbs.db",
    ".DS_Store",
    ".Spotlight-V100",
    ".fseventsd",
    ".Trashes",
    ".TemporaryItems",
    ".directory",
    ".snapshot",
    ".zfs",
    "aquota.user",
    "aquota.group",
    "@eaDir",
    "#recycle",
];

/// Prefixes of such names, followed by a number or a name: a desktop's trash, NFS's files that were
/// removed while open, macOS's second halves of files.
const BEGINNINGS_OF_THE_SYSTEM: [&str; 4] = [".Trash", ".nfs", ".fuse_hidden", "._"];

/// Returns the first name in a directory, in byte order, that prevents creating a repository there.
/// Returns `None` if the directory is empty or contains only names that the system or an
/// interrupted `init` created. If there is a `config`, the directory is a repository and is not
/// checked here; the code that reads `config` decides.
pub(super) fn first_foreign(root: &Dir) -> Result<Option<String>, PathError> {
    let has = |name: &str| {
        root.stat(name)
            .is_ok_and(|stat| stat.kind == FileKind::File)
    };
    if [Replica::First, Replica::Second]
        .iter()
        .any(|copy| has(&ObjectKey::Config(*copy).to_string()))
    {
        return Ok(None);
    }

    let mut foreign: Option<String> = None;
    for name in root.all_names()? {
        let name = name?;
        let is_ours = match name.to_str() {
            Some(name) => is_of_system(name) || is_remains(root, name)?,
            None => false,
        };
        let shown = name.to_string_lossy().into_owned();
        if !is_ours && foreign.as_ref().is_none_or(|first| shown < *first) {
            foreign = Some(shown);
        }
    }
    Ok(foreign)
}

/// Returns true for names that an `init` creates before its `config`: empty directories, key slots,
/// unfinished writes.
fn is_remains(root: &Dir, name: &str) -> Result<bool, PathError> {
    if is_temporary(name) || name == reserve::NAME {
        return Ok(root
            .stat(name)
            .is_ok_and(|stat| stat.kind == FileKind::File));
    }

    let Some(directory) = DIRECTORIES
        .into_iter()
        .find(|directory| directory.name() == name)
    else {
        return Ok(false);
    };
    if !root
        .stat(name)
        .is_ok_and(|stat| stat.kind == FileKind::Directory)
    {
        return Ok(false);
    }

    for inner in root.open_dir(name)?.all_names()? {
        let inner = inner?;
        let is_slot = directory == ObjectDir::Keys
            && inner
                .to_str()
                .is_some_and(|inner| ObjectKey::from_name(directory, inner).is_some());
        if !is_slot {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_of_system(name: &str) -> bool {
    OF_THE_SYSTEM.contains(&name)
        || BEGINNINGS_OF_THE_SYSTEM
            .iter()
            .any(|beginning| name.starts_with(beginning))
}

/// Returns true for a name in a repository's directory that belongs neither to the repository nor
/// to the system.
pub fn is_foreign(name: &[u8]) -> bool {
    let Some(name) = std::ffi::OsStr::from_bytes(name).to_str() else {
        return true;
    };
    let is_config = [Replica::First, Replica::Second]
        .iter()
        .any(|copy| ObjectKey::Config(*copy).to_string() == name);
    let is_directory = ObjectDir::ALL
        .iter()
        .any(|directory| directory.name() == name);
    !(is_config
        || is_directory
        || is_temporary(name)
        || name == reserve::NAME
        || is_of_system(name))
}

/// Returns true for the name of an unfinished write.
pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_prefix(TEMP_PREFIX).is_some_and(|rest| {
        rest.len() == 32 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}
