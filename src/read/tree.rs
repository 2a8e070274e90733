//! Walks a source's state from any path on. Ancestors are looked at first: a newer run may have
//! removed or replaced one of them, which hides the entries of older runs below it.

use crate::format::RunRef;
use crate::repo::{
    ChunkReader, EntryMention, MergedRuns, OnDamage, RepoError, RunStreams, UncertainPaths,
};
use crate::types::{Entry, Node, RelPath};

/// The state that a source's runs describe, walked forward, with lookups of single paths.
#[derive(Debug)]
pub(crate) struct TreeReader<'a> {
    runs: MergedRuns<'a>,
    /// Read ahead during the lookup of a path that does not exist.
    pending: Option<EntryMention>,
    /// The highest path that was looked up or returned.
    passed: Option<RelPath>,
}

impl<'a> TreeReader<'a> {
    /// Opens runs, newest first. See [`MergedRuns::open`].
    pub fn open(
        reader: &'a ChunkReader<'a>,
        runs: &[RunRef],
        on_damage: OnDamage,
    ) -> Result<Self, RepoError> {
        let runs = MergedRuns::open(reader, runs, RunStreams::All, on_damage)?;
        Ok(Self {
            runs,
            pending: None,
            passed: None,
        })
    }

    /// Returns the next mention, removals included.
    pub fn next_mention(&mut self) -> Result<Option<EntryMention>, RepoError> {
        match self.pending.take() {
            Some(mention) => Ok(Some(mention)),
            None => self.runs.next_mention(),
        }
    }

    /// Returns the next existing entry.
    pub fn next(&mut self) -> Result<Option<Entry>, RepoError> {
        while let Some(mention) = self.next_mention()? {
            if !matches!(mention.entry.node, Node::Removed) {
                return Ok(Some(mention.entry));
            }
        }
        Ok(None)
    }

    /// Returns the next entry if it is below `directory`; otherwise keeps it for the next call.
    pub fn next_below(&mut self, directory: &RelPath) -> Result<Option<Entry>, RepoError> {
        while let Some(mention) = self.next_mention()? {
            if !mention.entry.path.is_below(directory) {
                self.pending = Some(mention);
                return Ok(None);
            }
            if !matches!(mention.entry.node, Node::Removed) {
                return Ok(Some(mention.entry));
            }
        }
        Ok(None)
    }

    /// Skips everything below `directory` without reading it.
    pub fn skip_below(&mut self, directory: &RelPath) {
        if self
            .pending
            .as_ref()
            .is_some_and(|held| !held.entry.path.is_below(directory))
        {
            return;
        }
        self.pending = None;
        if let Some(after) = directory.after_subtree() {
            self.runs.seek(&after);
        }
    }

    /// Returns the entry at `path`. Paths must be looked up in ascending order, after all entries
    /// that were already returned.
    pub fn entry_at(&mut self, path: &RelPath) -> Result<Option<Entry>, RepoError> {
        let mut ancestors: Vec<RelPath> =
            std::iter::successors(path.parent(), RelPath::parent).collect();
        // Ancestors that were passed have already hidden their older entries.
        ancestors.retain(|ancestor| self.passed.as_ref().is_none_or(|passed| ancestor > passed));
        for ancestor in ancestors.iter().rev() {
            self.mention_at(ancestor)?;
        }
        let found = self.mention_at(path)?.map(|mention| mention.entry);
        Ok(found.filter(|entry| !matches!(entry.node, Node::Removed)))
    }

    fn mention_at(&mut self, path: &RelPath) -> Result<Option<EntryMention>, RepoError> {
        self.passed = Some(path.clone());
        if self
            .pending
            .as_ref()
            .is_none_or(|held| held.entry.path < *path)
        {
            self.runs.seek(path.key());
            self.pending = self.runs.next_mention()?;
        }
        Ok(self.pending.take_if(|held| held.entry.path == *path))
    }

    /// Takes the ranges that are known to be uncertain so far.
    pub fn take_uncertain(&mut self) -> Vec<UncertainPaths> {
        self.runs.take_uncertain()
    }
}
