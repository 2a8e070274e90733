//! A repository that was copied without its objects' times decides like the original: order,
//! `latest`, status, policies.

use std::time::Duration;

use super::tests::{DAY, add, forget, options, run};
use super::*;
use crate::format::{SnapshotState, SourceCounts, SourceKind, SourceRecord};
use crate::observe::{Counters, Recording};
use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::ops::list::{SnapshotFilter, snapshots};
use crate::ops::status::{StatusOptions, status};
use crate::ops::testing::{Lab, noise, write};
use crate::read::choose;
use crate::store::ObjectKey;
use crate::task::Cancel;
use crate::types::Content;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 24
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn sources(random: &mut Random) -> Vec<SourceRecord> {
    let mut out = Vec::new();
    for name in ["a", "b", "c"] {
        if random.one_in(3) {
            continue;
        }
        let kind = match name {
            "a" => SourceKind::Stream {
                command: vec!["dump".into()],
                content: Content::default(),
            },
            _ => SourceKind::Tree {
                path: format!("/{}/{name}", random.below(2)).into(),
                immutable: false,
                runs: Vec::new(),
            },
        };

        out.push(SourceRecord {
            name: name.into(),
            kind,
            profile: "tree-64k".into(),
            started: Default::default(),
            ended: Default::default(),
            digest: [0; 32],
            counts: SourceCounts {
                incomplete: u64::from(random.one_in(6)),
                ..SourceCounts::default()
            },
            suspect: random.one_in(5).then(|| "odd".into()),
            numeric_owners: false,
            moved_from: Vec::new(),
        });
    }
    out
}

/// Makes a few dozen snapshots of two hosts, whose clocks may be wrong, in a store whose clock may
/// be wrong too.
fn history(random: &mut Random) -> Lab {
    let lab = Lab::new();
    let repo = lab.open();
    let mut made = Vec::new();
    for _ in 0..8 + random.below(16) {
        let step = if random.one_in(4) {
            random.below(60)
        } else {
            random.below(3 * DAY as u64)
        };
        lab.store
            .clock()
            .advance(step as i64 - if random.one_in(12) { 3 * 3600 } else { 0 });

        let id = add(&lab, &repo, |snapshot| {
            snapshot.host = ["h", "i"][random.below(2) as usize].into();
            snapshot.sources = sources(random);
            if random.one_in(6) {
                snapshot.started = snapshot
                    .started
                    .plus_seconds((random.below(10 * 365) as i64 - 1000) * DAY);
            }
            snapshot.protected = random.one_in(15);
            let is_whole = snapshot
                .sources
                .iter()
                .all(|one| one.suspect.is_none() && one.counts.incomplete == 0);
            snapshot.state = match random.below(10) {
                0 => SnapshotState::Checkpoint,
                _ if is_whole => SnapshotState::Complete,
                _ => SnapshotState::Incomplete,
            };

            snapshot.parents = made
                .last()
                .copied()
                .into_iter()
                .filter(|_| random.one_in(2))
                .collect();
        });
        made.push(id);
    }

    if random.one_in(3) {
        let _ = forget(&repo, made[0]);
    }
    lab
}

fn policy(random: &mut Random) -> Policy {
    let slots = |random: &mut Random| {
        random
            .one_in(2)
            .then(|| PeriodSlots::Some(1 + random.below(5) as u32))
    };
    let mut policy = Policy {
        last: slots(random),
        ..Policy::default()
    };
    for period in Period::ALL {
        policy
            .periods
            .extend(slots(random).map(|slots| (period, slots)));
    }
    policy.within = random
        .one_in(3)
        .then(|| Duration::from_secs(random.below(10) * 86_400 + 60));
    if policy.is_empty() {
        super::tests::last(2)
    } else {
        policy
    }
}

/// Returns everything that a repository reports except the times of its objects.
fn collect_reports(lab: &Lab, policies: &[(Policy, bool)]) -> Vec<String> {
    let repo = lab.open();
    let observer = Recording::default();
    let list = snapshots(&repo, &SnapshotFilter::default(), &observer).expect("listed");
    let mut out: Vec<String> = list
        .iter()
        .map(|one| format!("{} {:?} {:?}", one.id, one.time(), one.committed()))
        .collect();

    for hosts in [
        HostChoice::Any,
        HostChoice::Host("h".into()),
        HostChoice::Own("i".into()),
    ] {
        for source in [None, Some("a"), Some("b")] {
            let quiet = Recording::default();
            let found = choose(&repo, "latest", &hosts, source, &quiet).map(|found| found.id);
            let problems = quiet.problems();
            let problems = problems
                .iter()
                .filter(|one| one.subject != "snapshots")
                .collect::<Vec<_>>();
            out.push(format!("{found:?} {problems:?}"));
        }
    }

    let status_options = StatusOptions {
        max_age: Some(Duration::from_secs(3600)),
        ..Default::default()
    };
    let status = status(&repo, &status_options, &Counters::default()).expect("asked");
    out.extend(status.sources.iter().map(|one| format!("{one:?}")));

    for (policy, force) in policies {
        let dry = ForgetOptions {
            dry_run: true,
            force: *force,
            ..options(policy.clone())
        };
        let report = run(&repo, &dry);
        for group in &report.groups {
            let decision_line =
                |one: &ForgetDecision| format!("{} {} {:?}", one.found.id, one.keep, one.reasons);
            out.extend(group.decisions.iter().map(decision_line));
        }
        out.extend(report.refused.iter().map(|refusal| format!("{refusal:?}")));
    }

    out
}

