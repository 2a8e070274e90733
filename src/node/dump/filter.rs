//! Makes a dump of a whole cluster fit for `psql` with `ON_ERROR_STOP`.
//!
//! `pg_dumpall --clean` drops databases and roles that a fresh cluster does not have, and the very
//! role that connects, so some of its statements must fail. These alone are replaced:
//!
//! | statement | becomes |
//! |---|---|
//! | `DROP DATABASE` | the same with `IF EXISTS`; a template is made an ordinary database before, since none is dropped |
//! | `DROP TABLESPACE` | the same with `IF EXISTS` |
//! | `DROP ROLE x` | the same with `IF EXISTS`; a role on which something depends stays and loses its settings |
//! | `CREATE ROLE x` | the same, unless the role stayed |
//! | `DROP ROLE`, `CREATE ROLE` of the connected role | it stays, its settings are reset |
//! | `ALTER ROLE … WITH` of the connected role | moved to the end: it may take the rights or the password away that the rest needs |
//! | the beginning of a database's part, where encodings need it | behind a connection to a database that takes any |
//! | `REFRESH MATERIALIZED VIEW` | the same; where its query fails, which may need a search path that a dump has not, or another server, the view stays empty and a warning names it |
//! | `CREATE EVENT TRIGGER` | the same, after a setting by which it does not fire in this session: `pg_dump` refreshes materialized views after it |
//! | `SET transaction_timeout = 0`, which `pg_dump` writes from version 17 on | left out for an older server |
//!
//! Commands of `psql` pass only if they are among the few that a dump holds, and a `psql` that does
//! not know `\restrict` gets none: the pair of lines around a section is left out. Rows of tables,
//! literals and bodies of functions pass untouched, whatever they look like.

use std::io::{self, Write};

use super::command::PsqlCommand;
use super::lexer::{DumpLexer, Piece, Place};

/// A line that may have to be replaced is held in memory up to here; longer ones are none of these.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Before the dump's first line: what `IF EXISTS` would say of each thing that is not there.
const PREFIX: &[u8] = b"SET client_min_messages = warning; ";

/// How a warning begins that names a view which could not be refreshed.
pub const EMPTY_VIEW: &[u8] = b"icecore: not refreshed: ";

/// The line with which `pg_dump` begins the part of a database.
pub(super) const SECTION: &[u8] = b"-- PostgreSQL database dump";

/// How a dump is changed on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRules {
    /// The role that connects.
    pub role: String,
    /// `psql` knows `\restrict`.
    pub knows_restrict: bool,
    /// The server that takes the dump has the setting `transaction_timeout`: PostgreSQL 17 and
    /// later.
    pub knows_transaction_timeout: bool,
    /// A database to which `psql` goes before the part of each database: the part sets its encoding
    /// before it connects, and the one before may have no conversion to it.
    pub neutral: Option<String>,
    /// What `psql` is to say on standard error once it came to the end; letters and digits. Its
    /// exit code does not tell: who loses the connection to it in the middle gives it the end of
    /// its input, which is success.
    pub last_word: Option<String>,
}

/// Takes a dump's bytes and writes what `psql` is to get.
#[derive(Debug)]
pub struct RestoreFilter<W> {
    out: W,
    rules: FilterRules,
    lexer: DumpLexer,
    has_begun: bool,
    /// Roles are told of before the first connection alone.
    is_in_globals: bool,
    /// The section's key, where its `\restrict` was left out.
    key: Option<Vec<u8>>,
    /// The beginning of the line under way, if it may have to be replaced.
    held: Option<Vec<u8>>,
    /// What goes to the end.
    put_off: Vec<u8>,
}

impl<W: Write> RestoreFilter<W> {
    /// At the beginning of a dump.
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

