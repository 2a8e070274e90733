//! Key slots and `config` after a command that was cut off, after damage by the medium, and as
//! planted by an attacker without a key.

use zeroize::Zeroizing;

use super::*;
use crate::chunk::{Argon2Cost, wrap_key};
use crate::format::{KeySlot, decode_key_slot, encode_key_slot, key_slot_aad};
use crate::repo::unlock::unlock;
use crate::store::{
    Fault, FaultEffect, FaultyStore, HookedStore, InjectedError, KeyKind, ObjectBody, ObjectDir,
    ObjectKey, PutMode, RecordingStore, Replica, Store, StoreOperation, list_all,
};
use crate::sys::now;

fn slot_keys(store: &dyn Store) -> Vec<ObjectKey> {
    list_all(store, ObjectDir::Keys)
        .expect("listed")
        .into_iter()
        .map(|meta| meta.key)
        .collect()
}

fn wrong(fixture: &Fixture) -> RepoError {
    let wrong = Secret::passphrase(Zeroizing::new(b"wrong".to_vec()));
    Repository::open(fixture.store(), &wrong, &fixture.caches.path().join("x"))
        .expect_err("the wrong passphrase")
}

#[test]
fn one_copy_of_a_slot_and_a_wrong_passphrase_are_no_damage() {
    // A power cut between a slot's two copies, and then a mistyped passphrase: this used to be
    // reported as damage to the key store.
    let fixture = Fixture::new();
    for copy in [Replica::First, Replica::Second] {
        let keys = slot_keys(&*fixture.memory);
        let key = keys
            .iter()
            .find(|key| matches!(key, ObjectKey::KeySlot(_, c) if *c == copy))
            .expect("a copy");
        let bytes = fixture.memory.get(key, 1 << 16).expect("read");
        fixture.memory.delete(key).expect("deleted");

        assert!(
            matches!(wrong(&fixture), RepoError::WrongKey { slots: 1, .. }),
            "{}",
            wrong(&fixture)
        );
        fixture.open("a");
        fixture
            .memory
            .put(key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
            .expect("put");
    }

    slot_keys(&*fixture.memory).iter().for_each(|key| {
        fixture
            .memory
            .damage(key, |bytes| bytes.truncate(9))
            .then_some(())
            .expect("damaged");
    });
    assert!(wrong(&fixture).is_damage());
}

#[test]
fn a_slot_of_an_init_that_was_cut_off_is_no_damage() {
    // An `init` dies between its slots and its config, and the next one creates the repository. The
    // first one's slot stays.
    let (fixture, dead) = (Fixture::new(), Fixture::new());
    for key in slot_keys(&*dead.memory) {
        let bytes = dead.memory.get(&key, 1 << 16).expect("read");
        fixture
            .memory
            .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
            .expect("put");
    }
    fixture.open("a");
    assert!(
        matches!(wrong(&fixture), RepoError::WrongKey { slots: 1, .. }),
        "{}",
        wrong(&fixture)
    );

    // If all slots belong to another repository, that is damage.
    for key in slot_keys(&*fixture.memory) {
        fixture.memory.delete(&key).expect("deleted");
    }
    for key in slot_keys(&*dead.memory) {
        let bytes = dead.memory.get(&key, 1 << 16).expect("read");
        fixture
            .memory
            .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
            .expect("put");
    }
    assert!(wrong(&fixture).is_damage());
}

#[test]
fn a_flipped_bit_in_either_copy_of_config_is_read_over_and_healed() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    for copy in [Replica::First, Replica::Second] {
        let key = ObjectKey::Config(copy);
        let good = fixture.memory.get(&key, 1 << 16).expect("read");
        // Every byte of the first copy, but only some of the second, which is read in the same way.
        let step = if copy == Replica::First { 1 } else { 13 };
        for at in (0..good.len()).step_by(step) {
            let bit = 1 << (at % 7);
            fixture
                .memory
                .damage(&key, |bytes| bytes[at] ^= bit)
                .then_some(())
                .expect("damaged");

            let id = Repository::identify(&fixture.store());
            assert_eq!(
                id.unwrap_or_else(|err| panic!("byte {at} of {key}: {err}")),
                repo.id(),
                "byte {at} of {key}"
            );
            let opened = fixture.open_on(fixture.store(), "a");
            let opened = opened.unwrap_or_else(|err| panic!("byte {at} of {key}: {err}"));
            assert!(opened.config_damage().is_some(), "byte {at}");

            assert_eq!(
                opened.repair_config().expect("mended"),
                [key.to_string()],
                "byte {at}"
            );
            assert!(
                fixture.memory.get(&key, 1 << 16).expect("read") == good,
                "byte {at} of {key} is healed"
            );
        }
    }
    assert!(fixture.open("a").config_damage().is_none());
}

