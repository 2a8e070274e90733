//! A command that reads restored data from its standard input, such as `psql`.
//!
//! It runs without a shell, in a separate session and so without a terminal. Its standard output is
//! discarded; the end of its standard error is kept.

use std::io::{self, Write};

use crate::sys::{Canceller, ChildPipe, ChildProcess, CommandError, SpawnOptions};

/// A running command. Writing feeds it. The work is done only if [`FedCommand::finish`] succeeds.
/// Dropping it kills the command and its process group.
#[derive(Debug)]
pub struct FedCommand {
    child: ChildProcess,
    /// The command closed its input before it had read everything.
    is_shut: bool,
}

impl FedCommand {
    /// Starts a program: its name, then its arguments.
    pub fn spawn(words: &[String], options: &SpawnOptions) -> Result<Self, CommandError> {
        Ok(Self {
            child: ChildProcess::start(words, options, ChildPipe::Input)?,
            is_shut: false,
        })
    }

    /// Returns a handle to stop the command from another thread, even during a write or
    /// [`FedCommand::finish`].
    pub fn canceller(&self) -> Canceller {
        self.child.canceller()
    }

    /// Closes the command's input and waits for it to exit, without a time limit; cancelling ends
    /// the wait. Returns the end of its standard error, at most 8 KiB.
    ///
    /// # Errors
    /// Any exit code but 0, or an exit before the command had read all of its input.
    pub fn finish(self) -> Result<String, CommandError> {
        let command = self.child.command().to_owned();
        let stderr_tail = self.child.finish()?;
        if self.is_shut {
            Err(CommandError::NotTaken { command })
        } else {
            Ok(stderr_tail)
        }
    }
}

impl Write for FedCommand {
    /// Blocks until the command reads some of the bytes.
    ///
    /// # Errors
    /// `BrokenPipe` if the command has closed its input (its exit gives the reason) or was
    /// cancelled.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.child.write(bytes);
        self.is_shut |= written
            .as_ref()
            .is_err_and(|err| err.kind() == io::ErrorKind::BrokenPipe);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::ChildEnding;

    fn spawn(words: &[&str]) -> Result<FedCommand, CommandError> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        FedCommand::spawn(&words, &SpawnOptions::default())
    }

    #[test]
    fn the_command_gets_all_input_and_its_exit_code_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("out");
        let script = "cat >\"$1\"; echo chatter; echo warning >&2; exit \"$2\"";
        let words = |code| ["sh", "-c", script, "sh", file.to_str().expect("text"), code];
        let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut command = spawn(&words("0")).expect("started");
        command.write_all(&bytes).expect("taken");
        assert_eq!(command.finish().expect("exit 0"), "warning\n");
        assert_eq!(std::fs::read(&file).expect("read"), bytes);
        let mut command = spawn(&words("3")).expect("started");
        command.write_all(b"x").expect("taken");
        let err = command.finish().expect_err("exit 3");
        assert!(
            matches!(&err, CommandError::Failed { ending: ChildEnding::Code(3), stderr_tail, .. }
            if stderr_tail == "warning\n")
        );
    }

    #[test]
    fn an_early_exit_of_the_command_is_reported() {
        let feed = |script: &str| {
            let mut command = spawn(&["sh", "-c", script]).expect("started");
            let written = command.write_all(&vec![b'x'; 8 << 20]);
            assert_eq!(
                written.expect_err("not taken").kind(),
                io::ErrorKind::BrokenPipe
            );
            command.finish().expect_err("not all was taken")
        };
        let err = feed("echo 'ERROR: no such thing' >&2; exit 3");
        assert!(
            matches!(&err, CommandError::Failed { ending: ChildEnding::Code(3), stderr_tail, .. }
            if stderr_tail.contains("no such thing"))
        );
        assert!(matches!(feed("exit 0"), CommandError::NotTaken { .. }));
        assert!(matches!(
            feed("kill -9 $$"),
            CommandError::Failed {
                ending: ChildEnding::Signal(9),
                ..
            }
        ));
    }

    #[test]
    fn a_blocked_write_ends_when_the_command_is_cancelled() {
        // If the test is killed, both scripts end by themselves. Children of a shell ignore the
        // signals that it ignores.
        for script in ["sleep 100", "trap '' TERM; sleep 100; true"] {
            let mut command = spawn(&["sh", "-c", script]).expect("started");
            let canceller = command.canceller();
            let start = Instant::now();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                canceller.kill_group();
            });
            let written = command.write_all(&vec![b'x'; 8 << 20]);
            assert_eq!(
                written.expect_err("cancelled").kind(),
                io::ErrorKind::BrokenPipe
            );
            assert!(matches!(
                command.finish(),
                Err(CommandError::Cancelled { .. })
            ));
            thread.join().expect("joined");
            assert!(start.elapsed() < Duration::from_secs(20));
        }
    }

    #[test]
    fn waiting_for_the_exit_can_be_cancelled_too() {
        let command = spawn(&["sh", "-c", "cat >/dev/null; sleep 100"]).expect("started");
        let canceller = command.canceller();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            canceller.kill_group();
        });
        assert!(matches!(
            command.finish(),
            Err(CommandError::Cancelled { .. })
        ));
        thread.join().expect("joined");
    }

    #[test]
    fn words_are_shown_without_their_secrets() {
        let command = spawn(&["sh", "-c", "exit 1", "--password=hunter2"]).expect("started");
        let text = command.finish().expect_err("exit 1").to_string();
        assert!(
            text.contains("--password=***") && !text.contains("hunter2"),
            "{text}"
        );
        assert!(matches!(
            spawn(&["no-such-program-here"]),
            Err(CommandError::NotFound { .. })
        ));
        assert!(matches!(spawn(&[]), Err(CommandError::Empty)));
    }
}
