//! `icecore node restore`

use std::time::Duration;

use icecore::ccn::docker::Docker;
use icecore::ccn::restore::{
    ImageCheck, ImageVerdict, NodePart, NodeRestoreOptions, NodeRestoreReport, PartReport,
    PlaceWriter, PlacedPart, PreparedRestore, ResolvedLocation, RestorePreview, RestoreScope,
    prepare,
};
use icecore::observe::Observer;
use icecore::ops::memory;
use icecore::task::Task;
use serde::Serialize;

use crate::advice::hint;
use crate::context::{Context, HostArgs};
use crate::env::{Env, SECRET_VARIABLES};
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::{DataWriter, text};

/// How long to wait for the database server.
const WAIT: Duration = Duration::from_secs(60);

/// Restore a Core Channel Node
///
/// Restores keys, configuration and file storage to the places that icecore.toml names, then feeds
/// the dump to the database server, which must be running. Containers that write to the node's data
/// must be stopped. Missing volumes are created. If anything stands in the way, nothing is written.
/// A snapshot stands for all of the node's sources; SNAP:SOURCE takes one source from another
/// snapshot. File storage older than the database is refused. If another image would run than the
/// one that the snapshot ran with, that is reported first, with the line that pins the image.
///
/// After a total loss of the machine, first restore only the configuration and the keys
/// (latest:config latest:keys). Then start the database (docker compose up -d postgres), and run
/// the command again for everything.
///
/// Exit code 3: done, but files are missing that the network must bring back, or some metadata
/// could not be set.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore node restore latest --dry-run
  icecore node restore latest
  icecore node restore latest 4f1c:db
  icecore node restore latest:config latest:keys
  icecore node restore latest --minimal && icecore node restore latest --files")]
pub struct NodeRestoreArgs {
    /// Snapshot, or one source of a snapshot
    #[arg(value_name = "SNAP[:SOURCE]", required = true, value_parser = asked)]
    what: Vec<RequestedParts>,
    /// Restore only the parts that the node needs to start: keys, configuration, database, pinned
    /// files of local storage, and kubo's repository without its blocks
    #[arg(long, conflicts_with = "files")]
    minimal: bool,
    /// Restore only file storage, while the node runs; existing files are kept unless they are cut
    /// short
    #[arg(long)]
    files: bool,
    /// Replace databases that hold tables, and keys that differ from the snapshot's
    #[arg(long, conflicts_with = "files")]
    replace: bool,
    /// Do not wait for the database server
    #[arg(long)]
    no_wait: bool,
    /// Show the steps that would be taken; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    hosts: HostArgs,
}

#[derive(Debug, Clone)]
struct RequestedParts {
    snapshot: String,
    source: Option<String>,
}

fn asked(text: &str) -> Result<RequestedParts, String> {
    if text.contains(':') {
        let (snapshot, source) = parse::snap_source(text)?;
        return Ok(RequestedParts {
            snapshot,
            source: Some(source),
        });
    }
    Ok(RequestedParts {
        snapshot: parse::snap(text)?,
        source: None,
    })
}

pub fn run(context: &Context<'_>, args: &NodeRestoreArgs) -> Result<Outcome, CliError> {
    let profile = &context.config()?.node;
    if NodePart::ALL
        .into_iter()
        .all(|part| part.source(profile).is_none())
    {
        return Err(
            CliError::usage("the configuration names no parts of the node in [node]")
                .with_hint("'icecore node init' writes one from the compose file"),
        );
    }

    let env_remove = SECRET_VARIABLES.map(str::to_owned).to_vec();
    let options = NodeRestoreOptions {
        scope: match (args.minimal, args.files) {
            (true, _) => RestoreScope::Minimal,
            (_, true) => RestoreScope::Files,
            _ => RestoreScope::All,
        },
        replace: args.replace,
        wait: if args.no_wait { Duration::ZERO } else { WAIT },
        hosts: args.hosts.choice(context)?,
        is_dry_run: args.dry_run,
        env_remove: env_remove.clone(),
        environment: Env::variables(),
        pgoptions: Env::variables().remove("PGOPTIONS"),
        protect: context.protection()?,
        memory: context
            .config()?
            .backup
            .memory
            .unwrap_or(memory::BUDGET_DEFAULT),
        state: context.state().cloned(),
    };

    let asked: Vec<(&str, Option<&str>)> = args
        .what
        .iter()
        .map(|one| (one.snapshot.as_str(), one.source.as_deref()))
        .collect();

    let (repository, meter, cancel) = context.begin()?;
    let docker = Docker::new(env_remove).until(&cancel);
    let mut prepared = prepare(
        &repository,
        profile,
        &docker,
        &asked,
        &options,
        Task::new(&meter, &cancel),
    )?;
    for warning in &prepared.warnings {
        meter.problem(warning);
    }

    // A dry run prints the whole plan. The first obstacle is its error.
    if args.dry_run {
        let mut out = context.ui.data()?;
        show(&prepared, &mut out)?;
        out.finish()?;
        if !prepared.obstacles.is_empty() {
            return Err(prepared.obstacles.swap_remove(0).into());
        }
        return Ok(meter.outcome());
    }

    let report = prepared.execute(Task::new(&meter, &cancel))?;
    let outcome = match (report.has_damage(), report.is_complete()) {
        (true, _) => Outcome::Damage,
        (false, false) => Outcome::Incomplete,
        (false, true) => Outcome::Done,
    };

    let summary = NodeRestoreSummary::new(&report);
    let elapsed = text::span(meter.elapsed());
    Ok(meter.finish("node restore", outcome, &summary, || {
        summary.lines(&elapsed)
    }))
}

