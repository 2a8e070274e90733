//! Key slots as a command that was cut off leaves them.

use zeroize::Zeroizing;

use super::*;
use crate::store::{Body, Copy, Folder, ObjectKey, PutMode, Store, list_all};

fn slot_keys(store: &dyn Store) -> Vec<ObjectKey> {
    list_all(store, Folder::Keys).expect("listed").into_iter().map(|meta| meta.key).collect()
}

fn wrong(fixture: &Fixture) -> RepoError {
    let wrong = Secret::passphrase(Zeroizing::new(b"wrong".to_vec()));
    Repository::open(fixture.store(), &wrong, &fixture.caches.path().join("x"))
        .expect_err("the wrong passphrase")
}

#[test]
fn one_copy_of_a_slot_is_no_damage_to_who_has_another_passphrase() {
    // A power cut between a slot's two copies, and then a mistyped passphrase: it was told as damage to the key store.
    let fixture = Fixture::new();
    for copy in [Copy::First, Copy::Second] {
        let keys = slot_keys(&*fixture.memory);
        let key =
            keys.iter().find(|key| matches!(key, ObjectKey::KeySlot(_, c) if *c == copy)).expect("a copy");
        let bytes = fixture.memory.get(key, 1 << 16).expect("read");
        fixture.memory.delete(key).expect("deleted");
        assert!(matches!(wrong(&fixture), RepoError::WrongKey { slots: 1 }), "{}", wrong(&fixture));
        fixture.open("a");
        fixture.memory.put(key, Body::Bytes(&bytes), PutMode::CreateOnly).expect("put");
    }
    slot_keys(&*fixture.memory).iter().for_each(|key| {
        fixture.memory.damage(key, |bytes| bytes.truncate(9)).then_some(()).expect("damaged");
    });
    assert!(wrong(&fixture).is_damage());
}

#[test]
fn a_slot_of_an_init_that_was_cut_off_is_no_damage() {
    // An `init` dies between its slots and its config, the next one makes the repository: the first one's slot stays.
    let (fixture, dead) = (Fixture::new(), Fixture::new());
    for key in slot_keys(&*dead.memory) {
        let bytes = dead.memory.get(&key, 1 << 16).expect("read");
        fixture.memory.put(&key, Body::Bytes(&bytes), PutMode::CreateOnly).expect("put");
    }
    fixture.open("a");
    assert!(matches!(wrong(&fixture), RepoError::WrongKey { slots: 1 }), "{}", wrong(&fixture));
    // Nothing but another repository's slots is another matter.
    for key in slot_keys(&*fixture.memory) {
        fixture.memory.delete(&key).expect("deleted");
    }
    for key in slot_keys(&*dead.memory) {
        let bytes = dead.memory.get(&key, 1 << 16).expect("read");
        fixture.memory.put(&key, Body::Bytes(&bytes), PutMode::CreateOnly).expect("put");
    }
    assert!(wrong(&fixture).is_damage());
}
