//! Sources that have suddenly become empty.

use std::sync::atomic::{AtomicU64, Ordering};

use super::TreeShared;
use crate::Error;

impl TreeShared<'_> {
    /// Returns true if an empty source is accepted. A source in which nothing may change is not
    /// refused: its alarms name each missing path.
    pub fn may_be_empty(&self) -> bool {
        self.allow_empty || self.watch.is_some()
    }

    /// Returns an error if a source may not become empty suddenly.
    pub fn refuse_emptiness(&self, why: &str) -> Result<(), Error> {
        if self.may_be_empty() {
            return Ok(());
        }
        Err(Error::Empty {
            name: self.source.to_owned(),
            why: why.to_owned(),
        })
    }

    /// Returns true if anything but directories was captured, or kept from the previous snapshot
    /// because it cannot be read.
    pub fn has_anything(&self) -> bool {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;

        let files = [
            &counts.files_new,
            &counts.files_changed,
            &counts.files_unchanged,
        ];

        files.into_iter().any(|count| get(count) > 0)
            || get(&counts.others) > get(&counts.directories)
            || self.sink.incomplete() > 0
            || self.keeps_old.load(Ordering::Relaxed)
    }
}
