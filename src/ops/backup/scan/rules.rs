//! The rules of a walk: which paths of a tree are captured, and which are looked at again.

use super::candidate::TimedStat;
use super::committed::CommittedCapture;
use crate::dest::is_temporary_name;
use crate::source::{
    CACHE_TAG_NAME, DirectoryId, FilesFrom, Filter, ListedName, SourceDir, SourceStat, StatKind,
    WantedPath,
};
use crate::store::is_foreign;
use crate::types::{MissingNames, RelPath, to_u64};

/// The options by which the scan decides about each path.
pub(in crate::ops::backup) struct ScanRules<'a> {
    pub filter: &'a Filter,
    pub files_from: Option<&'a FilesFrom>,
    /// The source is immutable: see [R19](docs/protocol.md#r19).
    pub immutable: bool,
    /// Every entry is looked at before it is carried over, and no directory is skipped.
    pub no_skip: bool,
    pub force: bool,
    pub ignore_ctime: bool,
    pub ignore_inode: bool,
    pub root: SourceStat,
}

/// The inputs of one walk.
pub(in crate::ops::backup) struct ScanInputs<'a> {
    pub rules: ScanRules<'a>,
    /// The root of the source.
    pub root: TimedStat,
    /// The repository's own directory, if it is on this machine.
    pub repository: Option<DirectoryId>,
    /// There is a previous snapshot, but it cannot be read, so its entries are not known.
    pub previous_unreadable: bool,
    /// The capture by which a source is judged that has suddenly become empty.
    pub committed: CommittedCapture<'a>,
    pub scratch: &'a std::path::Path,
    pub listing_bytes: usize,
}

/// Names of the repository's directory in memory at a time.
const NAMES_AT_ONCE: usize = 1024;

/// Returns true for a file that a restore is writing in this directory, or that a killed restore
/// has left there. It is never part of a backup.
pub(super) fn is_leftover(name: &ListedName) -> bool {
    is_temporary_name(&name.name) && name.kind_hint != Some(StatKind::Directory)
}

impl ScanInputs<'_> {
    /// Returns the names in a directory that are left out with the repository although they do not
    /// belong to it: their number, and the first one. `None` if this is not the repository's
    /// directory, or if there are no such names.
    ///
    /// # Errors
    /// The directory cannot be opened or listed.
    pub fn beside_repository(
        &self,
        above: &SourceDir,
        name: &[u8],
        stat: &SourceStat,
    ) -> std::io::Result<Option<(u64, Vec<u8>)>> {
        if Some(stat.id()) != self.repository {
            return Ok(None);
        }
        let mut names = above
            .open_child(name)?
            .list(self.scratch, self.listing_bytes)?;
        let mut count = 0;
        let mut first = None;
        let mut batch = Vec::new();
        while names.next_batch(&mut batch, NAMES_AT_ONCE)? > 0 {
            let mut foreign = batch.drain(..).filter(|name| is_foreign(&name.name));
            if let Some(name) = foreign.next() {
                count += 1 + to_u64(foreign.count());
                first.get_or_insert(name.name);
            }
        }
        Ok(first.map(|first| (count, first)))
    }
}

impl ScanRules<'_> {
    /// Returns why a name is not captured, or `None` if it is.
    pub fn left_out(
        &self,
        directory: &RelPath,
        name: &ListedName,
        only_tag: bool,
    ) -> Option<MissingNames> {
        if only_tag && name.name != CACHE_TAG_NAME {
            return Some(MissingNames::Excluded);
        }
        if is_leftover(name) {
            return Some(MissingNames::Excluded);
        }

        // A path that cannot be joined is reported later.
        let Ok(path) = directory.join(&name.name) else {
            return None;
        };

        let is_directory = name.kind_hint == Some(StatKind::Directory);
        let is_wanted = self
            .files_from
            .is_none_or(|list| list.wanted(&path) != WantedPath::No);
        if !is_wanted {
            return Some(MissingNames::Excluded);
        }
        self.filter
            .excludes(&path, is_directory)
            .then_some(MissingNames::Excluded)
    }
}
