//! What every operation gets: where it reports its events, and how it is asked to stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::observe::Observer;

/// The environment of a running operation. It is passed by value.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// Receives the operation's events.
    pub observer: &'a dyn Observer,
    /// Asks the operation to stop.
    pub cancel: &'a Cancel,
}

impl<'a> Task<'a> {
    /// Returns a task that reports to `observer` and that `cancel` stops.
    pub fn new(observer: &'a dyn Observer, cancel: &'a Cancel) -> Self {
        Self { observer, cancel }
    }

    /// Returns [`Cancelled`] if the operation was asked to stop.
    pub fn check(&self) -> Result<(), Cancelled> {
        self.cancel.check()
    }
}

impl fmt::Debug for Task<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("cancel", self.cancel)
            .finish_non_exhaustive()
    }
}

/// Asks an operation to stop soon. It then returns [`Error::Interrupted`](crate::Error) and leaves
/// everything in order.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Returns a token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop. Safe in a signal handler's thread.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns true if the operation was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns [`Cancelled`] if the operation was asked to stop.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() {
            Err(Cancelled)
        } else {
            Ok(())
        }
    }
}

/// The operation was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Cancelled {}
