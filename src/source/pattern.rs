//! One exclude pattern, with exactly the meaning of a line of `.gitignore` in git.
//!
//! The rules are those of gitignore(5) and of git's `dir.c` and `wildmatch.c`: the end of a line,
//! the anchoring of patterns, the places where `**` crosses directories, and the contents of
//! bracket expressions. `tests/patterns.rs` compares each rule with `git check-ignore`. Matching
//! takes at most the product of the lengths of pattern and path and never recurses, so no pattern
//! and no path can make it hang or overflow the stack.
//!
//! Paths are matched in the form of [`crate::types::RelPath::key`]: components joined by 0x00. So a
//! `/` in a pattern stands for the byte [`SEPARATOR`].

use std::fmt;

/// The separator of components in a path's key.
const SEPARATOR: u8 = 0;

/// Why a pattern can match nothing at all. git ignores such a line silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternProblem {
    /// A `[` without its `]`.
    OpenClass,
    /// `[[:name:]]` with an unknown name.
    UnknownClass,
    /// A class without any character that a name can have, such as `[/]`.
    EmptyClass,
    /// A `\` with nothing after it.
    TrailingBackslash,
    /// No name at all: `!`, `/`, or an empty component as in `a//b`.
    EmptyName,
    /// A component `.` or `..`, which no captured path has.
    DotComponent,
}

impl fmt::Display for PatternProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenClass => "'[' has no matching ']'; write '\\[' for the character",
            Self::UnknownClass => "there is no character class of that name in '[[:…:]]'",
            Self::EmptyClass => "a character class never matches '/'",
            Self::TrailingBackslash => "'\\' at its end escapes nothing",
            Self::EmptyName => "it names nothing",
            Self::DotComponent => {
                "no captured path has a component '.' or '..'; patterns begin at the source's root: write '/name'"
            }
        })
    }
}

/// A part of a pattern after its literal beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternToken {
    Byte(u8),
    /// `?`: any byte of a name.
    One,
    /// `[…]`: the bytes that it matches, one bit each.
    Class(Box<[u64; 4]>),
    /// `*`: any bytes of one name.
    Star,
    /// `**` at the end: anything.
    Anything,
    /// `**/`: nothing, or any whole components.
    Components,
}

/// The part of a path that a pattern is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternSubject {
    /// The last component: the pattern has no `/`, except perhaps at its end.
    Name,
    /// The whole path from the root.
    Path,
}

/// One pattern, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// `!`: takes back the exclusion by earlier patterns.
    pub is_negated: bool,
    /// A `/` at its end: matches only directories.
    pub only_directories: bool,
    pub subject: PatternSubject,
    /// The literal beginning, in key form.
    prefix: Vec<u8>,
    tokens: Vec<PatternToken>,
    /// The literal end of `tokens`, compared first.
    suffix: Vec<u8>,
}

/// A parsed line of an exclude file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternLine {
    /// A comment, or nothing.
    Nothing,
    Pattern(Pattern),
    /// The line can match nothing; git ignores it.
    Never(PatternProblem),
}

/// Parses one line of an exclude file, without its line feed. It must not contain a NUL.
pub fn parse_line(line: &[u8]) -> PatternLine {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.starts_with(b"#") {
        return PatternLine::Nothing;
    }
    parse(line)
}

