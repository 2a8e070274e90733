//! Scenarios beyond the numbered interleavings of docs/protocol.md.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use icecore::format::SnapshotState;
use icecore::ops::backup::SourceSpec;
use icecore::store::{ListingLag, ObjectDir, ObjectKey, list_all};
use icecore::testing::noise;
use icecore::types::ChunkClass;

use super::seeds;
use super::segments::with_history;
use crate::deeds::{Outcome, Work};
use crate::scene::{DAY, HOUR, LAG, ONE, Scene, TWO};
use crate::tree::{Thing, Things};

/// A file that cannot be read in run 1 stays reported in run 2, although its directory is unchanged
/// and the source is immutable. It is captured once it can be read.
#[test]
fn a_file_unreadable_in_run_1_stays_reported_in_run_2() {
    let mut scene = Scene::new(1);
    scene.hosts[ONE]
        .blocks
        .put("open", Thing::File(noise(1, 400)));
    scene.hosts[ONE]
        .blocks
        .put("shut", Thing::File(noise(2, 400)));
    let shut = scene.hosts[ONE].blocks.root().join("shut");
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).expect("chmod");

    let state = |scene: &mut Scene| {
        let job = scene.job(
            ONE,
            scene.clients[ONE].clone(),
            Work::Backup(Box::new(scene.hosts[ONE].options())),
        );
        // Without the privilege to read any file, even when running as root.
        let ended = std::thread::spawn(move || {
            drop_privilege();
            job.run()
        });
        let Ok(Outcome::Committed(id)) = ended.join().expect("no panic") else {
            panic!("not committed")
        };
        scene.pass(HOUR);
        scene
            .open_true("look")
            .read_snapshot(&id)
            .expect("reads")
            .state
    };

    assert_eq!(state(&mut scene), SnapshotState::Incomplete);
    assert_eq!(state(&mut scene), SnapshotState::Incomplete);
    fs::set_permissions(&shut, fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(state(&mut scene), SnapshotState::Complete);
    scene.backup(ONE);
    scene.check();
}

/// Drops the privilege to read files against their mode, for this thread and those that it starts.
fn drop_privilege() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).expect("capabilities");
    sets.effective
        .remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
    set_capabilities(None, sets).expect("lets go of them");
}

/// An exclude is lifted: the excluded files are captured although their directory is unchanged.
#[test]
fn an_exclude_is_lifted() {
    let mut scene = Scene::new(2);
    scene.hosts[ONE]
        .blocks
        .put("keep/a", Thing::File(noise(1, 400)));
    scene.hosts[ONE]
        .blocks
        .put("skip/b", Thing::File(noise(2, 400)));

    let mut options = scene.hosts[ONE].options();
    for source in &mut options.sources {
        if let SourceSpec::Tree(tree) = source {
            tree.filter.excludes.push("/skip".into());
        }
    }

    let ended = scene
        .job(
            ONE,
            scene.clients[ONE].clone(),
            Work::Backup(Box::new(options)),
        )
        .run();
    let id = scene.note(ONE, ended).expect("committed");

    let blocks: &mut Things = scene
        .kept
        .get_mut(&id)
        .and_then(|held| held.get_mut("blocks"))
        .expect("there");
    blocks.retain(|path, _| !path.starts_with("skip"));

    scene.pass(HOUR);
    scene.backup(ONE);
    scene.check();
}

