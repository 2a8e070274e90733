//! Snapshots: listing, reading (through a cache of their sealed bytes) and finding by name.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::objects::{open_object, seal_object, stored_limit, stored_limit_in_memory};
use super::{LeaseTimes, RepoError, Repository};
use crate::advice::{Advice, SnapshotAdvice};
use crate::chunk::object_hash;
use crate::format::{
    ObjectKind, SNAPSHOT_BYTES_MAX, Snapshot, SnapshotState, SourceRecord, decode_snapshot,
    encode_snapshot,
};
use crate::store::{ObjectBody, ObjectDir, ObjectKey, PutMode, StoreError, list_all};
use crate::sys::{ExistingFile, read_bounded, write_file};
use crate::types::{LeaseId, ObjectHash, PrefixMatch, SnapshotId, Timestamp, to_u64};

/// A snapshot with its name and its object's store time.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSnapshot {
    pub id: SnapshotId,
    /// Not sealed: a copy of the repository made by other tools has other times. This is the time
    /// at which the object was put into this store, and it does not order snapshots.
    pub stored: Timestamp,
    pub snapshot: Snapshot,
}

/// Claimed times that differ from the store's time by more than this are not trusted: one day.
const CLOCK_SLACK_SECONDS: f64 = 24.0 * 3600.0;

/// Returns a claimed time, or the store's time if they differ by more than a day
/// ([R26](docs/protocol.md#r26)).
pub fn trusted_time(claimed: Timestamp, stored: Timestamp) -> Timestamp {
    if claimed.seconds_since(stored).abs() > CLOCK_SLACK_SECONDS {
        stored
    } else {
        claimed
    }
}

/// Returns true if a snapshot landed more than `expiry` seconds after the heartbeat that it
/// records. Such a snapshot is never a parent.
pub fn landed_late(stored: Timestamp, heartbeat: Timestamp, expiry: f64) -> bool {
    stored.seconds_since(heartbeat) > expiry
}

impl StoredSnapshot {
    /// Returns the store time of its commit, as sealed in the snapshot: the writer's last heartbeat
    /// before it, at most a lease's expiry (30 min) earlier. A copy, a re-tag or a repair keeps the
    /// time of the first snapshot.
    pub fn committed(&self) -> Timestamp {
        self.snapshot.committed.unwrap_or(self.snapshot.heartbeat)
    }

    /// Returns the sort key of snapshots, newest last. It uses sealed facts only. Between equal
    /// times the host's clock decides.
    pub fn order(&self) -> (Timestamp, Timestamp, SnapshotId) {
        (self.committed(), self.snapshot.ended, self.id)
    }

    /// Returns true if the object landed more than the lease's expiry after its heartbeat. Either
    /// its writer was too slow, or the repository was copied without its files' times.
    pub fn landed_late(&self, times: &LeaseTimes) -> bool {
        landed_late(
            self.stored,
            self.snapshot.heartbeat,
            times.expiry.as_secs_f64(),
        )
    }

    /// Returns true if its sealed heartbeat does not allow the object's time: it is later than the
    /// heartbeat by more than the lease's expiry, or earlier by more than the store's clock may
    /// jump.
    pub fn times_differ(&self, times: &LeaseTimes) -> bool {
        let early = self.snapshot.heartbeat.seconds_since(self.stored);
        self.landed_late(times) || early > times.margin.as_secs_f64()
    }

    /// Returns the time by which it is sorted and kept: when it was begun.
    pub fn time(&self) -> Timestamp {
        trusted_time(self.snapshot.started, self.committed())
    }

    /// Returns when the capture of one of its sources began, by the same clock as
    /// [`StoredSnapshot::time`].
    pub fn time_of(&self, source: &SourceRecord) -> Timestamp {
        trusted_time(source.started, self.committed())
    }

    /// Returns a snapshot of the same content and time, to replace this one.
    pub fn successor(&self) -> Snapshot {
        Snapshot {
            parents: vec![self.id],
            replaces: Some(self.id),
            original: Some(self.first()),
            committed: Some(self.committed()),
            ..self.snapshot.clone()
        }
    }

    /// Returns the first snapshot of which this one is a copy, a re-tag or a repair, or its own id.
    pub fn first(&self) -> SnapshotId {
        self.snapshot.original.unwrap_or(self.id)
    }
}

