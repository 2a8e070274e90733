//! Tests of prune: it frees unneeded data and never deletes needed data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::ErrorKind;
use crate::advice::RepairAdvice;
use crate::dest::OwnerPolicy;
use crate::observe::{Counters, Recording};
use crate::ops::restore::{RestoreOptions, RestoreTarget, SnapshotPath, restore};
use crate::ops::testing::{Lab, noise, write};
use crate::ops::verify::{VerifyOptions, verify};
use crate::repo::Secret;
use crate::store::{
    Fault, FaultEffect, FaultyStore, InjectedError, KeyKind, ObjectBody, ObjectDir, ObjectKey,
    PutMode, SharedStore, Store, StoreOperation, list_all,
};
use crate::task::Cancel;
use crate::types::{ByteSize, RelPath, SnapshotId};

pub(super) const HOUR: i64 = 3600;
pub(super) const DAY: i64 = 24 * HOUR;

pub(super) fn options() -> PruneOptions {
    PruneOptions::default()
}

pub(super) fn run(repo: &Repository, options: &PruneOptions) -> PruneReport {
    prune(
        repo,
        options,
        Task::new(&Counters::default(), &Cancel::new()),
    )
    .expect("pruned")
}

/// Forgets a snapshot in the same steps as `forget`.
pub(super) fn forget(store: &dyn Store, id: SnapshotId) {
    let bytes = store.get(&ObjectKey::Snapshot(id), 1 << 20).expect("there");
    store
        .put(
            &ObjectKey::Forgotten(id),
            ObjectBody::Bytes(&bytes),
            PutMode::CreateOnly,
        )
        .expect("put");
    store.delete(&ObjectKey::Snapshot(id)).expect("deleted");
}

/// Asserts that nothing is missing and that every byte is right.
pub(super) fn assert_sound(repo: &Repository) {
    let options = VerifyOptions {
        read_data: true,
        ..VerifyOptions::default()
    };
    let report = verify(
        repo,
        &options,
        Task::new(&Counters::default(), &Cancel::new()),
    )
    .expect("verified");
    assert_eq!((report.findings, report.affected), (vec![], vec![]));
}

/// Returns the files of a snapshot's tree, by path.
pub(super) fn files(repo: &Repository, id: SnapshotId) -> BTreeMap<String, Vec<u8>> {
    let directory = tempfile::tempdir().expect("a directory");
    let what = SnapshotPath {
        snapshot: id.to_string(),
        source: Some("tree".into()),
        path: RelPath::root(),
    };
    let target = RestoreTarget::Directory(directory.path().join("t"));
    let options = RestoreOptions {
        owner: OwnerPolicy::Keep,
        ..RestoreOptions::default()
    };
    let report = restore(
        repo,
        &what,
        target,
        &options,
        Task::new(&Counters::default(), &Cancel::new()),
    );
    assert!(report.expect("restored").is_complete());
    read_files(&directory.path().join("t"))
}

pub(super) fn read_files(at: &std::path::Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for file in std::fs::read_dir(at).expect("listed") {
        let file = file.expect("listed");
        let name = file.file_name().to_string_lossy().into_owned();
        if file.file_type().expect("stat").is_dir() {
            let below = read_files(&file.path());
            out.extend(
                below
                    .into_iter()
                    .map(|(path, bytes)| (format!("{name}/{path}"), bytes)),
            );
        } else {
            out.insert(name, std::fs::read(file.path()).expect("read"));
        }
    }
    out
}

/// Makes two backups. Only the first one has the file `old`.
pub(super) fn two_backups(lab: &Lab, repo: &Repository) -> (SnapshotId, SnapshotId) {
    write(&lab.tree().join("kept"), &noise(1, 300_000));
    write(&lab.tree().join("old"), &noise(2, 3_000_000));
    let first = lab.backup(repo, b"");
    lab.store.clock().advance(HOUR);
    std::fs::remove_file(lab.tree().join("old")).expect("removed");
    write(&lab.tree().join("new"), &noise(3, 300_000));
    (first, lab.backup(repo, b""))
}

