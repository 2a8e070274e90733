//! Child processes. Each is started without a terminal in a separate session. The end of its
//! standard error is kept. It is ended together with its process group.
//!
//! One thread keeps the tail of standard error. Another thread starts the child and then lives as
//! long as the child is needed, since the kernel's parent death signal refers to the *thread* that
//! forked. Waiting for a child's pipes can be cancelled from any thread, even while a grandchild in
//! another session holds them open.
//!
//! A child without a pipe ([`ChildPipe::Neither`]) may leave a process running, such as a service that
//! it started. It gets no pipe of ours at all, not even for standard error: we would wait for any
//! process that holds the pipe, or SIGPIPE would kill that process at its next write after we have
//! exited.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process_group,
    set_parent_process_death_signal, setsid, waitid,
};

use super::shown::{masked_output, shown};
use crate::types::{at_most, to_u64};

/// Requested size of the pipe to or from the child: a larger pipe means fewer context switches. The
/// kernel refuses sizes above the user's limit and keeps the default of 64 KiB.
pub const PIPE_BYTES: usize = 1 << 20;
/// Bytes kept from the end of standard error.
pub const STDERR_TAIL_BYTES: usize = 8 << 10;
/// Time between SIGTERM and SIGKILL for a cancelled command.
pub const TERM_GRACE: Duration = Duration::from_secs(2);
/// Time to wait for the end of standard error after the child has ended: a grandchild may hold it
/// open.
const STDERR_GRACE: Duration = Duration::from_millis(500);
/// Time between two checks whether a signalled child has ended.
const EXIT_POLL: Duration = Duration::from_millis(10);
/// Time between two checks of the stop condition in [`watched`].
const STOP_POLL: Duration = Duration::from_millis(100);

/// Options for running a command.
#[derive(Debug, Clone, Default)]
pub struct SpawnOptions {
    /// Names of environment variables that the command does not get, because they hold our own
    /// secrets.
    pub env_remove: Vec<String>,
    /// Variables that the command gets in addition to ours.
    pub env: Vec<(String, OsString)>,
}

/// How a failed command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEnding {
    /// It exited with this code, not 0.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl std::fmt::Display for ChildEnding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Why a command failed. `command` is its words with secrets masked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The words cannot be split (an open quote).
    #[error("cannot parse the command: a quote is not closed")]
    Words,
    /// The command is written for a shell.
    #[error("'{0}' needs a shell, and the command runs without one: write sh -c 'COMMAND'")]
    Shell(String),
    /// The command has no words.
    #[error("the command is empty")]
    Empty,
    /// There is no such program.
    #[error("command not found: {program}")]
    NotFound { program: String },
    /// The program could not be started.
    #[error("cannot start {command}")]
    Start { command: String, source: io::Error },
    /// The program ended with a failure.
    #[error("{command} failed with {ending}{}", stderr_text(.stderr_tail))]
    Failed {
        command: String,
        ending: ChildEnding,
        stderr_tail: String,
    },
    /// We killed it.
    #[error("{command} was cancelled")]
    Cancelled { command: String },
    /// `finish` was called before the output was read to the end, so the data read is not the whole
    /// stream.
    #[error("the output of {command} was not read to its end")]
    NotDrained { command: String },
    /// It succeeded, but ended before it read all of its input.
    #[error("{command} exited before it read all of its input")]
    NotTaken { command: String },
    /// The system did not return how it ended.
    #[error("cannot wait for {command}")]
    Wait { command: String, source: io::Error },
}

fn stderr_text(tail: &str) -> String {
    let tail = tail.trim_end();
    if tail.is_empty() {
        String::new()
    } else {
        format!("; stderr: {tail}")
    }
}

/// The child's stream that is a pipe to us. Other streams are `/dev/null`, except standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildPipe {
    /// We read its standard output.
    Output,
    /// We write its standard input.
    Input,
    /// There is no pipe; we only wait for the exit.
    Neither,
}

/// A running child. Dropping it kills it and its process group.
#[derive(Debug)]
pub struct ChildProcess {
    words: Vec<String>,
    /// The words for messages, with secrets masked.
    command: String,
    child: Child,
    stdout: Option<ChildStdout>,
    stdin: Option<ChildStdin>,
    shared: Arc<ChildShared>,
    stderr: Option<JoinHandle<()>>,
    /// File for standard error if there is no pipe for it.
    stderr_file: Option<File>,
    keep_alive: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
    ended: bool,
}

