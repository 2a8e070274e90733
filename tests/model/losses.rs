//! Random histories in which packs are lost, the newest snapshot is rolled back, snapshots are
//! forgotten and swept, and the store's clock is years ahead or behind for a while. The model
//! predicts which losses must be reported, which must not, and which data must still exist.

use std::collections::{BTreeMap, BTreeSet};

use icecore::Error;
use icecore::index::{Index, PackState};
use icecore::observe::{Recording, Severity};
use icecore::ops::backup::backup;
use icecore::ops::forget::forget_named;
use icecore::ops::list::{SnapshotFilter, snapshots};
use icecore::ops::prune::{PruneOptions, prune};
use icecore::repo::{HostChoice, Repository};
use icecore::store::{ObjectDir, ObjectKey, Store, list_all};
use icecore::task::{Cancel, Task};
use icecore::types::{PackId, SnapshotId};

use crate::scene::{DAY, HOUR, Scene};
use crate::tree::Rng;
use crate::world::{Held, difference, read_back};

const CASES: u64 = 12;
const STEPS: usize = 30;

struct Losses {
    scene: Scene,
    rng: Rng,
    /// The contents of each committed snapshot, and the host that made it.
    kept: BTreeMap<SnapshotId, (usize, Held)>,
    /// The snapshot that each host committed last.
    last: [Option<SnapshotId>; 2],
    /// Snapshots that were rolled back and not acknowledged, by the host that made them.
    missed: [BTreeSet<SnapshotId>; 2],
    /// When each was forgotten, in seconds of real time.
    forgotten: BTreeMap<SnapshotId, i64>,
    /// A pack was lost, so older snapshots may lack data.
    is_hurt: bool,
    was_rolled_back: bool,
    real: i64,
    ahead: i64,
    excursions: u32,
    log: Vec<String>,
}

impl Losses {
    fn new(seed: u64) -> Self {
        Self {
            scene: Scene::with_strong_listing(seed),
            rng: Rng(seed ^ 0x1055),
            kept: BTreeMap::new(),
            last: [None, None],
            missed: Default::default(),
            forgotten: BTreeMap::new(),
            is_hurt: false,
            was_rolled_back: false,
            real: 0,
            ahead: 0,
            excursions: 0,
            log: vec![format!("seed {seed}")],
        }
    }

    fn note(&mut self, what: String) {
        self.log.push(what);
    }

    fn advance(&mut self, seconds: i64) {
        self.real += seconds;
        self.scene.world.advance(seconds);
    }

    fn jump_to(&mut self, ahead: i64) {
        self.scene.world.jump(ahead - self.ahead);
        self.ahead = ahead;
    }

    fn step(&mut self) {
        let host = self.rng.below(2) as usize;
        match self.rng.below(16) {
            0..=2 => {
                let mut rng = Rng(self.rng.next());
                self.scene.hosts[host].tree.edit(&mut rng);
                self.scene.hosts[host].blocks.edit_blocks(&mut rng);
            }
            3..=6 => self.back_up(host),
            7 => self.lose_a_pack(),
            8 => self.roll_back(host),
            9 => self.acknowledge(host),
            10 | 11 => self.forget(host),
            12 | 13 => self.prune(host),
            14 => self.list(host),
            _ if self.ahead == 0 && self.excursions == 0 => {
                // Far enough that every grace period would be over, and not a multiple of any unit.
                self.excursions = 1;
                let years = if self.rng.below(2) == 0 { 10 } else { -20 };
                self.note(format!("the clock is {years} years off"));
                self.jump_to(years * 365 * DAY + 1234);
            }
            _ => self.jump_to(0),
        }

        let minutes = [1, 20, 90, 26 * 60][self.rng.below(4) as usize];
        self.advance(minutes * 60);
    }

    fn open(&self, host: usize) -> Repository {
        self.scene.open(host)
    }

    /// Packs that are known according to the segments and missing in the store, checked from
    /// outside.
    fn missing_packs(&self) -> BTreeSet<PackId> {
        let repo = self.scene.open_true("outside");
        repo.sync().expect("syncs");
        let there: BTreeSet<PackId> = packs(&self.scene).into_iter().collect();
        let rows = repo.with_index(Index::packs).expect("asks").into_iter();
        let known = rows
            .filter(|row| row.added && row.state == PackState::Known)
            .map(|row| row.id);
        known.filter(|id| !there.contains(id)).collect()
    }

    fn back_up(&mut self, host: usize) {
        let missing = self.missing_packs();
        let observer = Recording::default();
        let repo = self.open(host);
        let options = self.scene.hosts[host].options();

        let done = backup(&repo, options, Task::new(&observer, &Cancel::new()));
        let id = done
            .unwrap_or_else(|err| self.fail(&format!("backup: {err}")))
            .snapshot
            .expect("committed");
        self.note(format!(
            "host {host} committed {}; {} packs are missing",
            id.short(),
            missing.len()
        ));

        self.check_warnings(host, &observer);

        let problems = observer.problems();
        for pack in missing.iter().take(10) {
            let name = ObjectKey::Pack(*pack).to_string();
            let is_reported = problems
                .iter()
                .any(|one| one.severity == Severity::Damage && one.subject == name);
            if !is_reported {
                self.fail(&format!(
                    "{name} is missing and was not reported: {problems:?}"
                ));
            }
        }

        if missing.is_empty()
            && !self.is_hurt
            && problems.iter().any(|one| one.severity == Severity::Damage)
        {
            self.fail(&format!("no pack is missing: {problems:?}"));
        }

        let held = self.scene.hosts[host].held();
        self.kept.insert(id, (host, held));
        self.last[host] = Some(id);

        // Earlier losses do not affect a new capture: it must be complete.
        self.check_whole(&id);
    }

