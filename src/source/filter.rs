//! Decides which paths of a source are captured: gitignore rules, sizes, file systems, cache
//! directories.

use std::ffi::OsString;
use std::fmt;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::source::directory::SourceDir;
use crate::source::misread;
use crate::source::pattern::{self, Pattern, PatternLine, PatternProblem, shown};
use crate::source::pattern_list::PatternList;
use crate::source::stat::{DirectoryId, SourceStat, StatKind};
use crate::sys::{PathError, read_bounded};
use crate::types::RelPath;

/// The file that marks a cache directory, and the required beginning of its content
/// (<https://bford.info/cachedir/>).
pub const CACHE_TAG_NAME: &[u8] = b"CACHEDIR.TAG";
const CACHE_TAG_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
/// Increased when the same options select different paths, so that entries are not carried over
/// unchecked.
const RULES_VERSION: u32 = 2;
/// Limit of a file of patterns: all patterns are held in memory.
const EXCLUDE_FILE_BYTES_MAX: usize = 4 << 20;

/// Options that exclude paths, as the user gave them.
#[derive(Debug, Clone, Default)]
pub struct FilterOptions {
    /// Patterns with gitignore's rules, from the source's root. They come after those of the files,
    /// so they take precedence.
    pub excludes: Vec<OsString>,
    /// Files of patterns, one per line. They are read again for each source, so a pipe works only
    /// with a single source.
    pub exclude_files: Vec<PathBuf>,
    /// Files of patterns that have been read; they come after those of `exclude_files`.
    pub exclude_texts: Vec<PatternText>,
    /// Leave out the contents of directories marked as caches.
    pub exclude_caches: bool,
    /// Leave out regular files larger than this, in bytes.
    pub exclude_larger_than: Option<u64>,
    /// Do not enter file systems other than the root's.
    pub one_file_system: bool,
    /// Directories that are never captured, by any path: the repository and the cache
    /// directory.
    pub never: Vec<DirectoryId>,
    /// How errors describe the patterns of `excludes`.
    pub given_as: GivenAs,
}

/// A file of patterns, read once for all sources, since a pipe cannot be read twice.
#[derive(Debug, Clone)]
pub struct PatternText {
    /// The file's name in errors.
    path: PathBuf,
    bytes: Arc<[u8]>,
}

impl PatternText {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or is longer than 4 MiB.
    pub fn read(path: &Path) -> Result<Self, FilterError> {
        let bytes = read_bounded(path, EXCLUDE_FILE_BYTES_MAX)?;
        Ok(Self {
            path: path.to_owned(),
            bytes: bytes.into(),
        })
    }
}

/// The purpose of a pattern, since not every one excludes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GivenAs {
    /// One of several patterns to exclude.
    #[default]
    Exclude,
    /// One of several patterns to select.
    Include,
    /// The only pattern of a search.
    Search,
}

/// Why the options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A pattern given as an option can match nothing.
    #[error("{place}, '{}', can match nothing: {problem}", shown(pattern))]
    Pattern {
        place: PatternPlace,
        pattern: Vec<u8>,
        problem: PatternProblem,
    },
    /// A pattern contains a NUL, which no path does.
    #[error("{place}, '{}', holds a NUL", shown(pattern))]
    Nul {
        place: PatternPlace,
        pattern: Vec<u8>,
    },
    /// A pattern begins with the path of the source itself, so it was meant for absolute paths.
    #[error(
        "{place}, '{}', begins with the source's own path {}; patterns begin at the source's root: {advice}",
        shown(pattern), root.display()
    )]
    OwnPath {
        place: PatternPlace,
        pattern: Vec<u8>,
        root: PathBuf,
        advice: String,
    },
    /// A pattern begins with `~/`, which only a shell expands.
    #[error(
        "{place}, '{}', begins with '~', which is not expanded here; patterns begin at the source's root: write '/NAME', or '\\~/NAME' for a directory named '~'",
        shown(pattern)
    )]
    Tilde {
        place: PatternPlace,
        pattern: Vec<u8>,
    },
    /// An exclude file cannot be read.
    #[error(transparent)]
    File(#[from] PathError),
}

/// The origin of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternPlace {
    /// The n-th pattern of a list of options, counted from 1.
    Option { given_as: GivenAs, number: usize },
    /// A line of a file, counted from 1.
    Line { file: PathBuf, line: usize },
}

impl fmt::Display for PatternPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option {
                given_as: GivenAs::Exclude,
                number,
            } => write!(f, "exclude option {number}"),
            Self::Option {
                given_as: GivenAs::Include,
                number,
            } => write!(f, "include option {number}"),
            Self::Option {
                given_as: GivenAs::Search,
                ..
            } => f.write_str("the pattern"),
            Self::Line { file, line } => write!(f, "line {line} of {}", file.display()),
        }
    }
}

/// A pattern as it was read.
#[derive(Debug)]
struct GivenPattern {
    place: PatternPlace,
    text: Vec<u8>,
}

/// A line of an exclude file that can match nothing; git ignores such lines silently.
#[derive(Debug)]
pub struct VainLine {
    place: PatternPlace,
    text: Vec<u8>,
    problem: PatternProblem,
}

