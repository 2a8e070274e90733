//! Maps the result of a command to text, hint and exit code. No other file of the binary does.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::advice::hint;
use crate::ui::text;
use icecore::ccn::NodeError;
use icecore::ccn::docker::DockerError;
use icecore::ccn::postgres::PostgresError;
use icecore::jobs::config::ConfigFileError;
use icecore::repo::RepoError;
use icecore::task::Cancelled;
use icecore::{Error, ErrorKind};

/// The command failed.
pub const FAILED: u8 = 1;
/// A usage error.
pub const USAGE: u8 = 2;
const INCOMPLETE: u8 = 3;
const DAMAGE: u8 = 4;
const ALARM: u8 = 5;
const NO_REPOSITORY: u8 = 10;
const WRONG_KEY: u8 = 11;
const NEEDS_NEWER: u8 = 12;
/// Ended by a signal. Everything committed before that is kept.
pub const INTERRUPTED: u8 = 130;

/// The outcome of a command that ran to its end. A later variant outweighs those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Outcome {
    #[default]
    Done,
    /// Done, but not completely.
    Incomplete,
    /// Damage was found.
    Damage,
    /// A key file changed or is missing.
    Alarm,
    /// Done, except for an action that needs the user's consent. An error names it.
    Refused,
}

impl Outcome {
    /// Returns the process's exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Incomplete => INCOMPLETE,
            Self::Damage => DAMAGE,
            Self::Alarm => ALARM,
            Self::Refused => FAILED,
        }
    }
}

/// The error of a command that did not run to its end.
#[derive(Debug)]
pub enum CliError {
    /// The command line does not parse. Also `--help` and `--version`, which are not errors.
    Clap(clap::Error),
    /// The arguments parse, but make no sense together.
    Usage {
        message: String,
        hint: Option<String>,
    },
    /// An operation of the library failed.
    Engine(Error),
    /// An operation on a node failed: Docker, PostgreSQL, or a rule.
    Node(NodeError),
    /// The binary itself failed: terminal, passphrase, output.
    Failed {
        message: String,
        source: Option<Box<dyn StdError + Send + Sync>>,
        hint: Option<String>,
    },
    /// There is a repository but no passphrase for it, or it is not the one that is meant.
    Locked {
        message: String,
        hint: Option<String>,
    },
    /// There is no repository where one was before.
    Absent {
        message: String,
        hint: Option<String>,
    },
    /// The reader of standard output closed the pipe.
    BrokenPipe,
}

impl CliError {
    /// Creates an error for arguments that make no sense together.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: None,
        }
    }

    /// Creates an error of the binary itself, with its cause.
    pub fn failed(
        message: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self::Failed {
            message: message.into(),
            source: Some(Box::new(source)),
            hint: None,
        }
    }

    /// Converts a failure to write to standard output.
    pub fn output(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::failed("cannot write to standard output", source)
        }
    }

    /// Adds a hint, unless the error has one.
    pub fn with_hint(mut self, advice: impl Into<String>) -> Self {
        if let Self::Usage { hint, .. }
        | Self::Failed { hint, .. }
        | Self::Locked { hint, .. }
        | Self::Absent { hint, .. } = &mut self
        {
            hint.get_or_insert_with(|| advice.into());
        }
        self
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<ConfigFileError> for CliError {
    fn from(error: ConfigFileError) -> Self {
        match error {
            ConfigFileError::Read(error) => Self::failed(error.to_string(), error.source),
            mistake => Self::usage(mistake.to_string()),
        }
    }
}

impl From<NodeError> for CliError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Engine(error) => Self::Engine(error),
            other => Self::Node(other),
        }
    }
}

impl From<DockerError> for CliError {
    fn from(error: DockerError) -> Self {
        Self::Node(error.into())
    }
}

impl From<PostgresError> for CliError {
    fn from(error: PostgresError) -> Self {
        Self::Node(error.into())
    }
}

impl From<Cancelled> for CliError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Engine(cancelled.into())
    }
}

impl From<RepoError> for CliError {
    fn from(error: RepoError) -> Self {
        Self::Engine(error.into())
    }
}

/// An error as printed: the text after `error:` and `hint:`, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct ErrorReport {
    pub code: u8,
    /// One line: the message and its sources.
    pub message: String,
    pub hint: Option<String>,
}

/// Converts an error to text. Returns `None` if there is nothing to print.
pub fn error_report(error: &CliError) -> Option<ErrorReport> {
    let report = match error {
        CliError::Clap(_) | CliError::BrokenPipe => return None,
        CliError::Usage { message, hint } => ErrorReport {
            code: USAGE,
            message: message.clone(),
            hint: hint.clone(),
        },
        CliError::Failed {
            message,
            source,
            hint,
        } => {
            let source = source.as_deref().map(|s| s as &(dyn StdError + 'static));
            ErrorReport {
                code: FAILED,
                message: chain(message, source),
                hint: hint.clone(),
            }
        }
        CliError::Locked { message, hint } => ErrorReport {
            code: WRONG_KEY,
            message: message.clone(),
            hint: hint.clone(),
        },
        CliError::Absent { message, hint } => ErrorReport {
            code: NO_REPOSITORY,
            message: message.clone(),
            hint: hint.clone(),
        },
        CliError::Node(error) => ErrorReport {
            code: code_of(error.kind()),
            message: chain(&error.to_string(), error.source()),
            hint: error.advice().map(|advice| hint(&advice).into_owned()),
        },
        CliError::Engine(error) => ErrorReport {
            code: code_of(error.kind()),
            message: chain(&error.to_string(), error.source()),
            hint: match error.advice() {
                Some(advice) => Some(hint(&advice).into_owned()),
                None => usual_hint(error.kind()).map(str::to_owned),
            },
        },
    };

    Some(ErrorReport {
        message: text::clean(&report.message),
        hint: report.hint.map(|h| text::clean(&h)),
        ..report
    })
}

fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Failed => FAILED,
        ErrorKind::Usage => USAGE,
        ErrorKind::Damage => DAMAGE,
        ErrorKind::NoRepository => NO_REPOSITORY,
        ErrorKind::WrongKey => WRONG_KEY,
        ErrorKind::NeedsNewer => NEEDS_NEWER,
        ErrorKind::Interrupted => INTERRUPTED,
    }
}

