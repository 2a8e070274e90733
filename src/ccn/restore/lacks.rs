//! Compares the dump's requirements with the server before the first write, so that nothing is
//! dropped for a dump that cannot be restored.

use std::collections::BTreeSet;

use super::super::NodeError;
use super::super::dump::{DumpNeeds, NamedNeed};

/// Number of names of each kind in a message.
const NAMED_MAX: usize = 20;
/// Extensions that can be created only if the server loads their library when it starts.
const PRELOADED: [&str; 6] = [
    "timescaledb",
    "pg_cron",
    "citus",
    "pgaudit",
    "pglogical",
    "pg_squeeze",
];
/// The `wal_level` that publications require.
const WAL_LEVEL_LOGICAL: &str = "logical";

/// A tablespace of the server.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
pub(super) struct Tablespace {
    pub name: String,
    pub location: String,
    /// Databases that have objects in it.
    pub databases: Vec<String>,
}

/// The reasons why a database cannot be dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
pub(super) struct HeldTablespace {
    pub database: String,
    pub prepared: Vec<String>,
    pub subscriptions: Vec<String>,
    /// Active slots of logical replication.
    pub slots: Vec<String>,
}

/// Facts about the server, in one answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
pub(super) struct ServerFacts {
    pub major: u32,
    pub extensions: BTreeSet<String>,
    pub encodings: BTreeSet<String>,
    pub has_icu: bool,
    pub compressions: BTreeSet<String>,
    /// The value of the setting `shared_preload_libraries`.
    pub preloaded: String,
    pub wal_level: String,
    pub tablespaces: Vec<Tablespace>,
    pub held: Vec<HeldTablespace>,
    /// The encoding of the database that is connected to first.
    pub base_encoding: String,
    /// The directories of the server's libraries and of its shared files.
    pub libraries: String,
    pub share: String,
    /// True if the language plpgsql is installed, which the restore's own statements need.
    pub has_plpgsql: bool,
}

/// The state of a tablespace's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerDirectory {
    /// It is empty, as far as the server can see.
    Fit,
    Missing,
    /// It is not a directory.
    AnotherKind,
    /// Its owner is not the server's user.
    NotOwned,
    /// It contains a tablespace of this major version.
    Used,
    /// The server cannot read it.
    Unreadable(String),
}

/// Queries of the server in addition to the facts.
pub(super) trait ServerCatalogue {
    /// Returns true if the operating system has the locale.
    fn has_locale(&self, locale: &str) -> Result<bool, NodeError>;
    /// Returns true if the server sees a file at this path.
    fn has_file(&self, path: &str) -> Result<bool, NodeError>;
    /// Returns the settings that the server does not know.
    fn unknown_settings(&self, names: &[&str]) -> Result<Vec<String>, NodeError>;
    /// Returns the roles that do not exist.
    fn unknown_roles(&self, names: &[&str]) -> Result<Vec<String>, NodeError>;
    fn directory(&self, path: &str) -> Result<ServerDirectory, NodeError>;
}

/// An unmet requirement, and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerLack {
    pub what: String,
    pub remedy: String,
}

/// Returns everything that would stop the restore half-way. `replaced`: the databases that are
/// dropped for the dump.
pub(super) fn lacks(
    needs: &DumpNeeds,
    facts: &ServerFacts,
    replaced: &BTreeSet<&str>,
    server: &dyn ServerCatalogue,
) -> Result<Vec<ServerLack>, NodeError> {
    let mut found = FoundLacks {
        out: Vec::new(),
        major: facts.major,
    };

    if !facts.has_plpgsql {
        found.add(
            "the database that psql connects to first has no language plpgsql".into(),
            "create it there: create extension plpgsql".into(),
        );
    }

    found.held(facts, replaced);
    found.extensions(needs, facts);
    found.libraries(needs, facts, server)?;
    found.locales(needs, facts, server)?;
    found.tablespaces(needs, facts, replaced, server)?;
    found.names(needs, server)?;
    Ok(found.out)
}

