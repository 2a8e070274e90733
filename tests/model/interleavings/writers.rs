//! Interleavings of writers and their leases: I2, I5, I6, I7, I10–I12.

use std::time::Duration;

use icecore::Error;
use icecore::format::SnapshotState;
use icecore::observe::Recording;
use icecore::ops::backup::{BackupReport, backup};
use icecore::repo::{LeaseTimes, RepoError};
use icecore::store::{KeyKind, ListingLag, ObjectDir, ObjectKey, SharedStore, Store, list_all};
use icecore::task::{Cancel, Task};
use icecore::testing::noise;
use icecore::types::SnapshotId;

use super::seeds;
use super::segments::with_history;
use crate::cut::{CutStore, Last};
use crate::deeds::Work;
use crate::scene::{DAY, HOUR, LAG, ONE, Scene, TWO};
use crate::tree::Thing;
use crate::world::shared;

fn is_lost<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Repo(RepoError::LostLease { .. })))
}

/// I2: a client sleeps in the middle of a backup, through mark and sweep. When it wakes, its index
/// has rows of swept packs. The backup cannot commit, and the next one stores the deleted chunks
/// again.
#[test]
fn i02_a_client_asleep_during_mark_and_sweep() {
    for seed in seeds() {
        for call in [6, 10, 14] {
            let mut scene = with_history(seed);
            // Content that is only in packs that will be swept.
            scene.hosts[TWO].tree.put("z", Thing::File(noise(2, 3000)));
            let asleep = scene.backup_until(TWO, call);
            assert!(asleep.is_waiting);
            scene.prune_for_days(ONE, 3);
            let woken = asleep.end();
            assert!(is_lost(&woken), "{woken:?}");
            scene.backup(TWO);
            scene.check();
        }
    }
}

/// I5: a client is killed between pack and segment. The pack is adopted, judged and swept like any
/// other, and each backup in between is complete.
#[test]
fn i05_killed_between_pack_and_segment_and_swept_as_an_orphan() {
    for seed in seeds() {
        let mut scene = Scene::new(seed);
        scene.hosts[ONE]
            .tree
            .put("first", Thing::File(noise(seed, 30_000)));
        scene.backup(ONE);
        scene.hosts[ONE]
            .tree
            .put("orphan", Thing::File(noise(seed + 1, 30_000)));

        let dying = CutStore::dying(SharedStore::clone(&scene.clients[ONE]), 2, Last::Lost);
        let work = Work::Backup(Box::new(scene.hosts[ONE].options()));
        scene
            .job(ONE, shared(dying), work)
            .run()
            .expect_err("dies before its segment");
        assert_eq!(
            (scene.count(ObjectDir::Packs), scene.count(ObjectDir::Index)),
            (2, 1)
        );

        let orphan = scene.hosts[ONE].tree.things["orphan"].clone();
        scene.hosts[ONE].tree.remove("orphan");

        for day in 0..5 {
            scene.pass(26 * HOUR);
            scene.prune(TWO);
            // The file comes back while its pack is adopted, condemned, and deleted.
            if day % 2 == 0 {
                scene.hosts[ONE].tree.put("orphan", orphan.clone());
            } else {
                scene.hosts[ONE].tree.remove("orphan");
            }
            scene.backup(ONE);
            scene.check();
        }
    }
}

/// I6: a writer is paused between its heartbeat and its snapshot for longer than a lease lives, and
/// withdraws. If the store's clock jumped back during the pause and dates the snapshot in time, it
/// counts, and a prune has waited for it.
#[test]
fn i06_a_writer_paused_between_heartbeat_and_snapshot() {
    for seed in seeds() {
        for jump in [0, LAG, -LAG] {
            let mut scene = with_history(seed);
            scene.hosts[TWO].tree.put("z", Thing::File(noise(3, 3000)));
            let paused = scene.backup_until_put(TWO, KeyKind::Snapshot);
            assert!(paused.is_waiting);
            scene.world.advance(31 * 60);
            scene.world.jump(jump);
            let _ = scene.try_prune(ONE);
            let ended = paused.end();
            assert_eq!(is_lost(&ended), jump >= 0, "jump {jump}: {ended:?}");
            let _ = scene.note(TWO, ended);
            let kept_before = scene.kept.len();
            scene.prune_for_days(ONE, 3);
            scene.check();
            assert_eq!(scene.kept.len(), kept_before);
        }
    }
}

