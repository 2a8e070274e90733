//! Collects the requirements of a cluster's dump on the server that receives it: extensions,
//! locales, directories, libraries …
//!
//! Statements are read as the dump streams by. Text inside of rows, literals, dollar quotes and
//! comments is never taken for a statement.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use super::filter::SECTION;
use super::lexer::{DumpLexer, DumpPiece, LineContext};
use super::name::SqlName;
use super::shape::{DumpShape, ShapeError};
use super::sql::{SqlToken, tokens};

/// The number of bytes kept of a statement. Its requirements are at its beginning, before a
/// function's body.
const STATEMENT_BYTES_MAX: usize = 64 << 10;
/// Upper limit of the names of each kind. Further names are not compared.
const NAMES_MAX: usize = 100_000;

/// Required names, each with the first database that requires it. The database is empty for objects
/// of the whole cluster.
pub type NamedNeed = BTreeMap<String, String>;

/// The requirements of a dump. Names are as the server has them, without quotes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DumpNeeds {
    pub extensions: NamedNeed,
    /// Locales of the operating system, such as `de_DE.UTF-8`.
    pub locales: NamedNeed,
    /// Not empty if the server must be built with ICU. The only key is `icu`.
    pub icu: NamedNeed,
    /// Encodings of databases.
    pub encodings: NamedNeed,
    /// Directories of tablespaces, by the tablespace's name.
    pub tablespaces: BTreeMap<String, String>,
    /// Libraries of functions in C, as `CREATE FUNCTION` spells them: `$libdir/postgis-3`.
    pub libraries: NamedNeed,
    /// Libraries that are loaded in each session of a database or role.
    pub preloads: NamedNeed,
    /// Files of text search dictionaries, relative to the server's `tsearch_data`.
    pub dictionaries: NamedNeed,
    /// Settings that databases, roles and functions set.
    pub settings: NamedNeed,
    /// Compression methods of columns.
    pub compressions: NamedNeed,
    /// Roles that the dump refers to and does not create.
    pub roles: NamedNeed,
    pub subscriptions: NamedNeed,
    pub publications: NamedNeed,
    /// Databases that the dump creates, and those that it drops first.
    pub made: BTreeSet<String>,
    pub dropped: BTreeSet<String>,
    /// Databases that the dump connects to, to create their content.
    pub filled: BTreeSet<String>,
    /// Tablespaces that the dump drops before it creates them.
    pub dropped_tablespaces: BTreeSet<String>,
    /// The reason why the dump cannot restore a cluster on any server.
    pub misshapen: Option<ShapeError>,
    /// The encoding of names and comments before the first database's part.
    pub globals_encoding: String,
    /// The databases' parts, in order.
    pub sections: Vec<DumpSection>,
}

/// The part of one database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DumpSection {
    /// The database that it creates; empty if it creates none before it connects.
    pub database: String,
    /// The database's encoding.
    pub encoding: String,
    /// The encoding that it sets before it connects to its database; empty if it sets none.
    pub client_encoding: String,
    /// True if it connects to its database itself.
    pub connects: bool,
}

/// Takes a dump's bytes and collects its requirements. Memory is bounded for any dump.
#[derive(Debug, Default)]
pub struct NeedsReader {
    lexer: DumpLexer,
    statement: Vec<u8>,
    /// The connected database.
    database: String,
    created_roles: BTreeSet<String>,
    is_in_head: bool,
    shape: DumpShape,
    needs: DumpNeeds,
}

impl NeedsReader {
    /// Creates a reader for the beginning of a dump.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the requirements.
    pub fn into_needs(mut self) -> DumpNeeds {
        self.needs.misshapen = self.shape.judge();
        let created = &self.created_roles;
        self.needs.roles.retain(|role, _| !created.contains(role));

        // The set of created roles may be incomplete, so no role is known to be missing.
        if created.len() >= NAMES_MAX {
            self.needs.roles.clear();
        }
        self.needs
    }

