//! Streams: the standard output of a command, or icecore's own standard input.
//!
//! A command runs without a shell, in a separate session and so without a terminal, with an empty
//! standard input.

use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, makedev};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;

use crate::advice::{Advice, NodeAdvice};
use crate::sys::{
    Canceller, ChildPipe, ChildProcess, CommandError, PIPE_BYTES, SpawnOptions, shell_syntax,
    shown, watched,
};

/// A command, as words: no shell is involved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCommand {
    words: Vec<String>,
}

/// Output of a command that exited with 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReport {
    /// The last 8 KiB of standard error; invalid bytes are replaced.
    pub stderr_tail: String,
}

impl StreamCommand {
    /// Splits a text into words like POSIX shells. Nothing is expanded, and syntax that only a
    /// shell understands is rejected.
    pub fn parse(words: &str) -> Result<Self, CommandError> {
        if let Some(syntax) = shell_syntax(words) {
            return Err(CommandError::Shell(syntax));
        }
        Self::from_words(shell_words::split(words).map_err(|_| CommandError::Words)?)
    }

    /// Uses words as they are; the first is the program.
    pub fn from_words(words: Vec<String>) -> Result<Self, CommandError> {
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Self { words }),
            _ => Err(CommandError::Empty),
        }
    }

    /// Returns the words.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Returns the words for display, with secrets masked.
    pub fn shown(&self) -> String {
        shown(&self.words)
    }

    /// Runs the command until it exits, and discards its output. A process that it leaves behind,
    /// such as a service that it started, continues and is not waited for. `stop` is polled: once
    /// it returns true, the command is stopped.
    ///
    /// # Errors
    /// Any exit code but 0, with the end of standard error.
    pub fn run_to_end(
        &self,
        options: &SpawnOptions,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), CommandError> {
        let child = ChildProcess::start(&self.words, options, ChildPipe::Neither)?;
        watched(&child.canceller(), stop, || child.finish()).map(|_| ())
    }

    /// Starts the command.
    pub fn spawn(&self, options: &SpawnOptions) -> Result<RunningCommand, CommandError> {
        Ok(RunningCommand {
            child: ChildProcess::start(&self.words, options, ChildPipe::Output)?,
            at_end: false,
        })
    }
}

/// A running command. Reading returns its standard output. The stream is complete only if
/// [`RunningCommand::finish`] succeeds. Dropping it kills the command and its process group.
#[derive(Debug)]
pub struct RunningCommand {
    child: ChildProcess,
    at_end: bool,
}

impl RunningCommand {
    /// Returns a handle to stop the command from another thread.
    pub fn canceller(&self) -> Canceller {
        self.child.canceller()
    }

    /// Kills the command's process group; see [`Canceller::kill_group`].
    pub fn kill_group(&self) {
        self.child.canceller().kill_group();
    }

    /// Waits for the command to exit, after its output was read to the end. There is no time limit;
    /// cancelling ends the wait. Processes that the command left behind are not touched.
    ///
    /// # Errors
    /// Any exit code but 0, with the end of standard error.
    pub fn finish(self) -> Result<ExitReport, CommandError> {
        if !self.at_end && !self.child.is_cancelled() {
            return Err(CommandError::NotDrained {
                command: self.child.command().to_owned(),
            });
        }
        Ok(ExitReport {
            stderr_tail: self.child.finish()?,
        })
    }
}

impl Read for RunningCommand {
    /// Blocks until there is output. The end of the output is not the end of the command, which may
    /// still run.
    ///
    /// # Errors
    /// `BrokenPipe` after the command was cancelled: never a clean end.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.child.read(buf)?;
        self.at_end |= read == 0 && !buf.is_empty();
        Ok(read)
    }
}

/// Longest wait for standard input in one read.
const INPUT_WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// The reason why standard input cannot be the source of a dump.
#[derive(Debug, thiserror::Error)]
pub enum StdinError {
    #[error("it is a directory")]
    Directory,
    #[error("it is a terminal")]
    Terminal,
    /// Standard input is closed, open only for writing, or unreadable.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl StdinError {
    /// Returns advice for the user, if there is any.
    pub fn advice(&self) -> Option<Advice> {
        matches!(self, Self::Terminal).then_some(Advice::Node(NodeAdvice::PipeDump))
    }
}

/// icecore's own standard input as a stream.
#[derive(Debug)]
pub struct StdinStream {
    fd: OwnedFd,
}

impl StdinStream {
    /// Takes over standard input; nothing else should read from it afterwards. A pipe is enlarged
    /// to 1 MiB if permitted.
    ///
    /// # Errors
    /// `BADF` if standard input is closed or open only for writing. A terminal or a directory cannot
    /// be the source of a dump.
    pub fn open() -> Result<Self, StdinError> {
        Self::of(io::stdin().as_fd().try_clone_to_owned()?)
    }

    fn of(fd: OwnedFd) -> Result<Self, StdinError> {
        let mode = fcntl_getfl(&fd).map_err(io::Error::from)? & OFlags::RWMODE;
        let stat = fstat(&fd).map_err(io::Error::from)?;
        let kind = FileType::from_raw_mode(stat.st_mode);

        // The runtime replaces a closed descriptor by `/dev/null`, open for reading and writing.
        let is_null = kind == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3);
        if mode == OFlags::WRONLY || is_null && mode == OFlags::RDWR {
            return Err(io::Error::from(Errno::BADF).into());
        }
        if kind == FileType::Directory {
            return Err(StdinError::Directory);
        }
        if fd.is_terminal() {
            return Err(StdinError::Terminal);
        }

        let _ = fcntl_setpipe_size(&fd, PIPE_BYTES);
        Ok(Self { fd })
    }
}

impl Read for StdinStream {
    /// Waits for input, at most 100 ms.
    ///
    /// # Errors
    /// `WouldBlock` if there is no input yet: the caller can check for cancellation and read again.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match poll(
                &mut [PollFd::new(&self.fd, PollFlags::IN)],
                Some(&INPUT_WAIT),
            ) {
                Ok(0) => return Err(io::ErrorKind::WouldBlock.into()),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(err) => return Err(err.into()),
            }
            match rustix::io::read(&self.fd, &mut *buf) {
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
