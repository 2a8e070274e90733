//! The commands, one file each: arguments, and one call of the library.

mod backup;
mod callback;
mod cat;
mod completions;
mod config;
mod copy;
mod diff;
mod entry;
mod find;
mod forget;
mod init;
mod key;
mod ls;
mod man;
mod node;
mod nothing;
mod prune;
mod repair;
mod restore;
mod snapshots;
mod stats;
mod status;
mod status_metrics;
mod tag;
mod undelete;
mod verify;

use clap::Subcommand;

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::global::Global;

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(init::InitArgs),
    Backup(Box<backup::BackupArgs>),
    Snapshots(snapshots::SnapshotListArgs),
    Ls(ls::LsArgs),
    Find(find::FindArgs),
    Cat(cat::CatArgs),
    Diff(diff::DiffArgs),
    Stats(stats::StatsArgs),
    Restore(restore::RestoreArgs),
    Verify(verify::VerifyArgs),
    Copy(Box<copy::CopyArgs>),
    Status(status::StatusArgs),
    Forget(Box<forget::ForgetArgs>),
    Undelete(undelete::UndeleteArgs),
    Tag(tag::TagArgs),
    Prune(prune::PruneArgs),
    Repair(repair::RepairArgs),
    Key(key::KeyArgs),
    Node(Box<node::NodeArgs>),
    Config(config::ConfigArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Runs a command. `definition` returns the definition of the whole command line.
pub fn run(
    global: &Global,
    command: &Command,
    definition: fn() -> clap::Command,
) -> Result<Outcome, CliError> {
    let context = Context::new(global);
    match command {
        // This command writes the configuration file, which need not exist.
        Command::Node(args) if args.makes_config() => context.env.check()?,
        _ => context.check()?,
    }

    match command {
        Command::Init(args) => init::run(&context, args),
        Command::Backup(args) => backup::run(&context, args),
        Command::Snapshots(args) => snapshots::run(&context, args),
        Command::Ls(args) => ls::run(&context, args),
        Command::Find(args) => find::run(&context, args),
        Command::Cat(args) => cat::run(&context, args),
        Command::Diff(args) => diff::run(&context, args),
        Command::Stats(args) => stats::run(&context, args),
        Command::Restore(args) => restore::run(&context, args),
        Command::Verify(args) => verify::run(&context, args),
        Command::Copy(args) => copy::run(&context, args),
        Command::Status(args) => status::run(&context, args),
        Command::Forget(args) => forget::run(&context, args),
        Command::Undelete(args) => undelete::run(&context, args),
        Command::Tag(args) => tag::run(&context, args),
        Command::Prune(args) => prune::run(&context, args),
        Command::Repair(args) => repair::run(&context, args),
        Command::Key(args) => key::run(&context, args),
        Command::Node(args) => node::run(&context, args),
        Command::Config(args) => config::run(&context, args),
        Command::Completions(args) => completions::run(&context, args, definition()),
        Command::Man(args) => man::run(&context, args, definition()),
    }
}
