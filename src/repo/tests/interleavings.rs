//! The interleavings of the protocol (docs/protocol.md) that the engine alone can show.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::super::{ChunkReader, LeaseTimes, RepoError, Repository, landed_late, seal_object};
use super::{Fixture, lease, snapshot, store_chunks, take_lease};
use crate::format::{ObjectKind, encode_segment};
use crate::index::PackState;
use crate::store::{
    HookedStore, KeyKind, LocalStore, ObjectBody, ObjectDir, ObjectKey, PutMode, SharedStore,
    Store, StoreOperation, list_all,
};
use crate::types::{ChunkClass, ChunkId, LeaseId, PackId, SegmentBody, SegmentId};

/// Puts a segment as another client would. Our own index loads it with the next sync.
pub fn publish(repo: &Repository, body: &SegmentBody) -> SegmentId {
    let (bytes, name) = seal_object(
        repo.keys(),
        ObjectKind::Segment,
        body.writer,
        &encode_segment(body),
    )
    .expect("seals");
    let id = SegmentId::from(name);
    repo.store()
        .put(
            &ObjectKey::Segment(id),
            ObjectBody::Bytes(&bytes),
            PutMode::CreateOnly,
        )
        .expect("puts");
    id
}

fn body_with(change: impl FnOnce(&mut SegmentBody)) -> SegmentBody {
    let mut body = SegmentBody::empty(LeaseId::new([9; 16]));
    change(&mut body);
    body
}

fn only_pack(repo: &Repository) -> PackId {
    let packs = repo.index().packs().expect("packs");
    assert_eq!(packs.len(), 1);
    packs[0].id
}

fn packs_stored(store: &dyn Store) -> usize {
    list_all(store, ObjectDir::Packs).expect("lists").len()
}

fn read(repo: &Repository, id: &ChunkId) -> Result<Vec<u8>, RepoError> {
    ChunkReader::new(repo, 0).chunk(ChunkClass::Data, id)
}

/// A chunk in a condemned pack is stored again. It is read from the new pack; from the condemned
/// pack as long as there is no other; and as a last resort from a dropped pack that still exists.
#[test]
fn condemned_and_dropped_packs_are_read_and_never_deduplicated_against() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let lease = lease(&repo);
    let id = store_chunks(&repo, &lease, &[b"chunk"]).expect("stores")[0];
    let first = only_pack(&repo);

    publish(&repo, &body_with(|body| body.condemned = vec![first]));
    repo.sync().expect("syncs");
    assert_eq!(read(&repo, &id).expect("condemned, readable"), b"chunk");

    publish(&repo, &body_with(|body| body.dropped = vec![first]));
    repo.sync().expect("syncs");
    assert_eq!(
        repo.index()
            .pack(&first)
            .expect("asks")
            .map(|pack| pack.state),
        Some(PackState::Dropped)
    );
    assert_eq!(read(&repo, &id).expect("dropped, readable"), b"chunk");

    store_chunks(&repo, &lease, &[b"chunk"]).expect("stores anew");
    assert_eq!(packs_stored(repo.store()), 2);
    let best = repo.index().lookup_one(&id).expect("asks").expect("known");
    assert_eq!(best.state, PackState::Known);

    repo.store()
        .delete(&ObjectKey::Pack(first))
        .expect("sweeps");
    assert_eq!(read(&repo, &id).expect("from the new pack"), b"chunk");
}