// ---------------------------------------------------------------------------------------- the plan

/// One line of the plan, as JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum PlanRecord {
    Step {
        part: &'static str,
        source: String,
        snapshot: String,
        /// When the capture of the source began.
        started: Option<String>,
        bytes: u64,
        entries: u64,
        place: String,
        /// The place is a volume that would be created.
        is_new: bool,
    },
    Container {
        name: String,
        /// `None` if the container does not exist.
        state: Option<String>,
        must_stop: bool,
    },
    Database {
        name: String,
        /// The database exists and would be replaced.
        replaces: bool,
        /// `None` if the database cannot be inspected.
        tables: Option<u64>,
        bytes: u64,
        sessions: Vec<String>,
    },
    Image {
        service: String,
        snapshot: String,
        /// The image of the snapshot, as the compose file named it.
        image: String,
        id: String,
        /// The image's digest in its registry; absent if it was in none.
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
        /// `same`, `other`, `not-here` (it will be pulled) or `unknown`.
        state: &'static str,
        /// The reason for `unknown`.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// The image that the compose file will name; absent if that is not known.
        #[serde(skip_serializing_if = "Option::is_none")]
        here: Option<String>,
        /// The digest of the local image of that name; absent if there is none.
        #[serde(skip_serializing_if = "Option::is_none")]
        here_digest: Option<String>,
        /// The line of the compose file that pins the snapshot's image.
        #[serde(skip_serializing_if = "Option::is_none")]
        pin: Option<String>,
    },
    Obstacle {
        message: String,
        hint: Option<String>,
    },
}

fn show(prepared: &PreparedRestore<'_>, out: &mut DataWriter) -> Result<(), CliError> {
    for record in records(prepared) {
        out.record(&record, || record.line())?;
    }
    Ok(())
}

fn records(prepared: &PreparedRestore<'_>) -> Vec<PlanRecord> {
    let mut records: Vec<PlanRecord> = prepared.steps.iter().map(PlanRecord::step).collect();
    records.extend(prepared.writers.iter().map(PlanRecord::container));
    records.extend(prepared.images.iter().map(PlanRecord::image));
    records.extend(prepared.database.iter().flat_map(PlanRecord::databases));
    records.extend(
        prepared
            .obstacles
            .iter()
            .map(|obstacle| PlanRecord::Obstacle {
                message: obstacle.to_string(),
                hint: obstacle.advice().map(|advice| hint(&advice).into_owned()),
            }),
    );
    records
}

impl PlanRecord {
    fn step(placed: &PlacedPart) -> Self {
        let step = &placed.step;
        Self::Step {
            part: step.part.name(),
            source: step.record().name.clone(),
            snapshot: step.snapshot.id.to_string(),
            started: crate::ui::json::time(step.record().started),
            bytes: step.bytes(),
            entries: step.entries(),
            place: placed
                .spot
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            is_new: matches!(
                placed.spot,
                Some(ResolvedLocation::Volume {
                    directory: None,
                    ..
                })
            ),
        }
    }

