//! Child processes: started without a terminal in a session of their own, the end of what they say
//! on standard error kept, ended with all their group.
//!
//! One thread keeps the end of what comes on standard error; one thread starts the child and then
//! lives as long as it is needed, since the kernel's "die with your parent" means the *thread* that
//! forked. Waiting for a child's pipes can be cancelled from any thread, even while a grandchild in
//! another session holds them open.
//!
//! A child without a pipe ([`Pipe::Neither`]) is one that may leave a process behind, such as a
//! service that it started: it has no pipe of ours at all, standard error included, for whoever
//! holds one would be waited for, or be killed by SIGPIPE at the next line that it writes once we
//! are gone.

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

/// Wanted size of the pipe to or from the child: fewer switches between it and us. More than the
/// user's limit is refused by the kernel, which leaves the default of 64 KiB.
pub const PIPE_BYTES: usize = 1 << 20;
/// How much of the end of standard error is kept.
pub const STDERR_TAIL_BYTES: usize = 8 << 10;
/// How long a cancelled command has between SIGTERM and SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long the end of standard error is waited for after the child ended: a grandchild may hold it
/// open.
const STDERR_GRACE: Duration = Duration::from_millis(500);
/// Between two looks whether a signalled child has ended.
const EXIT_POLL: Duration = Duration::from_millis(10);
/// Between two looks whether to stop, of [`watched`].
const STOP_POLL: Duration = Duration::from_millis(100);

/// How a command is run.
#[derive(Debug, Clone, Default)]
pub struct SpawnOptions {
    /// Names of environment variables that the command does not get: those that hold our own
    /// secrets.
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

/// Why a command did not do its work. `command` is its words with secrets masked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The words cannot be split (an open quote).
    #[error("the command's words cannot be split: a quote is not closed")]
    Words,
    /// It is written for a shell.
    #[error(
        "'{0}' is understood by a shell only, and none runs the command: write sh -c 'COMMAND'"
    )]
    Shell(String),
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
    Failed {
        command: String,
        ending: Ending,
        stderr_tail: String,
    },
    /// We killed it.
    #[error("{command} was cancelled")]
    Cancelled { command: String },
    /// `finish` was called before its output was read to the end: what was read is not the whole
    /// stream.
    #[error("the output of {command} was not read to its end")]
    NotDrained { command: String },
    /// It ended well, but before it took all that was written to it.
    #[error("{command} ended before it took all of its input")]
    NotTaken { command: String },
    /// The system would not say how it ended.
    #[error("cannot wait for {command}")]
    Wait { command: String, source: io::Error },
}

fn stderr_text(tail: &str) -> String {
    let tail = tail.trim_end();
    if tail.is_empty() {
        String::new()
    } else {
        format!("; it said: {tail}")
    }
}

/// Which of a child's ends is a pipe to us. Without it standard input is empty and output goes
/// nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipe {
    /// We read its standard output.
    Output,
    /// We write its standard input.
    Input,
    /// None is: only its exit is waited for.
    Neither,
}