/// I1: two clients merge the same small segments while a prune condemns and drops a pack. All
/// clients agree in any order of loading, and a merge that did not know of the drop does not bring
/// the pack back.
#[test]
fn i1_two_mergers_race_a_prune() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let lease = lease(&repo);
    let kept = store_chunks(&repo, &lease, &[b"kept"]).expect("stores")[0];
    let gone = store_chunks(&repo, &lease, &[b"gone"]).expect("stores")[0];
    let small: Vec<SegmentId> = repo.listed_segments().expect("lists").into_iter().collect();
    assert_eq!(small.len(), 2);

    let place = repo
        .index()
        .lookup_one(&gone)
        .expect("asks")
        .expect("known");
    let bodies: Vec<SegmentBody> = small
        .iter()
        .map(|id| repo.read_segment(id).expect("reads"))
        .collect();

    let union = |writer| {
        body_with(|body| {
            body.writer = LeaseId::new([writer; 16]);
            body.packs = bodies.iter().flat_map(|body| body.packs.clone()).collect();
            body.superseded = small.clone();
        })
    };

    let watcher = fixture.open("watcher");
    watcher.sync().expect("syncs");

    // Mergers 1 and 2 publish. Between them, the prune drops the pack.
    publish(&repo, &union(1));
    watcher.sync().expect("syncs");
    publish(&repo, &body_with(|body| body.dropped = vec![place.pack]));
    for id in &small {
        repo.store()
            .delete(&ObjectKey::Segment(*id))
            .expect("deletes");
        watcher.sync().expect("syncs");
    }
    publish(&repo, &union(2));
    repo.store()
        .delete(&ObjectKey::Pack(place.pack))
        .expect("sweeps");

    for client in [&watcher, &repo, &fixture.open("new")] {
        client.sync().expect("syncs");
        let state = |id| {
            client
                .index()
                .lookup_one(id)
                .expect("asks")
                .map(|place| place.state)
        };
        assert_eq!(state(&kept), Some(PackState::Known));
        assert_ne!(
            state(&gone),
            Some(PackState::Known),
            "a dropped pack came back"
        );
        assert_eq!(read(client, &kept).expect("reads"), b"kept");
        assert!(read(client, &gone).expect_err("swept").is_damage());
    }
}

/// I2: a client is suspended through mark and sweep, with rows of the swept pack in its index. Its
/// next backup syncs first and stores the chunk again. The backup that was interrupted cannot
/// commit.
#[test]
fn i2_a_client_asleep_during_mark_and_sweep() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let id = store_chunks(&repo, &lease(&repo), &[b"chunk"]).expect("stores")[0];
    let pack = only_pack(&repo);
    let sleeper = fixture.open("sleeper");
    let times = LeaseTimes::default();
    let old_lease = take_lease(&sleeper, times).expect("a lease");
    sleeper.sync().expect("syncs");

    // It is suspended for two days, while another client condemns, drops and deletes the pack.
    fixture.memory.clock().advance(2 * 24 * 3600);
    publish(&repo, &body_with(|body| body.condemned = vec![pack]));
    publish(&repo, &body_with(|body| body.dropped = vec![pack]));
    repo.store().delete(&ObjectKey::Pack(pack)).expect("sweeps");

    // It resumes in the middle of its backup. Its index still lists the chunk, so it stores
    // nothing.
    store_chunks(&sleeper, &old_lease, &[b"chunk"]).expect("deduplicates");
    assert_eq!(packs_stored(sleeper.store()), 0);
    let err = sleeper
        .commit(old_lease, snapshot(&[]))
        .expect_err("two days late");
    assert!(matches!(err, RepoError::LostLease { .. }), "{err}");
    assert_eq!(sleeper.listed_snapshots().expect("lists"), []);

    // Its next backup.
    let new_lease = lease(&sleeper);
    sleeper.sync().expect("syncs");
    store_chunks(&sleeper, &new_lease, &[b"chunk"]).expect("stores anew");
    sleeper.commit(new_lease, snapshot(&[])).expect("commits");
    assert_eq!(read(&sleeper, &id).expect("reads"), b"chunk");
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("makes the directory");
    for file in std::fs::read_dir(from).expect("lists") {
        let file = file.expect("lists");
        let target = to.join(file.file_name());
        if file.file_type().expect("stats").is_dir() {
            copy_directory(&file.path(), &target);
        } else {
            std::fs::copy(file.path(), target).expect("copies");
        }
    }
}

