//! Paths inside a source: checked components, and the sort order of runs.

use std::fmt;

/// Maximal bytes of a component in the format. Linux file systems allow 255.
pub const NAME_BYTES_MAX: usize = 4095;
/// Maximal bytes of a path, including separators. A longer path becomes a `failed` entry.
pub const PATH_BYTES_MAX: usize = 64 * 1024;

/// Reason why bytes are not a name or a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathProblem {
    /// An empty component.
    Empty,
    /// `.` or `..`.
    Dots,
    /// A component with a NUL or a slash.
    BadByte,
    /// A component longer than [`NAME_BYTES_MAX`].
    NameTooLong,
    /// A path longer than [`PATH_BYTES_MAX`].
    PathTooLong,
}

impl fmt::Display for PathProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a path component is empty",
            Self::Dots => "a path component is '.' or '..'",
            Self::BadByte => "a path component holds a NUL or a slash",
            Self::NameTooLong => "a path component is longer than 4095 bytes",
            Self::PathTooLong => "the path is longer than 64 KiB",
        })
    }
}

impl std::error::Error for PathProblem {}

fn check_name(bytes: &[u8]) -> Result<(), PathProblem> {
    match bytes {
        [] => Err(PathProblem::Empty),
        b"." | b".." => Err(PathProblem::Dots),
        _ if bytes.len() > NAME_BYTES_MAX => Err(PathProblem::NameTooLong),
        _ if bytes.iter().any(|&b| b == 0 || b == b'/') => Err(PathProblem::BadByte),
        _ => Ok(()),
    }
}

/// Writes bytes for display: valid UTF-8 unchanged, except escaped control characters and
/// backslashes; invalid bytes as `\xNN`.
fn write_escaped(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    use fmt::Write;
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            if c.is_control() || c == '\\' {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        part.invalid()
            .iter()
            .try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
    }
    Ok(())
}

/// A path relative to a source's root. The root is the empty path.
///
/// It is stored as the components joined by 0x00, so that `memcmp` gives the order of runs: a
/// directory, then everything below it, then its next sibling (`a`, `a/b`, `a.b`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath {
    key: Vec<u8>,
}

impl RelPath {
    /// Returns the source's root, the first of all paths.
    pub const fn root() -> Self {
        Self { key: Vec::new() }
    }

    /// Checks a path in key form (components joined by 0x00).
    pub fn from_key(key: impl Into<Vec<u8>>) -> Result<Self, PathProblem> {
        let key = key.into();
        if key.len() > PATH_BYTES_MAX {
            return Err(PathProblem::PathTooLong);
        }
        if !key.is_empty() {
            key.split(|&b| b == 0).try_for_each(check_name)?;
        }
        Ok(Self { key })
    }

    /// Checks a path with slashes. Empty components (leading, trailing or doubled slashes) are
    /// dropped.
    pub fn from_slashed(path: &[u8]) -> Result<Self, PathProblem> {
        let mut out = Self::root();
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            out = out.join(name)?;
        }
        Ok(out)
    }

    /// Returns this path with one more component.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathProblem> {
        check_name(name)?;
        let mut key = Vec::with_capacity(self.key.len() + 1 + name.len());
        key.extend_from_slice(&self.key);
        if !key.is_empty() {
            key.push(0);
        }
        key.extend_from_slice(name);
        if key.len() > PATH_BYTES_MAX {
            return Err(PathProblem::PathTooLong);
        }
        Ok(Self { key })
    }

    /// Returns the components joined by 0x00, the form that is compared and stored.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Returns the components joined by slashes, without a leading slash.
    pub fn to_slashed(&self) -> Vec<u8> {
        self.key
            .iter()
            .map(|&b| if b == 0 { b'/' } else { b })
            .collect()
    }

    /// Returns true for the source's root.
    pub fn is_root(&self) -> bool {
        self.key.is_empty()
    }

    /// Iterates over the components from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.key.split(|&b| b == 0).filter(|name| !name.is_empty())
    }

    /// Returns the number of components.
    pub fn depth(&self) -> usize {
        self.components().count()
    }

    /// Returns the last component, or `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// Returns the directory of this path, or `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.key.iter().rposition(|&b| b == 0).unwrap_or(0);
        Some(Self {
            key: self.key[..end].to_vec(),
        })
    }

    /// Returns true if `self` is strictly below `directory`.
    pub fn is_below(&self, directory: &Self) -> bool {
        directory.is_root() && !self.is_root()
            || self.key.len() > directory.key.len()
                && self.key[directory.key.len()] == 0
                && self.key.starts_with(&directory.key)
    }

    /// Returns a key that sorts after everything below this path and before the next sibling, or
    /// `None` for the root.
    pub fn after_subtree(&self) -> Option<Vec<u8>> {
        (!self.is_root()).then(|| {
            let mut key = self.key.clone();
            key.push(1);
            key
        })
    }
}

impl fmt::Display for RelPath {
    /// Displays the path with slashes; the root as `/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            f.write_str("/")
        } else {
            write_escaped(f, &self.to_slashed())
        }
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::from_slashed(text.as_bytes()).expect("a good path")
    }

    #[test]
    fn a_directories_contents_come_right_after_it() {
        let mut paths = vec![
            path("a.b"),
            path("a/b"),
            path("b"),
            path("a"),
            RelPath::root(),
        ];
        paths.sort();
        assert_eq!(
            paths,
            [
                RelPath::root(),
                path("a"),
                path("a/b"),
                path("a.b"),
                path("b")
            ]
        );
    }

    #[test]
    fn after_subtree_lies_between_the_subtree_and_the_next_sibling() {
        let end = path("a").after_subtree().expect("not the root");
        assert!(path("a/\u{ff}/z").key() < end.as_slice());
        assert!(end.as_slice() < path("a.b").key());
    }

    #[test]
    fn below_means_whole_components_and_never_the_path_itself() {
        assert!(path("a/b").is_below(&path("a")));
        assert!(path("a").is_below(&RelPath::root()));
        assert!(!path("a.b").is_below(&path("a")));
        assert!(!path("a").is_below(&path("a")));
        assert!(!RelPath::root().is_below(&RelPath::root()));
    }

    #[test]
    fn invalid_paths_are_refused() {
        assert_eq!(RelPath::from_slashed(b"a/../b"), Err(PathProblem::Dots));
        assert_eq!(RelPath::from_key(*b"a\0\0b"), Err(PathProblem::Empty));
        assert_eq!(RelPath::from_key(*b"a/b"), Err(PathProblem::BadByte));
        assert_eq!(
            RelPath::root().join(&[b'x'; 4096]),
            Err(PathProblem::NameTooLong)
        );
        assert_eq!(
            RelPath::from_key([b'x'; 70_000]),
            Err(PathProblem::PathTooLong)
        );
        assert_eq!(path("/a//b/").to_slashed(), b"a/b");
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), Some(RelPath::root()));
    }

    #[test]
    fn odd_bytes_print_escaped() {
        assert_eq!(
            RelPath::from_key(*b"a\xff\n").expect("bytes").to_string(),
            "a\\xff\\n"
        );
    }
}
