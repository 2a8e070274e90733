//! `icecore node init`

use std::path::{Path, PathBuf};

use icecore::ccn::compose::{self, ComposeRequest};
use icecore::ccn::discover::{DiscoveryNote, FoundFiles, FoundTree, NodeDiscovery, discover};
use icecore::ccn::docker::Docker;
use icecore::ccn::profile::SourceLocation;
use icecore::ccn::template::{TemplateComments, TemplateSettings, render};
use icecore::jobs::report::node::NodeInitSummary;
use icecore::store::StoreLocation;
use icecore::sys::host_name;
use icecore::sys::{Dir, ExistingFile, write_file};

use crate::advice::hint;
use crate::context::Context;
use crate::env::{Env, SECRET_VARIABLES};
use crate::exit::{CliError, Outcome};
use crate::parse;
use crate::ui::text;

/// Find the node and write its icecore.toml
///
/// Reads the compose file (by default that of the current directory) with its .env file and its
/// override. Finds the database, the files of pyaleph and kubo, the keys and the configuration, and
/// asks the Docker engine for the names of the containers and volumes. Without an engine, the names
/// are those that compose would give. Lists the parts that were found and those that were not; the
/// file has a comment wherever something must be filled in (exit code 3). Passwords are neither
/// printed nor written.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  icecore node init
  icecore node init -r /mnt/backup/node /opt/pyaleph/docker-compose.yml
  icecore node init --project pyaleph --output ./icecore.toml")]
pub struct NodeInitArgs {
    /// The compose file, or its directory (default: the current directory)
    #[arg(value_parser = parse::paths())]
    compose_file: Option<PathBuf>,
    /// Write to this file (default: the configuration file that other commands read)
    #[arg(short, long, value_name = "FILE", value_parser = parse::paths())]
    output: Option<PathBuf>,
    /// Name of the compose project (default: the name that compose gives it)
    #[arg(short, long, value_name = "NAME")]
    project: Option<String>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// The comments of icecore.toml that name commands.
const COMMENTS: TemplateComments = TemplateComments {
    head: "\
# icecore's configuration, made by 'icecore node init'. Unknown keys are errors; relative paths begin at this file's
# directory. Made with this file: icecore node backup, node restore, node check, and forget, prune, verify.

",
    repository_id: "\
# The repository's id: another one at this address is refused. 'icecore init' and 'node backup --init' print it.
",
    no_passphrase: "\
# Without one of these, 'icecore node backup --init' creates a random key file and prints its path: keep a copy elsewhere.
",
    smallest: "\
# A dump smaller than this share of the last good one is suspect: kept, but not counted by 'forget'.
",
    other_ipfs: "\
# Another kubo's repository. 'icecore node restore' does not restore it; 'icecore restore' does.
",
    retention: "\
# What 'icecore forget' keeps: the newest snapshot of each hour, day, week and month, this many of each.
",
};

pub fn run(context: &Context<'_>, args: &NodeInitArgs) -> Result<Outcome, CliError> {
    let mut meter = context.ui.meter();
    let file = output(context, args)?;
    // Check before the work is done. `write` checks again.
    if !args.force && file.symlink_metadata().is_ok() {
        return Err(taken(&file));
    }

    let settings = settings(context)?;
    let path = absolute(args.compose_file.as_deref().unwrap_or(Path::new(".")))?;
    let environment = Env::variables();
    let request = ComposeRequest {
        path: &path,
        environment: &environment,
        project: args.project.as_deref(),
    };

    let project = compose::load(request).map_err(|err| {
        let hint = err.advice().map(|advice| hint(&advice).into_owned());
        let message = "cannot read the compose project".to_owned();
        CliError::Failed {
            message,
            source: Some(Box::new(err)),
            hint,
        }
    })?;
    if project.directory.to_str().is_none() {
        return Err(CliError::usage(
            "the name of the compose file's directory is not UTF-8",
        ));
    }

    let docker = Docker::new(SECRET_VARIABLES.map(str::to_owned).to_vec());
    let node = discover(project, Some(&docker));
    write(&file, &render(&node, &settings), args.force)?;

    meter.end();
    if !context.ui.json {
        list(context, &node)?;
        for note in &node.notes {
            context
                .ui
                .warn(format_args!("note: {}", text::clean(&note_text(note))));
        }
    }

    let parts = [&node.local_storage, &node.ipfs, &node.keys];
    let all =
        node.database.is_some() && node.config.is_some() && parts.into_iter().all(Option::is_some);
    let outcome = if all {
        Outcome::Done
    } else {
        Outcome::Incomplete
    };

    let notes = node.notes.iter().map(note_text).collect();
    let summary = NodeInitSummary::new(&node, &file, notes, settings.repository.clone());
    Ok(meter.finish("node init", outcome, &summary, || {
        last_lines(context, &file, &settings, all)
    }))
}

/// Returns the path of the file to write.
fn output(context: &Context<'_>, args: &NodeInitArgs) -> Result<PathBuf, CliError> {
    let named = args
        .output
        .as_ref()
        .or(context.global.config.as_ref())
        .or(context.env.config.as_ref());
    match named.cloned().or_else(|| context.env.config_file()) {
        Some(file) => absolute(&file),
        None => Err(
            CliError::usage("no directory for icecore.toml: HOME is not set")
                .with_hint("use --output FILE"),
        ),
    }
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path)
        .map_err(|e| CliError::failed(format!("cannot resolve {}", path.display()), e))
}

