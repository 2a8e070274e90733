//! Unchanged directories of an immutable source: they are not listed, and their subdirectories come
//! from the previous snapshot.

use super::candidate::TimedStat;
use super::decide::SubdirectoryDecision;
use super::observed::{ObservedName, open_listed};
use super::state::{EnteredDirectory, Scan, ScanLevel, ScanStep};
use super::walk_error::WalkError;
use crate::observe::Counter;
use crate::ops::backup::reason::reason;
use crate::types::Entry;

impl Scan<'_, '_> {
    pub(super) fn next_skipped(&mut self, level: &mut ScanLevel) -> Result<ScanStep, WalkError> {
        let Some(directories) = &mut self.previous_directories else {
            return Ok(ScanStep::Leave);
        };

        // Find the next directory below this one in the previous snapshot.
        let mut key = level.path.key().to_vec();
        if !level.path.is_root() {
            key.push(0);
        }
        directories.seek(&key);
        // For the root, the cursor may still be at the directory's own entry.
        while directories
            .peek()?
            .is_some_and(|head| head.path == level.path)
        {
            directories.take()?;
        }
        if !directories
            .peek()?
            .is_some_and(|head| head.path.is_below(&level.path))
        {
            return Ok(ScanStep::Leave);
        }
        let Some(entry) = directories.take()? else {
            return Ok(ScanStep::Leave);
        };
        if !entry.is_directory() {
            return Ok(ScanStep::Stay);
        }

        let (Some(directory), Some(name)) = (&level.directory, entry.path.name()) else {
            return Ok(ScanStep::Leave);
        };

        let ObservedName { stat, clock } = ObservedName::at(directory, name);
        let stat = match stat {
            Ok(Some(stat)) => stat,
            Ok(None) => {
                directories.skip_below(&entry.path);
                return self.changed_under_skip(level, &entry, None);
            }
            Err(err) => {
                directories.skip_below(&entry.path);
                return self.changed_under_skip(level, &entry, Some(&reason("stat", &err)));
            }
        };

        let decision = self.rules.decide_subdirectory(&stat, &entry);
        let change = match decision {
            SubdirectoryDecision::Skip | SubdirectoryDecision::Enter => None,
            SubdirectoryDecision::LeaveOut => Some(None),
            SubdirectoryDecision::Replaced => {
                Some(Some("became something else while it was scanned"))
            }
        };
        if let Some(why) = change {
            directories.skip_below(&entry.path);
            return self.changed_under_skip(level, &entry, why);
        }

        let has_directories = directories
            .peek()?
            .is_some_and(|head| head.path.is_below(&entry.path));
        if decision == SubdirectoryDecision::Skip && !has_directories {
            self.count_skipped(&entry);
            self.shared
                .count(&self.shared.counts.others, Counter::Entries);
            self.shared
                .counts
                .directories
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.shared
                .has_skipped
                .store(true, std::sync::atomic::Ordering::Relaxed);
            return Ok(ScanStep::Stay);
        }

        let opened = open_listed(directory, name);
        if let Some(cursor) = &mut self.previous {
            // The cursor does not follow a skipped directory: move it to the entry, then past it.
            cursor.seek(entry.path.key());
            if cursor.peek()?.is_some_and(|head| head.path == entry.path) {
                cursor.take()?;
            }
        }

        match opened {
            Ok(Some(directory)) => Ok(ScanStep::Enter(Box::new(EnteredDirectory {
                path: entry.path.clone(),
                directory,
                seen: TimedStat { stat, clock },
                previous: Some(entry),
            }))),
            Ok(None) => {
                self.skip_below(&entry.path);
                self.changed_under_skip(level, &entry, None)
            }
            Err(err) => {
                self.keep_subtree(&entry.path)?;
                self.changed_under_skip(level, &entry, Some(&reason("open the directory", &err)))
            }
        }
    }

    /// Handles a subdirectory of a skipped directory that is gone or became something else, which
    /// means that the skipped directory did change. Without `why` the subdirectory is gone and is
    /// removed. New names are seen next time: the times of the directory differ then, and it is
    /// marked.
    fn changed_under_skip(
        &mut self,
        level: &mut ScanLevel,
        entry: &Entry,
        why: Option<&str>,
    ) -> Result<ScanStep, WalkError> {
        self.own_node(level);
        // New names in it are not looked at in this run.
        level.node.as_ref().inspect(|node| node.give_up());
        match why {
            Some(why) => self.fail(&entry.path, Some(entry), why)?,
            None => self.shared.remove(entry)?,
        }
        Ok(ScanStep::Stay)
    }
}