    fn piece(&mut self, piece: &DumpPiece<'_>) {
        match piece.place {
            LineContext::Between if piece.starts => self.statement.clear(),
            LineContext::Between | LineContext::Statement => {}
            LineContext::CopyData => {
                self.statement.clear();
                self.shape
                    .row(piece.bytes, piece.starts, piece.ends, self.lexer.copy());
                return;
            }
            LineContext::CopyEnd => {
                self.statement.clear();
                self.shape.rows_end();
                return;
            }
        }

        if piece.ends {
            self.shape.line();
        }

        let room = STATEMENT_BYTES_MAX.saturating_sub(self.statement.len());
        self.statement
            .extend_from_slice(&piece.bytes[..room.min(piece.bytes.len())]);

        if !piece.ends || !self.lexer.is_at_rest() {
            return;
        }

        let text = std::mem::take(&mut self.statement);
        self.line_or_statement(&text);
        self.statement = text;
        self.statement.clear();
    }

    fn line_or_statement(&mut self, text: &[u8]) {
        if text.starts_with(b"\\") {
            self.shape.statement(text, &[]);
            self.command(text.trim_ascii_end());
        } else if text.trim_ascii_end() == SECTION {
            self.shape.part(text);
            if self.needs.sections.len() < NAMES_MAX {
                self.needs.sections.push(DumpSection::default());
                self.is_in_head = true;
            }
        } else if text.starts_with(b"--") {
            self.shape.comment(text);
        } else {
            let tokens = tokens(text);
            self.shape.statement(text, &tokens);
            for statement in tokens.split(|token| *token == SqlToken::Sign(b';')) {
                self.statement(statement);
            }
        }
    }

    fn command(&mut self, line: &[u8]) {
        let Some(rest) = line.strip_prefix(b"\\connect ") else {
            return;
        };
        let named = match rest.strip_prefix(b"-reuse-previous=on ") {
            Some(quoted) => SqlName::parse(quoted).map(|name| connection_string(&name.plain())),
            None => SqlName::parse(rest).map(|name| name.plain()),
        };
        if let Some(name) = named {
            self.database = String::from_utf8_lossy(&name).into_owned();
            if self.needs.filled.len() < NAMES_MAX {
                self.needs.filled.insert(self.database.clone());
            }
        }
        if std::mem::take(&mut self.is_in_head)
            && let Some(section) = self.needs.sections.last_mut()
        {
            section.connects = true;
        }
    }

    fn statement(&mut self, statement: &[SqlToken]) {
        match statement {
            [first, rest @ ..] if first.is("create") => self.create(rest),
            [first, rest @ ..] if first.is("drop") => self.drop(rest),
            [first, rest @ ..] if first.is("alter") => self.alter(rest),
            [first, rest @ ..] if first.is("grant") => self.grant(rest),
            [first, rest @ ..] if first.is("revoke") => self.roles_after(rest, "from"),
            [set, name, SqlToken::Sign(b'='), value]
                if set.is("set") && name.is("client_encoding") =>
            {
                self.set_encoding(value);
            }
            [set, session, what, role]
                if set.is("set") && session.is("session") && what.is("authorization") =>
            {
                self.role(role);
            }
            _ => {}
        }
    }

    fn drop(&mut self, rest: &[SqlToken]) {
        let Some((kind, rest)) = rest.split_first() else {
            return;
        };
        let [name] = skip(rest, &["if", "exists"]) else {
            return;
        };
        let dropped = match kind {
            kind if kind.is("database") => &mut self.needs.dropped,
            kind if kind.is("tablespace") => &mut self.needs.dropped_tablespaces,
            _ => return,
        };
        if let Some(name) = name.name().filter(|_| dropped.len() < NAMES_MAX) {
            dropped.insert(name.to_owned());
        }
    }

    /// Stores an encoding. Before the first part it applies to roles and tablespaces. In the head
    /// of a part, it is set before the part connects.
    fn set_encoding(&mut self, value: &SqlToken) {
        let Some(encoding) = value.value().map(str::to_uppercase) else {
            return;
        };
        match self.needs.sections.last_mut() {
            None => self.needs.globals_encoding = encoding,
            Some(section) if self.is_in_head => section.client_encoding = encoding,
            Some(_) => {}
        }
    }

