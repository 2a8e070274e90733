//! Capturing a stream: a command's output or standard input, cut and hashed on this thread, compressed on all.

use std::io::Read;

use super::content::{ContentBuilder, CutError, Span, Window, Writers};
use super::options::{SourceReport, SourceSpec};
use super::tree::Capture;
use crate::Error;
use crate::format::{SourceCounts, SourceKind, SourceRecord};
use crate::observe::Counter;
use crate::repo::{Packer, RepoError};
use crate::source::{RunningCommand, SpawnOptions};
use crate::sys::now;
use crate::types::{Class, Content, Profile};

/// How often a blocked read is interrupted to see whether to stop.
const CANCEL_POLL: std::time::Duration = std::time::Duration::from_millis(100);

impl<'e> Capture<'e> {
    /// Captures a stream. A command that does not exit with 0 ends the backup: nothing is committed.
    pub fn stream(
        &self,
        packer: &Packer<'_, 'e>,
        source: SourceSpec,
    ) -> Result<(SourceRecord, SourceReport), Error> {
        let started = now();
        let (name, words, content) = match source {
            SourceSpec::Command { name, command } => {
                let env_remove = self.options.env_remove.clone();
                let mut running = command.spawn(&SpawnOptions { env_remove, env: Vec::new() })?;
                let content = self.command(packer, &name, &mut running)?;
                running.finish()?;
                (name, command.words().to_vec(), content)
            }
            SourceSpec::Stream { name, mut input } => {
                let content = self.cut(packer, &name, &mut input)?;
                (name, Vec::new(), content)
            }
            SourceSpec::Tree(tree) => return Err(Error::Usage(format!("'{}' is no stream", tree.name))),
        };
        let counts = SourceCounts { bytes_read: content.size, ..SourceCounts::default() };
        let record = SourceRecord {
            name: name.clone(),
            kind: SourceKind::Stream { command: words, content },
            profile: Profile::Stream.name().to_owned(),
            started,
            ended: now(),
            digest: [0; 32],
            counts,
        };
        Ok((record, SourceReport { name, counts, parent: None }))
    }

    /// Reads a command's output while a watcher ends it should we be asked to stop.
    fn command(
        &self,
        packer: &Packer<'_, 'e>,
        name: &str,
        running: &mut RunningCommand,
    ) -> Result<Content, Error> {
        let (canceller, cancel) = (running.canceller(), self.cancel);
        let (done, over) = crossbeam_channel::bounded::<()>(0);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while let Err(crossbeam_channel::RecvTimeoutError::Timeout) = over.recv_timeout(CANCEL_POLL) {
                    if cancel.is_cancelled() {
                        canceller.kill_group();
                        return;
                    }
                }
            });
            let content = self.cut(packer, name, running);
            drop(done);
            content
        })
    }

    fn cut(&self, packer: &Packer<'_, 'e>, name: &str, input: &mut dyn Read) -> Result<Content, Error> {
        let mut writers =
            Writers { data: packer.writer(Class::Data), metadata: packer.writer(Class::Metadata) };
        let mut builder = ContentBuilder::default();
        let mut read = |buf: &mut [u8]| {
            if self.cancel.is_cancelled() {
                return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
            }
            let n = input.read(buf)?;
            self.observer.add(Counter::BytesRead, n as u64);
            Ok(n)
        };
        let span = Span { start: 0, limit: u64::MAX, profile: Profile::Stream };
        let cut = Window::default().cut(&mut read, span, &mut builder, &mut writers, &mut |_| {});
        self.cancel.check()?;
        cut.map_err(|err: CutError| err.named(name))?;
        let content = builder.finish(&mut writers).map_err(Error::Repo)?;
        writers.flush().map_err(|err: RepoError| Error::Repo(err))?;
        Ok(content)
    }
}
