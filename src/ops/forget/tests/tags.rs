//! Tests of re-tagged snapshots, and of reports about forgotten ones.

use super::*;
use crate::task::Cancel;

#[test]
fn a_re_tag_keeps_content_and_time_and_takes_the_old_one_s_place() {
    let lab = Lab::new();
    let repo = lab.open();
    let stream = noise(1, 5000);
    let old = lab.backup(&repo, &stream);
    lab.store.clock().advance(10 * DAY);
    let new = lab.backup(&repo, &noise(2, 5000));
    lab.store.clock().advance(DAY);
    let before = repo
        .find_snapshot(&old.to_string(), &HostChoice::Any)
        .expect("there");

    let change = TagChange {
        add: vec!["b".into(), "a".into()],
        remove: vec!["b".into()],
        ..protect(true)
    };
    let next = tag(&repo, old, &change).expect("tagged");
    let after = repo
        .find_snapshot(&next.to_string(), &HostChoice::Any)
        .expect("there");
    assert_eq!(
        (&after.snapshot.tags, after.snapshot.protected),
        (&vec!["a".to_owned()], true)
    );
    assert_eq!(
        (after.time(), after.committed(), after.first()),
        (before.time(), before.committed(), old)
    );
    assert_eq!(after.snapshot.sources, before.snapshot.sources);
    assert_eq!((latest(&repo), read_stream(&repo, next)), (new, stream));
    assert_eq!(tag(&repo, next, &change).expect("nothing to do"), next);

    let set = TagChange {
        set: Some(vec!["c".into()]),
        ..TagChange::default()
    };
    let last = tag(&repo, next, &set).expect("tagged");
    let found = repo
        .find_snapshot(&last.to_string(), &HostChoice::Any)
        .expect("there");
    assert_eq!(
        (found.first(), found.committed(), &found.snapshot.tags[..]),
        (old, before.committed(), &["c".to_owned()][..])
    );
    assert_eq!(
        ids(repo.store(), ObjectDir::Snapshots),
        BTreeSet::from([new, last])
    );
    assert!(
        restorable(&repo, &Counters::default())
            .expect("listed")
            .iter()
            .all(|one| one.found.id != next)
    );

    // The next backup builds on the newest one, and nothing is missing after a sweep has deleted
    // the old objects.
    for id in ids(repo.store(), ObjectDir::Forgotten) {
        lab.store
            .delete(&ObjectKey::Forgotten(id))
            .expect("deleted");
    }
    assert_clean(&repo);
    assert_clean(&lab.fork().open());
}

#[test]
fn a_crash_while_tagging_leaves_one_that_counts() {
    let lab = Lab::new();
    let stream = noise(1, 5000);
    let id = lab.backup(&lab.open(), &stream);
    lab.store.clock().advance(60);
    at_every_write(
        &lab,
        |repo| tag(repo, id, &protect(true)).map(drop),
        |_, repo| {
            let counts =
                snapshots(repo, &SnapshotFilter::default(), &Counters::default()).expect("listed");
            assert_eq!(counts.len(), 1);
            assert_eq!(counts[0].first(), id);
            assert_clean(repo);
            // The snapshot that a crash left is removed and does not count as most of the group.
            run(repo, &options(last(1)));
            assert_eq!(ids(repo.store(), ObjectDir::Snapshots).len(), 1);
            assert_eq!(read_stream(repo, counts[0].id), stream);
        },
    );
}

/// A snapshot that landed late and lacks data must not be tagged: the new object would no longer
/// look late. A complete one may be tagged, since after a copy without times all of them look late.
#[test]
fn a_late_snapshot_that_lacks_data_cannot_be_tagged() {
    let lab = Lab::new();
    let repo = lab.open();
    let id = lab.backup(&repo, &noise(1, 5000));
    let key = ObjectKey::Snapshot(id);
    let bytes = lab.store.get(&key, 1 << 20).expect("there");
    lab.store.delete(&key).expect("deleted");
    lab.store.clock().advance(3600);
    lab.store
        .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
        .expect("put");

    let copy = lab.fork();
    let packs = list_all(repo.store(), ObjectDir::Packs).expect("listed");
    packs
        .iter()
        .for_each(|pack| lab.store.delete(&pack.key).expect("deleted"));
    assert!(matches!(
        tag(&repo, id, &protect(true)),
        Err(Error::Refused { .. })
    ));
    tag(&copy.open(), id, &protect(true)).expect("whole");

    let checkpoint = add(&lab, &repo, |snapshot| {
        snapshot.state = SnapshotState::Checkpoint;
    });
    assert!(matches!(
        tag(&repo, checkpoint, &protect(true)),
        Err(Error::Refused { .. })
    ));
}

