//! Exclude patterns against git: a directory tree with unusual names and random sets of patterns.
//! For each set, `git check-ignore` and [`Filter`] must exclude the same paths.
//!
//! `ICECORE_PATTERN_SEED` repeats a run, `ICECORE_PATTERN_SETS` makes it longer.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use icecore::source::{Filter, FilterOptions};
use icecore::types::RelPath;

/// Default number of compared sets of patterns.
const SETS: usize = 700;

/// Names used in the tree; every directory contains some of them.
const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"ab",
    b"abc",
    b"foo",
    b"foo.txt",
    b"bar",
    b"foobar",
    b"data",
    b"data1",
    b"datax",
    b"log",
    b"logs",
    b"x y",
    b"tail ",
    b"tab\t",
    b"[a]",
    b"a]b",
    b"a-b",
    b"!x",
    b"#c",
    b"back\\slash",
    b"star*",
    b"q?",
    b"{a,b}",
    b"a\nb",
    b"\xff",
    b"n\xc3\xa4",
    b"x\xfe.o",
    b"A",
    b"Z9",
    b"_",
    b".hidden",
    b"~",
    b"x.o",
    b"core",
    b"^",
    b"a\\",
    b"\x0b",
    b"\x01",
];

/// Pieces of random patterns.
const CLASS_MEMBERS: &[&[u8]] = &[
    b"a",
    b"b",
    b"a-c",
    b"0-9",
    b"A-Z",
    b"z-a",
    b"-",
    b"\\]",
    b"\\-",
    b"^",
    b"!",
    b"/",
    b".-0",
    b"[",
    b"\xff",
    b"\xfe-\xff",
    b"[:alpha:]",
    b"[:digit:]",
    b"[:space:]",
    b"[:punct:]",
    b"[:upper:]",
    b"[:lower:]",
    b"[:cntrl:]",
    b"[:xdigit:]",
    b"[:graph:]",
    b"[:print:]",
    b"[:blank:]",
    b"[:alnum:]",
    b"[:nosuch:]",
    b"[:al",
    b"[a:",
    b"\\\\",
    b"s",
    b"\\a-c",
    b"a-\\c",
    b"{",
    b"*",
    b"?",
];
const COMPONENTS: &[&[u8]] = &[
    b"*", b"**", b"***", b"?", b"*.o", b"*.*", b"f*", b"*a*", b"a**", b"**b",
];
const SEPARATORS: &[&[u8]] = &[b"/", b"/", b"/", b"/**/", b"\\/", b"**/", b"*/", b"//"];
const ENDS: &[&[u8]] = &[
    b"", b"", b"", b"", b"/", b"/**", b"/*", b" ", b"\\ ", b"  ", b"\t", b"\\", b"\r",
];

/// A small generator (xorshift64*), so that a seed gives the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'t, T: ?Sized>(&mut self, items: &[&'t T]) -> &'t T {
        items[self.below(items.len())]
    }
}

/// Counts the kinds of patterns in the sets, so that the test can assert that each kind occurs.
#[derive(Debug, Default)]
struct Shares {
    sets: usize,
    escapes: usize,
    crossings: usize,
    negations: usize,
    classes: usize,
    trailing_blanks: usize,
    not_utf8: usize,
    matching: usize,
}

impl Shares {
    fn count(&mut self, set: &[Vec<u8>]) {
        let any =
            |holds: &dyn Fn(&[u8]) -> bool| usize::from(set.iter().any(|pattern| holds(pattern)));
        self.sets += 1;
        self.escapes += any(&|pattern| pattern.contains(&b'\\'));
        self.crossings += any(&|pattern| pattern.windows(3).any(|bytes| bytes == b"**/"));
        self.negations += any(&|pattern| pattern.starts_with(b"!"));
        self.classes += any(&|pattern| pattern.contains(&b'['));
        self.trailing_blanks += any(&|pattern| pattern.ends_with(b" ") || pattern.ends_with(b"\t"));
        self.not_utf8 += any(&|pattern| std::str::from_utf8(pattern).is_err());
    }

    /// Asserts that each kind of pattern occurs in at least a tenth of the sets.
    fn check(&self) {
        let kinds = [
            self.escapes,
            self.crossings,
            self.negations,
            self.classes,
            self.trailing_blanks,
            self.not_utf8,
            self.matching,
        ];
        assert!(
            kinds.iter().all(|&count| count * 10 >= self.sets),
            "a kind is rare: {self:?}"
        );
    }
}

fn class(random: &mut Random) -> Vec<u8> {
    let mut out = b"[".to_vec();
    if random.one_in(3) {
        out.push(random.pick(&[b"!", b"^"])[0]);
    }
    if random.one_in(6) {
        out.push(b']');
    }
    for _ in 0..=random.below(3) {
        let member: &[u8] = random.pick(CLASS_MEMBERS);
        out.extend(member);
    }
    if !random.one_in(20) {
        out.push(b']');
    }
    out
}

