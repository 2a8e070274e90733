//! Reads the values of `icecore.toml` with serde: their types, and the parsers of [`parse`].
//!
//! A field is read by one of the functions here (`deserialize_with`). A field whose check needs
//! another part of the file is a [`QuotedText`] or [`TextList`] with its position.

use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use crate::jobs::parse;
use crate::ops::forget::PeriodSlots;
use crate::source::StreamCommand;
use crate::types::{ByteSize, ChunkProfile, RepoId};

/// A quoted string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotedText(pub String);

impl<'de> Deserialize<'de> for QuotedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TextVisitor(|text: &str| Ok(Self(text.to_owned()))).deserialize(deserializer)
    }
}

/// A list of quoted strings. A single string is a list of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextList(pub Vec<String>);

impl<'de> Deserialize<'de> for TextList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed_list(deserializer, |text| Ok(text.to_owned())).map(Self)
    }
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlagValue(pub bool);

impl<'de> Deserialize<'de> for FlagValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bool(FlagVisitor).map(Self)
    }
}

/// A port of TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortNumber(pub u16);

impl<'de> Deserialize<'de> for PortNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer, 1..=65535).map(Self)
    }
}

/// Reads a quoted string with a parser.
struct TextVisitor<P>(P);

impl<'de, T, P: Fn(&str) -> Result<T, String>> Visitor<'de> for TextVisitor<P> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quoted string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

impl<'de, T, P: Fn(&str) -> Result<T, String>> DeserializeSeed<'de> for TextVisitor<P> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

/// Reads a string, or a list of strings, with a parser of each.
struct ListVisitor<P>(P);

impl<'de, T, P: Fn(&str) -> Result<T, String>> Visitor<'de> for ListVisitor<P> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        let value = (self.0)(text).map_err(E::custom)?;
        Ok(vec![value])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(TextVisitor(&self.0))? {
            values.push(value);
        }
        Ok(values)
    }
}

struct FlagVisitor;

impl Visitor<'_> for FlagVisitor {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        Ok(value)
    }
}

/// Reads a whole number within bounds.
struct NumberVisitor<T> {
    bounds: RangeInclusive<i64>,
    number: PhantomData<T>,
}

impl<T: TryFrom<i64>> NumberVisitor<T> {
    fn checked<E: Error>(&self, number: Option<i64>) -> Result<T, E> {
        number
            .filter(|number| self.bounds.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| {
                let (least, most) = (self.bounds.start(), self.bounds.end());
                E::custom(format_args!("it must be from {least} to {most}"))
            })
    }
}

impl<T: TryFrom<i64>> Visitor<'_> for NumberVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.checked(Some(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.checked(i64::try_from(number).ok())
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<T, E> {
        self.checked(i64::try_from(number).ok())
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<T, E> {
        self.checked(i64::try_from(number).ok())
    }
}

/// Reads a number of slots: `14` or `"all"`.
struct SlotsVisitor;

impl Visitor<'_> for SlotsVisitor {
    type Value = PeriodSlots;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number or a quoted string")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<PeriodSlots, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<PeriodSlots, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<PeriodSlots, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<PeriodSlots, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PeriodSlots, E> {
        parse::slots(text).map_err(E::custom)
    }
}

/// Reads the tables of `[[source]]`.
struct SourcesVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for SourcesVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tables, each with the header [[source]]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut tables = Vec::new();
        while let Some(table) = list.next_element()? {
            tables.push(table);
        }
        Ok(tables)
    }
}

/// Reads a quoted string with a parser.
fn parsed<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parser: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, D::Error> {
    TextVisitor(parser).deserialize(deserializer).map(Some)
}

/// Reads a string, or a list of strings, with a parser of each.
fn parsed_list<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parser: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(ListVisitor(parser))
}

