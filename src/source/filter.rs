//! What of a source is captured: gitignore rules, sizes, file systems, cache folders.

use std::fmt;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::source::folder::Folder;
use crate::source::stat::{FolderId, Kind, Stat};
use crate::sys::{PathError, read_bounded};
use crate::types::RelPath;

/// The file that marks a cache folder, and what it must begin with (<https://bford.info/cachedir/>).
pub const CACHE_TAG_NAME: &[u8] = b"CACHEDIR.TAG";
const CACHE_TAG_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";
/// Raised when the same options come to capture something else, so that nothing is carried over unseen.
const RULES_VERSION: u32 = 1;
/// A longer file of patterns is refused: patterns are held in memory as automata.
const EXCLUDE_FILE_BYTES_MAX: usize = 4 << 20;

/// What is left out, as the user gave it.
#[derive(Debug, Clone, Default)]
pub struct FilterOptions {
    /// Patterns by gitignore's rules, from the source's root. They come after those of the files, so they win.
    pub excludes: Vec<String>,
    /// Files of patterns, one a line.
    pub exclude_files: Vec<PathBuf>,
    /// Leave out what lies in folders marked as caches.
    pub exclude_caches: bool,
    /// Leave out regular files larger than this, in bytes.
    pub exclude_larger_than: Option<u64>,
    /// Do not enter other file systems than the root's.
    pub one_file_system: bool,
    /// Folders that are never captured, whatever their path: the repository and the cache folder.
    pub never: Vec<FolderId>,
}

/// Why the options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// A pattern is malformed.
    #[error("bad pattern '{pattern}' in {place}: {message}")]
    Pattern { place: PatternPlace, pattern: String, message: String },
    /// A line of an exclude file is not UTF-8.
    #[error("{place} is not UTF-8")]
    NotUtf8 { place: PatternPlace },
    /// An exclude file cannot be read.
    #[error(transparent)]
    File(#[from] PathError),
    /// The patterns are fine one by one but too large together.
    #[error("the exclude patterns cannot be combined: {message}")]
    TooLarge { message: String },
}

/// Where a pattern stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternPlace {
    /// The n-th `--exclude`, counted from 1.
    Option { number: usize },
    /// A line of a file, counted from 1.
    Line { file: PathBuf, line: usize },
}

impl fmt::Display for PatternPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option { number } => write!(f, "exclude option {number}"),
            Self::Line { file, line } => write!(f, "line {line} of {}", file.display()),
        }
    }
}

/// The compiled filter of one source.
#[derive(Debug)]
pub struct Filter {
    patterns: Gitignore,
    /// The patterns as they were read, comments and blank lines left out: what the digest is made of.
    lines: Vec<String>,
    exclude_caches: bool,
    exclude_larger_than: Option<u64>,
    one_file_system: bool,
    never: Vec<FolderId>,
}

impl Filter {
    /// Reads the exclude files and compiles all patterns.
    pub fn new(options: &FilterOptions) -> Result<Self, FilterError> {
        let mut patterns = Patterns { builder: GitignoreBuilder::new("."), lines: Vec::new() };
        for file in &options.exclude_files {
            patterns.add_file(file)?;
        }
        for (i, pattern) in options.excludes.iter().enumerate() {
            // In a file this begins a comment; as an option it can only mean a name.
            let escaped = pattern.starts_with('#').then(|| format!("\\{pattern}"));
            patterns.add(escaped.as_deref().unwrap_or(pattern), || PatternPlace::Option { number: i + 1 })?;
        }
        let compiled =
            patterns.builder.build().map_err(|error| FilterError::TooLarge { message: error.to_string() })?;
        let mut never = options.never.clone();
        never.sort_unstable();
        never.dedup();
        Ok(Self {
            patterns: compiled,
            lines: patterns.lines,
            exclude_caches: options.exclude_caches,
            exclude_larger_than: options.exclude_larger_than,
            one_file_system: options.one_file_system,
            never,
        })
    }

