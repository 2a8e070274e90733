//! The time after a change in which another change may leave no trace. It depends on the file
//! system that holds the file, not on that of the root.

use std::collections::HashMap;

use crate::source::{FsKind, SourceDir, SourceStat, StatKind};
use crate::sys::writeback_seconds;

/// The windows of one walk, with one `statfs` per file system.
pub(in crate::ops::backup) struct RacyWindows {
    /// One window for everything, from the options.
    given: Option<i64>,
    writeback: i64,
    kinds: HashMap<u64, FsKind>,
}

impl RacyWindows {
    pub fn new(given: Option<i64>) -> Self {
        Self {
            given,
            writeback: writeback_seconds(),
            kinds: HashMap::new(),
        }
    }

    /// Returns windows of this many seconds for everything, with one known file system.
    #[cfg(test)]
    pub(super) fn fixed(seconds: i64, device: u64, kind: FsKind) -> Self {
        Self {
            given: Some(seconds),
            writeback: 0,
            kinds: HashMap::from([(device, kind)]),
        }
    }

    /// Returns the kind of the file system that holds an open directory. If it cannot be
    /// determined, a network file system is assumed.
    pub fn learn(&mut self, directory: &SourceDir) -> FsKind {
        let ask = || directory.fs_kind().unwrap_or(FsKind::Network);
        *self.kinds.entry(directory.id().device).or_insert_with(ask)
    }

    /// Returns the kind of the file system that holds a stat'ed file. A file that is a mount point
    /// may be on an unknown one.
    pub fn kind(&self, stat: &SourceStat) -> FsKind {
        self.kinds
            .get(&stat.device)
            .copied()
            .unwrap_or(FsKind::Network)
    }

    /// Returns the seconds for [`SourceStat::is_racy`].
    pub fn seconds(&self, stat: &SourceStat) -> i64 {
        let kind = self.kind(stat);
        match self.given {
            Some(given) => given,
            None if stat.kind == StatKind::File && stat.size > 0 => {
                kind.content_window_seconds(self.writeback)
            }
            None => kind.name_window_seconds(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of a network file system below a local root were judged by the root's window.
    #[test]
    fn each_file_system_has_its_own_window() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("full"), b"x").expect("written");
        std::fs::write(dir.path().join("empty"), b"").expect("written");
        let directory = SourceDir::open_root(dir.path()).expect("opens");
        let [full, empty] =
            [b"full".as_slice(), b"empty"].map(|name| directory.stat(name).expect("stat"));
        let mut windows = RacyWindows {
            given: None,
            writeback: 35,
            kinds: HashMap::new(),
        };
        assert_eq!(
            windows.seconds(&full),
            60,
            "nothing is known of the file system yet"
        );
        assert_eq!(windows.learn(&directory), FsKind::Local);
        assert_eq!((windows.seconds(&full), windows.seconds(&empty)), (35, 3));

        let elsewhere = SourceStat {
            device: full.device + 1,
            ..full
        };
        assert_eq!(windows.seconds(&elsewhere), 60);
        windows.kinds.insert(elsewhere.device, FsKind::Network);
        assert_eq!(
            windows.seconds(&SourceStat {
                size: 0,
                ..elsewhere
            }),
            60
        );
        windows.given = Some(0);
        assert_eq!(
            (windows.seconds(&full), windows.seconds(&elsewhere)),
            (0, 0)
        );
    }
}
