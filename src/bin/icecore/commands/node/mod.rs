//! `icecore node`: jobs of a Core Channel Node.

mod check;

use clap::Subcommand;

use crate::context::Context;
use crate::exit::{CliError, Outcome};

/// Back up, restore and check a Core Channel Node
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore node check")]
pub struct Args {
    #[command(subcommand)]
    job: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    Check(check::Args),
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    match &args.job {
        Job::Check(args) => check::run(context, args),
    }
}
