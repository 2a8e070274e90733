//! Backups that fail or are asked to stop must end soon, wherever they are.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use icecore::Error;
use icecore::observe::{Counter, Recording};
use icecore::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use icecore::repo::RepoError;
use icecore::store::{Fault, FaultEffect, FaultyStore, InjectedError, StoreError, StoreOperation};
use icecore::task::{Cancel, Task};
use icecore::testing::{CounterHook, TestRepo, command_source, noise, tree_options};

/// Requests a stop after a short delay.
fn cancel_soon(cancel: &Cancel) {
    let cancel = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        cancel.cancel();
    });
}

/// Runs `work`. If it hangs, prints a message and aborts the whole test run.
fn ends<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver
        .recv_timeout(Duration::from_secs(120))
        .unwrap_or_else(|_| {
            // Written directly to standard error, since the harness would not print it.
            let _ = writeln!(std::io::stderr(), "{what} does not end");
            std::process::abort();
        })
}

/// A failing reader must end the walk and the other readers, which otherwise continue to the end of
/// the tree, for hours.
#[test]
fn a_reader_that_failed_ends_the_walk() {
    const EMPTY: u64 = 10_000;

    let world = TestRepo::new();
    // 24 MiB, twice the amount that the stages before the failing one take in.
    world.write("a", &noise(1, 24 << 20));
    let directory = world.tree.path().join("b");
    fs::create_dir(&directory).expect("made");
    (0..EMPTY).for_each(|n| fs::write(directory.join(n.to_string()), b"").expect("written"));

    let faulty = Arc::new(FaultyStore::new(world.store.clone()));
    let repo = world.open_on(faulty.clone());
    let effect = FaultEffect::ErrorBefore(InjectedError::Full);
    faulty.plan(Fault {
        operation: StoreOperation::Spool,
        kind: None,
        nth: 1,
        effect,
    });

    let observer = CounterHook::new(|counter, _| {
        if counter == Counter::Entries {
            std::thread::sleep(Duration::from_millis(1));
        }
    });

    let options = BackupOptions {
        threads: Some(2),
        ..world.options()
    };
    let full = backup(&repo, options, Task::new(&observer, &Cancel::new()));
    assert!(
        matches!(
            full,
            Err(Error::Repo(RepoError::Store(StoreError::Full { .. })))
        ),
        "{full:?}"
    );
    let walked = observer.recording.get(Counter::Entries);
    assert!(walked < EMPTY, "the walk went on: {walked}");
}

/// A command has closed its output and keeps running: a stop must end the wait for its exit.
#[test]
fn a_command_that_runs_after_closing_its_output_is_stopped() {
    let stopped = ends("the command", || {
        let world = TestRepo::new();
        let source = command_source("dump", "sh -c 'exec >&-; sleep 9999'");
        let cancel = Cancel::new();
        let observer = CounterHook::new(|counter, amount| {
            // The end of the output.
            if (counter, amount) == (Counter::BytesRead, 0) {
                cancel_soon(&cancel);
            }
        });
        world.backup_with_task(
            BackupOptions::new("host", vec![source]),
            Task::new(&observer, &cancel),
        )
    });
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
}

/// An input with scripted answers: bytes, or nothing available for now.
struct Slow(Vec<Option<&'static [u8]>>, Cancel);

impl std::io::Read for Slow {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self.0.pop() {
            Some(Some(bytes)) => {
                buf[..bytes.len()].copy_from_slice(bytes);
                Ok(bytes.len())
            }
            Some(None) => Err(std::io::ErrorKind::WouldBlock.into()),
            // No more data arrives, and no end either.
            None => {
                self.1.cancel();
                Err(std::io::ErrorKind::WouldBlock.into())
            }
        }
    }
}

/// Standard input without data is polled, so that a stop is noticed while no data arrives.
#[test]
fn an_input_without_data_is_polled_until_a_stop() {
    let world = TestRepo::new();
    let run = |answers: &[Option<&'static [u8]>]| {
        let cancel = Cancel::new();
        let answers = answers.iter().rev().copied().collect();
        let input = Box::new(Slow(answers, cancel.clone()));
        let source = SourceSpec::Stream {
            name: "in".into(),
            input,
        };
        let observer = Recording::default();
        let report = world.backup_with_task(
            BackupOptions::new("host", vec![source]),
            Task::new(&observer, &cancel),
        );
        report.map(|_| observer.get(Counter::BytesRead))
    };

    let read = run(&[None, Some(b"some"), None, None, Some(b" more"), Some(b"")]);
    assert!(matches!(read, Ok(9)), "{read:?}");
    let stopped = run(&[None, Some(b"some"), None]);
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
}

/// A hole of 1 TiB in a file named by its hash takes a quarter of an hour to hash.
#[test]
fn a_stop_interrupts_the_hashing_of_a_hole() {
    let stopped = ends("the hole", || {
        let world = TestRepo::new();
        let file = fs::File::create(world.tree.path().join("a".repeat(64))).expect("made");
        file.set_len(1 << 40).expect("grown");
        let cancel = Cancel::new();
        let observer = CounterHook::new(|counter, _| {
            if counter == Counter::Entries {
                cancel_soon(&cancel);
            }
        });
        world.backup_with_task(
            tree_options(TreeSpec {
                immutable: true,
                ..world.spec()
            }),
            Task::new(&observer, &cancel),
        )
    });
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
}
