//! `[[source]]` and `[node]`: the sources to capture, and their roles in a node.

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;
use toml::de::DeValue;

use super::error::{ConfigError, ConfigText};
use super::value::{self, PortNumber, QuotedText, TextList};
use crate::ccn::profile::{
    DatabaseServer, NodeDatabase, NodeLayout, NodeSource, ServerAccess, SourceLocation,
};
use crate::jobs::parse;
use crate::source::{FilesFrom, Filter, FilterOptions, StreamCommand};
use crate::types::{ByteSize, ChunkProfile as Cutting};

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
        /// The source of the database that these files belong to. It precedes this one.
        not_older_than: Option<String>,
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

/// The keys of every `[[source]]` that are read first.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a table")]
pub struct SourceHead {
    name: Option<Spanned<QuotedText>>,
    kind: Option<Spanned<QuotedText>>,
}

/// A `[[source]]` of kind `"tree"`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
struct TreeTable {
    #[serde(rename = "name")]
    _name: Option<IgnoredAny>,
    #[serde(rename = "kind")]
    _kind: Option<IgnoredAny>,
    #[serde(deserialize_with = "value::commands")]
    before: Vec<StreamCommand>,
    #[serde(deserialize_with = "value::commands")]
    after: Vec<StreamCommand>,
    path: Option<Spanned<QuotedText>>,
    volume: Option<Spanned<QuotedText>>,
    #[serde(deserialize_with = "value::flag")]
    immutable: bool,
    #[serde(deserialize_with = "value::alarm")]
    unchanged: bool,
    not_older_than: Option<Spanned<QuotedText>>,
    exclude: Option<Spanned<TextList>>,
    #[serde(deserialize_with = "value::flag")]
    exclude_caches: bool,
    #[serde(deserialize_with = "value::some_size")]
    exclude_larger_than: Option<ByteSize>,
    #[serde(deserialize_with = "value::flag")]
    one_file_system: bool,
    only: Option<Spanned<TextList>>,
}

/// A `[[source]]` of kind `"command"`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
struct CommandTable {
    #[serde(rename = "name")]
    _name: Option<IgnoredAny>,
    #[serde(rename = "kind")]
    _kind: Option<IgnoredAny>,
    #[serde(deserialize_with = "value::commands")]
    before: Vec<StreamCommand>,
    #[serde(deserialize_with = "value::commands")]
    after: Vec<StreamCommand>,
    #[serde(deserialize_with = "value::command")]
    command: Option<StreamCommand>,
    #[serde(deserialize_with = "value::text")]
    ends_with: Option<String>,
    #[serde(deserialize_with = "value::smallest")]
    smallest: Option<f64>,
    #[serde(deserialize_with = "value::chunk")]
    chunk: Option<Cutting>,
}

/// A `[[source]]` of kind `"postgresql"`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
struct PostgresTable {
    #[serde(rename = "name")]
    _name: Option<IgnoredAny>,
    #[serde(rename = "kind")]
    _kind: Option<IgnoredAny>,
    #[serde(deserialize_with = "value::commands")]
    before: Vec<StreamCommand>,
    #[serde(deserialize_with = "value::commands")]
    after: Vec<StreamCommand>,
    #[serde(deserialize_with = "value::text")]
    container: Option<String>,
    address: Option<Spanned<QuotedText>>,
    port: Option<Spanned<PortNumber>>,
    password_file: Option<Spanned<QuotedText>>,
    #[serde(deserialize_with = "value::text")]
    user: Option<String>,
    #[serde(deserialize_with = "value::smallest")]
    smallest: Option<f64>,
}

/// `[node]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct NodeTable {
    database: Option<Spanned<QuotedText>>,
    local_storage: Option<Spanned<QuotedText>>,
    ipfs: Option<Spanned<QuotedText>>,
    keys: Option<Spanned<QuotedText>>,
    config: Option<Spanned<QuotedText>>,
    #[serde(deserialize_with = "value::text")]
    project: Option<String>,
    #[serde(deserialize_with = "value::texts")]
    writers: Vec<String>,
}

/// The kinds of sources, for messages.
const KINDS: &str = "\"tree\", \"command\", \"postgresql\"";

/// A table of the file that is being read: a `[[source]]` with a name.
struct SourceTable<'t> {
    text: &'t ConfigText<'t>,
    name: &'t str,
    table: &'t Spanned<DeValue<'t>>,
}

impl SourceTable<'_> {
    /// Reads the keys of one kind.
    fn read<T: for<'de> Deserialize<'de>>(&self) -> Result<T, ConfigError> {
        let table = toml::de::ValueDeserializer::from(self.table.clone());
        T::deserialize(table).map_err(|err| self.text.serde_error(&err))
    }

    /// Creates an error about a key that the table lacks.
    fn missing(&self, key: &str, why: impl std::fmt::Display) -> ConfigError {
        let name = self.name;
        let key = format!("source '{name}' '{key}'");
        self.text.error_of_key(&self.table.span(), key, why)
    }
}

