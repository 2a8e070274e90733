//! The rows of a status: one for each host, name and recorded path.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{CaptureStatus, SourceStatus, is_ahead};
use crate::format::{SnapshotState, SourceKind, SourceRecord};
use crate::ops::forget::SourceNames;
use crate::ops::list::SourceLacks;
use crate::ops::things::SourceThing;
use crate::repo::StoredSnapshot;
use crate::types::{Timestamp, to_u64};

/// Host, name and path; none for a stream, whose program may change.
type Key = (String, String, Option<Vec<u8>>);

/// `found`: oldest first. `name`: of these sources alone.
pub(super) fn rows(
    found: &[StoredSnapshot],
    name: Option<&str>,
    now: Timestamp,
) -> Vec<SourceStatus> {
    let by_name = BTreeSet::new();
    let names = SourceNames::new(found, &by_name);
    let captures: Vec<(&StoredSnapshot, &SourceRecord, Key)> = found
        .iter()
        .filter(|one| one.snapshot.state != SnapshotState::Checkpoint)
        .flat_map(|one| one.snapshot.sources.iter().map(move |source| (one, source)))
        .filter(|(_, source)| name.is_none_or(|name| source.name == name))
        .map(|(one, source)| (one, source, key(&names, one, source)))
        .collect();
    let moved = moved(&captures);

    let mut out: BTreeMap<Key, SourceStatus> = BTreeMap::new();
    for (one, source, mut key) in captures {
        // Each step leads to a path that was captured later than the one before.
        while let Some(next) = moved.get(&key) {
            key = next.clone();
        }
        add(&mut out, key, one, source, now);
    }
    out.into_values().collect()
}

fn key(names: &SourceNames<'_>, one: &StoredSnapshot, source: &SourceRecord) -> Key {
    let host = &one.snapshot.host;
    let path = match names.thing(host, source) {
        Some(SourceThing::Tree(path)) => Some(path),
        Some(SourceThing::Stream(_)) | None => None,
    };
    (host.clone(), source.name.clone(), path)
}

/// The paths that a later capture of their name was moved away from, and to where. One that was
/// captured again since is not among them.
fn moved(captures: &[(&StoredSnapshot, &SourceRecord, Key)]) -> BTreeMap<Key, Key> {
    let mut last: BTreeMap<&Key, usize> = BTreeMap::new();
    for (number, (_, _, key)) in captures.iter().enumerate() {
        last.insert(key, number);
    }

    let mut out = BTreeMap::new();
    for (number, (one, source, key)) in captures.iter().enumerate() {
        for path in &source.moved_from {
            let path = (!path.is_empty()).then(|| path.clone());
            let from: Key = (one.snapshot.host.clone(), source.name.clone(), path);
            if from != *key && last.get(&from).is_some_and(|&last| last < number) {
                out.insert(from, key.clone());
            }
        }
    }
    out
}

fn add(
    out: &mut BTreeMap<Key, SourceStatus>,
    key: Key,
    one: &StoredSnapshot,
    source: &SourceRecord,
    now: Timestamp,
) {
    let newest = CaptureStatus {
        snapshot: one.id,
        committed: one.committed(),
        complete: is_whole(one, source),
    };
    let good = newest.complete.then_some(newest);
    let suspect = source.suspect.clone();
    let is_alarm = suspect.is_some() && matches!(source.kind, SourceKind::Tree { .. });
    let lacks = SourceLacks::of(one, source);
    let (host, name, path) = key.clone();
    out.entry(key)
        .and_modify(|status| {
            status.snapshots += 1;
            // One from the future says nothing about age while there is another.
            let is_better = |good: &CaptureStatus| status.good.is_none() || !is_ahead(good, now);
            status.good = good.filter(is_better).or(status.good);
            (status.newest, status.suspect, status.is_alarm) = (newest, suspect.clone(), is_alarm);
            status.lacks = lacks;
        })
        .or_insert_with(|| SourceStatus {
            host,
            source: name,
            path,
            snapshots: 1,
            good,
            newest,
            suspect,
            is_alarm,
            lacks,
            lacking: None,
        });
}

fn is_whole(found: &StoredSnapshot, source: &SourceRecord) -> bool {
    source.counts.incomplete == 0
        && source.suspect.is_none()
        && match &found.snapshot.lost {
            None => true,
            // Only the first paths are named: where that is not all, it may be any source's.
            Some(lost) => {
                lost.count == to_u64(lost.paths.len())
                    && lost.paths.iter().all(|path| path.source != source.name)
            }
        }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
