//! Makes a cluster's dump suitable for `psql` with `ON_ERROR_STOP`.
//!
//! `pg_dumpall --clean` drops databases and roles that a fresh cluster does not have, and even the
//! role that connects, so some of its statements must fail. Only these are replaced:
//!
//! | statement | replacement |
//! |---|---|
//! | `DROP DATABASE` | the same with `IF EXISTS`; a template is first made an ordinary database, since templates cannot be dropped |
//! | `DROP TABLESPACE` | the same with `IF EXISTS` |
//! | `DROP ROLE x` | the same with `IF EXISTS`; if objects depend on the role, it stays and its settings are reset |
//! | `CREATE ROLE x` | the same, unless the role stayed |
//! | `DROP ROLE`, `CREATE ROLE` of the connected role | the role stays and its settings are reset |
//! | `ALTER ROLE … WITH` of the connected role | moved to the end, because it may remove rights or a password that the rest needs |
//! | the beginning of a database's part, if encodings require it | preceded by a connection to a database that accepts every encoding |
//! | `REFRESH MATERIALIZED VIEW` | the same; if its query fails, which may need a search path that a dump does not set, or another server, the view stays empty and a warning names it |
//! | `CREATE EVENT TRIGGER` | the same, after a setting that keeps it from firing in this session: `pg_dump` refreshes materialized views after it |
//! | `SET transaction_timeout = 0`, written by `pg_dump` 17 and later | left out for an older server |
//!
//! Commands of `psql` pass only if they are among the few that a dump contains. A `psql` that does
//! not know `\restrict` gets none: the pair of lines around a section is left out. Rows of tables,
//! literals and bodies of functions pass unchanged, whether or not they look like one of these.

use std::io::{self, Write};

use super::command::PsqlCommand;
use super::lexer::{DumpLexer, DumpPiece, LineContext};
use super::name::SqlName;

/// Lines that may have to be replaced are held in memory up to this length, in bytes. No longer
/// line is one of these statements.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Precedes the dump's first line. Suppresses the notices of `IF EXISTS` for missing objects.
const PREFIX: &[u8] = b"SET client_min_messages = warning; ";

/// Prefix of the warning for a view that could not be refreshed.
pub const EMPTY_VIEW: &[u8] = b"icecore: not refreshed: ";

/// The line with which `pg_dump` begins a database's part.
pub(super) const SECTION: &[u8] = b"-- PostgreSQL database dump";

/// Rules for changing a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRules {
    /// The role that connects.
    pub role: String,
    /// True if `psql` knows `\restrict`.
    pub knows_restrict: bool,
    /// True if the server that receives the dump has the setting `transaction_timeout`: PostgreSQL
    /// 17 and later.
    pub knows_transaction_timeout: bool,
    /// The database that `psql` connects to before each database's part. The part sets its encoding
    /// before it connects, and the previous database may have no conversion to it.
    pub neutral: Option<String>,
    /// A word of letters and digits that `psql` prints on standard error at the end of the dump.
    /// The exit code is not sufficient: if the connection to `psql` breaks, `psql` sees the end of
    /// its input and exits with 0.
    pub last_word: Option<String>,
}

/// Takes a dump's bytes and writes the input of `psql`.
#[derive(Debug)]
pub struct RestoreFilter<W> {
    out: W,
    rules: FilterRules,
    lexer: DumpLexer,
    has_begun: bool,
    /// True before the first `\connect`. Only this part has statements about roles and tablespaces.
    is_in_globals: bool,
    /// The key of the current section, if its `\restrict` was left out.
    key: Option<Vec<u8>>,
    /// The beginning of the current line, if the line may have to be replaced.
    held: Option<Vec<u8>>,
    /// Statements to write at the end.
    put_off: Vec<u8>,
}

impl<W: Write> RestoreFilter<W> {
    /// Creates a filter for the beginning of a dump.
    pub fn new(out: W, rules: FilterRules) -> Self {
        Self {
            out,
            rules,
            lexer: DumpLexer::new(),
            has_begun: false,
            is_in_globals: true,
            key: None,
            held: None,
            put_off: Vec::new(),
        }
    }

