//! `icecore status`

use std::path::PathBuf;
use std::time::Duration;

use icecore::jobs::report::{SourceStatusRecord, StatusSummary};
use icecore::observe::Severity;
use icecore::ops::list::SnapshotFilter;
use icecore::ops::status::{RepoStatus, SourceStatus, StatusOptions, status};

use super::nothing::report_nothing;
use super::status_metrics::metrics;
use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::lacking::how_much;
use crate::ui::text;

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

    let summary = StatusSummary::from(&status);
    let sources: Vec<SourceStatusRecord> = status
        .sources
        .iter()
        .map(|source| SourceStatusRecord::new(&status, source))
        .collect();

    if let Some(path) = &args.prometheus {
        let text = metrics(&status, &summary).finish();
        icecore::sys::write_file(
            path,
            text.as_bytes(),
            0o644,
            icecore::sys::ExistingFile::Replace,
        )
        .map_err(|e| CliError::failed("cannot write the metrics", e))?;
    }

    print_status(context, &status, &sources)?;
    Ok(meter.finish("status", Outcome::Done, &summary, || lines(&status)))
}

fn print_status(
    context: &Context<'_>,
    status: &RepoStatus,
    records: &[SourceStatusRecord],
) -> Result<(), CliError> {
    let mut out = context.ui.data()?;
    if context.ui.json {
        for record in records {
            out.object(record)?;
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

    for (source, record) in status.sources.iter().zip(records) {
        table.row(row(status, source, record.state));
    }
    for line in table.lines() {
        out.line(line)?;
    }
    out.finish()
}

/// Formats a source for people. `state`: that of its newest backup.
fn row(status: &RepoStatus, one: &SourceStatus, state: &str) -> [String; 7] {
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
    let newest = match state {
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
