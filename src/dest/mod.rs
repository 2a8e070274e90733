//! Writes a file tree, never outside its root, and feeds commands.
//!
//! A repository may be hostile, and other processes may rearrange the target during a restore. So
//! this module never resolves a path of more than one component by plain system calls. It reaches
//! directories from the root's handle by `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`, and
//! creates everything else in an open directory by a name without a slash. The layers above decide
//! which paths to write, overwrite or delete.
//!
//! Files, links and special files are created under a temporary name, get their metadata and are
//! then renamed. So a crash leaves the old or the new path, and at worst a name that
//! [`is_temporary_name`] recognizes. Written paths are durable once [`DestTree::sync`] has succeeded;
//! files get their times after that ([`DestDir::settle`]).

mod acl;
mod command;
mod dir;
mod durable;
mod found;
mod leftover;
mod meta;
mod node;
mod owner;
mod protect;
mod remove;
mod temp;
mod tree;

#[cfg(test)]
mod testing;

pub use command::FedCommand;
pub use dir::{DestDir, ReplaceRule};
pub use durable::SyncMethod;
pub use found::FoundEntry;
pub use meta::{MetaPart, MetaRefusal, MetaReport, MetaToSet};
pub use owner::{MetaPolicy, OwnerPolicy};
pub use protect::{InUse, ProtectedDirs};
pub use remove::{KeptNames, RemovedCounts};
pub use temp::{DestTempFile, UnsettledFile, WholeFile, is_temporary_name};
pub use tree::DestTree;
