//! Enters a directory: makes its entry, and finds out how it is walked.

use std::sync::Arc;

use super::candidate::TimedStat;
use super::decide::DirectoryDecision;
use super::state::{EnteredDirectory, Scan, ScanLevel, ScanMode};
use super::walk_error::WalkError;
use crate::advice::{Advice, BackupAdvice};
use crate::observe::Counter;
use crate::ops::backup::reader::attributes::{DescribedEntry, describe};
use crate::ops::backup::reason::reason;
use crate::ops::backup::run::sink::DirectoryNode;
use crate::source::{SourceDir, SourceStat, XattrReader};
use crate::types::{Entry, MissingNames, RelPath};

impl Scan<'_, '_> {
    /// Pushes an open directory onto the stack, to be walked as the rules decide.
    pub(super) fn enter(
        &mut self,
        levels: &mut Vec<ScanLevel>,
        entered: EnteredDirectory,
    ) -> Result<(), WalkError> {
        self.shared
            .count(&self.shared.counts.others, Counter::Entries);
        self.shared
            .counts
            .directories
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);

        let previous = entered.previous.as_ref();
        if let Some(file) =
            previous.filter(|previous| entered.path.is_root() && !previous.is_directory())
        {
            // A container engine may create a directory in place of a missing file.
            self.shared.hide(file);
        }

        let stat = entered.seen.stat;
        let above = levels.last().map(|above| above.id.device);
        let kind = self.windows.learn(&entered.directory);
        let decision = self.rules.decide_directory(&stat, previous, kind, above);
        if decision == DirectoryDecision::Skip {
            levels.push(self.skip(entered));
            return Ok(());
        }

        let EnteredDirectory {
            path,
            directory,
            seen: TimedStat { stat, clock },
            previous,
        } = entered;
        let DescribedEntry { meta, lacks } =
            self.describe_directory(&directory, &stat, previous.as_ref())?;
        let node = Arc::new(DirectoryNode::new(
            path.clone(),
            meta,
            previous,
            self.has_runs(),
        ));

        let is_mount = levels
            .last()
            .is_some_and(|above| (above.id.device, above.mount_id) != (stat.device, stat.mount_id));
        if is_mount {
            node.mark_mount();
        }

        self.shared.sink.begin(&node);
        if let Some(why) = lacks {
            self.shared.lacks_attributes(&path, &why);
            node.lacks_attributes();
        }
        if stat.is_racy(clock, self.windows.seconds(&stat)) {
            node.revisit();
        }

