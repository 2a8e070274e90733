//! `icecore completions`

use clap_complete::Shell;

use crate::context::Context;
use crate::exit::{CliError, Outcome};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore completions bash > /etc/bash_completion.d/icecore
  icecore completions zsh > ~/.zfunc/_icecore
  icecore completions fish > ~/.config/fish/completions/icecore.fish")]
pub struct CompletionsArgs {
    shell: Shell,
}

/// Prints the completions of the command line of this definition.
pub fn run(
    context: &Context<'_>,
    args: &CompletionsArgs,
    mut definition: clap::Command,
) -> Result<Outcome, CliError> {
    let mut out = context.ui.data()?;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition, "icecore", &mut script);
    out.line(String::from_utf8_lossy(&script).trim_end())?;
    out.finish()?;
    Ok(Outcome::Done)
}
