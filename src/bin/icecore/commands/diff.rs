//! `icecore diff`

use icecore::jobs::report::DifferenceRecord;
use icecore::ops::diff::{ChangedParts, PathChange, diff};
use icecore::read::ReadSession;
use icecore::task::Task;

use super::callback::CallbackError;
use crate::context::{Context, HostArgs};
use crate::exit::{CliError, Outcome};
use crate::parse;

/// Show the differences between two snapshots
///
/// Marks: + added, - removed, T different kind, M different content, m only different metadata.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore diff 4f1c latest
  icecore diff 4f1c 77ab --json")]
pub struct DiffArgs {
    /// Older snapshot
    #[arg(value_name = "SNAP", value_parser = parse::snap)]
    old: String,
    /// Newer snapshot
    #[arg(value_name = "SNAP", value_parser = parse::snap)]
    new: String,
    #[command(flatten)]
    hosts: HostArgs,
}

pub fn run(context: &Context<'_>, args: &DiffArgs) -> Result<Outcome, CliError> {
    let hosts = args.hosts.choice(context)?;
    let (repository, meter, cancel) = context.begin()?;
    let session = ReadSession::open(&repository, Task::new(&meter, &cancel))?;

    let mut out = context.ui.data()?;
    let mut relay = CallbackError::default();
    let compared = diff(&session, &args.old, &args.new, &hosts, &mut |item| {
        let mark = match item.change {
            PathChange::Added => '+',
            PathChange::Removed => '-',
            PathChange::Changed(ChangedParts::Kind) => 'T',
            PathChange::Changed(ChangedParts::Content) => 'M',
            PathChange::Changed(ChangedParts::Metadata) => 'm',
        };
        let source = item.source;
        let path = item.path;
        let record = DifferenceRecord::from(&item);
        relay.pass(out.record(&record, || {
            if path.is_root() {
                format!("{mark} {source}")
            } else {
                format!("{mark} {source}/{path}")
            }
        }))
    });

    relay.done(compared)?;
    out.finish()?;
    Ok(meter.outcome())
}