    fn create(&mut self, rest: &[SqlToken]) {
        let rest = skip(rest, &["or", "replace", "trusted", "procedural"]);
        let Some((kind, rest)) = rest.split_first() else {
            return;
        };

        let named = skip(rest, &["if", "not", "exists"]);
        let name = || named.first().and_then(SqlToken::name).map(str::to_owned);
        let SqlToken::Word(kind) = kind else { return };

        match kind.as_str() {
            "role" => {
                if let Some(name) = name().filter(|_| self.created_roles.len() < NAMES_MAX) {
                    self.created_roles.insert(name);
                }
            }
            "extension" => self.need(|needs| &mut needs.extensions, name()),
            "subscription" => self.need(|needs| &mut needs.subscriptions, name()),
            "publication" => self.need(|needs| &mut needs.publications, name()),
            // A language without a handler is an extension under an older syntax.
            "language" if !rest.iter().any(|token| token.is("handler")) => {
                self.need(|needs| &mut needs.extensions, name());
            }
            "database" => self.create_database(rest),
            "tablespace" => self.create_tablespace(rest),
            "collation" => self.create_collation(rest),
            "function" | "procedure" => self.create_function(rest),
            "text" => self.create_dictionary(rest),
            "schema" => self.roles_after(rest, "authorization"),
            "user" => self.roles_after(rest, "for"),
            "policy" => self.roles_after(rest, "to"),
            _ => {}
        }
    }

    fn create_database(&mut self, rest: &[SqlToken]) {
        let Some((Some(name), rest)) = rest.split_first().map(|(name, rest)| (name.name(), rest))
        else {
            return;
        };
        let name = name.to_owned();
        if self.needs.made.len() < NAMES_MAX {
            self.needs.made.insert(name.clone());
        }

        if let Some(section) = self.needs.sections.last_mut().filter(|_| self.is_in_head) {
            section.database.clone_from(&name);
        }

        let outer = std::mem::replace(&mut self.database, name);
        let has_icu =
            assignments(rest).any(|(key, value)| key == "locale_provider" && value == "icu");

        for (key, value) in assignments(rest) {
            match key {
                "encoding" => {
                    let section = self.needs.sections.last_mut().filter(|_| self.is_in_head);
                    section
                        .into_iter()
                        .for_each(|section| section.encoding = value.to_uppercase());
                    self.need(|needs| &mut needs.encodings, Some(value.to_uppercase()));
                }
                "owner" => self.need(|needs| &mut needs.roles, Some(value.to_owned())),
                "locale" | "lc_collate" | "lc_ctype" => {
                    self.need(|needs| &mut needs.locales, Some(value.to_owned()));
                }
                _ => {}
            }
        }

        if has_icu {
            self.need(|needs| &mut needs.icu, Some("icu".to_owned()));
        }

        self.database = outer;
    }

    fn create_tablespace(&mut self, rest: &[SqlToken]) {
        let Some(name) = rest.first().and_then(SqlToken::name) else {
            return;
        };
        let place = rest
            .iter()
            .position(|token| token.is("location"))
            .and_then(|at| rest.get(at + 1));
        if let Some(SqlToken::Literal(place)) = place
            && self.needs.tablespaces.len() < NAMES_MAX
        {
            self.needs
                .tablespaces
                .insert(name.to_owned(), place.clone());
        }
        self.roles_after(rest, "owner");
    }

    fn create_collation(&mut self, rest: &[SqlToken]) {
        let settings = || assignments(rest);
        let is_icu = settings().any(|(key, value)| key == "provider" && value == "icu");
        if is_icu {
            self.need(|needs| &mut needs.icu, Some("icu".to_owned()));
            return;
        }
        if settings().any(|(key, value)| key == "provider" && value != "libc") {
            return;
        }
        for (_, value) in
            settings().filter(|(key, _)| matches!(*key, "locale" | "lc_collate" | "lc_ctype"))
        {
            self.need(|needs| &mut needs.locales, Some(value.to_owned()));
        }
    }