impl fmt::Display for VainLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, '{}', can match nothing: {}",
            self.place,
            shown(&self.text),
            self.problem
        )
    }
}

/// The compiled filter of one source.
#[derive(Debug)]
pub struct Filter {
    patterns: PatternList,
    /// The patterns as they were read, without comments and blank lines. The digest covers them.
    given: Vec<GivenPattern>,
    vain_lines: Vec<VainLine>,
    exclude_caches: bool,
    exclude_larger_than: Option<u64>,
    one_file_system: bool,
    never: Vec<DirectoryId>,
}

impl Filter {
    /// Reads the exclude files and compiles all patterns.
    pub fn new(options: &FilterOptions) -> Result<Self, FilterError> {
        let mut reader = PatternReader::default();
        for file in &options.exclude_files {
            reader.add_text(&PatternText::read(file)?)?;
        }
        for text in &options.exclude_texts {
            reader.add_text(text)?;
        }
        for (i, pattern) in options.excludes.iter().enumerate() {
            let place = PatternPlace::Option {
                given_as: options.given_as,
                number: i + 1,
            };
            reader.add_option(pattern.as_bytes(), place)?;
        }
        let mut never = options.never.clone();
        never.sort_unstable();
        never.dedup();
        Ok(Self {
            patterns: PatternList::new(reader.patterns),
            given: reader.given,
            vain_lines: reader.vain_lines,
            exclude_caches: options.exclude_caches,
            exclude_larger_than: options.exclude_larger_than,
            one_file_system: options.one_file_system,
            never,
        })
    }

    /// Returns the lines of the exclude files that can match nothing: a mistake that the caller
    /// should report.
    pub fn vain_lines(&self) -> &[VainLine] {
        &self.vain_lines
    }

    /// Rejects patterns written for absolute paths, as other programs expect them. Below the root
    /// they match nothing, and the paths to exclude would be captured.
    ///
    /// `root` is the absolute path of the source. `has_name` returns whether the source's root has
    /// a name; a pattern that begins with such a name is accepted.
    pub fn refuse_absolute(
        &self,
        root: &Path,
        has_name: impl Fn(&[u8]) -> bool,
    ) -> Result<(), FilterError> {
        let components = components_of(root);

        for GivenPattern { place, text } in &self.given {
            let body = text.strip_prefix(b"!").unwrap_or(text);
            if body.starts_with(b"~/") && !has_name(b"~") {
                return Err(FilterError::Tilde {
                    place: place.clone(),
                    pattern: text.clone(),
                });
            }
            let Some(below) = pattern_below(body, &components) else {
                continue;
            };
            if components.first().is_some_and(|first| has_name(first)) {
                continue;
            }
            let advice = match below {
                Some(rest) => format!("write '/{}'", shown(rest)),
                None => "it would leave out the source itself".to_owned(),
            };
            return Err(FilterError::OwnPath {
                place: place.clone(),
                pattern: text.clone(),
                root: root.to_owned(),
                advice,
            });
        }

        Ok(())
    }

    /// Returns warnings about legal patterns that currently match nothing and look as if they
    /// follow another program's rules, and about negated patterns without an earlier pattern.
    /// `root` and `has_name` are as in [`refuse_absolute`](Self::refuse_absolute). `name` is the
    /// source's name, which listings print before its paths.
    pub fn misread(
        &self,
        name: &str,
        root: &Path,
        has_name: impl Fn(&[u8]) -> bool,
    ) -> Vec<String> {
        let components = components_of(root);
        let advised = self
            .given
            .iter()
            .filter_map(|GivenPattern { place, text }| {
                let advice = misread::advice(text, &components, &has_name)
                    .or_else(|| misread::advice(text, &[name.as_bytes()], &has_name))?;
                Some(format!(
                    "{place}, '{}', may leave out nothing: {advice}",
                    shown(text)
                ))
            });

        let negated = self
            .given
            .iter()
            .take_while(|given| given.text.starts_with(b"!"));
        let vain = negated.map(|GivenPattern { place, text }| {
            format!(
                "{place}, '{}', takes back what an earlier pattern leaves out, and there is none",
                shown(text)
            )
        });

        advised.chain(vain).collect()
    }

    /// Returns true if the patterns leave this path out. The caller must not enter an excluded
    /// directory: its contents are excluded too, and no negated pattern brings them back, as in
    /// gitignore. The root is never left out.
    pub fn excludes(&self, path: &RelPath, is_directory: bool) -> bool {
        !self.patterns.is_empty()
            && !path.is_root()
            && self.patterns.excludes(path.key(), is_directory)
    }

    /// Returns true if a regular file of `size` bytes is left out.
    pub fn excludes_size(&self, size: u64) -> bool {
        self.exclude_larger_than.is_some_and(|max| size > max)
    }

    /// Returns true if this directory is on a different file system than the source's root and must
    /// not be entered; its own entry is kept. Devices are compared, as in `find -xdev`: Btrfs
    /// subvolumes are other file systems, bind mounts of the root's file system are not.
    pub fn excludes_mount(&self, root: &SourceStat, directory: &SourceStat) -> bool {
        self.one_file_system && directory.device != root.device
    }

