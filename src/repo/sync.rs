//! Index segments → index. The SQLite database becomes a function of the segments that are listed
//! now ([R3](docs/protocol.md#r3)).

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Instant;

use super::objects::{open_object, seal_object, stored_limit};
use super::{RepoError, Repository};
use crate::format::{ObjectKind, SEGMENT_BYTES_MAX, decode_segment, encode_segment};
use crate::index::{FrameRow, Index, IndexError, PackState};
use crate::store::{ObjectBody, ObjectDir, ObjectKey, PutMode, list_all};
use crate::types::{LeaseId, PackId, SegmentBody, SegmentId, to_u64};

/// The result of a sync.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncReport {
    pub loaded: usize,
    /// Loaded segments that are no longer listed and that no listed segment supersedes. Their
    /// records were removed from the index.
    pub detached: usize,
    /// True if the database was damaged and was built again.
    pub rebuilt: bool,
    /// Segments that cannot be read, with the reason. Content listed only in them is unknown until
    /// `repair index` reads it from the packs.
    pub damaged: Vec<(SegmentId, String)>,
}

impl Repository {
    /// Brings the index up to date with the segments that are listed now. A damaged database is
    /// replaced by a new one.
    pub fn sync(&self) -> Result<SyncReport, RepoError> {
        self.sync_while(&mut || Ok(()))
    }

    /// Like [`Repository::sync`], but calls `go_on` before it reads each segment. An error of
    /// `go_on` ends the sync, and the next sync continues from there.
    pub fn sync_while(
        &self,
        go_on: &mut dyn FnMut() -> Result<(), RepoError>,
    ) -> Result<SyncReport, RepoError> {
        let report = match self.sync_once(go_on) {
            Err(RepoError::Index(err)) if err.is_damage() => {
                self.index().recreate(&err.to_string())?;
                SyncReport {
                    rebuilt: true,
                    ..self.sync_once(go_on)?
                }
            }
            other => other?,
        };
        self.note_baseline();
        Ok(report)
    }

    /// Queries the index. If the query finds the database damaged, the database is built again and
    /// the query repeated. A page may turn out to be damaged in the middle of a command, long after
    /// a sync found no damage.
    pub fn with_index<T>(
        &self,
        mut ask: impl FnMut(&Index) -> Result<T, IndexError>,
    ) -> Result<T, RepoError> {
        let generation = self.index().generation();
        match ask(self.index()) {
            Err(err) if err.is_damage() => {
                let _mending = self.mending.lock().unwrap_or_else(PoisonError::into_inner);
                // Another thread may have seen the damage first. Its new database is already
                // filled.
                if self.index().generation() == generation {
                    self.index().recreate(&err.to_string())?;
                    self.sync()?;
                }
                Ok(ask(self.index())?)
            }
            other => Ok(other?),
        }
    }

    /// Returns the location of a frame. If the index lacks it, the database is checked before
    /// `None` is returned.
    pub fn frame_row(&self, pack: &PackId, number: u32) -> Result<Option<FrameRow>, RepoError> {
        let row = self.with_index(|index| index.frame(pack, number))?;
        if row.is_some() {
            return Ok(row);
        }
        self.confirm_misses()?;
        self.with_index(|index| index.frame(pack, number))
    }

    /// Sets the baseline if it is not set yet. Called after each sync.
    fn note_baseline(&self) {
        // If the index cannot be read, its next user gets the error.
        if !self.baseline.is_set()
            && let Ok(gone) = self.index().packs_from(PackState::Condemned)
        {
            self.baseline.set(gone);
        }
    }

    fn sync_once(
        &self,
        go_on: &mut dyn FnMut() -> Result<(), RepoError>,
    ) -> Result<SyncReport, RepoError> {
        let index = self.index();
        // The order matters. Loaded segments were put before the listing starts, so the listing
        // shows them unless they were deleted. In the other order, a segment that another process
        // publishes into this index in between would look deleted.
        let loaded = index.loaded()?;
        let mut listed = self.listed_segments()?;
        listed.extend(self.published_lately());

        let mut report = SyncReport::default();
        for id in listed.difference(&loaded) {
            go_on()?;
            match self.read_segment(id) {
                Ok(body) => match index.load(*id, &body) {
                    // It is authentic and complete, but its content cannot be true. One client's
                    // mistake must not stop all the others.
                    Err(err @ IndexError::Refused { .. }) => {
                        report.damaged.push((*id, err.to_string()));
                        continue;
                    }
                    other => other?,
                },
                // Deleted since the listing. The segment that superseded it is listed next time.
                Err(RepoError::Store(err)) if err.is_not_found() => continue,
                Err(err) if err.is_unavailable() => {
                    report.damaged.push((*id, err.to_string()));
                    continue;
                }
                Err(err) => return Err(err),
            }
            report.loaded += 1;
        }

        for id in loaded.difference(&listed) {
            match index.superseder(id)? {
                Some(by) if listed.contains(&by) => index.transfer(id, &by)?,
                _ => {
                    index.unload(id)?;
                    report.detached += 1;
                }
            }
        }

        Ok(report)
    }

    /// Returns this process's recent segments, which a listing that lags may not show yet. Without
    /// them, a backup would lose its own chunks from the index while it runs.
    fn published_lately(&self) -> Vec<SegmentId> {
        let margin = self.lease_times().margin;
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        published.retain(|(_, since)| since.elapsed() <= margin);
        published.iter().map(|(id, _)| *id).collect()
    }

    /// Returns the names of all segments in the store.
    pub fn listed_segments(&self) -> Result<BTreeSet<SegmentId>, RepoError> {
        let listed = list_all(self.store(), ObjectDir::Index)?;
        Ok(listed
            .into_iter()
            .filter_map(|meta| match meta.key {
                ObjectKey::Segment(id) => Some(id),
                _ => None,
            })
            .collect())
    }

    /// Reads a segment and checks its name and seal.
    pub fn read_segment(&self, id: &SegmentId) -> Result<SegmentBody, RepoError> {
        let key = ObjectKey::Segment(*id);
        let bytes = self.store().get(&key, stored_limit(SEGMENT_BYTES_MAX))?;
        let (_, plain) = open_object(
            self.keys(),
            ObjectKind::Segment,
            &key,
            &bytes,
            SEGMENT_BYTES_MAX,
        )?;
        decode_segment(&plain).map_err(|err| RepoError::bad_object(&key, err))
    }

    /// Publishes a segment. Once this returns, every client that lists `index/` sees it. The rows
    /// are added to the local index after the put, never before. Returns the segment's name and
    /// stored size.
    pub fn publish_segment(
        &self,
        writer: LeaseId,
        body: &SegmentBody,
    ) -> Result<(SegmentId, u64), RepoError> {
        let (bytes, name) = seal_object(
            self.keys(),
            ObjectKind::Segment,
            writer,
            &encode_segment(body),
        )?;
        let id = SegmentId::from(name);
        self.store().put(
            &ObjectKey::Segment(id),
            ObjectBody::Bytes(&bytes),
            PutMode::CreateOnly,
        )?;

        if !self.store().properties().strong_listing {
            let mut published = self
                .published
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            published.push((id, Instant::now()));
        }

        match self.index().load(id, body) {
            // The segment is published. A damaged index is rebuilt now or by the next command.
            Err(err) if err.is_damage() => {
                self.sync()?;
            }
            other => other?,
        }

        Ok((id, to_u64(bytes.len())))
    }
}
