//! A listing of snapshots and reports about it: snapshots that cannot be read, those that are
//! missing, and those whose times a copy has lost.

use crate::advice::{Advice, SnapshotAdvice};
use crate::observe::{Observer, Problem, Severity};
use crate::repo::{RepoError, Repository, StoredSnapshot};
use crate::store::ObjectKey;

/// Returns all snapshots that can be read. Reports the others as damage.
pub(crate) fn readable_snapshots(
    repo: &Repository,
    observer: &dyn Observer,
) -> Result<Vec<StoredSnapshot>, RepoError> {
    repo.snapshots(&mut |id, err| {
        observer.problem(&Problem::new(
            Severity::Damage,
            ObjectKey::Snapshot(id),
            err,
        ));
    })
}

/// Reports the snapshots that this machine remembers and the last listing lacked, each once. Must
/// be called after each listing of snapshots; [`sync`](super::sync) does so.
pub fn report_vanished(repo: &Repository, observer: &dyn Observer) {
    for last in repo.newly_vanished() {
        let id = last.snapshot.short();
        let what = format!(
            "the last snapshot of '{}' on host {} that this machine saw is gone and was not forgotten: was the \
             repository reverted to an older state?",
            last.source, last.host
        );
        let problem = Problem::new(Severity::Warning, format!("snapshot {id}"), what);
        observer.problem(
            &problem.with_advice(Advice::Snapshot(SnapshotAdvice::ForgetVanished {
                id: id.to_string(),
            })),
        );
    }
}

/// Reports in one note how many snapshots have an object whose store time differs from the sealed
/// time. Only the sweep's grace depends on store times.
pub(crate) fn report_times(repo: &Repository, all: &[StoredSnapshot], observer: &dyn Observer) {
    let times = repo.lease_times();
    let what = match all.iter().filter(|one| one.times_differ(&times)).count() {
        0 => return,
        1 => "the stored and the sealed time of 1 snapshot differ: it".to_owned(),
        count => format!("the stored and the sealed times of {count} snapshots differ: they"),
    };
    let message = format!(
        "{what} landed after the writer's lease had ended, or the repository was copied without file times; \
         the sealed times are used"
    );
    observer.problem(&Problem::new(Severity::Note, "snapshots", message));
}
