//! The database: what its server says before, and the dump on its way into `psql`.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::super::NodeError;
use super::super::docker::{Docker, DockerError};
use super::super::dump::{DumpHead, FilterRules, HeadReader, RestoreFilter};
use super::super::postgres::{PostgresError, Programs, Version};
use super::super::profile::{Access, Server};
use crate::Error;
use crate::observe::{Observer, Phase};
use crate::ops::Cancel;
use crate::ops::content::write_content;
use crate::repo::ChunkReader;
use crate::source::{CommandError, watched};
use crate::target::FedCommand;
use crate::types::Content;

/// Between two tries to reach the server, and two looks whether to stop.
const POLL: Duration = Duration::from_millis(250);
/// How long a server that takes no connections but its container's own is believed to be one that is still being set up.
const SETUP_GRACE: Duration = Duration::from_secs(15);
/// `psql` has `\warn` from this version on.
const WARN_SINCE: u32 = 13;
/// The setting `transaction_timeout` is known from this version on.
const TRANSACTION_TIMEOUT_SINCE: u32 = 17;
/// What is quoted of psql's errors.
const SAID_BYTES_MAX: usize = 600;

/// What the server says of itself, in one query.
const ABOUT: &str = "select json_build_object(\
'role', current_user, \
'is_superuser', (select rolsuper from pg_roles where rolname = current_user), \
'version', current_setting('server_version_num')::int, \
'listens', current_setting('listen_addresses') <> '', \
'is_standby', pg_is_in_recovery(), \
'databases', (select json_agg(json_build_object(\
'name', datname, 'can_connect', datallowconn and datconnlimit <> -2, 'is_invalid', datconnlimit = -2, \
'bytes', case when datconnlimit = -2 then 0 else coalesce(pg_database_size(oid), 0) end, \
'sessions', coalesce((select json_agg(distinct usename || coalesce(' from ' || host(client_addr), '') || \
coalesce(' (' || nullif(application_name, '') || ')', '')) from pg_stat_activity a \
where a.datid = d.oid and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'), '[]'))) \
from pg_database d))";

/// How many tables a database holds that are not the server's own or an extension's.
const TABLES: &str = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
where c.relkind in ('r', 'p', 'm') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_' \
and not exists (select from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e')";

#[derive(Debug, Deserialize)]
struct About {
    role: String,
    is_superuser: bool,
    version: u32,
    listens: bool,
    is_standby: bool,
    databases: Vec<There>,
}

/// A database that is there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct There {
    pub name: String,
    can_connect: bool,
    /// A server that went down while it dropped it left it so: nobody can use it, it can only be dropped.
    is_invalid: bool,
    pub bytes: u64,
    /// Who else is connected to it.
    pub sessions: Vec<String>,
    /// The dump brings a database of this name.
    #[serde(default)]
    pub is_replaced: bool,
    /// Tables in it, where it is replaced; none: it lets nobody look.
    #[serde(default)]
    pub tables: Option<u64>,
}

impl There {
    /// Data would go with it, or might.
    fn is_held(&self) -> bool {
        self.is_replaced && !self.is_invalid && self.tables != Some(0)
    }

    /// For people: its name, and how much is in it.
    fn described(&self) -> String {
        match self.tables {
            Some(tables) => format!("'{}' ({tables} tables)", self.name),
            None => format!("'{}' (it takes no connections: what it holds is unknown)", self.name),
        }
    }
}

/// What is known before the dump is fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Databases that the dump brings, beside `postgres` and `template1`.
    pub brings: Vec<String>,
    pub dumped_from: Option<Version>,
    pub server_version: u32,
    /// The role that connects.
    pub role: String,
    pub there: Vec<There>,
    /// The database that psql connects to first.
    base: &'static str,
    psql: Version,
    is_superuser: bool,
    is_standby: bool,
}

impl Preview {
    /// Databases that would be replaced though they hold tables, or may.
    pub fn replaced(&self) -> impl Iterator<Item = &There> {
        self.there.iter().filter(|there| there.is_held())
    }

    fn server_major(&self) -> u32 {
        self.server_version / 10_000
    }

