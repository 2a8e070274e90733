//! The data level: packs are chosen by age and read by several workers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::damage::{FoundDamage, PackDamage};
use super::objects::ListedObjects;
use super::options::VerifyOptions;
use super::pack::{PackCheck, check_pack};
use super::report::FindingKind;
use crate::Error;
use crate::advice::{Advice, RepairAdvice};
use crate::index::PackRow;
use crate::observe::{Counter, Observer, ProgressUnit};
use crate::repo::{FirstError, Repository};
use crate::store::ObjectKey;
use crate::sys::now;
use crate::task::Task;
use crate::types::{PackId, Timestamp};

/// Number of passed packs that are recorded together. A crash loses fewer than this many records.
const REMEMBER_EVERY: usize = 16;

/// Combined results of the workers.
#[derive(Default)]
struct DataProgress {
    /// With the index in the plan, for sorting: workers finish in any order.
    checks: Vec<(usize, PackCheck)>,
    passed: Vec<(PackId, Timestamp)>,
}

/// Reads the packs that are due and adds their damage to the report and to `damage`.
pub(super) fn read_packs(
    repo: &Repository,
    options: &VerifyOptions,
    workers: usize,
    objects: &mut ListedObjects,
    damage: &mut FoundDamage,
    task: Task<'_>,
) -> Result<(), Error> {
    let plan = choose(repo, options, &objects.packs);
    let checks = check_all(
        repo,
        &plan,
        &objects.digests,
        options.max_time,
        workers,
        task,
    )?;

    for check in checks {
        objects.report.packs_read += 1;
        objects.report.bytes_read += check.bytes;
        objects.report.plain_bytes += check.plain;
        for (kind, what) in check.findings {
            objects.report.find(kind, ObjectKey::Pack(check.id), what);
        }

        if let Some(what) = check.parity {
            objects.report.find_with(
                FindingKind::ParityDamaged,
                ObjectKey::Parity(check.id),
                what,
                Some(Advice::Repair(RepairAdvice::WriteParity)),
            );
        }
        damage.add(check.id, check.damage);
    }
    Ok(())
}

/// Reads these packs (given with their sizes) to the end and returns their results in the same
/// order. Packs without damage are remembered as verified.
///
/// Starts no further pack after `max_time`, but always reads one.
pub(in crate::ops) fn check_all(
    repo: &Repository,
    plan: &[(PackRow, u64)],
    digests: &HashMap<PackId, [u8; 32]>,
    max_time: Option<Duration>,
    workers: usize,
    task: Task<'_>,
) -> Result<Vec<PackCheck>, Error> {
    let began = Instant::now();
    task.observer.expect(
        plan.iter().map(|&(_, size)| size).sum(),
        ProgressUnit::Bytes,
    );

    let next = AtomicUsize::new(0);
    let done = Mutex::new(DataProgress::default());
    let failed = FirstError::default();
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some((pack, size)) = plan.get(n) else {
                return;
            };
            let is_late = n > 0 && max_time.is_some_and(|limit| began.elapsed() >= limit);
            if is_late || task.cancel.is_cancelled() || failed.is_set() {
                return;
            }
            match check_pack(repo, pack, *size, digests.get(&pack.id), task) {
                Ok(check) => note(repo, &done, n, check, task.observer),
                Err(err) => failed.set(err),
            }
        }
    };

    std::thread::scope(|scope| {
        let threads = workers.min(plan.len());
        for n in 1..threads {
            // If a thread cannot be started, there is one worker fewer.
            let _ = std::thread::Builder::new()
                .name(format!("verify-{n}"))
                .spawn_scoped(scope, work);
        }
        work();
    });

    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    repo.memory().set_verified(&done.passed);

    if let Some(err) = failed.take() {
        return Err(err);
    }
    task.check()?;
    done.checks.sort_by_key(|(n, _)| *n);
    Ok(done.checks.into_iter().map(|(_, check)| check).collect())
}

fn note(
    repo: &Repository,
    done: &Mutex<DataProgress>,
    n: usize,
    check: PackCheck,
    observer: &dyn Observer,
) {
    observer.add(Counter::Packs, 1);
    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
    if check.findings.is_empty() && check.damage == PackDamage::default() {
        done.passed.push((check.id, now()));
        if done.passed.len() >= REMEMBER_EVERY {
            repo.memory()
                .set_verified(&std::mem::take(&mut done.passed));
        }
    }
    done.checks.push((n, check));
}

/// Returns the packs to read in this run with their sizes, until the sample or the budget is
/// reached. Packs that were never read come first, then by the time of reading, then by id.
fn choose(
    repo: &Repository,
    options: &VerifyOptions,
    packs: &[(PackRow, u64)],
) -> Vec<(PackRow, u64)> {
    let verified = repo.memory().verified_all();
    let mut plan = packs.to_vec();
    plan.sort_by_key(|(pack, _)| (verified.get(&pack.id).copied(), pack.id));

    let total: u64 = plan.iter().map(|&(_, size)| size).sum();
    // Rounded up, so that twenty runs of a twentieth cover everything.
    let sample = options
        .sample
        .map(|share| (total as f64 * share).ceil() as u64);

    let mut taken = 0;
    let end = plan.iter().position(|&(_, size)| {
        let is_full = sample.is_some_and(|sample| taken >= sample)
            || taken > 0 && options.max_bytes.is_some_and(|max| taken + size > max);
        taken += size;
        is_full
    });

    plan.truncate(end.unwrap_or(plan.len()));
    plan
}

/// Adds the age of the packs' last reading to the report, and forgets packs that no longer exist.
pub(super) fn report_age(repo: &Repository, objects: &mut ListedObjects) {
    let mut verified = repo.memory().verified_all();
    let mut oldest: Option<Timestamp> = None;
    for (pack, _) in &objects.packs {
        match verified.remove(&pack.id) {
            Some(time) => oldest = Some(oldest.map_or(time, |oldest| oldest.min(time))),
            None => objects.report.never_verified += 1,
        }
    }
    objects.report.oldest_unverified = oldest.filter(|_| objects.report.never_verified == 0);
    let is_known = |id: &PackId| matches!(repo.index().pack(id), Ok(Some(_)) | Err(_));
    let gone: Vec<PackId> = verified.into_keys().filter(|id| !is_known(id)).collect();
    if !gone.is_empty() {
        repo.memory().forget_packs(&gone);
    }
}
