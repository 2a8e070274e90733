//! `icecore node restore`

use std::time::Duration;

use icecore::ccn::NodeError;
use icecore::ccn::docker::Docker;
use icecore::ccn::restore::{NodePart, NodeRestoreOptions, PreparedRestore, RestoreScope, prepare};
use icecore::jobs::report::node::{
    NodePlanRecord, NodeRestoreSummary, PlannedContainerRecord, PlannedDatabaseRecord,
    PlannedImageRecord, PlannedPartRecord, RestoredPartRecord,
};
use icecore::observe::Observer;
use icecore::ops::memory;
use icecore::task::Task;

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

    let summary = NodeRestoreSummary::from(&report);
    let elapsed = text::span(meter.elapsed());
    Ok(meter.finish("node restore", outcome, &summary, || {
        summary_lines(&summary, &elapsed)
    }))
}

// ---------------------------------------------------------------------------------------- the plan

fn show(prepared: &PreparedRestore<'_>, out: &mut DataWriter) -> Result<(), CliError> {
    let hint_of = |obstacle: &NodeError| {
        let advice = obstacle.advice()?;
        Some(hint(&advice).into_owned())
    };
    for record in NodePlanRecord::of_plan(prepared, hint_of) {
        out.record(&record, || plan_line(&record))?;
    }
    Ok(())
}

/// Formats an item of the plan for people.
fn plan_line(record: &NodePlanRecord) -> String {
    text::clean(&match record {
        NodePlanRecord::Step(part) => planned_part_line(part),
        NodePlanRecord::Container(container) => container_line(container),
        NodePlanRecord::Image(image) => image_line(image),
        NodePlanRecord::Database(database) => database_line(database),
        NodePlanRecord::Obstacle(obstacle) => format!("obstacle: {}", obstacle.message),
    })
}

fn planned_part_line(part: &PlannedPartRecord) -> String {
    let snapshot = part.snapshot.get(..8).unwrap_or(&part.snapshot);
    let started = part.started.as_deref().unwrap_or("?");
    let size = text::size(part.bytes);
    let amount = match part.entries {
        0 => size,
        entries => format!("{}, {size}", text::counted(entries, "entry", "entries")),
    };
    let place = match part.place.as_str() {
        "" => "the database server",
        place => place,
    };
    format!(
        "{}: {snapshot}:{} of {started} ({amount}) to {place}",
        part.part.name(),
        part.source
    )
}

fn container_line(container: &PlannedContainerRecord) -> String {
    let name = &container.name;
    match &container.state {
        None => format!("container {name}: does not exist"),
        Some(state) if container.must_stop => {
            format!("container {name}: {state}, must be stopped")
        }
        Some(state) => format!("container {name}: stopped ({state})"),
    }
}

fn image_line(image: &PlannedImageRecord) -> String {
    let ran = format!(
        "image of {}: {} ({})",
        image.service,
        image.image,
        image.digest.as_ref().unwrap_or(&image.id)
    );
    let here = image.image_here.as_deref().unwrap_or("?");
    match (image.state, &image.digest_here, &image.reason) {
        ("same", _, _) => format!("{ran}, the same as here"),
        ("not_here", _, _) => format!("{ran}, {here} must be pulled"),
        (_, _, Some(reason)) => format!("{ran}, here: unknown ({reason})"),
        (_, Some(digest), None) => format!("{ran}, here: {here} ({digest}), not the same"),
        (_, None, None) => format!("{ran}, here: {here}, not the same"),
    }
}

fn database_line(database: &PlannedDatabaseRecord) -> String {
    let name = &database.name;
    if !database.exists {
        return format!("database '{name}': new");
    }
    let tables = match database.tables {
        Some(tables) => text::counted(tables, "table", "tables"),
        None => "unknown contents".to_owned(),
    };
    let used = match database.sessions.as_slice() {
        [] => String::new(),
        sessions => format!(", in use by {}", sessions.join(", ")),
    };
    format!(
        "database '{name}': replaces the existing one ({tables}, {}{used})",
        text::size(database.bytes)
    )
}

// -------------------------------------------------------------------------------------- the report

/// Formats the summary for people.
fn summary_lines(summary: &NodeRestoreSummary, elapsed: &str) -> Vec<String> {
    let mut lines: Vec<String> = summary.parts.iter().map(part_line).collect();
    if summary.refill > 0 {
        let files = text::counted(summary.refill, "file", "files");
        lines.push(format!("the network must refill {files}"));
    }
    lines.push(format!("restored in {elapsed}"));
    lines
}

/// Formats a restored part for people.
fn part_line(part: &RestoredPartRecord) -> String {
    let snapshot = part.snapshot.get(..8).unwrap_or(&part.snapshot);
    let mut line = format!("{}: {snapshot}:{}", part.part.name(), part.source);
    let size = text::size(part.bytes_written);
    if part.place.is_empty() {
        line.push_str(&format!(", {size} sent to the server"));
    } else {
        let written = text::number(part.files_written);
        line.push_str(&format!(
            ", {written} written ({size}), {} unchanged",
            text::number(part.files_unchanged)
        ));
    }
    for (count, what) in [
        (part.deleted, "deleted"),
        (part.failed, "failed"),
        (part.incomplete, "incomplete in the snapshot"),
        (
            part.left_out,
            "left out (content does not match their name)",
        ),
        (part.refused_metadata, "metadata items not set"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {} {what}", text::number(count)));
        }
    }
    line
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
        let step = NodePlanRecord::Step(PlannedPartRecord {
            part: NodePart::Keys,
            source: "keys".into(),
            snapshot: "4f1c00112233".into(),
            started: Some("2026-01-01T00:00:00Z".into()),
            bytes: 0,
            entries: 3,
            place: "/opt/keys".into(),
            is_new: false,
        });
        assert_eq!(
            plan_line(&step),
            "keys: 4f1c0011:keys of 2026-01-01T00:00:00Z (3 entries, 0 B) to /opt/keys"
        );

        let container = |state: Option<&str>, must_stop| {
            plan_line(&NodePlanRecord::Container(PlannedContainerRecord {
                name: "c".into(),
                state: state.map(str::to_owned),
                must_stop,
            }))
        };
        assert_eq!(container(None, false), "container c: does not exist");
        assert_eq!(
            container(Some("running"), true),
            "container c: running, must be stopped"
        );

        let database = NodePlanRecord::Database(PlannedDatabaseRecord {
            name: "aleph".into(),
            exists: true,
            tables: Some(2),
            bytes: 0,
            sessions: vec!["aleph".into()],
        });
        assert_eq!(
            plan_line(&database),
            "database 'aleph': replaces the existing one (2 tables, 0 B, in use by aleph)"
        );
    }
}