impl ChildProcess {
    /// Starts a program with its arguments; no shell is involved.
    pub fn start(
        words: &[String],
        options: &SpawnOptions,
        pipe: ChildPipe,
    ) -> Result<Self, CommandError> {
        let Some(program) = words.first().filter(|program| !program.is_empty()) else {
            return Err(CommandError::Empty);
        };
        let command = shown(words);
        let failed = |source| CommandError::Start {
            command: command.clone(),
            source,
        };

        let (keep_alive, until) = mpsc::channel::<()>();
        let stderr_file = (pipe == ChildPipe::Neither)
            .then(unlinked_file)
            .transpose()
            .map_err(failed)?;
        let (mut child, keeper) = fork(words, options, pipe, stderr_file.as_ref(), until).map_err(
            |source| match source.kind() {
                io::ErrorKind::NotFound => CommandError::NotFound {
                    program: program.clone(),
                },
                _ => failed(source),
            },
        )?;

        let stdout = child.stdout.take();
        let stdin = child.stdin.take();
        let stderr = child.stderr.take();
        let is_piped = is_piped(pipe, stdout.as_ref(), stdin.as_ref())
            && stderr.is_some() == stderr_file.is_none();
        let (Ok(shared), true) = (ChildShared::new(&child), is_piped) else {
            // Only the handle is known. Its pipe is closed, so it will not run for long.
            let _ = child.kill();
            let _ = child.wait();
            return Err(failed(io::Error::other("its pipes are missing")));
        };

        let shared = Arc::new(shared);
        let mut process = Self {
            words: words.to_vec(),
            command: command.clone(),
            child,
            stdout,
            stdin,
            shared: Arc::clone(&shared),
            stderr: None,
            stderr_file,
            keep_alive: Some(keep_alive),
            keeper: Some(keeper),
            ended: false,
        };
        // From here on dropping `process` ends the child.
        if let Some(stderr) = stderr {
            let keeping = thread::Builder::new().name("command-stderr".to_owned());
            process.stderr = Some(
                keeping
                    .spawn(move || keep_tail(stderr, &shared))
                    .map_err(failed)?,
            );
        }

        Ok(process)
    }

