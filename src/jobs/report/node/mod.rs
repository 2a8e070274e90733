//! Reports of the commands for Core Channel Nodes.

mod check;
mod init;
mod restore;

pub use check::{CheckedPlaceRecord, NodeCheckSummary, NodeFileRecord};
pub use init::{FoundDatabaseRecord, FoundFilesRecord, FoundTreeRecord, NodeInitSummary};
pub use restore::{
    NodePlanRecord, NodeRestoreSummary, ObstacleRecord, PlannedContainerRecord,
    PlannedDatabaseRecord, PlannedImageRecord, PlannedPartRecord, RestoredPartRecord,
};