#[test]
fn of_two_authentic_copies_of_config_the_first_counts() {
    let fixture = Fixture::new();
    let keys = fixture.open("a").keys().clone();
    let mut config = fixture.open("a").config().clone();
    config.parity = Some(7);
    let other = crate::format::encode_config(&config, |under| keys.config_mac(under));
    fixture
        .memory
        .damage(&ObjectKey::Config(Replica::Second), |bytes| {
            *bytes = other.clone();
        });
    let repo = fixture.open("a");
    assert_eq!(repo.config().parity, None);
    assert!(
        repo.config_damage()
            .is_some_and(|what| what.contains("differ")),
        "{:?}",
        repo.config_damage()
    );
    repo.repair_config().expect("mended");
    assert!(fixture.open("a").config_damage().is_none());

    // A feature that either copy needs is respected.
    config.features.read.push("unheard-of".into());
    let other = crate::format::encode_config(&config, |under| keys.config_mac(under));
    fixture
        .memory
        .damage(&ObjectKey::Config(Replica::Second), |bytes| {
            *bytes = other.clone();
        });
    let refused = fixture
        .open_on(fixture.store(), "a")
        .expect_err("an unknown feature");
    assert!(
        matches!(refused, RepoError::UnknownFeature { .. }),
        "{refused}"
    );
}

#[test]
fn an_unavailable_copy_of_config_or_slot_is_skipped() {
    let fixture = Fixture::new();
    for kind in [KeyKind::Config, KeyKind::KeySlot] {
        for nth in [1, 2] {
            for trouble in [
                InjectedError::Medium,
                InjectedError::TimedOut,
                InjectedError::Denied,
            ] {
                let faulty = FaultyStore::new(fixture.store());
                let effect = FaultEffect::ErrorBefore(trouble);
                faulty.plan(Fault {
                    operation: StoreOperation::Get,
                    kind: Some(kind),
                    nth,
                    effect,
                });
                let faulty = Arc::new(faulty);
                let opened =
                    fixture.open_on(faulty.clone(), &format!("{kind:?} {nth} {trouble:?}"));
                opened.unwrap_or_else(|err| panic!("{kind:?} {nth} {trouble:?}: {err}"));
                faulty.assert_all_fired();
            }
        }
    }

    // If no copy can be read, the error says so, and not that the passphrase is wrong or that no
    // repository exists.
    for (kind, gets) in [(KeyKind::Config, 2), (KeyKind::KeySlot, 2)] {
        let faulty = FaultyStore::new(fixture.store());
        for nth in 1..=gets {
            let effect = FaultEffect::ErrorBefore(InjectedError::Medium);
            faulty.plan(Fault {
                operation: StoreOperation::Get,
                kind: Some(kind),
                nth,
                effect,
            });
        }
        let err = fixture
            .open_on(Arc::new(faulty), "none")
            .expect_err("nothing can be read");
        assert!(err.is_unreadable_now(), "{kind:?}: {err}");
    }
}

