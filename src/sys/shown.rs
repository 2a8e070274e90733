//! A command's words for messages and records, without the secrets that some commands contain.
//!
//! This is a heuristic that keeps the usual secrets out of logs and listings. A command that takes
//! its secrets from a file shows none. The table in the tests lists the masked forms.

/// Replacement for a secret.
const MASK: &str = "***";
/// Shorter secrets are also part of too many other words.
const SECRET_BYTES_MIN: usize = 4;
/// A name that contains one of these, in upper or lower case, has a secret as its value.
const SECRET_NAMES: [&str; 14] = [
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
    "bearer",
];
/// Names that are secret as a whole or as the last part of a name (`DB_PASS`, `--account-key`), and
/// mean something else inside other names.
const LAST_SECRET_NAMES: [&str; 7] = ["pass", "pw", "pswd", "pin", "auth", "sig", "creds"];
/// Names that are secret only as the last part of a longer name: `--key` alone usually names a
/// file.
const LAST_PART_SECRET_NAMES: [&str; 2] = ["key", "signature"];
/// Parts of a name in a URL's query. A key and a signature are secrets there too.
const SECRET_QUERY_NAMES: [&str; 8] = [
    "pass", "pwd", "token", "key", "secret", "sig", "auth", "session",
];
/// Endings of names that give the location of a secret instead of a secret.
const PLACES: [&str; 5] = ["file", "command", "path", "prompt", "stdin"];

/// How an option passes a secret to a program.
#[derive(Clone, Copy, PartialEq)]
enum TextForm {
    /// `-pSECRET`.
    Attached,
    /// `-p SECRET` or `-pSECRET`.
    Either,
    /// `-k SECRET`: an attached value makes it another option.
    Separate,
    /// `-u USER:SECRET`, with this character between them, attached or separate.
    After(char),
    /// `-b NAME=SECRET`; without `=` it names a file.
    Cookie,
}

/// Program names by their beginning, with the options that hold a secret. For example `-p` of
/// `psql` is a port, so it is not listed.
const OPTIONS: [(&str, &[&str], TextForm); 44] = [
    ("mysql", &["-p"], TextForm::Attached),
    ("mariadb", &["-p"], TextForm::Attached),
    ("mariabackup", &["-p"], TextForm::Attached),
    ("xtrabackup", &["-p"], TextForm::Attached),
    ("mydumper", &["-p"], TextForm::Either),
    ("sshpass", &["-p"], TextForm::Either),
    ("mongo", &["-p"], TextForm::Either),
    ("redis-cli", &["-a"], TextForm::Either),
    ("valkey-cli", &["-a"], TextForm::Either),
    ("keydb-cli", &["-a"], TextForm::Either),
    ("ldap", &["-w"], TextForm::Either),
    ("sqlcmd", &["-P"], TextForm::Either),
    ("bcp", &["-P"], TextForm::Either),
    ("isql", &["-P"], TextForm::Either),
    ("tsql", &["-P"], TextForm::Either),
    ("sqsh", &["-P"], TextForm::Either),
    ("gbak", &["-pas"], TextForm::Separate),
    ("cqlsh", &["-p"], TextForm::Either),
    ("cypher-shell", &["-p"], TextForm::Either),
    ("cbbackup", &["-p"], TextForm::Either),
    ("influx", &["-t"], TextForm::Either),
    ("etcdctl", &["--user"], TextForm::After(':')),
    ("zip", &["-P"], TextForm::Either),
    ("unzip", &["-P"], TextForm::Either),
    ("7z", &["-p"], TextForm::Attached),
    ("rar", &["-p", "-hp"], TextForm::Attached),
    ("openssl", &["-k", "-K"], TextForm::Separate),
    ("ssh-keygen", &["-N", "-P"], TextForm::Separate),
    (
        "curl",
        &["-u", "--user", "-U", "--proxy-user", "-E", "--cert"],
        TextForm::After(':'),
    ),
    ("curl", &["-b", "--cookie"], TextForm::Cookie),
    ("http", &["-a", "--auth"], TextForm::After(':')),
    ("wget", &["--user"], TextForm::After(':')),
    ("lftp", &["-u"], TextForm::After(',')),
    ("ncftp", &["-p"], TextForm::Either),
    ("smb", &["-U", "--user"], TextForm::After('%')),
    ("rpcclient", &["-U", "--user"], TextForm::After('%')),
    ("snmp", &["-A", "-X", "-c"], TextForm::Either),
    ("ipmitool", &["-P"], TextForm::Either),
    ("kopia", &["-p"], TextForm::Either),
    // `docker login -p`, and `login` of other programs.
    ("login", &["-p"], TextForm::Either),
    (
        "aws",
        &["aws_secret_access_key", "aws_session_token"],
        TextForm::Separate,
    ),
    // A name and a secret without an option.
    ("sqlplus", &[""], TextForm::After('/')),
    ("expdp", &[""], TextForm::After('/')),
    ("rman", &["target="], TextForm::After('/')),
];
/// Programs whose arguments are a script.
const SHELLS: [&str; 3] = ["ssh", "eval", "mosh"];

