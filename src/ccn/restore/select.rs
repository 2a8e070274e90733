//! Selects the files of the file storage to restore: none whose content does not match its name,
//! and in a minimal restore only pinned ones.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::check::PinnedNames;
use crate::Error;
use crate::ops::restore::SelectPath;
use crate::source::HashName;
use crate::types::{Entry, EntryFlags};

/// Upper limit of the paths to report.
const TOLD_MAX: usize = 100;

/// Leaves out harmful files and, if there is a list of pinned names, files that are not pinned.
pub(super) struct CaptureChooser {
    state: Mutex<ChooserState>,
}

struct ChooserState {
    pinned: Option<PinnedNames>,
    /// The next pinned name.
    next: Option<Vec<u8>>,
    left_out: LeftOut,
}

/// Files whose content does not match their name. The node only checks whether a name exists, so it
/// would never fetch these files again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LeftOut {
    pub count: u64,
    /// The paths of the first ones.
    pub paths: Vec<String>,
}

impl CaptureChooser {
    /// Creates a chooser. `pinned`: the wanted names in the source's root, ascending.
    pub fn new(mut pinned: Option<PinnedNames>) -> Result<Self, Error> {
        let next = match &mut pinned {
            Some(pinned) => pinned.next()?,
            None => None,
        };
        Ok(Self {
            state: Mutex::new(ChooserState {
                pinned,
                next,
                left_out: LeftOut::default(),
            }),
        })
    }

    /// Returns the files that were left out so far.
    pub fn left_out(&self) -> LeftOut {
        self.lock().left_out.clone()
    }

    fn lock(&self) -> MutexGuard<'_, ChooserState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CaptureChooser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chooser").finish_non_exhaustive()
    }
}

impl SelectPath for CaptureChooser {
    fn wants(&self, entry: &Entry) -> Result<bool, Error> {
        let mut state = self.lock();
        if !state.is_pinned(entry.path.key())? {
            return Ok(false);
        }
        if is_suspect(entry) {
            let LeftOut { count, paths } = &mut state.left_out;
            *count += 1;
            if paths.len() < TOLD_MAX {
                paths.push(entry.path.to_string());
            }
            return Ok(false);
        }
        Ok(true)
    }
}

/// Returns true for a file whose content does not match its name, or may not match it.
fn is_suspect(entry: &Entry) -> bool {
    let Some(name) = entry.path.name().and_then(HashName::parse) else {
        return false;
    };
    let is_undecided = name.expected_sha256().is_none();
    entry.flags.contains(EntryFlags::PROVISIONAL)
        || (is_undecided && entry.flags.contains(EntryFlags::TORN))
}

impl ChooserState {
    /// Returns true if a path is pinned. Names and paths are both in ascending order, and a name in
    /// the root is equal to its path's key.
    fn is_pinned(&mut self, key: &[u8]) -> Result<bool, Error> {
        let Some(pinned) = &mut self.pinned else {
            return Ok(true);
        };
        while self.next.as_deref().is_some_and(|next| next < key) {
            self.next = pinned.next()?;
        }
        Ok(self.next.as_deref() == Some(key))
    }
}
