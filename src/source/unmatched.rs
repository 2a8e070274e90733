//! Finds patterns that have matched nothing.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::pattern::{self, Pattern, PatternLine, PatternSubject};
use crate::types::RelPath;

/// The patterns that have matched no path so far, except negated patterns, which select nothing.
#[derive(Debug, Default)]
pub struct UnmatchedPatterns {
    given: Vec<OsString>,
    /// For each given pattern: it is negated or has matched a path.
    done: Vec<bool>,
    /// Number of patterns that are not done.
    left: usize,
    /// Patterns without wildcards, by the name or path that they match: one lookup finds them,
    /// however many there are.
    names: HashMap<Vec<u8>, Vec<LiteralPath>>,
    paths: HashMap<Vec<u8>, Vec<LiteralPath>>,
    wildcards: Vec<(usize, Pattern)>,
}

#[derive(Debug, Clone, Copy)]
struct LiteralPath {
    number: usize,
    only_directories: bool,
}

impl UnmatchedPatterns {
    /// Creates the state in which no pattern has matched. Patterns that cannot match are ignored
    /// here; [`Filter::new`](super::Filter::new) rejects them.
    pub fn new(patterns: &[OsString]) -> Self {
        let mut new = Self {
            given: patterns.to_vec(),
            done: vec![true; patterns.len()],
            ..Self::default()
        };
        for (number, text) in patterns.iter().enumerate() {
            let PatternLine::Pattern(pattern) = pattern::parse(text.as_bytes()) else {
                continue;
            };

            if pattern.is_negated {
                continue;
            }
            new.done[number] = false;
            new.left += 1;

            match pattern.literal() {
                None => new.wildcards.push((number, pattern)),
                Some(key) => {
                    let literals = if pattern.subject == PatternSubject::Name {
                        &mut new.names
                    } else {
                        &mut new.paths
                    };
                    let only_directories = pattern.only_directories;
                    literals.entry(key).or_default().push(LiteralPath {
                        number,
                        only_directories,
                    });
                }
            }
        }
        new
    }

    /// Records the patterns that match a path.
    pub fn note(&mut self, path: &RelPath, is_directory: bool) {
        if self.left == 0 || path.is_root() {
            return;
        }
        let key = path.key();
        let name = path.name().unwrap_or_default();
        let done = &mut self.done;
        let mut left = self.left;
        let mut matched = |number: usize| {
            left -= usize::from(!done[number]);
            done[number] = true;
        };

        for (literals, text) in [(&mut self.names, name), (&mut self.paths, key)] {
            let Some(found) = literals.get_mut(text) else {
                continue;
            };
            found.retain(|literal| {
                let is_match = is_directory || !literal.only_directories;
                if is_match {
                    matched(literal.number);
                }
                !is_match
            });
            if found.is_empty() {
                literals.remove(text);
            }
        }

        self.wildcards.retain(|(number, pattern)| {
            let is_match = pattern.matches(key, name, is_directory);
            if is_match {
                matched(*number);
            }
            !is_match
        });
        self.left = left;
    }

    /// Returns the patterns that matched nothing, in the given order.
    pub fn patterns(&self) -> impl Iterator<Item = &OsString> {
        self.given
            .iter()
            .zip(&self.done)
            .filter(|(_, done)| !**done)
            .map(|(pattern, _)| pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Filter, FilterOptions};

    fn left(patterns: &[&str], paths: &[(&str, bool)]) -> Vec<String> {
        let patterns: Vec<OsString> = patterns.iter().map(OsString::from).collect();
        let mut unmatched = UnmatchedPatterns::new(&patterns);
        for (path, is_directory) in paths {
            unmatched.note(
                &RelPath::from_slashed(path.as_bytes()).expect("a path"),
                *is_directory,
            );
        }
        unmatched
            .patterns()
            .map(|one| one.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn patterns_without_a_match_are_listed() {
        let paths = [("", true), ("a", true), ("a/b.txt", false), ("c", false)];
        assert_eq!(
            left(&["nosuch", "a", "*.txt", "*.pdf", "/b.txt"], &paths),
            ["nosuch", "*.pdf", "/b.txt"]
        );
        assert_eq!(
            left(&["c/", "a/", "a/b.txt", "b.txt/"], &paths),
            ["c/", "b.txt/"]
        );
        assert_eq!(
            left(&["!nosuch", "!a", "x"], &paths),
            ["x"],
            "a negated pattern selects nothing"
        );
        assert_eq!(left(&["x", "x", "c", "c"], &paths), ["x", "x"]);
        assert!(left(&["**", "*"], &paths).is_empty() && left(&[], &paths).is_empty());
        assert_eq!(left(&["**"], &[("", true)]), ["**"], "the root is no match");
    }

    /// With random patterns and paths, a pattern is left if and only if a filter with this pattern
    /// alone excludes no path.
    #[test]
    fn it_agrees_with_the_filter() {
        let mut state = 1_u64;
        let mut draw = |below: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let pieces = ["a", "b", "ab", "*", "?", "[ab]", "**", "a*", "é"];
        let names = ["a", "b", "ab", "ba", "é"];

        for _ in 0..2000 {
            let mut text = String::new();
            text.push_str(["", "/", "**/"][draw(3)]);
            text.push_str(pieces[draw(pieces.len())]);
            if draw(2) == 0 {
                text.push('/');
                text.push_str(pieces[draw(pieces.len())]);
            }
            text.push_str(["", "", "/"][draw(3)]);

            let paths: Vec<(RelPath, bool)> = (0..draw(4))
                .map(|_| {
                    let names: Vec<&str> =
                        (0..1 + draw(3)).map(|_| names[draw(names.len())]).collect();
                    (
                        RelPath::from_slashed(names.join("/").as_bytes()).expect("a path"),
                        draw(2) == 0,
                    )
                })
                .collect();

            let excludes = vec![OsString::from(&text)];
            let mut unmatched = UnmatchedPatterns::new(&excludes);
            let filter = Filter::new(&FilterOptions {
                excludes,
                ..FilterOptions::default()
            })
            .expect("a good pattern");
            for (path, is_directory) in &paths {
                unmatched.note(path, *is_directory);
            }

            let is_matched = paths
                .iter()
                .any(|(path, is_directory)| filter.excludes(path, *is_directory));
            assert_eq!(
                unmatched.patterns().count(),
                usize::from(!is_matched),
                "{text:?} {paths:?}"
            );
        }
    }
}