/// Puts both copies of a slot under this name.
fn plant(fixture: &Fixture, name: &str, change: impl FnOnce(&mut KeySlot)) {
    let keys = slot_keys(&*fixture.memory);
    let mut slot =
        decode_key_slot(&fixture.memory.get(&keys[0], 1 << 16).expect("read")).expect("a slot");
    change(&mut slot);
    for copy in [Replica::First, Replica::Second] {
        let key = ObjectKey::KeySlot(name.into(), copy);
        fixture
            .memory
            .put(
                &key,
                ObjectBody::Bytes(&encode_key_slot(&slot)),
                PutMode::CreateOnly,
            )
            .expect("put");
    }
}

#[test]
fn a_slot_that_costs_too_much_is_not_tried_unasked() {
    let fixture = Fixture::new();
    for (n, (memory_kib, passes)) in [
        (1 << 20, 100),
        (1 << 20, 1),
        ((256 << 10) + 1, 1),
        (64 << 10, 13),
        (64, 12_289),
    ]
    .into_iter()
    .enumerate()
    {
        plant(&fixture, &format!("{n:016}"), |slot| {
            (slot.memory_kib, slot.passes) = (memory_kib, passes);
        });
    }

    // Despite these slots, ours still opens.
    fixture.open("a");
    let err = wrong(&fixture);
    assert!(
        matches!(
            err,
            RepoError::WrongKey {
                slots: 1,
                costly: 5
            }
        ),
        "{err}"
    );
    assert!(
        err.to_string()
            .contains("5 more ask for unusually much memory"),
        "{err}"
    );
}

/// Puts a slot of this cost that opens with another secret.
fn plant_costly(fixture: &Fixture, name: &str, secret: &[u8], cost: Argon2Cost) {
    let id = fixture.open("planter").id();
    let master = unlock(&*fixture.memory, id, &Secret::empty(), None)
        .expect("opens")
        .master;
    let mut slot = KeySlot::new(
        id,
        now(),
        "costly".into(),
        (cost.memory_kib, cost.passes),
        [7; 32],
    );
    slot.check = master.check_value();
    let key = wrap_key(secret, &slot.salt, cost).expect("derived");
    slot.wrapped = master.wrap(&key, &key_slot_aad(&slot));
    for copy in [Replica::First, Replica::Second] {
        let key = ObjectKey::KeySlot(name.into(), copy);
        fixture
            .memory
            .put(
                &key,
                ObjectBody::Bytes(&encode_key_slot(&slot)),
                PutMode::CreateOnly,
            )
            .expect("put");
    }
}

#[test]
fn a_costly_slot_is_opened_last_and_only_on_request() {
    let fixture = Fixture::new();
    let usual = fixture
        .open("a")
        .key_slots()
        .expect("listed")
        .remove(0)
        .name;
    // The least cost that is costly.
    let least = Argon2Cost {
        memory_kib: (256 << 10) + 8,
        passes: 1,
    };
    plant_costly(&fixture, "costly", b"other", least);

    let open = |secret: Secret, cache: &str| {
        Repository::open(fixture.store(), &secret, &fixture.caches.path().join(cache))
    };
    let other = || Secret::passphrase(Zeroizing::new(b"other".to_vec()));

    let err = open(other(), "a").expect_err("not tried");
    assert!(
        matches!(
            err,
            RepoError::WrongKey {
                slots: 1,
                costly: 1
            }
        ),
        "{err}"
    );
    for _ in 0..2 {
        // Also with a cache that names this slot: having opened last time is no reason to try a
        // costly slot without permission.
        let repo = open(other().even_if_costly(), "a").expect("opens");
        let current = repo
            .key_slots()
            .expect("listed")
            .into_iter()
            .find(|slot| slot.current);
        assert_eq!(current.expect("one").name, "costly");
        open(other(), "a").expect_err("not tried");
    }

    // The secret of a cheap slot is found before any costly slot is tried. Each of these would take
    // a minute.
    for n in 0..20 {
        plant(&fixture, &format!("{n:016}"), |slot| {
            (slot.memory_kib, slot.passes) = (1 << 20, 100);
            slot.salt[0] ^= n as u8;
        });
    }
    let repo = open(Secret::empty().even_if_costly(), "b").expect("opens");
    let current = repo
        .key_slots()
        .expect("listed")
        .into_iter()
        .find(|slot| slot.current);
    assert_eq!(current.expect("one").name, usual);
}

