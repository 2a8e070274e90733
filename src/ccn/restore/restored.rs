//! Records the captures of the database and the file storage that were restored on this machine.
//! Files must not be older than the database, even if two commands restore them.
//!
//! The state directory has one file for each part of each node. A different server or different
//! places make a different node. Restores on other machines are not known.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::NodeError;
use super::super::profile::NodeLayout;
use super::plan::{NodePart, RestorePlan, RestoreStep, ages, is_older_than_any, older};
use crate::advice::{Advice, NodeAdvice};
use crate::observe::{Problem, Severity};
use crate::repo::StoredSnapshot;
use crate::sys::{ExistingFile, PathError, StateDir};

/// Upper limit of a record's length, in bytes.
const FILE_BYTES_MAX: usize = 64 << 10;

/// The content of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RestoredCapture {
    /// The id of the restored snapshot, or of the first one that it is a copy or a re-tag of.
    snapshot: String,
    source: String,
}

/// Returns the record's file name, from the part, the server and the places of the files.
fn file_name(profile: &NodeLayout, part: NodePart) -> Option<String> {
    let suffix = match part {
        NodePart::Database => "",
        NodePart::LocalStorage => "-local-storage",
        NodePart::Ipfs => "-ipfs",
        NodePart::Keys | NodePart::Config => return None,
    };
    let database = profile.database.as_ref()?;
    let place = |part: &Option<super::super::profile::NodeSource>| {
        part.as_ref().map(|part| part.place.clone())
    };
    let node = format!(
        "{:?} {:?} {:?}",
        database.server.access,
        place(&profile.local_storage),
        place(&profile.ipfs)
    );
    let hash = blake3::hash(node.as_bytes()).to_hex();
    Some(format!("restored-{}{suffix}", &hash[..32]))
}

/// Records that the database or file storage is being restored. This precedes the restore, so that
/// a half-restored part counts.
pub(super) fn remember(
    state: Option<&StateDir>,
    profile: &NodeLayout,
    step: &RestoreStep,
) -> Result<(), PathError> {
    let (Some(state), Some(name)) = (state, file_name(profile, step.part)) else {
        return Ok(());
    };
    let restored = RestoredCapture {
        snapshot: step.snapshot.first().to_string(),
        source: step.record().name.clone(),
    };
    let Ok(bytes) = serde_json::to_vec(&restored) else {
        return Ok(());
    };
    state.write(&name, &bytes, ExistingFile::Replace)
}

/// Refuses files that are older than the database that was restored before. If none was, warns if
/// the files may be older than the existing database. If the database is restored, warns if it is
/// newer than the files that were restored before: that is not refused because the node may have
/// run since.
pub(super) fn compare(
    state: Option<&StateDir>,
    profile: &NodeLayout,
    plan: &RestorePlan,
    all: &[StoredSnapshot],
) -> Result<Option<Problem>, NodeError> {
    let Some(source) = NodePart::Database.source(profile) else {
        return Ok(None);
    };

    if let Some(database) = plan.step(NodePart::Database) {
        return Ok(older_files(state, profile, plan, database, all));
    }

    let Some(files) = plan.steps.iter().find(|step| step.part.is_file_storage()) else {
        return Ok(None);
    };
    if let Some((restored, path)) = read(state, profile, NodePart::Database)
        && let Some(database) = restored.step(NodePart::Database, all)
    {
        return ages(plan, &database, all)
            .map(|()| None)
            .map_err(|err| match err {
                NodeError::Refused { why, advice } => NodeError::Refused {
                    why: format!("{why}; that database was restored here"),
                    advice: Advice::Node(NodeAdvice::InOneCommand {
                        first: Box::new(advice),
                        record: path.clone(),
                    }),
                },
                err => err,
            });
    }

    if !is_older_than_any(files, source, all) {
        return Ok(None);
    }

    let what = "there are later captures of the database: if the existing one is newer than these files, some that it references are missing";
    let warning = Problem::new(Severity::Warning, files.name(), what);
    Ok(Some(
        warning.with_advice(Advice::Node(NodeAdvice::CheckNode)),
    ))
}

/// Warns of files that were restored before, are not restored together with the database, and are
/// older than it.
fn older_files(
    state: Option<&StateDir>,
    profile: &NodeLayout,
    plan: &RestorePlan,
    database: &RestoreStep,
    all: &[StoredSnapshot],
) -> Option<Problem> {
    let parts = NodePart::ALL
        .into_iter()
        .filter(|part| part.is_file_storage() && plan.step(*part).is_none());
    let files = parts.filter_map(|part| read(state, profile, part)?.0.step(part, all));
    let files = files
        .into_iter()
        .find(|files| older(files, database).is_some())?;
    let what = format!(
        "the {} that was restored here last is that of {}, which is older: unless the node has run since, files that this database references are missing",
        files.part.name(),
        files.snapshot.id.short()
    );
    let warning = Problem::new(Severity::Warning, database.name(), what);
    Some(
        warning.with_advice(Advice::Node(NodeAdvice::CheckNodeOrRestoreAll {
            snapshot: database.snapshot.id.short(),
        })),
    )
}

fn read(
    state: Option<&StateDir>,
    profile: &NodeLayout,
    part: NodePart,
) -> Option<(RestoredCapture, PathBuf)> {
    let state = state?;
    let name = file_name(profile, part)?;
    let bytes = state.read(&name, FILE_BYTES_MAX).ok()??;
    Some((
        serde_json::from_slice(&bytes).ok()?,
        state.path().join(name),
    ))
}

impl RestoredCapture {
    /// Returns the capture, if it is still in the repository.
    fn step(&self, part: NodePart, all: &[StoredSnapshot]) -> Option<RestoreStep> {
        let snapshot = all
            .iter()
            .find(|one| one.first().to_string() == self.snapshot)?;
        RestoreStep::of(part, snapshot, &self.source)
    }
}
