//! Counts of what `docs/style.md` asks to avoid. Each may fall and never rises.
//!
//! `ICECORE_TIDY_LIST=comments cargo test --features testing --test tidy -- counts --nocapture`
//! lists the places of one count.

#![expect(
    clippy::print_stdout,
    reason = "the counts are for the person who runs the test"
)]

use std::path::Path;

use super::lexer::without_tests;
use super::lexer::{Token, block_comment_end, closed, is, quoted_end, raw_string_end, tokens};

/// Phrases of `docs/style.md`, in lower case, one word after the other.
const PHRASES: &[&str] = &[
    // A clause where a noun should be.
    "what is",
    "what was",
    "what has",
    "what had",
    "what are",
    "what were",
    "what it",
    "what they",
    "what can",
    "what cannot",
    "what could",
    "what may",
    "what must",
    "what does",
    "what do",
    "what did",
    "what will",
    "what would",
    "what comes",
    "what came",
    "what lies",
    "what stands",
    "who",
    "whoever",
    "whatever",
    // Verbs with several meanings.
    "told",
    "tell",
    "tells",
    "telling",
    // Phrases that have a plain form.
    "anew",
    "meanwhile",
    "all the same",
    "as a rule",
    "so many",
    "so much",
    "of late",
    "but for",
    "goes on",
    "went on",
    "go on",
    "going on",
    "gone on",
    "at work",
    "is as good",
    "are as good",
    "let go",
    "lets go",
    "letting go",
    "behind it",
    "behind that",
    "behind this",
    "behind them",
    // A subject that is no thing.
    "nobody",
    "somebody",
    "everybody",
    "anybody",
    // Terms that have another name here.
    "folder",
    "folders",
    "doubtful",
];

/// Integer types that a cast may cut.
const INTEGERS: &[&str] = &[
    "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize",
];

/// Sentences of comments with one of the phrases.
const COMMENTS_MAX: usize = 6;
/// String literals with one of them.
const STRINGS_MAX: usize = 11;
/// Sentences of documents with one of them.
const DOCUMENTS_MAX: usize = 0;
/// Type names of one word, outside of tests.
const ONE_WORD_TYPES_MAX: usize = 64;
/// Casts to integers in the library, outside of tests.
const CASTS_MAX: usize = 26;
/// Functions of the library that take an observer and a flag for cancelling: the constructor of
/// [`Task`](icecore::task::Task).
const OBSERVER_AND_CANCEL_MAX: usize = 1;
/// Calls of `assert_eq!` that compare two tuples: a failure does not show which element differs.
const TUPLE_ASSERTIONS_MAX: usize = 203;

/// Something counted, with its place.
struct Hit {
    path: String,
    line: usize,
    text: String,
}

/// One count: how many there are, among how many, and where.
#[derive(Default)]
struct Count {
    hits: Vec<Hit>,
    total: usize,
}

impl Count {
    fn add(&mut self, path: &str, line: usize, text: &str) {
        let text = text.to_owned();
        self.hits.push(Hit {
            path: path.to_owned(),
            line,
            text,
        });
    }

    /// Fails if the count is above `max`, and lists the places on request.
    #[track_caller]
    fn is_at_most(&self, name: &str, max: usize) {
        let count = self.hits.len();
        println!("{name}: {count} of {} (at most {max})", self.total);
        if std::env::var("ICECORE_TIDY_LIST").is_ok_and(|wanted| wanted == name) {
            for Hit { path, line, text } in &self.hits {
                println!("{path}:{line}: {text}");
            }
        }
        assert!(
            count <= max,
            "{name}: {count}, at most {max} are allowed; ICECORE_TIDY_LIST={name} lists them (docs/style.md)"
        );
    }
}

/// A text in a source file, with the line on which it begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// The comments of a source file, adjacent lines as one, and its string literals.
pub(crate) fn comments_and_strings(source: &str) -> (Vec<Text>, Vec<Text>) {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut comments, mut strings) = (Vec::<Text>::new(), Vec::new());
    let (mut i, mut line) = (0, 1);
    // The line of the last comment: the next line's comment continues it.
    let mut last = 0;

    while i < chars.len() {
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => (i..chars.len())
                .find(|&j| at(j) == '\n')
                .unwrap_or(chars.len()),
            ('/', '*') => block_comment_end(&chars, i),
            ('"', _) => quoted_end(&chars, i),
            ('\'', next) if next == '\\' || at(i + 2) == '\'' => quoted_end(&chars, i),
            ('r', '"' | '#') if at(i + 1) == '"' || matches!(at(i + 2), '"' | '#') => {
                raw_string_end(&chars, i + 1)
            }
            (c, _) if c.is_alphanumeric() || c == '_' => {
                let is_word = |c: char| c.is_alphanumeric() || c == '_';
                (i..chars.len())
                    .find(|&j| !is_word(at(j)))
                    .unwrap_or(chars.len())
            }
            _ => i + 1,
        };
        let text: String = chars[i..end.min(chars.len())].iter().collect();

        if text.starts_with("//") {
            let body = text.trim_start_matches('/').trim_start_matches('!').trim();
            match comments.last_mut() {
                Some(open) if last + 1 == line && !body.is_empty() => {
                    open.text.push(' ');
                    open.text.push_str(body);
                }
                _ => comments.push(Text {
                    line,
                    text: body.to_owned(),
                }),
            }
            last = if body.is_empty() { 0 } else { line };
        } else if text.starts_with("/*") {
            comments.push(Text {
                line,
                text: text.clone(),
            });
        } else if text.starts_with('"') || text.starts_with("r\"") || text.starts_with("r#") {
            strings.push(Text {
                line,
                text: text.clone(),
            });
        }
        line += text.matches('\n').count();
        i = end;
    }
    (comments, strings)
}

