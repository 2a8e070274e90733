//! What a verify tells: findings, and the paths that they hit.

use std::fmt;

use crate::types::{RelPath, SnapshotId, Timestamp};

/// Findings and affected paths beyond this many are counted, not kept.
pub const LISTED_MAX: usize = 10_000;

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// It is there and cannot be opened.
    ObjectUnreadable,
    /// It could not be read this time: its medium, the connection or a permission is in the way. It
    /// may be whole.
    UnreadableNow,
    /// It should be there and is not.
    ObjectMissing,
    /// The store tells another size than the index.
    WrongSize,
    /// Its bytes do not hash to its name.
    HashMismatch,
    /// A part of it was changed, or sealed by another.
    SealBroken,
    /// Frames of a pack cannot be opened.
    FrameDamaged,
    /// Chunks are not what their names say.
    ChunkMismatch,
    /// A pack's own directory and the index segments disagree, or the directory cannot be read.
    DirectoryMismatch,
    /// Recovery data is damaged; what it is for may be whole.
    ParityDamaged,
    /// A path needs a chunk that no held pack has.
    ChunkUnresolved,
    /// A root, node or page of a run, a list node, cannot be read.
    RunUnreadable,
    /// A copy of `config` is missing or damaged.
    ConfigDamaged,
    /// A copy of a key slot is missing or damaged.
    KeySlotDamaged,
    /// Neither copy of a key slot is whole.
    KeySlotLost,
    /// A snapshot landed after its lease had expired (PROTOCOL R18).
    LateSnapshot,
    /// A snapshot that this machine saw is gone without having been forgotten (PROTOCOL R26).
    SnapshotVanished,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ObjectUnreadable => "object unreadable",
            Self::UnreadableNow => "cannot be read now",
            Self::ObjectMissing => "object missing",
            Self::WrongSize => "wrong size",
            Self::HashMismatch => "hash mismatch",
            Self::SealBroken => "seal broken",
            Self::FrameDamaged => "frame damaged",
            Self::ChunkMismatch => "chunk mismatch",
            Self::DirectoryMismatch => "directory mismatch",
            Self::ParityDamaged => "recovery data damaged",
            Self::ChunkUnresolved => "chunk unresolved",
            Self::RunUnreadable => "run unreadable",
            Self::ConfigDamaged => "config damaged",
            Self::KeySlotDamaged => "key slot damaged",
            Self::KeySlotLost => "key slot lost",
            Self::LateSnapshot => "late snapshot",
            Self::SnapshotVanished => "snapshot vanished",
        })
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object, by its name in the store where it has one.
    pub object: String,
    pub kind: FindingKind,
    /// What is wrong and what follows from it, for people.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.kind, self.what)
    }
}

/// How a path is hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hit {
    /// A part of its content, or of a stream, is lost.
    Content,
    /// An extended attribute is lost.
    Attribute,
    /// Nothing is known of the paths from here to `until` (none: to the end).
    Range { until: Option<RelPath> },
}

/// A path of a snapshot that cannot be restored whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffectedPath {
    pub snapshot: SnapshotId,
    pub source: String,
    /// The root for a stream.
    pub path: RelPath,
    pub hit: Hit,
}

impl fmt::Display for AffectedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.snapshot.short(), self.source)?;
        if !self.path.is_root() {
            write!(f, "/{}", self.path)?;
        }
        match &self.hit {
            Hit::Content => Ok(()),
            Hit::Attribute => f.write_str(" (an extended attribute)"),
            Hit::Range { until: Some(until) } => write!(f, " and all up to {until}"),
            Hit::Range { until: None } => f.write_str(" and all behind it"),
        }
    }
}

/// What a verify did and found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Snapshots that were checked, checkpoints among them.
    pub snapshots: u64,
    pub segments: u64,
    /// Packs in the store.
    pub packs_listed: u64,
    /// Packs read whole, and their stored bytes.
    pub packs_read: u64,
    pub bytes_read: u64,
    /// Plain bytes that were opened and checked.
    pub plain_bytes: u64,
    /// Chunks that snapshots need and that were looked up, each once.
    pub chunks_checked: u64,
    /// Packs that no segment tells of: left by an interrupted writer, adopted by a later prune.
    pub orphan_packs: u64,
    /// The first [`LISTED_MAX`] findings.
    pub findings: Vec<Finding>,
    pub findings_count: u64,
    /// The first [`LISTED_MAX`] paths hit, newest snapshot first.
    pub affected: Vec<AffectedPath>,
    pub affected_count: u64,
    /// Held packs that this machine has never read whole.
    pub never_verified: u64,
    /// When the pack that was read longest ago was read; none if some never were, or there are
    /// none.
    pub oldest_unverified: Option<Timestamp>,
}

impl VerifyReport {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings_count == 0
    }

    pub(super) fn find(
        &mut self,
        kind: FindingKind,
        object: impl fmt::Display,
        what: impl fmt::Display,
    ) {
        self.findings_count += 1;
        if self.findings.len() < LISTED_MAX {
            self.findings.push(Finding {
                object: object.to_string(),
                kind,
                what: what.to_string(),
            });
        }
    }

    pub(super) fn hit(&mut self, path: AffectedPath) {
        self.affected_count += 1;
        if self.affected.len() < LISTED_MAX {
            self.affected.push(path);
        }
    }
}