/// Parses a pattern of a command line, where a leading `#` is an ordinary character.
pub fn parse(text: &[u8]) -> PatternLine {
    let text = trim_trailing_spaces(text);
    if text.is_empty() {
        return PatternLine::Nothing;
    }
    let (is_negated, text) = match text.strip_prefix(b"!") {
        Some(rest) => (true, rest),
        None => (false, text),
    };

    let (only_directories, text) = match text.strip_suffix(b"/") {
        Some(rest) => (true, rest),
        None => (false, text),
    };

    let subject = if text.contains(&b'/') {
        PatternSubject::Path
    } else {
        PatternSubject::Name
    };
    // git removes the literal beginning before it looks for wildcards, so a `**` right after it
    // counts as one at the beginning of a component.
    let text = text.strip_prefix(b"/").unwrap_or(text);
    let literal = text
        .iter()
        .position(|byte| b"*?[\\".contains(byte))
        .unwrap_or(text.len());

    let (prefix, rest) = if subject == PatternSubject::Path {
        text.split_at(literal)
    } else {
        (&[][..], text)
    };

    if text.is_empty() {
        return PatternLine::Never(PatternProblem::EmptyName);
    }
    if let Some(problem) = impossible_component(text) {
        return PatternLine::Never(problem);
    }
    let tokens = match tokenize(rest, subject) {
        Ok(tokens) => tokens,
        Err(problem) => return PatternLine::Never(problem),
    };

    let literal_end = tokens.iter().rev().map_while(|token| match token {
        PatternToken::Byte(byte) => Some(*byte),
        _ => None,
    });
    let mut suffix: Vec<u8> = literal_end.collect();
    suffix.reverse();
    let prefix = prefix.iter().copied().map(in_key_form).collect();
    PatternLine::Pattern(Pattern {
        is_negated,
        only_directories,
        subject,
        prefix,
        tokens,
        suffix,
    })
}

/// Removes unescaped spaces from the end of a line, but no other white space, as git does.
fn trim_trailing_spaces(text: &[u8]) -> &[u8] {
    let mut end = 0;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b' ' => at += 1,
            b'\\' if at + 1 == text.len() => return text,
            b'\\' => {
                at += 2;
                end = at;
            }
            _ => {
                at += 1;
                end = at;
            }
        }
    }
    &text[..end.min(text.len())]
}

/// Finds a component that no path can have. Only plain text is checked; a pattern with a class or
/// an escape is left to the matcher. So is `**//`: git lets its `**/` match nothing, so `a**//b`
/// matches `a/b` and `a**//` the directory `a`.
fn impossible_component(text: &[u8]) -> Option<PatternProblem> {
    let is_plain = !text.iter().any(|byte| b"[\\".contains(byte));
    let may_vanish = text.ends_with(b"**/") || text.windows(4).any(|window| window == b"**//");
    if !is_plain || may_vanish {
        return None;
    }
    text.split(|&byte| byte == b'/')
        .find_map(|component| match component {
            b"" => Some(PatternProblem::EmptyName),
            b"." | b".." => Some(PatternProblem::DotComponent),
            _ => None,
        })
}

fn in_key_form(byte: u8) -> u8 {
    if byte == b'/' { SEPARATOR } else { byte }
}

fn tokenize(text: &[u8], subject: PatternSubject) -> Result<Vec<PatternToken>, PatternProblem> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'*' => {
                let stars = text[at..].iter().take_while(|&&byte| byte == b'*').count();
                let rest = &text[at + stars..];
                let begins_component = at == 0 || text[at - 1] == b'/';
                let crosses = subject == PatternSubject::Path && stars > 1 && begins_component;
                at += stars;
                match rest {
                    [] if crosses => tokens.push(PatternToken::Anything),
                    [b'\\', b'/', ..] if crosses => tokens.push(PatternToken::Anything),
                    [b'/', ..] if crosses => {
                        tokens.push(PatternToken::Components);
                        at += 1;
                    }
                    _ => tokens.push(PatternToken::Star),
                }
            }
            b'?' => {
                tokens.push(PatternToken::One);
                at += 1;
            }
            b'[' => {
                let (class, len) = read_class(&text[at..])?;
                if class == [0; 4] {
                    return Err(PatternProblem::EmptyClass);
                }
                tokens.push(PatternToken::Class(Box::new(class)));
                at += len;
            }
            b'\\' => {
                let escaped = *text.get(at + 1).ok_or(PatternProblem::TrailingBackslash)?;
                tokens.push(PatternToken::Byte(in_key_form(escaped)));
                at += 2;
            }
            byte => {
                tokens.push(PatternToken::Byte(in_key_form(byte)));
                at += 1;
            }
        }
    }
    Ok(tokens)
}