/// The pack with the chunks of a file is lost, and a repair has recorded that. The next backup of a
/// source that still has the file stores them again, although the file did not change, and the
/// snapshots that share them are complete again.
#[test]
fn a_chunk_is_lost_and_healed() {
    for seed in seeds() {
        let mut scene = Scene::new(seed);
        let file = Thing::File(noise(seed, 50_000));
        scene.hosts[TWO].tree.put("a", file.clone());
        let lost = scene.backup(TWO);
        scene.pass_lag();
        scene.pass_lag();

        let pack = list_all(&**scene.memory(), ObjectDir::Packs)
            .expect("lists")
            .remove(0);
        scene.hosts[ONE].tree.put("a", file);
        scene.hosts[ONE]
            .tree
            .put("b", Thing::File(noise(seed + 1, 500)));
        scene.backup(ONE);

        let look = scene.open_true("look");
        let segments = look.listed_segments().expect("lists");
        let bodies: Vec<_> = segments
            .iter()
            .map(|id| look.read_segment(id).expect("reads"))
            .collect();
        let packs = bodies.iter().flat_map(|body| &body.packs);
        let gone = packs
            .filter(|info| pack.key == ObjectKey::Pack(info.id))
            .collect::<Vec<_>>();
        let frames = gone
            .iter()
            .flat_map(|info| &info.frames)
            .filter(|frame| frame.class == ChunkClass::Data);
        let mut chunks: Vec<_> = frames
            .flat_map(|frame| &frame.chunks)
            .map(|chunk| chunk.id)
            .collect();
        chunks.sort_unstable();
        assert!(!chunks.is_empty());

        scene.lose(&pack.key);
        scene.publish(ONE, |segment| {
            segment.condemned = gone.iter().map(|info| info.id).collect();
            segment.lost.clone_from(&chunks);
        });

        // The pack also held the runs of this snapshot, which cannot be restored.

        scene.kept.remove(&lost);
        scene.pass_lag();
        scene.pass_lag();
        scene.backup(ONE);
        let healed = scene.open_true("fresh");
        scene.check_with(&healed);
        assert!(
            healed.index().lost().expect("asks").is_empty(),
            "nothing is lost any more"
        );
    }
}

/// A client that follows no rules condemns and drops every pack. Restores still work, since the
/// data can still be read. The next backup does not rely on these packs, and a prune deletes no
/// needed data.
#[test]
fn a_rogue_client_condemns_and_drops_everything_and_restores_still_work() {
    for seed in seeds() {
        let mut scene = with_history(seed);
        scene.pass_lag();
        let packs: Vec<_> = list_all(&**scene.memory(), ObjectDir::Packs)
            .expect("lists")
            .into_iter()
            .filter_map(|meta| match meta.key {
                ObjectKey::Pack(id) => Some(id),
                _ => None,
            })
            .collect();

        scene.publish(TWO, |rogue| rogue.condemned.clone_from(&packs));
        scene.publish(TWO, |rogue| rogue.dropped.clone_from(&packs));
        scene.pass_lag();
        scene.check_with(&scene.open_true("fresh"));
        let stored = scene.count(ObjectDir::Packs);

        // Under another name, so that it is looked up.
        let known = scene.hosts[ONE].tree.things["always"].clone();
        scene.hosts[ONE].tree.put("known", known);
        scene.backup(ONE);
        assert!(
            scene.count(ObjectDir::Packs) > stored,
            "nothing dropped counts as known"
        );
        scene.check_with(&scene.open_true("later"));

        scene.pass(26 * HOUR);
        // No held pack has the chunks of the snapshots, so the prune refuses.
        let refused = scene.try_prune(ONE);
        assert!(refused.is_err(), "{refused:?}");
        assert!(scene.count(ObjectDir::Packs) > stored);
        scene.check_with(&scene.open_true("last"));
    }
}

/// A backup began before a mark was listed, deduplicates against a pack that the mark condemns, and
/// commits just before the sweep. If its lease were deleted at once, the sweep could find neither
/// the lease nor the snapshot, which is not listed yet, and drop the pack. With delayed listings
/// the lease is therefore left to expire.
#[test]
fn a_commit_just_before_a_sweep_is_waited_for_until_it_is_listed() {
    for seed in seeds() {
        let mut scene = Scene::without_lag(seed);
        scene.hosts[ONE]
            .tree
            .put("needed", Thing::File(noise(seed, 60_000)));
        let old = scene.backup(ONE);
        scene.forget(ONE, old);
        scene.hosts[ONE].tree.remove("needed");
        scene.backup(ONE);
        scene.pass(2 * DAY);

        // The other host has the file too. It began before the mark and deduplicated against the
        // pack.
        scene.hosts[TWO]
            .tree
            .put("needed", Thing::File(noise(seed, 60_000)));
        let listed_late = ListingLag::of(LAG);
        let slow = super::writers::SlowBackup::begin(&scene, TWO);

        scene.prune(ONE);
        slow.live_for(&scene, 25 * HOUR);
        scene
            .world
            .set_directory_lag(ObjectDir::Snapshots, listed_late);
        let id = slow.end(&mut scene);
        scene.prune(ONE);
        scene.prune(ONE);
        scene.pass_lag();

        assert!(scene.kept.contains_key(&id));
        scene.check();
        scene.world.set_lag(ListingLag::default());
        scene.prune_for_days(ONE, 3);
        scene.check();
    }
}
