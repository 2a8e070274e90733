//! Moves objects under snapshot names that cannot be read as snapshots to quarantine, so that they
//! do not block prunes and backups.
//!
//! If an intact copy of such a snapshot exists, in this machine's cache or under another name, the
//! snapshot is first committed again as a new object that replaces the broken one. An object in
//! quarantine is named by the hash of its bytes, so that a later object under the same snapshot
//! name can be moved too. A prune cannot know which packs only this snapshot needs. For a while it
//! keeps all packs that were in the store at that time (`ops::prune`), and reports this.

use std::collections::BTreeMap;

use super::quarantine::{SetAside, set_aside};
use super::snapshots::{ReplacedSnapshot, SnapshotRepair, lacks};
use crate::Error;
use crate::format::{ObjectKind, SNAPSHOT_BYTES_MAX, Snapshot, SnapshotState};
use crate::observe::{Problem, Severity};
use crate::repo::{PackVerdict, RepoError, StoredSnapshot};
use crate::store::{ObjectDir, ObjectKey, list_all};
use crate::types::{ObjectHash, SnapshotId, Timestamp};

/// An object under the name of a snapshot that is not a snapshot.
struct BrokenSnapshot {
    key: ObjectKey,
    id: SnapshotId,
    hash: Option<ObjectHash>,
    what: String,
    stored: Timestamp,
}