/// A child under way. Dropping it kills it and its process group.
#[derive(Debug)]
pub struct ChildProcess {
    words: Vec<String>,
    /// The words for people, secrets masked.
    command: String,
    child: Child,
    stdout: Option<ChildStdout>,
    stdin: Option<ChildStdin>,
    shared: Arc<Shared>,
    stderr: Option<JoinHandle<()>>,
    /// Where it writes its standard error if there is no pipe for that.
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
        pipe: Pipe,
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
        let stderr_file = (pipe == Pipe::Neither)
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
        let (stdout, stdin, stderr) =
            (child.stdout.take(), child.stdin.take(), child.stderr.take());
        let is_piped = is_piped(pipe, stdout.as_ref(), stdin.as_ref())
            && stderr.is_some() == stderr_file.is_none();
        let (Ok(shared), true) = (Shared::new(&child), is_piped) else {
            // Nothing is known of it but the handle; its pipe is closed, so it will not last.
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

    /// The words for people, secrets masked.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// A handle to end the child from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            shared: Arc::clone(&self.shared),
        }
    }

    /// True once somebody ended it.
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::SeqCst)
    }

    /// Blocks until there is output; 0 is its end.
    ///
    /// # Errors
    /// `BrokenPipe` after the child was cancelled: never a clean end.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(stdout) = &self.stdout else {
            return Ok(0);
        };
        read_unless(stdout, &self.shared.stop_pipe, buf)?.ok_or_else(cancelled)
    }

    /// Blocks until the child takes something.
    ///
    /// # Errors
    /// `BrokenPipe` once the child has closed its input, or was cancelled.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(stdin) = &self.stdin else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        write_unless(stdin, &self.shared.stop_pipe, bytes)?.ok_or_else(cancelled)
    }

    /// Closes the pipe and waits for the child to exit, which may take as long as it likes;
    /// cancelling ends the wait. Processes that it left behind are left alone. Returns the end of
    /// what it said on standard error, secrets masked.
    ///
    /// # Errors
    /// Anything but exit code 0.
    pub fn finish(mut self) -> Result<String, CommandError> {
        self.stdout = None;
        self.stdin = None;
        let command = self.command.clone();
        let status = self.wait().map_err(|source| CommandError::Wait {
            command: command.clone(),
            source,
        })?;
        // Programs repeat their addresses and settings in what they complain of.
        let stderr_tail = masked_output(&self.stderr_tail(), &self.words);
        if self.is_cancelled() {
            return Err(CommandError::Cancelled { command });
        }
        let ending = match (status.code(), status.signal()) {
            (Some(0), _) => return Ok(stderr_tail),
            (Some(code), _) => Ending::Code(code),
            (None, signal) => Ending::Signal(signal.unwrap_or(0)),
        };
        Err(CommandError::Failed {
            command,
            ending,
            stderr_tail,
        })
    }

    /// Waits without the lock first, so that a canceller can signal meanwhile; the number stays
    /// ours until `wait`.
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

    /// Ends the thread on standard error and takes what it kept; or takes it from the file.
    fn stderr_tail(&mut self) -> String {
        if let Some(file) = self.stderr_file.take() {
            // It explains a failure; without it there is one all the same.
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

/// True if the pipe is there and as it must be.
fn is_piped(pipe: Pipe, stdout: Option<&ChildStdout>, stdin: Option<&ChildStdin>) -> bool {
    match pipe {
        Pipe::Output => stdout
            .map(|fd| fcntl_setpipe_size(fd, PIPE_BYTES))
            .is_some(),
        Pipe::Input => stdin.is_some_and(|fd| {
            let _ = fcntl_setpipe_size(fd, PIPE_BYTES);
            // A write must not wait where it cannot be cancelled.
            rustix::io::ioctl_fionbio(fd, true).is_ok()
        }),
        Pipe::Neither => true,
    }
}

/// A file without a name, which goes with the last handle on it. In memory where no directory gives
/// one.
fn unlinked_file() -> io::Result<File> {
    // Appending: what goes on writing begins anew once the file was emptied.
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

/// The end of what was written to a file, which is emptied: whoever still writes to it is not read
/// any more.
fn end_of(file: &File) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    let kept = len.min(STDERR_TAIL_BYTES as u64);
    let mut tail = vec![0; kept as usize];
    file.read_exact_at(&mut tail, len - kept)?;
    file.set_len(0)?;
    Ok(tail)
}

/// Starts the child from a thread that ends only when `until` is hung up.
fn fork(
    words: &[String],
    options: &SpawnOptions,
    pipe: Pipe,
    stderr: Option<&File>,
    until: mpsc::Receiver<()>,
) -> io::Result<(Child, JoinHandle<()>)> {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    match pipe {
        Pipe::Output => command.stdin(Stdio::null()).stdout(Stdio::piped()),
        Pipe::Input => command.stdin(Stdio::piped()).stdout(Stdio::null()),
        Pipe::Neither => command.stdin(Stdio::null()).stdout(Stdio::null()),
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
                // Nothing is ever sent: this waits for the other side to go.
                let _ = until.recv();
            }
        })?;
    let child = receive
        .recv()
        .map_err(|_| io::Error::other("the starting thread ended"))??;
    Ok((child, keeper))
}

/// Makes the child the leader of a session of its own that ends with the thread that starts it.
#[expect(
    unsafe_code,
    reason = "std has no stable way to call setsid in the child"
)]
fn lead_own_session(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in the child between fork and exec, where other threads' locks may
    // be held for ever, so it may do nothing but async-signal-safe work. It makes three system
    // calls (setsid, prctl, getppid) through rustix, which wraps each in a function that neither
    // allocates nor locks nor touches shared state; the errors are plain numbers, and turning one
    // into `io::Error` by `from_raw_os_error` does not allocate. It captures one `Copy` number,
    // borrows nothing, and cannot panic.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            set_parent_process_death_signal(Some(Signal::TERM))?;
            // We may have died before the line above: then no signal will come.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(Errno::SRCH.into())
            }
        });
    }
}

/// What the reader, the thread on standard error and cancellers share.
#[derive(Debug)]
struct Shared {
    pid: Pid,
    /// Readable once all waiting is to end.
    stop_pipe: OwnedFd,
    /// As above, for standard error alone.
    stop_stderr: OwnedFd,
    cancelled: AtomicBool,
    /// True once the child was waited for: its number may belong to another process now. Signals
    /// are sent with the lock held.
    reaped: Mutex<bool>,
    tail: Mutex<Vec<u8>>,
}

impl Shared {
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

    /// Signals the whole process group, unless the child was waited for already; false in that
    /// case.
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
        *reaped
            || !matches!(
                waitid(WaitId::Pid(self.pid), options),
                Ok(None) | Err(Errno::INTR)
            )
    }

    fn kill_group(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.stop_pipe, &1u64.to_le_bytes());
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

/// Waits until `fd` is ready for `what`; false if `stop` becomes readable first.
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

/// Reads from `fd` as soon as there is something; none if `stop` becomes readable first.
fn read_unless(fd: impl AsFd, stop: &OwnedFd, buf: &mut [u8]) -> io::Result<Option<usize>> {
    while ready_unless(&fd, PollFlags::IN, stop)? {
        match rustix::io::read(&fd, &mut *buf) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => return Ok(Some(other?)),
        }
    }
    Ok(None)
}

/// Writes to `fd`, which must not block, as soon as it takes something; none if `stop` becomes
/// readable first.
fn write_unless(fd: impl AsFd, stop: &OwnedFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    while ready_unless(&fd, PollFlags::OUT, stop)? {
        match rustix::io::write(&fd, bytes) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            other => return Ok(Some(other?)),
        }
    }
    Ok(None)
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
    /// Makes reads and writes of the command's pipe fail at once (`BrokenPipe`), sends SIGTERM to
    /// its process group and, 2 s later or as soon as the child has ended, SIGKILL to what is left
    /// of the group. Takes up to 2 s. A command that has been waited for is not signalled.
    pub fn kill_group(&self) {
        self.shared.kill_group();
    }
}

/// Does `work` while a thread beside it looks whether to stop, and then ends the command with all
/// its group.
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
