//! Index segments → index: the SQLite database becomes a function of the segments listed now
//! (PROTOCOL R3).

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Instant;

use super::objects::{open_object, seal_object, stored_limit};
use super::{RepoError, Repository};
use crate::format::{ObjectKind, SEGMENT_BYTES_MAX, decode_segment, encode_segment};
use crate::index::{FrameRow, Index, IndexError};
use crate::store::{Body, ObjectDir, ObjectKey, PutMode, list_all};
use crate::types::{LeaseId, PackId, SegmentBody, SegmentId};

/// What a sync did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncReport {
    pub loaded: usize,
    /// Loaded segments that were gone and whose claims went with them.
    pub detached: usize,
    /// Why the database was thrown away and built anew, if it was.
    pub rebuilt: bool,
    /// Segments that cannot be read, and why. What only they tell of is not known; `repair index`
    /// learns it from the packs.
    pub damaged: Vec<(SegmentId, String)>,
}

impl Repository {
    /// Brings the index up to date with the segments listed now. Damage in the database is met with
    /// a new one.
    pub fn sync(&self) -> Result<SyncReport, RepoError> {
        self.sync_while(&mut || Ok(()))
    }

    /// [`Repository::sync`] that asks `go_on` before it reads each segment; an error of it ends the
    /// work, and the next sync goes on from there.
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

    /// Asks the index. Damage that the question meets is met with a new database, and it is asked
    /// again: a page can prove damaged in the middle of a command, long after the sync that found
    /// all in order.
    pub fn ask_index<T>(
        &self,
        mut ask: impl FnMut(&Index) -> Result<T, IndexError>,
    ) -> Result<T, RepoError> {
        let generation = self.index().generation();
        match ask(self.index()) {
            Err(err) if err.is_damage() => {
                let _mending = self.mending.lock().unwrap_or_else(PoisonError::into_inner);
                // Another thread may have met it first: its new database is full by now.
                if self.index().generation() == generation {
                    self.index().recreate(&err.to_string())?;
                    self.sync()?;
                }
                Ok(ask(self.index())?)
            }
            other => Ok(other?),
        }
    }

    /// Where a frame lies. That the index lacks it is believed only after the database was checked.
    pub fn frame_row(&self, pack: &PackId, number: u32) -> Result<Option<FrameRow>, RepoError> {
        let row = self.ask_index(|index| index.frame(pack, number))?;
        if row.is_some() {
            return Ok(row);
        }
        self.make_sure_of_misses()?;
        self.ask_index(|index| index.frame(pack, number))
    }

    fn sync_once(
        &self,
        go_on: &mut dyn FnMut() -> Result<(), RepoError>,
    ) -> Result<SyncReport, RepoError> {
        let index = self.index();
        // In this order: what is loaded was put before, and a later listing shows it unless it was
        // deleted. The other way a segment that somebody else publishes into this index meanwhile
        // would look like a deleted one.
        let loaded = index.loaded()?;
        let mut listed = self.listed_segments()?;
        listed.extend(self.published_lately());
        let mut report = SyncReport::default();
        for id in listed.difference(&loaded) {
            go_on()?;
            match self.read_segment(id) {
                Ok(body) => match index.load(*id, &body) {
                    // Sealed and whole, yet it cannot be true: one client's mistake must not stop
                    // all others.
                    Err(err @ IndexError::Refused { .. }) => {
                        report.damaged.push((*id, err.to_string()));
                        continue;
                    }
                    other => other?,
                },
                // Deleted since the listing: whoever superseded it is listed next time.
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

    /// Segments of our own that a listing that lags behind need not show yet: without them our own
    /// chunks would be forgotten in the middle of a backup.
    fn published_lately(&self) -> Vec<SegmentId> {
        let margin = self.lease_times.margin;
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        published.retain(|(_, since)| since.elapsed() <= margin);
        published.iter().map(|(id, _)| *id).collect()
    }

    /// The names of all segments in the store.
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

    /// Reads a segment, checked by name and seal.
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

    /// Publishes a segment: once this returns, every client that lists `index/` learns of it. The
    /// rows enter our own index behind the put, never before.
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
            Body::Bytes(&bytes),
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
            // The segment is published; a broken cache is mended, or mended by the next command.
            Err(err) if err.is_damage() => {
                self.sync()?;
            }
            other => other?,
        }
        Ok((id, bytes.len() as u64))
    }
}