/// I7: a lease is lost, and the same host takes another one and commits. The first backup stays
/// lost.
#[test]
fn i07_a_lease_lost_and_taken_again() {
    for seed in seeds() {
        let mut scene = with_history(seed);
        scene.hosts[TWO]
            .tree
            .put("z", Thing::File(noise(seed + 7, 3000)));
        let first = scene.backup_until(TWO, 9);
        assert!(first.is_waiting);
        scene.pass(2 * HOUR);
        scene.backup(TWO);
        scene.prune(ONE);
        let first = first.end();
        assert!(is_lost(&first), "{first:?}");
        scene.prune_for_days(ONE, 3);
        scene.check();
    }
}

/// I10: the parent is forgotten and the packs that only it needs are marked before the child's
/// lease; the child's stale listing still shows the parent.
#[test]
fn i10_the_parent_is_forgotten_and_marked_before_the_lease() {
    for seed in seeds() {
        let mut scene = Scene::new(seed);
        scene.hosts[TWO]
            .tree
            .put("carried", Thing::File(noise(seed, 40_000)));
        let parent = scene.backup(TWO);
        scene.pass(3 * DAY);
        scene.pass_lag();
        scene.open(TWO).sync().expect("syncs");
        scene.forget(ONE, parent);

        // The snapshot is old enough for the mark. The listing of the child's host is hours old,
        // far beyond the limit of the protocol. So the child may fail, but must not commit
        // references to chunks that a sweep deletes.
        scene.world.advance(25 * HOUR);
        scene.prune(ONE);
        scene
            .world
            .set_directory_lag(ObjectDir::Index, ListingLag::of(LAG));
        let child = scene.try_backup(TWO);
        scene.prune_for_days(ONE, 3);
        scene.check();
        drop(child);

        // Within the allowed lag: forgotten a moment ago, and still listed.
        let parent = scene.backup(TWO);
        scene.pass_lag();
        scene.world.set_lag(ListingLag::of(LAG));
        scene.forget(ONE, parent);
        scene.prune(ONE);
        scene.backup(TWO);
        scene.prune_for_days(ONE, 4);
        scene.check();
    }
}

/// I12: a first backup runs for three days under daily prunes, its lease kept alive by heartbeats.
/// It shares no chunks with other backups, and no prune deletes its own.
#[test]
fn i12_a_three_day_first_backup_under_daily_prunes() {
    for seed in seeds() {
        let mut scene = with_history(seed);
        scene.hosts[TWO]
            .tree
            .put("new", Thing::File(noise(77, 300_000)));
        let slow = SlowBackup::begin(&scene, TWO);
        for _ in 0..3 {
            slow.live_for(&scene, DAY);
            scene.prune(ONE);
        }
        let id = slow.end(&mut scene);
        scene.prune_for_days(ONE, 3);
        scene.check();
        assert!(scene.kept.contains_key(&id));
    }
}

/// A backup that is paused in the middle while heartbeats keep its lease alive.
pub struct SlowBackup {
    host: usize,
    resume: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<Result<BackupReport, Error>>,
}

impl SlowBackup {
    /// Starts a backup and runs it until everything is captured and it is about to put a pack.
    pub fn begin(scene: &Scene, host: usize) -> Self {
        let (paused, is_paused) = std::sync::mpsc::channel::<()>();
        let (resume, resumed) = std::sync::mpsc::channel::<()>();
        let hook = Box::new(move || {
            let _ = paused.send(());
            let _ = resumed.recv();
        });

        let store = CutStore::hooked_before(
            SharedStore::clone(&scene.clients[host]),
            KeyKind::Pack,
            hook,
        );
        let times = LeaseTimes {
            heartbeat: Duration::from_millis(1),
            ..LeaseTimes::default()
        };
        let repo = scene.hosts[host]
            .open(&shared(store))
            .expect("opens")
            .with_lease_times(times);

        let options = scene.hosts[host].options();
        let thread = std::thread::spawn(move || {
            backup(
                &repo,
                options,
                Task::new(&Recording::default(), &Cancel::new()),
            )
        });

        is_paused.recv().expect("waits in the middle");
        Self {
            host,
            resume,
            thread,
        }
    }

    /// Lets time pass, with a heartbeat every 20 minutes.
    pub fn live_for(&self, scene: &Scene, seconds: i64) {
        for _ in 0..seconds / 1200 {
            scene.world.advance(1200);
            wait_for_heartbeat(scene);
        }
    }

    /// Resumes the backup and lets it commit.
    pub fn end(self, scene: &mut Scene) -> SnapshotId {
        drop(self.resume);
        let report = self.thread.join().expect("no panic").expect("backs up");
        let id = report.snapshot.expect("committed");
        scene.kept.insert(id, scene.hosts[self.host].held());
        id
    }
}

