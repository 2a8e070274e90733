//! Reports names that `--delete` leaves alone, because the snapshot does not account for them.

use super::report::RestoreTally;
use crate::advice::{Advice, RestoreAdvice};
use crate::format::{SourceKind, SourceRecord};
use crate::observe::{Observer, Problem, Severity, Subject};
use crate::types::{EntryKind, MissingNames, RelPath};

/// This many directories are reported one by one.
const NAMED_MAX: u64 = 8;

/// Why a name that the snapshot lacks may have existed when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum KeptReason {
    /// The backup's rules left out names of its directory.
    Excluded = 1,
    /// The backup did not see all names of its directory.
    Unseen = 2,
    /// The snapshot shows an older state of its directory, or of one above it.
    Stale = 3,
    /// The source accounts for no missing name at all.
    Source = 4,
    /// Something is mounted on its directory now and was not during the backup.
    Mounted = 5,
}

impl KeptReason {
    /// Returns the reason's number in the sorter's records.
    const fn number(self) -> u8 {
        // The enum states its numbers, all of which are a `u8`.
        self as u8
    }
}

impl From<MissingNames> for KeptReason {
    fn from(why: MissingNames) -> Self {
        match why {
            MissingNames::Excluded => Self::Excluded,
            MissingNames::Unseen => Self::Unseen,
        }
    }
}

/// Encodes, for the sorter, whether a name found in a restored directory may be deleted, and
/// whether it is a directory.
pub(super) fn found_value(doubt: Option<KeptReason>, kind: Option<EntryKind>) -> [u8; 2] {
    [
        doubt.map_or(0, KeptReason::number),
        u8::from(kind == Some(EntryKind::Directory)),
    ]
}

/// Decodes [`found_value`]. An unknown value counts as a doubt.
pub(super) fn read_found(value: &[u8]) -> (Option<KeptReason>, bool) {
    let doubt = match value.first() {
        Some(0) => None,
        Some(1) => Some(KeptReason::Excluded),
        Some(2) => Some(KeptReason::Unseen),
        Some(3) => Some(KeptReason::Stale),
        Some(5) => Some(KeptReason::Mounted),
        _ => Some(KeptReason::Source),
    };
    (doubt, value.get(1) == Some(&1))
}

/// Returns why a source as a whole accounts for no missing name. `None` if its directories answer
/// that one by one.
pub(super) fn blindness(
    is_checkpoint: bool,
    is_repaired: bool,
    source: &SourceRecord,
) -> Option<&'static str> {
    match source.kind {
        _ if is_checkpoint => Some("the snapshot is a checkpoint of a backup that did not finish"),
        _ if is_repaired => Some("the snapshot lacks data since a repair"),
        SourceKind::Tree { .. } if source.counts.partial.is_none() => Some(
            "the snapshot does not record which directories are complete: it is from an older icecore, or the source could not be read",
        ),
        _ => None,
    }
}

/// Names that are left alone, reported per directory. They are added in path order.
pub(super) struct KeptDirectories<'a> {
    tally: &'a RestoreTally<'a>,
    observer: &'a dyn Observer,
    source: &'a str,
    /// Why the source accounts for no missing name.
    blind: Option<&'static str>,
    /// The current directory and those above it that have such names: number and reason.
    open: Vec<(RelPath, u64, KeptReason)>,
    named: u64,
    unnamed_directories: u64,
    unnamed_names: u64,
    /// Names of a source that accounts for no missing name.
    unknown_names: u64,
}

impl<'a> KeptDirectories<'a> {
    pub fn new(
        tally: &'a RestoreTally<'a>,
        observer: &'a dyn Observer,
        source: &'a str,
        blind: Option<&'static str>,
    ) -> Self {
        let named = 0;
        let unnamed_directories = 0;
        let unnamed_names = 0;
        let unknown_names = 0;
        Self {
            tally,
            observer,
            source,
            blind,
            open: Vec::new(),
            named,
            unnamed_directories,
            unnamed_names,
            unknown_names,
        }
    }

    /// Records a name that is left alone.
    pub fn add(&mut self, path: &RelPath, doubt: KeptReason) {
        self.tally.not_deleted();
        if self.observer.wants_detail() {
            self.observer.detail("not deleted", &Subject::path(path));
        }
        if doubt == KeptReason::Source {
            self.unknown_names += 1;
            return;
        }
        let directory = path.parent().unwrap_or_default();
        self.leave(Some(&directory));
        match self.open.last_mut() {
            Some((open, count, _)) if *open == directory => *count += 1,
            _ => self.open.push((directory, 1, doubt)),
        }
    }

    /// Reports the directories that do not contain `next`, and leaves them.
    fn leave(&mut self, next: Option<&RelPath>) {
        let is_left = |(open, ..): &mut (RelPath, u64, KeptReason)| {
            next.is_none_or(|next| next != open && !next.is_below(open))
        };
        while let Some((directory, count, doubt)) = self.open.pop_if(is_left) {
            self.report_directory(&directory, count, doubt);
        }
    }

    fn report_directory(&mut self, directory: &RelPath, count: u64, doubt: KeptReason) {
        if self.named == NAMED_MAX {
            self.unnamed_directories += 1;
            self.unnamed_names += count;
            return;
        }
        self.named += 1;
        let why = match doubt {
            KeptReason::Excluded => "the rules of the backup excluded names in this directory",
            KeptReason::Unseen => "the backup did not see everything in this directory",
            KeptReason::Mounted => {
                "something is mounted on this directory that was not mounted during the backup"
            }
            KeptReason::Stale | KeptReason::Source => "the backup could not read this directory",
        };
        let subject = Subject::within(self.source, directory);
        let message = format!(
            "{} not in the snapshot and not deleted: {why}",
            names(count)
        );
        let mut problem = Problem::new(Severity::Note, subject, message);
        if doubt == KeptReason::Excluded {
            problem = problem.with_advice(Advice::Restore(RestoreAdvice::DeleteExcluded));
        }
        self.observer.problem(&problem);
    }

    /// Reports the remaining directories, and a summary of those beyond the limit.
    pub fn finish(mut self) {
        self.leave(None);
        if self.unnamed_directories > 0 {
            let message = format!(
                "the same in {} more directories: {} not deleted",
                self.unnamed_directories,
                names(self.unnamed_names)
            );
            self.observer
                .problem(&Problem::new(Severity::Note, self.source, message));
        }
        if let (Some(why), true) = (self.blind, self.unknown_names > 0) {
            let message = format!(
                "{} not in the snapshot and not deleted: {why}",
                names(self.unknown_names)
            );
            self.observer
                .problem(&Problem::new(Severity::Missing, self.source, message));
        }
    }
}

fn names(count: u64) -> String {
    if count == 1 {
        "1 name is".to_owned()
    } else {
        format!("{count} names are")
    }
}
