//! Sources of the passphrase, and the key files that icecore generates.
//!
//! The first of these that gives a passphrase is used: `--passphrase-file`, `--passphrase-command`,
//! the environment (`ICECORE_PASSPHRASE`, `…_FILE`, `…_COMMAND`), the configuration, the
//! repository's key file, the terminal. A repository that opens without a passphrase need not be
//! one that should have none: an option, the environment, the configuration or a pin must state
//! that. Every value that holds a secret is wiped when dropped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use icecore::sys::{Dir, shell_syntax};
use icecore::types::{RepoId, hex};
use zeroize::Zeroizing;

use crate::env::{Env, SECRET_VARIABLES};
use crate::exit::CliError;
use crate::global::Global;

/// The bytes of a passphrase.
pub type Bytes = Zeroizing<Vec<u8>>;

/// Longest passphrase. A longer input is an error.
const PASSPHRASE_BYTES_MAX: usize = 64 * 1024;
/// Random bytes of a generated key, which is written as twice as many hex digits.
const KEY_BYTES: usize = 32;

/// The user's statement about the passphrase.
pub enum PassphraseChoice {
    Passphrase(GivenPassphrase),
    /// The repository has no passphrase.
    NoPassphrase,
}

/// A passphrase and its origin.
pub struct GivenPassphrase {
    pub bytes: Bytes,
    /// For messages, for example `the passphrase file /root/p` or `ICECORE_PASSPHRASE`.
    pub origin: String,
    /// A warning about the origin, for example a file that others can read.
    pub warning: Option<String>,
}

impl GivenPassphrase {
    fn new(bytes: Bytes, origin: String) -> Result<Self, CliError> {
        Ok(Self {
            bytes: not_empty(bytes, &origin)?,
            origin,
            warning: None,
        })
    }

    /// Describes bytes of the passphrase that its author may not see. All of them count as part of
    /// the passphrase. Returns `None` if there are none.
    pub fn oddity(&self) -> Option<String> {
        let bytes = self.bytes.as_slice();
        let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        let found = [
            (
                bytes.starts_with(b"\xef\xbb\xbf"),
                "begins with a byte order mark (BOM)",
            ),
            (
                bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff"),
                "is UTF-16 text with a byte order mark (BOM)",
            ),
            (lines.contains(&b'\n'), "has a second line"),
            (bytes.ends_with(b"\n"), "ends with an empty line"),
            (
                lines.ends_with(b"\r"),
                "ends with a carriage return (CR), as lines of Windows text files do",
            ),
            (
                blank(bytes.first()) || blank(lines.last()),
                "begins or ends with a blank",
            ),
        ];

        let found: Vec<&str> = found
            .into_iter()
            .filter(|(is, _)| *is)
            .map(|(_, words)| words)
            .collect();

        (!found.is_empty()).then(|| {
            format!(
                "{} {}, which counts as part of the passphrase",
                self.origin,
                found.join(" and ")
            )
        })
    }
}

/// Returns the statement of the command line or the environment about the passphrase, or `None` if
/// neither makes one. The names of the repository's options begin with `option_prefix`.
pub fn passphrase_choice(
    global: &Global,
    env: &Env,
    option_prefix: &str,
) -> Result<Option<PassphraseChoice>, CliError> {
    let given = given(global, env)?;
    match (given, global.no_passphrase || env.no_passphrase()?) {
        (Some(_), true) => Err(CliError::usage(format!(
            "{option_prefix}no-passphrase cannot be combined with a passphrase"
        ))),
        (Some(given), false) => Ok(Some(PassphraseChoice::Passphrase(given))),
        (None, true) => Ok(Some(PassphraseChoice::NoPassphrase)),
        (None, false) => Ok(None),
    }
}

fn given(global: &Global, env: &Env) -> Result<Option<GivenPassphrase>, CliError> {
    if let Some(path) = &global.passphrase_file {
        return from_file(path).map(Some);
    }
    if let Some(command) = &global.passphrase_command {
        return from_command(command).map(Some);
    }
    if let Some(text) = &env.passphrase {
        return GivenPassphrase::new(text.clone(), format!("{}PASSPHRASE", env.prefix)).map(Some);
    }
    if let Some(path) = &env.passphrase_file {
        return from_file(path).map(Some);
    }
    env.passphrase_command
        .as_deref()
        .map(from_command)
        .transpose()
}

