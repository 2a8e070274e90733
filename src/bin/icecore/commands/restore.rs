//! `icecore restore`

use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use serde::Serialize;

use crate::context::{Context, HostArgs};
use crate::engine::ops::restore::{self, RestoreOptions, RestoreReport};
use crate::engine::ops::selector;
use crate::exit::{CliError, Outcome};
use crate::parse::{self, SnapPath};
use crate::ui::{json, text};

/// Put a snapshot, a source or a path of it back
///
/// A whole snapshot goes to TARGET/<source>, one folder for each of its sources. SNAP:SOURCE goes right into TARGET,
/// which may exist: what is there and equal is left alone. A single file goes into TARGET if that is a folder, else to
/// that name; a stream becomes a file. TARGET '-' is standard output.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore restore latest /tmp/restored
  icecore restore latest:home /home --overwrite if-changed
  icecore restore latest:home/notes.txt .
  icecore restore latest:db - | psql")]
pub struct Args {
    /// Snapshot, source and path
    #[arg(value_name = "SNAP[:SOURCE[/PATH]]",
          value_parser = OsStringValueParser::new().try_map(|s| parse::snap_path(&s)))]
    what: SnapPath,
    /// Where to put it; '-' is standard output
    target: PathBuf,
    /// Only what matches, by gitignore's rules from the source's root
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,
    /// All but what matches
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// What to do with files that are there already
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Overwrite::IfChanged)]
    overwrite: Overwrite,
    /// Delete what the snapshot does not have, below restored folders only
    #[arg(long)]
    delete: bool,
    /// Set owners by number, not by name
    #[arg(long)]
    numeric_ids: bool,
    /// Do not set owners
    #[arg(long, conflicts_with = "numeric_ids")]
    no_owner: bool,
    /// Read back and compare what was written
    #[arg(long)]
    verify: bool,
    /// Tell what would be done, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    hosts: HostArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Overwrite {
    /// Write every file anew
    Always,
    /// Write files whose size or time differs
    IfChanged,
    /// Leave every file that is there
    Never,
}

#[derive(Serialize)]
struct Summary {
    written: u64,
    deleted: u64,
    dry_run: bool,
    #[serde(flatten)]
    counts: json::Counts,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    if context.ui.json && args.target == Path::new("-") {
        return Err(CliError::usage("standard output cannot take both contents and JSON"));
    }
    let (repository, meter, cancel) = context.begin()?;
    let report = restore::restore(&repository, options(args), &args.target, &meter, &cancel)?;
    let RestoreReport { written, deleted } = report;
    let counts = meter.counts();
    let summary = Summary { written, deleted, dry_run: args.dry_run, counts };
    let elapsed = text::span(meter.elapsed());
    Ok(meter.finish("restore", Outcome::Done, &summary, || {
        let mut line = format!(
            "{}, {} written, {}, in {elapsed}",
            text::counted(counts.entries, "entry", "entries"),
            text::number(written),
            text::size(counts.bytes_read),
        );
        if deleted > 0 {
            line.push_str(&format!(", {} deleted", text::number(deleted)));
        }
        if args.dry_run {
            line.insert_str(0, "dry run: ");
        }
        vec![line]
    }))
}

fn options(args: &Args) -> RestoreOptions {
    RestoreOptions {
        what: selector(&args.what, &args.hosts),
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        overwrite: match args.overwrite {
            Overwrite::Always => restore::Overwrite::Always,
            Overwrite::IfChanged => restore::Overwrite::IfChanged,
            Overwrite::Never => restore::Overwrite::Never,
        },
        delete: args.delete,
        numeric_ids: args.numeric_ids,
        owner: !args.no_owner,
        verify: args.verify,
        dry_run: args.dry_run,
    }
}
