//! Packer, claims, lease and commit: the order of puts, deduplication, and the state that a failure
//! at any step leaves.

use std::sync::Arc;
use std::time::Duration;

use super::super::{ChunkClaim, Claims, LeaseTimes, RepoError};
use super::{Fixture, OPTIONS, PackerOptions, lease, pack, snapshot, store_chunks, take_lease};
use crate::index::{IndexError, PackState};
use crate::observe::{Counter, Recording};
use crate::repo::{ChunkReader, Packer, Repository};
use crate::store::{
    Fault, FaultEffect, FaultyStore, InjectedError, KeyKind, ObjectDir, ObjectKey, RecordedCall,
    RecordingStore, SharedStore, Store, StoreOperation, list_all,
};
use crate::types::{ChunkClass, PackOffset, PlainLen, SnapshotId, StoredLen};

/// Makes a small but complete backup: a lease, three chunks, a commit.
fn back_up(repo: &Repository, text: &str) -> Result<SnapshotId, RepoError> {
    let lease = take_lease(repo, LeaseTimes::default())?;
    repo.sync()?;
    let chunks = [b"shared by all".as_slice(), text.as_bytes(), &[7; 3000]];
    store_chunks(repo, &lease, &chunks)?;
    Ok(repo.commit(lease, snapshot(&[]))?.id)
}

/// Asserts that everything listed resolves and that another backup succeeds.
fn assert_sound(fixture: &Fixture) {
    let repo = fixture.open("judge");
    assert_eq!(repo.sync().expect("syncs").damaged, []);
    for (id, _) in repo.listed_snapshots().expect("lists") {
        repo.read_snapshot(&id)
            .expect("every listed snapshot is whole");
    }
    for pack in repo.index().packs().expect("packs") {
        let size = fixture
            .memory
            .stat(&ObjectKey::Pack(pack.id))
            .expect("the pack is there")
            .size;
        assert_eq!(size, pack.size);
    }

    back_up(&repo, "after").expect("the next backup");
    let reader = ChunkReader::new(&repo, 0);
    for text in ["shared by all", "after"] {
        let id = repo.keys().chunk_id(ChunkClass::Data, text.as_bytes());
        assert_eq!(
            reader.chunk(ChunkClass::Data, &id).expect("reads"),
            text.as_bytes()
        );
    }
}

#[test]
fn a_small_backup_puts_lease_pack_segment_snapshot_in_this_order() {
    let fixture = Fixture::new();
    let recording = Arc::new(RecordingStore::new(fixture.store()));
    let repo = fixture.open_on(recording.clone(), "a").expect("opens");
    recording.take();
    back_up(&repo, "one").expect("a backup");

    let calls: Vec<(StoreOperation, Option<KeyKind>)> = recording
        .take()
        .into_iter()
        .filter(|call| call.operation.is_write())
        .map(
            |RecordedCall {
                 operation, kind, ..
             }| (operation, kind),
        )
        .collect();
    let put = |kind| (StoreOperation::Put, Some(kind));
    assert_eq!(
        calls,
        [
            put(KeyKind::Lease),
            put(KeyKind::Pack),
            put(KeyKind::Segment),
            put(KeyKind::Snapshot),
            (StoreOperation::Delete, Some(KeyKind::Lease)),
        ]
    );

    // The same backup again stores no chunk: no pack, no segment.
    back_up(&repo, "one").expect("a backup");
    assert_eq!(recording.count(StoreOperation::Put, KeyKind::Pack), 0);
    assert_eq!(recording.count(StoreOperation::Put, KeyKind::Segment), 0);
    assert_eq!(recording.count(StoreOperation::Put, KeyKind::Snapshot), 1);
}

/// A pack whose segment could not be put must not be in the index. It would be deduplicated
/// against, and no other client could find it.
#[test]
fn no_row_enters_the_index_before_its_segment_is_put() {
    let fixture = Fixture::new();
    let faulty = Arc::new(FaultyStore::new(fixture.store()));
    let repo = fixture.open_on(faulty.clone(), "a").expect("opens");
    let effect = FaultEffect::ErrorBefore(InjectedError::Full);
    faulty.plan(Fault {
        operation: StoreOperation::Put,
        kind: Some(KeyKind::Segment),
        nth: 1,
        effect,
    });

    back_up(&repo, "one").expect_err("the segment fails");
    faulty.assert_all_fired();
    assert!(repo.index().is_empty().expect("reads"));
    assert_eq!(
        list_all(&*fixture.memory, ObjectDir::Packs)
            .expect("lists")
            .len(),
        1,
        "an orphan"
    );

    back_up(&repo, "one").expect("stores it anew");
    assert_eq!(
        list_all(&*fixture.memory, ObjectDir::Packs)
            .expect("lists")
            .len(),
        2
    );
    assert_sound(&fixture);
}