    /// Handles a function's clauses, outside of its arguments: `LANGUAGE c`, `SET name TO`,
    /// `AS 'library', 'symbol'`.
    fn create_function(&mut self, rest: &[SqlToken]) {
        let mut depth = 0_u32;
        let mut is_in_c = false;
        let mut library = None;
        for (at, token) in rest.iter().enumerate() {
            match (token, rest.get(at + 1)) {
                (SqlToken::Sign(b'('), _) => depth += 1,
                (SqlToken::Sign(b')'), _) => depth = depth.saturating_sub(1),
                (_, Some(next)) if depth == 0 && token.is("language") => is_in_c = next.is("c"),
                (_, Some(next)) if depth == 0 && token.is("set") => {
                    self.need(
                        |needs| &mut needs.settings,
                        next.name().map(str::to_lowercase),
                    );
                }
                (_, Some(next)) if depth == 0 && token.is("as") => {
                    if let (SqlToken::Literal(text), Some(SqlToken::Sign(b','))) =
                        (next, rest.get(at + 2))
                    {
                        library = Some(text.clone());
                    }
                    break;
                }
                // A body in the syntax of the SQL standard.
                _ if depth == 0 && (token.is("begin") || token.is("return")) => break,
                _ => {}
            }
        }

        if is_in_c {
            self.need(|needs| &mut needs.libraries, library);
        }
    }

    fn create_dictionary(&mut self, rest: &[SqlToken]) {
        let [search, kind, rest @ ..] = rest else {
            return;
        };
        if !search.is("search") || !kind.is("dictionary") {
            return;
        }
        let is_thesaurus =
            assignments(rest).any(|(key, value)| key == "template" && value == "thesaurus");
        let files: Vec<String> = assignments(rest)
            .filter_map(|(key, value)| {
                let ending = match key {
                    "stopwords" => "stop",
                    "afffile" => "affix",
                    "synonyms" => "syn",
                    "dictfile" if is_thesaurus => "ths",
                    "dictfile" => "dict",
                    _ => return None,
                };
                Some(format!("{value}.{ending}"))
            })
            .collect();
        for file in files {
            self.need(|needs| &mut needs.dictionaries, Some(file));
        }
    }

    fn alter(&mut self, rest: &[SqlToken]) {
        if let [.., owner, to, role] = rest
            && owner.is("owner")
            && to.is("to")
        {
            self.role(role);
        }
        let Some((kind, rest)) = rest.split_first() else {
            return;
        };
        if kind.is("database") || kind.is("role") {
            self.alter_settings(rest);
        } else if kind.is("table") {
            let at = rest
                .windows(2)
                .position(|pair| pair[0].is("set") && pair[1].is("compression"));
            let value = at.and_then(|at| rest.get(at + 2)).and_then(SqlToken::value);
            self.need(|needs| &mut needs.compressions, value.map(str::to_owned));
        } else if kind.is("default") {
            self.roles_after(rest, "role");
            if let Some(at) = rest.iter().position(|token| token.is("grant")) {
                self.grant(&rest[at + 1..]);
            }
        }
    }

    /// Handles `name [IN DATABASE name] SET setting TO value, …`.
    fn alter_settings(&mut self, rest: &[SqlToken]) {
        let Some(rest) = rest.get(1..) else { return };
        let (database, rest) = match rest {
            [word, kind, name, rest @ ..] if word.is("in") && kind.is("database") => {
                (name.name().map(str::to_owned), rest)
            }
            rest => (None, rest),
        };

        let [set, name, to, values @ ..] = rest else {
            return;
        };
        if !set.is("set") || !(to.is("to") || *to == SqlToken::Sign(b'=')) {
            return;
        }

        let Some(name) = name.name().map(str::to_lowercase) else {
            return;
        };

        let outer = database.map(|database| std::mem::replace(&mut self.database, database));

        if matches!(
            name.as_str(),
            "session_preload_libraries" | "local_preload_libraries"
        ) {
            let below = if name.starts_with("local") {
                "$libdir/plugins/"
            } else {
                ""
            };
            let libraries = values
                .iter()
                .filter_map(SqlToken::value)
                .flat_map(|value| value.split(','));
            let libraries: Vec<String> = libraries
                .map(|one| one.trim().trim_matches('"').to_owned())
                .collect();
            for library in libraries.into_iter().filter(|library| !library.is_empty()) {
                let place = if library.contains('/') {
                    library
                } else {
                    format!("{below}{library}")
                };
                self.need(|needs| &mut needs.preloads, Some(place));
            }
        }

        self.need(|needs| &mut needs.settings, Some(name));
        if let Some(outer) = outer {
            self.database = outer;
        }
    }