    /// Ends the dump: writes what was put off.
    ///
    /// # Errors
    /// The output failed, or the dump ended in the middle of something: then nothing was added.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(held) = self.held.take() {
            self.out.write_all(&held)?;
        }
        if !self.lexer.is_at_rest() || self.key.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the dump ends in the middle",
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
        // What was looked at and passes as it is goes out in one piece.
        let (mut rest, mut start) = (input, 0);
        loop {
            let commands = self.lexer.commands();
            let Some(piece) = self.lexer.next(&mut rest) else {
                break;
            };
            // Those that are a line of their own are looked at when the line is whole.
            let is_whole_command =
                piece.starts && piece.place == Place::Between && piece.bytes.starts_with(b"\\");
            if self.lexer.commands() != commands && !is_whole_command {
                return Err(unexpected_command());
            }
            let end = input.len() - rest.len();
            let begin = end - piece.bytes.len();
            if self.held.is_none() && !(piece.starts && self.is_of_interest(&piece)) {
                continue;
            }
            if self.held.is_none() && piece.ends {
                // The usual case: the whole line is here.
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

    /// True if a line that begins so may have to be replaced.
    fn is_of_interest(&self, piece: &Piece<'_>) -> bool {
        let is_between = piece.place == Place::Between;
        let is_comment = piece.bytes.first() == Some(&b'-') && self.rules.neutral.is_some();
        is_between
            && (is_comment
                || matches!(
                    piece.bytes.first(),
                    Some(b'D' | b'C' | b'A' | b'R' | b'S' | b'\\')
                ))
    }

    /// What takes a line's place; none: it passes. The line begins between statements.
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
            // The statement goes on in the next line: none of the others in the table does.
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
            let Name { spelled, .. } = name;
            let or = [
                b"dependent_objects_still_exist THEN ALTER ROLE ",
                spelled,
                b" RESET ALL",
            ]
            .concat();
            return Ok(attempt(&[b"DROP ROLE IF EXISTS ", spelled].concat(), &or));
        }
        if let Some(name) = statement
            .strip_prefix(b"CREATE ROLE ")
            .and_then(Name::parse)
        {
            if name.is(role) {
                return Ok(Some(
                    b"-- It is the role that connects: it is there.\n".to_vec(),
                ));
            }
            return Ok(attempt(
                &[b"CREATE ROLE ", name.spelled].concat(),
                b"duplicate_object THEN NULL",
            ));
        }
        if let Some(rest) = statement.strip_prefix(b"ALTER ROLE ")
            && let Some((name, rest)) = Name::first(rest)
            && name.is(role)
            && rest.starts_with(b" WITH ")
        {
            self.put_off.extend_from_slice(statement);
            self.put_off.extend_from_slice(b";\n");
            return Ok(Some(
                b"-- What the connected role may do is set at the end.\n".to_vec(),
            ));
        }
        Ok(None)
    }

    /// A command of `psql` that is a line of its own.
    fn command(&mut self, line: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let command = PsqlCommand::parse(line).ok_or_else(unexpected_command)?;
        if let Some(key) = &self.key {
            // `psql` would take no other one here.
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

/// The name in a statement that drops something, which may say `IF EXISTS` already (`pg_dumpall
/// --if-exists`).
fn dropped<'a>(statement: &'a [u8], verb: &[u8]) -> Option<Name<'a>> {
    let name = statement.strip_prefix(verb)?;
    Name::parse(name.strip_prefix(b"IF EXISTS ").unwrap_or(name))
}

fn unexpected_command() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the dump holds a command of psql where none may be",
    )
}

/// As `pg_dump --clean --create` does it; `pg_dumpall` does not for the databases that it drops at
/// its beginning.
fn drop_database(name: Name<'_>) -> Vec<u8> {
    // In a literal quotes alone are special: dumps set standard_conforming_strings.
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

/// A statement that may fail in one way; none if the name in it cannot be quoted so.
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

/// Refreshes a view, or says on standard error that it stays empty; none if its name cannot be
/// quoted so. `name`: as it is spelled, in one line.
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

/// An identifier in a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// As it stands there, with its quotes.
    pub spelled: &'a [u8],
}

impl<'a> Name<'a> {
    /// All of the text, if it is one name.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        Self::first(text)
            .filter(|(_, rest)| rest.is_empty())
            .map(|(name, _)| name)
    }

    /// The name that a text begins with, and what follows.
    pub fn first(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let len = if text.first() == Some(&b'"') {
            let mut at = 1;
            loop {
                at += text.get(at..)?.iter().position(|&byte| byte == b'"')? + 1;
                if text.get(at) != Some(&b'"') {
                    break at;
                }
                at += 1;
            }
        } else {
            let is_word = |byte: &u8| {
                byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'$' || *byte >= 0x80
            };
            text.iter().take_while(|byte| is_word(byte)).count()
        };
        let (spelled, rest) = text.split_at(len);
        (!spelled.is_empty()).then_some((Self { spelled }, rest))
    }

    /// True if it names this.
    pub fn is(&self, name: &[u8]) -> bool {
        self.plain() == name
    }

    /// Without its quotes; folded to lower case if it has none.
    pub fn plain(&self) -> Vec<u8> {
        let Some(inner) = self.spelled.strip_prefix(b"\"") else {
            return self.spelled.to_ascii_lowercase();
        };
        let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
        let mut out = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter();
        while let Some(&byte) = bytes.next() {
            out.push(byte);
            if byte == b'"' {
                bytes.next();
            }
        }
        out
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
