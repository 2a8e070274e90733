//! A node brought back: keys, configuration, file storage, and last the database.
//!
//! ```text
//! plan (pure) ─▶ places, containers, server looked at ─▶ nothing in the way? ─▶ files ─▶ psql
//! ```
//!
//! Everything that can be refused is refused before anything is written: parts that do not fit
//! together, writers at work, a server out of reach or that holds other data.

mod catalogue;
mod database;
mod execute;
mod feed;
mod identity;
mod images;
mod lacks;
mod places;
mod plan;
mod preview;
mod psql;
mod restored;
mod select;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use images::{ImageCheck, Verdict};
pub use places::{Spot, Writer};
pub use plan::{NodePart, Pick, Plan, Scope, Step, plan};
pub use preview::{Preview, There};

use super::NodeError;
use super::check::{Against, check};
use super::docker::{Docker, DockerError};
use super::profile::{Access, Place, Profile};
use crate::Error;
use crate::format::{LeaseKind, SourceKind};
use crate::observe::{Counters, Observer, Phase, Problem, Severity};
use crate::ops::{Cancel, newest, reading_lease};
use crate::repo::{ChunkReader, HostChoice, Lease, Repository, without_replaced};
use crate::sys::StateDir;
use crate::target::Protection;
use crate::types::{ByteSize, Content, SnapshotId};

use database::Database;

/// Frames of metadata kept.
const CACHE_BYTES: usize = 16 << 20;

/// How a node is brought back.
#[derive(Debug, Clone)]
pub struct NodeRestoreOptions {
    pub scope: Scope,
    /// A database that holds tables may be replaced, and so may keys that differ.
    pub replace: bool,
    /// How long the database server is waited for.
    pub wait: Duration,
    /// Whose snapshots `latest` means.
    pub hosts: HostChoice,
    /// This machine's name, for the lease.
    pub host: String,
    /// Look for everything that stands in the way, also where something does already.
    pub is_dry_run: bool,
    /// Environment variables that no program gets to see.
    pub env_remove: Vec<String>,
    /// The environment that compose would have, for variables in the compose file.
    pub environment: BTreeMap<String, String>,
    /// What the operator wants PostgreSQL's programs of this machine to set when they connect:
    /// `PGOPTIONS`.
    pub pgoptions: Option<String>,
    /// What is never entered, replaced or deleted; see
    /// [`RestoreOptions::protect`](crate::ops::restore::RestoreOptions).
    pub protect: Protection,
    pub memory: ByteSize,
    /// Where it is remembered which database was restored; none: it is not.
    pub state: Option<StateDir>,
}

/// Where one step goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    pub step: Step,
    /// None for the database.
    pub spot: Option<Spot>,
}

/// A restore that is decided on, with all that was looked at for it. Nothing is written yet.
pub struct Prepared<'a> {
    repo: &'a Repository,
    profile: &'a Profile,
    docker: &'a Docker,
    options: &'a NodeRestoreOptions,
    lease: Option<Lease>,
    pub steps: Vec<Placed>,
    /// Containers that must not run meanwhile; none where the node may run.
    pub writers: Vec<Writer>,
    /// What the database server said; none where the database is not restored, or the server is out
    /// of reach.
    pub database: Option<Preview>,
    /// The images that the services ran with, and those that there are; none where none was
    /// recorded.
    pub images: Vec<ImageCheck>,
    pub warnings: Vec<Problem>,
    /// Why it is not done as it stands, the first to be told first.
    pub obstacles: Vec<NodeError>,
}

/// What became of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartReport {
    pub part: NodePart,
    pub source: String,
    pub snapshot: SnapshotId,
    /// For people: a path, a volume, or nothing for the database.
    pub place: String,
    pub written: u64,
    pub bytes_written: u64,
    pub unchanged: u64,
    pub deleted: u64,
    /// Paths that could not be restored.
    pub failed: u64,
    /// Entries that the snapshot does not hold whole.
    pub incomplete: u64,
    /// Files that are not what their name says and were left out: the network must refill them.
    pub left_out: u64,
    pub refused_meta: u64,
    /// Ranges of paths of which nothing is known.
    pub uncertain: u64,
}

/// What a restore came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeRestoreReport {
    pub parts: Vec<PartReport>,
}

