//! Options and report of a prune.

use std::time::Duration;

use crate::format::LeaseKind;
use crate::ops::memory;
use crate::types::{ByteSize, LeaseId, Timestamp};

/// Options of a prune.
#[derive(Debug, Clone, PartialEq)]
pub struct PruneOptions {
    /// Skip the grace period if no other client is active.
    pub now: bool,
    /// How long a condemned pack and a forgotten snapshot stay: 24 h. Less than 2 h 30 min is
    /// accepted only with `now`.
    pub grace: Duration,
    /// Copy at most this many bytes out of mostly dead packs, counted as the live share of their
    /// stored bytes.
    pub max_repack: Option<ByteSize>,
    /// Copy no further pack after this time.
    pub max_time: Option<Duration>,
    /// Report the effect of a prune without pruning.
    pub dry_run: bool,
    /// Number of threads; 0 means as many as there are cores.
    pub threads: usize,
    /// zstd level of new frames.
    pub level: i32,
    /// Memory limit.
    pub memory: ByteSize,
}

/// Default grace period.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(24 * 3600);

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
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
pub struct PackAmount {
    pub packs: u64,
    pub bytes: u64,
}

impl PackAmount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.packs += 1;
        self.bytes += bytes;
    }
}

/// Why a condemned pack was not deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// The grace period has not passed.
    Grace,
    /// A client is active that may have begun before the packs were condemned.
    Lease {
        id: LeaseId,
        host: String,
        kind: Option<LeaseKind>,
        started: Timestamp,
    },
    /// A pack holds the only copy of needed chunks; the next prune copies them.
    Needed,
    /// Nothing was written for more than 30 days, or the store's clock jumped: that time does not
    /// count as grace.
    Silence,
    /// The repository changed during each survey; the next prune tries again.
    Changed,
    /// The pack may be needed by a snapshot in quarantine that cannot be read, or by one that is
    /// gone and was not forgotten.
    Unknown,
}

/// Why copying ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyStop {
    /// No space left: the copies that no segment adds yet were deleted.
    Full,
    /// `max_repack` was reached.
    MaxRepack,
    /// `max_time` was reached.
    MaxTime,
}

/// Result of a prune, or of a dry run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneReport {
    pub dry_run: bool,
    /// Another prune was running: nothing was done.
    pub other_prune: bool,
    /// Snapshots that keep chunks alive, including checkpoints, forgotten snapshots and those in
    /// quarantine.
    pub roots: u64,
    /// Chunks that these snapshots need, each counted once.
    pub chunks: u64,
    /// Held packs with live chunks; the live share of their stored bytes.
    pub live: PackAmount,
    /// Held packs without a live chunk; the dead share of the stored bytes of all held packs.
    pub dead: PackAmount,
    /// Packs that no segment mentioned and that are published now.
    pub adopted: PackAmount,
    /// Packs condemned by this prune.
    pub condemned: PackAmount,
    /// Packs whose live chunks were copied, and the bytes of the packs that they were copied to.
    pub copied: PackAmount,
    /// Why copying ended early.
    pub copy_stopped: Option<CopyStop>,
    /// Packs dropped by this prune.
    pub dropped: PackAmount,
    /// Stored bytes of all objects deleted.
    pub freed_bytes: u64,
    /// Packs that are condemned and not yet dropped.
    pub pending: PackAmount,
    /// When the grace period of the last of them ends, by the store's clock.
    pub pending_until: Option<Timestamp>,
    /// Why they wait.
    pub kept_waiting: Vec<WaitReason>,
    /// Packs that no readable snapshot needs, kept for snapshots whose needs are unknown.
    pub held: PackAmount,
    /// Those of these snapshots that are in quarantine and cannot be read completely.
    pub unreadable_aside: u64,
    /// Until when packs are kept for them.
    pub held_until: Option<Timestamp>,
    /// Snapshots that this machine remembers and that are gone without having been forgotten. Packs
    /// are kept for them until `forget ID` acknowledges that they are gone.
    pub vanished: u64,
    /// Objects deleted from quarantine, and those that remain there.
    pub quarantine_deleted: PackAmount,
    pub quarantined: PackAmount,
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
    pub(super) fn wait(&mut self, why: WaitReason) {
        if !self.kept_waiting.contains(&why) {
            self.kept_waiting.push(why);
        }
    }
}
