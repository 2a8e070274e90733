//! `icecore verify`

use std::time::Duration;

use icecore::types::ByteSize;
use serde::Serialize;

use crate::context::Context;
use crate::engine::ops::verify::{Finding, VerifyOptions, verify};
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::text;

/// Check that every snapshot can be restored
///
/// Without options: every object is there with its size, and everything that the snapshots name resolves. With
/// --read-data, every byte is read and checked too; the limits take what was longest unverified first, so that twenty
/// runs of 5% cover all.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore verify
  icecore verify --read-data
  icecore verify --sample 5%
  icecore verify --max-time 10m --max-bytes 10GiB")]
pub struct Args {
    /// Read the data and check it
    #[arg(long)]
    read_data: bool,
    /// Read this share of the stored bytes (implies --read-data)
    #[arg(long, value_name = "SHARE", value_parser = parse::percentage)]
    sample: Option<f64>,
    /// Stop reading after this time (implies --read-data)
    #[arg(long, value_name = "SPAN", value_parser = parse::duration)]
    max_time: Option<Duration>,
    /// Stop reading after so many stored bytes (implies --read-data)
    #[arg(long, value_name = "SIZE")]
    max_bytes: Option<ByteSize>,
}

/// Something that is damaged, as JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename = "finding")]
struct Record<'a> {
    subject: &'a str,
    message: &'a str,
    affected: &'a [String],
}

#[derive(Serialize)]
struct Summary {
    snapshots: u64,
    packs: u64,
    bytes: u64,
    findings: u64,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    let (repository, meter, cancel) = context.begin()?;
    let options = VerifyOptions {
        read_data: args.read_data
            || args.sample.is_some()
            || args.max_time.is_some()
            || args.max_bytes.is_some(),
        sample: args.sample,
        max_time: args.max_time,
        max_bytes: args.max_bytes.map(|size| size.0),
    };
    let report = verify(&repository, &options, &meter, &cancel)?;
    let mut out = context.ui.data()?;
    for finding in &report.findings {
        let Finding { subject, message, affected } = finding;
        out.record(&Record { subject, message, affected }, || lines(finding))?;
    }
    out.finish()?;
    let count = report.findings.len() as u64;
    let outcome = if count == 0 { Outcome::Done } else { Outcome::Damage };
    let summary =
        Summary { snapshots: report.snapshots, packs: report.packs, bytes: report.bytes, findings: count };
    let elapsed = text::span(meter.elapsed());
    Ok(meter.finish("verify", outcome, &summary, || {
        let end = match count {
            0 => "no damage found".to_owned(),
            n => format!("{} found", text::counted(n, "damage", "damages")),
        };
        let checked = format!(
            "{} and {} checked, {} read, in {elapsed}",
            text::counted(report.snapshots, "snapshot", "snapshots"),
            text::counted(report.packs, "pack", "packs"),
            text::size(report.bytes),
        );
        vec![checked, end]
    }))
}

fn lines(finding: &Finding) -> String {
    let mut line = format!("{}: {}", text::clean(&finding.subject), text::clean(&finding.message));
    for path in &finding.affected {
        line.push_str("\n  ");
        line.push_str(&text::clean(path));
    }
    line
}