impl NodeRestoreReport {
    /// True if everything is there as it was backed up.
    pub fn is_complete(&self) -> bool {
        let lacks = |part: &PartReport| {
            part.failed + part.incomplete + part.left_out + part.refused_meta + part.uncertain
        };
        self.parts.iter().all(|part| lacks(part) == 0)
    }

    /// True if parts of the repository could not be read.
    pub fn has_damage(&self) -> bool {
        self.parts.iter().any(|part| part.uncertain > 0)
    }
}

/// What is asked for: `SNAP` or `SNAP:SOURCE`.
pub type Asked<'a> = [(&'a str, Option<&'a str>)];

/// Decides what goes where, and looks at everything that it depends on; nothing is written.
///
/// # Errors
/// Parts that do not fit together, or a machine that cannot be looked at. What merely stands in the
/// way is in the result's [`Prepared::obstacles`].
pub fn prepare<'a>(
    repo: &'a Repository,
    profile: &'a Profile,
    docker: &'a Docker,
    asked: &Asked<'_>,
    options: &'a NodeRestoreOptions,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<Prepared<'a>, NodeError> {
    observer.phase(&Phase::Index);
    // The lease comes first: what is found under it stays.
    let lease = reading_lease(repo, LeaseKind::Restore, &options.host)?;
    let mut picks = Vec::new();
    for &(snapshot, source) in asked {
        let is_latest = snapshot == "latest";
        let snapshot = match is_latest {
            // A part that is suspect is refused or reported below, with more to say.
            true => newest(repo, &options.hosts, source, observer)?.0,
            false => repo
                .find_snapshot(snapshot, &options.hosts)
                .map_err(Error::from)?,
        };
        picks.push(Pick {
            snapshot,
            source: source.map(str::to_owned),
            is_latest,
        });
    }
    // Snapshots that cannot be read are no advice.
    let all = without_replaced(repo.snapshots(&mut |_, _| {}).map_err(Error::from)?);
    let plan = plan::plan(profile, &picks, options.scope, &all)?;
    let unknown = restored::compare(options.state.as_ref(), profile, &plan, &all)?;
    crate::ops::sync_until(repo, observer, cancel)?;
    let refill = if plan.lacks_files {
        refill(repo, profile, &plan, cancel)?
    } else {
        None
    };
    let writers = match options.scope {
        Scope::Files => Vec::new(),
        Scope::All | Scope::Minimal => writers_of(profile, &plan, docker)?,
    };
    let mut prepared = Prepared {
        repo,
        profile,
        docker,
        options,
        lease,
        steps: Vec::new(),
        writers,
        database: None,
        images: Vec::new(),
        warnings: plan
            .warnings
            .into_iter()
            .chain(unknown)
            .chain(refill)
            .collect(),
        obstacles: Vec::new(),
    };
    for step in plan.steps {
        let spot = step
            .place
            .as_ref()
            .map(|place| Spot::find(place, docker))
            .transpose()?;
        prepared.steps.push(Placed { step, spot });
    }
    prepared.obstacles.extend(at_work(&prepared.writers));
    if !options.replace {
        for placed in &prepared.steps {
            prepared
                .obstacles
                .extend(identity::obstacle(repo, placed, options.scope, cancel)?);
        }
    }
    prepared.look_at_images(cancel)?;
    prepared.look_at_database(observer, cancel)?;
    Ok(prepared)
}

/// How many files the network must refill, where the snapshot that holds the database can tell.
fn refill(
    repo: &Repository,
    profile: &Profile,
    plan: &Plan,
    cancel: &Cancel,
) -> Result<Option<Problem>, NodeError> {
    let Some(database) = plan.step(NodePart::Database) else {
        return Ok(None);
    };
    let is_other =
        |step: &Step| step.part.is_file_storage() && step.snapshot.id != database.snapshot.id;
    if plan.steps.iter().any(is_other) {
        return Ok(None);
    }
    let (quiet, against) = (Counters::default(), Against::Snapshot);
    match check(
        repo,
        &database.snapshot,
        profile,
        &against,
        &quiet,
        cancel,
        &mut |_| Ok(()),
    ) {
        Ok(report) if report.missing == 0 => Ok(None),
        Ok(report) => {
            let what = match report.missing {
                1 => "1 pinned file is not in it: the network must refill it".to_owned(),
                count => {
                    format!("{count} pinned files are not in it: the network must refill them")
                }
            };
            Ok(Some(Problem::new(
                Severity::Missing,
                database.snapshot.id.short(),
                what,
            )))
        }
        Err(NodeError::Engine(err @ Error::Interrupted)) => Err(err.into()),
        // A dump of another kind of node tells nothing of files.
        Err(_) => Ok(None),
    }
}

