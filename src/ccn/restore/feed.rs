//! Feeds the dump to `psql`.

use super::super::NodeError;
use super::super::dump::{EMPTY_VIEW, FilterRules, RestoreFilter};
use super::super::postgres::PostgresError;
use super::database::DatabaseRestore;
use super::preview::RestorePreview;
use super::psql::{last_error, query};
use crate::advice::{Advice, DumpAdvice};
use crate::dest::FedCommand;
use crate::observe::{Phase, ProgressUnit};
use crate::source::{ChildEnding, CommandError, watched};
use crate::task::Task;
use crate::{Error, ErrorKind};

/// Exit code of `psql` if the server refused a statement.
const SQL_ERROR: i32 = 3;
/// The first version of `psql` that has `\warn`.
const WARN_SINCE: u32 = 13;
/// The first version in which `CREATE DATABASE` has `LOCALE_PROVIDER`.
const LOCALE_PROVIDER_SINCE: u32 = 15;

impl DatabaseRestore<'_> {
    /// Feeds the dump to psql. Returns the warnings about materialized views that stay empty; if
    /// there are very many, only the last ones.
    pub fn restore(&self, preview: &RestorePreview) -> Result<Vec<String>, NodeError> {
        self.task.observer.phase(&Phase::Restore {
            name: self.source.to_owned(),
        });
        let programs = self.writing(preview)?;
        let run = |database: &str, statements: &[String]| -> Result<(), NodeError> {
            for statement in statements {
                programs.output(query(&programs, database, statement))?;
            }
            Ok(())
        };

        // An interrupted restore may have left the server without `postgres`, or with half of it.
        if preview.base != "postgres" {
            let drop = "drop database if exists postgres".to_owned();
            run(
                preview.base,
                &[
                    drop,
                    "create database postgres with template template0".to_owned(),
                ],
            )?;
        }

        let neutral = preview.compared.neutral.as_deref();
        if let Some(name) = neutral {
            run(
                preview.base,
                &[dropped(name), created(name, preview.server_major())],
            )?;
        }

        let first = format!("--dbname={}", neutral.unwrap_or("postgres"));
        let words = programs.words(
            "psql",
            &[
                "--no-psqlrc",
                "--quiet",
                "--set=ON_ERROR_STOP=1",
                first.as_str(),
            ],
        );
        let command =
            FedCommand::spawn(&words, programs.spawn_options()).map_err(PostgresError::from)?;
        self.task
            .observer
            .expect(self.content.size, ProgressUnit::Bytes);
        let last_word = (preview.psql.major >= WARN_SINCE)
            .then(last_word)
            .transpose()?;
        let fed = self.feed(command, preview.rules(last_word));

        if let Some(name) = neutral {
            // If this fails, the database stays empty, and the next restore that needs one uses it.
            let _ = run("template1", &[dropped(name)]);
        }
        fed.map_err(|err| NodeError::HalfRestored {
            why: with_sources(&err),
            kind: err.kind(),
            advice: advice(&err, &self.name),
        })
    }

    /// Feeds the dump to a started psql. A watcher ends psql if the restore is cancelled, even
    /// during a statement.
    fn feed(&self, command: FedCommand, rules: FilterRules) -> Result<Vec<String>, Error> {
        watched(
            &command.canceller(),
            &|| self.task.cancel.is_cancelled(),
            || self.fed(command, rules),
        )
    }

    fn fed(&self, mut command: FedCommand, rules: FilterRules) -> Result<Vec<String>, Error> {
        let last_word = rules.last_word.clone();
        let mut filter = RestoreFilter::new(&mut command, rules);
        let written = self.session.write_content(
            self.content,
            &mut filter,
            Task::new(self.task.observer, self.task.cancel),
        );

        let ended = written.and_then(|()| {
            let ended = filter.finish().map(drop);
            ended.map_err(|err| Error::NotThere(format!("the dump '{}': {err}", self.source)))
        });

        self.task.cancel.check()?;
        if let Err(err) = ended {
            // If psql closed its input, its exit has the reason. Other errors are icecore's own.
            return match command.finish() {
                Err(failed @ CommandError::Failed { .. }) if is_of_output(&err) => {
                    Err(failed.into())
                }
                _ => Err(err),
            };
        }

        let output = command.finish()?;
        match last_word {
            Some(word) if !output.lines().any(|line| line.trim_end() == word) => {
                Err(Error::NotThere(format!(
                    "psql succeeded, but did not reach the end of the dump '{}': the connection to it may have been cut",
                    self.source
                )))
            }
            _ => Ok(empty_views(&output)),
        }
    }
}

