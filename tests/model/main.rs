//! Whole operations against a naive model: random scripts of edits, backups, prunes and mishaps on
//! two hosts, with a store clock that the test sets. See docs/testing.md.
//!
//! `ICECORE_MODEL_STEPS=100000` runs more steps, `ICECORE_MODEL_SEED=n` runs a single case.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "seeds, counts, and the steps that failed"
)]

mod crash;
mod cut;
mod deeds;
mod endurance;
mod interleavings;
mod losses;
mod machine;
mod scene;
mod script;
mod tree;
mod watch;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use machine::{Machine, Tally};
use script::Raw;
use tree::Rng;
use watch::Watch;

/// Steps per case.
const CASE_STEPS: u64 = 120;

fn script_of(seed: u64) -> Vec<Raw> {
    let mut rng = Rng(seed ^ 0x1ce_c04e);
    (0..CASE_STEPS)
        .map(|_| (rng.next() as u32).to_le_bytes())
        .collect()
}

/// Shortening ends after this time, even if the script is still long.
const SHORTEN_FOR: Duration = Duration::from_secs(300);

/// Shortens a script while it still fails; the panics on the way are not printed.
fn shorten(seed: u64, mut script: Vec<Raw>) -> Vec<Raw> {
    let fails =
        |script: &[Raw]| catch_unwind(AssertUnwindSafe(|| Machine::new(seed).run(script))).is_err();

    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    machine::QUIET.store(true, Ordering::Relaxed);

    let began = Instant::now();
    let mut size = script.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < script.len() && began.elapsed() < SHORTEN_FOR {
            let mut shorter = script.clone();
            shorter.drain(start..(start + size).min(script.len()));
            if fails(&shorter) {
                script = shorter;
            } else {
                start += size;
            }
        }
        size /= 2;
    }

    machine::QUIET.store(false, Ordering::Relaxed);
    std::panic::set_hook(shown);
    script
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number"))
    })
}

#[test]
fn scripts_leave_what_the_model_says() {
    if let Some(seed) = number("ICECORE_MODEL_SEED") {
        Machine::new(seed).run(&script_of(seed));
        return;
    }
    let cases = number("ICECORE_MODEL_STEPS")
        .unwrap_or(10_000)
        .div_ceil(CASE_STEPS);
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let first = time.as_millis() as u64;
    let began = Instant::now();
    let next = AtomicU64::new(0);

    let watch = Watch::start();
    let run = || {
        let mut tally = Tally::default();
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            if case >= cases {
                return Ok(tally);
            }
            let seed = first + case;
            let _watched = watch.case(seed);
            match catch_unwind(|| Machine::new(seed).run(&script_of(seed))) {
                Ok(done) => tally += done,
                Err(_) => return Err(seed),
            }
        }
    };

    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8);
    let results: Vec<Result<Tally, u64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("catches its panics"))
            .collect()
    });

    let mut tally = Tally::default();
    for result in results {
        match result {
            Ok(done) => tally += done,
            Err(seed) => {
                watch::print_to_stderr(&format!(
                    "ICECORE_MODEL_SEED={seed} fails; it is shortened now"
                ));
                let short = shorten(seed, script_of(seed));
                eprintln!("seed {seed}, shortened to {} steps:", short.len());
                Machine::new(seed).run(&short);
                panic!("ICECORE_MODEL_SEED={seed} fails, though not each time");
            }
        }
    }

    println!(
        "{} steps in {cases} cases from seed {first}: {} snapshots, {} crashes, {:.0} s",
        tally.steps,
        tally.snapshots,
        tally.crashes,
        began.elapsed().as_secs_f64()
    );
    assert!(tally.snapshots > tally.steps / 20, "{tally:?}");
}

/// Replays the seeds and the findings of the fuzz target `operations`.
#[test]
fn fuzzed_scripts_leave_what_the_model_says() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut played = 0;
    for directory in ["fuzz/seeds/operations", "tests/fuzz/found/operations"] {
        let Ok(listed) = std::fs::read_dir(root.join(directory)) else {
            continue;
        };
        for file in listed {
            let path = file.expect("lists").path();
            println!("{}", path.display());
            machine::play(&std::fs::read(&path).expect("reads"));
            played += 1;
        }
    }
    assert!(played >= 2, "there are seeds");
}
