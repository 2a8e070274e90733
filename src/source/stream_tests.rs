//! Tests of commands, with real processes and short times.

use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::sys::{ChildEnding, STDERR_TAIL_BYTES, TERM_GRACE};

fn run(words: &str) -> Result<(Vec<u8>, ExitReport), CommandError> {
    let mut running = StreamCommand::parse(words)?.spawn(&SpawnOptions::default())?;
    let mut out = Vec::new();
    running.read_to_end(&mut out).expect("read");
    running.finish().map(|report| (out, report))
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn gone_within(pid: i32, limit: Duration) -> bool {
    let start = Instant::now();
    while is_alive(pid) {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Returns the first line of output, a process id.
fn first_number(running: &mut RunningCommand) -> i32 {
    let mut line = String::new();
    let mut byte = [0];
    while running.read(&mut byte).expect("read") == 1 && byte[0] != b'\n' {
        line.push(char::from(byte[0]));
    }
    line.trim().parse().expect("a number")
}

#[test]
fn output_and_stderr_come_whole() {
    let (out, report) =
        run("sh -c 'printf one; echo warn >&2; printf \"two\\r\\n\\0\"'").expect("exit 0");
    assert_eq!(out, b"onetwo\r\n\0");
    assert_eq!(report.stderr_tail, "warn\n");
    let (out, _) = run("head -c 5000000 /dev/zero").expect("exit 0");
    assert_eq!(out.len(), 5_000_000);
}

#[test]
fn words_are_split_as_a_shell_does_and_no_shell_runs() {
    let (out, _) = run("printf %s 'a b;$HOME|*'").expect("exit 0");
    assert_eq!(out, b"a b;$HOME|*");
    assert!(matches!(
        StreamCommand::parse("'open"),
        Err(CommandError::Words)
    ));
    assert!(matches!(
        StreamCommand::parse("  "),
        Err(CommandError::Empty)
    ));
}

#[test]
fn failures_name_the_cause_and_hide_secrets() {
    let error =
        run("sh -c 'echo out; echo why >&2; exit 3' --password=hunter2").expect_err("exit 3");
    let text = error.to_string();
    assert!(
        text.contains("exit code 3") && text.contains("why") && !text.contains("hunter2"),
        "{text}"
    );
    assert!(matches!(
        run("sh -c 'kill -9 $$'"),
        Err(CommandError::Failed {
            ending: ChildEnding::Signal(9),
            ..
        })
    ));
    match run("no-such-program-here arg") {
        Err(CommandError::NotFound { program }) => assert_eq!(program, "no-such-program-here"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        run("/etc/passwd"),
        Err(CommandError::Start { .. })
    ));
}

#[test]
fn only_the_end_of_stderr_is_kept_and_a_flood_does_not_block() {
    let (_, report) =
        run("sh -c 'head -c 3000000 /dev/zero | tr \"\\0\" x >&2; echo end >&2'").expect("exit 0");
    assert_eq!(report.stderr_tail.len(), STDERR_TAIL_BYTES);
    assert!(report.stderr_tail.ends_with("xend\n"));
}

#[test]
fn the_command_has_no_terminal_no_input_and_no_secrets() {
    let options = SpawnOptions {
        env_remove: vec!["PATH".to_owned()],
        env: Vec::new(),
    };
    let script = "cat; echo ${PATH-unset}; (: </dev/tty) 2>/dev/null || echo no-tty; \
                  read -r _ _ _ _ pgrp session _ </proc/$$/stat; [ $pgrp = $$ ] && [ $session = $$ ] && echo leads";
    // A shell without PATH sets a default of its own; `env` shows the inherited environment.
    let words = vec![
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        script.replace("cat;", "/bin/cat;"),
    ];
    let mut running = StreamCommand::from_words(words)
        .expect("words")
        .spawn(&options)
        .expect("started");
    let mut out = String::new();
    running.read_to_string(&mut out).expect("read");
    running.finish().expect("exit 0");
    assert!(out.contains("no-tty") && out.ends_with("leads\n"), "{out}");

    let command = StreamCommand::parse("/usr/bin/env").expect("words");
    let mut running = command.spawn(&options).expect("started");
    let mut out = String::new();
    running.read_to_string(&mut out).expect("read");
    running.finish().expect("exit 0");
    assert!(!out.lines().any(|line| line.starts_with("PATH=")), "{out}");
}

#[test]
fn the_end_of_output_is_not_the_end_of_the_command() {
    let start = Instant::now();
    let error = run("sh -c 'echo x; exec >&-; sleep 0.3; exit 7'").expect_err("exit 7");
    assert!(matches!(
        error,
        CommandError::Failed {
            ending: ChildEnding::Code(7),
            ..
        }
    ));
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn output_that_was_not_read_to_its_end_is_an_error() {
    let mut running = StreamCommand::parse("echo hello")
        .and_then(|command| command.spawn(&SpawnOptions::default()))
        .expect("started");
    running.read_exact(&mut [0; 5]).expect("read");
    assert!(matches!(
        running.finish(),
        Err(CommandError::NotDrained { .. })
    ));
}

#[test]
fn dropping_ends_the_whole_group() {
    let mut running = StreamCommand::parse("sh -c 'sleep 100 & echo $!; wait'")
        .and_then(|command| command.spawn(&SpawnOptions::default()))
        .expect("started");
    let grandchild = first_number(&mut running);
    assert!(is_alive(grandchild));
    drop(running);
    assert!(gone_within(grandchild, Duration::from_secs(5)));
}

#[test]
fn cancelling_wakes_a_reader_whom_an_escaped_grandchild_holds() {
    // The grandchild leads a separate session and keeps the output open, so the death of the group
    // does not close it.
    let mut running = StreamCommand::parse("sh -c 'setsid sleep 20 & echo $!; wait'")
        .and_then(|command| command.spawn(&SpawnOptions::default()))
        .expect("started");
    first_number(&mut running);
    let canceller = running.canceller();
    let start = Instant::now();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        canceller.kill_group();
    });
    let error = running
        .read(&mut [0; 10])
        .expect_err("cancelled, not ended");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    assert!(matches!(
        running.finish(),
        Err(CommandError::Cancelled { .. })
    ));
    thread.join().expect("joined");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_command_that_ignores_sigterm_is_killed_after_the_grace() {
    let mut running =
        StreamCommand::parse("sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.05; done'")
            .and_then(|command| command.spawn(&SpawnOptions::default()))
            .expect("started");
    let pid = first_number(&mut running);
    let start = Instant::now();
    running.kill_group();
    assert!(start.elapsed() >= TERM_GRACE);
    assert!(gone_within(pid, Duration::from_secs(5)));
    assert!(matches!(
        running.finish(),
        Err(CommandError::Cancelled { .. })
    ));
}

#[test]
fn a_command_outlives_the_thread_that_started_it() {
    let mut running = thread::spawn(|| {
        StreamCommand::parse("sh -c 'sleep 0.3; echo done'")
            .and_then(|command| command.spawn(&SpawnOptions::default()))
            .expect("started")
    })
    .join()
    .expect("joined");
    let mut out = String::new();
    running.read_to_string(&mut out).expect("read");
    assert_eq!(out, "done\n");
    running.finish().expect("exit 0");
}

/// Runs a command to its end in a separate thread. Returns `None` if it still runs after a minute.
fn run_to_end(words: &[&str], stop: fn() -> bool) -> Option<Result<(), CommandError>> {
    let words = words.iter().map(|&word| word.to_owned()).collect();
    let command = StreamCommand::from_words(words).expect("words");
    let (send, receive) = std::sync::mpsc::channel();
    thread::spawn(move || send.send(command.run_to_end(&SpawnOptions::default(), &stop)));
    receive.recv_timeout(Duration::from_secs(60)).ok()
}

fn appears(path: &std::path::Path) -> bool {
    let start = Instant::now();
    while !path.exists() && start.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(5));
    }
    path.exists()
}

/// A hook that starts a service. The service keeps the hook's output open as long as it lives.
#[test]
fn a_process_left_by_a_hook_is_not_awaited_and_can_write() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path().to_str().expect("text");
    // The service writes its line only after the wait for the hook, and creates a file if it
    // survives that.
    let script =
        "(while [ -d $1 ] && ! [ -e $1/go ]; do sleep 0.02; done; echo late; echo late >&2; : >$1/wrote) &
        echo why >&2; exit $2";
    let ended = run_to_end(&["sh", "-c", script, "sh", at, "0"], || false);
    assert!(matches!(ended, Some(Ok(()))), "{ended:?}");
    std::fs::write(directory.path().join("go"), b"").expect("written");
    assert!(
        appears(&directory.path().join("wrote")),
        "it was killed by what it wrote"
    );

    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path().to_str().expect("text");
    match run_to_end(&["sh", "-c", script, "sh", at, "7"], || false) {
        Some(Err(CommandError::Failed {
            ending: ChildEnding::Code(7),
            stderr_tail,
            ..
        })) => {
            assert_eq!(stderr_tail, "why\n");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hook_keeps_its_stderr_tail_and_can_be_cancelled() {
    let flood = "head -c 3000000 /dev/zero | tr '\\0' x >&2; head -c 3000000 /dev/zero; echo end >&2; exit 3";
    match run_to_end(&["sh", "-c", flood], || false) {
        Some(Err(CommandError::Failed { stderr_tail, .. })) => {
            assert_eq!(stderr_tail.len(), STDERR_TAIL_BYTES);
            assert!(stderr_tail.ends_with("xend\n"));
        }
        other => panic!("{other:?}"),
    }
    let stopped = run_to_end(&["sleep", "1000"], || true);
    assert!(
        matches!(stopped, Some(Err(CommandError::Cancelled { .. }))),
        "{stopped:?}"
    );
}

/// A read of standard input used to block until input came, so it could not be cancelled.
#[test]
fn reading_standard_input_without_data_does_not_block() {
    let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let mut input = StdinStream { fd: from };
    let mut buf = [0; 8];
    let err = input.read(&mut buf).expect_err("nothing came");
    assert_eq!(err.kind(), io::ErrorKind::WouldBlock);
    rustix::io::write(&to, b"some").expect("written");
    assert_eq!(input.read(&mut buf).expect("read"), 4);
    drop(to);
    // A child process of another test may hold the other end until it has called exec.
    let mut answers = std::iter::repeat_with(|| input.read(&mut buf));
    let end = answers
        .find(|answer| !matches!(answer, Err(err) if err.kind() == io::ErrorKind::WouldBlock));
    assert_eq!(end.expect("without end").expect("the end"), 0);
}

/// A closed descriptor used to read as an empty stream, which was stored as a dump of no bytes.
#[test]
fn standard_input_must_be_something_to_read() {
    let open = |path: &str, write: bool| {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(write)
            .open(path)
            .expect("opens");
        StdinStream::of(file.into())
    };
    let is_bad_handle = |opened: Result<StdinStream, StdinError>| {
        let bad = io::Error::from(Errno::BADF).kind();
        matches!(opened, Err(StdinError::Io(err)) if err.kind() == bad)
    };
    let directory = tempfile::tempdir().expect("a directory");
    let written = std::fs::File::create(directory.path().join("file")).expect("made");

    assert!(
        is_bad_handle(open("/dev/null", true)),
        "what stands for a closed descriptor"
    );
    assert!(is_bad_handle(StdinStream::of(written.into())));
    assert!(matches!(
        open(&directory.path().display().to_string(), false),
        Err(StdinError::Directory)
    ));
    let terminal = open("/dev/ptmx", true).expect_err("a terminal");
    assert!(matches!(terminal, StdinError::Terminal), "{terminal}");
    assert_eq!(terminal.advice(), Some(Advice::Node(NodeAdvice::PipeDump)));

    assert!(
        open("/dev/null", false).is_ok(),
        "empty, which is for the caller to judge"
    );
    assert!(open(&directory.path().join("file").display().to_string(), true).is_ok());
    let (from, _to) = rustix::pipe::pipe().expect("a pipe");
    assert!(StdinStream::of(from).is_ok());
}
