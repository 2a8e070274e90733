//! Checks of single objects: config, key slots, snapshots, segments, and whether the held packs are
//! in the store.

use std::collections::{BTreeSet, HashMap};

use super::damage::{FoundDamage, PackDamage};
use super::report::{FindingKind, VerifyReport};
use crate::Error;
use crate::advice::{Advice, PruneAdvice, RepairAdvice, SnapshotAdvice};
use crate::chunk::object_hash;
use crate::format::{
    ObjectKind, SEGMENT_BYTES_MAX, SNAPSHOT_BYTES_MAX, decode_config, decode_key_slot,
    decode_segment, decode_snapshot, encode_directory,
};
use crate::index::{Index, PackRow, PackState};
use crate::observe::{Observer, Problem, Severity};
use crate::ops::packs::ListedPacks;
use crate::read::fetch::with_sources;
use crate::repo::{Repository, StoredSnapshot, open_object, stored_limit};
use crate::store::{ObjectDir, ObjectKey, Replica, StoreError, list_all};
use crate::task::{Cancel, Task};
use crate::types::{ByteSize, PackId, PackInfo, SnapshotId, Timestamp, to_u64};

const SMALL_BYTES_MAX: u64 = 64 << 10;

/// State of the repository's objects.
#[derive(Debug)]
pub(super) struct ListedObjects {
    pub report: VerifyReport,
    /// Snapshots that open, newest first.
    pub snapshots: Vec<StoredSnapshot>,
    /// A hash of each pack's frames and chunks as the segments list them.
    pub digests: HashMap<PackId, [u8; 32]>,
    /// Held packs in the store, and their sizes there.
    pub packs: Vec<(PackRow, u64)>,
    /// Number of dropped packs in the store.
    dropped_and_there: u64,
}

impl ListedObjects {
    /// Starts with these snapshots and no other information.
    pub fn of(snapshots: Vec<StoredSnapshot>) -> Self {
        Self {
            report: VerifyReport::default(),
            snapshots,
            digests: HashMap::new(),
            packs: Vec::new(),
            dropped_and_there: 0,
        }
    }

    /// Checks all objects except packs. Snapshots are listed before segments, so that the segments
    /// include everything that a listed snapshot needs.
    pub fn check(repo: &Repository, task: Task<'_>) -> Result<Self, Error> {
        let mut objects = Self::of(Vec::new());
        objects.check_config(repo)?;
        objects.check_slots(repo, task.observer)?;
        objects.check_snapshots(repo, task.cancel)?;
        let sync = repo.sync()?;
        if sync.rebuilt {
            task.observer.problem(&Problem::new(
                Severity::Note,
                "the index",
                "it was damaged and has been rebuilt",
            ));
        }
        objects.check_segments(repo, task.cancel)?;
        Ok(objects)
    }

    fn check_config(&mut self, repo: &Repository) -> Result<(), Error> {
        for copy in [Replica::First, Replica::Second] {
            let key = ObjectKey::Config(copy);
            let what = match small(repo, &key)? {
                Err(what) => what,
                Ok(bytes) => match decode_config(&bytes) {
                    Ok((_, under, mac)) if repo.keys().config_mac_agrees(under, &mac) => continue,
                    Ok(_) => "its MAC is wrong".to_owned(),
                    Err(err) => err.to_string(),
                },
            };
            self.report.find_with(
                kind_of(&what, FindingKind::ConfigDamaged),
                &key,
                what,
                Some(Advice::Repair(RepairAdvice::RepairConfig)),
            );
        }
        Ok(())
    }

