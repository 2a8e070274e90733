//! Snapshots: listed, read (through a cache of their sealed bytes), found by name.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::objects::{open_object, seal_object, stored_limit};
use super::{LeaseTimes, RepoError, Repository, landed_late};
use crate::chunk::object_hash;
use crate::format::{
    ObjectKind, SNAPSHOT_BYTES_MAX, Snapshot, SnapshotState, SourceRecord, decode_snapshot,
    encode_snapshot,
};
use crate::store::{Body, ObjectDir, ObjectKey, PutMode, StoreError, list_all};
use crate::sys::{Existing, read_bounded, write_file};
use crate::types::{LeaseId, ObjectHash, PrefixMatch, SnapshotId, Timestamp};

/// A snapshot with its name and the store's time of its object.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSnapshot {
    pub id: SnapshotId,
    /// Not sealed: a copy of the repository by other tools has other times. It says when this
    /// object was put into this store, and nothing about the order of snapshots.
    pub stored: Timestamp,
    pub snapshot: Snapshot,
}

/// Claimed times that differ from the store's by more than this are overruled by it: a day.
const CLOCK_SLACK_SECONDS: f64 = 24.0 * 3600.0;

/// A claimed time, or the store's where they are more than a day apart (PROTOCOL R26).
pub fn trusted_time(claimed: Timestamp, stored: Timestamp) -> Timestamp {
    if claimed.seconds_since(stored).abs() > CLOCK_SLACK_SECONDS {
        stored
    } else {
        claimed
    }
}

impl StoredSnapshot {
    /// The store's time of its commit, as it is sealed in the snapshot: the writer's last heartbeat
    /// before it, at most a lease's expiry (30 min) earlier. Of a copy, a re-tag or a repair that
    /// of the first one's.
    pub fn committed(&self) -> Timestamp {
        self.snapshot.committed.unwrap_or(self.snapshot.heartbeat)
    }

    /// What orders snapshots, the newest last: sealed facts alone. Where two have one time, the
    /// host's clock decides.
    pub fn order(&self) -> (Timestamp, Timestamp, SnapshotId) {
        (self.committed(), self.snapshot.ended, self.id)
    }

    /// True if the object landed more than the lease's expiry after its heartbeat: its writer was
    /// too slow, or the repository was copied without its files' times.
    pub fn landed_late(&self, times: &LeaseTimes) -> bool {
        landed_late(
            self.stored,
            self.snapshot.heartbeat,
            times.expiry.as_secs_f64(),
        )
    }

    /// True if the object's time is not one that its sealed heartbeat allows: later than the
    /// lease's expiry after it, or earlier by more than the store's clock may jump.
    pub fn times_differ(&self, times: &LeaseTimes) -> bool {
        let early = self.snapshot.heartbeat.seconds_since(self.stored);
        self.landed_late(times) || early > times.margin.as_secs_f64()
    }

    /// The time by which it is sorted and kept: when it was begun.
    pub fn time(&self) -> Timestamp {
        trusted_time(self.snapshot.started, self.committed())
    }

