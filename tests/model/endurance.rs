//! Hourly backups of a changing tree with a weekly forget and prune, for long enough to detect
//! unwanted growth: of size, objects, runs, or the work of a backup.
//!
//! `ICECORE_ENDURANCE_HOURS=8760` is a year.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use icecore::format::SourceKind;
use icecore::observe::Recording;
use icecore::ops::forget::{ForgetOptions, GroupBy, Period, PeriodSlots, Policy, forget_by_policy};
use icecore::repo::{Repository, Secret};
use icecore::store::{
    MemoryStore, ObjectDir, RecordingStore, SharedStore, StoreOperation, TestClock, list_all,
};
use icecore::task::{Cancel, Task};
use icecore::testing::noise;
use icecore::types::SnapshotId;

use crate::deeds::{Job, Outcome, Work};
use crate::machine::causes;
use crate::tree::{Rng, Thing};
use crate::world::{Held, Host, difference, init, read_back, scratch, verify_all};

const HOUR: i64 = 3600;
const WEEK: u64 = 168;

struct Year {
    memory: Arc<MemoryStore>,
    store: Arc<RecordingStore>,
    host: Host,
    rng: Rng,
    kept: BTreeMap<SnapshotId, Held>,
    dir: tempfile::TempDir,
}

/// The work of some backups: store calls, bytes put and read, objects listed.
#[derive(Debug, Clone, Copy, Default)]
struct WorkDone {
    backups: u64,
    calls: u64,
    put: u64,
    read: u64,
    listed: u64,
}

impl Year {
    fn new(seed: u64) -> Self {
        // Days ahead of this machine's clock, so that policies use the store's time.
        let clock = TestClock::stepping(icecore::sys::now().plus_seconds(10 * 86_400), 1_000_000);
        let memory = Arc::new(MemoryStore::with_clock(&clock));
        let store = Arc::new(RecordingStore::new(memory.clone()));
        init(&(memory.clone() as SharedStore));
        let dir = scratch();
        let mut host = Host::new("node", dir.path().join("node"));
        let mut rng = Rng(seed);
        for n in 0..60 {
            host.tree.put(
                &format!("{}/{n}", n % 7),
                Thing::File(noise(rng.next(), size(n))),
            );
        }
        for _ in 0..30 {
            host.blocks.edit_blocks(&mut rng);
        }
        Self {
            memory,
            store,
            host,
            rng,
            kept: BTreeMap::new(),
            dir,
        }
    }

    /// Makes the changes of one hour; the size of the tree stays about the same.
    fn edit(&mut self) {
        for _ in 0..2 {
            let n = self.rng.below(60);
            self.host.tree.put(
                &format!("{}/{n}", n % 7),
                Thing::File(noise(self.rng.next(), size(n))),
            );
        }
        let n = self.rng.below(40);
        match self.rng.below(2) {
            0 => self.host.tree.remove(&format!("more/{n}")),
            _ => self.host.tree.put(
                &format!("more/{n}"),
                Thing::File(noise(self.rng.next(), 3000)),
            ),
        }
        if self.rng.below(4) == 0 {
            self.host.blocks.edit_blocks(&mut self.rng);
        }
    }

    fn run(&self, work: Work) -> Outcome {
        let store = self.store.clone();
        let job = Job {
            store,
            cache: self.host.cache(),
            host: self.host.name,
            work,
        };
        job.run()
            .unwrap_or_else(|err| panic!("{err}{}", causes(&err)))
    }

    fn backup(&mut self, done: &mut WorkDone) {
        self.store.take();
        let Outcome::Committed(id) = self.run(Work::Backup(Box::new(self.host.options()))) else {
            panic!("no backup");
        };
        self.kept.insert(id, self.host.held());
        let calls = self.store.take();
        let sum = |operation| -> u64 {
            calls
                .iter()
                .filter(|call| call.operation == operation)
                .map(|call| call.bytes)
                .sum()
        };
        done.backups += 1;
        done.calls += calls.len() as u64;
        done.put += sum(StoreOperation::Put);
        done.read += sum(StoreOperation::Get) + sum(StoreOperation::ReadAt);
        done.listed += sum(StoreOperation::List);
    }

    /// Forgets by policy and prunes.
    fn tidy(&mut self) {
        let slots = |period, count| (period, PeriodSlots::Some(count));
        let policy = Policy {
            periods: vec![
                slots(Period::Hour, 24),
                slots(Period::Day, 7),
                slots(Period::Week, 5),
                slots(Period::Month, 12),
            ],
            ..Policy::default()
        };
        let options = ForgetOptions {
            policy,
            filter: Default::default(),
            group_by: GroupBy::default(),
            by_name: std::collections::BTreeSet::new(),
            zone: jiff::tz::TimeZone::UTC,
            force: true,
            dry_run: false,
        };

        let repo = self
            .host
            .open(&(self.store.clone() as SharedStore))
            .expect("opens");
        let report = forget_by_policy(
            &repo,
            &options,
            Task::new(&Recording::default(), &Cancel::new()),
        );
        let report = report.unwrap_or_else(|err| panic!("{err}{}", causes(&err)));
        assert_eq!(report.refused, []);

        self.run(Work::Prune { now: false });
        let left: Vec<SnapshotId> = repo
            .listed_snapshots()
            .expect("lists")
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        assert!(left.len() <= 24 + 7 + 5 + 12, "{} snapshots", left.len());
        self.kept.retain(|id, _| left.contains(id));
    }

