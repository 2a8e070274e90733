//! `icecore.toml`: settings that the command line need not repeat each time. It is read strictly:
//! an unknown key is an error.

mod effective;
mod error;
mod load;
mod retention;
mod sources;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use self::error::ConfigText;
use self::retention::RetentionTable;
use self::sources::{NodeTable, SourceHead};
use self::value::{FlagValue, QuotedText};
use crate::ccn::profile::NodeLayout;
use crate::ops::backup::BackupOptions;
use crate::ops::forget::Policy;
use crate::source::StreamCommand;
use crate::types::{ByteSize, RepoId};
pub use effective::{
    EffectiveConfig, EffectiveSetting, EffectiveSource, SettingOrigin, SettingValue,
    shown_passphrase_command,
};
pub use error::ConfigError;
pub use load::ConfigFileError;
pub use sources::{SourceConfig, SourceKindConfig};

/// The contents of a configuration file. A setting that is not in the file is `None` or empty.
#[derive(Debug, Default)]
pub struct Config {
    /// The path of the file. Empty if there is no file.
    pub file: PathBuf,
    /// The keys that are in the file: `host`, `backup.level`, `source.NAME.kind`.
    pub given: BTreeSet<String>,
    pub repository: Option<OsString>,
    /// The repositories that the address may hold. Empty: any.
    pub repository_ids: Vec<RepoId>,
    pub passphrase_file: Option<PathBuf>,
    pub passphrase_command: Option<String>,
    /// The repository has no passphrase.
    pub no_passphrase: bool,
    pub cache_dir: Option<PathBuf>,
    /// The host name of snapshots.
    pub host: Option<String>,
    pub backup: BackupSettings,
    pub sources: Vec<SourceConfig>,
    pub retention: Policy,
    pub prune: PruneSettings,
    pub verify: VerifySettings,
    pub hooks: HookSettings,
    pub node: NodeLayout,
}

/// `[backup]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct BackupSettings {
    #[serde(deserialize_with = "value::tags")]
    pub tags: Vec<String>,
    #[serde(deserialize_with = "value::level")]
    pub level: Option<i32>,
    #[serde(deserialize_with = "value::memory")]
    pub memory: Option<ByteSize>,
    #[serde(deserialize_with = "value::threads")]
    pub threads: Option<u16>,
    #[serde(deserialize_with = "value::some_time")]
    pub checkpoint_every: Option<Duration>,
}

impl BackupSettings {
    /// Applies the settings to the options of a backup.
    pub fn apply(&self, options: &mut BackupOptions) {
        options.tags.clone_from(&self.tags);
        options.level = self.level.unwrap_or(options.level);
        options.memory = self.memory.unwrap_or(options.memory);
        options.threads = self.threads.map(usize::from);
        options.checkpoint_every = self.checkpoint_every.unwrap_or(options.checkpoint_every);
    }
}

/// `[prune]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct PruneSettings {
    #[serde(deserialize_with = "value::duration")]
    pub grace: Option<Duration>,
    #[serde(deserialize_with = "value::size")]
    pub max_repack: Option<ByteSize>,
    #[serde(deserialize_with = "value::duration")]
    pub max_time: Option<Duration>,
}

/// `[verify]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct VerifySettings {
    #[serde(deserialize_with = "value::flag")]
    pub read_data: bool,
    #[serde(deserialize_with = "value::percentage")]
    pub sample: Option<f64>,
    #[serde(deserialize_with = "value::some_time")]
    pub max_time: Option<Duration>,
    #[serde(deserialize_with = "value::some_size")]
    pub max_bytes: Option<ByteSize>,
}

/// `[hooks]`: commands around a whole backup.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct HookSettings {
    #[serde(deserialize_with = "value::commands")]
    pub before: Vec<StreamCommand>,
    #[serde(deserialize_with = "value::commands")]
    pub after: Vec<StreamCommand>,
    #[serde(deserialize_with = "value::commands")]
    pub on_failure: Vec<StreamCommand>,
}

