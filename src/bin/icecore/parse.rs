//! Parses values of the command line: sources, snapshots and paths in them, percentages, durations.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use icecore::ops::forget::PeriodSlots;
use icecore::source::StreamCommand;
use icecore::types::{ByteSize, RelPath, RepoId};

use crate::home::path;

/// Longest name of a source, in bytes.
const SOURCE_NAME_BYTES_MAX: usize = 64;

/// A tree to be captured: `PATH` or `NAME=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPath {
    pub name: String,
    /// True if the name is the path's last component.
    pub is_derived: bool,
    pub path: PathBuf,
}

/// A command to be captured: `NAME=WORDS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCommand {
    pub name: String,
    pub command: StreamCommand,
}

/// `SNAP[:SOURCE[/PATH]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapPath {
    /// As returned by [`snap`].
    pub snap: String,
    /// Empty for `SNAP:` and `SNAP:/PATH`, which name no source.
    pub source: Option<String>,
    /// Path below the source's root; the root itself if none was given.
    pub path: RelPath,
}

/// Formats the value as it is written on the command line.
impl fmt::Display for SnapPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.snap)?;
        match &self.source {
            None => Ok(()),
            Some(source) if self.path.is_root() => write!(f, ":{source}"),
            Some(source) => write!(f, ":{source}/{}", self.path),
        }
    }
}

/// Smallest memory limit that is accepted.
const MEMORY_MIN: ByteSize = ByteSize(64 << 20);

/// Returns a clap parser for [`path`].
pub fn paths() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text| path(&text))
}

/// The path that `-` stands for in place of a list: standard input.
pub const STANDARD_INPUT: &str = "/dev/stdin";

/// Returns a clap parser for [`path`] of a list of paths or patterns, where `-` is standard input.
pub fn list_files() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text| {
        if text == "-" {
            Ok(STANDARD_INPUT.into())
        } else {
            path(&text)
        }
    })
}

/// Reads a repository's address in the same way as [`path`] reads a path.
pub fn address(text: &OsStr) -> Result<OsString, String> {
    path(text).map(PathBuf::into_os_string)
}

/// Reads a host name: not empty, no blanks at its ends, no control characters.
pub fn host(text: &str) -> Result<String, String> {
    name(text, "host")
}

/// Reads a tag to add to snapshots, or to select them by. The rules are those of a host name.
/// Commas are refused too, because other programs separate tags with them.
pub fn tag(text: &str) -> Result<String, String> {
    if text.contains(',') {
        return Err(format!(
            "a tag cannot contain a comma: '{text}'; give each tag separately"
        ));
    }
    name(text, "tag")
}

/// Reads a tag to remove: any tag that a snapshot may have.
pub fn old_tag(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("empty tag".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Reads a tag, or an empty text for no tag at all.
pub fn tag_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Ok(String::new())
    } else {
        tag(text)
    }
}

fn name(text: &str, what: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!("empty {what}"));
    }
    if text.trim().is_empty() {
        return Err(format!("the {what} contains only blanks"));
    }
    if text.trim() != text || text.contains(char::is_control) {
        return Err(format!(
            "a {what} cannot contain control characters, or begin or end with a blank: {text:?}"
        ));
    }
    Ok(text.to_owned())
}

/// Reads a memory limit of at least 64 MiB.
pub fn memory(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size < MEMORY_MIN {
        Err(format!("memory must be at least 64MiB, not {size}"))
    } else {
        Ok(size)
    }
}

/// Reads a size above 0.
pub fn some_size(text: &str) -> Result<ByteSize, String> {
    match text.parse()? {
        ByteSize(0) => Err("it must be greater than 0".to_owned()),
        size => Ok(size),
    }
}

/// Reads a span of time above 0.
pub fn some_time(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    if span.is_zero() {
        Err("it must be greater than 0".to_owned())
    } else {
        Ok(span)
    }
}

/// Checks a source's name: 1–64 bytes of UTF-8 without `/`, `:`, `=` and control characters.
pub fn source_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > SOURCE_NAME_BYTES_MAX {
        return Err(format!(
            "a source name must have 1 to {SOURCE_NAME_BYTES_MAX} bytes"
        ));
    }
    if text.trim().is_empty() {
        return Err("a source name cannot contain only blanks".to_owned());
    }
    // A restore to TARGET/<name> would put `.` and `..` in another directory.
    if matches!(text, "." | "..") {
        return Err(format!("a source cannot be named '{text}'"));
    }
    if text.contains(|c: char| matches!(c, '/' | ':' | '=') || c.is_control()) {
        return Err(format!(
            "a source name cannot contain '/', ':', '=' or control characters: {text:?}"
        ));
    }
    Ok(text.to_owned())
}

