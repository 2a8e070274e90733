//! Tests of objects that cannot be read for a while: no repair loses anything because of them.

use super::*;
use crate::advice::Advice;
use crate::error::ErrorKind;
use crate::ops::prune::{PruneOptions, prune};
use crate::ops::repair::{PackFate, repair_index};
use crate::ops::restore::{RestoreOptions, RestoreTarget, SnapshotPath, restore};
use crate::ops::verify::FindingKind;
use crate::store::{InjectedError, ObjectDir, Replica, Store, list_all};
use crate::types::RelPath;

const TROUBLES: [InjectedError; 3] = [
    InjectedError::Medium,
    InjectedError::TimedOut,
    InjectedError::Denied,
];

/// Reads every snapshot and compares it with its contents before.
fn all_equal(lab: &Lab, before: &BTreeMap<SnapshotId, Content>, what: &str) {
    let now = contents_by_first(lab);
    assert_eq!(
        now.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>(),
        "{what}: the snapshots"
    );
    for (id, content) in before {
        assert!(now[id] == *content, "{what}: snapshot {}", id.short());
    }
}

/// Returns the contents of each snapshot by the id of its original.
pub(super) fn contents_by_first(lab: &Lab) -> BTreeMap<SnapshotId, Content> {
    let repo = lab.open();
    let held = listed(&repo).into_iter();
    held.map(|found| {
        let stream =
            stream_of(&repo, &found).unwrap_or_else(|err| panic!("{}: {err}", found.id.short()));
        (found.first(), (files_of(&repo, &found), stream))
    })
    .collect()
}

/// Runs every repair that a user may try after an error. Only read errors and refusals are
/// accepted.
fn all_repairs(repo: &Repository, what: &str) {
    let observer = Recording::default();
    let cancel = Cancel::new();
    let results = [
        ("config", repair_config(repo, &cancel).map(drop)),
        (
            "index",
            repair_index(repo, Task::new(&observer, &cancel)).map(drop),
        ),
        ("packs", repair(repo).map(drop)),
        (
            "snapshots",
            repair_snapshots(
                repo,
                &RepairSnapshotsOptions::default(),
                Task::new(&observer, &cancel),
            )
            .map(drop),
        ),
    ];
    for (name, result) in results {
        match result {
            Ok(()) => {}
            Err(crate::Error::Repo(err)) if err.is_unreadable_now() => {}
            Err(crate::Error::Repo(crate::repo::RepoError::Refused { .. })) => {}
            Err(err) => panic!("{what}: repair {name}: {err}"),
        }
    }
}

