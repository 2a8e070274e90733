//! The contract of stores as one set of checks, run on each store and decorator. They panic if a
//! store fails.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Barrier};
use std::thread;

use crate::store::{
    ObjectBody, ObjectDir, ObjectKey, PutMode, Replica, SharedStore, Spool, Store, StoreError,
    list_all,
};
use crate::types::{LeaseId, PackId, SegmentId, SnapshotId, to_u64, to_usize};

/// Checks a store against the contract of [`Store`]; `make` returns a new, empty, writable store
/// each time.
pub fn run(make: impl Fn() -> SharedStore) {
    an_empty_store_is_empty(&*make());
    create_only_refuses_a_taken_name(&*make());
    replace_takes_the_place_of_what_was_there(&*make());
    spooled_objects_are_like_others(&*make());
    a_dropped_spool_leaves_nothing(&*make());
    an_objects_time_is_that_at_which_it_became_visible(&*make());
    objects_of_all_sizes_read_back(&*make());
    deleted_objects_are_gone(&*make());
    renamed_objects_keep_their_bytes(&*make());
    a_listing_ends_with_the_callers_error(&*make());
    of_many_writers_of_one_name_one_wins(&make());
    readers_see_the_old_or_the_new(&make());
    let store = make();
    run_reading(&*store, &*store);
}

/// Checks the reading part of a store against the contract. Objects are put through `fill`, which
/// is empty, and read through `read`.
pub fn run_reading(fill: &dyn Store, read: &dyn Store) {
    let keys = one_key_of_each_kind();
    for (key, number) in keys.iter().zip(1..) {
        put(fill, key, &vec![number; usize::from(number)]);
    }

    for (key, number) in keys.iter().zip(1_u8..) {
        let bytes = vec![number; usize::from(number)];
        assert_eq!(
            read.get(key, to_u64(bytes.len())).expect("get"),
            bytes,
            "{key}"
        );
        let meta = read.stat(key).expect("stat");
        assert_eq!((&meta.key, meta.size), (key, to_u64(bytes.len())));
        assert!(
            meta.modified >= fill.stat(&keys[0]).expect("stat").modified,
            "written later"
        );
        check_bounds(read, key, &bytes);
    }

    for directory in ObjectDir::ALL {
        let expected: BTreeSet<_> = keys
            .iter()
            .filter(|key| key.directory() == Some(directory))
            .cloned()
            .collect();

        let listed = list_all(read, directory).expect("list");
        assert_eq!(
            listed
                .iter()
                .map(|meta| meta.key.clone())
                .collect::<BTreeSet<_>>(),
            expected
        );
        assert_eq!(listed.len(), expected.len(), "no object is listed twice");
        for meta in listed {
            assert_eq!(
                meta,
                read.stat(&meta.key).expect("stat"),
                "list and stat agree"
            );
        }
    }

    check_missing(read, &pack(250));
}

fn check_bounds(store: &dyn Store, key: &ObjectKey, bytes: &[u8]) {
    let len = to_u64(bytes.len());
    let error = store.get(key, len - 1).expect_err("longer than the limit");
    assert!(
        matches!(&error, StoreError::TooLong { key: of, limit, found } if of == key && *limit == len - 1 && *found == len),
        "{error:?}"
    );

    let mut one = [0];
    store
        .read_at(key, len - 1, &mut one)
        .expect("the last byte");
    assert_eq!(one[0], bytes[bytes.len() - 1]);
    store
        .read_at(key, len, &mut [])
        .expect("nothing, at the end");

    for (offset, mut buf) in [
        (len, vec![0; 1]),
        (0, vec![0; bytes.len() + 1]),
        (len + 1, vec![]),
    ] {
        let wanted = offset + to_u64(buf.len());
        let error = store
            .read_at(key, offset, &mut buf)
            .expect_err("beyond the end");
        assert!(
            matches!(&error, StoreError::Short { key: of, wanted: w, found } if of == key && *w == wanted && *found == len),
            "{error:?}"
        );
    }

    assert!(matches!(
        store.read_at(key, u64::MAX, &mut one),
        Err(StoreError::Short { .. })
    ));
}