    /// Returns true if this directory is the repository or an icecore cache: left out with its
    /// entry.
    pub fn is_never(&self, id: DirectoryId) -> bool {
        self.never.binary_search(&id).is_ok()
    }

    /// Returns true if the directory is marked as a cache and caches are left out. Only its entry
    /// and the tag file ([`CACHE_TAG_NAME`]) are kept. A tag that cannot be read marks nothing.
    pub fn is_cache_directory(&self, directory: &SourceDir) -> bool {
        self.exclude_caches && has_cache_tag(directory)
    }

    /// Returns a text that is equal for two filters exactly if they exclude the same paths
    /// ([R17](docs/protocol.md#r17)); the caller hashes it. It omits device numbers, which change
    /// across boots.
    pub fn digest_text(&self) -> String {
        let mut text = format!(
            "filter {RULES_VERSION}\ncaches {}\nlarger {:?}\none-file-system {}\n",
            self.exclude_caches, self.exclude_larger_than, self.one_file_system
        );
        let mut never: Vec<u64> = self.never.iter().map(|id| id.inode).collect();
        never.sort_unstable();
        let _ = writeln!(text, "never {never:?}");
        for pattern in &self.given {
            let _ = writeln!(text, "pattern \"{}\"", pattern.text.escape_ascii());
        }
        text
    }
}

#[derive(Default)]
struct PatternReader {
    patterns: Vec<Pattern>,
    given: Vec<GivenPattern>,
    vain_lines: Vec<VainLine>,
}

impl PatternReader {
    fn add_text(&mut self, text: &PatternText) -> Result<(), FilterError> {
        let bytes = text
            .bytes
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&text.bytes);
        for (i, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let place = PatternPlace::Line {
                file: text.path.clone(),
                line: i + 1,
            };

            if line.contains(&0) {
                return Err(FilterError::Nul {
                    place,
                    pattern: line.to_owned(),
                });
            }

            match pattern::parse_line(line) {
                PatternLine::Nothing => {}
                PatternLine::Pattern(pattern) => self.add(pattern, place, line),
                PatternLine::Never(problem) => {
                    self.vain_lines.push(VainLine {
                        place,
                        text: line.to_owned(),
                        problem,
                    });
                }
            }
        }
        Ok(())
    }

    fn add_option(&mut self, text: &[u8], place: PatternPlace) -> Result<(), FilterError> {
        if text.contains(&0) {
            return Err(FilterError::Nul {
                place,
                pattern: text.to_owned(),
            });
        }
        match pattern::parse(text) {
            PatternLine::Nothing => Err(FilterError::Pattern {
                place,
                pattern: text.to_owned(),
                problem: PatternProblem::EmptyName,
            }),
            PatternLine::Pattern(pattern) => {
                self.add(pattern, place, text);
                Ok(())
            }
            PatternLine::Never(problem) => Err(FilterError::Pattern {
                place,
                pattern: text.to_owned(),
                problem,
            }),
        }
    }

    fn add(&mut self, pattern: Pattern, place: PatternPlace, text: &[u8]) {
        self.patterns.push(pattern);
        self.given.push(GivenPattern {
            place,
            text: text.to_owned(),
        });
    }
}

fn components_of(root: &Path) -> Vec<&[u8]> {
    root.as_os_str()
        .as_bytes()
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
        .collect()
}

/// Compares a pattern that begins with `/` with the components of the source's own path. Returns
/// `None` if it does not begin with that path. Otherwise returns the rest of the pattern after the
/// path, or `Some(None)` if the pattern is not longer than the path.
fn pattern_below<'p>(pattern: &'p [u8], root: &[&[u8]]) -> Option<Option<&'p [u8]>> {
    let mut rest = pattern.strip_prefix(b"/")?;
    for (i, component) in root.iter().enumerate() {
        let len = rest
            .iter()
            .position(|&byte| byte == b'/')
            .unwrap_or(rest.len());
        let (name, after) = rest.split_at(len);
        let is_same = match name {
            _ if name == *component => true,
            // A wildcard as the first component is ordinary: '/*' is not meant for the source's
            // path.
            _ if i == 0 => false,
            b"**" => return Some(None),
            _ => {
                matches!(pattern::parse(name), PatternLine::Pattern(parsed) if parsed.matches(component, component, true))
            }
        };
        if !is_same {
            return None;
        }
        rest = after.strip_prefix(b"/").unwrap_or(after);
        if rest.is_empty() {
            return Some(None);
        }
    }
    (!root.is_empty()).then_some(Some(rest))
}

fn has_cache_tag(directory: &SourceDir) -> bool {
    let mut start = [0; CACHE_TAG_SIGNATURE.len()];
    directory
        .stat(CACHE_TAG_NAME)
        .is_ok_and(|stat| stat.kind == StatKind::File)
        && directory
            .open_file(CACHE_TAG_NAME)
            .and_then(|file| file.read_at(&mut start, 0))
            .is_ok_and(|len| start[..len] == *CACHE_TAG_SIGNATURE)
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
