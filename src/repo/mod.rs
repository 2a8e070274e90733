//! A repository: formats, store and index under one set of rules.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_lossless)
)]

mod baseline;
mod claims;
mod commit;
mod configs;
mod error;
mod examine;
mod forget;
mod frame_writer;
mod key_slots;
mod keyring;
mod lease;
mod lease_times;
mod leases;
mod marker;
mod mend;
mod merge;
mod objects;
mod open;
mod pack_copier;
mod pack_heads;
mod pack_writer;
mod packer;
mod parity;
mod reader;
mod rebuild;
mod repository;
mod room;
mod run_cursor;
mod run_writer;
mod snapshots;
mod sync;
mod system;
#[cfg(test)]
mod tests;
mod tiers;
mod unlock;
mod unlocked;
mod vanished;

pub use claims::{ChunkClaim, Claims};
pub use commit::CommittedSnapshot;
pub use error::RepoError;
pub use examine::PackVerdict;
pub use forget::ForgottenSnapshot;
pub use frame_writer::{FrameWriter, PackerHandle};
pub use keyring::{Secret, SlotInfo};
pub use lease::Lease;
pub use lease_times::LeaseTimes;
pub use leases::FoundLease;
pub use merge::{EntryMention, MergedRuns, RunStreams};
pub use objects::{open_object, seal_object, stored_limit};
pub use pack_copier::PackCopier;
pub use pack_heads::PackHead;
pub use pack_writer::DIRECTORY_BYTES_MAX;
pub use packer::{FirstError, PackedSource, Packer, PackerOptions};
pub use parity::ParityState;
pub use reader::ChunkReader;
pub use rebuild::RebuiltIndex;
pub use repository::Repository;
pub use run_cursor::{OnDamage, UncertainPaths};
pub use run_writer::{PutChunk, RunWriter};
pub use snapshots::{
    HostChoice, LatestSnapshot, StoredSnapshot, landed_late, last_built_on, trusted_time,
    without_replaced,
};
pub use sync::SyncReport;
pub use tiers::{merged_into, tiers_to_merge};
pub use unlocked::{RepoCache, UnlockedRepo};
