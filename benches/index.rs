//! Speed of inserting chunks into the index and finding them, in rows and look-ups per second.
//!
//! Input: seeded random ids, segments of 256 k chunks in 16 packs, in a temporary directory. Runs
//! differ by about 10 %. Run with `cargo bench --bench index [chunks]`.

#![allow(clippy::print_stdout, reason = "a benchmark's result is its output")]

use std::time::Instant;

use icecore::index::Index;
use icecore::types::{
    ChunkClass, ChunkId, ChunkInfo, FrameCodec, FrameInfo, LeaseId, PackId, PackInfo, PackOffset,
    PlainLen, SegmentBody, SegmentId, StoredLen,
};

fn id(kind: u8, number: u64) -> [u8; 32] {
    let mut bytes = [kind; 9];
    bytes[1..].copy_from_slice(&number.to_le_bytes());
    *blake3::hash(&bytes).as_bytes()
}

fn segment(number: u64) -> SegmentBody {
    let mut body = SegmentBody::empty(LeaseId::new([1; 16]));
    for pack in 0..16 {
        let first = (number * 16 + pack) * 16_384;
        let frames = (0..64_u64)
            .map(|frame| FrameInfo {
                class: ChunkClass::Data,
                codec: FrameCodec::Zstd,
                offset: PackOffset::new(frame << 20),
                stored: StoredLen::new(1 << 19),
                plain: PlainLen::new(256 * 4096),
                chunks: (0..256)
                    .map(|n| ChunkInfo {
                        id: ChunkId::new(id(1, first + frame * 256 + n)),
                        len: PlainLen::new(4096),
                    })
                    .collect(),
            })
            .collect();
        body.packs.push(PackInfo {
            id: PackId::new(id(2, number * 16 + pack)),
            size: 64 << 20,
            frames,
        });
    }
    body
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let chunks = std::env::args()
        .filter_map(|arg| arg.parse::<u64>().ok())
        .next()
        .unwrap_or(1 << 20);
    let segments = chunks.div_ceil(262_144);
    let dir = tempfile::tempdir()?;
    let (index, _) = Index::open(dir.path())?;

    for number in 0..segments {
        let body = segment(number);
        let start = Instant::now();
        index.load(SegmentId::new(id(3, number)), &body)?;
        println!(
            "load {number}: {:.0} rows/s",
            262_144.0 / start.elapsed().as_secs_f64()
        );
    }

    let total = segments * 262_144;
    let mut out = Vec::new();
    for (what, step, kind) in [
        ("random", 256, 1),
        ("absent", 256, 9),
        ("sorted, all at once", 1 << 20, 1),
    ] {
        let mut ids: Vec<ChunkId> = (0..total / 4)
            .map(|n| ChunkId::new(id(kind, n.wrapping_mul(0x9E37_79B1) % total)))
            .collect();
        ids.chunks_mut(step).for_each(<[ChunkId]>::sort_unstable);

        let start = Instant::now();
        for batch in ids.chunks(step) {
            index.lookup(batch, &mut out)?;
            assert!(out.iter().all(|found| found.is_some() == (kind == 1)));
        }

        println!(
            "look-ups, {what}: {:.0}/s",
            (total / 4) as f64 / start.elapsed().as_secs_f64()
        );
    }

    let start = Instant::now();
    for number in 0..100_000 {
        index.lookup_one(&ChunkId::new(id(1, number)))?;
    }
    println!(
        "look-ups one by one: {:.0}/s",
        1e5 / start.elapsed().as_secs_f64()
    );

    let start = Instant::now();
    index.check()?;
    println!("check: {:.2} s", start.elapsed().as_secs_f64());

    drop(index);
    let start = Instant::now();
    let (index, opened) = Index::open(dir.path())?;
    println!(
        "open: {:.1} ms, {opened:?}",
        start.elapsed().as_secs_f64() * 1e3
    );

    let start = Instant::now();
    index.unload(&SegmentId::new(id(3, 0)))?;
    println!("unload: {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
