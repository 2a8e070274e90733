//! Splits a PostgreSQL dump into lines and finds the context of each: between statements, in a
//! statement, or in COPY data.
//!
//! The rules are those by which `psql` finds the end of a statement: quotes, dollar quotes,
//! comments, parentheses and `BEGIN ATOMIC` bodies. A line that only looks like COPY, in a
//! function's body or a literal, does not begin data.

use std::io::BufRead;

/// Upper limit of the text of a COPY statement, in bytes. 1,600 columns with the longest names take
/// a quarter of it.
const HEAD_BYTES_MAX: usize = 1 << 20;
/// Words and dollar tags are stored up to this length, in bytes. PostgreSQL's names are not longer.
const WORD_BYTES_MAX: usize = 64;

/// The context in which a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineContext {
    /// Between statements: a comment, a blank line, a command of psql (`\connect`), or a
    /// statement's first line.
    Between,
    /// Inside a statement, or in a comment that began on an earlier line.
    Statement,
    /// A row of a table.
    CopyData,
    /// The `\.` after the rows. Only the last piece of the line has this place.
    CopyEnd,
}

/// A piece of a line. It is the whole line, unless the line was fed in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpPiece<'a> {
    /// Includes the line's `\n`, if it is in this piece.
    pub bytes: &'a [u8],
    pub place: LineContext,
    /// True if the line begins with this piece.
    pub starts: bool,
    /// True if the line ends with this piece.
    pub ends: bool,
}

/// `COPY schema.table (columns) FROM stdin`, with names as the dump spells them, without quotes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyHeader {
    /// `None` if the dump relies on the search path.
    pub schema: Option<Vec<u8>>,
    pub table: Vec<u8>,
    /// Empty if the statement has no list of columns.
    pub columns: Vec<Vec<u8>>,
    /// True if something follows `stdin`: the rows may not be in text format.
    pub has_options: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LexerState {
    Normal,
    /// After a `-` or `/` that may begin a comment.
    Dash,
    Slash,
    LineComment,
    /// Block comments nest. `last` is the previous byte, or 0 if that byte was part of a delimiter.
    Block {
        depth: u32,
        last: u8,
    },
    /// In a literal. With `escapes`, a backslash escapes the next byte.
    Quote {
        escapes: bool,
    },
    Escape,
    /// After a quote in an `E''` literal, which may be the first of a doubled quote.
    QuoteEnd,
    Identifier,
    /// In a `$tag` that may begin a dollar quote.
    DollarOpen,
    /// In a dollar quote. `matched` is the number of bytes of its closing tag that were matched.
    Dollar {
        matched: usize,
    },
    /// In a command of psql, up to the end of the line.
    Meta,
}

/// Splits a dump into lines and finds the place of each. Input may be fed in pieces of any size.
#[derive(Debug)]
pub struct DumpLexer {
    state: LexerState,
    /// True if a piece of the current line was returned.
    in_line: bool,
    place: LineContext,
    /// True if a part of a statement was read.
    in_statement: bool,
    parens: u32,
    /// The number of open `BEGIN ATOMIC` and `CASE`, and the first letters of the statement's first
    /// words, from which psql recognizes a function.
    begins: u32,
    initials: [u8; 4],
    words: usize,
    /// The current word in lower case, cut off at its limit, and the tag of a dollar quote with its
    /// `$`.
    word: Vec<u8>,
    tag: Vec<u8>,
    /// The statement so far, without comments, while it may be a COPY.
    head: Vec<u8>,
    is_copy: bool,
    /// Set after a COPY statement: its data begins with the next line.
    next_copy: Option<CopyHeader>,
    copy: Option<CopyHeader>,
    commands: u64,
    /// The number of bytes of the current line that match `\.` and a line's end. `None`: it is a
    /// row.
    mark: Option<usize>,
}

impl Default for DumpLexer {
    fn default() -> Self {
        Self::new()
    }
}

