//! Ends the process when a case does not come to its end: a test that hangs tells nothing, not even
//! its seed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// A case takes a second or two; a busy machine and a build without optimisation make it a minute.
const LIMIT: Duration = Duration::from_secs(600);

type Running = Mutex<BTreeMap<u64, Instant>>;

/// The cases that run now.
pub struct Watch {
    running: Arc<Running>,
}

/// A case that runs until this is dropped.
pub struct Watched<'a> {
    running: &'a Running,
    seed: u64,
}

impl Watch {
    /// Watches until it is dropped.
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
            tell(&format!(
                "ICECORE_MODEL_SEED={seed} has not come to its end in {} s",
                LIMIT.as_secs()
            ));
            std::process::abort();
        }
        drop(running);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Past what the test harness captures: it shows nothing of a test that does not end.
pub fn tell(what: &str) {
    let _ = std::io::stderr().write_all(format!("\n{what}\n").as_bytes());
}
