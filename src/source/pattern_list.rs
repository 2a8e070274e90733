//! Several exclude patterns; the last one that matches decides.

use std::collections::HashMap;

use super::pattern::{Pattern, PatternSubject};

/// Patterns in the given order.
#[derive(Debug, Default)]
pub(super) struct PatternList {
    /// Patterns without wildcards, by the name or path that they match: one lookup finds them,
    /// however many there are.
    names: HashMap<Vec<u8>, Vec<LiteralPattern>>,
    paths: HashMap<Vec<u8>, Vec<LiteralPattern>>,
    /// All other patterns, the last one first.
    wildcards: Vec<(usize, Pattern)>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct LiteralPattern {
    number: usize,
    is_negated: bool,
    only_directories: bool,
}

impl PatternList {
    pub fn new(patterns: Vec<Pattern>) -> Self {
        let mut list = Self {
            len: patterns.len(),
            ..Self::default()
        };

        for (number, pattern) in patterns.into_iter().enumerate() {
            let Some(key) = pattern.literal() else {
                list.wildcards.push((number, pattern));
                continue;
            };

            let Pattern {
                is_negated,
                only_directories,
                subject,
                ..
            } = pattern;
            let literals = if subject == PatternSubject::Name {
                &mut list.names
            } else {
                &mut list.paths
            };
            literals.entry(key).or_default().push(LiteralPattern {
                number,
                is_negated,
                only_directories,
            });
        }

        list.wildcards.reverse();
        list
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns true if the last pattern that matches the path of this key excludes it.
    pub fn excludes(&self, key: &[u8], is_directory: bool) -> bool {
        let name = key.rsplit(|&byte| byte == 0).next().unwrap_or(key);
        let literals = [(&self.names, name), (&self.paths, key)]
            .into_iter()
            .filter(|(map, _)| !map.is_empty());
        let literal = literals
            .flat_map(|(map, text)| map.get(text).into_iter().flatten())
            .filter(|literal| is_directory || !literal.only_directories)
            .max_by_key(|literal| literal.number);

        let wildcard = self
            .wildcards
            .iter()
            .take_while(|(number, _)| literal.is_none_or(|literal| *number > literal.number))
            .find(|(_, pattern)| pattern.matches(key, name, is_directory));
        match (wildcard, literal) {
            (Some((_, pattern)), _) => !pattern.is_negated,
            (None, Some(literal)) => !literal.is_negated,
            (None, None) => false,
        }
    }
}
