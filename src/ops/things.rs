//! The thing that a source's name stands for: the directory with the recorded path, or the program
//! whose output is captured.

use std::fmt;

use crate::format::SourceKind;

/// The thing that a source's name stands for. For a stream it is the program alone: its arguments
/// change often, and may contain secrets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceThing {
    /// The recorded path of the root.
    Tree(Vec<u8>),
    /// The program's file name, empty for standard input.
    Stream(String),
}

impl SourceThing {
    /// Returns the thing that was captured.
    pub fn of(kind: &SourceKind) -> Self {
        match kind {
            SourceKind::Tree { path, .. } => Self::Tree(path.clone()),
            SourceKind::Stream { command, .. } => Self::command(command),
        }
    }

    /// Returns the thing that a command captures.
    pub fn command(words: &[String]) -> Self {
        let program = words
            .first()
            .map(|word| word.rsplit('/').next().unwrap_or(word));
        Self::Stream(program.unwrap_or_default().to_owned())
    }

    /// Returns true for a tree whose path is not absolute: earlier versions recorded the path as it
    /// was typed.
    pub fn is_relative(&self) -> bool {
        matches!(self, Self::Tree(path) if !path.starts_with(b"/"))
    }

    /// Returns true if both may be the same thing: they are equal, or one is a relative path and
    /// the other an absolute path that ends with it.
    pub fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tree(one), Self::Tree(two)) if self.is_relative() != other.is_relative() => {
                let (relative, absolute) = if self.is_relative() {
                    (one, two)
                } else {
                    (two, one)
                };
                ends_with(absolute, relative)
            }
            _ => self == other,
        }
    }
}

impl fmt::Display for SourceThing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(path) => f.write_str(&String::from_utf8_lossy(path)),
            Self::Stream(program) if program.is_empty() => f.write_str("standard input"),
            Self::Stream(program) => write!(f, "the output of {program}"),
        }
    }
}

/// Returns true if the absolute path ends with the components of the relative one, as far as these
/// are known: `..` and the components before it are not compared.
fn ends_with(absolute: &[u8], relative: &[u8]) -> bool {
    let names = |path: &[u8]| -> Vec<Vec<u8>> {
        let all = path.split(|&byte| byte == b'/');
        all.filter(|name| !name.is_empty() && *name != b".")
            .map(<[u8]>::to_vec)
            .collect()
    };
    let relative = names(relative);
    let known = relative
        .iter()
        .rposition(|name| name == b"..")
        .map_or(0, |at| at + 1);
    names(absolute).ends_with(&relative[known..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str) -> SourceThing {
        SourceThing::Tree(path.into())
    }

    #[test]
    fn an_old_relative_path_fits_absolute_paths_that_end_with_it() {
        for (relative, absolute, fits) in [
            ("data", "/home/alice/data", true),
            ("./data/", "/home/alice/data", true),
            ("alice/data", "/home/alice/data", true),
            ("../alice/data", "/home/alice/data", true),
            (".", "/home/alice/data", true),
            ("..", "/home", true),
            ("bob/data", "/home/alice/data", false),
            ("ata", "/home/alice/data", false),
            ("data", "/home/alice/data/x", false),
        ] {
            assert_eq!(
                tree(relative).fits(&tree(absolute)),
                fits,
                "{relative} {absolute}"
            );
            assert_eq!(
                tree(absolute).fits(&tree(relative)),
                fits,
                "{relative} {absolute}"
            );
        }
        assert!(!tree("/a/data").fits(&tree("/b/data")) && tree("/a").fits(&tree("/a")));
        assert!(
            !tree("a/data").fits(&tree("data")),
            "two relative ones are as different as they look"
        );
    }

    #[test]
    fn streams_are_compared_by_program() {
        let thing = |words: &[&str]| {
            SourceThing::command(
                &words
                    .iter()
                    .map(|word| (*word).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            thing(&["pg_dump", "-U", "a"]),
            thing(&["/usr/bin/pg_dump", "--password=x"])
        );
        assert!(
            !thing(&["pg_dump"]).fits(&thing(&["mysqldump"])) && !thing(&[]).fits(&thing(&["cat"]))
        );
        assert!(!thing(&["/x"]).fits(&tree("/x")));
        assert_eq!(thing(&[]).to_string(), "standard input");
    }
}
