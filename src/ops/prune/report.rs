//! What a prune is asked to do, and what it tells.

use std::time::Duration;

use crate::format::LeaseKind;
use crate::ops::memory;
use crate::types::{ByteSize, LeaseId, Timestamp};

/// How a prune works.
#[derive(Debug, Clone, PartialEq)]
pub struct PruneOptions {
    /// This machine's name, for the lease.
    pub host: String,
    /// Do not wait for the grace where nobody else is at work.
    pub now: bool,
    /// How long a condemned pack and a forgotten snapshot stay: 24 h. Less than 2 h 30 min only
    /// with `now`.
    pub grace: Duration,
    /// Copy at most so many bytes out of packs that are mostly dead, by their share of the stored
    /// bytes.
    pub max_repack: Option<ByteSize>,
    /// Begin to copy no further pack after this time.
    pub max_time: Option<Duration>,
    /// Find out what would be done and do nothing.
    pub dry_run: bool,
    /// Threads; 0: as many as there are cores.
    pub threads: usize,
    /// zstd level of frames that are made anew.
    pub level: i32,
    /// Memory to keep within.
    pub memory: ByteSize,
}

/// The grace if none is given.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(24 * 3600);

impl PruneOptions {
    /// The usual way.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            now: false,
            grace: GRACE_DEFAULT,
            max_repack: None,
            max_time: None,
            dry_run: false,
            threads: 0,
            level: 3,
            memory: memory::BUDGET_DEFAULT,
        }
    }
}

/// Packs and their stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    pub packs: u64,
    pub bytes: u64,
}

impl Amount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// Why something that is condemned was not let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// The grace has not passed.
    Grace,
    /// Somebody is at work who may have begun before the packs were condemned.
    Lease {
        id: LeaseId,
        host: String,
        kind: Option<LeaseKind>,
        started: Timestamp,
    },
    /// Chunks that lie nowhere else are needed; the next prune copies them.
    Needed,
    /// Nothing was written for more than 30 days, or the store's clock jumped: that time does not
    /// count as grace.
    Silence,
    /// Snapshots came while others were judged, each time anew; the next prune tries again.
    Changed,
    /// A snapshot in quarantine that cannot be read, or one that is gone and was not forgotten, may
    /// need it.
    Unknown,
}

/// Why copying ended before all was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStop {
    /// No space left: the copies that were begun were thrown away.
    Full,
    /// `max_repack` was reached.
    MaxRepack,
    /// `max_time` was reached.
    MaxTime,
}

/// What a prune did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneReport {
    pub dry_run: bool,
    /// Another prune is at work: nothing was done.
    pub other_prune: bool,
    /// Snapshots that keep chunks alive: checkpoints, forgotten ones and those set aside among
    /// them.
    pub roots: u64,
    /// Chunks that they need, each counted once.
    pub chunks: u64,
    /// Held packs with live chunks; the live share of their stored bytes.
    pub live: Amount,
    /// Held packs without a live chunk; the dead share of the stored bytes of all held packs.
    pub dead: Amount,
    /// Packs that no segment told of and that are published now.
    pub adopted: Amount,
    /// Packs condemned by this prune.
    pub condemned: Amount,
    /// Packs whose live chunks were copied, and the bytes of the packs that they were copied to.
    pub copied: Amount,
    /// Why copying ended early.
    pub copy_stopped: Option<CopyStop>,
    /// Packs dropped by this prune.
    pub dropped: Amount,
    /// Stored bytes of all objects deleted.
    pub freed_bytes: u64,
    /// Packs that are condemned now and not dropped.
    pub pending: Amount,
    /// When the grace of the last of them has passed, by the store's clock.
    pub pending_until: Option<Timestamp>,
    /// Why they wait.
    pub kept_waiting: Vec<Waiting>,
    /// Packs that no readable snapshot needs and that are kept for snapshots whose needs are not
    /// known.
    pub held: Amount,
    /// Those of these snapshots that lie in quarantine and cannot be read to their ends.
    pub unreadable_aside: u64,
    /// Until when packs are kept for them.
    pub held_until: Option<Timestamp>,
    /// Those that this machine remembers, that are gone, and that were not forgotten: packs are
    /// kept until `forget ID` acknowledges that they are gone.
    pub vanished: u64,
    /// Objects that were deleted from quarantine, and those that are left there.
    pub quarantine_deleted: Amount,
    pub quarantined: Amount,
    /// Small segments replaced by one.
    pub segments_merged: u64,
    pub segments_deleted: u64,
    pub leases_swept: u64,
    pub forgotten_deleted: u64,
    pub checkpoints_deleted: u64,
    /// Unfinished writes that were removed.
    pub unfinished_deleted: u64,
}

impl PruneReport {
    pub(super) fn wait(&mut self, why: Waiting) {
        if !self.kept_waiting.contains(&why) {
            self.kept_waiting.push(why);
        }
    }
}
