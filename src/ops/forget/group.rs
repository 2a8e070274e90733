//! Decides which snapshots are judged together.
//!
//! One name can denote two things: `/home/alice/data` and `/home/bob/data`, backed up by two jobs,
//! are both `data`. If they were judged together, snapshots of one would be dropped as older states
//! of the other. So the group also depends on a tree's recorded path or a stream's program.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::format::SourceRecord;
use crate::ops::things::SourceThing;
use crate::repo::StoredSnapshot;

/// Properties that snapshots must share to be judged together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    pub host: bool,
    /// The set of their sources' names.
    pub sources: bool,
    /// The set of their sources' names with each source's path (tree) or program (stream).
    pub paths: bool,
    pub tags: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self {
            host: true,
            sources: false,
            paths: true,
            tags: false,
        }
    }
}

/// The shared properties of a group's snapshots; `None` for a property that does not matter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    pub host: Option<String>,
    /// Names and, if it matters, the path or program of each; sorted.
    pub sources: Option<Vec<(String, Option<SourceThing>)>>,
    /// Sorted.
    pub tags: Option<Vec<String>>,
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = |(name, thing): &(String, Option<SourceThing>)| match thing {
            None => name.clone(),
            Some(thing) => format!("{name} ({thing})"),
        };
        let host = self.host.iter().map(|host| format!("host {host}"));
        let sources = self.sources.iter().map(|all| {
            let all: Vec<String> = all.iter().map(source).collect();
            format!("sources {}", all.join(" "))
        });
        let tags = self.tags.iter().map(|tags| match tags.as_slice() {
            [] => "no tags".to_owned(),
            tags => format!("tags {}", tags.join(" ")),
        });
        let parts: Vec<String> = host.chain(sources).chain(tags).collect();
        f.write_str(if parts.is_empty() {
            "all snapshots"
        } else {
            ""
        })?;
        f.write_str(&parts.join(", "))
    }
}

impl GroupBy {
    pub(super) fn key(self, found: &StoredSnapshot, names: &SourceNames<'_>) -> GroupKey {
        let snapshot = &found.snapshot;
        let source = |record: &SourceRecord| {
            let thing = self
                .paths
                .then(|| names.thing(&snapshot.host, record))
                .flatten();
            (record.name.clone(), thing)
        };
        let mut sources: Vec<_> = snapshot.sources.iter().map(source).collect();
        sources.sort();
        let mut tags = snapshot.tags.clone();
        tags.sort();
        tags.dedup();
        GroupKey {
            host: self.host.then(|| snapshot.host.clone()),
            sources: (self.sources || self.paths).then_some(sources),
            tags: self.tags.then_some(tags),
        }
    }
}

/// Paths and programs that the names of all sources denote.
pub(in crate::ops) struct SourceNames<'a> {
    by_name: &'a BTreeSet<String>,
    /// For each host and name, the recorded things, except relative paths.
    absolute: BTreeMap<(String, String), BTreeSet<SourceThing>>,
}

impl<'a> SourceNames<'a> {
    /// Collects the things from all snapshots. The names in `by_name` count as one thing each;
    /// their recorded paths are ignored.
    pub fn new(all: &[StoredSnapshot], by_name: &'a BTreeSet<String>) -> Self {
        let mut absolute: BTreeMap<(String, String), BTreeSet<SourceThing>> = BTreeMap::new();
        for one in all {
            for record in &one.snapshot.sources {
                let thing = SourceThing::of(&record.kind);
                if !thing.is_relative() {
                    let name = (one.snapshot.host.clone(), record.name.clone());
                    absolute.entry(name).or_default().insert(thing);
                }
            }
        }
        Self { by_name, absolute }
    }

    /// Returns the names in `by_name` under which several things were recorded: host, name and the
    /// things.
    pub fn moved(&self) -> impl Iterator<Item = (&str, &str, Vec<String>)> {
        let several = self
            .absolute
            .iter()
            .filter(|((_, name), all)| self.by_name.contains(name) && all.len() > 1);
        several.map(|((host, name), all)| {
            (
                host.as_str(),
                name.as_str(),
                all.iter().map(ToString::to_string).collect(),
            )
        })
    }

    /// Returns the thing that a record captures, or `None` if only its name counts. Earlier
    /// versions recorded relative paths: such a path counts as the only absolute path of the same
    /// name that ends with it, if there is exactly one.
    pub fn thing(&self, host: &str, record: &SourceRecord) -> Option<SourceThing> {
        if self.by_name.contains(&record.name) {
            return None;
        }
        let thing = SourceThing::of(&record.kind);
        if !thing.is_relative() {
            return Some(thing);
        }
        let all = self.absolute.get(&(host.to_owned(), record.name.clone()));
        let mut fitting = all.into_iter().flatten().filter(|one| one.fits(&thing));
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Some(one.clone()),
            _ => Some(thing),
        }
    }
}
