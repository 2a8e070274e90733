//! `icecore stats`

use serde::Serialize;

use crate::context::Context;
use crate::engine::ops::list::{Stats, stats};
use crate::exit::{CliError, Outcome};
use crate::ui::text;

/// Show how much the repository holds, and what deduplication and compression save
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore stats
  icecore stats --json")]
pub struct Args {}

#[derive(Serialize)]
#[serde(tag = "type", rename = "stats")]
struct Record {
    snapshots: u64,
    packs: u64,
    chunks: u64,
    /// What all snapshots hold, each counted whole.
    sources_bytes: u64,
    /// What is left of it once each chunk is counted once.
    plain_bytes: u64,
    /// What that takes in the store.
    stored_bytes: u64,
}

pub fn run(context: &Context<'_>, _args: &Args) -> Result<Outcome, CliError> {
    let (repository, mut meter, _cancel) = context.begin()?;
    let Stats { snapshots, packs, chunks, plain_bytes, stored_bytes, sources_bytes } = stats(&repository)?;
    meter.end();
    let record = Record { snapshots, packs, chunks, sources_bytes, plain_bytes, stored_bytes };
    let mut out = context.ui.data()?;
    if context.ui.json {
        out.object(&record)?;
    } else {
        for (what, value) in [
            ("snapshots", text::number(snapshots)),
            ("packs", text::number(packs)),
            ("chunks", text::number(chunks)),
            ("in all snapshots", text::size(sources_bytes)),
            ("deduplicated", text::size(plain_bytes)),
            ("stored", text::size(stored_bytes)),
        ] {
            out.line(format_args!("{what:<17} {value}"))?;
        }
    }
    out.finish()?;
    Ok(meter.outcome())
}