impl SnapshotRepair<'_> {
    /// Moves objects in `snapshots/` and in `forgotten/` that cannot be read as snapshots to
    /// quarantine.
    pub(super) fn set_unreadable_aside(&mut self) -> Result<(), Error> {
        let mut broken = Vec::new();
        for directory in [ObjectDir::Snapshots, ObjectDir::Forgotten] {
            for meta in list_all(self.repo.store(), directory)? {
                self.task.check()?;
                broken.extend(self.look_at(&meta.key)?);
            }
        }

        let misnamed = self.misnamed(&broken)?;
        for one in broken {
            self.task.check()?;
            self.deal_with_broken(one, &misnamed)?;
        }
        Ok(())
    }

    /// Returns the object if it must be moved to quarantine.
    fn look_at(&mut self, key: &ObjectKey) -> Result<Option<BrokenSnapshot>, Error> {
        let (ObjectKey::Snapshot(id) | ObjectKey::Forgotten(id)) = *key else {
            return Ok(None);
        };

        let first = match self.repo.read_snapshot_at(key) {
            Ok(_) => return Ok(None),
            Err(err) if err.is_unavailable() => err,
            Err(err) => return Err(err.into()),
        };

        let (hash, what, stored) =
            match self
                .repo
                .examine(key, ObjectKind::Snapshot, SNAPSHOT_BYTES_MAX)?
            {
                PackVerdict::Gone => return Ok(None),
                PackVerdict::Broken { hash, what, stored } => (hash, what, stored),
                PackVerdict::Authentic => {
                    // A client with the key wrote it, perhaps a newer icecore. It must stay.
                    self.report.unreadable += 1;
                    self.task
                        .observer
                        .problem(&Problem::new(Severity::Damage, key, first));
                    return Ok(None);
                }
                PackVerdict::UnreadableNow(what) if self.options.set_aside_unreadable => (
                    None,
                    format!("it cannot be read now: {what}"),
                    Timestamp::default(),
                ),
                PackVerdict::UnreadableNow(what) => {
                    self.report.unreadable_now += 1;
                    let what = format!("it cannot be read now, and was left in place: {what}");
                    self.task
                        .observer
                        .problem(&Problem::new(Severity::Damage, key, what));
                    return Ok(None);
                }
            };
        Ok(Some(BrokenSnapshot {
            key: key.clone(),
            id,
            hash,
            what,
            stored,
        }))
    }

    /// Returns intact snapshots that are stored under the names of others.
    fn misnamed(&self, broken: &[BrokenSnapshot]) -> Result<BTreeMap<SnapshotId, Snapshot>, Error> {
        let mut found = BTreeMap::new();
        for one in broken {
            let Some(hash) = one.hash.filter(|hash| SnapshotId::from(*hash) != one.id) else {
                continue;
            };
            match self.repo.read_misnamed_snapshot(&one.key, hash) {
                Ok(snapshot) => {
                    found.insert(SnapshotId::from(hash), snapshot);
                }
                Err(err) if err.is_unavailable() => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(found)
    }

    fn deal_with_broken(
        &mut self,
        one: BrokenSnapshot,
        misnamed: &BTreeMap<SnapshotId, Snapshot>,
    ) -> Result<(), Error> {
        let whole = self
            .repo
            .cached_snapshot(&one.id)
            .or_else(|| misnamed.get(&one.id).cloned());
        let whole = whole.filter(|whole| {
            matches!(one.key, ObjectKey::Snapshot(_)) && whole.state != SnapshotState::Checkpoint
        });

        let mut known = self.what_is_known(&one.id);
        if let Some(snapshot) = whole {
            let id = self.put_again(&one, snapshot)?;
            known = match id {
                Some(id) => format!(
                    "an intact copy was found and is now snapshot {}",
                    id.short()
                ),
                None => "an intact copy was found".into(),
            };
        }

        if !self.options.dry_run && !self.move_aside(&one)? {
            return Ok(());
        }

        let message = format!(
            "{}; it was set aside{}{known}",
            one.what,
            if known.is_empty() { "" } else { ": " }
        );
        self.task
            .observer
            .problem(&Problem::new(Severity::Note, &one.key, message));
        self.report.set_aside.push((one.key, one.what));
        Ok(())
    }

    /// Returns the local record of a snapshot, as a clause for messages; empty if there is none.
    fn what_is_known(&self, id: &SnapshotId) -> String {
        let last = self.repo.memory().last_snapshots();
        let of: Vec<String> = last
            .iter()
            .filter(|last| last.snapshot == *id)
            .map(|last| format!("{} of host {}", last.source, last.host))
            .collect();
        if of.is_empty() {
            String::new()
        } else {
            format!("it was the last snapshot of {}", of.join(", "))
        }
    }

    /// Commits a snapshot whose object is broken again. The old name stays a root until the commit.
    fn put_again(
        &mut self,
        one: &BrokenSnapshot,
        snapshot: Snapshot,
    ) -> Result<Option<SnapshotId>, Error> {
        let found = StoredSnapshot {
            id: one.id,
            stored: one.stored,
            snapshot,
        };
        let mut replaced = ReplacedSnapshot {
            old: one.id,
            new: None,
            lost: lacks(&found.snapshot),
        };
        if !self.options.dry_run {
            let lease = self.lease(&found)?;
            replaced.new = Some(self.repo.commit(lease, found.successor())?.id);
        }
        let new = replaced.new;
        self.report.healed.push(replaced);
        Ok(new)
    }

    /// Moves an object to quarantine; returns true if it is in quarantine now.
    fn move_aside(&mut self, one: &BrokenSnapshot) -> Result<bool, Error> {
        let Some(lease) = self.lease else {
            return Ok(false);
        };
        lease.check()?;
        let to = ObjectKey::QuarantinedSnapshot(one.hash.map_or(one.id, SnapshotId::from));
        let what = match set_aside(self.repo, &one.key, &to, self.task.cancel)? {
            SetAside::Done if self.is_of_now(&to)? => {
                self.repo.memory().forget_snapshot(&one.id);
                return Ok(true);
            }
            SetAside::Done => {
                // A prune uses the object's store time to decide how long it keeps packs that only
                // this snapshot may need.
                self.repo.store().rename(&to, &one.key)?;
                "its time cannot be set: run this as its owner".to_owned()
            }
            SetAside::Taken => format!("{to} already exists with different content"),
            SetAside::Unreadable => "the store cannot rename it and it cannot be read".to_owned(),
        };

        self.report.unreadable += 1;
        let what = format!("{}; it was left in place: {what}", one.what);
        self.task
            .observer
            .problem(&Problem::new(Severity::Damage, &one.key, what));
        Ok(false)
    }

    /// Returns true if the store time of an object that was just moved to quarantine is recent.
    fn is_of_now(&self, key: &ObjectKey) -> Result<bool, Error> {
        let Some(lease) = self.lease.filter(|_| self.repo.store().properties().rename) else {
            return Ok(true);
        };
        match self.repo.store().stat(key) {
            Ok(meta) => {
                let margin = self.repo.lease_times().margin.as_secs_f64();
                Ok(lease.started().seconds_since(meta.modified) <= margin)
            }
            // Another repair has already processed it.
            Err(err) if err.is_not_found() => Ok(true),
            Err(err) => Err(RepoError::from(err).into()),
        }
    }
}
