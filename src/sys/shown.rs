//! A command's words for people and for machines, without the secrets that some of them carry.
//!
//! A guess, made to keep the usual secrets out of logs and listings: a command that takes its secrets from a file shows
//! none. What is masked is in the table of the tests.

/// What stands in a secret's place.
const MASK: &str = "***";
/// A name that holds one of these (in any case) has a secret for its value.
const SECRET_NAMES: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "restrict-key",
    "authorization",
    "cookie",
    "credential",
    "private-key",
];
/// Names that are secret as a whole, and mean something else inside of others.
const WHOLE_SECRET_NAMES: [&str; 4] = ["pass", "pw", "pin", "auth"];

/// How an option of one letter gives a secret to a program.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// `-pSECRET`.
    Attached,
    /// `-p SECRET` or `-pSECRET`.
    Either,
    /// `-u USER:SECRET`, with this character between them, attached or not.
    After(char),
}

/// Programs by the beginning of their names, and the options that hold a secret. There `-p` of `psql` is a port.
const OPTIONS: [(&str, &[&str], Form); 17] = [
    ("mysql", &["-p"], Form::Attached),
    ("mariadb", &["-p"], Form::Attached),
    ("sshpass", &["-p"], Form::Either),
    ("mongo", &["-p"], Form::Either),
    ("redis-cli", &["-a"], Form::Either),
    ("valkey-cli", &["-a"], Form::Either),
    ("ldap", &["-w"], Form::Either),
    ("sqlcmd", &["-P"], Form::Either),
    ("bcp", &["-P"], Form::Either),
    ("cqlsh", &["-p"], Form::Either),
    ("zip", &["-P"], Form::Either),
    ("unzip", &["-P"], Form::Either),
    ("7z", &["-p"], Form::Attached),
    ("curl", &["-u", "--user", "-U", "--proxy-user"], Form::After(':')),
    ("http", &["-a", "--auth"], Form::After(':')),
    ("lftp", &["-u"], Form::After(',')),
    ("smbclient", &["-U", "--user"], Form::After('%')),
];