/// I3: the cache directory is restored from a backup. Its database is older than the sweep: it
/// lists packs that are gone, and lacks new ones. A sync makes it a function of the segments listed
/// now.
#[test]
fn i3_an_old_index_database_is_put_back() {
    let fixture = Fixture::new();
    let caches = fixture.caches.path();
    let old = {
        let repo = fixture.open("a");
        store_chunks(&repo, &lease(&repo), &[b"old"]).expect("stores")[0]
    };

    copy_directory(&caches.join("a"), &caches.join("saved"));

    let new = {
        let repo = fixture.open("a");
        repo.sync().expect("syncs");
        let pack = only_pack(&repo);
        let new = store_chunks(&repo, &lease(&repo), &[b"new"]).expect("stores")[0];
        // The old segment is superseded by a segment that drops its pack, and both are deleted.
        let segments = repo.listed_segments().expect("lists");
        let loaded = |id: &&SegmentId| repo.read_segment(id).expect("reads").packs[0].id == pack;
        let superseded = vec![*segments.iter().find(loaded).expect("the old one")];
        publish(
            &repo,
            &body_with(|body| (body.dropped, body.superseded) = (vec![pack], superseded.clone())),
        );
        repo.store()
            .delete(&ObjectKey::Segment(superseded[0]))
            .expect("deletes");
        repo.store()
            .delete(&ObjectKey::Pack(pack))
            .expect("deletes");
        new
    };

    std::fs::remove_dir_all(caches.join("a")).expect("removes");
    copy_directory(&caches.join("saved"), &caches.join("a"));
    let repo = fixture.open("a");
    assert!(
        repo.index().lookup_one(&old).expect("asks").is_some(),
        "it is the old one"
    );

    repo.sync().expect("syncs");
    let known = repo
        .index()
        .lookup_one(&old)
        .expect("asks")
        .is_some_and(|at| at.state == PackState::Known);
    assert!(!known, "a swept pack is not known");
    assert_eq!(read(&repo, &new).expect("reads"), b"new");

    store_chunks(&repo, &lease(&repo), &[b"old"]).expect("stores anew");
    assert_eq!(read(&repo, &old).expect("reads"), b"old");
}

/// I4: two copies of one repository (with the same id) are used in turn, first at two paths, then
/// at one. Content of the other copy never counts as present here.
#[test]
fn i4_two_copies_of_one_repository_in_turn() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path().join("here");
    let copy = directory.path().join("copy");
    let open = |at: &Path| {
        let store: SharedStore = std::sync::Arc::new(LocalStore::open(at).expect("opens"));
        let caches = directory.path().join("caches");
        Repository::open(store, &super::Secret::empty(), &caches).expect("opens")
    };
    let back_up = |at: &Path, text: &[u8]| {
        let repo = open(at);
        let lease = lease(&repo);
        repo.sync().expect("syncs");
        let id = store_chunks(&repo, &lease, &[text]).expect("stores")[0];
        repo.commit(lease, snapshot(&[])).expect("commits");
        id
    };

    let store: SharedStore = std::sync::Arc::new(LocalStore::create(&here).expect("makes"));
    Repository::init(&store, &super::Secret::empty(), "test").expect("init");
    back_up(&here, b"both");
    copy_directory(&here, &copy);

    // At two paths, there are two caches.
    let only_here = back_up(&here, b"here");
    back_up(&copy, b"here");
    assert_eq!(
        read(&open(&copy), &only_here).expect("stored in the copy too"),
        b"here"
    );

    // At one path, like two disks that are mounted in turn, the cache is that of the other copy.
    let swap = || {
        let aside = directory.path().join("aside");
        std::fs::rename(&here, &aside).expect("renames");
        std::fs::rename(&copy, &here).expect("renames");
        std::fs::rename(&aside, &copy).expect("renames");
    };
    for text in [b"one".as_slice(), b"two", b"three"] {
        back_up(&here, text);
        swap();
        let id = back_up(&here, text);
        assert_eq!(read(&open(&here), &id).expect("stored here too"), text);
    }

    // Each copy is complete by itself, without any cache.
    std::fs::remove_dir_all(directory.path().join("caches")).expect("removes");
    for at in [&here, &copy] {
        let repo = open(at);
        repo.sync().expect("syncs");
        for text in [b"both".as_slice(), b"here", b"one", b"two", b"three"] {
            let id = repo.keys().chunk_id(ChunkClass::Data, text);
            assert_eq!(read(&repo, &id).expect("reads"), text, "{}", at.display());
        }
    }
}

