//! Changes to the database: loading a segment, transferring its claims, unloading it.
//!
//! Each change is one immediate transaction that keeps counters, sums and digest in step with the
//! rows. Another process may make the same change at any time: the second process to load a segment
//! finds it already loaded.
//!
//! Rows of chunks cannot be found by their pack. So the rows of a pack that no segment adds any
//! more stay at first, hidden from queries, and are deleted in one pass when they are a quarter of
//! all rows.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::chunks::{ChunkRow, insert_chunks, insert_frames};
use super::error::IndexError;
use super::packs::{PackClaim, StoredPack, claim_hash, each_id_row, id_row_hash};
use super::schema::{MetaRow, RowHash, SmallTable};
use crate::types::{ChunkClass, FrameOffset, PackId, PackInfo, SegmentBody, SegmentId, to_u64};

/// Chunks are sorted and inserted in batches of whole packs; a batch of this many rows takes 16
/// MiB.
const BATCH_ROWS: usize = if cfg!(test) { 8 } else { 256 * 1024 };

/// A write transaction and the counters that it will store.
pub(super) struct SegmentChange<'a> {
    tx: Transaction<'a>,
    path: &'a Path,
    meta: MetaRow,
    action: &'static str,
}

impl<'a> SegmentChange<'a> {
    /// Begins the transaction. Waits until no other process writes.
    pub(super) fn begin(
        conn: &'a mut Connection,
        path: &'a Path,
        action: &'static str,
    ) -> Result<Self, IndexError> {
        let tx = conn
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| IndexError::sqlite(path, action, source))?;
        let meta = MetaRow::read(&tx, path)?;
        Ok(Self {
            tx,
            path,
            meta,
            action,
        })
    }

    fn fail(&self, source: rusqlite::Error) -> IndexError {
        IndexError::sqlite(self.path, self.action, source)
    }

    fn commit(mut self) -> Result<(), IndexError> {
        self.meta.changes += 1;
        self.meta
            .write(&self.tx)
            .map_err(|source| self.fail(source))?;
        let path = self.path;
        let action = self.action;
        self.tx
            .commit()
            .map_err(|source| IndexError::sqlite(path, action, source))
    }

    /// Loads a segment if it is not loaded yet.
    pub(super) fn load(mut self, id: SegmentId, body: &SegmentBody) -> Result<(), IndexError> {
        if self.segment(&id)?.is_some() {
            return Ok(());
        }
        self.write_segment(&id, body)?;
        self.commit()
    }

    fn write_segment(&mut self, id: &SegmentId, body: &SegmentBody) -> Result<(), IndexError> {
        self.execute(
            "insert into segments (id) values (?1)",
            params![id.as_bytes()],
        )?;
        let segment = self.tx.last_insert_rowid();
        self.meta.digest = self.meta.digest.wrapping_add(id_row_hash(
            SmallTable::Segments,
            segment,
            id.as_bytes(),
        ));

        let mut rows = Vec::new();
        let mut fresh: Vec<StoredPack> = Vec::new();
        for info in &body.packs {
            let digest = content_digest(info);
            let mut pack = self.pack(&info.id)?;
            if pack.content && pack.digest != digest && !self.is_added(pack.no)? {
                // Left over from an unloaded segment that described the pack differently.
                self.delete_content(&[pack.clone()])?;
                pack = self.pack(&info.id)?;
            }

            // The first segment that describes a pack is believed while it is loaded: pack ids are
            // hashes of the whole content.
            if !pack.content {
                let index = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
                let pack = self
                    .begin_content(pack, info, body, digest, index, &mut rows)
                    .map_err(|problem| {
                        problem.unwrap_or_else(|what| IndexError::Refused { segment: *id, what })
                    })?;
                fresh.push(pack);
            }

            let number = self.pack(&info.id)?.no;
            self.add_claim(segment, number, PackClaim::Added)?;

            if rows.len() >= BATCH_ROWS {
                self.write_chunks(&mut rows, &mut fresh)?;
            }
        }
        self.write_chunks(&mut rows, &mut fresh)?;

        for (packs, claim) in [
            (&body.condemned, PackClaim::Condemned),
            (&body.dropped, PackClaim::Dropped),
        ] {
            for pack in packs {
                let number = self.pack(pack)?.no;
                self.add_claim(segment, number, claim)?;
            }
        }
        for old in &body.superseded {
            self.add_id_row(SmallTable::Superseded, segment, old.as_bytes())?;
        }
        for chunk in &body.lost {
            self.add_id_row(SmallTable::Lost, segment, chunk.as_bytes())?;
        }
        Ok(())
    }

    /// Writes a batch of chunks and stores the number of rows in each of its packs.
    fn write_chunks(
        &mut self,
        rows: &mut Vec<ChunkRow>,
        fresh: &mut Vec<StoredPack>,
    ) -> Result<(), IndexError> {
        let ids: Vec<PackId> = fresh.iter().map(|pack| pack.id).collect();
        let counts = insert_chunks(&self.tx, &mut self.meta, rows, &ids)
            .map_err(|source| IndexError::sqlite(self.path, self.action, source))?;
        for (pack, count) in fresh.drain(..).zip(counts) {
            let filled = StoredPack {
                chunk_rows: count,
                ..pack.clone()
            };
            self.replace_pack(&pack, &filled)?;
        }
        rows.clear();
        Ok(())
    }

    /// Writes a pack's row and its frames, and appends its chunks to `rows`.
    fn begin_content(
        &mut self,
        bare: StoredPack,
        info: &PackInfo,
        body: &SegmentBody,
        digest: u64,
        index: u32,
        rows: &mut Vec<ChunkRow>,
    ) -> Result<StoredPack, Result<IndexError, String>> {
        let too_much = || Err(format!("pack {} holds more than can be counted", info.id));
        let chunks = u32::try_from(info.chunk_count()).map_err(|_| too_much())?;
        let frames = u32::try_from(info.frames.len()).map_err(|_| too_much())?;

        let mut position = 0_u32;
        for (frame, frame_info) in (0_u32..).zip(&info.frames) {
            let mut offset = FrameOffset::default();
            for chunk in &frame_info.chunks {
                let id = chunk.id;
                let len = chunk.len;
                let row = ChunkRow {
                    id,
                    pack: bare.no,
                    pack_index: index,
                    frame,
                    position,
                    offset,
                    len,
                };
                rows.push(row);
                position += 1;
                offset = offset.checked_add(len).ok_or_else(too_much)?;
            }
        }

        let plain = |class| -> u64 {
            info.frames
                .iter()
                .filter(|frame| frame.class == class)
                .map(|frame| u64::from(frame.plain))
                .sum()
        };

        let base = self.meta.next_base;
        self.meta.next_base = base
            .checked_add(u64::from(chunks))
            .filter(|end| *end <= i64::MAX.cast_unsigned())
            .ok_or_else(too_much)?;

        let pack = StoredPack {
            no: bare.no,
            id: bare.id,
            content: true,
            size: info.size,
            base,
            chunks,
            chunk_rows: 0,
            frames,
            data_bytes: plain(ChunkClass::Data),
            metadata_bytes: plain(ChunkClass::Metadata),
            writer: body.writer,
            digest,
        };

        self.replace_pack(&bare, &pack).map_err(Ok)?;
        insert_frames(&self.tx, pack.no, &pack.id, &info.frames)
            .map_err(|source| Ok(self.fail(source)))?;

        Ok(pack)
    }

    /// Moves the claims of `old` to `to`, as a merge of both would, and forgets `old`.
    pub(super) fn transfer(mut self, old: &SegmentId, to: &SegmentId) -> Result<(), IndexError> {
        let Some(into) = self.segment(to)? else {
            return Err(IndexError::NotLoaded { segment: *to });
        };
        let Some(from) = self.segment(old)?.filter(|from| *from != into) else {
            return Ok(());
        };
        for (pack, what) in self.claims(from)? {
            self.remove_claim(from, pack, what)?;
            let Some(claim) = PackClaim::from_number(what) else {
                return Err(IndexError::damaged(self.path, "a claim of unknown kind"));
            };
            // A merge leaves out the rows of packs that it drops.
            if claim == PackClaim::Added && self.has_claim(into, pack, PackClaim::Dropped)? {
                continue;
            }
            self.add_claim(into, pack, claim)?;
        }
        for table in [SmallTable::Superseded, SmallTable::Lost] {
            for id in self.take_id_rows(table, from)? {
                self.add_id_row(table, into, &id)?;
            }
        }
        self.forget_segment(from, old)?;
        self.tidy()?;
        self.commit()
    }

    /// Removes the claims of a segment.
    pub(super) fn unload(mut self, id: &SegmentId) -> Result<(), IndexError> {
        let Some(segment) = self.segment(id)? else {
            return Ok(());
        };
        for (pack, what) in self.claims(segment)? {
            self.remove_claim(segment, pack, what)?;
        }
        for table in [SmallTable::Superseded, SmallTable::Lost] {
            self.take_id_rows(table, segment)?;
        }
        self.forget_segment(segment, id)?;
        self.tidy()?;
        self.commit()
    }

    /// Removes packs that no segment names, and content that no segment adds once it is a quarter
    /// of all rows.
    fn tidy(&mut self) -> Result<(), IndexError> {
        let mut idle = Vec::new();
        StoredPack::each(
            &self.tx,
            "where content = 1 and no not in (select pack from claims where what = 1)",
            |pack| idle.push(pack),
        )
        .map_err(|source| self.fail(source))?;
        let rows: u64 = idle.iter().map(|pack| u64::from(pack.chunk_rows)).sum();
        if !idle.is_empty() && rows.saturating_mul(4) >= self.meta.chunk_rows {
            self.delete_content(&idle)?;
        }
        let mut bare = Vec::new();
        StoredPack::each(
            &self.tx,
            "where content = 0 and no not in (select pack from claims)",
            |pack| {
                bare.push(pack);
            },
        )
        .map_err(|source| self.fail(source))?;
        for pack in bare {
            self.execute("delete from packs where no = ?1", [pack.no])?;
            self.meta.digest = self.meta.digest.wrapping_sub(pack.hash());
        }
        Ok(())
    }

    /// Deletes the rows of frames and chunks of these packs. Reads the whole table of chunks.
    fn delete_content(&mut self, packs: &[StoredPack]) -> Result<(), IndexError> {
        self.execute(
            "create temporary table if not exists idle (no integer primary key)",
            [],
        )?;
        self.execute("delete from idle", [])?;
        for pack in packs {
            self.execute("insert or ignore into idle values (?1)", [pack.no])?;
            self.execute("delete from frames where pack = ?1", [pack.no])?;
        }
        let (count, sum) = self
            .tx
            .query_row(
                "select count(*), coalesce(sum(mark), 0) from chunks where pack in (select no from idle)",
                [],
                |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned())),
            )
            .map_err(|source| self.fail(source))?;
        if count > 0 {
            self.execute("delete from chunks where pack in (select no from idle)", [])?;
        }
        self.meta.chunk_rows = self.meta.chunk_rows.wrapping_sub(count);
        self.meta.chunk_sum = self.meta.chunk_sum.wrapping_sub(sum);
        for pack in packs {
            self.replace_pack(pack, &StoredPack::bare(pack.no, pack.id))?;
        }
        Ok(())
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize, IndexError> {
        self.tx
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(values))
            .map_err(|source| self.fail(source))
    }

    fn segment(&self, id: &SegmentId) -> Result<Option<i64>, IndexError> {
        let mut found = None;
        self.tx
            .prepare_cached("select no from segments where id = ?1")
            .and_then(|mut statement| {
                let mut rows = statement.query([id.as_bytes().as_slice()])?;
                if let Some(row) = rows.next()? {
                    found = Some(row.get(0)?);
                }
                Ok(())
            })
            .map_err(|source| self.fail(source))?;
        Ok(found)
    }

    fn forget_segment(&mut self, no: i64, id: &SegmentId) -> Result<(), IndexError> {
        self.execute("delete from segments where no = ?1", [no])?;
        self.meta.digest =
            self.meta
                .digest
                .wrapping_sub(id_row_hash(SmallTable::Segments, no, id.as_bytes()));
        Ok(())
    }

    /// Returns the row of a pack, after inserting an empty one if there is none.
    fn pack(&mut self, id: &PackId) -> Result<StoredPack, IndexError> {
        if let Some(pack) = StoredPack::find(&self.tx, id).map_err(|source| self.fail(source))? {
            return Ok(pack);
        }
        let pack = StoredPack::bare(self.meta.next_pack, *id);
        self.meta.next_pack += 1;
        pack.write(&self.tx).map_err(|source| self.fail(source))?;
        self.meta.digest = self.meta.digest.wrapping_add(pack.hash());
        Ok(pack)
    }

    fn replace_pack(&mut self, old: &StoredPack, new: &StoredPack) -> Result<(), IndexError> {
        new.write(&self.tx).map_err(|source| self.fail(source))?;
        self.meta.digest = self
            .meta
            .digest
            .wrapping_sub(old.hash())
            .wrapping_add(new.hash());
        Ok(())
    }

    fn claims(&self, segment: i64) -> Result<Vec<(i64, i64)>, IndexError> {
        self.tx
            .prepare_cached("select pack, what from claims where segment = ?1 order by what, pack")
            .and_then(|mut statement| {
                statement
                    .query_map([segment], |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect()
            })
            .map_err(|source| self.fail(source))
    }

    fn has_claim(&self, segment: i64, pack: i64, claim: PackClaim) -> Result<bool, IndexError> {
        self.tx
            .prepare_cached("select 1 from claims where segment = ?1 and pack = ?2 and what = ?3")
            .and_then(|mut statement| statement.exists([segment, pack, claim.number()]))
            .map_err(|source| self.fail(source))
    }

    fn is_added(&self, pack: i64) -> Result<bool, IndexError> {
        self.tx
            .prepare_cached("select 1 from claims where pack = ?1 and what = 1")
            .and_then(|mut statement| statement.exists([pack]))
            .map_err(|source| self.fail(source))
    }

    fn add_claim(&mut self, segment: i64, pack: i64, claim: PackClaim) -> Result<(), IndexError> {
        let what = claim.number();
        if self.execute(
            "insert or ignore into claims values (?1, ?2, ?3)",
            [segment, pack, what],
        )? == 1
        {
            self.meta.digest = self
                .meta
                .digest
                .wrapping_add(claim_hash(segment, pack, what));
        }
        Ok(())
    }

    fn remove_claim(&mut self, segment: i64, pack: i64, what: i64) -> Result<(), IndexError> {
        self.execute(
            "delete from claims where segment = ?1 and pack = ?2 and what = ?3",
            [segment, pack, what],
        )?;
        self.meta.digest = self
            .meta
            .digest
            .wrapping_sub(claim_hash(segment, pack, what));
        Ok(())
    }

    fn add_id_row(
        &mut self,
        table: SmallTable,
        segment: i64,
        id: &[u8; 32],
    ) -> Result<(), IndexError> {
        let sql = match table {
            SmallTable::Lost => "insert or ignore into lost values (?1, ?2)",
            _ => "insert or ignore into superseded values (?1, ?2)",
        };
        if self.execute(sql, params![segment, id])? == 1 {
            self.meta.digest = self
                .meta
                .digest
                .wrapping_add(id_row_hash(table, segment, id));
        }
        Ok(())
    }

    /// Removes and returns the ids of a segment in `superseded` or `lost`.
    fn take_id_rows(
        &mut self,
        table: SmallTable,
        segment: i64,
    ) -> Result<Vec<[u8; 32]>, IndexError> {
        let (select, delete) = match table {
            SmallTable::Lost => (
                "select segment, chunk from lost",
                "delete from lost where segment = ?1",
            ),
            _ => (
                "select segment, old from superseded",
                "delete from superseded where segment = ?1",
            ),
        };
        let mut taken = Vec::new();
        each_id_row(&self.tx, select, |of, id| {
            if of == segment {
                taken.push(id);
            }
        })
        .map_err(|source| self.fail(source))?;
        self.execute(delete, [segment])?;
        for id in &taken {
            self.meta.digest = self
                .meta
                .digest
                .wrapping_sub(id_row_hash(table, segment, id));
        }
        Ok(taken)
    }
}

/// Returns the hash of a segment's description of a pack.
fn content_digest(info: &PackInfo) -> u64 {
    let mut hash = RowHash::new(SmallTable::PackContent);
    hash.number(info.size);
    for frame in &info.frames {
        let numbers = [
            u64::from(frame.class.number()),
            u64::from(frame.codec.number()),
            frame.offset.get(),
            u64::from(frame.stored),
            u64::from(frame.plain),
            to_u64(frame.chunks.len()),
        ];
        numbers.iter().for_each(|number| hash.number(*number));
        for chunk in &frame.chunks {
            hash.bytes(chunk.id.as_bytes());
            hash.number(u64::from(chunk.len));
        }
    }
    hash.finish()
}
