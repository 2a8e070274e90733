//! Import circles: sets of source files that name each other's items in a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Token, closed, is, tokens, without_tests};

/// Re-exports and aliases that are followed for one name.
const STEPS_MAX: usize = 16;

/// A module's path. The first part is `crate` for the library and `bin` for the program.
type ModulePath = Vec<String>;

/// A source file as a module.
#[derive(Default)]
struct Module {
    file: String,
    /// Types, functions, constants and other items that it defines.
    items: BTreeSet<String>,
    /// Names that it imports or re-exports, with their paths as written.
    imports: BTreeMap<String, Vec<String>>,
    /// Paths of `use …::*`.
    globs: Vec<Vec<String>>,
    /// Paths that its code names, as written. A `pub use` is none: it only passes a name on.
    named: BTreeSet<Vec<String>>,
}

/// The modules of the library and the program.
struct ModuleTree {
    modules: BTreeMap<ModulePath, Module>,
}

/// For each file, the files whose items it names, with these names.
type Edges = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Returns a description of each circle among the files, given with their texts.
pub(crate) fn circles<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let edges = ModuleTree::read(files).edges();
    let reached: BTreeMap<&str, BTreeSet<&str>> = edges
        .keys()
        .map(|file| (file.as_str(), reachable(&edges, file)))
        .collect();

    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut circles = Vec::new();
    for (&file, reach) in &reached {
        if seen.contains(file) || !reach.contains(file) {
            continue;
        }
        let members: BTreeSet<&str> = reach
            .iter()
            .copied()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(file)))
            .collect();
        seen.extend(&members);
        circles.push(describe(&edges, &members));
    }
    circles
}

/// Returns all files that a file names, directly or through others.
fn reachable<'e>(edges: &'e Edges, file: &str) -> BTreeSet<&'e str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = vec![file];
    while let Some(next) = open.pop() {
        for other in edges.get(next).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(other.as_str()) {
                open.push(other);
            }
        }
    }
    reached
}

fn describe(edges: &Edges, members: &BTreeSet<&str>) -> String {
    let mut text = format!("import circle of {} files:", members.len());
    for &file in members {
        for (other, names) in &edges[file] {
            if members.contains(other.as_str()) {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                text += &format!("\n    {file} names {} of {other}", names.join(", "));
            }
        }
    }
    text
}

/// Returns the module that a source file is, `None` if it is not part of the library or the
/// program.
fn module_path(file: &str) -> Option<ModulePath> {
    let (root, inner) = match file.strip_prefix("src/bin/icecore/") {
        Some(inner) => ("bin", inner),
        None => ("crate", file.strip_prefix("src/")?),
    };
    let mut path = vec![root.to_owned()];
    path.extend(inner.strip_suffix(".rs")?.split('/').map(str::to_owned));
    if matches!(path.last()?.as_str(), "mod" | "lib" | "main") {
        path.pop();
    }
    Some(path)
}

impl ModuleTree {
    fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let modules = files.into_iter().filter_map(|(file, text)| {
            let module = Module::read(file, &without_tests(&tokens(text)).0);
            Some((module_path(file)?, module))
        });
        Self {
            modules: modules.collect(),
        }
    }

    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (path, module) in &self.modules {
            for named in &module.named {
                let Some(file) = self.resolve(path, named, STEPS_MAX) else {
                    continue;
                };
                if file == module.file {
                    continue;
                }
                let names = edges
                    .entry(module.file.clone())
                    .or_default()
                    .entry(file.to_owned())
                    .or_default();
                names.extend(named.last().cloned());
            }
        }
        edges
    }

    /// Returns the file that defines the item of a path that was written in a module. Returns
    /// `None` for paths to modules, whose items count where they are named, for paths of other
    /// crates, and for unknown names.
    fn resolve(&self, module: &[String], written: &[String], steps: usize) -> Option<&str> {
        let steps = steps.checked_sub(1)?;
        let root = module.get(..1)?;
        let (first, rest) = written.split_first()?;
        match first.as_str() {
            "crate" => self.look_up(root, rest, steps),
            "self" => self.look_up(module, rest, steps),
            "super" => {
                let (_, above) = module.split_last()?;
                match rest.first() {
                    Some(next) if next == "super" => self.resolve(above, rest, steps),
                    _ => self.look_up(above, rest, steps),
                }
            }
            "icecore" if root == ["bin"] => self.look_up(&["crate".to_owned()], rest, steps),
            _ => self.look_up(module, written, steps),
        }
    }

    /// Returns the file that defines the item of a path that begins in a module.
    fn look_up(&self, module: &[String], path: &[String], steps: usize) -> Option<&str> {
        let here = self.modules.get(module)?;
        let (name, rest) = path.split_first()?;

        let child: ModulePath = module.iter().chain([name]).cloned().collect();
        if self.modules.contains_key(&child) {
            return self.look_up(&child, rest, steps);
        }
        if here.items.contains(name) {
            return Some(&here.file);
        }
        if let Some(import) = here.imports.get(name) {
            let written: Vec<String> = import.iter().chain(rest).cloned().collect();
            // `use name::…` of another crate imports the crate's name as itself.
            return (written != path)
                .then(|| self.resolve(module, &written, steps))
                .flatten();
        }
        here.globs.iter().find_map(|glob| {
            let written: Vec<String> = glob.iter().chain(path).cloned().collect();
            self.resolve(module, &written, steps)
        })
    }
}

