//! The house rules that the compiler does not check: which module may use which, where files, the environment and the
//! terminal may be touched, how a source file begins, and how its comments read. The table of layers is that of
//! `docs/architecture.md`. `samples` tries each rule on a sample that breaks it.

mod circles;
mod front_end;
mod lexer;
mod links;
mod paths;
mod rules;
mod samples;
mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use self::circles::circles;
use self::lexer::{tokens, without_tests};
use self::rules::{LINES_MAX, LONG_FILES, check};

/// The test kit: it may use every layer, and no other module may use it.
const TEST_KIT: &str = "src/testing/";

pub(crate) fn rust_files(directory: &Path, out: &mut Vec<PathBuf>) {
    let Ok(listing) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in listing {
        let path = entry.expect("a listed name").path();
        if path.is_dir() {
            if path.file_name().is_none_or(|n| n != "target") {
                rust_files(&path, out);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The package's own dependencies, with `_` for `-`: lines `name = …` and tables
/// `[dependencies.name]`.
pub(crate) fn dependencies(manifest: &str) -> BTreeSet<String> {
    let (mut out, mut inside) = (BTreeSet::new(), false);
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table == "dependencies" || table.ends_with(".dependencies");
            if let Some((_, name)) = table.split_once("dependencies.") {
                out.insert(name.replace('-', "_"));
            }
        } else if let (true, Some((name, _))) = (inside, line.split_once('='))
            && !name.starts_with('#')
        {
            out.insert(
                name.trim()
                    .split('.')
                    .next()
                    .unwrap_or_default()
                    .replace('-', "_"),
            );
        }
    }
    out
}

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    let crates = dependencies(&manifest);
    assert!(
        crates.contains("blake3") && crates.contains("crossbeam_channel"),
        "dependencies not read: {crates:?}"
    );

    let mut files = Vec::new();
    for directory in ["src", "tests", "benches", "fuzz"] {
        rust_files(&root.join(directory), &mut files);
    }
    files.sort();
    assert!(files.len() > 20, "only {} files found", files.len());

    let texts: Vec<(String, String)> = files
        .iter()
        .map(|file| {
            let name = file
                .strip_prefix(root)
                .expect("below the root")
                .to_string_lossy()
                .into_owned();
            (
                name,
                std::fs::read_to_string(file).expect("a readable source file"),
            )
        })
        .collect();

    // Files that a `#[cfg(test)] mod name;` brings in are test code too.
    let mut test_files = BTreeSet::new();
    for (name, text) in &texts {
        for module in without_tests(&tokens(text)).1 {
            let directory = name
                .trim_end_matches("mod.rs")
                .trim_end_matches("lib.rs")
                .trim_end_matches(".rs");
            let directory = directory.trim_end_matches('/');
            test_files.insert(format!("{directory}/{module}.rs"));
            test_files.insert(format!("{directory}/{module}/mod.rs"));
        }
        // `#[path]` is refused but for test modules.
        let beside = Path::new(name).parent().expect("a directory");
        for part in text.split("#[path = \"").skip(1) {
            let file = part.split('"').next().unwrap_or_default();
            test_files.insert(beside.join(file).to_string_lossy().into_owned());
        }
    }

    // And so are the modules below them.
    let is_test = |name: &str| {
        let directory =
            |file: &str| format!("{}/", file.trim_end_matches(".rs").trim_end_matches("/mod"));
        name.starts_with(TEST_KIT)
            || test_files.contains(name)
            || test_files
                .iter()
                .any(|file: &String| name.starts_with(&directory(file)))
    };
    let mut report = Vec::new();
    for (name, text) in &texts {
        report.extend(
            check(name, text, &crates, is_test(name))
                .iter()
                .map(ToString::to_string),
        );
    }
    let sources = texts
        .iter()
        .filter(|(name, _)| name.starts_with("src/") && !is_test(name))
        .map(|(name, text)| (name.as_str(), text.as_str()));
    report.extend(circles(sources));

    for (long, _) in LONG_FILES {
        match texts.iter().find(|(name, _)| name == long) {
            Some((_, text)) if text.lines().count() > LINES_MAX => {}
            _ => report.push(format!("{long}:1: no longer long: take it off LONG_FILES")),
        }
    }
    assert!(
        report.is_empty(),
        "{} findings:\n{}",
        report.len(),
        report.join("\n")
    );
}
