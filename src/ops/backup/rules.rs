//! The rules of a walk: what of a tree is captured, and what is looked at again.

use crate::source::{CACHE_TAG_NAME, FilesFrom, Filter, Kind, ListedName, Stat, Wanted};
use crate::target::is_temporary_name;
use crate::types::{MissingNames, RelPath, Timestamp};

/// What decides how a tree is walked.
pub(super) struct WalkRules<'a> {
    pub filter: &'a Filter,
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

/// True for what a restore has under way in this directory, or a killed one has left: never part of a backup.
pub(super) fn is_leftover(name: &ListedName) -> bool {
    is_temporary_name(&name.name) && name.kind_hint != Some(Kind::Folder)
}

impl WalkRules<'_> {
    /// Why a name is not to be captured; none if it is.
    pub fn left_out(&self, folder: &RelPath, name: &ListedName, only_tag: bool) -> Option<MissingNames> {
        if only_tag && name.name != CACHE_TAG_NAME {
            return Some(MissingNames::Excluded);
        }
        if is_leftover(name) {
            return Some(MissingNames::Excluded);
        }
        // A path that cannot be joined is told of later.
        let Ok(path) = folder.join(&name.name) else { return None };
        let is_folder = name.kind_hint == Some(Kind::Folder);
        let wanted = self.files_from.map_or(Wanted::Yes, |list| list.wanted(&path));
        match wanted {
            Wanted::No => return Some(MissingNames::Excluded),
            Wanted::Parent if !is_folder && name.kind_hint.is_some() => return Some(MissingNames::Excluded),
            _ => {}
        }
        self.filter.excludes(&path, is_folder).then_some(MissingNames::Excluded)
    }
}
