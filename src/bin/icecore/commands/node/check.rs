//! `icecore node check`

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use icecore::ccn::check::{CheckTarget, FileFinding, FileFindingKind, LiveDirectories, check};
use icecore::ccn::docker::Docker;
use icecore::jobs::report::node::{CheckedPlaceRecord, NodeCheckSummary, NodeFileRecord};
use icecore::read::ReadSession;
use icecore::task::Task;

use crate::commands::callback::CallbackError;
use crate::context::{Context, HostArgs};
use crate::env::SECRET_VARIABLES;
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::{DataWriter, text};

/// Check that the files that a node's database refers to exist
///
/// Reads the rows of 'files' and 'file_pins' in the snapshot's dump and looks for every pinned
/// file, in the snapshot or with --live in the directories of this machine. Files that only a grace
/// period pins may be missing. Every stored file, pinned or not, is compared with its name and with
/// its row's size; with --live, that reads all of them.
///
/// Exit code 3: pinned files are missing, and the network must bring them back. 4: a stored file
/// does not match its name or its row; the node would never fetch it again by itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore node check
  icecore node check 4f1c --list missing.txt
  icecore node check --live
  icecore node check --live --quick")]
pub struct NodeCheckArgs {
    /// Snapshot: an id, a prefix of one, or 'latest'
    #[arg(value_name = "SNAP", default_value = "latest", value_parser = parse::snap)]
    snap: String,
    /// Check the live directories instead of the snapshot's file storage
    #[arg(long)]
    live: bool,
    /// Compare only names and sizes; read no file
    #[arg(long, requires = "live")]
    quick: bool,
    /// Write all findings to this file, one per line (kind, hash, pins and place, separated by
    /// tabs); '-' is standard output
    #[arg(long, value_name = "FILE", value_parser = parse::paths())]
    list: Option<PathBuf>,
    /// Show at most this many findings
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u64,
    #[command(flatten)]
    hosts: HostArgs,
}

pub fn run(context: &Context<'_>, args: &NodeCheckArgs) -> Result<Outcome, CliError> {
    let profile = &context.config()?.node;
    if profile.database.is_none() {
        return Err(
            CliError::usage("the configuration names no database in [node]")
                .with_hint("'icecore node init' writes one"),
        );
    }

    let against = if args.live {
        let docker = Docker::new(SECRET_VARIABLES.map(str::to_owned).to_vec());
        CheckTarget::Live {
            directories: LiveDirectories::find(profile, &docker)?,
            quick: args.quick,
        }
    } else {
        CheckTarget::Snapshot
    };

    let (repository, meter, cancel) = context.begin()?;
    let session = ReadSession::open(&repository, Task::new(&meter, &cancel))?;
    let found = session.choose(&args.snap, &args.hosts.choice(context)?, None)?;
    session.sync()?;

    let mut list = FileList::open(context, args)?;
    let mut relay = CallbackError::default();
    let checked = check(
        &session,
        &found,
        profile,
        &against,
        Task::new(&meter, &cancel),
        &mut |finding| relay.pass(list.put(finding)),
    );
    let report = relay.done(checked)?;
    let shortened = list.finish()?;

    let outcome = match (report.mismatches(), report.is_complete()) {
        (1.., _) => Outcome::Damage,
        (0, false) => Outcome::Incomplete,
        (0, true) => Outcome::Done,
    };

    let summary = NodeCheckSummary::new(found.id.to_string(), args.live, &report);
    let elapsed = text::span(meter.elapsed());
    Ok(meter.finish("node check", outcome, &summary, || {
        summary_lines(&summary, &elapsed, shortened)
    }))
}

/// Receives findings: the first ones go to standard output, all of them to a file.
struct FileList<'a> {
    out: DataWriter,
    left: u64,
    /// Findings that were not shown.
    hidden: u64,
    file: Option<(&'a Path, BufWriter<File>)>,
    /// Standard output takes all of them, in the format of the file.
    is_all: bool,
}

impl<'a> FileList<'a> {
    fn open(context: &Context<'_>, args: &'a NodeCheckArgs) -> Result<Self, CliError> {
        let is_all = args.list.as_deref() == Some(Path::new("-"));
        let file = match &args.list {
            Some(path) if !is_all => {
                let file = File::create(path).map_err(|e| {
                    CliError::failed(format!("cannot create {}", path.display()), e)
                })?;
                Some((path.as_path(), BufWriter::new(file)))
            }
            _ => None,
        };
        Ok(Self {
            out: context.ui.data()?,
            left: args.limit,
            hidden: 0,
            file,
            is_all,
        })
    }

    fn put(&mut self, finding: &FileFinding<'_>) -> Result<(), CliError> {
        if let Some((path, file)) = &mut self.file {
            let written = writeln!(file, "{finding}");
            written.map_err(|e| CliError::failed(format!("cannot write {}", path.display()), e))?;
        }
        if !self.is_all {
            if self.left == 0 {
                self.hidden += 1;
                return Ok(());
            }
            self.left -= 1;
        }
        let is_all = self.is_all;
        self.out.record(&NodeFileRecord::from(finding), || {
            if is_all {
                finding.to_string()
            } else {
                line(finding)
            }
        })
    }

    /// Writes the rest. Returns the number of findings that were not shown.
    fn finish(self) -> Result<u64, CliError> {
        if let Some((path, mut file)) = self.file {
            file.flush()
                .map_err(|e| CliError::failed(format!("cannot write {}", path.display()), e))?;
        }
        self.out.finish()?;
        Ok(self.hidden)
    }
}

