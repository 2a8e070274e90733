//! Runs every command against every state of a repository's address (the repository that was used
//! before, another one with the same secret, none, junk) and every state of the state directory
//! (intact, absent, damaged, not writable).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Arguments of each command that opens a repository; `SPARE` is replaced by the path of a second
/// repository.
const COMMANDS: &[(&str, &[&str])] = &[
    ("backup", &["t=TREE"]),
    ("backup", &["--init", "t=TREE"]),
    ("backup", &["--dry-run", "t=TREE"]),
    ("snapshots", &[]),
    ("ls", &["latest:t"]),
    ("find", &["f"]),
    ("cat", &["latest:t/f"]),
    ("diff", &["latest", "latest"]),
    ("stats", &[]),
    ("restore", &["latest:t", "TARGET"]),
    ("verify", &[]),
    ("copy", &["--to", "SPARE"]),
    ("status", &[]),
    ("forget", &["--keep-last", "1"]),
    ("undelete", &["0000"]),
    ("tag", &["latest", "--add", "word"]),
    ("prune", &[]),
    ("repair", &["index"]),
    ("repair", &["config"]),
    ("repair", &["packs"]),
    ("repair", &["snapshots"]),
    ("key", &["list"]),
    ("key", &["add", "--new-key-file", "NEWKEY"]),
    ("node", &["restore", "latest"]),
    ("node", &["check", "latest"]),
    ("node", &["backup"]),
];

/// Commands that do not open an existing repository.
const OTHERS: &[&str] = &["init", "config", "completions", "man"];

/// A private home directory with two repositories without a passphrase, `repo` and `spare`, both
/// used before.
struct Bench {
    dir: tempfile::TempDir,
    /// The id of the repository at `repo`.
    id: String,
    /// The id of the repository at `other`, which was never used at `repo`.
    other: String,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut bench = Self {
            dir,
            id: String::new(),
            other: String::new(),
        };
        fs::create_dir(bench.path("tree")).expect("a directory");
        fs::write(bench.path("tree/f"), "content").expect("a file");
        let config = "[[source]]\nname = \"db\"\nkind = \"postgresql\"\ncontainer = \"no-such-container\"\n[node]\ndatabase = \"db\"\n";
        fs::write(bench.path("icecore.toml"), config).expect("a file");

        for name in ["repo", "other", "spare"] {
            let repo = bench.path(name);
            assert_eq!(bench.run_at(&repo, &["init"]).status.code(), Some(0));
            let backup = format!("t={}", bench.path("tree").display());
            assert_eq!(
                bench.run_at(&repo, &["backup", &backup]).status.code(),
                Some(0)
            );
        }

