//! Which names a repository's directory holds by rights, and which are other people's files.

use std::os::unix::ffi::OsStrExt;

use super::{DIRECTORIES, reserve};
use crate::store::{Copy, ObjectDir, ObjectKey};
use crate::sys::{Dir, FileKind, PathError, TEMP_PREFIX};

/// What operating systems, file servers and file managers put into the root of a disk or a share by
/// themselves.
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

/// The same, where a number or a name follows: a desktop's trash, NFS's files that were removed
/// while they were open, macOS's second halves of files.
const BEGINNINGS_OF_THE_SYSTEM: [&str; 4] = [".Trash", ".nfs", ".fuse_hidden", "._"];

/// The first name in a directory, in byte order, that stands against making a repository there;
/// none if the directory is empty, holds only what the system puts there, or what an interrupted
/// `init` left. Where a `config` says that there is a repository nothing is looked at: whoever
/// reads that knows better.
pub(super) fn first_foreign(root: &Dir) -> Result<Option<String>, PathError> {
    let has = |name: &str| {
        root.stat(name)
            .is_ok_and(|stat| stat.kind == FileKind::File)
    };
    if [Copy::First, Copy::Second]
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

/// True for what an `init` makes before its `config`: empty directories, key slots, unfinished
/// writes.
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

/// True for a name in a repository's directory that is neither the repository's nor the system's.
pub fn is_foreign(name: &[u8]) -> bool {
    let Some(name) = std::ffi::OsStr::from_bytes(name).to_str() else {
        return true;
    };
    let is_config = [Copy::First, Copy::Second]
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

/// True for the name of an unfinished write.
pub(super) fn is_temporary(name: &str) -> bool {
    name.strip_prefix(TEMP_PREFIX).is_some_and(|rest| {
        rest.len() == 32 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}
