//! Runs a backup as the configuration describes it, from hooks to summary, and converts its sources
//! for the library.

use std::collections::BTreeSet;

use icecore::Error;
use icecore::ccn::NodeError;
use icecore::ccn::docker::{Docker, DockerError};
use icecore::ccn::images::images_in_use;
use icecore::ccn::kubo::BlockStore;
use icecore::ccn::postgres::PostgresPrograms;
use icecore::ccn::profile::{DatabaseServer, SourceLocation};
use icecore::ccn::restore::NodePart;
use icecore::format::{ServiceImage, SnapshotState};
use icecore::jobs::config::{Config, HookSettings, SourceConfig, SourceKindConfig};
use icecore::jobs::report::{BackupSummary, CounterValues};
use icecore::observe::{Observer, Problem, Severity};
use icecore::ops::backup::{
    BackupOptions, BackupReport, CLUSTER_DUMP_COMPLETE, CommandAndEnv, CommandSpec, DumpCommand,
    SourceHooks, SourceSpec, TreeSpec, backup,
};
use icecore::repo::Repository;
use icecore::task::{Cancel, Task};
use icecore::types::ChunkProfile;

use crate::context::Context;
use crate::env::SECRET_VARIABLES;
use crate::exit::{CliError, Outcome};
use crate::hooks;
use crate::ui::{Meter, text};

/// Options with which a backup command starts.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackupRequest {
    /// Create the repository if it does not exist, with `parity` percent of recovery data.
    pub init: bool,
    pub parity: Option<u8>,
    pub dry_run: bool,
}

/// Opens the repository, runs the hooks and the backup that `options` describes, and prints its
/// summary.
pub fn run(
    context: &Context<'_>,
    begin: BackupRequest,
    options: impl FnOnce(&Repository, &Meter, &Cancel) -> Result<BackupOptions, CliError>,
) -> Result<Outcome, CliError> {
    let hooks = &context.config()?.hooks;
    // A dry run stores nothing, so it must not stop any service.
    let none = HookSettings::default();
    let hooks = if begin.dry_run { &none } else { hooks };
    let mut reported = String::new();
    let done = attempt(context, begin, hooks, options, &mut reported);
    if !matches!(done, Ok(Outcome::Done)) {
        hooks::on_failure(context, hooks, &done, &reported);
    }
    done
}

fn attempt(
    context: &Context<'_>,
    begin: BackupRequest,
    hooks: &HookSettings,
    options: impl FnOnce(&Repository, &Meter, &Cancel) -> Result<BackupOptions, CliError>,
    reported: &mut String,
) -> Result<Outcome, CliError> {
    let meter = context.ui.meter();
    let (repository, cancel) = if begin.init && !begin.dry_run {
        context.open_or_init(begin.parity, &meter)?
    } else {
        context.open(&meter)?
    };
    let mut after = hooks::AfterHooks::new(hooks, &meter);
    let done = hooks::before(hooks, &cancel)
        .and_then(|()| backed_up(&repository, options, &meter, &cancel));
    match &done {
        Ok(report) => after.record_result(meter.outcome().code(), report.snapshot),
        Err(error) => after.record_result(hooks::code_and_message(error).0, None),
    }
    drop(after);
    *reported = meter.reported();
    Ok(print_summary(meter, &done?, begin.dry_run))
}

fn backed_up(
    repository: &Repository,
    options: impl FnOnce(&Repository, &Meter, &Cancel) -> Result<BackupOptions, CliError>,
    meter: &Meter,
    cancel: &Cancel,
) -> Result<BackupReport, CliError> {
    let mut options = options(repository, meter, cancel)?;
    check_accepted(&options)?;
    options.env_remove = SECRET_VARIABLES.map(str::to_owned).to_vec();
    Ok(backup(repository, options, Task::new(meter, cancel))?)
}

/// Refuses `--accept` for a source that is not captured. Usually its name is mistyped, and the
/// intended source would stay suspect.
fn check_accepted(options: &BackupOptions) -> Result<(), CliError> {
    let names: Vec<&str> = options.sources.iter().map(SourceSpec::name).collect();
    match options
        .accept
        .iter()
        .find(|name| !names.contains(&name.as_str()))
    {
        None => Ok(()),
        Some(name) => {
            let message = format!("--accept '{name}' is not a source of this backup");
            Err(CliError::usage(message)
                .with_hint(format!("its sources are: {}", names.join(", "))))
        }
    }
}