/// Returns the settings of the command line and the environment that belong in the file. A
/// passphrase itself is never among them.
fn settings(context: &Context<'_>) -> Result<TemplateSettings, CliError> {
    let text = |path: PathBuf| {
        let path = path.into_os_string().into_string();
        path.map_err(|_| CliError::usage("icecore.toml can contain only UTF-8 paths"))
    };
    let global = context.global;
    let env = &context.env;
    let location = global
        .repo
        .as_ref()
        .or(env.repo.as_ref())
        .map(StoreLocation::parse)
        .transpose();
    let location = location.map_err(|why| CliError::usage(why.to_string()))?;

    let repository_id = location
        .as_ref()
        .and_then(|location| context.remembered(location));

    let repository = match location {
        None => None,
        Some(StoreLocation::Local(path)) => Some(text(absolute(&path)?)?),
        Some(remote) => Some(remote.to_string()),
    };

    // An option of the command line replaces both variables of the environment.
    let file = global.passphrase_file.as_ref();
    let command = global.passphrase_command.clone();
    let (file, command) = match (file, command) {
        (None, None) => (env.passphrase_file.as_ref(), env.passphrase_command.clone()),
        given => given,
    };
    let passphrase_file = file.map(|file| absolute(file).and_then(text)).transpose()?;

    Ok(TemplateSettings {
        repository,
        repository_id: repository_id.map(|id| id.to_string()),
        passphrase_file,
        passphrase_command: command,
        host: host_name(),
        comments: COMMENTS,
    })
}

fn taken(file: &Path) -> CliError {
    let message = format!("{} already exists", file.display());
    let hint = "use --force to replace it, or --output FILE to write another".to_owned();
    CliError::Failed {
        message,
        source: None,
        hint: Some(hint),
    }
}

fn write(file: &Path, text: &str, force: bool) -> Result<(), CliError> {
    let existing = if force {
        ExistingFile::Replace
    } else {
        ExistingFile::Refuse
    };
    let directory = file.parent().unwrap_or(Path::new("/"));
    let written = Dir::create_all(directory, 0o700)
        .and_then(|_| write_file(file, text.as_bytes(), 0o600, existing));
    written.map_err(|err| match err.kind() {
        std::io::ErrorKind::AlreadyExists if !force => taken(file),
        _ => CliError::failed(format!("cannot write {}", file.display()), err),
    })
}

