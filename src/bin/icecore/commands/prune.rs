//! `icecore prune`

use std::time::Duration;

use icecore::jobs::config::Config;
use icecore::jobs::report::PruneSummary;
use icecore::ops::prune::{CopyStop, PackAmount, PruneOptions, PruneReport, WaitReason, prune};
use icecore::task::Task;
use icecore::types::ByteSize;

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::text;

/// Free the space of data that no snapshot needs
///
/// Backups and restores may run at the same time. Unneeded data is marked first. A later prune
/// deletes it, once every client that was active at the time of the mark has finished and a day has
/// passed. With --now it is deleted at once if no other client is active, forgotten snapshots
/// included.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore prune
  icecore prune --now
  icecore prune --dry-run
  icecore prune --max-repack 2GiB --max-time 30m")]
pub struct PruneArgs {
    /// Delete at once if no other client is active
    #[arg(long)]
    now: bool,
    /// How long to keep marked packs and forgotten snapshots (default: 24h); below 2h30m only with
    /// --now
    #[arg(long, value_name = "SPAN", value_parser = parse::duration)]
    grace: Option<Duration>,
    /// Copy at most this much out of packs that are mostly unneeded
    #[arg(long, value_name = "SIZE")]
    max_repack: Option<ByteSize>,
    /// Start no further copy after this time
    #[arg(long, value_name = "SPAN", value_parser = parse::duration)]
    max_time: Option<Duration>,
    /// Show what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(context: &Context<'_>, args: &PruneArgs) -> Result<Outcome, CliError> {
    let (repository, mut meter, cancel) = context.begin()?;
    let mut options = options(context.config()?);
    options.now = args.now;
    options.grace = args.grace.unwrap_or(options.grace);
    options.max_repack = args.max_repack.or(options.max_repack);
    options.max_time = args.max_time.or(options.max_time);
    options.dry_run = args.dry_run;
    let report = prune(&repository, &options, Task::new(&meter, &cancel))?;
    meter.end();
    let elapsed = text::span(meter.elapsed());
    let summary = summary(&report);
    Ok(meter.finish("prune", Outcome::Done, &summary, || {
        lines(&report, &elapsed)
    }))
}

/// Returns the options that the configuration sets.
pub fn options(config: &Config) -> PruneOptions {
    let mut options = PruneOptions::default();
    let settings = &config.prune;
    options.grace = settings.grace.unwrap_or(options.grace);
    options.max_repack = settings.max_repack;
    options.max_time = settings.max_time;
    options
}

/// Returns the report as JSON has it.
pub fn summary(report: &PruneReport) -> PruneSummary {
    PruneSummary::new(report, report.kept_waiting.iter().map(waiting).collect())
}

/// Formats the report for people.
pub fn lines(report: &PruneReport, elapsed: &str) -> Vec<String> {
    if report.other_prune {
        return vec!["another prune is running: nothing was done".to_owned()];
    }
    let packs = |amount: PackAmount| text::counted(amount.packs, "pack", "packs");
    let would = if report.dry_run { "would be " } else { "" };
    let mut lines = vec![format!(
        "needed: {} in {} by {}; not needed: {} ({elapsed})",
        text::size(report.live.bytes),
        packs(report.live),
        text::counted(report.roots, "snapshot", "snapshots"),
        text::size(report.dead.bytes),
    )];

    if report.adopted.packs > 0 {
        lines.push(format!(
            "{would}added to the index: {}",
            packs(report.adopted)
        ));
    }

    if report.copied.packs > 0 {
        let what = format!(
            "{} of {}",
            text::size(report.copied.bytes),
            packs(report.copied)
        );
        lines.push(if report.dry_run {
            format!("would copy {what}")
        } else {
            format!("copied: {what}")
        });
    }

    match report.copy_stopped {
        Some(CopyStop::Full) => {
            lines.push(
                "no space left for copies: free some, or run prune again after it has deleted packs"
                    .to_owned(),
            );
        }
        Some(CopyStop::MaxRepack) => {
            lines.push("stopped copying: --max-repack was reached".to_owned());
        }
        Some(CopyStop::MaxTime) => {
            lines.push("stopped copying: --max-time was reached".to_owned());
        }
        None => {}
    }

    if report.condemned.packs > 0 {
        let amount = format!(
            "{} ({})",
            text::size(report.condemned.bytes),
            packs(report.condemned)
        );
        lines.push(format!("{would}marked for deletion: {amount}"));
    }

    lines.push(match report.freed_bytes {
        0 => format!("nothing {would}freed"),
        bytes => format!(
            "{would}freed: {} ({})",
            text::size(bytes),
            packs(report.dropped)
        ),
    });

    if report.pending.packs > 0 {
        let until = report
            .pending_until
            .map(|until| format!(" until {}", text::when(until)))
            .unwrap_or_default();
        let amount = format!(
            "{} ({})",
            text::size(report.pending.bytes),
            packs(report.pending)
        );
        lines.push(format!("waiting{until}: {amount}; run prune again then"));
        lines.extend(
            report
                .kept_waiting
                .iter()
                .map(|why| format!("  {}", waiting(why))),
        );
    }

    lines.extend(quarantine_lines(report, would));
    lines
}