    fn counts(&self) -> BTreeMap<&'static str, usize> {
        let directories = [
            ObjectDir::Packs,
            ObjectDir::Index,
            ObjectDir::Snapshots,
            ObjectDir::Forgotten,
            ObjectDir::Leases,
        ];
        directories
            .map(|directory| {
                (
                    directory.name(),
                    list_all(&*self.memory, directory).expect("lists").len(),
                )
            })
            .into()
    }

    /// Returns the largest number of runs of a snapshot's source.
    fn runs(&self, repo: &Repository) -> usize {
        let runs = self
            .kept
            .keys()
            .flat_map(|id| repo.read_snapshot(id).expect("reads").sources);
        let counts = runs.map(|source| match source.kind {
            SourceKind::Tree { runs, .. } => runs.len(),
            SourceKind::Stream { .. } => 0,
        });
        counts.max().unwrap_or(0)
    }

    /// Returns the stored bytes of a new repository with only the kept snapshots, backed up in
    /// order.
    fn fresh_bytes(&self, order: &[SnapshotId]) -> u64 {
        let memory = Arc::new(MemoryStore::with_clock(self.memory.clock()));
        init(&(memory.clone() as SharedStore));
        let mut host = Host::new("node", self.dir.path().join("again"));
        for id in order {
            let held = &self.kept[id];
            for (tree, name) in [(&mut host.tree, "tree"), (&mut host.blocks, "blocks")] {
                let wanted = &held[name];
                let gone: Vec<String> = tree
                    .things
                    .keys()
                    .filter(|path| !wanted.contains_key(*path))
                    .cloned()
                    .collect();
                gone.iter().for_each(|path| tree.remove(path));
                for (path, thing) in wanted {
                    if tree.things.get(path) != Some(thing) {
                        tree.put(path, thing.clone());
                    }
                }
            }

            let work = Work::Backup(Box::new(host.options()));
            let store = memory.clone();
            Job {
                store,
                cache: host.cache(),
                host: host.name,
                work,
            }
            .run()
            .expect("backs up");
        }
        memory.total_bytes()
    }
}

/// Returns the size of a file of the tree: 1 to 30 KB.
fn size(n: u64) -> usize {
    1000 + (n as usize * 487) % 29_000
}

#[test]
fn a_year_of_hourly_backups_stays_as_small_and_as_quick_as_its_first_months() {
    let hours: u64 = std::env::var("ICECORE_ENDURANCE_HOURS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1680);
    let began = Instant::now();
    let mut year = Year::new(1);
    // Sums over two weeks after the first month, and over the last two weeks.
    let mut early = WorkDone::default();
    let mut late = WorkDone::default();
    let mut objects_max = 0;
    for hour in 0..hours {
        year.edit();
        let mut done = WorkDone::default();
        year.backup(&mut done);
        let window = match hour {
            _ if (4 * WEEK..6 * WEEK).contains(&hour) => Some(&mut early),
            _ if hour >= hours.saturating_sub(2 * WEEK) => Some(&mut late),
            _ => None,
        };

        if let Some(window) = window {
            window.backups += done.backups;
            window.calls += done.calls;
            window.put += done.put;
            window.read += done.read;
            window.listed += done.listed;
        }

        year.memory.clock().advance(HOUR);
        if hour % WEEK == WEEK - 1 {
            year.tidy();
            objects_max = objects_max.max(year.memory.objects().len());
        }
    }

    year.tidy();
    // The packs that the last prunes condemned are deleted a day later.
    for _ in 0..3 {
        year.memory.clock().advance(26 * HOUR);
        year.run(Work::Prune { now: false });
    }
    let settled = year.run(Work::Prune { now: false });
    println!("the last prune: {settled:?}");

    verify_all(&(year.memory.clone() as SharedStore)).unwrap_or_else(|what| panic!("{what}"));

    let cache = year.dir.path().join("fresh");
    let repo = Repository::open(year.memory.clone(), &Secret::empty(), &cache).expect("opens");
    repo.sync().expect("syncs");
    for (id, held) in &year.kept {
        let found = read_back(&repo, id).unwrap_or_else(|err| panic!("{err}{}", causes(&err)));
        assert_eq!(difference(held, &found), None, "{}", id.short());
    }

    let order: Vec<SnapshotId> = repo
        .listed_snapshots()
        .expect("lists")
        .into_iter()
        .map(|(id, _)| id)
        .collect();

    let size = year.memory.total_bytes();
    let fresh = year.fresh_bytes(&order);
    let counts = year.counts();
    let runs = year.runs(&repo);
    println!(
        "{hours} hours in {:.0} s: {} snapshots in {size} bytes, anew {fresh} ({:+.1} %); {counts:?}, at most \
         {objects_max} objects before a sweep, {runs} runs\nearly {early:?}\nlate  {late:?}",
        began.elapsed().as_secs_f64(),
        order.len(),
        (size as f64 / fresh as f64 - 1.0) * 100.0
    );

    assert!(
        size as f64 <= 1.15 * fresh as f64,
        "the repository is too large"
    );
    assert!(runs <= 16, "{runs} runs");
    assert!(
        counts["index"] <= 60 && counts["packs"] <= 2 * order.len() + 60,
        "{counts:?}"
    );
    if hours >= 10 * WEEK {
        let grew = |early: u64, late: u64| late as f64 / early as f64;
        assert!(
            grew(early.calls, late.calls) < 1.2,
            "calls: {early:?} {late:?}"
        );
        assert!(
            grew(early.put, late.put) < 1.2,
            "bytes put: {early:?} {late:?}"
        );
        assert!(
            grew(early.read, late.read) < 1.5,
            "bytes read: {early:?} {late:?}"
        );
        assert!(
            grew(early.listed, late.listed) < 1.5,
            "objects listed: {early:?} {late:?}"
        );
    }
}