    /// Checks both copies of each key slot.
    ///
    /// A missing copy is only a note while the other one is undamaged: an interrupted key command
    /// leaves this state, and either copy opens.
    fn check_slots(&mut self, repo: &Repository, observer: &dyn Observer) -> Result<(), Error> {
        let mut names = BTreeSet::new();
        for meta in list_all(repo.store(), ObjectDir::Keys)? {
            if let ObjectKey::KeySlot(name, _) = meta.key {
                names.insert(name);
            }
        }

        for name in names {
            let mut whole = Vec::new();
            let mut missing = Vec::new();
            for copy in [Replica::First, Replica::Second] {
                let key = ObjectKey::KeySlot(name.clone(), copy);
                let slot = small(repo, &key)?.and_then(|bytes| {
                    decode_key_slot(&bytes)
                        .map(|_| bytes)
                        .map_err(|err| err.to_string())
                });
                match slot {
                    Ok(bytes) => whole.push(bytes),
                    Err(what) => missing.push((key, what)),
                }
            }

            for (key, what) in missing {
                let only_missing = what == MISSING && !whole.is_empty();
                let (kind, what, advice) = if whole.is_empty() {
                    (
                        FindingKind::KeySlotLost,
                        format!("{what}; neither copy is intact"),
                        Advice::Repair(RepairAdvice::RemoveKeySlot { name: name.clone() }),
                    )
                } else {
                    (
                        FindingKind::KeySlotDamaged,
                        what,
                        Advice::Repair(RepairAdvice::RepairConfig),
                    )
                };

                if only_missing {
                    let problem = Problem::new(Severity::Note, key, what);
                    observer.problem(&problem.with_advice(advice));
                } else {
                    let kind = kind_of(&what, kind);
                    self.report.find_with(kind, &key, what, Some(advice));
                }
            }
            // The sealed content of a slot cannot be checked without its passphrase, but the two
            // copies can be compared.
            if let [first, second] = whole.as_slice()
                && first != second
            {
                let key = ObjectKey::KeySlot(name, Replica::First);
                let what = "its two copies differ: one of them does not open";
                let advice = Some(Advice::Repair(RepairAdvice::RepairOwnKeySlot));
                self.report
                    .find_with(FindingKind::KeySlotDamaged, key, what, advice);
            }
        }
        Ok(())
    }

    fn check_snapshots(&mut self, repo: &Repository, cancel: &Cancel) -> Result<(), Error> {
        let listed = repo.listed_snapshots()?;
        let forgotten = list_all(repo.store(), ObjectDir::Forgotten)?;
        for &(id, stored) in &listed {
            cancel.check()?;
            self.check_snapshot(repo, ObjectKey::Snapshot(id), Some((id, stored)))?;
        }
        for meta in &forgotten {
            cancel.check()?;
            self.check_snapshot(repo, meta.key.clone(), None)?;
        }
        self.snapshots.reverse();
        self.report.snapshots = to_u64(self.snapshots.len());
        self.report_vanished(repo);
        Ok(())
    }

    /// Reports snapshots that landed after their lease had ended and that need missing data; a late
    /// snapshot that lacks nothing is not reported. `suspects`: the sources that need missing data.
    pub fn report_late(
        &mut self,
        repo: &Repository,
        suspects: &[(SnapshotId, usize)],
        observer: &dyn Observer,
    ) {
        crate::read::report_times(repo, &self.snapshots, observer);
        let times = repo.lease_times();
        for found in self
            .snapshots
            .iter()
            .filter(|found| found.landed_late(&times))
        {
            if suspects.iter().any(|(id, _)| *id == found.id) {
                let what = "it landed after its lease had expired: a prune may have deleted data that it needs, and \
                            no backup uses it as a parent";
                self.report.find(
                    FindingKind::LateSnapshot,
                    ObjectKey::Snapshot(found.id),
                    what,
                );
            }
        }
    }

