//! Snapshots: JSON, sealed in one piece (docs/format.md, "Snapshot").

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::FORMAT_VERSION;
use super::image::{self, ServiceImage};
use super::text::{
    JsonError, as_bytes, as_bytes_list, as_hex, as_text, as_text_option, as_texts, as_time,
    as_time_option, from_json, to_json,
};
use crate::types::{
    ChunkId, Content, Extent, LITERAL_BYTES_MAX, LeaseId, PlainLen, SnapshotId, Timestamp,
};

/// Maximal plain bytes of a snapshot that is read: 16 MiB.
pub const SNAPSHOT_BYTES_MAX: usize = 16 << 20;

/// Completeness of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotState {
    /// Everything that was requested was captured.
    Complete,
    /// Committed, but some entries are failed, stale or torn.
    Incomplete,
    /// Of a backup in progress: a root and a parent, never `latest`.
    Checkpoint,
}

impl fmt::Display for SnapshotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Checkpoint => "checkpoint",
        })
    }
}

/// Reference to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRef {
    /// The metadata chunk that holds the run's root.
    #[serde(with = "as_text")]
    pub root: ChunkId,
    /// Number of entries and removals.
    pub entries: u64,
    /// Plain bytes of the run's pages.
    pub bytes: u64,
    /// Bytes of content that its entries reference.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub content: u64,
    /// Approximate bytes of content in older runs that it hides.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hides: u64,
}

/// The captured data of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum SourceKind {
    /// A file tree.
    Tree {
        /// The root's path on the host.
        #[serde(with = "as_bytes")]
        path: Vec<u8>,
        immutable: bool,
        /// Newest first; the first run that mentions a path determines it.
        runs: Vec<RunRef>,
    },
    /// A command's output, or standard input.
    Stream {
        /// The command's words; empty for standard input.
        #[serde(default)]
        command: Vec<String>,
        #[serde(with = "stream_content")]
        content: Content,
    },
}

/// Counts of a source's capture, for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceCounts {
    /// Regular files that are new or changed in the snapshot, or were found unchanged.
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unchanged: u64,
    /// All other entries that were checked.
    pub others: u64,
    pub removed: u64,
    pub vanished: u64,
    /// Plain bytes read.
    pub bytes_read: u64,
    /// Entries in the whole source that are failed, stale or torn, including those carried over.
    pub incomplete: u64,
    /// Directories in the whole source of which the snapshot lacks existing names. `None` if the
    /// source was recorded before directories were marked, or if its capture is not finished: a
    /// missing name then proves nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<u64>,
    /// The directories among these whose names were left out for a reason other than the user's
    /// rules. `None` if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<u64>,
}

/// One source of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    pub name: String,
    #[serde(flatten)]
    pub kind: SourceKind,
    /// The name of the cutting profile.
    pub profile: String,
    /// Times by the host's clock when the scan began and ended.
    #[serde(with = "as_time")]
    pub started: Timestamp,
    #[serde(with = "as_time")]
    pub ended: Timestamp,
    /// Digest of all settings that select and shape the captured data.
    #[serde(with = "as_hex")]
    pub digest: [u8; 32],
    pub counts: SourceCounts,
    /// Reason why this capture is suspect, if it is: a dump much smaller than the previous one, or
    /// a change of immutable data. Such a snapshot is incomplete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect: Option<String>,
    /// The owners' numbers have a meaning only inside the source, as in a container's volume. A
    /// restore sets the numbers regardless of their names.
    #[serde(default, skip_serializing_if = "is_false")]
    pub numeric_owners: bool,
    /// Earlier paths of the source, from which it was moved: its history continues theirs. An empty
    /// path is that of a stream. If a later snapshot has the source at such a path, the path counts
    /// separately again.
    #[serde(with = "as_bytes_list", default, skip_serializing_if = "Vec::is_empty")]
    pub moved_from: Vec<Vec<u8>>,
}

impl SourceRecord {
    /// Returns the root's path; empty for a stream.
    pub fn path(&self) -> &[u8] {
        match &self.kind {
            SourceKind::Tree { path, .. } => path,
            SourceKind::Stream { .. } => &[],
        }
    }
}

/// Data that a repaired snapshot lacks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LostContent {
    /// Number of paths with lost data.
    pub count: u64,
    /// The first of these paths, in order of source and path.
    pub paths: Vec<LostPath>,
}

/// A path with data lost according to a repair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostPath {
    pub source: String,
    /// Components joined by `/`; empty for a stream.
    #[serde(with = "as_bytes")]
    pub path: Vec<u8>,
    /// Lost bytes of its content, which read as zeros. `None` if the entry itself is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

