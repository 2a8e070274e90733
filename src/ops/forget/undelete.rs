//! Brings a forgotten snapshot back while its data is still stored.
//!
//! The result is a new snapshot object with the same content and time. The old bytes under the old
//! name would have a new store time: they would be the newest snapshot of all, and look like one
//! that landed outside its lease.
//!
//! A forgotten snapshot is a root only while it is young, so a sweep may be dropping its packs at
//! this moment. Order:
//!
//! 1. Put a lease that names the snapshot as parent.
//! 2. Check that all its data resolves in held packs that exist. If not, put nothing.
//! 3. Put the new snapshot.
//! 4. List the leases. If a prune is alive, withdraw the new snapshot.
//! 5. List the segments again and check that everything still resolves. If not, withdraw it.
//!
//! A sweep takes its lease, lists `snapshots/`, publishes the packs that it drops, deletes them,
//! and releases its lease. If its lease was put before (4) and still exists, we withdraw. If it is
//! gone by then, all its drops were published before (5), which sees them. If its lease was put
//! after (4), it lists `snapshots/` after (3) and finds the new snapshot: its packs stay. Packs
//! that a mark has condemned are still held, and the sweep that follows finds the new snapshot too.
//!
//! This needs listings that show everything that was put before they began; other stores are
//! refused. A crash between (3) and (5) leaves a snapshot that is complete unless a sweep ran just
//! then. Verify reports that, and the snapshot can be forgotten again.

use crate::Error;
use crate::advice::{Advice, RepairAdvice, SnapshotAdvice};
use crate::format::{LeaseKind, SnapshotState};
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::ops::verify::missing;
use crate::repo::{ForgottenSnapshot, Lease, RepoError, Repository, StoredSnapshot};
use crate::store::ObjectKey;
use crate::task::Task;
use crate::types::{PrefixMatch, SnapshotId};

/// A snapshot that was brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UndeletedSnapshot {
    /// Its new name.
    pub id: SnapshotId,
    /// The name under which it was forgotten.
    pub from: SnapshotId,
}

/// Returns the forgotten snapshots that can be brought back, in the order in which they were
/// forgotten: neither checkpoints nor those that a listed snapshot replaces. Does not check whether
/// a sweep has begun to delete their data.
pub fn restorable(
    repo: &Repository,
    observer: &dyn Observer,
) -> Result<Vec<ForgottenSnapshot>, Error> {
    let mut report = |id, err: RepoError| {
        observer.problem(&Problem::new(
            Severity::Damage,
            ObjectKey::Forgotten(id),
            err,
        ));
    };
    let mut forgotten = repo.forgotten_snapshots(&mut report)?;
    let listed = listed(repo, observer)?;
    forgotten.retain(|one| {
        one.found.snapshot.state != SnapshotState::Checkpoint
            && successor(&listed, one.found.id).is_none()
    });
    Ok(forgotten)
}

/// Brings back a forgotten snapshot, given by its id or a prefix of it.
///
/// # Errors
/// [`Error::Refused`] or [`RepoError::Refused`] if its data is gone, if a prune is running, or if
/// it is not forgotten: nothing has changed then.
pub fn undelete(repo: &Repository, name: &str, task: Task<'_>) -> Result<UndeletedSnapshot, Error> {
    repo.check_writable()?;
    if !repo.store().properties().strong_listing {
        let why = "this store lists objects with delay: a running prune could go unnoticed";
        let hint =
            "run it on the machine that has the repository on its disk, not over a network mount";
        return Err(Error::Refused {
            why: why.into(),
            advice: hint.into(),
        });
    }

    task.observer.phase(&Phase::Index);

    let lease = Lease::take(repo, LeaseKind::Repair)?;
    let wanted = find(repo, name, task.observer)?;
    lease.set_parents(&[wanted.id])?;
    lease.refresh(std::time::Duration::ZERO)?;

    task.observer.phase(&Phase::Structure);
    crate::read::sync(repo, task.observer)?;
    if let Some(what) = missing(repo, &wanted, task.cancel)? {
        return Err(gone(&wanted, &what));
    }

    let mut stop = None;
    let committed = repo.commit_if(lease, wanted.successor(), &mut |lease| {
        let checked = no_prune(repo, lease).map_err(Error::from).and_then(|()| {
            repo.sync()?;
            match missing(repo, &wanted, task.cancel)? {
                Some(what) => Err(gone(&wanted, &what)),
                None => Ok(()),
            }
        });
        checked.map_err(|err| match err {
            Error::Repo(err) => err,
            other => {
                stop = Some(other);
                RepoError::Stopped
            }
        })
    });

    match (committed, stop) {
        (Ok(committed), _) => {
            task.observer.phase(&Phase::End);
            Ok(UndeletedSnapshot {
                id: committed.id,
                from: wanted.id,
            })
        }
        (Err(RepoError::Stopped), Some(err)) => Err(err),
        (Err(err), _) => Err(err.into()),
    }
}

