//! A position in the stored files of one side, which reports the faults of skipped files.

use super::stored::{FileSide, HeldFile, StoredFile};
use super::tally::{BlamedPlace, CheckTally};
use crate::ccn::NodeError;
use crate::ccn::dump::PinRows;

/// A position in the stored files, which only moves forward.
pub(super) struct FileCursor<'a> {
    side: Box<dyn FileSide + 'a>,
    held: Option<StoredFile>,
    begun: bool,
}

impl<'a> FileCursor<'a> {
    pub fn new(side: Box<dyn FileSide + 'a>) -> Self {
        Self {
            side,
            held: None,
            begun: false,
        }
    }

    /// Returns the file at `key`. Keys must be in ascending order, and one key may be repeated.
    /// Files before it that were not asked for are skipped, and their faults are reported.
    pub fn at(
        &mut self,
        key: &[u8],
        tally: &mut CheckTally<'_, '_>,
    ) -> Result<Option<&mut HeldFile>, NodeError> {
        while !self.begun
            || self
                .held
                .as_ref()
                .is_some_and(|held| held.key.as_slice() < key)
        {
            self.step(tally)?;
        }
        Ok(self
            .held
            .as_mut()
            .filter(|held| held.key == key)
            .map(|held| &mut held.held))
    }

    /// Skips all remaining files.
    pub fn rest(&mut self, tally: &mut CheckTally<'_, '_>) -> Result<(), NodeError> {
        while !self.begun || self.held.is_some() {
            self.step(tally)?;
        }
        Ok(())
    }

    fn step(&mut self, tally: &mut CheckTally<'_, '_>) -> Result<(), NodeError> {
        self.begun = true;
        if let Some(StoredFile {
            key,
            held: HeldFile::File {
                fault: Some(fault), ..
            },
            ..
        }) = &self.held
        {
            let hash = key.rsplit(|&byte| byte == 0).next().unwrap_or_default();
            tally.fault(
                *fault,
                BlamedPlace {
                    hash,
                    path: key,
                    pins: PinRows::default(),
                },
            )?;
        }
        self.held = self.side.next()?;
        if let Some(held) = &self.held {
            tally.stored(held);
        }
        Ok(())
    }
}
