//! The settings in effect and their origins, for display. No passphrase and no password is among
//! them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::{Config, SourceConfig, SourceKindConfig};
use crate::ccn::profile::{DatabaseServer, ServerAccess, SourceLocation};
use crate::ops::backup::BackupOptions;
use crate::ops::forget::{Period, PeriodSlots};
use crate::ops::prune::GRACE_DEFAULT;
use crate::source::{FilesFrom, FilterOptions, StreamCommand};
use crate::sys::masked;
use crate::types::{ByteSize, ChunkProfile};

/// The statements about the passphrase, of which one replaces all others.
const PASSPHRASE_KEYS: [&str; 4] = [
    "passphrase",
    "passphrase_file",
    "passphrase_command",
    "no_passphrase",
];

/// The origin of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingOrigin {
    /// An option of this call.
    Option,
    /// A variable of the environment.
    Environment,
    /// The configuration file.
    File,
    Default,
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Option => "option",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Default => "default",
        })
    }
}

/// The value of a setting. Sizes, spans and shares are text in the form of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum SettingValue {
    Flag(bool),
    Number(u64),
    Text(String),
    List(Vec<String>),
}

impl fmt::Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::List(list) => f.write_str(&list.join(", ")),
        }
    }
}

impl From<bool> for SettingValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<String> for SettingValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for SettingValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<PathBuf> for SettingValue {
    fn from(path: PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

impl From<&Path> for SettingValue {
    fn from(path: &Path) -> Self {
        Self::Text(path.to_string_lossy().into_owned())
    }
}

/// A setting that has a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveSetting {
    /// The key, with its table: `host`, `backup.level`. In a source, the key alone.
    pub key: &'static str,
    pub value: SettingValue,
    pub origin: SettingOrigin,
}

/// A source of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveSource {
    pub name: String,
    pub settings: Vec<EffectiveSetting>,
}

/// All settings in effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveConfig {
    /// The configuration file. `None` if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// In the order of the documentation.
    pub settings: Vec<EffectiveSetting>,
    /// In the order of the file.
    pub sources: Vec<EffectiveSource>,
}

impl EffectiveConfig {
    /// Returns the settings of a configuration. `outer` are those that the front end knows from
    /// options and from the environment, which replace the file's, and its defaults, which do not.
    pub fn new(config: &Config, outer: Vec<EffectiveSetting>) -> Self {
        let (defaults, replaced): (Vec<_>, Vec<_>) = outer
            .into_iter()
            .partition(|setting| setting.origin == SettingOrigin::Default);

        let mut settings = SettingList::new(config, replaced, defaults);
        settings.add_repository(config);
        settings.add_backup(config);
        settings.add_retention(config);
        settings.add_limits(config);
        settings.add_hooks(config);
        settings.add_node(config);

        let is_file = !config.file.as_os_str().is_empty();
        Self {
            file: is_file.then(|| config.file.to_string_lossy().into_owned()),
            settings: settings.list,
            sources: config
                .sources
                .iter()
                .map(|source| source_settings(config, source))
                .collect(),
        }
    }
}

/// The settings so far.
struct SettingList<'c> {
    config: &'c Config,
    replaced: Vec<EffectiveSetting>,
    defaults: Vec<EffectiveSetting>,
    /// The prefix of the keys in [`Config::given`].
    prefix: String,
    list: Vec<EffectiveSetting>,
}

impl<'c> SettingList<'c> {
    fn new(
        config: &'c Config,
        replaced: Vec<EffectiveSetting>,
        defaults: Vec<EffectiveSetting>,
    ) -> Self {
        Self {
            config,
            replaced,
            defaults,
            prefix: String::new(),
            list: Vec::new(),
        }
    }

    fn is_given(&self, key: &str) -> bool {
        self.config.given.contains(&format!("{}{key}", self.prefix))
    }

