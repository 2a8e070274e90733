//! Captures a stream: a command's output or standard input, cut and hashed on this thread,
//! compressed on all.

mod emptiness;
pub(super) mod ending;

use std::io::{ErrorKind, Read};

use self::emptiness::{StreamSample, empty_file};
use self::ending::{HEAD_BYTES, cut_off};
use crate::Error;
use crate::format::{SourceCounts, SourceKind, SourceRecord};
use crate::observe::{Counter, Severity};
use crate::ops::backup::capture_context::CaptureContext;
use crate::ops::backup::options::{CommandSpec, SourceReport, SourceSpec};
use crate::ops::backup::reader::content::{
    ChunkWriters, ContentBuilder, CutBuffer, CutError, DataSpan,
};
use crate::ops::backup::suspect::suspect_problem;
use crate::repo::{Packer, RepoError};
use crate::source::{ChildEnding, CommandError, RunningCommand, SpawnOptions, watched};
use crate::sys::{masked_output, now};
use crate::types::{ByteSize, ChunkClass, ChunkProfile, Content, to_u64};

/// The last line of a dump is searched in this many bytes ([R29](docs/protocol.md#r29)): it is near
/// the end, but not always last.
const TAIL_BYTES: usize = 4096;
/// Bytes of the output that are quoted to explain a failure.
const EXPLANATION_BYTES: usize = 512;

/// Without a limit of its own, a stream is suspect below this share of the last good one.
pub const SMALLEST_STREAM: f64 = 0.1;
/// Smaller streams have no default limit: they are lists and texts that vary.
const MEASURED_BYTES_MIN: u64 = 64 << 10;

/// The first and the last bytes that were read.
struct StreamTail {
    bytes: Vec<u8>,
    head: Vec<u8>,
    /// Only zeros were read so far.
    is_zeros: bool,
}

impl StreamTail {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            head: Vec::new(),
            is_zeros: true,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.is_zeros = self.is_zeros && bytes.iter().all(|&byte| byte == 0);
        let room = HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        let new = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        let surplus = (self.bytes.len() + new.len()).saturating_sub(TAIL_BYTES);
        self.bytes.drain(..surplus.min(self.bytes.len()));
        self.bytes.extend_from_slice(new);
    }

    /// Adds the output to an error without a message: programs that start others, such as `docker
    /// exec`, report a failed start on standard *output*.
    fn explain(&self, err: CommandError, words: &[String]) -> CommandError {
        match err {
            CommandError::Failed {
                command,
                ending: ChildEnding::Code(code @ (126 | 127)),
                stderr_tail,
            } if stderr_tail.trim().is_empty() => {
                let end = &self.bytes[self.bytes.len().saturating_sub(EXPLANATION_BYTES)..];
                let stderr_tail = masked_output(&String::from_utf8_lossy(end), words);
                CommandError::Failed {
                    command,
                    ending: ChildEnding::Code(code),
                    stderr_tail,
                }
            }
            err => err,
        }
    }

    fn check(&self, name: &str, ends_with: Option<&str>) -> Result<(), Error> {
        let Some(line) = ends_with else { return Ok(()) };
        if self
            .bytes
            .split(|&byte| byte == b'\n')
            .any(|one| one == line.as_bytes())
        {
            return Ok(());
        }
        let why = format!("its output is not whole: the line '{line}' is missing at its end");
        Err(Error::Source {
            name: name.to_owned(),
            why,
        })
    }
}

/// An input that records its first and last bytes.
struct TappedStream<'t, R: ?Sized> {
    input: &'t mut R,
    tail: &'t mut StreamTail,
}

impl<R: Read + ?Sized> Read for TappedStream<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buf)?;
        self.tail.take(&buf[..read]);
        Ok(read)
    }
}

/// Returns why a stream of this size is suspect after one of `last` bytes, if it is. `smallest`:
/// see [`CommandSpec::smallest`].
fn shrunk(size: u64, last: u64, smallest: Option<f64>) -> Option<String> {
    let smallest = match smallest {
        None if last < MEASURED_BYTES_MIN => return None,
        smallest => smallest.unwrap_or(SMALLEST_STREAM),
    };
    ((size as f64) < last as f64 * smallest).then(|| {
        format!(
            "{} is much less than the {} of the last good one",
            ByteSize(size),
            ByteSize(last)
        )
    })
}