/// Waits until every live lease was written again after the clock was moved.
fn wait_for_heartbeat(scene: &Scene) {
    let now = scene.memory().clock().now();
    loop {
        let leases = list_all(&**scene.memory(), ObjectDir::Leases).expect("lists");
        // Leases that are left to expire are older.
        let young = leases
            .iter()
            .filter(|lease| now.seconds_since(lease.modified) < 3000.0);
        let mut young = young.peekable();
        if young.peek().is_some() && young.any(|lease| lease.modified > now) {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// I11: an interrupted backup leaves a checkpoint, which becomes the parent of the next backup and
/// is then overtaken; prunes run before, between and after.
#[test]
fn i11_a_checkpoint_as_parent() {
    for seed in seeds() {
        let mut scene = with_history(seed);
        for n in 0..12 {
            scene.hosts[TWO].tree.put(
                &format!("big/{n}"),
                Thing::File(noise(seed * 100 + n, 60_000)),
            );
        }
        let checkpoint = interrupt(&scene);
        for days in [0, 2] {
            scene.prune_for_days(ONE, days);
            scene.check();
        }

        let repo = scene.open_true("look");
        let snapshot = repo.read_snapshot(&checkpoint).expect("is still there");
        assert_eq!(snapshot.state, SnapshotState::Checkpoint);

        let id = scene.backup(TWO);
        let snapshot = repo.read_snapshot(&id).expect("reads");
        let counts = snapshot.source("tree").expect("is there").counts;
        assert!(
            counts.files_new < 12,
            "what the checkpoint had is not read again: {counts:?}"
        );

        scene.prune_for_days(ONE, 4);
        scene.check();
        let left = scene.memory().stat(&ObjectKey::Snapshot(checkpoint));
        assert!(left.is_err(), "a checkpoint that was overtaken goes");
    }
}

/// The checkpoint that a backup would continue is gone, but a lagging listing still shows it. The
/// backup skips it instead of listing again until the lag is over.
#[test]
fn a_checkpoint_that_is_gone_and_still_listed_is_passed_over() {
    let mut scene = with_history(1);
    for n in 0..12 {
        scene.hosts[TWO]
            .tree
            .put(&format!("big/{n}"), Thing::File(noise(n, 60_000)));
    }
    let checkpoint = interrupt(&scene);
    scene.pass_lag();
    scene.pass_lag();
    // Its own host reads it once, so that it is in the cache.
    scene.open(TWO).read_snapshot(&checkpoint).expect("reads");
    scene
        .world
        .set_directory_lag(ObjectDir::Snapshots, ListingLag::of(LAG));
    scene.lose(&ObjectKey::Snapshot(checkpoint));
    let id = scene.backup(TWO);
    scene.check();
    assert!(scene.kept.contains_key(&id));
}

/// Interrupts a backup of the second host after it has read some files; returns its checkpoint.
fn interrupt(scene: &Scene) -> SnapshotId {
    let repo = scene.open(TWO);
    let cancel = Cancel::new();
    let observer = StopsAfter {
        files: 6.into(),
        cancel: cancel.clone(),
    };
    let options = scene.hosts[TWO].options();
    let ended = backup(&repo, options, Task::new(&observer, &cancel));
    assert!(matches!(ended, Err(Error::Interrupted)), "{ended:?}");
    let all = scene
        .open_true("look")
        .snapshots(&mut |_, err| panic!("{err}"))
        .expect("lists");
    let is_checkpoint =
        |found: &&icecore::repo::StoredSnapshot| found.snapshot.state == SnapshotState::Checkpoint;
    all.iter().find(is_checkpoint).expect("a checkpoint").id
}

struct StopsAfter {
    files: std::sync::atomic::AtomicI64,
    cancel: Cancel,
}

impl icecore::observe::Observer for StopsAfter {
    fn add(&self, counter: icecore::observe::Counter, _: u64) {
        use icecore::observe::Counter;
        if matches!(counter, Counter::FilesNew | Counter::FilesChanged)
            && self.files.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 1
        {
            self.cancel.cancel();
        }
    }
    fn phase(&self, _: &icecore::observe::Phase) {}
    fn expect(&self, _: u64, _: icecore::observe::ProgressUnit) {}
    fn problem(&self, _: &icecore::observe::Problem) {}
    fn detail(&self, _: &'static str, _: &icecore::observe::Subject) {}
}
