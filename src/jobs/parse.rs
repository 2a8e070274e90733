//! Values that people write: in `icecore.toml`, on the command line, and in requests.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ops::forget::PeriodSlots;
use crate::types::{ByteSize, RepoId};

/// Longest name of a source, in bytes.
const SOURCE_NAME_BYTES_MAX: usize = 64;

/// Smallest memory limit that is accepted.
const MEMORY_MIN: ByteSize = ByteSize(64 << 20);

/// Reads a path that no shell may have expanded: a leading `~/` is the home directory. Refuses
/// another user's home and variables, which only a shell can expand.
pub fn path(text: &OsStr, home: Option<&Path>) -> Result<PathBuf, String> {
    let bytes = text.as_bytes();
    match bytes {
        [] => Err("empty path".to_owned()),
        [b'~'] | [b'~', b'/', ..] => {
            let home = home.ok_or("cannot expand '~': HOME is not set to an absolute path")?;
            // With more slashes the rest would be an absolute path.
            let below = bytes[1..]
                .iter()
                .position(|&byte| byte != b'/')
                .map(|at| &bytes[1 + at..]);
            Ok(below.map_or_else(
                || home.to_owned(),
                |below| home.join(OsStr::from_bytes(below)),
            ))
        }
        [b'~', ..] => Err(format!(
            "'{0}' begins with another user's home directory, which is not looked up: write the absolute path, or ./{0} for a file of that name",
            text.to_string_lossy()
        )),
        [b'$', b'{' | b'_' | b'a'..=b'z' | b'A'..=b'Z', ..] => Err(format!(
            "'{0}' begins with a variable, which is not expanded here: write the absolute path, or ./{0} for a file of that name",
            text.to_string_lossy()
        )),
        _ => Ok(PathBuf::from(text)),
    }
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

/// Reads a repository's id of 32 digits.
pub fn repository_id(text: &str) -> Result<RepoId, String> {
    text.to_ascii_lowercase()
        .parse()
        .map_err(|why| format!("'{text}' is not a repository id: {why}"))
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