    /// Why the dump is not to be fed to this server.
    pub fn obstacles(&self, replace: bool) -> Vec<NodeError> {
        let mut out = Vec::new();
        let mut refuse =
            |why: String, hint: &str| out.push(NodeError::Refused { why, hint: hint.to_owned() });
        if self.is_standby {
            refuse("the database server is a standby: it takes no writes".into(), "restore into its primary");
        }
        if !self.is_superuser {
            refuse(
                format!("the role {} is no superuser of the database server", self.role),
                "a whole cluster can be restored by a superuser alone",
            );
        }
        for there in self.there.iter().filter(|there| there.is_replaced && !there.sessions.is_empty()) {
            let who = there.sessions.join(", ");
            refuse(
                format!("the database '{}' is in use by {who}", there.name),
                "stop what is connected to it: it cannot be replaced meanwhile",
            );
        }
        if let Some(from) = self.dumped_from.filter(|from| from.major > self.server_major()) {
            refuse(
                format!(
                    "it was dumped from PostgreSQL {from}, and the server is {}: what that does not know would end the restore half-way",
                    self.server_major()
                ),
                "restore into a server of that version or a newer one; 'icecore cat SNAP:SOURCE' writes the dump out, to be changed by hand",
            );
        }
        if !replace {
            let held: Vec<String> = self.replaced().map(There::described).collect();
            if !held.is_empty() {
                refuse(
                    format!("the database server holds data that would be replaced: {}", held.join(", ")),
                    "use --replace if that is what you want",
                );
            }
        }
        out
    }
}

/// The dump and the server that it goes to.
pub(super) struct Database<'a> {
    pub server: &'a Server,
    pub docker: &'a Docker,
    pub env_remove: &'a [String],
    /// The source's name.
    pub source: &'a str,
    pub content: &'a Content,
    pub reader: &'a ChunkReader<'a>,
    pub observer: &'a dyn Observer,
    pub cancel: &'a Cancel,
}

impl Database<'_> {
    /// Reads the first part of the dump.
    pub fn head(&self) -> Result<DumpHead, NodeError> {
        let mut head = HeadReader::new();
        let read = write_content(
            self.reader,
            self.content,
            &mut head,
            self.cancel,
            &crate::observe::Counters::default(),
        );
        if !head.is_done() {
            read?;
        }
        let head = head.into_head();
        if !head.is_cluster {
            let why = format!("'{}' is not the dump of a whole cluster that pg_dumpall writes", self.source);
            let hint = "'icecore cat SNAP:SOURCE' writes it out, to be fed to psql by hand";
            return Err(NodeError::Refused { why, hint: hint.to_owned() });
        }
        Ok(head)
    }

    /// Asks the server, which is waited for so long.
    pub fn preview(&self, head: DumpHead, wait: Duration) -> Result<Preview, NodeError> {
        let (about, base) = self.reach(wait)?;
        let programs = self.programs()?;
        let mut there = about.databases;
        for one in &mut there {
            one.is_replaced =
                head.databases.contains(&one.name) || one.name == "postgres" || one.name == "template1";
            if one.is_replaced && one.can_connect {
                one.tables = Some(self.tables(&programs, &one.name)?);
            }
        }
        Ok(Preview {
            brings: head.databases,
            dumped_from: head.version,
            server_version: about.version,
            role: about.role,
            there,
            base,
            psql: programs.version("psql")?,
            is_superuser: about.is_superuser,
            is_standby: about.is_standby,
        })
    }

    fn programs(&self) -> Result<Programs<'_>, DockerError> {
        Programs::find(self.server, self.docker, self.env_remove)
    }

    /// Asks until there is an answer, or it is too late.
    fn reach(&self, wait: Duration) -> Result<(About, &'static str), NodeError> {
        let start = Instant::now();
        let is_inside = matches!(self.server.access, Access::Docker { .. });
        let mut heard: Option<Instant> = None;
        loop {
            let late = start.elapsed() >= wait;
            match self.ask() {
                // The image's first start runs a server for its own scripts, which goes away again.
                Ok((about, _))
                    if is_inside
                        && !about.listens
                        && !late
                        && heard.get_or_insert_with(Instant::now).elapsed() < SETUP_GRACE => {}
                Ok(found) => return Ok(found),
                Err(err) if late || !is_passing(&err) => return Err(told(err)),
                Err(_) => {}
            }
            let until = Instant::now() + POLL;
            while Instant::now() < until {
                self.cancel.check()?;
                std::thread::sleep(POLL / 5);
            }
        }
    }

    fn ask(&self) -> Result<(About, &'static str), NodeError> {
        let programs = self.programs()?;
        let ask = |base| programs.output(query(&programs, base, ABOUT)).map(|said| (said, base));
        // A restore that was cut short may have left the server without `postgres`, or with half of it.
        let (said, base) = ask("postgres").or_else(|err| ask("template1").map_err(|_| err))?;
        let about = serde_json::from_str(said.trim()).map_err(|err| NodeError::Refused {
            why: format!("what the database server says of itself cannot be read: {err}"),
            hint: "is it PostgreSQL 10 or later?".into(),
        })?;
        Ok((about, base))
    }

    fn tables(&self, programs: &Programs<'_>, database: &str) -> Result<u64, NodeError> {
        let said = programs.output(query(programs, database, TABLES)).map_err(|err| told(err.into()))?;
        said.trim().parse().map_err(|_| NodeError::Refused {
            why: format!(
                "the database server does not say how many tables '{database}' holds, but: {}",
                said.trim()
            ),
            hint: "it must let the configured user look into each of its databases".into(),
        })
    }

    /// Feeds the dump to psql.
    pub fn restore(&self, preview: &Preview) -> Result<(), NodeError> {
        self.observer.phase(&Phase::Restore { name: self.source.to_owned() });
        let programs = self.programs()?;
        if preview.base != "postgres" {
            for statement in
                ["drop database if exists postgres", "create database postgres with template template0"]
            {
                programs.output(query(&programs, preview.base, statement))?;
            }
        }
        let arguments = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname=postgres"];
        let words = programs.words("psql", &arguments);
        let command = FedCommand::spawn(&words, programs.spawn_options()).map_err(PostgresError::from)?;
        self.observer.expect(self.content.size, true);
        let rules = FilterRules {
            role: preview.role.clone(),
            knows_restrict: preview.psql.knows_restrict(),
            knows_transaction_timeout: preview.server_major() >= TRANSACTION_TIMEOUT_SINCE,
            last_word: (preview.psql.major >= WARN_SINCE).then(last_word).transpose()?,
        };
        self.feed(command, rules)
            .map_err(|err| NodeError::HalfRestored { why: with_sources(&err), kind: err.kind() })
    }

    /// A watcher ends psql should we be asked to stop, also while it is busy with one statement.
    fn feed(&self, command: FedCommand, rules: FilterRules) -> Result<(), Error> {
        watched(&command.canceller(), &|| self.cancel.is_cancelled(), || self.fed(command, rules))
    }

    fn fed(&self, mut command: FedCommand, rules: FilterRules) -> Result<(), Error> {
        let last_word = rules.last_word.clone();
        let mut filter = RestoreFilter::new(&mut command, rules);
        let written = write_content(self.reader, self.content, &mut filter, self.cancel, self.observer);
        let ended = written.and_then(|()| {
            let ended = filter.finish().map(drop);
            ended.map_err(|err| Error::NotThere(format!("the dump '{}': {err}", self.source)))
        });
        self.cancel.check()?;
        if let Err(err) = ended {
            // Why psql took no more is in its exit; what is ours is not.
            return match command.finish() {
                Err(failed @ CommandError::Failed { .. }) if is_of_output(&err) => Err(failed.into()),
                _ => Err(err),
            };
        }
        let said = command.finish()?;
        match last_word {
            Some(word) if !said.lines().any(|line| line.trim_end() == word) => Err(Error::NotThere(format!(
                "psql ended well, but did not come to the end of the dump '{}': the connection to it may have been cut",
                self.source
            ))),
            _ => Ok(()),
        }
    }
}

