//! `icecore node`: a Core Channel Node as a whole.

mod backup;
mod check;
mod init;
mod restore;

use clap::Subcommand;

use crate::context::Context;
use crate::exit::{CliError, Outcome};

/// Back up and restore a Core Channel Node
///
/// icecore.toml defines the parts of the node.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore node init -r /mnt/backup/node /opt/pyaleph/docker-compose.yml
  icecore node backup --init
  icecore node backup
  icecore node check
  icecore node restore latest --dry-run")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Backup(backup::Args),
    Check(check::Args),
    Restore(Box<restore::Args>),
}

impl Args {
    /// Returns true for the command that writes a configuration file.
    pub fn makes_config(&self) -> bool {
        matches!(self.command, Command::Init(_))
    }
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    match &args.command {
        Command::Init(args) => init::run(context, args),
        Command::Backup(args) => backup::run(context, args),
        Command::Check(args) => check::run(context, args),
        Command::Restore(args) => restore::run(context, args),
    }
}
