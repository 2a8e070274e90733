//! `icecore status`

use std::path::PathBuf;
use std::time::Duration;

use icecore::observe::Severity;
use icecore::ops::list::SnapshotFilter;
use icecore::ops::status::{CaptureStatus, RepoStatus, SourceStatus, StatusOptions, status};
use serde::Serialize;

use super::nothing::report_nothing;
use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::lacking::{LackingLines, how_much};
use crate::ui::prometheus::Metrics;
use crate::ui::{json, text};

/// Show the age of each source's last good backup
///
/// A backup of a source is good if all of the source was captured, whether or not the snapshot's
/// other sources were. A source is one name and one path on one host; captures from before it was
/// moved count too. Ages are measured by the store's clock. With --max-age, a source is reported
/// and the exit code is 3 if its last good backup is older, if it has none, or if its newest backup
/// is suspect. The exit code is also 3 if there is no backup at all, or if a snapshot is gone
/// without having been forgotten. While the newest backup of a source that must never change
/// (unchanged = "alarm") is suspect, the exit code is 5.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore status
  icecore status --max-age 2h --host web1
  icecore status --prometheus /var/lib/node_exporter/textfile/icecore.prom")]
pub struct StatusArgs {
    /// Fail if a last good backup is older than this (exit code 3)
    #[arg(long, value_name = "SPAN", value_parser = parse::some_time)]
    max_age: Option<Duration>,
    /// Write metrics for Prometheus' textfile collector to this file, atomically
    #[arg(long, value_name = "FILE", value_parser = parse::paths())]
    prometheus: Option<PathBuf>,
    /// Show only sources of this host
    #[arg(long, value_name = "HOST", value_parser = parse::host)]
    host: Option<String>,
    /// Show only sources of this name
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

/// One source as JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename = "source")]
struct StatusSourceRecord<'a> {
    host: &'a str,
    source: &'a str,
    /// The recorded path of its root; absent for a stream.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    path: Option<json::PathField>,
    snapshots: u64,
    /// The last good backup; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    good: Option<CaptureRecord>,
    newest: CaptureRecord,
    /// State of the newest: `complete`, `incomplete`, `suspect` or `alarm`.
    state: &'static str,
    /// Why the newest is suspect.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspect: Option<&'a str>,
    /// The parts that the newest lacks; absent if nothing is known to be missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<LackingLines<'a>>,
}

/// Returns the state of a source's newest backup.
fn state(one: &SourceStatus) -> &'static str {
    match (&one.suspect, one.is_alarm, one.newest.complete) {
        (Some(_), true, _) => "alarm",
        (Some(_), false, _) => "suspect",
        (None, _, true) => "complete",
        (None, _, false) => "incomplete",
    }
}

#[derive(Serialize)]
struct CaptureRecord {
    snapshot: String,
    time: Option<String>,
    age_seconds: f64,
    complete: bool,
}

impl CaptureRecord {
    fn new(status: &RepoStatus, capture: &CaptureStatus) -> Self {
        Self {
            snapshot: capture.snapshot.to_string(),
            time: json::time(capture.committed),
            age_seconds: status.age(capture),
            complete: capture.complete,
        }
    }
}

#[derive(Serialize)]
struct StatusSummary {
    sources: u64,
    packs: u64,
    stored_bytes: u64,
    /// Packs that wait for a sweep.
    condemned_packs: u64,
    condemned_bytes: u64,
    /// Leases of other active processes.
    live_leases: u64,
    /// When this machine last verified the pack that has been unverified for the longest time, or
    /// when that pack was stored if never.
    longest_unverified: Option<String>,
    /// When a backup of this machine last found all packs in the store, or reported the missing
    /// ones.
    packs_listed: Option<String>,
    /// Snapshots that this machine saw and that are gone without having been forgotten.
    vanished: Vec<String>,
}

