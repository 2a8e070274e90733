//! `icecore backup`

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use icecore::ops::backup::{BackupOptions, CommandSpec, SourceSpec, TreeSpec};
use icecore::repo::{HostChoice, Repository};
use icecore::source::{FilesFrom, FilterOptions, PatternText, StdinError, StdinStream};
use icecore::types::{ByteSize, SnapshotId};

use crate::advice::hint;
use crate::context::Context;
use crate::exit::{CliError, Outcome};
use crate::job::{self, BackupRequest};
use crate::parse::{self, NamedCommand, NamedPath};

/// Capture file trees and streams as one snapshot
///
/// Streams are captured first, then trees, in the order given. A source's name is the last
/// component of its path, unless it is given as NAME=PATH (only if no '/' comes before the first
/// '='). Two directories with the same last component need names. If the name was not given, a path
/// other than last time is refused. If a command fails, or a path is missing or cannot be listed,
/// nothing is committed. Single files that cannot be read are listed and counted (exit code 3).
///
/// If no source is given, the sources of icecore.toml are captured, in the order of the file.
///
/// A backup that was interrupted, by a signal, a crash or a lost connection, resumes when the same
/// command is run again: the parts of trees captured by its last checkpoint are not read again.
/// Ctrl-C makes a last checkpoint and stops; a second Ctrl-C stops at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore backup --init -r /mnt/backup/repo /etc home=/home
  icecore backup --command db='pg_dumpall -c -U postgres' /srv/files
  mysqldump app | icecore backup --stdin app.sql
  icecore backup /home --exclude '*.tmp' --exclude-caches --one-file-system
  icecore backup --immutable blocks=/var/lib/ipfs/blocks")]
pub struct BackupArgs {
    /// Trees to capture: PATH or NAME=PATH
    #[arg(value_name = "[NAME=]PATH", value_parser = OsStringValueParser::new().try_map(|s| parse::named_path(&s)))]
    paths: Vec<NamedPath>,
    /// Create the repository if it does not exist, with a random key file if no passphrase is given
    #[arg(long)]
    init: bool,
    /// With --init: add recovery data to each pack, as a percentage of its size (1 to 100)
    #[arg(long, value_name = "PERCENT", requires = "init", value_parser = parse::whole_percent)]
    parity: Option<u8>,
    /// Capture standard input under this name
    #[arg(long, value_name = "NAME", value_parser = parse::source_name)]
    stdin: Option<String>,
    /// Capture the output of a command, split into POSIX words and run without a shell; operators
    /// and variables outside of quotes are refused: write sh -c 'COMMAND'
    #[arg(long, value_name = "NAME=WORDS", value_parser = parse::named_command)]
    command: Vec<NamedCommand>,
    /// Back up only this source of icecore.toml (can be repeated; default: all)
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// Mark the snapshot with this tag (can be repeated)
    #[arg(long, value_name = "TAG", value_parser = parse::tag)]
    tag: Vec<String>,
    /// Host name of the snapshot (default: this machine's)
    #[arg(long, value_name = "HOST", value_parser = parse::host)]
    host: Option<String>,

    /// Leave out paths that match, by gitignore's rules from the source's root
    #[arg(long, value_name = "GLOB", help_heading = "What to leave out")]
    exclude: Vec<OsString>,
    /// Leave out paths that match a line of this file; '-' is standard input
    #[arg(long, value_name = "FILE", help_heading = "What to leave out", value_parser = parse::list_files())]
    exclude_file: Vec<PathBuf>,
    /// Leave out directories with a CACHEDIR.TAG
    #[arg(long, help_heading = "What to leave out")]
    exclude_caches: bool,
    /// Leave out files larger than this
    #[arg(long, value_name = "SIZE", help_heading = "What to leave out", value_parser = parse::some_size)]
    exclude_larger_than: Option<ByteSize>,
    /// Capture only the paths listed in this file, one per line (or NUL-separated) from the
    /// source's root; a listed path that does not exist is reported, and makes the snapshot
    /// incomplete; '-' is standard input
    #[arg(long, value_name = "FILE", help_heading = "What to leave out", value_parser = parse::list_files())]
    files_from: Option<PathBuf>,
    /// Do not enter other file systems
    #[arg(long, help_heading = "What to leave out")]
    one_file_system: bool,