fn prunes(lab: &Lab, what: &str) {
    for _ in 0..2 {
        lab.store.clock().advance(30 * 3600);
        prune(
            &lab.open(),
            &PruneOptions::default(),
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .unwrap_or_else(|err| panic!("{what}: prune: {err}"));
    }
}

/// Makes an object unreadable, runs all repairs twice, and makes the object readable again. Each
/// snapshot must restore at once, after further repairs, and after prunes.
fn comes_back(
    lab: &Lab,
    key: &ObjectKey,
    trouble: InjectedError,
    renames: bool,
    before: &BTreeMap<SnapshotId, Content>,
) {
    let what = format!("{key}, {trouble:?}, renames {renames}");
    let fork = lab.fork();
    let faulty = FaultyStore::new(fork.store.clone());
    let faulty = Arc::new(if renames {
        faulty
    } else {
        faulty.without_rename()
    });
    let cache = tempfile::tempdir().expect("a directory");
    let repo = on_faulty(&fork, &faulty, &cache);
    faulty.make_unreadable(key, trouble);

    for _ in 0..2 {
        all_repairs(&repo, &what);
    }
    drop(repo);
    assert!(fork.store.stat(key).is_ok(), "{what}: it is still there");

    faulty.make_readable();
    all_equal(&fork, before, &format!("{what}: readable again"));

    run_repairs(&fork.open()).unwrap_or_else(|err| panic!("{what}: {err}"));
    all_equal(&fork, before, &format!("{what}: repaired"));
    assert_clean(&fork);

    prunes(&fork, &what);
    all_equal(&fork, before, &format!("{what}: pruned"));
    assert_clean(&fork);
    assert!(
        list_all(&*fork.store, ObjectDir::Quarantine)
            .expect("listed")
            .is_empty(),
        "{what}: nothing is left aside"
    );
}

#[test]
fn a_temporarily_unreadable_object_causes_no_loss() {
    for parity in [false, true] {
        let (lab, stream) = sample_in(if parity {
            Lab::with_parity(20)
        } else {
            Lab::new()
        });
        write(&lab.tree().join("b/later"), &noise(7, 200_000));
        lab.backup(&lab.open(), &stream);
        let before = contents_by_first(&lab);
        let keys = lab.store.objects().into_iter().map(|meta| meta.key);
        for (n, key) in keys
            .filter(|key| !matches!(key, ObjectKey::Config(Replica::Second)))
            .enumerate()
        {
            // Skip key slots: an unreadable copy is written again from the copy that opened.
            if matches!(key, ObjectKey::KeySlot(..)) {
                continue;
            }
            comes_back(&lab, &key, TROUBLES[n % 3], n % 2 == 0, &before);
            if matches!(key, ObjectKey::Pack(_)) {
                comes_back(&lab, &key, TROUBLES[(n + 1) % 3], n % 2 != 0, &before);
            }
        }
    }
}

#[test]
fn an_unreadable_pack_is_lost_for_now_and_is_not_moved() {
    let (lab, stream) = sample();
    let (id, _) = packs(&lab)
        .into_iter()
        .max_by_key(|pack| pack.1)
        .expect("one");
    let faulty = Arc::new(FaultyStore::new(lab.store.clone()));
    let cache = tempfile::tempdir().expect("a directory");
    let repo = on_faulty(&lab, &faulty, &cache);
    faulty.make_unreadable(&ObjectKey::Pack(id), InjectedError::Medium);

    let options = VerifyOptions {
        read_data: true,
        ..VerifyOptions::default()
    };
    let report = verify(
        &repo,
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("verified");
    assert!(
        report
            .findings
            .iter()
            .any(|found| found.kind == FindingKind::UnreadableNow),
        "{report:#?}"
    );

    let report = repair(&repo).expect("repaired");
    assert_eq!(
        report
            .damaged
            .iter()
            .map(|one| one.fate)
            .collect::<Vec<_>>(),
        [PackFate::LostForNow],
        "{report:?}"
    );
    assert!(
        report.lost_for_now > 0 && report.lost_chunks == 0 && !report.is_whole(),
        "{report:?}"
    );

    assert!(lab.store.stat(&ObjectKey::Pack(id)).is_ok());
    // A repair of snapshots gives up nothing either.
    let none = RepairSnapshotsOptions::default();
    repair_snapshots(
        &repo,
        &none,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("looked at");
    assert!(
        listed(&lab.open())
            .iter()
            .all(|found| found.snapshot.lost.is_none())
    );
    // The next backup does not refer to the pack: it stores the chunks again.
    let new = lab.backup(&repo, &stream);
    let found = listed(&repo)
        .into_iter()
        .find(|found| found.id == new)
        .expect("there");
    assert!(
        files_of(&repo, &found) == files_on_disk(&lab)
            && stream_of(&repo, &found).expect("read") == stream
    );
}

/// No command calls it damage, and none advises a repair.
#[test]
fn metadata_that_cannot_be_read_now_is_not_reported_as_damage() {
    let (lab, _) = sample();
    let faulty = Arc::new(FaultyStore::new(lab.store.clone()));
    let cache = tempfile::tempdir().expect("a directory");
    let repo = on_faulty(&lab, &faulty, &cache);
    for (n, (id, _)) in packs(&lab).into_iter().enumerate() {
        faulty.make_unreadable(&ObjectKey::Pack(id), TROUBLES[n % 3]);
    }

    let options = VerifyOptions::default();
    let report = verify(
        &repo,
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("verified");
    assert!(!report.findings.is_empty());
    for found in &report.findings {
        assert_eq!(found.kind, FindingKind::UnreadableNow, "{found:?}");
    }

    let options = PruneOptions::default();
    let err = prune(
        &repo,
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect_err("blind");
    assert!(
        matches!(err, crate::Error::Unresolved { now: true, .. }),
        "{err:?}"
    );
    assert_eq!(err.kind(), ErrorKind::Failed);
    assert!(err.to_string().contains("cannot be read now"), "{err}");
    assert!(matches!(err.advice(), Some(Advice::Text(text)) if text.contains("may be intact")));

    let target = tempfile::tempdir().expect("a directory");
    let what = SnapshotPath {
        snapshot: listed(&repo)[0].id.to_string(),
        source: Some("tree".into()),
        path: RelPath::root(),
    };
    let err = restore(
        &repo,
        &what,
        RestoreTarget::Directory(target.path().to_owned()),
        &RestoreOptions::default(),
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect_err("nothing can be read");
    assert_eq!(err.kind(), ErrorKind::Failed, "{err}");
    assert!(matches!(err.advice(), Some(Advice::Text(text)) if text.contains("may be intact")));
}

#[test]
fn a_pack_set_aside_as_unreadable_can_be_put_back() {
    let (lab, _) = sample();
    let before = contents_by_first(&lab);
    let (id, _) = packs(&lab)
        .into_iter()
        .max_by_key(|pack| pack.1)
        .expect("one");

    let faulty = Arc::new(FaultyStore::new(lab.store.clone()));
    let cache = tempfile::tempdir().expect("a directory");
    let repo = on_faulty(&lab, &faulty, &cache);
    faulty.make_unreadable(&ObjectKey::Pack(id), InjectedError::Medium);

    let options = RepairPacksOptions {
        set_aside_unreadable: true,
        ..packs_options()
    };
    let report = repair_packs(
        &repo,
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("repaired");
    assert_eq!(
        report
            .damaged
            .iter()
            .map(|one| one.fate)
            .collect::<Vec<_>>(),
        [PackFate::Lost],
        "{report:?}"
    );
    assert!(
        lab.store.stat(&ObjectKey::QuarantinedPack(id)).is_ok(),
        "renamed, not read"
    );

    let options = RepairSnapshotsOptions::default();
    repair_snapshots(
        &repo,
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("partial ones");
    assert!(
        listed(&lab.open())
            .iter()
            .any(|found| found.snapshot.lost.is_some())
    );
    // As if the disk had been copied with ddrescue.
    faulty.make_readable();
    run_repairs(&lab.open()).expect("repaired");
    all_equal(&lab, &before, "healed");

    prunes(&lab, "healed");
    assert!(
        list_all(&*lab.store, ObjectDir::Quarantine)
            .expect("listed")
            .is_empty(),
        "nothing is left aside"
    );
    all_equal(&lab, &before, "pruned");
}

#[test]
fn no_pack_is_condemned_if_the_whole_medium_fails() {
    let lab = Lab::new();
    let repo = lab.open();
    for n in 0..12 {
        write(&lab.tree().join(format!("f{n}")), &noise(n, 20_000));
        lab.backup(&repo, b"");
    }

    let faulty = Arc::new(FaultyStore::new(lab.store.clone()));
    let cache = tempfile::tempdir().expect("a directory");
    let broken = on_faulty(&lab, &faulty, &cache);
    broken.sync().expect("synced");
    for (id, _) in packs(&lab) {
        faulty.make_unreadable(&ObjectKey::Pack(id), InjectedError::Medium);
    }

    let before = lab.store.objects().len();
    let report = repair(&broken).expect("looked at");
    assert!(
        report
            .damaged
            .iter()
            .all(|one| one.fate == PackFate::Unreadable),
        "{report:?}"
    );
    assert!(
        report.unreadable_now > 8 && report.lost_for_now == 0,
        "{report:?}"
    );
    assert_eq!(lab.store.objects().len(), before, "nothing was written");

    faulty.make_readable();
    assert_clean(&lab);
}