/// The tables of the file as serde reads them. A check that needs more than one value follows.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
struct ConfigFile {
    repository: Option<Spanned<QuotedText>>,
    #[serde(deserialize_with = "value::repository_ids")]
    repository_id: Vec<RepoId>,
    passphrase_file: Option<Spanned<QuotedText>>,
    passphrase_command: Option<Spanned<QuotedText>>,
    no_passphrase: Option<Spanned<FlagValue>>,
    cache_dir: Option<Spanned<QuotedText>>,
    #[serde(deserialize_with = "value::host")]
    host: Option<String>,
    backup: BackupSettings,
    /// Only the names and the kinds: the other keys depend on the kind.
    #[serde(deserialize_with = "value::sources")]
    source: Vec<Spanned<SourceHead>>,
    retention: RetentionTable,
    prune: PruneSettings,
    verify: VerifySettings,
    hooks: HookSettings,
    node: NodeTable,
}

impl Config {
    /// Parses the text of a configuration file. `home`: the home directory, for `~/`.
    pub fn parse(file: &Path, text: &str, home: Option<&Path>) -> Result<Self, ConfigError> {
        let text = ConfigText::parse(file, text, home)?;
        let read = ConfigFile::deserialize(toml::Deserializer::from(text.table.clone()))
            .map_err(|err| text.serde_error(&err))?;
        check_passphrase(&text, &read)?;
        let sources = sources::sources(&text, &read.source)?;

        Ok(Self {
            file: file.to_owned(),
            given: given_keys(text.table.get_ref()),
            repository: repository(&text, read.repository.as_ref())?,
            repository_ids: read.repository_id,
            passphrase_file: text.optional_path(read.passphrase_file.as_ref())?,
            passphrase_command: read.passphrase_command.map(|text| text.into_inner().0),
            no_passphrase: read.no_passphrase.is_some_and(|flag| flag.into_inner().0),
            cache_dir: text.optional_path(read.cache_dir.as_ref())?,
            host: read.host,
            backup: read.backup,
            retention: read.retention.policy(),
            prune: read.prune,
            verify: read.verify,
            hooks: read.hooks,
            node: read.node.layout(&text, &sources)?,
            sources,
        })
    }
}

/// Returns the keys of a file, each with its table.
fn given_keys(file: &DeTable<'_>) -> BTreeSet<String> {
    let mut given = BTreeSet::new();
    for (section, value) in file {
        let section = section.get_ref();
        match value.get_ref() {
            DeValue::Table(table) => {
                given.extend(
                    table
                        .keys()
                        .map(|key| format!("{section}.{}", key.get_ref())),
                );
            }
            DeValue::Array(list) => {
                for table in list.iter().filter_map(|one| one.get_ref().as_table()) {
                    let name = table.get("name").and_then(|name| name.get_ref().as_str());
                    let name = name.unwrap_or_default();
                    let keys = table.keys().map(Spanned::get_ref);
                    given.extend(keys.map(|key| format!("{section}.{name}.{key}")));
                }
                given.insert(section.to_string());
            }
            _ => {
                given.insert(section.to_string());
            }
        }
    }
    given
}

/// Refuses several statements about the passphrase.
fn check_passphrase(text: &ConfigText<'_>, read: &ConfigFile) -> Result<(), ConfigError> {
    if let (Some(_), Some(command)) = (&read.passphrase_file, &read.passphrase_command) {
        let why = "it cannot be combined with passphrase_file";
        return Err(text.error(&command.span(), why));
    }
    let is_given = read.passphrase_file.is_some() || read.passphrase_command.is_some();
    match &read.no_passphrase {
        Some(none) if none.get_ref().0 && is_given => {
            let why = "it cannot be combined with passphrase_file or passphrase_command";
            Err(text.error(&none.span(), why))
        }
        _ => Ok(()),
    }
}

/// Returns the repository's address. A relative path starts at the file's directory, like all paths
/// of the file.
fn repository(
    text: &ConfigText<'_>,
    address: Option<&Spanned<QuotedText>>,
) -> Result<Option<OsString>, ConfigError> {
    let Some(address) = address else {
        return Ok(None);
    };
    match address.get_ref().0.as_str() {
        "" => Err(text.error(&address.span(), "empty address")),
        // `sftp://…`, `s3://…`, `user@host:/path`
        remote if remote.contains(':') && !remote.starts_with(['~', '$']) => {
            Ok(Some(OsString::from(remote)))
        }
        _ => Ok(Some(text.path(address)?.into_os_string())),
    }
}
