//! An observer with which a test acts at a certain moment of an operation.

use icecore::observe::{Counter, Observer, Phase, Problem, Recording};

/// Calls `act` when a counter grows, and records everything else.
pub struct Hook<F> {
    pub recording: Recording,
    act: F,
}

impl<F: Fn(Counter, u64) + Send + Sync> Hook<F> {
    pub fn new(act: F) -> Self {
        Self {
            recording: Recording::default(),
            act,
        }
    }
}

impl<F: Fn(Counter, u64) + Send + Sync> Observer for Hook<F> {
    fn add(&self, counter: Counter, amount: u64) {
        self.recording.add(counter, amount);
        (self.act)(counter, amount);
    }
    fn phase(&self, phase: &Phase) {
        self.recording.phase(phase);
    }
    fn expect(&self, _: u64, _: bool) {}
    fn problem(&self, problem: &Problem) {
        self.recording.problem(problem);
    }
    fn detail(&self, _: &'static str, _: &icecore::observe::Subject) {}
}
