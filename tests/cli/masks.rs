//! Replaces what changes from run to run: paths, ids, times, spans, sizes of stored data, and names of the machine.

use std::collections::BTreeMap;

/// Stands for a time of a table. It has the width of one, so that columns stay where they are.
const TIME: &str = "YYYY-MM-DD hh:mm:ss +00:00";
/// Stands for a time of JSON.
const TIME_JSON: &str = "YYYY-MM-DDThh:mm:ssZ";

/// Fields of JSON whose numbers depend on the machine, on random bytes or on the speed.
const NUMBERS: &[&str] = &[
    "age_seconds",
    "bytes",
    "bytes_fetched",
    "bytes_freed",
    "bytes_new",
    "bytes_read",
    "bytes_saved",
    "bytes_stored",
    "cache_bytes",
    "condemned_bytes",
    "gid",
    "metadata_bytes",
    "seconds",
    "stored_bytes",
    "uid",
];

/// The masks of one test. An id keeps its number within the test.
pub(crate) struct Masks {
    /// The directory of the test, shown as `$T`.
    directory: String,
    /// The name of this machine.
    host: String,
    ids: BTreeMap<String, usize>,
}

impl Masks {
    /// Creates the masks of a test in this directory.
    pub(crate) fn new(directory: &str, host: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            host: host.to_owned(),
            ids: BTreeMap::new(),
        }
    }

    /// Masks an output. `has_quantities` is false for a usage error: its sizes and spans are those of the command line.
    pub(crate) fn mask(&mut self, text: &str, has_quantities: bool) -> String {
        // Root has its settings elsewhere.
        let text = text
            .replace(&self.directory, "$T")
            .replace("/etc/icecore/", "$SETTINGS/")
            .replace("$T/home/.config/icecore/", "$SETTINGS/");
        let lines: Vec<String> = text
            .lines()
            .map(|line| self.line(line, has_quantities))
            .collect();
        let mut text = lines.join("\n");

        // The width of a column with masked values is not known.
        if ["<span>", "<host>", "<owner>"]
            .iter()
            .any(|mask| text.contains(mask))
        {
            text = squeezed(&text);
        }
        text
    }

    fn line(&mut self, line: &str, has_quantities: bool) -> String {
        let mut line = times(line);
        // Frames of a pack come in the order in which they were compressed.
        for number in ["frame 0", "frame 1", "frame 2"] {
            line = line.replace(number, "frame N");
        }
        if line.starts_with("{\"") {
            line = numbers(&line);
        } else if let Some(listed) = without_owner(&line) {
            line = listed;
        } else if has_quantities {
            line = quantities(&line);
        }
        let line = self.numbered_ids(&line);
        self.without_host(&line)
    }

    /// Replaces each run of at least eight hexadecimal digits by a number of its first eight digits.
    fn numbered_ids(&mut self, line: &str) -> String {
        let mut out = String::new();
        for word in words(line) {
            let is_id = word.len() >= 8
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
            if is_id {
                let next = self.ids.len() + 1;
                let number = *self.ids.entry(word[..8].to_owned()).or_insert(next);
                let more = if word.len() > 8 { "…" } else { "" };
                out.push_str(&format!("[id-{number:03}{more}]"));
            } else {
                out.push_str(word);
            }
        }
        // A pack lies in a directory named by the last digits of its id.
        let mut parts = out.split("packs/");
        let mut masked = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            masked.push_str("packs/");
            match part.get(2..) {
                Some(rest) if rest.starts_with("/[id-") => {
                    masked.push_str("xx");
                    masked.push_str(rest);
                }
                _ => masked.push_str(part),
            }
        }
        masked
    }

    /// Replaces the machine's name where it is the label of a key.
    fn without_host(&self, line: &str) -> String {
        if self.host.is_empty() {
            return line.to_owned();
        }
        let host = &self.host;
        let line = line.replace(&format!("\"label\":\"{host}\""), "\"label\":\"<host>\"");
        match line.split_once(&format!("{TIME}  {host}")) {
            Some((before, after)) if after.is_empty() || after.starts_with(' ') => {
                format!("{before}{TIME}  <host>{after}")
            }
            _ => line,
        }
    }
}

/// Splits a line into runs of letters and digits, and single other characters.
fn words(line: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let end = if first.is_ascii_alphanumeric() {
            rest.find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (word, after) = rest.split_at(end);
        out.push(word);
        rest = after;
    }
    out
}

/// Returns true if the text starts with this pattern: `0` is a digit, others are themselves.
fn shaped(text: &str, pattern: &str) -> bool {
    text.len() >= pattern.len()
        && text
            .bytes()
            .zip(pattern.bytes())
            .all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            })
}

