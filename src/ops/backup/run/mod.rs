//! The new run of a source: its entries are collected, sorted, and merged with existing runs.

pub(super) mod sink;
pub(super) mod stack;