    /// True if the patterns leave this path out. A folder left out is not to be entered: what lies in it is not
    /// looked at, and no negated pattern brings it back (as with gitignore). The root is never left out.
    pub fn excludes(&self, path: &RelPath, is_folder: bool) -> bool {
        if self.patterns.is_empty() || path.is_root() {
            return false;
        }
        let slashed = path.to_slashed();
        self.patterns.matched(Path::new(std::ffi::OsStr::from_bytes(&slashed)), is_folder).is_ignore()
    }

    /// True if a regular file of `size` bytes is left out.
    pub fn excludes_size(&self, size: u64) -> bool {
        self.exclude_larger_than.is_some_and(|max| size > max)
    }

    /// True if this folder lies on another file system than the source's root and is not to be entered; its own
    /// entry is kept. Told by the device, as `find -xdev` does: Btrfs subvolumes count as other file systems, bind
    /// mounts of the root's file system do not.
    pub fn excludes_mount(&self, root: &Stat, folder: &Stat) -> bool {
        self.one_file_system && folder.device != root.device
    }

    /// True if this folder is the repository or a cache of ours: left out with its entry.
    pub fn is_never(&self, id: FolderId) -> bool {
        self.never.binary_search(&id).is_ok()
    }

    /// True if the folder is marked as a cache and caches are left out: its entry and the tag file
    /// ([`CACHE_TAG_NAME`]) are kept, all else in it is not. A tag that cannot be read marks nothing.
    pub fn is_cache_folder(&self, folder: &Folder) -> bool {
        self.exclude_caches && has_cache_tag(folder)
    }

    /// A text that is equal for two filters exactly if they leave out the same (R17): the caller hashes it. Device
    /// numbers, which change across boots, are not part of it.
    pub fn digest_text(&self) -> String {
        let mut text = format!(
            "filter {RULES_VERSION}\ncaches {}\nlarger {:?}\none-file-system {}\n",
            self.exclude_caches, self.exclude_larger_than, self.one_file_system
        );
        let mut never: Vec<u64> = self.never.iter().map(|id| id.inode).collect();
        never.sort_unstable();
        let _ = writeln!(text, "never {never:?}");
        for line in &self.lines {
            let _ = writeln!(text, "pattern {line:?}");
        }
        text
    }
}

struct Patterns {
    builder: GitignoreBuilder,
    lines: Vec<String>,
}

impl Patterns {
    fn add_file(&mut self, file: &Path) -> Result<(), FilterError> {
        let bytes = read_bounded(file, EXCLUDE_FILE_BYTES_MAX)?;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        for (i, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let place = || PatternPlace::Line { file: file.to_owned(), line: i + 1 };
            let line = std::str::from_utf8(line).map_err(|_| FilterError::NotUtf8 { place: place() })?;
            self.add(line.strip_suffix('\r').unwrap_or(line), place)?;
        }
        Ok(())
    }

    fn add(&mut self, line: &str, place: impl Fn() -> PatternPlace) -> Result<(), FilterError> {
        let bad = |message| FilterError::Pattern { place: place(), pattern: line.to_owned(), message };
        if line.contains('\0') {
            return Err(bad("it holds a NUL".to_owned()));
        }
        if line.starts_with('#') || line.trim().is_empty() {
            return Ok(());
        }
        self.builder.add_line(None, &escape_braces(line)).map_err(|error| match error {
            ignore::Error::Glob { err, .. } => bad(err),
            other => bad(other.to_string()),
        })?;
        self.lines.push(line.to_owned());
        Ok(())
    }
}

