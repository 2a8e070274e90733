//! What goes where, decided before anything is touched: which capture of each part, and whether
//! they fit together.
//!
//! The node writes a file before the row that names it and deletes it before the row is gone, so
//! file storage that was captured after the database has all that the database speaks of. Older
//! file storage is refused. An incomplete database or set of keys is refused too; what the file
//! storage lacks, the network brings back.

use super::super::NodeError;
use super::super::profile::{Place, Profile};
use crate::Error;
use crate::format::{SnapshotState, SourceKind, SourceRecord};
use crate::observe::{Problem, Severity};
use crate::repo::{StoredSnapshot, trusted_time};
use crate::types::Timestamp;

/// A part of a node, in the order in which parts come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodePart {
    Keys,
    Config,
    LocalStorage,
    Ipfs,
    Database,
}

impl NodePart {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Keys,
        Self::Config,
        Self::LocalStorage,
        Self::Ipfs,
        Self::Database,
    ];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Config => "configuration",
            Self::LocalStorage => "local storage",
            Self::Ipfs => "IPFS",
            Self::Database => "database",
        }
    }

    /// True for what the network can refill.
    pub fn is_file_storage(self) -> bool {
        matches!(self, Self::LocalStorage | Self::Ipfs)
    }

    /// The source that the profile names as this part.
    pub fn source(self, profile: &Profile) -> Option<&str> {
        if self == Self::Database {
            return profile
                .database
                .as_ref()
                .map(|database| database.source.as_str());
        }
        self.part(profile).map(|(source, _)| source)
    }

    /// The same with its place; the database has none.
    fn part(self, profile: &Profile) -> Option<(&str, &Place)> {
        let part = match self {
            Self::Keys => &profile.keys,
            Self::Config => &profile.config,
            Self::LocalStorage => &profile.local_storage,
            Self::Ipfs => &profile.ipfs,
            Self::Database => return None,
        };
        part.as_ref()
            .map(|part| (part.source.as_str(), &part.place))
    }
}

/// How much of the node comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    #[default]
    All,
    /// What the node needs to start: keys, configuration, database, the pinned files of local
    /// storage, and of kubo's repository all but the blocks.
    Minimal,
    /// The rest of the file storage, while the node runs: what is there is never overwritten unless
    /// it is cut short.
    Files,
}

/// A snapshot that was asked for: all of the node's sources in it, or one.
#[derive(Debug, Clone, PartialEq)]
pub struct Pick {
    pub snapshot: StoredSnapshot,
    pub source: Option<String>,
    /// It was not named by its id.
    pub is_latest: bool,
}

/// One part and the capture that it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub part: NodePart,
    pub snapshot: StoredSnapshot,
    /// The place of the source in the snapshot's list.
    pub number: usize,
    /// None for the database.
    pub place: Option<Place>,
}

impl Step {
    /// A source of a snapshot, to be restored to no place; none if the snapshot does not have it.
    pub(super) fn of(part: NodePart, snapshot: &StoredSnapshot, source: &str) -> Option<Self> {
        let number = snapshot
            .snapshot
            .sources
            .iter()
            .position(|record| record.name == source)?;
        Some(Self {
            part,
            snapshot: snapshot.clone(),
            number,
            place: None,
        })
    }

    /// What the snapshot holds of it.
    pub fn record(&self) -> &SourceRecord {
        &self.snapshot.snapshot.sources[self.number]
    }

    /// As it is named on the command line.
    pub fn name(&self) -> String {
        format!("{}:{}", self.snapshot.id.short(), self.record().name)
    }

    /// About how many bytes of content it has.
    pub fn bytes(&self) -> u64 {
        match &self.record().kind {
            SourceKind::Stream { content, .. } => content.size,
            SourceKind::Tree { runs, .. } => {
                let held: u64 = runs.iter().map(|run| run.content).sum();
                held.saturating_sub(runs.iter().map(|run| run.hides).sum())
            }
        }
    }

    /// About how many entries it has; of a stream 0.
    pub fn entries(&self) -> u64 {
        let counts = &self.record().counts;
        match &self.record().kind {
            SourceKind::Stream { .. } => 0,
            SourceKind::Tree { .. } => {
                counts.files_new + counts.files_changed + counts.files_unchanged + counts.others
            }
        }
    }
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// What is worth knowing before.
    pub warnings: Vec<Problem>,
    /// Some of the file storage is not whole.
    pub lacks_files: bool,
}