    fn container(writer: &PlaceWriter) -> Self {
        Self::Container {
            name: writer.name.clone(),
            state: writer.state.clone(),
            must_stop: writer.is_at_work(),
        }
    }

    fn image(check: &ImageCheck) -> Self {
        let (state, why) = match &check.verdict {
            ImageVerdict::Same => ("same", None),
            ImageVerdict::Other => ("other", None),
            ImageVerdict::NotHere => ("not-here", None),
            ImageVerdict::Unknown(why) => ("unknown", Some(why.clone())),
        };
        Self::Image {
            service: check.was.service.clone(),
            snapshot: check.snapshot.to_string(),
            image: check.was.image.clone(),
            id: check.was.id.clone(),
            digest: check.was.digest.clone(),
            state,
            why,
            here: check.now.clone(),
            here_digest: check.local_digest().map(str::to_owned),
            pin: check.pin.clone(),
        }
    }

    /// Returns the databases that the dump brings, each with the existing one that it replaces.
    fn databases(preview: &RestorePreview) -> Vec<Self> {
        let there = |name: &str| preview.there.iter().find(|there| there.name == name);
        let names = preview
            .brings
            .iter()
            .map(String::as_str)
            .chain(["postgres", "template1"]);
        names
            .map(|name| Self::Database {
                name: name.to_owned(),
                replaces: there(name).is_some(),
                tables: there(name).map_or(Some(0), |there| there.tables),
                bytes: there(name).map_or(0, |there| there.bytes),
                sessions: there(name)
                    .map(|there| there.sessions.clone())
                    .unwrap_or_default(),
            })
            .collect()
    }

    fn line(&self) -> String {
        let line = match self {
            Self::Step {
                part,
                source,
                snapshot,
                started,
                bytes,
                entries,
                place,
                ..
            } => {
                let snapshot = snapshot.get(..8).unwrap_or(snapshot);
                let started = started.as_deref().unwrap_or("?");
                let held = match entries {
                    0 => text::size(*bytes),
                    _ => format!(
                        "{}, {}",
                        text::counted(*entries, "entry", "entries"),
                        text::size(*bytes)
                    ),
                };
                let place = if place.is_empty() {
                    "the database server"
                } else {
                    place
                };
                format!("{part}: {snapshot}:{source} of {started} ({held}) to {place}")
            }
            Self::Container {
                name, state: None, ..
            } => format!("container {name}: does not exist"),
            Self::Container {
                name,
                state: Some(state),
                must_stop: false,
            } => {
                format!("container {name}: stopped ({state})")
            }
            Self::Container {
                name,
                state: Some(state),
                must_stop: true,
            } => {
                format!("container {name}: {state}, must be stopped")
            }
            Self::Database {
                name,
                replaces: false,
                ..
            } => format!("database '{name}': new"),
            Self::Database {
                name,
                tables,
                bytes,
                sessions,
                ..
            } => {
                let tables = tables.map(|tables| text::counted(tables, "table", "tables"));
                let tables = tables.unwrap_or_else(|| "unknown contents".to_owned());
                let used = match sessions.as_slice() {
                    [] => String::new(),
                    sessions => format!(", in use by {}", sessions.join(", ")),
                };
                format!(
                    "database '{name}': replaces the existing one ({tables}, {}{used})",
                    text::size(*bytes)
                )
            }
            Self::Image {
                service,
                image,
                id,
                digest,
                state,
                why,
                here,
                here_digest,
                ..
            } => {
                let ran = format!(
                    "image of {service}: {image} ({})",
                    digest.as_ref().unwrap_or(id)
                );
                let here = here.as_deref().unwrap_or("?");
                match (*state, here_digest, why) {
                    ("same", _, _) => format!("{ran}, the same as here"),
                    ("not-here", _, _) => format!("{ran}, {here} must be pulled"),
                    (_, _, Some(why)) => format!("{ran}, here: unknown ({why})"),
                    (_, Some(digest), None) => {
                        format!("{ran}, here: {here} ({digest}), not the same")
                    }
                    (_, None, None) => format!("{ran}, here: {here}, not the same"),
                }
            }
            Self::Obstacle { message, .. } => format!("obstacle: {message}"),
        };

        text::clean(&line)
    }
}

// -------------------------------------------------------------------------------------- the report

#[derive(Serialize)]
struct NodeRestoreSummary {
    parts: Vec<PartName>,
    /// Files that the network must bring back, as far as the restore knows.
    refill: u64,
}

