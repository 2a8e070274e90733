//! Missing packs: a backup reports them, does not rely on them, and stores their chunks again if
//! its sources still have them.

use super::presence::{check_stored, is_due_after};
use crate::observe::Recording;
use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::ops::repair::{RepairPacksOptions, repair_packs};
use crate::ops::testing::{Lab, noise, write};
use crate::ops::verify::missing;
use crate::read::content::write_content;
use crate::repo::{ChunkReader, MergedRuns, OnDamage, Repository, RunStreams};
use crate::store::{KeyKind, ObjectDir, ObjectKey, Store, StoreOperation, list_all};
use crate::task::{Cancel, Task};
use crate::types::{PackId, SnapshotId};

struct Done {
    id: SnapshotId,
    problems: Vec<String>,
    packs: u64,
}

fn run(lab: &Lab, repo: &Repository, immutable: bool, force: bool) -> Done {
    let observer = Recording::default();
    let tree = TreeSpec {
        immutable,
        ..TreeSpec::new("tree", lab.tree())
    };
    let sources = vec![SourceSpec::Tree(Box::new(tree))];
    let options = BackupOptions {
        force,
        grain_seconds: Some(0),
        ..BackupOptions::new("host", sources)
    };
    let report = backup(repo, options, Task::new(&observer, &Cancel::new())).expect("backed up");
    let problems = observer
        .problems()
        .iter()
        .map(ToString::to_string)
        .collect();
    Done {
        id: report.snapshot.expect("committed"),
        problems,
        packs: report.packs,
    }
}

fn packs(lab: &Lab) -> Vec<(PackId, u64)> {
    let listed = list_all(&*lab.store, ObjectDir::Packs)
        .expect("listed")
        .into_iter();
    listed
        .filter_map(|meta| {
            if let ObjectKey::Pack(id) = meta.key {
                Some((id, meta.size))
            } else {
                None
            }
        })
        .collect()
}

/// Checks that all chunks of the snapshot exist, and that every file reads back.
fn assert_whole(lab: &Lab, repo: &Repository, id: SnapshotId) {
    repo.sync().expect("syncs");
    let found = crate::repo::StoredSnapshot {
        id,
        stored: Default::default(),
        snapshot: repo.read_snapshot(&id).expect("reads"),
    };

    assert_eq!(missing(repo, &found, &Cancel::new()).expect("asked"), None);
    let reader = ChunkReader::new(repo, 1 << 20);
    let crate::format::SourceKind::Tree { runs, .. } = &found.snapshot.sources[0].kind else {
        panic!("a tree")
    };

    let mut merged =
        MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail).expect("opens");
    while let Some(entry) = merged.next_entry().expect("reads") {
        let Some(content) = entry.content() else {
            continue;
        };
        let mut bytes = Vec::new();
        write_content(
            &reader,
            content,
            &mut bytes,
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("whole");
        let path = lab
            .tree()
            .join(String::from_utf8(entry.path.to_slashed()).expect("text"));
        assert!(
            bytes == std::fs::read(&path).expect("there"),
            "{}",
            path.display()
        );
    }
}

/// Writes a tree with ordinary names and one with hashes as names. An immutable source skips the
/// latter.
fn fill(lab: &Lab) {
    for n in 0..4 {
        write(
            &lab.tree().join(format!("directory/{n}")),
            &noise(n, 200_000),
        );
        let bytes = noise(100 + n, 3_000);
        write(&lab.tree().join("blocks").join(hash_name(&bytes)), &bytes);
    }
    // Many chunks, so that its content is a list.
    write(&lab.tree().join("large"), &noise(50, 3_000_000));
}