fn check_missing(store: &dyn Store, key: &ObjectKey) {
    assert!(store.get(key, 1 << 20).expect_err("missing").is_not_found());
    assert!(
        store
            .read_at(key, 0, &mut [0])
            .expect_err("missing")
            .is_not_found()
    );
    assert!(store.stat(key).expect_err("missing").is_not_found());
}

fn an_empty_store_is_empty(store: &dyn Store) {
    for directory in ObjectDir::ALL {
        assert_eq!(list_all(store, directory).expect("list"), []);
    }
    for key in one_key_of_each_kind() {
        check_missing(store, &key);
        assert!(store.delete(&key).expect_err("missing").is_not_found());
    }
    assert!(!store.address().is_empty());
    assert!(store.properties().connections > 0);
}

fn create_only_refuses_a_taken_name(store: &dyn Store) {
    for key in one_key_of_each_kind() {
        put(store, &key, b"first");
        for bytes in [&b"second"[..], b"first", b""] {
            let error = store
                .put(&key, ObjectBody::Bytes(bytes), PutMode::CreateOnly)
                .expect_err("taken");
            assert!(
                matches!(&error, StoreError::Exists { key: of } if *of == key),
                "{error:?}"
            );
        }
        let spool = spooled(store, b"third");
        assert!(
            store
                .put(&key, ObjectBody::Spooled(spool), PutMode::CreateOnly)
                .is_err()
        );
        assert_eq!(store.get(&key, 100).expect("get"), b"first");
    }
}

fn replace_takes_the_place_of_what_was_there(store: &dyn Store) {
    let replaceable = [
        ObjectKey::Config(Replica::First),
        ObjectKey::KeySlot("slot".to_owned(), Replica::Second),
        ObjectKey::Lease(LeaseId::new([1; 16])),
        ObjectKey::QuarantinedPack(PackId::new([1; 32])),
    ];
    for key in replaceable {
        // Longer, then shorter: none of the old bytes may remain.
        for bytes in [&b"new"[..], b"much longer", b"short"] {
            store
                .put(&key, ObjectBody::Bytes(bytes), PutMode::Replace)
                .expect("replace");
            assert_eq!(store.get(&key, 100).expect("get"), bytes);
            assert_eq!(store.stat(&key).expect("stat").size, to_u64(bytes.len()));
        }
    }
}

fn spooled_objects_are_like_others(store: &dyn Store) {
    let mut spool = store.spool().expect("spool");
    let mut bytes = Vec::new();
    for number in 0..40 {
        let piece = vec![number; 100_000];
        spool.write_all(&piece).expect("write");
        bytes.extend(piece);
    }
    assert_eq!(spool.len(), to_u64(bytes.len()));
    assert_eq!(
        list_all(store, ObjectDir::Packs).expect("list"),
        [],
        "a spool is no object"
    );
    store
        .put(&pack(1), ObjectBody::Spooled(spool), PutMode::CreateOnly)
        .expect("put");
    assert_eq!(
        store.stat(&pack(1)).expect("stat").size,
        to_u64(bytes.len())
    );
    assert!(store.get(&pack(1), to_u64(bytes.len())).expect("get") == bytes);
    let empty = store.spool().expect("spool");
    store
        .put(&pack(2), ObjectBody::Spooled(empty), PutMode::CreateOnly)
        .expect("put");
    assert_eq!(store.get(&pack(2), 0).expect("get"), b"");
}

fn a_dropped_spool_leaves_nothing(store: &dyn Store) {
    drop(spooled(store, b"never put"));
    for directory in ObjectDir::ALL {
        assert_eq!(list_all(store, directory).expect("list"), []);
    }
}

