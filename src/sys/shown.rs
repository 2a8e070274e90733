//! A command's words for people, without the secrets that some of them carry.

use std::borrow::Cow;

/// What stands in a secret's place.
const MASK: &str = "***";
/// A name that holds one of these (in any case) has a secret for its value.
const SECRET_NAMES: [&str; 8] =
    ["password", "passwd", "passphrase", "secret", "token", "apikey", "api_key", "restrict-key"];

/// Clients whose `-p` has the password right behind it: names that begin so.
const MYSQL_CLIENTS: [&str; 2] = ["mysql", "mariadb"];

/// The words as a shell would take them, secrets masked: values of `NAME=value` and `--name value` with a name like
/// `PGPASSWORD` or `--token`, `-pSECRET` of MySQL's and MariaDB's programs, and passwords in URLs. A guess, made to keep the usual ones out of logs: a command
/// that takes its secrets from a file shows none.
pub fn shown(words: &[String]) -> String {
    let mut out = Vec::with_capacity(words.len());
    let (mut next_is_secret, mut is_mysql) = (false, false);
    for word in words {
        let masked = if next_is_secret { Cow::Borrowed(MASK) } else { Cow::Owned(mask(word, &mut is_mysql)) };
        next_is_secret =
            !next_is_secret && word.starts_with("--") && !word.contains(['=', ' ']) && is_secret_name(word);
        out.push(if masked == MASK { masked.into_owned() } else { shell_words::quote(&masked).into_owned() });
    }
    out.join(" ")
}

/// Masks within one word, which may be a whole script. `is_mysql`: a client of that sort was named before.
fn mask(word: &str, is_mysql: &mut bool) -> String {
    word.split_inclusive([' ', '\t', '\n', ';'])
        .map(|piece| {
            let text = piece.trim_end_matches([' ', '\t', '\n', ';']);
            let masked = if *is_mysql { mask_short(text) } else { mask_value(text) };
            *is_mysql |= is_mysql_client(text);
            mask_url(&masked) + &piece[text.len()..]
        })
        .collect()
}

/// The password right behind a `-p`, else as [`mask_value`].
fn mask_short(text: &str) -> String {
    let bare = text.trim_start_matches(['\'', '"']);
    match bare.strip_prefix("-p") {
        Some(secret) if !secret.is_empty() => {
            format!("{}-p{MASK}", &text[..text.len() - bare.len()])
        }
        _ => mask_value(text),
    }
}

fn is_mysql_client(text: &str) -> bool {
    let program = text.rsplit(['/', '\'', '"', '(', '`']).next().unwrap_or_default();
    MYSQL_CLIENTS.iter().any(|client| program.starts_with(client))
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
    // `MYSQL_PWD`, but `PWD` and `OLDPWD` are folders.
    let is_pwd = name.ends_with("pwd") && !matches!(name.trim_start_matches('-'), "pwd" | "oldpwd");
    // `--no-password` and `--password-file` take no secret.
    let is_secret = is_pwd || SECRET_NAMES.iter().any(|secret| name.contains(secret));
    !names_a_place && !name.starts_with("--no-") && is_secret
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
            (
                vec!["docker", "exec", "db", "mysqldump", "-uroot", "-phunter2", "-P3306", "-p", "all"],
                "docker exec db mysqldump -uroot '-p***' -P3306 -p all",
            ),
            (vec!["/usr/bin/mariadb-dump", "-phunter2"], "/usr/bin/mariadb-dump '-p***'"),
            (vec!["sh", "-c", "mysqldump '-phunter2' x"], r#"sh -c "mysqldump '-p*** x""#),
            (vec!["pg_dump", "-p5432", "-pall"], "pg_dump -p5432 -pall"),
            (
                vec!["env", "MYSQL_PWD=hunter2", "DB_PWD=hunter2", "PWD=/a", "OLDPWD=/b", "x"],
                "env 'MYSQL_PWD=***' 'DB_PWD=***' PWD=/a OLDPWD=/b x",
            ),
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
