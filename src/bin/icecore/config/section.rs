//! A table of a TOML file, read key by key: every mistake is told with its line and key, and what
//! nobody asked for is a mistake too.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use icecore::source::StreamCommand;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::parse;

/// What is wrong with a configuration, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// With the table that holds it; empty where the file is no TOML.
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

/// The text that a configuration is read from.
#[derive(Debug)]
pub struct Text<'a> {
    pub file: &'a Path,
    pub text: &'a str,
}

impl Text<'_> {
    /// A mistake at this place of the text.
    pub fn error(&self, span: &Range<usize>, key: &str, why: impl fmt::Display) -> ConfigError {
        let before = self
            .text
            .get(..span.start.min(self.text.len()))
            .unwrap_or_default();
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        // One line, without what stands in the file: that may be a secret.
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

    /// The directory that relative paths of the file begin at.
    pub fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }
}

/// One table under way.
pub struct Section<'a> {
    pub text: &'a Text<'a>,
    /// As people read it: `[retention]`, `source 'db'`; empty for the top.
    pub title: String,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    asked: RefCell<BTreeSet<&'static str>>,
}

type Value<'a> = &'a Spanned<DeValue<'a>>;

impl<'a> Section<'a> {
    /// The table at the top of the file.
    pub fn top(text: &'a Text<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        let (span, table) = (table.span(), table.get_ref());
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
        let (text, title, span) = (self.text, format!("[{key}]"), value.span());
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
            "this is a TOML {}, wanted is {wanted}",
            value.get_ref().type_str()
        );
        self.text.error(&value.span(), &self.named(key), why)
    }

    /// A mistake in the value of a key that was given.
    pub fn error(&self, key: &'static str, why: impl fmt::Display) -> ConfigError {
        let span = self
            .table
            .get(key)
            .map_or_else(|| self.span.clone(), Spanned::span);
        self.text.error(&span, &self.named(key), why)
    }

    /// The table behind a key.
    pub fn section(&self, key: &'static str) -> Result<Option<Self>, ConfigError> {
        self.value(key)
            .map(|value| self.inner(key, value))
            .transpose()
    }

    /// The tables of `[[key]]`, in order.
    pub fn sections(&self, key: &'static str) -> Result<Vec<Self>, ConfigError> {
        match self.value(key) {
            None => Ok(Vec::new()),
            Some(value) => match value.get_ref() {
                DeValue::Array(list) => list.iter().map(|one| self.inner(key, one)).collect(),
                _ => Err(self.wrong(
                    key,
                    value,
                    &format!("a list of tables, each headed by [[{key}]]"),
                )),
            },
        }
    }

    /// True if the key is there.
    pub fn has(&self, key: &'static str) -> bool {
        self.table.contains_key(key)
    }

    /// A text.
    pub fn text(&self, key: &'static str) -> Result<Option<String>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match value.get_ref() {
            DeValue::String(text) => Ok(Some(text.clone().into_owned())),
            _ => Err(self.wrong(key, value, "a text in quotes")),
        }
    }

    /// A text that must be there.
    pub fn needed(&self, key: &'static str) -> Result<String, ConfigError> {
        self.text(key)?
            .ok_or_else(|| self.error(key, "this key is missing"))
    }

    /// A text read by a parser.
    pub fn parsed<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let text = self.text(key)?;
        text.map(|text| parse(&text).map_err(|why| self.error(key, why)))
            .transpose()
    }

    /// A path; a relative one begins at the file's directory, `~/` at the home directory.
    pub fn path(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        self.parsed(key, |text| {
            Ok(self.text.directory().join(parse::path(text.as_ref())?))
        })
    }

    /// `true` or `false`; false if it is not there.
    pub fn flag(&self, key: &'static str) -> Result<bool, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(false);
        };
        value
            .get_ref()
            .as_bool()
            .ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    /// A whole number within bounds.
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
                format!("it must be {} to {}", bounds.start(), bounds.end()),
            )),
        }
    }

    /// A whole number or a text, read by a parser of texts: `14` and `"all"`.
    pub fn number_or_text<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        match self.value(key).map(Spanned::get_ref) {
            Some(DeValue::Integer(number)) => {
                // The digits alone do not say their base: `0x30` is 48.
                let read = i64::from_str_radix(number.as_str(), number.radix());
                let text = read.map_or_else(|_| number.to_string(), |number| number.to_string());
                parse(&text).map(Some).map_err(|why| self.error(key, why))
            }
            _ => self.parsed(key, parse),
        }
    }

    /// A list of texts; one text alone is a list of one.
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
                    _ => Err(self.wrong(key, one, "a text in quotes")),
                })
                .collect(),
            _ => Err(self.wrong(key, value, "a text or a list of texts")),
        }
    }

    /// A list of commands, each one text that is split as POSIX words.
    pub fn commands(&self, key: &'static str) -> Result<Vec<StreamCommand>, ConfigError> {
        let parse = |text: String| StreamCommand::parse(&text).map_err(|why| self.error(key, why));
        self.texts(key)?.into_iter().map(parse).collect()
    }

    /// To be called when all keys were asked for: any other is a mistake.
    pub fn finish(&self) -> Result<(), ConfigError> {
        let asked = self.asked.borrow();
        let unknown = self
            .table
            .iter()
            .filter(|(key, _)| !asked.contains(key.get_ref().as_ref()));
        // The map is sorted by key; people read from the top.
        let first = unknown.min_by_key(|(key, _)| key.span().start);
        let Some((key, _)) = first else { return Ok(()) };
        let known: Vec<&str> = asked.iter().copied().collect();
        let why = format!("no such key here; there are {}", known.join(", "));
        Err(self
            .text
            .error(&key.span(), &self.named(key.get_ref()), why))
    }
}