    /// Files named by a hash never change: do not look at files that are already known
    #[arg(long, help_heading = "What counts as changed")]
    immutable: bool,
    /// Read every file, even if it seems unchanged
    #[arg(long, help_heading = "What counts as changed")]
    force: bool,
    /// Do not treat a file as changed because of its change time alone
    #[arg(long, help_heading = "What counts as changed")]
    ignore_ctime: bool,
    /// Do not treat a file as changed because of its inode number alone
    #[arg(long, help_heading = "What counts as changed")]
    ignore_inode: bool,
    /// Compare with this source of this snapshot (default: the last one of the same host and name)
    #[arg(long, value_name = "SNAP:SOURCE", value_parser = parse::snap_source, help_heading = "What counts as changed")]
    parent: Option<(String, String)>,
    /// The directory was moved: continue the history of its name at this path; its earlier paths
    /// are no longer separate sources (see status)
    #[arg(long, help_heading = "What counts as changed")]
    moved: bool,
    /// Accept a much smaller stream, or a change in files that must never change, in this source as
    /// good from now on
    #[arg(long, value_name = "SOURCE", help_heading = "What counts as changed")]
    accept: Vec<String>,
    /// Accept a source that had content and has none now, an empty stream, or a list of files of
    /// which none exists
    #[arg(long, help_heading = "What counts as changed")]
    allow_empty: bool,

    /// zstd level, 1 to 19
    #[arg(long, value_name = "N", help_heading = "Execution",
          value_parser = clap::value_parser!(i32).range(1..=19))]
    level: Option<i32>,
    /// Memory budget (default: 256 MiB)
    #[arg(long, value_name = "SIZE", help_heading = "Execution", value_parser = parse::memory)]
    memory: Option<ByteSize>,
    /// Threads that cut, hash and compress (default: one per core)
    #[arg(long, value_name = "N", help_heading = "Execution", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// How often to make a checkpoint, from which an interrupted backup resumes (default: 5m)
    #[arg(long, value_name = "SPAN", help_heading = "Execution", value_parser = parse::duration)]
    checkpoint_every: Option<Duration>,
    /// Read and count, store nothing; run no hooks and no commands around a source
    #[arg(short = 'n', long, help_heading = "Execution")]
    dry_run: bool,
}

pub fn run(context: &Context<'_>, args: &BackupArgs) -> Result<Outcome, CliError> {
    let from_config = args.names_no_source() && !context.config()?.sources.is_empty();
    args.check(from_config)?;
    let begin = BackupRequest {
        init: args.init,
        parity: args.parity,
        dry_run: args.dry_run,
    };
    job::run(context, begin, |repository, meter, cancel| {
        if from_config {
            let mut options = job::configured(context, repository, meter, cancel, &args.source)?;
            args.settle(&mut options);
            return Ok(options);
        }
        let host = context.host()?;
        let parent = args.parent(repository, &host)?;
        let mut options = BackupOptions::new(host, args.sources(parent)?);
        context.config()?.backup.apply(&mut options);
        args.settle(&mut options);
        Ok(options)
    })
}

impl BackupArgs {
    fn names_no_source(&self) -> bool {
        self.paths.is_empty() && self.stdin.is_none() && self.command.is_empty()
    }

    /// Refuses options that choose content: the configuration sets them for each source.
    fn check_for_config(&self) -> Result<(), CliError> {
        let leaves_out = !self.exclude.is_empty()
            || !self.exclude_file.is_empty()
            || self.exclude_caches
            || self.exclude_larger_than.is_some()
            || self.files_from.is_some()
            || self.one_file_system;
        if leaves_out || self.immutable || self.parent.is_some() {
            let message = "exclusions, --immutable and --parent need a PATH; sources of icecore.toml have their own settings";
            return Err(CliError::usage(message));
        }
        Ok(())
    }

