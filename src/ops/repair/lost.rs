//! What a repaired snapshot tells of what it lacks.

use crate::format::{Lost, LostPath};
use crate::types::RelPath;

/// Paths that a snapshot names; it counts the rest.
const PATHS_MAX: usize = 10_000;
/// … and bytes of these paths, so that the snapshot stays small: 1 MiB.
const PATH_BYTES_MAX: usize = 1 << 20;

/// The list while it grows.
#[derive(Debug, Default)]
pub(super) struct LostList {
    lost: Lost,
    bytes: usize,
}

impl LostList {
    /// Begins with what an earlier repair of the snapshot told.
    pub fn after(earlier: Option<&Lost>) -> Self {
        let mut list = Self::default();
        if let Some(earlier) = earlier {
            list.lost.count = earlier.count - earlier.paths.len() as u64;
            earlier
                .paths
                .iter()
                .for_each(|path| list.push(path.clone()));
        }
        list
    }

    /// Adds a path. `bytes`: how many bytes of its content are lost; none if the entry itself is,
    /// or a part of its metadata.
    pub fn add(&mut self, source: &str, path: &RelPath, bytes: Option<u64>) {
        self.push(LostPath {
            source: source.to_owned(),
            path: path.to_slashed(),
            bytes,
        });
    }

    fn push(&mut self, path: LostPath) {
        self.lost.count += 1;
        self.bytes += path.path.len() + path.source.len();
        if self.lost.paths.len() < PATHS_MAX && self.bytes <= PATH_BYTES_MAX {
            self.lost.paths.push(path);
        }
    }

    /// Number of paths.
    pub fn count(&self) -> u64 {
        self.lost.count
    }

    /// The list as the snapshot carries it.
    pub fn into_lost(self) -> Lost {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::from_slashed(text.as_bytes()).expect("a path")
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let mut list = LostList::default();
        for n in 0..PATHS_MAX + 7 {
            list.add("s", &path(&n.to_string()), Some(1));
        }
        let long = LostList::after(Some(&list.into_lost()));
        assert_eq!(long.count(), PATHS_MAX as u64 + 7);
        assert_eq!(long.into_lost().paths.len(), PATHS_MAX);
        let mut wide = LostList::default();
        for n in 0..2000 {
            wide.add("s", &path(&format!("{n:0200}/{n:0250}/{n:0250}")), None);
        }
        let lost = wide.into_lost();
        assert!(
            lost.count == 2000 && lost.paths.len() == PATH_BYTES_MAX / 703,
            "{}",
            lost.paths.len()
        );
    }
}
