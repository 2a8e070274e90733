//! `icecore repair`

use clap::Subcommand;
use icecore::jobs::report::{
    DamagedPackRecord, RepairConfigSummary, RepairIndexSummary, RepairPacksSummary,
    RepairSnapshotsSummary, ReplacedSnapshotRecord,
};
use icecore::observe::Counters;
use icecore::ops::repair::{
    PackFate, PacksReport, RepairPacksOptions, RepairSnapshotsOptions, ReplacedSnapshot,
    repair_config, repair_index, repair_packs, repair_snapshots,
};
use icecore::task::Task;

use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::ui::text;

/// Repair the index, the configuration, packs or snapshots
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore repair index
  icecore repair config
  icecore repair packs
  icecore repair packs --quick --dry-run
  icecore repair snapshots")]
pub struct RepairArgs {
    #[command(subcommand)]
    what: RepairCommand,
}

#[derive(Debug, Subcommand)]
enum RepairCommand {
    /// Publish index segments again from the packs' own directories, and rebuild the local index
    Index,
    /// Restore a damaged or missing copy of the configuration or of a key slot from the other copy
    Config,
    /// Find damaged packs, heal them or save their readable chunks, and set them aside
    Packs(PacksArgs),
    /// Replace snapshots that lost data by partial ones, and restore originals that are whole again
    Snapshots(SnapshotsArgs),
}

/// Find damaged packs, heal them or save their readable chunks, and set them aside
///
/// Reads every pack, unless some are named. A damaged pack is restored from its recovery data if
/// the repository has any (init --parity). Otherwise the chunks that still open are stored again,
/// and the pack goes into quarantine. Lost chunks are recorded, and the next backup that finds
/// their content stores them again. Chunks that snapshots need from packs that were dropped but
/// exist again, as after a merge of two copies of the repository, are stored again too. Nothing is
/// deleted. Exit code 0: nothing was damaged, or nothing is lost by it; 4: something is lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore repair packs
  icecore repair packs --dry-run
  icecore repair packs 3f2a90c1")]