/// The words as a shell would take them, secrets masked.
pub fn shown(words: &[String]) -> String {
    let quoted = masked(words).into_iter().map(|word| {
        // Quotes around the mask alone would only be noise.
        if word == MASK { word } else { shell_words::quote(&word).into_owned() }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// The words, each with its secrets masked: values of names like `PGPASSWORD`, `--token` or `Authorization:`, passwords in
/// URLs, and the options of [`OPTIONS`], also within a word that is a script.
pub fn masked(words: &[String]) -> Vec<String> {
    let mut masker = Masker::default();
    words.iter().map(|word| masker.word(word)).collect()
}

/// What the words so far say of the next.
#[derive(Default)]
struct Masker {
    options: Vec<(&'static [&'static str], Form)>,
    next: Next,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Next {
    #[default]
    Plain,
    Secret,
    /// A secret if it is quoted, as in SQL's `PASSWORD 'x'`.
    SecretIfQuoted,
    SecretAfter(char),
    /// The rest of a header, to the end of the word or to this quote.
    Rest(Option<char>),
    /// A secret that began with this quote.
    ToQuote(char),
}

impl Masker {
    fn word(&mut self, word: &str) -> String {
        let mut out = String::with_capacity(word.len());
        for piece in word.split_inclusive([' ', '\t', '\n', ';']) {
            let text = piece.trim_end_matches([' ', '\t', '\n', ';']);
            if !text.is_empty() {
                out.push_str(&self.piece(text));
            }
            out.push_str(&piece[text.len()..]);
        }
        if let Next::Rest(_) | Next::ToQuote(_) = self.next {
            self.next = Next::Plain;
        }
        // Several masks in a row stand for one secret with blanks.
        while let Some(at) = out.find("*** ***") {
            out.replace_range(at..at + 4, "");
        }
        out
    }

    fn piece(&mut self, text: &str) -> String {
        match std::mem::take(&mut self.next) {
            Next::Plain => {}
            Next::ToQuote(quote) => return self.within(text, Next::ToQuote(quote), Some(quote)),
            Next::Rest(quote) => return self.within(text, Next::Rest(quote), quote),
            // An option that stands where its value was expected.
            Next::Secret if text.starts_with("--") => {}
            Next::Secret => return self.secret("", text),
            Next::SecretIfQuoted if text.starts_with(['\'', '"']) => return self.secret("", text),
            Next::SecretIfQuoted => {}
            Next::SecretAfter(between) => {
                if let Some(at) = text.find(between) {
                    return self.secret(&text[..=at], &text[at + 1..]);
                }
                return text.to_owned();
            }
        }
        self.note_program(text);
        let masked = self.short_option(text).or_else(|| self.named_value(text));
        masked.unwrap_or_else(|| {
            self.next = expected_after(text);
            mask_url(text)
        })
    }

    /// Masks a secret, and remembers if it goes on beyond a blank because it is quoted.
    fn secret(&mut self, before: &str, secret: &str) -> String {
        let quote = secret.chars().next().filter(|c| matches!(c, '\'' | '"'));
        if let Some(quote) = quote.filter(|&quote| secret.len() == 1 || !secret[1..].contains(quote)) {
            self.next = Next::ToQuote(quote);
        }
        format!("{before}{MASK}")
    }

    /// Masks what belongs to a secret that began earlier, up to the quote that ends it.
    fn within(&mut self, text: &str, state: Next, quote: Option<char>) -> String {
        match quote.and_then(|quote| text.find(quote)) {
            Some(at) => format!("{MASK}{}", &text[at + 1..]),
            None => {
                self.next = state;
                MASK.to_owned()
            }
        }
    }

    fn note_program(&mut self, text: &str) {
        let program = text.rsplit(['/', '\'', '"', '(', '`', '|', '&']).next().unwrap_or_default();
        let known = OPTIONS.iter().filter(|(name, ..)| program.starts_with(name));
        self.options.extend(known.map(|&(_, options, form)| (options, form)));
    }

    /// An option of a known program that holds a secret.
    fn short_option(&mut self, text: &str) -> Option<String> {
        let bare = text.trim_start_matches(['\'', '"']);
        let quotes = &text[..text.len() - bare.len()];
        for &(options, form) in &self.options {
            let Some(option) = options.iter().find(|option| bare.starts_with(**option)) else { continue };
            let value = &bare[option.len()..];
            let value =
                if option.starts_with("--") { value.strip_prefix('=').unwrap_or(value) } else { value };
            let before = &bare[..bare.len() - value.len()];
            match form {
                Form::Attached if value.is_empty() => {}
                Form::Either if value.is_empty() => {
                    self.next = Next::Secret;
                    return Some(text.to_owned());
                }
                Form::After(between) if value.is_empty() => {
                    self.next = Next::SecretAfter(between);
                    return Some(text.to_owned());
                }
                Form::Attached | Form::Either => {
                    return Some(self.secret(&format!("{quotes}{before}"), value));
                }
                Form::After(between) => {
                    let Some(at) = value.find(between) else { continue };
                    let before = format!("{quotes}{before}{}", &value[..=at]);
                    return Some(self.secret(&before, &value[at + 1..]));
                }
            }
        }
        None
    }

    /// `NAME=value`, `--name value`, `Name: value`, `"name":"value"`, `pass:value`.
    fn named_value(&mut self, text: &str) -> Option<String> {
        let at = text.find(['=', ':'])?;
        let (name, value) = (&text[..at], &text[at + 1..]);
        let is_url = value.starts_with("//");
        if is_url || !is_secret_name(bare_name(name)) {
            // A second name may follow, as in `-oUser=x,password=y` or `--header=Authorization:`.
            let deeper = value.find(['=', ':']).filter(|_| !is_url).and_then(|_| self.named_value(value))?;
            return Some(format!("{}{deeper}", &text[..=at]));
        }
        if value.is_empty() {
            if text.ends_with(':') {
                let quote =
                    name.chars().find(|c| matches!(c, '\'' | '"')).filter(|_| !name.ends_with(['\'', '"']));
                self.next = Next::Rest(quote);
            }
            return Some(text.to_owned());
        }
        Some(self.secret(&text[..=at], value))
    }
}

/// What the next piece is after this one: the value of `--token` or `-password`, or in SQL that of `PASSWORD 'x'` and
/// `IDENTIFIED BY 'x'`.
fn expected_after(text: &str) -> Next {
    let is_option = text.starts_with('-') && text.len() > 2 && !text.contains('=');
    if is_option && is_secret_name(bare_name(text)) {
        Next::Secret
    } else if ["password", "by"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        Next::SecretIfQuoted
    } else {
        Next::Plain
    }
}

/// A name without what surrounds it: dashes, quotes, braces, and what stands before it in a list.
fn bare_name(name: &str) -> &str {
    let name = name.rsplit([',', '{', '[', '&', '?']).next().unwrap_or(name);
    name.trim_matches(['\'', '"', '`', '(', ' '])
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
    let bare = name.trim_start_matches('-');
    // `MYSQL_PWD`, but `PWD` and `OLDPWD` are directories.
    let is_pwd = name.ends_with("pwd") && !matches!(bare, "pwd" | "oldpwd");
    let is_whole = WHOLE_SECRET_NAMES.contains(&bare);
    // `--no-password` and `--password-file` take no secret.
    let is_secret = is_pwd || is_whole || SECRET_NAMES.iter().any(|secret| name.contains(secret));
    !names_a_place && !name.starts_with("--no-") && is_secret
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each way to give a secret, bare and inside of a script, with a secret drawn at random.
    #[test]
    fn no_way_to_give_a_secret_shows_it() {
        let ways: [&[&str]; 30] = [
            &["env", "PGPASSWORD=@", "x"],
            &["env", "DB_PASSWD=@", "x"],
            &["env", "MYSQL_PWD=@", "x"],
            &["env", "RESTIC_PASSWORD=@", "x"],
            &["env", "AWS_SECRET_ACCESS_KEY=@", "x"],
            &["env", "GITHUB_TOKEN=@", "x"],
            &["x", "--password", "@"],
            &["x", "--password=@"],
            &["x", "-password", "@"],
            &["x", "--pass", "@"],
            &["x", "--pass=@"],
            &["x", "--api-key", "@"],
            &["x", "--client-secret", "@"],
            &["mysqldump", "-uroot", "-p@"],
            &["mariadb-dump", "--password=@"],
            &["sshpass", "-p", "@"],
            &["sshpass", "-p@"],
            &["mongodump", "-u", "a", "-p", "@"],
            &["redis-cli", "-a", "@"],
            &["ldapsearch", "-w", "@"],
            &["sqlcmd", "-P", "@"],
            &["7z", "a", "-p@"],
            &["zip", "-P", "@"],
            &["curl", "-u", "a:@"],
            &["curl", "--user", "a:@"],
            &["curl", "-H", "Authorization: Basic @"],
            &["curl", "--header=X-Auth-Token: @"],
            &["lftp", "-u", "a,@"],
            &["smbclient", "-U", "a%@"],
            &["psql", "postgresql://a:@@h/d"],
        ];
        let secrets = ["hunter2", "p4$$", "x=y", "a/b", "-dash", "q\"uote", "äö", "123"];
        for way in ways {
            for secret in secrets {
                // A password in a URL has its slashes escaped.
                if way[0] == "psql" && secret.contains('/') {
                    continue;
                }
                let fill = |word: &&str| word.replacen('@', &format!("Qz{secret}Zq"), 1);
                let words: Vec<String> = way.iter().map(fill).collect();
                let script = vec!["sh".to_owned(), "-c".to_owned(), shell_words::join(&words)];
                for words in [words, script] {
                    let all = format!("{} {}", shown(&words), masked(&words).concat());
                    assert!(!all.contains("Qz") && !all.contains("Zq"), "{words:?}: {all}");
                }
            }
        }
    }

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
            (vec!["curl", "-u", "me:hunter2", "http://h/"], "curl -u 'me:***' http://h/"),
            (vec!["curl", "-ume:hunter2", "--user=me:hunter2"], "curl '-ume:***' '--user=me:***'"),
            (vec!["docker", "exec", "-u", "999:999", "pg"], "docker exec -u 999:999 pg"),
            (vec!["curl", "-H", "Authorization: Bearer hunter2", "x"], "curl -H 'Authorization: ***' x"),
            (vec!["sh", "-c", "curl -H 'X-Api-Key: hunter2' x"], r#"sh -c "curl -H 'X-Api-Key: *** x""#),
            (vec!["sh", "-c", "dump --password 'hunter2 is long' x"], "sh -c 'dump --password *** x'"),
            (vec!["sh", "-c", "PGPASSWORD='hunter2 x' pg_dumpall"], "sh -c 'PGPASSWORD=*** pg_dumpall'"),
            (vec!["sshpass", "-p", "hunter2", "ssh", "-p", "22", "h"], "sshpass -p *** ssh -p *** h"),
            (vec!["redis-cli", "-a", "hunter2", "--rdb", "-"], "redis-cli -a *** --rdb -"),
            (vec!["mongodump", "--uri", "mongodb://u:hunter2@h"], "mongodump --uri 'mongodb://u:***@h'"),
            (vec!["psql", "host=h password=hunter2 dbname=d"], "psql 'host=h password=*** dbname=d'"),
            (vec!["psql", "-c", "ALTER ROLE a PASSWORD 'hunter2'"], "psql -c 'ALTER ROLE a PASSWORD ***'"),
            (vec!["x", "{\"user\":\"a\",\"password\":\"hunter2\"}"], r#"x '{"user":"a","password":***'"#),
            (vec!["openssl", "enc", "-pass", "pass:hunter2"], "openssl enc -pass ***"),
            (vec!["x", "--password", "--verbose", "y"], "x --password --verbose y"),
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
