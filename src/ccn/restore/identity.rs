//! Secrets that a restore would overwrite: keys, and the identity in kubo's `config`, which
//! includes its private key. The existing ones may be the only copies. The rest of `config` is not
//! secret: kubo and its init scripts rewrite it.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::super::NodeError;
use super::places::ResolvedLocation;
use super::plan::{NodePart, RestoreScope, RestoreStep};
use super::prepared::PlacedPart;
use crate::Error;
use crate::advice::{Advice, NodeAdvice};
use crate::format::SourceKind;
use crate::observe::Counters;
use crate::read::content::write_content;
use crate::repo::{ChunkReader, MergedRuns, OnDamage, RunStreams};
use crate::sys::read_bounded;
use crate::task::{Cancel, Task};
use crate::types::{Entry, Node, to_u64};

/// Upper limit of a key, in bytes. Larger files of the snapshot are not compared.
const FILE_BYTES_MAX: usize = 1 << 20;
/// The only file with a secret in kubo's repository.
const KUBO_CONFIG: &[u8] = b"config";
/// Number of files that a message names.
const NAMED_MAX: usize = 3;

/// Returns the reason to refuse a step without `--replace`: it would overwrite existing secrets
/// with others.
pub(super) fn obstacle(
    reader: &ChunkReader<'_>,
    placed: &PlacedPart,
    scope: RestoreScope,
    cancel: &Cancel,
) -> Result<Option<NodeError>, NodeError> {
    let Some(
        ResolvedLocation::Directory(directory)
        | ResolvedLocation::Volume {
            directory: Some(directory),
            ..
        },
    ) = &placed.spot
    else {
        return Ok(None);
    };
    let step = &placed.step;

    // The keys are compared as a whole; of kubo's repository only `config`.
    let only = match (step.part, scope) {
        (NodePart::Keys, _) => None,
        (NodePart::Ipfs, RestoreScope::All | RestoreScope::Minimal) => Some(KUBO_CONFIG),
        _ => return Ok(None),
    };

    let others = others(reader, step, directory, only, cancel)?;
    if others.is_empty() {
        return Ok(None);
    }

    let more = others.len().saturating_sub(NAMED_MAX);
    let named = others
        .iter()
        .take(NAMED_MAX)
        .map(|name| format!("'{name}'"))
        .collect::<Vec<_>>()
        .join(", ");
    let named = if more == 0 {
        named
    } else {
        format!("{named} and {more} more")
    };

    let what = match step.part {
        NodePart::Ipfs => "kubo's identity",
        _ => "keys",
    };

    Ok(Some(NodeError::Refused {
        why: format!(
            "{what} would be overwritten: {named} in {} differs from the snapshot's",
            directory.display()
        ),
        advice: Advice::Node(NodeAdvice::KeepSecrets),
    }))
}

/// Returns the paths of existing files whose content differs from the snapshot's. `only`: compare
/// only this path.
fn others(
    reader: &ChunkReader<'_>,
    step: &RestoreStep,
    directory: &Path,
    only: Option<&[u8]>,
    cancel: &Cancel,
) -> Result<Vec<String>, Error> {
    let SourceKind::Tree { runs, .. } = &step.record().kind else {
        return Ok(Vec::new());
    };
    let mut merged = MergedRuns::open(reader, runs, RunStreams::All, OnDamage::Fail)?;
    if let Some(path) = only {
        merged.seek(path);
    }
    let mut others = Vec::new();
    while let Some(entry) = merged.next_entry()? {
        cancel.check()?;
        let path = entry.path.to_slashed();
        if only.is_some_and(|only| only != path) {
            break;
        }
        let there = directory.join(std::ffi::OsStr::from_bytes(&path));
        if is_other(reader, &entry, &there, only.is_some(), cancel)? {
            others.push(String::from_utf8_lossy(&path).into_owned());
        }
    }
    Ok(others)
}

/// Returns true if an existing file differs from the snapshot's. `is_kubo`: the file is kubo's
/// `config`.
fn is_other(
    reader: &ChunkReader<'_>,
    entry: &Entry,
    there: &Path,
    is_kubo: bool,
    cancel: &Cancel,
) -> Result<bool, Error> {
    let Node::File { content, .. } = &entry.node else {
        return Ok(false);
    };
    if content.size > to_u64(FILE_BYTES_MAX) {
        return Ok(false);
    }

    let found = match read_bounded(there, FILE_BYTES_MAX) {
        Ok(found) => found,
        Err(err) if err.kind() == std::io::ErrorKind::FileTooLarge => return Ok(true),
        // There is no file, or no readable file whose content could be lost.
        Err(_) => return Ok(false),
    };

    let mut stored = Vec::new();
    write_content(
        reader,
        content,
        &mut stored,
        Task::new(&Counters::default(), cancel),
    )?;

    Ok(match (identity(&found), identity(&stored)) {
        (Some(found), Some(stored)) if is_kubo => found != stored,
        _ => found != stored,
    })
}

/// Returns the peer id and the private key in kubo's `config`; `None` if they are missing.
fn identity(config: &[u8]) -> Option<(String, String)> {
    let config: serde_json::Value = serde_json::from_slice(config).ok()?;
    let text = |key: &str| Some(config.get("Identity")?.get(key)?.as_str()?.to_owned());
    Some((text("PeerID")?, text("PrivKey")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_alone_is_compared() {
        let config = |peer: &str, key: &str, rest: &str| {
            format!(
                r#"{{"Identity":{{"PeerID":"{peer}","PrivKey":"{key}"}},"Reprovider":{{"Strategy":"{rest}"}}}}"#
            )
        };
        let of = |peer, key, rest| identity(config(peer, key, rest).as_bytes());
        assert_eq!(of("p", "k", "all"), of("p", "k", "pinned"));
        assert!(of("p", "k", "all").is_some() && of("p", "k", "all") != of("p", "other", "all"));
        assert_ne!(of("p", "k", "all"), of("q", "k", "all"));
        for text in ["", "{}", "identity", r#"{"Identity":{"PeerID":"p"}}"#] {
            assert_eq!(identity(text.as_bytes()), None, "{text}");
        }
    }
}
