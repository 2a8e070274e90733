//! A repository that was put back to an older state. Each machine that remembers a later snapshot
//! reports it in every command until the user acknowledges it. Snapshots that were forgotten on
//! purpose are not reported.

use crate::Error;
use crate::observe::{Recording, Severity};
use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::ops::forget::{forget_named, undelete};
use crate::ops::list::{ListDepth, LsItem, SnapshotFilter, ls, snapshots};
use crate::ops::prune::{PruneOptions, prune};
use crate::ops::restore::{RestoreOptions, RestoreTarget, SnapshotPath, restore};
use crate::ops::status::{StatusOptions, status};
use crate::ops::tag::{TagChange, retag};
use crate::ops::testing::{Lab, lease, noise, reading, write};
use crate::ops::verify::{FindingKind, VerifyOptions, verify};
use crate::repo::{HostChoice, Repository, Secret};
use crate::store::{HookedStore, KeyKind, ObjectKey, SharedStore, Store, StoreOperation};
use crate::task::{Cancel, Task};
use crate::types::{RelPath, SnapshotId};

const DAY: i64 = 24 * 3600;

/// Backs up the lab's tree. Also returns the warnings.
fn back_up(lab: &Lab, repo: &Repository) -> (SnapshotId, Vec<String>) {
    let observer = Recording::default();
    let sources = vec![SourceSpec::Tree(Box::new(TreeSpec::new(
        "tree",
        lab.tree(),
    )))];
    let options = BackupOptions {
        allow_empty: true,
        ..BackupOptions::new("host", sources)
    };
    let report = backup(repo, options, Task::new(&observer, &Cancel::new())).expect("backed up");
    (report.snapshot.expect("committed"), warnings(&observer))
}

fn warnings(observer: &Recording) -> Vec<String> {
    let problems = observer.problems();
    problems
        .iter()
        .filter(|one| one.severity == Severity::Warning)
        .map(ToString::to_string)
        .collect()
}

/// Makes `count` backups, a minute apart, of a file that changes.
fn history(lab: &Lab, repo: &Repository, count: u64) -> Vec<SnapshotId> {
    let each = |n| {
        write(&lab.tree().join("file"), &noise(n, 5000));
        lab.store.clock().advance(60);
        back_up(lab, repo).0
    };
    (0..count).map(each).collect()
}

/// Opens the repository as another machine, with its own cache in `dir`.
fn machine(lab: &Lab, dir: &tempfile::TempDir, name: &str) -> Repository {
    Repository::open(lab.store.clone(), &Secret::empty(), &dir.path().join(name))
        .expect("opens")
        .with_client(name)
}

fn listed_warnings(repo: &Repository) -> Vec<String> {
    let observer = Recording::default();
    snapshots(repo, &SnapshotFilter::default(), &observer).expect("listed");
    warnings(&observer)
}

fn what() -> SnapshotPath {
    SnapshotPath {
        snapshot: "latest".into(),
        source: Some("tree".into()),
        path: RelPath::root(),
    }
}

fn list_what() -> crate::ops::list::ListedPath {
    let snapshot = "latest".into();
    let source = Some("tree".into());
    crate::ops::list::ListedPath {
        snapshot,
        hosts: HostChoice::Any,
        source,
        path: RelPath::root(),
    }
}

/// Runs every operation that lists snapshots. Returns their names and warnings.
fn every_operation(lab: &Lab) -> Vec<(&'static str, Vec<String>)> {
    let cancel = Cancel::new();
    let run = |name: &'static str, act: &dyn Fn(&Repository, &Recording) -> Result<(), Error>| {
        let repo = lab.open();
        let observer = Recording::default();
        act(&repo, &observer).unwrap_or_else(|err| panic!("{name}: {err}"));
        (name, warnings(&observer))
    };

    let directory = tempfile::tempdir().expect("a directory");
    vec![
        run("snapshots", &|repo, observer| {
            snapshots(repo, &SnapshotFilter::default(), observer).map(drop)
        }),
        run("ls", &|repo, observer| {
            reading(repo, observer, |session| {
                ls(
                    session,
                    &list_what(),
                    ListDepth::Children,
                    &mut |_: LsItem<'_>| Ok(()),
                )
            })
        }),
        run("restore", &|repo, observer| {
            let target = RestoreTarget::Directory(directory.path().join("t"));
            restore(
                repo,
                &what(),
                target,
                &RestoreOptions::default(),
                Task::new(observer, &cancel),
            )
            .map(drop)
        }),
        run("status", &|repo, observer| {
            let found = status(
                repo,
                &StatusOptions {
                    ..Default::default()
                },
                observer,
            )?;
            assert_eq!(found.vanished.len(), 1);
            Ok(())
        }),
        run("undelete", &|repo, observer| {
            let refused = undelete(repo, "abcdef", Task::new(observer, &cancel));
            assert!(refused.is_err(), "there is none of this name");
            Ok(())
        }),
        run("tag", &|repo, observer| {
            let change = TagChange {
                set: Some(vec!["x".into()]),
                ..TagChange::default()
            };
            retag(
                repo,
                &["latest".into()],
                &HostChoice::Any,
                &change,
                Task::new(observer, &cancel),
            )
            .map(drop)
        }),
        run("prune", &|repo, observer| {
            prune(repo, &PruneOptions::default(), Task::new(observer, &cancel)).map(drop)
        }),
        run("backup", &|repo, observer| {
            let sources = vec![SourceSpec::Tree(Box::new(TreeSpec::new(
                "tree",
                lab.tree(),
            )))];
            backup(
                repo,
                BackupOptions::new("host", sources),
                Task::new(observer, &cancel),
            )
            .map(drop)
        }),
        run("snapshots, after a backup", &|repo, observer| {
            snapshots(repo, &SnapshotFilter::default(), observer).map(drop)
        }),
    ]
}

