//! `icecore config`

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use icecore::jobs::config::{
    EffectiveConfig, EffectiveSetting, SettingOrigin, SettingValue, shown_passphrase_command,
};
use icecore::store::StoreLocation;
use icecore::sys::{host_name, masked};
use serde::Serialize;

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::text;

/// Show the settings of icecore.toml
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore config show
  icecore --config /etc/icecore/web.toml config show --json")]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show the settings in effect, and where each comes from
    ///
    /// Checks icecore.toml, and prints every setting that has a value: of an option, of the
    /// environment, of the file, or the default. Paths are complete. A passphrase, a password and the
    /// arguments of a passphrase command are not printed. Nothing is opened: neither the repository
    /// nor the files that the settings name.
    #[command(after_help = "Examples:
  icecore config show
  icecore config show --json
  icecore -r /mnt/backup/repo --config node.toml config show")]
    Show,
}

/// The settings as JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename = "config")]
struct ConfigRecord<'a> {
    #[serde(flatten)]
    config: &'a EffectiveConfig,
}

pub fn run(context: &Context<'_>, args: &ConfigArgs) -> Result<Outcome, CliError> {
    match args.action {
        ConfigCommand::Show => show(context),
    }
}

fn show(context: &Context<'_>) -> Result<Outcome, CliError> {
    let mut outer = given_settings(context)?;
    outer.extend(default_settings(context));
    let config = EffectiveConfig::new(context.config()?, outer);

    let mut out = context.ui.data()?;
    if context.ui.json {
        out.object(&ConfigRecord { config: &config })?;
    } else {
        for line in lines(&config) {
            out.line(line)?;
        }
    }
    out.finish()?;
    Ok(Outcome::Done)
}

fn setting(
    key: &'static str,
    value: impl Into<SettingValue>,
    origin: SettingOrigin,
) -> EffectiveSetting {
    EffectiveSetting {
        key,
        value: value.into(),
        origin,
    }
}

/// Returns the settings of options and of the environment.
fn given_settings(context: &Context<'_>) -> Result<Vec<EffectiveSetting>, CliError> {
    let mut settings = Vec::new();
    let option = context.global.repo.as_ref();
    let variable = context.env.repo.as_ref();
    let address = option
        .map(|address| (address, SettingOrigin::Option))
        .or_else(|| variable.map(|address| (address, SettingOrigin::Environment)));
    if let Some((address, origin)) = address {
        settings.push(setting("repository", shown_address(address), origin));
    }

    settings.extend(passphrase_statement(context)?);

    if let Some(directory) = &context.env.cache_dir {
        let directory = full_path(directory);
        settings.push(setting("cache_dir", directory, SettingOrigin::Environment));
    }
    Ok(settings)
}

/// Returns the first statement about the passphrase, in the order in which a command looks for one.
fn passphrase_statement(context: &Context<'_>) -> Result<Option<EffectiveSetting>, CliError> {
    use SettingOrigin::{Environment, Option};
    let (global, env) = (context.global, &context.env);
    let from_file = |file: &PathBuf, origin| setting("passphrase_file", full_path(file), origin);
    let from_command = |command: &String, origin| {
        setting(
            "passphrase_command",
            shown_passphrase_command(command),
            origin,
        )
    };

    Ok(if let Some(file) = &global.passphrase_file {
        Some(from_file(file, Option))
    } else if let Some(command) = &global.passphrase_command {
        Some(from_command(command, Option))
    } else if env.passphrase.is_some() {
        Some(setting("passphrase", "***", Environment))
    } else if let Some(file) = &env.passphrase_file {
        Some(from_file(file, Environment))
    } else if let Some(command) = &env.passphrase_command {
        Some(from_command(command, Environment))
    } else if global.no_passphrase {
        Some(setting("no_passphrase", true, Option))
    } else if env.no_passphrase()? {
        Some(setting("no_passphrase", true, Environment))
    } else {
        None
    })
}

/// Returns a repository's address without a password, and a path in full.
fn shown_address(address: &OsStr) -> String {
    let address = parse::address(address).unwrap_or_else(|_| address.to_owned());
    let address = match StoreLocation::parse(&address) {
        Ok(StoreLocation::Local(path)) => full_path(&path).into_os_string(),
        _ => address,
    };
    masked(&[address.to_string_lossy().into_owned()]).concat()
}

fn full_path(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns the defaults that depend on this machine and its user.
fn default_settings(context: &Context<'_>) -> Vec<EffectiveSetting> {
    let default = |key, value: SettingValue| setting(key, value, SettingOrigin::Default);
    let cache = context.env.cache_root();
    let cache = cache.map(|directory| default("cache_dir", directory.into()));
    let host = Some(host_name()).filter(|host| !host.is_empty());
    let host = host.map(|host| default("host", host.into()));
    cache.into_iter().chain(host).collect()
}

fn lines(config: &EffectiveConfig) -> Vec<String> {
    let file = config.file.as_deref().unwrap_or("none");
    let mut lines = vec![format!("configuration file: {}", text::clean(file))];

    let mut table = text::Table::new(&["SETTING", "ORIGIN", "VALUE"]);
    let row = |key: String, setting: &EffectiveSetting| {
        [key, setting.origin.to_string(), setting.value.to_string()]
    };
    for setting in &config.settings {
        table.row(row(setting.key.to_owned(), setting));
    }
    for source in &config.sources {
        for setting in &source.settings {
            table.row(row(
                format!("source '{}' {}", source.name, setting.key),
                setting,
            ));
        }
    }
    lines.extend(table.lines());
    lines
}