#[test]
fn unneeded_data_is_deleted_in_two_steps_a_grace_apart() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, second) = two_backups(&lab, &repo);
    let before = lab.store.total_bytes();
    lab.store.clock().advance(2 * DAY);
    forget(&*lab.store, first);

    // The snapshot was forgotten just now, so everything is still live.
    let report = run(&repo, &options());
    assert_eq!(
        (report.condemned.packs, report.forgotten_deleted),
        (0, 0),
        "{report:?}"
    );

    lab.store.clock().advance(DAY + HOUR);
    let report = run(&repo, &options());
    assert!(
        report.condemned.packs > 0 && report.dropped.packs == 0,
        "{report:?}"
    );
    assert_eq!(report.forgotten_deleted, 1);
    assert!(report.pending_until.is_some() && report.kept_waiting == [WaitReason::Grace]);
    assert_sound(&repo);

    lab.store.clock().advance(DAY - HOUR);
    assert_eq!(
        run(&repo, &options()).dropped.packs,
        0,
        "the grace has not passed"
    );
    lab.store.clock().advance(2 * HOUR);
    let report = run(&repo, &options());
    assert!(report.dropped.bytes > 3_000_000, "{report:?}");
    assert!(lab.store.total_bytes() < before - 2_500_000);
    assert_sound(&repo);

    let held = files(&repo, second);
    assert_eq!(held, read_files(&lab.tree()));
    assert!(
        run(&repo, &options()).condemned.packs == 0,
        "nothing is left to do"
    );
}

#[test]
fn now_frees_forgotten_data_at_once_if_no_other_lease_is_held() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, second) = two_backups(&lab, &repo);
    forget(&*lab.store, first);
    let now = PruneOptions {
        now: true,
        ..options()
    };
    let report = run(&repo, &now);
    assert!(
        report.dropped.bytes > 3_000_000 && report.forgotten_deleted == 1,
        "{report:?}"
    );
    assert_eq!((report.pending.packs, report.kept_waiting.len()), (0, 0));
    assert!(
        lab.store.total_bytes() < 1_000_000,
        "{}",
        lab.store.total_bytes()
    );
    assert_sound(&repo);
    assert_eq!(files(&repo, second), read_files(&lab.tree()));
}

#[test]
fn a_prune_that_dies_at_any_write_loses_nothing() {
    let lab = Lab::new();
    let (first, second) = two_backups(&lab, &lab.open());
    forget(&*lab.store, first);
    let expected = read_files(&lab.tree());
    for now in [true, false] {
        let prune_options = PruneOptions { now, ..options() };
        for writes in 0.. {
            let lab = lab.fork();
            // The clock of a fork starts at this machine's time.
            lab.store.clock().advance(2 * HOUR);

            let faulty = Arc::new(FaultyStore::new(lab.store.clone()));
            let store: SharedStore = faulty.clone();
            let caches = tempfile::tempdir().expect("a directory");
            let repo = Repository::open(store, &Secret::empty(), caches.path()).expect("opens");
            if !now {
                // A mark, then the sweep that dies.
                lab.store.clock().advance(2 * DAY);
                run(&repo, &prune_options);
                lab.store.clock().advance(2 * DAY);
            }

            faulty.die_after_writes(writes);
            let result = prune(
                &repo,
                &prune_options,
                Task::new(&Counters::default(), &Cancel::new()),
            );
            let has_died = faulty.is_dead();
            drop(repo);
            let repo = lab.open();
            assert_sound(&repo);
            assert_eq!(files(&repo, second), expected, "after {writes} writes");

            // The first prune adopts an orphan, the second condemns it, the third drops it.
            for _ in 0..3 {
                lab.store.clock().advance(2 * DAY);
                run(&repo, &options());
                assert_eq!(
                    files(&repo, second),
                    expected,
                    "after {writes} writes and another prune"
                );
            }
            assert_sound(&repo);
            assert!(
                lab.store.total_bytes() < 1_000_000,
                "{} after {writes} writes",
                lab.store.total_bytes()
            );

            if !has_died {
                result.expect("pruned");
                assert!(writes > 5, "it wrote {writes} times");
                break;
            }
        }
    }
}

