//! Words of the command line as values: sources, snapshots and paths in them, percentages, durations.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use icecore::ops::forget::Slots;
use icecore::source::StreamCommand;
use icecore::types::{ByteSize, RelPath, RepoId};

/// Longest name of a source, in bytes.
const SOURCE_NAME_BYTES_MAX: usize = 64;

/// A tree to be captured: `PATH` or `NAME=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPath {
    pub name: String,
    /// The name is the path's last component.
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
    /// As [`snap`] gives it.
    pub snap: String,
    /// Empty in `SNAP:` and in `SNAP:/PATH`, which name none.
    pub source: Option<String>,
    /// Below the source's root; the root itself if nothing was given.
    pub path: RelPath,
}

/// As it is written on the command line.
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

/// Least memory that may be asked for.
const MEMORY_MIN: ByteSize = ByteSize(64 << 20);

/// Reads a path that no shell may have read: a leading `~/` is the home directory. What only a shell could know is
/// refused: another user's home, a variable.
pub fn path(text: &OsStr) -> Result<PathBuf, String> {
    let bytes = text.as_bytes();
    match bytes {
        [] => Err("an empty path".to_owned()),
        [b'~'] | [b'~', b'/', ..] => {
            let home =
                crate::env::home().ok_or("'~' is the home directory, and HOME does not say where it is")?;
            // More slashes would begin a path of their own.
            let below = bytes[1..].iter().position(|&byte| byte != b'/').map(|at| &bytes[1 + at..]);
            Ok(below.map_or_else(|| home.clone(), |below| home.join(OsStr::from_bytes(below))))
        }
        [b'~', ..] => Err(format!(
            "'{0}' begins with another user's home directory, which is not looked up: write the whole path, or ./{0} for a file of that name",
            text.to_string_lossy()
        )),
        [b'$', b'{' | b'_' | b'a'..=b'z' | b'A'..=b'Z', ..] => Err(format!(
            "'{0}' begins with a variable, which is not replaced here: write the whole path, or ./{0} for a file of that name",
            text.to_string_lossy()
        )),
        _ => Ok(PathBuf::from(text)),
    }
}

/// [`path`] for an argument of the command line.
pub fn paths() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text| path(&text))
}

/// Reads a repository's address as [`path`] reads a path.
pub fn address(text: &OsStr) -> Result<OsString, String> {
    path(text).map(PathBuf::into_os_string)
}

/// Reads a host's name: not empty, no blanks at its ends, no control characters.
pub fn host(text: &str) -> Result<String, String> {
    name(text, "host")
}

/// Reads a tag to be given to snapshots, or to select them: as a host's name, and without commas, which other programs
/// put between tags.
pub fn tag(text: &str) -> Result<String, String> {
    if text.contains(',') {
        return Err(format!("a tag holds no comma, and '{text}' does: give each tag by itself"));
    }
    name(text, "tag")
}

/// Reads a tag to be taken away: any that a snapshot may have.
pub fn old_tag(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("an empty tag".to_owned()) } else { Ok(text.to_owned()) }
}

/// Reads a tag, or nothing for no tag at all.
pub fn tag_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { tag(text) }
}

fn name(text: &str, what: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err(format!("an empty {what}"));
    }
    if text.trim().is_empty() {
        return Err(format!("a {what} of nothing but blanks"));
    }
    if text.trim() != text || text.contains(char::is_control) {
        return Err(format!("a {what} holds no control characters, and no blanks at its ends: {text:?}"));
    }
    Ok(text.to_owned())
}

/// Reads how much memory a command may take.
pub fn memory(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size < MEMORY_MIN { Err(format!("memory is at least 64MiB, and this is {size}")) } else { Ok(size) }
}

/// Reads a size above 0.
pub fn some_size(text: &str) -> Result<ByteSize, String> {
    match text.parse()? {
        ByteSize(0) => Err("it must be above 0".to_owned()),
        size => Ok(size),
    }
}

/// Reads a span of time above 0.
pub fn some_time(text: &str) -> Result<Duration, String> {
    let span = duration(text)?;
    if span.is_zero() { Err("it must be above 0".to_owned()) } else { Ok(span) }
}

