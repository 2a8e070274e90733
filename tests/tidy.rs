//! The house rules that a compiler does not know: which module may use which, where files, the
//! environment and the terminal may be touched, and how a source file begins. The table is
//! `docs/architecture.md`'s; each rule is tried on a sample that breaks it, at the end of this
//! file.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// Module, and what it may use of the crate beside itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("observe", &["types"]),
    ("chunk", &["types"]),
    ("format", &["types"]),
    ("sys", &["types"]),
    ("store", &["types", "observe", "sys"]),
    ("index", &["types", "observe", "sys"]),
    ("source", &["types", "observe", "sys"]),
    ("target", &["types", "observe", "sys"]),
    (
        "repo",
        &[
            "types", "observe", "chunk", "format", "sys", "store", "index",
        ],
    ),
    (
        "ops",
        &[
            "types", "observe", "chunk", "format", "sys", "store", "index", "source", "target",
            "repo", "error",
        ],
    ),
    (
        "error",
        &[
            "types", "observe", "chunk", "format", "sys", "store", "index", "source", "target",
            "repo", "ops",
        ],
    ),
    (
        "node",
        &[
            "types", "observe", "chunk", "format", "sys", "store", "index", "source", "target",
            "repo", "ops", "error",
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
const LINES_MAX: usize = 600;

/// Longer files, and why each is one thing.
const LONG_FILES: &[(&str, &str)] = &[(
    "tests/tidy.rs",
    "the rules, and beside each the sample that breaks it",
)];

#[derive(PartialEq)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

// ---------------------------------------------------------------------------------------------------------- tokens

#[derive(Clone, Debug)]
struct Token {
    text: String,
    line: usize,
}

/// Splits Rust into identifiers, `::` and single characters; comments, strings and numbers' insides
/// are dropped.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let word = |c: char| c == '_' || c.is_alphanumeric();
    let mut out = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start_line = line;
        let c = at(i);
        let end = if c == '/' && at(i + 1) == '/' {
            (i..)
                .find(|&j| j >= chars.len() || at(j) == '\n')
                .unwrap_or(i)
        } else if c == '/' && at(i + 1) == '*' {
            block_comment_end(&chars, i)
        } else if c == '"' {
            quoted_end(&chars, i)
        } else if c == '\'' {
            let literal = at(i + 1) == '\\' || (at(i + 2) == '\'' && at(i + 1) != '\'');
            if literal {
                quoted_end(&chars, i)
            } else {
                i + 1
            }
        } else if word(c) {
            let end = (i..).find(|&j| !word(at(j))).unwrap_or(i);
            let text: String = chars[i..end].iter().collect();
            let prefix = matches!(text.as_str(), "r" | "br" | "cr");
            if prefix && (at(end) == '"' || (at(end) == '#' && matches!(at(end + 1), '#' | '"'))) {
                raw_string_end(&chars, end)
            } else {
                out.push(Token { text, line });
                end
            }
        } else if c == ':' && at(i + 1) == ':' {
            out.push(Token {
                text: "::".into(),
                line,
            });
            i + 2
        } else {
            if !c.is_whitespace() {
                out.push(Token {
                    text: c.into(),
                    line,
                });
            }
            i + 1
        };
        line = start_line
            + chars[i..end.min(chars.len())]
                .iter()
                .filter(|&&c| c == '\n')
                .count();
        i = end;
    }
    out
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            break;
        }
    }
    i
}