/// One committed backup, or a checkpoint of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub format: u32,
    pub state: SnapshotState,
    pub host: String,
    pub tags: Vec<String>,
    /// The version of icecore that wrote it.
    pub program: String,
    #[serde(with = "as_time")]
    pub started: Timestamp,
    #[serde(with = "as_time")]
    pub ended: Timestamp,
    /// The lease under which it was written, and the store's time of the lease's last heartbeat.
    #[serde(with = "as_text")]
    pub lease: LeaseId,
    #[serde(with = "as_time")]
    pub heartbeat: Timestamp,
    /// The snapshots from which runs or content were carried over.
    #[serde(with = "as_texts")]
    pub parents: Vec<SnapshotId>,
    pub sources: Vec<SourceRecord>,
    /// The images that the node's services ran with, by service; see
    /// [`legal_images`](super::legal_images).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ServiceImage>,
    /// True if no retention policy may remove it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub protected: bool,
    /// The snapshot that this one replaces, because of a new tag or a repair. While both are
    /// listed, the replaced one does not count.
    #[serde(
        with = "as_text_option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub replaces: Option<SnapshotId>,
    /// The first snapshot of which this one is a copy, a re-tag or a repair, possibly from another
    /// repository.
    #[serde(
        with = "as_text_option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub original: Option<SnapshotId>,
    /// The store's time of that first snapshot, which is also the time of this one.
    #[serde(
        with = "as_time_option",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub committed: Option<Timestamp>,
    /// Data that a repair could not save.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostContent>,
    /// Optional fields of later versions, kept unchanged.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl Snapshot {
    /// Returns the source with this name.
    pub fn source(&self, name: &str) -> Option<&SourceRecord> {
        self.sources.iter().find(|source| source.name == name)
    }
}

/// Encodes a snapshot's plain bytes.
pub fn encode_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    to_json(snapshot)
}

/// Decodes a snapshot's plain bytes.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Snapshot, JsonError> {
    let snapshot: Snapshot = from_json(bytes)?;
    if snapshot.format > FORMAT_VERSION {
        return Err(JsonError(format!(
            "a snapshot of format {} needs a newer icecore",
            snapshot.format
        )));
    }

    let mut names: Vec<&str> = snapshot
        .sources
        .iter()
        .map(|source| source.name.as_str())
        .collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(JsonError("two sources with the same name".into()));
    }
    if let Some(bad) = names.iter().find(|name| !is_source_name(name)) {
        return Err(JsonError(format!(
            "'{}' is not a valid source name",
            bad.escape_debug()
        )));
    }

    image::check(&snapshot.images)?;
    Ok(snapshot)
}

/// Source names become directory names on restore, so the rule of the command line applies here
/// too.
fn is_source_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(['/', ':', '=', '\0'])
}

/// A stream's extents as JSON objects.
mod stream_content {
    use super::*;
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase", deny_unknown_fields)]
    enum LostPiece {
        Chunk {
            #[serde(with = "as_text")]
            id: ChunkId,
            len: u32,
        },
        Hole {
            len: u64,
        },
        Literal {
            #[serde(with = "as_hex")]
            bytes: Vec<u8>,
        },
        List {
            #[serde(with = "as_text")]
            id: ChunkId,
            len: u64,
            depth: u8,
        },
    }

