//! Bringing a forgotten snapshot back, as long as its data is there.
//!
//! What comes back is a new snapshot object of the same content and time. The old bytes under the
//! old name would have a new store time: they would be the newest snapshot of all, and look like
//! one that landed outside its lease.
//!
//! A forgotten snapshot is a root only while it is young, so a sweep may be dropping its packs this
//! moment. Order:
//!
//! 1. Lease, which names the snapshot as parent.
//! 2. Everything that it needs resolves in held packs that are there. If not: nothing is put.
//! 3. The new snapshot is put.
//! 4. The leases are listed: if a prune is alive, the new one is withdrawn.
//! 5. The segments are listed again, and everything resolves still. If not: it is withdrawn.
//!
//! A sweep takes its lease, lists `snapshots/`, publishes what it drops, deletes, and lets go of
//! its lease. If its lease was put before (4) and is there still, we withdraw; if it is gone by
//! then, all that it dropped was published before (5), which sees it. If its lease was put after
//! (4), it lists `snapshots/` after (3) and finds the new one there: its packs stay. What a mark
//! has condemned is still held, and the sweep that follows finds the new one too. This needs
//! listings that show what was put before they began; elsewhere it is refused. A crash between (3)
//! and (5) leaves a snapshot that is whole unless a sweep ran just then; verify tells, and it can
//! be forgotten again.

use crate::Error;
use crate::format::{LeaseKind, SnapshotState};
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::ops::Cancel;
use crate::ops::verify::missing;
use crate::repo::{ForgottenSnapshot, Lease, RepoError, Repository, StoredSnapshot};
use crate::store::ObjectKey;
use crate::types::{PrefixMatch, SnapshotId};

/// A snapshot that was brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undeleted {
    /// Its name from now on.
    pub id: SnapshotId,
    /// The name under which it was forgotten.
    pub from: SnapshotId,
}

/// The forgotten snapshots that can be asked back, in the order in which they were forgotten:
/// neither checkpoints nor those of which a listed snapshot took the place. Whether a sweep has
/// begun on their data is not looked at.
pub fn restorable(
    repo: &Repository,
    observer: &dyn Observer,
) -> Result<Vec<ForgottenSnapshot>, Error> {
    let mut tell = |id, err: RepoError| {
        observer.problem(&Problem::new(
            Severity::Damage,
            ObjectKey::Forgotten(id),
            err,
        ));
    };
    let mut forgotten = repo.forgotten_snapshots(&mut tell)?;
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
/// [`Error::Refused`] or [`RepoError::Refused`] if its data is gone, if a prune is at work, or if
/// it is not forgotten: nothing has changed then.
pub fn undelete(
    repo: &Repository,
    name: &str,
    host: &str,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Undeleted, Error> {
    repo.check_writable()?;
    if !repo.store().properties().strong_listing {
        let why = "this store lists objects with delay: whether a prune is at work cannot be known";
        let hint =
            "run it on the machine on whose disk the repository lies, not over a network mount";
        return Err(Error::Refused {
            why: why.into(),
            hint,
        });
    }
    observer.phase(&Phase::Index);
    let lease = Lease::take(repo, LeaseKind::Repair, host, repo.lease_times())?;
    let wanted = find(repo, name, observer)?;
    lease.set_parents(&[wanted.id])?;
    lease.refresh(std::time::Duration::ZERO)?;
    observer.phase(&Phase::Structure);
    crate::ops::sync(repo, observer)?;
    if let Some(what) = missing(repo, &wanted, cancel)? {
        return Err(gone(&wanted, &what));
    }
    let mut stop = None;
    let committed = repo.commit_if(lease, wanted.successor(), &mut |lease| {
        let checked = no_prune(repo, lease, host)
            .map_err(Error::from)
            .and_then(|()| {
                repo.sync()?;
                match missing(repo, &wanted, cancel)? {
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
            observer.phase(&Phase::End);
            Ok(Undeleted {
                id: committed.id,
                from: wanted.id,
            })
        }
        (Err(RepoError::Stopped), Some(err)) => Err(err),
        (Err(err), _) => Err(err.into()),
    }
}

/// The forgotten snapshot of this name, unless it is there already in some form.
fn find(repo: &Repository, name: &str, observer: &dyn Observer) -> Result<StoredSnapshot, Error> {
    let mut damage = None;
    let forgotten = repo.forgotten_snapshots(&mut |id, err| damage = Some((id, err)))?;
    let listed = listed(repo, observer)?;
    let begins = |id: &SnapshotId| id.to_string().starts_with(name);
    let none = |why: String| {
        Error::Repo(RepoError::NoSuchSnapshot {
            text: name.to_owned(),
            why,
        })
    };
    let one = match PrefixMatch::find(name, forgotten.iter().map(|one| one.found.id)) {
        PrefixMatch::One(id) => forgotten.into_iter().find(|one| one.found.id == id),
        PrefixMatch::Many(ids) => {
            return Err(none(format!(
                "{} forgotten ones have ids that begin with it",
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
            "it is the checkpoint of a backup, which is not brought back".into(),
        ));
    }
    match successor(&listed, one.found.id) {
        Some(by) => Err(none(format!("snapshot {} stands in its place", by.short()))),
        None => Ok(one.found),
    }
}

fn listed(repo: &Repository, observer: &dyn Observer) -> Result<Vec<StoredSnapshot>, Error> {
    let found = repo.snapshots(&mut |id, err| {
        observer.problem(&Problem::new(
            Severity::Damage,
            ObjectKey::Snapshot(id),
            err,
        ));
    })?;
    crate::ops::report_vanished(repo, observer);
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
            "cannot bring back snapshot {}: what it needs is not there: {what}",
            wanted.id.short()
        ),
        hint: "a prune may have deleted it, which is final; if not, 'icecore repair packs' tells what is missing. Other snapshots of the same source may hold the files",
    }
}

/// Fails if a prune may be at work. A lease that cannot be read may be one.
fn no_prune(repo: &Repository, lease: &Lease, host: &str) -> Result<(), RepoError> {
    let (now, times) = (lease.last_heartbeat(), repo.lease_times());
    let found = repo.leases()?;
    let prune = found.iter().find(|found| {
        let is_prune = found
            .body
            .as_ref()
            .is_none_or(|body| body.kind == LeaseKind::Prune);
        found.id != lease.id()
            && is_prune
            && found.is_alive(now, &times)
            && !found.is_dead_here(host)
    });
    match prune {
        None => Ok(()),
        Some(prune) => {
            let host = prune
                .body
                .as_ref()
                .map_or("an unknown host", |body| body.host.as_str());
            let why = format!(
                "a prune is at work (from {host}); nothing was brought back, try again when it has ended"
            );
            Err(RepoError::Refused { why })
        }
    }
}
