//! The small tables in memory: packs with their states, segments, superseded segments and lost
//! chunks.
//!
//! A view is read in one transaction, its sum is compared with the digest, and it is kept until any
//! process changes the database's counter of changes. 100,000 packs take about 18 MB and 0.1 s to
//! read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use rusqlite::{Connection, Row, params};

use super::error::IndexError;
use super::rows::{PackRow, PackState};
use super::schema::{MetaRow, RowHash, SmallTable};
use crate::types::{ChunkId, LeaseId, PackId, SegmentId};

/// The claim of a segment about a pack. The numbers are those of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PackClaim {
    Added = 1,
    Condemned = 2,
    Dropped = 3,
}

impl PackClaim {
    /// Returns the number in the database: the discriminant, which only a cast gives.
    pub(super) const fn number(self) -> i64 {
        self as i64
    }

    pub(super) fn from_number(number: i64) -> Option<Self> {
        [Self::Added, Self::Condemned, Self::Dropped]
            .into_iter()
            .find(|claim| claim.number() == number)
    }
}

/// A row of `packs`.
#[derive(Debug, Clone)]
pub(super) struct StoredPack {
    pub(super) no: i64,
    pub(super) id: PackId,
    /// True if it has rows in `frames` and `chunks`. Otherwise all fields below are zero.
    pub(super) content: bool,
    pub(super) size: u64,
    pub(super) base: u64,
    pub(super) chunks: u32,
    /// Rows in `chunks`: fewer than `chunks` if the pack holds a chunk twice.
    pub(super) chunk_rows: u32,
    pub(super) frames: u32,
    pub(super) data_bytes: u64,
    pub(super) metadata_bytes: u64,
    pub(super) writer: LeaseId,
    /// Hash of the pack's size, frames and chunks as the segment describes them.
    pub(super) digest: u64,
}

impl StoredPack {
    const COLUMNS: &str = "no, id, content, size, base, chunks, chunk_rows, frames, data_bytes, metadata_bytes, writer, digest";

    /// Returns a pack of which only the id is known.
    pub(super) fn bare(no: i64, id: PackId) -> Self {
        Self {
            no,
            id,
            content: false,
            size: 0,
            base: 0,
            chunks: 0,
            chunk_rows: 0,
            frames: 0,
            data_bytes: 0,
            metadata_bytes: 0,
            writer: LeaseId::new([0; LeaseId::LEN]),
            digest: 0,
        }
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let number = |i| row.get::<_, i64>(i).map(i64::cast_unsigned);
        Ok(Self {
            no: row.get(0)?,
            id: PackId::new(row.get(1)?),
            content: row.get(2)?,
            size: number(3)?,
            base: number(4)?,
            chunks: row.get(5)?,
            chunk_rows: row.get(6)?,
            frames: row.get(7)?,
            data_bytes: number(8)?,
            metadata_bytes: number(9)?,
            writer: LeaseId::new(row.get(10)?),
            digest: number(11)?,
        })
    }

    pub(super) fn find(conn: &Connection, id: &PackId) -> rusqlite::Result<Option<Self>> {
        let sql = format!("select {} from packs where id = ?1", Self::COLUMNS);
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query([id.as_bytes().as_slice()])?;
        rows.next()?.map(Self::from_row).transpose()
    }

    pub(super) fn each(
        conn: &Connection,
        condition: &str,
        mut each: impl FnMut(Self),
    ) -> rusqlite::Result<()> {
        let mut statement =
            conn.prepare_cached(&format!("select {} from packs {condition}", Self::COLUMNS))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(Self::from_row(row)?);
        }
        Ok(())
    }

    /// Writes the row, replacing an older one of the same number.
    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.prepare_cached("delete from packs where no = ?1")?
            .execute([self.no])?;
        conn.prepare_cached(
            "insert into packs values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            self.no,
            self.id.as_bytes(),
            self.content,
            self.size.cast_signed(),
            self.base.cast_signed(),
            self.chunks,
            self.chunk_rows,
            self.frames,
            self.data_bytes.cast_signed(),
            self.metadata_bytes.cast_signed(),
            self.writer.as_bytes(),
            self.digest.cast_signed(),
        ])
        .map(|_| ())
    }

    pub(super) fn hash(&self) -> u64 {
        let mut hash = RowHash::new(SmallTable::Packs);
        hash.bytes(self.id.as_bytes());
        hash.bytes(self.writer.as_bytes());
        let numbers = [
            self.no.cast_unsigned(),
            u64::from(self.content),
            self.size,
            self.base,
            u64::from(self.chunks),
            u64::from(self.chunk_rows),
            u64::from(self.frames),
            self.data_bytes,
            self.metadata_bytes,
            self.digest,
        ];
        numbers.iter().for_each(|number| hash.number(*number));
        hash.finish()
    }
}