        (bench.id, bench.other) = (bench.id_of("repo"), bench.id_of("other"));
        for name in ["repo", "other", "state"] {
            copy(&bench.path(name), &bench.path(&format!("{name}.kept")));
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn id_of(&self, name: &str) -> String {
        let text = fs::read(self.path(name).join("config")).expect("a configuration");
        let config: Value = serde_json::from_slice(&text).expect("JSON");
        config["repository"].as_str().expect("an id").to_owned()
    }

    fn run_at(&self, repo: &Path, words: &[&str]) -> Output {
        self.command(repo, words).output().expect("icecore runs")
    }

    fn command(&self, repo: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_icecore"));
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("ICECORE_CACHE_DIR", self.path("cache"))
            .env("ICECORE_STATE_DIR", self.path("state"))
            .env("ICECORE_CONFIG", self.path("icecore.toml"))
            .env("ICECORE_NO_PASSPHRASE", "1")
            .env("ICECORE_TO_NO_PASSPHRASE", "1")
            .args(words)
            .arg("-r")
            .arg(repo)
            .stdin(std::process::Stdio::null());
        command
    }

    /// Returns the arguments of a command with its paths filled in.
    fn words(&self, command: &(&'static str, &'static [&'static str])) -> Vec<String> {
        let shown = |name: &str| self.path(name).display().to_string();
        let fill = |word: &&str| {
            let word = word
                .replace("SPARE", &shown("spare"))
                .replace("TREE", &shown("tree"));
            word.replace("TARGET", &shown("target"))
                .replace("NEWKEY", &shown("newkey"))
        };
        std::iter::once(command.0.to_owned())
            .chain(command.1.iter().map(fill))
            .collect()
    }

    /// Runs a command on `repo`. Returns its exit code and its standard error.
    fn run(&self, words: &[String], prepare: impl FnOnce(&mut Command)) -> (i32, String) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.command(&self.path("repo"), &words);
        prepare(&mut command);
        let done = command.output().expect("icecore runs");
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!stderr.contains("panicked"), "{words:?}: {stderr}");
        (done.status.code().expect("an exit code"), stderr)
    }

    fn reset(&self) {
        for name in ["repo", "state"] {
            remove(&self.path(name));
            copy(&self.path(&format!("{name}.kept")), &self.path(name));
        }
        // The cache remembers later snapshots, which would be missing in the restored repository.
        for name in ["target", "newkey", "cache"] {
            remove(&self.path(name));
        }
    }

    /// Replaces the used repository by another one with the same secret.
    fn swap(&self) {
        remove(&self.path("repo"));
        copy(&self.path("other.kept"), &self.path("repo"));
    }

    /// Returns the pin files in use.
    fn pins(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.path("state/repositories")).expect("pins");
        let paths = all.map(|entry| entry.expect("an entry").path());
        paths
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "json")
            })
            .collect()
    }

    /// Returns the pin file of the repository at `repo`.
    fn pin(&self) -> PathBuf {
        let named = format!(
            "\"{}\"",
            self.path("repo").canonicalize().expect("there").display()
        );
        let is_ours = |path: &PathBuf| fs::read_to_string(path).expect("text").contains(&named);
        self.pins()
            .into_iter()
            .find(is_ours)
            .expect("a pin of the address")
    }
}

fn remove(path: &Path) {
    let gone = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    assert!(gone.is_ok() || !path.exists(), "{}", path.display());
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .expect("cp runs");
    assert!(done.success());
}

/// Returns every file of a directory with its bytes, so that any write shows.
fn bytes_of(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).expect("list") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(bytes_of(&path));
        } else {
            found.push((path.clone(), fs::read(&path).expect("readable")));
        }
    }
    found.sort();
    found
}

#[test]
fn the_table_knows_every_command() {
    let done = Command::new(env!("CARGO_BIN_EXE_icecore"))
        .arg("--help")
        .output()
        .expect("icecore runs");
    let help = String::from_utf8(done.stdout).expect("UTF-8");
    let list = help
        .split("Commands:\n")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").next())
        .expect("a list");
    for line in list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
    {
        let name = line.split_whitespace().next().expect("a name");
        let known = COMMANDS.iter().any(|(command, _)| *command == name) || OTHERS.contains(&name);
        assert!(known, "'{name}' is missing in the table");
    }
}

#[test]
fn another_repository_at_the_address_is_refused_by_every_command() {
    let bench = Bench::new();
    for command in COMMANDS {
        let words = bench.words(command);
        bench.reset();
        bench.swap();
        let before = bytes_of(&bench.path("repo"));
        let (code, stderr) = bench.run(&words, |_| {});
        assert_eq!(code, 11, "{words:?}: {stderr}");
        assert!(
            stderr.contains(&bench.id) && stderr.contains(&bench.other),
            "{words:?}: {stderr}"
        );
        let option = format!("--accept-repository {}", bench.other);
        assert!(stderr.contains(&option), "{words:?}: {stderr}");
        assert!(
            bytes_of(&bench.path("repo")) == before,
            "{words:?}: it was written to"
        );

        // Still refused: the first refusal has not changed the pin.
        assert_eq!(
            bench.run(&words, |_| {}).0,
            11,
            "{words:?}: the second time"
        );

        let (code, stderr) = bench.run(&words, |command| {
            command.args(["--accept-repository", &bench.id]);
        });
        assert_eq!(
            code, 11,
            "{words:?}: the id of the repository that is not there: {stderr}"
        );
        let (code, stderr) = bench.run(&words, |command| {
            command.args(["--accept-repository", &bench.other]);
        });
        assert_ne!(code, 11, "{words:?}: {stderr}");
        let (code, stderr) = bench.run(&words, |_| {});
        assert_ne!(
            code, 11,
            "{words:?}: it is the accepted one from then on: {stderr}"
        );
    }
}

