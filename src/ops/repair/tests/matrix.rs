//! The damage matrix: kind of damage × object and position × next operation, including a prune.
//!
//! For each cell: no panic, no wrong bytes, verify finds the damage that matters, other data stays
//! intact, and the repair ends as the table says.

use std::collections::BTreeSet;

use super::*;
use crate::ops::prune::{PruneOptions, prune};
use crate::repo::{Lease, OnDamage, RepoError};
use crate::store::{ObjectBody, PutMode, Replica, Store};
use crate::types::{LeaseId, SegmentId};

/// A kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Delete,
    Truncate(Place),
    Flip(Place),
    Zero(Place),
    /// Swap the bytes with another object of its kind.
    Swap,
    /// Store a copy under another name.
    Duplicate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    Middle,
    Tail,
}

impl Place {
    /// Returns a position in an object of `len` bytes.
    fn at(self, len: usize) -> usize {
        match self {
            Self::Head => 9.min(len - 1),
            Self::Middle => len / 2,
            Self::Tail => len - 5,
        }
    }
}

const ACTIONS: [Action; 12] = [
    Action::Delete,
    Action::Truncate(Place::Head),
    Action::Truncate(Place::Middle),
    Action::Truncate(Place::Tail),
    Action::Flip(Place::Head),
    Action::Flip(Place::Middle),
    Action::Flip(Place::Tail),
    Action::Zero(Place::Head),
    Action::Zero(Place::Middle),
    Action::Zero(Place::Tail),
    Action::Swap,
    Action::Duplicate,
];

/// The operation after the damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Nothing,
    Backup,
    /// A mark and, more than a day later, a sweep.
    Prune,
    Repair,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Config,
    KeySlot,
    Pack,
    Segment,
    Snapshot,
    Forgotten,
    Lease,
    Parity,
}

impl Kind {
    fn of(key: &ObjectKey) -> Option<Self> {
        Some(match key {
            ObjectKey::Config(Replica::First) => Self::Config,
            ObjectKey::KeySlot(_, Replica::First) => Self::KeySlot,
            ObjectKey::Pack(_) => Self::Pack,
            ObjectKey::Segment(_) => Self::Segment,
            ObjectKey::Snapshot(_) => Self::Snapshot,
            ObjectKey::Forgotten(_) => Self::Forgotten,
            ObjectKey::Lease(_) => Self::Lease,
            ObjectKey::Parity(_) => Self::Parity,
            _ => return None,
        })
    }

    /// Returns another name for an object of this kind, or `None` if the kind has no free names.
    fn other_name(self) -> Option<ObjectKey> {
        Some(match self {
            Self::Config | Self::KeySlot => return None,
            Self::Pack => ObjectKey::Pack(PackId::new([0xd0; 32])),
            Self::Segment => ObjectKey::Segment(SegmentId::new([0xd1; 32])),
            Self::Snapshot => ObjectKey::Snapshot(SnapshotId::new([0xd2; 32])),
            Self::Forgotten => ObjectKey::Forgotten(SnapshotId::new([0xd3; 32])),
            Self::Lease => ObjectKey::Lease(LeaseId::new([0xd4; 16])),
            Self::Parity => ObjectKey::Parity(PackId::new([0xd5; 32])),
        })
    }
}

/// The table: whether verify finds the damage, and whether the repository is clean after a repair.
fn expected(kind: Kind, action: Action, parity: bool) -> (bool, bool) {
    use Action::{Delete, Duplicate};
    match (kind, action) {
        // One of two copies is left. Nothing else is lost with a lease or recovery data. Half a key
        // slot is the state after an interrupted key change.
        (Kind::KeySlot, Delete) => (false, true),
        (Kind::Config | Kind::KeySlot, _) => (true, true),
        (Kind::Lease, _) => (false, true),
        (Kind::Parity, Delete | Duplicate) => (false, true),
        (Kind::Parity, _) => (parity, true),
        // An additional pack is reported as a note and adopted; a repair detects it and moves it to
        // quarantine.
        (Kind::Pack, Duplicate) => (false, true),
        (Kind::Pack, _) => (true, true),
        // The segment's contents are recovered from the packs. A damaged segment stays in the store
        // and is reported again.
        (Kind::Segment, Delete) => (true, true),
        (Kind::Segment, _) => (true, false),
        // This machine has not seen the snapshot before, so its absence is not noticed. An
        // unreadable one is reported, and a repair moves it to quarantine.
        (Kind::Snapshot | Kind::Forgotten, Delete) => (false, true),
        (Kind::Snapshot | Kind::Forgotten, _) => (true, true),
    }
}

