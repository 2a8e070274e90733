//! A repair of packs under way.

use super::pack_listing::PackListing;
use super::packs_report::PacksReport;
use crate::Error;
use crate::index::{PackRow, PackState};
use crate::repo::{Lease, Repository};
use crate::store::{ObjectDir, ObjectKey, list_all};
use crate::task::Task;
use crate::types::{ChunkId, PackId};

/// A held pack that is damaged or missing.
pub(super) struct BadPack {
    pub row: PackRow,
    /// Its size in the store; 0 if it is missing.
    pub size: u64,
    pub what: String,
    /// It could not be read this time; no damage is known.
    pub now: bool,
}

pub(super) struct PackRepair<'a> {
    pub repo: &'a Repository,
    /// `None` in a dry run.
    pub lease: Option<&'a Lease>,
    pub set_aside_unreadable: bool,
    pub packs: PackListing,
    /// True after `packs/` was listed again because a pack was missing from the first listing.
    pub listed_again: bool,
    pub report: PacksReport,
    pub task: Task<'a>,
}

impl<'a> PackRepair<'a> {
    /// Starts with nothing listed.
    pub fn new(
        repo: &'a Repository,
        lease: Option<&'a Lease>,
        set_aside_unreadable: bool,
        task: Task<'a>,
    ) -> Self {
        Self {
            repo,
            lease,
            set_aside_unreadable,
            packs: PackListing::default(),
            listed_again: false,
            report: PacksReport::default(),
            task,
        }
    }

    /// Adds the packs that a salvage stored to `listed`.
    pub fn relist(&mut self, stored: u64) -> Result<(), Error> {
        if stored > 0 {
            for meta in list_all(self.repo.store(), ObjectDir::Packs)? {
                if let ObjectKey::Pack(id) = meta.key {
                    self.packs.listed.entry(id).or_insert(meta.size);
                }
            }
        }
        Ok(())
    }

    /// Publishes a segment with condemned packs and lost chunks, if there are any.
    pub fn publish(&self, held: &[BadPack], lost: Vec<ChunkId>) -> Result<(), Error> {
        let Some(lease) = self.lease else {
            return Ok(());
        };
        let known = held.iter().filter(|bad| bad.row.state == PackState::Known);
        let condemned: Vec<PackId> = known.map(|bad| bad.row.id).collect();
        if !condemned.is_empty() || !lost.is_empty() {
            self.repo.publish_damage(lease, condemned, lost)?;
        }
        Ok(())
    }
}