/// The same check for the target repository of a copy.
#[test]
fn a_copy_checks_both_repositories() {
    let bench = Bench::new();
    let words = bench.words(&("copy", &["--to", "SPARE"]));
    remove(&bench.path("spare"));
    copy(&bench.path("other.kept"), &bench.path("spare"));
    let (code, stderr) = bench.run(&words, |_| {});
    assert_eq!(code, 11, "{stderr}");
    assert!(
        stderr.contains(&format!("--to-accept-repository {}", bench.other)),
        "{stderr}"
    );
    let (code, stderr) = bench.run(&words, |command| {
        command.args(["--to-accept-repository", &bench.other]);
    });
    assert_eq!(code, 0, "{stderr}");

    remove(&bench.path("spare"));
    let (code, stderr) = bench.run(&words, |_| {});
    assert_eq!(code, 10, "{stderr}");
    assert!(
        stderr.contains(&bench.other) && stderr.contains("mounted"),
        "{stderr}"
    );
}

#[test]
fn a_repository_that_is_not_there_is_missed_by_its_id() {
    let bench = Bench::new();
    for command in COMMANDS {
        let words = bench.words(command);
        for emptied in [false, true] {
            bench.reset();
            remove(&bench.path("repo"));
            if emptied {
                fs::create_dir(bench.path("repo")).expect("the mount point");
            }
            let (code, stderr) = bench.run(&words, |_| {});
            assert_eq!(code, 10, "{words:?}: {stderr}");
            assert!(
                stderr.contains(&bench.id) && stderr.contains("mounted"),
                "{words:?}: {stderr}"
            );
            let there = fs::read_dir(bench.path("repo")).map_or(0, Iterator::count);
            assert_eq!(there, 0, "{words:?}: nothing is made there");
        }
    }
}

#[test]
fn junk_at_the_address_is_damage_and_moves_nothing() {
    let bench = Bench::new();
    for command in COMMANDS {
        let words = bench.words(command);
        bench.reset();
        for name in ["config", "config.2"] {
            fs::write(bench.path("repo").join(name), [7; 300]).expect("written");
        }
        let before = fs::read(bench.pin()).expect("a pin");
        let (code, stderr) = bench.run(&words, |_| {});
        assert_eq!(code, 4, "{words:?}: {stderr}");
        assert_eq!(fs::read(bench.pin()).expect("a pin"), before, "{words:?}");
    }
}

/// Remembered state is optional: without it, or if it cannot be written, each command ends as
/// usual.
#[test]
fn a_state_that_is_absent_or_impossible_changes_no_outcome() {
    let bench = Bench::new();
    for command in COMMANDS {
        let words = bench.words(command);
        bench.reset();
        let (usual, stderr) = bench.run(&words, |_| {});
        assert!(!matches!(usual, 10 | 11), "{words:?}: {stderr}");
        assert!(!stderr.contains("remember"), "{words:?}: {stderr}");

        bench.reset();
        remove(&bench.path("state"));
        assert_eq!(bench.run(&words, |_| {}).0, usual, "{words:?}: a first use");
        assert!(
            fs::read_to_string(bench.pin())
                .expect("text")
                .contains(&bench.id),
            "{words:?}: it is remembered"
        );

        bench.reset();
        let (code, stderr) = bench.run(&words, |command| {
            command.env(
                "ICECORE_STATE_DIR",
                bench.path("icecore.toml").join("state"),
            );
        });
        assert_eq!(code, usual, "{words:?}: {stderr}");
        assert_eq!(
            stderr.matches("remembered").count(),
            1,
            "{words:?}: one warning: {stderr}"
        );

        bench.reset();
        let pin = bench.pin();
        fs::write(&pin, "{").expect("damaged");
        let (code, stderr) = bench.run(&words, |_| {});
        assert_eq!(code, usual, "{words:?}: {stderr}");
        assert_eq!(
            stderr.matches("remembered").count(),
            1,
            "{words:?}: one warning: {stderr}"
        );
        let aside: Vec<PathBuf> = fs::read_dir(bench.path("state/repositories"))
            .expect("pins")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.display().to_string().contains(".damaged-"))
            .collect();
        assert_eq!(aside.len(), 1, "{words:?}: the damaged file is kept");
        assert_eq!(fs::read(&aside[0]).expect("readable"), b"{");
        assert!(
            fs::read_to_string(&pin).expect("text").contains(&bench.id),
            "{words:?}: remembered anew"
        );
    }
}

