//! Snapshots: listed, read (through a cache of their sealed bytes), found by name.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::objects::{open_object, seal_object, stored_limit};
use super::{RepoError, Repository};
use crate::chunk::object_hash;
use crate::format::{
    ObjectKind, SNAPSHOT_BYTES_MAX, Snapshot, SnapshotState, decode_snapshot, encode_snapshot,
};
use crate::store::{Body, Folder, ObjectKey, PutMode, StoreError, list_all};
use crate::sys::{Existing, read_bounded, write_file};
use crate::types::{LeaseId, ObjectHash, PrefixMatch, SnapshotId, Timestamp};

/// A snapshot with its name and the store's time of its commit.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSnapshot {
    pub id: SnapshotId,
    pub stored: Timestamp,
    pub snapshot: Snapshot,
}

/// Claimed times that differ from the store's by more than this are overruled by it: a day.
const CLOCK_SLACK_SECONDS: f64 = 24.0 * 3600.0;

/// A claimed time, or the store's where they are more than a day apart (PROTOCOL R26).
pub fn trusted_time(claimed: Timestamp, stored: Timestamp) -> Timestamp {
    if claimed.seconds_since(stored).abs() > CLOCK_SLACK_SECONDS { stored } else { claimed }
}

impl StoredSnapshot {
    /// The store's time of its commit; of a copy, a re-tag or a repair that of the first one's.
    pub fn committed(&self) -> Timestamp {
        self.snapshot.committed.unwrap_or(self.stored)
    }

    /// The time by which it is sorted and kept: when it was begun.
    pub fn time(&self) -> Timestamp {
        trusted_time(self.snapshot.started, self.committed())
    }

    /// A snapshot of the same content and time that is to take this one's place.
    pub fn successor(&self) -> Snapshot {
        Snapshot {
            parents: vec![self.id],
            replaces: Some(self.id),
            original: Some(self.first()),
            committed: Some(self.committed()),
            ..self.snapshot.clone()
        }
    }

    /// The first snapshot of which this one is a copy, a re-tag or a repair; itself if it is none.
    pub fn first(&self) -> SnapshotId {
        self.snapshot.original.unwrap_or(self.id)
    }
}

/// Leaves out snapshots in whose place another one of the list was put (PROTOCOL R29). Roots are all of them.
pub fn without_replaced(mut snapshots: Vec<StoredSnapshot>) -> Vec<StoredSnapshot> {
    let replaced: BTreeSet<SnapshotId> =
        snapshots.iter().filter_map(|found| found.snapshot.replaces).collect();
    snapshots.retain(|found| !replaced.contains(&found.id));
    snapshots
}

/// Which hosts' snapshots count as `latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChoice {
    Host(String),
    Any,
}

impl Repository {
    /// Reads one snapshot, checked by name and seal.
    pub fn read_snapshot(&self, id: &SnapshotId) -> Result<Snapshot, RepoError> {
        self.read_snapshot_cached(&ObjectKey::Snapshot(*id), id)
    }

    /// Reads the snapshot of this name from the cache, or from where it lies.
    pub(super) fn read_snapshot_cached(
        &self,
        key: &ObjectKey,
        id: &SnapshotId,
    ) -> Result<Snapshot, RepoError> {
        let cached = self.snapshot_cache_path(id);
        let limit = stored_limit(SNAPSHOT_BYTES_MAX);
        let bytes = match read_bounded(&cached, limit as usize) {
            Ok(bytes) if SnapshotId::from(object_hash(&bytes)) == *id => bytes,
            _ => {
                let bytes = self.store().get(key, limit)?;
                if SnapshotId::from(object_hash(&bytes)) == *id {
                    // A cache that cannot be written costs a request next time, nothing else.
                    let _ = write_file(&cached, &bytes, 0o600, Existing::Replace);
                }
                bytes
            }
        };
        let (_, plain) = open_object(self.keys(), ObjectKind::Snapshot, key, &bytes, SNAPSHOT_BYTES_MAX)?;
        decode_snapshot(&plain).map_err(|err| RepoError::bad_object(key, err))
    }

