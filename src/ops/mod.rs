//! Operations: each command of a user as one function over a repository and the outside world.

mod absent;
pub mod backup;
mod choose;
pub mod copy;
pub mod diff;
pub mod forget;
pub mod list;
pub mod memory;
mod packs;
pub mod prune;
#[cfg(test)]
mod reading_tests;
pub mod repair;
pub mod restore;
pub mod status;
pub mod tag;
#[cfg(test)]
pub(crate) mod testing;
mod things;
#[cfg(test)]
mod vanished_tests;
pub mod verify;

pub use choose::choose;
pub(crate) use choose::newest;

use crate::Error;
use crate::observe::{Observer, Problem, Severity};
use crate::repo::{RepoError, Repository, StoredSnapshot};
use crate::task::{Cancel, Task};

/// Reports the snapshots that this machine remembers and the last listing lacked, each once. Must
/// be called after each listing of snapshots; [`sync`] does so.
pub fn report_vanished(repo: &Repository, observer: &dyn Observer) {
    for last in repo.newly_vanished() {
        let id = last.snapshot.short();
        let what = format!(
            "the last snapshot of '{}' on host {} that this machine saw is gone and was not forgotten: was the \
             repository reverted to an older state? If that is intended, 'icecore forget {id}' ends this warning",
            last.source, last.host
        );
        observer.problem(&Problem::new(
            Severity::Warning,
            format!("snapshot {id}"),
            what,
        ));
    }
}

/// Brings the index up to date and reports segments that cannot be read.
pub fn sync(repo: &Repository, observer: &dyn Observer) -> Result<(), Error> {
    sync_until(repo, Task::new(observer, &Cancel::new()))
}

/// Like [`sync`], but can be cancelled: the first sync of a large repository takes minutes.
pub fn sync_until(repo: &Repository, task: Task<'_>) -> Result<(), Error> {
    let mut go_on = || {
        if task.cancel.is_cancelled() {
            Err(RepoError::Stopped)
        } else {
            Ok(())
        }
    };
    let report = match repo.sync_while(&mut go_on) {
        Err(RepoError::Stopped) => return Err(Error::Interrupted),
        other => other?,
    };
    report_vanished(repo, task.observer);
    for (id, why) in report.damaged {
        let message = format!("{why}; 'icecore repair index' rebuilds its records from the packs");
        task.observer.problem(&Problem::new(
            Severity::Damage,
            format!("index segment {}", id.short()),
            message,
        ));
    }
    if let Some(what) = repo.config_damage() {
        task.observer
            .problem(&Problem::new(Severity::Damage, "config", what));
    }
    Ok(())
}

/// Returns an error if `/proc` is not mounted: paths that are only reachable through it would be
/// missing.
fn check_proc(action: &str) -> Result<(), crate::Error> {
    crate::sys::check_proc().map_err(|err| crate::Error::Refused {
        why: format!("cannot {action} without /proc/self/fd: {err}"),
        hint: "mount it: mount -t proc proc /proc",
    })
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
