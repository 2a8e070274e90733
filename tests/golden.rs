//! Golden repositories: those in `tests/data` were made once for each version of the format and
//! must stay readable.
//!
//! `tests/data/make.sh` made them and stored beside each the results of an independent reader. The
//! test runs the binary, like the owner of an old repository.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use icecore::types::hex;
use serde_json::Value;

/// Each repository of version 1, and its purpose.
const REPOSITORIES: [(&str, &str); 4] = [
    ("plain", "trees and a stream, two runs, no passphrase"),
    ("passphrase", "the same with a passphrase's slot"),
    ("parity", "the same with recovery data"),
    (
        "states",
        "condemned and dropped packs, lost chunks, forgotten, re-tagged and repaired snapshots",
    ),
];

struct Golden {
    repo: PathBuf,
    expected: Value,
    dir: tempfile::TempDir,
}

impl Golden {
    /// Unpacks a repository with its files' times, since they are the store's clock.
    fn open(name: &str) -> Self {
        let data = data().join(name);
        let dir = tempfile::tempdir().expect("a directory");
        let repo = dir.path().join("repo");
        fs::create_dir(&repo).expect("made");
        let tar = Command::new("tar")
            .args([
                "--extract",
                "--preserve-permissions",
                "--no-same-owner",
                "--file",
            ])
            .arg(data.join("repo.tar"))
            .arg("--directory")
            .arg(&repo)
            .status()
            .expect("tar runs");
        assert!(tar.success(), "{name}: tar");
        let text = fs::read(data.join("expected.json")).expect("an expectation");
        Self {
            repo,
            expected: serde_json::from_slice(&text).expect("JSON"),
            dir,
        }
    }

    /// Runs icecore and returns its exit code and JSON lines.
    fn run(&self, words: &[&str]) -> (i32, Vec<Value>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_icecore"));
        command
            .env_clear()
            .env("HOME", self.dir.path())
            .env("ICECORE_CACHE_DIR", self.dir.path().join("cache"))
            .env("ICECORE_STATE_DIR", self.dir.path().join("state"));
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }

        let secret = self.expected["secret"].as_str().expect("a secret");
        match secret {
            "" => command.env("ICECORE_NO_PASSPHRASE", "1"),
            secret => command.env("ICECORE_PASSPHRASE", secret),
        };

        let done = command
            .arg("--json")
            .arg("-r")
            .arg(&self.repo)
            .args(words)
            .output()
            .expect("icecore runs");

