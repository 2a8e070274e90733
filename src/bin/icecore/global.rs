//! The options that every command has.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use icecore::types::RepoId;

use crate::parse;

/// Options that may be given anywhere on the command line.
#[derive(Debug, Default, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Repository: the path of its directory (remote repositories are not supported yet)
    #[arg(short, long, global = true, value_name = "REPO")]
    pub repo: Option<OsString>,
    /// Read the passphrase from this file (without one trailing newline)
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "passphrase_command", value_parser = parse::paths())]
    pub passphrase_file: Option<PathBuf>,
    /// Take the passphrase from the first line that this command prints (run without a shell)
    #[arg(long, global = true, value_name = "COMMAND")]
    pub passphrase_command: Option<String>,
    /// The repository has no passphrase: anyone with its files can read them
    #[arg(long, global = true, conflicts_with_all = ["passphrase_file", "passphrase_command"])]
    pub no_passphrase: bool,
    /// Accept the repository with this id, even if another one was used at this address before
    #[arg(long, global = true, value_name = "ID", value_parser = parse::repository_id)]
    pub accept_repository: Option<RepoId>,
    /// Try the passphrase also on key slots that need unusually much memory or time (up to 1 GiB,
    /// minutes each)
    #[arg(long, global = true)]
    pub costly_key: bool,
    /// Configuration file (default: /etc/icecore/icecore.toml for root, else
    /// ~/.config/icecore/icecore.toml)
    #[arg(long, global = true, value_name = "FILE", value_parser = parse::paths())]
    pub config: Option<PathBuf>,
    /// Print one JSON object per line on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only data, problems and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print each path as it is processed
    #[arg(short, long, global = true)]
    pub verbose: bool,
}
