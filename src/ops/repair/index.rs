//! Repair of the index: it is loaded again, and packs that no segment lists are added.

use super::quarantine::{SetAside, set_aside};
use crate::Error;
use crate::format::{LeaseKind, ObjectKind, SEGMENT_BYTES_MAX};
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::repo::{Lease, PackVerdict, RebuiltIndex, RepoError, Repository};
use crate::store::ObjectKey;
use crate::task::Task;
use crate::types::SegmentId;

/// Deletes the local index, loads every segment, and publishes new segments for packs that no
/// segment lists.
///
/// No object is deleted. Packs whose directory cannot be read, and segments that cannot be read,
/// are reported to the observer as damage. Damaged and foreign segments are moved to quarantine
/// afterwards. A crash leaves some of the new segments; the next repair continues after them.
///
/// # Errors
/// [`Error::Interrupted`] if cancelled.
pub fn repair_index(repo: &Repository, task: Task<'_>) -> Result<RebuiltIndex, Error> {
    repo.check_writable()?;
    let lease = Lease::take(repo, LeaseKind::Repair)?;

    task.observer.phase(&Phase::Index);
    let mut go_on = || {
        if task.cancel.is_cancelled() {
            Err(RepoError::Stopped)
        } else {
            Ok(())
        }
    };
    let rebuilt = match repo.rebuild_index(&lease, &mut go_on) {
        Err(RepoError::Stopped) => return Err(Error::Interrupted),
        other => other?,
    };
    report_unreadable(&rebuilt, task.observer);
    set_segments_aside(repo, &lease, &rebuilt, task)?;
    drop(lease);
    Ok(rebuilt)
}

/// Moves damaged and foreign segments to quarantine.
///
/// The new segments list the packs by then. Only clients that loaded such a segment earlier know
/// that it condemned a pack, so no other client relies on it.
fn set_segments_aside(
    repo: &Repository,
    lease: &Lease,
    rebuilt: &RebuiltIndex,
    task: Task<'_>,
) -> Result<(), Error> {
    for (id, _) in &rebuilt.damaged_segments {
        let key = ObjectKey::Segment(*id);
        let PackVerdict::Broken { hash, .. } =
            repo.examine(&key, ObjectKind::Segment, SEGMENT_BYTES_MAX)?
        else {
            continue;
        };
        lease.check()?;
        let to = ObjectKey::QuarantinedSegment(hash.map_or(*id, SegmentId::from));
        if set_aside(repo, &key, &to, task.cancel)? == SetAside::Done {
            task.observer.problem(&Problem::new(
                Severity::Note,
                key,
                format!("it was set aside as {to}"),
            ));
        }
    }
    Ok(())
}

/// Reports packs and segments that cannot be read as damage.
pub(super) fn report_unreadable(rebuilt: &RebuiltIndex, observer: &dyn Observer) {
    for (id, why) in &rebuilt.unreadable {
        observer.problem(&Problem::new(Severity::Damage, ObjectKey::Pack(*id), why));
    }
    for (id, why) in &rebuilt.unreadable_now {
        let what = format!("cannot be read now: {why}");
        observer.problem(&Problem::new(Severity::Damage, ObjectKey::Pack(*id), what));
    }
    for (id, why) in &rebuilt.damaged_segments {
        observer.problem(&Problem::new(
            Severity::Damage,
            ObjectKey::Segment(*id),
            why,
        ));
    }
}