    /// Reads a snapshot that was forgotten or set aside, checked by name and seal.
    pub fn read_snapshot_at(&self, key: &ObjectKey) -> Result<Snapshot, RepoError> {
        let bytes = self.store().get(key, stored_limit(SNAPSHOT_BYTES_MAX))?;
        let (_, plain) = open_object(self.keys(), ObjectKind::Snapshot, key, &bytes, SNAPSHOT_BYTES_MAX)?;
        decode_snapshot(&plain).map_err(|err| RepoError::bad_object(key, err))
    }

    /// A snapshot from this machine's cache, checked by name and seal; none if the cache does not have it whole.
    pub fn cached_snapshot(&self, id: &SnapshotId) -> Option<Snapshot> {
        let limit = stored_limit(SNAPSHOT_BYTES_MAX) as usize;
        let bytes = read_bounded(&self.snapshot_cache_path(id), limit).ok()?;
        let key = ObjectKey::Snapshot(*id);
        let (_, plain) =
            open_object(self.keys(), ObjectKind::Snapshot, &key, &bytes, SNAPSHOT_BYTES_MAX).ok()?;
        decode_snapshot(&plain).ok()
    }

    /// Reads the snapshot whose bytes have this hash and lie under another name.
    pub fn read_misnamed_snapshot(&self, key: &ObjectKey, hash: ObjectHash) -> Result<Snapshot, RepoError> {
        let bytes = self.store().get(key, stored_limit(SNAPSHOT_BYTES_MAX))?;
        let name = ObjectKey::Snapshot(SnapshotId::from(hash));
        let (_, plain) = open_object(self.keys(), ObjectKind::Snapshot, &name, &bytes, SNAPSHOT_BYTES_MAX)?;
        decode_snapshot(&plain).map_err(|err| RepoError::bad_object(key, err))
    }

    fn snapshot_cache_path(&self, id: &SnapshotId) -> PathBuf {
        self.cache_dir().join("snapshots").join(id.to_string())
    }

    /// Names and store times of all snapshots, oldest first; nothing is read. Those that this machine remembers and that
    /// are missing are noted: see [`Repository::newly_vanished`].
    pub fn listed_snapshots(&self) -> Result<Vec<(SnapshotId, Timestamp)>, RepoError> {
        let mut out: Vec<(SnapshotId, Timestamp)> = list_all(self.store(), Folder::Snapshots)?
            .into_iter()
            .filter_map(|meta| match meta.key {
                ObjectKey::Snapshot(id) => Some((id, meta.modified)),
                _ => None,
            })
            .collect();
        out.sort_by_key(|&(id, stored)| (stored, id));
        self.compare_with_memory(&out)?;
        Ok(out)
    }

    /// All snapshots, oldest first by store time; `bad` is told of those that cannot be read.
    pub fn snapshots(
        &self,
        bad: &mut dyn FnMut(SnapshotId, RepoError),
    ) -> Result<Vec<StoredSnapshot>, RepoError> {
        self.read_listed(&mut |id, _, err| bad(id, err))
    }

    /// The same; `bad` is told their store time as well.
    fn read_listed(
        &self,
        bad: &mut dyn FnMut(SnapshotId, Timestamp, RepoError),
    ) -> Result<Vec<StoredSnapshot>, RepoError> {
        let mut out = Vec::new();
        for (id, stored) in self.listed_snapshots()? {
            match self.read_snapshot(&id) {
                Ok(snapshot) => out.push(StoredSnapshot { id, stored, snapshot }),
                // Forgotten since the listing.
                Err(RepoError::Store(err)) if err.is_not_found() => {}
                Err(err) if err.is_unavailable() => bad(id, stored, err),
                Err(err) => return Err(err),
            }
        }
        self.remember_newest(&out);
        Ok(out)
    }

