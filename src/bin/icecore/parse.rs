//! Parses values of the command line: sources, snapshots and paths in them. Values that other front
//! ends and the configuration read too are parsed in the library.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
pub use icecore::jobs::parse::{
    duration, host, memory, old_tag, percentage, repository_id, retention_span, slots, some_size,
    some_time, source_name, tag, tag_or_none, whole_percent,
};
use icecore::source::StreamCommand;
use icecore::types::RelPath;

use crate::home::path;

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

/// Reads `SNAP:SOURCE`. Neither part may be missing.
pub fn snap_source(text: &str) -> Result<(String, String), String> {
    let (name, source) = text
        .split_once(':')
        .ok_or("write SNAP:SOURCE, for example latest:home")?;
    Ok((snap(name)?, source_name(source)?))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
