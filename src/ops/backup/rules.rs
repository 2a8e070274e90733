//! The rules of a walk: what of a tree is captured, and what is looked at again.

use crate::source::{
    CACHE_TAG_NAME, DirectoryId, FilesFrom, Filter, Kind, ListedName, SourceDir, Stat, Wanted,
};
use crate::store::is_foreign;
use crate::target::is_temporary_name;
use crate::types::{MissingNames, RelPath, Timestamp};

/// What decides how a tree is walked.
pub(super) struct WalkRules<'a> {
    pub filter: &'a Filter,
    /// The repository's own directory, where it is one of this machine.
    pub repository: Option<DirectoryId>,
    pub files_from: Option<&'a FilesFrom>,
    /// Nothing is carried over without a look at it, and nothing is skipped.
    pub no_skip: bool,
    /// There is a parent and it cannot be read: what was there is not known.
    pub parent_unreadable: bool,
    pub force: bool,
    pub ignore_ctime: bool,
    pub ignore_inode: bool,
    pub scratch: &'a std::path::Path,
    pub listing_bytes: usize,
    pub root: Stat,
    /// Our clock just before the root's stat.
    pub clock: Timestamp,
}

/// How many names of the repository's directory are held at once.
const NAMES_AT_ONCE: usize = 1024;

/// True for what a restore has under way in this directory, or a killed one has left: never part of
/// a backup.
pub(super) fn is_leftover(name: &ListedName) -> bool {
    is_temporary_name(&name.name) && name.kind_hint != Some(Kind::Directory)
}

impl WalkRules<'_> {
    /// The names in a directory that were left out with the repository though they are not its own:
    /// how many there are, and the first. None if this is not the repository's directory.
    ///
    /// # Errors
    /// The directory cannot be opened or listed.
    pub fn beside_repository(
        &self,
        above: &SourceDir,
        name: &[u8],
        stat: &Stat,
    ) -> std::io::Result<Option<(u64, Vec<u8>)>> {
        if Some(stat.id()) != self.repository {
            return Ok(None);
        }
        let mut names = above
            .open_child(name)?
            .list(self.scratch, self.listing_bytes)?;
        let (mut count, mut first, mut batch) = (0, None, Vec::new());
        while names.next_batch(&mut batch, NAMES_AT_ONCE)? > 0 {
            let mut foreign = batch.drain(..).filter(|name| is_foreign(&name.name));
            if let Some(name) = foreign.next() {
                count += 1 + foreign.count() as u64;
                first.get_or_insert(name.name);
            }
        }
        Ok(first.map(|first| (count, first)))
    }

    /// Why a name is not to be captured; none if it is.
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
        // A path that cannot be joined is told of later.
        let Ok(path) = directory.join(&name.name) else {
            return None;
        };
        let is_directory = name.kind_hint == Some(Kind::Directory);
        let wanted = self
            .files_from
            .map_or(Wanted::Yes, |list| list.wanted(&path));
        match wanted {
            Wanted::No => return Some(MissingNames::Excluded),
            Wanted::Parent if !is_directory && name.kind_hint.is_some() => {
                return Some(MissingNames::Excluded);
            }
            _ => {}
        }
        self.filter
            .excludes(&path, is_directory)
            .then_some(MissingNames::Excluded)
    }
}