/// The containers that matter, where anything has to do with Docker.
fn writers_of(profile: &Profile, plan: &Plan, docker: &Docker) -> Result<Vec<Writer>, DockerError> {
    let needs_volume = plan
        .steps
        .iter()
        .any(|step| matches!(step.place, Some(Place::Volume(_))));
    let is_inside = profile
        .database
        .as_ref()
        .is_some_and(|database| matches!(database.server.access, Access::Docker { .. }));
    if !needs_volume && !is_inside && profile.writers.is_empty() {
        return Ok(Vec::new());
    }
    // Keys and configuration alone can be written beside anything: nothing of it is read before the
    // next start.
    let is_harmless = plan
        .steps
        .iter()
        .all(|step| matches!(step.part, NodePart::Keys | NodePart::Config));
    if is_harmless {
        Ok(Vec::new())
    } else {
        places::writers(profile, plan, docker)
    }
}

fn at_work(writers: &[Writer]) -> Option<NodeError> {
    let names: Vec<&str> = writers
        .iter()
        .filter(|writer| writer.is_at_work())
        .map(|writer| writer.name.as_str())
        .collect();
    if names.is_empty() {
        return None;
    }
    let why = match names.as_slice() {
        [one] => format!("the container {one} is at work and would write to what is restored"),
        all => format!(
            "the containers {} are at work and would write to what is restored",
            all.join(", ")
        ),
    };
    Some(NodeError::Refused {
        why,
        hint: format!("stop them: docker stop {}", names.join(" ")),
    })
}

impl Prepared<'_> {
    /// A step that restores this part.
    pub fn step(&self, part: NodePart) -> Option<&Placed> {
        self.steps.iter().find(|placed| placed.step.part == part)
    }

    fn look_at_database(
        &mut self,
        observer: &dyn Observer,
        cancel: &Cancel,
    ) -> Result<(), NodeError> {
        // Whoever must be stopped would keep the server busy: no need to wait for it.
        let wait = if self.obstacles.is_empty() {
            self.options.wait
        } else {
            Duration::ZERO
        };
        let reader = ChunkReader::new(self.repo, CACHE_BYTES);
        let Some(database) = self.database(&reader, observer, cancel) else {
            return Ok(());
        };
        let head = database.head()?;
        let mut preview = match database.preview(head, wait) {
            Ok(preview) => preview,
            Err(NodeError::Engine(err)) => return Err(err.into()),
            Err(err) => {
                self.obstacles.push(err);
                return Ok(());
            }
        };
        let mut obstacles = preview.obstacles(self.options.replace);
        // The whole dump is read for it: not where it is refused anyway.
        let is_clear = self.obstacles.is_empty() && obstacles.is_empty();
        let mut notes = Vec::new();
        if preview.is_superuser && (is_clear || self.options.is_dry_run) {
            match database.compare(&preview) {
                Ok(compared) => preview.compared = compared,
                Err(NodeError::Engine(err)) => return Err(err.into()),
                Err(err) => obstacles.push(err),
            }
            obstacles.extend(preview.misfits(&database.name));
            let note = |what: &String| Problem::new(Severity::Note, &database.name, what);
            notes.extend(preview.compared.notes.iter().map(note));
        }
        self.warnings.extend(notes);
        self.obstacles.extend(obstacles);
        self.database = Some(preview);
        Ok(())
    }

    /// The dump and its server, if the database is to be restored.
    fn database<'s>(
        &'s self,
        reader: &'s ChunkReader<'s>,
        observer: &'s dyn Observer,
        cancel: &'s Cancel,
    ) -> Option<Database<'s>> {
        let step = &self.step(NodePart::Database)?.step;
        let record = step.record();
        Some(Database {
            server: &self.profile.database.as_ref()?.server,
            docker: self.docker,
            env_remove: &self.options.env_remove,
            pgoptions: self.options.pgoptions.as_deref(),
            source: &record.name,
            name: step.name(),
            content: stream_of(&record.kind)?,
            reader,
            observer,
            cancel,
        })
    }
}

fn stream_of(kind: &SourceKind) -> Option<&Content> {
    match kind {
        SourceKind::Stream { content, .. } => Some(content),
        SourceKind::Tree { .. } => None,
    }
}
