//! The paths that a source file names.

use super::lexer::{Token, closed, is};

/// A path as written in full: `["crate", "store", "Store"]`, `["std", "fs"]`.
pub(crate) struct Named {
    pub(crate) parts: Vec<String>,
    pub(crate) line: usize,
}

/// All paths that start at `crate`, `self`, `super`, `std`, `core` or `alloc`, with their `{…}`
/// groups spread out and `self`/`super` resolved against `module`.
pub(crate) fn paths(tokens: &[Token], module: &[String]) -> Vec<Named> {
    let mut out = Vec::new();
    // Inline modules around us, each with the index at which it closes.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        inline.retain(|&(_, end)| i < end);
        if tokens[i].text == "mod" && is(tokens, i + 2, &["{"]) {
            inline.push((tokens[i + 1].text.clone(), closed(tokens, i + 2)));
        }
        let root = matches!(
            tokens[i].text.as_str(),
            "crate" | "self" | "super" | "std" | "core" | "alloc"
        );
        let inner = i > 0 && matches!(tokens[i - 1].text.as_str(), "::" | ".");
        if root && !inner && is(tokens, i + 1, &["::"]) {
            let here: Vec<String> = ["crate".to_owned()]
                .into_iter()
                .chain(module.iter().cloned())
                .chain(inline.iter().map(|(m, _)| m.clone()))
                .collect();
            i = tree(tokens, i, Vec::new(), &here, &mut out);
        } else {
            i += 1;
        }
    }
    out
}

/// Reads one use tree at `i` that follows `prefix`. Returns the index after it.
fn tree(
    tokens: &[Token],
    mut i: usize,
    mut prefix: Vec<String>,
    here: &[String],
    out: &mut Vec<Named>,
) -> usize {
    let line = tokens.get(i).map_or(0, |t| t.line);
    while let Some(token) = tokens.get(i) {
        match token.text.as_str() {
            "{" => {
                let end = closed(tokens, i);
                i += 1;
                while i + 1 < end {
                    if is(tokens, i, &[","]) {
                        i += 1;
                        continue;
                    }
                    i = tree(tokens, i, prefix.clone(), here, out).max(i + 1);
                    if is(tokens, i, &["as"]) {
                        i += 2;
                    }
                }
                return end;
            }
            "self" if prefix.is_empty() => prefix = here.to_vec(),
            "self" => {}
            "super" => {
                if prefix.is_empty() {
                    prefix = here.to_vec();
                }
                if prefix.len() > 1 {
                    prefix.pop();
                }
            }
            word => prefix.push(word.to_owned()),
        }
        i += 1;
        if !is(tokens, i, &["::"]) {
            break;
        }
        i += 1;
        // A turbofish or a qualified path ends the name.
        if is(tokens, i, &["<"]) {
            break;
        }
    }
    out.push(Named {
        parts: prefix,
        line,
    });
    i
}