    fn check_whole(&self, id: &SnapshotId) {
        let repo = self.scene.open_true("reader");
        repo.sync().expect("syncs");
        let found =
            read_back(&repo, id).unwrap_or_else(|err| self.fail(&format!("{}: {err}", id.short())));
        if let Some(what) = difference(&self.kept[id].1, &found) {
            self.fail(&format!("{}: {what}", id.short()));
        }
    }

    fn lose_a_pack(&mut self) {
        let all = packs(&self.scene);
        if all.is_empty() {
            return;
        }
        let id = all[self.rng.below(all.len() as u64) as usize];
        self.scene.lose(&ObjectKey::Pack(id));
        self.is_hurt = true;
        self.note(format!("pack {} is gone", id.short()));
    }

    /// Deletes the last snapshot that this host committed.
    fn roll_back(&mut self, host: usize) {
        let Some(id) = self.last[host].filter(|id| self.is_listed(id)) else {
            return;
        };
        self.scene.lose(&ObjectKey::Snapshot(id));
        self.kept.remove(&id);
        self.missed[host].insert(id);
        self.was_rolled_back = true;
        self.note(format!(
            "snapshot {} of host {host} was rolled back",
            id.short()
        ));
    }

    fn acknowledge(&mut self, host: usize) {
        for id in std::mem::take(&mut self.missed[host]) {
            let names = [id.to_string()];
            let done = forget_named(
                &self.open(host),
                &names,
                &HostChoice::Any,
                false,
                &Recording::default(),
            );
            done.unwrap_or_else(|err| self.fail(&format!("acknowledge: {err}")));
            self.note(format!("host {host} knows that {} is gone", id.short()));
        }
    }

    fn forget(&mut self, host: usize) {
        let all: Vec<SnapshotId> = self
            .kept
            .keys()
            .copied()
            .filter(|id| self.is_listed(id))
            .collect();
        // A forget under a clock that is behind has an early date, and its grace period is over
        // when the clock is right again.
        if all.len() < 3 || self.ahead < 0 {
            return;
        }

        let id = all[self.rng.below(all.len() as u64) as usize];
        let names = [id.to_string()];
        let done = forget_named(
            &self.open(host),
            &names,
            &HostChoice::Any,
            false,
            &Recording::default(),
        );

        done.unwrap_or_else(|err| self.fail(&format!("forget: {err}")));
        self.kept.remove(&id);
        self.forgotten.insert(id, self.real);
        self.note(format!("host {host} forgot {}", id.short()));
    }

    fn prune(&mut self, host: usize) {
        let options = PruneOptions {
            threads: 1,
            level: 1,
            ..PruneOptions::default()
        };
        let observer = Recording::default();
        let done = prune(
            &self.open(host),
            &options,
            Task::new(&observer, &Cancel::new()),
        );

        self.check_warnings(host, &observer);
        match done {
            Ok(report) => self.note(format!("host {host} pruned: {report:?}")),
            // Lost data stops a prune.
            Err(Error::Unresolved { .. }) if self.is_hurt => {}
            Err(err) => self.fail(&format!("prune: {err}")),
        }

        for (id, at) in &self.forgotten {
            let is_young = self.real - at < DAY;
            if is_young
                && self
                    .scene
                    .memory()
                    .stat(&ObjectKey::Forgotten(*id))
                    .is_err()
            {
                let minutes = (self.real - at) / 60;
                self.fail(&format!(
                    "{} was forgotten {minutes} minutes ago and is gone",
                    id.short()
                ));
            }
        }
        if !self.is_hurt {
            self.kept.keys().for_each(|id| self.check_whole(id));
        }
    }

    fn list(&mut self, host: usize) {
        let observer = Recording::default();
        snapshots(&self.open(host), &SnapshotFilter::default(), &observer).expect("lists");
        self.check_warnings(host, &observer);
    }

    /// Asserts that a host reports each of its own snapshots that was rolled back, and no other.
    fn check_warnings(&self, host: usize, observer: &Recording) {
        let warned: Vec<String> = observer
            .problems()
            .iter()
            .filter(|one| one.severity == Severity::Warning)
            .map(|one| one.subject.clone())
            .collect();
        for id in &self.missed[host] {
            if !warned.contains(&format!("snapshot {}", id.short())) {
                self.fail(&format!(
                    "host {host} did not report {}: {warned:?}",
                    id.short()
                ));
            }
        }
        if !self.was_rolled_back && !warned.is_empty() {
            self.fail(&format!("nothing was rolled back: {warned:?}"));
        }
    }

    fn is_listed(&self, id: &SnapshotId) -> bool {
        self.scene.memory().stat(&ObjectKey::Snapshot(*id)).is_ok()
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{}\n{what}", self.log.join("\n"))
    }
}

fn packs(scene: &Scene) -> Vec<PackId> {
    let listed = list_all(&**scene.memory(), ObjectDir::Packs)
        .expect("lists")
        .into_iter();
    listed
        .filter_map(|meta| {
            if let ObjectKey::Pack(id) = meta.key {
                Some(id)
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn losses_and_wrong_clocks_are_reported_and_cost_nothing_else() {
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let first = std::env::var("ICECORE_MODEL_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let (first, cases) = first.map_or((time.as_millis() as u64, CASES), |seed| (seed, 1));
    println!("seeds {first}..{}", first + cases);
    for seed in first..first + cases {
        let mut losses = Losses::new(seed);
        for _ in 0..STEPS {
            losses.step();
        }
        losses.jump_to(0);
        losses.advance(HOUR);
        for host in 0..2 {
            losses.back_up(host);
            losses.list(host);
        }
    }
}
