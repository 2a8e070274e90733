//! A directory in which commands are played: own home, state, cache and repository, and nothing of the caller's
//! environment.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::thread::{
    CapabilitySet, capability_is_in_bounding_set, remove_capability_from_bounding_set,
};
use tempfile::TempDir;

use super::masks::Masks;
use super::snapshot;

/// The note of each command on a repository without a passphrase. Only tests about it show it.
const UNSEALED: &str = "it opens without a passphrase: anyone with its files can read them";

/// The terminal's width that help texts are wrapped at.
const COLUMNS: &str = "100";

/// The name of a session whose transcript is not compared.
pub(crate) const NO_SNAPSHOT: &str = "";

/// The commands of a test, and the transcript of their output.
pub(crate) struct Session {
    name: &'static str,
    root: PathBuf,
    _directory: TempDir,
    masks: Masks,
    transcript: String,
    is_finished: bool,
    /// Show the note about a repository without a passphrase.
    pub(crate) shows_unsealed: bool,
}

/// The unmasked output of a command, and its exit code.
pub(crate) struct Ran {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) code: i32,
}

/// A command to be run.
pub(crate) struct Call<'a> {
    session: &'a mut Session,
    line: String,
    variables: Vec<(String, String)>,
    input: Vec<u8>,
    is_restricted: bool,
}

impl Session {
    /// Makes an empty directory. `name` is the name of the snapshot, or [`NO_SNAPSHOT`].
    pub(crate) fn new(name: &'static str) -> Self {
        // Commands that are printed for the user quote a path only where a shell needs it.
        let parent = std::env::temp_dir();
        let is_plain = parent
            .to_str()
            .is_some_and(|text| shell_words::quote(text) == text);
        let parent = if is_plain {
            parent
        } else {
            PathBuf::from("/tmp")
        };
        let directory = TempDir::with_prefix_in("icecore-cli-", parent);
        let directory = directory.expect("a temporary directory");
        let root = directory.path().canonicalize().expect("its path");
        let text = root.to_str().expect("a path of UTF-8").to_owned();
        let session = Self {
            name,
            root,
            _directory: directory,
            masks: Masks::new(&text, &rustix::system::uname().nodename().to_string_lossy()),
            transcript: String::new(),
            is_finished: false,
            shows_unsealed: false,
        };
        fs::create_dir(session.path("home")).expect("a home directory");
        session.file("icecore.toml", "host = \"alpha\"\n");
        session
    }

    /// Like [`Session::new`], with a repository without a passphrase and a small tree `data`.
    pub(crate) fn with_tree(name: &'static str) -> Self {
        let mut session = Self::new(name);
        session.file("data/small", "hello\n");
        session.file("data/large", &large_text());
        session.file("data/sub/inner", "inner\n");
        session.quietly("init");
        session
    }

    /// Like [`Session::with_tree`], with a snapshot of the tree.
    pub(crate) fn with_snapshot(name: &'static str) -> Self {
        let mut session = Self::with_tree(name);
        session.quietly("backup data");
        session
    }

    /// Returns a path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes a file (mode 0644), and the directories above it (mode 0755).
    pub(crate) fn file(&self, name: &str, content: &str) {
        let path = self.path(name);
        let parent = path.parent().expect("a directory");
        if !parent.exists() {
            fs::create_dir_all(parent).expect("directories");
            set_mode(parent, 0o755);
        }
        fs::write(&path, content).expect("a file");
        set_mode(&path, 0o644);
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn private_file(&self, name: &str, content: &str) {
        self.file(name, content);
        set_mode(&self.path(name), 0o600);
    }

    /// Adds a sentence to the transcript.
    pub(crate) fn say(&mut self, sentence: &str) {
        self.transcript.push_str(&format!("# {sentence}\n\n"));
    }

    /// Prepares a command. The line is split into words as a shell does.
    pub(crate) fn call(&mut self, line: &str) -> Call<'_> {
        Call {
            session: self,
            line: line.to_owned(),
            variables: Vec::new(),
            input: Vec::new(),
            is_restricted: false,
        }
    }

    /// Runs a command and adds it to the transcript.
    pub(crate) fn run(&mut self, line: &str) -> Ran {
        self.call(line).run()
    }

    /// Runs a command that must succeed, without adding it to the transcript.
    pub(crate) fn quietly(&mut self, line: &str) -> Ran {
        let ran = self.call(line).play();
        assert_eq!(ran.code, 0, "icecore {line}: {}", ran.stderr);
        ran
    }

    /// Returns the ids of all snapshots, the oldest first.
    pub(crate) fn snapshots(&mut self) -> Vec<String> {
        let ran = self.quietly("snapshots --json");
        ran.stdout
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
            .filter(|event| event["type"] == "snapshot")
            .map(|event| event["id"].as_str().expect("an id").to_owned())
            .collect()
    }

    /// Returns the only file below a directory of the repository.
    pub(crate) fn only_object(&self, directory: &str) -> PathBuf {
        let mut files = Vec::new();
        collect(&self.path(directory), &mut files);
        assert_eq!(files.len(), 1, "{directory}: {files:?}");
        files.remove(0)
    }

    /// Compares the transcript with the snapshot.
    pub(crate) fn finish(mut self) {
        self.is_finished = true;
        let text = format!("{}\n", self.transcript.trim_end());
        snapshot::check(self.name, &text);
    }

