//! Reads a table of a TOML file key by key. Every error names its line and key, and a key that was
//! not read is an error too.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::jobs::parse;
use crate::source::StreamCommand;

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

/// The text of a configuration file.
#[derive(Debug)]
pub struct ConfigText<'a> {
    pub file: &'a Path,
    pub text: &'a str,
    /// The home directory, for `~/`.
    pub home: Option<&'a Path>,
}

impl ConfigText<'_> {
    /// Creates an error at this position of the text.
    pub fn error(&self, span: &Range<usize>, key: &str, why: impl fmt::Display) -> ConfigError {
        let before = self
            .text
            .get(..span.start.min(self.text.len()))
            .unwrap_or_default();
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        // One line, without the contents of the file, which may be a secret.
        let why = why
            .to_string()
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .join("; ");
        ConfigError {
            file: self.file.to_owned(),
            line,
            key: key.to_owned(),
            why,
        }
    }

    /// Returns the directory at which relative paths of the file start.
    pub fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }
}

/// A table that is being read.
pub struct ConfigSection<'a> {
    pub text: &'a ConfigText<'a>,
    /// For messages: `[retention]`, `source 'db'`; empty for the top-level table.
    pub title: String,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    asked: RefCell<BTreeSet<&'static str>>,
}

type Value<'a> = &'a Spanned<DeValue<'a>>;

impl<'a> ConfigSection<'a> {
    /// Opens the top-level table of the file.
    pub fn top(text: &'a ConfigText<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        let span = table.span();
        let table = table.get_ref();
        Self {
            text,
            title: String::new(),
            table,
            span,
            asked: RefCell::default(),
        }
    }

    fn inner(&self, key: &str, value: Value<'a>) -> Result<Self, ConfigError> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.wrong(key, value, "a table"));
        };
        let text = self.text;
        let title = format!("[{key}]");
        let span = value.span();
        Ok(Self {
            text,
            title,
            table,
            span,
            asked: RefCell::default(),
        })
    }

    fn named(&self, key: &str) -> String {
        if self.title.is_empty() {
            format!("'{key}'")
        } else {
            format!("{} '{key}'", self.title)
        }
    }

    fn value(&self, key: &'static str) -> Option<Value<'a>> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    fn wrong(&self, key: &str, value: Value<'_>, wanted: &str) -> ConfigError {
        let why = format!(
            "expected {wanted}, found a TOML {}",
            value.get_ref().type_str()
        );
        self.text.error(&value.span(), &self.named(key), why)
    }

    /// Creates an error about the value of a key.
    pub fn error(&self, key: &'static str, why: impl fmt::Display) -> ConfigError {
        let span = self
            .table
            .get(key)
            .map_or_else(|| self.span.clone(), Spanned::span);
        self.text.error(&span, &self.named(key), why)
    }

    /// Opens the table of a key, if it is there.
    pub fn section(&self, key: &'static str) -> Result<Option<Self>, ConfigError> {
        self.value(key)
            .map(|value| self.inner(key, value))
            .transpose()
    }

    /// Opens the tables of `[[key]]`, in order.
    pub fn sections(&self, key: &'static str) -> Result<Vec<Self>, ConfigError> {
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(value) => match value.get_ref() {
                DeValue::Array(list) => list.iter().map(|one| self.inner(key, one)).collect(),
                _ => Err(self.wrong(
                    key,
                    value,
                    &format!("a list of tables, each with the header [[{key}]]"),
                )),
            },
        }
    }

    /// Returns true if the key is there.
    pub fn has(&self, key: &'static str) -> bool {
        self.table.contains_key(key)
    }

    /// Reads a text.
    pub fn text(&self, key: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match value.get_ref() {
            DeValue::String(text) => Ok(Some(text.clone().into_owned())),
            _ => Err(self.wrong(key, value, "a quoted string")),
        }
    }

    /// Reads a text that must be there.
    pub fn needed(&self, key: &'static str) -> Result<String, ConfigError> {
        self.text(key)?
            .ok_or_else(|| self.error(key, "this key is missing"))
    }

    /// Reads a text with a parser.
    pub fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let text = self.text(key)?;
        text.map(|text| parse(&text).map_err(|why| self.error(key, why)))
            .transpose()
    }

    /// Reads a path. A relative one starts at the file's directory, `~/` at the home directory.
    pub fn path(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        self.parsed(key, |text| {
            let path = parse::path(text.as_ref(), self.text.home)?;
            Ok(self.text.directory().join(path))
        })
    }

    /// Reads `true` or `false`. Returns false if the key is missing.
    pub fn flag(&self, key: &'static str) -> Result<bool, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(false);
        };
        value
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    /// Reads a whole number within bounds.
    pub fn number(
        &self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<i64>,
    ) -> Result<Option<i64>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(self.wrong(key, value, "a whole number"));
        };
        match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if bounds.contains(&number) => Ok(Some(number)),
            _ => Err(self.error(
                key,
                format!("it must be from {} to {}", bounds.start(), bounds.end()),
            )),
        }
    }

    /// Reads a whole number or a text with a parser of texts: `14` and `"all"`.
    pub fn number_or_text<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        match self.value(key).map(Spanned::get_ref) {
            Some(DeValue::Integer(number)) => {
                // The digits alone do not show their base: `0x30` is 48.
                let read = i64::from_str_radix(number.as_str(), number.radix());
                let text = read.map_or_else(|_| number.to_string(), |number| number.to_string());
                parse(&text).map(Some).map_err(|why| self.error(key, why))
            }
            _ => self.parsed(key, parse),
        }
    }

    /// Reads a list of texts. A single text is a list of one.
    pub fn texts(&self, key: &'static str) -> Result<Vec<String>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(Vec::new());
        };
        match value.get_ref() {
            DeValue::String(text) => Ok(vec![text.clone().into_owned()]),
            DeValue::Array(list) => list
                .iter()
                .map(|one| match one.get_ref() {
                    DeValue::String(text) => Ok(text.clone().into_owned()),
                    _ => Err(self.wrong(key, one, "a quoted string")),
                })
                .collect(),
            _ => Err(self.wrong(key, value, "a string or a list of strings")),
        }
    }

    /// Reads a list of commands, each one text that is split into POSIX words.
    pub fn commands(&self, key: &'static str) -> Result<Vec<StreamCommand>, ConfigError> {
        let parse = |text: String| StreamCommand::parse(&text).map_err(|why| self.error(key, why));
        self.texts(key)?.into_iter().map(parse).collect()
    }

    /// Returns an error for a key that was not read. Call this after reading all keys.
    pub fn finish(&self) -> Result<(), ConfigError> {
        let asked = self.asked.borrow();
        let unknown = self
            .table
            .iter()
            .filter(|(key, _)| !asked.contains(key.get_ref().as_ref()));
        // The map is sorted by key, but people read from the top: report the first one in the file.
        let first = unknown.min_by_key(|(key, _)| key.span().start);
        let Some((key, _)) = first else { return Ok(()) };
        let known: Vec<&str> = asked.iter().copied().collect();
        let why = format!("unknown key; the keys here are {}", known.join(", "));
        Err(self
            .text
            .error(&key.span(), &self.named(key.get_ref()), why))
    }
}