#[test]
fn many_slots_of_moderate_cost_are_bounded_together() {
    // 300 slots that cost just less than the limit for one slot would take minutes.
    let fixture = Fixture::new();
    for n in 0..300 {
        plant(&fixture, &format!("{n:016}"), |slot| {
            (slot.memory_kib, slot.passes) = (8, 98_000);
            slot.salt[0] ^= n as u8;
        });
    }
    fixture.open("a");
    // The cheapest slot opened first, and no other slot was tried.
    let store = Arc::new(RecordingStore::new(fixture.store()));
    fixture.open_on(store.clone(), "a").expect("opens");
    assert_eq!(
        store.count(StoreOperation::Get, KeyKind::KeySlot),
        2,
        "the slot that opened last is read first"
    );
    assert_eq!(store.count(StoreOperation::List, KeyKind::KeySlot), 0);
}

#[test]
fn the_slot_that_opened_last_may_be_gone_or_another() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let old = repo.key_slots().expect("listed").remove(0).name;
    let new = repo.add_key(&Secret::empty(), "second").expect("added");
    repo.remove_key(&old).expect("removed");
    assert!(
        fixture
            .open("a")
            .key_slots()
            .expect("listed")
            .iter()
            .all(|slot| slot.name == new && slot.current)
    );

    // The cached name is only a guess.
    for entry in walkdir::WalkDir::new(fixture.caches.path()) {
        let entry = entry.expect("listed");
        if entry.file_name() == "slot" {
            for text in [
                "",
                "../../etc/passwd",
                "\u{1}",
                "0123456789abcdef",
                &"a".repeat(65),
            ] {
                std::fs::write(entry.path(), text).expect("written");
                fixture.open("a");
            }
        }
    }
}

#[test]
fn concurrent_removals_leave_one_slot() {
    let fixture = Fixture::new();
    let repo = fixture.open("a");
    let first = repo.key_slots().expect("listed").remove(0).name;
    let second = repo.add_key(&Secret::empty(), "second").expect("added");

    // Another process removes the other slot while this one deletes its own.
    let gone = second.clone();
    let hook = move |store: &dyn Store| {
        for copy in [Replica::First, Replica::Second] {
            store
                .delete(&ObjectKey::KeySlot(gone.clone(), copy))
                .expect("deleted");
        }
    };
    let hooked = HookedStore::after(
        fixture.store(),
        StoreOperation::Delete,
        KeyKind::KeySlot,
        Box::new(hook),
    );
    let other = fixture.open_on(Arc::new(hooked), "b").expect("opens");

    let err = other.remove_key(&first).expect_err("it would be the last");
    assert!(
        matches!(err, RepoError::Refused { .. }) && err.to_string().contains("put back"),
        "{err}"
    );
    let left = fixture.open("a").key_slots().expect("listed");
    assert!(
        left.len() == 1 && left[0].name == first && left[0].damage.is_none(),
        "{left:?}"
    );
}

#[test]
fn a_slot_of_another_repository_does_not_count_as_remaining() {
    let (fixture, strange) = (Fixture::new(), Fixture::new());
    for key in slot_keys(&*strange.memory) {
        let bytes = strange.memory.get(&key, 1 << 16).expect("read");
        fixture
            .memory
            .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
            .expect("put");
    }
    plant(&fixture, "f00d", |slot| slot.check[0] ^= 1);
    let repo = fixture.open("a");
    let slots = repo.key_slots().expect("listed");
    assert_eq!(
        slots.iter().filter(|slot| slot.damage.is_none()).count(),
        1,
        "{slots:?}"
    );
    let ours = slots
        .into_iter()
        .find(|slot| slot.current)
        .expect("the one that opened")
        .name;
    assert!(matches!(
        repo.remove_key(&ours),
        Err(RepoError::Refused { .. })
    ));
    fixture.open("a");
}
