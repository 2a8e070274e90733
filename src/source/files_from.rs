//! `--files-from`: the list of paths that alone are captured.

use std::path::Path;

use crate::sys::{PathError, read_bounded};
use crate::types::{PathProblem, RelPath};

/// A longer list is refused: it is held in memory.
const LIST_BYTES_MAX: usize = 32 << 20;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesFromError {
    #[error(transparent)]
    File(#[from] PathError),
    /// A listed path is not one below the root (it holds `..`, a name too long). `number` counts from 1.
    #[error("path {number} of the list cannot be used: {problem}")]
    Path { number: usize, problem: PathProblem },
    /// The list names nothing: capturing an empty tree is not what anyone meant.
    #[error("the list of files names no path")]
    Empty,
}

/// What a list says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Neither listed nor on the way to a listed path.
    No,
    /// A folder on the way: its entry is captured, and of its contents what is wanted.
    Parent,
    /// Listed, or below a listed folder.
    Yes,
}

/// Paths below the source's root, sorted, each once. A listed folder stands for all that is below it.
#[derive(Debug, Clone)]
pub struct FilesFrom {
    /// The paths' keys, one after another in order.
    keys: Vec<u8>,
    /// Where each key ends in `keys`.
    ends: Vec<u32>,
}

impl FilesFrom {
    /// Reads a list from a file of at most 32 MiB.
    pub fn read(path: &Path) -> Result<Self, FilesFromError> {
        Self::parse(&read_bounded(path, LIST_BYTES_MAX)?)
    }

    /// Takes a list of paths relative to the root (a leading `/` or `./` is allowed): NUL-separated if it holds any
    /// NUL, else one a line.
    pub fn parse(list: &[u8]) -> Result<Self, FilesFromError> {
        let separator = if list.contains(&0) { 0 } else { b'\n' };
        let mut paths = Vec::new();
        for (i, line) in
            list.split(|&byte| byte == separator).enumerate().filter(|(_, line)| !line.is_empty())
        {
            let bad = |problem| FilesFromError::Path { number: i + 1, problem };
            let mut path = RelPath::root();
            for name in line.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
                path = path.join(name).map_err(bad)?;
            }
            paths.push(path);
        }
        if paths.is_empty() {
            return Err(FilesFromError::Empty);
        }
        paths.sort_unstable();
        paths.dedup();
        let mut out = Self { keys: Vec::new(), ends: Vec::with_capacity(paths.len()) };
        for path in &paths {
            out.keys.extend_from_slice(path.key());
            // 32 MiB of text at most, and keys are no longer than the text.
            out.ends.push(u32::try_from(out.keys.len()).unwrap_or(u32::MAX));
        }
        Ok(out)
    }

    /// How many paths are listed.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// False: an empty list is refused.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The listed paths' keys ([`RelPath::key`]), ascending: also what a digest of the list is made of.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.key(i))
    }

    fn key(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.keys[start..self.ends[i] as usize]
    }

    /// Says whether `path` is captured.
    pub fn wanted(&self, path: &RelPath) -> Wanted {
        let mut above = Some(path.clone());
        while let Some(listed) = above {
            if self.position(listed.key()).is_ok() {
                return Wanted::Yes;
            }
            above = listed.parent();
        }
        // What is below a path comes right after it.
        let Err(next) = self.position(path.key()) else { return Wanted::Yes };
        let is_below =
            next < self.len() && RelPath::from_key(self.key(next)).is_ok_and(|next| next.is_below(path));
        if is_below || path.is_root() { Wanted::Parent } else { Wanted::No }
    }

    fn position(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::from_slashed(text.as_bytes()).expect("a good path")
    }

    #[test]
    fn a_list_says_what_is_wanted() {
        let list = FilesFrom::parse(b"./b/c\n/a.x\n\nb/c\nd/e/f/\n").expect("a list");
        assert_eq!(list.keys().collect::<Vec<_>>(), [b"a.x".as_slice(), b"b\0c", b"d\0e\0f"]);
        for (text, wanted) in [
            ("", Wanted::Parent),
            ("a.x", Wanted::Yes),
            ("a", Wanted::No),
            ("a.x/below", Wanted::Yes),
            ("b", Wanted::Parent),
            ("b/c", Wanted::Yes),
            ("b/cc", Wanted::No),
            ("b/b", Wanted::No),
            ("d/e", Wanted::Parent),
            ("d/e/f/g/h", Wanted::Yes),
            ("z", Wanted::No),
        ] {
            assert_eq!(list.wanted(&path(text)), wanted, "{text}");
        }
    }

    #[test]
    fn nul_separates_if_there_is_any() {
        let list = FilesFrom::parse(b"a\nb\0c\0").expect("a list");
        assert_eq!(list.len(), 2);
        assert_eq!(list.wanted(&path("a\nb")), Wanted::Yes);
        assert_eq!(list.wanted(&path("b")), Wanted::No);
    }

    #[test]
    fn the_root_itself_means_everything() {
        let list = FilesFrom::parse(b".\n").expect("a list");
        assert_eq!(list.wanted(&path("any/thing")), Wanted::Yes);
    }

    #[test]
    fn what_leaves_the_root_or_names_nothing_is_refused() {
        let error = FilesFrom::parse(b"a\nb/../c\n").expect_err("dots");
        assert!(matches!(error, FilesFromError::Path { number: 2, problem: PathProblem::Dots }));
        assert!(matches!(FilesFrom::parse(b"\n\n"), Err(FilesFromError::Empty)));
        assert!(matches!(FilesFrom::read(Path::new("/nonexistent")), Err(FilesFromError::File(_))));
    }
}
