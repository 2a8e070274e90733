//! SIGINT and SIGTERM: the first asks the operation to stop cleanly, the second ends the process at once.

use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

use crate::exit::INTERRUPTED;

/// What asks the operation under way to stop.
type Stop = Box<dyn Fn() + Send>;

/// Listens to SIGINT and SIGTERM. Before an operation begins, the first one ends the process with 130; after
/// [`Interrupts::hand_over`] it asks the operation to stop, and the second one ends the process.
pub struct Interrupts(Arc<Mutex<Option<Stop>>>);

impl Interrupts {
    /// Begins to listen. Called after the passphrase is known: at the prompt, Ctrl-C does what it does anywhere.
    pub fn listen() -> io::Result<Self> {
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the shutdown looks at the flag before this very signal has set it. Both happen in the
            // handler itself, so the second signal works even if every thread hangs.
            flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), Arc::clone(&seen))?;
            flag::register(signal, Arc::clone(&seen))?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let stop: Arc<Mutex<Option<Stop>>> = Arc::default();
        let waiting = Arc::clone(&stop);
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if signals.forever().next().is_none() {
                return;
            }
            match waiting.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(stop) => stop(),
                // Nothing has begun: what opening a repository leaves half-way is made again by the next command.
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
