//! Commands around the capture of a source: what stops a service before it and starts it again behind it.

use super::options::Around;
use super::tree::Capture;
use crate::Error;
use crate::observe::{Problem, Severity};
use crate::source::{CommandError, SpawnOptions, StreamCommand};

/// Runs `capture` between its commands. Those that are to run after it do so in any case: a service that was stopped is
/// not left so because something failed. One of them that fails is told, and makes the backup one that did not do all. A
/// dry run stops nobody: it runs neither.
pub(super) fn run<T>(
    backup: &Capture<'_>,
    source: &str,
    around: &Around,
    capture: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    if backup.options.dry_run {
        return capture();
    }
    let guard = After { backup, source, after: &around.after };
    for command in &around.before {
        let ran = once(command, &backup.options.env_remove, &|| backup.cancel.is_cancelled());
        backup.cancel.check()?;
        ran.map_err(|err| Error::Source { name: source.to_owned(), why: format!("before it: {err}") })?;
    }
    let captured = capture();
    drop(guard);
    captured
}

/// Runs the commands when it goes, a panic on the way out included. Who asks to stop waits for them.
struct After<'a> {
    backup: &'a Capture<'a>,
    source: &'a str,
    after: &'a [StreamCommand],
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        for command in self.after {
            if let Err(err) = once(command, &self.backup.options.env_remove, &|| false) {
                let message = format!("after it: {err}");
                self.backup.observer.problem(&Problem::new(Severity::Missing, self.source, message));
            }
        }
    }
}

fn once(
    command: &StreamCommand,
    env_remove: &[String],
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(), CommandError> {
    let options = SpawnOptions { env_remove: env_remove.to_vec(), env: Vec::new() };
    command.run_to_end(&options, stop)
}
