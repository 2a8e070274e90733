//! Programs that answer a question: what they print, within a time that is not endless.
//!
//! A server whose disk is gone, or an engine that hangs, takes a connection and never says a word:
//! without a limit one such question would hold a backup for ever, and all those that follow it.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::ops::Cancel;
use crate::source::{CommandError, SpawnOptions, StreamCommand, watched};

/// How long an answer is waited for: far longer than the busiest machine takes for what is asked
/// here.
const LIMIT: Duration = Duration::from_secs(60);

/// How long an answer is waited for, and who ends the waiting.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    pub limit: Duration,
    pub cancel: Cancel,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            limit: LIMIT,
            cancel: Cancel::new(),
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// With what it printed before it failed.
    Command {
        err: CommandError,
        said: Vec<u8>,
    },
    Read(std::io::Error),
    /// It is longer than what is read.
    TooLong,
    /// It took too long; the program was ended.
    Late,
    /// We were asked to stop; the program was ended.
    Interrupted,
}

/// What a program prints, which must be less than `longest` bytes.
pub(super) fn answer(
    command: &StreamCommand,
    options: &SpawnOptions,
    longest: u64,
    patience: &Patience,
) -> Result<Vec<u8>, NoAnswer> {
    let none = |err| NoAnswer::Command {
        err,
        said: Vec::new(),
    };
    let mut running = command.spawn(options).map_err(none)?;
    let (start, is_late) = (Instant::now(), AtomicBool::new(false));
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
        if read as u64 == longest {
            return Err(NoAnswer::TooLong);
        }
        match running.finish() {
            Ok(_) => Ok(answer),
            Err(err) => Err(NoAnswer::Command { err, said: answer }),
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

    /// The answer of `words`; `None` if nothing has ended the waiting after a minute.
    fn asked(
        words: &'static str,
        limit: Duration,
        cancelled: bool,
    ) -> Option<Result<Vec<u8>, NoAnswer>> {
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let patience = Patience {
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
        // It says nothing, or is not done saying it; or says it and does not end.
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
        assert!(matches!(asked("echo x", LIMIT, false), Some(Ok(said)) if said == b"x\n"));
        let long = asked("head -c 100 /dev/zero", LIMIT, false);
        assert!(matches!(long, Some(Err(NoAnswer::TooLong))), "{long:?}");
        let failed = asked("sh -c 'echo x; exit 3'", LIMIT, false);
        assert!(
            matches!(&failed, Some(Err(NoAnswer::Command { err: CommandError::Failed { .. }, said })) if said == b"x\n"),
            "{failed:?}"
        );
    }
}