/// Reads all sources, in their order.
pub fn sources(
    text: &ConfigText<'_>,
    heads: &[Spanned<SourceHead>],
) -> Result<Vec<SourceConfig>, ConfigError> {
    let mut sources: Vec<SourceConfig> = Vec::new();
    let tables = text.table.get_ref().get("source");
    let tables = tables.and_then(|list| list.get_ref().as_array());
    for (head, table) in heads.iter().zip(tables.into_iter().flatten()) {
        let name = source_name(text, head, &sources)?;
        let source = SourceTable {
            text,
            name: &name,
            table,
        };
        let kind = head.get_ref().kind.as_ref().ok_or_else(|| {
            source.missing("kind", format!("this key is missing: it is one of {KINDS}"))
        })?;

        let (before, after, capture) = match kind.get_ref().0.as_str() {
            "tree" => {
                let mut tree: TreeTable = source.read()?;
                let before = std::mem::take(&mut tree.before);
                let after = std::mem::take(&mut tree.after);
                (before, after, tree.capture(&source, &sources)?)
            }
            "command" => {
                let mut command: CommandTable = source.read()?;
                let before = std::mem::take(&mut command.before);
                let after = std::mem::take(&mut command.after);
                (before, after, command.capture(&source)?)
            }
            "postgresql" => {
                let mut server: PostgresTable = source.read()?;
                let before = std::mem::take(&mut server.before);
                let after = std::mem::take(&mut server.after);
                (before, after, server.capture(text)?)
            }
            other => {
                let why = format!("'{other}' is not one of {KINDS}");
                return Err(text.error(&kind.span(), why));
            }
        };

        sources.push(SourceConfig {
            name,
            capture,
            before,
            after,
        });
    }
    Ok(sources)
}

/// Returns the name of a source, which no earlier source may have.
fn source_name(
    text: &ConfigText<'_>,
    head: &Spanned<SourceHead>,
    earlier: &[SourceConfig],
) -> Result<String, ConfigError> {
    let Some(name) = &head.get_ref().name else {
        let why = "this key is missing";
        return Err(text.error_of_key(&head.span(), "[source] 'name'", why));
    };
    let error = |why: String| text.error(&name.span(), why);
    let checked = parse::source_name(&name.get_ref().0).map_err(error)?;
    if earlier.iter().any(|source| source.name == checked) {
        return Err(error(format!("duplicate source name '{checked}'")));
    }
    Ok(checked)
}

impl TreeTable {
    fn capture(
        self,
        source: &SourceTable<'_>,
        earlier: &[SourceConfig],
    ) -> Result<SourceKindConfig, ConfigError> {
        let text = source.text;
        let place = self.place(source)?;

        if let Some(database) = &self.not_older_than {
            let name = &database.get_ref().0;
            // The order of capture makes this true: a scan that starts after the dump has ended
            // sees every file of the dump's rows.
            if !earlier.iter().any(|source| source.name == *name) {
                let why =
                    format!("no source '{name}' precedes this one; sources are captured in order");
                return Err(text.error(&database.span(), why));
            }
        }

        let excludes = self.exclude.as_ref().map(|list| list.get_ref().0.iter());
        let filter = FilterOptions {
            excludes: excludes.into_iter().flatten().map(Into::into).collect(),
            exclude_caches: self.exclude_caches,
            exclude_larger_than: self.exclude_larger_than.map(|size| size.0),
            one_file_system: self.one_file_system,
            ..FilterOptions::default()
        };
        let exclude = self.exclude.as_ref().map(Spanned::span);
        Filter::new(&filter).map_err(|why| text.error(&exclude.unwrap_or_default(), why))?;

        let only = self.only.map(|list| only(text, &list)).transpose()?;
        Ok(SourceKindConfig::Tree {
            place,
            immutable: self.immutable,
            unchanged: self.unchanged,
            not_older_than: self.not_older_than.map(|name| name.into_inner().0),
            filter,
            only,
        })
    }

    fn place(&self, source: &SourceTable<'_>) -> Result<SourceLocation, ConfigError> {
        let volume = self.volume.as_ref();
        match (&self.path, volume.map(|volume| volume.get_ref().0.as_str())) {
            (Some(path), None) => Ok(SourceLocation::Path(source.text.path(path)?)),
            (None, Some(volume)) if !volume.is_empty() => {
                Ok(SourceLocation::Volume(volume.to_owned()))
            }
            (Some(_), Some(_)) => {
                let span = volume.map(Spanned::span).unwrap_or_default();
                Err(source
                    .text
                    .error(&span, "it cannot be combined with 'path'"))
            }
            _ => Err(source.missing("path", "a tree needs a 'path' or a 'volume'")),
        }
    }
}

