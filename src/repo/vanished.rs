//! Snapshots that this machine remembers and the repository lacks.
//!
//! Who can write to the store can delete its newest snapshots and so put it back to an older state,
//! without any key. A client remembers the last snapshot of each source that it committed, and the
//! newest that it saw. Whenever `snapshots/` is listed, one of these that is not listed is looked
//! for: it may have been forgotten, set aside by a repair, or forgotten and swept by another
//! machine, which a sealed index segment then says. If it is nowhere, it has vanished. A vanished
//! snapshot stays remembered, whatever is committed after it, until it turns up or somebody says
//! that it need not be missed.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::{RepoError, Repository, StoredSnapshot};
use crate::format::SnapshotState;
use crate::index::LastSnapshot;
use crate::store::ObjectKey;
use crate::types::{LeaseId, PrefixMatch, SegmentBody, SegmentId, SnapshotId, Timestamp};

/// Where a remembered snapshot is that `snapshots/` does not list.
enum Fate {
    /// A listing that lags does not show it yet.
    Listed,
    /// Somebody let go of it on purpose.
    LetGo,
    Gone,
    /// The segments cannot be read now.
    Unknown,
}

impl Repository {
    /// The vanished snapshots that this call is the first to return: each is reported once in a
    /// command.
    pub fn newly_vanished(&self) -> Vec<LastSnapshot> {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        self.vanished()
            .into_iter()
            .filter(|one| reported.insert(one.snapshot))
            .collect()
    }

    /// The snapshots that were missing when `snapshots/` was last listed.
    pub fn vanished(&self) -> Vec<LastSnapshot> {
        self.memory().vanished_snapshots()
    }

    /// Compares a listing of `snapshots/` with what is remembered.
    pub fn compare_with_memory(&self, listed: &[(SnapshotId, Timestamp)]) -> Result<(), RepoError> {
        let ids: BTreeSet<SnapshotId> = listed.iter().map(|&(id, _)| id).collect();
        let vanished = self.vanished();
        for one in vanished.iter().filter(|one| ids.contains(&one.snapshot)) {
            self.memory().set_vanished(one, false);
        }
        for last in self.memory().last_snapshots().into_iter().chain(vanished) {
            if !ids.contains(&last.snapshot) {
                self.look_for(&last)?;
            }
        }
        Ok(())
    }

    /// Says in the index that these snapshots were let go on purpose: another machine that
    /// remembers one does not miss it.
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

    /// Looks for a remembered snapshot that is not listed, and notes what became of it.
    fn look_for(&self, last: &LastSnapshot) -> Result<(), RepoError> {
        match self.fate(last)? {
            Fate::LetGo => self.memory().forget_snapshot(&last.snapshot),
            Fate::Listed => self.memory().set_vanished(last, false),
            Fate::Gone => self.memory().set_vanished(last, true),
            Fate::Unknown => {}
        }
        Ok(())
    }

    fn fate(&self, last: &LastSnapshot) -> Result<Fate, RepoError> {
        let id = last.snapshot;
        if self.is_listed(&id)? {
            return Ok(Fate::Listed);
        }
        for key in [ObjectKey::Forgotten(id), ObjectKey::QuarantinedSnapshot(id)] {
            if self.is_there(&key)? {
                return Ok(Fate::LetGo);
            }
        }
        let is_known = self.vanished().iter().any(|one| one.snapshot == id);
        for is_second_look in [false, true] {
            // Another machine's sweep may have published it since the last sync. A loss that was
            // noticed before is not looked for again: whoever syncs next finds it.
            if is_second_look && (is_known || self.sync().is_err()) {
                return Ok(if is_known { Fate::Gone } else { Fate::Unknown });
            }
            if self
                .ask_index(|index| index.superseder(&record_of(&id)))?
                .is_some()
            {
                return Ok(Fate::LetGo);
            }
        }
        Ok(Fate::Gone)
    }

    /// A vanished snapshot whose id begins with `text`, if it is one.
    pub fn vanished_named(&self, text: &str) -> Option<SnapshotId> {
        let text = text.to_ascii_lowercase();
        match PrefixMatch::find(&text, self.vanished().into_iter().map(|one| one.snapshot)) {
            PrefixMatch::One(id) if text.len() >= 4 => Some(id),
            _ => None,
        }
    }

    /// Remembers the newest committed snapshot of each source, as far as a listing shows it.
    ///
    /// It takes nothing from what this machine remembers as committed by itself: a snapshot that
    /// was committed while the store's clock was behind seems older than those before it, and would
    /// not be missed.
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
    /// A copy, a re-tag or a repair has the time of its first: of an old snapshot it is not the
    /// last. One that it overtakes is looked for first: it may have vanished since the snapshots
    /// were listed.
    pub(super) fn remember(&self, found: &StoredSnapshot) {
        let snapshot = &found.snapshot;
        if snapshot.state == SnapshotState::Checkpoint {
            return;
        }
        let (committed, listed) = (
            self.memory().last_committed(),
            self.memory().newest_listed(),
        );
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
            // In the next listing too, unless the store's clock is behind.
            let newest = listed.iter().find(of_source);
            let is_newest = newest.is_none_or(|newest| newest.time <= found.committed());

            let overtaken: BTreeSet<&LastSnapshot> = last
                .into_iter()
                .chain(newest.filter(|_| is_newest))
                .collect();
            // The commit has looked for its parents already.
            for last in overtaken
                .into_iter()
                .filter(|last| !snapshot.parents.contains(&last.snapshot))
            {
                // What cannot be looked for now is looked for by nobody later; the snapshot is in
                // all the same.
                let _ = self.look_for(last);
            }
            let (host, name, time) = (&snapshot.host, &source.name, found.committed());
            self.memory().set_last_committed(host, name, found.id, time);
            if is_newest {
                self.memory().set_newest_listed(host, name, found.id, time);
            }
        }
    }
}

/// The name under which a segment's list of superseded objects tells that a snapshot was swept.
/// Segments and snapshots are named by the hashes of their bytes, so no segment has this name.
fn record_of(id: &SnapshotId) -> SegmentId {
    SegmentId::new(*id.as_bytes())
}
