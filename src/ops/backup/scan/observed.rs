//! Looks at names of a directory: takes their stats, and opens subdirectories.

use crate::source::{ListedName, SourceDir, SourceStat, StatKind};
use crate::sys::now;
use crate::types::Timestamp;

/// Tries for a directory that is replaced each time it is opened.
const TRIES_MAX: u32 = 3;

/// The result of a look at a name, and our clock just before it.
pub(super) struct ObservedName {
    /// `None` if the name is gone. After an error it may exist.
    pub stat: std::io::Result<Option<SourceStat>>,
    pub clock: Timestamp,
}

impl ObservedName {
    pub fn at(directory: &SourceDir, name: &[u8]) -> Self {
        let clock = now();
        Self {
            clock,
            stat: directory.look(name),
        }
    }
}

/// Looks at many names of a directory, in order.
pub(super) fn see_many(directory: &SourceDir, names: &[ListedName]) -> Vec<ObservedName> {
    let clock = now();
    let only_names: Vec<&[u8]> = names.iter().map(|name| name.name.as_slice()).collect();
    directory
        .look_many(&only_names)
        .into_iter()
        .map(|stat| ObservedName { stat, clock })
        .collect()
}

/// Opens a subdirectory. Returns `None` if it is gone, as a second look confirmed. If it is
/// replaced at that moment, the opening is retried.
pub(super) fn open_listed(
    directory: &SourceDir,
    name: &[u8],
) -> std::io::Result<Option<SourceDir>> {
    for _ in 0..TRIES_MAX {
        match directory.open_child(name) {
            Err(err) if SourceDir::is_missing(&err) => match directory.look(name)? {
                None => return Ok(None),
                Some(stat) if stat.kind == StatKind::Directory => {}
                Some(_) => return Err(err),
            },
            opened => return opened.map(Some),
        }
    }
    directory.open_child(name).map(Some)
}
