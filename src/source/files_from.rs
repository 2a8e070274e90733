//! `--files-from`: a list of paths that restricts a source to them.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::SourceDir;
use crate::sys::{PathError, read_bounded};
use crate::types::{PathProblem, RelPath, to_usize};

/// Limit of a list, which is held in memory.
const LIST_BYTES_MAX: usize = 32 << 20;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesFromError {
    #[error(transparent)]
    File(#[from] PathError),
    /// A listed path is not below the root (it contains `..`, or a name that is too long). `number`
    /// counts from 1.
    #[error("path {number} of the list cannot be used: {problem}")]
    Path { number: usize, problem: PathProblem },
    /// The list names no path. A user cannot want an empty tree.
    #[error("the list of files names no path")]
    Empty,
}

/// The relation of a path to a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedPath {
    /// Neither listed nor above a listed path.
    No,
    /// A directory above a listed path: its entry is captured, and the listed part of its contents.
    Parent,
    /// Listed, or below a listed directory.
    Yes,
}

/// Paths below the source's root, sorted, without duplicates. A listed directory includes
/// everything below it.
#[derive(Debug, Clone)]
pub struct FilesFrom {
    /// The paths' keys, concatenated in order.
    keys: Vec<u8>,
    /// The end of each key in `keys`.
    ends: Vec<u32>,
}

impl FilesFrom {
    /// Reads a list from a file of at most 32 MiB.
    pub fn read(path: &Path) -> Result<Self, FilesFromError> {
        Self::parse(&read_bounded(path, LIST_BYTES_MAX)?)
    }

    /// Parses a list of paths relative to the root; a leading `/` or `./` is allowed. Paths are
    /// separated by NUL if the list contains any NUL, otherwise by line ends, which may be those of
    /// Windows.
    pub fn parse(list: &[u8]) -> Result<Self, FilesFromError> {
        let separator = if list.contains(&0) { 0 } else { b'\n' };
        // Windows editors put a byte order mark at the beginning.
        let list = if separator == 0 {
            list
        } else {
            list.strip_prefix(b"\xef\xbb\xbf").unwrap_or(list)
        };

        let line = |line| match separator {
            0 => line,
            _ => <[u8]>::strip_suffix(line, b"\r").unwrap_or(line),
        };
        let lines = list.split(|&byte| byte == separator).map(line).enumerate();

        let mut paths = Vec::new();
        for (i, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let bad = |problem| FilesFromError::Path {
                number: i + 1,
                problem,
            };
            let mut path = RelPath::root();
            for name in line
                .split(|&byte| byte == b'/')
                .filter(|name| !matches!(*name, b"" | b"."))
            {
                path = path.join(name).map_err(bad)?;
            }
            paths.push(path);
        }

        if paths.is_empty() {
            return Err(FilesFromError::Empty);
        }

        paths.sort_unstable();
        paths.dedup();

        let mut out = Self {
            keys: Vec::new(),
            ends: Vec::with_capacity(paths.len()),
        };

        for path in &paths {
            out.keys.extend_from_slice(path.key());
            // At most 32 MiB of text, and keys are not longer than the text.
            out.ends
                .push(u32::try_from(out.keys.len()).unwrap_or(u32::MAX));
        }

        Ok(out)
    }

