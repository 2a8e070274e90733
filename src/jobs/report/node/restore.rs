//! The plan and the result of a restore of a node.

use serde::{Serialize, Serializer};

use crate::ccn::NodeError;
use crate::ccn::restore::{
    ImageCheck, ImageVerdict, NodePart, NodeRestoreReport, PartReport, PlaceWriter, PlacedPart,
    PreparedRestore, ResolvedLocation, RestorePreview,
};
use crate::jobs::report::value::rfc3339;

/// One item of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NodePlanRecord {
    /// A part that would be restored.
    Step(PlannedPartRecord),
    /// A container that writes to the node's data or uses a restored volume.
    Container(PlannedContainerRecord),
    /// The image that a service ran with, compared with the one that would run.
    Image(PlannedImageRecord),
    /// A database that the dump restores.
    Database(PlannedDatabaseRecord),
    /// A reason why the restore would be refused.
    Obstacle(ObstacleRecord),
}

/// A part that would be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedPartRecord {
    /// `keys`, `config`, `local_storage`, `ipfs` or `database`.
    #[serde(serialize_with = "serialize_part")]
    pub part: NodePart,
    /// Name of the source.
    pub source: String,
    /// The snapshot that has it.
    pub snapshot: String,
    /// When the capture of the source began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Approximate plain size.
    pub bytes: u64,
    /// Approximate number of entries, 0 for a stream.
    pub entries: u64,
    /// A directory or a volume; empty for the database.
    pub place: String,
    /// The place is a volume that would be created.
    pub is_new: bool,
}

/// A container that writes to the node's data or uses a restored volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedContainerRecord {
    /// Name of the container.
    pub name: String,
    /// The engine's state of it; absent if it does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// It must be stopped first.
    pub must_stop: bool,
}

/// The image that a service ran with, compared with the one that would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedImageRecord {
    /// The service.
    pub service: String,
    /// The snapshot that recorded its image.
    pub snapshot: String,
    /// The image of the snapshot, as the compose file named it.
    pub image: String,
    /// The engine's id of it.
    pub id: String,
    /// The image's digest in its registry; absent if it was in none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `same`, `other`, `not_here` (it will be pulled) or `unknown`.
    pub state: &'static str,
    /// The reason for `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The image that the compose file will name; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_here: Option<String>,
    /// The digest of the local image of that name; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_here: Option<String>,
    /// The line of the compose file that pins the snapshot's image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
}

/// A database that the dump restores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedDatabaseRecord {
    /// Name of the database.
    pub name: String,
    /// The database exists and would be replaced.
    pub exists: bool,
    /// Tables of the existing database; absent if it cannot be inspected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<u64>,
    /// Size of the existing database.
    pub bytes: u64,
    /// Its open sessions.
    pub sessions: Vec<String>,
}

/// A reason why the restore would be refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ObstacleRecord {
    /// The reason.
    pub message: String,
    /// Advice in the words of the front end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl NodePlanRecord {
    /// Returns the items of a plan in the order in which to show them. `hint` returns the advice of
    /// an obstacle in the words of the front end.
    pub fn of_plan(
        prepared: &PreparedRestore<'_>,
        hint: impl Fn(&NodeError) -> Option<String>,
    ) -> Vec<Self> {
        let mut records: Vec<Self> = prepared
            .steps
            .iter()
            .map(|placed| Self::Step(placed.into()))
            .collect();
        let writers = prepared.writers.iter();
        records.extend(writers.map(|writer| Self::Container(writer.into())));
        let images = prepared.images.iter();
        records.extend(images.map(|check| Self::Image(check.into())));
        let databases = prepared.database.iter();
        let databases = databases.flat_map(PlannedDatabaseRecord::of_preview);
        records.extend(databases.map(Self::Database));
        let obstacles = prepared.obstacles.iter();
        records.extend(obstacles.map(|obstacle| {
            Self::Obstacle(ObstacleRecord {
                message: obstacle.to_string(),
                hint: hint(obstacle),
            })
        }));
        records
    }
}

impl PlannedDatabaseRecord {
    /// Returns the databases that the dump brings, each with the existing one that it replaces.
    fn of_preview(preview: &RestorePreview) -> Vec<Self> {
        let existing = |name: &str| preview.there.iter().find(|there| there.name == name);
        let names = preview.brings.iter().map(String::as_str);
        names
            .chain(["postgres", "template1"])
            .map(|name| {
                let existing = existing(name);
                Self {
                    name: name.to_owned(),
                    exists: existing.is_some(),
                    tables: existing.map_or(Some(0), |existing| existing.tables),
                    bytes: existing.map_or(0, |existing| existing.bytes),
                    sessions: existing.map_or_else(Vec::new, |existing| existing.sessions.clone()),
                }
            })
            .collect()
    }
}

