//! Signals that end a program: the first asks the operation to stop cleanly, the second ends the
//! process at once.
//!
//! SIGHUP asks too, and nothing more. A session that is lost sends it twice (the kernel and the
//! shell do), and what ends the session sends SIGTERM besides: a second one means no second
//! thought.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use crate::exit::INTERRUPTED;

/// Makes a write beyond the limit on the sizes of files (`ulimit -f`) fail with an error, as a full
/// disk does, where the signal would end the process, and what is to run after a backup with it.
pub fn survive_file_size_limit() {
    // A handler, which no child inherits. Nobody looks at the flag; without a handler there is what
    // there was before.
    let _ = flag::register(SIGXFSZ, Arc::default());
}

/// What asks the operation under way to stop.
type Stop = Box<dyn Fn() + Send>;

/// Listens to SIGINT, SIGTERM, SIGQUIT and SIGHUP. Before an operation begins, the first one ends
/// the process with 130; after [`Interrupts::hand_over`] it asks the operation to stop, and the
/// second one ends the process.
pub struct Interrupts(Arc<Mutex<Option<Stop>>>);

impl Interrupts {
    /// Begins to listen. Called after the passphrase is known: at the prompt, Ctrl-C does what it
    /// does anywhere.
    pub fn listen() -> io::Result<Self> {
        let seen = Arc::new(AtomicBool::new(false));
        let ignored = ignored();
        // Who started us under nohup wants us to outlive the session, and a shell without job
        // control keeps Ctrl-\ from what it runs in the background.
        let is_heard = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
        let ending: Vec<i32> = [SIGINT, SIGTERM]
            .into_iter()
            .chain([SIGQUIT].into_iter().filter(is_heard))
            .collect();
        for &signal in &ending {
            // In this order: the shutdown looks at the flag before this very signal has set it.
            // Both happen in the handler itself, so the second signal works even if every thread
            // hangs.
            flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), Arc::clone(&seen))?;
            flag::register(signal, Arc::clone(&seen))?;
        }
        let mut signals = Signals::new(
            ending
                .into_iter()
                .chain([SIGHUP].into_iter().filter(is_heard)),
        )?;
        let stop: Arc<Mutex<Option<Stop>>> = Arc::default();
        let waiting = Arc::clone(&stop);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                if signals.forever().next().is_none() {
                    return;
                }
                match waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take()
                {
                    Some(stop) => stop(),
                    // Nothing has begun: what opening a repository leaves half-way is made again by
                    // the next command.
                    None => low_level::exit(i32::from(INTERRUPTED)),
                }
            })?;
        Ok(Self(stop))
    }

    /// From now on the first signal calls `stop`, from a thread of its own.
    pub fn hand_over(&self, stop: impl Fn() + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(stop));
    }
}

/// The signals that this process was born ignoring, as the kernel tells: bit 0 is signal 1. None
/// where it does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