impl Plan {
    /// The capture that a part comes from, if it does.
    pub fn step(&self, part: NodePart) -> Option<&Step> {
        self.steps.iter().find(|step| step.part == part)
    }
}

/// Decides which capture each part comes from. `all`: the repository's snapshots, for advice.
///
/// # Errors
/// [`NodeError::Refused`] where the parts do not fit together or one that must be whole is not, and
/// says which capture to take instead.
pub fn plan(
    profile: &Profile,
    picks: &[Pick],
    scope: Scope,
    all: &[StoredSnapshot],
) -> Result<Plan, NodeError> {
    let mut plan = Plan::default();
    let base = base_of(profile, picks, scope)?;
    for part in NodePart::ALL {
        if scope == Scope::Files && !part.is_file_storage() {
            continue;
        }
        let Some(source) = part.source(profile) else {
            continue;
        };
        let picked = picks
            .iter()
            .find(|pick| pick.source.as_deref() == Some(source));
        let Some(Pick { snapshot, .. }) = picked.or(base) else {
            continue;
        };
        let Some(number) = snapshot
            .snapshot
            .sources
            .iter()
            .position(|record| record.name == source)
        else {
            lacking(part, source, snapshot, all, &mut plan)?;
            continue;
        };
        let place = part.part(profile).map(|(_, place)| place.clone());
        let step = Step {
            part,
            snapshot: snapshot.clone(),
            number,
            place,
        };
        fits_its_kind(&step)?;
        is_whole(
            &step,
            picked.is_some_and(|pick| !pick.is_latest),
            all,
            &mut plan,
        )?;
        plan.steps.push(step);
    }
    if plan.steps.is_empty() {
        return Err(
            Error::NotThere("there is nothing of the node in what was asked for".into()).into(),
        );
    }
    if let Some(base) = base {
        others(profile, &base.snapshot, &mut plan);
    }
    settings(&mut plan);
    if let Some(database) = plan.step(NodePart::Database) {
        ages(&plan, database, all)?;
    }
    Ok(plan)
}

/// The pick of a whole snapshot; every other one must be of a part of the node.
fn base_of<'p>(
    profile: &Profile,
    picks: &'p [Pick],
    scope: Scope,
) -> Result<Option<&'p Pick>, NodeError> {
    let usage = |why: String| Err(Error::Usage(why).into());
    for (number, pick) in picks.iter().enumerate() {
        if picks[..number]
            .iter()
            .any(|other| other.source == pick.source)
        {
            return match &pick.source {
                None => usage(
                    "two whole snapshots; name single sources of the second: SNAP:SOURCE".into(),
                ),
                Some(source) => usage(format!("two captures of source '{source}'")),
            };
        }
        let Some(source) = &pick.source else { continue };
        match NodePart::ALL
            .into_iter()
            .find(|part| part.source(profile) == Some(source))
        {
            None => {
                return usage(format!(
                    "source '{source}' is no part of the node; 'icecore restore' puts it anywhere"
                ));
            }
            Some(part) if scope == Scope::Files && !part.is_file_storage() => {
                return usage(format!(
                    "--files restores file storage alone, and '{source}' is the {}",
                    part.name()
                ));
            }
            Some(_) => {}
        }
    }
    Ok(picks.iter().find(|pick| pick.source.is_none()))
}

/// A snapshot does not have a part.
fn lacking(
    part: NodePart,
    source: &str,
    snapshot: &StoredSnapshot,
    all: &[StoredSnapshot],
    plan: &mut Plan,
) -> Result<(), NodeError> {
    let why = format!(
        "snapshot {} has no source '{source}', the node's {}",
        snapshot.id.short(),
        part.name()
    );
    if matches!(part, NodePart::Keys | NodePart::Database) {
        return Err(NodeError::Refused {
            why,
            hint: instead(source, snapshot, all),
        });
    }
    plan.lacks_files |= part.is_file_storage();
    plan.warnings
        .push(Problem::new(Severity::Missing, source, why));
    Ok(())
}

fn fits_its_kind(step: &Step) -> Result<(), NodeError> {
    let is_stream = matches!(step.record().kind, SourceKind::Stream { .. });
    if is_stream == (step.part == NodePart::Database) {
        return Ok(());
    }
    let is = if is_stream { "a stream" } else { "a tree" };
    Err(Error::NotThere(format!(
        "{} is {is}: it cannot be the node's {}",
        step.name(),
        step.part.name()
    ))
    .into())
}

