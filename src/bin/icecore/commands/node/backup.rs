//! `icecore node backup`

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::job::{self, BackupRequest};

/// Capture the node as one snapshot: database first, then files, then keys
///
/// Captures the sources of icecore.toml in their order, so that file storage is never older than
/// the database. A dump counts only if it ends as it must. A dump much smaller than the last good
/// one is a warning; a key file that changed or is missing is an alarm (exit code 5). Such a
/// snapshot does not push good ones out of retention. Runs at low priority.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore node backup --init
  icecore node backup
  icecore node backup --accept keys        # the keys were changed on purpose
  icecore node backup --dry-run")]
pub struct NodeBackupArgs {
    /// Create the repository if it does not exist, with a random key file if no passphrase is given
    #[arg(long)]
    init: bool,
    /// Accept a much smaller dump, or changed files, in this source as good from now on
    #[arg(long, value_name = "SOURCE")]
    accept: Vec<String>,
    /// Back up only this source of the configuration (can be repeated; default: all)
    #[arg(long, value_name = "SOURCE")]
    source: Vec<String>,
    /// Read every file, even if it seems unchanged
    #[arg(long)]
    force: bool,
    /// Read and count, store nothing; run no hooks and no commands around a source
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Niceness of this job. Its I/O priority follows from it.
const NICENESS: i32 = 15;

pub fn run(context: &Context<'_>, args: &NodeBackupArgs) -> Result<Outcome, CliError> {
    let config = context.config()?;
    if config.sources.is_empty() {
        return Err(CliError::usage("no sources are configured for the node")
            .with_hint("'icecore node init' writes one from the compose file"));
    }
    // Run at low priority on a live node. If that is not allowed, the job still runs.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let begin = BackupRequest {
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
