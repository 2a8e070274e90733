//! `icecore man`

use std::path::PathBuf;

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::parse;

/// Write the manual pages into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore man /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Directory; created if it does not exist
    #[arg(value_name = "DIR", value_parser = parse::paths())]
    directory: PathBuf,
}

/// Writes the pages of the command line of this definition.
pub fn run(
    context: &Context<'_>,
    args: &ManArgs,
    definition: clap::Command,
) -> Result<Outcome, CliError> {
    let directory = args.directory.display();
    std::fs::create_dir_all(&args.directory)
        .and_then(|()| clap_mangen::generate_to(definition, &args.directory))
        .map_err(|e| CliError::failed(format!("cannot write manual pages to {directory}"), e))?;
    context
        .ui
        .note(format_args!("manual pages written to {directory}"));
    Ok(Outcome::Done)
}