/// Braces are ordinary characters in gitignore, alternatives in the crate: escapes those outside of `[…]`.
fn escape_braces(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match c {
            '{' | '}' => out.push('\\'),
            '\\' => taken += rest[1..].chars().next().map_or(0, char::len_utf8),
            '[' => taken = class_len(rest).unwrap_or(1),
            _ => {}
        }
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

/// The length of the class that `text` begins with, `]` included; none if it is not closed.
fn class_len(text: &str) -> Option<usize> {
    let negated = usize::from(matches!(text.as_bytes().get(1), Some(b'!' | b'^')));
    // A `]` right at the start is a member.
    let body = 1 + negated + usize::from(text.as_bytes().get(1 + negated) == Some(&b']'));
    text.get(body..)?.find(']').map(|end| body + end + 1)
}

fn has_cache_tag(folder: &Folder) -> bool {
    let mut start = [0; CACHE_TAG_SIGNATURE.len()];
    folder.stat(CACHE_TAG_NAME).is_ok_and(|stat| stat.kind == Kind::File)
        && folder
            .open_file(CACHE_TAG_NAME)
            .and_then(|file| file.read_at(&mut start, 0))
            .is_ok_and(|len| start[..len] == *CACHE_TAG_SIGNATURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(excludes: &[&str]) -> Filter {
        let excludes = excludes.iter().map(|&text| text.to_owned()).collect();
        Filter::new(&FilterOptions { excludes, ..FilterOptions::default() }).expect("good patterns")
    }

    fn path(bytes: &[u8]) -> RelPath {
        RelPath::from_slashed(bytes).expect("a good path")
    }

    #[test]
    fn patterns_follow_gitignore() {
        // Pattern list, path (a trailing slash: a folder), left out?
        let cases: &[(&[&str], &[u8], bool)] = &[
            (&["*.o"], b"a/b.o", true),
            (&["*.o"], b"a/b.oo", false),
            (&["/x"], b"x", true),
            (&["/x"], b"a/x", false),
            (&["a/b"], b"a/b", true),
            (&["a/b"], b"c/a/b", false),
            (&["b/"], b"a/b/", true),
            (&["b/"], b"a/b", false),
            (&["**/t/*.c"], b"x/y/t/z.c", true),
            (&["a/**"], b"a/x/y", true),
            (&["a/**"], b"a/", false),
            (&["a/**/z"], b"a/z", true),
            (&["*.o", "!keep.o"], b"keep.o", false),
            (&["!keep.o", "*.o"], b"keep.o", true),
            (&["*"], b"a\nb", true),
            (&["**/a*z"], b"d/a\nz", true),
            (&["a?c"], b"a/c", false),
            (&["*.tmp"], b"x/\xff\xfe.tmp", true),
            (&["[ab]1"], b"a1", true),
            (&["[!a]1"], b"b1", true),
            (&["\\*"], b"*", true),
            (&["\\*"], b"x", false),
            (&["#a#"], b"#a#", true),
            (&["\\!a"], b"!a", true),
            (&["{a,b}"], b"a", false),
            (&["{a,b}"], b"{a,b}", true),
            (&["x{"], b"x{", true),
            (&["[{]x"], b"{x", true),
            (&["*"], b"", false),
            (&[], b"anything", false),
        ];
        for (patterns, name, expected) in cases {
            let is_folder = name.ends_with(b"/");
            assert_eq!(
                filter(patterns).excludes(&path(name), is_folder),
                *expected,
                "{patterns:?} on {:?}",
                path(name)
            );
        }
    }

    #[test]
    fn a_path_of_any_depth_is_matched() {
        let deep = "0123456789/".repeat(2000) + "x.o";
        assert!(filter(&["*.o"]).excludes(&path(deep.as_bytes()), false));
        assert!(filter(&["/0123456789/**/x.o"]).excludes(&path(deep.as_bytes()), false));
        assert!(!filter(&["/x.o"]).excludes(&path(deep.as_bytes()), false));
    }

    #[test]
    fn a_bad_pattern_is_named_with_its_place() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("list");
        std::fs::write(&file, "# fine\nok\r\n\na[z-a]\n").expect("written");
        let options = FilterOptions { exclude_files: vec![file.clone()], ..FilterOptions::default() };
        match Filter::new(&options) {
            Err(FilterError::Pattern { place, pattern, .. }) => {
                assert_eq!(place, PatternPlace::Line { file: file.clone(), line: 4 });
                assert_eq!(pattern, "a[z-a]");
            }
            other => panic!("{other:?}"),
        }
        std::fs::write(&file, b"ok\n\xff\n").expect("written");
        let error = Filter::new(&options).expect_err("not UTF-8");
        assert!(error.to_string().starts_with("line 2 of "), "{error}");
        let options =
            FilterOptions { excludes: vec!["ok".into(), "b[9-0]".into()], ..FilterOptions::default() };
        assert!(Filter::new(&options).expect_err("bad").to_string().contains("exclude option 2"));
        let options =
            FilterOptions { exclude_files: vec!["/nonexistent".into()], ..FilterOptions::default() };
        assert!(matches!(Filter::new(&options), Err(FilterError::File(_))));
    }

    #[test]
    fn the_digest_follows_what_is_left_out_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("list");
        let text = |content: &str| {
            std::fs::write(&file, content).expect("written");
            let options = FilterOptions { exclude_files: vec![file.clone()], ..FilterOptions::default() };
            Filter::new(&options).expect("good").digest_text()
        };
        assert_eq!(text("a\nb\n"), text("# why\n\na\r\nb"));
        assert_ne!(text("a\nb\n"), text("b\na\n"));
        assert_eq!(text("a\nb\n"), filter(&["a", "b"]).digest_text());
        let with = |change: fn(&mut FilterOptions)| {
            let mut options = FilterOptions::default();
            change(&mut options);
            Filter::new(&options).expect("good").digest_text()
        };
        let plain = with(|_| {});
        let texts = [
            with(|options| options.exclude_caches = true),
            with(|options| options.exclude_larger_than = Some(0)),
            with(|options| options.one_file_system = true),
            with(|options| options.never = vec![FolderId { device: 1, inode: 2 }]),
            with(|options| options.excludes = vec!["a\npattern \"b\"".to_owned()]),
        ];
        assert!(texts.iter().all(|text| *text != plain));
        assert_eq!(texts[3], with(|options| options.never = vec![FolderId { device: 9, inode: 2 }]));
        assert_ne!(texts[4], filter(&["a", "b"]).digest_text());
    }

    #[test]
    fn sizes_and_identities_are_compared() {
        let options = FilterOptions {
            exclude_larger_than: Some(10),
            never: vec![FolderId { device: 1, inode: 5 }, FolderId { device: 1, inode: 2 }],
            ..FilterOptions::default()
        };
        let filter = Filter::new(&options).expect("good");
        assert!(!filter.excludes_size(10) && filter.excludes_size(11));
        assert!(filter.is_never(FolderId { device: 1, inode: 2 }));
        assert!(!filter.is_never(FolderId { device: 2, inode: 2 }));
    }

    #[test]
    fn a_cache_folder_has_the_right_tag() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::open_root(dir.path()).expect("opened");
        let tag = dir.path().join("CACHEDIR.TAG");
        let options = FilterOptions { exclude_caches: true, ..FilterOptions::default() };
        let filter = Filter::new(&options).expect("good");
        assert!(!filter.is_cache_folder(&folder));
        std::fs::write(&tag, "Signature: 8a477f597d28d172789f06886806bc5").expect("written");
        assert!(!filter.is_cache_folder(&folder), "cut short");
        std::fs::write(&tag, "Signature: 8a477f597d28d172789f06886806bc55\n# more").expect("written");
        assert!(filter.is_cache_folder(&folder));
        assert!(!Filter::new(&FilterOptions::default()).expect("good").is_cache_folder(&folder));
        std::fs::rename(&tag, dir.path().join("real")).expect("renamed");
        std::os::unix::fs::symlink("real", &tag).expect("linked");
        assert!(!filter.is_cache_folder(&folder), "a symlink is no tag");
    }
}
