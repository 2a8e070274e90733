//! Chooses the capture of each part, and checks that the captures fit together, before anything is
//! changed.
//!
//! The node writes a file before the row that refers to it, and deletes the file before the row. So
//! file storage that was captured after the database has all files that the database refers to.
//! Older file storage is refused. An incomplete database or incomplete keys are refused too. Files
//! that are missing from the file storage are refilled from the network.

use super::super::NodeError;
use super::super::profile::{NodeLayout, SourceLocation};
use crate::Error;
use crate::advice::{Advice, NodeAdvice};
use crate::format::{SnapshotState, SourceKind, SourceRecord};
use crate::observe::{Problem, Severity};
use crate::repo::{StoredSnapshot, trusted_time};
use crate::types::{Timestamp, to_u64};

/// A part of a node, in the order in which parts are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodePart {
    Keys,
    Config,
    LocalStorage,
    Ipfs,
    Database,
}

impl NodePart {
    /// All parts.
    pub const ALL: [Self; 5] = [
        Self::Keys,
        Self::Config,
        Self::LocalStorage,
        Self::Ipfs,
        Self::Database,
    ];

    /// Returns the name of the part for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Config => "configuration",
            Self::LocalStorage => "local storage",
            Self::Ipfs => "IPFS",
            Self::Database => "database",
        }
    }

    /// Returns true if the network can refill the part.
    pub fn is_file_storage(self) -> bool {
        matches!(self, Self::LocalStorage | Self::Ipfs)
    }

    /// Returns the source that the profile assigns to this part.
    pub fn source(self, profile: &NodeLayout) -> Option<&str> {
        if self == Self::Database {
            return profile
                .database
                .as_ref()
                .map(|database| database.source.as_str());
        }
        self.part(profile).map(|(source, _)| source)
    }

    /// Returns the source and its place. The database has no place.
    fn part(self, profile: &NodeLayout) -> Option<(&str, &SourceLocation)> {
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

/// The extent of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestoreScope {
    #[default]
    All,
    /// The parts that the node needs to start: keys, configuration, database, the pinned files of
    /// local storage, and kubo's repository without the blocks.
    Minimal,
    /// The rest of the file storage, while the node runs. An existing file is overwritten only if
    /// its size differs.
    Files,
}

/// A requested snapshot: all of the node's sources in it, or one.
#[derive(Debug, Clone, PartialEq)]
pub struct PartPick {
    pub snapshot: StoredSnapshot,
    pub source: Option<String>,
    /// True if the snapshot was not requested by its id.
    pub is_latest: bool,
}

/// One part and its capture.
#[derive(Debug, Clone, PartialEq)]
pub struct RestoreStep {
    pub part: NodePart,
    pub snapshot: StoredSnapshot,
    /// The index of the source in the snapshot's list.
    pub number: usize,
    /// `None` for the database.
    pub place: Option<SourceLocation>,
}

impl RestoreStep {
    /// Returns a step without a place for a source of a snapshot; `None` if the snapshot does not
    /// have the source.
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

    /// Returns the snapshot's record of the source.
    pub fn record(&self) -> &SourceRecord {
        &self.snapshot.snapshot.sources[self.number]
    }

    /// Returns the capture's name, with its snapshot: `4f1c9a02:db`.
    pub fn name(&self) -> String {
        format!("{}:{}", self.snapshot.id.short(), self.record().name)
    }

    /// Returns the approximate size of the content, in bytes.
    pub fn bytes(&self) -> u64 {
        match &self.record().kind {
            SourceKind::Stream { content, .. } => content.size,
            SourceKind::Tree { runs, .. } => {
                let held: u64 = runs.iter().map(|run| run.content).sum();
                held.saturating_sub(runs.iter().map(|run| run.hides).sum())
            }
        }
    }

    /// Returns the approximate number of entries; 0 for a stream.
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

/// The steps of a restore, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RestorePlan {
    pub steps: Vec<RestoreStep>,
    /// Warnings to report before the restore.
    pub warnings: Vec<Problem>,
    /// True if some of the file storage is incomplete.
    pub lacks_files: bool,
}

impl RestorePlan {
    /// Returns the capture of a part, if the part is restored.
    pub fn step(&self, part: NodePart) -> Option<&RestoreStep> {
        self.steps.iter().find(|step| step.part == part)
    }
}