/// The newest snapshot is deleted from the store by other means than `icecore`.
#[test]
fn every_operation_reports_a_vanished_snapshot_until_it_is_acknowledged() {
    let lab = Lab::new();
    let made = history(&lab, &lab.open(), 3);
    let gone = made[2];
    lab.store
        .delete(&ObjectKey::Snapshot(gone))
        .expect("deleted");
    for (name, warned) in every_operation(&lab) {
        assert_eq!(warned.len(), 1, "{name}: {warned:?}");
        assert!(
            warned[0].starts_with(&format!("snapshot {}: ", gone.short())),
            "{name}: {warned:?}"
        );
    }

    let check = || {
        verify(
            &lab.open(),
            &VerifyOptions::default(),
            Task::new(&Recording::default(), &Cancel::new()),
        )
    };
    let kinds: Vec<_> = check()
        .expect("verified")
        .findings
        .iter()
        .map(|found| found.kind)
        .collect();
    assert_eq!(kinds, [FindingKind::SnapshotVanished]);

    // `icecore forget ID` acknowledges it; a dry run does not.
    for (dry_run, left) in [(true, 1), (false, 0)] {
        let names = [gone.short().to_string()];
        let found = forget_named(
            &lab.open(),
            &names,
            &HostChoice::Any,
            dry_run,
            &Recording::default(),
        );
        assert_eq!(found.expect("acknowledged"), vec![]);
        assert_eq!(listed_warnings(&lab.open()).len(), left);
    }

    assert!(check().expect("verified").is_clean());
    let names = [gone.to_string()];
    forget_named(
        &lab.open(),
        &names,
        &HostChoice::Any,
        false,
        &Recording::default(),
    )
    .expect_err("it is not there, and nobody misses it");
}