/// Prints the parts that were found and those that were not on standard output.
fn list(context: &Context<'_>, node: &NodeDiscovery) -> Result<(), CliError> {
    let mut table = text::Table::new(&["part", "found"]);
    let mut row = |part: &str, found: Option<String>| {
        table.row([
            part.to_owned(),
            found.unwrap_or_else(|| "not found: fill it in".to_owned()),
        ]);
    };

    let files: Vec<String> = node
        .files
        .iter()
        .map(|file| file.display().to_string())
        .collect();

    row(
        "project",
        Some(format!("{} ({})", node.project, files.join(", "))),
    );
    if let Some(why) = &node.no_engine {
        let what = format!("not asked, using the names that compose would give: {why}");
        row("Docker engine", Some(what));
    }
    row(
        "database",
        node.database.as_ref().map(|found| {
            let state = found
                .state
                .as_ref()
                .map_or_else(String::new, |state| format!(" ({state})"));
            format!(
                "container {}{state}, user {}, database {}",
                found.container, found.user, found.database
            )
        }),
    );
    row("local storage", node.local_storage.as_ref().map(tree_text));
    row("IPFS", node.ipfs.as_ref().map(tree_text));
    row("keys", node.keys.as_ref().map(tree_text));
    row("configuration", node.config.as_ref().map(files_text));
    if let Some(found) = &node.compose {
        row("compose files", Some(files_text(found)));
    }
    row(
        "writers",
        Some(node.writers.join(", ")).filter(|writers| !writers.is_empty()),
    );

    let mut out = context.ui.data()?;
    for line in table.lines() {
        out.line(line)?;
    }
    out.finish()
}

fn tree_text(found: &FoundTree) -> String {
    match (&found.place, &found.directory) {
        (SourceLocation::Volume(name), Some(directory)) => {
            format!("volume {name} ({})", directory.display())
        }
        (SourceLocation::Volume(name), None) => format!("volume {name}"),
        (SourceLocation::Path(path), _) => path.display().to_string(),
    }
}

fn files_text(found: &FoundFiles) -> String {
    format!("{}: {}", found.directory.display(), found.names.join(", "))
}

/// Returns the note with its hint.
fn note_text(note: &DiscoveryNote) -> String {
    match &note.advice {
        Some(advice) => format!("{}; {}", note.text, hint(advice)),
        None => note.text.clone(),
    }
}

/// Returns the lines that name the next steps.
fn last_lines(
    context: &Context<'_>,
    file: &Path,
    settings: &TemplateSettings,
    all: bool,
) -> Vec<String> {
    let mut lines = vec![format!("written to {}", file.display())];
    if settings.repository.is_none() {
        lines.push("set 'repository' there: the address for the backups".to_owned());
    }
    if !all {
        lines.push("fill in the missing parts there, or they are not backed up".to_owned());
    }
    let usual = context
        .env
        .config
        .clone()
        .or_else(|| context.env.config_file());
    let config = if usual.is_some_and(|usual| usual == file) {
        String::new()
    } else {
        format!(
            "--config {} ",
            shell_words::quote(&file.display().to_string())
        )
    };
    lines.push(format!("next: icecore {config}node backup --init"));
    lines
}

#[cfg(test)]
mod tests {
    use icecore::advice::{Advice, NodeAdvice};
    use icecore::ccn::discover::FoundDatabase;

    use super::*;
    use icecore::jobs::config::Config;

    fn node() -> NodeDiscovery {
        let volume = |name: &str| FoundTree {
            place: SourceLocation::Volume(name.into()),
            service: None,
            directory: None,
        };
        let directory = |path: &str| FoundTree {
            place: SourceLocation::Path(path.into()),
            service: None,
            directory: None,
        };

        NodeDiscovery {
            project: "node".into(),
            directory: "/opt/node".into(),
            database: Some(FoundDatabase {
                service: "postgres".into(),
                container: "node-postgres-1".into(),
                state: None,
                user: "aleph".into(),
                database: "aleph".into(),
                data: None,
            }),
            local_storage: Some(volume("node_files")),
            ipfs: Some(directory("/srv/ip \"fs\"")),
            keys: Some(directory("/opt/node/keys")),
            config: Some(FoundFiles {
                directory: "/opt/node".into(),
                names: vec![
                    ".env".into(),
                    "config.yml".into(),
                    "docker-compose.yml".into(),
                ],
            }),
            writers: vec!["node-pyaleph-1".into()],
            ..NodeDiscovery::default()
        }
    }