/// Returns the forgotten snapshot of this name. Returns an error if it is a checkpoint or a listed
/// snapshot replaces it.
fn find(repo: &Repository, name: &str, observer: &dyn Observer) -> Result<StoredSnapshot, Error> {
    let mut damage = None;
    let forgotten = repo.forgotten_snapshots(&mut |id, err| damage = Some((id, err)))?;
    let listed = listed(repo, observer)?;
    let begins = |id: &SnapshotId| id.to_string().starts_with(name);
    let none = |why: String| {
        Error::Repo(RepoError::NoSuchSnapshot {
            text: name.to_owned(),
            why,
            advice: Some(Advice::Snapshot(SnapshotAdvice::ChooseSnapshot)),
        })
    };

    let one = match PrefixMatch::find(name, forgotten.iter().map(|one| one.found.id)) {
        PrefixMatch::One(id) => forgotten.into_iter().find(|one| one.found.id == id),
        PrefixMatch::Many(ids) => {
            return Err(none(format!(
                "{} forgotten snapshots have ids that begin with it",
                ids.len()
            )));
        }
        PrefixMatch::None => None,
    };

    let Some(one) = one else {
        return Err(match damage {
            Some((id, err)) if begins(&id) => err.into(),
            _ if listed.iter().any(|found| begins(&found.id)) => none("it is not forgotten".into()),
            _ => none(
                "no forgotten snapshot has an id that begins with it; a prune may have removed it already"
                    .into(),
            ),
        });
    };

    if one.found.snapshot.state == SnapshotState::Checkpoint {
        return Err(none(
            "it is the checkpoint of a backup, which cannot be undeleted".into(),
        ));
    }

    match successor(&listed, one.found.id) {
        Some(by) => Err(none(format!("it was replaced by snapshot {}", by.short()))),
        None => Ok(one.found),
    }
}

fn listed(repo: &Repository, observer: &dyn Observer) -> Result<Vec<StoredSnapshot>, Error> {
    let found = crate::read::readable_snapshots(repo, observer)?;
    crate::read::report_vanished(repo, observer);
    Ok(found)
}

fn successor(listed: &[StoredSnapshot], id: SnapshotId) -> Option<SnapshotId> {
    listed
        .iter()
        .find(|found| found.snapshot.replaces == Some(id))
        .map(|found| found.id)
}

fn gone(wanted: &StoredSnapshot, what: &str) -> Error {
    Error::Refused {
        why: format!(
            "cannot undelete snapshot {}: data that it needs is missing: {what}",
            wanted.id.short()
        ),
        advice: Advice::Repair(RepairAdvice::FindMissingPacks),
    }
}

/// Returns an error if a prune may be running. A lease that cannot be read may be a prune's.
fn no_prune(repo: &Repository, lease: &Lease) -> Result<(), RepoError> {
    let now = lease.last_heartbeat();
    let times = repo.lease_times();
    let found = repo.leases()?;
    let prune = found.iter().find(|found| {
        let is_prune = found
            .body
            .as_ref()
            .is_none_or(|body| body.kind == LeaseKind::Prune);
        found.id != lease.id()
            && is_prune
            && found.is_alive(now, &times)
            && !found.is_dead_here(repo.client())
    });
    match prune {
        None => Ok(()),
        Some(prune) => {
            let host = prune
                .body
                .as_ref()
                .map_or("an unknown host", |body| body.host.as_str());
            let why = format!(
                "a prune is running (from {host}); nothing was undeleted, try again when it has ended"
            );
            Err(RepoError::refused(why))
        }
    }
}
