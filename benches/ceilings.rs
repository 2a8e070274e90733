//! Throughput of one core: cutting, hashing, compressing, sealing and opening, each alone, in MB/s
//! of plain data.
//!
//! Input: 64 MiB of text-like bytes made from a fixed seed (words of a small vocabulary), and 64
//! MiB of random bytes. Run with `cargo bench --bench ceilings`. Compare two builds in one session:
//! runs differ by about 10 % on a shared machine.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use icecore::chunk::{
    Compressor, FrameOpener, Keys, MasterKey, ObjectSeal, PartKind, SealClass, next_cut,
};
use icecore::types::{ChunkClass, ChunkProfile, FrameCodec};

const LEN: usize = 64 << 20;
const FRAME: usize = 1 << 20;

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn random() -> Vec<u8> {
    let mut noise = Noise(7);
    (0..LEN / 8)
        .flat_map(|_| noise.next().to_le_bytes())
        .collect()
}

fn text() -> Vec<u8> {
    let mut noise = Noise(11);
    let words: Vec<String> = (0..4096)
        .map(|_| format!("{:x} ", noise.next() >> (32 + noise.next() % 24)))
        .collect();
    let mut out = Vec::with_capacity(LEN + 32);
    while out.len() < LEN {
        // Low numbers are more frequent, like words in a text.
        let pick = (noise.next() % 4096 * (noise.next() % 4096)) >> 12;
        out.extend_from_slice(words[pick as usize].as_bytes());
    }
    out.truncate(LEN);
    out
}

fn measure(what: &str, bytes: usize, mut work: impl FnMut()) {
    let best = (0..3)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    println!("{what:<44} {:>8.0} MB/s", bytes as f64 / best / 1e6);
}

fn main() {
    let text = text();
    let random = random();
    let keys = Keys::derive(&MasterKey::new([1; 32]));

    for profile in [
        ChunkProfile::Stream,
        ChunkProfile::Tree,
        ChunkProfile::Immutable,
    ] {
        let sizes = profile.sizes_at(0);
        measure(&format!("cut {}", profile.name()), LEN, || {
            let mut at = 0;
            while at < LEN {
                at += next_cut(&random[at..], sizes);
            }
            black_box(at);
        });
    }

    for piece in [2 << 10, 8 << 10, 64 << 10] {
        measure(&format!("name chunks of {} KiB", piece >> 10), LEN, || {
            for chunk in random.chunks(piece) {
                black_box(keys.chunk_id(ChunkClass::Data, chunk));
            }
        });
    }

    for (name, bytes) in [("text", &text), ("random", &random)] {
        let mut compressor = Compressor::new(3).expect("zstd");
        let mut packed = Vec::new();
        let mut frames = Vec::new();
        for frame in bytes.chunks(FRAME) {
            let codec = compressor
                .compress(frame, &mut packed, 16)
                .expect("compresses");
            frames.push((codec, packed.clone()));
        }
        let mut total = 0;
        measure(
            &format!("compress {name}, level 3, 1 MiB frames"),
            LEN,
            || {
                total = 0;
                for frame in bytes.chunks(FRAME) {
                    compressor
                        .compress(frame, &mut packed, 16)
                        .expect("compresses");
                    total += packed.len();
                }
            },
        );

        println!(
            "{:<44} {:>8.1} %",
            "  shrinks to",
            total as f64 * 100.0 / LEN as f64
        );

        let mut opener = FrameOpener::new().expect("zstd");
        measure(&format!("open {name}"), LEN, || {
            for (codec, packed) in &frames {
                black_box(
                    opener
                        .open(*codec, packed.clone(), FRAME, FRAME)
                        .expect("opens"),
                );
            }
        });
    }

    let seal = ObjectSeal::new(&keys, SealClass::Data, &[2; 32], b"header");
    measure("seal 1 MiB frames", LEN, || {
        for (number, frame) in random.chunks(FRAME).enumerate() {
            let mut bytes = Vec::with_capacity(FRAME + 16);
            bytes.extend_from_slice(frame);
            seal.seal(
                PartKind::Frame,
                number as u64,
                FrameCodec::Plain,
                FRAME as u64,
                &mut bytes,
            );
            black_box(bytes);
        }
    });
}
