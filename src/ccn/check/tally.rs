//! Counts the files of one place, and passes on the findings.

use super::report::{EachFinding, FileFinding, FileFindingKind, PlaceReport};
use super::stored::{FileFault, HeldFile, StoredFile};
use crate::ccn::NodeError;
use crate::ccn::dump::PinRows;
use crate::types::RelPath;

/// The file of a finding.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlamedPlace<'a> {
    pub hash: &'a [u8],
    /// The path's key.
    pub path: &'a [u8],
    pub pins: PinRows,
}

/// Counts the files of one place, and passes on the findings.
pub(super) struct CheckTally<'a, 'e> {
    source: &'a str,
    /// True if the node has this place. Otherwise nothing is looked up in it.
    is_there: bool,
    report: &'a mut PlaceReport,
    each: &'a mut EachFinding<'e>,
}

impl<'a, 'e> CheckTally<'a, 'e> {
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

    /// Counts files that must be in this place.
    pub fn wanted(&mut self, count: u64) {
        if self.is_there {
            self.report.wanted += count;
        }
    }

    /// Counts a stored path.
    pub fn stored(&mut self, stored: &StoredFile) {
        match stored.held {
            HeldFile::File { .. } if stored.is_hash => self.report.stored += 1,
            HeldFile::Vanished if stored.is_hash => self.report.vanished += 1,
            _ => {}
        }
    }

    /// Reports a missing file. Returns false if this place is not checked.
    pub fn missing(&mut self, hash: &[u8], path: &[u8], pins: PinRows) -> Result<bool, NodeError> {
        if self.is_there {
            self.report.missing += 1;
            for kind in pins.kinds() {
                self.report.missing_by_kind[usize::from(kind.number())] += 1;
            }
            self.report_finding(FileFindingKind::Missing, BlamedPlace { hash, path, pins })?;
        }
        Ok(self.is_there)
    }

    /// Reports a file whose content does not match its name.
    pub fn fault(&mut self, fault: FileFault, blamed: BlamedPlace<'_>) -> Result<(), NodeError> {
        let (count, kind) = match fault {
            FileFault::Name => (&mut self.report.wrong_name, FileFindingKind::WrongName),
            FileFault::Torn => (&mut self.report.torn, FileFindingKind::Torn),
        };
        *count += 1;
        self.report_finding(kind, blamed)
    }

    /// Reports a file whose size differs from its row.
    pub fn size(
        &mut self,
        stored: u64,
        expected: u64,
        blamed: BlamedPlace<'_>,
    ) -> Result<(), NodeError> {
        self.report.wrong_size += 1;
        self.report_finding(FileFindingKind::WrongSize { stored, expected }, blamed)
    }

    fn report_finding(
        &mut self,
        kind: FileFindingKind,
        BlamedPlace { hash, path, pins }: BlamedPlace<'_>,
    ) -> Result<(), NodeError> {
        let hash = shown(hash);
        Ok((self.each)(&FileFinding {
            kind,
            hash,
            pins,
            source: self.source,
            path: shown(path),
        })?)
    }
}

/// Formats a key of the join as a path, for messages.
fn shown(key: &[u8]) -> String {
    match RelPath::from_key(key) {
        Ok(path) => path.to_string(),
        Err(_) => key.escape_ascii().to_string(),
    }
}