/// Formats a finding for people.
fn line(finding: &FileFinding<'_>) -> String {
    let FileFinding {
        source,
        path,
        hash,
        pins,
        ..
    } = finding;
    let what = match finding.kind {
        FileFindingKind::Missing => "missing".to_owned(),
        FileFindingKind::WrongName => "content does not match its name".to_owned(),
        FileFindingKind::Torn => "changed while it was captured".to_owned(),
        FileFindingKind::WrongSize { stored, expected } => {
            format!(
                "{} bytes, but its row says {}",
                text::number(stored),
                text::number(expected)
            )
        }
    };

    let pinned = match pins.kinds().next() {
        Some(_) => format!(" (pinned: {pins})"),
        None => String::new(),
    };

    // The name of a block does not show which file it belongs to.
    let of = if path == hash || finding.path.ends_with(hash.as_str()) {
        String::new()
    } else {
        format!(" of {hash}")
    };

    text::clean(&format!("{source}/{path}{of}: {what}{pinned}"))
}

/// Formats the counts of a place for people.
fn place_line(place: &CheckedPlaceRecord, what: &str) -> String {
    let stored = text::counted(place.stored, "file", "files");
    let mut line = format!(
        "{what}: {stored} present, {} needed",
        text::number(place.wanted)
    );
    if place.missing_files > 0 {
        let kinds = place.missing_by_pin.iter().filter(|(_, count)| **count > 0);
        let kinds: Vec<String> = kinds
            .map(|(kind, count)| format!("{kind} {}", text::number(*count)))
            .collect();
        line.push_str(&format!(
            ", {} missing ({})",
            text::number(place.missing_files),
            kinds.join(", ")
        ));
    }
    for (count, what) in [
        (
            place.wrong_name,
            "with content that does not match their name",
        ),
        (place.torn, "changed while they were captured"),
        (place.wrong_size, "with a size that differs from their row"),
        (place.vanished, "vanished during the check"),
    ] {
        if count > 0 {
            line.push_str(&format!(", {} {what}", text::number(count)));
        }
    }
    line
}

/// Formats the summary for people.
fn summary_lines(summary: &NodeCheckSummary, elapsed: &str, hidden: u64) -> Vec<String> {
    let mut lines = Vec::new();
    if hidden > 0 {
        lines.push(format!(
            "and {} more; --list FILE writes them all",
            text::number(hidden)
        ));
    }
    let files = text::counted(summary.files, "file", "files");
    let pinned = text::number(summary.pinned);
    lines.push(format!(
        "{files} in the database, {pinned} of them pinned, checked in {elapsed}"
    ));
    lines.push(place_line(&summary.local_storage, "local storage"));
    lines.push(place_line(&summary.ipfs, "IPFS"));
    lines.push(match summary.missing_files {
        0 => "no pinned file is missing".to_owned(),
        1 => "1 pinned file is missing".to_owned(),
        missing => format!("{} pinned files are missing", text::number(missing)),
    });
    if summary.mismatches > 0 {
        let files = text::counted(summary.mismatches, "mismatch", "mismatches");
        lines.push(format!(
            "damage: {files} between stored files and their names or rows"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use icecore::ccn::check::{CheckReport, PlaceReport};
    use icecore::ccn::dump::{PinKind, PinRows};

    use super::*;

    fn finding(kind: FileFindingKind, pins: PinRows, path: &str) -> FileFinding<'static> {
        FileFinding {
            kind,
            hash: "Qm1".into(),
            pins,
            source: "files",
            path: path.into(),
        }
    }

    #[test]
    fn each_finding_is_one_line() {
        let pins = PinRows::default().with(PinKind::Tx).with(PinKind::Content);
        let missing = finding(FileFindingKind::Missing, pins, "blocks/AB/CIQ.data");
        assert_eq!(
            line(&missing),
            "files/blocks/AB/CIQ.data of Qm1: missing (pinned: content,tx)"
        );
        assert_eq!(
            missing.to_string(),
            "missing\tQm1\tcontent,tx\tfiles/blocks/AB/CIQ.data"
        );
        let size = FileFindingKind::WrongSize {
            stored: 1000,
            expected: 2,
        };
        let size = finding(size, PinRows::default(), "Qm1");
        assert_eq!(line(&size), "files/Qm1: 1,000 bytes, but its row says 2");
    }

    #[test]
    fn the_summary_has_a_line_for_each_result() {
        let mut report = CheckReport {
            pinned: 9,
            ..CheckReport::default()
        };
        report.rows.files = 10;
        report.local = PlaceReport {
            stored: 8,
            wanted: 8,
            ..PlaceReport::default()
        };

        let summary = NodeCheckSummary::new("4f".into(), false, &report);
        assert_eq!(
            summary_lines(&summary, "2s", 0),
            [
                "10 files in the database, 9 of them pinned, checked in 2s",
                "local storage: 8 files present, 8 needed",
                "IPFS: 0 files present, 0 needed",
                "no pinned file is missing",
            ]
        );

        (report.missing, report.ipfs.missing, report.ipfs.wrong_name) = (1, 1, 2);
        report.ipfs.missing_by_kind[PinKind::Message as usize] = 1;
        let summary = NodeCheckSummary::new("4f".into(), false, &report);
        let lines = summary_lines(&summary, "2s", 3);
        assert_eq!(lines[0], "and 3 more; --list FILE writes them all");
        assert_eq!(
            lines[3],
            "IPFS: 0 files present, 0 needed, 1 missing (message 1), 2 with content that does not match their name"
        );
        assert_eq!(lines[4], "1 pinned file is missing");
        assert_eq!(
            lines[5],
            "damage: 2 mismatches between stored files and their names or rows"
        );
    }
}
