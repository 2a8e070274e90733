//! Divides the memory budget: the only place where queues, workers and buffers get their limits.

use crate::types::{ByteSize, at_most, to_u64};

const MIB: u64 = 1 << 20;

/// The default budget: 256 MiB resident.
pub const BUDGET_DEFAULT: ByteSize = ByteSize(256 * MIB);
/// The smallest budget that works.
pub const BUDGET_MIN: ByteSize = ByteSize(96 * MIB);

/// Code, stacks, allocator, SQLite's caches, chunks in flight, snapshots, run readers: needed by
/// every backup, independent of its number of workers ([R24](docs/protocol.md#r24)).
const FIXED: u64 = 72 * MIB;
/// Needed by a pair of reading and compressing workers: a read window of 4 MiB, a frame being
/// filled, one being compressed with its worst-case output, two queued before it and two after it.
const PER_WORKER: u64 = 12 * MIB;

/// How an operation may spend its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Threads that read, cut and hash. As many others compress.
    pub workers: usize,
    /// For sorting a run's entries outside memory.
    pub sorter_bytes: usize,
    /// For the names of one directory.
    pub listing_bytes: usize,
    /// Frames kept by readers of metadata.
    pub frame_cache_bytes: usize,
}

/// Divides a budget among at most `cores` workers.
pub fn plan(budget: ByteSize, cores: usize) -> MemoryPlan {
    let budget = budget.max(BUDGET_MIN).0;
    // The sorter and the listing get an eighth and a sixteenth, within useful limits.
    let sorter_bytes = at_most(budget / 8, 64 << 20).max(4 << 20);
    let listing_bytes = at_most(budget / 16, 16 << 20).max(2 << 20);
    let frame_cache_bytes = at_most(budget / 16, 16 << 20).max(4 << 20);
    let spent = to_u64(sorter_bytes + listing_bytes + frame_cache_bytes);
    let left = budget.saturating_sub(FIXED.min(budget / 2) + spent);
    MemoryPlan {
        workers: at_most(left / PER_WORKER, cores).max(1),
        sorter_bytes,
        listing_bytes,
        frame_cache_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_follow_the_budget_and_the_cores() {
        assert_eq!(plan(BUDGET_DEFAULT, 2).workers, 2);
        assert!(plan(BUDGET_DEFAULT, 64).workers <= 16);
        assert_eq!(
            plan(ByteSize(0), 64).workers.max(1),
            plan(BUDGET_MIN, 64).workers
        );
        for mib in [96, 128, 256, 1024, 8192] {
            let plan = plan(ByteSize(mib * MIB), 1024);
            let spent = to_u64(plan.workers) * PER_WORKER
                + to_u64(plan.sorter_bytes + plan.listing_bytes + plan.frame_cache_bytes);
            assert!(plan.workers == 1 || spent <= mib * MIB, "{mib} MiB");
        }
    }
}