/// Removes snapshots that another snapshot of the list replaces ([R29](docs/protocol.md#r29)).
/// Replaced snapshots are still roots.
pub fn without_replaced(mut snapshots: Vec<StoredSnapshot>) -> Vec<StoredSnapshot> {
    let replaced: BTreeSet<SnapshotId> = snapshots
        .iter()
        .filter_map(|found| found.snapshot.replaces)
        .collect();
    snapshots.retain(|found| !replaced.contains(&found.id));
    snapshots
}

/// The hosts whose snapshots count as `latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChoice {
    /// This host, named by the user.
    Host(String),
    /// This machine, because no host was named. If it has no snapshots and only one other host has
    /// any, readers use that host's.
    Own(String),
    Any,
}

/// The newest snapshot, and the snapshots it was chosen from.
#[derive(Debug, Clone)]
pub struct LatestSnapshot {
    pub found: StoredSnapshot,
    /// All readable committed snapshots of the repository, oldest first.
    pub all: Vec<StoredSnapshot>,
    /// True if this machine has no snapshots, none was named, and the only other host's are used.
    pub is_other_host: bool,
    /// The newest snapshot of the host or hosts, which may lack the requested source.
    pub newest: SnapshotId,
}

/// Returns the last snapshot in the chain of snapshots built on this one, or this one if there is
/// none. `all` is sorted oldest first.
///
/// A snapshot was made after its parent, even if the store's clock says otherwise. Without this
/// rule, a snapshot made while that clock was a year ahead for an hour would be `latest` for a
/// year. Copies and successors are skipped, because their parents mean something else.
pub fn last_built_on<'s>(
    first: &'s StoredSnapshot,
    all: impl DoubleEndedIterator<Item = &'s StoredSnapshot> + Clone,
) -> &'s StoredSnapshot {
    let mut last = first;
    let is_own = |one: &&StoredSnapshot| one.snapshot.committed.is_none();
    while let Some(next) = all
        .clone()
        .filter(is_own)
        .rfind(|one| one.id != last.id && one.snapshot.parents.contains(&last.id))
    {
        last = next;
    }
    last
}

/// The most items that an error lists. Further ones are shown as "…".
const NAMED_MAX: usize = 8;

/// Explains why a host, or the repository, has no latest snapshot with a source, and lists
/// alternatives. Returns true if another host has one.
fn none_of(all: &[StoredSnapshot], host: Option<&str>, source: Option<&str>) -> (String, bool) {
    let listed = |names: BTreeSet<&str>| {
        let more = if names.len() > NAMED_MAX { ", …" } else { "" };
        let shown: Vec<&str> = names.into_iter().take(NAMED_MAX).collect();
        format!("{}{more}", shown.join(", "))
    };

    if all.is_empty() {
        return ("the repository has no snapshots".to_owned(), false);
    }
    let of_host = || {
        all.iter()
            .filter(|one| host.is_none_or(|host| one.snapshot.host == host))
    };
    let has = |one: &&StoredSnapshot| source.is_none_or(|name| one.snapshot.source(name).is_some());
    let elsewhere: BTreeSet<&str> = all
        .iter()
        .filter(has)
        .map(|one| one.snapshot.host.as_str())
        .collect();

    let who = host.map_or_else(
        || "the repository".to_owned(),
        |host| format!("host {host}"),
    );

    let is_elsewhere = !elsewhere.is_empty();
    let why = match source {
        Some(source) if of_host().next().is_some() => {
            let sources = of_host()
                .flat_map(|one| &one.snapshot.sources)
                .map(|one| one.name.as_str());
            let mut why = format!(
                "{who} has no source '{source}'; it has {}",
                listed(sources.collect())
            );
            if is_elsewhere {
                why.push_str(&format!("; other hosts have it: {}", listed(elsewhere)));
            }
            why
        }
        _ if is_elsewhere => format!(
            "{who} has none; the repository has snapshots of {}",
            listed(elsewhere)
        ),
        _ => format!("{who} has none"),
    };
    (why, is_elsewhere)
}

