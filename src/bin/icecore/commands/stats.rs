//! `icecore stats`

use icecore::ops::list::{RepoStats, stats};
use icecore::read::ReadSession;
use icecore::task::Task;
use serde::Serialize;

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::ui::text;

/// Show the size of the repository, and the savings of deduplication and compression
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore stats
  icecore stats --json")]
pub struct StatsArgs {}

#[derive(Serialize)]
#[serde(tag = "type", rename = "stats")]
struct StatsRecord {
    snapshots: u64,
    checkpoints: u64,
    segments: u64,
    packs: u64,
    condemned_packs: u64,
    chunks: u64,
    /// Plain bytes of data in packs, each chunk counted once.
    data_bytes: u64,
    /// Plain bytes of metadata in packs.
    metadata_bytes: u64,
    /// Bytes of the packs in the store.
    stored_bytes: u64,
    /// The newest snapshot of each host and source: number of sources and files, and bytes when
    /// restored.
    latest_sources: u64,
    latest_files: u64,
    latest_bytes: u64,
    cache_bytes: u64,
}

pub fn run(context: &Context<'_>, _args: &StatsArgs) -> Result<Outcome, CliError> {
    let (repository, mut meter, cancel) = context.begin()?;
    let session = ReadSession::open(&repository, Task::new(&meter, &cancel))?;
    let record = StatsRecord::new(&stats(&session)?);
    drop(session);
    meter.end();
    let mut out = context.ui.data()?;
    if context.ui.json {
        out.object(&record)?;
    } else {
        for (what, value) in record.lines() {
            out.line(format_args!("{what:<18} {value}"))?;
        }
    }
    out.finish()?;
    Ok(meter.outcome())
}

impl StatsRecord {
    fn new(stats: &RepoStats) -> Self {
        Self {
            snapshots: stats.snapshots,
            checkpoints: stats.checkpoints,
            segments: stats.segments,
            packs: stats.packs,
            condemned_packs: stats.condemned_packs,
            chunks: stats.chunks,
            data_bytes: stats.data_bytes,
            metadata_bytes: stats.metadata_bytes,
            stored_bytes: stats.stored_bytes,
            latest_sources: stats.latest_sources,
            latest_files: stats.latest_files,
            latest_bytes: stats.latest_bytes,
            cache_bytes: stats.cache_bytes,
        }
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let number = text::number;
        let besides = |count: u64, what: &str| match count {
            0 => String::new(),
            count => format!(", {} {what}", number(count)),
        };

        let latest = format!(
            "{} in {} of {}",
            text::size(self.latest_bytes),
            text::counted(self.latest_files, "file", "files"),
            text::counted(self.latest_sources, "source", "sources"),
        );

        vec![
            (
                "snapshots",
                number(self.snapshots) + &besides(self.checkpoints, "checkpoints"),
            ),
            ("newest snapshots", latest),
            ("unique data", text::size(self.data_bytes)),
            ("metadata", text::size(self.metadata_bytes)),
            ("stored", text::size(self.stored_bytes)),
            ("chunks", number(self.chunks)),
            (
                "packs",
                number(self.packs) + &besides(self.condemned_packs, "marked for deletion"),
            ),
            ("index segments", number(self.segments)),
            ("local cache", text::size(self.cache_bytes)),
        ]
    }
}