/// A prune, even without a grace period, keeps data that a vanished snapshot may need, until it is
/// acknowledged: the object may come back from another copy of the repository.
#[test]
fn a_prune_keeps_data_that_a_vanished_snapshot_may_need() {
    let lab = Lab::new();
    let made = history(&lab, &lab.open(), 3);
    let key = ObjectKey::Snapshot(made[2]);
    let bytes = lab.store.get(&key, 1 << 20).expect("there");
    let now = || {
        let options = PruneOptions {
            now: true,
            ..PruneOptions::default()
        };
        prune(
            &lab.open(),
            &options,
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("pruned")
    };
    lab.store.delete(&key).expect("deleted");

    let report = now();
    assert!(
        report.vanished == 1 && report.held.packs > 0 && report.dropped.packs == 0,
        "{report:?}"
    );
    lab.store.clock().advance(40 * DAY);
    assert_eq!(now().dropped.packs, 0, "it is not given up in silence");
    lab.store
        .put(
            &key,
            crate::store::ObjectBody::Bytes(&bytes),
            crate::store::PutMode::CreateOnly,
        )
        .expect("put");
    let found = verify(
        &lab.open(),
        &VerifyOptions::default(),
        Task::new(&Recording::default(), &Cancel::new()),
    );
    assert!(found.expect("verified").is_clean(), "the snapshot is whole");

    lab.store.delete(&key).expect("deleted again");
    assert_eq!(now().vanished, 1);
    let names = [made[2].short().to_string()];
    forget_named(
        &lab.open(),
        &names,
        &HostChoice::Any,
        false,
        &Recording::default(),
    )
    .expect("acknowledged");
    let report = now();
    assert!(
        report.vanished == 0 && report.dropped.packs > 0,
        "{report:?}"
    );
}

/// A snapshot of several sources is remembered once for each of them. `icecore forget ID` found its
/// id twice, called it ambiguous, and failed with "no snapshot has an id that begins with it".
#[test]
fn a_vanished_snapshot_of_two_sources_is_acknowledged() {
    let lab = Lab::new();
    let repo = lab.open();
    let tree = |name: &str| SourceSpec::Tree(Box::new(TreeSpec::new(name, lab.tree())));
    let options = BackupOptions::new("host", vec![tree("a"), tree("b")]);
    let done = backup(
        &repo,
        options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("backed up");
    let gone = done.snapshot.expect("committed");
    lab.store
        .delete(&ObjectKey::Snapshot(gone))
        .expect("deleted");
    assert_eq!(listed_warnings(&lab.open()).len(), 1);

    let names = [gone.short().to_string()];
    let found = forget_named(
        &lab.open(),
        &names,
        &HostChoice::Any,
        false,
        &Recording::default(),
    );
    assert_eq!(found.expect("acknowledged"), vec![]);
    assert_eq!(listed_warnings(&lab.open()), Vec::<String>::new());
}

/// The store's clock is years behind when a snapshot is committed. In each listing an older
/// snapshot seemed to be the newest, and the machine remembered that one instead. Then the new
/// snapshot is deleted.
#[test]
fn a_snapshot_committed_under_a_slow_clock_is_missed() {
    let lab = Lab::new();
    // A stream has no parent that would show which snapshot came first.
    let stream = |seed| {
        let input = Box::new(std::io::Cursor::new(noise(seed, 3000)));
        let sources = vec![SourceSpec::Stream {
            name: "db".into(),
            input,
        }];
        let options = BackupOptions::new("host", sources);
        backup(
            &lab.open(),
            options,
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("backed up")
    };
    stream(1);
    lab.store.clock().advance(-20 * 365 * DAY);
    let gone = stream(2).snapshot.expect("committed");
    assert_eq!(listed_warnings(&lab.open()), Vec::<String>::new());

    lab.store
        .delete(&ObjectKey::Snapshot(gone))
        .expect("deleted");
    let warned = listed_warnings(&lab.open());
    assert!(
        warned.len() == 1 && warned[0].contains(&gone.short().to_string()),
        "{warned:?}"
    );
}

/// The snapshot comes back: part of a medium was not mounted, or a listing lacked it.
#[test]
fn a_snapshot_that_reappears_is_not_missed() {
    let lab = Lab::new();
    let made = history(&lab, &lab.open(), 2);
    let key = ObjectKey::Snapshot(made[1]);
    let bytes = lab.store.get(&key, 1 << 20).expect("there");
    lab.store.delete(&key).expect("deleted");
    assert_eq!(listed_warnings(&lab.open()).len(), 1);
    lab.store
        .put(
            &key,
            crate::store::ObjectBody::Bytes(&bytes),
            crate::store::PutMode::CreateOnly,
        )
        .expect("put");
    assert_eq!(listed_warnings(&lab.open()), Vec::<String>::new());
}

/// The whole store is replaced by a copy of yesterday's. The machine that made the later snapshots
/// notices it, and so does one that only listed them, also after the next backup.
#[test]
fn a_store_put_back_to_an_older_state_is_noticed() {
    let lab = Lab::new();
    let dir = tempfile::tempdir().expect("a directory");
    history(&lab, &lab.open(), 2);
    let yesterday = std::sync::Arc::new(lab.store.fork());
    history(&lab, &lab.open(), 2);
    let admin = machine(&lab, &dir, "admin");
    assert_eq!(listed_warnings(&admin), Vec::<String>::new());
    drop(admin);

    let old = |cache: &std::path::Path| {
        let store: SharedStore = yesterday.clone();
        Repository::open(store, &Secret::empty(), cache).expect("opens")
    };
    let admin = old(&dir.path().join("admin"));
    assert_eq!(listed_warnings(&admin).len(), 1);

    let maker = lab.try_open_on(yesterday.clone()).expect("opens");
    let (_, warned) = back_up(&lab, &maker);
    assert_eq!(warned.len(), 1, "{warned:?}");
    drop(maker);
    assert_eq!(
        listed_warnings(&lab.try_open_on(yesterday.clone()).expect("opens")).len(),
        1
    );
    assert_eq!(
        listed_warnings(&old(&dir.path().join("stranger"))),
        Vec::<String>::new(),
        "who knew nothing"
    );
}

/// A snapshot vanishes between the listing of a backup and its commit: the new snapshot does not
/// silently replace it. A stream has no parent whose existence the commit would check.
#[test]
fn a_snapshot_that_vanishes_during_a_backup_is_noticed() {
    let lab = Lab::new();
    let repo = lab.open();
    // Other bytes each time, so that a pack is put.
    let stream = |repo: &Repository, seed| {
        let input = Box::new(std::io::Cursor::new(noise(seed, 3000)));
        let sources = vec![SourceSpec::Stream {
            name: "db".into(),
            input,
        }];
        backup(
            repo,
            BackupOptions::new("host", sources),
            Task::new(&Recording::default(), &Cancel::new()),
        )
    };

    let gone = stream(&repo, 1)
        .expect("backed up")
        .snapshot
        .expect("committed");

    lab.store.clock().advance(60);
    let hook = Box::new(move |store: &dyn Store| {
        store.delete(&ObjectKey::Snapshot(gone)).expect("deleted");
    });
    let hooked = HookedStore::after(lab.store.clone(), StoreOperation::Put, KeyKind::Pack, hook);
    let hooked = std::sync::Arc::new(hooked);
    stream(&lab.try_open_on(hooked.clone()).expect("opens"), 2).expect("backed up");
    assert!(hooked.was_called());
    assert_eq!(listed_warnings(&lab.open()).len(), 1);
}

/// A snapshot is forgotten and swept by another machine, and the segment that records it has been
/// merged into another one since. No machine reports it, neither with an index that knew it nor
/// with a new one.
#[test]
fn a_snapshot_that_another_machine_swept_is_not_missed() {
    let lab = Lab::new();
    let dir = tempfile::tempdir().expect("a directory");
    let made = history(&lab, &lab.open(), 3);
    let asleep = machine(&lab, &dir, "asleep");
    assert_eq!(listed_warnings(&asleep), Vec::<String>::new());
    let admin = machine(&lab, &dir, "admin");
    forget_named(
        &admin,
        &[made[2].to_string()],
        &HostChoice::Any,
        false,
        &Recording::default(),
    )
    .expect("forgotten");

    for day in 0..12 {
        write(&lab.tree().join("other"), &noise(100 + day, 5000));
        let sources = vec![SourceSpec::Tree(Box::new(TreeSpec::new(
            "other",
            lab.tree(),
        )))];
        backup(
            &admin,
            BackupOptions::new("admin", sources),
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("backed up");
        lab.store.clock().advance(DAY + 3600);
        prune(
            &admin,
            &PruneOptions::default(),
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("pruned");
    }

    assert!(
        lab.store.stat(&ObjectKey::Forgotten(made[2])).is_err(),
        "swept"
    );
    assert_eq!(listed_warnings(&asleep), Vec::<String>::new());
    assert_eq!(listed_warnings(&lab.open()), Vec::<String>::new());
}

/// Another machine may have listed a snapshot before its writer withdrew it.
#[test]
fn a_withdrawn_snapshot_is_not_missed() {
    let lab = Lab::new();
    let dir = tempfile::tempdir().expect("a directory");
    let made = history(&lab, &lab.open(), 1)[0];
    let other = machine(&lab, &dir, "other");
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sees = std::sync::Arc::clone(&seen);
    let looks = machine(&lab, &dir, "other");

    let hook = Box::new(move |store: &dyn Store| {
        let all = looks.snapshots(&mut |_, _| {}).expect("listed");
        sees.lock()
            .expect("alone")
            .extend(all.iter().map(|one| one.id));
        // Its parent is deleted, so that it is withdrawn.
        store.delete(&ObjectKey::Snapshot(made)).expect("deleted");
    });

    let hooked = HookedStore::after(
        lab.store.clone(),
        StoreOperation::Put,
        KeyKind::Snapshot,
        hook,
    );
    let repo = lab.try_open_on(std::sync::Arc::new(hooked)).expect("opens");
    let held = lease(&repo);
    let snapshot = repo.read_snapshot(&made).expect("reads");
    let snapshot = crate::format::Snapshot {
        parents: vec![made],
        ..snapshot
    };
    repo.commit(held, snapshot).expect_err("its parent is gone");

    let withdrawn = seen.lock().expect("alone").iter().any(|id| *id != made);
    assert!(withdrawn, "the other machine saw it");
    let warned = listed_warnings(&other);
    assert!(
        warned
            .iter()
            .all(|one| one.contains(&made.short().to_string())),
        "{warned:?}"
    );
}
