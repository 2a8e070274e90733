//! The writer of one source's windows: its state, and the directories that it writes to.

use std::io;
use std::sync::Mutex;

use super::job::RestoreJob;
use super::place::TargetRoot;
use super::waiting::WaitingFiles;
use super::window::WindowItem;
use crate::dest::{DestDir, DestTree};
use crate::observe::Subject;
use crate::read::fetch::Fetcher;
use crate::types::RelPath;

/// Writes the windows of one source to its target.
pub(super) struct WindowWriter<'a> {
    pub job: &'a RestoreJob<'a>,
    pub tree: &'a DestTree,
    pub fetcher: Fetcher<'a>,
    /// The source's name and place, to report paths as `SOURCE/PATH`.
    pub source: &'a str,
    pub place: &'a TargetRoot,
    pub sub: RelPath,
    pub waiting: WaitingFiles,
    /// Kept files that turned out to differ and must be written.
    pub differing: Mutex<Vec<WindowItem>>,
}

/// The directory that a thread wrote to last, kept from item to item.
#[derive(Default)]
pub(super) struct LastDir(Option<(Vec<u8>, DestDir)>);

impl WindowWriter<'_> {
    /// Returns the directory that holds a path.
    pub fn dir_of(&self, hand: &mut LastDir, path: &RelPath) -> io::Result<DestDir> {
        let key = path.key();
        let parent = &key[..key.iter().rposition(|&b| b == 0).unwrap_or(0)];
        if let LastDir(Some((held, dir))) = hand
            && held == parent
        {
            return Ok(dir.clone());
        }
        let dir = self.tree.directory(&path.parent().unwrap_or_default())?;
        *hand = LastDir(Some((parent.to_vec(), dir.clone())));
        Ok(dir)
    }

    /// Converts a path of the target to `SOURCE/PATH`, for messages.
    pub fn subject(&self, path: &RelPath) -> Subject {
        Subject::within(self.source, &self.place.source_of(&self.sub, path))
    }
}