    /// When the capture of one of its sources began, by the clock that its own time is taken from.
    pub fn time_of(&self, source: &SourceRecord) -> Timestamp {
        trusted_time(source.started, self.committed())
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

/// Leaves out snapshots in whose place another one of the list was put (PROTOCOL R29). Roots are
/// all of them.
pub fn without_replaced(mut snapshots: Vec<StoredSnapshot>) -> Vec<StoredSnapshot> {
    let replaced: BTreeSet<SnapshotId> = snapshots
        .iter()
        .filter_map(|found| found.snapshot.replaces)
        .collect();
    snapshots.retain(|found| !replaced.contains(&found.id));
    snapshots
}

/// Which hosts' snapshots count as `latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChoice {
    /// This one's, since it was named.
    Host(String),
    /// This machine's, since none was named. Whoever reads takes another host's if it is the only
    /// one that has any.
    Own(String),
    Any,
}

/// The newest snapshot, and what it was chosen from.
#[derive(Debug, Clone)]
pub struct Latest {
    pub found: StoredSnapshot,
    /// All committed ones of the repository that can be read, oldest first.
    pub all: Vec<StoredSnapshot>,
    /// This machine's own was meant, which has none, and only one other host has any.
    pub is_other_host: bool,
    /// The newest of the host or hosts, which need not have the source that was asked for.
    pub newest: SnapshotId,
}

/// The last of the snapshots that were built on this one, or on those; itself if none was. `all`:
/// oldest first.
///
/// What names a snapshot as its parent came after it, whatever the store's clock said: one that was
/// a year ahead for an hour would else make `latest` a snapshot that is never overtaken for a year.
/// Copies and successors of others have parents of another kind, and are passed over.
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

/// Things that an error names before it says that there are more.
const NAMED_MAX: usize = 8;

/// Why there is no latest snapshot of a host, or of all, that has a source; and what there is.
fn none_of(all: &[StoredSnapshot], host: Option<&str>, source: Option<&str>) -> String {
    let listed = |names: BTreeSet<&str>| {
        let more = if names.len() > NAMED_MAX { ", …" } else { "" };
        let shown: Vec<&str> = names.into_iter().take(NAMED_MAX).collect();
        format!("{}{more}", shown.join(", "))
    };
    if all.is_empty() {
        return "the repository has no snapshots".to_owned();
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
    match source {
        Some(source) if of_host().next().is_some() => {
            let sources = of_host()
                .flat_map(|one| &one.snapshot.sources)
                .map(|one| one.name.as_str());
            let mut why = format!(
                "{who} has no source '{source}'; it has {}",
                listed(sources.collect())
            );
            if !elsewhere.is_empty() {
                why.push_str(&format!("; --host takes that of {}", listed(elsewhere)));
            }
            why
        }
        _ if elsewhere.is_empty() => format!("{who} has none"),
        _ => format!(
            "{who} has none; the repository has some of {}: --host names one, --any-host takes the newest of all",
            listed(elsewhere)
        ),
    }
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
        let (_, plain) = open_object(
            self.keys(),
            ObjectKind::Snapshot,
            key,
            &bytes,
            SNAPSHOT_BYTES_MAX,
        )?;
        decode_snapshot(&plain).map_err(|err| RepoError::bad_object(key, err))
    }

    /// Reads a snapshot that was forgotten or set aside, checked by name and seal.
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

    /// A snapshot from this machine's cache, checked by name and seal; none if the cache does not
    /// have it whole.
    pub fn cached_snapshot(&self, id: &SnapshotId) -> Option<Snapshot> {
        let limit = stored_limit(SNAPSHOT_BYTES_MAX) as usize;
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

    /// Reads the snapshot whose bytes have this hash and lie under another name.
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

    /// Names and store times of all snapshots, in the order of these times; nothing is read. Those
    /// that this machine remembers and that are missing are noted: see
    /// [`Repository::newly_vanished`].
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

    /// All snapshots, oldest first by what is sealed in them; `bad` is told of those that cannot be
    /// read.
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

    /// The newest snapshot of these hosts that was committed; with `source` the newest that has it.
    ///
    /// # Errors
    /// The damage of one that cannot be read and may be newer: it may be the one that is meant, and
    /// an older one shall not pass for it. When it was committed is sealed in it, so only its
    /// object's time tells, and that tells nothing where the other's time was lost by a copy. Of
    /// which host it is cannot be told either.
    pub fn latest(&self, hosts: &HostChoice, source: Option<&str>) -> Result<Latest, RepoError> {
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
                return Err(RepoError::NoSuchSnapshot {
                    text,
                    why: none_of(&all, host, source),
                });
            }
        };
        Ok(Latest {
            found,
            all,
            is_other_host,
            newest,
        })
    }

    /// Finds a snapshot by id, unambiguous prefix (at least 4 hex digits), or `latest`, which is
    /// never another host's.
    pub fn find_snapshot(
        &self,
        text: &str,
        hosts: &HostChoice,
    ) -> Result<StoredSnapshot, RepoError> {
        let none = |why: String| RepoError::NoSuchSnapshot {
            text: text.to_owned(),
            why,
        };
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
            PrefixMatch::None => Err(none(self.not_listed(&prefix, listed.len())?)),
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

    /// Why a prefix names no snapshot: perhaps it was forgotten.
    fn not_listed(&self, prefix: &str, listed: usize) -> Result<String, RepoError> {
        let forgotten = list_all(self.store(), ObjectDir::Forgotten)?;
        let is_forgotten = forgotten.iter().any(|meta| match &meta.key {
            ObjectKey::Forgotten(id) => id.to_string().starts_with(prefix),
            _ => false,
        });
        Ok(match (is_forgotten, listed) {
            (true, _) => format!("it was forgotten; 'icecore undelete {prefix}' brings it back"),
            (false, 0) => "the repository has no snapshots".to_owned(),
            (false, 1) => {
                "the id of the repository's one snapshot does not begin with it".to_owned()
            }
            (false, count) => {
                format!("none of the repository's {count} snapshots has an id that begins with it")
            }
        })
    }

    /// Puts a snapshot: the commit point. Returns its name and stored size.
    pub(super) fn put_snapshot(
        &self,
        writer: LeaseId,
        snapshot: &Snapshot,
    ) -> Result<(SnapshotId, u64), RepoError> {
        let plain = encode_snapshot(snapshot);
        if plain.len() > SNAPSHOT_BYTES_MAX {
            return Err(RepoError::Refused {
                why: "the snapshot would be larger than 16 MiB".into(),
            });
        }
        let (bytes, name) = seal_object(self.keys(), ObjectKind::Snapshot, writer, &plain)?;
        let id = SnapshotId::from(name);
        let key = ObjectKey::Snapshot(id);
        if let Err(err) = self
            .store()
            .put(&key, Body::Bytes(&bytes), PutMode::CreateOnly)
        {
            if !matches!(err, StoreError::Exists { .. }) {
                // It may have landed all the same. Whoever is told that nothing was committed shall
                // not find it listed, as far as that can be had.
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