/// Reads a passphrase from a file, without one trailing newline. Adds a warning if others may read
/// or write the file.
pub fn from_file(path: &Path) -> Result<GivenPassphrase, CliError> {
    let shown = path.display();
    let file = File::open(path)
        .map_err(|e| CliError::failed(format!("cannot open the passphrase file {shown}"), e))?;
    let failed = |e| CliError::failed(format!("cannot read the passphrase file {shown}"), e);
    let meta = file.metadata().map_err(failed)?;
    let text = read_bounded(file).map_err(failed)?;
    let mut given = GivenPassphrase::new(
        without_newline(text),
        format!("the passphrase file {shown}"),
    )?;
    let mode = meta.mode() & 0o7777;
    // Only processes that hold a pipe or a terminal open can read from it.
    if meta.is_file() && mode & 0o077 != 0 {
        given.warning = Some(format!(
            "the passphrase file {shown} can be read or written by others (mode {mode:04o}): chmod 600"
        ));
    }
    Ok(given)
}

/// Takes the first line that a command prints as the passphrase. The command is split into POSIX
/// words and run without a shell. It does not see icecore's passphrase variables, and must exit
/// with 0.
pub fn from_command(command: &str) -> Result<GivenPassphrase, CliError> {
    if let Some(syntax) = shell_syntax(command) {
        return Err(CliError::usage(format!(
            "'{syntax}' in the passphrase command needs a shell, and the command runs without one: write sh -c 'COMMAND'"
        )));
    }
    let words = shell_words::split(command).map_err(|e| {
        CliError::usage(format!(
            "cannot split the passphrase command into words: {e}"
        ))
    })?;
    let Some((program, arguments)) = words.split_first() else {
        return Err(CliError::usage("the passphrase command is empty"));
    };

    let failed = |e| CliError::failed(format!("cannot run the passphrase command '{program}'"), e);
    let mut start = Command::new(program);
    start
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    for name in SECRET_VARIABLES {
        start.env_remove(name);
    }

    let mut child = start.spawn().map_err(failed)?;
    let text = match child.stdout.take().map(read_bounded) {
        Some(Ok(text)) => text,
        Some(Err(e)) => {
            // Kill the command: it may still be writing, and may never end by itself.
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(e));
        }
        None => Bytes::default(),
    };

    let status = child.wait().map_err(failed)?;
    if !status.success() {
        let message = format!("the passphrase command '{program}' failed: {status}");
        return Err(CliError::Failed {
            message,
            source: None,
            hint: None,
        });
    }

    let end = text.iter().position(|&b| b == b'\n').unwrap_or(text.len());
    let line = Bytes::new(text[..end].to_vec());
    GivenPassphrase::new(line, format!("the passphrase command '{program}'"))
}

/// Returns the path of a repository's key file in the directory of key files.
pub fn key_file_path(keys_dir: &Path, id: RepoId) -> PathBuf {
    keys_dir.join(id.to_string())
}

/// Returns the key that icecore generated for this repository on this machine, or `None` if there
/// is none. Refuses a key file that others may read.
pub fn from_key_file(keys_dir: &Path, id: RepoId) -> Result<Option<Bytes>, CliError> {
    let path = key_file_path(keys_dir, id);
    let shown = path.display();
    let failed = |e| CliError::failed(format!("cannot read the key file {shown}"), e);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let message = format!("the key file {shown} can be read by others (mode {mode:04o})");
        return Err(CliError::Locked {
            message,
            hint: Some(format!("chmod 600 {shown}")),
        });
    }
    let text = without_newline(read_bounded(file).map_err(failed)?);
    not_empty(text, &format!("the key file {shown}")).map(Some)
}

/// Generates a random key and stores it durably in a new key file (mode 0600).
pub fn new_key_file(keys_dir: &Path, id: RepoId) -> Result<(Bytes, PathBuf), CliError> {
    let key = random_key()?;
    let path = key_file_path(keys_dir, id);
    write_key(&path, &key)?;
    Ok((key, path))
}

