//! Checks, while the statements of a dump are read, that the dump is complete and able to restore a
//! cluster.
//!
//! A dump that came through a pipe may have lost its end, contain warnings of the program that
//! wrote it, or have been changed on the way. The server would reject most such dumps, but only
//! after the databases were dropped.

use super::lexer::CopyHeader;
use super::sql::SqlToken;
use crate::ops::backup::{CLUSTER_DUMP_COMPLETE, DATABASE_DUMP_COMPLETE};
use crate::types::to_u64;

const CLUSTER_COMPLETE: &[u8] = CLUSTER_DUMP_COMPLETE.as_bytes();
const PART_COMPLETE: &[u8] = DATABASE_DUMP_COMPLETE.as_bytes();
/// Upper limit of the quoted part of an unexpected line, in bytes.
const QUOTED_BYTES_MAX: usize = 60;
/// First words of statements. A dump has only a few of them; a dump that was edited by hand may
/// have others.
const STATEMENTS: [&str; 41] = [
    "abort",
    "alter",
    "analyze",
    "begin",
    "call",
    "checkpoint",
    "cluster",
    "comment",
    "commit",
    "copy",
    "create",
    "delete",
    "discard",
    "do",
    "drop",
    "end",
    "execute",
    "explain",
    "grant",
    "import",
    "insert",
    "load",
    "lock",
    "merge",
    "notify",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "security",
    "select",
    "set",
    "start",
    "truncate",
    "update",
    "vacuum",
    "with",
];

/// The reason why a dump is not restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShapeError {
    /// Something is missing or was changed.
    Torn(String),
    /// The dump was not made to restore a cluster.
    Partial(&'static str),
}

/// The properties of a dump's shape, collected from its pieces.
#[derive(Debug, Default)]
pub(super) struct DumpShape {
    lines: u64,
    /// The first error.
    torn: Option<String>,
    /// True after the beginning of a database's part, until its end.
    is_part_open: bool,
    has_parts: bool,
    has_end: bool,
    has_rows: bool,
    /// True if a statement creates a table that stores rows, so not a partitioned table.
    makes_tables: bool,
    /// True if a statement in a database's part creates an object other than a database.
    makes_objects: bool,
    /// The number of column separators in the current row so far.
    separators: usize,
}

impl DumpShape {
    /// Checks bytes as they arrive.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if bytes.contains(&0) {
            self.tear("it contains NUL bytes, which no dump has".to_owned());
        }
    }

    /// Counts a line that is not a row.
    pub fn line(&mut self) {
        self.lines += 1;
    }

    /// Checks a piece of a row.
    pub fn row(&mut self, bytes: &[u8], starts: bool, ends: bool, copy: Option<&CopyHeader>) {
        self.has_rows = true;
        if starts {
            self.separators = 0;
        }
        self.separators += bytes.iter().filter(|&&byte| byte == b'\t').count();
        if !ends {
            return;
        }
        self.lines += 1;
        let Some(copy) = copy.filter(|copy| !copy.has_options && !copy.columns.is_empty()) else {
            return;
        };
        if self.separators + 1 != copy.columns.len() {
            let table = String::from_utf8_lossy(&copy.table).into_owned();
            let line = self.lines;
            let found = self.separators + 1;
            let wanted = copy.columns.len();
            self.tear(format!(
                "line {line}, a row of '{table}', has {found} columns instead of {wanted}"
            ));
        }
    }

    /// Counts the line after a table's rows, of which there may be none.
    pub fn rows_end(&mut self) {
        self.has_rows = true;
        self.lines += 1;
    }

    /// Checks a comment that is a line of its own.
    pub fn comment(&mut self, line: &[u8]) {
        match line.trim_ascii_end() {
            CLUSTER_COMPLETE => self.has_end = true,
            PART_COMPLETE => self.is_part_open = false,
            _ => {}
        }
        self.line_end(line);
    }

    /// Checks the first line of a database's part.
    pub fn part(&mut self, line: &[u8]) {
        if self.is_part_open {
            self.tear(format!(
                "the part of a database that ends before line {} is cut off",
                self.lines
            ));
        }
        (self.is_part_open, self.has_parts, self.has_end) = (true, true, false);
        self.line_end(line);
    }

    /// Checks a statement with its line's end, a blank line, or a command of psql.
    pub fn statement(&mut self, text: &[u8], tokens: &[SqlToken]) {
        self.line_end(text);
        let Some(first) = tokens.first() else { return };
        if !STATEMENTS.iter().any(|word| first.is(word)) {
            let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
            let quoted =
                String::from_utf8_lossy(&line[..line.len().min(QUOTED_BYTES_MAX)]).into_owned();
            let ends = text.iter().filter(|&&byte| byte == b'\n').count();
            let at = self.lines.saturating_sub(to_u64(ends)) + 1;
            self.tear(format!(
                "line {at} is not a statement: '{}'",
                quoted.trim_end()
            ));
        }
        self.has_rows |= first.is("insert");
        let Some(kind) = tokens.get(1).filter(|_| first.is("create")) else {
            return;
        };
        self.makes_objects |= self.has_parts && !kind.is("database");
        let is_partitioned = tokens
            .windows(2)
            .any(|pair| pair[0].is("partition") && pair[1].is("by"));
        self.makes_tables |= (kind.is("table") || kind.is("unlogged")) && !is_partitioned;
    }

    /// Returns the result for the whole dump: the reason why it cannot be restored, if any.
    pub fn judge(self) -> Option<ShapeError> {
        let partial = |why| Some(ShapeError::Partial(why));
        if let Some(why) = self.torn {
            return Some(ShapeError::Torn(why));
        }
        if !self.has_end || self.is_part_open {
            let why = format!("the line '{CLUSTER_DUMP_COMPLETE}' is missing at its end");
            return Some(ShapeError::Torn(why));
        }
        match (
            self.has_parts,
            self.makes_objects,
            self.makes_tables,
            self.has_rows,
        ) {
            (false, ..) => partial(
                "it holds roles and tablespaces but no database (pg_dumpall --globals-only)",
            ),
            (_, false, _, true) => partial("it holds rows but no tables (pg_dumpall --data-only)"),
            (_, _, true, false) => {
                partial("it holds tables but no rows (pg_dumpall --schema-only)")
            }
            _ => None,
        }
    }

    /// Checks that a line between statements ends as the program wrote it.
    fn line_end(&mut self, text: &[u8]) {
        if text.ends_with(b"\r\n") {
            let why = "its lines end with CR LF: it came through a terminal (docker exec -t) or an editor, which changed text in it";
            self.tear(why.to_owned());
        }
    }

    fn tear(&mut self, why: String) {
        self.torn.get_or_insert(why);
    }
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
