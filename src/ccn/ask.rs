//! Programs that answer a question: reads their output within a time limit.
//!
//! A server whose disk is gone, or an engine that hangs, accepts a connection and never answers.
//! Without a limit, one such question would block a backup for ever, and all backups after it.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::source::{CommandError, SpawnOptions, StreamCommand, watched};
use crate::task::Cancel;
use crate::types::to_u64;

/// Default time limit for an answer. Even the busiest machine answers the questions asked here far
/// sooner.
const LIMIT: Duration = Duration::from_secs(60);

/// Limits of the wait for an answer: a time limit and a cancellation token.
#[derive(Debug, Clone)]
pub(super) struct QueryLimits {
    pub limit: Duration,
    pub cancel: Cancel,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            limit: LIMIT,
            cancel: Cancel::new(),
        }
    }
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The command failed. `output` is the output up to the failure.
    Command {
        err: CommandError,
        output: Vec<u8>,
    },
    Read(std::io::Error),
    /// The answer is longer than the limit.
    TooLong,
    /// The time limit passed; the program was ended.
    Late,
    /// The operation was cancelled; the program was ended.
    Interrupted,
}

/// Returns the output of a program, which must be shorter than `longest` bytes.
pub(super) fn answer(
    command: &StreamCommand,
    options: &SpawnOptions,
    longest: u64,
    patience: &QueryLimits,
) -> Result<Vec<u8>, NoAnswer> {
    let none = |err| NoAnswer::Command {
        err,
        output: Vec::new(),
    };
    let mut running = command.spawn(options).map_err(none)?;
    let start = Instant::now();
    let is_late = AtomicBool::new(false);

    // `watched` ends the program when this returns true.
    let stop = || {
        is_late.store(start.elapsed() >= patience.limit, Ordering::Relaxed);
        is_late.load(Ordering::Relaxed) || patience.cancel.is_cancelled()
    };

    let answered = watched(&running.canceller(), &stop, || {
        let mut answer = Vec::new();
        let read = (&mut running)
            .take(longest)
            .read_to_end(&mut answer)
            .map_err(NoAnswer::Read)?;
        if to_u64(read) == longest {
            return Err(NoAnswer::TooLong);
        }
        match running.finish() {
            Ok(_) => Ok(answer),
            Err(err) => Err(NoAnswer::Command {
                err,
                output: answer,
            }),
        }
    });

    match answered {
        Err(_) if patience.cancel.is_cancelled() => Err(NoAnswer::Interrupted),
        Err(_) if is_late.load(Ordering::Relaxed) => Err(NoAnswer::Late),
        answered => answered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the answer of `words`; `None` if the wait was not ended within a minute.
    fn asked(
        words: &'static str,
        limit: Duration,
        cancelled: bool,
    ) -> Option<Result<Vec<u8>, NoAnswer>> {
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let patience = QueryLimits {
                limit,
                cancel: Cancel::new(),
            };
            if cancelled {
                patience.cancel.cancel();
            }
            let command = StreamCommand::parse(words).expect("words");
            send.send(answer(&command, &SpawnOptions::default(), 100, &patience))
        });
        receive.recv_timeout(Duration::from_secs(60)).ok()
    }

    #[test]
    fn a_program_that_hangs_is_given_up() {
        let short = Duration::from_millis(10);
        // The programs print nothing, print only a part, or print all and do not exit.
        for words in [
            "sleep 1000",
            "sh -c 'echo x; sleep 1000'",
            "sh -c 'echo x; exec >&-; sleep 1000'",
        ] {
            let late = asked(words, short, false);
            assert!(
                matches!(late, Some(Err(NoAnswer::Late))),
                "{words}: {late:?}"
            );
            let stopped = asked(words, LIMIT, true);
            assert!(
                matches!(stopped, Some(Err(NoAnswer::Interrupted))),
                "{words}: {stopped:?}"
            );
        }
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        assert!(matches!(asked("echo x", LIMIT, false), Some(Ok(output)) if output == b"x\n"));
        let long = asked("head -c 100 /dev/zero", LIMIT, false);
        assert!(matches!(long, Some(Err(NoAnswer::TooLong))), "{long:?}");
        let failed = asked("sh -c 'echo x; exit 3'", LIMIT, false);
        assert!(
            matches!(&failed, Some(Err(NoAnswer::Command { err: CommandError::Failed { .. }, output })) if output == b"x\n"),
            "{failed:?}"
        );
    }
}
