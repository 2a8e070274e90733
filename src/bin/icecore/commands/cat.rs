//! `icecore cat`

use clap::builder::{OsStringValueParser, TypedValueParser};
use icecore::ops::list::cat;
use icecore::read::ReadSession;
use icecore::task::Task;

use crate::context::{Context, HostArgs};
use crate::exit::{CliError, Outcome};
use crate::parse::{self, SnapPath};

/// Write a stream, a file, or a directory as tar, to standard output
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore cat latest:db | psql
  icecore cat latest:etc/fstab
  icecore cat latest:home/projects | tar -t")]
pub struct CatArgs {
    /// Snapshot, source and path
    #[arg(value_name = "SNAP:SOURCE[/PATH]",
          value_parser = OsStringValueParser::new().try_map(|s| parse::snap_path(&s)))]
    what: SnapPath,
    #[command(flatten)]
    hosts: HostArgs,
}

pub fn run(context: &Context<'_>, args: &CatArgs) -> Result<Outcome, CliError> {
    if args.what.source.is_none() {
        let hint = format!(
            "write {snap}:SOURCE; 'icecore ls {snap}' lists the sources",
            snap = args.what.snap
        );
        return Err(CliError::usage("no source given").with_hint(hint));
    }
    if context.ui.json {
        return Err(CliError::usage("'cat' writes contents, not JSON"));
    }
    let (repository, mut meter, cancel) = context.begin()?;
    let session = ReadSession::open(&repository, Task::new(&meter, &cancel))?;
    let mut out = context.ui.data()?;
    let what = context.listed_path(&args.what, &args.hosts)?;
    cat(&session, &what, &mut out)?;
    drop(session);
    out.finish()?;
    meter.end();
    Ok(meter.outcome())
}