impl DumpLexer {
    /// Creates a lexer for the beginning of a dump.
    pub fn new() -> Self {
        Self {
            state: LexerState::Normal,
            in_line: false,
            place: LineContext::Between,
            in_statement: false,
            parens: 0,
            begins: 0,
            initials: [0; 4],
            words: 0,
            word: Vec::new(),
            tag: Vec::new(),
            head: Vec::new(),
            is_copy: true,
            next_copy: None,
            copy: None,
            commands: 0,
            mark: None,
        }
    }

    /// Removes the next line, or the available part of it, from the input. Returns `None` if the
    /// input is empty.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<DumpPiece<'a>> {
        if input.is_empty() {
            return None;
        }
        // `skip_until` looks at many bytes at once. One byte at a time took longer than all other
        // work on rows.
        let all = *input;
        let mut rest = all;
        let length = rest.skip_until(b'\n').unwrap_or(all.len());
        let (bytes, rest) = all.split_at(length);
        *input = rest;

        let ends = bytes.ends_with(b"\n");
        let starts = !std::mem::replace(&mut self.in_line, !ends);
        if starts {
            self.place = match (
                &self.copy,
                self.in_statement || self.state != LexerState::Normal,
            ) {
                (Some(_), _) => LineContext::CopyData,
                (None, true) => LineContext::Statement,
                (None, false) => LineContext::Between,
            };
            self.mark = Some(0);
        }

        if self.place == LineContext::CopyData {
            self.compare_with_mark(bytes);
            if ends && self.mark.is_some() {
                self.copy = None;
                return Some(DumpPiece {
                    bytes,
                    place: LineContext::CopyEnd,
                    starts,
                    ends,
                });
            }
        } else {
            bytes.iter().for_each(|&byte| self.byte(byte));
            if ends {
                self.copy = self.next_copy.take();
            }
        }