/// Checks a source's name: 1–64 bytes of UTF-8 without `/`, `:`, `=` and control characters.
pub fn source_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > SOURCE_NAME_BYTES_MAX {
        return Err(format!("the name of a source has 1 to {SOURCE_NAME_BYTES_MAX} bytes"));
    }
    if text.trim().is_empty() {
        return Err("the name of a source holds more than blanks".to_owned());
    }
    // `.` and `..` would be folders of their own when a source is restored to TARGET/<name>.
    if matches!(text, "." | "..") {
        return Err(format!("a source cannot be named '{text}'"));
    }
    if text.contains(|c: char| matches!(c, '/' | ':' | '=') || c.is_control()) {
        return Err(format!("the name of a source holds no '/', ':', '=': {text:?}"));
    }
    Ok(text.to_owned())
}

/// Reads `PATH` or `NAME=PATH`: a name only if no `/` stands before the first `=`.
pub fn named_path(arg: &OsStr) -> Result<NamedPath, String> {
    let bytes = arg.as_bytes();
    let stop = bytes.iter().position(|&b| b == b'=' || b == b'/');
    if let Some(at) = stop.filter(|&at| bytes[at] == b'=') {
        let name =
            std::str::from_utf8(&bytes[..at]).map_err(|_| "the name of a source is UTF-8".to_owned())?;
        let path = &bytes[at + 1..];
        if path.is_empty() {
            return Err(format!("no path after '{name}='"));
        }
        let path = self::path(OsStr::from_bytes(path))?;
        return Ok(NamedPath { name: source_name(name)?, is_derived: false, path });
    }
    if bytes.is_empty() {
        return Err("an empty path".to_owned());
    }
    let path = path(arg)?;
    let name = default_name(&path)?;
    Ok(NamedPath { name, is_derived: true, path })
}

/// A tree's name if none is given: its path's last component, `root` for `/`.
fn default_name(path: &Path) -> Result<String, String> {
    let advice = |problem: &str| format!("{problem}; name it: NAME={}", path.display());
    let full = std::path::absolute(path).map_err(|e| format!("cannot resolve {}: {e}", path.display()))?;
    // Only a trailing `..` needs the file system; a symlink keeps the name that was typed.
    let full = match full.components().next_back() {
        Some(std::path::Component::ParentDir) => {
            std::fs::canonicalize(&full).map_err(|e| format!("cannot resolve {}: {e}", path.display()))?
        }
        _ => full,
    };
    match full.file_name() {
        None => Ok("root".to_owned()),
        Some(name) => {
            let name = name.to_str().ok_or_else(|| advice("the path's last component is not UTF-8"))?;
            source_name(name).map_err(|problem| advice(&problem))
        }
    }
}

/// Reads `NAME=WORDS`; the words are split as a POSIX shell splits them, and nothing else is done to them.
pub fn named_command(text: &str) -> Result<NamedCommand, String> {
    let (name, words) = text.split_once('=').ok_or("write NAME=WORDS, for example db='pg_dumpall -c'")?;
    let command = StreamCommand::parse(words).map_err(|e| e.to_string())?;
    Ok(NamedCommand { name: source_name(name)?, command })
}

/// Checks that a word is `latest` or the beginning of a snapshot's id (4 digits at least), which is made lower-case.
pub fn snap(text: &str) -> Result<String, String> {
    if text == "latest" {
        return Ok(text.to_owned());
    }
    if !(4..=64).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let what = if text.is_empty() {
            "no snapshot is named".to_owned()
        } else {
            format!("'{text}' is no snapshot")
        };
        return Err(format!(
            "{what}: write 'latest' or the first digits of an id, 4 at least; 'icecore snapshots' lists them"
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
        return Ok(SnapPath { snap, source: None, path: RelPath::root() });
    };
    let (source, path) = match rest.iter().position(|&b| b == b'/') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &rest[rest.len()..]),
    };
    let path = RelPath::from_slashed(path).map_err(|e| e.to_string())?;
    // The library says which sources there are.
    let source = match source {
        [] => String::new(),
        name => source_name(&String::from_utf8_lossy(name))?,
    };
    Ok(SnapPath { snap, source: Some(source), path })
}