/// Returns objects that the dump creates without dropping the existing ones, as `pg_dumpall`
/// without `--clean` does. `holding`: databases with tables.
pub(super) fn kept(
    needs: &DumpNeeds,
    facts: &ServerFacts,
    holding: &BTreeSet<&str>,
) -> Vec<ServerLack> {
    let mut out = Vec::new();
    let there: BTreeSet<&str> = facts.held.iter().map(|one| one.database.as_str()).collect();
    let stays = |name: &&String| !needs.dropped.contains(*name);

    for name in needs
        .made
        .iter()
        .filter(stays)
        .filter(|name| there.contains(name.as_str()))
    {
        out.push(ServerLack {
            what: format!("the database '{name}' exists, and the dump creates it without dropping it (pg_dumpall without --clean)"),
            remedy: format!("if nothing in it is needed, drop it: drop database \"{}\"", name.replace('"', "\"\"")),
        });
    }

    let is_filled = |name: &&String| holding.contains(name.as_str()) && !needs.made.contains(*name);
    for name in needs.filled.iter().filter(stays).filter(is_filled) {
        out.push(ServerLack {
            what: format!(
                "the database '{name}' holds tables, and the dump adds its own without dropping them"
            ),
            remedy: format!("if they are not needed, drop the tables in the database '{name}'"),
        });
    }

    for name in needs
        .tablespaces
        .keys()
        .filter(|name| !needs.dropped_tablespaces.contains(*name))
    {
        if facts.tablespaces.iter().any(|one| one.name == *name) {
            out.push(ServerLack {
                what: format!(
                    "the tablespace '{name}' exists, and the dump creates it without dropping it"
                ),
                remedy: format!("drop the tablespace '{name}' if it is empty"),
            });
        }
    }

    out
}

/// Returns notes for the operator that are not obstacles.
pub(super) fn notes(needs: &DumpNeeds, facts: &ServerFacts) -> Vec<String> {
    let mut out = Vec::new();
    if !needs.subscriptions.is_empty() {
        out.push(format!(
            "it has subscriptions ({}): they are restored disabled and do not connect; enable them by hand, where no other server has the same one",
            listed(&needs.subscriptions)
        ));
    }
    if !needs.publications.is_empty() && facts.wal_level != WAL_LEVEL_LOGICAL {
        out.push(format!(
            "it has publications ({}), and the server's wal_level is {}: no server can subscribe until it is {WAL_LEVEL_LOGICAL}",
            listed(&needs.publications),
            facts.wal_level
        ));
    }
    if needs.extensions.contains_key("timescaledb") {
        out.push("it has the extension timescaledb, whose own tables need timescaledb_pre_restore() before the rows and timescaledb_post_restore() after them: try the restore on a separate server".into());
    }
    out
}

/// Combines all unmet requirements into one error.
pub(super) fn refusal(lacks: &[ServerLack]) -> Option<NodeError> {
    if lacks.is_empty() {
        return None;
    }
    let what: Vec<&str> = lacks.iter().map(|lack| lack.what.as_str()).collect();
    let mut remedies: Vec<&str> = Vec::new();
    for lack in lacks {
        if !remedies.contains(&lack.remedy.as_str()) {
            remedies.push(&lack.remedy);
        }
    }
    Some(NodeError::Refused {
        why: format!(
            "the database server does not meet the dump's needs, and nothing was written: {}",
            what.join("; ")
        ),
        advice: remedies.join("; ").into(),
    })
}

struct FoundLacks {
    out: Vec<ServerLack>,
    major: u32,
}

impl FoundLacks {
    fn add(&mut self, what: String, remedy: String) {
        self.out.push(ServerLack { what, remedy });
    }

    /// Adds databases that the server will not drop.
    fn held(&mut self, facts: &ServerFacts, replaced: &BTreeSet<&str>) {
        for held in facts
            .held
            .iter()
            .filter(|held| replaced.contains(held.database.as_str()))
        {
            let database = &held.database;
            if !held.prepared.is_empty() {
                self.add(
                    format!(
                        "the database '{database}' has prepared transactions ({})",
                        held.prepared.join(", ")
                    ),
                    "end them in it: commit prepared, or rollback prepared".into(),
                );
            }

            if !held.subscriptions.is_empty() {
                self.add(
                    format!(
                        "the database '{database}' has subscriptions ({}), so it cannot be dropped",
                        held.subscriptions.join(", ")
                    ),
                    "drop them in it: alter subscription NAME disable, alter subscription NAME set (slot_name = none), drop subscription NAME".into(),
                );
            }

            if !held.slots.is_empty() {
                self.add(
                    format!(
                        "replication slots of the database '{database}' are in use ({})",
                        held.slots.join(", ")
                    ),
                    "stop the clients that replicate from it".into(),
                );
            }
        }
    }

