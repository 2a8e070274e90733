//! Ends the process when a case hangs, and prints its seed, which the test harness would not do.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// A case takes a second or two; up to a minute on a busy machine and without optimisation.
const LIMIT: Duration = Duration::from_secs(600);

type Running = Mutex<BTreeMap<u64, Instant>>;

/// The running cases.
pub struct Watch {
    running: Arc<Running>,
}

/// A case that counts as running until this is dropped.
pub struct Watched<'a> {
    running: &'a Running,
    seed: u64,
}

impl Watch {
    /// Starts the watch, which runs until it is dropped.
    pub fn start() -> Self {
        let running = Arc::new(Running::default());
        let seen = Arc::downgrade(&running);
        std::thread::spawn(move || look(&seen));
        Self { running }
    }

    pub fn case(&self, seed: u64) -> Watched<'_> {
        self.running
            .lock()
            .expect("the cases")
            .insert(seed, Instant::now());
        Watched {
            running: &self.running,
            seed,
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.running.lock().expect("the cases").remove(&self.seed);
    }
}

fn look(running: &Weak<Running>) {
    while let Some(running) = running.upgrade() {
        let now = Instant::now();
        let stuck = running
            .lock()
            .expect("the cases")
            .iter()
            .find(|(_, since)| now - **since > LIMIT)
            .map(|(seed, _)| *seed);
        if let Some(seed) = stuck {
            print_to_stderr(&format!(
                "ICECORE_MODEL_SEED={seed} has not come to its end in {} s",
                LIMIT.as_secs()
            ));
            std::process::abort();
        }
        drop(running);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Prints directly to stderr, since the test harness shows no captured output of a hanging test.
pub fn print_to_stderr(what: &str) {
    let _ = std::io::stderr().write_all(format!("\n{what}\n").as_bytes());
}