    /// Ends the dump and writes the deferred statements.
    ///
    /// # Errors
    /// Returns an error if the output failed, or if the dump ended inside a statement, a comment,
    /// COPY data or a restricted section. In the latter case the deferred statements are not
    /// written.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(held) = self.held.take() {
            self.out.write_all(&held)?;
        }
        if !self.lexer.is_at_rest() || self.key.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the dump is truncated",
            ));
        }
        if !self.put_off.is_empty() {
            self.out.write_all(b"\n")?;
            self.out.write_all(&self.put_off)?;
        }
        if let Some(word) = &self.rules.last_word {
            self.out
                .write_all(format!("\n\\warn {word}\n").as_bytes())?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    fn pass(&mut self, input: &[u8]) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.out.write_all(PREFIX)?;
        }
        // Lines that pass unchanged are written together, as one slice from `start` on.
        let mut rest = input;
        let mut start = 0;
        loop {
            let commands = self.lexer.commands();
            let Some(piece) = self.lexer.next(&mut rest) else {
                break;
            };
            // A command on a line of its own is checked by `instead` once the line is complete.
            let is_whole_command = piece.starts
                && piece.place == LineContext::Between
                && piece.bytes.starts_with(b"\\");
            if self.lexer.commands() != commands && !is_whole_command {
                return Err(unexpected_command());
            }

            let end = input.len() - rest.len();
            let begin = end - piece.bytes.len();

            if self.held.is_none() && !(piece.starts && self.is_of_interest(&piece)) {
                continue;
            }

            if self.held.is_none() && piece.ends {
                // The usual case: the whole line is in this input.
                if let Some(instead) = self.instead(piece.bytes)? {
                    self.out.write_all(&input[start..begin])?;
                    self.out.write_all(&instead)?;
                    start = end;
                }
                continue;
            }

            self.out.write_all(&input[start..begin])?;
            start = end;
            let mut line = self.held.take().unwrap_or_default();
            line.extend_from_slice(piece.bytes);
            if piece.ends {
                let instead = self.instead(&line)?;
                self.out.write_all(instead.as_deref().unwrap_or(&line))?;
            } else if line.len() > LINE_BYTES_MAX {
                if line.starts_with(b"\\") {
                    return Err(unexpected_command());
                }
                self.out.write_all(&line)?;
            } else {
                self.held = Some(line);
            }
        }
        self.out.write_all(&input[start..])
    }

    /// Returns true if a line with this beginning may have to be replaced.
    fn is_of_interest(&self, piece: &DumpPiece<'_>) -> bool {
        let is_between = piece.place == LineContext::Between;
        let is_comment = piece.bytes.first() == Some(&b'-') && self.rules.neutral.is_some();
        is_between
            && (is_comment
                || matches!(
                    piece.bytes.first(),
                    Some(b'D' | b'C' | b'A' | b'R' | b'S' | b'\\')
                ))
    }

    /// Returns the replacement of a line; `None` if the line passes. The line begins between
    /// statements.
    fn instead(&mut self, line: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if line.starts_with(b"\\") {
            return self.command(line);
        }
        if line.starts_with(b"--") {
            let is_part = line.trim_ascii_end() == SECTION && self.key.is_none();
            let neutral = self.rules.neutral.as_ref().filter(|_| is_part);
            return Ok(neutral.map(|name| [b"\\connect ", name.as_bytes(), b"\n", line].concat()));
        }

        if line.starts_with(b"CREATE EVENT TRIGGER ") {
            return Ok(Some(
                [b"SET session_replication_role = replica;\n", line].concat(),
            ));
        }

        if !self.lexer.is_at_rest() {
            // The statement continues on the next line, so it is not one of those that are
            // replaced.
            return Ok(None);
        }
        let Some(statement) = line.strip_suffix(b"\n").unwrap_or(line).strip_suffix(b";") else {
            return Ok(None);
        };

        if let Some(name) = dropped(statement, b"DROP DATABASE ") {
            return Ok(Some(drop_database(name)));
        }

        if statement == b"SET transaction_timeout = 0" && !self.rules.knows_transaction_timeout {
            return Ok(Some(b"--\n".to_vec()));
        }

        if let Some(name) = statement.strip_prefix(b"REFRESH MATERIALIZED VIEW ") {
            return Ok(refresh(name));
        }

        // The other statements are about tablespaces and roles, before the first connection.
        if !self.is_in_globals {
            return Ok(None);
        }
        if let Some(name) = dropped(statement, b"DROP TABLESPACE ") {
            return Ok(Some(
                [b"DROP TABLESPACE IF EXISTS ", name.spelled, b";\n"].concat(),
            ));
        }

        let role = self.rules.role.as_bytes();
        if let Some(name) = dropped(statement, b"DROP ROLE ") {
            if name.is(role) {
                return Ok(Some(
                    [b"ALTER ROLE ", name.spelled, b" RESET ALL;\n"].concat(),
                ));
            }
            let SqlName { spelled, .. } = name;
            let or = [
                b"dependent_objects_still_exist THEN ALTER ROLE ",
                spelled,
                b" RESET ALL",
            ]
            .concat();
            return Ok(attempt(&[b"DROP ROLE IF EXISTS ", spelled].concat(), &or));
        }

        // The role still exists if objects depend on it.
        if let Some(name) = statement
            .strip_prefix(b"CREATE ROLE ")
            .and_then(SqlName::parse)
        {
            if name.is(role) {
                return Ok(Some(
                    b"-- The role that connects exists already.\n".to_vec(),
                ));
            }
            return Ok(attempt(
                &[b"CREATE ROLE ", name.spelled].concat(),
                b"duplicate_object THEN NULL",
            ));
        }

        if let Some(rest) = statement.strip_prefix(b"ALTER ROLE ")
            && let Some((name, rest)) = SqlName::first(rest)
            && name.is(role)
            && rest.starts_with(b" WITH ")
        {
            self.put_off.extend_from_slice(statement);
            self.put_off.extend_from_slice(b";\n");
            return Ok(Some(
                b"-- The attributes of the connected role are set at the end.\n".to_vec(),
            ));
        }

        Ok(None)
    }

    /// Handles a command of `psql` that is a line of its own.
    fn command(&mut self, line: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let command = PsqlCommand::parse(line).ok_or_else(unexpected_command)?;
        if let Some(key) = &self.key {
            // `psql` would accept no other command here.
            return match command {
                PsqlCommand::Unrestrict(same) if same == key => {
                    self.key = None;
                    Ok(Some(b"--\n".to_vec()))
                }
                _ => Err(unexpected_command()),
            };
        }
        match command {
            PsqlCommand::Connect => self.is_in_globals = false,
            PsqlCommand::Restrict(key) if !self.rules.knows_restrict => {
                self.key = Some(key.to_vec());
                return Ok(Some(b"--\n".to_vec()));
            }
            PsqlCommand::Restrict(_) | PsqlCommand::Unrestrict(_) | PsqlCommand::Encoding => {}
        }
        Ok(None)
    }
}

