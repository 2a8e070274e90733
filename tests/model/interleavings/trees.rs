//! Interleavings of a tree's runs: I15–I18, by backups with prunes between them.

use icecore::store::{ObjectDir, ObjectKey, list_all};
use icecore::testing::noise;

use super::seeds;
use crate::scene::{HOUR, ONE, Scene};
use crate::tree::Thing;

fn file(seed: u64) -> Thing {
    Thing::File(noise(seed, 900))
}

/// Backs up after each step and prunes after some of them; everything must be correct at the end.
fn play(seed: u64, steps: &[&dyn Fn(&mut crate::tree::Tree)]) {
    let mut scene = Scene::new(seed);
    for (number, step) in steps.iter().enumerate() {
        step(&mut scene.hosts[ONE].tree);
        let id = scene.backup(ONE);
        if number % 3 == 1 {
            scene.forget(ONE, id);
            scene.pass(26 * HOUR);
            scene.prune(ONE);
        }
        scene.pass(HOUR);
    }
    scene.check();
    scene.prune_for_days(ONE, 2);
    scene.check();
}

/// I15: a directory becomes a file and a directory again: the old contents do not reappear.
#[test]
fn i15_a_directory_becomes_a_file() {
    for seed in seeds() {
        play(
            seed,
            &[
                &|tree| {
                    tree.put("a/b/c", file(1));
                    tree.put("a.b", file(2));
                },
                &|tree| tree.put("a", file(3)),
                &|tree| tree.put("a.b", file(4)),
                &|tree| tree.put("a/d", file(5)),
                &|tree| tree.put("a/b", file(6)),
            ],
        );
    }
}

/// I16: the newest runs are merged, one with a removal in it; the path in the oldest run stays
/// hidden.
#[test]
fn i16_a_merge_of_the_newest_runs_with_a_removal_in_it() {
    for seed in seeds() {
        play(
            seed,
            &[
                &|tree| (0..40).for_each(|n| tree.put(&format!("base/{n}"), file(n))),
                &|tree| tree.put("base/x/y", file(50)),
                &|tree| tree.remove("base/x"),
                &|tree| tree.remove("base/7"),
                &|tree| tree.put("c", file(51)),
                &|tree| tree.put("c", file(52)),
                &|tree| tree.put("c", file(53)),
            ],
        );
    }
}

/// I17: a directory is removed and made again with one child, and the runs are merged.
#[test]
fn i17_a_directory_removed_and_made_again_with_one_child() {
    for seed in seeds() {
        play(
            seed,
            &[
                &|tree| (0..20).for_each(|n| tree.put(&format!("a/{n}"), file(n))),
                &|tree| tree.remove("a"),
                &|tree| tree.put("a/new", file(60)),
                &|tree| tree.put("b", file(61)),
                &|tree| tree.put("b", file(62)),
            ],
        );
    }
}

/// I18: the pack with the parent's newest run is damaged. The backup uses no run of that source: it
/// writes a complete new one, and its snapshot holds everything.
#[test]
fn i18_an_unreadable_page_in_the_parents_newest_run() {
    for seed in seeds() {
        let mut scene = Scene::new(seed);
        for n in 0..30 {
            scene.hosts[ONE].tree.put(&format!("d/{n}"), file(n));
        }
        scene.backup(ONE);

        let before = list_all(&**scene.memory(), ObjectDir::Packs).expect("lists");
        scene.hosts[ONE].tree.put("d/3", file(99));
        let spoilt = scene.backup(ONE);
        let after = list_all(&**scene.memory(), ObjectDir::Packs).expect("lists");

        let new: Vec<_> = after
            .into_iter()
            .filter(|pack| !before.contains(pack))
            .collect();
        for pack in new {
            let ObjectKey::Pack(_) = pack.key else {
                panic!("a pack")
            };
            assert!(scene.memory().damage(&pack.key, |bytes| {
                bytes.iter_mut().for_each(|byte| *byte ^= 1);
            }));
        }

        // The newest snapshot cannot be read any more; this test does not expect that.
        scene.kept.remove(&spoilt);
        scene.hosts[ONE].tree.put("e", file(100));
        scene.pass(HOUR);
        let id = scene.backup(ONE);

        let repo = scene.open_true("fresh");
        repo.sync().expect("syncs");
        // Chunks that only the damaged pack holds count as known, until a repair records them as
        // lost. Everything else, including the run with its pages, must be there.
        match crate::world::read_back(&repo, &id) {
            Ok(found) => assert_eq!(crate::world::difference(&scene.kept[&id], &found), None),
            Err(err) => {
                let names = entries(&repo, &id);
                assert!(
                    names.contains(&"d/29".to_owned()) && names.contains(&"e".to_owned()),
                    "{err}"
                );
            }
        }
    }
}

/// Returns all paths of a snapshot's tree, read strictly.
fn entries(repo: &icecore::repo::Repository, id: &icecore::types::SnapshotId) -> Vec<String> {
    use icecore::repo::{ChunkReader, MergedRuns, OnDamage, RunStreams};
    let snapshot = repo.read_snapshot(id).expect("reads");
    let icecore::format::SourceKind::Tree { runs, .. } =
        &snapshot.source("tree").expect("has it").kind
    else {
        panic!("no tree");
    };
    let reader = ChunkReader::new(repo, 1 << 20);
    let mut merged =
        MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail).expect("opens");
    let mut out = Vec::new();
    while let Some(entry) = merged.next_entry().expect("every page can be read") {
        out.push(entry.path.to_string());
    }
    out
}