/// Returns a hint for errors to which the library gives none.
fn usual_hint(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Interrupted => Some("stored data is kept; run the command again to continue"),
        _ => None,
    }
}

/// Joins a message and its sources on one line. Leaves out a source that only repeats the end of
/// the line.
fn chain(message: &str, mut source: Option<&(dyn StdError + 'static)>) -> String {
    let mut line = message.trim().to_owned();
    while let Some(error) = source {
        let cause = error.to_string();
        if !line.ends_with(cause.trim()) {
            line.push_str(": ");
            line.push_str(cause.trim());
        }
        source = error.source();
    }
    line.lines()
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// Converts an error of the command line parser: its first paragraph becomes the message, its tips
/// become the hint. The usage and the advice to try `--help` are left out.
pub fn usage_report(error: &clap::Error) -> ErrorReport {
    let rendered = error.render().to_string();
    let text = rendered.strip_prefix("error: ").unwrap_or(&rendered);
    let joined = |lines: Vec<&str>| text::clean(&lines.join(" "));
    let message = joined(
        text.lines()
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect(),
    );
    let tips: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("tip: "))
        .collect();
    let hint = if tips.is_empty() {
        "'icecore COMMAND --help' lists the options".to_owned()
    } else {
        joined(tips)
    };
    ErrorReport {
        code: u8::try_from(error.exit_code()).unwrap_or(USAGE),
        message,
        hint: Some(hint),
    }
}

impl fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Layer>>);

    impl fmt::Display for Layer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl StdError for Layer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            self.1.as_deref().map(|l| l as _)
        }
    }

    #[test]
    fn an_error_and_its_sources_are_one_line() {
        let inner = Layer(
            "line one\n  line two",
            Some(Box::new(Layer("line two", None))),
        );
        let error = CliError::failed("cannot open x", inner);
        let report = error_report(&error).expect("an error");
        assert_eq!(
            (report.code, report.message.as_str()),
            (1, "cannot open x: line one; line two")
        );
    }

    /// With `--json` every failure is an event, including those of the parser.
    #[test]
    fn an_error_of_the_parser_is_one_line_and_a_hint() {
        use clap::Parser;
        let report_of = |words: &[&str]| {
            usage_report(&crate::args::Cli::try_parse_from(words).expect_err("bad usage"))
        };
        let value = report_of(&["icecore", "ls", "latest~1"]);
        assert_eq!(value.code, 2);
        assert!(
            value.message.starts_with("invalid value 'latest~1'"),
            "{}",
            value.message
        );
        let missing = report_of(&["icecore", "restore", "latest"]);
        assert!(
            missing.message.ends_with("provided: <TARGET>"),
            "{}",
            missing.message
        );
        let unknown = report_of(&["icecore", "snapshots", "--hots", "x"]);
        assert_eq!(
            unknown.hint.as_deref(),
            Some("a similar argument exists: '--host'")
        );
        let escape = report_of(&["icecore", "ls", "\u{1b}[2J"]);
        assert!(!escape.message.contains('\u{1b}'), "{}", escape.message);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let report = error_report(&CliError::usage("no such thing: \u{1b}[2J")).expect("an error");
        assert_eq!(report.message, "no such thing: \\u{1b}[2J");
    }

    #[test]
    fn every_kind_has_its_exit_code() {
        let codes = [
            (ErrorKind::Failed, 1),
            (ErrorKind::Usage, 2),
            (ErrorKind::Damage, 4),
            (ErrorKind::NoRepository, 10),
            (ErrorKind::WrongKey, 11),
            (ErrorKind::NeedsNewer, 12),
            (ErrorKind::Interrupted, 130),
        ];
        for (kind, code) in codes {
            assert_eq!(code_of(kind), code, "{kind:?}");
        }
        let outcomes = [
            Outcome::Done,
            Outcome::Incomplete,
            Outcome::Damage,
            Outcome::Alarm,
        ];
        assert_eq!(outcomes.map(Outcome::code), [0, 3, 4, 5]);
        assert_eq!(Outcome::Incomplete.max(Outcome::Damage), Outcome::Damage);
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let closed = CliError::output(io::ErrorKind::BrokenPipe.into());
        assert!(error_report(&closed).is_none());
        assert!(error_report(&CliError::output(io::ErrorKind::StorageFull.into())).is_some());
    }
}
