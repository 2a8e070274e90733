//! SIGINT and SIGTERM: the first asks the operation to stop cleanly, the second ends the process at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::exit::INTERRUPTED;

/// Calls `first` on the first SIGINT or SIGTERM, from a thread of its own; a second one exits with 130.
///
/// Called after the passphrase is known: at the prompt one Ctrl-C ends the process as anywhere else.
pub fn install(first: impl Fn() + Send + 'static) -> io::Result<()> {
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the shutdown looks at the flag before this very signal has set it. Both happen in the
        // handler itself, so the second signal works even if every thread hangs.
        flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), Arc::clone(&seen))?;
        flag::register(signal, Arc::clone(&seen))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            first();
        }
    })?;
    Ok(())
}