fn print_summary(meter: Meter, report: &BackupReport, dry_run: bool) -> Outcome {
    let counts = meter.counts();
    let summary = BackupSummary::new(report, counts, dry_run);
    let outcome = match report.state {
        SnapshotState::Incomplete => Outcome::Incomplete,
        SnapshotState::Complete | SnapshotState::Checkpoint => Outcome::Done,
    };
    let elapsed = text::span(meter.elapsed());
    meter.finish("backup", outcome, &summary, || {
        lines(report, &counts, &elapsed)
    })
}

fn lines(report: &BackupReport, counts: &CounterValues, elapsed: &str) -> Vec<String> {
    let mut files = vec![
        format!("{} new", text::counted(counts.files_new, "file", "files")),
        format!("{} changed", text::number(counts.files_changed)),
        format!("{} unchanged", text::number(counts.files_unchanged)),
    ];

    for (count, word) in [
        (counts.removed, "removed"),
        (counts.vanished, "vanished"),
        (counts.failed, "failed"),
    ] {
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

    let mut lines = vec![files.join(", "), bytes];
    for source in report
        .sources
        .iter()
        .filter(|source| source.counts.incomplete > 0)
    {
        let name = &source.name;
        let what = text::counted(source.counts.incomplete, "entry", "entries");
        lines.push(format!("{name}: {what} could not be captured completely"));
    }

    lines.push(match &report.snapshot {
        Some(id) => format!("snapshot {} committed", id.short()),
        None => "dry run: nothing was stored".to_owned(),
    });
    lines
}

/// Returns the options of the configuration, with its sources. `only`: the names of the sources to
/// capture; all if empty.
pub fn configured(
    context: &Context<'_>,
    repository: &Repository,
    meter: &Meter,
    cancel: &Cancel,
    only: &[String],
) -> Result<BackupOptions, CliError> {
    let config = context.config()?;
    let known: BTreeSet<&str> = config
        .sources
        .iter()
        .map(|source| source.name.as_str())
        .collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(name.as_str())) {
        let shown = config.file.display();
        return Err(CliError::usage(format!(
            "there is no source '{unknown}' in {shown}"
        )));
    }

    in_order(config, only)?;

    let docker = Docker::new(SECRET_VARIABLES.map(str::to_owned).to_vec()).until(cancel);
    let chosen = config
        .sources
        .iter()
        .filter(|source| only.is_empty() || only.contains(&source.name));
    let sources = chosen
        .map(|source| spec(source, repository, &docker))
        .collect::<Result<Vec<_>, CliError>>()?;

    report_of_blocks(context, config, &sources);

    let mut options = BackupOptions::new(context.host()?, sources);
    options.images = images(config, &options, &docker, meter);
    config.backup.apply(&mut options);
    Ok(options)
}

/// Refuses file storage that would be captured before the database: no restore accepts the two
/// together.
fn in_order(config: &Config, only: &[String]) -> Result<(), CliError> {
    let place = |part: NodePart| {
        let source = part.source(&config.node)?;
        let is_captured = only.is_empty() || only.iter().any(|name| name == source);
        config
            .sources
            .iter()
            .position(|one| one.name == source)
            .filter(|_| is_captured)
            .map(|at| (at, source))
    };

    let Some((database_at, database)) = place(NodePart::Database) else {
        return Ok(());
    };

    for part in NodePart::ALL
        .into_iter()
        .filter(|part| part.is_file_storage())
    {
        let Some((_, source)) = place(part).filter(|(at, _)| *at < database_at) else {
            continue;
        };
        let why = format!(
            "source '{source}', the node's {}, precedes its database '{database}' in {}: its files would be older than the database, and 'node restore' refuses such a snapshot",
            part.name(),
            config.file.display()
        );
        let hint = format!("move the [[source]] of '{source}' below that of '{database}'");
        return Err(CliError::usage(why).with_hint(&hint));
    }

    Ok(())
}

/// Returns the images that the node's services run with, if any part of the node is captured. They
/// are only recorded: if the engine does not answer, the backup continues.
fn images(
    config: &Config,
    options: &BackupOptions,
    docker: &Docker,
    meter: &Meter,
) -> Vec<ServiceImage> {
    let is_captured = |source: &str| options.sources.iter().any(|spec| spec.name() == source);
    if !NodePart::ALL
        .into_iter()
        .filter_map(|part| part.source(&config.node))
        .any(is_captured)
    {
        return Vec::new();
    }

    let (images, err) = match images_in_use(&config.node, docker) {
        Ok((images, err)) => (images, err),
        Err(err) => (Vec::new(), Some(err)),
    };
    // Without Docker there are no images. If the user asked to stop, the backup itself reports
    // that.
    let err = err.filter(|err| {
        !matches!(
            err,
            DockerError::NotInstalled | DockerError::Interrupted { .. }
        )
    });

    if let Some(err) = err {
        let what =
            format!("the snapshot will not record which images the services ran with: {err}");
        meter.problem(&Problem::new(Severity::Note, "images", what));
    }
    images
}

