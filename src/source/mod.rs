//! The outside world, read: folders and files by handle, metadata, what is left out, names that are hashes, and
//! commands whose output is captured.

mod file;
mod folder;
mod listing;
mod stat;
mod xattr;

pub use file::SourceFile;
pub use folder::{Folder, FsKind};
pub use listing::{ListedName, Listing};
pub use stat::{FolderId, Kind, Stat};
