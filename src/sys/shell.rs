//! Detection of commands that are written for a shell.
//!
//! Commands are split into words and run without a shell. An operator that is passed on as a word
//! changes the command, which may still succeed: `echo dump | gzip` prints "dump | gzip".

/// Returns the first part outside of quotes that only a shell understands: an operator that is a
/// word or begins one, a `;` that ends one, a variable, or a command substitution.
pub fn shell_syntax(text: &str) -> Option<String> {
    let mut quote = None;
    let mut is_escaped = false;
    let mut at_word_start = true;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let starts_word =
            std::mem::replace(&mut at_word_start, c.is_whitespace() && quote.is_none());
        if std::mem::take(&mut is_escaped) {
            continue;
        }

        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None | Some('"'), '\\') => is_escaped = true,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '|' | '&' | '<' | '>' | ';' | '(') if starts_word => {
                return Some(word_at(text, at));
            }
            (None, ';') if chars.peek().is_none_or(|next| next.1.is_whitespace()) => {
                return Some(c.to_string());
            }
            (None, '`') => return Some(c.to_string()),
            (None, '$') if chars.peek().is_some_and(|next| is_expanded(next.1)) => {
                return Some(word_at(text, at));
            }
            (None, '0'..='9') if starts_word && chars.peek().is_some_and(|next| next.1 == '>') => {
                return Some(word_at(text, at));
            }
            _ => {}
        }
    }

    None
}

/// Returns true if `$` followed by this character is a variable or a substitution.
fn is_expanded(next: char) -> bool {
    next.is_ascii_alphabetic() || matches!(next, '_' | '{' | '(')
}

fn word_at(text: &str, at: usize) -> String {
    text[at..]
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_syntax_is_found() {
        for (text, found) in [
            ("dump | gzip", "|"),
            ("dump > x", ">"),
            ("dump >x", ">x"),
            ("dump 2>/dev/null", "2>/dev/null"),
            ("a && b", "&&"),
            ("a; b", ";"),
            ("a ;b", ";b"),
            ("a &", "&"),
            ("cat $HOME/x", "$HOME/x"),
            ("cat ${X}", "${X}"),
            ("echo $(date)", "$(date)"),
            ("echo `date`", "`"),
            ("a 'b' | c", "|"),
            ("(a)", "(a)"),
            ("a < b", "<"),
        ] {
            assert_eq!(shell_syntax(text).as_deref(), Some(found), "{text}");
        }
    }

    #[test]
    fn ordinary_words_are_no_shell_syntax() {
        for text in [
            "sh -c 'dump | gzip'",
            "sh -c \"dump >$X; echo `date`\"",
            "psql -F '|' -c \"select 1; select 2\"",
            "curl http://h/?a=1&b=2",
            "grep -E a|b",
            r"echo \$HOME \| x",
            "awk '{ print $1 }'",
            "grep x$",
            "cost $5",
            "a=b;c",
            "",
        ] {
            assert_eq!(shell_syntax(text), None, "{text}");
        }
    }
}
