//! Commands around the capture of a source, for example to stop a service before it and start it
//! again after it.

use super::capture_context::CaptureContext;
use super::options::SourceHooks;
use crate::Error;
use crate::observe::{Problem, Severity};
use crate::repo::Repository;
use crate::source::{CommandError, SpawnOptions, StreamCommand};
use crate::sys::{LockFile, private_directory};
use crate::types::to_u64;

/// Runs `capture` between the source's `before` and `after` commands.
///
/// The `after` commands run in any case: a failure must not leave a service stopped. A failing
/// `after` command is reported as missing, which makes the exit code 3. A dry run runs neither
/// list. Two backups of the same source with the same commands do not run at once: the first to
/// finish would start the service while the other still reads.
pub(super) fn run<T>(
    backup: &CaptureContext<'_>,
    source: &str,
    around: &SourceHooks,
    capture: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    if backup.options.dry_run {
        return capture();
    }
    // Declared first, so that it is released after the `after` commands have run.
    let _alone = lock_hooks(backup.repo, source, around)?;
    let guard = AfterCommands {
        backup,
        source,
        after: &around.after,
    };

    for command in &around.before {
        let ran = once(command, &backup.options.env_remove, &|| {
            backup.task.cancel.is_cancelled()
        });
        backup.task.cancel.check()?;
        ran.map_err(|err| Error::Source {
            name: source.to_owned(),
            why: format!("'before' command: {err}"),
        })?;
    }

    let captured = capture();
    drop(guard);
    captured
}

/// Takes the lock for the source's commands, or returns `None` if it has none. The lock file is in
/// a directory next to the caches of all repositories, because a backup into another repository
/// stops the same service. Its name depends on the commands, because another source of this name
/// may have another service.
fn lock_hooks(
    repo: &Repository,
    source: &str,
    around: &SourceHooks,
) -> Result<Option<LockFile>, Error> {
    if around.before.is_empty() && around.after.is_empty() {
        return Ok(None);
    }

    let mut name = blake3::Hasher::new();
    for words in [&around.before, &around.after]
        .into_iter()
        .flatten()
        .map(StreamCommand::words)
    {
        for word in words {
            name.update(&to_u64(word.len()).to_le_bytes())
                .update(word.as_bytes());
        }
        name.update(&u64::MAX.to_le_bytes());
    }

    let directory = repo
        .cache_dir()
        .parent()
        .unwrap_or(repo.cache_dir())
        .join("around");
    private_directory(&directory)?;
    let lock = LockFile::open(
        directory.join(name.update(source.as_bytes()).finalize().to_hex().as_str()),
    )?;

    if !lock.try_lock()? {
        let why = "another backup of it is running; this one would stop and start its service";
        return Err(Error::Source {
            name: source.to_owned(),
            why: why.to_owned(),
        });
    }
    Ok(Some(lock))
}

/// Runs the `after` commands when it is dropped, also during a panic. Cancellation does not
/// interrupt them.
struct AfterCommands<'a> {
    backup: &'a CaptureContext<'a>,
    source: &'a str,
    after: &'a [StreamCommand],
}

impl Drop for AfterCommands<'_> {
    fn drop(&mut self) {
        for command in self.after {
            if let Err(err) = once(command, &self.backup.options.env_remove, &|| false) {
                let message = format!("'after' command: {err}");
                self.backup.task.observer.problem(&Problem::new(
                    Severity::Missing,
                    self.source,
                    message,
                ));
            }
        }
    }
}

fn once(
    command: &StreamCommand,
    env_remove: &[String],
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(), CommandError> {
    let options = SpawnOptions {
        env_remove: env_remove.to_vec(),
        env: Vec::new(),
    };
    command.run_to_end(&options, stop)
}
