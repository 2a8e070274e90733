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
pub struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    Init(init::NodeInitArgs),
    Backup(backup::NodeBackupArgs),
    Check(check::NodeCheckArgs),
    Restore(Box<restore::NodeRestoreArgs>),
}

impl NodeArgs {
    /// Returns true for the command that writes a configuration file.
    pub fn makes_config(&self) -> bool {
        matches!(self.command, NodeCommand::Init(_))
    }
}

pub fn run(context: &Context<'_>, args: &NodeArgs) -> Result<Outcome, CliError> {
    match &args.command {
        NodeCommand::Init(args) => init::run(context, args),
        NodeCommand::Backup(args) => backup::run(context, args),
        NodeCommand::Check(args) => check::run(context, args),
        NodeCommand::Restore(args) => restore::run(context, args),
    }
}
