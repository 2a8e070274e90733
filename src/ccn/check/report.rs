//! The results of a check: counts, and each finding as it is made.

use std::fmt;

use crate::Error;
use crate::ccn::dump::{PinKind, PinRows, RowCounts};

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckReport {
    /// Rows of the dump.
    pub rows: RowCounts,
    /// Files that must exist: they have a pin other than a grace period.
    pub pinned: u64,
    /// The number of these files that are missing in one or both places.
    pub missing: u64,
    pub local: PlaceReport,
    pub ipfs: PlaceReport,
}

impl CheckReport {
    /// Returns true if no pinned file is missing.
    pub fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Returns the number of stored files that do not match their name or row.
    pub fn mismatches(&self) -> u64 {
        self.local.mismatches() + self.ipfs.mismatches()
    }
}

/// Counts for local storage, or for kubo's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlaceReport {
    /// Files in this place that are named by a hash.
    pub stored: u64,
    /// Pinned files that must be in this place.
    pub wanted: u64,
    /// Pinned files that are missing from this place.
    pub missing: u64,
    /// `missing` by kind of pin, in the order of [`PinKind::ALL`]. A file with several kinds counts
    /// for each of them.
    pub missing_by_kind: [u64; PinKind::ALL.len()],
    /// Files whose content does not match their name.
    pub wrong_name: u64,
    /// Files that changed while they were captured.
    pub torn: u64,
    /// Files that are longer or shorter than in their row.
    pub wrong_size: u64,
    /// Files that were listed, but had vanished when they were read.
    pub vanished: u64,
}

impl PlaceReport {
    fn mismatches(&self) -> u64 {
        self.wrong_name + self.torn + self.wrong_size
    }
}

/// The error of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFindingKind {
    /// It is pinned and does not exist.
    Missing,
    /// Its content does not have the hash in its name.
    WrongName,
    /// It changed while it was captured.
    Torn,
    /// The size in bytes differs: of the stored file, and in the row.
    WrongSize { stored: u64, expected: u64 },
}

impl FileFindingKind {
    /// Returns the kind as one word, for lists and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::WrongName => "wrong-name",
            Self::Torn => "torn",
            Self::WrongSize { .. } => "wrong-size",
        }
    }
}

/// A file with an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFinding<'a> {
    pub kind: FileFindingKind,
    /// Its name in the database. For a stored file without a row, its own name.
    pub hash: String,
    /// Empty if it is not pinned, or has no row.
    pub pins: PinRows,
    /// The source that it is in, or must be in.
    pub source: &'a str,
    /// Its path in the source.
    pub path: String,
}

impl fmt::Display for FileFinding<'_> {
    /// Formats as `kind<TAB>hash<TAB>pins<TAB>source/path`.
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

/// Receives the findings, in order of place and path. Its error ends the check.
pub type EachFinding<'a> = dyn FnMut(&FileFinding<'_>) -> Result<(), Error> + 'a;