#[test]
fn nothing_is_deleted_while_a_snapshot_lacks_data() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, _) = two_backups(&lab, &repo);
    let packs = list_all(&*lab.store, ObjectDir::Packs).expect("listed");
    // The pack of the second backup.
    let newest = packs
        .iter()
        .max_by_key(|meta| meta.modified)
        .expect("some")
        .key
        .clone();
    lab.store.delete(&newest).expect("lost");
    forget(&*lab.store, first);

    let before = lab.store.objects();
    let observer = Recording::default();
    let now = PruneOptions {
        now: true,
        ..options()
    };
    let err = prune(&repo, &now, Task::new(&observer, &Cancel::new())).expect_err("refused");
    assert_eq!(err.kind(), ErrorKind::Damage, "{err}");
    assert_eq!(
        err.advice(),
        Some(Advice::Repair(RepairAdvice::RepairPacksAndSnapshots))
    );
    assert!(!observer.problems().is_empty());
    assert_eq!(
        lab.store.objects(),
        before,
        "the lease is gone, nothing else was touched"
    );
}

#[test]
fn a_dry_run_writes_nothing_and_reports_the_same_as_a_run() {
    let lab = Lab::new();
    // Without a lease the time is this machine's.
    lab.store.clock().advance(-2 * HOUR);
    let repo = lab.open();
    let (first, _) = two_backups(&lab, &repo);
    forget(&*lab.store, first);
    let before = lab.store.objects();

    let now = PruneOptions {
        now: true,
        ..options()
    };
    let dry = run(
        &repo,
        &PruneOptions {
            dry_run: true,
            ..now.clone()
        },
    );
    assert_eq!(lab.store.objects(), before);

    let store: SharedStore = Arc::new(crate::store::ReadOnlyStore::new(lab.store.clone()));
    let caches = tempfile::tempdir().expect("a directory");
    let reading = Repository::open(store, &Secret::empty(), caches.path()).expect("opens");
    let options = PruneOptions {
        dry_run: true,
        ..now.clone()
    };
    assert_eq!(
        run(&reading, &options),
        dry,
        "the same on a store that cannot be written"
    );
    let err = prune(
        &reading,
        &now,
        Task::new(&Counters::default(), &Cancel::new()),
    )
    .expect_err("refused");
    assert!(err.to_string().contains("read-only"), "{err}");

    let real = run(&repo, &now);
    assert_eq!(
        (dry.condemned, dry.live, dry.dead),
        (real.condemned, real.live, real.dead)
    );
    assert_eq!(
        (dry.copied.packs, dry.forgotten_deleted),
        (real.copied.packs, real.forgotten_deleted)
    );
}

#[test]
fn copying_keeps_within_its_bound() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, _) = two_backups(&lab, &repo);
    forget(&*lab.store, first);
    let copy = |max| {
        let lab = lab.fork();
        lab.store.clock().advance(2 * HOUR);
        let options = PruneOptions {
            now: true,
            max_repack: Some(ByteSize(max)),
            ..options()
        };
        let report = run(&lab.open(), &options);
        assert_sound(&lab.open());
        (report.copied, report.copy_stopped)
    };
    assert_eq!(
        copy(1000),
        (PackAmount::default(), Some(CopyStop::MaxRepack))
    );
    let (copied, stopped) = copy(400_000);
    assert!(copied.packs == 1 && copied.bytes <= 400_000, "{copied:?}");
    assert_eq!(stopped, Some(CopyStop::MaxRepack));
    assert_eq!(copy(10_000_000).1, None);
}

#[test]
fn packs_that_need_no_copy_are_deleted_on_a_full_disk() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, second) = two_backups(&lab, &repo);
    // A pack that no snapshot needs, beside those that must be copied first.
    crate::ops::testing::write_runs(
        &repo,
        &crate::ops::testing::lease(&repo),
        &[],
        &[&noise(9, 1_000_000)],
    );

    forget(&*lab.store, first);
    drop(repo);
    let faulty = Arc::new(FaultyStore::new(lab.store.clone()));
    let store: SharedStore = faulty.clone();
    let caches = tempfile::tempdir().expect("a directory");
    let repo = Repository::open(store, &Secret::empty(), caches.path()).expect("opens");

    let full = FaultEffect::ErrorBefore(InjectedError::Full);
    faulty.plan(Fault {
        operation: StoreOperation::Put,
        kind: Some(KeyKind::Pack),
        nth: 1,
        effect: full,
    });
    faulty.plan(Fault {
        operation: StoreOperation::Put,
        kind: Some(KeyKind::Pack),
        nth: 2,
        effect: full,
    });

    let now = PruneOptions {
        now: true,
        ..options()
    };
    let report = run(&repo, &now);
    faulty.assert_all_fired();
    assert_eq!(
        (report.copy_stopped, report.dropped.packs),
        (Some(CopyStop::Full), 1),
        "{report:?}"
    );
    assert!(report.freed_bytes > 1_000_000);

    let report = run(&repo, &now);
    assert_eq!(
        (report.copy_stopped, report.dropped.packs),
        (None, 2),
        "{report:?}"
    );
    assert_sound(&repo);
    assert_eq!(files(&repo, second), read_files(&lab.tree()));
}

