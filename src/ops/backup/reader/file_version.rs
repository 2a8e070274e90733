//! A file as one stat describes it, and the content that was read under one of its names.

use std::collections::HashMap;
use std::sync::Mutex;

use super::content::CutError;
use super::job::FileJob;
use crate::source::{SourceFile, SourceStat};
use crate::sys::now;
use crate::types::Content;

/// A file as one stat describes it.
#[derive(Clone, Copy)]
pub(in crate::ops::backup) struct FileVersion {
    pub(super) stat: SourceStat,
    pub(super) is_racy: bool,
}

/// The content of a file that has other names.
#[derive(Clone)]
pub(in crate::ops::backup) struct LinkedFile {
    pub(super) version: FileVersion,
    pub(super) content: Content,
}

/// The content of files that have other names, by device and inode.
pub(in crate::ops::backup) type Links = Mutex<HashMap<(u64, u64), LinkedFile>>;

/// Returns the file's current stat and whether it is racy.
pub(super) fn version(file: &SourceFile, job: &FileJob) -> Result<FileVersion, CutError> {
    let clock = now();
    let stat = file.stat().map_err(CutError::Read)?;
    Ok(FileVersion {
        stat,
        is_racy: stat.is_racy(clock, job.window_seconds),
    })
}

/// Returns true if two stats describe the same version of a file's content.
pub(super) fn is_same_version(a: &SourceStat, b: &SourceStat) -> bool {
    (a.size, a.mtime, a.ctime, a.inode, a.device) == (b.size, b.mtime, b.ctime, b.inode, b.device)
}