    /// Adds a setting: of an option or a variable, otherwise of the file, otherwise a default.
    fn add(&mut self, key: &'static str, value: Option<impl Into<SettingValue>>) {
        let named = |list: &[EffectiveSetting]| list.iter().find(|one| one.key == key).cloned();
        let origin = if self.is_given(key) {
            SettingOrigin::File
        } else {
            SettingOrigin::Default
        };
        let own = value.map(|value| EffectiveSetting {
            key,
            value: value.into(),
            origin,
        });
        let setting = named(&self.replaced)
            .or(own)
            .or_else(|| named(&self.defaults));
        self.list.extend(setting);
    }

    fn add_list(&mut self, key: &'static str, list: Vec<String>) {
        self.add(key, (!list.is_empty()).then_some(SettingValue::List(list)));
    }

    fn add_commands(&mut self, key: &'static str, commands: &[StreamCommand]) {
        self.add_list(key, commands.iter().map(StreamCommand::shown).collect());
    }

    fn add_number(&mut self, key: &'static str, number: Option<impl TryInto<u64>>) {
        let number = number.and_then(|number| number.try_into().ok());
        self.add(key, number.map(SettingValue::Number));
    }

    fn add_repository(&mut self, config: &Config) {
        let replaced = self.replaced.iter();
        let has_passphrase = replaced
            .clone()
            .any(|one| PASSPHRASE_KEYS.contains(&one.key));
        let address = config.repository.as_ref().map(|address| {
            let address = address.to_string_lossy().into_owned();
            masked(&[address]).concat()
        });
        // The file's statements are about its own repository.
        let is_other = address.is_some()
            && replaced
                .filter(|one| one.key == "repository")
                .any(|one| Some(one.value.to_string()) != address);

        self.add("repository", address);
        if !is_other {
            let ids = config.repository_ids.iter();
            self.add_list("repository_id", ids.map(ToString::to_string).collect());
        }

        let file = config.passphrase_file.as_deref();
        let command = config
            .passphrase_command
            .as_deref()
            .map(shown_passphrase_command);
        let none = (config.no_passphrase && !is_other).then_some(true);
        self.add("passphrase", None::<bool>);
        self.add("passphrase_file", file.filter(|_| !has_passphrase));
        self.add("passphrase_command", command.filter(|_| !has_passphrase));
        self.add("no_passphrase", none.filter(|_| !has_passphrase));
        self.add("cache_dir", config.cache_dir.as_deref());
        self.add("host", config.host.clone());
    }

    fn add_backup(&mut self, config: &Config) {
        let mut options = BackupOptions::new("", Vec::new());
        config.backup.apply(&mut options);
        self.add_list("backup.tags", options.tags);
        self.add_number("backup.level", Some(options.level));
        self.add("backup.memory", Some(size_text(options.memory)));
        self.add_number("backup.threads", config.backup.threads);
        let every = span_text(options.checkpoint_every);
        self.add("backup.checkpoint_every", Some(every));
    }

    fn add_retention(&mut self, config: &Config) {
        let policy = &config.retention;
        let slots = |period: Period| {
            let mut slots = policy.periods.iter().filter(|(of, _)| *of == period);
            slots.next().map(|&(_, slots)| slots_value(slots))
        };
        let span = |period: Period| {
            let mut spans = policy.periods_within.iter().filter(|(of, _)| *of == period);
            spans.next().map(|&(_, span)| span_text(span))
        };

        self.add("retention.keep_last", policy.last.map(slots_value));
        self.add("retention.keep_hourly", slots(Period::Hour));
        self.add("retention.keep_daily", slots(Period::Day));
        self.add("retention.keep_weekly", slots(Period::Week));
        self.add("retention.keep_monthly", slots(Period::Month));
        self.add("retention.keep_yearly", slots(Period::Year));
        self.add("retention.keep_within", policy.within.map(span_text));
        self.add("retention.keep_within_hourly", span(Period::Hour));
        self.add("retention.keep_within_daily", span(Period::Day));
        self.add("retention.keep_within_weekly", span(Period::Week));
        self.add("retention.keep_within_monthly", span(Period::Month));
        self.add("retention.keep_within_yearly", span(Period::Year));
        self.add_list("retention.keep_tags", policy.tags.clone());
    }