#[test]
fn a_short_grace_and_a_store_that_lags_are_refused() {
    let lab = Lab::new();
    let repo = lab.open();
    let short = PruneOptions {
        grace: Duration::from_secs(3600),
        ..options()
    };
    let err = prune(
        &repo,
        &short,
        Task::new(&Counters::default(), &Cancel::new()),
    )
    .expect_err("too short");
    assert_eq!(err.kind(), ErrorKind::Usage);
    run(&repo, &PruneOptions { now: true, ..short });
}

#[test]
fn an_unreadable_snapshot_stops_a_prune_unless_set_aside() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, second) = two_backups(&lab, &repo);
    let bytes = lab
        .store
        .get(&ObjectKey::Snapshot(first), 1 << 20)
        .expect("there");

    // A snapshot that a repair set aside, and one that is destroyed.
    let aside = ObjectKey::QuarantinedSnapshot(first);
    lab.store
        .put(&aside, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
        .expect("put");
    let torn = ObjectKey::QuarantinedSnapshot(SnapshotId::new([7; 32]));
    lab.store
        .put(&torn, ObjectBody::Bytes(b"torn"), PutMode::CreateOnly)
        .expect("put");
    lab.store
        .delete(&ObjectKey::Snapshot(first))
        .expect("deleted");

    let now = PruneOptions {
        now: true,
        ..options()
    };
    assert_eq!(run(&repo, &now).dead.packs, 0);
    assert!(
        lab.store.total_bytes() > 3_000_000,
        "what the one set aside needs is there"
    );

    drop(repo);
    lab.store
        .damage(&ObjectKey::Snapshot(second), |bytes| bytes[100] ^= 1);
    let caches = tempfile::tempdir().expect("a directory");
    let repo = Repository::open(lab.store.clone(), &Secret::empty(), caches.path()).expect("opens");
    let err =
        prune(&repo, &now, Task::new(&Counters::default(), &Cancel::new())).expect_err("refused");
    assert!(matches!(err, Error::Unresolved { count: 1, .. }), "{err}");
}

/// Pseudo-random numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Backups, forgets and prunes in any order, by two clients. Every listed snapshot can be restored
/// as it was, an unchanged tree stores nothing again, and no unneeded data is left at the end.
#[test]
fn any_order_of_backups_forgetting_and_prunes_loses_nothing() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let lab = Lab::new();
    let caches = tempfile::tempdir().expect("a directory");
    let clients = ["a", "b"].map(|name| {
        Repository::open(
            lab.store.clone(),
            &Secret::empty(),
            &caches.path().join(name),
        )
        .expect("opens")
    });

    let mut kept: Vec<(SnapshotId, BTreeMap<String, Vec<u8>>)> = Vec::new();
    for _ in 0..60 {
        let repo = &clients[dice.roll(2) as usize];
        match dice.roll(10) {
            0..4 => {
                for _ in 0..=dice.roll(3) {
                    let path = lab.tree().join(format!("f{}", dice.roll(8)));
                    write(&path, &noise(dice.roll(1000), dice.roll(400_000) as usize));
                }
                kept.push((lab.backup(repo, b""), read_files(&lab.tree())));
                lab.store.clock().advance(60);

                let packs = list_all(&*lab.store, ObjectDir::Packs)
                    .expect("listed")
                    .len();
                let again = lab.backup(repo, b"");
                kept.push((again, read_files(&lab.tree())));
                let now = list_all(&*lab.store, ObjectDir::Packs)
                    .expect("listed")
                    .len();
                assert_eq!(now, packs, "an unchanged tree was stored again");
            }
            4..6 if kept.len() > 1 => {
                let (id, _) = kept.remove(dice.roll(kept.len() as u64 - 1) as usize);
                forget(&*lab.store, id);
            }
            6 => lab.store.clock().advance(DAY + HOUR),
            n => {
                run(
                    repo,
                    &PruneOptions {
                        now: n == 9,
                        ..options()
                    },
                );
                let (id, expected) = match kept.len() as u64 {
                    0 => continue,
                    len => &kept[dice.roll(len) as usize],
                };
                assert_eq!(files(repo, *id), *expected);
            }
        }
        lab.store.clock().advance(60);
    }

    for (id, expected) in &kept {
        assert_eq!(files(&clients[1], *id), *expected);
    }
    assert_sound(&clients[0]);

    for _ in 0..4 {
        lab.store.clock().advance(DAY + HOUR);
        run(&clients[0], &options());
    }
    let report = run(&clients[1], &options());
    assert_eq!(
        (report.pending.packs, report.condemned.packs),
        (0, 0),
        "{report:?}"
    );
    // Up to a twelfth of all plain bytes may be dead, and packs compress differently.
    assert!(
        report.dead.bytes * 8 <= report.live.bytes + report.dead.bytes,
        "{report:?}"
    );
}