/// Chooses the capture of each part. `all`: the repository's snapshots, for advice.
///
/// # Errors
/// Returns [`NodeError::Refused`] if the parts do not fit together, or if a part that must be
/// complete is not. The advice names the capture to take instead.
pub fn plan(
    profile: &NodeLayout,
    picks: &[PartPick],
    scope: RestoreScope,
    all: &[StoredSnapshot],
) -> Result<RestorePlan, NodeError> {
    let mut plan = RestorePlan::default();
    let base = base_of(profile, picks, scope)?;
    for part in NodePart::ALL {
        if scope == RestoreScope::Files && !part.is_file_storage() {
            continue;
        }

        let Some(source) = part.source(profile) else {
            continue;
        };

        // A pick of this source takes precedence over the whole snapshot.
        let picked = picks
            .iter()
            .find(|pick| pick.source.as_deref() == Some(source));
        let Some(PartPick { snapshot, .. }) = picked.or(base) else {
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
        let step = RestoreStep {
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
        return Err(Error::NotThere("the selection has no part of the node".into()).into());
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

/// Returns the pick of a whole snapshot. All other picks must be of a part of the node.
fn base_of<'p>(
    profile: &NodeLayout,
    picks: &'p [PartPick],
    scope: RestoreScope,
) -> Result<Option<&'p PartPick>, NodeError> {
    let usage = |why: String| Err(Error::usage(why).into());
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
                return Err(NodeError::Usage {
                    why: format!("source '{source}' is not a part of the node"),
                    advice: Advice::Node(NodeAdvice::RestoreSeparately),
                });
            }
            Some(part) if scope == RestoreScope::Files && !part.is_file_storage() => {
                return Err(NodeError::Usage {
                    why: format!(
                        "cannot restore '{source}' as file storage: it is the {}",
                        part.name()
                    ),
                    advice: Advice::Node(NodeAdvice::RestoreAllParts),
                });
            }
            Some(_) => {}
        }
    }

    Ok(picks.iter().find(|pick| pick.source.is_none()))
}

/// Handles a part that the snapshot does not have.
fn lacking(
    part: NodePart,
    source: &str,
    snapshot: &StoredSnapshot,
    all: &[StoredSnapshot],
    plan: &mut RestorePlan,
) -> Result<(), NodeError> {
    let why = format!(
        "snapshot {} has no source '{source}', the node's {}",
        snapshot.id.short(),
        part.name()
    );
    if matches!(part, NodePart::Keys | NodePart::Database) {
        return Err(NodeError::Refused {
            why,
            advice: instead(source, snapshot, all),
        });
    }
    plan.lacks_files |= part.is_file_storage();
    plan.warnings
        .push(Problem::new(Severity::Missing, source, why));
    Ok(())
}

fn fits_its_kind(step: &RestoreStep) -> Result<(), NodeError> {
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

/// Refuses a part that must be complete and is not, and warns of other incomplete parts. A suspect
/// capture that is complete is accepted if it was requested separately, by its id.
fn is_whole(
    step: &RestoreStep,
    is_named: bool,
    all: &[StoredSnapshot],
    plan: &mut RestorePlan,
) -> Result<(), NodeError> {
    let record = step.record();
    let source = &record.name;
    let must_be = matches!(step.part, NodePart::Keys | NodePart::Database);

    let Some(fault) = fault(&step.snapshot, record) else {
        let Some(reason) = &record.suspect else {
            return Ok(());
        };
        if must_be && !is_named {
            let why = format!(
                "{}, the node's {}, is suspect: {reason}",
                step.name(),
                step.part.name()
            );
            let advice = Advice::Node(NodeAdvice::OrNameThis {
                first: Box::new(instead(source, &step.snapshot, all)),
                capture: step.name(),
            });
            return Err(NodeError::Refused { why, advice });
        }
        let what = format!("it is suspect: {reason}");
        plan.warnings
            .push(Problem::new(Severity::Note, step.name(), what));
        return Ok(());
    };

    if must_be {
        let why = format!(
            "{}, the node's {}, is incomplete: {fault}",
            step.name(),
            step.part.name()
        );
        return Err(NodeError::Refused {
            why,
            advice: instead(source, &step.snapshot, all),
        });
    }

    plan.lacks_files |= step.part.is_file_storage();
    let refill = if step.part.is_file_storage() {
        "; the node must fetch the rest from the network"
    } else {
        ""
    };
    plan.warnings.push(Problem::new(
        Severity::Note,
        step.name(),
        format!("it is incomplete: {fault}{refill}"),
    ));
    Ok(())
}

/// Returns the reason why a capture is incomplete.
fn fault(snapshot: &StoredSnapshot, record: &SourceRecord) -> Option<String> {
    if record.counts.incomplete > 0 {
        return Some(match record.counts.incomplete {
            1 => "1 entry was not captured completely".to_owned(),
            count => format!("{count} entries were not captured completely"),
        });
    }
    let lost = snapshot.snapshot.lost.as_ref()?;
    let named = lost
        .paths
        .iter()
        .filter(|path| path.source == record.name)
        .count();
    // The list of lost paths is not complete, so any source may be affected.
    let is_hit = named > 0 || lost.count > to_u64(lost.paths.len());
    is_hit.then(|| "some of it was lost before a repair".to_owned())
}

/// Suggests another capture of a source: the newest good one of the same host, preferably one that
/// is not newer than the rest.
fn instead(source: &str, snapshot: &StoredSnapshot, all: &[StoredSnapshot]) -> Advice {
    let is_good = |one: &&StoredSnapshot| {
        let record = one.snapshot.source(source);
        record.is_some_and(|record| record.suspect.is_none() && fault(one, record).is_none())
    };
    let fits = |one: &&StoredSnapshot| is_good(one) && one.committed() <= snapshot.committed();
    match newest(snapshot, all, fits).or_else(|| newest(snapshot, all, is_good)) {
        Some(good) => Advice::Node(NodeAdvice::NameCapture {
            capture: format!("{}:{source}", good.id.short()),
        }),
        None => Advice::Node(NodeAdvice::CopyBack {
            source: source.to_owned(),
        }),
    }
}

/// Returns the snapshot of the same host that was committed last among those that `wanted` accepts.
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

/// Adds a note for each source that is not a part of the node.
fn others(profile: &NodeLayout, snapshot: &StoredSnapshot, plan: &mut RestorePlan) {
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
        let what = "it is not a part of the node and is not restored";
        let note = Problem::new(Severity::Note, &record.name, what);
        plan.warnings
            .push(note.with_advice(Advice::Node(NodeAdvice::RestoreSeparately)));
    }
}

