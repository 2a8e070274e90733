//! Interleavings of segments and the index: I1, I3, I4, I8, I9, I13, I14.

use icecore::index::PackState;
use icecore::store::{ListingLag, ObjectDir, ObjectKey, SharedStore, list_all};
use icecore::testing::noise;
use icecore::types::{PackId, SegmentId};

use super::seeds;
use crate::deeds::Work;
use crate::machine::copy_directory;
use crate::scene::{DAY, HOUR, LAG, ONE, Scene, TWO};
use crate::tree::{Rng, Thing};

/// Creates a scene with some earlier backups, a few of them forgotten, and enough dead packs for a
/// prune.
pub fn with_history(seed: u64) -> Scene {
    let mut scene = Scene::new(seed);
    let mut rng = Rng(seed);
    let mut ids = Vec::new();
    for _ in 0..6 {
        for host in [ONE, TWO] {
            scene.hosts[host].tree.edit(&mut rng);
            scene.hosts[host]
                .tree
                .put("always", Thing::File(noise(rng.next(), 20_000)));
            ids.push(scene.backup(host));
        }
        scene.pass(2 * HOUR);
    }
    ids.into_iter()
        .step_by(3)
        .for_each(|id| scene.forget(ONE, id));
    scene.pass(2 * DAY);
    scene
}

fn states(scene: &Scene, cache: &str) -> Vec<(PackId, PackState)> {
    let repo = scene.open_true(cache);
    repo.sync().expect("syncs");
    let mut packs: Vec<_> = repo
        .index()
        .packs()
        .expect("packs")
        .into_iter()
        .map(|pack| (pack.id, pack.state))
        .collect();
    packs.retain(|(_, state)| *state != PackState::Dropped);
    packs.sort_by_key(|(id, _)| *id);
    packs
}

/// I1: two prunes that do not see each other's leases merge segments, condemn and sweep at the same
/// time. All clients agree on the result regardless of the order in which they see the segments,
/// and no needed data is deleted.
#[test]
fn i01_two_mergers_race_a_prune() {
    for seed in seeds() {
        let mut scene = with_history(seed);
        scene.prune(ONE);
        scene.pass(26 * HOUR);

        // Neither sees the other's lease.
        scene
            .world
            .set_directory_lag(ObjectDir::Leases, ListingLag::of(LAG));

        let watcher = scene.open_true("watcher");
        watcher.sync().expect("syncs");
        for call in [5, 12, 20] {
            let first = scene.until(ONE, call, Work::Prune { now: false });
            let second = scene.try_prune(TWO);
            watcher.sync().expect("syncs");
            let first = first.end();
            assert!(first.is_ok() || second.is_ok(), "{first:?}, {second:?}");
            scene.check_with(&watcher);
            scene.pass(26 * HOUR);
        }

        scene.world.set_lag(ListingLag::default());
        scene.prune_for_days(ONE, 2);
        scene.check();
        watcher.sync().expect("syncs");
        assert_eq!(
            states(&scene, "watcher"),
            states(&scene, "new"),
            "seed {seed}"
        );
    }
}

/// I3: an old index database is put back, which lists packs that were swept and lacks new ones.
#[test]
fn i03_an_old_index_database_is_put_back() {
    for seed in seeds() {
        let mut scene = with_history(seed);
        scene.open(TWO).sync().expect("syncs");
        copy_directory(&scene.hosts[TWO].cache(), &scene.hosts[TWO].old_cache());
        let gone = scene.count(ObjectDir::Packs);
        scene.prune_for_days(ONE, 3);
        assert!(scene.count(ObjectDir::Packs) < gone, "something was swept");
        copy_directory(&scene.hosts[TWO].old_cache(), &scene.hosts[TWO].cache());
        // This content was only in swept packs: it must be stored again.
        scene.hosts[TWO].tree.put("z", Thing::File(noise(1, 3000)));
        scene.backup(TWO);
        scene.check();
        scene.prune_for_days(TWO, 3);
        scene.check();
    }
}

/// I4: two copies of one repository alternate at one path with one cache. Data of the other copy
/// never counts as present.
#[test]
fn i04_two_copies_of_one_repository_in_turn() {
    for seed in seeds() {
        let mut scene = with_history(seed);
        let copy = scene.world.fork();
        let here = [
            SharedStore::clone(&scene.clients[ONE]),
            crate::world::shared(copy.client()),
        ];

        let mut rng = Rng(seed);
        let mut kept = [scene.kept.clone(), scene.kept.clone()];
        for turn in 0..6 {
            let at = turn % 2;
            scene.clients[ONE] = SharedStore::clone(&here[at]);
            if turn % 3 == 0 {
                scene.hosts[ONE].tree.edit(&mut rng);
            }
            scene.kept = std::mem::take(&mut kept[at]);
            scene.backup(ONE);
            kept[at] = std::mem::take(&mut scene.kept);
            scene.pass(HOUR);
            copy.advance(HOUR);
        }

        for (world, kept) in [scene.world.clone(), copy].into_iter().zip(kept) {
            scene.world = world;
            scene.kept = kept;
            let cache = format!("copy-{}", scene.kept.len());
            scene.check_with(&scene.open_true(&cache));
        }
    }
}

