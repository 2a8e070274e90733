//! List of lost paths in a repaired snapshot.

use crate::format::{LostContent, LostPath};
use crate::types::{RelPath, to_u64};

/// Paths that a snapshot lists; further paths are only counted.
const PATHS_MAX: usize = 10_000;
/// Total bytes of these paths and of their sources' names, so that the snapshot stays small: 1 MiB.
const PATH_BYTES_MAX: usize = 1 << 20;

/// Builder of the list.
#[derive(Debug, Default)]
pub(super) struct LostList {
    lost: LostContent,
    bytes: usize,
}

impl LostList {
    /// Starts with the list of an earlier repair of the snapshot.
    pub fn after(earlier: Option<&LostContent>) -> Self {
        let mut list = Self::default();
        if let Some(earlier) = earlier {
            list.lost.count = earlier.count - to_u64(earlier.paths.len());
            earlier
                .paths
                .iter()
                .for_each(|path| list.push(path.clone()));
        }
        list
    }

    /// Adds a path.
    ///
    /// `bytes`: number of lost bytes of its content; `None` if the entry itself or a part of its
    /// metadata is lost.
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

    /// Returns the number of lost paths, listed or not.
    pub fn count(&self) -> u64 {
        self.lost.count
    }

    /// Returns the list in the form that the snapshot stores.
    pub fn into_lost(self) -> LostContent {
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
        assert_eq!(long.count(), to_u64(PATHS_MAX) + 7);
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
