//! The state of the database server before the dump is fed, and the obstacles that follow from it.

use serde::Deserialize;

use super::super::NodeError;
use super::super::dump::FilterRules;
use super::super::postgres::PostgresVersion;
use super::lacks::{self, ServerLack};
use crate::advice::{Advice, DumpAdvice, NodeAdvice};

/// The first version that has the setting `transaction_timeout`.
const TRANSACTION_TIMEOUT_SINCE: u32 = 17;

/// Queries the state of the server at once.
pub(super) const ABOUT: &str = "select json_build_object(\
'role', current_user, \
'is_superuser', (select rolsuper from pg_roles where rolname = current_user), \
'version', current_setting('server_version_num')::int, \
'listens', current_setting('listen_addresses') <> '', \
'is_standby', pg_is_in_recovery(), \
'databases', (select json_agg(json_build_object(\
'name', datname, 'can_connect', datallowconn and datconnlimit <> -2, 'is_invalid', datconnlimit = -2, \
'bytes', case when datconnlimit = -2 then 0 else coalesce(pg_database_size(oid), 0) end, \
'sessions', coalesce((select json_agg(distinct case when backend_type = 'client backend' then \
coalesce(usename, '?') || coalesce(' from ' || host(client_addr), '') || coalesce(' (' || nullif(application_name, '') || ')', '') \
else 'the process ' || coalesce(backend_type, '?') end) from pg_stat_activity a where a.datid = d.oid \
and a.pid <> pg_backend_pid() \
and coalesce(backend_type, '') not in ('', 'autovacuum worker', 'parallel worker', 'walsender')), '[]'))) \
from pg_database d))";

/// Counts the tables of a database that belong neither to the server nor to an extension.
pub(super) const TABLES: &str = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
where c.relkind in ('r', 'p', 'm') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_' \
and not exists (select from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = c.oid and e.deptype = 'e')";

#[derive(Debug, Deserialize)]
pub(super) struct PreviewNote {
    pub role: String,
    pub is_superuser: bool,
    pub version: u32,
    pub listens: bool,
    pub is_standby: bool,
    pub databases: Vec<ExistingDatabase>,
}

/// A database of the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExistingDatabase {
    pub name: String,
    pub(super) can_connect: bool,
    /// True if the server crashed while it dropped the database. Such a database can only be
    /// dropped.
    is_invalid: bool,
    pub bytes: u64,
    /// Other clients and processes that are connected to it.
    pub sessions: Vec<String>,
    /// True if the dump replaces the database.
    #[serde(default)]
    pub is_replaced: bool,
    /// The number of tables, if the database is replaced. `None`: it accepts no connections.
    #[serde(default)]
    pub tables: Option<u64>,
}

impl ExistingDatabase {
    /// Returns true if replacing the database would delete data, or might do so.
    pub(super) fn is_held(&self) -> bool {
        self.is_replaced && !self.is_invalid && self.tables != Some(0)
    }

    /// Returns the name and the amount of data, for messages.
    fn described(&self) -> String {
        match self.tables {
            Some(tables) => format!("'{}' ({tables} tables)", self.name),
            None => format!(
                "'{}' (it accepts no connections: its content is unknown)",
                self.name
            ),
        }
    }
}

/// The result of comparing the dump with the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ComparedServer {
    pub lacks: Vec<ServerLack>,
    /// Notes for the operator.
    pub notes: Vec<String>,
    /// The database that `psql` connects to before each part of the dump, if the encodings require
    /// it.
    pub neutral: Option<String>,
    /// The encodings require a neutral database, but the part of this database does not connect by
    /// itself.
    pub cannot_mix: Option<String>,
}

/// The state of the server before the dump is fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePreview {
    /// Databases that the dump restores, except `postgres` and `template1`.
    pub brings: Vec<String>,
    pub dumped_from: Option<PostgresVersion>,
    pub server_version: u32,
    /// The role that connects.
    pub role: String,
    pub there: Vec<ExistingDatabase>,
    /// The database that psql connects to first.
    pub(super) base: &'static str,
    pub(super) psql: PostgresVersion,
    pub(super) is_superuser: bool,
    pub(super) is_standby: bool,
    /// The result of the comparison; empty if there was none.
    pub(super) compared: ComparedServer,
}

impl RestorePreview {
    /// Returns the databases that would be replaced although they hold tables, or may hold some.
    pub fn replaced(&self) -> impl Iterator<Item = &ExistingDatabase> {
        self.there.iter().filter(|there| there.is_held())
    }

    pub(super) fn server_major(&self) -> u32 {
        self.server_version / 10_000
    }

    /// Returns the rules for changing the dump for this server.
    pub(super) fn rules(&self, last_word: Option<String>) -> FilterRules {
        FilterRules {
            role: self.role.clone(),
            knows_restrict: self.psql.knows_restrict(),
            knows_transaction_timeout: self.server_major() >= TRANSACTION_TIMEOUT_SINCE,
            neutral: self.compared.neutral.clone(),
            last_word,
        }
    }

