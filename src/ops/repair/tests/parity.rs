//! Tests of packs with recovery data.

use super::*;
use crate::ops::repair::PackFate;
use crate::ops::verify::FindingKind;
use crate::store::{ObjectBody, PutMode, Store};

const PERCENT: u8 = 10;

fn with_parity() -> (Lab, Vec<u8>) {
    sample_in(Lab::with_parity(PERCENT))
}

fn objects(lab: &Lab) -> BTreeMap<ObjectKey, Vec<u8>> {
    let all = lab.store.objects().into_iter().map(|meta| meta.key);
    all.map(|key| (key.clone(), lab.store.get(&key, 1 << 30).expect("there")))
        .collect()
}

/// Runs a repair and checks that every object is as it was before the damage.
fn healed(lab: &Lab, before: &BTreeMap<ObjectKey, Vec<u8>>, what: &str) {
    let report = repair(&lab.open()).expect("repaired");
    let fates: Vec<PackFate> = report.damaged.iter().map(|one| one.fate).collect();
    assert_eq!(fates, [PackFate::Healed], "{what}: {report:?}");
    assert!(objects(lab) == *before, "{what}: all is as it was");
}

#[test]
fn a_pack_with_any_damaged_byte_is_rebuilt() {
    let (lab, _) = with_parity();
    let before = objects(&lab);
    for (id, size) in packs(&lab) {
        let key = ObjectKey::Pack(id);
        let places =
            (0..32)
                .map(|n| n * size / 32)
                .chain([9, 20, 60, size - 30, size - 20, size - 1]);
        for at in places {
            let fork = lab.fork();
            fork.store.damage(&key, |bytes| bytes[at as usize] ^= 0x10);
            healed(&fork, &before, &format!("byte {at} of {size}"));
        }
    }
}

