//! `icecore copy`

use std::ffi::OsString;
use std::path::PathBuf;

use icecore::ErrorKind;
use icecore::jobs::report::{CopyRecord, CopySummary};
use icecore::observe::Severity;
use icecore::ops::copy::{CopyItem, CopyOptions, CopyOutcome, copy};
use icecore::ops::list::SnapshotFilter;
use icecore::task::Task;
use icecore::types::{ByteSize, RepoId};

use super::nothing::report_nothing;
use crate::context::{Context, HostArgs};
use crate::exit::{CliError, Outcome};
use crate::global::Global;
use crate::parse;
use crate::ui::{Ui, text};

/// Copy snapshots to another repository
///
/// Without SNAP, copies all snapshots. Data that the other repository has is not copied again,
/// although its keys differ: a repeated copy costs only the new data. Hosts, times and tags are
/// kept; the copy of a protected snapshot is not protected. A snapshot that cannot be read
/// completely is reported and left out (exit code 4). The other repository must exist; 'init'
/// creates it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore -r /mnt/backup/repo copy --to /mnt/usb/repo
  icecore copy latest --to /mnt/usb/repo --to-passphrase-file /root/usb.pass
  icecore copy --host web1 --tag monthly --to /mnt/usb/repo --dry-run

The passphrase of the other repository comes from --to-passphrase-file, --to-passphrase-command, the environment
(ICECORE_TO_PASSPHRASE, ICECORE_TO_PASSPHRASE_FILE, ICECORE_TO_PASSPHRASE_COMMAND), its key file, or the terminal.")]
pub struct CopyArgs {
    /// Snapshots to copy: ids, prefixes of ids, or 'latest'
    #[arg(value_name = "SNAP", value_parser = parse::snap, conflicts_with_all = ["tag", "source"])]
    snaps: Vec<String>,
    /// The repository to copy to
    #[arg(long, value_name = "REPO")]
    to: OsString,
    /// Read the other repository's passphrase from this file (without one trailing newline)
    #[arg(long, value_name = "FILE", conflicts_with = "to_passphrase_command", value_parser = parse::paths())]
    to_passphrase_file: Option<PathBuf>,
    /// Take the other repository's passphrase from the first line that this command prints (run
    /// without a shell)
    #[arg(long, value_name = "COMMAND")]
    to_passphrase_command: Option<String>,
    /// The other repository has no passphrase
    #[arg(long, conflicts_with_all = ["to_passphrase_file", "to_passphrase_command"])]
    to_no_passphrase: bool,
    /// Accept the other repository with this id, even if another one was used at its address before
    #[arg(long, value_name = "ID", value_parser = parse::repository_id)]
    to_accept_repository: Option<RepoId>,
    /// Copy only snapshots of this host; with SNAP: the host that 'latest' refers to
    #[arg(long, value_name = "HOST", value_parser = parse::host, conflicts_with = "any_host")]
    host: Option<String>,
    /// With SNAP: 'latest' is the newest snapshot of any host
    #[arg(long, requires = "snaps")]
    any_host: bool,
    /// Copy only snapshots with this tag (can be repeated)
    #[arg(long, value_name = "TAG", value_parser = parse::tag)]
    tag: Vec<String>,
    /// Copy only snapshots with a source of this name; they are copied whole
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// zstd level, 1 to 19
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// Memory budget (default: 256 MiB)
    #[arg(long, value_name = "SIZE", value_parser = parse::memory)]
    memory: Option<ByteSize>,
    /// Threads that compress (default: one per core)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Show the snapshots that would be copied; copy nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Formats a snapshot and whether it was copied, for people.
fn item_line(item: &CopyItem) -> String {
    let what = format!(
        "{} {}",
        item.found.id.short(),
        text::when(item.found.time())
    );
    match &item.outcome {
        CopyOutcome::Copied(id) => format!("{what} copied as {}", id.short()),
        CopyOutcome::There(id) => format!("{what} already exists as {}", id.short()),
        CopyOutcome::Wanted => format!("{what} would be copied"),
        CopyOutcome::Failed(why) => format!("{what} not copied: {}", text::clean(why)),
    }
}

pub fn run(context: &Context<'_>, args: &CopyArgs) -> Result<Outcome, CliError> {
    let (from, mut meter, cancel) = context.begin()?;

    // The other repository has its own address and secrets; all else is the same.
    let global = Global {
        repo: Some(args.to.clone()),
        passphrase_file: args.to_passphrase_file.clone(),
        passphrase_command: args.to_passphrase_command.clone(),
        no_passphrase: args.to_no_passphrase,
        accept_repository: args.to_accept_repository,
        ..context.global.clone()
    };

    // A signal stops both repositories; print its message only once.
    let ui = Ui {
        quiet: true,
        ..context.ui
    };
    let other = context.other(&global, ui);
    other.env.check()?;
    let (to, _) = other.open(&meter).map_err(no_other)?;

    let options = CopyOptions {
        names: args.snaps.clone(),
        hosts: HostArgs {
            host: args.host.clone(),
            any_host: args.any_host,
        }
        .choice(context)?,
        filter: SnapshotFilter {
            host: args.host.clone(),
            tags: args.tag.clone(),
            source: args.source.clone(),
        },
        level: args.level,
        threads: args.threads.map_or(0, usize::from),
        memory: args.memory.unwrap_or(icecore::ops::memory::BUDGET_DEFAULT),
        dry_run: args.dry_run,
    };

    let report = copy(&from, &to, &options, Task::new(&meter, &cancel))?;
    if report.items.is_empty() {
        report_nothing(&from, &options.filter, Severity::Missing, &meter)?;
    }

    meter.end();
    let mut out = context.ui.data()?;
    for item in &report.items {
        out.record(&CopyRecord::from(item), || item_line(item))?;
    }
    out.finish()?;

    let summary = CopySummary::new(&report, args.dry_run);
    Ok(meter.finish("copy", Outcome::Done, &summary, || {
        vec![summary_line(&summary)]
    }))
}

/// Replaces the hint for a missing other repository: the usual hint is about `--repo`.
fn no_other(error: CliError) -> CliError {
    match error {
        CliError::Engine(error) if error.kind() == ErrorKind::NoRepository => {
            let message = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
                error.source()
            })
            .map(ToString::to_string)
            .reduce(|all, cause| {
                if all.ends_with(&cause) {
                    all
                } else {
                    format!("{all}: {cause}")
                }
            });
            let hint =
                "check the address given with --to; 'icecore init -r REPO' creates a repository";
            CliError::Absent {
                message: message.unwrap_or_default(),
                hint: Some(hint.to_owned()),
            }
        }
        error => error,
    }
}

fn summary_line(summary: &CopySummary) -> String {
    let copied = text::counted(summary.copied, "snapshot", "snapshots");
    let verb = if summary.dry_run {
        "would be copied"
    } else {
        "copied"
    };
    let failed = match summary.failed {
        0 => String::new(),
        failed => format!(", {} failed", text::number(failed)),
    };
    let stored = text::size(summary.bytes_stored);
    format!(
        "{copied} {verb}, {} already present{failed}; {stored} stored",
        text::number(summary.present)
    )
}