/// What psql says behind everything: a word that no server says by itself.
fn last_word() -> Result<String, NodeError> {
    let failed = |source| Error::from(CommandError::Start { command: "psql".into(), source });
    let bytes = crate::sys::random_bytes::<8>().map_err(failed)?;
    Ok(format!("done{:016x}", u64::from_le_bytes(bytes)))
}

/// True if an error came from the output, and not from what was to be written.
fn is_of_output(err: &Error) -> bool {
    let kind = match err {
        Error::Path(err) => err.kind(),
        // The filter's end.
        Error::NotThere(_) => return true,
        _ => return false,
    };
    kind == std::io::ErrorKind::BrokenPipe
}

/// The words of a query that prints one value.
fn query(programs: &Programs<'_>, database: &str, query: &str) -> Vec<String> {
    let database = format!("--dbname={}", conninfo(database));
    let command = format!("--command={query}");
    programs.words("psql", &["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", &database, &command])
}

/// A database's name as a connection string: a bare one might be taken for such a string itself.
fn conninfo(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// True if trying again may help.
fn is_passing(err: &NodeError) -> bool {
    matches!(
        err,
        NodeError::Docker(DockerError::NotRunning { .. })
            | NodeError::Postgres(PostgresError::Command(CommandError::Failed { .. }))
    )
}

/// A failure to ask the server, in one line.
fn told(err: NodeError) -> NodeError {
    match err {
        NodeError::Postgres(PostgresError::Command(CommandError::Failed { ending, stderr_tail, .. })) => {
            NodeError::Refused {
                why: format!("the database server does not answer ({ending}): {}", said(&stderr_tail)),
                hint: "it must run, and let the configured user in; start it: docker compose up -d postgres".into(),
            }
        }
        NodeError::Docker(DockerError::NoContainer { name, .. }) => NodeError::Refused {
            why: format!("there is no container '{name}' to restore the database into"),
            hint: "bring keys and configuration back first (SNAP:SOURCE names single sources), then start the database: docker compose up -d postgres".into(),
        },
        err => err,
    }
}

/// An error and its sources, psql's in one line.
fn with_sources(err: &Error) -> String {
    if let Error::Command(CommandError::Failed { ending, stderr_tail, .. }) = err {
        return format!("psql failed with {ending}: {}", said(stderr_tail));
    }
    if matches!(err, Error::Interrupted) {
        return "interrupted".to_owned();
    }
    let mut out = err.to_string();
    let mut source = std::error::Error::source(err);
    while let Some(err) = source {
        out.push_str(&format!(": {err}"));
        source = err.source();
    }
    out
}

/// The last error that psql told, and what it told with it, in one line.
fn said(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_error =
        |line: &&str| ["ERROR:", "FATAL:", "error:", "PANIC:"].iter().any(|sign| line.contains(sign));
    let from = lines.iter().rposition(is_error).unwrap_or(lines.len().saturating_sub(3));
    let mut text = lines.get(from..).unwrap_or_default().join("; ");
    // `psql:<stdin>:123: ERROR:  …`: the line is the dump's.
    if let Some(rest) = text.strip_prefix("psql:<stdin>:") {
        text = format!("line {rest}");
    }
    if text.len() > SAID_BYTES_MAX {
        let cut = (0..=SAID_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview() -> Preview {
        let there = |name: &str, is_replaced, tables| There {
            name: name.into(),
            can_connect: true,
            is_invalid: false,
            bytes: 9,
            sessions: Vec::new(),
            is_replaced,
            tables: Some(tables),
        };
        Preview {
            brings: vec!["aleph".into()],
            dumped_from: Some(Version { major: 15, minor: 3 }),
            server_version: 150_018,
            role: "aleph".into(),
            there: vec![there("aleph", true, 0), there("postgres", true, 0), there("other", false, 0)],
            base: "postgres",
            psql: Version { major: 15, minor: 18 },
            is_superuser: true,
            is_standby: false,
        }
    }

    #[test]
    fn what_stands_in_the_way_is_told() {
        assert!(preview().obstacles(false).is_empty());
        let mut held = preview();
        held.there[0].tables = Some(3);
        let said = held.obstacles(false);
        assert!(said.len() == 1 && said[0].to_string().contains("'aleph' (3 tables)"), "{said:?}");
        assert!(held.obstacles(true).is_empty());
        held.there[2].sessions = vec!["x".into()];
        assert!(held.obstacles(true).is_empty(), "another database's users do not matter");
        held.there[0].sessions = vec!["aleph from 172.18.0.5 (pyaleph)".into()];
        assert!(held.obstacles(true)[0].to_string().contains("172.18.0.5"));
        (held.is_superuser, held.is_standby) = (false, true);
        assert_eq!(held.obstacles(false).len(), 4);
    }

    /// Its statements that an older server does not know come behind those that drop what is there.
    #[test]
    fn a_dump_of_a_newer_server_is_refused_before_anything_is_dropped() {
        let mut newer = preview();
        newer.dumped_from = Some(Version { major: 16, minor: 0 });
        let said = newer.obstacles(true);
        assert!(said.len() == 1 && said[0].to_string().contains("16.0"), "{said:?}");
        newer.server_version = 170_002;
        assert!(newer.obstacles(false).is_empty());
    }

    /// A database that was closed for maintenance looked empty, and was dropped unasked.
    #[test]
    fn what_cannot_be_looked_into_is_not_taken_for_empty() {
        let mut closed = preview();
        (closed.there[0].can_connect, closed.there[0].tables) = (false, None);
        let said = closed.obstacles(false);
        assert!(
            said.len() == 1 && said[0].to_string().contains("'aleph' (it takes no connections"),
            "{said:?}"
        );
        assert!(closed.obstacles(true).is_empty());
        // What a crash left in the middle of DROP DATABASE holds nothing that anybody could use.
        closed.there[0].is_invalid = true;
        assert!(closed.obstacles(false).is_empty());
    }

    #[test]
    fn psql_s_last_error_is_told_in_a_line() {
        let stderr = "NOTICE:  x\npsql:<stdin>:12: ERROR:  first\npsql:<stdin>:30: ERROR:  relation \"a\" does not exist\nLINE 1: select\n";
        assert_eq!(said(stderr), "line 30: ERROR:  relation \"a\" does not exist; LINE 1: select");
        assert_eq!(said("a\nb\n\nc\nd"), "b; c; d");
        assert_eq!(said(""), "");
        assert!(said(&"é".repeat(2000)).len() < SAID_BYTES_MAX + 9);
    }

    #[test]
    fn names_of_databases_are_quoted() {
        assert_eq!(conninfo("aleph"), "dbname='aleph'");
        assert_eq!(conninfo("a'b\\c"), "dbname='a\\'b\\\\c'");
    }
}
