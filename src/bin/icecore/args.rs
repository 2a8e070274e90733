//! The command line: parses it, and runs the command that it names.

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::commands::{self, Command};
use crate::exit::{CliError, Outcome};
use crate::global::Global;

/// Back up file trees and database dumps: deduplicated, compressed, encrypted.
#[derive(Debug, Parser)]
#[command(name = "icecore", version, arg_required_else_help = true)]
#[command(disable_help_subcommand = true, after_help = ENVIRONMENT)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const ENVIRONMENT: &str = "\
Environment:
  ICECORE_REPO                the repository, as -r
  ICECORE_PASSPHRASE          the passphrase itself
  ICECORE_PASSPHRASE_FILE     as --passphrase-file
  ICECORE_PASSPHRASE_COMMAND  as --passphrase-command
  ICECORE_NO_PASSPHRASE       1: as --no-passphrase
  ICECORE_TO_PASSPHRASE…      the same for the repository that 'copy' copies to
                              (ICECORE_TO_NO_PASSPHRASE too)
  ICECORE_CONFIG              as --config
  ICECORE_CACHE_DIR           directory of the index (default: /var/cache/icecore for root,
                              else $XDG_CACHE_HOME/icecore or ~/.cache/icecore)
  ICECORE_STATE_DIR           directory of state kept across runs (default: /var/lib/icecore for
                              root, else $XDG_STATE_HOME/icecore or ~/.local/state/icecore)

Exit codes:
  0 done                       5 alarm: a key file changed or is missing
  1 failed, nothing committed  10 no repository at this address
  2 bad usage                  11 wrong or no passphrase, or not the same repository as before
  3 done, but incomplete       12 the repository needs a newer icecore
  4 damage found               130 interrupted, nothing lost

Examples:
  icecore backup --init -r /mnt/backup/repo /etc home=/home
  icecore -r /mnt/backup/repo snapshots
  icecore -r /mnt/backup/repo restore latest:home /tmp/home";

/// Returns the definition of the command line.
fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the command that the command line names.
pub fn run(cli: &Cli) -> Result<Outcome, CliError> {
    commands::run(&cli.global, &cli.command, definition)
}

/// Parses the process's command line.
pub fn parse() -> Result<Cli, CliError> {
    parse_from(std::env::args_os()).map_err(CliError::Clap)
}

/// Returns true if the process's command line asks for JSON. Works also for a command line that
/// does not parse.
pub fn asks_for_json() -> bool {
    is_json_among(std::env::args_os().skip(1))
}

fn is_json_among(words: impl IntoIterator<Item = OsString>) -> bool {
    words
        .into_iter()
        .take_while(|word| word != "--")
        .any(|word| word == "--json")
}

fn parse_from(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = with_negative_numbers(definition());
    let mut matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|err| err.format(&mut command))
}

/// Lets options that take a quantity accept a value such as `-1h`, so that the error is about the
/// value. Otherwise clap would report an unknown option `-1`, with the advice to write `-- -1`.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    const QUANTITIES: [&str; 5] = ["N", "PERCENT", "SHARE", "SIZE", "SPAN"];
    let command = command.mut_args(|arg| {
        let is_quantity = arg
            .get_value_names()
            .is_some_and(|names| names.iter().any(|name| QUANTITIES.contains(&name.as_str())));
        if is_quantity {
            arg.allow_hyphen_values(true)
        } else {
            arg
        }
    });
    command.mut_subcommands(with_negative_numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Cli, clap::Error> {
        parse_from(words.iter().map(OsString::from))
    }

    fn code(words: &[&str]) -> i32 {
        parsed(words).map_or_else(|e| e.exit_code(), |_| -1)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_description_and_an_example() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("icecore"),
                "no example for {}",
                command.get_name()
            );
        }
    }

    #[test]
    fn global_options_stand_anywhere() {
        for words in [
            ["icecore", "-r", "x", "--json", "snapshots"],
            ["icecore", "snapshots", "--json", "-r", "x"],
        ] {
            let cli = Cli::try_parse_from(words).expect("good words");
            assert!(cli.global.json);
            assert_eq!(cli.global.repo, Some("x".into()));
        }
    }

    #[test]
    fn usage_errors_are_2_and_help_is_0() {
        assert_eq!(code(&["icecore", "nonsense"]), 2);
        assert_eq!(code(&["icecore", "ls"]), 2);
        assert_eq!(code(&["icecore", "-q", "-v", "snapshots"]), 2);
        assert_eq!(code(&["icecore", "backup", "a:b=/x"]), 2);
        assert_eq!(code(&["icecore", "--version"]), 0);
        assert_eq!(code(&["icecore", "restore", "--help"]), 0);
    }

    #[test]
    fn a_negative_quantity_is_a_bad_value_and_no_unknown_option() {
        for words in [
            ["icecore", "status", "--max-age", "-1h"],
            ["icecore", "forget", "--keep-within", "-30d"],
            ["icecore", "forget", "--keep-daily", "-2"],
            ["icecore", "backup", "--exclude-larger-than", "-1"],
            ["icecore", "backup", "--threads", "-1"],
            ["icecore", "init", "--parity", "-5"],
            ["icecore", "verify", "--sample", "-5%"],
        ] {
            let error = parsed(&words).expect_err("a quantity below 0").to_string();
            assert!(
                error.contains(words[2]) && error.contains("invalid value"),
                "{words:?}: {error}"
            );
            assert!(!error.contains("-- "), "{words:?}: {error}");
        }
        assert!(
            parsed(&["icecore", "forget", "--keep-daily", "-1"]).is_ok(),
            "as in restic: all"
        );
    }

    #[test]
    fn json_is_asked_for_wherever_it_stands_before_two_dashes() {
        let asks = |words: &[&str]| is_json_among(words.iter().map(OsString::from));
        assert!(asks(&["ls", "latest~1", "--json"]) && asks(&["--json", "nosuch"]));
        assert!(!asks(&["ls", "--", "--json"]) && !asks(&["ls"]));
    }
}
