//! Finds the snapshot that a name refers to, and reports if it should not be relied on.
//!
//! `latest` is the newest snapshot in any state, and `latest:SOURCE` the newest one with that
//! source. A suspect capture (docs/decisions/0009-suspect-captures-do-not-count.md) is neither
//! hidden nor skipped: it is reported, together with the last good one.

use super::notices::report_times;
use crate::Error;
use crate::format::{SnapshotState, SourceKind, SourceRecord};
use crate::observe::{Observer, Problem, Severity};
use crate::repo::{HostChoice, LatestSnapshot, Repository, StoredSnapshot, without_replaced};
use crate::types::RelPath;

/// Finds a snapshot to read from, by id, prefix or `latest`. `source`: the source to be read, if
/// only one is.
///
/// Reports a note if `latest` is of another host, or older than the newest snapshot. A suspect
/// source is reported as missing if the snapshot was chosen by `latest`, which ends the command
/// with exit code 3, and in a note if it was chosen by its id.
pub fn choose(
    repo: &Repository,
    text: &str,
    hosts: &HostChoice,
    source: Option<&str>,
    observer: &dyn Observer,
) -> Result<StoredSnapshot, Error> {
    if text != "latest" {
        let found = repo.find_snapshot(text, hosts)?;
        if suspects(&found, source).next().is_some() {
            let all = without_replaced(repo.snapshots(&mut |_, _| {})?);
            report_suspect(&found, source, &all, Severity::Note, observer);
        }
        return Ok(found);
    }
    let (found, all) = newest(repo, hosts, source, observer)?;
    report_suspect(&found, source, &all, Severity::Missing, observer);
    Ok(found)
}

/// Returns the newest snapshot in any state, or the newest one with a source, and all committed
/// ones. Reports in a note if it is of another host, or older than the newest snapshot.
pub(crate) fn newest(
    repo: &Repository,
    hosts: &HostChoice,
    source: Option<&str>,
    observer: &dyn Observer,
) -> Result<(StoredSnapshot, Vec<StoredSnapshot>), Error> {
    let LatestSnapshot {
        found,
        all,
        is_other_host,
        newest,
    } = repo.latest(hosts, source)?;

    report_times(repo, &all, observer);

    if let (true, HostChoice::Own(host)) = (is_other_host, hosts) {
        let message = format!(
            "this host, {host}, has none; it is from {}, the only host",
            found.snapshot.host
        );
        observer.problem(&Problem::new(Severity::Note, subject(&found), message));
    }

    if let (Some(source), true) = (source, newest != found.id) {
        let message = format!(
            "it is the newest with a source '{source}'; the newest snapshot, {}, has none",
            newest.short()
        );
        observer.problem(&Problem::new(Severity::Note, subject(&found), message));
    }

    Ok((found, all))
}

fn subject(found: &StoredSnapshot) -> String {
    format!("snapshot {}", found.id.short())
}

/// Returns the suspect ones among its sources, or only `source` if it is suspect.
fn suspects<'s>(
    found: &'s StoredSnapshot,
    source: Option<&'s str>,
) -> impl Iterator<Item = (&'s SourceRecord, &'s str)> {
    let records = found
        .snapshot
        .sources
        .iter()
        .filter(move |one| source.is_none_or(|name| one.name == name));
    records.filter_map(|one| Some((one, one.suspect.as_deref()?)))
}

fn report_suspect(
    found: &StoredSnapshot,
    source: Option<&str>,
    all: &[StoredSnapshot],
    severity: Severity,
    observer: &dyn Observer,
) {
    for (record, reason) in suspects(found, source) {
        let good = match last_good(all, &found.snapshot.host, &record.name) {
            Some(good) => format!("the last good one is {}", good.id.short()),
            None => "there is no good one".to_owned(),
        };
        let subject = format!("{} is suspect", subject(found));
        let message = format!("{}: {reason}; {good}", record.name);
        observer.problem(&Problem::new(severity, subject, message));
    }
}

/// Returns the newest committed snapshot of the host in which the source is not suspect.
fn last_good<'s>(
    all: &'s [StoredSnapshot],
    host: &str,
    source: &str,
) -> Option<&'s StoredSnapshot> {
    let good = all.iter().filter(|one| {
        let is_good = one
            .snapshot
            .source(source)
            .is_some_and(|record| record.suspect.is_none());
        is_good && one.snapshot.host == host && one.snapshot.state != SnapshotState::Checkpoint
    });
    good.max_by_key(|one| one.order())
}

/// Returns the source of this name. The name is empty for a path without a source, as in
/// `latest:/srv/app`.
///
/// # Errors
/// The error lists the existing sources.
pub(crate) fn source_of<'a>(
    found: &'a StoredSnapshot,
    text: &str,
    name: &str,
    path: &RelPath,
) -> Result<&'a SourceRecord, Error> {
    if let Some(source) = found.snapshot.source(name) {
        return Ok(source);
    }
    let sources = &found.snapshot.sources;
    let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let id = found.id.short();
    let names = names.join(", ");

    if !name.is_empty() {
        return Err(Error::NotThere(format!(
            "snapshot {id} has no source '{name}'; it has {names}"
        )));
    }

    let written = if path.is_root() {
        format!("{text}:")
    } else {
        format!("{text}:/{path}")
    };
    let example = match suggestion(sources, path) {
        Some((name, rest)) if rest.is_root() => format!(", for example {text}:{name}"),
        Some((name, rest)) => format!(", for example {text}:{name}/{rest}"),
        None => String::new(),
    };

    Err(Error::usage(format!(
        "'{written}' names no source: write SNAP:SOURCE/PATH{example}; snapshot {id} has the sources {names}"
    )))
}

/// Returns the source and path that the user probably meant by an absolute path: a path below the
/// recorded path of a source, or one that begins with a source's name.
fn suggestion<'a>(sources: &'a [SourceRecord], path: &RelPath) -> Option<(&'a str, RelPath)> {
    let key = path.to_slashed();
    let below = |prefix: &[u8]| -> Option<RelPath> {
        let rest = key.strip_prefix(prefix)?;
        (prefix.is_empty() || rest.is_empty() || rest[0] == b'/')
            .then(|| RelPath::from_slashed(rest).ok())
            .flatten()
    };

    let by_path = sources.iter().find_map(|source| match &source.kind {
        SourceKind::Tree { path, .. } => {
            Some((source.name.as_str(), below(path.strip_prefix(b"/")?)?))
        }
        SourceKind::Stream { .. } => None,
    });

    let by_name = || {
        sources
            .iter()
            .find_map(|source| Some((source.name.as_str(), below(source.name.as_bytes())?)))
    };

    let first = || {
        sources
            .first()
            .map(|source| (source.name.as_str(), RelPath::root()))
    };

    by_path.or_else(by_name).or_else(first)
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
