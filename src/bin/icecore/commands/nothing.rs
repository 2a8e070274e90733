//! Reports options that select no existing snapshot, usually because a name is mistyped.

use std::collections::BTreeSet;

use icecore::observe::{Counters, Observer, Problem, Severity};
use icecore::ops::list::{SnapshotFilter, snapshots};
use icecore::repo::{Repository, StoredSnapshot};

use crate::exit::CliError;

/// Maximum number of names that are listed.
const NAMED_MAX: usize = 8;

/// Reports that the filter selects no existing snapshot. Reports nothing if it selects any, or if
/// the repository is empty.
pub fn report_nothing(
    repository: &Repository,
    filter: &SnapshotFilter,
    severity: Severity,
    observer: &dyn Observer,
) -> Result<(), CliError> {
    // Problems of these snapshots were reported when the filter was used.
    let all = snapshots(repository, &SnapshotFilter::default(), &Counters::default())?;
    report_nothing_of(&all, filter, severity, observer);
    Ok(())
}

/// Like [`report_nothing`], with the existing snapshots in `all`.
pub fn report_nothing_of<'s>(
    all: impl IntoIterator<Item = &'s StoredSnapshot>,
    filter: &SnapshotFilter,
    severity: Severity,
    observer: &dyn Observer,
) {
    let all: Vec<&StoredSnapshot> = all.into_iter().collect();
    if let Some(why) = why(&all, filter) {
        observer.problem(&Problem::new(severity, "no snapshot selected", why));
    }
}

fn why(all: &[&StoredSnapshot], filter: &SnapshotFilter) -> Option<String> {
    if all.is_empty() || all.iter().any(|one| filter.accepts(one)) {
        return None;
    }
    let hosts: BTreeSet<&str> = all.iter().map(|one| one.snapshot.host.as_str()).collect();
    let sources = all
        .iter()
        .flat_map(|one| &one.snapshot.sources)
        .map(|source| source.name.as_str())
        .collect();
    let tags = all
        .iter()
        .flat_map(|one| &one.snapshot.tags)
        .map(String::as_str)
        .collect();

    let mut asked = vec![
        ("host", filter.host.as_deref(), &hosts),
        ("source", filter.source.as_deref(), &sources),
    ];
    asked.extend(
        filter
            .tags
            .iter()
            .map(|tag| ("tag", Some(tag.as_str()), &tags)),
    );

    // A name that no snapshot has is the likely mistake.
    for (what, name, there) in asked {
        if let Some(name) = name.filter(|name| !there.contains(name)) {
            return Some(match listed(there) {
                Some(there) => format!("none has the {what} '{name}'; there are: {there}"),
                None => format!("none has the {what} '{name}', or any {what}"),
            });
        }
    }

    Some("none matches all conditions; 'icecore snapshots' lists them".to_owned())
}

fn listed(names: &BTreeSet<&str>) -> Option<String> {
    let more = if names.len() > NAMED_MAX { ", …" } else { "" };
    let shown: Vec<&str> = names.iter().copied().take(NAMED_MAX).collect();
    (!shown.is_empty()).then(|| format!("{}{more}", shown.join(", ")))
}
