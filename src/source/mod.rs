//! Reads the outside world: directories and files by handle, metadata, filters, names that are
//! hashes, and commands whose output is captured.

mod stat;

mod xattr;

mod directory;
mod file;
mod filesystem;
mod listing;

mod cid;
mod files_from;
mod filter;
mod hashname;
mod meta;
mod misread;
mod pattern;
mod pattern_list;
mod stream;
mod unmatched;

pub use crate::sys::{Canceller, ChildEnding, CommandError, SpawnOptions, watched};
pub use cid::{Cid, FlatfsSharding};
pub use directory::SourceDir;
pub use file::SourceFile;
pub use files_from::{FilesFrom, FilesFromError, NeededName, WantedPath};
pub use filesystem::FsKind;
pub use filter::{
    CACHE_TAG_NAME, Filter, FilterError, FilterOptions, GivenAs, PatternPlace, PatternText,
    VainLine,
};
pub use hashname::{HashChecker, HashForm, HashName};
pub use listing::{ListedName, NameListing};
pub use meta::{DescribedFile, OwnerNames, XATTR_INLINE_BYTES_MAX, metadata};
pub use pattern::PatternProblem;
pub use stat::{DirectoryId, SourceStat, StatKind};
pub use stream::{ExitReport, RunningCommand, StdinError, StdinStream, StreamCommand};
pub use unmatched::UnmatchedPatterns;
pub use xattr::{UnreadXattrs, XattrReader};