#[test]
fn no_passphrase_is_never_concluded() {
    let bench = Bench::new();
    let words = ["snapshots".to_owned()];
    let unset_no_passphrase = |command: &mut Command| {
        command.env_remove("ICECORE_NO_PASSPHRASE");
    };
    bench.reset();
    assert_eq!(
        bench.run(&words, unset_no_passphrase).0,
        0,
        "what is remembered says so"
    );

    remove(&bench.path("state"));
    let (code, stderr) = bench.run(&words, unset_no_passphrase);
    assert_eq!(code, 11, "{stderr}");
    assert!(stderr.contains("--no-passphrase"), "{stderr}");

    let config = fs::read_to_string(bench.path("icecore.toml")).expect("text");
    fs::write(
        bench.path("icecore.toml"),
        format!("no_passphrase = true\n{config}"),
    )
    .expect("written");
    assert_eq!(
        bench.run(&words, unset_no_passphrase).0,
        0,
        "the configuration says so"
    );

    remove(&bench.path("state"));
    // The setting applies to the repository in the same file, not to another one.
    fs::write(
        bench.path("icecore.toml"),
        format!("repository = \"spare\"\nno_passphrase = true\n{config}"),
    )
    .expect("written");
    assert_eq!(
        bench.run(&words, unset_no_passphrase).0,
        11,
        "it is said of another repository"
    );

    // A repository that needed a passphrase and now opens without one, under the same id.
    fs::write(bench.path("icecore.toml"), config).expect("written");
    bench.reset();
    let pin = bench.pin();
    let mut sealed: Value = serde_json::from_slice(&fs::read(&pin).expect("a pin")).expect("JSON");
    sealed["passphrase"] = true.into();
    // The check covers the other fields; pins of earlier versions have none.
    sealed
        .as_object_mut()
        .expect("an object")
        .remove("check")
        .expect("a check");
    fs::write(&pin, sealed.to_string()).expect("written");

    for prepare in [unset_no_passphrase, |_: &mut Command| {}] {
        let (code, stderr) = bench.run(&words, prepare);
        assert_eq!(code, 11, "{stderr}");
        assert!(stderr.contains("needed one before"), "{stderr}");
    }

    let (code, stderr) = bench.run(&words, |command| {
        command.args(["--accept-repository", &bench.id]);
    });
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(bench.run(&words, unset_no_passphrase).0, 0, "accepted once");
}

#[test]
fn the_configuration_names_the_repository_without_any_state() {
    let bench = Bench::new();
    let config = fs::read_to_string(bench.path("icecore.toml")).expect("text");
    let name = |ids: &str| {
        fs::write(
            bench.path("icecore.toml"),
            format!("repository_id = {ids}\n{config}"),
        )
        .expect("written");
    };
    let stateless = |command: &mut Command| {
        command.env(
            "ICECORE_STATE_DIR",
            bench.path("icecore.toml").join("state"),
        );
    };

    name(&format!("\"{}\"", bench.id));
    for command in COMMANDS {
        let words = bench.words(command);
        bench.reset();
        bench.swap();
        let (code, stderr) = bench.run(&words, stateless);
        assert_eq!(code, 11, "{words:?}: {stderr}");
        assert!(stderr.contains("repository_id"), "{words:?}: {stderr}");
        let (code, _) = bench.run(&words, |command| {
            stateless(command);
            command.args(["--accept-repository", &bench.other]);
        });
        assert_eq!(code, 11, "{words:?}: an option does not outweigh the file");
        remove(&bench.path("repo"));
        assert_eq!(
            bench.run(&words, stateless).0,
            10,
            "{words:?}: nothing is made where it should be"
        );
    }

    bench.reset();
    let snapshots = ["snapshots".to_owned()];
    let (code, stderr) = bench.run(&snapshots, stateless);
    assert_eq!(
        (code, stderr.contains("remember")),
        (0, false),
        "no state is missed: {stderr}"
    );

    // Media that alternate at one address.
    name(&format!("[\"{}\", \"{}\"]", bench.id, bench.other));
    for _ in 0..2 {
        assert_eq!(bench.run(&snapshots, |_| {}).0, 0);
        bench.swap();
        assert_eq!(bench.run(&snapshots, |_| {}).0, 0);
        bench.reset();
    }

    name("\"123\"");
    assert_eq!(bench.run(&snapshots, |_| {}).0, 2);
}

