//! `icecore init`

use icecore::jobs::report::InitSummary;

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::parse;

/// Create a new repository
///
/// The passphrase comes from --passphrase-file, --passphrase-command or ICECORE_PASSPHRASE,
/// otherwise from the terminal. Without a terminal, a random key is written to a file that later
/// commands find by themselves (mode 0600; in /etc/icecore/keys for root, otherwise in
/// ~/.config/icecore/keys). Keep a copy of that file elsewhere: without it the backup is lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore init -r /mnt/backup/repo
  icecore init -r /srv/repo --passphrase-file /root/passphrase
  icecore init -r /mnt/backup/repo --parity 5
  icecore init -r /srv/public --no-passphrase")]
pub struct InitArgs {
    /// Add recovery data to each pack, as a percentage of its size (1 to 100), from which 'repair
    /// packs' heals bit rot
    #[arg(long, value_name = "PERCENT", value_parser = parse::whole_percent)]
    parity: Option<u8>,
}

pub fn run(context: &Context<'_>, args: &InitArgs) -> Result<Outcome, CliError> {
    let meter = context.ui.meter();
    let id = context.init(args.parity)?;
    let summary = InitSummary {
        repository: id.to_string(),
    };
    Ok(meter.finish("init", Outcome::Done, &summary, || {
        vec![format!("created repository {id}")]
    }))
}
