//! A command's words for people, without the secrets that some of them carry.

use std::borrow::Cow;

/// What stands in a secret's place.
const MASK: &str = "***";
/// A name that holds one of these (in any case) has a secret for its value.
const SECRET_NAMES: [&str; 8] =
    ["password", "passwd", "passphrase", "secret", "token", "apikey", "api_key", "restrict-key"];

/// The words as a shell would take them, secrets masked: values of `NAME=value` and `--name value` with a name like
/// `PGPASSWORD` or `--token`, and passwords in URLs. A guess, made to keep the usual ones out of logs: a command
/// that takes its secrets from a file shows none.
pub fn shown(words: &[String]) -> String {
    let mut out = Vec::with_capacity(words.len());
    let mut next_is_secret = false;
    for word in words {
        let masked = if next_is_secret { Cow::Borrowed(MASK) } else { Cow::Owned(mask(word)) };
        next_is_secret =
            !next_is_secret && word.starts_with("--") && !word.contains(['=', ' ']) && is_secret_name(word);
        out.push(if masked == MASK { masked.into_owned() } else { shell_words::quote(&masked).into_owned() });
    }
    out.join(" ")
}

/// Masks within one word, which may be a whole script.
fn mask(word: &str) -> String {
    word.split_inclusive([' ', '\t', '\n', ';'])
        .map(|piece| {
            let text = piece.trim_end_matches([' ', '\t', '\n', ';']);
            mask_url(&mask_value(text)) + &piece[text.len()..]
        })
        .collect()
}

fn mask_value(text: &str) -> String {
    match text.split_once('=') {
        Some((name, value)) if !value.is_empty() && !name.contains("://") && is_secret_name(name) => {
            format!("{name}={MASK}")
        }
        _ => text.to_owned(),
    }
}

fn mask_url(text: &str) -> String {
    let Some(start) = text.find("://").map(|at| at + 3) else { return text.to_owned() };
    let host_end = text[start..].find(['/', '?', '#']).map_or(text.len(), |at| start + at);
    let Some(at) = text[start..host_end].rfind('@').map(|at| start + at) else { return text.to_owned() };
    match text[start..at].find(':') {
        Some(colon) => format!("{}:{MASK}{}", &text[..start + colon], &text[at..]),
        None => text.to_owned(),
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let names_a_place = ["file", "command", "path", "prompt"].iter().any(|end| name.ends_with(end));
    // `--no-password` and `--password-file` take no secret.
    !names_a_place && !name.starts_with("--no-") && SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_all_else_is_as_typed() {
        for (words, expected) in [
            (vec!["docker", "exec", "-e", "PGPASSWORD=hunter2", "pg"], "docker exec -e PGPASSWORD=*** pg"),
            (vec!["x", "--token", "abc", "--token=abc", "y"], "x --token *** --token=*** y"),
            (
                vec!["x", "--password-file", "/p", "--no-password", "y"],
                "x --password-file /p --no-password y",
            ),
            (vec!["psql", "postgres://u:p@h/db?a=b"], "psql 'postgres://u:***@h/db?a=b'"),
            (vec!["bash", "-c", "SECRET=1 run; y"], "bash -c 'SECRET=*** run; y'"),
            (vec!["a b", "é=1"], "'a b' é=1"),
        ] {
            let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
            let text = shown(&words);
            assert!(
                text == expected || shell_words::split(&text).ok() == shell_words::split(expected).ok(),
                "{text}"
            );
            assert!(!text.contains("hunter2"));
        }
    }
}