/// Reads the bracket expression at the beginning of `text`. Returns the set of bytes that it
/// matches, and its length.
fn read_class(text: &[u8]) -> Result<([u64; 4], usize), PatternProblem> {
    let mut set = [0u64; 4];
    let mut add = |byte: u8| set[usize::from(byte >> 6)] |= 1 << (byte & 63);
    let byte_at = |at: usize| text.get(at).copied().ok_or(PatternProblem::OpenClass);

    let is_negated = matches!(byte_at(1)?, b'!' | b'^');
    let mut at = 1 + usize::from(is_negated);
    // The first byte is always a member, even a `]`.
    let mut previous = None;
    let mut byte = byte_at(at)?;
    loop {
        let range_end = text.get(at + 1).filter(|&&end| end != b']');
        previous = match (byte, previous, range_end) {
            (b'\\', _, _) => {
                at += 1;
                let escaped = byte_at(at)?;
                add(escaped);
                Some(escaped)
            }
            (b'-', Some(from), Some(_)) => {
                at += 1;
                let mut to = byte_at(at)?;
                if to == b'\\' {
                    at += 1;
                    to = byte_at(at)?;
                }
                (from..=to).for_each(&mut add);
                None
            }
            (b'[', _, Some(b':')) => match named_class(text, at)? {
                Some((contains, end)) => {
                    (0..=u8::MAX).filter(contains).for_each(&mut add);
                    at = end;
                    None
                }
                None => {
                    add(b'[');
                    Some(b'[')
                }
            },
            (member, _, _) => {
                add(member);
                Some(member)
            }
        };
        at += 1;
        byte = byte_at(at)?;
        if byte == b']' {
            break;
        }
    }

    if is_negated {
        set = set.map(|bits| !bits);
    }
    // A bracket never matches a separator of names.
    for separator in [SEPARATOR, b'/'] {
        set[usize::from(separator >> 6)] &= !(1 << (separator & 63));
    }
    Ok((set, at + 1))
}

type Contains = fn(&u8) -> bool;

/// Reads `[:name:]` at `at`. Returns its members and the position of its `]`, or `None` if it is
/// not closed by `:]` and so is a `[` among other members.
fn named_class(text: &[u8], at: usize) -> Result<Option<(Contains, usize)>, PatternProblem> {
    let start = at + 2;
    let len = text[start..]
        .iter()
        .position(|&byte| byte == b']')
        .ok_or(PatternProblem::OpenClass)?;
    let Some(name) = text[start..start + len].strip_suffix(b":") else {
        return Ok(None);
    };

    let contains: Contains = match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        // git's own table: without the vertical tab and the form feed.
        b"space" => |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return Err(PatternProblem::UnknownClass),
    };
    Ok(Some((contains, start + len)))
}

impl Pattern {
    /// Returns true if the pattern matches the path whose key is `key` and whose last component is
    /// `name`.
    pub fn matches(&self, key: &[u8], name: &[u8], is_directory: bool) -> bool {
        if self.only_directories && !is_directory {
            return false;
        }
        let text = if self.subject == PatternSubject::Name {
            name
        } else {
            key
        };
        match text.strip_prefix(self.prefix.as_slice()) {
            Some(rest) => rest.ends_with(&self.suffix) && matches_tokens(&self.tokens, rest),
            None => false,
        }
    }

    /// Returns the only name, or path in key form, that a pattern without wildcards matches.
    pub fn literal(&self) -> Option<Vec<u8>> {
        // All of its tokens are bytes, and so `suffix` contains them.
        (self.suffix.len() == self.tokens.len())
            .then(|| [&self.prefix[..], &self.suffix[..]].concat())
    }
}

