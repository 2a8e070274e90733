//! Prints the result of a command, and returns the process's exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::exit::{CliError, ErrorReport, FAILED, Outcome, USAGE, error_report, usage_report};
use crate::ui::json;

/// Prints the error, if there is one, and returns the exit code.
pub fn finish(result: Result<Outcome, CliError>, json: bool) -> ExitCode {
    let error = match result {
        Ok(outcome) => {
            let Some(lost) = json::lost_events() else {
                return ExitCode::from(outcome.code());
            };
            let _ = writeln!(
                io::stderr().lock(),
                "error: cannot write all events to standard output: {lost}"
            );
            // The operation is done, but the reader of the events has missed some of them: exit
            // code 0 would be wrong.
            return ExitCode::from(if outcome.code() == 0 {
                FAILED
            } else {
                outcome.code()
            });
        }
        Err(error) => error,
    };

    if let CliError::Clap(error) = &error {
        if json && error.use_stderr() {
            json::emit(&json::error_event(&usage_report(error)));
        }
        // The exit code is 2 for a usage error, and 0 for help and version. A reader of the help
        // that closed the pipe is not an error.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
    }

    let Some(report) = error_report(&error) else {
        return ExitCode::SUCCESS;
    };
    if json {
        json::emit(&json::error_event(&report));
    }

    let mut stderr = io::stderr().lock();
    // A failure to write to standard error cannot be reported anywhere.
    let _ = write_error_report(&mut stderr, &report);
    ExitCode::from(report.code)
}

fn write_error_report(out: &mut impl Write, report: &ErrorReport) -> io::Result<()> {
    writeln!(out, "error: {}", report.message)?;
    match &report.hint {
        Some(hint) => writeln!(out, "hint: {hint}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_a_line_of_its_own() {
        let mut out = Vec::new();
        let error = CliError::usage("no repository given")
            .with_hint("use -r")
            .with_hint("not this one");
        write_error_report(&mut out, &error_report(&error).expect("an error")).expect("memory");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "error: no repository given\nhint: use -r\n"
        );
    }
}