/// A repository with two listed snapshots, two forgotten ones, leases of other clients, and several
/// packs and segments.
fn base(parity: bool) -> (Lab, Vec<u8>) {
    let lab = if parity {
        Lab::with_parity(20)
    } else {
        Lab::new()
    };
    let stream = noise(2, 60_000);
    let repo = lab.open();
    for n in 0..4u64 {
        write(&lab.tree().join(format!("a/{n}")), &noise(10 + n, 9000));
        write(&lab.tree().join(format!("small/{n}")), &noise(20 + n, 300));
        let id = lab.backup(&repo, &stream);
        if n < 2 {
            let lease = crate::ops::testing::lease(&repo);
            repo.forget_snapshot(&lease, &id).expect("forgotten");
        }
    }
    for _ in 0..2 {
        let lease = crate::ops::testing::lease(&repo);
        let key = ObjectKey::Lease(lease.id());
        let bytes = lab.store.get(&key, 1 << 20).expect("there");
        Lease::release(lease).expect("released");
        lab.store
            .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
            .expect("put back");
    }
    (lab, stream)
}

/// Damages the object. Returns false if the action does not apply, for example without another
/// object to swap with.
fn harm(lab: &Lab, kind: Kind, key: &ObjectKey, action: Action) -> bool {
    let bytes = lab.store.get(key, 1 << 30).expect("there");
    let change = |change: &dyn Fn(&mut Vec<u8>)| lab.store.damage(key, change);

    match action {
        Action::Delete => lab.store.delete(key).expect("deleted"),
        Action::Truncate(place) => return change(&|bytes| bytes.truncate(place.at(bytes.len()))),
        Action::Flip(place) => {
            return change(&|bytes| {
                let at = place.at(bytes.len());
                bytes[at] ^= 0x10;
            });
        }
        Action::Zero(place) => {
            return change(&|bytes| {
                let at = place.at(bytes.len());
                let end = (at + 64).min(bytes.len());
                bytes[at..end].fill(0);
            });
        }
        Action::Swap => {
            let all = lab.store.objects().into_iter().map(|meta| meta.key);
            let mut others = all.filter(|other| other != key && Kind::of(other) == Some(kind));
            let Some(other) = others.next() else {
                return false;
            };
            let theirs = lab.store.get(&other, 1 << 30).expect("there");
            lab.store.damage(key, |held| held.clone_from(&theirs));
            lab.store.damage(&other, |held| held.clone_from(&bytes));
        }
        Action::Duplicate => {
            let Some(name) = kind.other_name() else {
                return false;
            };
            lab.store
                .put(&name, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
                .expect("put");
        }
    }
    true
}

/// Checks that every readable snapshot has its old contents or lists its losses. Errors are not
/// wrong bytes.
fn no_wrong_bytes(lab: &Lab, before: &BTreeMap<SnapshotId, Content>, cell: &str) {
    let repo = lab.open();
    for found in listed(&repo) {
        let Some((files, stream)) = before.get(&found.snapshot.original.unwrap_or(found.id)) else {
            continue;
        };
        let lost = found.snapshot.lost.clone().unwrap_or_default();
        let is_listed = |source: &str, path: &[u8]| {
            lost.count > 0
                && lost
                    .paths
                    .iter()
                    .any(|one| one.source == source && one.path == path)
        };

        if let Ok(bytes) = stream_of(&repo, &found) {
            assert!(
                bytes == *stream || is_listed("db", b"") && bytes.len() == stream.len(),
                "{cell}: the stream"
            );
        }

        let SourceKind::Tree { runs, .. } = &found.snapshot.source("tree").expect("it").kind else {
            panic!()
        };
        let reader = ChunkReader::new(&repo, 1 << 20);
        let Ok(mut merged) = MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail)
        else {
            continue;
        };
        while let Ok(Some(entry)) = merged.next_entry() {
            let Some(content) = entry.content() else {
                continue;
            };
            let mut bytes = Vec::new();
            let observer = Recording::default();
            if write_content(
                &reader,
                content,
                &mut bytes,
                Task::new(&observer, &Cancel::new()),
            )
            .is_ok()
            {
                let path = entry.path.to_slashed();
                let is_stale = entry.is_incomplete();
                let was = files.get(&entry.path.to_string());
                assert!(
                    was == Some(&bytes) || is_listed("tree", &path) || is_stale,
                    "{cell}: {}",
                    entry.path
                );
            }
        }
    }
}

