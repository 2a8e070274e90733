//! A snapshot as a listing shows it.

use serde::Serialize;

use super::missing::MissingParts;
use super::value::{PathField, rfc3339};
use crate::format::{ServiceImage, SourceKind, SourceRecord};
use crate::ops::list::{LackingReport, SourceLacks};
use crate::repo::StoredSnapshot;
use crate::sys::masked;
use crate::types::Timestamp;

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "snapshot")]
pub struct SnapshotRecord {
    /// Id of the snapshot.
    pub id: String,
    /// Its host.
    pub host: String,
    /// `started`, or the time of the commit by the store's clock if they are more than a day apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// When the backup began, by the host's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When the backup ended, by the host's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// `complete`, `incomplete` or `checkpoint`.
    pub state: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// No policy drops it.
    pub protected: bool,
    /// Paths that a repair could not save; absent if the snapshot was never repaired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_paths: Option<u64>,
    /// The first snapshot of which this is a copy, a re-tag or a repair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    /// When it was forgotten; absent unless it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<String>,
    /// Its sources.
    pub sources: Vec<SnapshotSourceRecord>,
    /// The images that the node's services ran with; absent if none was recorded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<ImageRecord>,
}

impl SnapshotRecord {
    /// Creates the record of a snapshot. `forgotten`: when it was forgotten. `lacking`: the missing
    /// paths of each source, where they were listed.
    pub fn new(
        stored: &StoredSnapshot,
        forgotten: Option<Timestamp>,
        lacking: &[Option<LackingReport>],
    ) -> Self {
        let snapshot = &stored.snapshot;
        let source = |(number, source)| {
            let lacking = lacking.get(number).and_then(Option::as_ref);
            let missing = MissingParts::new(&SourceLacks::of(stored, source), lacking);
            SnapshotSourceRecord::new(source, missing)
        };
        Self {
            id: stored.id.to_string(),
            host: snapshot.host.clone(),
            time: rfc3339(stored.time()),
            started: rfc3339(snapshot.started),
            ended: rfc3339(snapshot.ended),
            state: snapshot.state.to_string(),
            tags: snapshot.tags.clone(),
            protected: snapshot.protected,
            lost_paths: snapshot.lost.as_ref().map(|lost| lost.count),
            original: snapshot.original.map(|id| id.to_string()),
            forgotten: forgotten.and_then(rfc3339),
            sources: snapshot.sources.iter().enumerate().map(source).collect(),
            images: snapshot.images.iter().map(ImageRecord::from).collect(),
        }
    }
}

/// A source of a snapshot. A tree has a `path`, a stream has a `command` and a `size`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotSourceRecord {
    /// Name of the source.
    pub name: String,
    /// `tree` or `stream`.
    pub kind: &'static str,
    /// The absolute path of a tree at the capture.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathField>,
    /// The command of a stream with secrets masked; empty for standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Plain size of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Entries that could not be read, or changed while they were.
    pub incomplete: u64,
    /// Why its capture is suspect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect: Option<String>,
    /// The parts of it that the snapshot lacks; absent if nothing is known to be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingParts>,
}

impl SnapshotSourceRecord {
    /// Creates the record of a source. `missing`: the parts of it that the snapshot lacks.
    pub fn new(source: &SourceRecord, missing: Option<MissingParts>) -> Self {
        let (kind, path, command, size) = match &source.kind {
            SourceKind::Tree { path, .. } => ("tree", Some(PathField::new(path)), None, None),
            SourceKind::Stream { command, content } => {
                ("stream", None, Some(masked(command)), Some(content.size))
            }
        };
        Self {
            name: source.name.clone(),
            kind,
            path,
            command,
            size,
            incomplete: source.counts.incomplete,
            suspect: source.suspect.clone(),
            missing,
        }
    }
}

/// The image that a service of a node ran with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ImageRecord {
    /// The service of the compose project, or the container's name.
    pub service: String,
    /// Its name in the compose file.
    pub image: String,
    /// The engine's id of it.
    pub id: String,
    /// Its digest in its registry; absent if it is in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The snapshot's sources that its container used.
    pub sources: Vec<String>,
}

impl From<&ServiceImage> for ImageRecord {
    fn from(image: &ServiceImage) -> Self {
        Self {
            service: image.service.clone(),
            image: image.image.clone(),
            id: image.id.clone(),
            digest: image.digest.clone(),
            sources: image.sources.clone(),
        }
    }
}
