//! `icecore init`

use serde::Serialize;

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::parse;

/// Make a new repository
///
/// The passphrase comes from --passphrase-file, --passphrase-command or ICECORE_PASSPHRASE; else it
/// is asked for on the terminal. Where there is no terminal, a random key is written to a file that
/// later commands find by themselves (mode 0600; for root in /etc/icecore/keys, else in
/// ~/.config/icecore/keys). Keep a copy of that file elsewhere: without it the backup is lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore init -r /mnt/backup/repo
  icecore init -r /srv/repo --passphrase-file /root/passphrase
  icecore init -r /mnt/backup/repo --parity 5
  icecore init -r /srv/public --no-passphrase")]
pub struct Args {
    /// Keep so much recovery data beside each pack (1 to 100 percent of it), from which 'repair
    /// packs' heals bit rot
    #[arg(long, value_name = "PERCENT", value_parser = parse::whole_percent)]
    parity: Option<u8>,
}

#[derive(Serialize)]
struct Summary {
    repository: String,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    let meter = context.ui.meter();
    let id = context.init(args.parity)?;
    let summary = Summary {
        repository: id.to_string(),
    };
    Ok(meter.finish("init", Outcome::Done, &summary, || {
        vec![format!("repository {id} made")]
    }))
}