#[derive(Serialize)]
struct PartName {
    part: &'static str,
    source: String,
    snapshot: String,
    place: String,
    written: u64,
    bytes_written: u64,
    unchanged: u64,
    deleted: u64,
    failed: u64,
    /// Entries that are incomplete in the snapshot.
    incomplete: u64,
    /// Files whose content does not match their name.
    left_out: u64,
    /// Parts of metadata that could not be set.
    refused_metadata: u64,
    /// Ranges of paths about which nothing is known.
    uncertain: u64,
}

impl NodeRestoreSummary {
    fn new(report: &NodeRestoreReport) -> Self {
        let files = report
            .parts
            .iter()
            .filter(|part| part.part.is_file_storage());
        Self {
            refill: files
                .map(|part| part.failed + part.incomplete + part.left_out)
                .sum(),
            parts: report.parts.iter().map(PartName::new).collect(),
        }
    }

    fn lines(&self, elapsed: &str) -> Vec<String> {
        let mut lines: Vec<String> = self.parts.iter().map(PartName::line).collect();
        if self.refill > 0 {
            let files = text::counted(self.refill, "file", "files");
            lines.push(format!("the network must refill {files}"));
        }
        lines.push(format!("restored in {elapsed}"));
        lines
    }
}

impl PartName {
    fn new(report: &PartReport) -> Self {
        Self {
            part: report.part.name(),
            source: report.source.clone(),
            snapshot: report.snapshot.to_string(),
            place: report.place.clone(),
            written: report.written,
            bytes_written: report.bytes_written,
            unchanged: report.unchanged,
            deleted: report.deleted,
            failed: report.failed,
            incomplete: report.incomplete,
            left_out: report.left_out,
            refused_metadata: report.refused_meta,
            uncertain: report.uncertain,
        }
    }

    fn line(&self) -> String {
        let snapshot = self.snapshot.get(..8).unwrap_or(&self.snapshot);
        let mut line = format!("{}: {snapshot}:{}", self.part, self.source);
        let size = text::size(self.bytes_written);
        if self.place.is_empty() {
            line.push_str(&format!(", {size} sent to the server"));
        } else {
            let written = text::number(self.written);
            line.push_str(&format!(
                ", {written} written ({size}), {} unchanged",
                text::number(self.unchanged)
            ));
        }
        for (count, what) in [
            (self.deleted, "deleted"),
            (self.failed, "failed"),
            (self.incomplete, "incomplete in the snapshot"),
            (
                self.left_out,
                "left out (content does not match their name)",
            ),
            (self.refused_metadata, "metadata items not set"),
        ] {
            if count > 0 {
                line.push_str(&format!(", {} {what}", text::number(count)));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_and_its_source_are_parsed() {
        let whole = asked("latest").expect("a snapshot");
        assert_eq!((whole.snapshot.as_str(), whole.source), ("latest", None));
        let one = asked("4f1c:db").expect("a source");
        assert_eq!(
            (one.snapshot.as_str(), one.source.as_deref()),
            ("4f1c", Some("db"))
        );
        assert!(asked("latest:").is_err() && asked(":db").is_err() && asked("zz").is_err());
    }

    #[test]
    fn each_item_of_the_plan_is_one_line() {
        let step = PlanRecord::Step {
            part: "keys",
            source: "keys".into(),
            snapshot: "4f1c00112233".into(),
            started: Some("2026-01-01T00:00:00Z".into()),
            bytes: 0,
            entries: 3,
            place: "/opt/keys".into(),
            is_new: false,
        };
        assert_eq!(
            step.line(),
            "keys: 4f1c0011:keys of 2026-01-01T00:00:00Z (3 entries, 0 B) to /opt/keys"
        );

        let container = |state: Option<&str>, must_stop| {
            PlanRecord::Container {
                name: "c".into(),
                state: state.map(str::to_owned),
                must_stop,
            }
            .line()
        };
        assert_eq!(container(None, false), "container c: does not exist");
        assert_eq!(
            container(Some("running"), true),
            "container c: running, must be stopped"
        );

        let database = PlanRecord::Database {
            name: "aleph".into(),
            replaces: true,
            tables: Some(2),
            bytes: 0,
            sessions: vec!["aleph".into()],
        };
        assert_eq!(
            database.line(),
            "database 'aleph': replaces the existing one (2 tables, 0 B, in use by aleph)"
        );
    }
}
