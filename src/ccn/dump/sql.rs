//! Splits SQL statements into tokens, as far as needed to find the names in a statement.
//!
//! Comments, literals and dollar quotes are recognized by the server's rules, so that text inside
//! of them is never taken for a word of the statement.

/// A token of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SqlToken {
    /// A keyword, name or number, in lower case.
    Word(String),
    /// A name in double quotes, unchanged.
    Quoted(String),
    /// The text of a literal.
    Literal(String),
    /// A dollar quote. Its content is not stored.
    Body,
    Sign(u8),
}

impl SqlToken {
    /// Returns true for this keyword, which must be in lower case.
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(text) if text == word)
    }

    /// Returns the name, quoted or not.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Quoted(name) => Some(name),
            _ => None,
        }
    }

    /// Returns the value of an assignment: a name, a number or a literal.
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Word(text) | Self::Quoted(text) | Self::Literal(text) => Some(text),
            _ => None,
        }
    }
}

/// Splits one or more statements into tokens. A token that is cut off at the end is left out.
pub(super) fn tokens(text: &[u8]) -> Vec<SqlToken> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let rest = &text[at..];

        let taken = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Some((1, None)),
            b'-' if rest.starts_with(b"--") => {
                let len = rest
                    .iter()
                    .position(|&byte| byte == b'\n')
                    .unwrap_or(rest.len());
                Some((len, None))
            }
            b'/' if rest.starts_with(b"/*") => block_comment(rest).map(|len| (len, None)),
            b'\'' => {
                quoted(rest, b'\'', false).map(|(len, text)| (len, Some(SqlToken::Literal(text))))
            }
            b'"' => {
                quoted(rest, b'"', false).map(|(len, text)| (len, Some(SqlToken::Quoted(text))))
            }
            b'e' | b'E' if rest.get(1) == Some(&b'\'') => quoted(&rest[1..], b'\'', true)
                .map(|(len, text)| (len + 1, Some(SqlToken::Literal(text)))),
            b'$' if tag_len(rest).is_some() => body(rest).map(|len| (len, Some(SqlToken::Body))),
            _ if is_word(byte) => {
                let len = rest.iter().take_while(|&&byte| is_word(byte)).count();
                Some((
                    len,
                    Some(SqlToken::Word(lossy(&rest[..len]).to_lowercase())),
                ))
            }
            sign => Some((1, Some(SqlToken::Sign(sign)))),
        };

        let Some((len, token)) = taken else { break };
        out.extend(token);
        at += len;
    }

    out
}

/// Returns the length of a comment, in which others may nest; `None` if it does not end.
fn block_comment(text: &[u8]) -> Option<usize> {
    let mut depth = 0_u32;
    let mut at = 0;
    loop {
        match text.get(at..at + 2)? {
            b"/*" => {
                depth = depth.saturating_add(1);
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
}

/// Returns the length of a quoted text with its quotes, and its content; `None` if it does not end.
fn quoted(text: &[u8], quote: u8, escapes: bool) -> Option<(usize, String)> {
    let mut held = Vec::new();
    let mut at = 1;
    loop {
        let &byte = text.get(at)?;
        if byte == quote {
            if text.get(at + 1) != Some(&quote) {
                return Some((at + 1, lossy(&held)));
            }
            at += 1;
        } else if byte == b'\\' && escapes {
            at += 1;
        }
        held.push(*text.get(at)?);
        at += 1;
    }
}

/// Returns the length of `$tag$` at the text's beginning; `None` if there is no such tag.
fn tag_len(text: &[u8]) -> Option<usize> {
    let inner = text.get(1..)?;
    let len = inner
        .iter()
        .take_while(|&&byte| is_word(byte) && byte != b'$')
        .count();
    let is_tag = inner.get(len) == Some(&b'$') && !inner.first().is_some_and(u8::is_ascii_digit);
    is_tag.then_some(len + 2)
}

/// Returns the length of a dollar quote; `None` if it does not end.
fn body(text: &[u8]) -> Option<usize> {
    let len = tag_len(text)?;
    let (tag, rest) = text.split_at(len);
    let end = rest.windows(len).position(|part| part == tag)?;
    Some(len + end + len)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_split_as_the_server_does() {
        let word = |text: &str| SqlToken::Word(text.into());
        let literal = |text: &str| SqlToken::Literal(text.into());
        let text = b"CREATE /* a /* b */ c */ x \"Y\"\"z\" = 'it''s', E'a\\'b' -- CREATE y\n($1, a$b$c); $f$ 'x $g$ $f$ $$y$$";
        let expected = [
            word("create"),
            word("x"),
            SqlToken::Quoted("Y\"z".into()),
            SqlToken::Sign(b'='),
            literal("it's"),
            SqlToken::Sign(b','),
            literal("a'b"),
            SqlToken::Sign(b'('),
        ];
        let found = tokens(text);
        assert_eq!(found[..8], expected);
        assert_eq!(
            found[found.len() - 4..],
            [
                SqlToken::Sign(b')'),
                SqlToken::Sign(b';'),
                SqlToken::Body,
                SqlToken::Body
            ]
        );
        for cut in ["a 'b", "a \"b", "a /* b /* */", "a $x$ b $y$", "a E'b\\'"] {
            assert_eq!(tokens(cut.as_bytes()), [word("a")], "{cut}");
        }
    }
}