/// Splits prose after `.`, `!`, `?`, `;` and `:` that a blank follows.
fn sentences(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut start = 0;
    let bytes = text.as_bytes();
    for (i, pair) in bytes.windows(2).enumerate() {
        if matches!(pair[0], b'.' | b'!' | b'?' | b';' | b':') && pair[1].is_ascii_whitespace() {
            out.push(&text[start..=i]);
            start = i + 1;
        }
    }
    out.push(&text[start..]);
    out.retain(|sentence| sentence.chars().any(char::is_alphabetic));
    out
}

/// The first of [`PHRASES`] that the text has, as whole words.
fn phrase_in(text: &str) -> Option<&'static str> {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_alphanumeric() && c != '_' && c != '\'')
        .filter(|word| !word.is_empty())
        .collect();
    PHRASES.iter().copied().find(|phrase| {
        let wanted: Vec<&str> = phrase.split(' ').collect();
        words.windows(wanted.len()).any(|window| window == wanted)
    })
}

/// Type names without a second word: `Place`, not `PlaceOfFile`.
fn has_one_word(name: &str) -> bool {
    name.chars().filter(|c| c.is_uppercase()).count() == 1
}

/// The names of the types that the tokens define.
fn defined_types(code: &[Token]) -> impl Iterator<Item = &Token> {
    code.windows(2).filter_map(|pair| {
        let defines = matches!(pair[0].text.as_str(), "struct" | "enum" | "trait");
        let is_name = pair[1].text.starts_with(char::is_uppercase);
        (defines && is_name).then_some(&pair[1])
    })
}

/// The files of a directory with this ending, with their names from the root and their texts.
pub(crate) fn files(directory: &str, ending: &str) -> Vec<(String, String)> {
    fn gather(directory: &Path, ending: &str, out: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("a listed name").path();
            if path.is_dir() {
                gather(&path, ending, out);
            } else if path.extension().is_some_and(|found| found == ending) {
                out.push(path);
            }
        }
    }

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    gather(&root.join(directory), ending, &mut paths);
    paths.sort();
    let name = |path: &Path| {
        path.strip_prefix(root)
            .map(|name| name.display().to_string())
    };
    let text = |path: &Path| std::fs::read_to_string(path).expect("a readable file");
    paths
        .iter()
        .map(|path| (name(path).expect("below the root"), text(path)))
        .collect()
}

/// Files that only tests compile, by the names that they have here.
pub(crate) fn is_of_tests(path: &str) -> bool {
    path.contains("/tests/")
        || ["tests.rs", "_tests.rs", "testing.rs", "/suite.rs"]
            .iter()
            .any(|end| path.ends_with(end))
}

#[test]
fn counts_of_phrases() {
    let (mut comments, mut strings, mut documents) =
        (Count::default(), Count::default(), Count::default());

    for directory in ["src", "tests", "benches", "fuzz/fuzz_targets"] {
        for (path, text) in files(directory, "rs") {
            // This file lists the phrases.
            if path.starts_with("tests/tidy/") {
                continue;
            }
            let (found, literals) = comments_and_strings(&text);
            for Text { line, text } in &found {
                for sentence in sentences(text) {
                    comments.total += 1;
                    if phrase_in(sentence).is_some() {
                        comments.add(&path, *line, sentence.trim());
                    }
                }
            }
            // Strings that people read: not those of tests.
            if path.starts_with("src/") && !is_of_tests(&path) {
                strings.total += literals.len();
                for Text { line, text } in literals {
                    if phrase_in(&text).is_some() {
                        strings.add(&path, line, &text);
                    }
                }
            }
        }
    }

    let mut texts = files("docs", "md");
    for name in ["README.md", "CHANGELOG.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        texts.push((
            name.to_owned(),
            std::fs::read_to_string(path).expect("a document"),
        ));
    }
    // The style guide quotes the phrases.
    for (path, text) in texts.iter().filter(|(path, _)| path != "docs/style.md") {
        for (number, paragraph) in text.split("\n\n").enumerate() {
            for sentence in sentences(&paragraph.replace('\n', " ")) {
                documents.total += 1;
                if phrase_in(sentence).is_some() {
                    documents.add(path, number, sentence.trim());
                }
            }
        }
    }

    comments.is_at_most("comments", COMMENTS_MAX);
    strings.is_at_most("strings", STRINGS_MAX);
    documents.is_at_most("documents", DOCUMENTS_MAX);
}