/// I8: hosts that did not see each other's segments stored the same chunks twice, and two
/// concurrent prunes judge which copy counts. They must not delete one copy each.
#[test]
fn i08_a_chunk_in_two_packs_and_two_prunes_side_by_side() {
    for seed in seeds() {
        let mut scene = Scene::new(seed);
        scene
            .world
            .set_directory_lag(ObjectDir::Index, ListingLag::of(LAG));

        let shared = noise(seed, 200_000);
        let mut first = Vec::new();
        for host in [ONE, TWO] {
            scene.hosts[host]
                .tree
                .put("shared", Thing::File(shared.clone()));
            scene.hosts[host]
                .tree
                .put("own", Thing::File(noise(seed + 10 + host as u64, 200_000)));
            first.push(scene.backup(host));
        }
        assert_eq!(scene.count(ObjectDir::Packs), 2, "neither saw the other's");

        scene.pass_lag();
        // The chunks that each stored alone become unneeded; those that both stored stay needed.
        for host in [ONE, TWO] {
            scene.hosts[host].tree.remove("own");
            scene.backup(host);
        }
        first.into_iter().for_each(|id| scene.forget(ONE, id));
        scene.pass(2 * DAY);
        scene
            .world
            .set_directory_lag(ObjectDir::Leases, ListingLag::of(LAG));

        for call in [8, 14, 18, 22] {
            let one = scene.until(ONE, call, Work::Prune { now: false });
            let _ = scene.try_prune(TWO);
            let _ = one.end();
            scene.check();
            scene.pass(26 * HOUR);
        }

        scene.prune_for_days(ONE, 3);
        scene.check();
    }
}

/// I9: a client that has not listed the segments since looks up a repacked chunk. It finds the pack
/// swept, lists once, and finds the copy.
#[test]
fn i09_repack_then_sweep_then_lookup() {
    for seed in seeds() {
        let mut scene = Scene::new(seed);
        scene.hosts[ONE]
            .tree
            .put("keep", Thing::File(noise(seed, 50_000)));
        scene.hosts[ONE]
            .tree
            .put("big", Thing::File(noise(seed + 1, 1_500_000)));
        let first = scene.backup(ONE);
        scene.pass_lag();

        let sleeper = scene.open(TWO);
        sleeper.sync().expect("syncs");

        scene.hosts[ONE].tree.remove("big");
        let second = scene.backup(ONE);
        scene.forget(ONE, first);
        scene.pass(2 * DAY);
        let before = list_all(&**scene.memory(), ObjectDir::Packs).expect("lists");
        scene.prune_for_days(ONE, 3);
        let after = list_all(&**scene.memory(), ObjectDir::Packs).expect("lists");
        assert!(
            before.iter().any(|pack| !after.contains(pack)),
            "a pack was repacked and swept"
        );

        let found = crate::world::read_back(&sleeper, &second).expect("finds the copies");
        assert_eq!(crate::world::difference(&scene.kept[&second], &found), None);
        scene.check();
    }
}

/// I13: a listing does not show the merged segment yet, and no longer shows those that it
/// supersedes. The client's index drops their packs, so it stores again the chunks that it cannot
/// see. Nothing is lost.
#[test]
fn i13_a_listing_hides_the_merged_segment() {
    for seed in seeds() {
        let mut scene = with_history(seed);
        scene.world.set_lag(ListingLag::default());
        scene.pass_lag();
        let repo = scene.open(ONE);
        repo.sync().expect("syncs");
        scene.open(TWO).sync().expect("syncs");

        let small: Vec<SegmentId> = repo.listed_segments().expect("lists").into_iter().collect();
        let bodies: Vec<_> = small
            .iter()
            .map(|id| repo.read_segment(id).expect("reads"))
            .collect();
        scene
            .world
            .set_directory_lag(ObjectDir::Index, ListingLag::of(LAG));

        scene.publish(ONE, |merged| {
            merged.packs = bodies.iter().flat_map(|body| body.packs.clone()).collect();
            merged.superseded.clone_from(&small);
        });
        scene
            .world
            .set_directory_lag(ObjectDir::Index, ListingLag::default());
        small
            .iter()
            .for_each(|id| scene.lose(&ObjectKey::Segment(*id)));

        let packs = scene.count(ObjectDir::Packs);
        let report = scene.open(TWO).sync().expect("syncs");
        assert_eq!((report.loaded, report.detached), (0, small.len()));
        scene.backup(TWO);
        assert!(
            scene.count(ObjectDir::Packs) > packs,
            "it stored again what it could not see"
        );

        scene.pass_lag();
        scene.backup(TWO);
        scene.check();
        scene.prune_for_days(ONE, 3);
        scene.check();
    }
}

/// I14: an empty segment claims to supersede all others. New clients then know no packs. The packs
/// stay, and a prune adopts them again.
#[test]
fn i14_an_empty_segment_that_supersedes_all() {
    for seed in seeds() {
        let mut scene = with_history(seed);
        scene.pass_lag();
        let all: Vec<SegmentId> = scene
            .open(ONE)
            .listed_segments()
            .expect("lists")
            .into_iter()
            .collect();
        scene.publish(TWO, |empty| empty.superseded.clone_from(&all));
        scene.pass_lag();
        // Without a cache no pack is known.
        std::fs::remove_dir_all(scene.hosts[TWO].cache()).expect("removes the cache");
        scene.backup(TWO);
        for host in [ONE, TWO, ONE] {
            // The prune may refuse, but must not make things worse.
            let _ = scene.try_prune(host);
            scene.pass(26 * HOUR);
        }
        scene.prune(TWO);
        scene.check();
    }
}
