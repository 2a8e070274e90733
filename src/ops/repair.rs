//! Putting back what can be derived from the rest.

use crate::Error;
use crate::format::LeaseKind;
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::repo::{Lease, Rebuilt, Repository};
use crate::store::ObjectKey;

/// Throws the local index away, loads every segment, and publishes new segments for the packs that none tells of.
///
/// Nothing is deleted. Packs whose directory cannot be read, and segments that cannot be read, are told to the observer
/// as damage. A crash leaves some of the new segments; the next repair goes on behind them.
pub fn repair_index(repo: &Repository, host: &str, observer: &dyn Observer) -> Result<Rebuilt, Error> {
    repo.check_writable()?;
    let lease = Lease::take(repo, LeaseKind::Repair, host, repo.lease_times())?;
    observer.phase(&Phase::Index);
    let rebuilt = repo.rebuild_index(&lease)?;
    for (id, why) in &rebuilt.unreadable {
        observer.problem(&Problem::new(Severity::Damage, ObjectKey::Pack(*id), why));
    }
    for (id, why) in &rebuilt.damaged_segments {
        observer.problem(&Problem::new(Severity::Damage, ObjectKey::Segment(*id), why));
    }
    // A lease that cannot be deleted expires by itself.
    let _ = lease.release();
    Ok(rebuilt)
}

/// Puts back damaged or missing copies of `config` and of key slots from their twins; returns the objects written.
pub fn repair_config(repo: &Repository) -> Result<Vec<String>, Error> {
    Ok(repo.repair_config()?)
}
