//! Runs the configuration's commands around a whole backup.

use std::ffi::OsString;

use icecore::jobs::config::HookSettings;
use icecore::observe::{Observer, Problem, Severity};
use icecore::source::{CommandError, SpawnOptions, StreamCommand};
use icecore::task::Cancel;
use icecore::types::SnapshotId;

use crate::context::Context;
use crate::env::SECRET_VARIABLES;
use crate::exit::{CliError, Outcome, error_report};

/// Runs the `before` commands. The first one that fails ends the backup before anything is stored,
/// and so does a request to stop.
pub fn before(hooks: &HookSettings, cancel: &Cancel) -> Result<(), CliError> {
    for command in &hooks.before {
        let ran = once(command, &[], &|| cancel.is_cancelled());
        cancel.check()?;
        ran.map_err(|err| CliError::failed("the hook 'before' failed", err))?;
    }
    Ok(())
}

/// Runs the `after` commands when dropped, however the backup ended, panics included: services that
/// `before` stopped must not stay stopped. A failing command is reported; it does not affect the
/// snapshot, if there is one.
pub struct AfterHooks<'a> {
    hooks: &'a HookSettings,
    observer: &'a dyn Observer,
    code: u8,
    snapshot: Option<SnapshotId>,
}

/// The exit code of a process that panicked.
const PANICKED: u8 = 101;

impl<'a> AfterHooks<'a> {
    /// Creates the guard. Must be called before the first `before` command.
    pub fn new(hooks: &'a HookSettings, observer: &'a dyn Observer) -> Self {
        Self {
            hooks,
            observer,
            code: PANICKED,
            snapshot: None,
        }
    }

    /// Records the result of the backup for `ICECORE_EXIT_CODE` and `ICECORE_SNAPSHOT` (empty if
    /// nothing was committed).
    pub fn record_result(&mut self, code: u8, snapshot: Option<SnapshotId>) {
        (self.code, self.snapshot) = (code, snapshot);
    }
}

impl Drop for AfterHooks<'_> {
    fn drop(&mut self) {
        let id = self.snapshot.map(|id| id.to_string()).unwrap_or_default();
        let env = [
            ("ICECORE_SNAPSHOT", id),
            ("ICECORE_EXIT_CODE", self.code.to_string()),
        ];
        for command in &self.hooks.after {
            if let Err(err) = once(command, &env, &|| false) {
                self.observer
                    .problem(&Problem::new(Severity::Missing, "the hook 'after'", err));
            }
        }
    }
}

/// Runs the `on_failure` commands, after `after`, if the exit code of the command will not be 0.
/// `ICECORE_EXIT_CODE` is the code. `ICECORE_ERROR` is the error if nothing was committed,
/// otherwise `reported`: the lines of warnings, damage and alarms.
pub fn on_failure(
    context: &Context<'_>,
    hooks: &HookSettings,
    done: &Result<Outcome, CliError>,
    reported: &str,
) {
    let (code, message) = match done {
        Ok(outcome) => (outcome.code(), reported.to_owned()),
        Err(error) => code_and_message(error),
    };
    let env = [
        ("ICECORE_EXIT_CODE", code.to_string()),
        ("ICECORE_ERROR", message),
    ];
    for command in &hooks.on_failure {
        if let Err(err) = once(command, &env, &|| false) {
            context
                .ui
                .warn(format_args!("warning: the hook 'on_failure': {err}"));
        }
    }
}

/// Returns the exit code and the message of an error.
pub fn code_and_message(error: &CliError) -> (u8, String) {
    error_report(error).map_or((1, String::new()), |report| (report.code, report.message))
}

/// Runs a hook, which does not see icecore's passphrase variables, until it ends or `stop` returns
/// true.
fn once(
    command: &StreamCommand,
    env: &[(&str, String)],
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(), CommandError> {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
        .collect();
    let options = SpawnOptions {
        env_remove: SECRET_VARIABLES.map(str::to_owned).to_vec(),
        env,
    };
    command.run_to_end(&options, stop)
}
