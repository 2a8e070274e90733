//! The configuration's commands around a whole backup.

use std::ffi::OsString;

use icecore::observe::{Observer, Problem, Severity};
use icecore::ops::Cancel;
use icecore::source::{CommandError, SpawnOptions, StreamCommand};
use icecore::types::SnapshotId;

use crate::config::Hooks;
use crate::context::Context;
use crate::env::SECRET_VARIABLES;
use crate::exit::{CliError, Outcome, tell};

/// Runs `before`. The first that fails ends the backup before anything is stored, and so does who asks to stop.
pub fn before(hooks: &Hooks, cancel: &Cancel) -> Result<(), CliError> {
    for command in &hooks.before {
        let ran = once(command, &[], &|| cancel.is_cancelled());
        cancel.check()?;
        ran.map_err(|err| CliError::failed("the hook 'before' failed", err))?;
    }
    Ok(())
}

/// Runs `after`, once a snapshot was committed. `ICECORE_SNAPSHOT` and `ICECORE_EXIT_CODE` tell of it. One that fails is
/// told; the snapshot is there all the same.
pub fn after(hooks: &Hooks, snapshot: Option<&SnapshotId>, outcome: Outcome, observer: &dyn Observer) {
    let id = snapshot.map(ToString::to_string).unwrap_or_default();
    let env = [("ICECORE_SNAPSHOT", id), ("ICECORE_EXIT_CODE", outcome.code().to_string())];
    for command in &hooks.after {
        if let Err(err) = once(command, &env, &|| false) {
            observer.problem(&Problem::new(Severity::Missing, "the hook 'after'", err));
        }
    }
}

/// Runs `on_failure`, when the command is going to end with any code but 0: `ICECORE_EXIT_CODE`, and `ICECORE_ERROR` if
/// nothing was committed.
pub fn on_failure(context: &Context<'_>, hooks: &Hooks, done: &Result<Outcome, CliError>) {
    let (code, message) = match done {
        Ok(outcome) => (outcome.code(), String::new()),
        Err(error) => tell(error).map_or((1, String::new()), |told| (told.code, told.message)),
    };
    let env = [("ICECORE_EXIT_CODE", code.to_string()), ("ICECORE_ERROR", message)];
    for command in &hooks.on_failure {
        if let Err(err) = once(command, &env, &|| false) {
            context.ui.warn(format_args!("warning: the hook 'on_failure': {err}"));
        }
    }
}

/// Runs a hook, which sees no passphrase of ours, until `stop` says so.
fn once(
    command: &StreamCommand,
    env: &[(&str, String)],
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(), CommandError> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    let options = SpawnOptions { env_remove: SECRET_VARIABLES.map(str::to_owned).to_vec(), env };
    command.run_to_end(&options, stop)
}