/// Checks that complete snapshots that are not in `hit` have their old contents. Returns their
/// number.
fn the_rest_is_equal(
    lab: &Lab,
    before: &BTreeMap<SnapshotId, Content>,
    hit: &BTreeSet<SnapshotId>,
    cell: &str,
) -> usize {
    let repo = lab.open();
    let mut equal = 0;
    for found in listed(&repo)
        .iter()
        .filter(|found| found.snapshot.lost.is_none() && !hit.contains(&found.id))
    {
        let Some((files, stream)) = before.get(&found.snapshot.original.unwrap_or(found.id)) else {
            continue;
        };
        assert!(
            files_of(&repo, found) == *files,
            "{cell}: the files of {}",
            found.id.short()
        );
        assert!(
            stream_of(&repo, found).expect("read") == *stream,
            "{cell}: the stream of {}",
            found.id.short()
        );
        equal += 1;
    }
    equal
}

/// Runs all cells of a kind; returns their number.
fn run(kind: Kind, parity: bool) -> usize {
    let (lab, stream) = base(parity);
    assert_clean(&lab);
    let before = contents(&lab);
    let on_disk = files_on_disk(&lab);
    let keys: Vec<ObjectKey> = lab
        .store
        .objects()
        .into_iter()
        .map(|meta| meta.key)
        .filter(|key| Kind::of(key) == Some(kind))
        .collect();
    // Damage the first object and the largest one: of packs, these have data and metadata, old and
    // new.
    let largest = lab
        .store
        .objects()
        .into_iter()
        .filter(|meta| Kind::of(&meta.key) == Some(kind));
    let largest = largest.max_by_key(|meta| meta.size).expect("one").key;

    let mut cells = 0;
    let mut equal = 0;
    for key in [&keys[0], &largest] {
        for action in ACTIONS {
            let hurt = lab.fork();
            if !harm(&hurt, kind, key, action) {
                continue;
            }
            let cell = format!("{action:?} × {key}, parity {parity}");

            let (found, whole) = expected(kind, action, parity);
            let report = check(&hurt);
            assert_eq!(!report.is_clean(), found, "{cell}: what verify says");
            no_wrong_bytes(&hurt, &before, &cell);

            let hit = report.affected.iter().map(|one| one.snapshot).collect();
            equal += the_rest_is_equal(&hurt, &before, &hit, &cell);

            for after in [After::Nothing, After::Backup, After::Prune, After::Repair] {
                let cell = format!("{cell} × {after:?}");
                let fork = hurt.fork();
                cells += 1;

                match after {
                    After::Nothing => {}
                    After::Prune => {
                        prunes(&fork, &cell);
                        no_wrong_bytes(&fork, &before, &cell);
                        equal += the_rest_is_equal(&fork, &before, &hit, &cell);
                        let now = check(&fork).affected.into_iter().map(|one| one.snapshot);
                        assert!(
                            now.collect::<BTreeSet<_>>().is_subset(&hit),
                            "{cell}: a prune makes nothing worse"
                        );
                        // The data needed for a repair still exists.
                        run_repairs(&fork.open()).unwrap_or_else(|err| panic!("{cell}: {err}"));
                        assert!(
                            check(&fork).affected.is_empty(),
                            "{cell}: repaired behind the prune"
                        );
                    }
                    After::Backup => backs_up(&lab, &fork, &stream, &on_disk, &cell),
                    After::Repair => {
                        run_repairs(&fork.open()).unwrap_or_else(|err| panic!("{cell}: {err}"));
                        no_wrong_bytes(&fork, &before, &cell);
                        let report = check(&fork);
                        assert_eq!(report.is_clean(), whole, "{cell}: {report:#?}");
                        assert!(report.affected.is_empty(), "{cell}: {report:#?}");

                        the_rest_is_equal(&fork, &before, &BTreeSet::new(), &cell);
                        // A repaired repository frees space again, unless an object cannot be read
                        // at all.
                        assert!(prunes(&fork, &cell) || !whole, "{cell}: pruned");
                        the_rest_is_equal(&fork, &before, &BTreeSet::new(), &cell);

                        backs_up(&lab, &fork, &stream, &on_disk, &cell);
                        run_repairs(&fork.open()).unwrap_or_else(|err| panic!("{cell}: {err}"));
                        // The sweep deletes an unreadable forgotten snapshot.
                        let is_clean = whole || kind == Kind::Forgotten;
                        assert_eq!(check(&fork).is_clean(), is_clean, "{cell}: after healing");
                    }
                }
            }
        }
        if keys.len() == 1 {
            break;
        }
    }
    assert!(equal > 0, "no snapshot was spared in {cells} cells");
    cells
}

