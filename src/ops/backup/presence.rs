//! Checks that the packs which a backup or a copy relies on exist.
//!
//! The index lists the packs that writers published, not the packs that the store still has: a file
//! system check, a sync tool or a disk that lied about a write can remove one. A backup that relied
//! on it would succeed and could not be restored. So the packs are listed and compared with the
//! segments. A pack that is missing or has another size does not count as known in this run: its
//! chunks are stored again as far as a source still has them, and the damage is reported even if no
//! command reads the pack.

use std::collections::HashSet;

use crate::Error;
use crate::advice::{Advice, RepairAdvice};
use crate::index::{PackRow, PackState};
use crate::observe::{Observer, Problem, Severity};
use crate::ops::packs::{absent_packs, stat_pack};
use crate::repo::{Lease, PackedSource, RepoError, Repository};
use crate::store::ObjectKey;
use crate::sys::now;
use crate::task::Task;
use crate::types::{PackId, Timestamp};

/// If listing is expensive, packs are listed again after a day.
const LISTED_EVERY_SECONDS: f64 = 24.0 * 3600.0;
/// Missing packs that are named; the rest are counted.
const NAMED_MAX: usize = 10;

/// Lists the packs if that is due, reports those that are missing, and returns their ids. A store
/// with strong listings is listed each time, any other once a day. The index must be in sync.
pub(in crate::ops) fn look(
    repo: &Repository,
    lease: Option<&Lease>,
    task: Task<'_>,
) -> Result<HashSet<PackId>, Error> {
    let time = lease.map_or_else(now, Lease::last_heartbeat);
    let is_near = repo.store().properties().strong_listing;
    if !is_near && !is_due_after(repo.memory().packs_listed(), time) {
        return Ok(HashSet::new());
    }
    let absent = absent_packs(repo, task.cancel)?;
    report(&absent, task.observer);
    if lease.is_some() {
        repo.memory().set_packs_listed(time);
    }
    Ok(absent.into_iter().map(|row| row.id).collect())
}

/// Returns true if the last listing was too long before `time`, or after it: then one of the two
/// clocks was wrong.
pub(super) fn is_due_after(last: Option<Timestamp>, time: Timestamp) -> bool {
    last.is_none_or(|last| !(0.0..LISTED_EVERY_SECONDS).contains(&time.seconds_since(last)))
}

/// Reports missing packs. A missing condemned pack is not reported, because a repair has already
/// handled it.
fn report(absent: &[PackRow], observer: &dyn Observer) {
    let known: Vec<&PackRow> = absent
        .iter()
        .filter(|row| row.state == PackState::Known)
        .collect();
    let consequence = "its data is stored again as far as the sources still have it";
    for row in known.iter().take(NAMED_MAX) {
        let what = format!("it is missing or cut short; {consequence}");
        let problem = Problem::new(Severity::Damage, ObjectKey::Pack(row.id), what);
        observer.problem(&problem.with_advice(Advice::Repair(RepairAdvice::ListLosses)));
    }
    if known.len() > NAMED_MAX {
        let more = format!(
            "{} more are missing or cut short; {consequence}",
            known.len() - NAMED_MAX
        );
        let problem = Problem::new(Severity::Damage, "packs", more);
        observer.problem(&problem.with_advice(Advice::Repair(RepairAdvice::ListLosses)));
    }
}

/// Checks before the commit that the packs of this run are in the store, if its puts may not be
/// durable.
pub(super) fn check_own(repo: &Repository, packed: &PackedSource) -> Result<(), Error> {
    if repo.store().properties().durable_put {
        Ok(())
    } else {
        check_stored(repo, &packed.ids)
    }
}

/// Returns an error unless these packs are in the store with these sizes.
pub(super) fn check_stored(repo: &Repository, packs: &[(PackId, u64)]) -> Result<(), Error> {
    for (id, size) in packs {
        if stat_pack(repo, id)?.is_none_or(|meta| meta.size != *size) {
            let what = "it was stored by this backup and is missing; nothing was committed";
            return Err(RepoError::damaged(ObjectKey::Pack(*id), what).into());
        }
    }
    Ok(())
}
