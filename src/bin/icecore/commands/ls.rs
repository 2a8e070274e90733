//! `icecore ls`

use clap::builder::{OsStringValueParser, TypedValueParser};
use icecore::format::{SourceKind, SourceRecord};
use icecore::ops::list::{ListDepth, LsItem, ls, missing};
use icecore::read::ReadSession;
use icecore::task::Task;
use icecore::types::Timestamp;
use serde::Serialize;

use super::callback::CallbackError;
use super::entry;
use crate::context::{Context, HostArgs};
use crate::exit::{CliError, Outcome};
use crate::parse::{self, SnapPath};
use crate::ui::{json, text};

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

/// A source of the snapshot, as JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename = "source")]
struct SourceLine<'a> {
    name: &'a str,
    /// `tree` or `stream`.
    kind: &'static str,
    /// The size of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// `started`, or the time of the commit by the store's clock if they are more than a day apart.
    time: Option<String>,
    /// When the capture began, by the host's clock.
    started: Option<String>,
    /// Number of a tree's directories that held names that the snapshot lacks; absent if that is
    /// not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<u64>,
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
            LsItem::Source { source, time } => out.record(&SourceLine::new(source, time), || {
                source_line(source, time, args.long)
            }),
            LsItem::Entry {
                source,
                entry: found,
            } => out.record(&entry::EntryRecord::new(None, source, found), || {
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

impl<'a> SourceLine<'a> {
    fn new(source: &'a SourceRecord, at: Timestamp) -> Self {
        let (kind, size) = match &source.kind {
            SourceKind::Tree { .. } => ("tree", None),
            SourceKind::Stream { content, .. } => ("stream", Some(content.size)),
        };
        let partial = source.counts.partial;
        let time = json::time(at);
        let started = json::time(source.started);
        Self {
            name: &source.name,
            kind,
            size,
            time,
            started,
            partial,
        }
    }
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