impl Module {
    /// Reads the tokens of a file, without its tests.
    fn read(file: &str, code: &[Token]) -> Self {
        let mut module = Self {
            file: file.to_owned(),
            ..Self::default()
        };
        let mut i = 0;
        while i < code.len() {
            let is_inner = i > 0 && matches!(code[i - 1].text.as_str(), "::" | ".");
            match code[i].text.as_str() {
                "use" => {
                    let is_passed_on = i > 0 && matches!(code[i - 1].text.as_str(), "pub" | ")");
                    i = module.import(code, i + 1, &[], is_passed_on);
                    continue;
                }
                "struct" | "enum" | "trait" | "union" | "type" | "fn" | "const" | "static" => {
                    // A method's name is no item of the module, but does no harm: no path begins
                    // with one.
                    let name = if is(code, i + 1, &["mut"]) {
                        i + 2
                    } else {
                        i + 1
                    };
                    module.items.extend(code.get(name).map(|t| t.text.clone()));
                }
                _ if !is_inner && is(code, i + 1, &["::"]) => {
                    let path: Vec<String> = code[i..]
                        .chunks(2)
                        .take_while(|pair| is_word(&pair[0]))
                        .scan(true, |goes_on, pair| {
                            let keep = *goes_on;
                            *goes_on = pair.get(1).is_some_and(|t| t.text == "::");
                            keep.then(|| pair[0].text.clone())
                        })
                        .collect();
                    i += 2 * path.len().max(1) - 1;
                    module.named.insert(path);
                    continue;
                }
                _ => {}
            }
            i += 1;
        }
        module
    }

    /// Reads a use tree at `i` that follows `prefix`. Returns the index after it.
    fn import(
        &mut self,
        code: &[Token],
        mut i: usize,
        prefix: &[String],
        passed_on: bool,
    ) -> usize {
        let mut path = prefix.to_vec();
        while let Some(token) = code.get(i) {
            match token.text.as_str() {
                "{" => {
                    let end = closed(code, i);
                    i += 1;
                    while i + 1 < end {
                        i = self.import(code, i, &path, passed_on).max(i + 1);
                    }
                    return end;
                }
                "*" => {
                    self.globs.push(path);
                    return i + 1;
                }
                "," => return i + 1,
                "self" if !path.is_empty() => {}
                word => path.push(word.to_owned()),
            }
            i += 1;
            if !is(code, i, &["::"]) {
                break;
            }
            i += 1;
        }

        let mut name = path.last().cloned().unwrap_or_default();
        if is(code, i, &["as"]) {
            name = code.get(i + 1).map_or(name, |alias| alias.text.clone());
            i += 2;
        }
        if !passed_on {
            self.named.insert(path.clone());
        }
        self.imports.insert(name, path);
        i
    }
}

fn is_word(token: &Token) -> bool {
    token
        .text
        .starts_with(|c: char| c == '_' || c.is_alphabetic())
}

/// Returns the circles among files of the library.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    circles(files.iter().copied())
}

#[test]
fn a_circle_is_found_through_re_exports_and_aliases() {
    let files = [
        ("src/lib.rs", "pub mod store;\npub mod repo;"),
        (
            "src/store/mod.rs",
            "mod local;\nmod key;\npub use self::key::{Key, KeyKind as Kind};",
        ),
        (
            "src/store/local.rs",
            "use crate::store;\nuse super::Kind;\npub fn put(_: store::Key) {}",
        ),
        (
            "src/store/key.rs",
            "pub struct Key;\npub enum KeyKind { A }\nfn f() { super::local::put(Key) }",
        ),
        ("src/repo.rs", "use crate::store::Key;\npub fn f(_: Key) {}"),
    ];
    assert_eq!(
        circles_of(&files),
        ["import circle of 2 files:\n    \
          src/store/key.rs names put of src/store/local.rs\n    \
          src/store/local.rs names Key, Kind of src/store/key.rs"]
    );
}

#[test]
fn re_exports_tests_and_modules_make_no_circle() {
    let files = [
        ("src/lib.rs", "pub mod store;\npub use store::Key;"),
        (
            "src/store/mod.rs",
            "mod local;\npub mod key;\npub use self::key::Key;\npub use self::local::Local;",
        ),
        (
            "src/store/local.rs",
            "use super::{key, Key};\npub struct Local;",
        ),
        (
            "src/store/key.rs",
            "pub struct Key;\n#[cfg(test)]\nmod tests { use crate::store::local::Local; }",
        ),
        (
            "src/bin/icecore/main.rs",
            "mod ui;\nuse icecore::Key;\npub fn exit(_: Key) {}",
        ),
        (
            "src/bin/icecore/ui.rs",
            "pub fn say() { std::fmt::format(x) }",
        ),
    ];
    assert_eq!(circles_of(&files), Vec::<String>::new());
}

#[test]
fn a_circle_of_three_is_one_circle() {
    let files = [
        ("src/lib.rs", "mod a;\nmod b;\nmod c;"),
        ("src/a.rs", "use crate::b::B;\npub struct A(B);"),
        ("src/b.rs", "use crate::c::{self, C};\npub struct B(C);"),
        ("src/c.rs", "pub struct C;\nfn f() -> crate::a::A { g() }"),
    ];
    let found = circles_of(&files);
    assert!(
        matches!(&found[..], [circle] if circle.starts_with("import circle of 3 files")),
        "{found:?}"
    );
}