impl<W: Write> Write for RestoreFilter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns the name in a statement that drops an object. The statement may have `IF EXISTS` already
/// (`pg_dumpall --if-exists`).
fn dropped<'a>(statement: &'a [u8], verb: &[u8]) -> Option<SqlName<'a>> {
    let name = statement.strip_prefix(verb)?;
    SqlName::parse(name.strip_prefix(b"IF EXISTS ").unwrap_or(name))
}

fn unexpected_command() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the dump has a psql command where none is allowed",
    )
}

/// Returns statements that drop a database, even a template, as `pg_dump --clean --create` writes
/// them. `pg_dumpall` writes only `DROP DATABASE` at the beginning of its dump.
fn drop_database(name: SqlName<'_>) -> Vec<u8> {
    // In a literal only quotes are special, because dumps set standard_conforming_strings.
    let literal: Vec<u8> = name
        .plain()
        .into_iter()
        .flat_map(|byte| vec![byte; 1 + usize::from(byte == b'\'')])
        .collect();
    let update: &[u8] =
        b"UPDATE pg_catalog.pg_database SET datistemplate = false WHERE datistemplate AND datname = '";
    [
        update,
        &literal,
        b"';\nDROP DATABASE IF EXISTS ",
        name.spelled,
        b";\n",
    ]
    .concat()
}

/// Returns a statement that may fail in one way; `None` if its text contains the dollar quote.
fn attempt(statement: &[u8], or: &[u8]) -> Option<Vec<u8>> {
    const QUOTE: &[u8] = b"$restore$";
    if statement.windows(QUOTE.len()).any(|part| part == QUOTE) {
        return None;
    }
    Some(
        [
            b"DO ",
            QUOTE,
            b"BEGIN ",
            statement,
            b"; EXCEPTION WHEN ",
            or,
            b"; END",
            QUOTE,
            b";\n",
        ]
        .concat(),
    )
}

/// Returns a statement that refreshes a view, or warns on standard error that the view stays empty;
/// `None` if the name contains the dollar quote. `name` is as spelled in the dump, in one line.
fn refresh(name: &[u8]) -> Option<Vec<u8>> {
    let literal: Vec<u8> = name
        .iter()
        .flat_map(|&byte| vec![byte; 1 + usize::from(byte == b'\'')])
        .collect();
    let warn = [
        b"others THEN RAISE WARNING '",
        EMPTY_VIEW,
        b"% in %: %', '",
        &literal,
        b"', current_database(), SQLERRM",
    ]
    .concat();
    attempt(&[b"REFRESH MATERIALIZED VIEW ", name].concat(), &warn)
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
