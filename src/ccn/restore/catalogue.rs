//! Queries the server's catalogue and its files through `psql`. No query writes.

use super::super::NodeError;
use super::super::postgres::{PostgresError, PostgresPrograms};
use super::lacks::{ServerCatalogue, ServerDirectory, ServerFacts};
use super::psql::{last_error, literal, query};
use crate::advice::{Advice, DumpAdvice};
use crate::source::{ChildEnding, CommandError};

/// Queries all facts at once. A superuser may query all of them.
const FACTS: &str = "select json_build_object(\
'major', current_setting('server_version_num')::int / 10000, \
'extensions', (select coalesce(json_agg(name), '[]') from pg_available_extensions), \
'encodings', (select json_agg(distinct pg_encoding_to_char(i)) from generate_series(0, 63) i where pg_encoding_to_char(i) <> ''), \
'has_icu', exists (select from pg_collation where collprovider = 'i'), \
'compressions', coalesce((select to_json(enumvals) from pg_settings where name = 'default_toast_compression'), '[\"pglz\"]'), \
'preloaded', current_setting('shared_preload_libraries'), \
'wal_level', current_setting('wal_level'), \
'tablespaces', (select coalesce(json_agg(json_build_object('name', spcname, 'location', pg_tablespace_location(t.oid), \
'databases', (select coalesce(json_agg(datname), '[]') from pg_database d \
where d.oid in (select pg_tablespace_databases(t.oid))))), '[]') from pg_tablespace t where spcname !~ '^pg_'), \
'held', (select json_agg(json_build_object('database', datname, \
'prepared', (select coalesce(json_agg(gid), '[]') from pg_prepared_xacts p where p.database = datname), \
'subscriptions', (select coalesce(json_agg(subname), '[]') from pg_subscription s where s.subdbid = d.oid), \
'slots', (select coalesce(json_agg(slot_name), '[]') from pg_replication_slots r where r.database = datname and active))) \
from pg_database d), \
'base_encoding', current_setting('server_encoding'), \
'libraries', (select setting from pg_config where name = 'PKGLIBDIR'), \
'share', (select setting from pg_config where name = 'SHAREDIR'), \
'has_plpgsql', exists (select from pg_language where lanname = 'plpgsql'))";

/// Exit code of `psql` if the server refused a statement. Other codes mean that `psql` could not
/// ask the server.
const REFUSED: i32 = 1;

/// A reachable server.
pub(super) struct CatalogueQuery<'a> {
    pub programs: &'a PostgresPrograms<'a>,
    /// The database to connect to.
    pub base: &'static str,
    /// The name of the dump to restore, with its snapshot.
    pub dump: &'a str,
}

impl CatalogueQuery<'_> {
    /// Queries the facts.
    pub fn facts(&self) -> Result<ServerFacts, NodeError> {
        self.json(FACTS)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, question: &str) -> Result<T, NodeError> {
        let output = self
            .programs
            .output(query(self.programs, self.base, question))?;
        serde_json::from_str(output.trim()).map_err(|err| NodeError::Refused {
            why: format!("cannot parse the database server's answer: {err}"),
            advice: Advice::Dump(DumpAdvice::FeedDump {
                dump: self.dump.to_owned(),
            }),
        })
    }

    /// Returns the answer, or the reason why the server refused the question.
    fn answer(&self, question: &str) -> Result<Result<String, String>, NodeError> {
        match self
            .programs
            .output(query(self.programs, self.base, question))
        {
            Ok(output) => Ok(Ok(output.trim().to_owned())),
            Err(PostgresError::Command(CommandError::Failed {
                ending: ChildEnding::Code(REFUSED),
                stderr_tail,
                ..
            })) => Ok(Err(last_error(&stderr_tail))),
            Err(err) => Err(err.into()),
        }
    }
}

/// Returns the names as an array in SQL.
fn array(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    format!("array[{}]::text[]", names.join(", "))
}

impl ServerCatalogue for CatalogueQuery<'_> {
    /// Tries it as `lc_monetary`. The server checks all locales in the same way.
    fn has_locale(&self, locale: &str) -> Result<bool, NodeError> {
        Ok(self
            .answer(&format!(
                "select set_config('lc_monetary', {}, true)",
                literal(locale)
            ))?
            .is_ok())
    }

    fn has_file(&self, path: &str) -> Result<bool, NodeError> {
        let question = format!(
            "select (pg_stat_file({}, true)).size is not null",
            literal(path)
        );
        Ok(self.answer(&question)?.is_ok_and(|answer| answer == "t"))
    }

    fn unknown_settings(&self, names: &[&str]) -> Result<Vec<String>, NodeError> {
        self.json(&format!(
            "select coalesce(json_agg(s), '[]') from unnest({}) s where current_setting(s, true) is null",
            array(names)
        ))
    }

    fn unknown_roles(&self, names: &[&str]) -> Result<Vec<String>, NodeError> {
        self.json(&format!(
            "select coalesce(json_agg(r), '[]') from unnest({}) r where not exists (select from pg_roles where rolname = r)",
            array(names)
        ))
    }

    fn directory(&self, path: &str) -> Result<ServerDirectory, NodeError> {
        let at = literal(path);
        let question = format!(
            "select case when s.size is null then 'missing' when not s.isdir then 'file' else coalesce(\
             (select min(f) from pg_ls_dir({at}) f where f ~ ('^PG_' || current_setting('server_version_num')::int / 10000 || '_')), 'fit') end \
             from (select 1) one left join pg_stat_file({at}, true) s on true"
        );
        Ok(match self.answer(&question)? {
            Ok(answer) if answer == "missing" => ServerDirectory::Missing,
            Ok(answer) if answer == "file" => ServerDirectory::AnotherKind,
            Ok(answer) if answer == "fit" && !self.is_owner(path)? => ServerDirectory::NotOwned,
            Ok(answer) if answer == "fit" => ServerDirectory::Fit,
            Ok(_) => ServerDirectory::Used,
            Err(why) => ServerDirectory::Unreadable(why),
        })
    }
}

impl CatalogueQuery<'_> {
    /// Returns false if the directory belongs to another user than the server's, which then could
    /// not create a tablespace there. No function of the server returns a file's owner, so a shell
    /// checks it. Paths with characters that a shell could interpret are not checked.
    fn is_owner(&self, path: &str) -> Result<bool, NodeError> {
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'.' | b'-');
        if !path.starts_with('/') || !path.bytes().all(is_plain) {
            return Ok(true);
        }
        let question = format!("copy (select where false) to program 'test -O {path}'");
        // Any other error leaves the owner unknown.
        Ok(self
            .answer(&question)?
            .map_or_else(|why| !why.contains("exited with exit code 1"), |_| true))
    }
}