/// Returns a piece of a pattern: a fixed one, or a name of the tree with some bytes escaped or
/// replaced by wildcards.
fn component(random: &mut Random) -> Vec<u8> {
    if random.one_in(5) {
        return random.pick(COMPONENTS).to_vec();
    }
    let mut out = Vec::new();
    for &byte in random.pick(NAMES) {
        match random.below(14) {
            0 => out.push(b'?'),
            1 => out.push(b'*'),
            2 => out.extend(class(random)),
            3 => out.extend([b'\\', byte]),
            4 if random.one_in(3) => {}
            _ if byte == b'\n' => out.push(b'?'),
            _ => out.push(byte),
        }
    }
    out
}

fn pattern(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    if random.one_in(5) {
        out.push(b'!');
    }
    if random.one_in(4) {
        out.push(b'/');
    }
    if random.one_in(6) {
        out.extend(b"**/");
    }
    for i in 0..=random.below(3) {
        if i > 0 {
            let separator: &[u8] = random.pick(SEPARATORS);
            out.extend(separator);
        }
        out.extend(component(random));
    }
    let end: &[u8] = random.pick(ENDS);
    out.extend(end);
    out
}

/// Makes the tree and returns its paths, directories before their contents. The flag is true for
/// directories.
fn make_tree(root: &Path, random: &mut Random) -> Vec<(Vec<u8>, bool)> {
    fn fill(
        root: &Path,
        above: &[u8],
        depth: usize,
        random: &mut Random,
        paths: &mut Vec<(Vec<u8>, bool)>,
    ) {
        for name in NAMES {
            if depth > 0 && !random.one_in(5) {
                continue;
            }
            let path = if above.is_empty() {
                name.to_vec()
            } else {
                [above, b"/", *name].concat()
            };
            let is_directory = depth < 3 && random.one_in(3);
            let place: PathBuf = root.join(OsStr::from_bytes(&path));
            paths.push((path.clone(), is_directory));
            if is_directory {
                std::fs::create_dir(&place).expect("made");
                fill(root, &path, depth + 1, random, paths);
            } else {
                std::fs::write(&place, "").expect("written");
            }
        }
    }

    let mut paths = Vec::new();
    fill(root, b"", 0, random, &mut paths);
    paths
}