pub fn run(context: &Context<'_>, args: &StatusArgs) -> Result<Outcome, CliError> {
    let (repository, mut meter, _cancel) = context.begin()?;
    let options = StatusOptions {
        filter: SnapshotFilter {
            host: args.host.clone(),
            tags: Vec::new(),
            source: args.source.clone(),
        },
        max_age: args.max_age,
        list_missing: context.ui.json,
    };
    let status = status(&repository, &options, &meter)?;
    if status.sources.is_empty() {
        report_nothing(&repository, &options.filter, Severity::Warning, &meter)?;
    }
    meter.end();

    if let Some(path) = &args.prometheus {
        let text = metrics(&status).finish();
        icecore::sys::write_file(
            path,
            text.as_bytes(),
            0o644,
            icecore::sys::ExistingFile::Replace,
        )
        .map_err(|e| CliError::failed("cannot write the metrics", e))?;
    }

    print_status(context, &status)?;
    let summary = StatusSummary {
        sources: status.sources.len() as u64,
        packs: status.packs,
        stored_bytes: status.stored_bytes,
        condemned_packs: status.condemned_packs,
        condemned_bytes: status.condemned_bytes,
        live_leases: status.leases.len() as u64,
        longest_unverified: status
            .longest_unverified
            .and_then(|(_, since)| json::time(since)),
        packs_listed: status.packs_listed.and_then(json::time),
        vanished: vanished(&status),
    };

    Ok(meter.finish("status", Outcome::Done, &summary, || lines(&status)))
}

fn print_status(context: &Context<'_>, status: &RepoStatus) -> Result<(), CliError> {
    let mut out = context.ui.data()?;
    if context.ui.json {
        for one in &status.sources {
            out.object(&StatusSourceRecord {
                host: &one.host,
                source: &one.source,
                path: one.path.as_deref().map(json::PathField::new),
                snapshots: one.snapshots,
                good: one
                    .good
                    .as_ref()
                    .map(|good| CaptureRecord::new(status, good)),
                newest: CaptureRecord::new(status, &one.newest),
                state: state(one),
                suspect: one.suspect.as_deref(),
                missing: LackingLines::new(&one.lacks, one.lacking.as_ref()),
            })?;
        }
        return out.finish();
    }

    let mut table = text::Table::new(&[
        "host",
        "source",
        ">snapshots",
        "last good",
        ">age",
        "newest",
        "path",
    ]);

    for one in &status.sources {
        table.row(row(status, one));
    }
    for line in table.lines() {
        out.line(line)?;
    }
    out.finish()
}

fn row(status: &RepoStatus, one: &SourceStatus) -> [String; 7] {
    let (good, age) = match &one.good {
        Some(good) => (
            format!("{} {}", good.snapshot.short(), text::when(good.committed)),
            if status.is_ahead(good) {
                "in the future".to_owned()
            } else {
                text::span(Duration::from_secs_f64(status.age(good)))
            },
        ),
        None => ("none".to_owned(), String::new()),
    };
    let newest = match state(one) {
        "alarm" => "ALARM",
        state => state,
    };
    let path = one.path.as_deref().map(text::bytes).unwrap_or_default();
    [
        one.host.clone(),
        one.source.clone(),
        text::number(one.snapshots),
        good,
        age,
        newest.to_owned(),
        path,
    ]
}

fn lines(status: &RepoStatus) -> Vec<String> {
    let mut lines = vec![format!(
        "{} in {}",
        text::size(status.stored_bytes),
        text::counted(status.packs, "pack", "packs")
    )];

    if status.condemned_packs > 0 {
        let packs = text::counted(status.condemned_packs, "pack", "packs");
        lines.push(format!(
            "{} in {packs} marked for deletion",
            text::size(status.condemned_bytes)
        ));
    }

    if let Some((pack, since)) = status.longest_unverified {
        lines.push(format!(
            "longest unverified: pack {}, since {}",
            pack.short(),
            text::when(since)
        ));
    }

    if let Some(at) = status.packs_listed {
        let age = Duration::from_secs_f64(status.now.seconds_since(at).max(0.0));
        lines.push(format!("packs last listed: {} ago", text::span(age)));
    }

    for one in &status.sources {
        let Some(how_much) = how_much(&one.lacks) else {
            continue;
        };
        let snapshot = one.newest.snapshot.short();
        lines.push(text::clean(&format!(
            "{} on {} lacks {how_much}: icecore ls --missing {snapshot}:{}",
            one.source, one.host, one.source
        )));
    }

    for lease in &status.leases {
        let who = lease.body.as_ref().map_or_else(
            || "an unreadable lease".to_owned(),
            |body| format!("{:?} on {}", body.kind, body.host).to_lowercase(),
        );
        lines.push(format!("running: {}", text::clean(&who)));
    }

    lines
}