/// Warns if kubo keeps its blocks in a database and no `before` command stops it. Unlike block
/// files, a database changes in place: a copy taken while kubo writes is inconsistent.
fn report_of_blocks(context: &Context<'_>, config: &Config, sources: &[SourceSpec]) {
    let Some(part) = &config.node.ipfs else {
        return;
    };
    let is_held = |source: &&SourceConfig| source.name == part.source && source.before.is_empty();
    if !config.sources.iter().any(|source| is_held(&source)) {
        return;
    }
    for source in sources {
        let SourceSpec::Tree(tree) = source else {
            continue;
        };
        if let Some(trouble) = BlockStore::at(&tree.path)
            .trouble()
            .filter(|_| tree.name == part.source)
        {
            context
                .ui
                .warn(format_args!("note: {}: {trouble}", part.source));
        }
    }
}

/// Returns the command that dumps a server. Its container and programs are looked up now, or after
/// the source's `before` commands if it has any, because those may start them.
fn dump_of(
    source: &SourceConfig,
    server: &DatabaseServer,
    docker: &Docker,
    restrict_key: String,
) -> Result<DumpCommand, CliError> {
    let find_out =
        move |server: &DatabaseServer, docker: &Docker| -> Result<CommandAndEnv, NodeError> {
            let programs =
                PostgresPrograms::find(server, docker, &SECRET_VARIABLES.map(str::to_owned))?;
            Ok((
                programs.dump_command(&restrict_key)?,
                programs.spawn_options().env.clone(),
            ))
        };
    if source.before.is_empty() {
        return Ok(DumpCommand::Known(find_out(server, docker)?));
    }
    let name = source.name.clone();
    let server = server.clone();
    let docker = docker.clone();
    Ok(DumpCommand::Late(Box::new(move || {
        find_out(&server, &docker).map_err(|err| match err.into() {
            CliError::Engine(err) => err,
            other => Error::Source {
                name,
                why: hooks::code_and_message(&other).1,
            },
        })
    })))
}

/// Converts a configured source for the library: a volume becomes its directory, a server the
/// command that dumps it.
fn spec(
    source: &SourceConfig,
    repository: &Repository,
    docker: &Docker,
) -> Result<SourceSpec, CliError> {
    let name = &source.name;
    let around = SourceHooks {
        before: source.before.clone(),
        after: source.after.clone(),
    };

    Ok(match &source.capture {
        SourceKindConfig::Tree {
            place,
            immutable,
            unchanged,
            filter,
            only,
            not_older_than: _,
        } => {
            let numeric_owners = matches!(place, SourceLocation::Volume(_));
            let path = match place {
                SourceLocation::Path(path) => path.clone(),
                SourceLocation::Volume(volume) => {
                    let found = docker.volume(volume)?;
                    found
                        .ok_or_else(|| DockerError::NoVolume {
                            name: volume.clone(),
                        })?
                        .directory()?
                }
            };

            SourceSpec::Tree(Box::new(TreeSpec {
                filter: filter.clone(),
                files_from: only.clone(),
                immutable: *immutable,
                unchanged: *unchanged,
                numeric_owners,
                around,
                ..TreeSpec::new(name, path)
            }))
        }
        SourceKindConfig::Command {
            command,
            ends_with,
            smallest,
            profile,
        } => SourceSpec::Command(Box::new(CommandSpec {
            ends_with: ends_with.clone(),
            smallest: *smallest,
            profile: *profile,
            around,
            ..CommandSpec::new(name, command.clone())
        })),
        SourceKindConfig::Postgres { server, smallest } => {
            let run = dump_of(source, server, docker, repository.keys().restrict_key())?;
            SourceSpec::Command(Box::new(CommandSpec {
                name: name.clone(),
                run,
                ends_with: Some(CLUSTER_DUMP_COMPLETE.to_owned()),
                smallest: Some(*smallest),
                profile: ChunkProfile::Dump,
                around,
            }))
        }
    })
}
