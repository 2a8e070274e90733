//! `icecore ls`

use clap::builder::{OsStringValueParser, TypedValueParser};
use icecore::format::{SourceKind, SourceRecord};
use icecore::jobs::report::{EntryRecord, ListedSourceRecord};
use icecore::ops::list::{ListDepth, LsItem, ls, missing};
use icecore::read::ReadSession;
use icecore::task::Task;
use icecore::types::Timestamp;

use super::callback::CallbackError;
use super::entry;
use crate::context::{Context, HostArgs};
use crate::exit::{CliError, Outcome};
use crate::parse::{self, SnapPath};
use crate::ui::text;

/// List the contents of a snapshot
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore ls latest
  icecore ls latest:home/projects -l
  icecore ls 4f1c:etc --recursive --json
  icecore ls latest --missing")]
pub struct LsArgs {
    /// Snapshot, source and path
    #[arg(value_name = "SNAP[:SOURCE[/PATH]]",
          value_parser = OsStringValueParser::new().try_map(|s| parse::snap_path(&s)))]
    what: SnapPath,
    /// Show mode, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// List the contents of subdirectories too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// List only entries that could not be read, and directories of which the snapshot lacks names
    #[arg(long, conflicts_with = "recursive")]
    missing: bool,
    #[command(flatten)]
    hosts: HostArgs,
}

pub fn run(context: &Context<'_>, args: &LsArgs) -> Result<Outcome, CliError> {
    let (repository, meter, cancel) = context.begin()?;
    let session = ReadSession::open(&repository, Task::new(&meter, &cancel))?;
    let mut out = context.ui.data()?;
    let mut relay = CallbackError::default();
    let asked = context.listed_path(&args.what, &args.hosts)?;

    let mut each = |item: LsItem<'_>| {
        cancel.check()?;
        relay.pass(match item {
            LsItem::Source { source, time } => out
                .record(&ListedSourceRecord::new(source, time), || {
                    source_line(source, time, args.long)
                }),
            LsItem::Entry {
                source,
                entry: found,
            } => out.record(&EntryRecord::new(None, source, found), || {
                if args.long {
                    entry::long(source, found)
                } else if args.missing {
                    entry::why(source, found)
                } else {
                    entry::short(source, found)
                }
            }),
        })
    };
    let listed = if args.missing {
        missing(&session, &asked, &mut each)
    } else {
        let depth = if args.recursive {
            ListDepth::Everything
        } else {
            ListDepth::Children
        };
        ls(&session, &asked, depth, &mut each)
    };

    relay.done(listed)?;
    out.finish()?;
    Ok(meter.outcome())
}

fn source_line(source: &SourceRecord, at: Timestamp, long: bool) -> String {
    if !long {
        return source.name.clone();
    }
    let from = match &source.kind {
        SourceKind::Tree { path, .. } => text::bytes(path),
        SourceKind::Stream { command, content } if command.is_empty() => {
            format!("standard input, {}", text::size(content.size))
        }
        SourceKind::Stream { command, content } => {
            format!(
                "{}, {}",
                text::clean(&icecore::sys::shown(command)),
                text::size(content.size)
            )
        }
    };
    format!("{} {} ({from})", text::when(at), source.name)
}
