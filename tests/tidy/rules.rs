//! The rules about one file: which module may use which, where files, the environment and the terminal may be
//! touched, and how a source file begins.

use std::collections::BTreeSet;
use std::fmt;

use super::lexer::{closed, is, tokens, without_tests};
use super::paths::paths;

/// Module, and what it may use of the crate beside itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("advice", &[]),
    ("observe", &["types", "advice"]),
    ("task", &["types", "observe"]),
    ("chunk", &["types"]),
    ("format", &["types"]),
    ("sys", &["types"]),
    ("store", &["types", "observe", "sys"]),
    ("index", &["types", "observe", "sys"]),
    ("source", &["types", "advice", "observe", "sys"]),
    ("dest", &["types", "observe", "sys"]),
    (
        "repo",
        &[
            "types", "advice", "observe", "task", "chunk", "format", "sys", "store", "index",
        ],
    ),
    (
        "read",
        &[
            "types", "advice", "observe", "task", "chunk", "format", "sys", "store", "index",
            "repo", "error",
        ],
    ),
    (
        "ops",
        &[
            "types", "advice", "observe", "task", "chunk", "format", "sys", "store", "index",
            "source", "dest", "repo", "read", "error",
        ],
    ),
    (
        "error",
        &[
            "types", "advice", "observe", "task", "chunk", "format", "sys", "store", "index",
            "source", "dest", "repo", "ops",
        ],
    ),
    (
        "ccn",
        &[
            "types", "advice", "observe", "task", "chunk", "format", "sys", "store", "index",
            "source", "dest", "repo", "read", "ops", "error",
        ],
    ),
    (
        "jobs",
        &[
            "types", "advice", "observe", "task", "chunk", "format", "sys", "store", "index",
            "source", "dest", "repo", "read", "ops", "ccn", "error",
        ],
    ),
];

/// Crates that talk to people: the command line's alone.
const BINARY_CRATES: &[&str] = &[
    "clap",
    "clap_complete",
    "clap_mangen",
    "indicatif",
    "rpassword",
    "anyhow",
];

/// `std::fs` outside `src/sys` and the binary: file, name, why.
const FS_EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "src/store/spool.rs",
    "std::fs::File",
    "a spool owns an open file; opening it is left to sys",
)];

/// Longest file that needs no explanation.
pub(crate) const LINES_MAX: usize = 800;

/// Longer files, and why each is one thing.
pub(crate) const LONG_FILES: &[(&str, &str)] = &[];

#[derive(PartialEq)]
pub(crate) struct Finding {
    path: String,
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// The module that a file under `src/` is: `src/store/mod.rs` → `["store"]`, `src/lib.rs` → `[]`.
fn module_of(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if parts
        .last()
        .is_some_and(|p| p == "mod" || p == "lib" || p == "main")
    {
        parts.pop();
    }
    parts
}

/// Checks one file. `crates` are the package's dependencies as Rust names; `test_file` is true for
/// code that only tests compile.
pub(crate) fn check(
    path: &str,
    text: &str,
    crates: &BTreeSet<String>,
    test_file: bool,
) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |line: usize, message: String| {
        let finding = Finding {
            path: path.to_owned(),
            line,
            message,
        };
        if !found.contains(&finding) {
            found.push(finding);
        }
    };

    if !text.starts_with("//!") {
        say(
            1,
            "the first line must be a `//!` sentence that says what the file is for".into(),
        );
    }
    let lines = text.lines().count();
    if lines > LINES_MAX && !LONG_FILES.iter().any(|(p, _)| *p == path) {
        say(
            LINES_MAX + 1,
            format!("{lines} lines: split it, or explain it in LONG_FILES of tests/tidy/rules.rs"),
        );
    }

    let all = tokens(text);
    for i in 0..all.len() {
        for name in ["todo", "unimplemented", "dbg"] {
            if is(&all, i, &[name, "!"]) {
                say(all[i].line, format!("`{name}!` does not land"));
            }
        }
        if is(&all, i, &["#", "[", "ignore"]) {
            say(all[i].line, "`#[ignore]`: a test runs or goes".into());
        }
    }
    if !path.starts_with("src/") || test_file {
        return found;
    }

    let (code, _) = without_tests(&all);
    let binary = path.starts_with("src/bin/");
    let module = module_of(path);
    let layer = if binary {
        "binary"
    } else {
        module.first().map_or("root", String::as_str)
    };

