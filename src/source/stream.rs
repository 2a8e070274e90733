//! Streams: what a command writes to its standard output, or what comes on ours.
//!
//! A command runs without a shell in a session of its own, so without a terminal, with nothing on its standard
//! input. Three threads are involved: the caller reads the output; one thread keeps the end of what comes on
//! standard error; one thread starts the child and then lives as long as it is needed, since the kernel's "die with
//! your parent" means the *thread* that forked. Reading can be cancelled from any thread, even while a grandchild in
//! another session holds the output open.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process_group, set_parent_process_death_signal,
    setsid, waitid,
};

use crate::source::shown::shown;

/// Wanted size of the pipe from the child: fewer switches between it and us. More than the user's limit is refused
/// by the kernel, which leaves the default of 64 KiB.
const PIPE_BYTES: usize = 1 << 20;
/// How much of the end of standard error is kept.
const STDERR_TAIL_BYTES: usize = 8 << 10;
/// How long a cancelled command has between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long the end of standard error is waited for after the child ended: a grandchild may hold it open.
const STDERR_GRACE: Duration = Duration::from_millis(500);
/// Between two looks whether a signalled child has ended.
const EXIT_POLL: Duration = Duration::from_millis(10);

/// A command, as words: no shell is involved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCommand {
    words: Vec<String>,
}

/// How a command is run.
#[derive(Debug, Clone, Default)]
pub struct SpawnOptions {
    /// Names of environment variables that the command does not get: those that hold our own secrets.
    pub env_remove: Vec<String>,
    /// Variables that it gets besides ours.
    pub env: Vec<(String, OsString)>,
}

/// How a command came to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code, not 0.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Why a command gave no good stream. `command` is its words with secrets masked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The words cannot be split (an open quote).
    #[error("the command's words cannot be split: a quote is not closed")]
    Words,
    /// There is no word.
    #[error("the command is empty")]
    Empty,
    /// There is no such program.
    #[error("command not found: {program}")]
    NotFound { program: String },
    /// It could not be started.
    #[error("cannot start {command}")]
    Start { command: String, source: io::Error },
    /// It ended in failure.
    #[error("{command} failed with {ending}{}", stderr_text(.stderr_tail))]
    Failed { command: String, ending: Ending, stderr_tail: String },
    /// We killed it.
    #[error("{command} was cancelled")]
    Cancelled { command: String },
    /// `finish` was called before its output was read to the end: what was read is not the whole stream.
    #[error("the output of {command} was not read to its end")]
    NotDrained { command: String },
    /// The system would not say how it ended.
    #[error("cannot wait for {command}")]
    Wait { command: String, source: io::Error },
}

fn stderr_text(tail: &str) -> String {
    let tail = tail.trim_end();
    if tail.is_empty() { String::new() } else { format!("; it said: {tail}") }
}

/// What is left of a command that exited with 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitReport {
    /// The last 8 KiB of standard error; stray bytes are replaced.
    pub stderr_tail: String,
}

impl StreamCommand {
    /// Splits a text as POSIX shells split words; nothing is expanded.
    pub fn parse(words: &str) -> Result<Self, CommandError> {
        Self::from_words(shell_words::split(words).map_err(|_| CommandError::Words)?)
    }

    /// Takes words as they are; the first is the program.
    pub fn from_words(words: Vec<String>) -> Result<Self, CommandError> {
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Self { words }),
            _ => Err(CommandError::Empty),
        }
    }

    /// The words.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The words for people, secrets masked.
    pub fn shown(&self) -> String {
        shown(&self.words)
    }

    /// Starts the command.
    pub fn spawn(&self, options: &SpawnOptions) -> Result<RunningCommand, CommandError> {
        let command = self.shown();
        let failed = |source| CommandError::Start { command: command.clone(), source };
        let (keep_alive, until) = mpsc::channel::<()>();
        let (mut child, keeper) = self.start(options, until).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CommandError::NotFound { program: self.words[0].clone() },
            _ => failed(source),
        })?;
        let pipes = child.stdout.take().zip(child.stderr.take());
        let shared = Shared::new(&child);
        let (Some((stdout, stderr)), Ok(shared)) = (pipes, shared) else {
            // Nothing is known of it but the handle; its output is closed, so it will not last.
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(io::Error::other("its pipes are missing")));
        };
        let _ = fcntl_setpipe_size(&stdout, PIPE_BYTES);
        let shared = Arc::new(shared);
        let mut running = RunningCommand {
            command: command.clone(),
            child,
            stdout: Some(stdout),
            at_end: false,
            shared: Arc::clone(&shared),
            stderr: None,
            keep_alive: Some(keep_alive),
            keeper: Some(keeper),
            ended: false,
        };
        // From here on dropping `running` ends the child.
        running.stderr = Some(
            thread::Builder::new()
                .name("command-stderr".to_owned())
                .spawn(move || keep_tail(stderr, &shared))
                .map_err(failed)?,
        );
        Ok(running)
    }

    /// Starts the child from a thread that ends only when `until` is hung up.
    fn start(
        &self,
        options: &SpawnOptions,
        until: mpsc::Receiver<()>,
    ) -> io::Result<(Child, JoinHandle<()>)> {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in &options.env_remove {
            command.env_remove(name);
        }
        command.envs(options.env.iter().map(|(name, value)| (name, value)));
        lead_own_session(&mut command);
        let (send, receive) = mpsc::channel();
        let keeper = thread::Builder::new().name("command-keeper".to_owned()).spawn(move || {
            let child = command.spawn();
            let started = child.is_ok();
            if send.send(child).is_ok() && started {
                // Nothing is ever sent: this waits for the other side to go.
                let _ = until.recv();
            }
        })?;
        let child = receive.recv().map_err(|_| io::Error::other("the starting thread ended"))??;
        Ok((child, keeper))
    }
}