/// The end of a string or character literal that begins at `start`.
fn quoted_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != chars[start] {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The end of a raw string whose hashes begin at `start`.
fn raw_string_end(chars: &[char], start: usize) -> usize {
    let hashes = chars[start..].iter().take_while(|&&c| c == '#').count();
    let mut i = start + hashes + 1;
    while i < chars.len() {
        if chars[i] == '"'
            && chars[i + 1..]
                .iter()
                .take(hashes)
                .filter(|&&c| c == '#')
                .count()
                == hashes
        {
            return i + 1 + hashes;
        }
        i += 1;
    }
    i
}

fn is(tokens: &[Token], i: usize, words: &[&str]) -> bool {
    words
        .iter()
        .enumerate()
        .all(|(k, w)| tokens.get(i + k).is_some_and(|t| t.text == *w))
}

/// The index behind the bracket that closes the one at `open`.
fn closed(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// Takes test code out: items under `#[cfg(test)]`, `#[cfg(all(test, …))]` and `#[test]`. The
/// second value names the modules that were declared there and live in files of their own.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let (mut kept, mut test_modules) = (Vec::new(), Vec::new());
    let mut i = 0;
    while i < tokens.len() {
        let test = is(tokens, i, &["#", "[", "cfg", "(", "test", ")"])
            || is(tokens, i, &["#", "[", "cfg", "(", "all", "(", "test"])
            || is(tokens, i, &["#", "[", "test", "]"]);
        if !test {
            kept.push(tokens[i].clone());
            i += 1;
            continue;
        }
        while is(tokens, i, &["#", "["]) {
            i = closed(tokens, i + 1);
        }
        let item = i;
        while i < tokens.len() {
            match tokens[i].text.as_str() {
                "{" => {
                    i = closed(tokens, i);
                    break;
                }
                "(" | "[" => i = closed(tokens, i),
                ";" => {
                    if let Some(m) = (item..i).find(|&j| tokens[j].text == "mod") {
                        test_modules.push(tokens[m + 1].text.clone());
                    }
                    i += 1;
                    break;
                }
                _ => i += 1,
            }
        }
    }
    (kept, test_modules)
}

// ----------------------------------------------------------------------------------------------------------- paths

/// A path as written in full: `["crate", "store", "Store"]`, `["std", "fs"]`.
struct Named {
    parts: Vec<String>,
    line: usize,
}

/// All paths that start at `crate`, `self`, `super`, `std`, `core` or `alloc`, with their `{…}`
/// groups spread out and `self`/`super` resolved against `module`.
fn paths(tokens: &[Token], module: &[String]) -> Vec<Named> {
    let mut out = Vec::new();
    // Inline modules around us, each with the index at which it closes.
    let mut inline: Vec<(String, usize)> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        inline.retain(|&(_, end)| i < end);
        if tokens[i].text == "mod" && is(tokens, i + 2, &["{"]) {
            inline.push((tokens[i + 1].text.clone(), closed(tokens, i + 2)));
        }
        let root = matches!(
            tokens[i].text.as_str(),
            "crate" | "self" | "super" | "std" | "core" | "alloc"
        );
        let inner = i > 0 && matches!(tokens[i - 1].text.as_str(), "::" | ".");
        if root && !inner && is(tokens, i + 1, &["::"]) {
            let here: Vec<String> = ["crate".to_owned()]
                .into_iter()
                .chain(module.iter().cloned())
                .chain(inline.iter().map(|(m, _)| m.clone()))
                .collect();
            i = tree(tokens, i, Vec::new(), &here, &mut out);
        } else {
            i += 1;
        }
    }
    out
}

/// Reads one use tree at `i` behind `prefix`; returns the index behind it.
fn tree(
    tokens: &[Token],
    mut i: usize,
    mut prefix: Vec<String>,
    here: &[String],
    out: &mut Vec<Named>,
) -> usize {
    let line = tokens.get(i).map_or(0, |t| t.line);
    while let Some(token) = tokens.get(i) {
        match token.text.as_str() {
            "{" => {
                let end = closed(tokens, i);
                i += 1;
                while i + 1 < end {
                    if is(tokens, i, &[","]) {
                        i += 1;
                        continue;
                    }
                    i = tree(tokens, i, prefix.clone(), here, out).max(i + 1);
                    if is(tokens, i, &["as"]) {
                        i += 2;
                    }
                }
                return end;
            }
            "self" if prefix.is_empty() => prefix = here.to_vec(),
            "self" => {}
            "super" => {
                if prefix.is_empty() {
                    prefix = here.to_vec();
                }
                if prefix.len() > 1 {
                    prefix.pop();
                }
            }
            word => prefix.push(word.to_owned()),
        }
        i += 1;
        if !is(tokens, i, &["::"]) {
            break;
        }
        i += 1;
        // A turbofish or a qualified path ends the name.
        if is(tokens, i, &["<"]) {
            break;
        }
    }
    out.push(Named {
        parts: prefix,
        line,
    });
    i
}