    for i in 0..code.len() {
        let line = code[i].line;
        if is(&code, i, &[".", "unwrap", "("]) {
            say(
                line,
                "`.unwrap()`: return the error, or `expect(\"why it cannot fail\")`".into(),
            );
        }
        if is(&code, i, &["#", "[", "path", "="]) || is(&code, i, &["include", "!"]) {
            say(line, "modules come by `mod` alone".into());
        }
        let attribute = if is(&code, i, &["#", "["]) {
            i + 1
        } else if is(&code, i, &["#", "!", "["]) {
            i + 2
        } else {
            usize::MAX
        };
        if attribute != usize::MAX
            && matches!(code.get(attribute + 1), Some(t) if t.text == "allow" || t.text == "expect")
        {
            let end = closed(&code, attribute);
            if !code[attribute..end].iter().any(|t| t.text == "reason") {
                say(line, "a lint is silenced with a `reason`".into());
            }
        }
        if binary {
            continue;
        }
        for name in ["println", "eprintln", "print", "eprint"] {
            if is(&code, i, &[name, "!"]) {
                say(
                    line,
                    format!("`{name}!` outside the binary: tell the observer"),
                );
            }
        }
        if is(&code, i, &["process", "::", "exit"]) || is(&code, i, &["process", "::", "abort"]) {
            say(line, "only the binary ends the process".into());
        }
        if is(&code, i, &["io", "::", "stdout"]) || is(&code, i, &["io", "::", "stderr"]) {
            say(line, "only the binary writes to the terminal".into());
        }
        let starts_path = is(&code, i + 1, &["::"])
            && !(i > 0 && matches!(code[i - 1].text.as_str(), "::" | "."));
        let used_whole = i > 0 && code[i - 1].text == "use" && !starts_path;
        if starts_path || used_whole || (i > 1 && is(&code, i - 2, &["extern", "crate"])) {
            let name = code[i].text.as_str();
            if name == "icecore" {
                say(line, "the library calls itself `crate`".into());
            }
            if BINARY_CRATES.contains(&name) {
                say(line, format!("`{name}` is the binary's"));
            }
            if layer == "types" && crates.contains(name) {
                say(line, format!("`types` uses std alone, not `{name}`"));
            }
            if name == "rusqlite" && layer != "index" {
                say(line, "SQLite is used in `index` alone".into());
            }
        }
    }

    for named in paths(&code, &module) {
        let parts: Vec<&str> = named.parts.iter().map(String::as_str).collect();
        let full = parts.join("::");
        match parts.as_slice() {
            ["std", "fs", ..] if layer == "sys" || binary => {}
            ["std", "fs", ..]
                if FS_EXCEPTIONS
                    .iter()
                    .any(|&(file, name, _)| (file, name) == (path, &*full)) => {}
            ["std", "fs", ..] => say(
                named.line,
                format!("`{full}`: files are touched in `sys` alone"),
            ),
            ["std", "env", ..] if !binary => {
                say(
                    named.line,
                    format!("`{full}`: only the binary reads the environment"),
                );
            }
            ["std", "process", "exit" | "abort"] if !binary => {
                say(named.line, "only the binary ends the process".into());
            }
            ["std", "io", "stdout" | "stderr"] if !binary => {
                say(named.line, "only the binary writes to the terminal".into());
            }
            ["crate", "*", ..] if !binary => {
                say(named.line, "`crate::*` hides what is used".into());
            }
            ["crate", other, ..] if !binary && layer != "root" => {
                if let Some(reason) = forbidden(layer, other) {
                    say(named.line, format!("`{full}`: {reason}"));
                }
            }
            _ => {}
        }
    }
    if !binary && layer != "root" && !LAYERS.iter().any(|(name, _)| *name == layer) {
        say(1, format!("module `{layer}` is not in the layer table"));
    }
    found
}

/// Why `layer` may not use `other`, if so.
fn forbidden(layer: &str, other: &str) -> Option<String> {
    // The public error is re-exported at the root, and used there: it stands in error.rs.
    let other = if matches!(other, "Error" | "ErrorKind") {
        "error"
    } else {
        other
    };
    if layer == other {
        return None;
    }
    if !LAYERS.iter().any(|(name, _)| *name == other) {
        return Some("name the module it lives in, not the crate's root".into());
    }
    let (_, allowed) = LAYERS.iter().find(|(name, _)| *name == layer)?;
    (!allowed.contains(&other)).then(|| {
        format!(
            "`{layer}` may use {}",
            if allowed.is_empty() {
                "std alone".into()
            } else {
                allowed.join(", ")
            }
        )
    })
}
