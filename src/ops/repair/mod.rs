//! Putting back what can be derived from the rest, and living with what cannot.
//!
//! Nothing is deleted here that does not lie in quarantine, and every order of steps is such that a repair that was cut
//! off is ended by the next one.

mod heal;
mod lost;
mod packs;
mod partial;
mod quarantine;
mod salvage;
mod snapshots;
#[cfg(test)]
mod tests;

pub use packs::{DamagedPack, Fate, PacksReport, RepairPacksOptions, repair_packs};
pub use snapshots::{RepairSnapshotsOptions, Replaced, SnapshotsReport, repair_snapshots};

use crate::Error;
use crate::format::LeaseKind;
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::ops::Cancel;
use crate::repo::{Lease, Rebuilt, RepoError, Repository};
use crate::store::ObjectKey;

/// Throws the local index away, loads every segment, and publishes new segments for the packs that none tells of.
///
/// Nothing is deleted. Packs whose directory cannot be read, and segments that cannot be read, are told to the observer
/// as damage. A crash leaves some of the new segments; the next repair goes on behind them.
///
/// # Errors
/// [`Error::Interrupted`] if cancelled.
pub fn repair_index(
    repo: &Repository,
    host: &str,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Rebuilt, Error> {
    repo.check_writable()?;
    let lease = Lease::take(repo, LeaseKind::Repair, host, repo.lease_times())?;
    observer.phase(&Phase::Index);
    let mut go_on = || if cancel.is_cancelled() { Err(RepoError::Stopped) } else { Ok(()) };
    let rebuilt = match repo.rebuild_index(&lease, &mut go_on) {
        Err(RepoError::Stopped) => return Err(Error::Interrupted),
        other => other?,
    };
    tell(&rebuilt, observer);
    // A lease that cannot be deleted expires by itself.
    let _ = lease.release();
    Ok(rebuilt)
}

fn tell(rebuilt: &Rebuilt, observer: &dyn Observer) {
    for (id, why) in &rebuilt.unreadable {
        observer.problem(&Problem::new(Severity::Damage, ObjectKey::Pack(*id), why));
    }
    for (id, why) in &rebuilt.damaged_segments {
        observer.problem(&Problem::new(Severity::Damage, ObjectKey::Segment(*id), why));
    }
}

/// Puts back damaged or missing copies of `config` and of key slots from their twins; returns the objects written.
///
/// # Errors
/// [`Error::Interrupted`] if cancelled before anything was written; it takes a moment.
pub fn repair_config(repo: &Repository, cancel: &Cancel) -> Result<Vec<String>, Error> {
    cancel.check()?;
    Ok(repo.repair_config()?)
}