/// Returns the paths that git excludes.
fn ignored_by_git(root: &Path, paths: &[(Vec<u8>, bool)]) -> BTreeSet<Vec<u8>> {
    let mut git = Command::new("git")
        .args([
            "-c",
            "core.ignoreCase=false",
            "-c",
            "core.excludesFile=/dev/null",
            "check-ignore",
            "--no-index",
            "-z",
            "--stdin",
        ])
        .current_dir(root)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git starts");

    let mut input = git.stdin.take().expect("a pipe");
    let text: Vec<u8> = paths
        .iter()
        .flat_map(|(path, _)| [path.as_slice(), b"\0"].concat())
        .collect();

    let writer = std::thread::spawn(move || input.write_all(&text));
    let output = git.wait_with_output().expect("git ends");
    writer.join().expect("no panic").expect("git reads all");

    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "git check-ignore: {:?}",
        output.status
    );
    output
        .stdout
        .split(|&byte| byte == 0)
        .filter(|path| !path.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

/// Returns the paths that a backup excludes; it does not enter excluded directories.
fn ignored_by_filter(filter: &Filter, paths: &[(Vec<u8>, bool)]) -> BTreeSet<Vec<u8>> {
    let mut out: BTreeSet<Vec<u8>> = BTreeSet::new();
    for (path, is_directory) in paths {
        let above = path
            .iter()
            .rposition(|&byte| byte == b'/')
            .map(|end| &path[..end]);
        let rel = RelPath::from_slashed(path).expect("a path");
        if above.is_some_and(|above| out.contains(above)) || filter.excludes(&rel, *is_directory) {
            out.insert(path.clone());
        }
    }
    out
}

fn shown(set: &BTreeSet<Vec<u8>>) -> Vec<String> {
    set.iter()
        .map(|path| path.escape_ascii().to_string())
        .collect()
}

/// Returns sets that git and the filter once read differently, and some that tools get wrong.
fn known_sets() -> Vec<Vec<Vec<u8>>> {
    let sets: &[&[&[u8]]] = &[
        &[b"data[!0-9]*"],
        &[b"log[^s]*"],
        &[b"*[\\<\\>\\:\\\"\\/\\\\\\|\\?\\*]*"],
        &[b"fo[^x]*bar"],
        &[b"tab\t"],
        &[b"tail "],
        &[b"tail\\ "],
        &[b"tail\\  "],
        &[b"foo**/bar"],
        &[b"foo**bar"],
        // An empty component that matches nothing, except after a `**` that may do so too.
        &[b"/foo**//bar", b"/a**//*"],
        &[b"foo**//", b"**//bar", b"foo/**//bar", b"foo//bar"],
        &[b"foo***//bar", b"foo**///bar", b"f*o**//bar"],
        &[b"a**/b", b"!ab/**"],
        &[b"**", b"!foo"],
        &[b"/*", b"!/foo", b"/foo/*", b"!/foo/bar"],
        &[b"*", b"!*/", b"!*.txt"],
        &[b"[[:space:]]"],
        &[b"[[:punct:]]*"],
        &[b"[]-a]*"],
        &[b"[a-]b"],
        &[b"{a,b}"],
        &[b"\\#c", b"\\!x", b"#c", b"!x"],
        &[b"a//b"],
        &[b"./a"],
        &[b"foo/."],
        &[b"**/"],
        &[b"**/**/a"],
        &[b"a/**/**/b"],
        &[b"/**/a/"],
        &[b"\xef\xbb\xbfabc"],
        &[b"\xff"],
        &[b"[\xfe-\xff]*"],
        &[b"foo\\/bar"],
        &[b"**\\/bar"],
        &[b"a\\"],
        &[b"a\\\\"],
        &[b"\r"],
    ];
    sets.iter()
        .map(|set| set.iter().map(|pattern| pattern.to_vec()).collect())
        .collect()
}

#[test]
fn patterns_leave_out_what_git_leaves_out() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seed = number("ICECORE_PATTERN_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("after 1970").subsec_nanos().into()
    });
    println!("ICECORE_PATTERN_SEED={seed}");
    let sets = number("ICECORE_PATTERN_SETS").map_or(SETS, |sets| sets as usize);
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);

    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("tree");
    std::fs::create_dir(&root).expect("made");
    let made = Command::new("git")
        .args(["init", "-q"])
        .current_dir(&root)
        .status()
        .expect("git (apt-get install git)");
    assert!(made.success());
    let paths = make_tree(&root, &mut random);

    let mut shares = Shares::default();
    let random_sets = (0..sets).map(|_| {
        (0..=random.below(4))
            .map(|_| pattern(&mut random))
            .collect()
    });
    for set in known_sets()
        .into_iter()
        .chain(random_sets.collect::<Vec<Vec<Vec<u8>>>>())
    {
        let file = root.join(".gitignore");
        std::fs::write(&file, set.join(&b'\n')).expect("written");
        let options = FilterOptions {
            exclude_files: vec![file],
            ..FilterOptions::default()
        };
        let filter = Filter::new(&options).expect("a file of patterns is never refused");

        let git = ignored_by_git(&root, &paths);
        let ours = ignored_by_filter(&filter, &paths);
        let text: Vec<String> = set
            .iter()
            .map(|pattern| pattern.escape_ascii().to_string())
            .collect();
        assert!(
            git == ours,
            "seed {seed}, patterns {text:?}\n only git leaves out {:?}\n only icecore leaves out {:?}",
            shown(&git.difference(&ours).cloned().collect()),
            shown(&ours.difference(&git).cloned().collect())
        );
        shares.count(&set);
        shares.matching += usize::from(!git.is_empty());
    }
    println!("{shares:?}");
    shares.check();
}

/// A pattern given as an option means the same as the line in a file, or is refused.
#[test]
fn an_option_means_what_the_line_means() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut random = Random(0x5eed);
    let paths: Vec<(Vec<u8>, bool)> = NAMES
        .iter()
        .flat_map(|name| [(name.to_vec(), false), (name.to_vec(), true)])
        .collect();
    for _ in 0..500 {
        let text = pattern(&mut random);
        if text.starts_with(b"#") || text.ends_with(b"\r") || text.contains(&b'\n') {
            continue;
        }

        let file = dir.path().join("list");
        std::fs::write(&file, &text).expect("written");
        let by_file = Filter::new(&FilterOptions {
            exclude_files: vec![file],
            ..Default::default()
        })
        .expect("read");

        let excludes = vec![OsString::from_vec(text.clone())];
        match Filter::new(&FilterOptions {
            excludes,
            ..Default::default()
        }) {
            Ok(by_option) => {
                let all = |filter: &Filter| ignored_by_filter(filter, &paths);
                assert_eq!(all(&by_file), all(&by_option), "{}", text.escape_ascii());
            }
            Err(_) => assert!(
                ignored_by_filter(&by_file, &paths).is_empty(),
                "{}",
                text.escape_ascii()
            ),
        }
    }
}