/// Returns the texts of warnings about materialized views that could not be refreshed.
fn empty_views(output: &str) -> Vec<String> {
    let sign = String::from_utf8_lossy(EMPTY_VIEW);
    output
        .lines()
        .filter_map(|line| line.split_once(sign.as_ref()))
        .map(|(_, rest)| rest.to_owned())
        .collect()
}

fn dropped(database: &str) -> String {
    format!("drop database if exists {database}")
}

/// Returns the statement that creates a neutral database. While connected to an `SQL_ASCII`
/// database, a client may set every encoding, and names and comments of the whole cluster are
/// stored byte for byte.
fn created(database: &str, server_major: u32) -> String {
    let provider = if server_major >= LOCALE_PROVIDER_SINCE {
        " locale_provider libc"
    } else {
        ""
    };
    format!(
        "create database {database} template template0 encoding 'SQL_ASCII'{provider} lc_collate 'C' lc_ctype 'C'"
    )
}

/// Returns advice on a database that is half restored. It does not suggest another attempt before
/// the cause is removed. `name`: the dump's name, with its snapshot.
fn advice(err: &Error, name: &str) -> Advice {
    let again = |after: &'static str| {
        Advice::Dump(DumpAdvice::RestoreAgain {
            after: Some(after.into()),
        })
    };
    match err {
        Error::Interrupted => Advice::Dump(DumpAdvice::RestoreAgain { after: None }),
        Error::Command(CommandError::Failed {
            ending,
            stderr_tail,
            ..
        }) => {
            let contains_any = |signs: &[&str]| signs.iter().any(|sign| stderr_tail.contains(sign));
            if contains_any(&[
                "No space left on device",
                "could not extend file",
                "disk full",
            ]) {
                return again("free space on the database server's disk");
            }
            if contains_any(&["out of memory", "out of shared memory"]) {
                return again("give the database server more memory (its log says of what)");
            }
            if *ending != ChildEnding::Code(SQL_ERROR)
                || contains_any(&["server closed the connection", "terminating connection"])
            {
                return again("find in the database server's log why it stopped");
            }
            Advice::Dump(DumpAdvice::RemoveCause {
                dump: name.to_owned(),
            })
        }
        _ if err.kind() == ErrorKind::Damage => {
            let source = name.rsplit_once(':').map_or(name, |(_, source)| source);
            Advice::Dump(DumpAdvice::UseOtherDatabase {
                source: source.to_owned(),
            })
        }
        Error::NotThere(_) => again("check the connection to the server"),
        _ => again("make sure that the repository can be read"),
    }
}

/// Returns the word that psql prints at the end. It is random, so no server prints it by chance.
fn last_word() -> Result<String, NodeError> {
    let failed = |source| {
        Error::from(CommandError::Start {
            command: "psql".into(),
            source,
        })
    };
    let bytes = crate::sys::random_bytes::<8>().map_err(failed)?;
    Ok(format!("done{:016x}", u64::from_le_bytes(bytes)))
}

/// Returns true if an error came from the output, and not from reading the data to write.
fn is_of_output(err: &Error) -> bool {
    let kind = match err {
        Error::Path(err) => err.kind(),
        // Only the end of the filter returns this error.
        Error::NotThere(_) => return true,
        _ => return false,
    };
    kind == std::io::ErrorKind::BrokenPipe
}

/// Formats an error and its sources, psql's in one line.
fn with_sources(err: &Error) -> String {
    if let Error::Command(CommandError::Failed {
        ending,
        stderr_tail,
        ..
    }) = err
    {
        return format!("psql failed with {ending}: {}", last_error(stderr_tail));
    }
    if matches!(err, Error::Interrupted) {
        return "interrupted".to_owned();
    }
    let mut out = err.to_string();
    let mut source = std::error::Error::source(err);
    while let Some(err) = source {
        out.push_str(&format!(": {err}"));
        source = err.source();
    }
    out
}