fn times(line: &str) -> String {
    const DATE_AND_TIME: usize = "0000-00-00 00:00:00".len();
    let mut out = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        if shaped(rest, "0000-00-00 00:00:00 +00:00") {
            out.push_str(TIME);
            rest = &rest[TIME.len()..];
        } else if shaped(rest, "0000-00-00T00:00:00") {
            let end = rest[DATE_AND_TIME..]
                .find('Z')
                .map_or(rest.len(), |at| DATE_AND_TIME + at + 1);
            out.push_str(TIME_JSON);
            rest = &rest[end..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// Masks the numbers of some fields of JSON.
fn numbers(line: &str) -> String {
    let mut line = line.to_owned();
    for name in NUMBERS {
        let key = format!("\"{name}\":");
        let mut done = 0;
        while let Some(at) = line[done..].find(&key) {
            let from = done + at + key.len();
            let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | 'e');
            let to = line[from..]
                .find(|c: char| !is_part(c))
                .map_or(line.len(), |at| from + at);
            if to > from {
                line.replace_range(from..to, "N");
            }
            done = from;
        }
    }
    line
}

/// Masks spans (`0.4s`, `12s`, `1m05s`) and sizes (`12 B`, `1.4 KiB`).
fn quantities(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let starts_word = !previous.is_alphanumeric() && !matches!(previous, '.' | '-' | '\'');
        if first.is_ascii_digit()
            && starts_word
            && let Some((len, mask)) = quantity(rest)
        {
            let is_written = out.ends_with("written (") || out.ends_with("be written (");
            out.push_str(if is_written { &rest[..len] } else { mask });
            previous = 'x';
            rest = &rest[len..];
        } else {
            out.push(first);
            previous = first;
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// Returns the length and the mask of the span or size at the start of the text.
fn quantity(text: &str) -> Option<(usize, &'static str)> {
    let number = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let after = &text[number..];
    let ends = |len: usize| !after[len..].starts_with(|c: char| c.is_alphanumeric());
    for unit in [" B", " KiB", " MiB", " GiB"] {
        if after.starts_with(unit) && ends(unit.len()) {
            return Some((number + unit.len(), "<size>"));
        }
    }
    if after.starts_with('s') && ends(1) {
        return Some((number + 1, "<span>"));
    }
    if shaped(after, "m00s") && ends(4) {
        return Some((number + 4, "<span>"));
    }
    None
}

/// Masks owner and group of a line of `ls -l`. Returns `None` for any other line.
fn without_owner(line: &str) -> Option<String> {
    let (mode, rest) = line.split_at_checked("drwxr-xr-x".len())?;
    let is_mode = mode.starts_with(['-', 'd', 'l', 'p', 's'])
        && mode[1..].chars().all(|c| "-rwxsStT".contains(c))
        && rest.starts_with(' ');
    if !is_mode {
        return None;
    }
    let after = |text: &str| -> Option<usize> {
        let blanks = text.len() - text.trim_start().len();
        Some(blanks + text[blanks..].find(' ')?)
    };
    let owner = after(rest)?;
    let group = owner + after(&rest[owner..])?;
    Some(format!("{mode} <owner> <group>{}", &rest[group..]))
}

/// Makes two blanks of each longer run of blanks.
fn squeezed(text: &str) -> String {
    let mut out = String::new();
    let mut blanks = 0;
    for c in text.chars() {
        blanks = if c == ' ' { blanks + 1 } else { 0 };
        if blanks <= 2 {
            out.push(c);
        }
    }
    out
}

#[test]
fn values_that_differ_between_runs_are_masked() {
    let mut masks = Masks::new("/tmp/x", "vm");
    let mut masked = |text: &str| masks.mask(text, true);
    assert_eq!(masked("/tmp/x/data: gone"), "$T/data: gone");
    assert_eq!(
        masked("12 files, 1.4 KiB stored, in 0.3s"),
        "12 files, <size> stored, in <span>"
    );
    assert_eq!(masked("snapshot 13b28bef made"), "snapshot [id-001] made");
    assert_eq!(
        masked("{\"id\":\"13b28bef641cc477\",\"seconds\":0.25,\"files\":3}"),
        "{\"id\":\"[id-001…]\",\"seconds\":N,\"files\":3}"
    );
    assert_eq!(
        masked("{\"time\":\"2026-11-30T11:05:22.77Z\"}"),
        "{\"time\":\"YYYY-MM-DDThh:mm:ssZ\"}"
    );
    assert_eq!(
        masked("2026-11-30 11:05:22 +00:00  vm  used now"),
        "YYYY-MM-DD hh:mm:ss +00:00  <host>  used now"
    );
}

#[test]
fn the_owner_of_a_listed_file_is_masked() {
    let line = "-rw-r--r-- someone  users       6 B data/small";
    assert_eq!(
        Masks::new("/tmp/x", "vm").mask(line, true),
        "-rw-r--r-- <owner> <group>  6 B data/small"
    );
}

#[test]
fn the_quantities_of_a_usage_error_are_kept() {
    let text = "memory is at least 64MiB, and this is 1 B";
    assert_eq!(Masks::new("/tmp/x", "vm").mask(text, false), text);
}
