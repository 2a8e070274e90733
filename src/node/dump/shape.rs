//! Whether a dump is whole, and of a kind that brings a cluster back: found while its statements
//! are read.
//!
//! A dump that came through a pipe may have lost its end, hold the warnings of the program that
//! wrote it, or have been changed on its way. The server would object to most of that, but only
//! after the databases were dropped.

use super::lexer::CopyHeader;
use super::sql::Token;
use crate::ops::backup::{CLUSTER_DUMP_COMPLETE, DATABASE_DUMP_COMPLETE};

const CLUSTER_COMPLETE: &[u8] = CLUSTER_DUMP_COMPLETE.as_bytes();
const PART_COMPLETE: &[u8] = DATABASE_DUMP_COMPLETE.as_bytes();
/// How much of an unexpected line is quoted.
const QUOTED_BYTES_MAX: usize = 60;
/// The first words of statements. A dump has a few of these; one that was changed by hand may have
/// others.
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

/// Why a dump is not restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misshapen {
    /// Something of it is missing or was changed.
    Torn(String),
    /// It was not made to bring a cluster back.
    Partial(&'static str),
}

/// What the pieces of a dump say of its shape.
#[derive(Debug, Default)]
pub(super) struct Shape {
    lines: u64,
    /// The first thing that is wrong.
    torn: Option<String>,
    /// The part of a database has begun and not ended.
    is_part_open: bool,
    has_parts: bool,
    has_end: bool,
    has_rows: bool,
    /// Some statement makes a table that holds rows of its own.
    makes_tables: bool,
    /// Some statement of a database's part makes anything.
    makes_objects: bool,
    /// Column separators in the current row.
    separators: usize,
}

impl Shape {
    /// Looks at bytes as they come.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if bytes.contains(&0) {
            self.tear("it holds bytes of zero, which no dump has".to_owned());
        }
    }

    /// The end of a line that is no row.
    pub fn line(&mut self) {
        self.lines += 1;
    }

    /// A piece of a row.
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
            let (line, found, wanted) = (self.lines, self.separators + 1, copy.columns.len());
            self.tear(format!(
                "line {line}, a row of '{table}', has {found} columns of {wanted}"
            ));
        }
    }

    /// The line after a table's rows, of which there may be none.
    pub fn rows_end(&mut self) {
        self.has_rows = true;
        self.lines += 1;
    }

    /// A comment that is a line of its own.
    pub fn comment(&mut self, line: &[u8]) {
        match line.trim_ascii_end() {
            CLUSTER_COMPLETE => self.has_end = true,
            PART_COMPLETE => self.is_part_open = false,
            _ => {}
        }
        self.line_end(line);
    }

    /// The part of a database begins.
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

    /// A statement with its line's end, a blank line, or a command of psql.
    pub fn statement(&mut self, text: &[u8], tokens: &[Token]) {
        self.line_end(text);
        let Some(first) = tokens.first() else { return };
        if !STATEMENTS.iter().any(|word| first.is(word)) {
            let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
            let quoted =
                String::from_utf8_lossy(&line[..line.len().min(QUOTED_BYTES_MAX)]).into_owned();
            let at = self
                .lines
                .saturating_sub(text.iter().filter(|&&byte| byte == b'\n').count() as u64)
                + 1;
            self.tear(format!(
                "line {at} is no statement: '{}'",
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

    /// What the whole of it came to.
    pub fn judge(self) -> Option<Misshapen> {
        let partial = |why| Some(Misshapen::Partial(why));
        if let Some(why) = self.torn {
            return Some(Misshapen::Torn(why));
        }
        if !self.has_end || self.is_part_open {
            let why = format!("the line '{CLUSTER_DUMP_COMPLETE}' is missing at its end");
            return Some(Misshapen::Torn(why));
        }
        match (
            self.has_parts,
            self.makes_objects,
            self.makes_tables,
            self.has_rows,
        ) {
            (false, ..) => partial(
                "it holds roles and tablespaces and no database (pg_dumpall --globals-only)",
            ),
            (_, false, _, true) => partial("it holds rows and no tables (pg_dumpall --data-only)"),
            (_, _, true, false) => {
                partial("it holds tables and no rows (pg_dumpall --schema-only)")
            }
            _ => None,
        }
    }

    /// A line between statements has the ending that the program wrote.
    fn line_end(&mut self, text: &[u8]) {
        if text.ends_with(b"\r\n") {
            let why = "its lines end with CR LF: it came through a terminal (docker exec -t) or an editor, and text in it is changed";
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
