//! `icecore diff`

use std::ops::ControlFlow;

use serde::Serialize;

use crate::context::{Context, HostArgs};
use crate::engine::ops::diff::{Change, diff};
use crate::engine::ops::whole;
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::json;

/// Show what differs between two snapshots
///
/// Marks: + added, - removed, M content changed, m metadata alone changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore diff 4f1c latest
  icecore diff 4f1c 77ab --json")]
pub struct Args {
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
struct Record<'a> {
    /// `added`, `removed`, `changed` or `metadata`.
    change: &'static str,
    source: &'a str,
    #[serde(flatten)]
    path: json::PathField,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    let (repository, meter, _cancel) = context.begin()?;
    let mut out = context.ui.data()?;
    let mut result = Ok(());
    let (old, new) = (whole(&args.old, &args.hosts), whole(&args.new, &args.hosts));
    diff(&repository, &old, &new, &mut |source, path, change| {
        let (change, mark) = match change {
            Change::Added => ("added", '+'),
            Change::Removed => ("removed", '-'),
            Change::Changed => ("changed", 'M'),
            Change::Metadata => ("metadata", 'm'),
        };
        let record = Record { change, source, path: json::PathField::new(&path.to_slashed()) };
        result = out.record(&record, || {
            if path.is_root() { format!("{mark} {source}") } else { format!("{mark} {source}/{path}") }
        });
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    out.finish()?;
    Ok(meter.outcome())
}