    /// The newest snapshot of these hosts that was committed.
    ///
    /// # Errors
    /// The damage of one that cannot be read and was stored later: it may be the one that is meant, and an older one
    /// shall not pass for it. Of which host it is cannot be told either.
    fn latest(&self, hosts: &HostChoice) -> Result<StoredSnapshot, RepoError> {
        let mut damaged: Vec<(Timestamp, SnapshotId, RepoError)> = Vec::new();
        let all = self.read_listed(&mut |id, stored, err| damaged.push((stored, id, err)))?;
        damaged.retain(|(_, id, _)| !all.iter().any(|one| one.snapshot.replaces == Some(*id)));
        let newest_damage = damaged.into_iter().max_by_key(|&(stored, id, _)| (stored, id));
        let matches = |one: &StoredSnapshot| {
            one.snapshot.state != SnapshotState::Checkpoint
                && match hosts {
                    HostChoice::Host(host) => one.snapshot.host == *host,
                    HostChoice::Any => true,
                }
        };
        let found = without_replaced(all).into_iter().filter(matches);
        let found = found.max_by_key(|one| (one.committed(), one.stored, one.id));
        match (found, newest_damage) {
            (Some(found), Some((stored, _, damage))) if stored > found.stored => {
                Err(RepoError::LatestDamaged { damage: Box::new(damage), before: found.id })
            }
            (Some(found), _) => Ok(found),
            (None, Some((_, _, damage))) => Err(damage),
            (None, None) => {
                let why = match hosts {
                    HostChoice::Host(host) => format!("host {host} has none"),
                    HostChoice::Any => "the repository has none".into(),
                };
                Err(RepoError::NoSuchSnapshot { text: "latest".into(), why })
            }
        }
    }

    /// Finds a snapshot by id, unambiguous prefix (at least 4 hex digits), or `latest`.
    pub fn find_snapshot(&self, text: &str, hosts: &HostChoice) -> Result<StoredSnapshot, RepoError> {
        let none = |why: String| RepoError::NoSuchSnapshot { text: text.to_owned(), why };
        if text == "latest" {
            return self.latest(hosts);
        }
        if text.len() < 4 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(none("a snapshot is an id of at least 4 hex digits, or 'latest'".into()));
        }
        let listed = self.listed_snapshots()?;
        match PrefixMatch::find(&text.to_ascii_lowercase(), listed.iter().map(|&(id, _)| id)) {
            PrefixMatch::None => Err(none("the repository has none of this id".into())),
            PrefixMatch::Many(ids) => Err(none(format!("{} snapshots begin so", ids.len()))),
            PrefixMatch::One(id) => {
                let stored =
                    listed.iter().find(|one| one.0 == id).map_or_else(Timestamp::default, |one| one.1);
                Ok(StoredSnapshot { id, stored, snapshot: self.read_snapshot(&id)? })
            }
        }
    }

    /// Puts a snapshot: the commit point. Returns its name and stored size.
    pub(super) fn put_snapshot(
        &self,
        writer: LeaseId,
        snapshot: &Snapshot,
    ) -> Result<(SnapshotId, u64), RepoError> {
        let plain = encode_snapshot(snapshot);
        if plain.len() > SNAPSHOT_BYTES_MAX {
            return Err(RepoError::Refused { why: "the snapshot would be larger than 16 MiB".into() });
        }
        let (bytes, name) = seal_object(self.keys(), ObjectKind::Snapshot, writer, &plain)?;
        let id = SnapshotId::from(name);
        let key = ObjectKey::Snapshot(id);
        if let Err(err) = self.store().put(&key, Body::Bytes(&bytes), PutMode::CreateOnly) {
            if !matches!(err, StoreError::Exists { .. }) {
                // It may have landed all the same. Whoever is told that nothing was committed shall not find it
                // listed, as far as that can be had.
                let _ = self.store().delete(&key);
            }
            return Err(err.into());
        }
        Ok((id, bytes.len() as u64))
    }

    /// True if there is an object of this name in `snapshots/`.
    pub fn is_listed(&self, id: &SnapshotId) -> Result<bool, RepoError> {
        self.is_there(&ObjectKey::Snapshot(*id))
    }

    pub(super) fn is_there(&self, key: &ObjectKey) -> Result<bool, RepoError> {
        match self.store().stat(key) {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(err) => Err(err.into()),
        }
    }

    /// True if the snapshot is still a root: in `snapshots/` or in `forgotten/`.
    pub(super) fn is_root(&self, id: &SnapshotId) -> Result<bool, RepoError> {
        Ok(self.is_listed(id)? || self.is_there(&ObjectKey::Forgotten(*id))?)
    }
}