/// The last snapshot of a source is forgotten and its object swept: verify must not report a loss.
#[test]
fn a_source_forgotten_completely_is_not_reported_as_vanished() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, second) = two_backups(&lab, &repo);
    forget(&*lab.store, first);
    forget(&*lab.store, second);
    run(
        &repo,
        &PruneOptions {
            now: true,
            ..options()
        },
    );
    assert_sound(&repo);
    assert_eq!(list_all(&*lab.store, ObjectDir::Packs).expect("listed"), []);
}

/// A file was deleted from a large tree, and all snapshots that showed it were forgotten. Its
/// chunks would stay live while the old run that names it is read below the new run that hides it.
/// So a backup merges all runs into one when too much is hidden.
#[test]
fn large_content_hidden_by_newer_runs_is_freed() {
    let lab = Lab::new();
    let repo = lab.open();
    let tree = lab.tree();
    for n in 0..200 {
        write(&tree.join(format!("small-{n}")), &noise(n, 2000));
    }
    write(&tree.join("deep/big"), &noise(1000, 3_000_000));

    let first = lab.backup(&repo, b"");
    std::fs::remove_dir_all(tree.join("deep")).expect("removed");
    let second = lab.backup(&repo, b"");
    forget(&*lab.store, first);
    run(
        &repo,
        &PruneOptions {
            now: true,
            ..options()
        },
    );
    assert!(
        lab.store.total_bytes() < 700_000,
        "{}",
        lab.store.total_bytes()
    );
    assert_sound(&repo);
    assert_eq!(files(&repo, second), read_files(&tree));

    // Rewriting all names is not worth it for a little hidden content.
    std::fs::remove_file(tree.join("small-7")).expect("removed");
    let third = lab.backup(&repo, b"");
    let snapshot = repo.read_snapshot(&third).expect("reads");
    let crate::format::SourceKind::Tree { runs, .. } = &snapshot.sources[0].kind else {
        panic!("a tree")
    };
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0].hides, 2000);
    assert!(runs[1].content == 400_000 && runs[1].hides == 0, "{runs:?}");
}

/// A segment is damaged after it was loaded. A client with a new cache cannot see which packs it
/// condemns and relies on them, so they stay.
#[test]
fn packs_that_a_damaged_segment_condemns_are_kept() {
    let lab = Lab::new();
    let repo = lab.open();
    let (first, _) = two_backups(&lab, &repo);
    forget(&*lab.store, first);
    lab.store.clock().advance(3 * DAY);
    let report = run(&repo, &options());
    assert!(report.condemned.packs > 0, "{report:?}");

    let mark = list_all(&*lab.store, ObjectDir::Index).expect("lists");
    let mark = mark
        .iter()
        .max_by_key(|meta| meta.modified)
        .expect("a segment");
    lab.store.damage(&mark.key, |bytes| bytes[70] ^= 1);
    lab.store.clock().advance(3 * DAY);
    let problems = Recording::default();
    let report = prune(&repo, &options(), Task::new(&problems, &Cancel::new())).expect("pruned");
    assert_eq!(report.dropped.packs, 0, "{report:?}");
    assert!(
        problems
            .problems()
            .iter()
            .any(|problem| problem.subject == mark.key.to_string())
    );

    lab.store.damage(&mark.key, |bytes| bytes[70] ^= 1);
    assert!(run(&repo, &options()).dropped.packs > 0);
    assert_sound(&repo);
}
