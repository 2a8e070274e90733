//! The test kit, only with the feature `testing`: a repository and the tree that is backed up into
//! it, files with reproducible bytes, and an observer that acts in the middle of an operation.
//!
//! ```
//! use icecore::testing::{TestRepo, committed, noise};
//!
//! let world = TestRepo::new();
//! world.write("a/file", &noise(1, 5000));
//! let (report, _) = world.backup(world.options());
//! assert_eq!(world.names(committed(&report)), ["/", "a", "a/file"]);
//! ```

mod files;
mod hook;
mod repo;
mod sources;

pub use files::{noise, settle, write};
pub use hook::CounterHook;
pub use repo::{TestRepo, committed};
pub use sources::{command_source, stream_source, tree_options};
