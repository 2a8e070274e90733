//! `icecore snapshots`

use icecore::format::{self, SourceKind};
use icecore::ops::list::{SnapshotFilter, snapshots};
use icecore::repo::StoredSnapshot;
use serde::Serialize;

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::ui::{json, text};

/// List the snapshots
///
/// Oldest first. An incomplete snapshot holds entries that could not be read; a checkpoint is what an interrupted
/// backup left to go on from.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore snapshots
  icecore snapshots --host web1 --tag nightly
  icecore snapshots --json")]
pub struct Args {
    /// Only those of this host
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Only those with this tag; may be given more than once
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Only those with a source of this name
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

/// One snapshot as JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename = "snapshot")]
struct Record<'a> {
    id: String,
    host: &'a str,
    started: Option<String>,
    ended: Option<String>,
    /// `complete`, `incomplete` or `checkpoint`.
    state: String,
    tags: &'a [String],
    /// Paths that lack something since a repair; absent if it was not repaired.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_paths: Option<u64>,
    sources: Vec<SourceRecord<'a>>,
}

/// One source of a snapshot. `path` is a tree's, `command` and `size` a stream's.
#[derive(Serialize)]
struct SourceRecord<'a> {
    name: &'a str,
    kind: &'static str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    path: Option<json::PathField>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Entries that could not be read, or changed while they were.
    incomplete: u64,
}

impl<'a> Record<'a> {
    fn new(stored: &'a StoredSnapshot) -> Self {
        let snapshot = &stored.snapshot;
        Self {
            id: stored.id.to_string(),
            host: &snapshot.host,
            started: json::time(snapshot.started),
            ended: json::time(snapshot.ended),
            state: snapshot.state.to_string(),
            tags: &snapshot.tags,
            lost_paths: snapshot.lost.as_ref().map(|lost| lost.count),
            sources: snapshot.sources.iter().map(SourceRecord::new).collect(),
        }
    }
}

impl<'a> SourceRecord<'a> {
    fn new(source: &'a format::SourceRecord) -> Self {
        let (kind, path, command, size) = match &source.kind {
            SourceKind::Tree { path, .. } => ("tree", Some(json::PathField::new(path)), None, None),
            SourceKind::Stream { command, content } => {
                ("stream", None, Some(command.as_slice()), Some(content.size))
            }
        };
        Self { name: &source.name, kind, path, command, size, incomplete: source.counts.incomplete }
    }
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    let (repository, mut meter, _cancel) = context.begin()?;
    let filter =
        SnapshotFilter { host: args.host.clone(), tags: args.tag.clone(), source: args.source.clone() };
    let list = snapshots(&repository, &filter, &meter)?;
    meter.end();
    let mut out = context.ui.data()?;
    if context.ui.json {
        for stored in &list {
            out.object(&Record::new(stored))?;
        }
    } else {
        for line in table(&list).lines() {
            out.line(line)?;
        }
    }
    out.finish()?;
    Ok(meter.outcome())
}

fn table(list: &[StoredSnapshot]) -> text::Table {
    let mut table = text::Table::new(&["id", "time", "host", "state", "sources", "tags"]);
    for StoredSnapshot { id, snapshot, .. } in list {
        let names: Vec<&str> = snapshot.sources.iter().map(|s| s.name.as_str()).collect();
        table.row([
            id.short(),
            text::when(snapshot.started),
            snapshot.host.clone(),
            match &snapshot.lost {
                Some(lost) => format!("repaired, {} lost", text::counted(lost.count, "path", "paths")),
                None => snapshot.state.to_string(),
            },
            names.join(" "),
            snapshot.tags.join(" "),
        ]);
    }
    table
}