/// Reads a repository's id, all 32 digits of it.
pub fn repository_id(text: &str) -> Result<RepoId, String> {
    text.to_ascii_lowercase().parse().map_err(|why| format!("'{text}' is not a repository's id: {why}"))
}

/// Reads `SNAP:SOURCE`, of which neither may be left out.
pub fn snap_source(text: &str) -> Result<(String, String), String> {
    let (name, source) = text.split_once(':').ok_or("write SNAP:SOURCE, for example latest:home")?;
    Ok((snap(name)?, source_name(source)?))
}

/// Reads a share such as `5%` or `0.5%` as a fraction, above 0 and at most 1.
pub fn percentage(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    match number.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 100.0 => Ok(value / 100.0),
        _ => Err(format!("'{text}' is no share; write for example 5% (above 0, at most 100)")),
    }
}

/// Reads a span of time: `90s`, `10min` or `10m`, `2h`, `30d`, `1w`, `1mo` (30 days), `1y` (365 days), or several of
/// them as in `1h30min`. `H` is an hour as well.
pub fn duration(text: &str) -> Result<Duration, String> {
    let example = "90s, 10min, 2h, 30d or 1h30min";
    span(text, example, |unit| if unit == "m" { Some(60) } else { unit_seconds(unit) })
}

/// Reads a span of a retention rule, as [`duration`] does. A bare `m` is refused: it is a month in restic and borg, and a
/// minute elsewhere.
pub fn retention_span(text: &str) -> Result<Duration, String> {
    span(text, "36h, 30d, 8w, 6mo or 1y", unit_seconds)
}

/// Seconds in a unit whose meaning is the same everywhere.
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

/// Reads numbers with units; `seconds` knows the units.
fn span(text: &str, example: &str, seconds: impl Fn(&str) -> Option<u64>) -> Result<Duration, String> {
    let bad = || format!("'{text}' is no span of time; write for example {example}");
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        let end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let unit = &rest[digits..end];

        let Some(unit) = seconds(unit) else {
            return Err(match unit {
                "m" | "M" => format!(
                    "'{number}{unit}' can mean a minute or a month: write {number}mo (30 days) or {number}min"
                ),
                _ => bad(),
            });
        };
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = &rest[end..];
    }
    Ok(Duration::from_secs(total))
}