/// Reads a whole number within bounds.
fn number<'de, D: Deserializer<'de>, T: TryFrom<i64>>(
    deserializer: D,
    bounds: RangeInclusive<i64>,
) -> Result<T, D::Error> {
    deserializer.deserialize_i64(NumberVisitor {
        bounds,
        number: PhantomData,
    })
}

/// Reads the tables of `[[source]]`, in order.
pub fn sources<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(SourcesVisitor(PhantomData))
}

/// Reads `true` or `false`.
pub fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    deserializer.deserialize_bool(FlagVisitor)
}

/// Reads a quoted string.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    parsed(deserializer, |text| Ok(text.to_owned()))
}

/// Reads a list of strings, or a single one.
pub fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    parsed_list(deserializer, |text| Ok(text.to_owned()))
}

/// Reads commands, each one text that is split into POSIX words.
pub fn commands<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<StreamCommand>, D::Error> {
    parsed_list(deserializer, split_command)
}

/// Reads a command, which is split into POSIX words.
pub fn command<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<StreamCommand>, D::Error> {
    parsed(deserializer, split_command)
}

fn split_command(text: &str) -> Result<StreamCommand, String> {
    StreamCommand::parse(text).map_err(|err| err.to_string())
}

/// Reads a host name.
pub fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    parsed(deserializer, parse::host)
}

/// Reads the ids that are accepted: one, or those of media that take turns at the address.
pub fn repository_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RepoId>, D::Error> {
    parsed_list(deserializer, parse::repository_id)
}

/// Reads tags.
pub fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    parsed_list(deserializer, parse::tag)
}

/// Reads a level of compression.
pub fn level<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    number(deserializer, 1..=19).map(Some)
}

/// Reads a number of threads.
pub fn threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    number(deserializer, 1..=1024).map(Some)
}

/// Reads a memory limit.
pub fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    parsed(deserializer, parse::memory)
}

/// Reads a size.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    parsed(deserializer, str::parse)
}

/// Reads a size above 0.
pub fn some_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
    parsed(deserializer, parse::some_size)
}

/// Reads a span of time.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parsed(deserializer, parse::duration)
}

/// Reads a span of time above 0.
pub fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    parsed(deserializer, parse::some_time)
}

/// Reads a share of data above 0.
pub fn percentage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    parsed(deserializer, parse::percentage)
}

/// Reads the number of a rule of retention. 0 is no rule.
pub fn slots<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PeriodSlots>, D::Error> {
    let slots = deserializer.deserialize_any(SlotsVisitor)?;
    Ok(Some(slots).filter(|&slots| slots != PeriodSlots::Some(0)))
}

/// Reads the span of a rule of retention. A span of 0 is no rule.
pub fn retention_span<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let span = parsed(deserializer, parse::retention_span)?;
    Ok(span.filter(|span| !span.is_zero()))
}

/// Reads the share of the last good stream below which a stream is suspect.
pub fn smallest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    parsed(deserializer, |text| {
        match text.trim_end_matches('%').trim().parse::<f64>() {
            Ok(value) if (0.0..=100.0).contains(&value) => Ok(value / 100.0),
            _ => Err(format!(
                "'{text}' is not a percentage; write for example \"50%\", or \"0%\" for none"
            )),
        }
    })
}

/// Reads the size of chunks.
pub fn chunk<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ChunkProfile>, D::Error> {
    parsed(deserializer, |text| match text {
        "2KiB" => Ok(ChunkProfile::Dump),
        "8KiB" => Ok(ChunkProfile::Stream),
        _ => Err(format!(
            "'{text}' is neither \"8KiB\" nor \"2KiB\" (for dumps in which scattered rows change)"
        )),
    })
}

/// Reads `"alarm"`, the only value of a key. Returns true.
pub fn alarm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let alarm = parsed(deserializer, |text| match text {
        "alarm" => Ok(true),
        other => Err(format!(
            "unknown value '{other}'; the only one is \"alarm\""
        )),
    });
    Ok(alarm?.unwrap_or_default())
}