/// Returns the hash of a row of `segments`, or of a row (segment, id) of `superseded` or `lost`.
pub(super) fn id_row_hash(table: SmallTable, segment: i64, id: &[u8; 32]) -> u64 {
    let mut hash = RowHash::new(table);
    hash.number(segment.cast_unsigned());
    hash.bytes(id);
    hash.finish()
}

/// Returns the hash of a row of `claims`.
pub(super) fn claim_hash(segment: i64, pack: i64, what: i64) -> u64 {
    let mut hash = RowHash::new(SmallTable::Claims);
    [segment, pack, what]
        .iter()
        .for_each(|number| hash.number(number.cast_unsigned()));
    hash.finish()
}

/// A pack in a view.
pub(super) struct ViewPack {
    pub(super) row: PackRow,
    pub(super) data_bytes: u64,
    pub(super) metadata_bytes: u64,
    /// Content of the pack in the database, also while no segment adds it.
    pub(super) content_chunks: u32,
    pub(super) content_rows: u32,
    pub(super) content_frames: u32,
}

/// The claims of a loaded segment about packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSummary {
    pub segment: SegmentId,
    /// Each list is sorted by id.
    pub added: Vec<PackId>,
    pub condemned: Vec<PackId>,
    pub dropped: Vec<PackId>,
}

/// All small tables at one moment.
#[derive(Default)]
pub(super) struct PackView {
    pub(super) meta: MetaRow,
    pub(super) segments: BTreeMap<SegmentId, i64>,
    pub(super) superseders: HashMap<SegmentId, SegmentId>,
    pub(super) lost: BTreeSet<ChunkId>,
    /// Segment number, pack number and claim.
    claims: Vec<(i64, i64, PackClaim)>,
    packs: HashMap<i64, ViewPack>,
    numbers: HashMap<PackId, i64>,
}

impl PackView {
    /// Reads all small tables. To be called within a transaction.
    pub(super) fn read(conn: &Connection, path: &Path) -> Result<Self, IndexError> {
        let fail = |source| IndexError::sqlite(path, "read the list of packs", source);
        let contradiction = |what: &str| IndexError::damaged(path, what);
        let mut view = Self {
            meta: MetaRow::read(conn, path)?,
            ..Self::default()
        };
        let mut digest = 0_u64;
        let mut twice = false;

        let mut names: HashMap<i64, SegmentId> = HashMap::new();
        each_id_row(conn, "select no, id from segments", |no, id| {
            digest = digest.wrapping_add(id_row_hash(SmallTable::Segments, no, &id));
            names.insert(no, SegmentId::new(id));
            twice |= view.segments.insert(SegmentId::new(id), no).is_some();
        })
        .map_err(fail)?;

        StoredPack::each(conn, "", |pack| {
            digest = digest.wrapping_add(pack.hash());
            twice |= view.numbers.insert(pack.id, pack.no).is_some();
            view.packs.insert(pack.no, ViewPack::new(&pack));
        })
        .map_err(fail)?;

        let mut orphan = false;
        let mut statement = conn
            .prepare_cached("select segment, pack, what from claims")
            .map_err(fail)?;
        let mut rows = statement.query([]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let field = |i| row.get::<_, i64>(i).map_err(fail);
            let segment = field(0)?;
            let number = field(1)?;
            let what = field(2)?;
            digest = digest.wrapping_add(claim_hash(segment, number, what));
            orphan |= !names.contains_key(&segment);
            view.claims
                .extend(PackClaim::from_number(what).map(|claim| (segment, number, claim)));
            match (view.packs.get_mut(&number), PackClaim::from_number(what)) {
                (Some(pack), Some(PackClaim::Added)) => pack.row.added = true,
                (Some(pack), Some(PackClaim::Condemned)) => {
                    pack.row.state = pack.row.state.max(PackState::Condemned);
                }
                (Some(pack), Some(PackClaim::Dropped)) => pack.row.state = PackState::Dropped,
                _ => orphan = true,
            }
        }

        each_id_row(
            conn,
            "select segment, old from superseded",
            |segment, old| {
                digest = digest.wrapping_add(id_row_hash(SmallTable::Superseded, segment, &old));
                match names.get(&segment) {
                    Some(name) => {
                        let lowest = view.superseders.entry(SegmentId::new(old)).or_insert(*name);
                        *lowest = (*lowest).min(*name);
                    }
                    None => orphan = true,
                }
            },
        )
        .map_err(fail)?;
        each_id_row(conn, "select segment, chunk from lost", |segment, chunk| {
            digest = digest.wrapping_add(id_row_hash(SmallTable::Lost, segment, &chunk));
            orphan |= !names.contains_key(&segment);
            view.lost.insert(ChunkId::new(chunk));
        })
        .map_err(fail)?;

        // Check the digest first: a mismatch explains every contradiction below.
        if digest != view.meta.digest {
            return Err(contradiction("the small tables do not match their digest"));
        }
        if twice || orphan {
            return Err(contradiction("the small tables contradict one another"));
        }

        for pack in view.packs.values_mut() {
            pack.settle();
        }

        Ok(view)
    }