#[test]
fn a_repository_made_by_hand_is_the_one_that_is_meant() {
    let bench = Bench::new();
    bench.reset();
    remove(&bench.path("repo"));
    let (code, stderr) = bench.run(&["init".to_owned()], |_| {});
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains(&bench.id),
        "it says what was there before: {stderr}"
    );
    assert_eq!(bench.run(&["snapshots".to_owned()], |_| {}).0, 0);

    // The old repository is a different one now.
    remove(&bench.path("repo"));
    copy(&bench.path("repo.kept"), &bench.path("repo"));
    assert_eq!(bench.run(&["snapshots".to_owned()], |_| {}).0, 11);
}

/// All spellings of an address are the same address.
#[test]
fn an_address_is_recognised_in_every_spelling() {
    let bench = Bench::new();
    bench.reset();
    std::os::unix::fs::symlink("repo", bench.path("link")).expect("a link");
    bench.swap();

    let top = bench.dir.path().display();
    for spelling in [
        format!("{top}/repo"),
        format!("{top}//repo/"),
        format!("{top}/./tree/../repo"),
        format!("{top}/link"),
        "repo".to_owned(),
        "./tree/../link/".to_owned(),
    ] {
        let mut command = bench.command(Path::new(&spelling), &["snapshots"]);
        let done = command
            .current_dir(bench.dir.path())
            .output()
            .expect("icecore runs");
        assert_eq!(
            done.status.code(),
            Some(11),
            "{spelling}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

/// A link that is changed to point to another repository is detected at every link of the chain.
#[test]
fn a_link_that_leads_elsewhere_now_is_noticed() {
    let bench = Bench::new();
    bench.reset();
    let link = |name: &str, to: &str| {
        let path = bench.path(name);
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).expect("a link");
        }
        std::os::unix::fs::symlink(to, path).expect("a link");
    };
    let ends_with = |name: &str, words: &[&str], code: i32, why: &str| {
        let done = bench.run_at(&bench.path(name), words);
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{why}: {stderr}");
    };
    link("current", "repo");
    link("backup", "current");
    ends_with("backup", &["snapshots"], 0, "first use through two links");

    link("current", "other");
    for name in ["backup", "current"] {
        ends_with(name, &["snapshots"], 11, "the second link leads elsewhere");
        ends_with(
            name,
            &[
                "restore",
                "latest",
                &bench.path("target").display().to_string(),
            ],
            11,
            "a restore",
        );
    }
    ends_with("other", &["snapshots"], 0, "the place itself is as it was");

    // The same repository, moved.
    copy(&bench.path("repo"), &bench.path("moved"));
    link("current", "moved");
    ends_with(
        "backup",
        &["snapshots"],
        0,
        "the link leads to the same repository elsewhere",
    );

    // A directory, or nothing, in place of the link.
    fs::remove_file(bench.path("backup")).expect("a link");
    copy(&bench.path("other"), &bench.path("backup"));
    ends_with(
        "backup",
        &["snapshots"],
        11,
        "a directory in the link's place",
    );
    remove(&bench.path("backup"));
    let tree = format!("t={}", bench.path("tree").display());
    ends_with(
        "backup",
        &["backup", "--init", &tree],
        10,
        "no second one is made where one was",
    );

    link("backup", "other");
    ends_with(
        "backup",
        &["snapshots", "--accept-repository", &bench.other],
        0,
        "it is meant",
    );
    ends_with("backup", &["snapshots"], 0, "from now on");
}
