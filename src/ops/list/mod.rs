//! Reads a repository: its snapshots, their contents, the snapshots that contain a path, the bytes
//! of a stream or file, sums.
//!
//! Listings are tolerant: if a page of a run cannot be read, the uncertain range of paths is
//! reported to the observer as damage, and the rest is listed.

mod cat;
mod find;
mod lacking;
mod ls;
mod missing;
mod path;
mod snapshots;
mod stats;
mod tar;
mod tar_links;
#[cfg(test)]
mod tests;

pub use cat::cat;
pub use find::{FindItem, FindReport, find};
pub use lacking::{
    LACKING_PATHS_MAX, LackingPath, LackingReport, MissingLister, SourceLacks, WhyLacking,
};
pub use ls::{EachLs, ListDepth, LsItem, ls};
pub use missing::missing;
pub use path::ListedPath;
pub use snapshots::{SnapshotFilter, snapshots};
pub use stats::{RepoStats, stats};
