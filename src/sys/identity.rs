//! Identity and attributes of a file, from `stat`.

use std::path::Path;

use rustix::fs::{FileType, Stat};

use crate::sys::{PathContext, PathError};
use crate::types::Timestamp;

/// Identifies an inode: equal for all its names, links and mounts. After a removal another file may
/// get the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Other,
}

impl FileKind {
    pub(super) fn of(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Symlink,
            _ => Self::Other,
        }
    }
}

/// The fields of a file's `stat` that stores need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    pub id: FileId,
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    pub modified: Timestamp,
    /// The 12 permission bits.
    pub mode: u32,
    /// The owner's number.
    pub owner: u32,
    /// Number of names; 0 for an open file that was removed.
    pub links: u64,
}

impl From<Stat> for FileStat {
    fn from(stat: Stat) -> Self {
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Self {
            id: FileId {
                device: stat.st_dev,
                inode: stat.st_ino,
            },
            kind: FileKind::of(FileType::from_raw_mode(stat.st_mode)),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: Timestamp::new(stat.st_mtime, nanos)
                .unwrap_or(Timestamp::from_seconds(stat.st_mtime)),
            mode: stat.st_mode & 0o7777,
            owner: stat.st_uid,
            links: stat.st_nlink,
        }
    }
}

/// Returns the identity of the file that `path` leads to, following symlinks.
pub fn file_id(path: impl AsRef<Path>) -> Result<FileId, PathError> {
    let path = path.as_ref();
    Ok(FileStat::from(rustix::fs::stat(path).context("stat", path)?).id)
}