    /// Returns the pack with this number in the database, whether or not a segment adds it.
    pub(super) fn pack(&self, number: i64) -> Option<&ViewPack> {
        self.packs.get(&number)
    }

    /// Returns the pack with this id, if a segment names it.
    pub(super) fn find(&self, id: &PackId) -> Option<(i64, &ViewPack)> {
        let number = *self.numbers.get(id)?;
        self.packs
            .get(&number)
            .filter(|pack| pack.is_named())
            .map(|pack| (number, pack))
    }

    /// Iterates over all packs that a segment names, in no order.
    pub(super) fn named(&self) -> impl Iterator<Item = &ViewPack> {
        self.packs.values().filter(|pack| pack.is_named())
    }

    /// Returns the claims of each segment, sorted by segment.
    pub(super) fn segment_summaries(&self) -> Vec<SegmentSummary> {
        let nothing = |segment| SegmentSummary {
            segment,
            added: vec![],
            condemned: vec![],
            dropped: vec![],
        };
        let mut all: HashMap<i64, SegmentSummary> = self
            .segments
            .iter()
            .map(|(id, number)| (*number, nothing(*id)))
            .collect();

        for (segment, pack, claim) in &self.claims {
            let (Some(summary), Some(pack)) = (all.get_mut(segment), self.packs.get(pack)) else {
                continue;
            };
            match claim {
                PackClaim::Added => summary.added.push(pack.row.id),
                PackClaim::Condemned => summary.condemned.push(pack.row.id),
                PackClaim::Dropped => summary.dropped.push(pack.row.id),
            }
        }

        let mut all: Vec<SegmentSummary> = all.into_values().collect();
        all.sort_unstable_by_key(|summary| summary.segment);
        for summary in &mut all {
            for ids in [
                &mut summary.added,
                &mut summary.condemned,
                &mut summary.dropped,
            ] {
                ids.sort_unstable();
            }
        }

        all
    }

    /// Iterates over all rows of `packs` with their numbers, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (i64, &ViewPack)> {
        self.packs.iter().map(|(number, pack)| (*number, pack))
    }
}

impl ViewPack {
    fn new(pack: &StoredPack) -> Self {
        Self {
            row: PackRow {
                id: pack.id,
                state: PackState::Known,
                added: false,
                size: pack.size,
                base: pack.base,
                chunks: pack.chunks,
                frames: pack.frames,
                plain: pack.data_bytes.saturating_add(pack.metadata_bytes),
                writer: pack.writer,
            },
            data_bytes: pack.data_bytes,
            metadata_bytes: pack.metadata_bytes,
            content_chunks: pack.chunks,
            content_rows: pack.chunk_rows,
            content_frames: pack.frames,
        }
    }

    fn is_named(&self) -> bool {
        self.row.added || self.row.state != PackState::Known
    }

    /// Hides the content of a pack that no segment adds.
    fn settle(&mut self) {
        if !self.row.added {
            let PackRow { id, state, .. } = self.row;
            let writer = LeaseId::new([0; LeaseId::LEN]);
            self.row = PackRow {
                id,
                state,
                added: false,
                size: 0,
                base: 0,
                chunks: 0,
                frames: 0,
                plain: 0,
                writer,
            };
            (self.data_bytes, self.metadata_bytes) = (0, 0);
        }
    }
}

/// Calls `each` with the number and the id of every row.
pub(super) fn each_id_row(
    conn: &Connection,
    sql: &str,
    mut each: impl FnMut(i64, [u8; 32]),
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(row.get(0)?, row.get(1)?);
    }
    Ok(())
}
