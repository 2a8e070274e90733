//! Report of a verify: findings, and the paths that they affect.

use std::collections::BTreeSet;
use std::fmt;

use crate::advice::Advice;
use crate::types::{RelPath, SnapshotId, Timestamp};

/// Findings and affected paths kept in a report; further ones are only counted.
pub const LISTED_MAX: usize = 10_000;

/// Kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// The object exists and cannot be opened.
    ObjectUnreadable,
    /// The object could not be read this time because of its medium, the connection or a
    /// permission. It may be undamaged.
    UnreadableNow,
    /// The object is missing.
    ObjectMissing,
    /// The store reports another size than the index.
    WrongSize,
    /// The object's bytes do not hash to its name.
    HashMismatch,
    /// A part of the object was changed, or sealed with another key.
    SealBroken,
    /// Frames of a pack cannot be opened.
    FrameDamaged,
    /// Chunks do not hash to their names.
    ChunkMismatch,
    /// A pack's own directory and the index segments disagree, or the directory cannot be read.
    DirectoryMismatch,
    /// Recovery data is damaged; its pack may be undamaged.
    ParityDamaged,
    /// A path needs a chunk that no held pack has.
    ChunkUnresolved,
    /// A root, node or page of a run, or a list node, cannot be read.
    RunUnreadable,
    /// A copy of `config` is missing or damaged.
    ConfigDamaged,
    /// A copy of a key slot is missing or damaged.
    KeySlotDamaged,
    /// Both copies of a key slot are missing or damaged.
    KeySlotLost,
    /// A snapshot landed after its lease had expired ([R18](docs/protocol.md#r18)).
    LateSnapshot,
    /// A snapshot that this machine saw is missing and was not forgotten
    /// ([R26](docs/protocol.md#r26)).
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

/// One problem in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyFinding {
    /// The object's name in the store, or a description if it has none.
    pub object: String,
    pub kind: FindingKind,
    /// The problem and its consequence, for people.
    pub what: String,
    /// Advice for the user, if there is any.
    pub advice: Option<Advice>,
}

impl fmt::Display for VerifyFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.kind, self.what)
    }
}

/// The kind of loss at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DamageHit {
    /// A part of its content, or of a stream, is lost.
    Content,
    /// An extended attribute is lost.
    Attribute,
    /// The paths from here to `until` are unknown (`None`: to the end).
    Range { until: Option<RelPath> },
}

/// A path of a snapshot that cannot be restored completely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffectedPath {
    pub snapshot: SnapshotId,
    pub source: String,
    /// The root for a stream.
    pub path: RelPath,
    pub hit: DamageHit,
}

impl fmt::Display for AffectedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.snapshot.short(), self.source)?;
        if !self.path.is_root() {
            write!(f, "/{}", self.path)?;
        }
        match &self.hit {
            DamageHit::Content => Ok(()),
            DamageHit::Attribute => f.write_str(" (an extended attribute)"),
            DamageHit::Range { until: Some(until) } => write!(f, " and everything up to {until}"),
            DamageHit::Range { until: None } => f.write_str(" and everything after it"),
        }
    }
}

/// Results of a verify.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Checked snapshots, including checkpoints.
    pub snapshots: u64,
    pub segments: u64,
    /// Packs in the store.
    pub packs_listed: u64,
    /// Packs read to the end, and their stored bytes.
    pub packs_read: u64,
    pub bytes_read: u64,
    /// Plain bytes that were decrypted and checked.
    pub plain_bytes: u64,
    /// Chunks that snapshots need and that were looked up, each counted once.
    pub chunks_checked: u64,
    /// Packs that no segment lists: an interrupted writer left them, and a later prune adopts them.
    pub orphan_packs: u64,
    /// The first [`LISTED_MAX`] findings, and the first of each kind.
    pub findings: Vec<VerifyFinding>,
    pub findings_count: u64,
    /// Kinds of findings and the repository's directories that have them.
    listed_kinds: BTreeSet<(FindingKind, String)>,
    /// The first [`LISTED_MAX`] affected paths, newest snapshot first.
    pub affected: Vec<AffectedPath>,
    pub affected_count: u64,
    /// Held packs that this machine has never read to the end.
    pub never_verified: u64,
    /// The time at which the least recently read pack was read; `None` if some packs were never
    /// read, or there are no packs.
    pub oldest_unverified: Option<Timestamp>,
}

impl VerifyReport {
    /// Returns true if there are no findings.
    pub fn is_clean(&self) -> bool {
        self.findings_count == 0
    }

    /// Returns true if there is a finding of this kind.
    pub(super) fn has(&self, kind: FindingKind) -> bool {
        self.listed_kinds.iter().any(|(listed, _)| *listed == kind)
    }

    /// Records a finding without advice.
    pub(super) fn find(
        &mut self,
        kind: FindingKind,
        object: impl fmt::Display,
        what: impl fmt::Display,
    ) {
        self.find_with(kind, object, what, None);
    }

    /// Records a finding.
    pub(super) fn find_with(
        &mut self,
        kind: FindingKind,
        object: impl fmt::Display,
        what: impl fmt::Display,
        advice: Option<Advice>,
    ) {
        self.findings_count += 1;
        let object = object.to_string();
        // The first of a kind is listed in any case, since it decides about the next steps.
        let directory = object
            .split_once('/')
            .map_or("", |(directory, _)| directory);
        let is_first = self.listed_kinds.insert((kind, directory.to_owned()));
        if is_first || self.findings.len() < LISTED_MAX {
            self.findings.push(VerifyFinding {
                object,
                kind,
                what: what.to_string(),
                advice,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_kind_is_listed_after_any_number_of_others() {
        let mut report = VerifyReport::default();
        for pack in 0..=LISTED_MAX {
            report.find(FindingKind::UnreadableNow, format!("packs/{pack}"), "");
        }
        assert_eq!(report.findings.len(), LISTED_MAX);
        assert!(!report.has(FindingKind::HashMismatch));

        for object in ["packs/a", "packs/b", "index/c"] {
            report.find(FindingKind::HashMismatch, object, "");
        }
        let listed = report.findings[LISTED_MAX..].iter();
        let listed: Vec<&str> = listed.map(|one| one.object.as_str()).collect();
        assert_eq!(listed, ["packs/a", "index/c"]);
        assert!(report.has(FindingKind::HashMismatch));
        assert_eq!(report.findings_count, 10_004);
    }
}