/// Generates a random key as 64 hex digits.
pub fn random_key() -> Result<Bytes, CliError> {
    let mut raw = Zeroizing::new([0_u8; KEY_BYTES]);
    getrandom::fill(&mut raw[..])
        .map_err(|e| CliError::failed("cannot get random bytes from the system", e))?;
    let mut text = Bytes::new(Vec::with_capacity(2 * KEY_BYTES));
    text.extend(hex::digits(&raw[..]));
    Ok(text)
}

/// Writes a key and a newline with [`write_new_file`].
pub fn write_key(path: &Path, key: &[u8]) -> Result<(), CliError> {
    let mut line = Bytes::new(Vec::with_capacity(key.len() + 1));
    line.extend_from_slice(key);
    line.push(b'\n');
    write_new_file(path, &line)
}

/// Writes secret bytes to a new file (mode 0600), and syncs it and its directory. Missing
/// directories are created (mode 0700), and each is synced into its parent, so that after a power
/// failure the key exists if the repository does. An existing file is an error.
pub fn write_new_file(path: &Path, secret: &[u8]) -> Result<(), CliError> {
    let directory = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let directory = Dir::create_all(directory, 0o700).map_err(|e| e.source)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let written = file.write_all(secret).and_then(|()| file.sync_all());
        if let Err(e) = written {
            // A truncated key file is worse than none.
            let _ = fs::remove_file(path);
            return Err(e);
        }
        directory.sync().map_err(|e| e.source)
    };
    write()
        .map_err(|e| CliError::failed(format!("cannot write the key file {}", path.display()), e))
}

/// Renames a key file that no longer opens anything to a free name beside it, durably, and returns
/// the new path.
pub fn retire_key_file(path: &Path) -> Result<PathBuf, CliError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    let mut old = PathBuf::from(&name);
    let mut number = 1;
    while old.symlink_metadata().is_ok() {
        number += 1;
        let mut numbered = name.clone();
        numbered.push(format!("-{number}"));
        old = PathBuf::from(numbered);
    }
    let directory = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::rename(path, &old)
        .and_then(|()| {
            Dir::open(directory)
                .and_then(|directory| directory.sync())
                .map_err(|e| e.source)
        })
        .map_err(|e| {
            CliError::failed(format!("cannot rename the key file {}", path.display()), e)
        })?;
    Ok(old)
}

/// Returns true if there is a terminal on which to ask for a passphrase.
pub fn has_terminal() -> bool {
    io::stderr().is_terminal()
        && OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .is_ok()
}

/// Asks for the passphrase of an existing repository. Requires a terminal.
pub fn ask() -> Result<Bytes, CliError> {
    read_terminal("Passphrase: ")
}

/// Asks for a new passphrase, twice.
pub fn ask_new() -> Result<Bytes, CliError> {
    let first = read_terminal("New passphrase: ")?;
    let second = read_terminal("Repeat the passphrase: ")?;
    if first != second {
        return Err(CliError::usage("the two passphrases differ"));
    }
    Ok(first)
}

fn read_terminal(prompt: &str) -> Result<Bytes, CliError> {
    let text = rpassword::prompt_password(prompt)
        .map_err(|e| CliError::failed("cannot read a passphrase from the terminal", e))?;
    not_empty(Bytes::new(text.into_bytes()), "the passphrase")
}

/// Refuses an empty secret: it would open or create an unencrypted repository that the user
/// believes to be encrypted. The caller adds the hint, which depends on the repository.
fn not_empty(secret: Bytes, what: &str) -> Result<Bytes, CliError> {
    if !secret.is_empty() {
        return Ok(secret);
    }
    Err(CliError::Locked {
        message: format!("{what} is empty"),
        hint: None,
    })
}

fn without_newline(mut text: Bytes) -> Bytes {
    if text.last() == Some(&b'\n') {
        text.pop();
    }
    text
}