fn quarantine_lines(report: &PruneReport, would: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let objects = |amount: PackAmount| {
        format!(
            "{} ({})",
            text::counted(amount.packs, "object", "objects"),
            text::size(amount.bytes)
        )
    };
    if report.quarantine_deleted.packs > 0 {
        lines.push(format!(
            "quarantine: {} {would}deleted",
            objects(report.quarantine_deleted)
        ));
    }
    if report.quarantined.packs > 0 {
        let what = "'icecore repair packs' and 'icecore repair snapshots' recover data from it";
        lines.push(format!(
            "quarantine: {}; {what}",
            objects(report.quarantined)
        ));
    }
    lines.extend(held_lines(report));
    lines
}

/// Reports packs that are kept for snapshots whose needs are not known.
fn held_lines(report: &PruneReport) -> Vec<String> {
    let mut lines = Vec::new();
    let held = format!(
        "{} ({})",
        text::size(report.held.bytes),
        text::counted(report.held.packs, "pack", "packs")
    );
    if let Some(until) = report.held_until {
        let snapshots = text::counted(report.unreadable_aside, "snapshot", "snapshots");
        lines.push(format!(
            "kept until {} for {snapshots} in quarantine that cannot be read completely: {held}",
            text::when(until),
        ));
    }
    if report.vanished > 0 && report.held.packs > 0 {
        let snapshots = text::counted(report.vanished, "missing snapshot", "missing snapshots");
        let were = if report.vanished == 1 { "was" } else { "were" };
        lines.push(format!(
            "kept for {snapshots} that {were} not forgotten, until 'icecore forget ID': {held}"
        ));
    }
    lines
}

/// Describes for people why something waits.
fn waiting(why: &WaitReason) -> String {
    match why {
        WaitReason::Grace => "the grace period has not passed: other processes may still use these packs".to_owned(),
        WaitReason::Lease { id, host, kind, started } => {
            let kind = kind.map_or("command".to_owned(), |kind| format!("{kind:?}").to_lowercase());
            let host = if host.is_empty() { "an unknown machine" } else { host };
            let since = text::when(*started);
            format!("a {kind} on {} has been running since {since} (lease {})", text::clean(host), id.short())
        }
        WaitReason::Silence => "nothing was written to the repository for more than 30 days, or its clock jumped: that time does not count, and another grace period must pass".to_owned(),
        WaitReason::Changed => "new snapshots were committed in the meantime: the next prune tries again".to_owned(),
        WaitReason::Unknown => {
            "an unreadable snapshot in quarantine, or a missing one that was not forgotten, may need these packs"
                .to_owned()
        }
        WaitReason::Needed => "these packs hold the only copies of needed chunks: the next prune copies them".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use icecore::ops::prune::GRACE_DEFAULT;

    use super::*;

    #[test]
    fn the_default_grace_is_the_librarys() {
        assert_eq!(parse::duration("24h"), Ok(GRACE_DEFAULT));
    }

    #[test]
    fn a_report_names_pending_data_and_the_reason() {
        let report = PruneReport {
            live: PackAmount {
                packs: 2,
                bytes: 3 << 20,
            },
            condemned: PackAmount {
                packs: 1,
                bytes: 1 << 20,
            },
            pending: PackAmount {
                packs: 1,
                bytes: 1 << 20,
            },
            kept_waiting: vec![WaitReason::Grace],
            ..PruneReport::default()
        };

        let text = lines(&report, "1s").join("\n");
        for part in [
            "3.0 MiB in 2 packs",
            "marked for deletion: 1.0 MiB",
            "nothing freed",
            "the grace period has not",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }

        let other = PruneReport {
            other_prune: true,
            ..PruneReport::default()
        };
        assert_eq!(
            lines(&other, "1s"),
            ["another prune is running: nothing was done"]
        );
    }
}
