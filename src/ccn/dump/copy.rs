//! Reads the rows of a few tables from a PostgreSQL dump, as a stream.
//!
//! The dump is the text output of `pg_dump` or `pg_dumpall`, with rows in COPY's text format.
//! Memory is bounded by the longest row of a wanted table. Other lines of any length are skipped
//! without being stored.

use std::fmt;
use std::io::{self, Write};

use super::lexer::{CopyHeader, DumpLexer, DumpPiece, LineContext};
use crate::Error;

/// Upper limit of a row of a wanted table, in bytes of the dump.
pub const ROW_BYTES_MAX: usize = 1 << 20;

/// A table to read, and the columns to read of it.
#[derive(Debug, Clone, Copy)]
pub struct WantedTable {
    /// The table's name in the schema `public`.
    pub table: &'static str,
    pub columns: &'static [&'static str],
}

/// The reason why a dump could not be read.
#[derive(Debug)]
pub enum DumpError {
    /// No database in the dump has such a table.
    NoTable(&'static str),
    NoColumn {
        table: &'static str,
        column: &'static str,
    },
    /// The rows are not in COPY's text format.
    Options(&'static str),
    /// A row is malformed.
    Row {
        table: &'static str,
        /// Counted from 1 in the table.
        number: u64,
        why: String,
    },
    /// The dump ends inside a statement or a table.
    Cut,
    /// The receiver of the rows failed.
    Taker(Error),
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTable(table) => write!(
                f,
                "it has no rows of a table public.{table} (COPY … FROM stdin)"
            ),
            Self::NoColumn { table, column } => {
                write!(f, "its table public.{table} has no column {column}")
            }
            Self::Options(table) => {
                write!(f, "its table public.{table} is not in COPY's text format")
            }
            Self::Row { table, number, why } => {
                write!(f, "row {number} of its table public.{table}: {why}")
            }
            Self::Cut => f.write_str("it is truncated"),
            Self::Taker(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DumpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Taker(error) => error.source(),
            _ => None,
        }
    }
}

/// Receives the rows: the table's index in the list of wanted tables, and the row's fields.
pub type EachRow<'a> = dyn FnMut(usize, &[Option<Vec<u8>>]) -> Result<(), RowError> + 'a;

/// An error of the receiver of rows.
#[derive(Debug)]
pub enum RowError {
    /// The row is malformed, for this reason.
    Bad(String),
    /// Another error.
    Other(Error),
}

/// Takes a dump's bytes and passes on the rows of the wanted tables, of all databases in the dump.
pub struct CopyReader<'a> {
    wanted: &'a [WantedTable],
    each: &'a mut EachRow<'a>,
    lexer: DumpLexer,
    /// The wanted table whose rows are being read, if any.
    active: Option<ActiveCopy>,
    /// The current row, if it did not arrive in one piece.
    row: Vec<u8>,
    fields: Vec<Option<Vec<u8>>>,
    seen: Vec<bool>,
    /// For each wanted name, a column that a table of this name lacks. Such a table belongs to
    /// another application, in another database.
    lacking: Vec<Option<&'static str>>,
    /// The first error. Nothing is read after it.
    error: Option<DumpError>,
}

struct ActiveCopy {
    table: usize,
    columns: Vec<usize>,
    /// The number of columns of the table.
    width: usize,
    row: u64,
}

impl<'a> CopyReader<'a> {
    /// Creates a reader for the beginning of a dump.
    pub fn new(wanted: &'a [WantedTable], each: &'a mut EachRow<'a>) -> Self {
        Self {
            wanted,
            each,
            lexer: DumpLexer::new(),
            active: None,
            row: Vec::new(),
            fields: Vec::new(),
            seen: vec![false; wanted.len()],
            lacking: vec![None; wanted.len()],
            error: None,
        }
    }

    /// Takes the error that made a write fail, if there was one.
    pub fn take_error(&mut self) -> Option<DumpError> {
        self.error.take()
    }