        let mode = match decision {
            DirectoryDecision::LeaveKernel => self.leave_kernels(&path, &node),
            DirectoryDecision::LeaveMount => {
                node.lacks(MissingNames::Unseen);
                ScanMode::unlisted(true)
            }
            DirectoryDecision::List | DirectoryDecision::Skip => {
                self.list(&path, &directory, &stat, &node)?
            }
        };
        levels.push(ScanLevel {
            path,
            id: directory.id(),
            directory: Some(directory),
            mount_id: stat.mount_id,
            node: Some(node),
            skipped: None,
            mode,
        });
        Ok(())
    }

    /// Returns the level of a directory that is not listed.
    fn skip(&self, entered: EnteredDirectory) -> ScanLevel {
        self.shared
            .has_skipped
            .store(true, std::sync::atomic::Ordering::Relaxed);
        ScanLevel {
            path: entered.path,
            id: entered.directory.id(),
            directory: Some(entered.directory),
            mount_id: entered.seen.stat.mount_id,
            node: None,
            skipped: entered.previous,
            mode: ScanMode::Skipped,
        }
    }

    /// Returns the metadata of an open directory. The attributes are read unless they are known to
    /// be those of the previous entry.
    fn describe_directory(
        &mut self,
        directory: &SourceDir,
        stat: &SourceStat,
        previous: Option<&Entry>,
    ) -> Result<DescribedEntry, WalkError> {
        let old = previous.and_then(Entry::meta);
        let is_carried = self.rules.keeps_attributes(stat, previous);
        let attributes = if is_carried {
            XattrReader::default()
        } else {
            directory.xattrs_self()
        };

        let mut described = describe(stat, self.shared.owners, attributes, old, self.writers)
            .map_err(|err| WalkError::Other(err.into()))?;
        if let Some(old) = old.filter(|_| is_carried) {
            described.meta.xattrs.clone_from(&old.xattrs);
        }
        Ok(described)
    }

    /// Marks a mount of a kernel file system that is not entered: the kernel generates its files
    /// while they are read, some of them without end.
    fn leave_kernels(&self, path: &RelPath, node: &DirectoryNode) -> ScanMode {
        node.lacks(MissingNames::Unseen);
        self.shared.leave_kernels(path);
        ScanMode::unlisted(true)
    }

    fn list(
        &mut self,
        path: &RelPath,
        directory: &SourceDir,
        stat: &SourceStat,
        node: &Arc<DirectoryNode>,
    ) -> Result<ScanMode, WalkError> {
        match directory.list(self.inputs.scratch, self.inputs.listing_bytes) {
            Ok(listing) => {
                // A change during the listing may have hidden names: list it again next time.
                let after = directory.stat_self();
                if !after.is_ok_and(|after| (after.mtime, after.ctime) == (stat.mtime, stat.ctime))
                {
                    node.revisit();
                }

                if path.is_root() && listing.total() == 0 {
                    self.refuse_empty_root()?;
                }
                if listing.total() == 0 && self.is_unmounted(path, node)? {
                    return self.keep_unmounted(path, node);
                }

                let needed = self
                    .rules
                    .files_from
                    .and_then(|list| list.first_needed(path))
                    .map(|needed| needed.position());
                Ok(ScanMode::listed(
                    listing,
                    needed,
                    self.rules.filter.is_cache_directory(directory),
                ))
            }
            Err(err) => {
                // The previous entries below the directory are kept, and its flag *stale* marks
                // them as possibly outdated.
                self.shared
                    .problem(path, &reason("list the directory", &err));
                self.shared.task.observer.add(Counter::Failed, 1);
                node.mark_stale();
                self.keep_subtree(path)?;
                Ok(ScanMode::unlisted(false))
            }
        }
    }

    /// Returns true if a directory is empty, had entries in the previous snapshot, and was a mount
    /// point then.
    fn is_unmounted(&mut self, path: &RelPath, node: &DirectoryNode) -> Result<bool, WalkError> {
        if self.shared.allow_empty || !node.was_unmounted() {
            return Ok(false);
        }
        let Some(cursor) = &mut self.previous else {
            return Ok(false);
        };
        Ok(cursor.peek()?.is_some_and(|next| next.path.is_below(path)))
    }

    /// Keeps the previous entries below an empty mount point: more likely the mount is missing than
    /// all files were deleted.
    fn keep_unmounted(
        &mut self,
        path: &RelPath,
        node: &DirectoryNode,
    ) -> Result<ScanMode, WalkError> {
        let why = "it is empty, and no longer a mount point as at the last backup; its previous content is kept";
        self.shared
            .problem_with(path, why, Advice::Backup(BackupAdvice::MountOrAllowEmpty));
        self.shared.task.observer.add(Counter::Failed, 1);
        node.mark_stale();
        // The next backup makes the same check.
        node.mark_mount();
        self.keep_subtree(path)?;
        Ok(ScanMode::unlisted(false))
    }

    /// Refuses a source that had entries and has none now: more likely a volume is not mounted.
    pub(super) fn refuse_empty_root(&mut self) -> Result<(), WalkError> {
        let had_names = match &mut self.previous {
            Some(cursor) => cursor.peek()?.is_some(),
            None => false,
        };
        let had_names =
            had_names || !self.shared.may_be_empty() && self.inputs.committed.has_names()?;
        let why = match (self.inputs.previous_unreadable, had_names) {
            (true, _) => "it is empty, and its content in the last snapshot cannot be read",
            (false, true) => "it is empty, and was not in the last snapshot",
            (false, false) => return Ok(()),
        };
        Ok(self.shared.refuse_emptiness(why)?)
    }
}
