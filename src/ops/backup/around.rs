//! Commands around the capture of a source: what stops a service before it and starts it again
//! behind it.

use super::options::Around;
use super::tree::Capture;
use crate::Error;
use crate::observe::{Problem, Severity};
use crate::repo::Repository;
use crate::source::{CommandError, SpawnOptions, StreamCommand};
use crate::sys::{LockFile, private_directory};

/// Runs `capture` between its commands. Those that are to run after it do so in any case: a service
/// that was stopped is not left so because something failed. One of them that fails is told, and
/// makes the backup one that did not do all. A dry run stops nobody: it runs neither. Two backups
/// at once do not share a service: the first to be done would start it again under the other.
pub(super) fn run<T>(
    backup: &Capture<'_>,
    source: &str,
    around: &Around,
    capture: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    if backup.options.dry_run {
        return capture();
    }
    // Let go behind `after`.
    let _alone = alone(backup.repo, source, around)?;
    let guard = After {
        backup,
        source,
        after: &around.after,
    };
    for command in &around.before {
        let ran = once(command, &backup.options.env_remove, &|| {
            backup.cancel.is_cancelled()
        });
        backup.cancel.check()?;
        ran.map_err(|err| Error::Source {
            name: source.to_owned(),
            why: format!("before it: {err}"),
        })?;
    }
    let captured = capture();
    drop(guard);
    captured
}

/// Holds the lock of what is stopped and started, if anything is. It lies beside the caches of all
/// repositories, for a backup into another one stops the same service, and is named by the
/// commands, for another source of this name may have another service.
fn alone(repo: &Repository, source: &str, around: &Around) -> Result<Option<LockFile>, Error> {
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
            name.update(&(word.len() as u64).to_le_bytes())
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
        let why = "another backup of it is at work, and would have its service stopped and started under it";
        return Err(Error::Source {
            name: source.to_owned(),
            why: why.to_owned(),
        });
    }
    Ok(Some(lock))
}

/// Runs the commands when it goes, a panic on the way out included. Who asks to stop waits for
/// them.
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
                self.backup.observer.problem(&Problem::new(
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