    /// Ends the dump.
    ///
    /// # Errors
    /// Returns an error if the dump ended in the middle, or if it lacks a wanted table.
    pub fn finish(mut self) -> Result<(), DumpError> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        if !self.lexer.is_at_rest() {
            return Err(DumpError::Cut);
        }
        let Some(missing) = self.seen.iter().position(|&seen| !seen) else {
            return Ok(());
        };
        let table = self.wanted[missing].table;
        Err(match self.lacking[missing] {
            Some(column) => DumpError::NoColumn { table, column },
            None => DumpError::NoTable(table),
        })
    }

    fn push(&mut self, mut input: &[u8]) -> Result<(), DumpError> {
        while let Some(piece) = self.lexer.next(&mut input) {
            match piece.place {
                LineContext::CopyData => {
                    if self.active.is_some() {
                        self.row_piece(piece)?;
                    }
                }
                LineContext::CopyEnd => {
                    self.row.clear();
                    self.active = None;
                }
                LineContext::Between | LineContext::Statement => {
                    if piece.ends
                        && let Some(header) = self.lexer.copy().cloned()
                    {
                        self.active = self.activate(&header)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Finds the wanted table that a COPY statement names.
    fn activate(&mut self, header: &CopyHeader) -> Result<Option<ActiveCopy>, DumpError> {
        if header
            .schema
            .as_deref()
            .is_some_and(|schema| schema != b"public")
        {
            return Ok(None);
        }
        let found = self
            .wanted
            .iter()
            .position(|wanted| wanted.table.as_bytes() == header.table);
        let Some(table) = found else { return Ok(None) };

        let WantedTable {
            table: name,
            columns: wanted,
        } = self.wanted[table];

        let mut columns = Vec::with_capacity(wanted.len());
        for column in wanted {
            match header
                .columns
                .iter()
                .position(|name| name == column.as_bytes())
            {
                Some(at) => columns.push(at),
                None => {
                    self.lacking[table].get_or_insert(column);
                    return Ok(None);
                }
            }
        }

        if header.has_options {
            return Err(DumpError::Options(name));
        }

        self.seen[table] = true;
        Ok(Some(ActiveCopy {
            table,
            columns,
            width: header.columns.len(),
            row: 0,
        }))
    }

    fn row_piece(&mut self, piece: DumpPiece<'_>) -> Result<(), DumpError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        let table = self.wanted[active.table].table;
        if piece.starts {
            active.row += 1;
        }

        let bad = |number, why| DumpError::Row { table, number, why };

        if self.row.len() + piece.bytes.len() > ROW_BYTES_MAX {
            return Err(bad(active.row, "longer than 1 MiB".to_owned()));
        }

        if !piece.ends {
            self.row.extend_from_slice(piece.bytes);
            return Ok(());
        }

        // Most rows arrive in one piece and are decoded without a copy.
        let line = if piece.starts {
            piece.bytes
        } else {
            self.row.extend_from_slice(piece.bytes);
            &self.row
        };
        let line = line.strip_suffix(b"\n").unwrap_or(line);

        self.fields.resize(active.columns.len(), None);
        if let Err((has, wants)) = decode(line, active, &mut self.fields) {
            return Err(bad(active.row, format!("{has} columns instead of {wants}")));
        }

        let taken = (self.each)(active.table, &self.fields);
        let number = active.row;
        self.row.clear();

        taken.map_err(|error| match error {
            RowError::Bad(why) => bad(number, why),
            RowError::Other(error) => DumpError::Taker(error),
        })
    }
}

/// Decodes a row's wanted fields. An error has the number of columns of the row, and of the table.
fn decode(
    line: &[u8],
    active: &ActiveCopy,
    out: &mut [Option<Vec<u8>>],
) -> Result<(), (usize, usize)> {
    let mut count = 0;
    for (at, field) in line.split(|&byte| byte == b'\t').enumerate() {
        count += 1;
        for (out, _) in out
            .iter_mut()
            .zip(&active.columns)
            .filter(|&(_, &column)| column == at)
        {
            if field == b"\\N" {
                *out = None;
            } else {
                unescape(field, out.get_or_insert_default());
            }
        }
    }
    if count == active.width {
        Ok(())
    } else {
        Err((count, active.width))
    }
}

/// Decodes a field of COPY's text format into `out`.
pub fn unescape(field: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = field;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let Some((&byte, after)) = rest.split_first() else {
            return;
        };
        rest = after;
        match byte {
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(0x0b),
            b'0'..=b'7' => {
                let mut value = byte - b'0';
                for _ in 0..2 {
                    let Some((&digit @ b'0'..=b'7', after)) = rest.split_first() else {
                        break;
                    };
                    value = value << 3 | (digit - b'0');
                    rest = after;
                }
                out.push(value);
            }
            b'x' => {
                let mut value = 0;
                let mut digits = 0;
                while digits < 2
                    && let Some((&digit, after)) = rest.split_first()
                    && let Some(digit) = char::from(digit).to_digit(16)
                    && let Ok(digit) = u8::try_from(digit)
                {
                    value = value << 4 | digit;
                    (rest, digits) = (after, digits + 1);
                }
                out.push(if digits == 0 { b'x' } else { value });
            }
            other => out.push(other),
        }
    }
    out.extend_from_slice(rest);
}

impl Write for CopyReader<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.error.is_none() {
            self.error = self.push(bytes).err();
        }
        match &self.error {
            Some(error) => Err(io::Error::other(error.to_string())),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for CopyReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyReader")
            .field("lexer", &self.lexer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