    /// Returns the number of listed paths.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Always returns false: an empty list is rejected.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the listed paths' keys ([`RelPath::key`]) in ascending order. A digest of the list
    /// covers them too.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.key(i))
    }

    fn key(&self, i: usize) -> &[u8] {
        let end = |i: usize| to_usize(self.ends[i]);
        let start = if i == 0 { 0 } else { end(i - 1) };
        &self.keys[start..end(i)]
    }

    /// Returns all listed paths, sorted.
    pub fn paths(&self) -> impl Iterator<Item = RelPath> + '_ {
        (0..self.ends.len()).filter_map(|at| RelPath::from_key(self.key(at)).ok())
    }

    /// Returns whether `path` is captured.
    pub fn wanted(&self, path: &RelPath) -> WantedPath {
        let mut above = Some(path.clone());
        while let Some(listed) = above {
            if self.position(listed.key()).is_ok() {
                return WantedPath::Yes;
            }
            above = listed.parent();
        }
        // Paths below a path come directly after it.
        let Err(next) = self.position(path.key()) else {
            return WantedPath::Yes;
        };
        let is_below = next < self.len()
            && RelPath::from_key(self.key(next)).is_ok_and(|next| next.is_below(path));
        if is_below || path.is_root() {
            WantedPath::Parent
        } else {
            WantedPath::No
        }
    }

    /// Returns the first listed path below `path`, relative to it. `None` if no listed path is
    /// below.
    pub fn first_below(&self, path: &RelPath) -> Option<RelPath> {
        if path.is_root() {
            return None;
        }
        let (Ok(at) | Err(at)) = self.position(path.key());
        let next = self.keys().skip(at).find(|key| *key != path.key())?;
        let rest = next.strip_prefix(path.key())?.strip_prefix(&[0])?;
        RelPath::from_key(rest).ok()
    }

    /// Returns true unless every listed path is missing below this root.
    pub fn any_is_there(&self, root: &SourceDir) -> bool {
        let paths = self.keys().filter_map(|key| RelPath::from_key(key).ok());
        let mut found = paths.map(|path| root.find(&path));
        found.any(|found| !found.is_err_and(|err| is_absence(&err)))
    }

    /// Returns the first name that the list needs in `directory`: a listed name, or the next
    /// component of a listed path. `None` if it needs no name, and if the directory itself is
    /// listed or below a listed one: its contents may change.
    pub fn first_needed(&self, directory: &RelPath) -> Option<NeededName<'_>> {
        if self.wanted(directory) != WantedPath::Parent {
            return None;
        }
        let (Ok(at) | Err(at)) = self.position(&below(directory));
        self.needed_at(directory, at)
    }

    /// Returns the needed name of `directory` at a position: that of a needed name, or
    /// [`NeededName::next`] of the one before it. They are in ascending order.
    pub fn needed_at(&self, directory: &RelPath, at: usize) -> Option<NeededName<'_>> {
        let rest = |at: usize| self.key(at).strip_prefix(below(directory).as_slice());
        let first = (at < self.len()).then(|| rest(at)).flatten()?;
        let name = first.split(|&byte| byte == 0).next().unwrap_or_default();

        let is_same = |at: &usize| {
            let rest = rest(*at).and_then(|rest| rest.strip_prefix(name));
            rest.is_some_and(|rest| rest.first().is_none_or(|&byte| byte == 0))
        };
        let next = (at + 1..self.len())
            .find(|at| !is_same(at))
            .unwrap_or(self.len());
        Some(NeededName {
            list: self,
            name,
            is_listed: first == name,
            paths: at..next,
        })
    }

    /// Returns the name that the list needs at `path`. `None` if the path is not needed, or is below
    /// a listed directory.
    pub fn needed(&self, path: &RelPath) -> Option<NeededName<'_>> {
        let directory = path.parent()?;
        let (Ok(at) | Err(at)) = self.position(path.key());
        let is_of_list = self.wanted(&directory) == WantedPath::Parent;
        self.needed_at(&directory, at)
            .filter(|needed| is_of_list && path.name() == Some(needed.name))
    }

    fn position(&self, key: &[u8]) -> Result<usize, usize> {
        let mut low = 0;
        let mut high = self.len();
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle).cmp(key) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}

/// A name in a directory that a list needs.
#[derive(Debug)]
pub struct NeededName<'l> {
    list: &'l FilesFrom,
    pub name: &'l [u8],
    /// The name itself is listed. Otherwise it must be a directory.
    pub is_listed: bool,
    paths: Range<usize>,
}

impl<'l> NeededName<'l> {
    /// Returns its position, for [`FilesFrom::needed_at`].
    pub fn position(&self) -> usize {
        self.paths.start
    }

    /// Returns the position of the next needed name, for [`FilesFrom::needed_at`].
    pub fn next(&self) -> usize {
        self.paths.end
    }

    /// Returns the listed paths with this name: the name alone if it is listed, otherwise all paths
    /// below it that are not below another listed one.
    pub fn paths(&self) -> impl Iterator<Item = RelPath> + use<'l> {
        let list = self.list;
        let mut above: Option<RelPath> = None;
        let paths = self.paths.clone();
        paths
            .filter_map(|at| RelPath::from_key(list.key(at)).ok())
            .filter(move |path| {
                let is_covered = above.as_ref().is_some_and(|above| path.is_below(above));
                if !is_covered {
                    above = Some(path.clone());
                }
                !is_covered
            })
    }
}

/// Returns the beginning of the keys of all paths below a directory.
fn below(directory: &RelPath) -> Vec<u8> {
    if directory.is_root() {
        Vec::new()
    } else {
        [directory.key(), &[0]].concat()
    }
}