#[test]
fn chunks_are_stored_once_within_a_writer_and_across_writers_once_published() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.open("a"), fixture.open("b"));
    let lease_a = lease(&a);

    // Across frames of one writer, and threads.
    let (_, packed) = pack(&a, Some(&lease_a), OPTIONS, |data, _| {
        for _ in 0..2 {
            data.add(&[1; 900])?;
            data.add(&[2; 900])?;
            data.flush()?;
        }
        Ok(())
    })
    .expect("packs");
    assert_eq!((packed.packs, packed.segments.len()), (1, 1));
    assert_eq!(a.index().totals().expect("totals").chunks, 2);

    // Equal bytes of the other class are another chunk.
    let before = a.index().totals().expect("totals").chunks;
    pack(&a, Some(&lease_a), OPTIONS, |_, metadata| {
        metadata.add(&[1; 900])
    })
    .expect("packs");
    assert_eq!(a.index().totals().expect("totals").chunks, before + 1);

    // Another client sees the chunk after a sync.
    let lease_b = lease(&b);
    b.sync().expect("syncs");
    let (_, packed) =
        pack(&b, Some(&lease_b), OPTIONS, |data, _| data.add(&[2; 900])).expect("packs");
    assert_eq!(packed.packs, 0);
}

#[test]
fn of_many_threads_one_claims_a_chunk() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let claims = Claims::new(repo.index()).expect("claims");
    let ids: Vec<_> = (0..200u32)
        .map(|n| repo.keys().chunk_id(ChunkClass::Data, &n.to_le_bytes()))
        .collect();
    let new: usize = std::thread::scope(|scope| {
        let claim = || {
            ids.iter()
                .filter(|id| claims.claim(id).expect("claims") == ChunkClaim::New)
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(claim)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("joins"))
            .sum()
    });
    assert_eq!(new, ids.len());
}

/// The store dies at each write of a backup in turn. The repository still opens, and the next
/// backup succeeds.
#[test]
fn death_at_any_write_leaves_a_sound_repository() {
    let mut survived = false;
    for writes in 0.. {
        let fixture = Fixture::new();
        back_up(&fixture.open("before"), "before").expect("a first backup");
        let faulty = Arc::new(FaultyStore::new(fixture.store()));
        let repo = fixture.open_on(faulty.clone(), "a").expect("opens");
        faulty.die_after_writes(writes);
        let outcome = back_up(&repo, "dying");
        survived = !faulty.is_dead();
        // The last write deletes the lease, so its failure does not matter.
        assert!(
            outcome.is_err() || survived || writes == 4,
            "after {writes} writes"
        );
        drop(repo);
        assert_sound(&fixture);
        if survived {
            break;
        }
    }
    assert!(survived);
}

/// Each put fails in each way that a store can fail. The repository stays sound, and a backup that
/// reported failure leaves no listed snapshot.
#[test]
fn a_failed_put_of_any_kind_leaves_a_sound_repository() {
    for kind in [
        KeyKind::Lease,
        KeyKind::Pack,
        KeyKind::Segment,
        KeyKind::Snapshot,
    ] {
        for effect in [
            FaultEffect::ErrorBefore(InjectedError::Full),
            FaultEffect::ErrorAfter(InjectedError::Unreachable),
        ] {
            let fixture = Fixture::new();
            let faulty = Arc::new(FaultyStore::new(fixture.store()));
            let repo = fixture.open_on(faulty.clone(), "a").expect("opens");
            faulty.plan(Fault {
                operation: StoreOperation::Put,
                kind: Some(kind),
                nth: 1,
                effect,
            });
            back_up(&repo, "one").expect_err("the put fails");
            faulty.assert_all_fired();
            assert_eq!(
                repo.listed_snapshots().expect("lists"),
                [],
                "{kind:?} {effect:?}"
            );
            assert_sound(&fixture);
        }
    }
}