/// Returns the words quoted for a shell, with secrets masked.
pub fn shown(words: &[String]) -> String {
    let quoted = masked(words).into_iter().map(|word| {
        // Quotes around a bare mask would only be noise.
        if word == MASK {
            word
        } else {
            shell_words::quote(&word).into_owned()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Returns the words with secrets masked: values of names like `PGPASSWORD`, `--token` or
/// `Authorization:`, passwords in URLs, secrets in their queries, and the options in [`OPTIONS`],
/// also within a word that is a script.
pub fn masked(words: &[String]) -> Vec<String> {
    let mut masker = SecretMasker::default();
    words.iter().map(|word| masker.word(word)).collect()
}

/// Masks secrets in the output of a command: each line is treated as a script, and secrets from the
/// command's own words are masked wherever they occur.
pub fn masked_output(text: &str, words: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets_of(words)
        .iter()
        .filter(|secret| secret.len() >= SECRET_BYTES_MIN)
    {
        text = text.replace(secret, MASK);
    }
    let lines = text.split_inclusive('\n').map(|line| {
        SecretMasker {
            is_script: true,
            ..SecretMasker::default()
        }
        .word(line)
    });
    lines.collect()
}

/// Returns the masked part of each word that has exactly one.
fn secrets_of(words: &[String]) -> Vec<String> {
    let secret = |(word, masked): (&String, String)| {
        let (before, after) = masked
            .split_once(MASK)
            .filter(|(_, after)| !after.contains(MASK))?;
        Some(word.strip_prefix(before)?.strip_suffix(after)?.to_owned())
    };
    words.iter().zip(masked(words)).filter_map(secret).collect()
}

/// State of the scan: expectations for the next word after the words so far.
#[derive(Default)]
struct SecretMasker {
    options: Vec<(&'static [&'static str], TextForm)>,
    next: NextSecret,
    /// The next word is a script: text after a secret in it is not part of the secret.
    is_script: bool,
    has_shell: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum NextSecret {
    #[default]
    Plain,
    Secret,
    /// A secret if it follows in the same word, as in `password= x`.
    SecretInWord,
    /// A secret if `=` or `:` comes first, or if it is quoted, as in SQL's `PASSWORD 'x'`.
    SecretIfAssigned {
        or_quoted: bool,
    },
    SecretAfter(char),
    Cookie,
    /// The rest of a header, to the end of the word or to this quote.
    Rest(Option<char>),
    /// The rest of a secret that began with this quote.
    ToQuote(char),
}

impl SecretMasker {
    fn word(&mut self, word: &str) -> String {
        let is_script = self.is_script || self.has_shell;
        let program = word.rsplit('/').next().unwrap_or_default();
        self.has_shell |= SHELLS.contains(&program);
        // `-c`, `-lc`: the argument is run by a shell or a database client.
        self.is_script = word.len() <= 4 && word.starts_with('-') && word.ends_with('c');
        if let Some(masked) = self.whole_word(word) {
            return masked;
        }

        let mut out = String::with_capacity(word.len());
        for piece in word.split_inclusive([' ', '\t', '\n', ';']) {
            let text = piece.trim_end_matches([' ', '\t', '\n', ';']);
            if !text.is_empty() {
                let is_first = out.trim().is_empty();
                out.push_str(&self.piece(text));
                // Blanks inside the secret: `PGPASSWORD=two words` as one word of `env`.
                if is_first && !is_script && out.ends_with(MASK) {
                    self.next = NextSecret::Plain;
                    return out;
                }
            }
            out.push_str(&piece[text.len()..]);
        }

        if let NextSecret::Rest(_) | NextSecret::ToQuote(_) | NextSecret::SecretInWord = self.next {
            self.next = NextSecret::Plain;
        }
        // Several masks in a row are one secret with blanks.
        while let Some(at) = out.find("*** ***") {
            out.replace_range(at..at + 4, "");
        }
        out
    }

    /// Masks a word that the previous word marks as a secret or as ending in one.
    fn whole_word(&mut self, word: &str) -> Option<String> {
        let masked = match self.next {
            // An option in the place of the expected value.
            NextSecret::Secret if !word.starts_with("--") => MASK.to_owned(),
            NextSecret::SecretAfter(between) => match word.find(between) {
                Some(at) => format!("{}{MASK}", &word[..=at]),
                None => word.to_owned(),
            },
            NextSecret::Cookie if word.contains('=') => MASK.to_owned(),
            NextSecret::Cookie => word.to_owned(),
            _ => return None,
        };
        self.next = NextSecret::Plain;
        Some(masked)
    }

    fn piece(&mut self, text: &str) -> String {
        match std::mem::take(&mut self.next) {
            NextSecret::Plain => {}
            NextSecret::ToQuote(quote) => {
                return self.within(text, NextSecret::ToQuote(quote), Some(quote));
            }
            NextSecret::Rest(quote) => return self.within(text, NextSecret::Rest(quote), quote),
            // An option in the place of the expected value.
            NextSecret::Secret if text.starts_with("--") => {}
            NextSecret::Secret | NextSecret::SecretInWord => return self.secret("", text),
            NextSecret::Cookie if !text.contains('=') => return text.to_owned(),
            NextSecret::Cookie => return self.secret("", text),
            NextSecret::SecretIfAssigned { .. } if ["=", ":", "=>", ":="].contains(&text) => {
                self.next = NextSecret::SecretInWord;
                return text.to_owned();
            }
            NextSecret::SecretIfAssigned { .. } if text.starts_with('=') => {
                return self.secret("=", &text[1..]);
            }
            NextSecret::SecretIfAssigned { or_quoted: true } if text.starts_with(['\'', '"']) => {
                return self.secret("", text);
            }
            NextSecret::SecretIfAssigned { .. } => {}
            NextSecret::SecretAfter(between) => {
                if let Some(at) = text.find(between) {
                    return self.secret(&text[..=at], &text[at + 1..]);
                }
                return text.to_owned();
            }
        }

        let masked = self.option(text).or_else(|| self.named_value(text));
        self.note_program(text);
        masked.unwrap_or_else(|| {
            self.next = expected_after(text);
            mask_query(&mask_url(text))
        })
    }

    /// Masks a secret. Records whether it continues after a blank because it, or the text before
    /// it, is quoted.
    fn secret(&mut self, before: &str, secret: &str) -> String {
        let own = secret.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let rest = if own.is_some() { &secret[1..] } else { secret };
        if let Some(quote) = own
            .or_else(|| open_quote(before))
            .filter(|&quote| !rest.contains(quote))
        {
            self.next = NextSecret::ToQuote(quote);
        }
        format!("{before}{MASK}")
    }

    /// Masks the continuation of a secret that began earlier, up to the closing quote.
    fn within(&mut self, text: &str, state: NextSecret, quote: Option<char>) -> String {
        match quote.and_then(|quote| text.find(quote)) {
            Some(at) => format!("{MASK}{}", &text[at + 1..]),
            None => {
                self.next = state;
                MASK.to_owned()
            }
        }
    }

    fn note_program(&mut self, text: &str) {
        let program = text
            .rsplit(['/', '\'', '"', '(', '`', '|', '&'])
            .next()
            .unwrap_or_default();
        let known = OPTIONS
            .iter()
            .filter(|(name, ..)| program.starts_with(name));
        self.options
            .extend(known.map(|&(_, options, form)| (options, form)));
    }

    /// Masks the value of a known program's secret option.
    fn option(&mut self, text: &str) -> Option<String> {
        let bare = text.trim_start_matches(['\'', '"']);
        let quotes = &text[..text.len() - bare.len()];
        for at in 0..self.options.len() {
            let (options, form) = self.options[at];
            let Some(value) = options.iter().find_map(|option| value_of(bare, option)) else {
                continue;
            };

            let before = format!("{quotes}{}", &bare[..bare.len() - value.len()]);
            if value.is_empty() {
                self.next = match form {
                    TextForm::Attached => continue,
                    TextForm::Either | TextForm::Separate => NextSecret::Secret,
                    TextForm::After(between) => NextSecret::SecretAfter(between),
                    TextForm::Cookie => NextSecret::Cookie,
                };
                return Some(text.to_owned());
            }
            match form {
                TextForm::Attached | TextForm::Either => return Some(self.secret(&before, value)),
                TextForm::Cookie if value.contains('=') => {
                    return Some(self.secret(&before, value));
                }
                TextForm::Cookie | TextForm::Separate => {}
                TextForm::After(between) => {
                    let Some(at) = value
                        .find(between)
                        .filter(|_| !value.starts_with(['/', '.', '@']))
                    else {
                        continue;
                    };
                    let secret = &value[at + 1..];
                    // The address after the secret, as in `scott/tiger@database`.
                    let place = secret
                        .rfind('@')
                        .filter(|_| between == '/')
                        .map_or("", |at| &secret[at..]);
                    let masked = self.secret(&format!("{before}{}", &value[..=at]), secret);
                    return Some(format!("{masked}{place}"));
                }
            }
        }
        None
    }

    /// Masks the value in `NAME=value`, `--name value`, `Name: value`, `"name":"value"` and
    /// `pass:value`.
    fn named_value(&mut self, text: &str) -> Option<String> {
        let at = text.find(['=', ':'])?;
        let name = &text[..at];
        let value = &text[at + 1..];

        let is_url = value.starts_with("//");
        if is_url || !is_secret_name(bare_name(name)) {
            // A second name may follow, as in `-oUser=x,password=y` or `--header=Authorization:`.
            let deeper = value
                .find(['=', ':'])
                .filter(|_| !is_url)
                .and_then(|_| self.named_value(value))?;
            return Some(format!("{}{deeper}", &text[..=at]));
        }
        if value.is_empty() {
            // A lower-case name is a connection string's, so the value may follow. An upper-case
            // name is a shell variable set to the empty string.
            if text.ends_with('=') && name.chars().all(|c| c.is_ascii_lowercase()) {
                self.next = NextSecret::SecretInWord;
            }
            if text.ends_with(':') {
                let quote = name
                    .chars()
                    .find(|c| matches!(c, '\'' | '"'))
                    .filter(|_| !name.ends_with(['\'', '"']));
                self.next = NextSecret::Rest(quote);
            }
            return Some(text.to_owned());
        }

        Some(self.secret(&text[..=at], value))
    }
}

/// Returns the quote that is opened in a text and not closed.
fn open_quote(text: &str) -> Option<char> {
    let mut open = None;
    for quote in text.chars().filter(|c| matches!(c, '\'' | '"')) {
        match open {
            None => open = Some(quote),
            Some(other) if other == quote => open = None,
            Some(_) => {}
        }
    }
    open
}

/// Returns the value attached to an option, possibly empty, or `None` if the text is another
/// option. A long option's value follows `=`.
fn value_of<'t>(text: &'t str, option: &str) -> Option<&'t str> {
    let value = text.strip_prefix(option)?;
    if !option.starts_with("--") || value.is_empty() {
        Some(value)
    } else {
        value.strip_prefix('=')
    }
    .filter(|_| !option.is_empty() || !text.starts_with('-'))
}

/// Returns the expectation for the next piece: the value of `--token` or `-password`, of SQL's
/// `PASSWORD 'x'` and `IDENTIFIED BY 'x'`, or of `password = x` in a connection string.
fn expected_after(text: &str) -> NextSecret {
    let is_option = text.starts_with('-') && text.len() > 2 && !text.contains('=');
    let or_quoted = ["password", "by"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    let is_secret = is_secret_name(bare_name(text));
    if is_secret && is_option {
        NextSecret::Secret
    } else if !is_secret && !or_quoted {
        NextSecret::Plain
    } else {
        NextSecret::SecretIfAssigned { or_quoted }
    }
}

/// Strips a name of dashes, quotes, braces and anything before it in a list.
fn bare_name(name: &str) -> &str {
    let name = name
        .rsplit([',', '{', '[', '&', '?', '#'])
        .next()
        .unwrap_or(name);
    name.trim_matches(['\'', '"', '`', '(', ' '])
}

/// Masks the password of `scheme://user:password@host`, and of `user:password@host`.
fn mask_url(text: &str) -> String {
    let start = text.find("://").map_or(0, |at| at + 3);
    let host_end = text[start..]
        .find(['/', '?', '#'])
        .map_or(text.len(), |at| start + at);
    let Some(at) = text[start..host_end].rfind('@').map(|at| start + at) else {
        return text.to_owned();
    };
    // An image with a digest.
    if start == 0 && text[at..].starts_with("@sha256:") {
        return text.to_owned();
    }
    match text[start..at].find(':') {
        Some(colon) => format!("{}:{MASK}{}", &text[..start + colon], &text[at..]),
        None => text.to_owned(),
    }
}

/// Masks secrets in a URL's query and fragment, each up to the next parameter.
fn mask_query(text: &str) -> String {
    let Some(begin) = text.find(['?', '#']) else {
        return text.to_owned();
    };
    let mut out = text[..begin].to_owned();
    for part in text[begin..].split_inclusive(['?', '&', '#']) {
        let parameter = part.trim_end_matches(['?', '&', '#']);
        let secret = parameter.split_once('=').filter(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let is_secret = SECRET_QUERY_NAMES
                .iter()
                .any(|secret| name.contains(secret));
            !value.is_empty() && (is_secret || is_secret_name(&name))
        });
        match secret {
            Some((name, value)) => {
                let quote = if value.ends_with(['\'', '"']) {
                    &value[value.len() - 1..]
                } else {
                    ""
                };
                out.push_str(&format!("{name}={MASK}{quote}"));
            }
            None => out.push_str(parameter),
        }
        out.push_str(&part[parameter.len()..]);
    }
    out
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let names_a_place = PLACES.iter().any(|end| name.ends_with(end));
    let bare = name.trim_start_matches('-');
    // `MYSQL_PWD`, while `PWD` and `OLDPWD` are directories.
    let is_pwd = name.ends_with("pwd") && !matches!(bare, "pwd" | "oldpwd");
    // `-storepass`, `DBPASS`, but not a bypass.
    let is_pass = bare.ends_with("pass") && !bare.ends_with("bypass");
    let (before, last) = bare.rsplit_once(['-', '_', '.']).unwrap_or(("", bare));
    let is_last = LAST_SECRET_NAMES.contains(&last)
        || (!before.is_empty() && LAST_PART_SECRET_NAMES.contains(&last));
    // `--no-password` and `--password-file` take no secret.
    let is_secret =
        is_pwd || is_pass || is_last || SECRET_NAMES.iter().any(|secret| name.contains(secret));
    !names_a_place && !name.starts_with("--no-") && is_secret
}

#[cfg(test)]
#[path = "shown_tests.rs"]
mod tests;
