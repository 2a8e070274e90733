//! `icecore ls`

use clap::builder::{OsStringValueParser, TypedValueParser};
use icecore::format::{SourceKind, SourceRecord};
use icecore::ops::list::{LsItem, ls, missing};
use icecore::types::Timestamp;
use serde::Serialize;

use super::{Relay, entry, what};
use crate::context::{Context, HostArgs};
use crate::exit::{CliError, Outcome};
use crate::parse::{self, SnapPath};
use crate::ui::{json, text};

/// List what a snapshot holds
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore ls latest
  icecore ls latest:home/projects -l
  icecore ls 4f1c:etc --recursive --json
  icecore ls latest --missing")]
pub struct Args {
    /// Snapshot, source and path
    #[arg(value_name = "SNAP[:SOURCE[/PATH]]",
          value_parser = OsStringValueParser::new().try_map(|s| parse::snap_path(&s)))]
    what: SnapPath,
    /// Show mode, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// List directories in directories too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// List only what the snapshot lacks: what could not be read, and directories from which
    /// something kept names
    #[arg(long, conflicts_with = "recursive")]
    missing: bool,
    #[command(flatten)]
    hosts: HostArgs,
}

/// A source of the snapshot, as JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename = "source")]
struct Source<'a> {
    name: &'a str,
    /// `tree` or `stream`.
    kind: &'static str,
    /// A stream's.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// The time that counts: `started`, or where that is more than a day off the store's.
    time: Option<String>,
    /// By the host's own clock.
    started: Option<String>,
    /// How many of a tree's directories held names that the snapshot lacks; absent where that is
    /// not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<u64>,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    let (repository, meter, cancel, _lease) = context.begin_reading()?;
    let mut out = context.ui.data()?;
    let mut relay = Relay::default();
    let asked = what(context, &args.what, &args.hosts)?;
    let mut each = |item: LsItem<'_>| {
        cancel.check()?;
        relay.pass(match item {
            LsItem::Source { source, time } => out.record(&Source::new(source, time), || {
                source_line(source, time, args.long)
            }),
            LsItem::Entry {
                source,
                entry: found,
            } => out.record(&entry::Record::new(None, source, found), || {
                match args.long {
                    true => entry::long(source, found),
                    false if args.missing => entry::why(source, found),
                    false => entry::short(source, found),
                }
            }),
        })
    };
    let listed = match args.missing {
        true => missing(&repository, &asked, &meter, &mut each),
        false => ls(&repository, &asked, args.recursive, &meter, &mut each),
    };
    relay.done(listed)?;
    out.finish()?;
    Ok(meter.outcome())
}

impl<'a> Source<'a> {
    fn new(source: &'a SourceRecord, at: Timestamp) -> Self {
        let (kind, size) = match &source.kind {
            SourceKind::Tree { .. } => ("tree", None),
            SourceKind::Stream { content, .. } => ("stream", Some(content.size)),
        };
        let partial = source.counts.partial;
        let (time, started) = (json::time(at), json::time(source.started));
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
