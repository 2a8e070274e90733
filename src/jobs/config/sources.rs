//! `[[source]]` and `[node]`: the sources to capture, and their roles in a node.

use super::section::{ConfigError, ConfigSection};
use crate::ccn::profile::{
    DatabaseServer, NodeDatabase, NodeLayout, NodeSource, ServerAccess, SourceLocation,
};
use crate::jobs::parse;
use crate::source::{FilesFrom, Filter, FilterOptions, StreamCommand};
use crate::types::ChunkProfile as Cutting;

/// A dump smaller than this share of the last good one is suspect.
const SMALLEST_DEFAULT: f64 = 0.5;

/// One `[[source]]`.
#[derive(Debug)]
pub struct SourceConfig {
    pub name: String,
    pub capture: SourceKindConfig,
    /// Commands that run before and after the source is captured.
    pub before: Vec<StreamCommand>,
    pub after: Vec<StreamCommand>,
}

/// How a source is captured.
#[derive(Debug)]
pub enum SourceKindConfig {
    Tree {
        place: SourceLocation,
        immutable: bool,
        /// A file that changed or is gone is an alarm.
        unchanged: bool,
        filter: FilterOptions,
        only: Option<FilesFrom>,
    },
    Command {
        command: StreamCommand,
        /// A line without which the stream is incomplete. It must be near the end of the stream.
        ends_with: Option<String>,
        /// Share of the last good stream's size below which this one is suspect; 0: never. `None`:
        /// the default of streams.
        smallest: Option<f64>,
        profile: Cutting,
    },
    Postgres {
        server: DatabaseServer,
        smallest: f64,
    },
}

/// Reads all sources, in their order.
pub fn sources(top: &ConfigSection<'_>) -> Result<Vec<SourceConfig>, ConfigError> {
    let mut sources: Vec<SourceConfig> = Vec::new();
    for mut section in top.sections("source")? {
        let name = section.needed("name")?;
        let name = parse::source_name(&name).map_err(|why| section.error("name", why))?;
        if sources.iter().any(|source| source.name == name) {
            return Err(section.error("name", format!("duplicate source name '{name}'")));
        }
        section.title = format!("source '{name}'");
        let before = section.commands("before")?;
        let after = section.commands("after")?;

        let kind = section.text("kind")?;
        let kind = kind.ok_or_else(|| {
            section.error("kind", format!("this key is missing: it is one of {KINDS}"))
        })?;
        let capture = match kind.as_str() {
            "tree" => tree(&section, &sources)?,
            "command" => command(&section)?,
            "postgresql" => SourceKindConfig::Postgres {
                server: server(&section)?,
                smallest: smallest(&section)?,
            },
            other => {
                let why = format!("'{other}' is not one of {KINDS}");
                return Err(section.error("kind", why));
            }
        };

        section.finish()?;
        sources.push(SourceConfig {
            name,
            capture,
            before,
            after,
        });
    }
    Ok(sources)
}

/// The kinds of sources, for messages.
const KINDS: &str = "\"tree\", \"command\", \"postgresql\"";

fn tree(
    section: &ConfigSection<'_>,
    earlier: &[SourceConfig],
) -> Result<SourceKindConfig, ConfigError> {
    let place = match (section.path("path")?, section.text("volume")?) {
        (Some(path), None) => SourceLocation::Path(path),
        (None, Some(volume)) if !volume.is_empty() => SourceLocation::Volume(volume),
        (Some(_), Some(_)) => {
            return Err(section.error("volume", "it cannot be combined with 'path'"));
        }
        _ => return Err(section.error("path", "a tree needs a 'path' or a 'volume'")),
    };

    if let Some(database) = section.text("not_older_than")? {
        // The order of capture makes this true: a scan that starts after the dump has ended sees
        // every file of the dump's rows.
        if !earlier.iter().any(|source| source.name == database) {
            let why =
                format!("no source '{database}' precedes this one; sources are captured in order");
            return Err(section.error("not_older_than", why));
        }
    }

    let unchanged = match section.text("unchanged")?.as_deref() {
        None => false,
        Some("alarm") => true,
        Some(other) => {
            return Err(section.error(
                "unchanged",
                format!("unknown value '{other}'; the only one is \"alarm\""),
            ));
        }
    };

    let filter = FilterOptions {
        excludes: section
            .texts("exclude")?
            .into_iter()
            .map(Into::into)
            .collect(),
        exclude_caches: section.flag("exclude_caches")?,
        exclude_larger_than: section
            .parsed("exclude_larger_than", parse::some_size)?
            .map(|size| size.0),
        one_file_system: section.flag("one_file_system")?,
        ..FilterOptions::default()
    };
    Filter::new(&filter).map_err(|why| section.error("exclude", why))?;

    let only = section.texts("only")?;
    let only = if only.is_empty() {
        if section.has("only") {
            return Err(section.error(
                "only",
                "it names no path, so nothing would be captured; remove it to capture all",
            ));
        }
        None
    } else {
        // A NUL after each path, so that a single one is taken literally too.
        let list: String = only
            .into_iter()
            .flat_map(|path| [path, "\0".to_owned()])
            .collect();
        Some(FilesFrom::parse(list.as_bytes()).map_err(|why| section.error("only", why))?)
    };

    Ok(SourceKindConfig::Tree {
        place,
        immutable: section.flag("immutable")?,
        unchanged,
        filter,
        only,
    })
}