#[test]
fn counts_of_names_and_casts() {
    let (mut one_word, mut casts) = (Count::default(), Count::default());
    let mut observed = Count::default();

    for (path, text) in files("src", "rs")
        .into_iter()
        .filter(|(path, _)| !is_of_tests(path))
    {
        let (code, _) = without_tests(&tokens(&text));
        for name in defined_types(&code) {
            one_word.total += 1;
            if has_one_word(&name.text) {
                one_word.add(&path, name.line, &name.text);
            }
        }
        if path.starts_with("src/bin/") {
            continue;
        }
        for (i, token) in code.iter().enumerate() {
            let next = code.get(i + 1).map_or("", |next| &next.text);
            if token.text == "as" && INTEGERS.contains(&next) {
                casts.add(&path, token.line, next);
            }
            if token.text == "fn" {
                observed.total += 1;
                let open = (i..code.len()).find(|&j| code[j].text == "(").unwrap_or(i);
                let arguments = &code[open..closed(&code, open)];
                let has = |word: &str| arguments.iter().any(|token| token.text == word);
                if has("Observer") && has("Cancel") {
                    observed.add(&path, token.line, next);
                }
            }
        }
    }

    one_word.is_at_most("types", ONE_WORD_TYPES_MAX);
    casts.is_at_most("casts", CASTS_MAX);
    observed.is_at_most("observed", OBSERVER_AND_CANCEL_MAX);
}

/// Returns whether an `assert_eq!` whose two sides begin with a parenthesis begins at `i`.
fn compares_tuples(code: &[Token], i: usize) -> bool {
    is(code, i, &["assert_eq", "!", "(", "("]) && is(code, closed(code, i + 3), &[",", "("])
}

#[test]
fn counts_of_tuple_assertions() {
    let mut tuples = Count::default();

    for directory in ["src", "tests", "benches", "fuzz/fuzz_targets"] {
        for (path, text) in files(directory, "rs") {
            let code = tokens(&text);
            for (i, token) in code.iter().enumerate() {
                if is(&code, i, &["assert_eq", "!"]) {
                    tuples.total += 1;
                }
                if compares_tuples(&code, i) {
                    tuples.add(&path, token.line, "assert_eq! of two tuples");
                }
            }
        }
    }

    tuples.is_at_most("tuples", TUPLE_ASSERTIONS_MAX);
}

#[test]
fn tuple_assertions_are_found() {
    let finds = |text: &str| compares_tuples(&tokens(text), 0);
    assert!(finds("assert_eq!((a, f(b)), (1, \"c\"));"));
    assert!(!finds("assert_eq!((a, b).len(), (1, 2));"));
    assert!(!finds("assert_eq!((a, b), c);"));
    assert!(!finds("assert_eq!(a, (1, 2));"));
}

#[test]
pub(crate) fn comments_and_strings_are_found() {
    let text = "//! One\n//! two.\n\nfn f() { g(\"a b\", r#\"c\"d\"#, 'x', '\\''); } // three\n/// Four.\n///\n/// Five.\n";
    let (comments, strings) = comments_and_strings(text);
    let comments: Vec<_> = comments
        .iter()
        .map(|text| (text.line, text.text.as_str()))
        .collect();
    assert_eq!(
        comments,
        [(1, "One two."), (4, "three Four."), (6, ""), (7, "Five.")]
    );
    let strings: Vec<_> = strings.iter().map(|text| text.text.as_str()).collect();
    assert_eq!(strings, ["\"a b\"", "r#\"c\"d\"#"]);
}

#[test]
fn phrases_are_whole_words() {
    assert_eq!(phrase_in("It tells them."), Some("tells"));
    assert_eq!(phrase_in("What is not there"), Some("what is"));
    assert_eq!(phrase_in("A foretell of whatsoever"), None);
    assert_eq!(
        sentences("One. Two: three; f(a.b) ok?"),
        ["One.", " Two:", " three;", " f(a.b) ok?"]
    );
    assert!(has_one_word("Place") && !has_one_word("TargetPlace"));
    assert!(is(&tokens("a as u8"), 1, &["as", "u8"]));
}
