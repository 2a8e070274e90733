//! The output mode of a command, and its data on standard output.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use serde::Serialize;

use super::json;
use crate::exit::CliError;
use crate::global::Global;

/// The output mode of this command.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    pub json: bool,
    pub quiet: bool,
    pub verbose: bool,
}

impl Ui {
    /// Creates the mode that the options ask for.
    pub fn new(global: &Global) -> Self {
        Self {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
        }
    }

    /// Prints a line on standard error, unless `--quiet` is given.
    pub fn note(self, text: impl fmt::Display) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Prints a line on standard error in any case.
    pub fn warn(self, text: impl fmt::Display) {
        // A failure to write there cannot be reported anywhere.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Opens standard output for data.
    pub fn data(self) -> Result<DataWriter, CliError> {
        let out = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(CliError::output)?;
        Ok(DataWriter {
            out: File::from(out),
            buffer: Vec::with_capacity(2 * BUFFER_BYTES),
            json: self.json,
        })
    }
}

/// Buffered standard output. Whole records are written at once, so that events of other threads
/// appear between lines and never inside them. A reader that closes the pipe ends a listing without
/// an error.
pub struct DataWriter {
    /// A separate handle: the shared one is line-buffered, which is slow for contents of files.
    out: File,
    buffer: Vec<u8>,
    json: bool,
}

/// Bytes that are collected before they are written.
const BUFFER_BYTES: usize = 64 * 1024;

impl DataWriter {
    /// Writes a record: one line of text, or with `--json` one object.
    pub fn record<T: Serialize>(
        &mut self,
        object: &T,
        line: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.json {
            self.object(object)
        } else {
            self.line(line())
        }
    }

    /// Writes a line of text.
    pub fn line(&mut self, line: impl fmt::Display) -> Result<(), CliError> {
        writeln!(self.buffer, "{line}")
            .and_then(|()| self.spill())
            .map_err(CliError::output)
    }

    /// Writes one JSON object and ends the line.
    pub fn object<T: Serialize>(&mut self, object: &T) -> Result<(), CliError> {
        json::write_line(&mut self.buffer, object)
            .and_then(|()| self.spill())
            .map_err(CliError::output)
    }

    /// Writes the rest of the buffer.
    pub fn finish(mut self) -> Result<(), CliError> {
        self.flush().map_err(CliError::output)
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.buffer.len() < BUFFER_BYTES {
            Ok(())
        } else {
            self.flush()
        }
    }
}

/// Writes raw bytes, for contents of files.
impl Write for DataWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        self.spill()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.write_all(&self.buffer);
        self.buffer.clear();
        result
    }
}
