//! Which captures of the database and of the file storage were restored here before: files must not
//! be older than the database, also where two commands restore them.
//!
//! The state directory holds a file for each part of each node: another server and other places are
//! another node. What came from elsewhere is not known.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::NodeError;
use super::super::profile::Profile;
use super::plan::{NodePart, Plan, Step, ages, is_older_than_any, older};
use crate::observe::{Problem, Severity};
use crate::repo::StoredSnapshot;
use crate::sys::{Existing, PathError, StateDir};

/// The file is never longer.
const FILE_BYTES_MAX: usize = 64 << 10;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Restored {
    /// The first snapshot of which the one that it came from is a copy or a re-tag.
    snapshot: String,
    source: String,
}

/// The file's name: of a part, a server and the places of files.
fn file_name(profile: &Profile, part: NodePart) -> Option<String> {
    let suffix = match part {
        NodePart::Database => "",
        NodePart::LocalStorage => "-local-storage",
        NodePart::Ipfs => "-ipfs",
        NodePart::Keys | NodePart::Config => return None,
    };
    let database = profile.database.as_ref()?;
    let place =
        |part: &Option<super::super::profile::Part>| part.as_ref().map(|part| part.place.clone());
    let node = format!(
        "{:?} {:?} {:?}",
        database.server.access,
        place(&profile.local_storage),
        place(&profile.ipfs)
    );
    let hash = blake3::hash(node.as_bytes()).to_hex();
    Some(format!("restored-{}{suffix}", &hash[..32]))
}

/// Remembers that the database or file storage is put in its place now; before that, so that a part
/// that is half restored counts.
pub(super) fn remember(
    state: Option<&StateDir>,
    profile: &Profile,
    step: &Step,
) -> Result<(), PathError> {
    let (Some(state), Some(name)) = (state, file_name(profile, step.part)) else {
        return Ok(());
    };
    let restored = Restored {
        snapshot: step.snapshot.first().to_string(),
        source: step.record().name.clone(),
    };
    let Ok(bytes) = serde_json::to_vec(&restored) else {
        return Ok(());
    };
    state.write(&name, &bytes, Existing::Replace)
}

/// Refuses files that are older than the database that was restored here; where none was, warns if
/// they may be older than the one that is there. A database that is younger than the files that
/// were restored here is no more than a warning: the node may have run since.
pub(super) fn compare(
    state: Option<&StateDir>,
    profile: &Profile,
    plan: &Plan,
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
        return ages(plan, &database, all).map(|()| None).map_err(|err| match err {
            NodeError::Refused { why, hint } => NodeError::Refused {
                why: format!("{why}; that database was restored here"),
                hint: format!(
                    "{hint}, with its files in one command; if another database was put in its place since: rm {}",
                    path.display()
                ),
            },
            err => err,
        });
    }
    if !is_older_than_any(files, source, all) {
        return Ok(None);
    }
    let what = "there are later captures of the database: if the one that is there is younger than these files, some that it names are missing; 'icecore node check --live' names them";
    Ok(Some(Problem::new(Severity::Warning, files.name(), what)))
}

/// Warns of files that were restored here, are not restored again with the database, and are older
/// than it.
fn older_files(
    state: Option<&StateDir>,
    profile: &Profile,
    plan: &Plan,
    database: &Step,
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
        "the {} that was restored here last is that of {}, which is older: unless the node has run since, files that this database names are missing; 'icecore node check --live' names them, 'icecore node restore {}' restores all parts",
        files.part.name(),
        files.snapshot.id.short(),
        database.snapshot.id.short()
    );
    Some(Problem::new(Severity::Warning, database.name(), what))
}

fn read(
    state: Option<&StateDir>,
    profile: &Profile,
    part: NodePart,
) -> Option<(Restored, PathBuf)> {
    let (state, name) = (state?, file_name(profile, part)?);
    let bytes = state.read(&name, FILE_BYTES_MAX).ok()??;
    Some((
        serde_json::from_slice(&bytes).ok()?,
        state.path().join(name),
    ))
}

impl Restored {
    /// The capture, if the repository has it still.
    fn step(&self, part: NodePart, all: &[StoredSnapshot]) -> Option<Step> {
        let snapshot = all
            .iter()
            .find(|one| one.first().to_string() == self.snapshot)?;
        Step::of(part, snapshot, &self.source)
    }
}