    fn extensions(&mut self, needs: &DumpNeeds, facts: &ServerFacts) {
        let preloaded: Vec<&str> = facts
            .preloaded
            .split(',')
            .map(|one| one.trim().trim_matches(['"', '\'']))
            .collect();

        for (name, database) in &needs.extensions {
            if !facts.extensions.contains(name) {
                self.add(
                    format!("there is no extension '{name}'{}", of(database)),
                    format!("install '{name}' for PostgreSQL {} where the server runs, or run an image that has it", self.major),
                );
            } else if PRELOADED.contains(&name.as_str()) && !preloaded.contains(&name.as_str()) {
                self.add(
                    format!(
                        "the extension '{name}'{} is not among the server's shared_preload_libraries",
                        of(database)
                    ),
                    format!("add '{name}' to shared_preload_libraries and restart the server"),
                );
            }
        }

        for (name, database) in needs
            .compressions
            .iter()
            .filter(|(name, _)| *name != "default")
        {
            if !facts.compressions.contains(name) {
                self.add(
                    format!(
                        "the server cannot compress columns by {name}{}",
                        of(database)
                    ),
                    format!("run a server that was built with {name}"),
                );
            }
        }

        for (name, database) in &needs.encodings {
            if !facts.encodings.contains(name) {
                self.add(
                    format!(
                        "the server does not know the encoding {name}{}",
                        of(database)
                    ),
                    "run a server that knows it".into(),
                );
            }
        }
    }

    fn libraries(
        &mut self,
        needs: &DumpNeeds,
        facts: &ServerFacts,
        server: &dyn ServerCatalogue,
    ) -> Result<(), NodeError> {
        let all = needs.libraries.iter().map(|one| (one, false));
        for ((name, database), is_preload) in
            all.chain(needs.preloads.iter().map(|one| (one, true)))
        {
            if self.has_library(name, facts, server)? {
                continue;
            }
            let what = if is_preload {
                format!(
                    "there is no library '{name}', which sessions load{}",
                    of(database)
                )
            } else {
                format!(
                    "there is no library '{name}', which functions use{}",
                    of(database)
                )
            };
            let remedy = format!(
                "install the package of the library '{name}' for PostgreSQL {} where the server runs",
                self.major
            );
            self.add(what, remedy);
        }

        for (file, database) in &needs.dictionaries {
            let path = format!("{}/tsearch_data/{file}", facts.share);
            if !server.has_file(&path)? {
                self.add(
                    format!(
                        "there is no {path} for a text search dictionary{}",
                        of(database)
                    ),
                    format!("copy the file {file} there from the old server"),
                );
            }
        }
        Ok(())
    }

