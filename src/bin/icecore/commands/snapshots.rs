//! `icecore snapshots`

use serde::Serialize;

use crate::context::Context;
use crate::engine::ops::SnapshotInfo;
use crate::engine::ops::list::{SnapshotFilter, snapshots};
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
    /// Only those with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
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
    state: &'static str,
    tags: &'a [String],
    sources: Vec<SourceRecord<'a>>,
}

#[derive(Serialize)]
struct SourceRecord<'a> {
    name: &'a str,
    entries: u64,
    bytes: u64,
}

impl<'a> Record<'a> {
    fn new(info: &'a SnapshotInfo) -> Self {
        let source = |s: &'a crate::engine::ops::SourceInfo| SourceRecord {
            name: &s.name,
            entries: s.entries,
            bytes: s.bytes,
        };
        Self {
            id: info.id.to_string(),
            host: &info.host,
            started: json::time(info.started),
            state: info.state,
            tags: &info.tags,
            sources: info.sources.iter().map(source).collect(),
        }
    }
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    let (repository, mut meter, _cancel) = context.begin()?;
    let filter =
        SnapshotFilter { host: args.host.clone(), tag: args.tag.clone(), source: args.source.clone() };
    let list = snapshots(&repository, &filter)?;
    meter.end();
    let mut out = context.ui.data()?;
    if context.ui.json {
        for info in &list {
            out.object(&Record::new(info))?;
        }
    } else {
        for line in table(&list).lines() {
            out.line(line)?;
        }
    }
    out.finish()?;
    Ok(meter.outcome())
}

fn table(list: &[SnapshotInfo]) -> text::Table {
    let mut table = text::Table::new(&["id", "time", "host", "state", ">size", "sources", "tags"]);
    for info in list {
        let names: Vec<&str> = info.sources.iter().map(|s| s.name.as_str()).collect();
        table.row([
            info.id.short(),
            text::when(info.started),
            info.host.clone(),
            info.state.to_owned(),
            text::size(info.sources.iter().map(|s| s.bytes).sum()),
            names.join(" "),
            info.tags.join(" "),
        ]);
    }
    table
}
