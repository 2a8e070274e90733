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

pub use crate::sys::{Canceller, CommandError, Ending, SpawnOptions, watched};
pub use cid::{Cid, Sharding};
pub use directory::SourceDir;
pub use file::SourceFile;
pub use files_from::{FilesFrom, FilesFromError, Wanted};
pub use filesystem::FsKind;
pub use filter::{
    CACHE_TAG_NAME, Filter, FilterError, FilterOptions, GivenAs, PatternPlace, PatternText,
    VainLine,
};
pub use hashname::{HashChecker, HashForm, HashName};
pub use listing::{ListedName, Listing};
pub use meta::{Described, Owners, XATTR_INLINE_BYTES_MAX, metadata};
pub use pattern::PatternProblem;
pub use stat::{DirectoryId, Kind, Stat};
pub use stream::{ExitReport, RunningCommand, StdinStream, StreamCommand};
pub use unmatched::Unmatched;
pub use xattr::{Attributes, Unread};