/// With any permutation of the store's times the decisions stay the same, so copying a repository
/// or touching an object changes nothing.
#[test]
fn a_copy_without_times_decides_as_the_original() {
    let seed = 20;
    println!("seed {seed}");
    let mut random = Random(seed);
    for round in 0..40 {
        let lab = history(&mut random);
        let policies: Vec<(Policy, bool)> = (0..3).map(|n| (policy(&mut random), n == 0)).collect();
        let copy = lab.copied_without_times(|| random.next());
        let before = collect_reports(&lab, &policies);
        let after = collect_reports(&copy, &policies);
        let first = before.iter().zip(&after).position(|(one, two)| one != two);
        assert_eq!(before, after, "round {round}, line {first:?}");
    }
}

/// After a copy all snapshots look late. The next backup still builds on the newest one and reads
/// nothing again.
#[test]
fn a_backup_into_a_copy_builds_on_the_newest() {
    let run = |lab: &Lab, tree: &Lab| {
        let sources = vec![SourceSpec::Tree(Box::new(TreeSpec::new(
            "tree",
            tree.tree(),
        )))];
        // Negative, so that files written just now count as old.
        let options = BackupOptions {
            grain_seconds: Some(-60),
            ..BackupOptions::new("host", sources)
        };
        let mut done = backup(
            &lab.open(),
            options,
            Task::new(&Counters::default(), &Cancel::new()),
        )
        .expect("backed up");
        (done.snapshot, done.sources.remove(0))
    };
    let lab = Lab::new();
    write(&lab.tree().join("a"), &noise(1, 50_000));
    run(&lab, &lab);
    lab.store.clock().advance(DAY);
    write(&lab.tree().join("b"), &noise(2, 50_000));
    let (newest, _) = run(&lab, &lab);

    lab.store.clock().advance(DAY);
    let mut random = Random(7);
    let copy = lab.copied_without_times(|| random.next());
    let (_, report) = run(&copy, &lab);
    assert_eq!(
        (report.parent, report.counts.bytes_read),
        (newest, 0),
        "{report:?}"
    );

    // A snapshot that landed late and lacks data cannot be a parent: its packs were deleted while
    // its writer slept.
    let torn = lab.copied_without_times(|| random.next());
    let packs = torn
        .store
        .objects()
        .into_iter()
        .filter(|meta| matches!(meta.key, ObjectKey::Pack(_)));
    packs.for_each(|pack| crate::store::Store::delete(&*torn.store, &pack.key).expect("deleted"));
    let (_, report) = run(&torn, &lab);
    assert_eq!(
        (report.parent, report.counts.bytes_read),
        (None, 100_000),
        "{report:?}"
    );
}

/// A writer that is still alive may withdraw its late snapshot, so the snapshot that it replaces is
/// not dropped for it.
#[test]
fn a_late_snapshot_counts_once_its_writer_is_gone() {
    let lab = Lab::new();
    let repo = lab.open();
    let old = add(&lab, &repo, |_| {});
    let lease = crate::ops::testing::lease(&repo);
    let found = repo
        .find_snapshot(&old.to_string(), &HostChoice::Any)
        .expect("there");

    let mut next = found.successor();
    (next.lease, next.heartbeat) = (lease.id(), lease.last_heartbeat());
    let plain = crate::format::encode_snapshot(&next);
    let (bytes, name) = crate::repo::seal_object(
        repo.keys(),
        crate::format::ObjectKind::Snapshot,
        lease.id(),
        &plain,
    )
    .expect("sealed");

    lab.store.clock().advance(3600);
    let key = ObjectKey::Snapshot(SnapshotId::from(name));
    crate::store::Store::put(
        &*lab.store,
        &key,
        crate::store::ObjectBody::Bytes(&bytes),
        crate::store::PutMode::CreateOnly,
    )
    .expect("put");

    let dropped = || {
        let report = run(
            &repo,
            &ForgetOptions {
                dry_run: true,
                ..options(super::tests::last(5))
            },
        );
        report
            .groups
            .iter()
            .flat_map(|group| &group.decisions)
            .filter(|one| !one.keep)
            .count()
    };

    assert_eq!(dropped(), 0);
    lease.release().expect("released");
    assert_eq!(dropped(), 1, "replaced");
}
