//! `icecore find`

use std::ops::ControlFlow;

use super::entry;
use crate::context::{Context, HostArgs};
use crate::engine::ops::list::find;
use crate::engine::ops::whole;
use crate::exit::{CliError, Outcome};
use crate::parse;

/// Find paths in snapshots
///
/// The pattern follows gitignore's rules from each source's root: one without '/' matches names at any depth.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore find '*.pem'
  icecore find '/home/*/notes.txt' --snapshot latest")]
pub struct Args {
    /// Pattern
    glob: String,
    /// Look in this snapshot only
    #[arg(long, value_name = "SNAP", value_parser = parse::snap)]
    snapshot: Option<String>,
    #[command(flatten)]
    hosts: HostArgs,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    let (repository, meter, _cancel) = context.begin()?;
    let snap = args.snapshot.as_ref().map(|snap| whole(snap, &args.hosts));
    let mut out = context.ui.data()?;
    let mut result = Ok(());
    find(&repository, &args.glob, snap.as_ref(), &mut |snapshot, source, found| {
        let record = entry::Record::new(Some(snapshot.to_string()), source, found);
        result = out.record(&record, || format!("{}:{}", snapshot.short(), entry::short(source, found)));
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    out.finish()?;
    Ok(meter.outcome())
}