    fn commented() -> TemplateSettings {
        TemplateSettings {
            comments: COMMENTS,
            ..TemplateSettings::default()
        }
    }

    fn accepted(node: &NodeDiscovery, settings: &TemplateSettings) -> Config {
        let text = render(node, settings);
        Config::parse(Path::new("/etc/icecore/icecore.toml"), &text, None)
            .unwrap_or_else(|err| panic!("{err}\n{text}"))
    }

    #[test]
    fn a_written_configuration_is_accepted() {
        let settings = TemplateSettings {
            host: "node-1".into(),
            repository_id: Some("07".repeat(16)),
            repository: Some("/mnt/backup".into()),
            passphrase_file: Some("/root/p".into()),
            passphrase_command: None,
            comments: COMMENTS,
        };

        let config = accepted(&node(), &settings);
        assert_eq!(config.repository, Some("/mnt/backup".into()));
        assert_eq!(
            config.repository_ids,
            [icecore::types::RepoId::new([7; 16])]
        );
        assert_eq!(config.passphrase_file, Some("/root/p".into()));

        let names: Vec<&str> = config
            .sources
            .iter()
            .map(|source| source.name.as_str())
            .collect();
        assert_eq!(names, ["db", "local-storage", "ipfs", "keys", "config"]);

        assert_eq!(
            config.node.ipfs.map(|part| part.place),
            Some(SourceLocation::Path("/srv/ip \"fs\"".into()))
        );
        assert_eq!(
            config.node.database.map(|part| part.source).as_deref(),
            Some("db")
        );
        assert_eq!(config.node.writers, ["node-pyaleph-1"]);
        assert_eq!(config.node.project.as_deref(), Some("node"));
    }

    #[test]
    fn a_configuration_of_a_partial_node_is_accepted() {
        for part in 0..6 {
            let mut node = node();
            match part {
                0 => node.database = None,
                1 => node.local_storage = None,
                2 => node.ipfs = None,
                3 => node.keys = None,
                4 => node.config = None,
                _ => {
                    node = NodeDiscovery {
                        project: "p".into(),
                        ..NodeDiscovery::default()
                    }
                }
            }
            accepted(&node, &commented());
        }
    }

    #[test]
    fn a_note_ends_with_its_hint() {
        let mut note = DiscoveryNote::from("two projects".to_owned());
        assert_eq!(note_text(&note), "two projects");
        note.advice = Some(Advice::Node(NodeAdvice::NameProject));
        assert_eq!(note_text(&note), "two projects; use --project NAME");
    }

    /// A section that is commented out is complete once its comment signs are removed.
    #[test]
    fn filled_in_sections_are_accepted() {
        let text = render(
            &NodeDiscovery {
                project: "p".into(),
                ..NodeDiscovery::default()
            },
            &commented(),
        );
        let is_setting = |line: &str| {
            line == "[[source]]"
                || line == "[hooks]"
                || line
                    .split_once(" = ")
                    .is_some_and(|(key, _)| !key.contains(' '))
        };

        let mut filled = String::new();
        for line in text.lines() {
            let bare = line.strip_prefix("# ").filter(|bare| is_setting(bare));
            let bare = bare.filter(|bare| !bare.starts_with("passphrase_command"));
            filled.push_str(bare.unwrap_or(line));
            filled.push('\n');
        }

        let config = Config::parse(Path::new("/etc/icecore/icecore.toml"), &filled, None)
            .unwrap_or_else(|err| panic!("{err}\n{filled}"));
        assert_eq!(config.sources.len(), 5);
        assert!(config.node.database.is_some() && config.node.keys.is_some());
        assert_eq!(config.hooks.before.len(), 1);
    }
}