        let out = String::from_utf8(done.stdout).expect("UTF-8");
        let err = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!err.contains("panicked"), "{words:?}: {err}");

        let lines = out
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect();
        (
            done.status
                .code()
                .unwrap_or_else(|| panic!("{words:?}: {err}")),
            lines,
        )
    }

    fn must(&self, words: &[&str]) -> Vec<Value> {
        let (code, lines) = self.run(words);
        assert_eq!(code, 0, "{words:?}: {lines:#?}");
        lines
    }

    fn shown(&self) -> Vec<String> {
        let lines = self.must(&["snapshots"]);
        let mut ids: Vec<String> = lines
            .iter()
            .filter(|line| line["type"] == "snapshot")
            .map(|line| line["id"].as_str().expect("an id").to_owned())
            .collect();
        ids.sort();
        ids
    }

    /// Restores a snapshot and compares it with the recorded contents.
    fn same(&self, id: &str) {
        let snapshot = &self.expected["snapshots"][id];
        let target = self.dir.path().join("restored");
        let (code, lines) = self.run(&["restore", id, target.to_str().expect("UTF-8")]);
        assert_eq!(
            i64::from(code),
            snapshot["restore"].as_i64().expect("a code"),
            "{id}: {lines:#?}"
        );

        let mut found = BTreeMap::new();
        list(&target, Path::new(""), &mut found);
        let wanted = snapshot["paths"].as_object().expect("paths");
        let missing: Vec<&String> = wanted
            .keys()
            .filter(|path| !found.contains_key(*path))
            .collect();
        assert!(missing.is_empty(), "{id} lacks {missing:?}");
        for (path, row) in &found {
            assert_eq!(Some(row), wanted.get(path), "{id}: {path} (in hex)");
        }
        fs::remove_dir_all(&target).expect("removed");
    }

    fn ids(&self, field: &str) -> Vec<String> {
        let list = self.expected[field].as_array().expect("a list");
        list.iter()
            .map(|id| id.as_str().expect("an id").to_owned())
            .collect()
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// Lists a directory, in the format of `tests/data/expect.py`: path in hex → kind, permission bits,
/// time, and the content's hash or the link's target.
fn list(top: &Path, at: &Path, found: &mut BTreeMap<String, Value>) {
    for entry in fs::read_dir(top.join(at)).expect("listed") {
        let path = at.join(entry.expect("an entry").file_name());
        let full = top.join(&path);
        let info = fs::symlink_metadata(&full).expect("stat");
        let mut mode = info.mode() & 0o7777;
        let mut content = String::new();
        if info.is_file() {
            content = blake3::hash(&fs::read(&full).expect("read"))
                .to_hex()
                .to_string();
        } else if info.is_symlink() {
            mode = 0;
            content = hex::encode(
                fs::read_link(&full)
                    .expect("a target")
                    .as_os_str()
                    .as_bytes(),
            );
        }
        let time = info.mtime() * 1_000_000_000 + info.mtime_nsec();
        found.insert(
            hex::encode(path.as_os_str().as_bytes()),
            serde_json::json!([info.mode() >> 12, mode, time, content]),
        );
        if info.is_dir() {
            list(top, &path, found);
        }
    }
}

fn read_and_go_on(name: &str) {
    let golden = Golden::open(name);
    let verify = golden.expected["verify"].as_i64().expect("a code");
    let (code, findings) = golden.run(&["verify", "--read-data"]);
    assert_eq!(i64::from(code), verify, "{name}: {findings:#?}");
    assert_eq!(golden.shown(), golden.ids("shown"), "{name}");
    let snapshots = golden.expected["snapshots"].as_object().expect("snapshots");
    assert!(!snapshots.is_empty(), "{name}");
    for id in snapshots.keys() {
        golden.same(id);
    }

    // Today's icecore continues with it.
    let tree = golden.dir.path().join("tree");
    fs::create_dir(&tree).expect("made");
    fs::write(tree.join("file"), b"of today").expect("written");
    golden.must(&["backup", &format!("tree={}", tree.display())]);
    golden.must(&["prune"]);
    golden.must(&["prune", "--now"]);
    let (code, findings) = golden.run(&["verify", "--read-data"]);
    assert_eq!(i64::from(code), verify, "{name}: {findings:#?}");

    // Prune deletes old checkpoints and no other snapshot.
    let shown = golden.shown();
    let kept: Vec<String> = golden
        .ids("shown")
        .into_iter()
        .filter(|id| snapshots[id]["state"] != "checkpoint")
        .collect();
    assert!(shown.len() > kept.len(), "{name}: {shown:?}");
    for id in kept {
        assert!(shown.contains(&id), "{name}: {id} is gone");
        golden.same(&id);
    }
}

#[test]
fn each_golden_directory_is_listed_and_complete() {
    let mut there: Vec<String> = fs::read_dir(data())
        .expect("listed")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_type().expect("a type").is_dir())
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .collect();
    there.sort();
    let mut listed: Vec<&str> = REPOSITORIES.iter().map(|(name, _)| *name).collect();
    listed.sort_unstable();
    assert_eq!(
        there, listed,
        "the directories of tests/data and the list in tests/golden.rs"
    );
    for name in listed {
        for file in ["repo.tar", "expected.json"] {
            assert!(
                data().join(name).join(file).is_file(),
                "{name} has no {file}"
            );
        }
    }
}

#[test]
fn plain() {
    read_and_go_on("plain");
}

#[test]
fn passphrase() {
    read_and_go_on("passphrase");
}

#[test]
fn parity() {
    read_and_go_on("parity");
}

#[test]
fn states() {
    read_and_go_on("states");
}
