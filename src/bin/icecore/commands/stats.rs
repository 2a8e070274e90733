//! `icecore stats`

use icecore::jobs::report::StatsRecord;
use icecore::ops::list::stats;
use icecore::read::ReadSession;
use icecore::task::Task;

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::ui::text;

/// Show the size of the repository, and the savings of deduplication and compression
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore stats
  icecore stats --json")]
pub struct StatsArgs {}

pub fn run(context: &Context<'_>, _args: &StatsArgs) -> Result<Outcome, CliError> {
    let (repository, mut meter, cancel) = context.begin()?;
    let session = ReadSession::open(&repository, Task::new(&meter, &cancel))?;
    let record = StatsRecord::from(&stats(&session)?);
    drop(session);
    meter.end();
    let mut out = context.ui.data()?;
    if context.ui.json {
        out.object(&record)?;
    } else {
        for (what, value) in lines(&record) {
            out.line(format_args!("{what:<18} {value}"))?;
        }
    }
    out.finish()?;
    Ok(meter.outcome())
}

/// Formats the record for people: names and values.
fn lines(record: &StatsRecord) -> Vec<(&'static str, String)> {
    let number = text::number;
    let besides = |count: u64, what: &str| match count {
        0 => String::new(),
        count => format!(", {} {what}", number(count)),
    };

    let latest = format!(
        "{} in {} of {}",
        text::size(record.latest_bytes),
        text::counted(record.latest_files, "file", "files"),
        text::counted(record.latest_sources, "source", "sources"),
    );

    vec![
        (
            "snapshots",
            number(record.snapshots) + &besides(record.checkpoints, "checkpoints"),
        ),
        ("newest snapshots", latest),
        ("unique data", text::size(record.data_bytes)),
        ("metadata", text::size(record.metadata_bytes)),
        ("stored", text::size(record.stored_bytes)),
        ("chunks", number(record.chunks)),
        (
            "packs",
            number(record.packs) + &besides(record.condemned_packs, "marked for deletion"),
        ),
        ("index segments", number(record.segments)),
        ("local cache", text::size(record.cache_bytes)),
    ]
}
