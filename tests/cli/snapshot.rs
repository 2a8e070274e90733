//! Compares a text with a file of `snapshots/`, and shows the difference line by line.

use std::fs;
use std::path::{Path, PathBuf};

/// Set to 1, it writes the files instead of comparing them.
const BLESS: &str = "ICECORE_BLESS";

/// Lines shown around a difference.
const CONTEXT: usize = 3;

pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/snapshots")
}

/// Compares the text with the snapshot of this name (`restore` or `help/backup`).
pub(crate) fn check(name: &str, actual: &str) {
    let path = directory().join(format!("{name}.txt"));
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == actual {
        return;
    }

    if std::env::var_os(BLESS).is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().expect("a file below snapshots/")).expect("a directory");
        fs::write(&path, actual).expect("a snapshot that can be written");
        return;
    }

    panic!(
        "the output differs from {} (-: the file, +: now; {BLESS}=1 writes the file):\n{}",
        path.display(),
        difference(&expected, actual)
    );
}

/// Returns the lines that differ, each marked `-` or `+`, with some equal lines around them.
pub(crate) fn difference(old: &str, new: &str) -> String {
    let old: Vec<&str> = old.lines().collect();
    let new: Vec<&str> = new.lines().collect();

    // Lengths of the longest common subsequences of the rests.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }

    let mut marked = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            marked.push((' ', old[i]));
            i += 1;
            j += 1;
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            marked.push(('-', old[i]));
            i += 1;
        } else {
            marked.push(('+', new[j]));
            j += 1;
        }
    }

    with_context(&marked)
}

fn with_context(marked: &[(char, &str)]) -> String {
    let is_near = |at: usize| {
        let from = at.saturating_sub(CONTEXT);
        let to = marked.len().min(at + CONTEXT + 1);
        marked[from..to].iter().any(|(mark, _)| *mark != ' ')
    };

    let mut out = String::new();
    let mut skipped = false;
    for (at, (mark, line)) in marked.iter().enumerate() {
        if is_near(at) {
            if skipped {
                out.push_str("  …\n");
            }
            out.push_str(&format!("{mark} {line}\n"));
        }
        skipped = !is_near(at);
    }
    out
}

#[test]
fn a_difference_shows_the_lines_around_it() {
    let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
    let new = "1\n2\n3\n4\n5\n6\n7\neight\n9\n";
    assert_eq!(
        difference(old, new),
        "  …\n  5\n  6\n  7\n- 8\n+ eight\n  9\n"
    );
}

#[test]
fn every_snapshot_belongs_to_a_test() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let mut code = String::new();
    for entry in fs::read_dir(sources).expect("the tests") {
        let path = entry.expect("a listed name").path();
        if path.extension().is_some_and(|ending| ending == "rs") {
            code.push_str(&fs::read_to_string(path).expect("a source file"));
        }
    }

    let mut unused = Vec::new();
    for entry in fs::read_dir(directory()).expect("the snapshots") {
        let path = entry.expect("a listed name").path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if path.is_file() && !code.contains(&format!("\"{name}\"")) {
            unused.push(name);
        }
    }
    assert_eq!(unused, Vec::<String>::new());
}
