//! `icecore verify`

use std::time::Duration;

use icecore::jobs::report::{AffectedRecord, FindingRecord, VerifySummary};
use icecore::ops::verify::{FindingKind, VerifyOptions, VerifyReport, verify};
use icecore::task::Task;
use icecore::types::ByteSize;

use crate::advice::advised;
use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::text;

/// Check that every snapshot can be restored
///
/// Without options, checks that every object exists with its size, and that everything that the
/// snapshots refer to can be found. With --read-data, also reads and checks every byte. With a
/// limit, the data that has been unverified for the longest time comes first, so that twenty runs
/// of 5% cover everything.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore verify
  icecore verify --read-data
  icecore verify --sample 5%
  icecore verify --max-time 10m --max-bytes 10GiB")]
pub struct VerifyArgs {
    /// Read the data and check it
    #[arg(long)]
    read_data: bool,
    /// Read this share of the stored bytes (implies --read-data)
    #[arg(long, value_name = "SHARE", value_parser = parse::percentage)]
    sample: Option<f64>,
    /// Stop reading after this time (implies --read-data)
    #[arg(long, value_name = "SPAN", value_parser = parse::some_time)]
    max_time: Option<Duration>,
    /// Read at most this many stored bytes (implies --read-data)
    #[arg(long, value_name = "SIZE", value_parser = parse::some_size)]
    max_bytes: Option<ByteSize>,
}

pub fn run(context: &Context<'_>, args: &VerifyArgs) -> Result<Outcome, CliError> {
    let (repository, mut meter, cancel) = context.begin()?;
    let settings = &context.config()?.verify;
    // Options of the command line replace all of the configuration's.
    let asked = args.read_data
        || args.sample.is_some()
        || args.max_time.is_some()
        || args.max_bytes.is_some();
    let (read_data, sample, max_time, max_bytes) = if asked {
        (args.read_data, args.sample, args.max_time, args.max_bytes)
    } else {
        (
            settings.read_data,
            settings.sample,
            settings.max_time,
            settings.max_bytes,
        )
    };
    // A limit implies that data is read.
    let limited = sample.is_some() || max_time.is_some() || max_bytes.is_some();
    let options = VerifyOptions {
        read_data: read_data || limited,
        sample,
        max_time,
        max_bytes: max_bytes.map(|size| size.0),
        ..VerifyOptions::default()
    };

    let report = verify(&repository, &options, Task::new(&meter, &cancel))?;
    meter.end();
    print_findings(context, &report)?;

    let outcome = if report.is_clean() {
        Outcome::Done
    } else {
        Outcome::Damage
    };

    let summary = VerifySummary::from(&report);
    let elapsed = text::span(meter.elapsed());
    Ok(meter.finish("verify", outcome, &summary, || {
        let only_unreadable = report
            .findings
            .iter()
            .all(|one| one.kind == FindingKind::UnreadableNow);
        let mut lines = summary_lines(&summary, options.read_data, only_unreadable, &elapsed);
        lines.extend(next_steps(&report).map(|step| format!("next: {step}")));
        lines
    }))
}

/// Returns the next steps for the findings, in the order in which to take them.
fn next_steps(report: &VerifyReport) -> impl Iterator<Item = &'static str> {
    use FindingKind::{
        ChunkMismatch, ChunkUnresolved, ConfigDamaged, DirectoryMismatch, FrameDamaged,
        HashMismatch, KeySlotDamaged, KeySlotLost, ObjectMissing, ObjectUnreadable, ParityDamaged,
        RunUnreadable, SealBroken, UnreadableNow, WrongSize,
    };
    let has = |kinds: &[FindingKind], directory: &str| {
        report
            .findings
            .iter()
            .any(|one| kinds.contains(&one.kind) && one.object.starts_with(directory))
    };

    let broken = [
        HashMismatch,
        SealBroken,
        ObjectUnreadable,
        WrongSize,
        ObjectMissing,
    ];
    let in_packs = [
        FrameDamaged,
        ChunkMismatch,
        DirectoryMismatch,
        ParityDamaged,
    ];

    let packs = has(&broken, "packs") || has(&in_packs, "");
    let snapshots = has(&broken, "snapshots") || has(&broken, "forgotten");
    // Damage in packs can lose chunks.
    let lost = packs || has(&[ChunkUnresolved, RunUnreadable], "");

    [
        (
            has(&[UnreadableNow], ""),
            "check the disk, its cable or the mount, then verify again: unreadable data may be intact",
        ),
        (has(&[ConfigDamaged, KeySlotDamaged], ""), "'icecore repair config'"),
        (has(&[KeySlotLost], ""), "'icecore key remove SLOT' for each key slot whose copies are both damaged"),
        (has(&broken, "index"), "'icecore repair index'"),
        (lost, "'icecore repair packs' saves chunks that still open; then back up again to store lost chunks"),
        (lost || snapshots, "'icecore repair snapshots'"),
    ]
    .into_iter()
    .filter_map(|(is_needed, step)| is_needed.then_some(step))
}

/// Prints the findings and the affected paths as data.
fn print_findings(context: &Context<'_>, report: &VerifyReport) -> Result<(), CliError> {
    let mut out = context.ui.data()?;
    for finding in &report.findings {
        let advice = finding.advice.as_ref();
        let message = advised(&finding.what, advice).into_owned();
        let record = FindingRecord::new(finding, message);
        out.record(&record, || {
            text::clean(&advised(&finding.to_string(), advice))
        })?;
    }
    for path in &report.affected {
        let record = AffectedRecord::from(path);
        out.record(&record, || format!("affected: {path}"))?;
    }
    out.finish()
}

/// Formats the summary for people.
fn summary_lines(
    summary: &VerifySummary,
    read_data: bool,
    only_unreadable: bool,
    elapsed: &str,
) -> Vec<String> {
    let mut lines = vec![format!(
        "{}, {} and {} checked in {elapsed}",
        text::counted(summary.snapshots, "snapshot", "snapshots"),
        text::counted(summary.packs, "pack", "packs"),
        text::counted(summary.chunks, "chunk", "chunks"),
    )];
    if read_data {
        lines.push(format!(
            "{} read, {} of data in them; never read: {}",
            text::counted(summary.packs_read, "pack", "packs"),
            text::size(summary.bytes_read),
            text::number(summary.never_verified),
        ));
    }
    let what = if only_unreadable {
        "cannot be read now"
    } else {
        "damage"
    };
    lines.push(match (summary.findings, summary.affected) {
        (0, _) => "no damage found".to_owned(),
        (found, hit) => format!(
            "{what}: {}, {} affected",
            text::counted(found, "finding", "findings"),
            text::counted(hit, "path", "paths"),
        ),
    });
    lines
}
