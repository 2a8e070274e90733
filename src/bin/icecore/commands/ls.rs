//! `icecore ls`

use std::ops::ControlFlow;

use clap::builder::{OsStringValueParser, TypedValueParser};

use super::entry;
use crate::context::{Context, HostArgs};
use crate::engine::ops::list::ls;
use crate::engine::ops::selector;
use crate::exit::{CliError, Outcome};
use crate::parse::{self, SnapPath};

/// List what a snapshot holds
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore ls latest
  icecore ls latest:home/projects -l
  icecore ls 4f1c:etc --recursive --json")]
pub struct Args {
    /// Snapshot, source and path
    #[arg(value_name = "SNAP[:SOURCE[/PATH]]",
          value_parser = OsStringValueParser::new().try_map(|s| parse::snap_path(&s)))]
    what: SnapPath,
    /// Show mode, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// List folders in folders too
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    hosts: HostArgs,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    let (repository, meter, _cancel) = context.begin()?;
    let mut out = context.ui.data()?;
    let mut result = Ok(());
    ls(&repository, &selector(&args.what, &args.hosts), args.recursive, &mut |source, found| {
        result = out.record(&entry::Record::new(None, source, found), || {
            if args.long { entry::long(source, found) } else { entry::short(source, found) }
        });
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    out.finish()?;
    Ok(meter.outcome())
}