        Some(DumpPiece {
            bytes,
            place: self.place,
            starts,
            ends,
        })
    }

    /// Returns the table whose rows follow, from the end of the COPY statement's line to the end of
    /// the `\.` line.
    pub fn copy(&self) -> Option<&CopyHeader> {
        self.copy.as_ref()
    }

    /// Returns the number of commands of psql so far: backslashes outside of literals, names,
    /// comments and COPY data.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// Returns true if the dump can end here: no statement, comment or COPY data is open.
    pub fn is_at_rest(&self) -> bool {
        let between = matches!(
            self.state,
            LexerState::Normal | LexerState::LineComment | LexerState::Meta
        );
        self.copy.is_none() && self.next_copy.is_none() && !self.in_statement && between
    }

    /// Continues to compare the line with `\.`, which a carriage return may follow.
    fn compare_with_mark(&mut self, bytes: &[u8]) {
        const MARK: &[u8] = b"\\.\r\n";
        for &byte in bytes {
            self.mark = self.mark.and_then(|at| match (MARK.get(at), byte) {
                (Some(&expected), byte) if byte == expected => Some(at + 1),
                (Some(b'\r'), b'\n') => Some(MARK.len()),
                _ => None,
            });
            if self.mark.is_none() {
                return;
            }
        }
    }

    fn byte(&mut self, byte: u8) {
        match self.state {
            LexerState::Normal => self.normal(byte),
            LexerState::Dash | LexerState::Slash => self.second(byte),
            LexerState::LineComment | LexerState::Meta if byte == b'\n' => {
                self.state = LexerState::Normal;
            }
            LexerState::LineComment | LexerState::Meta => {}
            LexerState::Block { depth, last } => self.in_block(depth, last, byte),
            LexerState::Quote { escapes } => {
                self.keep(byte);
                match byte {
                    b'\'' if escapes => self.state = LexerState::QuoteEnd,
                    b'\'' => self.state = LexerState::Normal,
                    b'\\' if escapes => self.state = LexerState::Escape,
                    _ => {}
                }
            }
            LexerState::Escape => {
                self.keep(byte);
                self.state = LexerState::Quote { escapes: true };
            }
            LexerState::QuoteEnd if byte == b'\'' => {
                self.keep(byte);
                self.state = LexerState::Quote { escapes: true };
            }
            LexerState::QuoteEnd => {
                self.state = LexerState::Normal;
                self.normal(byte);
            }
            LexerState::Identifier => {
                self.keep(byte);
                if byte == b'"' {
                    self.state = LexerState::Normal;
                }
            }
            LexerState::DollarOpen => self.in_tag(byte),
            LexerState::Dollar { matched } => {
                let matched = match byte {
                    byte if self.tag.get(matched) == Some(&byte) => matched + 1,
                    b'$' => 1,
                    _ => 0,
                };
                self.state = if matched == self.tag.len() {
                    LexerState::Normal
                } else {
                    LexerState::Dollar { matched }
                };
            }
        }
    }

    fn normal(&mut self, byte: u8) {
        if is_word(byte) && (byte != b'$' || !self.word.is_empty()) {
            self.in_statement = true;
            if self.word.len() < WORD_BYTES_MAX {
                self.word.push(byte.to_ascii_lowercase());
            }
            if self.words == 0 && self.word.len() > b"copy".len() {
                self.drop_head();
            }
            self.keep(byte);
            return;
        }

        // A byte outside of words ends the current word.
        let escapes = byte == b'\'' && self.word == b"e";
        self.end_word();
        self.commands += u64::from(byte == b'\\');

        match byte {
            b'-' => self.state = LexerState::Dash,
            b'/' => self.state = LexerState::Slash,
            b'\\' if !self.in_statement => self.state = LexerState::Meta,
            b';' if self.parens == 0 && self.begins == 0 => self.end_statement(),
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => self.keep(b' '),
            _ => {
                self.in_statement = true;
                self.keep(byte);
                match byte {
                    b'\'' => self.state = LexerState::Quote { escapes },
                    b'"' => self.state = LexerState::Identifier,
                    b'$' => {
                        self.tag.clear();
                        self.tag.push(b'$');
                        self.state = LexerState::DollarOpen;
                    }
                    b'(' => self.parens = self.parens.saturating_add(1),
                    b')' => self.parens = self.parens.saturating_sub(1),
                    _ => {}
                }
            }
        }
    }

    /// Handles the byte after a `-` or `/`.
    fn second(&mut self, byte: u8) {
        let (first, second, comment) = match self.state {
            LexerState::Dash => (b'-', b'-', LexerState::LineComment),
            _ => (b'/', b'*', LexerState::Block { depth: 1, last: 0 }),
        };
        if byte == second {
            self.keep(b' ');
            self.state = comment;
        } else {
            self.in_statement = true;
            self.keep(first);
            self.state = LexerState::Normal;
            self.normal(byte);
        }
    }

    fn in_block(&mut self, depth: u32, last: u8, byte: u8) {
        self.state = match (last, byte) {
            (b'*', b'/') if depth == 1 => LexerState::Normal,
            (b'*', b'/') => LexerState::Block {
                depth: depth - 1,
                last: 0,
            },
            (b'/', b'*') => LexerState::Block {
                depth: depth.saturating_add(1),
                last: 0,
            },
            _ => LexerState::Block { depth, last: byte },
        };
    }

    /// Handles a byte in `$tag`, before its second `$`. Text that turns out not to be a tag is an
    /// ordinary part of the statement.
    fn in_tag(&mut self, byte: u8) {
        if byte == b'$' {
            self.tag.push(byte);
            self.state = LexerState::Dollar { matched: 0 };
        } else if is_word(byte)
            && !(self.tag.len() == 1 && byte.is_ascii_digit())
            && self.tag.len() <= WORD_BYTES_MAX
        {
            self.tag.push(byte);
        } else {
            self.state = LexerState::Normal;
            // It becomes a word, so that a `$` directly after it does not begin a quote.
            self.word.clone_from(&self.tag);
            self.normal(byte);
        }
    }

    /// Stores a byte of a statement that may be a COPY.
    fn keep(&mut self, byte: u8) {
        if self.is_copy && self.in_statement {
            if self.head.len() < HEAD_BYTES_MAX {
                self.head.push(byte);
            } else {
                self.is_copy = false;
            }
        }
    }

    /// Discards the stored text: the statement is not a COPY.
    fn drop_head(&mut self) {
        self.is_copy = false;
        self.head.clear();
    }

    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let word = self.word.as_slice();
        if self.words == 0 && word != b"copy" {
            self.is_copy = false;
            self.head.clear();
        }
        if let Some(initial) = self.initials.get_mut(self.words) {
            let counts =
                [&b"create"[..], b"or", b"replace", b"function", b"procedure"].contains(&word);
            *initial = if counts { word[0] } else { 0 };
        }
        self.words += 1;
        let makes_function = matches!(
            self.initials,
            [b'c', b'f' | b'p', ..] | [b'c', b'o', b'r', b'f' | b'p']
        );
        if makes_function && self.parens == 0 {
            match word {
                b"begin" => self.begins += 1,
                b"case" if self.begins > 0 => self.begins += 1,
                b"end" => self.begins = self.begins.saturating_sub(1),
                _ => {}
            }
        }
        self.word.clear();
    }

    fn end_statement(&mut self) {
        if self.is_copy && self.words > 0 {
            self.next_copy = CopyHeader::parse(&self.head);
        }
        self.head.clear();
        self.is_copy = true;
        self.in_statement = false;
        self.words = 0;
        self.initials = [0; 4];
    }
}

