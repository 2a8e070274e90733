//! Names of things: fixed arrays that print as lower-case hex and cannot be mixed up.

use std::fmt;
use std::str::FromStr;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdError {
    /// The text has `found` characters where `expected` are needed.
    Length { expected: usize, found: usize },
    /// The character at this index is not one of `0-9a-f`.
    Digit { index: usize },
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => {
                write!(f, "an id has {expected} hex digits, this has {found}")
            }
            Self::Digit { index } => write!(f, "character {index} is not a lower-case hex digit"),
        }
    }
}

impl std::error::Error for IdError {}

fn hex_digit(byte: u8, index: usize) -> Result<u8, IdError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(IdError::Digit { index }),
    }
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], IdError> {
    let bytes = text.as_bytes();
    if bytes.len() != 2 * N {
        return Err(IdError::Length {
            expected: 2 * N,
            found: bytes.len(),
        });
    }
    let mut out = [0; N];
    for (i, pair) in bytes.chunks_exact(2).enumerate() {
        out[i] = hex_digit(pair[0], 2 * i)? << 4 | hex_digit(pair[1], 2 * i + 1)?;
    }
    Ok(out)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps raw bytes.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Takes the id from a slice of exactly the right length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The first eight hex digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hex(text).map(Self)
            }
        }
    };
}

id!(
    /// A chunk's name: BLAKE3 of its bytes, keyed by the repository and the chunk's class.
    ChunkId, 32
);
id!(
    /// A pack's name: plain BLAKE3 of all its stored bytes.
    PackId, 32
);
id!(
    /// An index segment's name: plain BLAKE3 of all its stored bytes.
    SegmentId, 32
);
id!(
    /// A snapshot's name: plain BLAKE3 of all its stored bytes.
    SnapshotId, 32
);
id!(
    /// The plain BLAKE3 of any object's stored bytes, where its kind does not matter.
    ObjectHash, 32
);
id!(
    /// A lease's random name; packs and segments carry their writer's.
    LeaseId, 16
);
id!(
    /// A repository's random identity, drawn by `init`.
    RepoId, 16
);

impl From<ObjectHash> for PackId {
    fn from(hash: ObjectHash) -> Self {
        Self(hash.0)
    }
}

impl From<ObjectHash> for SegmentId {
    fn from(hash: ObjectHash) -> Self {
        Self(hash.0)
    }
}

impl From<ObjectHash> for SnapshotId {
    fn from(hash: ObjectHash) -> Self {
        Self(hash.0)
    }
}

/// What a shortened id stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrefixMatch<T> {
    /// Nothing begins with it.
    None,
    /// Exactly one thing does.
    One(T),
    /// These do (all of them, sorted).
    Many(Vec<T>),
}

impl<T: Ord + fmt::Display> PrefixMatch<T> {
    /// Finds what begins with `prefix` (lower-case hex).
    pub fn find(prefix: &str, candidates: impl IntoIterator<Item = T>) -> Self {
        let mut found: Vec<T> = candidates
            .into_iter()
            .filter(|id| id.to_string().starts_with(prefix))
            .collect();
        found.sort();
        // The same id may come from several places: a snapshot of two sources is remembered twice.
        found.dedup();
        match found.len() {
            0 => Self::None,
            1 => found.pop().map_or(Self::None, Self::One),
            _ => Self::Many(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_what_is_not_canonical() {
        let id = ChunkId::new(std::array::from_fn(|i| (i * 7) as u8));
        assert_eq!(id.to_string().parse::<ChunkId>(), Ok(id));
        let upper = id.to_string().to_uppercase();
        assert!(matches!(
            upper.parse::<ChunkId>(),
            Err(IdError::Digit { .. })
        ));
        assert_eq!(
            "00".parse::<ChunkId>(),
            Err(IdError::Length {
                expected: 64,
                found: 2
            })
        );
    }

    #[test]
    fn a_prefix_is_none_one_or_many() {
        let a = LeaseId::new([0x11; 16]);
        let b = LeaseId::new([0x12; 16]);
        assert_eq!(PrefixMatch::find("2", [a, b]), PrefixMatch::None);
        assert_eq!(PrefixMatch::find("11", [a, b]), PrefixMatch::One(a));
        assert_eq!(
            PrefixMatch::find("1", [b, a]),
            PrefixMatch::Many(vec![a, b])
        );
        assert_eq!(
            PrefixMatch::find("11", [a, b, a]),
            PrefixMatch::One(a),
            "one id, given twice"
        );
    }
}