// ----------------------------------------------------------------------------------------------------------- rules

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
fn check(path: &str, text: &str, crates: &BTreeSet<String>, test_file: bool) -> Vec<Finding> {
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
            format!("{lines} lines: split it, or explain it in LONG_FILES of tests/tidy.rs"),
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
                say(named.line, "`crate::*` hides what is used".into())
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

// ------------------------------------------------------------------------------------------------------------ tree

fn rust_files(directory: &Path, out: &mut Vec<PathBuf>) {
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
fn dependencies(manifest: &str) -> BTreeSet<String> {
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
        test_files.contains(name)
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

// --------------------------------------------------------------------------------------------- the checker's checks

/// What `check` says of a file with this body (a doc line is put before it), as `line: message`.
fn said(path: &str, body: &str) -> String {
    let crates = ["serde", "blake3", "rusqlite", "clap"]
        .map(str::to_owned)
        .into();
    let text = format!("//! A sample.\n{body}");
    check(path, &text, &crates, false)
        .iter()
        .map(|f| format!("{}: {}\n", f.line, f.message))
        .collect()
}

#[track_caller]
fn refused(path: &str, body: &str, line: usize, part: &str) {
    let said = said(path, body);
    let hit = said
        .lines()
        .any(|l| l.starts_with(&format!("{line}: ")) && l.contains(part));
    assert!(
        hit,
        "{path} with {body:?}: wanted line {line} with {part:?}, got:\n{said}"
    );
}

#[track_caller]
fn accepted(path: &str, body: &str) {
    let said = said(path, body);
    assert!(said.is_empty(), "{path} with {body:?}:\n{said}");
}

#[test]
fn layers_are_kept() {
    refused(
        "src/store/local.rs",
        "use crate::format::Pack;",
        2,
        "`store` may use types, observe, sys",
    );
    refused(
        "src/types/id.rs",
        "use crate::sys::PathError;",
        2,
        "std alone",
    );
    refused(
        "src/chunk/cut.rs",
        "fn f() {\n    crate::store::get();\n}",
        3,
        "`chunk` may use types",
    );
    refused(
        "src/repo/mod.rs",
        "use crate::{types::Id,\n    ops::backup};",
        3,
        "crate::ops::backup",
    );
    refused(
        "src/repo/mod.rs",
        "use crate::{types::{Id, Len}, node};",
        2,
        "crate::node",
    );
    refused(
        "src/store/mod.rs",
        "use super::index::Index;",
        2,
        "crate::index::Index",
    );
    refused(
        "src/store/local.rs",
        "use super::super::index::Index;",
        2,
        "crate::index::Index",
    );
    refused(
        "src/store/mod.rs",
        "mod a {\n    use super::super::index::Index;\n}",
        3,
        "crate::index::Index",
    );
    refused(
        "src/source/walk.rs",
        "use crate::target;",
        2,
        "`source` may use",
    );
    refused(
        "src/ops/list.rs",
        "use crate::node::check;",
        2,
        "`ops` may use",
    );
    refused(
        "src/ops/list.rs",
        "use crate::Pack;",
        2,
        "not the crate's root",
    );
    refused("src/ops/list.rs", "use crate::*;", 2, "hides");
    refused("src/extra.rs", "fn f() {}", 1, "not in the layer table");
    refused("src/ops/list.rs", "use icecore::types;", 2, "calls itself");
    accepted(
        "src/repo/mod.rs",
        "use crate::{types::Id, store::{self, Store as S}};\npub(crate) fn f() {}",
    );
    accepted(
        "src/store/mod.rs",
        "use super::types::Id;\nuse self::local::Local;",
    );
    accepted(
        "src/store/local.rs",
        "use super::Store;\n// crate::format::Pack\nconst A: &str = \"crate::format\";",
    );
    accepted(
        "src/node/mod.rs",
        "use crate::ops;\nuse crate::error::Error;",
    );
    accepted("src/lib.rs", "pub mod types;\npub use crate::error::Error;");
    accepted(
        "src/bin/icecore/main.rs",
        "use crate::args::Args;\nuse icecore::ops;",
    );
}

#[test]
fn homes_are_kept() {
    refused("src/store/local.rs", "use std::fs;", 2, "`sys` alone");
    refused(
        "src/store/local.rs",
        "use std::{io, fs::{self, File}};",
        2,
        "std::fs::File",
    );
    refused(
        "src/store/spool.rs",
        "fn f() {\n    std::fs::File::open(p);\n}",
        3,
        "std::fs::File::open",
    );
    refused(
        "src/repo/mod.rs",
        "fn f() { let x = std::env::var(\"A\"); }",
        2,
        "environment",
    );
    refused("src/ops/list.rs", "use std::{env};", 2, "environment");
    refused(
        "src/ops/list.rs",
        "fn f() { std::process::exit(1) }",
        2,
        "ends the process",
    );
    refused(
        "src/ops/list.rs",
        "use std::process::{Command, exit};",
        2,
        "ends the process",
    );
    refused(
        "src/ops/list.rs",
        "use std::process;\nfn f() { process::exit(1) }",
        3,
        "ends the process",
    );
    refused(
        "src/ops/list.rs",
        "fn f() { println!(\"a\") }",
        2,
        "`println!`",
    );
    refused(
        "src/ops/list.rs",
        "fn f() { eprintln!(\"a\") }",
        2,
        "`eprintln!`",
    );
    refused("src/ops/list.rs", "fn f() { io::stdout() }", 2, "terminal");
    refused(
        "src/ops/list.rs",
        "use std::io::{self, stderr};",
        2,
        "terminal",
    );
    refused("src/ops/list.rs", "use clap::Parser;", 2, "binary's");
    refused(
        "src/repo/sync.rs",
        "use rusqlite::Connection;",
        2,
        "`index` alone",
    );
    refused("src/types/id.rs", "use serde::Serialize;", 2, "not `serde`");
    refused(
        "src/types/id.rs",
        "fn f() { blake3::hash(b\"\") }",
        2,
        "not `blake3`",
    );
    refused("src/types/id.rs", "use blake3;", 2, "not `blake3`");
    accepted("src/sys/files.rs", "use std::fs;");
    accepted("src/store/spool.rs", "use std::fs::File;");
    accepted("src/index/chunks.rs", "use rusqlite::Connection;");
    accepted(
        "src/bin/icecore/main.rs",
        "fn main() { println!(\"a\"); std::process::exit(std::env::args().len() as i32) }",
    );
    accepted(
        "src/repo/mod.rs",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n    use crate::ops;\n    fn f() { x.unwrap(); println!() }\n}",
    );
    accepted(
        "src/repo/mod.rs",
        "const V: &str = env!(\"CARGO_PKG_VERSION\");",
    );
    refused(
        "src/repo/mod.rs",
        "#[cfg(test)]\nmod tests {\n}\nuse std::fs;",
        5,
        "`sys` alone",
    );
    refused(
        "src/repo/mod.rs",
        "#[cfg(test)]\nfn f(a: [u8; 3]) -> u8 { 1 }\nuse std::fs;",
        4,
        "`sys` alone",
    );
}

#[test]
fn files_are_in_order() {
    let none = BTreeSet::new();
    assert_eq!(
        check("tests/a.rs", "fn f() {}\n", &none, false).len(),
        1,
        "a file without a doc line"
    );
    let long = format!("//! Long.\n{}", "\n".repeat(LINES_MAX));
    assert_eq!(
        check("tests/a.rs", &long, &none, false).len(),
        1,
        "a long file"
    );
    assert_eq!(
        check("tests/a.rs", &long[..long.len() - 1], &none, false).len(),
        0,
        "a file just short enough"
    );
    refused(
        "tests/a.rs",
        "#[test]\n#[ignore]\nfn f() {}",
        3,
        "#[ignore]",
    );
    refused(
        "tests/a.rs",
        "#[ignore = \"slow\"]\nfn f() {}",
        2,
        "#[ignore]",
    );
    refused("benches/a.rs", "fn f() { todo!() }", 2, "`todo!`");
    refused(
        "src/types/id.rs",
        "fn f() {\n    unimplemented!()\n}",
        3,
        "`unimplemented!`",
    );
    refused(
        "src/types/id.rs",
        "fn f() {\n    x\n        .unwrap();\n}",
        4,
        "`.unwrap()`",
    );
    refused(
        "src/types/id.rs",
        "#[allow(dead_code)]\nfn f() {}",
        2,
        "`reason`",
    );
    refused(
        "src/types/id.rs",
        "#[path = \"x.rs\"]\nmod x;",
        2,
        "`mod` alone",
    );
    accepted(
        "src/types/id.rs",
        "#[expect(dead_code, reason = \"x\")]\nfn f() { x.unwrap_or(1) }",
    );
    accepted(
        "src/types/id.rs",
        "/// `todo!()`\nfn f() { /* a.unwrap() /* b */ todo!() */ }",
    );
}

#[test]
fn the_lexer_keeps_its_place() {
    let words = |text: &str| {
        tokens(text)
            .into_iter()
            .map(|t| t.text)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(words("a(\"x\\\"y\") b"), "a ( ) b");
    assert_eq!(words("a r#\"x\"y\"# b r\"z\" c br##\"\"#\"## d"), "a b c d");
    assert_eq!(
        words("'a' b '\\'' c 'x: loop {} fn f<'a>() '\"' d"),
        "b c x : loop { } fn f < a > ( ) d"
    );
    assert_eq!(words("a // b\nc /* d /* e */ f */ g"), "a c g");
    assert_eq!(words("r#type b#"), "r # type b #");
    let lines: Vec<usize> = tokens("a\n\"x\ny\"\nb /*\n*/ c")
        .iter()
        .map(|t| t.line)
        .collect();
    assert_eq!(lines, [1, 4, 5]);
}

#[test]
fn test_modules_in_files_are_known() {
    let (_, modules) = without_tests(&tokens(
        "#[cfg(test)]\nmod tests;\n#[cfg(feature = \"x\")] mod other;",
    ));
    assert_eq!(modules, ["tests"]);
}

#[test]
fn the_manifest_is_read() {
    let read = dependencies(
        "[package]\nname = \"x\"\n[dependencies]\n# no = 1\na-b = \"1\"\n[dependencies.c]\nv = 1\n[dev-dependencies]\nd = 1",
    );
    assert_eq!(read.into_iter().collect::<Vec<_>>(), ["a_b", "c"]);
}
