//! Settings of the cutter, checked once.

use std::fmt;

/// Why chunk sizes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamsError {
    /// One of the sizes is outside its legal range.
    Range {
        what: &'static str,
        value: u32,
        min: u32,
        max: u32,
    },
    /// The cutter takes even sizes only.
    Odd { what: &'static str, value: u32 },
    /// Sizes must grow from minimum to average to maximum.
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
    /// even, growing.
    ///
    /// The cutter only asserts these bounds in debug builds; a chunk is at most 2 MiB by the
    /// format.
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

    /// Shortest chunk but for a source's last.
    pub const fn min(self) -> u32 {
        self.min
    }

    /// What the cutter aims at.
    pub const fn average(self) -> u32 {
        self.average
    }

    /// Longest chunk.
    pub const fn max(self) -> u32 {
        self.max
    }
}

/// How a source is cut; stored with it, so that a change of it can be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// File trees: 16, 64, 256 KiB.
    Tree,
    /// Streams: 2, 8, 32 KiB; from the first cut after 8 GiB as trees.
    Stream,
    /// Dumps of databases, in which scattered rows change: 512 B, 2, 8 KiB; from the first cut
    /// after 1 GiB 1, 4, 16 KiB, after 4 GiB as streams.
    Dump,
    /// Immutable sources: a file of up to 1 MiB is one chunk, larger ones 64 KiB, 256 KiB, 1 MiB.
    Immutable,
}

/// Offset from whose first cut on a stream is cut like a tree.
const STREAM_COARSE_FROM: u64 = 8 << 30;
/// Offsets from whose first cut on a dump is cut coarser, and like a stream: a chunk costs some 100
/// bytes in index and lists, of which a long dump shall not have too many.
const DUMP_COARSER_FROM: u64 = 1 << 30;
const DUMP_COARSE_FROM: u64 = 4 << 30;
/// An immutable file of up to this many bytes is one chunk.
pub const WHOLE_FILE_BYTES_MAX: u64 = 1 << 20;

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 4] = [Self::Tree, Self::Stream, Self::Dump, Self::Immutable];

    /// The name that snapshots carry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree-64k",
            Self::Stream => "stream-8k",
            Self::Dump => "dump-2k",
            Self::Immutable => "immutable-1m",
        }
    }

    /// The profile of a name that snapshots carry.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }

    /// Sizes for the chunk that begins at `offset` of a file or stream.
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

    /// True if a file of this size is kept as one chunk, whatever it holds.
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
        assert_eq!(Profile::Stream.sizes_at((8 << 30) - 1).average(), 8 << 10);
        assert_eq!(Profile::Stream.sizes_at(8 << 30).average(), 64 << 10);
        let sizes = |at: u64| Profile::Dump.sizes_at(at).average() >> 10;
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
            Profile::Immutable.is_whole(1 << 20) && !Profile::Immutable.is_whole((1 << 20) + 1)
        );
    }
}