    /// Refuses arguments that make no sense together, before asking for a passphrase. Names of
    /// sources must differ, because each is a separate directory in a restore.
    fn check(&self, from_config: bool) -> Result<(), CliError> {
        if from_config {
            return self.check_for_config();
        }

        let names = self
            .stdin
            .iter()
            .chain(self.command.iter().map(|c| &c.name));
        let mut seen = BTreeSet::new();
        let twice = names
            .chain(self.paths.iter().map(|p| &p.name))
            .find(|name| !seen.insert(*name));
        if let Some(twice) = twice {
            return Err(CliError::usage(format!("two sources are named '{twice}'"))
                .with_hint("give one of them another name: NAME=PATH"));
        }

        if seen.is_empty() {
            return Err(CliError::usage("nothing to back up")
                .with_hint("give a PATH, --stdin or --command, or add sources to icecore.toml"));
        }

        if !self.source.is_empty() {
            return Err(CliError::usage(
                "--source selects sources of icecore.toml and cannot be combined with other sources",
            ));
        }

        if self.checkpoint_every.is_some_and(|every| every.is_zero()) {
            return Err(CliError::usage("--checkpoint-every must be greater than 0"));
        }

        let lists = self.exclude_file.iter().chain(&self.files_from);
        let from_stdin = lists
            .filter(|file| file.as_os_str() == parse::STANDARD_INPUT)
            .count();
        if from_stdin + usize::from(self.stdin.is_some()) > 1 {
            return Err(CliError::usage("standard input can be used only once")
                .with_hint("write the list to a file, and give its path"));
        }

        if self.paths.is_empty() && (self.immutable || self.files_from.is_some()) {
            return Err(CliError::usage("--immutable and --files-from need a PATH"));
        }
        if self.paths.len() != 1 && self.parent.is_some() {
            return Err(CliError::usage("--parent needs exactly one PATH"));
        }

        Ok(())
    }

    /// Returns the parent that was asked for, with its full id.
    fn parent(
        &self,
        repository: &Repository,
        host: &str,
    ) -> Result<Option<(SnapshotId, String)>, CliError> {
        let Some((snap, source)) = &self.parent else {
            return Ok(None);
        };
        let host = self.host.as_deref().unwrap_or(host);
        let found = repository.find_snapshot(snap, &HostChoice::Host(host.to_owned()))?;
        Ok(Some((found.id, source.clone())))
    }

    /// Applies the command line to the options. It takes precedence over the configuration.
    fn settle(&self, options: &mut BackupOptions) {
        if let Some(host) = &self.host {
            options.host.clone_from(host);
        }
        options.tags.extend(self.tag.iter().cloned());
        options.level = self.level.unwrap_or(options.level);
        options.force = self.force;
        options.ignore_ctime = self.ignore_ctime;
        options.ignore_inode = self.ignore_inode;
        options.allow_empty = self.allow_empty;
        options.moved = self.moved;
        options.accept = self.accept.iter().cloned().collect();
        options.memory = self.memory.unwrap_or(options.memory);
        options.checkpoint_every = self.checkpoint_every.unwrap_or(options.checkpoint_every);
        options.threads = self.threads.map(usize::from).or(options.threads);
        options.dry_run = self.dry_run;
    }