    /// Returns the words for messages, with secrets masked.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Returns a handle to end the child from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Returns true once the child was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::SeqCst)
    }

    /// Blocks until there is output; 0 means the end.
    ///
    /// # Errors
    /// `BrokenPipe` after the child was cancelled; a cancelled child never reports a clean end.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(stdout) = &self.stdout else {
            return Ok(0);
        };
        read_unless(stdout, &self.shared.stop_pipe, buf)?.ok_or_else(cancelled)
    }

    /// Blocks until the child accepts some bytes.
    ///
    /// # Errors
    /// `BrokenPipe` once the child has closed its input, or was cancelled.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stdin) = &self.stdin else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        write_unless(stdin, &self.shared.stop_pipe, bytes)?.ok_or_else(cancelled)
    }

    /// Closes the pipe and waits for the child to exit, without a time limit; cancelling ends the
    /// wait. Processes that the child left running are not touched. Returns the end of its standard
    /// error, with secrets masked.
    ///
    /// # Errors
    /// Any exit other than code 0.
    pub fn finish(mut self) -> Result<String, CommandError> {
        self.stdout = None;
        self.stdin = None;
        let command = self.command.clone();
        let status = self.wait().map_err(|source| CommandError::Wait {
            command: command.clone(),
            source,
        })?;
        // Programs repeat addresses and settings in their error messages.
        let stderr_tail = masked_output(&self.stderr_tail(), &self.words);
        if self.is_cancelled() {
            return Err(CommandError::Cancelled { command });
        }

        let ending = match (status.code(), status.signal()) {
            (Some(0), _) => return Ok(stderr_tail),
            (Some(code), _) => ChildEnding::Code(code),
            (None, signal) => ChildEnding::Signal(signal.unwrap_or(0)),
        };

        Err(CommandError::Failed {
            command,
            ending,
            stderr_tail,
        })
    }

    /// Waits first without the lock, so that a canceller can send signals in the meantime. The
    /// process id stays ours until `wait`.
    fn wait(&mut self) -> io::Result<ExitStatus> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(
            waitid(WaitId::Pid(self.shared.pid), options),
            Err(Errno::INTR)
        ) {}
        let mut reaped = lock(&self.shared.reaped);
        let status = self.child.wait()?;
        *reaped = true;
        self.ended = true;
        Ok(status)
    }

    /// Ends the thread that reads standard error and returns the kept bytes, or reads them from the
    /// file.
    fn stderr_tail(&mut self) -> String {
        if let Some(file) = self.stderr_file.take() {
            // The text only explains a failure, so an error here is ignored.
            return String::from_utf8_lossy(&end_of(&file).unwrap_or_default()).into_owned();
        }
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

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if !self.ended {
            self.stdout = None;
            self.stdin = None;
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

fn cancelled() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the command was cancelled")
}

/// Configures the child's pipe. Returns false if it is missing or cannot be configured.
fn is_piped(pipe: ChildPipe, stdout: Option<&ChildStdout>, stdin: Option<&ChildStdin>) -> bool {
    match pipe {
        ChildPipe::Output => stdout
            .map(|fd| fcntl_setpipe_size(fd, PIPE_BYTES))
            .is_some(),
        ChildPipe::Input => stdin.is_some_and(|fd| {
            let _ = fcntl_setpipe_size(fd, PIPE_BYTES);
            // A write must not block in a place where it cannot be cancelled.
            rustix::io::ioctl_fionbio(fd, true).is_ok()
        }),
        ChildPipe::Neither => true,
    }
}

/// Creates an unnamed file that disappears with its last handle. It is in memory if no directory
/// supports such files.
fn unlinked_file() -> io::Result<File> {
    // Appending: after the file was truncated, a process that still writes continues at the new
    // end.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::APPEND | OFlags::CLOEXEC;
    let directories = ["/var/tmp", "/tmp"].into_iter();
    let file = directories
        .filter_map(|directory| rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR).ok())
        .next();
    match file {
        Some(file) => Ok(file.into()),
        None => Ok(rustix::fs::memfd_create("stderr", MemfdFlags::CLOEXEC)?.into()),
    }
}

/// Returns the end of a file and truncates it. Output of processes that still write to it is not
/// read any more.
fn end_of(file: &File) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    let kept = at_most(len, STDERR_TAIL_BYTES);
    let mut tail = vec![0; kept];
    file.read_exact_at(&mut tail, len - to_u64(kept))?;
    file.set_len(0)?;
    Ok(tail)
}

/// Starts the child from a thread that ends only when the sender of `until` is dropped.
fn fork(
    words: &[String],
    options: &SpawnOptions,
    pipe: ChildPipe,
    stderr: Option<&File>,
    until: mpsc::Receiver<()>,
) -> io::Result<(Child, JoinHandle<()>)> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    match pipe {
        ChildPipe::Output => command.stdin(Stdio::null()).stdout(Stdio::piped()),
        ChildPipe::Input => command.stdin(Stdio::piped()).stdout(Stdio::null()),
        ChildPipe::Neither => command.stdin(Stdio::null()).stdout(Stdio::null()),
    };
    command.stderr(match stderr {
        Some(file) => file.try_clone()?.into(),
        None => Stdio::piped(),
    });

    for name in &options.env_remove {
        command.env_remove(name);
    }
    command.envs(options.env.iter().map(|(name, value)| (name, value)));
    lead_own_session(&mut command);

    let (send, receive) = mpsc::channel();
    let keeper = thread::Builder::new()
        .name("command-keeper".to_owned())
        .spawn(move || {
            let child = command.spawn();
            let started = child.is_ok();
            if send.send(child).is_ok() && started {
                // Nothing is ever sent: this waits until the other side drops the sender.
                let _ = until.recv();
            }
        })?;
    let child = receive
        .recv()
        .map_err(|_| io::Error::other("the starting thread ended"))??;

    Ok((child, keeper))
}

/// Makes the child the leader of a new session, and ends it with the thread that starts it.
#[expect(
    unsafe_code,
    reason = "std has no stable way to call setsid in the child"
)]
fn lead_own_session(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in the child between fork and exec, where other threads' locks may
    // be held forever, so it may do only async-signal-safe work. It makes three system calls
    // (setsid, prctl, getppid) through rustix, which wraps each in a function that neither
    // allocates nor locks nor touches shared state; the errors are plain numbers, and turning one
    // into `io::Error` by `from_raw_os_error` does not allocate. It captures one `Copy` number,
    // borrows nothing, and cannot panic.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            set_parent_process_death_signal(Some(Signal::TERM))?;
            // Our process may have died before the line above; then no signal will arrive.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(Errno::SRCH.into())
            }
        });
    }
}

