//! Snapshots that this machine remembers and the repository lacks.
//!
//! An attacker with write access to the store can delete its newest snapshots, and so put it back
//! to an older state, without any key. So a client remembers the last snapshot of each source that
//! it committed, and the newest that it saw.
//!
//! Whenever `snapshots/` is listed, the client looks for each remembered snapshot that is not
//! listed. It may have been forgotten, set aside by a repair, or forgotten and swept by another
//! machine, which a sealed index segment then records. If it is found nowhere, it has vanished. A
//! vanished snapshot stays remembered, even after later commits, until it turns up or the user
//! acknowledges the loss.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::{RepoError, Repository, StoredSnapshot};
use crate::format::SnapshotState;
use crate::index::LastSnapshot;
use crate::store::ObjectKey;
use crate::types::{LeaseId, PrefixMatch, SegmentBody, SegmentId, SnapshotId, Timestamp};

/// The state of a remembered snapshot that a listing of `snapshots/` lacks.
enum SnapshotFate {
    /// It exists, but a listing that lags does not show it yet.
    Listed,
    /// It was deleted on purpose.
    LetGo,
    Gone,
    /// Not known, because the segments cannot be read now.
    Unknown,
}

impl Repository {
    /// Returns the vanished snapshots that no earlier call has returned, so that each is reported
    /// once per command.
    pub fn newly_vanished(&self) -> Vec<LastSnapshot> {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        self.vanished()
            .into_iter()
            .filter(|one| reported.insert(one.snapshot))
            .collect()
    }

    /// Returns the snapshots that were missing when `snapshots/` was last listed.
    pub fn vanished(&self) -> Vec<LastSnapshot> {
        self.memory().vanished_snapshots()
    }

    /// Compares a listing of `snapshots/` with the remembered snapshots.
    pub fn compare_with_memory(&self, listed: &[(SnapshotId, Timestamp)]) -> Result<(), RepoError> {
        let ids: BTreeSet<SnapshotId> = listed.iter().map(|&(id, _)| id).collect();
        let vanished = self.vanished();
        for one in vanished.iter().filter(|one| ids.contains(&one.snapshot)) {
            self.memory().clear_vanished(&one.snapshot);
        }
        for last in self.memory().last_snapshots().into_iter().chain(vanished) {
            if !ids.contains(&last.snapshot) {
                self.look_for(&last)?;
            }
        }
        Ok(())
    }

    /// Records in the index that these snapshots were deleted on purpose, so that another machine
    /// that remembers one does not report it as vanished.
    pub fn record_let_go(&self, writer: LeaseId, ids: &[SnapshotId]) -> Result<(), RepoError> {
        let superseded = ids.iter().map(record_of).collect();
        self.publish_segment(
            writer,
            &SegmentBody {
                superseded,
                ..SegmentBody::empty(writer)
            },
        )?;
        Ok(())
    }

    /// Looks for a remembered snapshot that is not listed, and records its state.
    fn look_for(&self, last: &LastSnapshot) -> Result<(), RepoError> {
        match self.fate(last)? {
            SnapshotFate::LetGo => self.memory().forget_snapshot(&last.snapshot),
            SnapshotFate::Listed => self.memory().clear_vanished(&last.snapshot),
            SnapshotFate::Gone => self.memory().mark_vanished(last),
            SnapshotFate::Unknown => {}
        }
        Ok(())
    }

    fn fate(&self, last: &LastSnapshot) -> Result<SnapshotFate, RepoError> {
        let id = last.snapshot;
        if self.is_listed(&id)? {
            return Ok(SnapshotFate::Listed);
        }
        for key in [ObjectKey::Forgotten(id), ObjectKey::QuarantinedSnapshot(id)] {
            if self.is_there(&key)? {
                return Ok(SnapshotFate::LetGo);
            }
        }
        let is_known = self.vanished().iter().any(|one| one.snapshot == id);
        for is_second_look in [false, true] {
            // Another machine's sweep may have published the record since the last sync. For a loss
            // that is already known there is no extra sync; the next regular sync finds the record.
            if is_second_look && (is_known || self.sync().is_err()) {
                return Ok(if is_known {
                    SnapshotFate::Gone
                } else {
                    SnapshotFate::Unknown
                });
            }
            if self
                .with_index(|index| index.superseder(&record_of(&id)))?
                .is_some()
            {
                return Ok(SnapshotFate::LetGo);
            }
        }
        Ok(SnapshotFate::Gone)
    }

