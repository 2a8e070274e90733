//! Rust source as tokens, and without its tests.

#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Splits Rust into identifiers, `::` and single characters; comments, strings and numbers' insides
/// are dropped.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let word = |c: char| c == '_' || c.is_alphanumeric();
    let mut out = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start_line = line;
        let c = at(i);
        let end = if c == '/' && at(i + 1) == '/' {
            (i..)
                .find(|&j| j >= chars.len() || at(j) == '\n')
                .unwrap_or(i)
        } else if c == '/' && at(i + 1) == '*' {
            block_comment_end(&chars, i)
        } else if c == '"' {
            quoted_end(&chars, i)
        } else if c == '\'' {
            let literal = at(i + 1) == '\\' || (at(i + 2) == '\'' && at(i + 1) != '\'');
            if literal {
                quoted_end(&chars, i)
            } else {
                i + 1
            }
        } else if word(c) {
            let end = (i..).find(|&j| !word(at(j))).unwrap_or(i);
            let text: String = chars[i..end].iter().collect();
            let prefix = matches!(text.as_str(), "r" | "br" | "cr");
            if prefix && (at(end) == '"' || (at(end) == '#' && matches!(at(end + 1), '#' | '"'))) {
                raw_string_end(&chars, end)
            } else {
                out.push(Token { text, line });
                end
            }
        } else if c == ':' && at(i + 1) == ':' {
            out.push(Token {
                text: "::".into(),
                line,
            });
            i + 2
        } else {
            if !c.is_whitespace() {
                out.push(Token {
                    text: c.into(),
                    line,
                });
            }
            i + 1
        };
        line = start_line
            + chars[i..end.min(chars.len())]
                .iter()
                .filter(|&&c| c == '\n')
                .count();
        i = end;
    }
    out
}

pub(crate) fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

/// The end of a string or character literal that begins at `start`.
pub(crate) fn quoted_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != chars[start] {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The end of a raw string whose hashes begin at `start`.
pub(crate) fn raw_string_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start..].iter().take_while(|&&c| c == '#').count();
    let mut i = start + hashes + 1;
    while i < chars.len() {
        if chars[i] == '"'
            && chars[i + 1..]
                .iter()
                .take(hashes)
                .filter(|&&c| c == '#')
                .count()
                == hashes
        {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

pub(crate) fn is(tokens: &[Token], i: usize, words: &[&str]) -> bool {
    words
        .iter()
        .enumerate()
        .all(|(k, w)| tokens.get(i + k).is_some_and(|t| t.text == *w))
}

/// Returns the index after the bracket that closes the one at `open`.
pub(crate) fn closed(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Takes test code out: items under `#[cfg(test)]`, `#[cfg(all(test, …))]` and `#[test]`. The
/// second value names the modules that were declared there and live in files of their own.
pub(crate) fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut test_modules) = (Vec::new(), Vec::new());
    let mut i = 0;
    while i < tokens.len() {
        let test = is(tokens, i, &["#", "[", "cfg", "(", "test", ")"])
            || is(tokens, i, &["#", "[", "cfg", "(", "all", "(", "test"])
            || is(tokens, i, &["#", "[", "test", "]"]);
        if !test {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        while is(tokens, i, &["#", "["]) {
            i = closed(tokens, i + 1);
        }
        let item = i;
        while i < tokens.len() {
            match tokens[i].text.as_str() {
                "{" => {
                    i = closed(tokens, i);
                    break;
                }
                "(" | "[" => i = closed(tokens, i),
                ";" => {
                    if let Some(m) = (item..i).find(|&j| tokens[j].text == "mod") {
                        test_modules.push(tokens[m + 1].text.clone());
                    }
                    i += 1;
                    break;
                }
                _ => i += 1,
            }
        }
    }
    (kept, test_modules)
}
