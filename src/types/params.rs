//! Settings of the cutter, checked when they are built.

use std::fmt;

/// Reason why chunk sizes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamsError {
    /// One of the sizes is outside its legal range.
    Range {
        what: &'static str,
        value: u32,
        min: u32,
        max: u32,
    },
    /// The cutter accepts only even sizes.
    Odd { what: &'static str, value: u32 },
    /// Sizes must increase from minimum to average to maximum.
    Order { min: u32, average: u32, max: u32 },
}

impl fmt::Display for ParamsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range {
                what,
                value,
                min,
                max,
            } => {
                write!(
                    f,
                    "{what} chunk size {value} is not within {min} to {max} bytes"
                )
            }
            Self::Odd { what, value } => write!(f, "{what} chunk size {value} is odd"),
            Self::Order { min, average, max } => {
                write!(
                    f,
                    "chunk sizes must grow: minimum {min}, average {average}, maximum {max}"
                )
            }
        }
    }
}

impl std::error::Error for ParamsError {}

/// Minimum, average and maximum length of a chunk in bytes. A source's last chunk may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkSizes {
    min: u32,
    average: u32,
    max: u32,
}

impl ChunkSizes {
    /// Checks the sizes: minimum 64 B – 1 MiB, average 256 B – 2 MiB, maximum 1 KiB – 2 MiB, all
    /// even and increasing.
    ///
    /// The cutter asserts these bounds only in debug builds; the format limits a chunk to 2 MiB.
    pub const fn new(min: u32, average: u32, max: u32) -> Result<Self, ParamsError> {
        const MIB: u32 = 1 << 20;
        let checks = [
            ("minimum", min, 64, MIB),
            ("average", average, 256, 2 * MIB),
            ("maximum", max, 1024, 2 * MIB),
        ];
        let mut i = 0;
        while i < checks.len() {
            let (what, value, low, high) = checks[i];
            if value < low || value > high {
                return Err(ParamsError::Range {
                    what,
                    value,
                    min: low,
                    max: high,
                });
            }
            if value % 2 != 0 {
                return Err(ParamsError::Odd { what, value });
            }
            i += 1;
        }
        if min >= average || average >= max {
            return Err(ParamsError::Order { min, average, max });
        }
        Ok(Self { min, average, max })
    }

    const fn known(min: u32, average: u32, max: u32) -> Self {
        match Self::new(min, average, max) {
            Ok(sizes) => sizes,
            Err(_) => panic!("built-in chunk sizes are legal"),
        }
    }

    /// Returns the minimal length of a chunk; a source's last chunk may be shorter.
    pub const fn min(self) -> u32 {
        self.min
    }

    /// Returns the length that the cutter aims at.
    pub const fn average(self) -> u32 {
        self.average
    }

    /// Returns the maximal length of a chunk.
    pub const fn max(self) -> u32 {
        self.max
    }
}

/// The cutting parameters of a source. The profile is stored with it, so that a change can be
/// reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkProfile {
    /// File trees: 16, 64, 256 KiB.
    Tree,
    /// Streams: 2, 8, 32 KiB; like trees from the first cut after 8 GiB.
    Stream,
    /// Dumps of databases, in which scattered rows change: 512 B, 2, 8 KiB; from the first cut
    /// after 1 GiB 1, 4, 16 KiB, after 4 GiB like streams.
    Dump,
    /// Immutable sources: a file of up to 1 MiB is one chunk; larger files 64 KiB, 256 KiB, 1 MiB.
    Immutable,
}

/// A stream is cut like a tree from the first cut after this offset.
const STREAM_COARSE_FROM: u64 = 8 << 30;
/// A dump is cut coarser, and then like a stream, from the first cut after these offsets. A chunk
/// costs about 100 bytes in index and lists, so a long dump should not have too many.
const DUMP_COARSER_FROM: u64 = 1 << 30;
const DUMP_COARSE_FROM: u64 = 4 << 30;
/// An immutable file of at most this many bytes is one chunk.
pub const WHOLE_FILE_BYTES_MAX: u64 = 1 << 20;

impl ChunkProfile {
    /// Every profile.
    pub const ALL: [Self; 4] = [Self::Tree, Self::Stream, Self::Dump, Self::Immutable];

    /// Returns the name that is stored in snapshots.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree-64k",
            Self::Stream => "stream-8k",
            Self::Dump => "dump-2k",
            Self::Immutable => "immutable-1m",
        }
    }

    /// Returns the profile with a stored name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Returns the sizes for the chunk that begins at `offset` of a file or stream.
    pub const fn sizes_at(self, offset: u64) -> ChunkSizes {
        const TREE: ChunkSizes = ChunkSizes::known(16 << 10, 64 << 10, 256 << 10);
        const STREAM: ChunkSizes = ChunkSizes::known(2 << 10, 8 << 10, 32 << 10);
        const IMMUTABLE: ChunkSizes = ChunkSizes::known(64 << 10, 256 << 10, 1 << 20);
        const DUMP: ChunkSizes = ChunkSizes::known(512, 2 << 10, 8 << 10);
        const COARSER_DUMP: ChunkSizes = ChunkSizes::known(1 << 10, 4 << 10, 16 << 10);
        match self {
            Self::Tree => TREE,
            Self::Dump if offset < DUMP_COARSER_FROM => DUMP,
            Self::Dump if offset < DUMP_COARSE_FROM => COARSER_DUMP,
            Self::Stream | Self::Dump if offset >= STREAM_COARSE_FROM => TREE,
            Self::Stream | Self::Dump => STREAM,
            Self::Immutable => IMMUTABLE,
        }
    }

    /// Returns true if a file of this size is always one chunk.
    pub const fn is_whole(self, size: u64) -> bool {
        matches!(self, Self::Immutable) && size <= WHOLE_FILE_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_the_cutter_would_only_assert_are_refused() {
        assert!(ChunkSizes::new(2048, 8192, 32768).is_ok());
        assert!(matches!(
            ChunkSizes::new(32, 8192, 32768),
            Err(ParamsError::Range { .. })
        ));
        assert!(matches!(
            ChunkSizes::new(2049, 8192, 32768),
            Err(ParamsError::Odd { .. })
        ));
        assert!(matches!(
            ChunkSizes::new(8192, 8192, 32768),
            Err(ParamsError::Order { .. })
        ));
        assert!(
            ChunkSizes::new(2048, 8192, 4 << 20).is_err(),
            "a chunk is at most 2 MiB"
        );
    }

    #[test]
    fn a_long_stream_turns_coarse_at_8_gib() {
        assert_eq!(
            ChunkProfile::Stream.sizes_at((8 << 30) - 1).average(),
            8 << 10
        );
        assert_eq!(ChunkProfile::Stream.sizes_at(8 << 30).average(), 64 << 10);
        let sizes = |at: u64| ChunkProfile::Dump.sizes_at(at).average() >> 10;
        let dump = [
            0,
            (1 << 30) - 1,
            1 << 30,
            (4 << 30) - 1,
            4 << 30,
            (8 << 30) - 1,
            8 << 30,
        ]
        .map(sizes);
        assert_eq!(dump, [2, 2, 4, 4, 8, 8, 64]);
        assert!(
            ChunkProfile::Immutable.is_whole(1 << 20)
                && !ChunkProfile::Immutable.is_whole((1 << 20) + 1)
        );
    }
}