/// Matches the whole of `text`.
///
/// After a mismatch the last `*` takes one byte more, up to the end of its component, and then the
/// last `**` one component more. Earlier wildcards need no second try: a later one of the same kind
/// can reach everything that they could.
fn matches_tokens(tokens: &[PatternToken], text: &[u8]) -> bool {
    let mut at_token = 0;
    let mut at_text = 0;
    let mut star: Option<(usize, usize)> = None;
    let mut crossing: Option<(usize, usize)> = None;
    loop {
        let next = text.get(at_text).copied();
        let is_match = match (tokens.get(at_token), next) {
            (None, None) => return true,
            (Some(PatternToken::Star), _) => {
                at_token += 1;
                star = Some((at_token, at_text));
                continue;
            }
            (Some(PatternToken::Anything | PatternToken::Components), _) => {
                at_token += 1;
                if at_token == tokens.len() && tokens[at_token - 1] == PatternToken::Anything {
                    return true;
                }
                crossing = Some((at_token, at_text));
                star = None;
                continue;
            }
            (Some(PatternToken::Byte(byte)), Some(next)) => *byte == next,
            (Some(PatternToken::One), Some(next)) => next != SEPARATOR,
            (Some(PatternToken::Class(set)), Some(next)) => {
                set[usize::from(next >> 6)] >> (next & 63) & 1 == 1
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        if is_match {
            at_token += 1;
            at_text += 1;
            continue;
        }

        // A mismatch: let the last `*` take one byte more.
        if let Some((token, start)) = star
            && text.get(start).is_some_and(|&byte| byte != SEPARATOR)
        {
            star = Some((token, start + 1));
            (at_token, at_text) = (token, start + 1);
            continue;
        }

        // Otherwise let the last `**` take one component more.
        star = None;
        let Some((token, start)) = crossing else {
            return false;
        };
        let is_components = tokens[token - 1] == PatternToken::Components;
        let restart = match text.get(start..).filter(|rest| !rest.is_empty()) {
            Some(rest) if is_components => rest
                .iter()
                .position(|&byte| byte == SEPARATOR)
                .map(|n| start + n + 1),
            Some(_) => Some(start + 1),
            None => None,
        };

        let Some(restart) = restart else { return false };
        crossing = Some((token, restart));
        (at_token, at_text) = (token, restart);
    }
}

/// Returns a pattern for display. Backslashes are kept, since patterns have many of them.
pub(super) fn shown(pattern: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(pattern).chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        match parse(text.as_bytes()) {
            PatternLine::Pattern(pattern) => pattern,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_pattern_that_can_match_nothing_has_a_reason() {
        let cases = [
            ("[", PatternProblem::OpenClass),
            ("a[!]", PatternProblem::OpenClass),
            ("a[b\\]", PatternProblem::OpenClass),
            ("[[:lower:]", PatternProblem::OpenClass),
            ("[[:nosuch:]]", PatternProblem::UnknownClass),
            ("[/]", PatternProblem::EmptyClass),
            ("a\\", PatternProblem::TrailingBackslash),
            ("a\\/", PatternProblem::TrailingBackslash),
            ("!", PatternProblem::EmptyName),
            ("/", PatternProblem::EmptyName),
            ("a//b", PatternProblem::EmptyName),
            ("./a", PatternProblem::DotComponent),
            ("a/../b", PatternProblem::DotComponent),
        ];
        for (text, problem) in cases {
            assert_eq!(
                parse(text.as_bytes()),
                PatternLine::Never(problem),
                "{text}"
            );
        }
        for text in ["", "   "] {
            assert_eq!(parse(text.as_bytes()), PatternLine::Nothing, "{text:?}");
        }
        assert_eq!(parse_line(b"# a"), PatternLine::Nothing);
        assert!(
            matches!(parse(b"# a"), PatternLine::Pattern(_)),
            "an option has no comments"
        );
    }

    #[test]
    fn patterns_without_wildcards_are_literals() {
        assert_eq!(pattern("core").literal(), Some(b"core".to_vec()));
        assert_eq!(pattern("/a/b/").literal(), Some(b"a\0b".to_vec()));
        assert_eq!(pattern("\\*a\\ ").literal(), Some(b"*a ".to_vec()));
        assert_eq!(pattern("a*").literal(), None);
        assert_eq!(pattern("**/a").literal(), None);
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let text = "a".repeat(255);
        let stars = "a*".repeat(60) + "b";
        assert!(!pattern(&stars).matches(text.as_bytes(), text.as_bytes(), false));
        let deep = "a\0".repeat(30_000) + "a";
        let components = "**/a/*a*/".repeat(8) + "b*";
        assert!(!pattern(&components).matches(deep.as_bytes(), b"a", false));
    }
}