/// A backup is not disturbed if its parent is re-tagged or forgotten while it runs.
#[test]
fn a_parent_may_be_tagged_and_forgotten_under_a_backup() {
    let lab = Lab::new();
    let repo = lab.open();
    let parent = lab.backup(&repo, &noise(1, 5000));
    let lease = crate::ops::testing::lease(&repo);
    lease.set_parents(&[parent]).expect("few parents");
    let next = tag(&lab.open(), parent, &protect(true)).expect("tagged");
    let next = tag(&lab.open(), next, &protect(false)).expect("tagged");
    forget(&lab.open(), next).expect("forgotten");
    let mut snapshot = empty(lease.started());
    snapshot.parents = vec![parent];
    repo.commit(lease, snapshot).expect("committed");
}

/// The last snapshot is forgotten and swept. A machine that listed the store in between does not
/// report it as missing.
#[test]
fn a_forgotten_snapshot_is_not_missed() {
    let lab = Lab::new();
    let repo = lab.open();
    lab.backup(&repo, &noise(1, 5000));
    lab.store.clock().advance(60);
    let last = lab.backup(&repo, &noise(2, 5000));
    let cache = tempfile::tempdir().expect("a directory");
    let other = Repository::open(lab.store.clone(), &Secret::empty(), cache.path()).expect("opens");
    let third = tempfile::tempdir().expect("a directory");
    let third = Repository::open(lab.store.clone(), &Secret::empty(), third.path()).expect("opens");
    [&other, &third].into_iter().for_each(assert_clean);

    forget(&repo, last).expect("forgotten");
    assert_clean(&other);
    lab.store
        .delete(&ObjectKey::Forgotten(last))
        .expect("deleted");
    [&repo, &other].into_iter().for_each(assert_clean);

    // A client that has seen it and nothing since cannot know that it was forgotten.
    let report = verify(
        &third,
        &VerifyOptions::default(),
        Task::new(&Counters::default(), &Cancel::new()),
    );
    let report = report.expect("verified");
    assert!(
        report
            .findings
            .iter()
            .all(|found| found.kind == FindingKind::SnapshotVanished)
    );
    assert!(!report.is_clean());
}

#[test]
fn a_dry_run_works_on_a_read_only_store() {
    let lab = Lab::new();
    for _ in 0..4 {
        lab.store.clock().advance(DAY);
        add(&lab, &lab.open(), |_| {});
    }
    let store = crate::store::ReadOnlyStore::new(lab.store.clone());
    let cache = tempfile::tempdir().expect("a directory");
    let repo = Repository::open(std::sync::Arc::new(store), &Secret::empty(), cache.path())
        .expect("opens");

    let report = run(
        &repo,
        &ForgetOptions {
            dry_run: true,
            ..options(last(2))
        },
    );
    assert_eq!((report.kept, report.dropped), (2, 2));

    let refused = forget_by_policy(
        &repo,
        &options(last(2)),
        Task::new(&Counters::default(), &Cancel::new()),
    );
    assert!(
        matches!(
            refused,
            Err(Error::Repo(RepoError::Store(StoreError::ReadOnly { .. })))
        ),
        "{refused:?}"
    );
}

#[test]
fn re_tagged_and_undeleted_snapshots_keep_the_original_s_marks() {
    let lab = Lab::new();
    let repo = lab.open();
    for file in ["a/keep", "a/x.log", "own/file"] {
        write(&lab.tree().join(file), b"1");
    }
    let id = lab.backup_in_part(&repo);
    let before = marks(&repo, id);
    assert_eq!((before.0.len(), before.1), (2, Some(2)), "{before:?}");
    let tagged = tag(&repo, id, &protect(true)).expect("tagged");
    assert!(tagged != id && marks(&repo, tagged) == before);
    let tagged = tag(&repo, tagged, &protect(false)).expect("tagged");
    forget(&repo, tagged).expect("forgotten");
    let back = bring_back(&repo, tagged).expect("brought back").id;
    assert!(back != tagged && marks(&repo, back) == before);
}
