//! Signals that end a program. The first one asks the operation to stop cleanly, the second one
//! ends the process at once.
//!
//! SIGHUP only asks. When a session is lost, both the kernel and the shell send it, and the program
//! that ends the session sends SIGTERM besides, so a second signal does not mean "stop at once".

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use crate::exit::INTERRUPTED;

/// Makes a write beyond the file size limit (`ulimit -f`) fail with an error, as on a full disk. By
/// default the signal would end the process, and the commands that must run after a backup would
/// not run.
pub fn survive_file_size_limit() {
    // Install a handler instead of ignoring the signal, because children do not inherit a handler.
    // The flag is not read. If the handler cannot be installed, the default action stays.
    let _ = flag::register(SIGXFSZ, Arc::default());
}

/// Asks the running operation to stop.
type Stop = Box<dyn Fn() + Send>;

/// Listens to SIGINT, SIGTERM, SIGQUIT and SIGHUP. Before an operation begins, the first signal
/// ends the process with exit code 130. After [`Interrupts::hand_over`], the first one asks the
/// operation to stop and the second one ends the process.
pub struct Interrupts(Arc<Mutex<Option<Stop>>>);

impl Interrupts {
    /// Starts listening. Call this after the passphrase is known, so that Ctrl-C has its usual
    /// effect at the prompt.
    pub fn listen() -> io::Result<Self> {
        let seen = Arc::new(AtomicBool::new(false));
        let ignored = ignored();
        // nohup makes a process ignore SIGHUP so that it outlives the session, and a shell without
        // job control makes background processes ignore SIGQUIT (Ctrl-\).
        let is_heard = |signal: &i32| ignored & (1 << (signal - 1)) == 0;
        let ending: Vec<i32> = [SIGINT, SIGTERM]
            .into_iter()
            .chain([SIGQUIT].into_iter().filter(is_heard))
            .collect();

        for &signal in &ending {
            // The order matters: the shutdown must check the flag before this very signal sets it.
            // Both happen in the signal handler, so the second signal works even if every thread
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
                    // No operation has begun. The next command redoes any work that opening a
                    // repository left unfinished.
                    None => low_level::exit(i32::from(INTERRUPTED)),
                }
            })?;

        Ok(Self(stop))
    }

    /// Makes the first signal call `stop` from now on, on a separate thread.
    pub fn hand_over(&self, stop: impl Fn() + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(stop));
    }
}

/// Returns the signals that this process has ignored since its start, as the kernel reports them;
/// bit 0 is signal 1. Returns 0 if the kernel does not report them.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