    /// Adds `[prune]` and `[verify]`.
    fn add_limits(&mut self, config: &Config) {
        let prune = &config.prune;
        let grace = prune.grace.unwrap_or(GRACE_DEFAULT);
        self.add("prune.grace", Some(span_text(grace)));
        self.add("prune.max_repack", prune.max_repack.map(size_text));
        self.add("prune.max_time", prune.max_time.map(span_text));

        let verify = &config.verify;
        self.add("verify.read_data", Some(verify.read_data));
        self.add("verify.sample", verify.sample.map(share_text));
        self.add("verify.max_time", verify.max_time.map(span_text));
        self.add("verify.max_bytes", verify.max_bytes.map(size_text));
    }

    fn add_hooks(&mut self, config: &Config) {
        self.add_commands("hooks.before", &config.hooks.before);
        self.add_commands("hooks.after", &config.hooks.after);
        self.add_commands("hooks.on_failure", &config.hooks.on_failure);
    }

    fn add_node(&mut self, config: &Config) {
        let node = &config.node;
        let database = node.database.as_ref().map(|part| part.source.clone());
        let part = |part: &Option<crate::ccn::profile::NodeSource>| {
            part.as_ref().map(|part| part.source.clone())
        };
        self.add("node.database", database);
        self.add("node.local_storage", part(&node.local_storage));
        self.add("node.ipfs", part(&node.ipfs));
        self.add("node.keys", part(&node.keys));
        self.add("node.config", part(&node.config));
        self.add("node.project", node.project.clone());
        self.add_list("node.writers", node.writers.clone());
    }

    fn add_tree(&mut self, filter: &FilterOptions, only: Option<&FilesFrom>) {
        let excludes = filter.excludes.iter();
        self.add_list(
            "exclude",
            excludes
                .map(|pattern| pattern.to_string_lossy().into_owned())
                .collect(),
        );
        self.add("exclude_caches", Some(filter.exclude_caches));
        let largest = filter.exclude_larger_than.map(ByteSize);
        self.add("exclude_larger_than", largest.map(size_text));
        self.add("one_file_system", Some(filter.one_file_system));
        let only = only.into_iter().flat_map(FilesFrom::paths);
        self.add_list("only", only.map(|path| path.to_string()).collect());
    }

    fn add_server(&mut self, server: &DatabaseServer) {
        match &server.access {
            ServerAccess::Docker { container } => self.add("container", Some(container.as_str())),
            ServerAccess::Direct {
                address,
                port,
                password_file,
            } => {
                self.add("address", address.clone());
                self.add_number("port", *port);
                self.add("password_file", password_file.as_deref());
            }
        }
        self.add("user", server.user.clone());
    }
}

/// Returns the settings of a source.
fn source_settings(config: &Config, source: &SourceConfig) -> EffectiveSource {
    let mut settings = SettingList::new(config, Vec::new(), Vec::new());
    settings.prefix = format!("source.{}.", source.name);
    match &source.capture {
        SourceKindConfig::Tree {
            place,
            immutable,
            unchanged,
            not_older_than,
            filter,
            only,
        } => {
            settings.add("kind", Some("tree"));
            match place {
                SourceLocation::Path(path) => settings.add("path", Some(path.as_path())),
                SourceLocation::Volume(volume) => settings.add("volume", Some(volume.as_str())),
            }
            settings.add("immutable", Some(*immutable));
            settings.add("unchanged", unchanged.then_some("alarm"));
            settings.add("not_older_than", not_older_than.clone());
            settings.add_tree(filter, only.as_ref());
        }
        SourceKindConfig::Command {
            command,
            ends_with,
            smallest,
            profile,
        } => {
            settings.add("kind", Some("command"));
            settings.add("command", Some(command.shown()));
            settings.add("ends_with", ends_with.clone());
            let smallest = smallest.unwrap_or(crate::ops::backup::SMALLEST_STREAM);
            settings.add("smallest", Some(share_text(smallest)));
            settings.add("chunk", Some(chunk_text(*profile)));
        }
        SourceKindConfig::Postgres { server, smallest } => {
            settings.add("kind", Some("postgresql"));
            settings.add_server(server);
            settings.add("smallest", Some(share_text(*smallest)));
        }
    }
    settings.add_commands("before", &source.before);
    settings.add_commands("after", &source.after);
    EffectiveSource {
        name: source.name.clone(),
        settings: settings.list,
    }
}