impl<'e> CaptureContext<'e> {
    /// Captures a stream.
    ///
    /// If a command does not exit with 0, or its output lacks its last line, the backup fails and
    /// nothing is committed. The same holds for an empty stream, and for the empty file of a
    /// compressor, which a failed dump leaves in a pipe, unless empty sources are allowed.
    /// `baseline`: the size of the last good stream, `None` if any size is accepted.
    pub fn stream(
        &self,
        packer: &Packer<'_, 'e>,
        source: SourceSpec,
        baseline: Option<u64>,
    ) -> Result<(SourceRecord, SourceReport), Error> {
        let started = now();
        let (name, words, content, profile, suspect) = match source {
            SourceSpec::Command(spec) => {
                let CommandSpec {
                    name,
                    run,
                    ends_with,
                    smallest,
                    profile,
                    around: _,
                } = *spec;
                let (command, env) = run.known()?;
                let env_remove = self.options.env_remove.clone();
                let running = command.spawn(&SpawnOptions { env_remove, env })?;

                let mut tail = StreamTail::new();
                let content = self.command(
                    packer,
                    (&name, profile),
                    running,
                    &mut tail,
                    command.words(),
                )?;

                tail.check(&name, ends_with.as_deref())?;
                self.refuse_emptiness(&name, &content, &tail, "the command printed nothing")?;
                let torn = if ends_with.is_none() {
                    self.cut_off(&name, &tail)
                } else {
                    None
                };

                let suspect =
                    torn.or_else(|| baseline.and_then(|last| shrunk(content.size, last, smallest)));
                (name, command.words().to_vec(), content, profile, suspect)
            }
            SourceSpec::Stream { name, mut input } => {
                let profile = ChunkProfile::Stream;
                let mut tail = StreamTail::new();
                let mut tapped = TappedStream {
                    input: &mut *input,
                    tail: &mut tail,
                };
                let content = self.cut(packer, &name, profile, &mut tapped)?;
                self.refuse_emptiness(&name, &content, &tail, "standard input was empty")?;
                let shrunk = || baseline.and_then(|last| shrunk(content.size, last, None));
                let suspect = self.cut_off(&name, &tail).or_else(shrunk);
                (name, Vec::new(), content, profile, suspect)
            }
            SourceSpec::Tree(tree) => {
                return Err(Error::usage(format!("'{}' is not a stream", tree.name)));
            }
        };

        if let Some(reason) = &suspect {
            self.task
                .observer
                .problem(&suspect_problem(Severity::Missing, &name, &name, reason));
        }

        let counts = SourceCounts {
            bytes_read: content.size,
            ..SourceCounts::default()
        };
        let record = SourceRecord {
            name: name.clone(),
            kind: SourceKind::Stream {
                command: words,
                content,
            },
            profile: profile.name().to_owned(),
            started,
            ended: now(),
            digest: [0; 32],
            counts,
            suspect,
            numeric_owners: false,
            moved_from: Vec::new(),
        };

        Ok((
            record,
            SourceReport {
                name,
                counts,
                parent: None,
            },
        ))
    }

    /// Returns why a stream is suspect whose end is missing, unless it is accepted.
    fn cut_off(&self, name: &str, tail: &StreamTail) -> Option<String> {
        if self.options.accept.contains(name) {
            None
        } else {
            cut_off(&tail.head, &tail.bytes)
        }
    }

    /// Refuses an empty stream. It is not compared with earlier captures: a first dump is not empty
    /// either.
    fn refuse_emptiness(
        &self,
        name: &str,
        content: &Content,
        tail: &StreamTail,
        why: &str,
    ) -> Result<(), Error> {
        if self.options.allow_empty {
            return Ok(());
        }
        let sample = StreamSample {
            tail: &tail.bytes,
            size: content.size,
            is_zeros: tail.is_zeros,
        };
        let why = match empty_file(&sample) {
            _ if content.size == 0 => why.to_owned(),
            Some(kind) => {
                format!("it is an empty {kind}: did an earlier command of the pipeline fail?")
            }
            None => return Ok(()),
        };
        Err(Error::Empty {
            name: name.to_owned(),
            why,
        })
    }

    /// Reads a command's output and waits for its exit. A watcher kills it if the backup is
    /// cancelled.
    fn command(
        &self,
        packer: &Packer<'_, 'e>,
        (name, profile): (&str, ChunkProfile),
        mut running: RunningCommand,
        tail: &mut StreamTail,
        words: &[String],
    ) -> Result<Content, Error> {
        watched(
            &running.canceller(),
            &|| self.task.cancel.is_cancelled(),
            || {
                let content = self.cut(
                    packer,
                    name,
                    profile,
                    &mut TappedStream {
                        input: &mut running,
                        tail,
                    },
                )?;
                // A command that has closed its output may keep running for as long as it likes.
                let ended = running.finish();
                self.task.check()?;
                ended.map_err(|err| tail.explain(err, words))?;
                Ok(content)
            },
        )
    }

    fn cut(
        &self,
        packer: &Packer<'_, 'e>,
        name: &str,
        profile: ChunkProfile,
        input: &mut dyn Read,
    ) -> Result<Content, Error> {
        let mut writers = ChunkWriters {
            data: packer.writer(ChunkClass::Data),
            metadata: packer.writer(ChunkClass::Metadata),
        };
        let mut builder = ContentBuilder::default();

        let mut read = |buf: &mut [u8]| loop {
            if self.task.cancel.is_cancelled() {
                return Err(std::io::Error::from(ErrorKind::BrokenPipe));
            }
            match input.read(buf) {
                Err(err) if err.kind() == ErrorKind::WouldBlock => {}
                Ok(n) => {
                    self.task.observer.add(Counter::BytesRead, to_u64(n));
                    return Ok(n);
                }
                failed => return failed,
            }
        };

        let span = DataSpan {
            start: 0,
            limit: u64::MAX,
            profile,
        };
        let cut =
            CutBuffer::default().cut(&mut read, span, &mut builder, &mut writers, &mut |_| {});
        self.task.check()?;
        cut.map_err(|err: CutError| err.named(name))?;

        let content = builder.finish(&mut writers).map_err(Error::Repo)?;
        writers.flush().map_err(|err: RepoError| Error::Repo(err))?;
        Ok(content)
    }
}
