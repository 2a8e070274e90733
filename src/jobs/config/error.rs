//! Mistakes in a configuration, with their line and key. The text of the file is not in a message,
//! because it may hold a secret.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::QuotedText;
use crate::jobs::parse;

/// An error in a configuration, and its position.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub file: PathBuf,
    /// Starts at 1.
    pub line: usize,
    /// The key with its table. Empty if the file is not TOML.
    pub key: String,
    pub why: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}", self.file.display(), self.line)?;
        if !self.key.is_empty() {
            write!(f, ", {}", self.key)?;
        }
        write!(f, ": {}", self.why)
    }
}

impl std::error::Error for ConfigError {}

/// The text of a configuration file, as text and as TOML.
pub struct ConfigText<'a> {
    pub file: &'a Path,
    pub text: &'a str,
    /// The home directory, for `~/`.
    pub home: Option<&'a Path>,
    pub table: Spanned<DeTable<'a>>,
}

impl<'a> ConfigText<'a> {
    /// Parses a text as TOML.
    pub fn parse(
        file: &'a Path,
        text: &'a str,
        home: Option<&'a Path>,
    ) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|err| {
            let line = line_of(text, &err.span().unwrap_or_default());
            config_error(file, line, String::new(), err.message())
        })?;
        Ok(Self {
            file,
            text,
            home,
            table,
        })
    }

    /// Creates an error about the value or the key at this position.
    pub fn error(&self, span: &Range<usize>, why: impl fmt::Display) -> ConfigError {
        let key = find_key(self.table.get_ref(), span);
        let name = key.map_or_else(String::new, |key| key.full_name());
        self.error_of_key(span, name, why)
    }

    /// Creates an error about a key that is missing in the table at this position.
    pub fn error_of_key(
        &self,
        table: &Range<usize>,
        key: impl Into<String>,
        why: impl fmt::Display,
    ) -> ConfigError {
        config_error(self.file, line_of(self.text, table), key.into(), why)
    }

    /// Converts an error of serde.
    pub fn serde_error(&self, err: &toml::de::Error) -> ConfigError {
        let span = err.span().unwrap_or_default();
        let Some(key) = find_key(self.table.get_ref(), &span) else {
            return self.error_of_key(&span, "", "wrong type");
        };

        let wanted = err.message().rsplit_once(", expected ");
        match wanted {
            // The first half of this message quotes the value.
            Some((message, wanted)) if message.starts_with("invalid type: ") => {
                let found = value_at(key.value, &span).type_str();
                let why = format!("expected {wanted}, found a TOML {found}");
                self.error_of_key(&span, key.full_name(), why)
            }
            Some((message, known)) if message.starts_with("unknown field `") => {
                let mut known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
                known.sort_unstable();
                let key = key.first_other_than(&known);
                let why = format!("unknown key; the keys here are {}", known.join(", "));
                self.error_of_key(&key.span(), key.full_name(), why)
            }
            _ => self.error_of_key(&span, key.full_name(), err.message()),
        }
    }

    /// Reads a path. A relative one starts at the file's directory, `~/` at the home directory.
    pub fn path(&self, text: &Spanned<QuotedText>) -> Result<PathBuf, ConfigError> {
        let path = parse::path(text.get_ref().0.as_ref(), self.home);
        path.map(|path| self.directory().join(path))
            .map_err(|why| self.error(&text.span(), why))
    }

    /// Reads a path, if there is one.
    pub fn optional_path(
        &self,
        text: Option<&Spanned<QuotedText>>,
    ) -> Result<Option<PathBuf>, ConfigError> {
        text.map(|text| self.path(text)).transpose()
    }

    /// Returns the directory at which relative paths of the file start.
    fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }
}

fn config_error(file: &Path, line: usize, key: String, why: impl fmt::Display) -> ConfigError {
    let why = why.to_string();
    let lines: Vec<&str> = why.lines().map(str::trim).collect();
    ConfigError {
        file: file.to_owned(),
        line,
        key,
        why: lines.join("; "),
    }
}

/// Returns the line, from 1, at which a part of the text starts.
fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.get(..span.start.min(text.len())).unwrap_or_default();
    before.bytes().filter(|&byte| byte == b'\n').count() + 1
}

/// A key of the file.
struct FoundKey<'t> {
    key: &'t Spanned<std::borrow::Cow<'t, str>>,
    value: &'t Spanned<DeValue<'t>>,
    /// The table that has the key.
    table: &'t DeTable<'t>,
    /// The key of that table, if it is not the whole file.
    section: Option<&'t str>,
    /// True if the table is one of a list.
    is_listed: bool,
}

impl<'t> FoundKey<'t> {
    fn span(&self) -> Range<usize> {
        self.key.span()
    }

    /// Returns the key with its table: `'host'`, `[backup] 'level'` or `source 'db' 'command'`.
    fn full_name(&self) -> String {
        let key = self.key.get_ref();
        match (self.section, self.source_name()) {
            (None, _) => format!("'{key}'"),
            (Some(section), Some(name)) if key != "name" => format!("{section} '{name}' '{key}'"),
            (Some(section), _) => format!("[{section}] '{key}'"),
        }
    }

    /// Returns the name that a table of a list has, if it is valid.
    fn source_name(&self) -> Option<String> {
        match self.table.get("name")?.get_ref() {
            DeValue::String(name) if self.is_listed => parse::source_name(name).ok(),
            _ => None,
        }
    }

    /// Returns the unknown key of the same table that comes first in the file. The map is sorted by
    /// key, but people read from the top.
    fn first_other_than(self, known: &[&str]) -> Self {
        let keys = self.table.iter();
        let unknown = keys.filter(|(key, _)| !known.contains(&key.get_ref().as_ref()));
        match unknown.min_by_key(|(key, _)| key.span().start) {
            Some((key, value)) => Self { key, value, ..self },
            None => self,
        }
    }
}

/// Returns the innermost key whose name or value has this position.
fn find_key<'t>(top: &'t DeTable<'t>, span: &Range<usize>) -> Option<FoundKey<'t>> {
    for (key, value) in top {
        let in_section =
            |table, is_listed| key_of_table(table, span, Some(key.get_ref().as_ref()), is_listed);
        let inner = match value.get_ref() {
            DeValue::Table(table) => in_section(table, false),
            DeValue::Array(list) => list.iter().find_map(|one| match one.get_ref() {
                DeValue::Table(table) => in_section(table, true),
                _ => None,
            }),
            _ => None,
        };
        if inner.is_some() {
            return inner;
        }
    }
    key_of_table(top, span, None, false)
}

fn key_of_table<'t>(
    table: &'t DeTable<'t>,
    span: &Range<usize>,
    section: Option<&'t str>,
    is_listed: bool,
) -> Option<FoundKey<'t>> {
    let mut keys = table.iter();
    let (key, value) = keys.find(|(key, value)| key.span() == *span || holds(value, span))?;
    Some(FoundKey {
        key,
        value,
        table,
        section,
        is_listed,
    })
}

/// Returns the element of a list at this position, or the value itself.
fn value_at<'t>(value: &'t Spanned<DeValue<'t>>, span: &Range<usize>) -> &'t DeValue<'t> {
    let elements = value.get_ref().as_array().into_iter().flatten();
    let mut elements = elements.filter(|element| element.span() == *span);
    elements.next().unwrap_or(value).get_ref()
}

/// Returns true if a part of the file lies in a value. A list of tables with headers is in several
/// places, so its elements count too.
fn holds(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    let is_in = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let elements = value.get_ref().as_array().into_iter().flatten();
    is_in(value.span()) || elements.into_iter().any(|element| is_in(element.span()))
}