/// Returns the program of a command that prints the passphrase. Its arguments can be the passphrase,
/// as in `echo`.
pub fn shown_passphrase_command(command: &str) -> String {
    match shell_words::split(command).as_deref() {
        Ok([program]) => program.clone(),
        Ok([program, ..]) => format!("{program} …"),
        _ => "…".to_owned(),
    }
}

fn slots_value(slots: PeriodSlots) -> SettingValue {
    match slots {
        PeriodSlots::All => SettingValue::Text("all".to_owned()),
        PeriodSlots::Some(slots) => SettingValue::Number(u64::from(slots)),
    }
}

fn chunk_text(profile: ChunkProfile) -> &'static str {
    match profile {
        ChunkProfile::Dump => "2KiB",
        _ => "8KiB",
    }
}

/// Writes a span in the largest unit that divides it.
fn span_text(span: Duration) -> String {
    let seconds = span.as_secs();
    let units = [("d", 86_400), ("h", 3600), ("min", 60)];
    let mut units = units
        .into_iter()
        .filter(|(_, unit)| seconds.is_multiple_of(*unit));
    match units.next().filter(|_| seconds > 0) {
        Some((name, unit)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// Writes a size in the largest unit that divides it.
fn size_text(size: ByteSize) -> String {
    let units = [
        ("TiB", 1_u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    let mut units = units
        .into_iter()
        .filter(|(_, unit)| size.0.is_multiple_of(*unit));
    match units.next().filter(|_| size.0 > 0) {
        Some((name, unit)) => format!("{}{name}", size.0 / unit),
        None => size.0.to_string(),
    }
}

/// Writes a share in percent, with up to four decimals.
fn share_text(share: f64) -> String {
    let percent = format!("{:.4}", share * 100.0);
    let percent = percent.trim_end_matches('0').trim_end_matches('.');
    format!("{percent}%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::parse;

    #[test]
    fn values_are_shown_as_the_file_has_them() {
        for (text, shown) in [
            ("0s", "0s"),
            ("90s", "90s"),
            ("1h30min", "90min"),
            ("1w", "7d"),
        ] {
            let span = parse::duration(text).expect("a span");
            assert_eq!(span_text(span), shown);
            assert_eq!(parse::duration(shown), Ok(span));
        }
        for (text, shown) in [
            ("0", "0"),
            ("1000", "1000"),
            ("1.5G", "1536MiB"),
            ("1T", "1TiB"),
        ] {
            let size: ByteSize = text.parse().expect("a size");
            assert_eq!(size_text(size), shown);
            assert_eq!(shown.parse(), Ok(size));
        }
        for text in ["7%", "0.5%", "100%", "33.3%"] {
            assert_eq!(share_text(parse::percentage(text).expect("a share")), text);
        }
    }

    #[test]
    fn the_arguments_of_a_passphrase_command_are_not_shown() {
        assert_eq!(shown_passphrase_command("echo hunter2"), "echo …");
        assert_eq!(shown_passphrase_command("get-passphrase"), "get-passphrase");
        assert_eq!(shown_passphrase_command("echo 'hunter2"), "…");
    }
}
