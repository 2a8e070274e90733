//! `icecore key`

use std::path::{Path, PathBuf};

use clap::Subcommand;
use icecore::jobs::report::{KeyRecord, KeySummary};
use icecore::repo::{RepoError, Repository, Secret};
use icecore::sys::host_name;

use crate::context::Context;
use crate::exit::{CliError, Outcome, error_report};
use crate::parse;
use crate::secret;
use crate::ui::text;

/// Hint for a missing new passphrase.
const GIVE_NEW: &str = "use --new-passphrase-file, --new-passphrase-command or --new-key-file";

/// Manage the passphrases of the repository
///
/// Each passphrase has a slot that holds the master key, encrypted. Changing or removing a
/// passphrase does not change the master key: anyone with a copy of it can still read the data.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore key list
  icecore key add --new-passphrase-file /root/second
  icecore key change
  icecore key remove 3f9a
  icecore key export /media/usb/icecore-key")]
pub struct KeyArgs {
    #[command(subcommand)]
    action: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Add a passphrase
    Add(NewPassphrase),
    /// List the slots
    List,
    /// Remove a slot; the last one cannot be removed
    Remove {
        /// Name of the slot
        slot: String,
    },
    /// Replace the passphrase that opened the repository
    Change(NewPassphrase),
    /// Write a new slot to a file, to be stored apart from the repository
    ///
    /// Copied back as keys/<any 16 hex digits>, it opens the repository with its passphrase even if
    /// all slots there are lost.
    Export {
        /// A file that does not exist yet; '-' is standard output
        #[arg(value_parser = parse::paths())]
        file: PathBuf,
        #[command(flatten)]
        new: NewPassphrase,
    },
}

/// The source of the new passphrase (default: the terminal).
#[derive(Debug, clap::Args)]
struct NewPassphrase {
    /// Read the new passphrase from this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["new_passphrase_command", "new_key_file"])]
    #[arg(value_parser = parse::paths())]
    new_passphrase_file: Option<PathBuf>,
    /// Take the new passphrase from the first line that this command prints
    #[arg(long, value_name = "COMMAND", conflicts_with = "new_key_file")]
    new_passphrase_command: Option<String>,
    /// Generate a random key and write it to this new file (mode 0600)
    #[arg(long, value_name = "FILE", value_parser = parse::paths())]
    new_key_file: Option<PathBuf>,
    /// Label that says whose passphrase it is (default: this machine's name)
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
}

pub fn run(context: &Context<'_>, args: &KeyArgs) -> Result<Outcome, CliError> {
    match &args.action {
        KeyCommand::Add(new) => write_slot(context, new, "key add", "added", Repository::add_key),
        KeyCommand::Change(new) => {
            let done = write_slot(
                context,
                new,
                "key change",
                "replaces the old one",
                Repository::change_key,
            );
            if done.is_ok() {
                retire_key_file(context);
            }
            done
        }
        KeyCommand::List => list(context),
        KeyCommand::Remove { slot } => {
            let (repository, meter, _cancel) = context.begin()?;
            // If the slot in use is removed, the key file that opened it is of no use.
            let current = repository
                .key_slots()?
                .into_iter()
                .find(|slot| slot.current);
            let slot = repository.remove_key(slot)?;
            if current.is_some_and(|current| current.name == slot) {
                retire_key_file(context);
            }
            let summary = KeySummary { slot };
            Ok(meter.finish("key remove", Outcome::Done, &summary, || {
                vec![format!("slot {} removed", summary.slot)]
            }))
        }
        KeyCommand::Export { file, new } => export(context, file, new),
    }
}