/// Reads `PATH` or `NAME=PATH`. There is a name only if no `/` comes before the first `=`.
pub fn named_path(arg: &OsStr) -> Result<NamedPath, String> {
    let bytes = arg.as_bytes();
    let stop = bytes.iter().position(|&b| b == b'=' || b == b'/');
    if let Some(at) = stop.filter(|&at| bytes[at] == b'=') {
        let name = std::str::from_utf8(&bytes[..at])
            .map_err(|_| "a source name must be UTF-8".to_owned())?;
        let path = &bytes[at + 1..];
        if path.is_empty() {
            return Err(format!("no path after '{name}='"));
        }
        let path = self::path(OsStr::from_bytes(path))?;
        return Ok(NamedPath {
            name: source_name(name)?,
            is_derived: false,
            path,
        });
    }
    if bytes.is_empty() {
        return Err("empty path".to_owned());
    }
    let path = path(arg)?;
    let name = default_name(&path)?;
    Ok(NamedPath {
        name,
        is_derived: true,
        path,
    })
}

/// Returns the default name of a tree: its path's last component, or `root` for `/`.
fn default_name(path: &Path) -> Result<String, String> {
    let advice = |problem: &str| format!("{problem}; give it a name: NAME={}", path.display());
    let full =
        std::path::absolute(path).map_err(|e| format!("cannot resolve {}: {e}", path.display()))?;
    // Only a trailing `..` needs the file system. A symlink keeps the name that was typed.
    let full = match full.components().next_back() {
        Some(std::path::Component::ParentDir) => std::fs::canonicalize(&full)
            .map_err(|e| format!("cannot resolve {}: {e}", path.display()))?,
        _ => full,
    };
    match full.file_name() {
        None => Ok("root".to_owned()),
        Some(name) => {
            let name = name
                .to_str()
                .ok_or_else(|| advice("the path's last component is not UTF-8"))?;
            source_name(name).map_err(|problem| advice(&problem))
        }
    }
}

/// Reads `NAME=WORDS`. The words are split like in a POSIX shell, and not changed otherwise.
pub fn named_command(text: &str) -> Result<NamedCommand, String> {
    let (name, words) = text
        .split_once('=')
        .ok_or("write NAME=WORDS, for example db='pg_dumpall -c'")?;
    let command = StreamCommand::parse(words).map_err(|e| e.to_string())?;
    Ok(NamedCommand {
        name: source_name(name)?,
        command,
    })
}

/// Checks that a word is `latest` or a prefix of a snapshot's id (at least 4 digits). Returns the
/// prefix in lower case.
pub fn snap(text: &str) -> Result<String, String> {
    if text == "latest" {
        return Ok(text.to_owned());
    }

    if let Some((snap, rest)) = text.split_once(':')
        && self::snap(snap).is_ok()
    {
        return Err(format!(
            "this needs a snapshot without ':{rest}': write '{snap}'"
        ));
    }

    if text.trim() == "latest" || text.eq_ignore_ascii_case("latest") {
        return Err(format!("'{text}' is not a snapshot: write 'latest'"));
    }
    if text.starts_with("latest") {
        return Err(format!(
            "'{text}' is not a snapshot: give the id of an older snapshot; 'icecore snapshots' lists them"
        ));
    }

    if !(4..=64).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let what = if text.is_empty() {
            "no snapshot given".to_owned()
        } else {
            format!("'{text}' is not a snapshot")
        };
        return Err(format!(
            "{what}: write 'latest' or at least the first 4 digits of an id; 'icecore snapshots' lists them"
        ));
    }

    Ok(text.to_ascii_lowercase())
}

/// Reads `SNAP[:SOURCE[/PATH]]`.
pub fn snap_path(arg: &OsStr) -> Result<SnapPath, String> {
    let bytes = arg.as_bytes();
    let (name, rest) = match bytes.iter().position(|&b| b == b':') {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    };
    let snap = snap(&String::from_utf8_lossy(name))?;
    let Some(rest) = rest else {
        return Ok(SnapPath {
            snap,
            source: None,
            path: RelPath::root(),
        });
    };

    let (source, path) = match rest.iter().position(|&b| b == b'/') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &rest[rest.len()..]),
    };
    let path = below_source(path)?;
    // An empty name is accepted here: the library lists the sources that there are.
    let source = match source {
        [] => String::new(),
        name => source_name(&String::from_utf8_lossy(name))?,
    };

    Ok(SnapPath {
        snap,
        source: Some(source),
        path,
    })
}

