//! Changes the tags or the protection of a snapshot: a new snapshot object replaces the old one.

use super::forget::forget_replaced;
use super::verify::resolves;
use crate::Error;
use crate::advice::{Advice, RepairAdvice, SnapshotAdvice};
use crate::format::{LeaseKind, SnapshotState};
use crate::observe::{Phase, Subject};
use crate::repo::{ChunkReader, HostChoice, Lease, RepoError, Repository, StoredSnapshot};
use crate::task::{Cancel, Task};
use crate::types::SnapshotId;

/// The change to make. `set` is applied first, then `add`, then `remove`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagChange {
    /// Replaces all existing tags.
    pub set: Option<Vec<String>>,
    pub add: Vec<String>,
    pub remove: Vec<String>,
    pub protect: Option<bool>,
}

impl TagChange {
    fn tags(&self, old: &[String]) -> Vec<String> {
        let mut tags = self.set.clone().unwrap_or_else(|| old.to_vec());
        tags.extend(self.add.iter().cloned());
        tags.retain(|tag| !self.remove.contains(tag));
        tags.sort();
        tags.dedup();
        tags
    }
}

/// The result for one snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetaggedSnapshot {
    pub from: SnapshotId,
    /// The id of the new snapshot. `None` if there was nothing to change.
    pub id: Option<SnapshotId>,
    pub tags: Vec<String>,
    pub protected: bool,
}

/// Changes tags and protection of snapshots, one after another.
///
/// The new snapshot is committed under a lease that names the old one as its parent. Then the old
/// one is forgotten, so a backup that builds on it is not disturbed. A crash in between leaves
/// both: the old one does not count then, and the next `forget` by policy removes it.
///
/// # Errors
/// Snapshots before the failing one are changed.
pub fn retag(
    repo: &Repository,
    names: &[String],
    hosts: &HostChoice,
    change: &TagChange,
    task: Task<'_>,
) -> Result<Vec<RetaggedSnapshot>, Error> {
    repo.check_writable()?;
    task.observer.phase(&Phase::Commit);

    // Resolve all names before anything changes.
    let ids = names
        .iter()
        .map(|name| Ok(repo.find_snapshot(name, hosts)?.id));
    let mut ids: Vec<SnapshotId> = ids.collect::<Result<_, RepoError>>()?;
    crate::read::report_vanished(repo, task.observer);

    let mut seen = std::collections::BTreeSet::new();
    ids.retain(|id| seen.insert(*id));

    let mut out = Vec::new();
    for id in ids {
        task.check()?;
        let done = retag_one(repo, &id, change, task.cancel)?;
        task.observer
            .detail("tagged", &Subject::from(done.id.unwrap_or(id)));
        out.push(done);
    }

    task.observer.phase(&Phase::End);
    Ok(out)
}

fn retag_one(
    repo: &Repository,
    id: &SnapshotId,
    change: &TagChange,
    cancel: &Cancel,
) -> Result<RetaggedSnapshot, Error> {
    let lease = Lease::take(repo, LeaseKind::Repair)?;
    lease.set_parents(&[*id])?;
    // Listed and read after the lease began, as for any parent.
    let mut damage = None;
    let all = repo.snapshots(&mut |bad, err| {
        if bad == *id {
            damage = Some(err);
        }
    })?;

    let Some(found) = all.iter().find(|found| found.id == *id) else {
        let none = RepoError::NoSuchSnapshot {
            text: id.to_string(),
            why: "it was forgotten in the meantime".into(),
            advice: Some(Advice::Snapshot(SnapshotAdvice::ChooseSnapshot)),
        };
        return Err(damage.unwrap_or(none).into());
    };
    check(repo, found, &all, cancel)?;

    let tags = change.tags(&found.snapshot.tags);
    let protected = change.protect.unwrap_or(found.snapshot.protected);
    let mut done = RetaggedSnapshot {
        from: *id,
        id: None,
        tags: tags.clone(),
        protected,
    };

    if (&tags, protected) == (&found.snapshot.tags, found.snapshot.protected) {
        return Ok(done);
    }

    let mut next = found.successor();
    next.tags = tags;
    next.protected = protected;
    done.id = Some(repo.commit(lease, next)?.id);
    forget_replaced(repo, id)?;
    Ok(done)
}

/// Metadata frames kept while a snapshot is checked.
const CACHE_BYTES: usize = 16 << 20;

/// Refuses checkpoints, replaced snapshots, and snapshots that landed late and lack chunks: a new
/// object would hide that.
fn check(
    repo: &Repository,
    found: &StoredSnapshot,
    all: &[StoredSnapshot],
    cancel: &Cancel,
) -> Result<(), Error> {
    let refuse = |why: String, advice: Advice| Err(Error::Refused { why, advice });
    let id = found.id.short();
    if found.snapshot.state == SnapshotState::Checkpoint {
        return refuse(
            format!("{id} is a checkpoint"),
            "it is deleted when its backup is done".into(),
        );
    }

    if found.landed_late(&repo.lease_times()) {
        repo.sync()?;
        let reader = ChunkReader::new(repo, CACHE_BYTES);
        if !resolves(&reader, found, cancel)? {
            let why = format!(
                "snapshot {id} landed after its lease had expired, and data that it needs is gone"
            );
            return refuse(why, Advice::Repair(RepairAdvice::Verify));
        }
    }

    match all
        .iter()
        .find(|other| other.snapshot.replaces == Some(found.id))
    {
        Some(by) => refuse(
            format!("{id} was replaced by snapshot {}", by.id.short()),
            Advice::Snapshot(SnapshotAdvice::GiveSuccessor),
        ),
        None => Ok(()),
    }
}