impl NewPassphrase {
    /// Returns the new passphrase.
    fn secret(&self, context: &Context<'_>) -> Result<Secret, CliError> {
        if let Some(path) = &self.new_passphrase_file {
            return Ok(context.new_secret(secret::from_file(path).map_err(about_new)?));
        }
        if let Some(command) = &self.new_passphrase_command {
            return Ok(context.new_secret(secret::from_command(command).map_err(about_new)?));
        }
        if let Some(path) = &self.new_key_file {
            let key = secret::random_key()?;
            secret::write_key(path, &key)?;
            return Ok(Secret::generated(key));
        }
        if !secret::has_terminal() {
            return Err(CliError::usage("no new passphrase given").with_hint(GIVE_NEW));
        }
        Ok(Secret::passphrase(secret::ask_new().map_err(about_new)?))
    }

    fn label(&self) -> String {
        self.label.clone().unwrap_or_else(host_name)
    }
}

/// Replaces the hint of a refused new passphrase: the options of the current passphrase do not
/// apply to it.
fn about_new(error: CliError) -> CliError {
    match error {
        CliError::Locked { message, .. } => CliError::Locked {
            message,
            hint: Some(GIVE_NEW.to_owned()),
        },
        other => other,
    }
}

type SlotWriter = fn(&Repository, &Secret, &str) -> Result<String, RepoError>;

fn write_slot(
    context: &Context<'_>,
    new: &NewPassphrase,
    command: &'static str,
    done: &str,
    write: SlotWriter,
) -> Result<Outcome, CliError> {
    let (repository, meter, _cancel) = context.begin()?;
    let slot = write(&repository, &new.secret(context)?, &new.label())?;
    let summary = KeySummary { slot };
    Ok(meter.finish(command, Outcome::Done, &summary, || {
        vec![format!("slot {} {done}", summary.slot)]
    }))
}

/// Renames the key file that opened the repository, whose slot is gone. Otherwise the key file
/// would be tried instead of the passphrase.
fn retire_key_file(context: &Context<'_>) {
    let Some(path) = context.key_file.get() else {
        return;
    };
    match secret::retire_key_file(path) {
        Ok(old) => {
            let what = format!(
                "the old key file no longer opens the repository; it was renamed to {}",
                old.display()
            );
            context.ui.note(text::clean(&what));
        }
        // The slot is still gone, and the next command names the file.
        Err(error) => {
            let message = error_report(&error)
                .map(|report| report.message)
                .unwrap_or_default();
            context.ui.warn(format_args!("warning: {message}"));
        }
    }
}

fn list(context: &Context<'_>) -> Result<Outcome, CliError> {
    let (repository, mut meter, _cancel) = context.begin()?;
    let slots = repository.key_slots()?;

    meter.end();
    let mut out = context.ui.data()?;
    let mut table = text::Table::new(&["slot", "created", "label", ""]);
    for slot in &slots {
        if context.ui.json {
            out.object(&KeyRecord::from(slot))?;
            continue;
        }
        let mark = if slot.current { "in use" } else { "" };
        table.row([
            slot.name.clone(),
            text::when(slot.created),
            slot.label.clone(),
            slot.damage.as_deref().unwrap_or(mark).to_owned(),
        ]);
    }

    if !context.ui.json {
        for line in table.lines() {
            out.line(line)?;
        }
    }

    out.finish()?;
    let damaged = slots.iter().any(|slot| slot.damage.is_some());
    Ok(meter.outcome().max(if damaged {
        Outcome::Damage
    } else {
        Outcome::Done
    }))
}

fn export(context: &Context<'_>, file: &Path, new: &NewPassphrase) -> Result<Outcome, CliError> {
    let (repository, meter, _cancel) = context.begin()?;
    let slot = repository.export_key(&new.secret(context)?, &new.label())?;
    if file.as_os_str() == "-" {
        let mut out = context.ui.data()?;
        out.line(String::from_utf8_lossy(&slot))?;
        out.finish()?;
    } else {
        secret::write_new_file(file, &slot)?;
        context
            .ui
            .note(format_args!("key slot written to {}", file.display()));
    }
    Ok(meter.outcome())
}