/// Returns a name that looks like a hash: 64 hex digits, which nothing here checks.
fn hash_name(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Makes two backups, of which the second adds a little; then deletes or truncates the pack of this
/// number. Returns false if there are fewer packs.
fn lose_one(number: usize, immutable: bool, force: bool, is_cut: bool) -> bool {
    let lab = Lab::new();
    let repo = lab.open();
    fill(&lab);
    run(&lab, &repo, immutable, false);
    write(&lab.tree().join("later"), &noise(60, 500_000));
    run(&lab, &repo, immutable, false);

    let Some(&(id, _)) = packs(&lab).get(number) else {
        return false;
    };
    let name = ObjectKey::Pack(id);
    if is_cut {
        assert!(lab.store.damage(&name, |bytes| bytes.truncate(70)));
    } else {
        lab.store.delete(&name).expect("deleted");
    }

    let done = run(&lab, &repo, immutable, force);
    let is_named = |one: &String| one.starts_with(&name.to_string());
    assert!(done.problems.iter().any(is_named), "{:?}", done.problems);
    assert!(done.packs > 0);
    assert_whole(&lab, &repo, done.id);

    // The segments still list the pack, so it is reported again, but nothing more has to be stored.
    let again = run(&lab, &repo, immutable, false);
    assert!(again.problems.iter().any(is_named), "{:?}", again.problems);
    assert_eq!(again.packs, 0);

    let options = RepairPacksOptions {
        threads: 1,
        ..Default::default()
    };
    repair_packs(
        &repo,
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("repaired");
    let quiet = run(&lab, &repo, immutable, false);
    assert_eq!((quiet.problems, quiet.packs), (vec![], 0));
    assert_whole(&lab, &repo, quiet.id);
    true
}

#[test]
fn a_missing_pack_is_reported_and_its_chunks_stored_again() {
    for (immutable, force, is_cut) in [
        (false, false, false),
        (true, false, false),
        (false, true, false),
        (true, false, true),
    ] {
        let mut number = 0;
        while lose_one(number, immutable, force, is_cut) {
            number += 1;
        }
        assert!(number > 1);
    }
}

/// Between the sync and the listing a prune drops and deletes a pack: it is not missing.
#[test]
fn a_pack_dropped_by_a_concurrent_prune_is_not_missing() {
    use crate::format::{ObjectKind, encode_segment};
    use crate::store::{HookedStore, ObjectBody, PutMode};
    use crate::types::{SegmentBody, SegmentId};

    let lab = Lab::new();
    let repo = lab.open();
    fill(&lab);
    run(&lab, &repo, false, false);
    let (gone, _) = packs(&lab)[0];
    let keys = repo.keys().clone();
    // Runs before the packs are listed and after the segments were.
    let hook = Box::new(move |store: &dyn Store| {
        let writer = crate::types::LeaseId::new([9; 16]);
        let body = SegmentBody {
            condemned: vec![gone],
            dropped: vec![gone],
            ..SegmentBody::empty(writer)
        };
        let sealed =
            crate::repo::seal_object(&keys, ObjectKind::Segment, writer, &encode_segment(&body));
        let (bytes, name) = sealed.expect("seals");
        let key = ObjectKey::Segment(SegmentId::from(name));
        store
            .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
            .expect("put");
        store.delete(&ObjectKey::Pack(gone)).expect("deleted");
    });

    let hooked = HookedStore::after(
        lab.store.clone(),
        StoreOperation::List,
        KeyKind::Segment,
        hook,
    );
    let repo = lab.try_open_on(std::sync::Arc::new(hooked)).expect("opens");
    repo.sync().expect("syncs");
    let absent = crate::ops::packs::absent_packs(&repo, &Cancel::new()).expect("listed");
    assert_eq!(absent, vec![]);
}

/// On a store whose puts may not be durable: a backup whose own pack is missing or truncated at the
/// commit commits nothing.
#[test]
fn a_stored_pack_that_is_missing_or_truncated_is_an_error() {
    let lab = Lab::new();
    let repo = lab.open();
    fill(&lab);
    run(&lab, &repo, false, false);
    let stored = packs(&lab);
    check_stored(&repo, &stored).expect("all there");
    let cut: Vec<_> = stored.iter().map(|(id, size)| (*id, size + 1)).collect();
    for bad in [cut, vec![(PackId::new([7; 32]), 1)]] {
        let err = check_stored(&repo, &bad).expect_err("it is not there so");
        assert!(err.to_string().contains("nothing was committed"), "{err}");
    }
}

/// If listings lag, the packs are listed once a day. A clock that was ahead once does not delay
/// that.
#[test]
fn the_time_of_the_last_pack_listing_is_remembered() {
    let lab = Lab::new();
    let repo = lab.open();
    fill(&lab);
    assert_eq!(repo.memory().packs_listed(), None);
    run(&lab, &repo, false, false);
    let first = repo.memory().packs_listed().expect("remembered");
    lab.store.clock().advance(3600);
    run(&lab, &repo, false, false);
    assert!(
        repo.memory()
            .packs_listed()
            .expect("remembered")
            .seconds_since(first)
            >= 3600.0
    );
    for (hours, is_due) in [(1, false), (23, false), (25, true), (-1, true)] {
        assert_eq!(
            is_due_after(Some(first), first.plus_seconds(hours * 3600)),
            is_due,
            "{hours}"
        );
    }
    assert!(is_due_after(None, first));
}
