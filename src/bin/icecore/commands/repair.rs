//! `icecore repair`

use clap::Subcommand;
use icecore::observe::Counters;
use serde::Serialize;

use crate::context::Context;
use crate::engine::ops::repair;
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
    segments: u64,
    packs: u64,
    written: u64,
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
    let (repository, meter, cancel) = context.begin()?;
    let repair::IndexReport { segments, packs, written } = repair::index(&repository, &meter, &cancel)?;
    let summary = IndexSummary { segments, packs, written };
    Ok(meter.finish("repair index", Outcome::Done, &summary, || {
        vec![format!(
            "{}, {}; {} written",
            text::counted(segments, "segment", "segments"),
            text::counted(packs, "pack", "packs"),
            text::number(written),
        )]
    }))
}

fn config(context: &Context<'_>) -> Result<Outcome, CliError> {
    let meter = context.ui.meter();
    // What is damaged is about to be mended: no finding.
    let (repository, _cancel) = context.open(&Counters::default())?;
    let written = repository.repair_config()?;
    let summary = ConfigSummary { written };
    Ok(meter.finish("repair config", Outcome::Done, &summary, || {
        if summary.written.is_empty() {
            vec!["both copies are whole".to_owned()]
        } else {
            summary.written.iter().map(|name| format!("{name} put back")).collect()
        }
    }))
}