/// Reads to the end into one buffer that is never reallocated: a reallocation would leave copies of
/// the secret in memory.
fn read_bounded(mut from: impl Read) -> io::Result<Bytes> {
    let mut buffer = Bytes::new(vec![0; PASSPHRASE_BYTES_MAX + 1]);
    let mut len = 0;
    while len < buffer.len() {
        match from.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    if len > PASSPHRASE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "longer than 64 KiB",
        ));
    }
    buffer.truncate(len);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ID: RepoId = RepoId::new([7; 16]);

    fn code(result: Result<impl Sized, CliError>) -> u8 {
        crate::exit::error_report(&result.err().expect("an error"))
            .expect("words")
            .code
    }

    #[test]
    fn a_new_key_file_is_private_and_found_again() {
        let home = tempfile::tempdir().expect("a directory");
        let keys = home.path().join("a/keys");
        assert!(from_key_file(&keys, ID).expect("no key yet").is_none());
        let (key, path) = new_key_file(&keys, ID).expect("a new key");
        assert_eq!(key.len(), 64);
        assert_eq!(fs::metadata(&path).expect("a file").mode() & 0o7777, 0o600);
        assert_eq!(
            fs::metadata(&keys).expect("a directory").mode() & 0o7777,
            0o700
        );
        assert_eq!(
            from_key_file(&keys, ID).expect("readable"),
            Some(key.clone())
        );
        assert_eq!(from_file(&path).expect("a passphrase file too").bytes, key);
        assert_eq!(
            code(new_key_file(&keys, ID)),
            1,
            "an old key is never replaced"
        );
        assert_ne!(random_key().expect("random"), random_key().expect("random"));
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let keys = tempfile::tempdir().expect("a directory");
        let (_, path) = new_key_file(keys.path(), ID).expect("a new key");
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
            assert_eq!(code(from_key_file(keys.path(), ID)), 11, "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("mode");
        assert!(from_key_file(keys.path(), ID).expect("private").is_some());
    }

    #[test]
    fn a_file_loses_one_newline_and_must_hold_something() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("p");
        for (text, secret) in [("a b\n", "a b"), ("a\n\n", "a\n"), (" a", " a")] {
            fs::write(&path, text).expect("write");
            assert_eq!(
                from_file(&path).expect("a secret").bytes.as_slice(),
                secret.as_bytes()
            );
        }
        for bad in ["", "\n"] {
            fs::write(&path, bad).expect("write");
            assert_eq!(code(from_file(&path)), 11);
        }
        fs::write(&path, vec![b'x'; PASSPHRASE_BYTES_MAX + 1]).expect("write");
        assert_eq!(code(from_file(&path)), 1);
        assert_eq!(code(from_file(&directory.path().join("none"))), 1);
    }

    #[test]
    fn invisible_characters_in_a_passphrase_are_named() {
        let oddity_of = |bytes: &[u8]| {
            let given = GivenPassphrase::new(Bytes::new(bytes.to_vec()), "it".to_owned())
                .expect("a secret");
            given.oddity().unwrap_or_default()
        };
        for good in [&b"a b"[..], b"caf\xc3\xa9", b"\xff", b"a\rb", b"\x00"] {
            assert_eq!(oddity_of(good), "", "{good:?}");
        }
        for (bytes, words) in [
            (&b"a\r"[..], &["carriage return (CR)"][..]),
            (b"a\r\n", &["carriage return (CR)", "an empty line"]),
            (b"\xef\xbb\xbfa", &["byte order mark (BOM)"]),
            (b"\xff\xfea\0", &["UTF-16"]),
            (b"a\nb", &["second line"]),
            (b"a\n", &["an empty line"]),
            (b"\xef\xbb\xbfa\nb\r", &["BOM", "second line", "CR"]),
            (b" a", &["blank"]),
            (b"a\t", &["blank"]),
        ] {
            let oddity = oddity_of(bytes);
            assert!(
                words.iter().all(|word| oddity.contains(word)),
                "{bytes:?}: {oddity}"
            );
        }
    }

    #[test]
    fn a_passphrase_file_that_others_may_read_or_write_gets_a_warning() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("p");
        fs::write(&path, "x\n").expect("write");
        for (mode, warned) in [
            (0o600, false),
            (0o400, false),
            (0o640, true),
            (0o604, true),
            (0o622, true),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
            assert_eq!(
                from_file(&path).expect("a secret").warning.is_some(),
                warned,
                "{mode:o}"
            );
        }
        assert!(
            from_file(Path::new("/dev/zero")).is_err(),
            "longer than any passphrase"
        );
    }

    #[test]
    fn a_useless_key_file_is_renamed_and_kept() {
        let keys = tempfile::tempdir().expect("a directory");
        let (first, path) = new_key_file(keys.path(), ID).expect("a new key");
        let old = retire_key_file(&path).expect("renamed");
        assert_eq!(from_file(&old).expect("kept").bytes, first);
        assert!(from_key_file(keys.path(), ID).expect("no key").is_none());
        new_key_file(keys.path(), ID).expect("another key");
        let older = retire_key_file(&path).expect("renamed");
        assert_ne!(old, older, "nothing is replaced");
        assert_eq!(from_file(&old).expect("kept").bytes, first);
    }

    #[test]
    fn no_passphrase_is_read_and_excludes_a_passphrase() {
        let bare = Global::default();
        let choice = |global: &Global, env: &Env| {
            passphrase_choice(global, env, "--")
                .map(|s| s.map(|s| matches!(s, PassphraseChoice::NoPassphrase)))
        };
        assert_eq!(choice(&bare, &Env::default()).expect("nothing"), None);

        let open = Global {
            no_passphrase: true,
            ..Global::default()
        };
        assert_eq!(choice(&open, &Env::default()).expect("none"), Some(true));

        for (value, is) in [
            ("1", Some(true)),
            ("true", Some(true)),
            ("0", None),
            ("no", None),
        ] {
            let env = Env {
                no_passphrase: Some(value.into()),
                ..Env::default()
            };
            assert_eq!(choice(&bare, &env).expect(value), is, "{value}");
        }

        let odd = Env {
            no_passphrase: Some("maybe".into()),
            ..Env::default()
        };
        assert_eq!(code(choice(&bare, &odd)), 2);

        let given = Env {
            passphrase: Some(Bytes::new(b"x".to_vec())),
            ..Env::default()
        };
        assert_eq!(choice(&bare, &given).expect("a passphrase"), Some(false));
        assert_eq!(code(choice(&open, &given)), 2, "it cannot be both");
    }

    #[test]
    fn a_command_gives_its_first_line_without_a_shell() {
        let secret = from_command("printf '%s\\nmore\\n' 'a $HOME'").expect("a secret");
        assert_eq!(secret.bytes.as_slice(), b"a $HOME");
        assert_eq!(code(from_command("false")), 1);
        assert_eq!(code(from_command("true")), 11);
        assert_eq!(code(from_command("'")), 2);
        assert_eq!(code(from_command("/no/such/program")), 1);
    }

    #[test]
    fn the_command_line_comes_before_the_environment() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("p");
        fs::write(&path, "file\n").expect("write");
        let env = Env {
            passphrase: Some(Bytes::new(b"text".to_vec())),
            passphrase_file: Some(path.clone()),
            passphrase_command: Some("echo command".to_owned()),
            ..Env::default()
        };

        let secret = |global: &Global, env: &Env| {
            given(global, env)
                .expect("no error")
                .map(|s| String::from_utf8_lossy(&s.bytes).into_owned())
        };

        let bare = Global::default();
        assert_eq!(secret(&bare, &env).as_deref(), Some("text"));
        let filed = Global {
            passphrase_file: Some(path),
            ..Global::default()
        };
        assert_eq!(secret(&filed, &env).as_deref(), Some("file"));
        let called = Global {
            passphrase_command: Some("echo other".to_owned()),
            ..Global::default()
        };
        assert_eq!(secret(&called, &env).as_deref(), Some("other"));

        let env = Env {
            passphrase: None,
            ..env
        };
        assert_eq!(secret(&bare, &env).as_deref(), Some("file"));
        let env = Env {
            passphrase_file: None,
            ..env
        };
        assert_eq!(secret(&bare, &env).as_deref(), Some("command"));
        assert_eq!(secret(&bare, &Env::default()), None);

        let empty = Env {
            passphrase: Some(Bytes::default()),
            ..Env::default()
        };
        assert_eq!(code(given(&bare, &empty)), 11, "set but empty is a mistake");
    }
}