impl Repository {
    /// Reads one snapshot and checks its name and seal.
    pub fn read_snapshot(&self, id: &SnapshotId) -> Result<Snapshot, RepoError> {
        self.read_snapshot_cached(&ObjectKey::Snapshot(*id), id)
    }

    /// Reads the snapshot of this name from the cache, or else from `key`.
    pub(super) fn read_snapshot_cached(
        &self,
        key: &ObjectKey,
        id: &SnapshotId,
    ) -> Result<Snapshot, RepoError> {
        let cached = self.snapshot_cache_path(id);
        let limit = stored_limit_in_memory(SNAPSHOT_BYTES_MAX);
        let bytes = match read_bounded(&cached, limit) {
            Ok(bytes) if SnapshotId::from(object_hash(&bytes)) == *id => bytes,
            _ => {
                let bytes = self.store().get(key, to_u64(limit))?;
                if SnapshotId::from(object_hash(&bytes)) == *id {
                    // If the cache cannot be written, the next read needs another request.
                    let _ = write_file(&cached, &bytes, 0o600, ExistingFile::Replace);
                }
                bytes
            }
        };
        let (_, plain) = open_object(
            self.keys(),
            ObjectKind::Snapshot,
            key,
            &bytes,
            SNAPSHOT_BYTES_MAX,
        )?;
        decode_snapshot(&plain).map_err(|err| RepoError::bad_object(key, err))
    }

    /// Reads a forgotten or quarantined snapshot and checks its name and seal.
    pub fn read_snapshot_at(&self, key: &ObjectKey) -> Result<Snapshot, RepoError> {
        let bytes = self.store().get(key, stored_limit(SNAPSHOT_BYTES_MAX))?;
        let (_, plain) = open_object(
            self.keys(),
            ObjectKind::Snapshot,
            key,
            &bytes,
            SNAPSHOT_BYTES_MAX,
        )?;
        decode_snapshot(&plain).map_err(|err| RepoError::bad_object(key, err))
    }

    /// Returns a snapshot from this machine's cache, checked by name and seal, or `None` if the
    /// cache does not have it intact.
    pub fn cached_snapshot(&self, id: &SnapshotId) -> Option<Snapshot> {
        let limit = stored_limit_in_memory(SNAPSHOT_BYTES_MAX);
        let bytes = read_bounded(&self.snapshot_cache_path(id), limit).ok()?;
        let key = ObjectKey::Snapshot(*id);
        let (_, plain) = open_object(
            self.keys(),
            ObjectKind::Snapshot,
            &key,
            &bytes,
            SNAPSHOT_BYTES_MAX,
        )
        .ok()?;
        decode_snapshot(&plain).ok()
    }

    /// Reads a snapshot that is stored under the wrong name. `hash` is the hash of its bytes.
    pub fn read_misnamed_snapshot(
        &self,
        key: &ObjectKey,
        hash: ObjectHash,
    ) -> Result<Snapshot, RepoError> {
        let bytes = self.store().get(key, stored_limit(SNAPSHOT_BYTES_MAX))?;
        let name = ObjectKey::Snapshot(SnapshotId::from(hash));
        let (_, plain) = open_object(
            self.keys(),
            ObjectKind::Snapshot,
            &name,
            &bytes,
            SNAPSHOT_BYTES_MAX,
        )?;
        decode_snapshot(&plain).map_err(|err| RepoError::bad_object(key, err))
    }

    fn snapshot_cache_path(&self, id: &SnapshotId) -> PathBuf {
        self.cache_dir().join("snapshots").join(id.to_string())
    }

