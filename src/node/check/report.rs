//! What a check found: counts, and each finding as it comes.

use std::fmt;

use super::EachFinding;
use super::shown;
use super::stored::{Fault, Held, Stored};
use crate::node::NodeError;
use crate::node::dump::{PinKind, Pins, RowCounts};

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// Rows of the dump.
    pub rows: RowCounts,
    /// Files that must be there: something other than a grace period pins them.
    pub pinned: u64,
    /// Files among them that are missing in one place or both.
    pub missing: u64,
    pub local: PlaceReport,
    pub ipfs: PlaceReport,
}

impl CheckReport {
    /// True if no pinned file is missing.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Stored files that are not what their name or row says.
    pub fn mismatches(&self) -> u64 {
        self.local.mismatches() + self.ipfs.mismatches()
    }
}

/// Local storage, or kubo's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlaceReport {
    /// Files named by a hash that lie there.
    pub stored: u64,
    /// Pinned files that must lie there.
    pub wanted: u64,
    /// Those that do not.
    pub missing: u64,
    /// The same by kind of pin, in the order of [`PinKind::ALL`]; a file with several kinds counts
    /// for each.
    pub missing_by_kind: [u64; PinKind::ALL.len()],
    /// Files whose content is not what their name says.
    pub wrong_name: u64,
    /// Files that changed while they were captured.
    pub torn: u64,
    /// Files that are longer or shorter than their row says.
    pub wrong_size: u64,
    /// Files that were listed and gone when they were looked at.
    pub vanished: u64,
}

impl PlaceReport {
    fn mismatches(&self) -> u64 {
        self.wrong_name + self.torn + self.wrong_size
    }
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingKind {
    /// It is pinned and not there.
    Missing,
    /// Its content has another hash than its name says.
    WrongName,
    /// It changed while it was captured.
    Torn,
    /// In bytes: what is stored, what the row says.
    WrongSize { stored: u64, expected: u64 },
}

impl FindingKind {
    /// One word for lists and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::WrongName => "wrong-name",
            Self::Torn => "torn",
            Self::WrongSize { .. } => "wrong-size",
        }
    }
}

/// One file that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'a> {
    pub kind: FindingKind,
    /// Its name in the database; of a stored file that has no row, its own.
    pub hash: String,
    /// Empty if it is not pinned, or has no row.
    pub pins: Pins,
    /// The source that it lies in, or must.
    pub source: &'a str,
    /// Where there.
    pub path: String,
}

impl fmt::Display for Finding<'_> {
    /// `kind<TAB>hash<TAB>pins<TAB>source/path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\t{}\t{}\t{}/{}",
            self.kind.name(),
            self.hash,
            self.pins,
            self.source,
            self.path
        )
    }
}

/// Which file a finding is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blamed<'a> {
    pub hash: &'a [u8],
    /// A path's key.
    pub path: &'a [u8],
    pub pins: Pins,
}

/// Counts for one place, and passes on what is found there.
pub(super) struct Tally<'a, 'e> {
    source: &'a str,
    /// The node has this place; else nothing is looked for there.
    is_there: bool,
    report: &'a mut PlaceReport,
    each: &'a mut EachFinding<'e>,
}

impl<'a, 'e> Tally<'a, 'e> {
    pub fn new(
        source: &'a str,
        is_there: bool,
        report: &'a mut PlaceReport,
        each: &'a mut EachFinding<'e>,
    ) -> Self {
        Self {
            source,
            is_there,
            report,
            each,
        }
    }

    /// Counts files that must be here.
    pub fn wanted(&mut self, count: u64) {
        if self.is_there {
            self.report.wanted += count;
        }
    }

    /// Counts a path that is here.
    pub fn stored(&mut self, stored: &Stored) {
        match stored.held {
            Held::File { .. } if stored.is_hash => self.report.stored += 1,
            Held::Vanished if stored.is_hash => self.report.vanished += 1,
            _ => {}
        }
    }

    /// Tells a missing file; false if this place is not looked at.
    pub fn missing(&mut self, hash: &[u8], path: &[u8], pins: Pins) -> Result<bool, NodeError> {
        if self.is_there {
            self.report.missing += 1;
            for kind in pins.kinds() {
                self.report.missing_by_kind[kind as usize] += 1;
            }
            self.tell(FindingKind::Missing, Blamed { hash, path, pins })?;
        }
        Ok(self.is_there)
    }

    /// Tells a file that is not what its name says.
    pub fn fault(&mut self, fault: Fault, blamed: Blamed<'_>) -> Result<(), NodeError> {
        let (count, kind) = match fault {
            Fault::Name => (&mut self.report.wrong_name, FindingKind::WrongName),
            Fault::Torn => (&mut self.report.torn, FindingKind::Torn),
        };
        *count += 1;
        self.tell(kind, blamed)
    }

    /// Tells a file that is not as long as its row says.
    pub fn size(
        &mut self,
        stored: u64,
        expected: u64,
        blamed: Blamed<'_>,
    ) -> Result<(), NodeError> {
        self.report.wrong_size += 1;
        self.tell(FindingKind::WrongSize { stored, expected }, blamed)
    }

    fn tell(
        &mut self,
        kind: FindingKind,
        Blamed { hash, path, pins }: Blamed<'_>,
    ) -> Result<(), NodeError> {
        let hash = shown(hash);
        Ok((self.each)(&Finding {
            kind,
            hash,
            pins,
            source: self.source,
            path: shown(path),
        })?)
    }
}