/// Prunes twice, with time in between. Returns true if both succeeded; a prune may refuse and must
/// then change nothing.
fn prunes(fork: &Lab, cell: &str) -> bool {
    let repo = fork.open();
    let mut through = true;
    for _ in 0..2 {
        fork.store.clock().advance(30 * 3600);
        match prune(
            &repo,
            &PruneOptions::default(),
            Task::new(&Recording::default(), &Cancel::new()),
        ) {
            Ok(_) => {}
            Err(crate::Error::Unresolved { .. }) => through = false,
            Err(crate::Error::Repo(err)) if err.is_damage() => through = false,
            Err(err) => panic!("{cell}: {err}"),
        }
    }
    through
}

/// Checks that a backup succeeds and that its snapshot has the files on disk.
fn backs_up(lab: &Lab, fork: &Lab, stream: &[u8], on_disk: &BTreeMap<String, Vec<u8>>, cell: &str) {
    let repo = fork.open();
    let id = lab.backup(&repo, stream);
    let found = repo.read_snapshot(&id).expect("just committed");
    let found = StoredSnapshot {
        id,
        stored: found.started,
        snapshot: found,
    };
    match stream_of(&repo, &found) {
        Ok(bytes) => assert!(bytes == stream, "{cell}: the new stream"),
        // The new stream may share chunks with damage that was not detected yet.
        Err(err) => assert!(
            matches!(&err, crate::Error::Repo(err) if is_unfound(err)),
            "{cell}: {err}"
        ),
    }
    let SourceKind::Tree { runs, .. } = &found.snapshot.source("tree").expect("it").kind else {
        panic!()
    };
    let reader = ChunkReader::new(&repo, 1 << 20);
    if MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail).is_ok()
        && check(fork).affected.is_empty()
    {
        assert!(files_of(&repo, &found) == *on_disk, "{cell}: the new files");
    }
}

fn is_unfound(err: &RepoError) -> bool {
    err.is_damage()
}

#[test]
fn packs_without_recovery_data() {
    assert!(run(Kind::Pack, false) >= 60);
}

#[test]
fn packs_with_recovery_data() {
    assert!(run(Kind::Pack, true) >= 60);
}

#[test]
fn recovery_data() {
    assert!(run(Kind::Parity, true) >= 60);
}

#[test]
fn segments() {
    assert!(run(Kind::Segment, false) >= 60);
}

#[test]
fn snapshots_and_forgotten_ones() {
    assert!(run(Kind::Snapshot, false) >= 60);
    assert!(run(Kind::Forgotten, false) >= 60);
}

#[test]
fn config_key_slots_and_leases() {
    assert!(run(Kind::Config, false) >= 30);
    assert!(run(Kind::KeySlot, false) >= 30);
    assert!(run(Kind::Lease, false) >= 60);
}
