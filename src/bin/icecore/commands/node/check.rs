//! `icecore node check`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use icecore::ccn::check::{
    CheckReport, CheckTarget, FileFinding, FileFindingKind, LiveDirectories, PlaceReport, check,
};
use icecore::ccn::docker::Docker;
use icecore::ccn::dump::PinKind;
use icecore::read::ReadSession;
use icecore::task::Task;
use serde::Serialize;

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

/// A file that is missing or wrong, as JSON.
#[derive(Serialize)]
#[serde(tag = "type", rename = "file")]
struct FileRecord<'a> {
    /// `missing`, `wrong-name`, `torn`, `wrong-size`.
    kind: &'static str,
    hash: &'a str,
    /// Kinds of pins; empty if the file is not pinned.
    pins: Vec<&'static str>,
    source: &'a str,
    path: &'a str,
    /// In bytes; only for `wrong-size`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<u64>,
}

#[derive(Serialize)]
struct NodeCheckSummary {
    snapshot: String,
    /// The directories of this machine were checked.
    live: bool,
    /// Rows in the dump.
    files: u64,
    pins: u64,
    /// Files that must be there.
    pinned: u64,
    /// Pinned files that are missing in one place or both.
    missing: u64,
    /// Stored files that do not match their name or row.
    mismatches: u64,
    local_storage: CheckedPlace,
    ipfs: CheckedPlace,
}

/// Counts of local storage or of kubo's blocks.
#[derive(Serialize)]
struct CheckedPlace {
    stored: u64,
    wanted: u64,
    missing: u64,
    /// A file with pins of several kinds counts once for each.
    missing_by_pin: BTreeMap<&'static str, u64>,
    wrong_name: u64,
    torn: u64,
    wrong_size: u64,
    vanished: u64,
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
        summary.lines(&elapsed, shortened)
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
        self.out.record(&FileRecord::new(finding), || {
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

impl<'a> FileRecord<'a> {
    fn new(finding: &'a FileFinding<'_>) -> Self {
        let (stored, expected) = match finding.kind {
            FileFindingKind::WrongSize { stored, expected } => (Some(stored), Some(expected)),
            _ => (None, None),
        };
        Self {
            kind: finding.kind.name(),
            hash: &finding.hash,
            pins: finding.pins.kinds().map(PinKind::name).collect(),
            source: finding.source,
            path: &finding.path,
            stored,
            expected,
        }
    }
}

impl CheckedPlace {
    fn new(report: &PlaceReport) -> Self {
        let by_pin = PinKind::ALL.into_iter().zip(report.missing_by_kind);
        Self {
            stored: report.stored,
            wanted: report.wanted,
            missing: report.missing,
            missing_by_pin: by_pin.map(|(kind, count)| (kind.name(), count)).collect(),
            wrong_name: report.wrong_name,
            torn: report.torn,
            wrong_size: report.wrong_size,
            vanished: report.vanished,
        }
    }

    fn line(&self, what: &str) -> String {
        let stored = text::counted(self.stored, "file", "files");
        let mut line = format!(
            "{what}: {stored} present, {} needed",
            text::number(self.wanted)
        );
        if self.missing > 0 {
            let kinds = self.missing_by_pin.iter().filter(|(_, count)| **count > 0);
            let kinds: Vec<String> = kinds
                .map(|(kind, count)| format!("{kind} {}", text::number(*count)))
                .collect();
            line.push_str(&format!(
                ", {} missing ({})",
                text::number(self.missing),
                kinds.join(", ")
            ));
        }
        for (count, what) in [
            (
                self.wrong_name,
                "with content that does not match their name",
            ),
            (self.torn, "changed while they were captured"),
            (self.wrong_size, "with a size that differs from their row"),
            (self.vanished, "vanished during the check"),
        ] {
            if count > 0 {
                line.push_str(&format!(", {} {what}", text::number(count)));
            }
        }
        line
    }
}

impl NodeCheckSummary {
    fn new(snapshot: String, live: bool, report: &CheckReport) -> Self {
        Self {
            snapshot,
            live,
            files: report.rows.files,
            pins: report.rows.pins,
            pinned: report.pinned,
            missing: report.missing,
            mismatches: report.mismatches(),
            local_storage: CheckedPlace::new(&report.local),
            ipfs: CheckedPlace::new(&report.ipfs),
        }
    }

    fn lines(&self, elapsed: &str, hidden: u64) -> Vec<String> {
        let mut lines = Vec::new();
        if hidden > 0 {
            lines.push(format!(
                "and {} more; --list FILE writes them all",
                text::number(hidden)
            ));
        }
        let files = text::counted(self.files, "file", "files");
        let pinned = text::number(self.pinned);
        lines.push(format!(
            "{files} in the database, {pinned} of them pinned, checked in {elapsed}"
        ));
        lines.push(self.local_storage.line("local storage"));
        lines.push(self.ipfs.line("IPFS"));
        lines.push(match self.missing {
            0 => "no pinned file is missing".to_owned(),
            1 => "1 pinned file is missing".to_owned(),
            missing => format!("{} pinned files are missing", text::number(missing)),
        });
        if self.mismatches > 0 {
            let files = text::counted(self.mismatches, "mismatch", "mismatches");
            lines.push(format!(
                "damage: {files} between stored files and their names or rows"
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use icecore::ccn::dump::PinRows;

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
        let value = serde_json::to_value(FileRecord::new(&size)).expect("JSON");
        let expected = serde_json::json!({
            "type": "file", "kind": "wrong-size", "hash": "Qm1", "pins": [], "source": "files", "path": "Qm1",
            "stored": 1000, "expected": 2,
        });
        assert_eq!(value, expected);
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
            summary.lines("2s", 0),
            [
                "10 files in the database, 9 of them pinned, checked in 2s",
                "local storage: 8 files present, 8 needed",
                "IPFS: 0 files present, 0 needed",
                "no pinned file is missing",
            ]
        );

        (report.missing, report.ipfs.missing, report.ipfs.wrong_name) = (1, 1, 2);
        report.ipfs.missing_by_kind[PinKind::Message as usize] = 1;
        let lines = NodeCheckSummary::new("4f".into(), false, &report).lines("2s", 3);
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
