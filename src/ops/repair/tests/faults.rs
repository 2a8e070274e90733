//! A fault at each call of the repairs in turn. With a healthy medium again, everything restores.

use super::unreadable::contents_by_first;
use super::*;
use crate::store::{Fault, FaultEffect, InjectedError, Store, StoreOperation};

/// Possible faults of a call, by operation.
fn effects(operation: StoreOperation) -> &'static [FaultEffect] {
    match operation {
        StoreOperation::Get | StoreOperation::ReadAt => &[
            FaultEffect::ErrorBefore(InjectedError::Medium),
            FaultEffect::ErrorBefore(InjectedError::TimedOut),
            FaultEffect::Torn(3),
            FaultEffect::Short(3),
        ],
        StoreOperation::Stat | StoreOperation::List => {
            &[FaultEffect::ErrorBefore(InjectedError::Medium)]
        }
        StoreOperation::Put
        | StoreOperation::Delete
        | StoreOperation::Rename
        | StoreOperation::Spool => &[
            FaultEffect::ErrorBefore(InjectedError::Io),
            FaultEffect::ErrorAfter(InjectedError::TimedOut),
        ],
    }
}

const OPERATIONS: [StoreOperation; 8] = [
    StoreOperation::Get,
    StoreOperation::ReadAt,
    StoreOperation::Stat,
    StoreOperation::List,
    StoreOperation::Put,
    StoreOperation::Delete,
    StoreOperation::Rename,
    StoreOperation::Spool,
];

/// Repairs a fork of `lab` with one fault. Returns true if there were enough calls to trigger it.
fn struck(lab: &Lab, fork: &Lab, fault: Fault, renames: bool) -> bool {
    let faulty = FaultyStore::new(fork.store.clone());
    let faulty = Arc::new(if renames {
        faulty
    } else {
        faulty.without_rename()
    });
    assert_eq!(lab.store.objects(), fork.store.objects());
    let cache = tempfile::tempdir().expect("a directory");
    let repo = on_faulty(fork, &faulty, &cache);
    faulty.plan(fault);
    // Errors are ignored: a user also runs the next repair after one fails.
    let observer = Recording::default();
    let cancel = Cancel::new();
    let _ = repair_config(&repo, &cancel);
    let _ = repair(&repo);
    let _ = repair_snapshots(
        &repo,
        &RepairSnapshotsOptions::default(),
        Task::new(&observer, &cancel),
    );
    faulty.all_fired()
}

/// Sweeps over all calls. `heal` restores the contents of `before` in a repaired repository.
fn sweep(
    lab: &Lab,
    before: &BTreeMap<SnapshotId, Content>,
    renames: bool,
    heal: &dyn Fn(&Lab),
) -> usize {
    let mut positions = 0;
    for operation in OPERATIONS {
        for &effect in effects(operation) {
            for nth in (1..).step_by(step()) {
                let fork = lab.fork();
                let fault = Fault {
                    operation,
                    kind: None,
                    nth,
                    effect,
                };
                if !struck(lab, &fork, fault, renames) {
                    break;
                }
                positions += 1;

                run_repairs(&fork.open()).unwrap_or_else(|err| panic!("{fault:?}: {err}"));
                heal(&fork);

                let now = contents_by_first(&fork);
                assert!(now.keys().eq(before.keys()), "{fault:?}: the snapshots");
                for (id, content) in before {
                    assert!(
                        now[id] == *content,
                        "{fault:?}, renames {renames}: snapshot {}",
                        id.short()
                    );
                }
            }
        }
    }
    positions
}

/// Step between the calls that are tried: `ICECORE_FAULT_STEP`; 1 tries every call.
fn step() -> usize {
    std::env::var("ICECORE_FAULT_STEP")
        .ok()
        .and_then(|step| step.parse().ok())
        .unwrap_or(7)
}

fn small() -> (Lab, Vec<u8>) {
    let lab = Lab::new();
    write(&lab.tree().join("a"), &noise(1, 3000));
    write(&lab.tree().join("b/c"), &noise(2, 40_000));
    let stream = noise(3, 9000);
    lab.backup(&lab.open(), &stream);
    (lab, stream)
}

#[test]
fn a_fault_at_each_call_of_a_repair_of_a_whole_repository_costs_nothing() {
    let (lab, _) = small();
    let before = contents_by_first(&lab);
    assert!(sweep(&lab, &before, true, &|_| {}) > 15);
}

#[test]
fn a_fault_at_each_call_of_a_repair_of_damage_costs_no_more_than_the_damage() {
    // A damaged pack whose content the source still has: the pack is moved to quarantine, the
    // snapshot is replaced by a partial one, and the next backup heals it. And a damaged object in
    // `snapshots/`, which is moved to quarantine too.
    let (lab, stream) = small();
    let before = contents_by_first(&lab);
    let (id, _) = packs(&lab)
        .into_iter()
        .max_by_key(|pack| pack.1)
        .expect("one");
    lab.store
        .damage(&ObjectKey::Pack(id), |bytes| bytes[100] ^= 1);
    let junk = ObjectKey::Snapshot(SnapshotId::new([0xab; 32]));
    lab.store
        .put(
            &junk,
            crate::store::ObjectBody::Bytes(&noise(9, 300)),
            crate::store::PutMode::CreateOnly,
        )
        .expect("put");

    let heal = |fork: &Lab| {
        // The source is the same directory.
        let repo = fork.open();
        let healer = lab.backup(&repo, &stream);
        run_repairs(&repo).expect("repaired");
        let lease = crate::ops::testing::lease(&repo);
        repo.forget_snapshot(&lease, &healer).expect("forgotten");
    };
    for renames in [true, false] {
        assert!(sweep(&lab, &before, renames, &heal) > 15);
    }
}