/// The snapshot landed, but the store would not return its time. It cannot be judged, so it is
/// withdrawn.
#[test]
fn a_snapshot_that_cannot_be_judged_is_withdrawn() {
    let fixture = Fixture::new();
    let faulty = Arc::new(FaultyStore::new(fixture.store()));
    let repo = fixture.open_on(faulty.clone(), "a").expect("opens");
    let effect = FaultEffect::ErrorBefore(InjectedError::Io);
    faulty.plan(Fault {
        operation: StoreOperation::Stat,
        kind: Some(KeyKind::Snapshot),
        nth: 1,
        effect,
    });
    back_up(&repo, "one").expect_err("the stat fails");
    faulty.assert_all_fired();
    assert_eq!(repo.listed_snapshots().expect("lists"), []);

    // If the withdrawal fails too, the error says that the snapshot is still listed.
    faulty.plan(Fault {
        operation: StoreOperation::Stat,
        kind: Some(KeyKind::Snapshot),
        nth: 1,
        effect,
    });
    faulty.plan(Fault {
        operation: StoreOperation::Delete,
        kind: Some(KeyKind::Snapshot),
        nth: 1,
        effect,
    });
    let err = back_up(&repo, "one").expect_err("both fail");
    assert!(matches!(&err, RepoError::NotWithdrawn { .. }), "{err}");
    assert_eq!(repo.listed_snapshots().expect("lists").len(), 1);
}

#[test]
fn parents_that_vanished_withdraw_the_snapshot_and_forgotten_ones_do_not() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let parent = back_up(&repo, "parent").expect("a backup");
    let bytes = fixture
        .memory
        .get(&ObjectKey::Snapshot(parent), 1 << 20)
        .expect("reads");
    let commit = || repo.commit(lease(&repo), snapshot(&[parent]));
    let first = commit().expect("the parent is there").id;

    let store: SharedStore = fixture.store();
    let body = crate::store::ObjectBody::Bytes(&bytes);
    store
        .put(
            &ObjectKey::Forgotten(parent),
            body,
            crate::store::PutMode::CreateOnly,
        )
        .expect("forgets");
    store.delete(&ObjectKey::Snapshot(parent)).expect("forgets");
    let second = commit()
        .expect("the parent is forgotten, and a root all the same")
        .id;

    store.delete(&ObjectKey::Forgotten(parent)).expect("sweeps");
    let err = commit().expect_err("the parent is gone");
    assert!(
        matches!(&err, RepoError::ParentGone { parent: gone, .. } if *gone == parent),
        "{err}"
    );

    let mut left: Vec<SnapshotId> = repo
        .listed_snapshots()
        .expect("lists")
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    left.sort();
    let mut expected = vec![first, second];
    expected.sort();
    assert_eq!(left, expected);
    assert_eq!(list_all(&*store, ObjectDir::Leases).expect("lists"), []);
}

#[test]
fn a_dry_run_stores_nothing_and_counts() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let before = fixture.memory.objects();
    let claims = Claims::new(repo.index()).expect("claims");
    let observer = Recording::default();
    let options = PackerOptions {
        dry_run: true,
        ..OPTIONS
    };
    let packed = std::thread::scope(|scope| {
        let packer = Packer::start(scope, &repo, None, &claims, options, &observer)?;
        let mut data = packer.writer(ChunkClass::Data);
        data.add(&[1; 3000])?;
        data.add(&[1; 3000])?;
        data.flush()?;
        drop(data);
        packer.finish()
    })
    .expect("packs");
    assert_eq!((packed.packs, packed.segments.len()), (0, 0));
    assert_eq!(observer.get(Counter::BytesNew), 3000);
    assert!(observer.get(Counter::BytesStored) > 0);
    assert_eq!(fixture.memory.objects(), before);
    assert!(repo.index().is_empty().expect("reads"));
}

/// Segments may be authentic and complete and still have impossible content: a chunk twice in one
/// pack, a pack twice, a pack that other segments describe differently. They must not stop this
/// client, other clients or the next backup.
#[test]
fn segments_with_impossible_content_stop_no_client() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    back_up(&repo, "one").expect("a backup");
    let segments = repo.listed_segments().expect("lists");
    let mut odd = repo
        .read_segment(segments.first().expect("one"))
        .expect("reads");
    let mut twice = odd.packs[0].clone();
    twice.id = crate::types::PackId::new([9; 32]);
    let doubled = twice.frames[0].chunks.clone();
    twice.frames[0].chunks.extend(doubled);
    let plain = twice.frames[0].plain;
    twice.frames[0].plain = PlainLen::new(2 * plain.get());
    twice.frames.push(crate::types::FrameInfo {
        offset: PackOffset::new(twice.size - 40),
        stored: StoredLen::new(20),
        ..twice.frames[0].clone()
    });
    let mut otherwise = odd.packs[0].clone();
    otherwise.frames[0].chunks.reverse();
    odd.packs = vec![twice.clone(), twice, otherwise];
    super::interleavings::publish(&repo, &odd);
    for client in [&repo, &fixture.open("b")] {
        let report = client.sync().expect("syncs");
        assert!(!report.rebuilt, "{report:?}");
        back_up(client, "two").expect("a backup");
        client.index().check().expect("the index is whole");
    }
}

