//! `icecore restore`

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use icecore::dest::{OwnerPolicy, ProtectedDirs};
use icecore::jobs::report::RestoreSummary;
use icecore::observe::{Observer, Problem, Severity};
use icecore::ops::restore::{
    OverwriteRule, RestoreOptions, RestoreReport, RestoreTarget, SnapshotPath, UnmatchedInclude,
    restore,
};
use icecore::repo::HostChoice;
use icecore::task::Task;

use crate::context::{Context, HostArgs};
use crate::exit::{CliError, Outcome};
use crate::parse::{self, SnapPath};
use crate::ui::{Meter, text};

/// Restore a snapshot, a source or a path
///
/// A whole snapshot goes to TARGET/<source>, one directory for each of its sources. SNAP:SOURCE
/// goes right into TARGET, which may exist: entries that already match are left alone. A single
/// file goes into TARGET if that is a directory, otherwise to that name; a stream becomes a file.
/// TARGET '-' is standard output.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore restore latest /tmp/restored
  icecore restore latest:home /home --overwrite if-changed
  icecore restore latest:home/notes.txt .
  icecore restore latest:db - | psql")]
pub struct RestoreArgs {
    /// Snapshot, source and path
    #[arg(value_name = "SNAP[:SOURCE[/PATH]]",
          value_parser = OsStringValueParser::new().try_map(|s| parse::snap_path(&s)))]
    what: SnapPath,
    /// Where to put it; '-' is standard output
    #[arg(value_parser = parse::paths())]
    target: PathBuf,
    /// Restore only paths that match, by gitignore's rules from the source's root; a pattern that
    /// matches nothing is reported (exit code 3)
    #[arg(long, value_name = "GLOB")]
    include: Vec<OsString>,
    /// Leave out paths that match
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<OsString>,
    /// What to do with existing files
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = OverwriteChoice::IfChanged)]
    overwrite: OverwriteChoice,
    /// Delete entries that did not exist when it was backed up, only below restored directories
    ///
    /// Names that a rule, an error or another file system kept out of the backup are left alone. So
    /// are the repository, its cache and the settings directory, wherever they are.
    #[arg(long)]
    delete: bool,
    /// Like --delete, but also in directories from which the rules of the backup left out names
    ///
    /// These rules are patterns, lists of files, sizes and cache tags. Names that --exclude matches
    /// here are kept.
    #[arg(long)]
    delete_excluded: bool,
    /// Set owners by number, not by name
    #[arg(long)]
    numeric_ids: bool,
    /// Do not set owners
    #[arg(long, conflicts_with = "numeric_ids")]
    no_owner: bool,
    /// Read every selected file back, including files that are kept, and write again those that
    /// differ
    #[arg(long)]
    verify: bool,
    /// List the files that would be written, overwritten and deleted; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    hosts: HostArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OverwriteChoice {
    /// Write every file again
    Always,
    /// Write files whose size or modification time differs (contents are not compared; --verify
    /// does)
    IfChanged,
    /// Like if-changed, but only if the snapshot's modification time is newer than that of the
    /// existing file
    IfNewer,
    /// Keep every existing file
    Never,
}

pub fn run(context: &Context<'_>, args: &RestoreArgs) -> Result<Outcome, CliError> {
    let to_stdout = args.target == Path::new("-");

    // Refuse options that make no sense for standard output.
    if context.ui.json && to_stdout {
        return Err(CliError::usage(
            "cannot write both contents and JSON to standard output",
        ));
    }
    if to_stdout && !(args.include.is_empty() && args.exclude.is_empty()) {
        let hint = "name the file itself: SNAP:SOURCE/PATH";
        return Err(
            CliError::usage("--include and --exclude cannot be used with standard output")
                .with_hint(hint),
        );
    }
    if to_stdout && (args.delete || args.delete_excluded) {
        return Err(CliError::usage(
            "--delete needs a directory, not standard output",
        ));
    }

    let (repository, meter, cancel) = context.begin()?;
    let what = SnapshotPath {
        snapshot: args.what.snap.clone(),
        source: args.what.source.clone(),
        path: args.what.path.clone(),
    };
    let options = options(args, args.hosts.choice(context)?, context.protection()?);

    let report = if to_stdout {
        let mut out = context.ui.data()?;
        let report = restore(
            &repository,
            &what,
            RestoreTarget::Stdout(&mut out),
            &options,
            Task::new(&meter, &cancel),
        )?;
        out.finish()?;
        report
    } else {
        let target = RestoreTarget::Directory(args.target.clone());
        restore(
            &repository,
            &what,
            target,
            &options,
            Task::new(&meter, &cancel),
        )?
    };

    let is_unmatched = report_unmatched(args, &report, &meter);
    let outcome = if !report.uncertain.is_empty() {
        Outcome::Damage
    } else if report.is_complete() && !is_unmatched {
        Outcome::Done
    } else {
        Outcome::Incomplete
    };

    let elapsed = text::span(meter.elapsed());
    let summary = RestoreSummary::new(&report, args.dry_run);
    Ok(meter.finish("restore", outcome, &summary, || {
        vec![summary_line(&summary, &elapsed)]
    }))
}

