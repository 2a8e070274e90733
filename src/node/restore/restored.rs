//! Which database was restored here before: files that are restored later must not be older than it.
//!
//! The state directory holds it, in a file for each node: another server and other places are another node. A database that
//! came from elsewhere is not known.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::NodeError;
use super::super::profile::Profile;
use super::plan::{NodePart, Plan, Step, ages, is_older_than_any};
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

/// The file's name: of a server and of the places of files.
fn file_name(profile: &Profile) -> Option<String> {
    let database = profile.database.as_ref()?;
    let place = |part: &Option<super::super::profile::Part>| part.as_ref().map(|part| part.place.clone());
    let node = format!(
        "{:?} {:?} {:?}",
        database.server.access,
        place(&profile.local_storage),
        place(&profile.ipfs)
    );
    let hash = blake3::hash(node.as_bytes()).to_hex();
    Some(format!("restored-{}", &hash[..32]))
}

/// Remembers that a database is put in its place now; before that, so that one that is half restored counts.
pub(super) fn remember(state: Option<&StateDir>, profile: &Profile, step: &Step) -> Result<(), PathError> {
    let (Some(state), Some(name)) = (state, file_name(profile)) else { return Ok(()) };
    let restored =
        Restored { snapshot: step.snapshot.first().to_string(), source: step.record().name.clone() };
    let Ok(bytes) = serde_json::to_vec(&restored) else { return Ok(()) };
    state.write(&name, &bytes, Existing::Replace)
}

/// Refuses files that are older than the database that was restored here; where none was, says so if they may be older than
/// the one that is there. Nothing is compared where the database is restored with them.
pub(super) fn compare(
    state: Option<&StateDir>,
    profile: &Profile,
    plan: &Plan,
    all: &[StoredSnapshot],
) -> Result<Option<Problem>, NodeError> {
    let Some(source) = NodePart::Database.source(profile) else { return Ok(None) };
    let Some(files) = plan.steps.iter().find(|step| step.part.is_file_storage()) else { return Ok(None) };
    if plan.step(NodePart::Database).is_some() {
        return Ok(None);
    }
    if let Some((restored, path)) = read(state, profile)
        && let Some(database) = restored.step(all)
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

fn read(state: Option<&StateDir>, profile: &Profile) -> Option<(Restored, PathBuf)> {
    let (state, name) = (state?, file_name(profile)?);
    let bytes = state.read(&name, FILE_BYTES_MAX).ok()??;
    Some((serde_json::from_slice(&bytes).ok()?, state.path().join(name)))
}

impl Restored {
    /// The capture, if the repository has it still.
    fn step(&self, all: &[StoredSnapshot]) -> Option<Step> {
        let snapshot = all.iter().find(|one| one.first().to_string() == self.snapshot)?;
        Step::of(NodePart::Database, snapshot, &self.source)
    }
}