/// An object that is written early and put late has the time of the put: grace periods and leases
/// are counted from it.
fn an_objects_time_is_that_at_which_it_became_visible(store: &dyn Store) {
    let time = |key: &ObjectKey| store.stat(key).expect("stat").modified;
    let early = spooled(store, b"written early");
    let lease = |number| ObjectKey::Lease(LeaseId::new([number; 16]));
    put(store, &lease(0), b"first");
    // Wait until the store's clock has advanced. A test's clock that stands still shows nothing.
    for _ in 0..1000 {
        store
            .put(&lease(1), ObjectBody::Bytes(b"later"), PutMode::Replace)
            .expect("put");
        if time(&lease(1)) > time(&lease(0)) {
            break;
        }
    }
    store
        .put(&pack(1), ObjectBody::Spooled(early), PutMode::CreateOnly)
        .expect("put");
    assert!(
        time(&pack(1)) >= time(&lease(1)),
        "it became visible after the other"
    );
}

fn objects_of_all_sizes_read_back(store: &dyn Store) {
    for (number, size) in [(1, 0), (2, 1), (3, 4096), (4, 1 << 20), (5, (1 << 20) + 1)] {
        let bytes: Vec<u8> = (0..251).cycle().take(to_usize(size)).collect();
        put(store, &pack(number), &bytes);
        assert!(
            store.get(&pack(number), u64::from(size)).expect("get") == bytes,
            "{size}"
        );
        let from = bytes.len() / 3;
        let to = bytes.len() / 3 * 2;
        let mut buf = vec![0; to - from];
        store
            .read_at(&pack(number), to_u64(from), &mut buf)
            .expect("read");
        assert!(buf == bytes[from..to], "{size}");
    }
    assert_eq!(list_all(store, ObjectDir::Packs).expect("list").len(), 5);
}

fn deleted_objects_are_gone(store: &dyn Store) {
    for key in one_key_of_each_kind() {
        put(store, &key, b"bytes");
        // Some stores cache the bytes that were read.
        store.read_at(&key, 0, &mut [0; 5]).expect("read");
        store.delete(&key).expect("delete");
        check_missing(store, &key);
        assert!(store.delete(&key).expect_err("gone").is_not_found());
        put(store, &key, b"anew");
        let mut buf = [0; 4];
        store.read_at(&key, 0, &mut buf).expect("read");
        assert_eq!(&buf, b"anew");
    }
}

fn renamed_objects_keep_their_bytes(store: &dyn Store) {
    let place = pack(1);
    let aside = ObjectKey::QuarantinedPack(PackId::new([1; 32]));
    put(store, &place, b"bytes");
    let before = store.stat(&place).expect("stat").modified;
    if !store.properties().rename {
        assert!(store.rename(&place, &aside).is_err());
        return;
    }
    assert!(
        store
            .rename(&pack(2), &aside)
            .expect_err("missing")
            .is_not_found()
    );
    // Some stores cache the bytes that were read.
    store.read_at(&place, 0, &mut [0; 5]).expect("read");
    store.rename(&place, &aside).expect("set aside");
    check_missing(store, &place);
    assert_eq!(store.get(&aside, 9).expect("get"), b"bytes");
    assert!(
        store.stat(&aside).expect("stat").modified >= before,
        "the time of the move"
    );

    put(store, &place, b"others");
    let error = store.rename(&place, &aside).expect_err("taken");
    assert!(
        matches!(&error, StoreError::Exists { key } if *key == aside),
        "{error:?}"
    );
    assert_eq!(store.get(&place, 9).expect("get"), b"others");
    store.delete(&place).expect("delete");
    store.rename(&aside, &place).expect("taken back");
    assert_eq!(store.get(&place, 9).expect("get"), b"bytes");
    check_missing(store, &aside);
}

