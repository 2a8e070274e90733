//! Reports a problem that makes the capture of a source suspect.

use crate::advice::{Advice, BackupAdvice};
use crate::observe::{Problem, Severity, Subject};

/// Returns the problem, with the consequence and the advice to accept the source.
pub(super) fn suspect_problem(
    severity: Severity,
    source: &str,
    subject: impl Into<Subject>,
    why: &str,
) -> Problem {
    let message = format!("{why}; the snapshot does not count until it is accepted");
    Problem::new(severity, subject, message).with_advice(Advice::Backup(BackupAdvice::Accept {
        source: source.to_owned(),
    }))
}