    /// Checks a snapshot as the store has it, never a cached copy.
    fn check_snapshot(
        &mut self,
        repo: &Repository,
        key: ObjectKey,
        listed: Option<(SnapshotId, Timestamp)>,
    ) -> Result<(), Error> {
        let limit = stored_limit(SNAPSHOT_BYTES_MAX);
        let Some(bytes) = self.fetch(repo, &key, limit)? else {
            return Ok(());
        };

        let opened = open_object(
            repo.keys(),
            ObjectKind::Snapshot,
            &key,
            &bytes,
            SNAPSHOT_BYTES_MAX,
        );
        let snapshot = opened
            .map_err(|err| (FindingKind::SealBroken, err.to_string()))
            .and_then(|(_, plain)| {
                decode_snapshot(&plain)
                    .map_err(|err| (FindingKind::ObjectUnreadable, err.to_string()))
            });

        match (snapshot, listed) {
            (Ok(snapshot), Some((id, stored))) => {
                self.snapshots.push(StoredSnapshot {
                    id,
                    stored,
                    snapshot,
                });
            }
            (Ok(_), None) => {}
            (Err((kind, what)), _) => {
                self.report.find(
                    kind,
                    &key,
                    format!("{what}; this snapshot cannot be restored"),
                );
            }
        }
        Ok(())
    }

    fn report_vanished(&mut self, repo: &Repository) {
        // Each is a finding here, so clear the list to avoid a repeated warning.
        let _ = repo.newly_vanished();
        for last in repo.vanished() {
            let what = format!(
                "the last snapshot of {} on host {} that this machine saw is gone and was not forgotten",
                last.source, last.host
            );
            let id = last.snapshot.short().to_string();
            self.report.find_with(
                FindingKind::SnapshotVanished,
                ObjectKey::Snapshot(last.snapshot),
                what,
                Some(Advice::Snapshot(SnapshotAdvice::ForgetVanished { id })),
            );
        }
    }

    fn check_segments(&mut self, repo: &Repository, cancel: &Cancel) -> Result<(), Error> {
        for id in repo.listed_segments()? {
            cancel.check()?;
            let key = ObjectKey::Segment(id);
            let Some(bytes) = self.fetch(repo, &key, stored_limit(SEGMENT_BYTES_MAX))? else {
                continue;
            };
            self.report.segments += 1;

            let opened = open_object(
                repo.keys(),
                ObjectKind::Segment,
                &key,
                &bytes,
                SEGMENT_BYTES_MAX,
            );
            let body = opened
                .map_err(|err| (FindingKind::SealBroken, err.to_string()))
                .and_then(|(_, plain)| {
                    decode_segment(&plain)
                        .map_err(|err| (FindingKind::ObjectUnreadable, err.to_string()))
                });

            match body {
                Ok(body) => body
                    .packs
                    .iter()
                    .for_each(|pack| self.note_pack(&key, pack)),
                Err((kind, what)) => {
                    self.report.find_with(
                        kind,
                        &key,
                        what,
                        Some(Advice::Repair(RepairAdvice::RebuildIndex)),
                    );
                }
            }
        }
        Ok(())
    }

    fn note_pack(&mut self, segment: &ObjectKey, pack: &PackInfo) {
        let digest = digest(pack);
        let first_digest = *self.digests.entry(pack.id).or_insert(digest);
        if first_digest != digest {
            let what = format!(
                "its record of {} differs from another segment's",
                ObjectKey::Pack(pack.id)
            );
            self.report
                .find(FindingKind::DirectoryMismatch, segment, what);
        }
    }

