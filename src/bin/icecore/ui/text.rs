//! Formats text for people: sizes, numbers, times, tables, and names made safe for a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use icecore::types::{ByteSize, EntryKind, Timestamp};
use jiff::tz::TimeZone;

/// Escapes control characters, which could otherwise control the reader's terminal.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Formats bytes that are usually UTF-8, without control characters. Invalid bytes become `\xNN`,
/// so that no two texts look alike.
pub fn bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        out.push_str(&clean(part.valid()));
        part.invalid()
            .iter()
            .for_each(|byte| out.push_str(&format!("\\x{byte:02x}")));
    }
    out
}

/// Formats a size in IEC units.
pub fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

/// Formats a number with a comma every three digits.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Formats a number with its noun: `1 file`, `2 files`.
pub fn counted(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}

/// Formats a span of time in the two largest units that it needs: `0.4s`, `12s`, `3m05s`, `2h10m`,
/// `4d03h`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", time.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Formats a time in the local zone, with the zone's offset from UTC.
pub fn when(at: Timestamp) -> String {
    when_in(at, TimeZone::system())
}

fn when_in(at: Timestamp, zone: TimeZone) -> String {
    let time = i32::try_from(at.nanos())
        .ok()
        .and_then(|n| jiff::Timestamp::new(at.seconds(), n).ok());
    match time {
        Some(time) => time
            .to_zoned_datetime(zone)
            .strftime("%Y-%m-%d %H:%M:%S %:z")
            .to_string(),
        // Outside the range of the calendar.
        None => format!("@{}", at.seconds()),
    }
}

/// Formats the kind and the permission bits like `ls -l`.
pub fn mode(kind: Option<EntryKind>, bits: u16) -> String {
    let first = match kind {
        Some(EntryKind::File) => '-',
        Some(EntryKind::Directory) => 'd',
        Some(EntryKind::Symlink) => 'l',
        Some(EntryKind::Fifo) => 'p',
        Some(EntryKind::Socket) => 's',
        Some(EntryKind::Char) => 'c',
        Some(EntryKind::Block) => 'b',
        Some(EntryKind::Failed | EntryKind::Removed) | None => '?',
    };
    let mut out = String::from(first);
    for (shift, special, set, unset) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let part = bits >> shift;
        out.push(if part & 4 != 0 { 'r' } else { '-' });
        out.push(if part & 2 != 0 { 'w' } else { '-' });
        out.push(match (bits & special != 0, part & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

/// Rows in columns as wide as their widest cell. Held in memory, so for short lists only.
pub struct Table {
    /// Columns that are aligned to the right.
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with these headings. A heading that begins with `>` aligns its column to the
    /// right.
    pub fn new(headings: &[&str]) -> Self {
        let right = headings.iter().map(|h| h.starts_with('>')).collect();
        let heading = headings
            .iter()
            .map(|h| h.trim_start_matches('>').to_owned())
            .collect();
        Self {
            right,
            rows: vec![heading],
        }
    }

    /// Adds a row. Control characters are escaped.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }

    /// Returns the rows as lines without trailing blanks.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|r| r.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        self.rows.iter().map(move |row| {
            let mut line = String::new();
            for ((cell, &width), &right) in row.iter().zip(&widths).zip(&self.right) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                // Writing to a String cannot fail.
                let _ = if right {
                    write!(line, "{cell:>width$}")
                } else {
                    write!(line, "{cell:<width$}")
                };
            }
            line.truncate(line.trim_end().len());
            line
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_read_well() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(number),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(counted(1, "file", "files"), "1 file");
        assert_eq!(counted(2000, "file", "files"), "2,000 files");
        let spans = [
            (400, "0.4s"),
            (12_300, "12s"),
            (185_000, "3m05s"),
            (7_800_000, "2h10m"),
        ];
        for (millis, text) in spans {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
        assert_eq!(span(Duration::from_secs(4 * 86_400 + 3 * 3600)), "4d03h");
    }

    #[test]
    fn times_show_their_zone() {
        assert_eq!(
            when_in(Timestamp::from_seconds(0), TimeZone::UTC),
            "1970-01-01 00:00:00 +00:00"
        );
        let zone = TimeZone::fixed(jiff::tz::offset(-2));
        assert_eq!(
            when_in(Timestamp::from_seconds(0), zone),
            "1969-12-31 22:00:00 -02:00"
        );
        assert_eq!(
            when_in(Timestamp::from_seconds(i64::MAX), TimeZone::UTC),
            format!("@{}", i64::MAX)
        );
    }

    #[test]
    fn modes_read_as_in_ls() {
        assert_eq!(mode(Some(EntryKind::Directory), 0o1777), "drwxrwxrwt");
        assert_eq!(mode(Some(EntryKind::File), 0o4644), "-rwSr--r--");
        assert_eq!(mode(Some(EntryKind::File), 0o2751), "-rwxr-s--x");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">size"]);
        table.row(["ä\t".to_owned(), "5".to_owned()]);
        table.row(["longer".to_owned(), "1234567".to_owned()]);
        let lines: Vec<String> = table.lines().collect();
        assert_eq!(
            lines,
            ["name       size", "ä\\t           5", "longer  1234567"]
        );
    }
}