    /// Returns the sources to capture, streams first.
    fn sources(&self, parent: Option<(SnapshotId, String)>) -> Result<Vec<SourceSpec>, CliError> {
        let mut sources = Vec::new();
        if let Some(name) = &self.stdin {
            let input = StdinStream::open().map_err(no_stdin)?;
            sources.push(SourceSpec::Stream {
                name: name.clone(),
                input: Box::new(input),
            });
        }

        for NamedCommand { name, command } in &self.command {
            sources.push(SourceSpec::Command(Box::new(CommandSpec::new(
                name,
                command.clone(),
            ))));
        }

        let files_from = self.files_from.as_deref().map(FilesFrom::read).transpose();
        let files_from =
            files_from.map_err(|e| CliError::failed("cannot use the list of files", e))?;

        // Read once, here: a pipe would be empty for the second source.
        let exclude_texts = self
            .exclude_file
            .iter()
            .map(|file| PatternText::read(file))
            .collect::<Result<_, _>>();
        let filter = FilterOptions {
            excludes: self.exclude.clone(),
            exclude_texts: exclude_texts.map_err(|err| CliError::Engine(err.into()))?,
            exclude_caches: self.exclude_caches,
            exclude_larger_than: self.exclude_larger_than.map(|size| size.0),
            one_file_system: self.one_file_system,
            ..FilterOptions::default()
        };

        for NamedPath {
            name,
            is_derived,
            path,
        } in &self.paths
        {
            sources.push(SourceSpec::Tree(Box::new(TreeSpec {
                filter: filter.clone(),
                files_from: files_from.clone(),
                immutable: self.immutable,
                is_name_derived: *is_derived,
                parent: parent.clone(),
                ..TreeSpec::new(name, path)
            })));
        }

        Ok(sources)
    }
}

/// Converts the reason why standard input cannot be captured.
fn no_stdin(err: StdinError) -> CliError {
    let advice = err.advice();
    let failed = CliError::failed("cannot read standard input", err);
    match advice {
        Some(advice) => failed.with_hint(hint(&advice)),
        None => failed,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;
    use crate::commands::Command;

    fn parsed(words: &[&str]) -> BackupArgs {
        let cli =
            Cli::try_parse_from(["icecore", "backup"].iter().chain(words)).expect("good words");
        match cli.command {
            Command::Backup(args) => *args,
            other => panic!("not a backup: {other:?}"),
        }
    }

    fn names(words: &[&str]) -> Result<Vec<String>, u8> {
        let args = parsed(words);
        let sources = args.check(false).and_then(|()| args.sources(None));
        sources
            .map(|list| list.iter().map(|source| source.name().to_owned()).collect())
            .map_err(|e| crate::exit::error_report(&e).expect("words").code)
    }

    #[test]
    fn streams_come_before_trees() {
        let all = names(&["/srv", "a=/x", "--command", "db=echo 1", "--stdin", "in"]);
        assert_eq!(all, Ok(["in", "db", "srv", "a"].map(String::from).into()));
    }

    #[test]
    fn contradictory_arguments_are_usage_errors() {
        assert_eq!(names(&["/srv/a", "/mnt/a"]), Err(2));
        assert_eq!(names(&["/srv/a", "--stdin", "a"]), Err(2));
        assert_eq!(names(&[]), Err(2));
        assert_eq!(names(&["--stdin", "a", "--immutable"]), Err(2));
        assert_eq!(names(&["/srv/a", "--checkpoint-every", "0s"]), Err(2));
        assert_eq!(names(&["/srv/a", "/srv/b", "--parent", "latest:a"]), Err(2));
    }

    #[test]
    fn options_reach_the_library() {
        let words = "/srv --tag a --tag b --level 7 --memory 1G --threads 3 --host h --exclude-larger-than 10MiB --checkpoint-every 90s";
        let args = parsed(&words.split(' ').collect::<Vec<_>>());
        let id = SnapshotId::new([1; 32]);
        let sources = args
            .sources(Some((id, "home".to_owned())))
            .expect("sources");
        let mut options = BackupOptions::new("machine", sources);
        options.tags.push("always".to_owned());
        args.settle(&mut options);
        let SourceSpec::Tree(tree) = &options.sources[0] else {
            panic!("a tree")
        };
        assert_eq!(tree.filter.exclude_larger_than, Some(10 << 20));
        assert_eq!(tree.parent, Some((id, "home".to_owned())));
        assert_eq!(
            (options.tags.len(), options.level, options.threads),
            (3, 7, Some(3))
        );
        assert_eq!(
            (options.memory, options.host.as_str()),
            (ByteSize(1 << 30), "h")
        );
        assert_eq!(options.checkpoint_every, Duration::from_secs(90));
    }
}