    /// Returns the names and store times of all snapshots, sorted by these times. No snapshot is
    /// read. Remembered snapshots that are missing are noted: see [`Repository::newly_vanished`].
    pub fn listed_snapshots(&self) -> Result<Vec<(SnapshotId, Timestamp)>, RepoError> {
        let mut out: Vec<(SnapshotId, Timestamp)> = list_all(self.store(), ObjectDir::Snapshots)?
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

    /// Returns all snapshots, oldest first by their sealed times. Calls `bad` for each one that
    /// cannot be read.
    pub fn snapshots(
        &self,
        bad: &mut dyn FnMut(SnapshotId, RepoError),
    ) -> Result<Vec<StoredSnapshot>, RepoError> {
        self.read_listed(&mut |id, _, err| bad(id, err))
    }

    /// Like [`Repository::snapshots`], but also passes the store time to `bad`.
    fn read_listed(
        &self,
        bad: &mut dyn FnMut(SnapshotId, Timestamp, RepoError),
    ) -> Result<Vec<StoredSnapshot>, RepoError> {
        let mut out = Vec::new();
        for (id, stored) in self.listed_snapshots()? {
            match self.read_snapshot(&id) {
                Ok(snapshot) => out.push(StoredSnapshot {
                    id,
                    stored,
                    snapshot,
                }),
                // Forgotten since the listing.
                Err(RepoError::Store(err)) if err.is_not_found() => {}
                Err(err) if err.is_unavailable() => bad(id, stored, err),
                Err(err) => return Err(err),
            }
        }
        self.remember_newest(&out);
        out.sort_by_key(StoredSnapshot::order);
        Ok(out)
    }

    /// Returns the newest committed snapshot of these hosts; with `source`, the newest that has it.
    ///
    /// # Errors
    /// The damage of an unreadable snapshot that may be newer, because an older one must not pass
    /// for the requested one. Its commit time and its host are sealed, so only its object's time is
    /// compared, and it counts for every host. If a copy lost the readable snapshot's object time,
    /// the comparison proves nothing, and the damage is returned too.
    pub fn latest(
        &self,
        hosts: &HostChoice,
        source: Option<&str>,
    ) -> Result<LatestSnapshot, RepoError> {
        let mut damaged: Vec<(Timestamp, SnapshotId, RepoError)> = Vec::new();
        let all = self.read_listed(&mut |id, stored, err| damaged.push((stored, id, err)))?;
        damaged.retain(|(_, id, _)| !all.iter().any(|one| one.snapshot.replaces == Some(*id)));
        let newest_damage = damaged
            .into_iter()
            .max_by_key(|&(stored, id, _)| (stored, id));
        let mut all = without_replaced(all);
        all.retain(|one| one.snapshot.state != SnapshotState::Checkpoint);

        let there: BTreeSet<&str> = all.iter().map(|one| one.snapshot.host.as_str()).collect();
        let (host, is_other_host) = match hosts {
            HostChoice::Any => (None, false),
            HostChoice::Own(own) if !there.contains(own.as_str()) && there.len() == 1 => {
                (there.first().copied(), true)
            }
            HostChoice::Own(host) | HostChoice::Host(host) => (Some(host.as_str()), false),
        };
        let of_host = || {
            all.iter()
                .filter(|one| host.is_none_or(|host| one.snapshot.host == host))
        };
        let newest = of_host().next_back();
        let has =
            |one: &&StoredSnapshot| source.is_none_or(|name| one.snapshot.source(name).is_some());
        let found = of_host()
            .rfind(has)
            .map(|one| last_built_on(one, of_host().filter(has)));
        let newest = newest.map(|one| last_built_on(one, of_host()));

        let times = self.lease_times();
        let (found, newest) = match (found, newest, newest_damage) {
            (Some(found), _, Some((stored, _, damage)))
                if stored > found.stored || found.times_differ(&times) =>
            {
                return Err(RepoError::LatestDamaged {
                    damage: Box::new(damage),
                    before: found.id,
                });
            }
            (Some(found), Some(newest), _) => (found.clone(), newest.id),
            (_, _, Some((_, _, damage))) => return Err(damage),
            _ => {
                let text =
                    source.map_or_else(|| "latest".to_owned(), |source| format!("latest:{source}"));
                let (why, is_elsewhere) = none_of(&all, host, source);
                // Without another host, a choice of hosts does not find the source.
                let is_of_use = source.is_none() || is_elsewhere;
                return Err(RepoError::NoSuchSnapshot {
                    text,
                    why,
                    advice: is_of_use.then_some(Advice::Snapshot(SnapshotAdvice::ChooseHost)),
                });
            }
        };

        Ok(LatestSnapshot {
            found,
            all,
            is_other_host,
            newest,
        })
    }

    /// Finds a snapshot by id, by unambiguous prefix (at least 4 hex digits), or by `latest`, which
    /// never selects another host's.
    pub fn find_snapshot(
        &self,
        text: &str,
        hosts: &HostChoice,
    ) -> Result<StoredSnapshot, RepoError> {
        let none_but = |why: String, advice| RepoError::NoSuchSnapshot {
            text: text.to_owned(),
            why,
            advice: Some(advice),
        };
        let none = |why| none_but(why, Advice::Snapshot(SnapshotAdvice::ChooseSnapshot));
        if text == "latest" {
            let hosts = match hosts {
                HostChoice::Own(host) => HostChoice::Host(host.clone()),
                chosen => chosen.clone(),
            };
            return Ok(self.latest(&hosts, None)?.found);
        }
        if text.len() < 4 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(none(
                "a snapshot is an id of at least 4 hex digits, or 'latest'".into(),
            ));
        }

        let listed = self.listed_snapshots()?;
        let prefix = text.to_ascii_lowercase();
        match PrefixMatch::find(&prefix, listed.iter().map(|&(id, _)| id)) {
            PrefixMatch::None => {
                let (why, advice) = self.not_listed(&prefix, listed.len())?;
                Err(none_but(why, advice))
            }
            PrefixMatch::Many(ids) => {
                let shown: Vec<String> =
                    ids.iter().take(NAMED_MAX).map(SnapshotId::short).collect();
                let more = if ids.len() > NAMED_MAX { ", …" } else { "" };
                Err(none(format!(
                    "{} ids begin with it: {}{more}",
                    ids.len(),
                    shown.join(", ")
                )))
            }
            PrefixMatch::One(id) => {
                let stored = listed
                    .iter()
                    .find(|one| one.0 == id)
                    .map_or_else(Timestamp::default, |one| one.1);
                Ok(StoredSnapshot {
                    id,
                    stored,
                    snapshot: self.read_snapshot(&id)?,
                })
            }
        }
    }

