//! Sources of which nothing may change: what changed or went is an alarm.

use std::sync::{Mutex, PoisonError};

use crate::observe::{Observer, Problem, Severity};
use crate::types::RelPath;

/// So many paths are named in the snapshot's own word of it.
const NAMED_MAX: usize = 8;

/// What was seen to change, by several threads.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    count: u64,
    first: Vec<String>,
}

impl Watch {
    /// Tells of a path that changed or went: `what` is `changed`, `is missing` or the like.
    pub fn alarm(&self, observer: &dyn Observer, source: &str, path: &RelPath, what: &str) {
        let message =
            format!("{what}, which must never be; the snapshot does not count until --accept takes it");
        observer.problem(&Problem::new(Severity::Alarm, format!("{source}:{path}"), message));
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.count += 1;
        if seen.first.len() < NAMED_MAX {
            seen.first.push(format!("{path} {what}"));
        }
    }

    /// What the snapshot says of the source, if anything changed.
    pub fn verdict(&self) -> Option<String> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.count == 0 {
            return None;
        }
        // Threads tell in any order.
        seen.first.sort();
        let more = seen.count - seen.first.len() as u64;
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        Some(format!("{}{more}", seen.first.join(", ")))
    }
}
