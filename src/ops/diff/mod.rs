//! Compares two snapshots.
//!
//! Only the runs that the two do not share are read in full, and every path that they mention is
//! looked up in both states ([R29](docs/protocol.md#r29)). No other path can differ: a path that
//! these runs do not mention, and that is not below a path which one of them covers, comes from the
//! shared runs on both sides. If no run is shared, both states are walked in step.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::Error;
use crate::format::{RunRef, SourceKind};
use crate::read::ReadSession;
use crate::read::tree::TreeReader;
use crate::repo::{HostChoice, OnDamage};
use crate::types::{ChunkId, Content, Entry, Node, RelPath};

/// The difference at a path that both snapshots have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangedParts {
    /// It is of another kind, for example a directory instead of a file.
    Kind,
    /// The bytes of a file or stream, a symlink's target, or a device's numbers. The metadata may
    /// differ too.
    Content,
    /// Only mode, owner, modification time or attributes.
    Metadata,
}

/// The change of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathChange {
    Added,
    Removed,
    Changed(ChangedParts),
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffItem<'a> {
    pub source: &'a str,
    /// The root for a stream.
    pub path: &'a RelPath,
    pub change: PathChange,
    /// Bytes of the file or stream before and after, if it was or is one.
    pub old_size: Option<u64>,
    pub new_size: Option<u64>,
}

/// Receives the differences, source by source, in path order. An error that it returns ends the
/// operation.
pub type EachDiff<'a> = dyn FnMut(DiffItem<'_>) -> Result<(), Error> + 'a;

/// Compares two snapshots, each given as an id, a prefix or `latest`. Change times and inodes are
/// not compared, because a restore would not show a difference.
pub fn diff(
    session: &ReadSession<'_>,
    old: &str,
    new: &str,
    hosts: &HostChoice,
    each: &mut EachDiff<'_>,
) -> Result<(), Error> {
    let old = session.choose(old, hosts, None)?.snapshot;
    let new = session.choose(new, hosts, None)?.snapshot;
    session.sync()?;

    let names: BTreeSet<&str> = old
        .sources
        .iter()
        .chain(&new.sources)
        .map(|source| source.name.as_str())
        .collect();

    for name in names {
        let kind_of = |snapshot: &'_ crate::format::Snapshot| {
            snapshot
                .source(name)
                .map_or_else(DiffSide::default, |source| DiffSide::new(&source.kind))
        };
        let mut differ = TreeDiffer {
            session,
            source: name,
            each,
        };
        differ.source(&kind_of(&old), &kind_of(&new))?;
    }
    Ok(())
}

/// A source in one of the snapshots.
#[derive(Debug, Default)]
struct DiffSide {
    runs: Vec<RunRef>,
    stream: Option<Content>,
}

impl DiffSide {
    fn new(kind: &SourceKind) -> Self {
        match kind {
            SourceKind::Tree { runs, .. } => Self {
                runs: runs.clone(),
                stream: None,
            },
            SourceKind::Stream { content, .. } => Self {
                runs: Vec::new(),
                stream: Some(content.clone()),
            },
        }
    }
}

struct TreeDiffer<'a, 'b> {
    session: &'a ReadSession<'a>,
    source: &'a str,
    each: &'a mut EachDiff<'b>,
}

impl TreeDiffer<'_, '_> {
    fn source(&mut self, old: &DiffSide, new: &DiffSide) -> Result<(), Error> {
        self.stream(old.stream.as_ref(), new.stream.as_ref())?;
        let shared = shared(&old.runs, &new.runs);
        let mut before = TreeReader::open(self.session.reader(), &old.runs, OnDamage::Fail)?;
        let mut after = TreeReader::open(self.session.reader(), &new.runs, OnDamage::Fail)?;
        if shared.is_empty() {
            let first = before.next()?;
            let second = after.next()?;
            return self.in_step(&mut before, &mut after, None, first, second);
        }

        // Look up each path that the unshared runs mention.
        let only = |runs: &[RunRef]| -> Vec<RunRef> {
            runs.iter()
                .filter(|run| !shared.contains(&run.root))
                .cloned()
                .collect()
        };
        let mentions = [only(&old.runs), only(&new.runs)].concat();
        let mut mentions = TreeReader::open(self.session.reader(), &mentions, OnDamage::Fail)?;
        let mut compared: Option<RelPath> = None;
        while let Some(mention) = mentions.next_mention()? {
            self.session.keep()?;
            let path = &mention.entry.path;
            if compared
                .as_ref()
                .is_some_and(|directory| path.is_below(directory))
            {
                continue;
            }

            let first = before.entry_at(path)?;
            let second = after.entry_at(path)?;
            let is_directory =
                |entry: &Option<Entry>| entry.as_ref().is_some_and(Entry::is_directory);
            // Entries that a cover hides on one side may still be visible on the other side in the
            // shared runs.
            let all_below =
                mention.entry.covers() && (is_directory(&first) || is_directory(&second));

            self.compare(first.as_ref(), second.as_ref())?;
            if all_below {
                let first = before.next_below(path)?;
                let second = after.next_below(path)?;
                self.in_step(&mut before, &mut after, Some(path), first, second)?;
                compared = Some(path.clone());
            }
        }
        Ok(())
    }

