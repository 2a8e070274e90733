//! Brings the index up to date and reports its damage.

use super::notices::report_vanished;
use crate::Error;
use crate::advice::{Advice, RepairAdvice};
use crate::observe::{Observer, Problem, Severity};
use crate::repo::{RepoError, Repository};
use crate::task::{Cancel, Task};

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
        let segment = format!("index segment {}", id.short());
        let problem = Problem::new(Severity::Damage, segment, why);
        task.observer
            .problem(&problem.with_advice(Advice::Repair(RepairAdvice::RebuildIndex)));
    }
    if let Some(what) = repo.config_damage() {
        let problem = Problem::new(Severity::Damage, "config", what);
        task.observer
            .problem(&problem.with_advice(Advice::Repair(RepairAdvice::RepairConfig)));
    }
    Ok(())
}
