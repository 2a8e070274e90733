//! `icecore diff`

use icecore::ops::diff::{ChangedParts, PathChange, diff};
use icecore::read::ReadSession;
use icecore::task::Task;
use serde::Serialize;

use super::callback::CallbackError;
use crate::context::{Context, HostArgs};
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::json;

/// Show the differences between two snapshots
///
/// Marks: + added, - removed, T different kind, M different content, m only different metadata.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore diff 4f1c latest
  icecore diff 4f1c 77ab --json")]
pub struct DiffArgs {
    /// Older snapshot
    #[arg(value_name = "SNAP", value_parser = parse::snap)]
    old: String,
    /// Newer snapshot
    #[arg(value_name = "SNAP", value_parser = parse::snap)]
    new: String,
    #[command(flatten)]
    hosts: HostArgs,
}

#[derive(Serialize)]
#[serde(tag = "type", rename = "difference")]
struct DiffRecord<'a> {
    /// `added`, `removed`, `kind`, `content` or `metadata`.
    change: &'static str,
    source: &'a str,
    #[serde(flatten)]
    path: json::PathField,
    #[serde(skip_serializing_if = "Option::is_none")]
    old_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    new_size: Option<u64>,
}

pub fn run(context: &Context<'_>, args: &DiffArgs) -> Result<Outcome, CliError> {
    let hosts = args.hosts.choice(context)?;
    let (repository, meter, cancel) = context.begin()?;
    let session = ReadSession::open(&repository, Task::new(&meter, &cancel))?;

    let mut out = context.ui.data()?;
    let mut relay = CallbackError::default();
    let compared = diff(&session, &args.old, &args.new, &hosts, &mut |item| {
        let (change, mark) = match item.change {
            PathChange::Added => ("added", '+'),
            PathChange::Removed => ("removed", '-'),
            PathChange::Changed(ChangedParts::Kind) => ("kind", 'T'),
            PathChange::Changed(ChangedParts::Content) => ("content", 'M'),
            PathChange::Changed(ChangedParts::Metadata) => ("metadata", 'm'),
        };
        let source = item.source;
        let path = item.path;
        let record = DiffRecord {
            change,
            source,
            path: json::PathField::new(&path.to_slashed()),
            old_size: item.old_size,
            new_size: item.new_size,
        };
        relay.pass(out.record(&record, || {
            if path.is_root() {
                format!("{mark} {source}")
            } else {
                format!("{mark} {source}/{path}")
            }
        }))
    });

    relay.done(compared)?;
    out.finish()?;
    Ok(meter.outcome())
}