    fn stream(&mut self, old: Option<&Content>, new: Option<&Content>) -> Result<(), Error> {
        let change = match (old, new) {
            (None, Some(_)) => PathChange::Added,
            (Some(_), None) => PathChange::Removed,
            (Some(old), Some(new)) if old.extents != new.extents => {
                PathChange::Changed(ChangedParts::Content)
            }
            _ => return Ok(()),
        };
        let size = |content: Option<&Content>| content.map(|content| content.size);
        self.report_change(&RelPath::root(), change, size(old), size(new))
    }

    /// Compares all entries of both sides, or those below `directory`, starting with these two.
    fn in_step(
        &mut self,
        before: &mut TreeReader<'_>,
        after: &mut TreeReader<'_>,
        directory: Option<&RelPath>,
        first: Option<Entry>,
        second: Option<Entry>,
    ) -> Result<(), Error> {
        let next = |walk: &mut TreeReader<'_>| match directory {
            Some(directory) => walk.next_below(directory),
            None => walk.next(),
        };
        let mut old = first;
        let mut new = second;
        loop {
            self.session.keep()?;
            let order = match (&old, &new) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.path.cmp(&new.path),
            };

            self.compare(
                old.as_ref().filter(|_| order.is_le()),
                new.as_ref().filter(|_| order.is_ge()),
            )?;

            if order.is_le() {
                old = next(before)?;
            }
            if order.is_ge() {
                new = next(after)?;
            }
        }
    }

    fn compare(&mut self, old: Option<&Entry>, new: Option<&Entry>) -> Result<(), Error> {
        let (path, change) = match (old, new) {
            (None, None) => return Ok(()),
            (None, Some(new)) => (&new.path, PathChange::Added),
            (Some(old), None) => (&old.path, PathChange::Removed),
            (Some(old), Some(new)) => match changed(old, new) {
                Some(what) => (&new.path, PathChange::Changed(what)),
                None => return Ok(()),
            },
        };
        let size =
            |entry: Option<&Entry>| entry.and_then(Entry::content).map(|content| content.size);
        self.report_change(path, change, size(old), size(new))
    }

    fn report_change(
        &mut self,
        path: &RelPath,
        change: PathChange,
        old_size: Option<u64>,
        new_size: Option<u64>,
    ) -> Result<(), Error> {
        (self.each)(DiffItem {
            source: self.source,
            path,
            change,
            old_size,
            new_size,
        })
    }
}

/// Returns the roots of the runs that both have in the same order, or an empty set if the orders
/// differ.
fn shared(old: &[RunRef], new: &[RunRef]) -> BTreeSet<ChunkId> {
    let roots = |runs: &[RunRef]| -> Vec<ChunkId> { runs.iter().map(|run| run.root).collect() };
    let old = roots(old);
    let new = roots(new);
    let in_both = |list: &[ChunkId], other: &[ChunkId]| -> Vec<ChunkId> {
        list.iter()
            .filter(|root| other.contains(root))
            .copied()
            .collect()
    };
    let a = in_both(&old, &new);
    let b = in_both(&new, &old);
    if a == b {
        a.into_iter().collect()
    } else {
        BTreeSet::new()
    }
}

/// Returns the difference between two entries of one path.
fn changed(old: &Entry, new: &Entry) -> Option<ChangedParts> {
    let content = match (&old.node, &new.node) {
        (Node::File { content: old, .. }, Node::File { content: new, .. }) => old != new,
        (Node::Symlink { target: old, .. }, Node::Symlink { target: new, .. }) => old != new,
        (Node::Char { device: old, .. }, Node::Char { device: new, .. })
        | (Node::Block { device: old, .. }, Node::Block { device: new, .. }) => old != new,
        (Node::Unknown { .. }, Node::Unknown { .. }) => old.node != new.node,
        _ if old.kind() != new.kind() => return Some(ChangedParts::Kind),
        _ => false,
    };
    if content {
        return Some(ChangedParts::Content);
    }

    let old = old.meta()?;
    let new = new.meta()?;
    let same = old.mode == new.mode
        && old.owner == new.owner
        && old.mtime == new.mtime
        && old.xattrs == new.xattrs;
    (!same).then_some(ChangedParts::Metadata)
}
