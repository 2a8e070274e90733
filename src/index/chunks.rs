//! Rows of chunks and frames. Each row carries a mark, a hash of its content and its pack's id,
//! which is checked whenever the row is read.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{CachedStatement, Connection, params};

use super::error::IndexError;
use super::packs::PackView;
use super::rows::{ChunkLocation, FrameRow};
use super::schema::{MetaRow, RowHash, SmallTable};
use crate::types::{
    ChunkClass, ChunkId, FrameCodec, FrameInfo, FrameOffset, PackId, PackOffset, PlainLen,
    StoredLen, to_usize,
};

/// A row of `chunks` to be inserted.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkRow {
    pub(super) id: ChunkId,
    /// The pack's number in the database.
    pub(super) pack: i64,
    /// Index of the pack in the list of the segment's packs, so that rows need not carry the pack's
    /// id.
    pub(super) pack_index: u32,
    pub(super) frame: u32,
    /// Number of the chunk in the pack, from 0.
    pub(super) position: u32,
    /// Offset of the chunk in the frame's plain bytes.
    pub(super) offset: FrameOffset,
    pub(super) len: PlainLen,
}

/// Returns the mark of a chunk's row.
fn chunk_mark(
    id: &[u8],
    pack: &PackId,
    frame: u32,
    position: u32,
    offset: FrameOffset,
    len: PlainLen,
) -> u32 {
    let mut bytes = [0; 81];
    bytes[0] = SmallTable::Chunks.number();
    bytes[1..33].copy_from_slice(id);
    bytes[33..65].copy_from_slice(pack.as_bytes());
    for (place, number) in
        bytes[65..]
            .chunks_exact_mut(4)
            .zip([frame, position, offset.get(), len.get()])
    {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let hash = blake3::hash(&bytes);
    let mut first = [0; 4];
    first.copy_from_slice(&hash.as_bytes()[..4]);
    u32::from_le_bytes(first)
}

/// Inserts rows in the order of their ids. Returns the number of inserted rows for each of the
/// segment's packs. If a pack holds a chunk twice, the first copy is kept.
pub(super) fn insert_chunks(
    conn: &Connection,
    meta: &mut MetaRow,
    rows: &mut [ChunkRow],
    pack_ids: &[PackId],
) -> rusqlite::Result<Vec<u32>> {
    rows.sort_unstable_by_key(|row| (row.id, row.pack, row.position));
    let mut counts = vec![0_u32; pack_ids.len()];
    let mut statement =
        conn.prepare_cached("insert or ignore into chunks values (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;

    for row in rows {
        let index = to_usize(row.pack_index);
        let mark = chunk_mark(
            row.id.as_bytes(),
            &pack_ids[index],
            row.frame,
            row.position,
            row.offset,
            row.len,
        );
        let new = statement.execute(params![
            row.id.as_bytes(),
            row.pack,
            row.frame,
            row.position,
            row.offset.get(),
            row.len.get(),
            mark
        ])?;

        if new == 1 {
            counts[index] += 1;
            meta.chunk_rows += 1;
            meta.chunk_sum = meta.chunk_sum.wrapping_add(u64::from(mark));
        }
    }

    Ok(counts)
}

/// Prepares the statement that `find` runs for each chunk.
pub(super) fn find_statement(conn: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    conn.prepare_cached("select pack, frame, position, offset, len, mark from chunks where id = ?1")
}

/// Calls `each` with every copy of a chunk in a pack that some segment adds.
pub(super) fn find(
    statement: &mut CachedStatement<'_>,
    view: &PackView,
    path: &Path,
    id: &ChunkId,
    mut each: impl FnMut(ChunkLocation),
) -> Result<(), IndexError> {
    let fail = |source| IndexError::sqlite(path, "look up a chunk", source);
    let mut rows = statement.query([id.as_bytes().as_slice()]).map_err(fail)?;
    while let Some(row) = rows.next().map_err(fail)? {
        let number: i64 = row.get(0).map_err(fail)?;
        let Some(pack) = view.pack(number) else {
            return Err(IndexError::damaged(
                path,
                format!("chunk {id} is in a pack that does not exist"),
            ));
        };

        let field = |i| row.get::<_, u32>(i).map_err(fail);
        let frame = field(1)?;
        let position = field(2)?;
        let offset = FrameOffset::new(field(3)?);
        let len = PlainLen::new(field(4)?);
        let mark = chunk_mark(id.as_bytes(), &pack.row.id, frame, position, offset, len);
        if mark != field(5)? || position >= pack.content_chunks {
            return Err(IndexError::damaged(
                path,
                format!("the row of chunk {id} does not match its mark"),
            ));
        }

        if pack.row.added {
            each(ChunkLocation {
                pack: pack.row.id,
                state: pack.row.state,
                frame,
                offset,
                len,
                number: pack.row.base + u64::from(position),
            });
        }
    }
    Ok(())
}

/// Returns true if `a` is the better copy.
pub(super) fn better(a: &ChunkLocation, b: &ChunkLocation) -> bool {
    (a.state, a.pack) < (b.state, b.pack)
}

/// Inserts the frames of the pack with number `number`.
pub(super) fn insert_frames(
    conn: &Connection,
    number: i64,
    pack: &PackId,
    frames: &[FrameInfo],
) -> rusqlite::Result<()> {
    let mut statement =
        conn.prepare_cached("insert into frames values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    for (frame, info) in (0_u32..).zip(frames) {
        let row = FrameRow::from(info);
        statement.execute(params![
            number,
            frame,
            row.class.number(),
            row.codec.number(),
            row.offset.get().cast_signed(),
            row.stored.get(),
            row.plain.get(),
            row.chunks,
            frame_mark(pack, frame, &row)
        ])?;
    }
    Ok(())
}

fn frame_mark(pack: &PackId, frame: u32, row: &FrameRow) -> i64 {
    let mut hash = RowHash::new(SmallTable::Frames);
    hash.bytes(pack.as_bytes());
    for number in [
        frame,
        u32::from(row.class.number()),
        u32::from(row.codec.number()),
        row.stored.get(),
        row.plain.get(),
        row.chunks,
    ] {
        hash.number(u64::from(number));
    }
    hash.number(row.offset.get());
    hash.finish().cast_signed()
}

/// Reads the row of one frame. A row that is missing or does not match its mark is damage.
pub(super) fn read_frame(
    conn: &Connection,
    path: &Path,
    number: i64,
    pack: &PackId,
    frame: u32,
) -> Result<FrameRow, IndexError> {
    let fail = |source| IndexError::sqlite(path, "look up a frame", source);
    let (class, codec, mut row, mark) = conn
        .prepare_cached(
            "select class, codec, offset, stored, plain, chunks, mark from frames where pack = ?1 and frame = ?2",
        )
        .and_then(|mut statement| {
            statement.query_row(params![number, frame], |row| {
                let found = FrameRow {
                    class: ChunkClass::Data,
                    codec: FrameCodec::Plain,
                    offset: PackOffset::new(row.get::<_, i64>(2)?.cast_unsigned()),
                    stored: StoredLen::new(row.get(3)?),
                    plain: PlainLen::new(row.get(4)?),
                    chunks: row.get(5)?,
                };
                Ok((row.get::<_, u8>(0)?, row.get::<_, u8>(1)?, found, row.get::<_, i64>(6)?))
            })
        })
        .map_err(fail)?;

    // An unknown class or codec is damage too.
    let class = [ChunkClass::Data, ChunkClass::Metadata]
        .into_iter()
        .find(|known| known.number() == class);
    let codec = [FrameCodec::Plain, FrameCodec::Zstd]
        .into_iter()
        .find(|known| known.number() == codec);
    if let (Some(class), Some(codec)) = (class, codec) {
        (row.class, row.codec) = (class, codec);
        if frame_mark(pack, frame, &row) == mark {
            return Ok(row);
        }
    }

    Err(IndexError::damaged(
        path,
        format!("the row of frame {frame} of pack {pack} does not match its mark"),
    ))
}

/// Reads all rows of chunks and frames and compares them with the sums.
pub(super) fn check_all(conn: &Connection, view: &PackView, path: &Path) -> Result<(), IndexError> {
    let fail = |source| IndexError::sqlite(path, "read all chunks", source);
    let mut counts: HashMap<i64, u32> = HashMap::new();
    let mut total = 0_u64;
    let mut sum = 0_u64;
    let mut statement = conn
        .prepare("select id, pack, frame, position, offset, len, mark from chunks")
        .map_err(fail)?;
    let mut rows = statement.query([]).map_err(fail)?;

    while let Some(row) = rows.next().map_err(fail)? {
        let id: [u8; 32] = row.get(0).map_err(fail)?;
        let number: i64 = row.get(1).map_err(fail)?;
        let field = |i| row.get::<_, u32>(i).map_err(fail);
        let mark = field(6)?;
        let fits = match view.pack(number) {
            Some(pack) => {
                mark == chunk_mark(
                    &id,
                    &pack.row.id,
                    field(2)?,
                    field(3)?,
                    FrameOffset::new(field(4)?),
                    PlainLen::new(field(5)?),
                )
            }
            None => false,
        };

        if !fits {
            return Err(IndexError::damaged(
                path,
                format!(
                    "the row of chunk {} does not match its mark",
                    ChunkId::new(id)
                ),
            ));
        }

        *counts.entry(number).or_default() += 1;
        total += 1;
        sum = sum.wrapping_add(u64::from(mark));
    }

    if (total, sum) != (view.meta.chunk_rows, view.meta.chunk_sum) {
        return Err(IndexError::damaged(
            path,
            format!("{total} rows of chunks, expected {}", view.meta.chunk_rows),
        ));
    }

    for (number, pack) in view.all() {
        if counts.get(&number).copied().unwrap_or(0) != pack.content_rows {
            return Err(IndexError::damaged(
                path,
                format!("pack {} lacks rows of chunks", pack.row.id),
            ));
        }
        for frame in 0..pack.content_frames {
            read_frame(conn, path, number, &pack.row.id, frame)?;
        }
    }

    Ok(())
}
