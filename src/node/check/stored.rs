//! What is stored, in the order of paths: one side of the join, whether it is a snapshot or a
//! directory.

use super::report::{Blamed, Tally};
use crate::node::NodeError;
use crate::node::dump::Pins;

/// Why a stored file is not what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its content has another hash.
    Name,
    /// It changed while it was captured.
    Torn,
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    File {
        /// None where nobody asked.
        size: Option<u64>,
        /// Told once: who tells it takes it.
        fault: Option<Fault>,
    },
    /// Listed, and gone when it was looked at.
    Vanished,
    /// A directory, or a path that could not be captured.
    NoFile,
}

/// One path and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// A path's key, as in runs.
    pub key: Vec<u8>,
    /// The name is a hash: it is a file of the node, not one that happens to lie there.
    pub is_hash: bool,
    pub held: Held,
}

/// Gives what is stored, ascending by key.
pub(super) trait Side {
    fn next(&mut self) -> Result<Option<Stored>, NodeError>;
}

/// Nothing is stored.
pub(super) struct Nothing;

impl Side for Nothing {
    fn next(&mut self) -> Result<Option<Stored>, NodeError> {
        Ok(None)
    }
}

/// A position in what is stored; moves forward only.
pub(super) struct Cursor<'a> {
    side: Box<dyn Side + 'a>,
    held: Option<Stored>,
    begun: bool,
}

impl<'a> Cursor<'a> {
    pub fn new(side: Box<dyn Side + 'a>) -> Self {
        Self {
            side,
            held: None,
            begun: false,
        }
    }

    /// What lies at `key`. Keys are asked for in ascending order, the same one more than once if
    /// need be. What lies before it and was not asked for is passed, and told if it is faulty.
    pub fn at(
        &mut self,
        key: &[u8],
        tally: &mut Tally<'_, '_>,
    ) -> Result<Option<&mut Held>, NodeError> {
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

    /// Passes all that is left.
    pub fn rest(&mut self, tally: &mut Tally<'_, '_>) -> Result<(), NodeError> {
        while !self.begun || self.held.is_some() {
            self.step(tally)?;
        }
        Ok(())
    }

    fn step(&mut self, tally: &mut Tally<'_, '_>) -> Result<(), NodeError> {
        self.begun = true;
        if let Some(Stored {
            key,
            held: Held::File {
                fault: Some(fault), ..
            },
            ..
        }) = &self.held
        {
            let hash = key.rsplit(|&byte| byte == 0).next().unwrap_or_default();
            tally.fault(
                *fault,
                Blamed {
                    hash,
                    path: key,
                    pins: Pins::default(),
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
