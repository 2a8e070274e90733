//! `icecore key`

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use crate::context::Context;
use crate::engine::ops::keys;
use crate::engine::repo::Secret;
use crate::exit::{CliError, Outcome};
use crate::secret;
use crate::ui::{json, text};

/// Manage the passphrases of the repository
///
/// Each passphrase has a slot that holds the one master key, sealed. Changing or removing a passphrase does not
/// change the master key: who had it once and kept it can still read the data.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore key list
  icecore key add --new-passphrase-file /root/second
  icecore key change
  icecore key remove 3f9a
  icecore key export /media/usb/icecore-key")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a passphrase
    Add(New),
    /// List the slots
    List,
    /// Remove a slot; the last one stays
    Remove {
        /// Name of the slot
        slot: String,
    },
    /// Replace the passphrase that was used to open the repository
    Change(New),
    /// Write the sealed key to a new file, to be kept apart from the repository
    ///
    /// If the repository's own copies are ever lost, this and the passphrase bring the data back.
    Export {
        /// A file that does not exist yet; '-' is standard output
        file: PathBuf,
    },
}

/// Where the new passphrase comes from; by default from the terminal.
#[derive(Debug, clap::Args)]
struct New {
    /// Read the new passphrase from this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_passphrase_command", "new_key_file"])]
    new_passphrase_file: Option<PathBuf>,
    /// Take the new passphrase from the first line that this command prints
    #[arg(long, value_name = "COMMAND", conflicts_with = "new_key_file")]
    new_passphrase_command: Option<String>,
    /// Draw a random key and write it to this new file (mode 0600)
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
}

/// A slot as JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename = "key")]
struct Record<'a> {
    slot: &'a str,
    created: Option<String>,
    current: bool,
}

#[derive(Serialize)]
struct Summary<'a> {
    slot: &'a str,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    match &args.action {
        Action::Add(new) => write_slot(context, new, "key add", keys::add, "added"),
        Action::Change(new) => write_slot(context, new, "key change", keys::change, "changed"),
        Action::List => list(context),
        Action::Remove { slot } => {
            let (repository, meter, _cancel) = context.begin()?;
            keys::remove(&repository, slot)?;
            let line = || vec![format!("slot {slot} removed")];
            Ok(meter.finish("key remove", Outcome::Done, &Summary { slot }, line))
        }
        Action::Export { file } => export(context, file),
    }
}

impl New {
    /// The new passphrase, and whether it is a random key.
    fn secret(&self) -> Result<(Secret, bool), CliError> {
        if let Some(path) = &self.new_passphrase_file {
            return Ok((Secret(secret::from_file(path)?), false));
        }
        if let Some(command) = &self.new_passphrase_command {
            return Ok((Secret(secret::from_command(command)?), false));
        }
        if let Some(path) = &self.new_key_file {
            let key = secret::random_key()?;
            secret::write_new_file(path, &key)?;
            return Ok((Secret(key), true));
        }
        if !secret::has_terminal() {
            return Err(CliError::usage("no new passphrase given")
                .with_hint("use --new-passphrase-file, --new-passphrase-command or --new-key-file"));
        }
        Ok((Secret(secret::ask_new()?), false))
    }
}

type SlotWriter = fn(&crate::engine::repo::Repository, &Secret, bool) -> Result<String, crate::engine::Error>;

fn write_slot(
    context: &Context<'_>,
    new: &New,
    command: &'static str,
    write: SlotWriter,
    done: &str,
) -> Result<Outcome, CliError> {
    let (repository, meter, _cancel) = context.begin()?;
    let (secret, random_key) = new.secret()?;
    let slot = write(&repository, &secret, random_key)?;
    let line = || vec![format!("slot {slot} {done}")];
    Ok(meter.finish(command, Outcome::Done, &Summary { slot: &slot }, line))
}

fn list(context: &Context<'_>) -> Result<Outcome, CliError> {
    let (repository, mut meter, _cancel) = context.begin()?;
    let slots = keys::list(&repository)?;
    meter.end();
    let mut out = context.ui.data()?;
    if context.ui.json {
        for slot in &slots {
            let created = json::time(slot.created);
            out.object(&Record { slot: &slot.name, created, current: slot.current })?;
        }
    } else {
        let mut table = text::Table::new(&["slot", "made", ""]);
        for slot in &slots {
            let mark = if slot.current { "used now" } else { "" };
            table.row([slot.name.clone(), text::when(slot.created), mark.to_owned()]);
        }
        for line in table.lines() {
            out.line(line)?;
        }
    }
    out.finish()?;
    Ok(meter.outcome())
}

fn export(context: &Context<'_>, file: &Path) -> Result<Outcome, CliError> {
    let (repository, meter, _cancel) = context.begin()?;
    let key = keys::export(&repository)?;
    if file.as_os_str() == "-" {
        let mut out = context.ui.data()?;
        out.line(String::from_utf8_lossy(&key))?;
        out.finish()?;
    } else {
        secret::write_new_file(file, &key)?;
        context.ui.note(format_args!("key written to {}", file.display()));
    }
    Ok(meter.outcome())
}
