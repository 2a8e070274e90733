//! `--json`: writes events and records as one object per line on standard output.

use std::io::{self, Write};
use std::sync::OnceLock;

use icecore::jobs::report::ErrorEvent;
use serde::Serialize;

use crate::exit::ErrorReport;

/// Creates the event of an error as printed for people.
pub fn error_event(report: &ErrorReport) -> ErrorEvent {
    ErrorEvent {
        exit_code: report.code,
        message: report.message.clone(),
        hint: report.hint.clone(),
    }
}

/// Writes one object and a newline.
pub fn write_line<T: Serialize>(out: &mut impl Write, object: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(object).map_err(io::Error::from)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// The first error of an event that could not be written, unless its reader had closed the pipe.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Writes one event to standard output, at once. A failure does not end the running operation: see
/// [`lost_events`].
pub fn emit<T: Serialize>(event: &T) {
    let mut out = io::stdout().lock();
    match write_line(&mut out, event).and_then(|()| out.flush()) {
        Err(err) if err.kind() != io::ErrorKind::BrokenPipe => drop(LOST.set(err)),
        _ => {}
    }
}

/// Returns the reason why events are missing in the output, if any are, for example a full disk.
pub fn lost_events() -> Option<&'static io::Error> {
    LOST.get()
}

#[cfg(test)]
mod tests {
    use icecore::jobs::report::{DetailEvent, SubjectField};

    use super::*;

    fn line<T: Serialize>(event: &T) -> String {
        let mut out = Vec::new();
        write_line(&mut out, event).expect("memory");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn an_object_is_one_line() {
        let detail = DetailEvent {
            verb: "new".to_owned(),
            subject: SubjectField::new(b"a\nb"),
        };
        assert_eq!(
            line(&detail),
            "{\"type\":\"detail\",\"verb\":\"new\",\"subject\":\"a\\nb\"}\n"
        );

        let report = ErrorReport {
            code: 10,
            message: "no repository".to_owned(),
            hint: None,
        };
        assert_eq!(
            line(&error_event(&report)),
            "{\"type\":\"error\",\"exit_code\":10,\"message\":\"no repository\"}\n"
        );
    }
}