fn a_listing_ends_with_the_callers_error(store: &dyn Store) {
    for number in 0..3 {
        put(store, &pack(number), b"x");
    }
    let mut calls = 0;
    let result = store.list(ObjectDir::Packs, &mut |meta| {
        calls += 1;
        Err(StoreError::NotFound { key: meta.key })
    });
    assert!(result.expect_err("the caller's").is_not_found());
    assert_eq!(calls, 1);
    // A sweep deletes objects while it lists them.
    store
        .list(ObjectDir::Packs, &mut |meta| store.delete(&meta.key))
        .expect("list and delete");
    assert_eq!(list_all(store, ObjectDir::Packs).expect("list"), []);
}

fn of_many_writers_of_one_name_one_wins(store: &SharedStore) {
    const WRITERS: u8 = 8;
    for round in 0..4 {
        let barrier = Arc::new(Barrier::new(usize::from(WRITERS)));
        let threads: Vec<_> = (0..WRITERS)
            .map(|number| {
                let store = Arc::clone(store);
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    let bytes = vec![number; 1000];
                    barrier.wait();
                    store.put(&pack(round), ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
                })
            })
            .collect();

        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().expect("a writer panicked"))
            .collect();

        let winners: Vec<_> = (0..WRITERS)
            .zip(&results)
            .filter(|(_, result)| result.is_ok())
            .collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        let winner = winners[0].0;

        for result in &results {
            assert!(
                matches!(result, Ok(()) | Err(StoreError::Exists { .. })),
                "{result:?}"
            );
        }
        assert_eq!(
            store.get(&pack(round), 1000).expect("get"),
            vec![winner; 1000]
        );
    }
}

fn readers_see_the_old_or_the_new(store: &SharedStore) {
    let key = ObjectKey::Lease(LeaseId::new([7; 16]));
    put(&**store, &key, &[0; 5000]);
    let writer = {
        let store = Arc::clone(store);
        let key = key.clone();
        thread::spawn(move || {
            for number in 1..50_u8 {
                let bytes = vec![number; 5000 - usize::from(number)];
                store
                    .put(&key, ObjectBody::Bytes(&bytes), PutMode::Replace)
                    .expect("replace");
            }
        })
    };
    while !writer.is_finished() {
        let bytes = store.get(&key, 5000).expect("get");
        assert_eq!(bytes, vec![bytes[0]; 5000 - usize::from(bytes[0])]);
    }
    writer.join().expect("the writer panicked");
}

fn put(store: &dyn Store, key: &ObjectKey, bytes: &[u8]) {
    store
        .put(key, ObjectBody::Bytes(bytes), PutMode::CreateOnly)
        .expect("put");
}

fn spooled(store: &dyn Store, bytes: &[u8]) -> Spool {
    let mut spool = store.spool().expect("spool");
    spool.append(bytes).expect("append");
    spool
}

fn pack(number: u8) -> ObjectKey {
    // First and last bytes differ, to detect a store that files packs by the wrong one.
    let mut id = [number; 32];
    id[0] = 0xff;
    ObjectKey::Pack(PackId::new(id))
}

fn one_key_of_each_kind() -> Vec<ObjectKey> {
    vec![
        ObjectKey::Config(Replica::First),
        ObjectKey::Config(Replica::Second),
        ObjectKey::KeySlot("a-0".to_owned(), Replica::First),
        ObjectKey::KeySlot("a-0".to_owned(), Replica::Second),
        pack(1),
        pack(2),
        ObjectKey::Segment(SegmentId::new([3; 32])),
        ObjectKey::Snapshot(SnapshotId::new([4; 32])),
        ObjectKey::Forgotten(SnapshotId::new([4; 32])),
        ObjectKey::Lease(LeaseId::new([5; 16])),
        ObjectKey::Parity(PackId::new([1; 32])),
        ObjectKey::QuarantinedPack(PackId::new([1; 32])),
        ObjectKey::QuarantinedSnapshot(SnapshotId::new([4; 32])),
        ObjectKey::QuarantinedSegment(SegmentId::new([4; 32])),
    ]
}
