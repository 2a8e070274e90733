//! Acts on the decision about one path.

use std::sync::Arc;

use rustix::io::Errno;

use super::candidate::{PathCandidate, TimedStat};
use super::decide::{CaptureAction, CaptureDecision, DirectoryOutside, ObservedPath, PathDecision};
use super::observed::{ObservedName, open_listed, see_many};
use super::state::{EnteredDirectory, Scan, ScanStep};
use super::walk_error::WalkError;
use crate::Error;
use crate::observe::{Counter, Problem, Severity, Subject};
use crate::ops::backup::reader::job::FileJob;
use crate::ops::backup::reason::reason;
use crate::ops::backup::run::sink::DirectoryNode;
use crate::ops::backup::shared::watch::was_captured;
use crate::repo::RepoError;
use crate::source::{ListedName, SourceDir};
use crate::types::{Entry, MissingNames, RelPath};

impl Scan<'_, '_> {
    /// Visits new names of an immutable source, whose stats are taken together.
    pub(super) fn visit_new(
        &mut self,
        directory: &SourceDir,
        path: &RelPath,
        names: Vec<ListedName>,
        node: &Arc<DirectoryNode>,
    ) -> Result<(), WalkError> {
        for (name, seen) in names.iter().zip(see_many(directory, &names)) {
            let path = path.join(&name.name).map_err(|err| {
                WalkError::Other(Error::Source {
                    name: self.shared.source.into(),
                    why: err.to_string(),
                })
            })?;
            let candidate = PathCandidate {
                directory,
                name: &name.name,
                path,
                previous: None,
                parent: Some(node),
            };
            if let Some(ScanStep::Enter(entered)) = self.visit(candidate, seen)? {
                // Listed as a file, now a directory: the next backup walks it.
                node.revisit();
                self.fail(
                    &entered.path,
                    entered.previous.as_ref(),
                    "became a directory while it was scanned",
                )?;
            }
        }
        Ok(())
    }

    /// Handles a path after a look at it: returns a directory to enter, and deals with anything
    /// else.
    pub(super) fn visit(
        &mut self,
        candidate: PathCandidate<'_>,
        observed: ObservedName,
    ) -> Result<Option<ScanStep>, WalkError> {
        let clock = observed.clock;
        let seen = match observed.stat {
            Ok(Some(stat)) => TimedStat { stat, clock },
            Ok(None) => {
                self.vanished(&candidate)?;
                return Ok(None);
            }
            Err(err) => {
                candidate.revisit_parent();
                self.carry_below(&candidate.path, candidate.previous.as_ref());
                self.fail_candidate(&candidate, &reason("stat", &err))?;
                return Ok(None);
            }
        };

        let observed = ObservedPath {
            path: &candidate.path,
            name: candidate.name,
            seen,
            previous: candidate.previous.as_ref(),
        };
        match self.rules.decide(&observed, &self.windows) {
            PathDecision::Enter => return self.open_directory(candidate, seen),
            PathDecision::LeaveOut(why) => self.leave_out(&candidate, seen, why)?,
            PathDecision::Miss(needed) => {
                candidate.revisit_parent();
                let previous = candidate.previous.as_ref();
                self.miss(&candidate.path, previous, &needed, Errno::NOTDIR)?;
            }
            PathDecision::Capture(decision) => self.capture(candidate, seen, decision)?,
        }
        Ok(None)
    }

    fn observe_entry(&self) {
        self.shared.task.observer.add(Counter::Entries, 1);
    }

    /// Opens a directory to be walked.
    fn open_directory(
        &mut self,
        candidate: PathCandidate<'_>,
        seen: TimedStat,
    ) -> Result<Option<ScanStep>, WalkError> {
        self.alarm_if_replaced_by_directory(&candidate);

        let opened = open_listed(candidate.directory, candidate.name);
        match opened.and_then(|child| {
            child
                .map(|child| Ok((child.stat_self()?, child)))
                .transpose()
        }) {
            // It may have been swapped since the stat: only the opened directory counts.
            Ok(Some((stat, directory))) if !self.rules.filter.is_never(stat.id()) => {
                Ok(Some(ScanStep::Enter(Box::new(EnteredDirectory {
                    path: candidate.path,
                    directory,
                    seen: TimedStat {
                        stat,
                        clock: seen.clock,
                    },
                    previous: candidate.previous,
                }))))
            }
            Ok(Some(_)) => {
                candidate.mark_missing_in_parent(MissingNames::Unseen);
                self.remove(candidate.previous.as_ref())?;
                Ok(None)
            }
            Ok(None) => {
                self.vanished(&candidate)?;
                Ok(None)
            }
            Err(err) => {
                candidate.revisit_parent();
                self.observe_entry();
                self.carry_below(&candidate.path, candidate.previous.as_ref());
                self.fail_candidate(&candidate, &reason("open the directory", &err))?;
                Ok(None)
            }
        }
    }

    /// Leaves out a directory that is not part of the snapshot.
    fn leave_out(
        &mut self,
        candidate: &PathCandidate<'_>,
        seen: TimedStat,
        why: DirectoryOutside,
    ) -> Result<(), WalkError> {
        self.alarm_if_replaced_by_directory(candidate);

        if why == DirectoryOutside::Own {
            self.report_beside_repository(candidate, seen);
        }
        candidate.mark_missing_in_parent(why.missing_names());
        self.remove(candidate.previous.as_ref())
    }