/// Reads a path below a source's root. `.` and empty names are dropped; `..` is refused.
fn below_source(path: &[u8]) -> Result<RelPath, String> {
    let mut below = RelPath::root();
    for name in path
        .split(|&byte| byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
    {
        below = below.join(name).map_err(|problem| match name {
            b".." => {
                "a path in a source cannot contain '..': write it from the source's root".to_owned()
            }
            _ => problem.to_string(),
        })?;
    }
    Ok(below)
}

/// Reads a repository's id of 32 digits.
pub fn repository_id(text: &str) -> Result<RepoId, String> {
    text.to_ascii_lowercase()
        .parse()
        .map_err(|why| format!("'{text}' is not a repository id: {why}"))
}

/// Reads `SNAP:SOURCE`. Neither part may be missing.
pub fn snap_source(text: &str) -> Result<(String, String), String> {
    let (name, source) = text
        .split_once(':')
        .ok_or("write SNAP:SOURCE, for example latest:home")?;
    Ok((snap(name)?, source_name(source)?))
}

/// Reads a share such as `5%` or `0.5%` as a fraction above 0 and at most 1. A number without `%`
/// is refused: `0.05` could mean either.
pub fn percentage(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 100.0 && !text.ends_with('%') => {
            let as_fraction = if value <= 1.0 {
                format!(" or {}%", value * 100.0)
            } else {
                String::new()
            };
            Err(format!("'{text}' has no '%': write {number}%{as_fraction}"))
        }
        Ok(value) if value > 0.0 && value <= 100.0 => Ok(value / 100.0),
        _ => Err(format!(
            "'{text}' is not a percentage; write for example 5% (above 0, at most 100)"
        )),
    }
}

/// Reads a whole number of percent from 1 to 100, with or without the `%`.
pub fn whole_percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<u8>() {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err(format!(
            "'{text}' is not a whole percentage from 1 to 100; write for example 5"
        )),
    }
}

/// Reads a span of time: `90s`, `10min` or `10m`, `2h`, `30d`, `1w`, `1mo` (30 days), `1y` (365
/// days), or several of them as in `1h30min`. `H` is an hour too.
pub fn duration(text: &str) -> Result<Duration, String> {
    let example = "90s, 10min, 2h, 30d or 1h30min";
    span(text, example, |unit| {
        if unit == "m" {
            Some(60)
        } else {
            unit_seconds(unit)
        }
    })
}

/// Reads the span of a retention rule like [`duration`], but refuses a bare `m`: it is a month in
/// restic and borg, and a minute elsewhere.
pub fn retention_span(text: &str) -> Result<Duration, String> {
    span(text, "36h, 30d, 8w, 6mo or 1y", unit_seconds)
}

/// Returns the seconds of a unit that means the same everywhere.
fn unit_seconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "s" => 1,
        "min" => 60,
        "h" | "H" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "mo" => 30 * 86_400,
        "y" => 365 * 86_400,
        _ => return None,
    })
}

/// Reads numbers with units. `seconds` returns the length of a unit, or `None` if it is unknown.
fn span(
    text: &str,
    example: &str,
    seconds: impl Fn(&str) -> Option<u64>,
) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a duration; write for example {example}");
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        let end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| digits + at);
        let unit = &rest[digits..end];

        let Some(unit) = seconds(unit) else {
            return Err(match unit {
                "m" | "M" => format!(
                    "'{number}{unit}' can mean a minute or a month: write {number}mo (30 days) or {number}min"
                ),
                _ => bad(),
            });
        };
        total = number
            .checked_mul(unit)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(bad)?;
        rest = &rest[end..];
    }

    Ok(Duration::from_secs(total))
}

/// Reads a number of slots. 0 means no rule. `all` is called `unlimited` in restic, and `-1` in
/// restic and borg.
pub fn slots(text: &str) -> Result<PeriodSlots, String> {
    match text {
        "all" | "unlimited" | "-1" => Ok(PeriodSlots::All),
        _ => text
            .parse()
            .map(PeriodSlots::Some)
            .map_err(|_| format!("'{text}' is neither a number nor 'all'")),
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