    /// Looks for a library as the server does: by its name as spelled, and with the suffix of
    /// libraries.
    fn has_library(
        &self,
        name: &str,
        facts: &ServerFacts,
        server: &dyn ServerCatalogue,
    ) -> Result<bool, NodeError> {
        let path = match name.strip_prefix("$libdir") {
            Some(rest) => format!("{}{rest}", facts.libraries),
            None if name.contains('/') => name.to_owned(),
            None => format!("{}/{name}", facts.libraries),
        };
        for ending in [".so", "", ".dylib"] {
            if server.has_file(&format!("{path}{ending}"))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn locales(
        &mut self,
        needs: &DumpNeeds,
        facts: &ServerFacts,
        server: &dyn ServerCatalogue,
    ) -> Result<(), NodeError> {
        let is_own = |locale: &str| matches!(locale, "C" | "POSIX");
        for (locale, database) in needs.locales.iter().filter(|(locale, _)| !is_own(locale)) {
            if !server.has_locale(locale)? {
                self.add(
                    format!("there is no locale '{locale}'{}", of(database)),
                    format!("create the locale '{locale}' where the server runs (locale-gen, or localedef), and restart the server"),
                );
            }
        }
        if let Some(database) = needs.icu.values().next().filter(|_| !facts.has_icu) {
            self.add(
                format!(
                    "the server was built without ICU, whose collations are needed{}",
                    of(database)
                ),
                "run a server that was built with ICU".into(),
            );
        }
        Ok(())
    }

    fn tablespaces(
        &mut self,
        needs: &DumpNeeds,
        facts: &ServerFacts,
        replaced: &BTreeSet<&str>,
        server: &dyn ServerCatalogue,
    ) -> Result<(), NodeError> {
        for (name, place) in needs
            .tablespaces
            .iter()
            .filter(|(_, place)| !place.is_empty())
        {
            // Databases that are not replaced keep the tablespace in use.
            let old = facts.tablespaces.iter().find(|there| there.name == *name);
            let others: Vec<&str> = old.map_or_else(Vec::new, |old| {
                let stay = old.databases.iter().map(String::as_str);
                stay.filter(|database| !replaced.contains(database))
                    .collect()
            });
            if !others.is_empty() {
                self.add(
                    format!(
                        "the tablespace '{name}' is used by databases that stay ({})",
                        others.join(", ")
                    ),
                    format!("move them out of the tablespace '{name}': alter database NAME set tablespace pg_default"),
                );
                continue;
            }

            // Another tablespace may use the directory. That is allowed if the dump has that
            // tablespace too.
            let twin = facts
                .tablespaces
                .iter()
                .find(|there| there.name != *name && there.location == *place);
            if let Some(twin) = twin.filter(|twin| !needs.tablespaces.contains_key(&twin.name)) {
                self.add(
                    format!(
                        "the directory {place} of the tablespace '{name}' belongs to the tablespace '{}'",
                        twin.name
                    ),
                    format!("drop the tablespace '{}', or move it elsewhere", twin.name),
                );
                continue;
            }

            let make = format!(
                "create the directory {place} where the server runs, empty and owned by the server's user: install -d -m 700 -o postgres {place}"
            );
            let what = |is: &str| format!("the directory {place} of the tablespace '{name}' {is}");
            match server.directory(place)? {
                ServerDirectory::Fit => {}
                ServerDirectory::Missing => self.add(what("does not exist"), make),
                ServerDirectory::AnotherKind => self.add(what("is not a directory"), make),
                ServerDirectory::NotOwned => {
                    self.add(what("is not owned by the server's user"), make);
                }
                // The restore drops the tablespace in it before it creates the new one.
                ServerDirectory::Used
                    if old.is_some_and(|old| old.location == *place) || twin.is_some() => {}
                ServerDirectory::Used => self.add(what("holds another server's tablespace"), make),
                ServerDirectory::Unreadable(why) => {
                    self.add(what(&format!("cannot be used: {why}")), make);
                }
            }
        }

        Ok(())
    }

    fn names(&mut self, needs: &DumpNeeds, server: &dyn ServerCatalogue) -> Result<(), NodeError> {
        // A setting with a dot belongs to an extension, and the server accepts any such name.
        let settings: Vec<&str> = needs
            .settings
            .keys()
            .map(String::as_str)
            .filter(|name| !name.contains('.'))
            .collect();
        let unknown = if settings.is_empty() {
            Vec::new()
        } else {
            server.unknown_settings(&settings)?
        };
        for name in &unknown {
            self.add(
                format!(
                    "PostgreSQL {} has no setting '{name}'{}",
                    self.major,
                    of(needs.settings.get(name).map_or("", String::as_str))
                ),
                format!("reset '{name}' on the old server and back it up again; or restore into a server of its version"),
            );
        }

        let roles: Vec<&str> = needs.roles.keys().map(String::as_str).collect();
        let unknown = if roles.is_empty() {
            Vec::new()
        } else {
            server.unknown_roles(&roles)?
        };
        for name in &unknown {
            self.add(
                format!(
                    "there is no role '{name}', which the dump uses and does not create{}",
                    of(needs.roles.get(name).map_or("", String::as_str))
                ),
                format!(
                    "create the role: create role \"{}\"",
                    name.replace('"', "\"\"")
                ),
            );
        }
        Ok(())
    }
}

/// Formats the database that has a requirement.
fn of(database: &str) -> String {
    if database.is_empty() {
        String::new()
    } else {
        format!(" (database '{database}')")
    }
}

fn listed(names: &NamedNeed) -> String {
    let first: Vec<&str> = names.keys().take(NAMED_MAX).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    if more == 0 {
        first.join(", ")
    } else {
        format!("{} and {more} more", first.join(", "))
    }
}

/// Returns true if a part of the dump sets an encoding while `psql` is connected to a database that
/// has no conversion to it.
pub(super) fn needs_neutral(needs: &DumpNeeds, base_encoding: &str) -> bool {
    let mut connected = base_encoding;
    if !converts(&needs.globals_encoding, connected) {
        return true;
    }
    for section in &needs.sections {
        if !converts(&section.client_encoding, connected) {
            return true;
        }
        if !section.encoding.is_empty() {
            connected = &section.encoding;
        }
    }
    false
}

/// Returns true if every PostgreSQL converts between a client's encoding and a database's. Some
/// other pairs that PostgreSQL converts are not counted.
fn converts(client: &str, database: &str) -> bool {
    let is_any = |encoding: &str| matches!(encoding, "SQL_ASCII" | "");
    let is_unicode = |encoding: &str| matches!(encoding, "UTF8" | "UNICODE");
    let is_mule = |encoding: &str| encoding == "MULE_INTERNAL";
    client == database
        || is_any(client)
        || is_any(database)
        || is_unicode(client) && !is_mule(database)
        || is_unicode(database) && !is_mule(client)
}

#[cfg(test)]
#[path = "lacks_tests.rs"]
mod tests;