#[test]
fn a_run_of_bad_sectors_a_cut_end_and_appended_bytes_are_healed() {
    let (lab, _) = with_parity();
    let before = objects(&lab);
    let (id, size) = packs(&lab)
        .into_iter()
        .max_by_key(|pack| pack.1)
        .expect("one");
    // A shard is a sector here. Damage a tenth of them, rounded up.
    let shards = size.div_ceil(4096).div_ceil(10) as usize;
    assert!(shards >= 10, "{size}");

    type Damage<'a> = Box<dyn Fn(&mut Vec<u8>) + 'a>;
    let damages: [(&str, Damage<'_>); 5] = [
        (
            "zeroed",
            Box::new(|bytes| bytes[8192..8192 + shards * 4096].fill(0)),
        ),
        (
            "head zeroed",
            Box::new(|bytes| bytes[..shards * 4096].fill(0)),
        ),
        (
            "scattered",
            Box::new(|bytes| (0..shards).for_each(|n| bytes[n * 9 * 4096 + 7] ^= 1)),
        ),
        (
            "cut",
            Box::new(|bytes| bytes.truncate(bytes.len() - (shards - 1) * 4096)),
        ),
        ("longer", Box::new(|bytes| bytes.extend([7; 5000]))),
    ];

    for (what, change) in &damages {
        let fork = lab.fork();
        fork.store
            .damage(&ObjectKey::Pack(id), |bytes| change(bytes));
        healed(&fork, &before, what);
    }
}

#[test]
fn intact_frames_are_saved_if_damage_exceeds_the_percentage() {
    let (lab, stream) = with_parity();
    let (id, size) = packs(&lab)
        .into_iter()
        .max_by_key(|pack| pack.1)
        .expect("one");
    let shards = size.div_ceil(4096).div_ceil(10) as usize;
    lab.store.damage(&ObjectKey::Pack(id), |bytes| {
        bytes[8192..8192 + (shards + 1) * 4096].fill(0);
    });
    let report = repair(&lab.open()).expect("repaired");
    assert!(
        matches!(report.damaged[0].fate, PackFate::Lost),
        "{report:?}"
    );
    assert!(report.saved_chunks > 0);
    // The new packs have recovery data too.
    for (id, _) in packs(&lab) {
        assert!(lab.store.stat(&ObjectKey::Parity(id)).is_ok());
    }
    lab.backup(&lab.open(), &stream);
}

#[test]
fn damaged_recovery_data_is_written_again_without_a_loss() {
    let (lab, _) = with_parity();
    let before = objects(&lab);
    let id = packs(&lab)[0].0;
    let key = ObjectKey::Parity(id);
    let size = before[&key].len();
    for at in (0..24)
        .map(|n| n * size / 24)
        .chain([0, 8, 40, size - 60, size - 16, size - 1])
    {
        let fork = lab.fork();
        fork.store.damage(&key, |bytes| bytes[at] ^= 0x10);
        let found = check(&fork);
        assert_eq!(found.findings.len(), 1, "byte {at}: {found:#?}");
        assert_eq!(found.findings[0].kind, FindingKind::ParityDamaged);
        let report = repair(&fork.open()).expect("repaired");
        assert_eq!(
            (report.parity_written, report.damaged.len()),
            (1, 0),
            "byte {at}: {report:?}"
        );
        assert!(objects(&fork) == before, "byte {at}");
    }

    for change in ["gone", "cut", "empty"] {
        let fork = lab.fork();
        match change {
            "gone" => fork.store.delete(&key).expect("deleted"),
            "cut" => assert!(fork.store.damage(&key, |bytes| bytes.truncate(size / 2))),
            _ => assert!(fork.store.damage(&key, Vec::clear)),
        }
        assert_eq!(check(&fork).is_clean(), change == "gone");
        assert_eq!(repair(&fork.open()).expect("repaired").parity_written, 1);
        assert!(objects(&fork) == before, "{change}");
    }
}

/// A torn sector must not make recovery data useless: it has two copies of its head, and each shard
/// is checked separately.
#[test]
fn a_pack_is_rebuilt_from_partly_damaged_recovery_data() {
    let (lab, _) = with_parity();
    let before = objects(&lab);
    let (id, _) = packs(&lab)
        .into_iter()
        .max_by_key(|pack| pack.1)
        .expect("one");
    let size = before[&ObjectKey::Parity(id)].len();
    for at in [0, size / 2, size - 4096] {
        let fork = lab.fork();
        fork.store
            .damage(&ObjectKey::Parity(id), |bytes| bytes[at..at + 4096].fill(0));
        fork.store
            .damage(&ObjectKey::Pack(id), |bytes| bytes[50_000..60_000].fill(0));
        healed(&fork, &before, &format!("sector at {at}"));
    }
}

#[test]
fn another_packs_recovery_data_and_made_up_ones_heal_nothing() {
    let (lab, _) = with_parity();
    write(&lab.tree().join("z/late"), &noise(9, 200_000));
    lab.backup(&lab.open(), &[]);
    let all = packs(&lab);
    let first = all[0].0;
    let second = all[1].0;
    let other = lab
        .store
        .get(&ObjectKey::Parity(second), 1 << 30)
        .expect("there");
    lab.store
        .damage(&ObjectKey::Parity(first), |bytes| *bytes = other);
    assert_eq!(check(&lab).findings.len(), 1);
    lab.store
        .damage(&ObjectKey::Pack(first), |bytes| bytes[5000] ^= 1);
    let report = repair(&lab.open()).expect("repaired");
    assert_ne!(report.damaged[0].fate, PackFate::Healed, "{report:?}");
}

/// Puts bytes into quarantine under a pack's name.
fn put_into_quarantine(lab: &Lab, id: PackId, bytes: &[u8]) {
    lab.store
        .put(
            &ObjectKey::QuarantinedPack(id),
            ObjectBody::Bytes(bytes),
            PutMode::CreateOnly,
        )
        .expect("put");
}

/// Interrupts a heal after each write. The next repair must complete it. Returns the number of cuts.
fn cut_everywhere(lab: &Lab, before: &BTreeMap<ObjectKey, Vec<u8>>) -> u64 {
    let mut cuts = 0;
    for writes in 0.. {
        let fork = lab.fork();
        let faulty = Arc::new(FaultyStore::new(fork.store.clone()));
        let cache = tempfile::tempdir().expect("a directory");
        let repo = on_faulty(&fork, &faulty, &cache);
        faulty.die_after_writes(writes);

        let first = repair(&repo);
        drop(repo);
        if !faulty.is_dead() {
            first.expect("went through");
            break;
        }

        cuts += 1;
        repair(&fork.open()).expect("repaired");

        let mut now = objects(&fork);
        // The lease of the interrupted repair expires by itself. A copy that is left in quarantine
        // is also stored undamaged.
        now.retain(|key, _| !matches!(key, ObjectKey::Lease(_) | ObjectKey::QuarantinedPack(_)));
        assert!(now == *before, "cut after {writes} writes");
        assert_clean(&fork);
    }
    cuts
}

/// Interrupts a heal after each write, for example when the pack is missing and its damaged copy is
/// in quarantine.
#[test]
fn the_next_repair_completes_a_heal_interrupted_anywhere() {
    let (lab, _) = with_parity();
    let before = objects(&lab);
    let (id, size) = packs(&lab)[0];
    lab.store
        .damage(&ObjectKey::Pack(id), |bytes| bytes[size as usize / 2] ^= 1);

    let cuts = cut_everywhere(&lab, &before);
    assert!(cuts >= 5, "{cuts} cuts");
}

/// A pack was set aside, came back from another copy of the repository, and was damaged again; or
/// the other way round: the intact bytes were only in quarantine and were deleted there before they
/// were under the pack's name.
#[test]
fn the_only_intact_copy_in_quarantine_survives_a_cut_anywhere() {
    let (lab, _) = with_parity();
    let before = objects(&lab);
    let (id, size) = packs(&lab)[0];
    let bytes = before[&ObjectKey::Pack(id)].clone();
    // Recovery data does not suffice for this much damage.
    lab.store.damage(&ObjectKey::Pack(id), |bytes| {
        bytes[..size as usize / 2].fill(0);
    });
    put_into_quarantine(&lab, id, &bytes);
    healed(&lab.fork(), &before, "from quarantine");

    let cuts = cut_everywhere(&lab, &before);
    assert!(cuts >= 4, "{cuts} cuts");
}

/// Two damaged copies give the pack together, and neither does alone.
#[test]
fn two_damaged_copies_survive_a_cut_anywhere() {
    let (lab, _) = with_parity();
    let before = objects(&lab);
    let (id, size) = packs(&lab)
        .into_iter()
        .max_by_key(|pack| pack.1)
        .expect("one");
    let half = size as usize / 2;
    let mut bytes = before[&ObjectKey::Pack(id)].clone();
    lab.store
        .damage(&ObjectKey::Pack(id), |bytes| bytes[..half].fill(0));
    bytes[half..].fill(0);
    put_into_quarantine(&lab, id, &bytes);
    healed(&lab.fork(), &before, "from two copies");

    let cuts = cut_everywhere(&lab, &before);
    assert!(cuts >= 5, "{cuts} cuts");
}

#[test]
fn a_pack_that_lies_whole_in_quarantine_is_put_back() {
    let (lab, _) = with_parity();
    let before = objects(&lab);
    let id = packs(&lab)[0].0;
    let bytes = &before[&ObjectKey::Pack(id)];
    lab.store.delete(&ObjectKey::Pack(id)).expect("deleted");
    lab.store.delete(&ObjectKey::Parity(id)).expect("deleted");
    put_into_quarantine(&lab, id, bytes);
    healed(&lab, &before, "from quarantine");
}
