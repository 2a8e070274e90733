//! Guesses the meaning of a pattern that matches nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::UnmatchedInclude;
use crate::Error;
use crate::advice::{Advice, RestoreAdvice};
use crate::format::{SourceKind, SourceRecord};
use crate::read::tree::TreeReader;
use crate::repo::{ChunkReader, OnDamage};
use crate::types::RelPath;

/// Rejects exclude patterns that begin with the path or the name of a source, as other programs and
/// listings write paths, unless a source has such a name at its root. The paths that the user
/// wanted to leave out would be restored.
pub(super) fn refuse_misread(
    excludes: &[OsString],
    sources: &[&SourceRecord],
    reader: &ChunkReader<'_>,
) -> Result<(), Error> {
    for pattern in excludes {
        let Some(meant) = meant(pattern, sources, &RelPath::root()) else {
            continue;
        };

        let text = pattern
            .as_bytes()
            .strip_prefix(b"/")
            .unwrap_or(pattern.as_bytes());
        let first = text.split(|&byte| byte == b'/').next().unwrap_or_default();
        let Ok(first) = RelPath::from_slashed(first) else {
            continue;
        };

        let mut is_there = false;
        for source in sources {
            if let SourceKind::Tree { runs, .. } = &source.kind {
                is_there |= TreeReader::open(reader, runs, OnDamage::Skip)?
                    .entry_at(&first)?
                    .is_some();
            }
        }

        if !is_there {
            return Err(Error::Usage {
                why: format!(
                    "the exclude pattern '{}' matches nothing: patterns begin at the source's root",
                    pattern.to_string_lossy()
                ),
                advice: Some(Advice::Restore(RestoreAdvice::ExcludePattern {
                    pattern: meant.to_string_lossy().into_owned(),
                })),
            });
        }
    }
    Ok(())
}

/// Returns the pattern, and the one that was probably meant: see [`meant`].
pub(super) fn explained(
    pattern: &OsStr,
    sources: &[&SourceRecord],
    sub: &RelPath,
) -> UnmatchedInclude {
    UnmatchedInclude {
        pattern: pattern.to_owned(),
        meant: meant(pattern, sources, sub),
    }
}

/// Returns the right form of a pattern that is written as other programs expect it: from `/`, from
/// the name of the source, or from the restored path. `sub` is the restored path of the source.
pub(in crate::ops) fn meant(
    pattern: &OsStr,
    sources: &[&SourceRecord],
    sub: &RelPath,
) -> Option<OsString> {
    let text = pattern.as_bytes();
    let anchored = |rest: &[u8]| OsString::from_vec([b"/", rest].concat());

    let from_path = || {
        sources.iter().find_map(|source| match &source.kind {
            SourceKind::Tree { path, .. } => below(text, path).map(anchored),
            SourceKind::Stream { .. } => None,
        })
    };

    let from_name = || {
        let relative = text.strip_prefix(b"/").unwrap_or(text);
        sources
            .iter()
            .find_map(|source| below(relative, source.name.as_bytes()).map(anchored))
    };

    let from_sub = || {
        let rest = text
            .strip_prefix(b"/")
            .filter(|rest| !rest.is_empty() && !sub.is_root())?;
        let sub = sub.to_slashed();
        below(rest, &sub)
            .is_none()
            .then(|| anchored(&[&sub[..], b"/", rest].concat()))
    };

    from_path().or_else(from_name).or_else(from_sub)
}

/// Returns the rest of a pattern that begins with the path of a directory.
fn below<'p>(pattern: &'p [u8], directory: &[u8]) -> Option<&'p [u8]> {
    let directory = directory.strip_suffix(b"/").unwrap_or(directory);
    let rest = pattern.strip_prefix(directory)?.strip_prefix(b"/")?;
    (!directory.is_empty() && !rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::SourceCounts;

    #[test]
    fn a_pattern_that_is_written_for_another_program_is_understood() {
        let source = |name: &str, path: &str| SourceRecord {
            name: name.into(),
            kind: SourceKind::Tree {
                path: path.into(),
                immutable: false,
                runs: Vec::new(),
            },
            profile: "tree".into(),
            started: Default::default(),
            ended: Default::default(),
            digest: [0; 32],
            counts: SourceCounts::default(),
            suspect: None,
            numeric_owners: false,
            moved_from: Vec::new(),
        };
        let docs = source("docs", "/srv/docs");
        let root = source("root", "/");
        for (pattern, sub, meant) in [
            ("/srv/docs/git", "", Some("/git")),
            ("/srv/docs/*.pem", "", Some("/*.pem")),
            ("docs/git/", "", Some("/git/")),
            ("/docs/git", "", Some("/git")),
            ("/srv/documents/git", "", None),
            ("/srv/docs/", "", None),
            ("nosuch", "", None),
            ("/c", "a/b", Some("/a/b/c")),
            ("/a/b/c", "a/b", None),
            ("c", "a/b", None),
        ] {
            let sub = RelPath::from_slashed(sub.as_bytes()).expect("a path");
            let found = explained(OsStr::new(pattern), &[&root, &docs], &sub);
            assert_eq!(
                found.meant.as_deref(),
                meant.map(OsStr::new),
                "{pattern} {sub}"
            );
        }
    }
}
