//! `icecore node backup`

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::job::{self, Begin};

/// Capture the node as one snapshot: database first, then files, then keys
///
/// The sources of icecore.toml, in their order, so that file storage is never older than the
/// database. The dump counts only if it ends as it must; one much smaller than the last good one is
/// a warning, a key file that changed or is missing an alarm (exit code 5): such a snapshot does
/// not push good ones out of retention. Runs at low priority.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore node backup --init
  icecore node backup
  icecore node backup --accept keys        # the keys were changed on purpose
  icecore node backup --dry-run")]
pub struct Args {
    /// Make the repository if it is not there, with a random key file where no passphrase is given
    #[arg(long)]
    init: bool,
    /// Take a much smaller dump, or changed files, of this source as good from now on
    #[arg(long, value_name = "SOURCE")]
    accept: Vec<String>,
    /// Only these sources of the configuration
    #[arg(long, value_name = "SOURCE")]
    source: Vec<String>,
    /// Read every file, changed or not
    #[arg(long)]
    force: bool,
    /// Read and count, store nothing; no hook runs, and nothing around a source
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// How far below others this job stands; I/O priority follows from it.
const NICENESS: i32 = 15;

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    let config = context.config()?;
    if config.sources.is_empty() {
        return Err(CliError::usage(
            "there is no configuration that says what belongs to the node",
        )
        .with_hint("'icecore node init' writes one from the compose file"));
    }
    // A good guest on a live node. Where it is not allowed, the job runs all the same.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let begin = Begin {
        init: args.init,
        parity: None,
        dry_run: args.dry_run,
    };
    job::run(context, begin, |repository, meter, cancel| {
        let mut options = job::configured(context, repository, meter, cancel, &args.source)?;
        options.force = args.force;
        options.dry_run = args.dry_run;
        options.accept = args.accept.iter().cloned().collect();
        Ok(options)
    })
}
