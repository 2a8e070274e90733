//! Which files of the storage come back: none that is not what its name says, and at first only
//! pinned ones.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::check::PinnedNames;
use crate::Error;
use crate::ops::restore::Select;
use crate::source::HashName;
use crate::types::{Entry, EntryFlags};

/// Paths that are remembered to be told.
const TOLD_MAX: usize = 100;

/// Leaves out what would do harm, and what is not pinned if pinned names are given.
pub(super) struct Chooser {
    state: Mutex<State>,
}

struct State {
    pinned: Option<PinnedNames>,
    /// The next pinned name.
    next: Option<Vec<u8>>,
    left_out: LeftOut,
}

/// Files whose content is not what their name says: the node tests for names alone and would never
/// fetch them again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LeftOut {
    pub count: u64,
    /// The first of them.
    pub paths: Vec<String>,
}

impl Chooser {
    /// `pinned`: the names in the source's root that are wanted, ascending.
    pub fn new(mut pinned: Option<PinnedNames>) -> Result<Self, Error> {
        let next = match &mut pinned {
            Some(pinned) => pinned.next()?,
            None => None,
        };
        Ok(Self {
            state: Mutex::new(State {
                pinned,
                next,
                left_out: LeftOut::default(),
            }),
        })
    }

    /// What was left out so far.
    pub fn left_out(&self) -> LeftOut {
        self.lock().left_out.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Chooser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chooser").finish_non_exhaustive()
    }
}

impl Select for Chooser {
    fn wants(&self, entry: &Entry) -> Result<bool, Error> {
        let mut state = self.lock();
        if !state.is_pinned(entry.path.key())? {
            return Ok(false);
        }
        if is_doubtful(entry) {
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

/// True for a file whose content is not what its name says, or may not be.
fn is_doubtful(entry: &Entry) -> bool {
    let Some(name) = entry.path.name().and_then(HashName::parse) else {
        return false;
    };
    let is_undecided = name.expected_sha256().is_none();
    entry.flags.contains(EntryFlags::PROVISIONAL)
        || (is_undecided && entry.flags.contains(EntryFlags::TORN))
}

impl State {
    /// Names and paths both ascend, and a name in the root is its path's key.
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