    /// Returns the reasons from the comparison why the server cannot receive the dump. `name`: the
    /// dump's name, with its snapshot.
    pub(super) fn misfits(&self, name: &str) -> Vec<NodeError> {
        let mix = self.compared.cannot_mix.as_ref().map(|database| NodeError::Refused {
            why: format!("the server cannot convert between the encodings of its databases, and the part of '{database}' cannot be fed separately"),
            advice: Advice::Dump(DumpAdvice::FeedDump { dump: name.to_owned() }),
        });
        lacks::refusal(&self.compared.lacks)
            .into_iter()
            .chain(mix)
            .collect()
    }

    /// Returns the reasons why the dump must not be fed to this server.
    pub fn obstacles(&self, replace: bool) -> Vec<NodeError> {
        let mut out = Vec::new();
        let mut refuse = |why: String, advice: Advice| {
            out.push(NodeError::Refused { why, advice });
        };

        if self.is_standby {
            refuse(
                "the database server is a standby: it accepts no writes".into(),
                "restore into its primary".into(),
            );
        }

        if !self.is_superuser {
            refuse(
                format!(
                    "the role {} is not a superuser of the database server",
                    self.role
                ),
                "only a superuser can restore a whole cluster".into(),
            );
        }

        for there in self
            .there
            .iter()
            .filter(|there| there.is_replaced && !there.sessions.is_empty())
        {
            let who = there.sessions.join(", ");
            refuse(
                format!("the database '{}' is in use by {who}", there.name),
                "stop its clients: it cannot be replaced while it is in use".into(),
            );
        }

        if let Some(from) = self
            .dumped_from
            .filter(|from| from.major > self.server_major())
        {
            refuse(
                format!(
                    "it was dumped from PostgreSQL {from}, and the server is {}: the restore could fail half-way",
                    self.server_major()
                ),
                Advice::Dump(DumpAdvice::UseNewerServer),
            );
        }

        if !replace {
            let held: Vec<String> = self.replaced().map(ExistingDatabase::described).collect();
            if !held.is_empty() {
                refuse(
                    format!(
                        "the database server holds data that would be replaced: {}",
                        held.join(", ")
                    ),
                    Advice::Node(NodeAdvice::AllowReplace),
                );
            }
        }

        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview() -> RestorePreview {
        let there = |name: &str, is_replaced, tables| ExistingDatabase {
            name: name.into(),
            can_connect: true,
            is_invalid: false,
            bytes: 9,
            sessions: Vec::new(),
            is_replaced,
            tables: Some(tables),
        };

        RestorePreview {
            brings: vec!["aleph".into()],
            dumped_from: Some(PostgresVersion {
                major: 15,
                minor: 3,
            }),
            server_version: 150_018,
            role: "aleph".into(),
            there: vec![
                there("aleph", true, 0),
                there("postgres", true, 0),
                there("other", false, 0),
            ],
            base: "postgres",
            psql: PostgresVersion {
                major: 15,
                minor: 18,
            },
            is_superuser: true,
            is_standby: false,
            compared: ComparedServer::default(),
        }
    }

    #[test]
    fn obstacles_are_reported() {
        assert!(preview().obstacles(false).is_empty());
        let mut held = preview();
        held.there[0].tables = Some(3);
        let obstacles = held.obstacles(false);
        assert!(
            obstacles.len() == 1 && obstacles[0].to_string().contains("'aleph' (3 tables)"),
            "{obstacles:?}"
        );
        assert!(held.obstacles(true).is_empty());
        held.there[2].sessions = vec!["x".into()];
        assert!(
            held.obstacles(true).is_empty(),
            "another database's users do not matter"
        );
        held.there[0].sessions = vec!["aleph from 172.18.0.5 (pyaleph)".into()];
        assert!(held.obstacles(true)[0].to_string().contains("172.18.0.5"));
        (held.is_superuser, held.is_standby) = (false, true);
        assert_eq!(held.obstacles(false).len(), 4);
    }

    /// Statements that an older server does not know come after those that drop the existing data.
    #[test]
    fn a_dump_of_a_newer_server_is_refused_before_anything_is_dropped() {
        let mut newer = preview();
        newer.dumped_from = Some(PostgresVersion {
            major: 16,
            minor: 0,
        });
        let obstacles = newer.obstacles(true);
        assert!(
            obstacles.len() == 1 && obstacles[0].to_string().contains("16.0"),
            "{obstacles:?}"
        );
        newer.server_version = 170_002;
        assert!(newer.obstacles(false).is_empty());
    }

    /// A database that was closed for maintenance used to look empty, and was dropped without
    /// asking.
    #[test]
    fn an_unreadable_database_is_not_taken_for_empty() {
        let mut closed = preview();
        (closed.there[0].can_connect, closed.there[0].tables) = (false, None);
        let obstacles = closed.obstacles(false);
        assert!(
            obstacles.len() == 1
                && obstacles[0]
                    .to_string()
                    .contains("'aleph' (it accepts no connections"),
            "{obstacles:?}"
        );
        assert!(closed.obstacles(true).is_empty());
        // A crash during DROP DATABASE leaves a database whose data cannot be used.
        closed.there[0].is_invalid = true;
        assert!(closed.obstacles(false).is_empty());
    }
}
