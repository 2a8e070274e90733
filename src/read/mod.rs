//! Reading a repository's content: trees, files and streams, and what a snapshot reaches.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_lossless)
)]

mod choose;
pub mod content;
pub(crate) mod fetch;
mod index_sync;
mod lease;
pub(crate) mod lost;
mod notices;
pub(crate) mod reach;
mod session;
pub(crate) mod tree;

pub use choose::choose;
pub(crate) use choose::{newest, source_of};
pub use index_sync::{sync, sync_until};
pub use lease::{ReadLease, reading_lease};
pub use notices::report_vanished;
pub(crate) use notices::{readable_snapshots, report_times};
pub use session::ReadSession;