/// By the heartbeat's own clock: after a time without a heartbeat that is longer than a lease
/// lives, the writer stores nothing more.
#[test]
fn a_writer_without_a_heartbeat_stores_no_more() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let times = LeaseTimes {
        heartbeat: Duration::from_secs(60),
        expiry: Duration::from_millis(30),
        ..LeaseTimes::default()
    };
    let lease = take_lease(&repo, times).expect("a lease");
    std::thread::sleep(Duration::from_millis(60));
    let err = store_chunks(&repo, &lease, &[b"late"]).expect_err("the lease is lost");
    assert!(matches!(err, RepoError::LostLease { .. }), "{err}");
    assert_eq!(
        list_all(&*fixture.memory, ObjectDir::Packs).expect("lists"),
        []
    );
    drop(lease);
    assert_sound(&fixture);
}

/// A page of the index turned out to be damaged when a backup looked up the frame of its parent's
/// list of files. The sync before it had found no damage. The backup failed, and the user was
/// advised to delete the cache directory. Now the index is rebuilt during the query, once, even if
/// several threads meet the damage.
#[test]
fn damage_met_by_a_query_is_repaired_during_the_query() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let held = lease(&repo);
    let id = store_chunks(&repo, &held, &[b"chunk"]).expect("stores")[0];
    let place = repo
        .index()
        .lookup_one(&id)
        .expect("asks")
        .expect("is there");

    let before = repo.index().generation();
    let met = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut attempts = 0;
                let row = repo.with_index(|index| {
                    attempts += 1;
                    if attempts == 1 {
                        met.wait();
                        let (path, what) =
                            ("index".into(), "database disk image is malformed".into());
                        return Err(IndexError::Damaged { path, what });
                    }
                    index.frame(&place.pack, place.frame)
                });
                assert!(row.expect("answers").is_some());
                assert_eq!(attempts, 2);
            });
        }
    });

    assert_ne!(repo.index().generation(), before);
    assert_eq!(
        repo.index().loaded().expect("asks"),
        repo.listed_segments().expect("lists")
    );
    assert_eq!(
        repo.frame_row(&place.pack, place.frame + 1).expect("asks"),
        None
    );
    let chunk = ChunkReader::new(&repo, 0).chunk(ChunkClass::Data, &id);
    assert_eq!(chunk.expect("reads"), b"chunk");
}

/// A chunk that counts as held must be in the store once the barrier is through, even if another
/// thread claimed it and its frame is not full yet.
#[test]
fn publish_covers_held_chunks_while_other_threads_write() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let lease = lease(&repo);
    let claims = Claims::new(repo.index()).expect("claims");
    let observer = crate::observe::Recording::default();
    let text = |thread: u32, n: u32| format!("chunk {} of thread {}", n, thread % 2).into_bytes();
    std::thread::scope(|scope| {
        let packer = Packer::start(scope, &repo, Some(&lease), &claims, OPTIONS, &observer)
            .expect("started");
        let mut writing = Vec::new();
        for thread in 0..4 {
            // Two threads each add the same chunks.
            let (feed, repo) = (packer.feed(), &repo);
            writing.push(scope.spawn(move || {
                let mut writer = feed.writer(ChunkClass::Data);
                for n in 0..300 {
                    let id = writer.add(&text(thread, n)).expect("added");
                    if n % 50 == 7 {
                        feed.publish().expect("published");
                        let place = repo.index().lookup_one(&id).expect("asked");
                        assert!(
                            place.is_some_and(|place| place.state == PackState::Known),
                            "{thread}: {n}"
                        );
                    }
                }
                // The writer is dropped unflushed, as by a cancelled thread.
            }));
        }

        writing
            .into_iter()
            .for_each(|thread| thread.join().expect("no panic"));
        packer.feed().publish().expect("published");
        let last = repo.keys().chunk_id(ChunkClass::Data, &text(1, 299));
        assert!(repo.index().lookup_one(&last).expect("asked").is_some());
        packer.finish().expect("finished");
    });
    assert_sound(&fixture);
}

