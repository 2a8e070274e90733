//! `icecore backup`

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use icecore::types::ByteSize;
use serde::Serialize;

use crate::context::{Context, HostArgs, host_name};
use crate::engine::ops::backup::{BackupOptions, BackupReport, Filter, SourceSpec, backup};
use crate::exit::{CliError, Outcome};
use crate::parse::{self, NamedCommand, NamedPath, SnapRef};
use crate::ui::{json, text};

/// Capture file trees and streams as one snapshot
///
/// Streams are captured first, then trees, in the order given. A source's name is its path's last component unless
/// one is given as NAME=PATH (only if no '/' stands before the first '='). If a command fails, or a path is missing or
/// cannot be listed, nothing is committed. Single files that cannot be read are named and counted (exit code 3).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore backup --init -r /mnt/backup/repo /etc home=/home
  icecore backup --command db='pg_dumpall -c -U postgres' /srv/files
  mysqldump app | icecore backup --stdin app.sql
  icecore backup /home --exclude '*.tmp' --exclude-caches --one-file-system
  icecore backup --immutable blocks=/var/lib/ipfs/blocks")]
pub struct Args {
    /// Trees to capture: PATH or NAME=PATH
    #[arg(value_name = "[NAME=]PATH", value_parser = OsStringValueParser::new().try_map(|s| parse::named_path(&s)))]
    paths: Vec<NamedPath>,
    /// Make the repository if it is not there, with a random key file where no passphrase is given
    #[arg(long)]
    init: bool,
    /// Capture standard input under this name
    #[arg(long, value_name = "NAME", value_parser = parse::source_name)]
    stdin: Option<String>,
    /// Capture what a command prints; split as POSIX words and run without a shell
    #[arg(long, value_name = "NAME=WORDS", value_parser = parse::named_command)]
    command: Vec<NamedCommand>,
    /// Mark the snapshot with this word
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Host name of the snapshot (default: this machine's)
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// Leave out what matches, by gitignore's rules from the source's root
    #[arg(long, value_name = "GLOB", help_heading = "What to leave out")]
    exclude: Vec<String>,
    /// Leave out what matches a line of this file
    #[arg(long, value_name = "FILE", help_heading = "What to leave out")]
    exclude_file: Vec<PathBuf>,
    /// Leave out folders with a CACHEDIR.TAG
    #[arg(long, help_heading = "What to leave out")]
    exclude_caches: bool,
    /// Leave out files larger than this
    #[arg(long, value_name = "SIZE", help_heading = "What to leave out")]
    exclude_larger_than: Option<ByteSize>,
    /// Capture only what is listed in this file, one path a line from the source's root
    #[arg(long, value_name = "FILE", help_heading = "What to leave out")]
    files_from: Option<PathBuf>,
    /// Do not enter other file systems
    #[arg(long, help_heading = "What to leave out")]
    one_file_system: bool,

    /// Files named by a hash never change: do not look at those already known
    #[arg(long, help_heading = "What counts as changed")]
    immutable: bool,
    /// Read every file, changed or not
    #[arg(long, help_heading = "What counts as changed")]
    force: bool,
    /// A new change time alone does not make a file changed
    #[arg(long, help_heading = "What counts as changed")]
    ignore_ctime: bool,
    /// A new inode number alone does not make a file changed
    #[arg(long, help_heading = "What counts as changed")]
    ignore_inode: bool,
    /// Compare with this source of this snapshot (default: the last of the same host and name)
    #[arg(long, value_name = "SNAP:SOURCE", value_parser = parse::snap_source, help_heading = "What counts as changed")]
    parent: Option<(SnapRef, String)>,
    /// Accept that a source which had entries is empty now
    #[arg(long, help_heading = "What counts as changed")]
    allow_empty: bool,

    /// zstd level
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "How",
          value_parser = clap::value_parser!(i32).range(-7..=22))]
    level: Option<i32>,
    /// Memory to keep to (default: 256 MiB)
    #[arg(long, value_name = "SIZE", help_heading = "How")]
    memory: Option<ByteSize>,
    /// Threads that cut, hash and compress (default: one a core)
    #[arg(long, value_name = "N", help_heading = "How", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Read and count, store nothing
    #[arg(short = 'n', long, help_heading = "How")]
    dry_run: bool,
}

#[derive(Serialize)]
struct Summary {
    /// Absent from a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<String>,
    dry_run: bool,
    #[serde(flatten)]
    counts: json::Counts,
}

pub fn run(context: &Context<'_>, args: &Args) -> Result<Outcome, CliError> {
    let sources = sources(args)?;
    let meter = context.ui.meter();
    let (repository, cancel) =
        if args.init && !args.dry_run { context.open_or_init(&meter)? } else { context.open(&meter)? };
    let report = backup(&repository, options(args, sources), &meter, &cancel)?;
    let counts = meter.counts();
    let summary =
        Summary { snapshot: report.snapshot.map(|id| id.to_string()), dry_run: args.dry_run, counts };
    let elapsed = text::span(meter.elapsed());
    Ok(meter.finish("backup", Outcome::Done, &summary, || lines(&report, &counts, &elapsed)))
}

