//! `icecore snapshots`

use icecore::format;
use icecore::jobs::report::SnapshotRecord;
use icecore::observe::Severity;
use icecore::ops::forget::restorable;
use icecore::ops::list::{LackingReport, MissingLister, SnapshotFilter, SourceLacks, snapshots};
use icecore::read::ReadSession;
use icecore::repo::{Repository, StoredSnapshot};
use icecore::task::{Cancel, Task};
use icecore::types::Timestamp;

use super::nothing::{report_nothing, report_nothing_of};
use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::{Meter, text};

/// List the snapshots
///
/// Lists the oldest first, by the time at which the backup began. If the host's clock was more than
/// a day off, that is the time of the commit by the store's clock. An incomplete snapshot contains
/// entries that could not be read; a checkpoint is the state from which an interrupted backup
/// resumes. With --json, each source has the parts that the snapshot lacks of it; their paths are
/// listed for the 20 newest snapshots that lack something. With --forgotten, lists the snapshots
/// that 'forget' removed and 'undelete' brings back, until a prune frees their data.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore snapshots
  icecore snapshots --host web1 --tag nightly
  icecore snapshots --forgotten
  icecore snapshots --json")]
pub struct SnapshotListArgs {
    /// List only snapshots of this host
    #[arg(long, value_name = "HOST", value_parser = parse::host)]
    host: Option<String>,
    /// List only snapshots with this tag (can be repeated)
    #[arg(long, value_name = "TAG", value_parser = parse::tag)]
    tag: Vec<String>,
    /// List only snapshots with a source of this name
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// List the snapshots that were forgotten and can be brought back
    #[arg(long)]
    forgotten: bool,
}

pub fn run(context: &Context<'_>, args: &SnapshotListArgs) -> Result<Outcome, CliError> {
    let (repository, mut meter, cancel) = context.begin()?;
    let filter = SnapshotFilter {
        host: args.host.clone(),
        tags: args.tag.clone(),
        source: args.source.clone(),
    };

    let list: Vec<Row> = if args.forgotten {
        let found = restorable(&repository, &meter)?;
        report_nothing_of(
            found.iter().map(|one| &one.found),
            &filter,
            Severity::Warning,
            &meter,
        );
        let found = found.into_iter().filter(|one| filter.accepts(&one.found));
        found.map(|one| (one.found, Some(one.forgotten))).collect()
    } else {
        let mut found = snapshots(&repository, &filter, &meter)?;
        if found.is_empty() {
            report_nothing(&repository, &filter, Severity::Warning, &meter)?;
        }
        found.sort_by_key(|found| (found.time(), found.order()));
        found.into_iter().map(|found| (found, None)).collect()
    };

    let lacking = if context.ui.json {
        list_missing(&repository, &list, &meter, &cancel)?
    } else {
        Vec::new()
    };

    meter.end();
    let mut out = context.ui.data()?;
    if context.ui.json {
        for ((stored, forgotten), lacking) in list.iter().zip(&lacking) {
            out.object(&SnapshotRecord::new(stored, *forgotten, lacking))?;
        }
    } else {
        for line in table(&list, args.forgotten).lines() {
            out.line(line)?;
        }
    }
    out.finish()?;
    Ok(meter.outcome())
}

/// Lists the missing paths of each source for the newest snapshots that lack something. The lists
/// of the other snapshots are empty.
fn list_missing(
    repository: &Repository,
    list: &[Row],
    meter: &Meter,
    cancel: &Cancel,
) -> Result<Vec<Vec<Option<LackingReport>>>, CliError> {
    let mut out: Vec<Vec<Option<LackingReport>>> = vec![Vec::new(); list.len()];
    let lacks = |found: &StoredSnapshot| {
        found
            .snapshot
            .sources
            .iter()
            .any(|source| !SourceLacks::of(found, source).is_nothing())
    };

    let listed: Vec<usize> = (0..list.len())
        .rev()
        .filter(|&number| lacks(&list[number].0))
        .take(LISTED_MAX)
        .collect();
    if listed.is_empty() {
        return Ok(out);
    }

    // No pack was read before: if nothing is missing, neither a lease nor the index is needed.
    let session = ReadSession::open(repository, Task::new(meter, cancel))?;
    session.add_snapshots(listed.iter().map(|&number| list[number].0.id));
    session.sync()?;
    let lister = MissingLister::new(session.reader());
    for number in listed {
        session.keep()?;
        let found = &list[number].0;
        out[number] = found
            .snapshot
            .sources
            .iter()
            .map(|source| lister.list(found, source))
            .collect();
    }

    Ok(out)
}

/// Maximum number of snapshots whose lists of files are read for missing paths.
const LISTED_MAX: usize = 20;

/// A claimed time is shown too if it differs from the trusted time by more than this.
const CLAIM_SHOWN_SECONDS: f64 = 60.0;

/// A snapshot, and when it was forgotten.
type Row = (StoredSnapshot, Option<Timestamp>);

fn table(list: &[Row], forgotten: bool) -> text::Table {
    let headings = ["id", "time", "host", "state", "sources", "tags"];
    let headings = headings.into_iter().chain(forgotten.then_some("forgotten"));
    let mut table = text::Table::new(&headings.collect::<Vec<_>>());
    for (stored @ StoredSnapshot { id, snapshot, .. }, forgotten) in list {
        let names: Vec<&str> = snapshot.sources.iter().map(|s| s.name.as_str()).collect();
        let cells = [
            id.short(),
            time(stored),
            snapshot.host.clone(),
            state(snapshot),
            names.join(" "),
            snapshot.tags.join(" "),
        ];
        table.row(cells.into_iter().chain(forgotten.map(text::when)));
    }
    table
}

/// Formats the trusted time, and the time by the host's clock if that differs.
fn time(stored: &StoredSnapshot) -> String {
    let time = stored.time();
    let claimed = stored.snapshot.started;
    if claimed.seconds_since(time).abs() > CLAIM_SHOWN_SECONDS {
        format!("{} (claimed: {})", text::when(time), text::when(claimed))
    } else {
        text::when(time)
    }
}

/// Formats the state, with protection, repair and suspicion.
fn state(snapshot: &format::Snapshot) -> String {
    let protected = if snapshot.protected {
        ", protected"
    } else {
        ""
    };
    let repaired = if snapshot.lost.is_some() {
        ", repaired"
    } else {
        ""
    };
    let suspect = if snapshot.sources.iter().any(|one| one.suspect.is_some()) {
        ", suspect"
    } else {
        ""
    };
    format!("{}{protected}{repaired}{suspect}", snapshot.state)
}