    /// Reads an object that is named by its content.
    ///
    /// Returns `None` if it was deleted since the listing. Also returns `None`, and adds a finding,
    /// if its size is wrong, its bytes do not hash to its name, or it cannot be read now.
    fn fetch(
        &mut self,
        repo: &Repository,
        key: &ObjectKey,
        limit: u64,
    ) -> Result<Option<Vec<u8>>, Error> {
        let name = match key {
            ObjectKey::Segment(id) => id.as_bytes(),
            ObjectKey::Snapshot(id) | ObjectKey::Forgotten(id) => id.as_bytes(),
            _ => return Ok(None),
        };

        match repo.store().get(key, limit) {
            Ok(bytes) if object_hash(&bytes).as_bytes() == name => Ok(Some(bytes)),
            Ok(_) => {
                let (what, advice) = match key {
                    ObjectKey::Segment(_) => (
                        "its bytes do not hash to its name",
                        Some(Advice::Repair(RepairAdvice::RebuildIndex)),
                    ),
                    _ => (
                        "its bytes do not hash to its name; this snapshot cannot be restored",
                        None,
                    ),
                };
                self.report
                    .find_with(FindingKind::HashMismatch, key, what, advice);
                Ok(None)
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(err @ (StoreError::TooLong { .. } | StoreError::Short { .. })) => {
                self.report.find(FindingKind::WrongSize, key, err);
                Ok(None)
            }
            Err(err) if err.is_unreadable_now() => {
                self.report
                    .find(FindingKind::UnreadableNow, key, with_sources(&err));
                Ok(None)
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Lists the packs and compares them with the held packs. A pack that seems to be missing is
    /// looked up again after another sync: a prune may have dropped it.
    pub fn check_packs(
        &mut self,
        repo: &Repository,
        damage: &mut FoundDamage,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        cancel.check()?;
        let mut listed = ListedPacks::list(repo)?;
        self.report.packs_listed = to_u64(listed.len());

        let is_held = |pack: &PackRow| pack.added && pack.state != PackState::Dropped;
        let mut packs = repo.with_index(Index::packs)?;
        if packs
            .iter()
            .any(|pack| is_held(pack) && !listed.has(&pack.id))
        {
            repo.sync()?;
            packs = repo.with_index(Index::packs)?;
        }

        self.packs.clear();
        self.dropped_and_there = 0;
        for pack in packs {
            if !is_held(&pack) {
                self.dropped_and_there +=
                    u64::from(pack.state == PackState::Dropped && listed.has(&pack.id));
                listed.forget(&pack.id);
                continue;
            }

            match listed.take(repo, &pack.id)? {
                Some(size) => {
                    self.check_size(repo, damage, &pack, size)?;
                    self.packs.push((pack, size));
                }
                // A repair found it damaged or missing, saved all readable chunks and condemned it.
                None if pack.state == PackState::Condemned => {
                    damage.add(
                        pack.id,
                        PackDamage {
                            gone: true,
                            ..PackDamage::default()
                        },
                    );
                }
                None => {
                    self.report.find(
                        FindingKind::ObjectMissing,
                        ObjectKey::Pack(pack.id),
                        format!("{} chunks are gone with it", pack.chunks),
                    );
                    damage.add(
                        pack.id,
                        PackDamage {
                            missing: true,
                            ..PackDamage::default()
                        },
                    );
                }
            }
        }

        self.report.orphan_packs = to_u64(listed.len());
        Ok(())
    }

    fn check_size(
        &mut self,
        repo: &Repository,
        damage: &mut FoundDamage,
        pack: &PackRow,
        size: u64,
    ) -> Result<(), Error> {
        if size == pack.size {
            return Ok(());
        }

        let mut cut = PackDamage::default();
        for number in 0..pack.frames {
            let frame = repo.with_index(|index| index.frame(&pack.id, number))?;
            if frame
                .and_then(|frame| frame.end())
                .is_none_or(|end| end.get() > size)
            {
                cut.frames.insert(number);
            }
        }

        let what = format!(
            "it has {size} bytes in the store, {} in the index; {} of {} frames are past its end",
            pack.size,
            cut.frames.len(),
            pack.frames
        );
        self.report
            .find(FindingKind::WrongSize, ObjectKey::Pack(pack.id), what);
        damage.add(pack.id, cut);
        Ok(())
    }

    /// Reports dropped packs in the store, for the case that snapshots lack data: these packs may
    /// have it.
    pub fn report_dropped(&self, observer: &dyn Observer) {
        if self.dropped_and_there > 0 {
            let what = format!(
                "{} were dropped by a prune, perhaps in another copy of the repository, and still exist",
                self.dropped_and_there
            );
            let problem = Problem::new(Severity::Note, ObjectDir::Packs.name(), what);
            observer.problem(&problem.with_advice(Advice::Repair(RepairAdvice::StoreDroppedAgain)));
        }
    }

    /// Reports the traces of earlier repairs: repaired snapshots, packs without recovery data,
    /// objects in quarantine.
    pub fn report_repairs(&self, repo: &Repository, observer: &dyn Observer) -> Result<(), Error> {
        for found in &self.snapshots {
            if let Some(lost) = &found.snapshot.lost {
                let what = format!("it was repaired: {} of its paths lack data", lost.count);
                observer.problem(&Problem::new(
                    Severity::Note,
                    ObjectKey::Snapshot(found.id),
                    what,
                ));
            }
        }

        self.report_parity(repo, observer)?;

        let aside = list_all(repo.store(), ObjectDir::Quarantine)?;
        if !aside.is_empty() {
            let bytes = ByteSize(aside.iter().map(|meta| meta.size).sum());
            let objects = if aside.len() == 1 {
                "1 object was".to_owned()
            } else {
                format!("{} objects were", aside.len())
            };
            let what = format!("{objects} set aside by repairs ({bytes})");
            let problem = Problem::new(Severity::Note, ObjectDir::Quarantine.name(), what);
            observer.problem(&problem.with_advice(Advice::Prune(PruneAdvice::PruneQuarantine)));
        }
        Ok(())
    }

    /// Reports how many packs lack recovery data, if the repository is configured to have it.
    fn report_parity(&self, repo: &Repository, observer: &dyn Observer) -> Result<(), Error> {
        if repo.config().parity.is_none() {
            return Ok(());
        }
        let mut there = BTreeSet::new();
        for meta in list_all(repo.store(), ObjectDir::Parity)? {
            if let ObjectKey::Parity(id) = meta.key {
                there.insert(id);
            }
        }
        let known = self
            .packs
            .iter()
            .filter(|(pack, _)| pack.state == PackState::Known);
        let bare = known.filter(|(pack, _)| !there.contains(&pack.id)).count();
        if bare > 0 {
            let what = format!("{bare} packs have no recovery data");
            let problem = Problem::new(Severity::Note, ObjectDir::Parity.name(), what);
            observer.problem(&problem.with_advice(Advice::Repair(RepairAdvice::WriteParity)));
        }
        Ok(())
    }

    pub fn report_orphans(&self, observer: &dyn Observer) {
        if self.report.orphan_packs > 0 {
            let what = format!(
                "{} are in no index segment: left by an interrupted writer or written by an active one",
                self.report.orphan_packs
            );
            observer.problem(&Problem::new(Severity::Note, "packs", what));
        }
    }
}

/// Returns a hash of a pack's frames and chunks as a segment or a directory lists them.
pub(in crate::ops) fn digest(pack: &PackInfo) -> [u8; 32] {
    *object_hash(&encode_directory(&pack.frames)).as_bytes()
}

const MISSING: &str = "it is missing";
const UNREADABLE: &str = "it cannot be read now";

fn kind_of(what: &str, otherwise: FindingKind) -> FindingKind {
    if what.starts_with(UNREADABLE) {
        FindingKind::UnreadableNow
    } else {
        otherwise
    }
}

/// Returns the bytes of a small object, or a description of the problem with it.
fn small(repo: &Repository, key: &ObjectKey) -> Result<Result<Vec<u8>, String>, Error> {
    match repo.store().get(key, SMALL_BYTES_MAX) {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(StoreError::NotFound { .. }) => Ok(Err(MISSING.into())),
        Err(err @ (StoreError::TooLong { .. } | StoreError::Short { .. })) => {
            Ok(Err(err.to_string()))
        }
        Err(err) if err.is_unreadable_now() => {
            Ok(Err(format!("{UNREADABLE}: {}", with_sources(&err))))
        }
        Err(err) => Err(err.into()),
    }
}
