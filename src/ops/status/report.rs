//! Options and report of a status.

use std::time::Duration;

use crate::index::LastSnapshot;
use crate::ops::list::{LackingReport, SnapshotFilter, SourceLacks};
use crate::repo::{FoundLease, LeaseTimes};
use crate::types::{PackId, SnapshotId, Timestamp};

/// Options of a status report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatusOptions {
    /// The snapshots that count, and which of their sources.
    pub filter: SnapshotFilter,
    /// Report a source as a problem if its last good backup is older than this.
    pub max_age: Option<Duration>,
    /// List the paths that the newest capture of each source lacks, see [`SourceStatus::lacking`].
    pub list_missing: bool,
}

/// A capture of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureStatus {
    pub snapshot: SnapshotId,
    /// The store's time of the commit.
    pub committed: Timestamp,
    /// All of this source was captured, and nothing of it is lost.
    pub complete: bool,
}

/// One source of one host: captures with the same name and recorded path, or streams with the same
/// name. Captures at a path that the source was moved away from count as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    pub host: String,
    pub source: String,
    /// The recorded path of its root. `None` for a stream.
    pub path: Option<Vec<u8>>,
    /// Committed snapshots that contain it.
    pub snapshots: u64,
    /// The newest complete capture, if there is one.
    pub good: Option<CaptureStatus>,
    /// The newest capture in any state.
    pub newest: CaptureStatus,
    /// Why the newest capture is suspect, if it is.
    pub suspect: Option<String>,
    /// It is a tree that must never change, so a suspect capture is an alarm.
    pub is_alarm: bool,
    /// How much the newest capture lacks.
    pub lacks: SourceLacks,
    /// The first missing paths, if they were requested and there are any.
    pub lacking: Option<LackingReport>,
}

impl SourceStatus {
    /// Returns the source as text for users, with its path if another source of the host has the
    /// same name.
    pub(super) fn subject(&self, all: &[Self]) -> String {
        let Self { host, source, .. } = self;
        let is_one = all
            .iter()
            .filter(|other| other.host == *host && other.source == *source)
            .count()
            < 2;
        match (&self.path, is_one) {
            (Some(path), false) => {
                format!(
                    "source {source} ({}) on host {host}",
                    String::from_utf8_lossy(path)
                )
            }
            _ => format!("source {source} on host {host}"),
        }
    }
}

/// The result of a status report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoStatus {
    /// The store's time, or this machine's time if the store cannot be written.
    pub now: Timestamp,
    /// Sorted by host, source and path.
    pub sources: Vec<SourceStatus>,
    /// The held pack whose bytes this machine has not verified for the longest time, and since
    /// when. For a pack that was never verified, that is when it was stored.
    pub longest_unverified: Option<(PackId, Timestamp)>,
    /// When a backup of this machine last listed the packs and compared them with the index.
    /// `None`: never.
    pub packs_listed: Option<Timestamp>,
    /// Snapshots that this machine remembers as the newest of their sources and that are gone.
    pub vanished: Vec<LastSnapshot>,
    /// Held packs, including condemned ones.
    pub packs: u64,
    pub stored_bytes: u64,
    /// Of these packs, the ones that wait for a sweep.
    pub condemned_packs: u64,
    pub condemned_bytes: u64,
    /// Known leases of other running processes.
    pub leases: Vec<FoundLease>,
}

impl RepoStatus {
    /// Returns the seconds since the last good backup of a source, or 0 if it is dated in the
    /// future.
    pub fn age(&self, good: &CaptureStatus) -> f64 {
        self.now.seconds_since(good.committed).max(0.0)
    }

    /// Returns true if the capture is dated further in the future than clocks may differ, so that
    /// its age is not known.
    pub fn is_ahead(&self, capture: &CaptureStatus) -> bool {
        is_ahead(capture, self.now)
    }
}

/// Returns true if the capture is dated further in the future than clocks may differ.
pub(super) fn is_ahead(capture: &CaptureStatus, now: Timestamp) -> bool {
    capture.committed.seconds_since(now) > LeaseTimes::default().margin.as_secs_f64()
}
