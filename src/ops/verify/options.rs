//! Options of a verify.

use std::time::Duration;

use crate::ops::memory;
use crate::types::ByteSize;

/// Scope and limits of a verify.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyOptions {
    /// Read packs to the end and check every chunk.
    pub read_data: bool,
    /// Read this share of the held packs' stored bytes, above 0 and at most 1, least recently read
    /// packs first: twenty runs of 0.05 read all.
    pub sample: Option<f64>,
    /// Start reading no further pack after this time.
    pub max_time: Option<Duration>,
    /// Read at most this many stored bytes, but always one pack.
    pub max_bytes: Option<u64>,
    /// Number of packs read in parallel; 0: the number of cores.
    pub threads: usize,
    /// Memory budget.
    pub memory: ByteSize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            read_data: false,
            sample: None,
            max_time: None,
            max_bytes: None,
            threads: 0,
            memory: memory::BUDGET_DEFAULT,
        }
    }
}
