//! `icecore.toml`: settings that the command line need not repeat each time. It is read strictly:
//! an unknown key is an error.

mod load;
mod section;
mod sources;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use crate::ccn::profile::NodeLayout;
use crate::jobs::parse;
use crate::ops::forget::{Period, PeriodSlots, Policy};
use crate::source::StreamCommand;
use crate::types::{ByteSize, RepoId};
pub use load::ConfigFileError;
pub use section::ConfigError;
use section::{ConfigSection, ConfigText};
pub use sources::{SourceConfig, SourceKindConfig};

/// The contents of a configuration file. A setting that is not in the file is `None` or empty.
#[derive(Debug, Default)]
pub struct Config {
    /// The path of the file.
    pub file: PathBuf,
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
#[derive(Debug, Default)]
pub struct BackupSettings {
    pub tags: Vec<String>,
    pub level: Option<i32>,
    pub memory: Option<ByteSize>,
    pub threads: Option<u16>,
    pub checkpoint_every: Option<Duration>,
}

/// `[prune]`
#[derive(Debug, Default)]
pub struct PruneSettings {
    pub grace: Option<Duration>,
    pub max_repack: Option<ByteSize>,
    pub max_time: Option<Duration>,
}

/// `[verify]`
#[derive(Debug, Default)]
pub struct VerifySettings {
    pub read_data: bool,
    pub sample: Option<f64>,
    pub max_time: Option<Duration>,
    pub max_bytes: Option<ByteSize>,
}

/// `[hooks]`: commands around a whole backup.
#[derive(Debug, Default)]
pub struct HookSettings {
    pub before: Vec<StreamCommand>,
    pub after: Vec<StreamCommand>,
    pub on_failure: Vec<StreamCommand>,
}

impl Config {
    /// Parses the text of a configuration file. `home`: the home directory, for `~/`.
    pub fn parse(file: &Path, text: &str, home: Option<&Path>) -> Result<Self, ConfigError> {
        let text = ConfigText { file, text, home };
        let table = DeTable::parse(text.text)
            .map_err(|err| text.error(&err.span().unwrap_or_default(), "", err.message()))?;
        let top = ConfigSection::top(&text, &table);

        let mut config = Self {
            file: file.to_owned(),
            repository: repository(&top)?,
            repository_ids: repository_ids(&top)?,
            passphrase_file: top.path("passphrase_file")?,
            passphrase_command: top.text("passphrase_command")?,
            no_passphrase: top.flag("no_passphrase")?,
            cache_dir: top.path("cache_dir")?,
            host: top.parsed("host", parse::host)?,
            ..Self::default()
        };

        if config.passphrase_file.is_some() && config.passphrase_command.is_some() {
            return Err(top.error(
                "passphrase_command",
                "it cannot be combined with passphrase_file",
            ));
        }
        if config.no_passphrase
            && (config.passphrase_file.is_some() || config.passphrase_command.is_some())
        {
            return Err(top.error(
                "no_passphrase",
                "it cannot be combined with passphrase_file or passphrase_command",
            ));
        }

        config.backup = top
            .section("backup")?
            .map(|s| backup(&s))
            .transpose()?
            .unwrap_or_default();
        config.sources = sources::sources(&top)?;
        config.retention = top
            .section("retention")?
            .map(|s| retention(&s))
            .transpose()?
            .unwrap_or_default();
        config.prune = top
            .section("prune")?
            .map(|s| prune(&s))
            .transpose()?
            .unwrap_or_default();
        config.verify = top
            .section("verify")?
            .map(|s| verify(&s))
            .transpose()?
            .unwrap_or_default();
        config.hooks = top
            .section("hooks")?
            .map(|s| hooks(&s))
            .transpose()?
            .unwrap_or_default();

        if let Some(node) = top.section("node")? {
            config.node = sources::profile(&node, &config.sources)?;
        }

        top.finish()?;
        Ok(config)
    }
}

/// Reads the repository's address. A relative path starts at the file's directory, like all paths
/// of the file.
fn repository(top: &ConfigSection<'_>) -> Result<Option<OsString>, ConfigError> {
    let address = top.parsed("repository", |text| match text {
        "" => Err("empty address".to_owned()),
        // `sftp://…`, `s3://…`, `user@host:/path`
        _ if text.contains(':') && !text.starts_with(['~', '$']) => Ok(OsString::from(text)),
        _ => Ok(top
            .text
            .directory()
            .join(parse::path(text.as_ref(), top.text.home)?)
            .into_os_string()),
    })?;
    Ok(address)
}

/// Reads the ids that are accepted: one, or those of media that take turns at the address.
fn repository_ids(top: &ConfigSection<'_>) -> Result<Vec<RepoId>, ConfigError> {
    let ids = top
        .texts("repository_id")?
        .into_iter()
        .map(|text| parse::repository_id(&text));
    ids.collect::<Result<_, _>>()
        .map_err(|why| top.error("repository_id", why))
}

fn tags(section: &ConfigSection<'_>, key: &'static str) -> Result<Vec<String>, ConfigError> {
    let tags = section
        .texts(key)?
        .into_iter()
        .map(|text| parse::tag(&text));
    tags.collect::<Result<_, _>>()
        .map_err(|why| section.error(key, why))
}

fn size(text: &str) -> Result<ByteSize, String> {
    text.parse()
}

fn backup(section: &ConfigSection<'_>) -> Result<BackupSettings, ConfigError> {
    let checkpoint_every = section.parsed("checkpoint_every", parse::duration)?;
    if checkpoint_every.is_some_and(|every| every.is_zero()) {
        return Err(section.error("checkpoint_every", "it must be greater than 0"));
    }
    let backup = BackupSettings {
        tags: tags(section, "tags")?,
        level: section.number("level", 1..=19)?.map(|n| n as i32),
        memory: section.parsed("memory", parse::memory)?,
        threads: section.number("threads", 1..=1024)?.map(|n| n as u16),
        checkpoint_every,
    };
    section.finish()?;
    Ok(backup)
}

fn retention(section: &ConfigSection<'_>) -> Result<Policy, ConfigError> {
    let slots = |key| {
        let slots = section.number_or_text(key, parse::slots)?;
        Ok(slots.filter(|&slots| slots != PeriodSlots::Some(0)))
    };
    let span = |key| {
        let span = section.parsed(key, parse::retention_span)?;
        Ok(span.filter(|span| !span.is_zero()))
    };

    let counted = [
        "keep_hourly",
        "keep_daily",
        "keep_weekly",
        "keep_monthly",
        "keep_yearly",
    ];
    let timed = [
        "keep_within_hourly",
        "keep_within_daily",
        "keep_within_weekly",
        "keep_within_monthly",
        "keep_within_yearly",
    ];

    let mut policy = Policy {
        last: slots("keep_last")?,
        within: span("keep_within")?,
        ..Policy::default()
    };

    for (period, (counted, timed)) in Period::ALL.into_iter().zip(counted.into_iter().zip(timed)) {
        policy
            .periods
            .extend(slots(counted)?.map(|slots| (period, slots)));
        policy
            .periods_within
            .extend(span(timed)?.map(|span| (period, span)));
    }

    policy.tags = tags(section, "keep_tags")?;
    section.finish()?;
    Ok(policy)
}

fn prune(section: &ConfigSection<'_>) -> Result<PruneSettings, ConfigError> {
    let prune = PruneSettings {
        grace: section.parsed("grace", parse::duration)?,
        max_repack: section.parsed("max_repack", size)?,
        max_time: section.parsed("max_time", parse::duration)?,
    };
    section.finish()?;
    Ok(prune)
}

fn verify(section: &ConfigSection<'_>) -> Result<VerifySettings, ConfigError> {
    let verify = VerifySettings {
        read_data: section.flag("read_data")?,
        sample: section.parsed("sample", parse::percentage)?,
        max_time: section.parsed("max_time", parse::some_time)?,
        max_bytes: section.parsed("max_bytes", parse::some_size)?,
    };
    section.finish()?;
    Ok(verify)
}

fn hooks(section: &ConfigSection<'_>) -> Result<HookSettings, ConfigError> {
    let hooks = HookSettings {
        before: section.commands("before")?,
        after: section.commands("after")?,
        on_failure: section.commands("on_failure")?,
    };
    section.finish()?;
    Ok(hooks)
}
