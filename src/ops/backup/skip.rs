//! Folders of an immutable source that did not change: they are not listed, and their subfolders come from the parent.

use super::reason::reason;
use super::visit::{Seen, open_listed};
use super::walk::{Entered, Level, Step, Walk, WalkError};
use crate::observe::Counter;
use crate::source::Kind;
use crate::types::Entry;

impl Walk<'_, '_> {
    pub(super) fn next_skipped(&mut self, level: &mut Level) -> Result<Step, WalkError> {
        let Some(folders) = &mut self.parent_folders else {
            return Ok(Step::Leave);
        };
        let mut key = level.path.key().to_vec();
        if !level.path.is_root() {
            key.push(0);
        }
        folders.seek(&key);
        // The folder's own entry may still be ahead if it is the root.
        while folders.peek()?.is_some_and(|head| head.path == level.path) {
            folders.take()?;
        }
        if !folders
            .peek()?
            .is_some_and(|head| head.path.is_below(&level.path))
        {
            return Ok(Step::Leave);
        }
        let Some(entry) = folders.take()? else {
            return Ok(Step::Leave);
        };
        if !entry.is_folder() {
            return Ok(Step::Stay);
        }
        let (Some(folder), Some(name)) = (&level.folder, entry.path.name()) else {
            return Ok(Step::Leave);
        };
        let seen = Seen::at(folder, name);
        let stat = match seen.stat {
            Ok(Some(stat))
                if stat.kind == Kind::Folder && !self.rules.filter.is_never(stat.id()) =>
            {
                stat
            }
            Ok(Some(stat)) if stat.kind != Kind::Folder => {
                folders.skip_below(&entry.path);
                return self.changed_under_skip(
                    level,
                    &entry,
                    Some("became something else while it was scanned"),
                );
            }
            Ok(_) => {
                folders.skip_below(&entry.path);
                return self.changed_under_skip(level, &entry, None);
            }
            Err(err) => {
                folders.skip_below(&entry.path);
                return self.changed_under_skip(level, &entry, Some(&reason("stat", &err)));
            }
        };
        let has_folders = folders
            .peek()?
            .is_some_and(|head| head.path.is_below(&entry.path));
        if self.may_skip(&stat, Some(&entry)) && !has_folders {
            self.count_skipped(&entry);
            self.shared
                .count(&self.shared.counts.others, Counter::Entries);
            self.shared
                .counts
                .folders
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.shared
                .has_skipped
                .store(true, std::sync::atomic::Ordering::Relaxed);
            return Ok(Step::Stay);
        }
        let opened = open_listed(folder, name);
        if let Some(cursor) = &mut self.parent {
            // Not in step with a skipped folder: go to the entry itself, then behind it.
            cursor.seek(entry.path.key());
            if cursor.peek()?.is_some_and(|head| head.path == entry.path) {
                cursor.take()?;
            }
        }
        match opened {
            Ok(Some(folder)) => Ok(Step::Enter(Box::new(Entered {
                path: entry.path.clone(),
                folder,
                stat,
                clock: seen.clock,
                parent: Some(entry),
            }))),
            Ok(None) => {
                self.skip_below(&entry.path);
                self.changed_under_skip(level, &entry, None)
            }
            Err(err) => {
                self.keep_subtree(&entry.path)?;
                self.changed_under_skip(level, &entry, Some(&reason("open the folder", &err)))
            }
        }
    }

    /// A subfolder of a skipped folder is gone, or something else: the folder did change since we looked. What is
    /// gone is removed (`why` is none), what came is seen next time: the folder's times differ then, and it has the mark
    /// as well.
    fn changed_under_skip(
        &mut self,
        level: &mut Level,
        entry: &Entry,
        why: Option<&str>,
    ) -> Result<Step, WalkError> {
        self.own_node(level);
        // What came in its place, or beside it, is not looked at in this run.
        level.node.as_ref().inspect(|node| node.give_up());
        match why {
            Some(why) => self.fail(&entry.path, Some(entry), why)?,
            None => self.shared.remove(entry)?,
        }
        Ok(Step::Stay)
    }
}