impl From<&PlacedPart> for PlannedPartRecord {
    fn from(placed: &PlacedPart) -> Self {
        let step = &placed.step;
        let place = placed.spot.as_ref();
        Self {
            part: step.part,
            source: step.record().name.clone(),
            snapshot: step.snapshot.id.to_string(),
            started: rfc3339(step.record().started),
            bytes: step.bytes(),
            entries: step.entries(),
            place: place.map(ToString::to_string).unwrap_or_default(),
            is_new: matches!(
                place,
                Some(ResolvedLocation::Volume {
                    directory: None,
                    ..
                })
            ),
        }
    }
}

impl From<&PlaceWriter> for PlannedContainerRecord {
    fn from(writer: &PlaceWriter) -> Self {
        Self {
            name: writer.name.clone(),
            state: writer.state.clone(),
            must_stop: writer.is_at_work(),
        }
    }
}

impl From<&ImageCheck> for PlannedImageRecord {
    fn from(check: &ImageCheck) -> Self {
        let (state, reason) = match &check.verdict {
            ImageVerdict::Same => ("same", None),
            ImageVerdict::Other => ("other", None),
            ImageVerdict::NotHere => ("not_here", None),
            ImageVerdict::Unknown(why) => ("unknown", Some(why.clone())),
        };
        Self {
            service: check.was.service.clone(),
            snapshot: check.snapshot.to_string(),
            image: check.was.image.clone(),
            id: check.was.id.clone(),
            digest: check.was.digest.clone(),
            state,
            reason,
            image_here: check.now.clone(),
            digest_here: check.local_digest().map(str::to_owned),
            pin: check.pin.clone(),
        }
    }
}

/// Serialises the code of a part, by which the other reports of a node name it too.
fn serialize_part<S: Serializer>(part: &NodePart, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match part {
        NodePart::Keys => "keys",
        NodePart::Config => "config",
        NodePart::LocalStorage => "local_storage",
        NodePart::Ipfs => "ipfs",
        NodePart::Database => "database",
    })
}

/// The result of a restore of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeRestoreSummary {
    /// The parts that were restored.
    pub parts: Vec<RestoredPartRecord>,
    /// Files that the network must bring back, as far as the restore knows.
    pub refill: u64,
}

impl From<&NodeRestoreReport> for NodeRestoreSummary {
    fn from(report: &NodeRestoreReport) -> Self {
        let files = report
            .parts
            .iter()
            .filter(|part| part.part.is_file_storage());
        Self {
            refill: files
                .map(|part| part.failed + part.incomplete + part.left_out)
                .sum(),
            parts: report.parts.iter().map(RestoredPartRecord::from).collect(),
        }
    }
}

/// A part of a node that was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoredPartRecord {
    /// `keys`, `config`, `local_storage`, `ipfs` or `database`.
    #[serde(serialize_with = "serialize_part")]
    pub part: NodePart,
    /// Name of the source.
    pub source: String,
    /// The snapshot that has it.
    pub snapshot: String,
    /// A directory or a volume; empty for the database.
    pub place: String,
    /// Files written.
    pub files_written: u64,
    /// Existing files that were left as they are.
    pub files_unchanged: u64,
    /// Plain bytes written.
    pub bytes_written: u64,
    /// Names deleted.
    pub deleted: u64,
    /// Paths that could not be restored.
    pub failed: u64,
    /// Entries that are incomplete in the snapshot.
    pub incomplete: u64,
    /// Files whose content does not match their name.
    pub left_out: u64,
    /// Parts of metadata that could not be set.
    pub refused_metadata: u64,
    /// Ranges of paths about which nothing is known.
    pub uncertain: u64,
}

impl From<&PartReport> for RestoredPartRecord {
    fn from(report: &PartReport) -> Self {
        Self {
            part: report.part,
            source: report.source.clone(),
            snapshot: report.snapshot.to_string(),
            place: report.place.clone(),
            files_written: report.written,
            files_unchanged: report.unchanged,
            bytes_written: report.bytes_written,
            deleted: report.deleted,
            failed: report.failed,
            incomplete: report.incomplete,
            left_out: report.left_out,
            refused_metadata: report.refused_meta,
            uncertain: report.uncertain,
        }
    }
}