/// I5: a writer is killed between pack and segment. The orphan counts for nothing: the next backup
/// stores its chunks again, and is not affected when a prune sweeps the orphan.
#[test]
fn i5_an_orphaned_pack_counts_for_nothing() {
    let fixture = Fixture::new();
    let faulty = std::sync::Arc::new(crate::store::FaultyStore::new(fixture.store()));
    {
        let repo = fixture.open_on(faulty.clone(), "a").expect("opens");
        let lease = lease(&repo);
        faulty.die_after_writes(1);
        store_chunks(&repo, &lease, &[b"chunk"]).expect_err("dies before the segment");
    }

    let orphans = list_all(&*fixture.memory, ObjectDir::Packs).expect("lists");
    assert_eq!(
        (
            orphans.len(),
            list_all(&*fixture.memory, ObjectDir::Index)
                .expect("lists")
                .len()
        ),
        (1, 0)
    );

    let repo = fixture.open("a");
    let lease = lease(&repo);
    repo.sync().expect("syncs");
    let id = store_chunks(&repo, &lease, &[b"chunk"]).expect("stores anew")[0];
    assert_eq!(packs_stored(repo.store()), 2);
    repo.store().delete(&orphans[0].key).expect("sweeps");
    repo.commit(lease, snapshot(&[])).expect("commits");
    assert_eq!(read(&fixture.open("other"), &id).expect("reads"), b"chunk");
}

/// I5: the index is rebuilt from the packs before a sweep, and the orphan is adopted.
#[test]
fn i5_an_orphan_is_adopted_by_a_rebuild() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let id = store_chunks(&repo, &lease(&repo), &[b"chunk"]).expect("stores")[0];
    for segment in repo.listed_segments().expect("lists") {
        repo.store()
            .delete(&ObjectKey::Segment(segment))
            .expect("deletes");
    }
    let other = fixture.open("b");
    assert!(
        read(&other, &id)
            .expect_err("no segment lists it")
            .is_damage()
    );
    let rebuilt = other
        .rebuild_index(&lease(&other), &mut || Ok(()))
        .expect("rebuilds");
    assert_eq!(
        (rebuilt.packs, rebuilt.chunks, rebuilt.unreadable.len()),
        (1, 1, 0)
    );
    assert_eq!(read(&other, &id).expect("reads"), b"chunk");
    repo.sync().expect("syncs");
    assert_eq!(read(&repo, &id).expect("reads"), b"chunk");
}

/// I6: a writer is suspended between its last heartbeat and the snapshot for longer than a lease
/// lives. The snapshot lands late by the store's clock, and is withdrawn.
#[test]
fn i6_a_writer_paused_before_its_snapshot_withdraws_it() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let lease_ = lease(&repo);
    let heartbeat = lease_.last_heartbeat();
    store_chunks(&repo, &lease_, &[b"chunk"]).expect("stores");
    fixture.memory.clock().advance(31 * 60);
    let err = repo
        .commit(lease_, snapshot(&[]))
        .expect_err("it landed late");
    assert!(matches!(err, RepoError::LostLease { .. }), "{err}");
    assert_eq!(repo.listed_snapshots().expect("lists"), []);
    assert_eq!(
        list_all(repo.store(), ObjectDir::Leases).expect("lists"),
        []
    );

    // Just in time is in time.
    let lease_ = lease(&repo);
    fixture.memory.clock().advance(29 * 60);
    let committed = repo.commit(lease_, snapshot(&[])).expect("commits");
    assert!(landed_late(committed.stored, heartbeat, 1800.0));
    assert!(
        !landed_late(heartbeat.plus_seconds(1800), heartbeat, 1800.0),
        "E itself is in time"
    );
}