    pub fn serialize<S: Serializer>(content: &Content, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(content.extents.iter().map(|extent| match extent {
            Extent::Chunk { id, len } => LostPiece::Chunk {
                id: *id,
                len: len.get(),
            },
            Extent::Hole { len } => LostPiece::Hole { len: *len },
            Extent::Literal(bytes) => LostPiece::Literal {
                bytes: bytes.clone(),
            },
            Extent::List { id, len, depth } => LostPiece::List {
                id: *id,
                len: *len,
                depth: *depth,
            },
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Content, D::Error> {
        let mut content = Content::default();
        for piece in Vec::<LostPiece>::deserialize(from)? {
            let extent = match piece {
                LostPiece::Chunk { id, len } if len <= 2 << 20 => Extent::Chunk {
                    id,
                    len: PlainLen::new(len),
                },
                LostPiece::Hole { len } => Extent::Hole { len },
                LostPiece::Literal { bytes } if bytes.len() <= LITERAL_BYTES_MAX => {
                    Extent::Literal(bytes)
                }
                LostPiece::List { id, len, depth } if (1..=8).contains(&depth) => {
                    Extent::List { id, len, depth }
                }
                _ => return Err(D::Error::custom("an extent out of its bounds")),
            };
            if extent.is_empty() {
                return Err(D::Error::custom("an empty extent"));
            }
            content.size = content
                .size
                .checked_add(extent.len())
                .filter(|&size| size <= i64::MAX.cast_unsigned())
                .ok_or_else(|| D::Error::custom("content longer than any file"))?;
            content.extents.push(extent);
        }
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Snapshot {
        let time = Timestamp::new(1_700_000_000, 7).expect("legal");
        let source = |name: &str, kind| SourceRecord {
            name: name.into(),
            kind,
            profile: "tree-64k".into(),
            started: time,
            ended: time,
            digest: [3; 32],
            counts: SourceCounts {
                files_new: 3,
                partial: (name == "etc").then_some(0),
                unseen: (name == "etc").then_some(0),
                ..SourceCounts::default()
            },
            suspect: None,
            numeric_owners: false,
            moved_from: if name == "etc" {
                vec![b"/old/\xff".to_vec(), Vec::new()]
            } else {
                Vec::new()
            },
        };

        let run = RunRef {
            root: ChunkId::new([1; 32]),
            entries: 5,
            bytes: 600,
            content: 70,
            hides: 8,
        };

        let extents = vec![
            Extent::Literal(vec![1, 255]),
            Extent::List {
                id: ChunkId::new([2; 32]),
                len: 1 << 33,
                depth: 3,
            },
        ];

        let size = extents.iter().map(Extent::len).sum();

        Snapshot {
            format: 1,
            state: SnapshotState::Incomplete,
            host: "node-1".into(),
            tags: vec!["nightly".into()],
            program: "icecore 0.1.0".into(),
            started: time,
            ended: time,
            lease: LeaseId::new([9; 16]),
            heartbeat: time,
            parents: vec![SnapshotId::new([4; 32])],
            sources: vec![
                source(
                    "etc",
                    SourceKind::Tree {
                        path: b"/e\xfftc".to_vec(),
                        immutable: false,
                        runs: vec![run],
                    },
                ),
                source(
                    "db",
                    SourceKind::Stream {
                        command: vec!["pg_dump".into()],
                        content: Content { size, extents },
                    },
                ),
            ],
            images: Vec::new(),
            protected: false,
            replaces: None,
            original: None,
            committed: None,
            lost: None,
            other: BTreeMap::from([("later".into(), serde_json::json!({"b": 1}))]),
        }
    }

    #[test]
    fn repaired_and_protected_snapshots_round_trip() {
        let paths = vec![LostPath {
            source: "etc".into(),
            path: b"a/\xff".to_vec(),
            bytes: Some(7),
        }];
        let snapshot = Snapshot {
            protected: true,
            replaces: Some(SnapshotId::new([5; 32])),
            original: Some(SnapshotId::new([6; 32])),
            committed: Timestamp::new(1_700_000_001, 3),
            lost: Some(LostContent { count: 2, paths }),
            images: vec![ServiceImage {
                service: "ipfs".into(),
                image: "ipfs/kubo:stable".into(),
                id: format!("sha256:{}", "5c".repeat(32)),
                digest: None,
                sources: vec!["ipfs".into()],
            }],
            ..sample()
        };
        let bytes = encode_snapshot(&snapshot);
        assert_eq!(decode_snapshot(&bytes).expect("decodes"), snapshot);
    }

    #[test]
    fn snapshots_round_trip_with_fields_of_later_versions() {
        let snapshot = sample();
        let bytes = encode_snapshot(&snapshot);
        let back = decode_snapshot(&bytes).expect("decodes");
        assert_eq!(back, snapshot);
        assert_eq!(encode_snapshot(&back), bytes, "one value, one encoding");
    }

    #[test]
    fn names_that_would_leave_the_target_and_newer_formats_are_refused() {
        for name in ["..", "a/b", "", "a:b"] {
            let mut snapshot = sample();
            snapshot.sources[0].name = name.into();
            assert!(
                decode_snapshot(&encode_snapshot(&snapshot)).is_err(),
                "{name}"
            );
        }
        let mut twice = sample();
        twice.sources[0].name = "db".into();
        assert!(decode_snapshot(&encode_snapshot(&twice)).is_err());

        let odd = ServiceImage {
            service: "db".into(),
            image: "a b".into(),
            id: format!("sha256:{}", "5c".repeat(32)),
            digest: None,
            sources: Vec::new(),
        };
        let odd = Snapshot {
            images: vec![odd],
            ..sample()
        };
        assert!(decode_snapshot(&encode_snapshot(&odd)).is_err());

        let newer = Snapshot {
            format: 2,
            ..sample()
        };
        let err = decode_snapshot(&encode_snapshot(&newer)).expect_err("refused");
        assert!(err.to_string().contains("newer"), "{err}");
    }
}