/// Refuses a part that must be whole and is not; tells of one that need not be. One that is merely
/// suspect is taken if it was named by itself, by its id.
fn is_whole(
    step: &Step,
    is_named: bool,
    all: &[StoredSnapshot],
    plan: &mut Plan,
) -> Result<(), NodeError> {
    let record = step.record();
    let (source, must_be) = (
        &record.name,
        matches!(step.part, NodePart::Keys | NodePart::Database),
    );
    let Some(fault) = fault(&step.snapshot, record) else {
        let Some(reason) = &record.suspect else {
            return Ok(());
        };
        if must_be && !is_named {
            let why = format!(
                "{}, the node's {}, is doubtful: {reason}",
                step.name(),
                step.part.name()
            );
            let hint = instead(source, &step.snapshot, all);
            let hint = format!(
                "{hint}; or name this one, to have it all the same: {}",
                step.name()
            );
            return Err(NodeError::Refused { why, hint });
        }
        let what = format!("it is doubtful: {reason}");
        plan.warnings
            .push(Problem::new(Severity::Note, step.name(), what));
        return Ok(());
    };
    if must_be {
        let why = format!(
            "{}, the node's {}, is not whole: {fault}",
            step.name(),
            step.part.name()
        );
        return Err(NodeError::Refused {
            why,
            hint: instead(source, &step.snapshot, all),
        });
    }
    plan.lacks_files |= step.part.is_file_storage();
    let refill = if step.part.is_file_storage() {
        "; the network must refill what it lacks"
    } else {
        ""
    };
    plan.warnings.push(Problem::new(
        Severity::Note,
        step.name(),
        format!("it is not whole: {fault}{refill}"),
    ));
    Ok(())
}

/// Why a capture is not whole.
fn fault(snapshot: &StoredSnapshot, record: &SourceRecord) -> Option<String> {
    if record.counts.incomplete > 0 {
        return Some(match record.counts.incomplete {
            1 => "1 entry of it was not captured as it was".to_owned(),
            count => format!("{count} entries of it were not captured as they were"),
        });
    }
    let lost = snapshot.snapshot.lost.as_ref()?;
    let named = lost
        .paths
        .iter()
        .filter(|path| path.source == record.name)
        .count();
    // Not every path is named: then any source may be meant.
    let is_hit = named > 0 || lost.count > lost.paths.len() as u64;
    is_hit.then(|| "some of it was lost before a repair".to_owned())
}

/// Which capture of a source to take instead: the newest good one of the same host, best one no
/// younger than the rest.
fn instead(source: &str, snapshot: &StoredSnapshot, all: &[StoredSnapshot]) -> String {
    let is_good = |one: &&StoredSnapshot| {
        let record = one.snapshot.source(source);
        record.is_some_and(|record| record.suspect.is_none() && fault(one, record).is_none())
    };
    let fits = |one: &&StoredSnapshot| is_good(one) && one.committed() <= snapshot.committed();
    match newest(snapshot, all, fits).or_else(|| newest(snapshot, all, is_good)) {
        Some(good) => format!(
            "name another capture of it beside the snapshot: {}:{source}",
            good.id.short()
        ),
        None => format!(
            "no snapshot has a good '{source}'; 'icecore restore SNAP:{source}' takes out what there is, to be put back by hand"
        ),
    }
}

/// The snapshot committed last, of this one's host, that is as wanted.
fn newest<'s>(
    like: &StoredSnapshot,
    all: &'s [StoredSnapshot],
    wanted: impl Fn(&&StoredSnapshot) -> bool,
) -> Option<&'s StoredSnapshot> {
    all.iter()
        .filter(|one| one.snapshot.host == like.snapshot.host)
        .filter(|one| one.snapshot.state != SnapshotState::Checkpoint)
        .filter(wanted)
        .max_by_key(|one| one.order())
}

/// Tells of sources that are no part of the node.
fn others(profile: &Profile, snapshot: &StoredSnapshot, plan: &mut Plan) {
    let is_part = |name: &str| {
        NodePart::ALL
            .into_iter()
            .any(|part| part.source(profile).is_some_and(|source| source == name))
    };
    for record in snapshot
        .snapshot
        .sources
        .iter()
        .filter(|record| !is_part(&record.name))
    {
        let what =
            "it is no part of the node and stays in the repository; 'icecore restore' takes it out";
        plan.warnings
            .push(Problem::new(Severity::Note, &record.name, what));
    }
}

