//! The metrics of `icecore status`.

use icecore::jobs::report::{PathField, StatusSummary};
use icecore::ops::status::{RepoStatus, SourceStatus};
use icecore::types::Timestamp;

use crate::ui::prometheus::{Metrics, Sample};

/// Returns the metrics of each source and of the repository.
pub fn metrics(status: &RepoStatus, summary: &StatusSummary) -> Metrics {
    let mut out = Metrics::default();
    add_backup_ages(&mut out, status);
    add_newest_backups(&mut out, status);
    add_repository(&mut out, status, summary);
    add_times(&mut out, status);
    out
}

/// Adds the time and the age of each source's last good backup.
fn add_backup_ages(out: &mut Metrics, status: &RepoStatus) {
    out.gauge(
        "icecore_last_success_timestamp_seconds",
        "Commit time of the last complete backup of the source, by the store's clock.",
        of_each_source(status, |source| {
            source.good.map(|good| unix_seconds(good.committed))
        }),
    );
    out.gauge(
        "icecore_last_success_age_seconds",
        "Age of the last complete backup of the source when this file was written.",
        of_each_source(status, |source| source.good.map(|good| status.age(&good))),
    );
}

/// Adds the state of each source's newest backup, and the number of its backups.
fn add_newest_backups(out: &mut Metrics, status: &RepoStatus) {
    let flag = |is_set: bool| Some(f64::from(u8::from(is_set)));
    out.gauge(
        "icecore_snapshot_incomplete",
        "1 if the newest backup of the source is not complete.",
        of_each_source(status, |source| flag(!source.newest.complete)),
    );
    out.gauge(
        "icecore_snapshot_suspect",
        "1 if the newest backup of the source is suspect: much smaller than before, or changed although it must never change.",
        of_each_source(status, |source| flag(source.suspect.is_some())),
    );
    out.gauge(
        "icecore_snapshot_alarm",
        "1 if the newest backup of the source is suspect and the source must never change.",
        of_each_source(status, |source| flag(source.is_alarm)),
    );
    out.gauge(
        "icecore_snapshot_missing_entries",
        "Entries that are missing or incomplete in the newest backup of the source.",
        of_each_source(status, |source| Some(source.lacks.incomplete as f64)),
    );
    out.gauge(
        "icecore_snapshots",
        "Committed snapshots that contain the source.",
        of_each_source(status, |source| Some(source.snapshots as f64)),
    );
}

/// Adds sizes and counts of the repository.
fn add_repository(out: &mut Metrics, status: &RepoStatus, summary: &StatusSummary) {
    out.gauge(
        "icecore_repository_bytes",
        "Stored bytes of all packs.",
        single(status.stored_bytes as f64),
    );
    out.gauge(
        "icecore_condemned_bytes",
        "Stored bytes of packs marked for deletion.",
        single(status.condemned_bytes as f64),
    );
    out.gauge(
        "icecore_vanished_snapshots",
        "Snapshots that this machine saw and that are gone without having been forgotten.",
        single(summary.vanished_snapshots.len() as f64),
    );
    out.gauge(
        "icecore_live_leases",
        "Leases of other running processes.",
        single(status.leases.len() as f64),
    );
}

/// Adds the time of the longest unverified pack, and the time of writing.
fn add_times(out: &mut Metrics, status: &RepoStatus) {
    let unverified = status.longest_unverified.iter();
    out.gauge(
        "icecore_oldest_unverified_pack_timestamp_seconds",
        "When the longest unverified pack was last verified by this machine, or stored.",
        unverified
            .flat_map(|(_, since)| single(unix_seconds(*since)))
            .collect(),
    );
    out.gauge(
        "icecore_status_timestamp_seconds",
        "Time at which this file was written.",
        single(unix_seconds(status.now)),
    );
}

/// Returns one sample of each source that has a value.
fn of_each_source(
    status: &RepoStatus,
    value: impl Fn(&SourceStatus) -> Option<f64>,
) -> Vec<Sample> {
    let sources = status.sources.iter();
    sources
        .filter_map(|source| {
            let labels = vec![
                ("host", source.host.clone()),
                ("source", source.source.clone()),
                ("path", path_label(source)),
            ];
            Some((labels, value(source)?))
        })
        .collect()
}

/// Returns one sample without labels.
fn single(value: f64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}

fn unix_seconds(at: Timestamp) -> f64 {
    at.seconds() as f64 + f64::from(at.nanos()) / 1e9
}

/// Returns the path as a label. A label is text, so different paths must give different texts.
/// Empty for a stream.
fn path_label(source: &SourceStatus) -> String {
    let PathField { path, path_hex } = PathField::new(source.path.as_deref().unwrap_or_default());
    path_hex.map_or(path, |hex| format!("hex:{hex}"))
}