/// Makes the child the leader of a session of its own that ends with the thread that starts it.
#[expect(unsafe_code, reason = "std has no stable way to call setsid in the child")]
fn lead_own_session(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in the child between fork and exec, where other threads' locks may be held for ever,
    // so it may do nothing but async-signal-safe work. It makes three system calls (setsid, prctl, getppid) through
    // rustix, which wraps each in a function that neither allocates nor locks nor touches shared state; the errors
    // are plain numbers, and turning one into `io::Error` by `from_raw_os_error` does not allocate. It captures one
    // `Copy` number, borrows nothing, and cannot panic.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            set_parent_process_death_signal(Some(Signal::TERM))?;
            // We may have died before the line above: then no signal will come.
            if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
        });
    }
}

/// What the reader, the thread on standard error and cancellers share.
#[derive(Debug)]
struct Shared {
    pid: Pid,
    /// Readable once all waiting is to end.
    stop_reading: OwnedFd,
    /// As above, for standard error alone.
    stop_stderr: OwnedFd,
    cancelled: AtomicBool,
    /// True once the child was waited for: its number may belong to another process now. Signals are sent with
    /// the lock held.
    reaped: Mutex<bool>,
    tail: Mutex<Vec<u8>>,
}

impl Shared {
    fn new(child: &Child) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self {
            pid: pid.ok_or_else(|| io::Error::other("the child has no number"))?,
            stop_reading: eventfd(0, flags)?,
            stop_stderr: eventfd(0, flags)?,
            cancelled: AtomicBool::new(false),
            reaped: Mutex::new(false),
            tail: Mutex::new(Vec::new()),
        })
    }

    /// Signals the whole process group, unless the child was waited for already; false in that case.
    fn signal(&self, signal: Signal) -> bool {
        let reaped = lock(&self.reaped);
        if !*reaped {
            // A group that is gone is what was wanted.
            let _ = kill_process_group(self.pid, signal);
        }
        !*reaped
    }

    /// True once the child itself has ended, waited for or not.
    fn has_ended(&self) -> bool {
        let reaped = lock(&self.reaped);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        *reaped || !matches!(waitid(WaitId::Pid(self.pid), options), Ok(None) | Err(Errno::INTR))
    }

    fn kill_group(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.stop_reading, &1u64.to_le_bytes());
        // A stopped process takes SIGTERM only when it goes on.
        if !(self.signal(Signal::TERM) && self.signal(Signal::CONT)) {
            return;
        }
        let start = Instant::now();
        while start.elapsed() < TERM_GRACE && !self.has_ended() {
            thread::sleep(EXIT_POLL);
        }
        // Also for members of the group that outlive its leader.
        self.signal(Signal::KILL);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads from `fd` as soon as there is something; none if `stop` becomes readable first.
fn read_unless(fd: impl AsFd, stop: &OwnedFd, buf: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        let mut fds = [PollFd::new(&fd, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(error) => return Err(error.into()),
        }
        if !fds[1].revents().is_empty() {
            return Ok(None);
        }
        match rustix::io::read(&fd, &mut *buf) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => return Ok(Some(other?)),
        }
    }
}