/// A walk met damage in its parent and dropped its writer unflushed. The backup continued without
/// the parent and met the same chunk, which counted as held. It committed a snapshot that named the
/// chunk, but the chunk was in the dropped frame and so in no pack.
#[test]
fn a_chunk_of_a_dropped_writer_is_stored_for_the_next_one() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let lease = lease(&repo);
    let claims = Claims::new(repo.index()).expect("claims");
    let observer = Recording::default();
    std::thread::scope(|scope| {
        let packer = Packer::start(scope, &repo, Some(&lease), &claims, OPTIONS, &observer)
            .expect("started");
        let mut left = packer.writer(ChunkClass::Metadata);
        let id = left.add(b"a page").expect("added");
        drop(left);

        let mut again = packer.writer(ChunkClass::Metadata);
        assert_eq!(again.add(b"a page").expect("added"), id);
        again.flush().expect("flushed");
        drop(again);
        packer.finish().expect("finished");
        let place = repo.index().lookup_one(&id).expect("asked");
        assert!(place.is_some_and(|place| place.state == PackState::Known));
    });
    assert_sound(&fixture);
}

/// Publishes through a store whose next put of a pack fails after `late`, while a writer holds
/// more.
fn publish_to_a_failing_store(late: Duration) {
    let fixture = Fixture::new();
    let faulty = Arc::new(FaultyStore::new(fixture.store()).late(late));
    let repo = fixture.open_on(faulty.clone(), "a").expect("opens");
    let lease = lease(&repo);
    let fault = Fault {
        operation: StoreOperation::Put,
        kind: Some(KeyKind::Pack),
        nth: 1,
        effect: FaultEffect::ErrorBefore(InjectedError::Unreachable),
    };
    faulty.plan(fault);

    let claims = Claims::new(repo.index()).expect("claims");
    let observer = crate::observe::Recording::default();
    std::thread::scope(|scope| {
        let packer = Packer::start(scope, &repo, Some(&lease), &claims, OPTIONS, &observer)
            .expect("started");
        let mut writer = packer.writer(ChunkClass::Data);
        writer.add(b"a chunk").expect("added");
        let (sender, receiver) = std::sync::mpsc::channel();
        let feed = packer.feed();
        scope.spawn(move || sender.send(feed.publish()));
        let Ok(answer) = receiver.recv_timeout(Duration::from_secs(120)) else {
            // The scope would wait for the blocked thread for ever.
            eprintln!("publish gets no answer");
            std::process::abort();
        };
        assert!(matches!(answer, Err(RepoError::Stopped)));
        drop(writer);
        assert!(matches!(packer.finish(), Err(RepoError::Store(_))));
    });
}

#[test]
fn publish_after_a_failure_returns_an_error() {
    publish_to_a_failing_store(Duration::ZERO);
}

/// The request reaches the stage that is about to fail, and is still in its queue when it fails.
/// The end of the stage must wake the caller, since the queue does not. A checkpoint on a full disk
/// used to wait for ever.
#[test]
fn a_request_in_the_queue_of_a_failing_stage_is_answered() {
    publish_to_a_failing_store(Duration::from_millis(300));
}

/// The first sync of a large repository takes minutes, under the lease of the waiting caller. It
/// could not be stopped.
#[test]
fn a_stopped_sync_is_continued_by_the_next_one() {
    let fixture = Fixture::new();
    let writer = fixture.open("a");
    for text in ["one", "two", "three"] {
        back_up(&writer, text).expect("a backup");
    }
    let repo = fixture.open("b");
    let mut left = 2;
    let stopped = repo.sync_while(&mut || {
        left -= 1;
        if left < 0 {
            Err(RepoError::Stopped)
        } else {
            Ok(())
        }
    });
    assert!(matches!(stopped, Err(RepoError::Stopped)));
    assert_eq!(repo.index().loaded().expect("asks").len(), 2);
    assert_eq!(repo.sync().expect("syncs").loaded, 1);
}

/// A dry run publishes nothing. The set of its claims used to grow by at least 33 bytes with each
/// new chunk.
#[test]
fn a_dry_run_does_not_remember_all_new_chunks() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let claims = Claims::of_dry_run(repo.index()).expect("claims");
    let id = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        crate::types::ChunkId::new(bytes)
    };
    let claim = |n| claims.claim(&id(n)).expect("claims");
    assert!((0..1_000_000).all(|n| claim(n) == ChunkClaim::New));
    assert_eq!(
        (claim(999_999), claim(0)),
        (ChunkClaim::Held, ChunkClaim::New),
        "what came lately is known"
    );
    assert!(claims.in_flight() < 1_000_000);
}