/// Returns true if the error means that a walk would find nothing there.
fn is_absence(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
    ) || err.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::from_slashed(text.as_bytes()).expect("a good path")
    }

    #[test]
    fn listed_paths_and_all_below_them_are_wanted() {
        let list = FilesFrom::parse(b"./b/c\n/a.x\n\nb/c\nd/e/f/\n").expect("a list");
        assert_eq!(
            list.keys().collect::<Vec<_>>(),
            [b"a.x".as_slice(), b"b\0c", b"d\0e\0f"]
        );
        for (text, wanted) in [
            ("", WantedPath::Parent),
            ("a.x", WantedPath::Yes),
            ("a", WantedPath::No),
            ("a.x/below", WantedPath::Yes),
            ("b", WantedPath::Parent),
            ("b/c", WantedPath::Yes),
            ("b/cc", WantedPath::No),
            ("b/b", WantedPath::No),
            ("d/e", WantedPath::Parent),
            ("d/e/f/g/h", WantedPath::Yes),
            ("z", WantedPath::No),
        ] {
            assert_eq!(list.wanted(&path(text)), wanted, "{text}");
        }
    }

    #[test]
    fn nul_separates_if_there_is_any() {
        let list = FilesFrom::parse(b"a\nb\0c\0").expect("a list");
        assert_eq!(list.len(), 2);
        assert_eq!(list.wanted(&path("a\nb")), WantedPath::Yes);
        assert_eq!(list.wanted(&path("b")), WantedPath::No);
    }

    /// A list written on Windows matched no existing file, and the backup was empty.
    #[test]
    fn lines_may_end_as_in_windows() {
        let list = FilesFrom::parse(b"a\r\nb/c\r\n\r\n").expect("a list");
        assert_eq!(list.keys().collect::<Vec<_>>(), [b"a".as_slice(), b"b\0c"]);
        let list = FilesFrom::parse(b"\xef\xbb\xbfa\r\nb\r\n").expect("a list");
        assert_eq!(
            list.keys().collect::<Vec<_>>(),
            [b"a", b"b"],
            "a byte order mark is no part of a name"
        );
        let list = FilesFrom::parse(b"\xef\xbb\xbfa\0").expect("a list");
        assert_eq!(
            list.keys().next(),
            Some(b"\xef\xbb\xbfa".as_slice()),
            "with NUL it is"
        );
        let list = FilesFrom::parse(b"a\r\0b").expect("a list");
        assert_eq!(
            list.keys().next(),
            Some(b"a\r".as_slice()),
            "with NUL a name is taken as it is"
        );
    }

    #[test]
    fn the_names_that_a_list_needs_are_found_directory_by_directory() {
        let needed = |text: &str, at: &str| {
            let list = FilesFrom::parse(text.as_bytes()).expect("a list");
            let at = path(at);
            let mut out = Vec::new();
            let mut next = list.first_needed(&at);
            while let Some(needed) = next {
                let paths: Vec<String> = needed.paths().map(|path| path.to_string()).collect();
                out.push(format!(
                    "{}{} {}",
                    String::from_utf8_lossy(needed.name),
                    if needed.is_listed { "" } else { "/" },
                    paths.join(",")
                ));
                next = list.needed_at(&at, needed.next());
            }
            out
        };

        let list = "a/b\na/x/y\nz\na.b/c\nwhole\nwhole/c\na/b/c";
        assert_eq!(
            needed(list, ""),
            ["a/ a/b,a/x/y", "a.b/ a.b/c", "whole whole", "z z"]
        );
        assert_eq!(needed(list, "a"), ["b a/b", "x/ a/x/y"]);
        assert_eq!(needed(list, "a/x"), ["y a/x/y"]);
        assert!(
            needed(list, "whole").is_empty() && needed(list, "whole/c").is_empty(),
            "a listed directory includes its contents"
        );
        assert!(needed(list, "other").is_empty() && needed(list, "z").is_empty());
        assert!(needed(".\nx", "").is_empty());
    }

    #[test]
    fn a_list_is_of_another_directory_if_none_of_its_paths_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let deep = vec!["d".repeat(200); 30].join("/");
        std::fs::write(directory.path().join("file"), b"x").expect("written");
        std::os::unix::fs::symlink("a", directory.path().join("link")).expect("made");
        let root = SourceDir::open_root(directory.path()).expect("opens");
        let list = |text: &str| FilesFrom::parse(text.as_bytes()).expect("a list");

        assert!(list("z\nfile").any_is_there(&root));
        assert!(!list(&format!("z\n{deep}\nlink/b\nfile/x")).any_is_there(&root));
    }

    #[test]
    fn a_path_below_another_is_found() {
        let list = |text: &str| FilesFrom::parse(text.as_bytes()).expect("a list");
        let below = |text: &str, at: &str| {
            list(text)
                .first_below(&path(at))
                .map(|found| found.to_string())
        };
        assert_eq!(
            below("/srv/app/a/b\n/srv/app/c\nz", "srv/app").as_deref(),
            Some("a/b")
        );
        assert_eq!(
            below("/srv/app\n/srv/app/c", "srv/app").as_deref(),
            Some("c")
        );
        for text in ["a\nz", "/srv/app", "/srv/application/x", "srv", "z"] {
            assert_eq!(below(text, "srv/app"), None, "{text}");
        }
        assert_eq!(below("a", ""), None, "a source of the whole machine");
    }

    #[test]
    fn the_root_itself_means_everything() {
        let list = FilesFrom::parse(b".\n").expect("a list");
        assert_eq!(list.wanted(&path("any/thing")), WantedPath::Yes);
    }

    #[test]
    fn paths_outside_the_root_and_empty_lists_are_refused() {
        let error = FilesFrom::parse(b"a\nb/../c\n").expect_err("dots");
        assert!(matches!(
            error,
            FilesFromError::Path {
                number: 2,
                problem: PathProblem::Dots
            }
        ));
        assert!(matches!(
            FilesFrom::parse(b"\n\n"),
            Err(FilesFromError::Empty)
        ));
        assert!(matches!(
            FilesFrom::read(Path::new("/nonexistent")),
            Err(FilesFromError::File(_))
        ));
    }
}