/// Reads the only paths to capture.
fn only(text: &ConfigText<'_>, list: &Spanned<TextList>) -> Result<FilesFrom, ConfigError> {
    let paths = &list.get_ref().0;
    if paths.is_empty() {
        let why = "it names no path, so nothing would be captured; remove it to capture all";
        return Err(text.error(&list.span(), why));
    }
    // A NUL after each path, so that a single one is taken literally too.
    let paths: String = paths
        .iter()
        .flat_map(|path| [path.as_str(), "\0"])
        .collect();
    FilesFrom::parse(paths.as_bytes()).map_err(|why| text.error(&list.span(), why))
}

impl CommandTable {
    fn capture(self, source: &SourceTable<'_>) -> Result<SourceKindConfig, ConfigError> {
        let command = self.command;
        Ok(SourceKindConfig::Command {
            command: command.ok_or_else(|| source.missing("command", "this key is missing"))?,
            ends_with: self.ends_with,
            smallest: self.smallest,
            profile: self.chunk.unwrap_or(Cutting::Stream),
        })
    }
}

impl PostgresTable {
    fn capture(self, text: &ConfigText<'_>) -> Result<SourceKindConfig, ConfigError> {
        let access = match self.container {
            Some(container) => {
                let others = [
                    self.address.map(|address| address.span()),
                    self.port.map(|port| port.span()),
                    self.password_file.map(|file| file.span()),
                ];
                if let Some(other) = others.into_iter().flatten().next() {
                    return Err(text.error(&other, "it cannot be combined with 'container'"));
                }
                ServerAccess::Docker { container }
            }
            None => ServerAccess::Direct {
                address: self.address.map(|address| address.into_inner().0),
                port: self.port.map(|port| port.into_inner().0),
                password_file: text.optional_path(self.password_file.as_ref())?,
            },
        };
        Ok(SourceKindConfig::Postgres {
            server: DatabaseServer {
                access,
                user: self.user,
            },
            smallest: self.smallest.unwrap_or(SMALLEST_DEFAULT),
        })
    }
}

impl NodeTable {
    /// Returns the roles of the sources in the node.
    pub fn layout(
        self,
        text: &ConfigText<'_>,
        sources: &[SourceConfig],
    ) -> Result<NodeLayout, ConfigError> {
        let part = |name: &Option<Spanned<QuotedText>>| tree_named(text, sources, name.as_ref());
        Ok(NodeLayout {
            database: database_named(text, sources, self.database.as_ref())?,
            local_storage: part(&self.local_storage)?,
            ipfs: part(&self.ipfs)?,
            keys: part(&self.keys)?,
            config: part(&self.config)?,
            project: self.project,
            writers: self.writers,
        })
    }
}

/// Returns the source of this name.
fn source_named<'s>(
    text: &ConfigText<'_>,
    sources: &'s [SourceConfig],
    name: &Spanned<QuotedText>,
) -> Result<&'s SourceConfig, ConfigError> {
    let QuotedText(wanted) = name.get_ref();
    let mut named = sources.iter().filter(|source| source.name == *wanted);
    named
        .next()
        .ok_or_else(|| text.error(&name.span(), format!("there is no source '{wanted}'")))
}

/// Returns the tree of this name as a part of the node.
fn tree_named(
    text: &ConfigText<'_>,
    sources: &[SourceConfig],
    name: Option<&Spanned<QuotedText>>,
) -> Result<Option<NodeSource>, ConfigError> {
    let Some(name) = name else { return Ok(None) };
    let source = source_named(text, sources, name)?;
    let SourceKindConfig::Tree { place, .. } = &source.capture else {
        let why = format!("source '{}' is not a tree", source.name);
        return Err(text.error(&name.span(), why));
    };
    Ok(Some(NodeSource {
        source: source.name.clone(),
        place: place.clone(),
    }))
}

/// Returns the database of this name.
fn database_named(
    text: &ConfigText<'_>,
    sources: &[SourceConfig],
    name: Option<&Spanned<QuotedText>>,
) -> Result<Option<NodeDatabase>, ConfigError> {
    let Some(name) = name else { return Ok(None) };
    let source = source_named(text, sources, name)?;
    let SourceKindConfig::Postgres { server, .. } = &source.capture else {
        let why = format!("source '{}' is not of kind \"postgresql\"", source.name);
        return Err(text.error(&name.span(), why));
    };
    Ok(Some(NodeDatabase {
        source: source.name.clone(),
        server: server.clone(),
    }))
}