fn command(section: &ConfigSection<'_>) -> Result<SourceKindConfig, ConfigError> {
    section.needed("command")?;
    let command = section.parsed("command", |text| {
        StreamCommand::parse(text).map_err(|e| e.to_string())
    })?;
    let command = command.ok_or_else(|| section.error("command", "this key is missing"))?;
    let smallest = section
        .has("smallest")
        .then(|| smallest(section))
        .transpose()?;
    let profile = section.parsed("chunk", |text| match text {
        "2KiB" => Ok(Cutting::Dump),
        "8KiB" => Ok(Cutting::Stream),
        _ => Err(format!(
            "'{text}' is neither \"8KiB\" nor \"2KiB\" (for dumps in which scattered rows change)"
        )),
    })?;
    let profile = profile.unwrap_or(Cutting::Stream);
    Ok(SourceKindConfig::Command {
        command,
        ends_with: section.text("ends_with")?,
        smallest,
        profile,
    })
}

fn server(section: &ConfigSection<'_>) -> Result<DatabaseServer, ConfigError> {
    let container = section.text("container")?;
    let address = section.text("address")?;
    let port = section.number("port", 1..=65535)?.map(|port| port as u16);
    let password_file = section.path("password_file")?;
    let access = match container {
        Some(container) => {
            for (key, is_there) in [
                ("address", address.is_some()),
                ("port", port.is_some()),
                ("password_file", password_file.is_some()),
            ] {
                if is_there {
                    return Err(section.error(key, "it cannot be combined with 'container'"));
                }
            }
            ServerAccess::Docker { container }
        }
        None => ServerAccess::Direct {
            address,
            port,
            password_file,
        },
    };
    Ok(DatabaseServer {
        access,
        user: section.text("user")?,
    })
}

fn smallest(section: &ConfigSection<'_>) -> Result<f64, ConfigError> {
    let share = section.parsed("smallest", |text| {
        match text.trim_end_matches('%').trim().parse::<f64>() {
            Ok(value) if (0.0..=100.0).contains(&value) => Ok(value / 100.0),
            _ => Err(format!(
                "'{text}' is not a percentage; write for example \"50%\", or \"0%\" for none"
            )),
        }
    })?;
    Ok(share.unwrap_or(SMALLEST_DEFAULT))
}

/// Reads the roles of the sources in the node.
pub fn profile(
    section: &ConfigSection<'_>,
    sources: &[SourceConfig],
) -> Result<NodeLayout, ConfigError> {
    let named = |key: &'static str| -> Result<Option<&SourceConfig>, ConfigError> {
        let Some(name) = section.text(key)? else {
            return Ok(None);
        };
        let found = sources.iter().find(|source| source.name == name);
        found
            .map(Some)
            .ok_or_else(|| section.error(key, format!("there is no source '{name}'")))
    };
    let part = |key: &'static str| -> Result<Option<NodeSource>, ConfigError> {
        match named(key)? {
            None => Ok(None),
            Some(SourceConfig {
                name,
                capture: SourceKindConfig::Tree { place, .. },
                ..
            }) => Ok(Some(NodeSource {
                source: name.clone(),
                place: place.clone(),
            })),
            Some(source) => {
                Err(section.error(key, format!("source '{}' is not a tree", source.name)))
            }
        }
    };

    let database = match named("database")? {
        None => None,
        Some(SourceConfig {
            name,
            capture: SourceKindConfig::Postgres { server, .. },
            ..
        }) => Some(NodeDatabase {
            source: name.clone(),
            server: server.clone(),
        }),
        Some(source) => {
            let why = format!("source '{}' is not of kind \"postgresql\"", source.name);
            return Err(section.error("database", why));
        }
    };

    let profile = NodeLayout {
        database,
        local_storage: part("local_storage")?,
        ipfs: part("ipfs")?,
        keys: part("keys")?,
        config: part("config")?,
        project: section.text("project")?,
        writers: section.texts("writers")?,
    };
    section.finish()?;
    Ok(profile)
}