/// Reports the include patterns that matched nothing, or that the patterns together select nothing.
/// Returns true if it reported anything.
fn report_unmatched(args: &RestoreArgs, report: &RestoreReport, meter: &Meter) -> bool {
    let warn = |message: String, hint: String| {
        meter.problem(&Problem::new(Severity::Missing, &args.what, message).with_advice(hint));
    };
    let can_read = if report.uncertain.is_empty() {
        ""
    } else {
        " that can be read"
    };
    let is_left = if args.exclude.is_empty() {
        ""
    } else {
        " that --exclude leaves"
    };

    for UnmatchedInclude { pattern, meant } in &report.unmatched {
        let hint = match meant {
            Some(meant) => {
                format!(
                    "patterns begin at the source's root: write --include '{}'",
                    meant.to_string_lossy()
                )
            }
            None => format!(
                "patterns begin at the source's root, as in '/notes.txt'; 'icecore ls -R {}' lists all paths",
                args.what
            ),
        };
        let pattern = pattern.to_string_lossy();
        warn(
            format!("--include '{pattern}' matches nothing{can_read}{is_left}"),
            hint,
        );
    }

    if !report.unmatched.is_empty() || args.include.is_empty() || report.entries > 0 {
        return !report.unmatched.is_empty();
    }

    let hint =
        "a pattern that begins with '!' only deselects paths that an earlier pattern selects";
    warn(
        "--include and --exclude together select nothing".to_owned(),
        hint.to_owned(),
    );
    true
}

fn options(args: &RestoreArgs, host: HostChoice, protect: ProtectedDirs) -> RestoreOptions {
    RestoreOptions {
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        overwrite: match args.overwrite {
            OverwriteChoice::Always => OverwriteRule::Always,
            OverwriteChoice::IfChanged => OverwriteRule::IfChanged,
            OverwriteChoice::IfNewer => OverwriteRule::IfNewer,
            OverwriteChoice::Never => OverwriteRule::Never,
        },
        delete: args.delete,
        delete_excluded: args.delete_excluded,
        protect,
        owner: match (args.no_owner, args.numeric_ids) {
            (true, _) => OwnerPolicy::Keep,
            (false, true) => OwnerPolicy::Numeric,
            (false, false) => OwnerPolicy::Names,
        },
        verify: args.verify,
        dry_run: args.dry_run,
        host,
        ..RestoreOptions::default()
    }
}

/// Formats the summary for people.
fn summary_line(summary: &RestoreSummary, elapsed: &str) -> String {
    let (dry, would) = if summary.dry_run {
        ("dry run: ", "would be ")
    } else {
        ("", "")
    };

    let mut line = format!(
        "{dry}{}, {} {would}written ({}), {} unchanged",
        text::counted(summary.entries, "entry", "entries"),
        text::number(summary.files_written),
        text::size(summary.bytes_written),
        text::number(summary.files_unchanged),
    );

    if summary.newer_here > 0 {
        line.push_str(&format!(
            " ({} not newer in the snapshot)",
            text::number(summary.newer_here)
        ));
    }

    for (count, what) in [
        (summary.verified, "verified"),
        (summary.different, "different at equal size and time"),
        (summary.not_deleted, "not deleted"),
        (summary.failed, "failed"),
        (summary.incomplete, "incomplete in the snapshot"),
        (summary.refused_metadata, "metadata items not set"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {} {what}", text::number(count)));
        }
    }

    if summary.deleted > 0 {
        line.push_str(&format!(
            ", {} {would}deleted",
            text::number(summary.deleted)
        ));
    }

    format!("{line}, in {elapsed}")
}