    /// Raises the alarm if a directory is where the previous snapshot has something else.
    fn alarm_if_replaced_by_directory(&self, candidate: &PathCandidate<'_>) {
        if candidate
            .previous
            .as_ref()
            .is_some_and(|previous| !previous.is_directory() && was_captured(previous))
        {
            self.shared.alarm(&candidate.path, "changed");
        }
    }

    /// Warns about foreign files in the repository's directory, which is left out as a whole.
    fn report_beside_repository(&self, candidate: &PathCandidate<'_>, seen: TimedStat) {
        let PathCandidate {
            directory, name, ..
        } = candidate;
        let found = match self.inputs.beside_repository(directory, name, &seen.stat) {
            Ok(Some((count, first))) => {
                let first = String::from_utf8_lossy(&first).into_owned();
                let names = if count == 1 {
                    "one name".to_owned()
                } else {
                    format!("{count} names")
                };
                format!("with {names} not part of it, such as '{first}': move them elsewhere")
            }
            Ok(None) => return,
            Err(err) => format!(
                "and its other contents are unknown: {}",
                reason("list it", &err)
            ),
        };

        let subject = Subject::captured(self.shared.source, &candidate.path);
        let message = format!("it is the repository's directory, which is left out, {found}");
        self.shared
            .task
            .observer
            .problem(&Problem::new(Severity::Warning, subject, message));
    }

    /// Handles a path that is not a directory.
    fn capture(
        &mut self,
        candidate: PathCandidate<'_>,
        seen: TimedStat,
        decision: CaptureDecision,
    ) -> Result<(), WalkError> {
        // A directory that became something else: the new entry covers its contents.
        if let Some(previous) = &candidate.previous {
            self.hide_below(previous)?;
        }

        self.observe_entry();
        if decision.revisit {
            candidate.revisit_parent();
        }

        match decision.action {
            CaptureAction::Exclude => {
                candidate.mark_missing_in_parent(MissingNames::Excluded);
                self.remove(candidate.previous.as_ref())
            }
            CaptureAction::Fail(why) => {
                candidate.revisit_parent();
                self.fail_candidate(&candidate, why)
            }
            CaptureAction::Unchanged { revisit } => {
                if let Some(previous) = &candidate.previous
                    && self.shared.lost.is_named_by(previous)?
                {
                    return self.queue_file(candidate, seen, decision.is_racy);
                }
                self.shared
                    .count(&self.shared.counts.files_unchanged, Counter::FilesUnchanged);
                if revisit {
                    candidate.revisit_parent();
                }
                Ok(())
            }
            CaptureAction::Read => self.queue_file(candidate, seen, decision.is_racy),
            CaptureAction::Record => self.record(candidate, &seen.stat, decision.is_racy),
        }
    }

    /// Adds a file to the next batch for the reader threads.
    fn queue_file(
        &mut self,
        candidate: PathCandidate<'_>,
        TimedStat { stat, .. }: TimedStat,
        is_racy: bool,
    ) -> Result<(), WalkError> {
        let is_due = self.batch.push(FileJob {
            directory: candidate.directory.clone(),
            name: candidate.name.to_vec(),
            path: candidate.path,
            stat,
            is_racy,
            window_seconds: self.windows.seconds(&stat),
            previous: candidate.previous.map(Box::new),
            node: candidate.parent.cloned(),
        });
        if is_due { self.send_batch() } else { Ok(()) }
    }

    pub(super) fn send_batch(&mut self) -> Result<(), WalkError> {
        let batch = std::mem::take(&mut self.batch).jobs;
        if batch.is_empty() {
            return Ok(());
        }
        // The readers exit early only if one of them failed. Its error is the one to report.
        self.jobs
            .send(batch)
            .map_err(|_| WalkError::Other(RepoError::Stopped.into()))
    }

    /// Handles a listed name that is gone, as a second look confirmed. It may have been renamed to
    /// a name that the listing did not show, so the directory no longer accounts for all its
    /// missing names.
    pub(super) fn vanished(&mut self, candidate: &PathCandidate<'_>) -> Result<(), WalkError> {
        candidate.mark_missing_in_parent(MissingNames::Unseen);
        self.shared
            .count(&self.shared.counts.vanished, Counter::Vanished);
        self.remove(candidate.previous.as_ref())
    }

    /// Skips the previous entries below a path whose own entry was taken.
    fn carry_below(&mut self, path: &RelPath, previous: Option<&Entry>) {
        if let (Some(cursor), true) = (
            &mut self.previous,
            previous.is_some_and(Entry::is_directory),
        ) {
            cursor.skip_below(path);
        }
    }

    pub(super) fn remove(&mut self, previous: Option<&Entry>) -> Result<(), WalkError> {
        let Some(previous) = previous else {
            return Ok(());
        };
        self.hide_below(previous)?;
        Ok(self.shared.remove(previous)?)
    }

    /// Takes the previous entries below a path that is gone or is no longer a directory, and counts
    /// them.
    pub(super) fn hide_below(&mut self, previous: &Entry) -> Result<(), WalkError> {
        match &mut self.previous {
            Some(cursor) => cursor.pass_below(previous, |entry| self.shared.hide(entry)),
            None => Ok(()),
        }
    }

    pub(super) fn fail_candidate(
        &self,
        candidate: &PathCandidate<'_>,
        why: &str,
    ) -> Result<(), WalkError> {
        self.fail(&candidate.path, candidate.previous.as_ref(), why)
    }

    pub(super) fn fail(
        &self,
        path: &RelPath,
        previous: Option<&Entry>,
        why: &str,
    ) -> Result<(), WalkError> {
        Ok(self.shared.fail(path, previous, why)?)
    }
}