    /// Explains why a prefix matches no listed snapshot; the snapshot may be forgotten.
    fn not_listed(&self, prefix: &str, listed: usize) -> Result<(String, Advice), RepoError> {
        let forgotten = list_all(self.store(), ObjectDir::Forgotten)?;
        let is_forgotten = forgotten.iter().any(|meta| match &meta.key {
            ObjectKey::Forgotten(id) => id.to_string().starts_with(prefix),
            _ => false,
        });
        if is_forgotten {
            let id = prefix.to_owned();
            return Ok((
                "it was forgotten".to_owned(),
                Advice::Snapshot(SnapshotAdvice::Undelete { id }),
            ));
        }

        let why = match listed {
            0 => "the repository has no snapshots".to_owned(),
            1 => "the id of the repository's one snapshot does not begin with it".to_owned(),
            count => {
                format!("none of the repository's {count} snapshots has an id that begins with it")
            }
        };
        Ok((why, Advice::Snapshot(SnapshotAdvice::ChooseSnapshot)))
    }

    /// Puts a snapshot, which is the commit point. Returns its name and stored size.
    pub(super) fn put_snapshot(
        &self,
        writer: LeaseId,
        snapshot: &Snapshot,
    ) -> Result<(SnapshotId, u64), RepoError> {
        let plain = encode_snapshot(snapshot);
        if plain.len() > SNAPSHOT_BYTES_MAX {
            return Err(RepoError::refused(
                "the snapshot would be larger than 16 MiB",
            ));
        }
        let (bytes, name) = seal_object(self.keys(), ObjectKind::Snapshot, writer, &plain)?;
        let id = SnapshotId::from(name);
        let key = ObjectKey::Snapshot(id);
        if let Err(err) = self
            .store()
            .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
        {
            if !matches!(err, StoreError::Exists { .. }) {
                // The snapshot may have landed. The caller reports that nothing was committed, so
                // try to make sure that it is not listed.
                let _ = self.store().delete(&key);
            }
            return Err(err.into());
        }
        Ok((id, to_u64(bytes.len())))
    }

    /// Returns true if `snapshots/` contains this snapshot.
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

    /// Returns true if the snapshot is still a root: in `snapshots/` or in `forgotten/`.
    pub(super) fn is_root(&self, id: &SnapshotId) -> Result<bool, RepoError> {
        Ok(self.is_listed(id)? || self.is_there(&ObjectKey::Forgotten(*id))?)
    }
}