/// State shared by the reader, the thread for standard error and cancellers.
#[derive(Debug)]
struct ChildShared {
    pid: Pid,
    /// Readable once all waiting must end.
    stop_pipe: OwnedFd,
    /// Like `stop_pipe`, for standard error alone.
    stop_stderr: OwnedFd,
    cancelled: AtomicBool,
    /// True once the child was waited for: another process may then have its id. Signals are sent
    /// with the lock held.
    reaped: Mutex<bool>,
    tail: Mutex<Vec<u8>>,
}

impl ChildShared {
    fn new(child: &Child) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self {
            pid: pid.ok_or_else(|| io::Error::other("the child has no number"))?,
            stop_pipe: eventfd(0, flags)?,
            stop_stderr: eventfd(0, flags)?,
            cancelled: AtomicBool::new(false),
            reaped: Mutex::new(false),
            tail: Mutex::new(Vec::new()),
        })
    }

    /// Signals the whole process group. Returns false, without a signal, if the child was already
    /// waited for.
    fn signal(&self, signal: Signal) -> bool {
        let reaped = lock(&self.reaped);
        if !*reaped {
            // An error means that the group is already gone.
            let _ = kill_process_group(self.pid, signal);
        }
        !*reaped
    }

    /// Returns true once the child itself has ended, waited for or not.
    fn has_ended(&self) -> bool {
        let reaped = lock(&self.reaped);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        *reaped
            || !matches!(
                waitid(WaitId::Pid(self.pid), options),
                Ok(None) | Err(Errno::INTR)
            )
    }

    fn kill_group(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.stop_pipe, &1u64.to_le_bytes());
        // A stopped process handles SIGTERM only after it continues.
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

/// Waits until `fd` is ready for `what`. Returns false if `stop` becomes readable first.
fn ready_unless(fd: impl AsFd, what: PollFlags, stop: &OwnedFd) -> io::Result<bool> {
    loop {
        let mut fds = [PollFd::new(&fd, what), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => return Ok(fds[1].revents().is_empty()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads from `fd` as soon as there is data. Returns `None` if `stop` becomes readable first.
fn read_unless(fd: impl AsFd, stop: &OwnedFd, buf: &mut [u8]) -> io::Result<Option<usize>> {
    while ready_unless(&fd, PollFlags::IN, stop)? {
        match rustix::io::read(&fd, &mut *buf) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => return Ok(Some(other?)),
        }
    }
    Ok(None)
}

/// Writes to `fd`, which must be non-blocking, as soon as it accepts data. Returns `None` if `stop`
/// becomes readable first.
fn write_unless(fd: impl AsFd, stop: &OwnedFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    while ready_unless(&fd, PollFlags::OUT, stop)? {
        match rustix::io::write(&fd, bytes) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => return Ok(Some(other?)),
        }
    }
    Ok(None)
}

/// Keeps the end of standard error until it is closed or the wait for it is over.
fn keep_tail(stderr: impl AsFd, shared: &ChildShared) {
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
    shared: Arc<ChildShared>,
}

impl Canceller {
    /// Makes reads and writes of the command's pipe fail immediately (`BrokenPipe`) and sends
    /// SIGTERM to its process group. After 2 s, or as soon as the child has ended, sends SIGKILL to
    /// the rest of the group. Takes up to 2 s. A command that was already waited for is not
    /// signalled.
    pub fn kill_group(&self) {
        self.shared.kill_group();
    }
}

/// Runs `work` while another thread checks `stop`. If `stop` returns true, ends the command with
/// its whole group.
pub fn watched<T>(
    canceller: &Canceller,
    stop: &(dyn Fn() -> bool + Sync),
    work: impl FnOnce() -> T,
) -> T {
    let (done, over) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = over.recv_timeout(STOP_POLL) {
                if stop() {
                    canceller.kill_group();
                    return;
                }
            }
        });
        let worked = work();
        drop(done);
        worked
    })
}