/// Keeps the end of what comes on standard error until it is closed or enough was waited for.
fn keep_tail(stderr: impl AsFd, shared: &Shared) {
    let mut buffer = [0; 4096];
    while let Ok(Some(read @ 1..)) = read_unless(&stderr, &shared.stop_stderr, &mut buffer) {
        let mut tail = lock(&shared.tail);
        tail.extend_from_slice(&buffer[..read]);
        let surplus = tail.len().saturating_sub(STDERR_TAIL_BYTES);
        tail.drain(..surplus);
    }
}

/// Ends a running command from another thread.
#[derive(Debug, Clone)]
pub struct Canceller {
    shared: Arc<Shared>,
}

impl Canceller {
    /// Makes reads of the command fail at once (`BrokenPipe`), sends SIGTERM to its process group and, 2 s later or
    /// as soon as the child has ended, SIGKILL to what is left of the group. Takes up to 2 s. A command that has been
    /// waited for is not signalled.
    pub fn kill_group(&self) {
        self.shared.kill_group();
    }
}

/// A command under way. Reading gives its standard output; the stream is good only once [`RunningCommand::finish`]
/// has said so. Dropping it kills the command and its process group.
#[derive(Debug)]
pub struct RunningCommand {
    command: String,
    child: Child,
    stdout: Option<ChildStdout>,
    at_end: bool,
    shared: Arc<Shared>,
    stderr: Option<JoinHandle<()>>,
    keep_alive: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
    ended: bool,
}

impl RunningCommand {
    /// A handle to end the command from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller { shared: Arc::clone(&self.shared) }
    }

    /// As [`Canceller::kill_group`].
    pub fn kill_group(&self) {
        self.shared.kill_group();
    }

    /// Waits for the command to exit, after its output was read to the end. It may take as long as the command
    /// likes; cancelling ends the wait. Processes that it left behind are left alone.
    ///
    /// # Errors
    /// Anything but exit code 0, with the end of standard error.
    pub fn finish(mut self) -> Result<ExitReport, CommandError> {
        let command = self.command.clone();
        if !self.at_end && !self.shared.cancelled.load(Ordering::SeqCst) {
            return Err(CommandError::NotDrained { command });
        }
        self.stdout = None;
        let status = self.wait().map_err(|source| CommandError::Wait { command: command.clone(), source })?;
        let stderr_tail = self.stderr_tail();
        if self.shared.cancelled.load(Ordering::SeqCst) {
            return Err(CommandError::Cancelled { command });
        }
        let ending = match (status.code(), status.signal()) {
            (Some(0), _) => return Ok(ExitReport { stderr_tail }),
            (Some(code), _) => Ending::Code(code),
            (None, signal) => Ending::Signal(signal.unwrap_or(0)),
        };
        Err(CommandError::Failed { command, ending, stderr_tail })
    }

    /// Waits without the lock first, so that a canceller can signal meanwhile; the number stays ours until `wait`.
    fn wait(&mut self) -> io::Result<ExitStatus> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(self.shared.pid), options), Err(Errno::INTR)) {}
        let mut reaped = lock(&self.shared.reaped);
        let status = self.child.wait()?;
        *reaped = true;
        self.ended = true;
        Ok(status)
    }

    /// Ends the thread on standard error and takes what it kept.
    fn stderr_tail(&mut self) -> String {
        if let Some(thread) = self.stderr.take() {
            let start = Instant::now();
            while !thread.is_finished() && start.elapsed() < STDERR_GRACE {
                thread::sleep(Duration::from_millis(1));
            }
            let _ = rustix::io::write(&self.shared.stop_stderr, &1u64.to_le_bytes());
            let _ = thread.join();
        }
        String::from_utf8_lossy(&lock(&self.shared.tail)).into_owned()
    }
}

impl Read for RunningCommand {
    /// Blocks until there is output. The end is the end of the output: the command may still run.
    ///
    /// # Errors
    /// `BrokenPipe` after the command was cancelled: never a clean end.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(stdout) = &self.stdout else { return Ok(0) };
        match read_unless(stdout, &self.shared.stop_reading, buf)? {
            None => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the command was cancelled")),
            Some(read) => {
                self.at_end |= read == 0 && !buf.is_empty();
                Ok(read)
            }
        }
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        if !self.ended {
            self.stdout = None;
            self.shared.kill_group();
            let _ = self.wait();
        }
        self.stderr_tail();
        self.keep_alive = None;
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Our own standard input as a stream.
#[derive(Debug)]
pub struct StdinStream {
    fd: OwnedFd,
}

impl StdinStream {
    /// Takes standard input, which nothing else should read from then on; a pipe is enlarged to 1 MiB if allowed.
    pub fn open() -> io::Result<Self> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        let _ = fcntl_setpipe_size(&fd, PIPE_BYTES);
        Ok(Self { fd })
    }
}

impl Read for StdinStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
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
