//! `icecore repair`

use clap::Subcommand;
use icecore::observe::Counters;
use icecore::ops::repair::{repair_config, repair_index};
use serde::Serialize;

use crate::context::{Context, host_name};
use crate::exit::{CliError, Outcome};
use crate::ui::text;

/// Rebuild what can be derived from the rest
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore repair index
  icecore repair config")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Publish index segments anew from the packs' own directories, and rebuild the local index
    Index,
    /// Put a damaged or missing copy of the configuration or of a key slot back from the other
    Config,
}

#[derive(Serialize)]
struct IndexSummary {
    /// Packs that no segment told of, and the segments that tell of them now.
    packs_added: u64,
    chunks_added: u64,
    segments_added: u64,
    unreadable_packs: u64,
    damaged_segments: u64,
}

#[derive(Serialize)]
struct ConfigSummary {
    /// Names of the objects that were written.
    written: Vec<String>,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    match args.what {
        What::Index => index(context),
        What::Config => config(context),
    }
}

fn index(context: &Context<'_>) -> Result<Outcome, CliError> {
    let (repository, meter, _cancel) = context.begin()?;
    let rebuilt = repair_index(&repository, &host_name(), &meter)?;
    let summary = IndexSummary {
        packs_added: rebuilt.packs,
        chunks_added: rebuilt.chunks,
        segments_added: rebuilt.segments.len() as u64,
        unreadable_packs: rebuilt.unreadable.len() as u64,
        damaged_segments: rebuilt.damaged_segments.len() as u64,
    };
    Ok(meter.finish("repair index", Outcome::Done, &summary, || {
        vec![match summary.packs_added {
            0 => "index rebuilt; every pack is in a segment".to_owned(),
            packs => format!(
                "index rebuilt; {} found in {}",
                text::counted(summary.chunks_added, "chunk", "chunks"),
                text::counted(packs, "pack that no segment told of", "packs that no segment told of"),
            ),
        }]
    }))
}

fn config(context: &Context<'_>) -> Result<Outcome, CliError> {
    let meter = context.ui.meter();
    // What is damaged is about to be mended: no finding.
    let (repository, _cancel) = context.open(&Counters::default())?;
    let written = repair_config(&repository)?;
    let summary = ConfigSummary { written };
    Ok(meter.finish("repair config", Outcome::Done, &summary, || {
        if summary.written.is_empty() {
            vec!["both copies are whole".to_owned()]
        } else {
            summary.written.iter().map(|name| format!("{name} put back")).collect()
        }
    }))
}