/// Reports where the compose file, pyaleph's configuration and the script that sets kubo up are of
/// another snapshot than what they are for.
fn settings(plan: &mut Plan) {
    let Some(config) = plan.step(NodePart::Config) else {
        return;
    };
    let is_other = |step: &&Step| step.snapshot.id != config.snapshot.id;
    let parts = [NodePart::Ipfs, NodePart::Database];
    let others: Vec<String> = parts
        .into_iter()
        .filter_map(|part| plan.step(part))
        .filter(is_other)
        .map(|step| format!("the {} of {}", step.part.name(), step.name()))
        .collect();
    if !others.is_empty() {
        let what = format!(
            "the compose file, the configuration and kubo's script in it are of another snapshot than {}: they may not fit",
            others.join(" and ")
        );
        plan.warnings
            .push(Problem::new(Severity::Note, config.name(), what));
    }
}

/// Refuses file storage that is older than the database.
pub(super) fn ages(plan: &Plan, database: &Step, all: &[StoredSnapshot]) -> Result<(), NodeError> {
    for files in plan.steps.iter().filter(|step| step.part.is_file_storage()) {
        let Some(why) = older(files, database) else {
            continue;
        };
        let source = &files.record().name;
        let fits = |one: &&StoredSnapshot| {
            let number = one
                .snapshot
                .sources
                .iter()
                .position(|record| record.name == *source);
            number.is_some_and(|number| {
                let step = Step {
                    snapshot: (*one).clone(),
                    number,
                    ..files.clone()
                };
                fits_its_kind(&step).is_ok() && older(&step, database).is_none()
            })
        };
        let hint = match newest(&files.snapshot, all, fits) {
            Some(good) => format!(
                "take younger files ({}:{source}), or an older database",
                good.id.short()
            ),
            None => older_database(files, &database.record().name, all),
        };
        let why = format!(
            "the {} of {} is older than the database of {}: {why}",
            files.part.name(),
            files.name(),
            database.name()
        );
        return Err(NodeError::Refused { why, hint });
    }
    Ok(())
}

/// What to type where all files are older than the database.
fn older_database(files: &Step, database: &str, all: &[StoredSnapshot]) -> String {
    let fits = |one: &&StoredSnapshot| {
        let step = Step::of(NodePart::Database, one, database);
        step.is_some_and(|step| fits_its_kind(&step).is_ok() && older(files, &step).is_none())
    };
    match newest(&files.snapshot, all, fits) {
        Some(good) => format!(
            "take the database of an older snapshot: {}:{database}",
            good.id.short()
        ),
        None => format!(
            "no snapshot holds a database that old; back up again, with the [[source]] of the files below that of '{database}'; or take the files out by hand: icecore restore {} DIRECTORY",
            files.name()
        ),
    }
}

/// True if a snapshot of the same host holds a database for which these files were captured too
/// early.
pub(super) fn is_older_than_any(files: &Step, database: &str, all: &[StoredSnapshot]) -> bool {
    let databases = all
        .iter()
        .filter(|one| one.snapshot.host == files.snapshot.snapshot.host)
        .filter(|one| one.snapshot.state != SnapshotState::Checkpoint)
        .filter_map(|one| Step::of(NodePart::Database, one, database));
    databases
        .into_iter()
        .any(|database| older(files, &database).is_some())
}

/// Why files were captured too early for a database, if they were.
pub(super) fn older(files: &Step, database: &Step) -> Option<String> {
    if files.snapshot.id == database.snapshot.id {
        return (files.number < database.number)
            .then(|| "in that snapshot it was captured before the database".to_owned());
    }
    // By the store's clock; by the hosts' clocks as far as they can be trusted.
    if files.snapshot.committed() <= database.snapshot.committed() {
        return Some("its snapshot was committed earlier".to_owned());
    }
    let trusted = |time: Timestamp, step: &Step| trusted_time(time, step.snapshot.committed());
    let begun = trusted(files.record().started, files);
    let ended = trusted(database.record().ended, database);
    (begun < ended).then(|| "its capture began before that of the database had ended".to_owned())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