/// What is to be captured: streams first. Names must differ, for each is a folder of its own in a restore.
fn sources(args: &Args) -> Result<Vec<SourceSpec>, CliError> {
    let names = args.stdin.iter();
    let names = names.chain(args.command.iter().map(|c| &c.name)).chain(args.paths.iter().map(|p| &p.name));
    let mut seen = BTreeSet::new();
    if let Some(twice) = names.into_iter().find(|name| !seen.insert(*name)) {
        return Err(CliError::usage(format!("two sources are named '{twice}'"))
            .with_hint("give one of them another name: NAME=PATH"));
    }
    if seen.is_empty() {
        return Err(CliError::usage("nothing to back up").with_hint("name a PATH, --stdin or --command"));
    }
    if args.paths.is_empty() && (args.immutable || args.files_from.is_some()) {
        return Err(CliError::usage("--immutable and --files-from need a PATH"));
    }
    let filter = Filter {
        globs: args.exclude.clone(),
        files: args.exclude_file.clone(),
        caches: args.exclude_caches,
        larger_than: args.exclude_larger_than.map(|size| size.0),
        one_file_system: args.one_file_system,
    };
    let stdin = args.stdin.iter().map(|name| SourceSpec::Stdin { name: name.clone() });
    let commands = args
        .command
        .iter()
        .map(|command| SourceSpec::Command { name: command.name.clone(), words: command.words.clone() });
    let trees = args.paths.iter().map(|tree| SourceSpec::Tree {
        name: tree.name.clone(),
        path: tree.path.clone(),
        filter: filter.clone(),
        immutable: args.immutable,
        files_from: args.files_from.clone(),
    });
    Ok(stdin.chain(commands).chain(trees).collect())
}

fn options(args: &Args, sources: Vec<SourceSpec>) -> BackupOptions {
    let host = args.host.clone().unwrap_or_else(host_name);
    let hosts = HostArgs { host: Some(host.clone()), any_host: false };
    BackupOptions {
        tags: args.tag.clone(),
        sources,
        level: args.level,
        force: args.force,
        ignore_ctime: args.ignore_ctime,
        ignore_inode: args.ignore_inode,
        parent: args.parent.as_ref().map(|(snap, source)| (hosts.snap(snap), source.clone())),
        allow_empty: args.allow_empty,
        memory_bytes: args.memory.map(|size| size.0),
        threads: args.threads.map(usize::from),
        dry_run: args.dry_run,
        host: Some(host),
    }
}

fn lines(report: &BackupReport, counts: &json::Counts, elapsed: &str) -> Vec<String> {
    let mut files = vec![
        format!("{} new", text::counted(counts.files_new, "file", "files")),
        format!("{} changed", text::number(counts.files_changed)),
        format!("{} unchanged", text::number(counts.files_unchanged)),
    ];
    for (count, word) in
        [(counts.removed, "removed"), (counts.vanished, "vanished"), (counts.failed, "failed")]
    {
        if count > 0 {
            files.push(format!("{} {word}", text::number(count)));
        }
    }
    let bytes = format!(
        "{} read, {} new, {} stored, in {elapsed}",
        text::size(counts.bytes_read),
        text::size(counts.bytes_new),
        text::size(counts.bytes_stored),
    );
    let end = match &report.snapshot {
        Some(id) => format!("snapshot {} committed", id.short()),
        None => "dry run: nothing was stored".to_owned(),
    };
    vec![files.join(", "), bytes, end]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;
    use crate::commands::Command;

    fn parsed(words: &[&str]) -> Args {
        let cli = Cli::try_parse_from(["icecore", "backup"].iter().chain(words)).expect("good words");
        match cli.command {
            Command::Backup(args) => *args,
            other => panic!("not a backup: {other:?}"),
        }
    }

    fn names(words: &[&str]) -> Result<Vec<String>, u8> {
        let name = |source| match source {
            SourceSpec::Tree { name, .. } => name,
            SourceSpec::Command { name, .. } => format!("!{name}"),
            SourceSpec::Stdin { name } => format!("-{name}"),
        };
        sources(&parsed(words))
            .map(|list| list.into_iter().map(name).collect())
            .map_err(|e| crate::exit::tell(&e).expect("words").code)
    }

    #[test]
    fn streams_come_before_trees() {
        let all = names(&["/srv", "a=/x", "--command", "db=echo 1", "--stdin", "in"]);
        assert_eq!(all, Ok(["-in", "!db", "srv", "a"].map(String::from).into()));
    }

    #[test]
    fn equal_names_and_no_names_are_bad_usage() {
        assert_eq!(names(&["/srv/a", "/mnt/a"]), Err(2));
        assert_eq!(names(&["/srv/a", "--stdin", "a"]), Err(2));
        assert_eq!(names(&[]), Err(2));
        assert_eq!(names(&["--stdin", "a", "--immutable"]), Err(2));
    }

    #[test]
    fn options_reach_the_library() {
        let args = parsed(&[
            "/srv",
            "--tag",
            "a",
            "--tag",
            "b",
            "--level",
            "-1",
            "--memory",
            "1G",
            "--threads",
            "3",
            "--parent",
            "latest:home",
            "--host",
            "h",
            "--exclude-larger-than",
            "10MiB",
        ]);
        let sources = sources(&args).expect("sources");
        let SourceSpec::Tree { filter, .. } = &sources[0] else { panic!("a tree") };
        assert_eq!(filter.larger_than, Some(10 << 20));
        let options = options(&args, sources);
        assert_eq!((options.tags.len(), options.level, options.threads), (2, Some(-1), Some(3)));
        assert_eq!((options.memory_bytes, options.host.as_deref()), (Some(1 << 30), Some("h")));
        assert_eq!(options.parent.map(|p| p.1).as_deref(), Some("home"));
    }
}
