//! Repairs of the index, the configuration, packs and snapshots.
//!
//! Nothing is deleted that is not in quarantine. The steps of each repair are ordered so that the
//! next repair completes one that was interrupted.

mod dropped;
mod heal;
mod index;
mod lost;
mod pack_listing;
mod pack_repair;
mod packs;
mod packs_report;
mod partial;
mod quarantine;
mod salvage;
mod snapshots;
#[cfg(test)]
mod tests;
mod unreadable;

pub use index::repair_index;
pub use packs::repair_packs;
pub use packs_report::{DamagedPack, PackFate, PacksReport, RepairPacksOptions};
pub use snapshots::{RepairSnapshotsOptions, ReplacedSnapshot, SnapshotsReport, repair_snapshots};

use crate::Error;
use crate::repo::Repository;
use crate::task::Cancel;

/// Restores damaged or missing copies of `config` and of key slots from their second copies.
/// Returns the objects written.
///
/// # Errors
/// [`Error::Interrupted`] if cancelled before the first write. The whole repair is short.
pub fn repair_config(repo: &Repository, cancel: &Cancel) -> Result<Vec<String>, Error> {
    cancel.check()?;
    Ok(repo.repair_config()?)
}
