//! An observer with which a test acts at a certain moment of an operation.

use crate::observe::{Counter, Observer, Phase, Problem, ProgressUnit, Recording, Subject};

/// Calls `act` when a counter grows, and records everything else.
pub struct CounterHook<F> {
    /// All recorded events.
    pub recording: Recording,
    act: F,
}

impl<F: Fn(Counter, u64) + Send + Sync> CounterHook<F> {
    /// Returns an observer that calls `act` with each counter that grows and the amount.
    pub fn new(act: F) -> Self {
        Self {
            recording: Recording::default(),
            act,
        }
    }
}

impl<F: Fn(Counter, u64) + Send + Sync> Observer for CounterHook<F> {
    fn add(&self, counter: Counter, amount: u64) {
        self.recording.add(counter, amount);
        (self.act)(counter, amount);
    }
    fn phase(&self, phase: &Phase) {
        self.recording.phase(phase);
    }
    fn expect(&self, _: u64, _: ProgressUnit) {}
    fn problem(&self, problem: &Problem) {
        self.recording.problem(problem);
    }
    fn detail(&self, _: &'static str, _: &Subject) {}
}