/// Reads a number of slots; 0 is no rule. `all` is restic's `unlimited`, and `-1` there and in borg.
pub fn slots(text: &str) -> Result<Slots, String> {
    match text {
        "all" | "unlimited" | "-1" => Ok(Slots::All),
        _ => text.parse().map(Slots::Some).map_err(|_| format!("'{text}' is neither a number nor 'all'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(arg: &str) -> Result<(String, String), String> {
        named_path(OsStr::new(arg)).map(|n| (n.name, n.path.display().to_string()))
    }

    fn pair(a: &str, b: &str) -> Result<(String, String), String> {
        Ok((a.to_owned(), b.to_owned()))
    }

    #[test]
    fn a_name_needs_an_equals_sign_before_any_slash() {
        assert_eq!(tree("home=/srv/x"), pair("home", "/srv/x"));
        assert_eq!(tree("/srv/a=b/c"), pair("c", "/srv/a=b/c"));
        assert_eq!(tree("./x=y/z"), pair("z", "./x=y/z"));
        assert_eq!(tree("a=b=c"), pair("a", "b=c"));
        assert_eq!(tree("/"), pair("root", "/"));
        assert_eq!(tree("/usr/share/"), pair("share", "/usr/share/"));
        assert!(tree("=x").is_err() && tree("x=").is_err() && tree("").is_err());
        assert!(tree("a:b=/x").is_err());
    }

    #[test]
    fn a_path_whose_last_component_is_no_name_asks_for_one() {
        let problem = tree("/srv/a=b").expect_err("an equals sign in the default name");
        assert!(problem.contains("NAME=/srv/a=b"), "{problem}");
        assert!(named_path(OsStr::from_bytes(b"/srv/\xff")).is_err());
    }

    #[test]
    fn dots_are_named_by_the_folder_they_stand_for() {
        let here = std::env::current_dir().expect("a current folder");
        let name = here.file_name().and_then(OsStr::to_str).expect("UTF-8").to_owned();
        assert_eq!(tree("."), Ok((name, ".".to_owned())));
        assert_eq!(tree("/usr/share/.."), pair("usr", "/usr/share/.."));
    }

    #[test]
    fn a_tilde_is_the_home_directory_or_an_error() {
        let home = crate::env::home().expect("tests have a home");
        let read = |text: &str| path(OsStr::new(text));
        assert_eq!(read("~"), Ok(home.clone()));
        assert_eq!(read("~/a b/~"), Ok(home.join("a b/~")));
        assert_eq!(read("~//a"), Ok(home.join("a")), "never a path from the root");
        for as_it_is in ["/~/a", "./~", "a~", "a/~/b", "./$HOME", "$", "$1", "a$HOME", "-"] {
            assert_eq!(read(as_it_is), Ok(as_it_is.into()));
        }
        for bad in ["", "~user", "~user/a", "~~", "~+", "$HOME", "$HOME/a", "${HOME}/a", "$x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(tree("n=~/x"), pair("n", &home.join("x").display().to_string()));
        assert_eq!(tree("~/x"), pair("x", &home.join("x").display().to_string()));
        assert!(tree("n=~user/x").is_err() && tree("$HOME/x").is_err());
    }

    #[test]
    fn names_that_cannot_be_meant_are_refused() {
        for good in ["a", "web-1.example.org", "käse", "a b", "(none)"] {
            assert_eq!((host(good), tag(good)), (Ok(good.to_owned()), Ok(good.to_owned())));
        }
        for bad in ["", " ", "\t", "\u{a0}", " a", "a ", "a\n", "a\u{1b}[2J", "a\0b"] {
            assert!(host(bad).is_err() && tag(bad).is_err(), "{bad:?}");
        }
        assert!(tag("a,b").is_err() && host("a,b").is_ok());
        assert!(source_name(" ").is_err() && source_name("\u{3000}").is_err());
        assert_eq!(old_tag("a,b"), Ok("a,b".to_owned()), "what is there can be taken away");
        assert!(old_tag("").is_err());
        assert_eq!(tag_or_none(""), Ok(String::new()));
        assert!(tag_or_none(" ").is_err());
        assert!(memory("1").is_err() && memory("63MiB").is_err() && memory("x").is_err());
        assert_eq!(memory("64MiB"), Ok(ByteSize(64 << 20)));
        assert!(some_size("0").is_err() && some_time("0s").is_err() && some_time("0h0m").is_err());
        assert_eq!(some_size("1"), Ok(ByteSize(1)));
    }

    #[test]
    fn a_sources_name_has_bounds() {
        assert!(source_name(&"x".repeat(64)).is_ok());
        for bad in ["", ".", "..", "a/b", "a:b", "a=b", "a\nb", &"x".repeat(65), &"é".repeat(33)] {
            assert!(source_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_is_split_as_posix_words() {
        let command = named_command("db=sh -c 'a b' \"c\"").expect("a command");
        assert_eq!(
            (command.name.as_str(), command.command.words()),
            ("db", &["sh", "-c", "a b", "c"].map(String::from)[..])
        );
        for bad in ["db", "db=", "db='", "=x", "a/b=x"] {
            assert!(named_command(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_snapshot_and_what_is_in_it() {
        let parse = |text: &str| snap_path(OsStr::new(text));
        let whole = parse("latest").expect("latest");
        assert_eq!((whole.snap, whole.source), ("latest".to_owned(), None));
        let deep = parse("0aF1:home/a//b:c/").expect("a path");
        assert_eq!(deep.snap, "0af1");
        assert_eq!(deep.source.as_deref(), Some("home"));
        assert_eq!(deep.path.to_slashed(), b"a/b:c");
        assert!(parse("0a11:home").expect("a source").path.is_root());
        assert!(snap_path(OsStr::from_bytes(b"0a11:home/\xff")).is_ok());
        for bad in ["", ":a", "xyz", "abc", "wxyz", "latest:a=b", "latest:a/../b", &"0".repeat(65)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        // Which sources there are is known once the repository is open.
        for none in ["latest:", "latest:/", "latest:/srv/app"] {
            assert_eq!(parse(none).expect("a form to be told").source.as_deref(), Some(""), "{none}");
        }
        assert!(snap_source("latest").is_err() && snap_source("latest:x/y").is_err());
    }

    #[test]
    fn shares_and_spans() {
        assert_eq!(percentage("5%"), Ok(0.05));
        assert_eq!(percentage("100"), Ok(1.0));
        for bad in ["0%", "101%", "x", "NaN", "-1%", ""] {
            assert!(percentage(bad).is_err(), "{bad}");
        }
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(2_592_000)));
        assert_eq!(duration("1y1d"), Ok(Duration::from_secs(366 * 86_400)));
        for bad in ["", "10", "m", "1x", "1h30", "99999999999999999999s", "é", "1é", "-1d", "1d-1h", "1 d"]
        {
            assert!(duration(bad).is_err() && retention_span(bad).is_err(), "{bad}");
        }
    }

    /// What restic and borg take for a span of a retention rule, in seconds; none: two tools differ, or it is nothing.
    #[test]
    fn spans_of_retention_rules_mean_what_they_mean_in_restic_and_borg() {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        let table = [
            ("7d", Some(7 * DAY)),
            ("2h", Some(2 * HOUR)),
            ("48H", Some(48 * HOUR)),
            ("4w", Some(28 * DAY)),
            ("1y", Some(365 * DAY)),
            ("75y", Some(75 * 365 * DAY)),
            ("1y7d2h", Some(365 * DAY + 7 * DAY + 2 * HOUR)),
            ("1mo", Some(30 * DAY)),
            ("1min", Some(60)),
            ("1y5mo7d2h", Some((365 + 5 * 30 + 7) * DAY + 2 * HOUR)),
            // A month in restic and in borg's keep_within, a minute here and in systemd.
            ("1m", None),
            ("1y5m7d2h", None),
            ("6m", None),
            // A minute in borg, a month in systemd.
            ("1M", None),
            ("2Y", None),
            ("1W", None),
        ];
        for (text, seconds) in table {
            assert_eq!(retention_span(text).ok(), seconds.map(Duration::from_secs), "{text}");
        }
        assert_eq!(
            retention_span("1y5m").expect_err("ambiguous"),
            "'5m' can mean a minute or a month: write 5mo (30 days) or 5min"
        );
    }

    /// Whatever is composed of units that mean one thing is their sum, in either parser; with a bare `m` anywhere in it a
    /// retention rule refuses it.
    #[test]
    fn composed_spans_are_sums() {
        let units = [("s", 1), ("min", 60), ("h", 3600), ("H", 3600), ("d", 86_400), ("w", 604_800)];
        let units = units.into_iter().chain([("mo", 2_592_000), ("y", 31_536_000)]).collect::<Vec<_>>();
        let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..500 {
            let (mut text, mut seconds) = (String::new(), 0);
            for _ in 0..=next(4) {
                let (number, (name, unit)) = (next(400) as u64, units[next(units.len())]);
                text.push_str(&format!("{number}{name}"));
                seconds += number * unit;
            }
            assert_eq!(duration(&text), Ok(Duration::from_secs(seconds)), "{text}");
            assert_eq!(retention_span(&text), duration(&text), "{text}");
            let with_m = format!("{text}{}m", next(9));
            assert!(
                retention_span(&with_m).expect_err("refused").contains("a minute or a month"),
                "{with_m}"
            );
            assert!(duration(&with_m).is_ok(), "{with_m}");
        }
    }

    #[test]
    fn slots_without_end_have_the_names_of_other_tools() {
        for all in ["all", "unlimited", "-1"] {
            assert_eq!(slots(all), Ok(Slots::All), "{all}");
        }
        assert_eq!((slots("0"), slots("7")), (Ok(Slots::Some(0)), Ok(Slots::Some(7))));
        for bad in ["", "-2", "some", "1.5", "ALL"] {
            assert!(slots(bad).is_err(), "{bad}");
        }
    }
}