    /// Handles `… TO role, … [WITH …] [GRANTED BY role]`. In a grant of membership, the names
    /// before `TO` are roles too.
    fn grant(&mut self, rest: &[SqlToken]) {
        self.roles_after(rest, "to");
        if let Some(at) = rest
            .windows(2)
            .position(|pair| pair[0].is("granted") && pair[1].is("by"))
            && let Some(role) = rest.get(at + 2)
        {
            self.role(role);
        }
        let before = rest
            .split(|token| token.is("to"))
            .next()
            .unwrap_or_default();
        if !before.iter().any(|token| token.is("on")) {
            before
                .split(|token| *token == SqlToken::Sign(b','))
                .for_each(|one| {
                    if let [role] = one {
                        self.role(role);
                    }
                });
        }
    }

    /// Adds the roles of a list after a keyword, which must be outside of parentheses. The list
    /// ends at the first name that no comma follows.
    fn roles_after(&mut self, rest: &[SqlToken], keyword: &str) {
        let mut depth = 0_u32;
        let found = rest.iter().position(|token| {
            match token {
                SqlToken::Sign(b'(') => depth += 1,
                SqlToken::Sign(b')') => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && token.is(keyword)
        });
        let Some(at) = found else { return };
        let mut rest = &rest[at + 1..];
        while let Some((role, more)) = rest.split_first() {
            self.role(role);
            match more {
                [SqlToken::Sign(b','), more @ ..] => rest = more,
                _ => break,
            }
        }
    }

    fn role(&mut self, role: &SqlToken) {
        let is_special = [
            "public",
            "current_user",
            "current_role",
            "session_user",
            "group",
            "default",
        ];
        let name = role.value().filter(|name| !is_special.contains(name));
        self.need(|needs| &mut needs.roles, name.map(str::to_owned));
    }

    fn need(&mut self, which: impl FnOnce(&mut DumpNeeds) -> &mut NamedNeed, name: Option<String>) {
        let named = which(&mut self.needs);
        if let Some(name) = name.filter(|name| !name.is_empty())
            && (named.len() < NAMES_MAX || named.contains_key(&name))
        {
            named.entry(name).or_insert_with(|| self.database.clone());
        }
    }
}

/// Skips leading tokens that are one of these words.
fn skip<'t>(mut tokens: &'t [SqlToken], words: &[&str]) -> &'t [SqlToken] {
    while let Some((first, rest)) = tokens.split_first()
        && words.iter().any(|word| first.is(word))
    {
        tokens = rest;
    }
    tokens
}

/// Returns all `key = value` pairs. If a value is qualified, only its last part is returned.
fn assignments(tokens: &[SqlToken]) -> impl Iterator<Item = (&str, &str)> {
    tokens.iter().enumerate().filter_map(|(at, token)| {
        let SqlToken::Word(key) = token else {
            return None;
        };
        let [SqlToken::Sign(b'='), value, rest @ ..] = tokens.get(at + 1..)? else {
            return None;
        };
        let value = match rest {
            [SqlToken::Sign(b'.'), last, ..] => last,
            _ => value,
        };
        Some((key.as_str(), value.value()?))
    })
}

/// Returns the database of `dbname='…'`.
fn connection_string(text: &[u8]) -> Vec<u8> {
    let inner = text
        .strip_prefix(b"dbname='")
        .and_then(|rest| rest.strip_suffix(b"'"))
        .unwrap_or(text);
    let mut out = Vec::new();
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        out.extend(if byte == b'\\' {
            bytes.next().copied()
        } else {
            Some(byte)
        });
    }
    out
}

impl Write for NeedsReader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.shape.bytes(bytes);
        let mut rest = bytes;
        while let Some(piece) = self.lexer.next(&mut rest) {
            self.piece(&piece);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "needs_tests.rs"]
mod tests;