/// Returns the ids of the vanished snapshots, each once.
fn vanished(status: &RepoStatus) -> Vec<String> {
    let mut ids: Vec<String> = status
        .vanished
        .iter()
        .map(|one| one.snapshot.to_string())
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Returns the path as a label. A label is text, so different paths must give different texts.
/// Empty for a stream.
fn path_label(one: &SourceStatus) -> String {
    let json::PathField { path, path_hex } =
        json::PathField::new(one.path.as_deref().unwrap_or_default());
    path_hex.map_or(path, |hex| format!("hex:{hex}"))
}

fn metrics(status: &RepoStatus) -> Metrics {
    let mut out = Metrics::default();
    let each =
        |value: &dyn Fn(&SourceStatus) -> Option<f64>| -> Vec<(Vec<(&'static str, String)>, f64)> {
            let labels = |one: &SourceStatus| {
                vec![
                    ("host", one.host.clone()),
                    ("source", one.source.clone()),
                    ("path", path_label(one)),
                ]
            };
            status
                .sources
                .iter()
                .filter_map(|one| Some((labels(one), value(one)?)))
                .collect()
        };

    let unix = |at: icecore::types::Timestamp| at.seconds() as f64 + f64::from(at.nanos()) / 1e9;

    // Metrics of each source.
    out.gauge(
        "icecore_last_success_timestamp_seconds",
        "Commit time of the last complete backup of the source, by the store's clock.",
        each(&|one| one.good.map(|good| unix(good.committed))),
    );
    out.gauge(
        "icecore_last_success_age_seconds",
        "Age of the last complete backup of the source when this file was written.",
        each(&|one| one.good.map(|good| status.age(&good))),
    );
    out.gauge(
        "icecore_snapshot_incomplete",
        "1 if the newest backup of the source is not complete.",
        each(&|one| Some(f64::from(u8::from(!one.newest.complete)))),
    );
    out.gauge(
        "icecore_snapshot_suspect",
        "1 if the newest backup of the source is suspect: much smaller than before, or changed although it must never change.",
        each(&|one| Some(f64::from(u8::from(one.suspect.is_some())))),
    );
    out.gauge(
        "icecore_snapshot_alarm",
        "1 if the newest backup of the source is suspect and the source must never change.",
        each(&|one| Some(f64::from(u8::from(one.is_alarm)))),
    );
    out.gauge(
        "icecore_snapshot_missing_entries",
        "Entries that are missing or incomplete in the newest backup of the source.",
        each(&|one| Some(one.lacks.incomplete as f64)),
    );
    out.gauge(
        "icecore_snapshots",
        "Committed snapshots that contain the source.",
        each(&|one| Some(one.snapshots as f64)),
    );

    // Metrics of the whole repository.
    let single = |value: f64| vec![(Vec::new(), value)];
    out.gauge(
        "icecore_repository_bytes",
        "Stored bytes of all packs.",
        single(status.stored_bytes as f64),
    );
    out.gauge(
        "icecore_condemned_bytes",
        "Stored bytes of packs marked for deletion.",
        single(status.condemned_bytes as f64),
    );
    out.gauge(
        "icecore_vanished_snapshots",
        "Snapshots that this machine saw and that are gone without having been forgotten.",
        single(vanished(status).len() as f64),
    );
    out.gauge(
        "icecore_live_leases",
        "Leases of other running processes.",
        single(status.leases.len() as f64),
    );
    out.gauge(
        "icecore_oldest_unverified_pack_timestamp_seconds",
        "When the longest unverified pack was last verified by this machine, or stored.",
        status
            .longest_unverified
            .iter()
            .map(|(_, since)| (Vec::new(), unix(*since)))
            .collect(),
    );
    out.gauge(
        "icecore_status_timestamp_seconds",
        "Time at which this file was written.",
        single(unix(status.now)),
    );

    out
}