struct PacksArgs {
    /// Packs to read, by id or prefix (default: all)
    #[arg(value_name = "PACK")]
    packs: Vec<String>,
    /// Read no pack: look only for packs that are missing or have the wrong size
    #[arg(long, conflicts_with = "packs")]
    quick: bool,
    /// Also set aside packs that cannot be read now, and record the chunks that only they hold as
    /// lost. The packs keep their bytes in quarantine; once they can be read there, this command
    /// takes the lost chunks from them
    #[arg(long)]
    set_aside_unreadable: bool,
    /// Show the damage; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Replace snapshots that lost data by partial ones, and restore originals that are whole again
///
/// Run 'icecore repair packs' first: it records lost chunks. Without that, this command refuses to
/// run while packs are missing, or exist although they were dropped. A snapshot that refers to
/// something lost goes into quarantine, and is replaced by one with all the rest: lost pieces of
/// files read as zeros, and the snapshot lists the paths that lack something. The next backup reads
/// these files again. Once everything that an original refers to exists again, this command
/// restores the original. Exit code 0: no snapshot was found that lacks something; 4: some snapshot
/// was.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore repair snapshots
  icecore repair snapshots --dry-run
  icecore repair snapshots 5d0c77aa")]
struct SnapshotsArgs {
    /// Snapshots to repair, by id or prefix (default: all)
    #[arg(value_name = "SNAP")]
    snapshots: Vec<String>,
    /// Also set aside snapshots that cannot be read now
    #[arg(long)]
    set_aside_unreadable: bool,
    /// Show the losses; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

pub fn run(context: &Context<'_>, args: &RepairArgs) -> Result<Outcome, CliError> {
    match &args.what {
        RepairCommand::Index => index(context),
        RepairCommand::Config => config(context),
        RepairCommand::Packs(args) => packs(context, args),
        RepairCommand::Snapshots(args) => snapshots(context, args),
    }
}

fn index(context: &Context<'_>) -> Result<Outcome, CliError> {
    let (repository, meter, cancel) = context.begin()?;
    let rebuilt = repair_index(&repository, Task::new(&meter, &cancel))?;
    let summary = RepairIndexSummary::from(&rebuilt);
    Ok(meter.finish("repair index", Outcome::Done, &summary, || {
        let mut lines = vec![match summary.packs_adopted {
            0 if summary.unreadable_packs > 0 => {
                "index rebuilt; every pack that can be read was in it".to_owned()
            }
            0 => "index rebuilt; every pack was in it".to_owned(),
            packs => format!(
                "index rebuilt; {} found in {}",
                text::counted(summary.chunks_adopted, "chunk", "chunks"),
                text::counted(
                    packs,
                    "pack that was not in it",
                    "packs that were not in it"
                ),
            ),
        }];
        if summary.unreadable_packs > 0 {
            lines.push(format!(
                "{} cannot be read and may hold more: run this again once that is mended",
                text::counted(summary.unreadable_packs, "pack", "packs")
            ));
        }
        lines
    }))
}

fn config(context: &Context<'_>) -> Result<Outcome, CliError> {
    let meter = context.ui.meter();
    // Do not report damage that is about to be repaired.
    let (repository, cancel) = context.open(&Counters::default())?;
    let written = repair_config(&repository, &cancel)?;
    let summary = RepairConfigSummary { written };
    Ok(meter.finish("repair config", Outcome::Done, &summary, || {
        if summary.written.is_empty() {
            vec!["both copies are intact".to_owned()]
        } else {
            summary
                .written
                .iter()
                .map(|name| format!("{name} restored"))
                .collect()
        }
    }))
}

fn packs(context: &Context<'_>, args: &PacksArgs) -> Result<Outcome, CliError> {
    let (repository, mut meter, cancel) = context.begin()?;
    let options = RepairPacksOptions {
        packs: args.packs.clone(),
        quick: args.quick,
        set_aside_unreadable: args.set_aside_unreadable,
        dry_run: args.dry_run,
        ..RepairPacksOptions::default()
    };
    let report = repair_packs(&repository, &options, Task::new(&meter, &cancel))?;
    meter.end();

    let mut out = context.ui.data()?;
    for pack in &report.damaged {
        let fate = match pack.fate {
            PackFate::Healed => "healed",
            PackFate::Saved => "saved",
            PackFate::Lost => "lost",
            PackFate::LostForNow => "lost for now",
            PackFate::Unreadable => "cannot be read now",
            PackFate::Foreign => "not a pack, set aside",
        };
        let record = DamagedPackRecord::from(pack);
        out.record(&record, || {
            text::clean(&format!("pack {}: {fate} ({})", pack.id, pack.what))
        })?;
    }
    out.finish()?;

    let outcome = if report.is_whole() {
        Outcome::Done
    } else {
        Outcome::Damage
    };

    let summary = RepairPacksSummary::new(&report, args.dry_run);
    Ok(meter.finish("repair packs", outcome, &summary, || {
        packs_lines(&report, args.dry_run)
    }))
}

fn packs_lines(report: &PacksReport, dry_run: bool) -> Vec<String> {
    let mut lines = vec![format!(
        "{} checked, {} read, {} damaged",
        text::counted(report.packs, "pack", "packs"),
        text::number(report.packs_read),
        text::number(report.damaged.len() as u64),
    )];

    if report.saved_chunks > 0 {
        lines.push(format!(
            "{} ({}) {}",
            text::counted(report.saved_chunks, "chunk", "chunks"),
            text::size(report.saved_bytes),
            if dry_run {
                "can be saved"
            } else {
                "stored again"
            },
        ));
    }

    if report.lost_chunks > 0 {
        lines.push(format!(
            "{} {}; back up the sources that may still have them, then run 'icecore repair snapshots'",
            text::counted(report.lost_chunks, "chunk", "chunks"),
            if dry_run { "would be lost" } else { "lost" },
        ));
    }

    if report.unreadable_now > 0 {
        if report.lost_for_now > 0 {
            let chunks = text::counted(report.lost_for_now, "chunk", "chunks");
            lines.push(format!("{chunks} lost for now: their packs cannot be read"));
        }
        lines.push(format!(
            "{} cannot be read now and {} where it is: check the disk, its cable or the mount, then run this again; \
             for a failing disk use ddrescue. --set-aside-unreadable gives up packs that stay unreadable",
            text::counted(report.unreadable_now, "pack", "packs"),
            if report.unreadable_now == 1 { "stays" } else { "each stays" },
        ));
    }

    if report.still_lost > 0 {
        lines.push(format!(
            "lost to earlier damage and still missing: {}",
            text::counted(report.still_lost, "chunk", "chunks")
        ));
    }

    if report.parity_written > 0 {
        lines.push(format!(
            "recovery data {} for {}",
            if dry_run {
                "would be written"
            } else {
                "written"
            },
            text::counted(report.parity_written, "pack", "packs"),
        ));
    }

    if dry_run {
        lines.push("nothing was changed".to_owned());
    }

    lines
}

fn snapshots(context: &Context<'_>, args: &SnapshotsArgs) -> Result<Outcome, CliError> {
    let (repository, mut meter, cancel) = context.begin()?;
    let options = RepairSnapshotsOptions {
        snapshots: args.snapshots.clone(),
        set_aside_unreadable: args.set_aside_unreadable,
        dry_run: args.dry_run,
        ..RepairSnapshotsOptions::default()
    };
    let report = repair_snapshots(&repository, &options, Task::new(&meter, &cancel))?;
    meter.end();

    let mut out = context.ui.data()?;
    let mut print = |what: &str, replaced: &ReplacedSnapshot| {
        let lost = text::counted(replaced.lost, "path lost data", "paths lost data");
        let by = replaced
            .new
            .map_or_else(String::new, |id| format!(", now {}", id.short()));
        let line = format!("snapshot {}{by}: {what}, {lost}", replaced.old.short());
        let record = ReplacedSnapshotRecord::from(replaced);
        out.record(&record, || line)
    };

    report
        .partial
        .iter()
        .try_for_each(|replaced| print("incomplete", replaced))?;
    report
        .healed
        .iter()
        .try_for_each(|replaced| print("healed", replaced))?;
    out.finish()?;

    let outcome = if report.is_whole() {
        Outcome::Done
    } else {
        Outcome::Damage
    };

    let summary = RepairSnapshotsSummary::new(&report, args.dry_run);
    Ok(meter.finish("repair snapshots", outcome, &summary, || {
        let mut lines = vec![format!(
            "{} checked, {} with lost data, {} healed",
            text::counted(summary.snapshots, "snapshot", "snapshots"),
            text::number(summary.damaged),
            text::number(summary.healed),
        )];
        if summary.set_aside > 0 {
            lines.push(format!(
                "{} cannot be read as snapshots and {} set aside; 'icecore prune' keeps data that only they may need for 30 days",
                text::counted(summary.set_aside, "object", "objects"),
                if summary.dry_run { "would be" } else { "were" },
            ));
        }
        if summary.unreadable_now > 0 {
            lines.push(format!(
                "{} cannot be read now: check the disk, its cable or the mount, then run this again",
                text::counted(summary.unreadable_now, "snapshot", "snapshots"),
            ));
        }
        if summary.dry_run {
            lines.push("nothing was changed".to_owned());
        }
        lines
    }))
}