/// I7: a lease is lost between two heartbeats by the store's clock, and the client takes another.
/// The first lease stays lost even after later heartbeats, and data that was stored under it serves
/// the second.
#[test]
fn i7_a_lost_lease_is_not_revived_by_a_new_one() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let first = lease(&repo);
    let id = store_chunks(&repo, &first, &[b"chunk"]).expect("stores")[0];

    fixture.memory.clock().advance(31 * 60);
    let err = first
        .refresh(Duration::ZERO)
        .expect_err("the gap is too long");
    assert!(matches!(err, RepoError::LostLease { .. }), "{err}");

    let second = lease(&repo);
    first.refresh(Duration::ZERO).expect_err("still lost");
    first.check().expect_err("still lost");
    store_chunks(&repo, &first, &[b"more"]).expect_err("stores no more");
    assert!(matches!(
        repo.commit(first, snapshot(&[])),
        Err(RepoError::LostLease { .. })
    ));
    assert_eq!(repo.listed_snapshots().expect("lists"), []);

    store_chunks(&repo, &second, &[b"chunk"]).expect("deduplicates");
    assert_eq!(packs_stored(repo.store()), 1);
    repo.commit(second, snapshot(&[])).expect("commits");
    assert_eq!(read(&repo, &id).expect("reads"), b"chunk");
}

/// The index is deleted, or damaged in the middle, between two steps of a client, and is built
/// again.
#[test]
fn a_lost_or_damaged_index_is_rebuilt() {
    let fixture = Fixture::new();
    let chunks: Vec<Vec<u8>> = (0..500u32).map(|n| n.to_le_bytes().repeat(100)).collect();
    let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let ids = {
        let repo = fixture.open("a");
        store_chunks(&repo, &lease(&repo), &slices).expect("stores")
    };

    let index = std::fs::read_dir(fixture.caches.path().join("a"))
        .expect("lists")
        .next()
        .expect("one")
        .expect("it");
    let index = index.path().join("index");
    let files = || {
        let listed = std::fs::read_dir(&index)
            .expect("lists")
            .map(|file| file.expect("lists").path());
        listed.filter(|path| path.is_file()).collect::<Vec<_>>()
    };

    for damage in 0..3 {
        for file in files() {
            let mut bytes = std::fs::read(&file).expect("reads");
            match damage {
                0 => {
                    std::fs::remove_file(&file).expect("removes");
                    continue;
                }
                1 => (0..bytes.len())
                    .step_by(97)
                    .for_each(|at| bytes[at] ^= 0x55),
                _ => bytes.truncate(bytes.len() / 2),
            }
            std::fs::write(&file, bytes).expect("writes");
        }

        let repo = fixture.open("a");
        let lease = lease(&repo);
        repo.sync().expect("syncs");
        store_chunks(&repo, &lease, &slices[..10]).expect("stores");
        for (id, chunk) in ids.iter().zip(&chunks) {
            assert_eq!(read(&repo, id).expect("reads"), *chunk, "damage {damage}");
        }
        assert_eq!(
            packs_stored(repo.store()),
            1,
            "damage {damage}: all was deduplicated"
        );
    }
}

/// Two processes share a cache, and one publishes a segment just after the other has listed them.
/// The segment is loaded but not in the listing, like a deleted one. It used to be unloaded, and
/// its chunks were unknown until the next sync. Verify reported that as damage.
#[test]
fn a_segment_published_after_the_listing_stays_loaded() {
    let fixture = Fixture::new();
    let other = fixture.open("shared");
    let (sender, receiver) = std::sync::mpsc::channel();
    let act = move |_: &dyn Store| {
        let held = lease(&other);
        sender
            .send(store_chunks(&other, &held, &[b"chunk"]).expect("stores")[0])
            .expect("told");
    };

    let store = HookedStore::after(
        fixture.store(),
        StoreOperation::List,
        KeyKind::Segment,
        Box::new(act),
    );
    let repo = fixture.open_on(Arc::new(store), "shared").expect("opens");

    let report = repo.sync().expect("syncs");
    let id = receiver.try_recv().expect("published meanwhile");
    assert_eq!(report.detached, 0);
    assert_eq!(
        repo.index().loaded().expect("asks"),
        repo.listed_segments().expect("lists")
    );
    let place = repo.index().lookup_one(&id).expect("asks");
    assert!(place.is_some_and(|place| place.state == PackState::Known));
}
