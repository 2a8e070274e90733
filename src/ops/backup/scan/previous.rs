//! The previous entries during a walk, with a view of the next one.

use super::walk_error::{WalkError, previous_error};
use crate::repo::MergedRuns;
use crate::types::{Entry, RelPath};

/// The entries of the previous snapshot, with a view of the next one.
pub(in crate::ops::backup) struct PreviousEntries<'a> {
    runs: MergedRuns<'a>,
    head: Option<Entry>,
    started: bool,
}

impl<'a> PreviousEntries<'a> {
    pub fn new(runs: MergedRuns<'a>) -> Self {
        Self {
            runs,
            head: None,
            started: false,
        }
    }

    fn advance(&mut self) -> Result<(), WalkError> {
        self.head = self.runs.next_entry().map_err(previous_error)?;
        self.started = true;
        Ok(())
    }

    pub fn peek(&mut self) -> Result<Option<&Entry>, WalkError> {
        if !self.started {
            self.advance()?;
        }
        Ok(self.head.as_ref())
    }

    pub fn take(&mut self) -> Result<Option<Entry>, WalkError> {
        self.peek()?;
        self.started = false;
        Ok(self.head.take())
    }

    pub fn seek(&mut self, key: &[u8]) {
        if self.started && self.head.as_ref().is_none_or(|head| head.path.key() >= key) {
            return;
        }
        self.started = false;
        self.head = None;
        self.runs.seek(key);
    }

    /// Takes all entries below a taken entry that is gone.
    pub fn pass_below(
        &mut self,
        gone: &Entry,
        mut each: impl FnMut(&Entry),
    ) -> Result<(), WalkError> {
        if !gone.is_directory() {
            return Ok(());
        }
        while self
            .peek()?
            .is_some_and(|head| head.path.is_below(&gone.path))
        {
            if let Some(entry) = self.take()? {
                each(&entry);
            }
        }
        Ok(())
    }

    pub fn skip_below(&mut self, path: &RelPath) {
        if let Some(after) = path.after_subtree() {
            self.seek(&after);
        }
    }
}
