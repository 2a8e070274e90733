//! Reports paths that a repaired snapshot lacks, to a command that reads it.

use crate::format::Snapshot;
use crate::observe::{Observer, Problem, Severity, Subject};
use crate::types::{RelPath, to_u64};

/// Reports the paths at or below `below` that a source of a repaired snapshot lacks, as far as the
/// snapshot names them. Returns their number, including those that it does not name.
pub(crate) fn report_lost(
    snapshot: &Snapshot,
    source: &str,
    below: &RelPath,
    observer: &dyn Observer,
) -> u64 {
    let Some(lost) = &snapshot.lost else { return 0 };
    let below = below.to_slashed();
    let is_below = |path: &[u8]| {
        below.is_empty()
            || path
                .strip_prefix(below.as_slice())
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };

    let mut named = 0;
    for path in lost
        .paths
        .iter()
        .filter(|path| path.source == source && is_below(&path.path))
    {
        named += 1;
        let what = match path.bytes {
            Some(bytes) => {
                format!("{bytes} bytes of it were lost before a repair and read as zeros")
            }
            None => "it or its metadata was lost before a repair".to_owned(),
        };
        let subject = match RelPath::from_slashed(&path.path) {
            Ok(path) => Subject::within(source, &path),
            Err(_) => Subject::from(format!("{source}/{}", path.path.escape_ascii())),
        };
        observer.problem(&Problem::new(Severity::Missing, subject, what));
    }

    let unnamed = lost.count.saturating_sub(to_u64(lost.paths.len()));
    if unnamed > 0 {
        let what = format!("{unnamed} more paths of this snapshot lack data since a repair");
        observer.problem(&Problem::new(Severity::Missing, source, what));
    }

    named + unnamed
}