    /// The command as a process that is not started yet.
    pub(crate) fn command(&self, line: &str, variables: &[(String, String)]) -> Command {
        let words = shell_words::split(line).expect("words");
        let mut command = Command::new(env!("CARGO_BIN_EXE_icecore"));
        command
            .args(words)
            .current_dir(&self.root)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TZ", "UTC")
            .env("COLUMNS", COLUMNS)
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("home"))
            .env("ICECORE_CONFIG", self.path("icecore.toml"))
            .env("ICECORE_STATE_DIR", self.path("state"))
            .env("ICECORE_CACHE_DIR", self.path("cache"))
            .env("ICECORE_REPO", self.path("repo"))
            .env("ICECORE_NO_PASSPHRASE", "1")
            .env("ICECORE_TO_NO_PASSPHRASE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in variables {
            match name.strip_prefix('-') {
                Some(name) => command.env_remove(name),
                None => command.env(name, value),
            };
        }
        command
    }

    /// Adds a command that has ended to the transcript.
    pub(crate) fn record(&mut self, title: &str, ran: &Ran) {
        let has_quantities = ran.code != 2;
        let mut block = format!("$ {}\n", self.masks.mask(title, false));
        for (prefix, text) in [(">", &ran.stdout), ("!", &ran.stderr)] {
            let text: Vec<&str> = text.lines().filter(|line| self.shows(line)).collect();
            let masked = self.masks.mask(&text.join("\n"), has_quantities);
            for line in masked.lines() {
                block.push_str(format!("{prefix} {line}").trim_end());
                block.push('\n');
            }
        }
        block.push_str(&format!("= exit code {}\n\n", ran.code));
        self.transcript.push_str(&block);
    }

    /// Leaves out what depends on the speed, and the note that every command would have.
    fn shows(&self, line: &str) -> bool {
        let is_progress = line.starts_with("{\"type\":\"progress\"");
        let is_unsealed = line.contains(UNSEALED) && !self.shows_unsealed;
        !is_progress && !is_unsealed
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Directories that cannot be written cannot be removed.
        make_writable(&self.root);
        if !self.is_finished && self.name != NO_SNAPSHOT && !std::thread::panicking() {
            panic!("the session '{}' was not finished", self.name);
        }
    }
}

impl Call<'_> {
    /// Sets a variable of the environment.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes a variable of the environment.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.variables.push((format!("-{name}"), String::new()));
        self
    }

    /// Gives a passphrase instead of saying that there is none.
    pub(crate) fn passphrase(self, secret: &str) -> Self {
        self.without("ICECORE_NO_PASSPHRASE")
            .with("ICECORE_PASSPHRASE", secret)
    }

    /// Sets the bytes on standard input.
    pub(crate) fn input(mut self, bytes: &[u8]) -> Self {
        self.input = bytes.to_vec();
        self
    }

    /// Runs the command and adds it to the transcript.
    pub(crate) fn run(self) -> Ran {
        let variables: Vec<String> = self
            .variables
            .iter()
            .filter(|(name, _)| !name.starts_with('-'))
            .map(|(name, value)| format!("{name}={} ", shell_words::quote(value)))
            .collect();
        let title = format!("{}icecore {}", variables.concat(), self.line);
        let ran = self.ended();
        self.session.record(title.trim_end(), &ran);
        ran
    }

    /// Runs the command without adding it to the transcript.
    pub(crate) fn play(self) -> Ran {
        self.ended()
    }

    /// Lets permissions apply to the command also where the tests run as root.
    pub(crate) fn restricted(mut self) -> Self {
        self.is_restricted = true;
        self
    }

    fn ended(&self) -> Ran {
        let command = self.session.command(&self.line, &self.variables);
        if !self.is_restricted {
            return run(command, &self.input);
        }
        // What a thread gives up, only its own children lack.
        std::thread::scope(|scope| {
            let restricted = scope.spawn(|| {
                give_up_root();
                run(command, &self.input)
            });
            restricted.join().expect("a command that was run")
        })
    }

    /// Starts the command.
    pub(crate) fn start(self) -> Child {
        self.session
            .command(&self.line, &self.variables)
            .spawn()
            .expect("a process")
    }
}

/// Takes the right to pass over permissions from this thread's children, if it has it.
fn give_up_root() {
    if rustix::process::geteuid().is_root() {
        for capability in [CapabilitySet::DAC_OVERRIDE, CapabilitySet::DAC_READ_SEARCH] {
            if capability_is_in_bounding_set(capability).expect("the bounding set") {
                remove_capability_from_bounding_set(capability).expect("a smaller bounding set");
            }
        }
    }
}

/// Runs a command to its end.
fn run(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command.spawn().expect("a process");
    // A command that does not read its input closes it.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    end_of(child)
}

/// Waits for the end of a command.
pub(crate) fn end_of(child: Child) -> Ran {
    let output = child.wait_with_output().expect("its output");
    Ran {
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        code: output.status.code().expect("an exit code, not a signal"),
    }
}

/// Sets the permission bits of a path.
pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// Flips one bit in the middle of a file.
pub(crate) fn damage(path: &Path) {
    let mut bytes = fs::read(path).expect("an object");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    set_mode(path, 0o600);
    fs::write(path, bytes).expect("an object that can be written");
}

/// Makes a text of 200,000 bytes that hardly shrinks and is always the same.
fn large_text() -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = 1_u64;
    let letters = (0..200_000).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(LETTERS[(state >> 58) as usize])
    });
    letters.collect()
}

/// Adds all files below a directory to a list.
pub(crate) fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("a listed name").path();
        if path.is_dir() && !path.is_symlink() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// Sets the permission bits of a directory and of all directories below it.
pub(crate) fn set_modes(directory: &Path, mode: u32) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("a listed name").path();
        if path.is_dir() && !path.is_symlink() {
            set_modes(&path, mode);
        }
    }
    set_mode(directory, mode);
}

fn make_writable(directory: &Path) {
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o755));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            make_writable(&path);
        }
    }
}