    /// Returns the vanished snapshot whose id begins with `text`, if there is exactly one.
    pub fn vanished_named(&self, text: &str) -> Option<SnapshotId> {
        let text = text.to_ascii_lowercase();
        match PrefixMatch::find(&text, self.vanished().into_iter().map(|one| one.snapshot)) {
            PrefixMatch::One(id) if text.len() >= 4 => Some(id),
            _ => None,
        }
    }

    /// Remembers the newest committed snapshot of each source that a listing shows.
    ///
    /// This does not change the memory of this machine's own commits. A snapshot that was committed
    /// while the store's clock was behind seems older than earlier ones, and its loss would not be
    /// noticed.
    pub fn remember_newest(&self, found: &[StoredSnapshot]) {
        let known = self.memory().newest_listed();
        let mut seen = BTreeSet::new();
        let mut newest: Vec<&StoredSnapshot> = found.iter().collect();
        newest.sort_by_key(|one| std::cmp::Reverse(one.order()));

        for one in newest
            .into_iter()
            .filter(|one| one.snapshot.state != SnapshotState::Checkpoint)
        {
            for source in &one.snapshot.sources {
                if !seen.insert((one.snapshot.host.as_str(), source.name.as_str())) {
                    continue;
                }

                let is_known = known.iter().any(|last| {
                    last.host == one.snapshot.host
                        && last.source == source.name
                        && (last.snapshot == one.id || last.time > one.committed())
                });

                if !is_known {
                    self.memory().set_newest_listed(
                        &one.snapshot.host,
                        &source.name,
                        one.id,
                        one.committed(),
                    );
                }
            }
        }
    }

    /// Remembers a snapshot that was just committed as the last of its sources, unless a newer one
    /// is remembered.
    ///
    /// A copy, a re-tag or a repair has the time of its first snapshot, so that of an old snapshot
    /// does not become the last. A remembered snapshot that is overtaken is looked for first,
    /// because it may have vanished since the snapshots were listed.
    pub(super) fn remember(&self, found: &StoredSnapshot) {
        let snapshot = &found.snapshot;
        if snapshot.state == SnapshotState::Checkpoint {
            return;
        }
        let committed = self.memory().last_committed();
        let listed = self.memory().newest_listed();

        for source in &snapshot.sources {
            let of_source =
                |last: &&LastSnapshot| last.host == snapshot.host && last.source == source.name;
            let overtakes = |last: &LastSnapshot| {
                snapshot.replaces == Some(last.snapshot)
                    || snapshot
                        .committed
                        .is_none_or(|committed| committed > last.time)
            };

            let last = committed.iter().find(of_source);
            if !last.is_none_or(overtakes) {
                continue;
            }
            // It will be the newest in the next listing too, unless the store's clock is behind.
            let newest = listed.iter().find(of_source);
            let is_newest = newest.is_none_or(|newest| newest.time <= found.committed());

            let overtaken: BTreeSet<&LastSnapshot> = last
                .into_iter()
                .chain(newest.filter(|_| is_newest))
                .collect();
            // The commit has already looked for its own parents.
            for last in overtaken
                .into_iter()
                .filter(|last| !snapshot.parents.contains(&last.snapshot))
            {
                // A failure is ignored, because the snapshot is already committed. The overtaken
                // one is not looked for again.
                let _ = self.look_for(last);
            }

            let host = &snapshot.host;
            let name = &source.name;
            let time = found.committed();
            self.memory().set_last_committed(host, name, found.id, time);
            if is_newest {
                self.memory().set_newest_listed(host, name, found.id, time);
            }
        }
    }
}

/// Returns the name by which a segment's list of superseded objects records that a snapshot was
/// swept. Segments and snapshots are named by the hashes of their bytes, so no segment has this
/// name.
fn record_of(id: &SnapshotId) -> SegmentId {
    SegmentId::new(*id.as_bytes())
}
