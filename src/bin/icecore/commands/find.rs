//! `icecore find`

use std::ffi::OsString;

use icecore::jobs::report::EntryRecord;
use icecore::observe::Severity;
use icecore::ops::list::{SnapshotFilter, find};
use icecore::read::ReadSession;
use icecore::task::Task;

use super::callback::CallbackError;
use super::entry;
use super::nothing::report_nothing;
use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::parse;

/// Find paths in all snapshots, newest first
///
/// The pattern follows gitignore's rules from each source's root: without '/' it matches names at
/// any depth, with '/' at its end only directories.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore find '*.pem'
  icecore find '/projects/*/notes.txt' --source home
  icecore find passwd --host web1 --json")]
pub struct FindArgs {
    /// Pattern
    glob: OsString,
    /// Search only snapshots of this host
    #[arg(long, value_name = "HOST", value_parser = parse::host)]
    host: Option<String>,
    /// Search only snapshots with this tag (can be repeated)
    #[arg(long, value_name = "TAG", value_parser = parse::tag)]
    tag: Vec<String>,
    /// Search only sources of this name
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

pub fn run(context: &Context<'_>, args: &FindArgs) -> Result<Outcome, CliError> {
    let (repository, meter, cancel) = context.begin()?;
    let session = ReadSession::open(&repository, Task::new(&meter, &cancel))?;
    let filter = SnapshotFilter {
        host: args.host.clone(),
        tags: args.tag.clone(),
        source: args.source.clone(),
    };

    let mut out = context.ui.data()?;
    let mut relay = CallbackError::default();
    let found = find(&session, &args.glob, &filter, &mut |item| {
        let id = item.snapshot.id;
        let record = EntryRecord::new(Some(id.to_string()), item.source, item.entry);
        relay.pass(out.record(&record, || {
            format!("{}:{}", id.short(), entry::short(item.source, item.entry))
        }))
    });

    let report = relay.done(found)?;
    out.finish()?;
    if report.snapshots == 0 {
        report_nothing(&repository, &filter, Severity::Warning, &meter)?;
    } else if report.found == 0 {
        let glob = args.glob.to_string_lossy();
        let example = report.meant.unwrap_or_else(|| "/notes.txt".into());
        context.ui.note(format_args!(
            "no path matches '{glob}'; patterns begin at each source's root, as in '{}'",
            example.to_string_lossy()
        ));
    }

    Ok(meter.outcome())
}