/// Adds a note if the configuration is of another snapshot than kubo's repository or the database.
/// Its source also has the compose file and the script that sets up kubo.
fn settings(plan: &mut RestorePlan) {
    let Some(config) = plan.step(NodePart::Config) else {
        return;
    };
    let is_other = |step: &&RestoreStep| step.snapshot.id != config.snapshot.id;
    let parts = [NodePart::Ipfs, NodePart::Database];
    let others: Vec<String> = parts
        .into_iter()
        .filter_map(|part| plan.step(part))
        .filter(is_other)
        .map(|step| format!("the {} of {}", step.part.name(), step.name()))
        .collect();
    if !others.is_empty() {
        let what = format!(
            "its compose file, configuration and kubo script are from another snapshot than {}: they may not match",
            others.join(" and ")
        );
        plan.warnings
            .push(Problem::new(Severity::Note, config.name(), what));
    }
}

/// Refuses file storage that is older than the database.
pub(super) fn ages(
    plan: &RestorePlan,
    database: &RestoreStep,
    all: &[StoredSnapshot],
) -> Result<(), NodeError> {
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
                let step = RestoreStep {
                    snapshot: (*one).clone(),
                    number,
                    ..files.clone()
                };
                fits_its_kind(&step).is_ok() && older(&step, database).is_none()
            })
        };

        let advice = match newest(&files.snapshot, all, fits) {
            Some(good) => format!(
                "use newer files ({}:{source}), or an older database",
                good.id.short()
            )
            .into(),
            None => older_database(files, &database.record().name, all),
        };

        let why = format!(
            "the {} of {} is older than the database of {}: {why}",
            files.part.name(),
            files.name(),
            database.name()
        );
        return Err(NodeError::Refused { why, advice });
    }
    Ok(())
}

/// Suggests another database for files that are older than the database, if there are no newer
/// files.
fn older_database(files: &RestoreStep, database: &str, all: &[StoredSnapshot]) -> Advice {
    let fits = |one: &&StoredSnapshot| {
        let step = RestoreStep::of(NodePart::Database, one, database);
        step.is_some_and(|step| fits_its_kind(&step).is_ok() && older(files, &step).is_none())
    };
    match newest(&files.snapshot, all, fits) {
        Some(good) => format!(
            "use the database of an older snapshot: {}:{database}",
            good.id.short()
        )
        .into(),
        None => Advice::Node(NodeAdvice::BackUpInOrder {
            database: database.to_owned(),
            files: files.name(),
        }),
    }
}

/// Returns true if a snapshot of the same host has a database for which these files were captured
/// too early.
pub(super) fn is_older_than_any(
    files: &RestoreStep,
    database: &str,
    all: &[StoredSnapshot],
) -> bool {
    let databases = all
        .iter()
        .filter(|one| one.snapshot.host == files.snapshot.snapshot.host)
        .filter(|one| one.snapshot.state != SnapshotState::Checkpoint)
        .filter_map(|one| RestoreStep::of(NodePart::Database, one, database));
    databases
        .into_iter()
        .any(|database| older(files, &database).is_some())
}

/// Returns the reason why files were captured too early for a database, if they were.
pub(super) fn older(files: &RestoreStep, database: &RestoreStep) -> Option<String> {
    if files.snapshot.id == database.snapshot.id {
        return (files.number < database.number)
            .then(|| "in that snapshot it was captured before the database".to_owned());
    }
    // Compare by the store's clock, and by the hosts' clocks as far as they can be trusted.
    if files.snapshot.committed() <= database.snapshot.committed() {
        return Some("its snapshot was committed earlier".to_owned());
    }
    let trusted =
        |time: Timestamp, step: &RestoreStep| trusted_time(time, step.snapshot.committed());
    let begun = trusted(files.record().started, files);
    let ended = trusted(database.record().ended, database);
    (begun < ended).then(|| "its capture began before that of the database had ended".to_owned())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