/// Returns true for bytes of names, keywords and numbers.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// A token of a COPY statement.
#[derive(Debug, PartialEq)]
enum PartialToken {
    /// In lower case, unless it was quoted.
    Name {
        name: Vec<u8>,
        quoted: bool,
    },
    Sign(u8),
}

impl CopyHeader {
    /// Parses a statement without its `;`. Returns `None` if it is not `COPY … FROM stdin`.
    fn parse(statement: &[u8]) -> Option<Self> {
        let tokens = tokens(statement)?;
        let mut tokens = tokens.into_iter().peekable();
        let is_keyword = |token: Option<&PartialToken>, word: &[u8]| matches!(token, Some(PartialToken::Name { name, quoted: false }) if name == word);
        let name = |token: Option<PartialToken>| match token {
            Some(PartialToken::Name { name, .. }) => Some(name),
            _ => None,
        };

        if !is_keyword(tokens.next().as_ref(), b"copy") {
            return None;
        }

        let mut header = Self {
            table: name(tokens.next())?,
            ..Self::default()
        };

        if tokens.next_if_eq(&PartialToken::Sign(b'.')).is_some() {
            header.schema = Some(std::mem::replace(&mut header.table, name(tokens.next())?));
        }

        if tokens.next_if_eq(&PartialToken::Sign(b'(')).is_some() {
            loop {
                header.columns.push(name(tokens.next())?);
                match tokens.next()? {
                    PartialToken::Sign(b',') => {}
                    PartialToken::Sign(b')') => break,
                    _ => return None,
                }
            }
        }

        if !is_keyword(tokens.next().as_ref(), b"from")
            || !is_keyword(tokens.next().as_ref(), b"stdin")
        {
            return None;
        }

        header.has_options = tokens.peek().is_some();
        Some(header)
    }
}

/// Splits a COPY statement into tokens. Returns `None` if a quoted name does not end.
fn tokens(text: &[u8]) -> Option<Vec<PartialToken>> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if byte == b'"' {
            let mut name = Vec::new();
            loop {
                at += 1;
                match (text.get(at)?, text.get(at + 1)) {
                    (b'"', Some(b'"')) => at += 1,
                    (b'"', _) => break,
                    _ => {}
                }
                name.push(text[at]);
            }
            at += 1;
            out.push(PartialToken::Name { name, quoted: true });
        } else if is_word(byte) {
            let len = text[at..].iter().take_while(|&&byte| is_word(byte)).count();
            let name = text[at..at + len].to_ascii_lowercase();
            at += len;
            out.push(PartialToken::Name {
                name,
                quoted: false,
            });
        } else {
            at += 1;
            if byte != b' ' {
                out.push(PartialToken::Sign(byte));
            }
        }
    }

    Some(out)
}

#[cfg(test)]
#[path = "lexer_tests.rs"]
mod tests;
