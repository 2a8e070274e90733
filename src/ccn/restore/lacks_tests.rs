//! Tests of the comparison: it refuses if and only if a requirement is unmet.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::advice::Advice;
use crate::ccn::dump::DumpSection;

/// A server with exactly the listed properties.
#[derive(Debug, Clone, Default)]
struct Fake {
    facts: ServerFacts,
    locales: BTreeSet<String>,
    files: BTreeSet<String>,
    settings: BTreeSet<String>,
    roles: BTreeSet<String>,
    directories: BTreeMap<String, ServerDirectory>,
}

impl ServerCatalogue for Fake {
    fn has_locale(&self, locale: &str) -> Result<bool, NodeError> {
        Ok(self.locales.contains(locale))
    }

    fn has_file(&self, path: &str) -> Result<bool, NodeError> {
        Ok(self.files.contains(path))
    }

    fn unknown_settings(&self, names: &[&str]) -> Result<Vec<String>, NodeError> {
        Ok(names
            .iter()
            .filter(|name| !self.settings.contains(**name))
            .map(|&name| name.to_owned())
            .collect())
    }

    fn unknown_roles(&self, names: &[&str]) -> Result<Vec<String>, NodeError> {
        Ok(names
            .iter()
            .filter(|name| !self.roles.contains(**name))
            .map(|&name| name.to_owned())
            .collect())
    }

    fn directory(&self, path: &str) -> Result<ServerDirectory, NodeError> {
        Ok(self
            .directories
            .get(path)
            .cloned()
            .unwrap_or(ServerDirectory::Missing))
    }
}

fn server() -> Fake {
    let facts = ServerFacts {
        major: 15,
        has_icu: true,
        has_plpgsql: true,
        libraries: "/lib".into(),
        share: "/share".into(),
        base_encoding: "UTF8".into(),
        ..ServerFacts::default()
    };
    Fake {
        facts,
        ..Fake::default()
    }
}

fn refusal_text(needs: &DumpNeeds, server: &Fake) -> String {
    let replaced = BTreeSet::from(["aleph", "postgres"]);
    let lacks = lacks(needs, &server.facts, &replaced, server).expect("compared");
    refusal(&lacks)
        .map(|err| match err.advice() {
            Some(Advice::Text(advice)) => format!("{err}\n{advice}"),
            advice => panic!("not a text: {advice:?}"),
        })
        .unwrap_or_default()
}

/// Adds a requirement to a dump, by kind and name.
fn need(needs: &mut DumpNeeds, kind: u8, name: &str) {
    let insert = |named: &mut NamedNeed, name: String| drop(named.insert(name, "aleph".into()));
    match kind {
        0 => insert(&mut needs.extensions, name.into()),
        1 => insert(&mut needs.locales, name.into()),
        2 => insert(&mut needs.encodings, name.into()),
        3 => drop(needs.tablespaces.insert(name.into(), format!("/ts/{name}"))),
        4 => insert(&mut needs.libraries, format!("$libdir/{name}")),
        5 => insert(&mut needs.preloads, name.into()),
        6 => insert(&mut needs.dictionaries, format!("{name}.stop")),
        7 => insert(&mut needs.settings, name.into()),
        8 => insert(&mut needs.compressions, name.into()),
        _ => insert(&mut needs.roles, name.into()),
    }
}

fn give(server: &mut Fake, kind: u8, name: &str) {
    match kind {
        0 => drop(server.facts.extensions.insert(name.into())),
        1 => drop(server.locales.insert(name.into())),
        2 => drop(server.facts.encodings.insert(name.into())),
        3 => drop(
            server
                .directories
                .insert(format!("/ts/{name}"), ServerDirectory::Fit),
        ),
        4 | 5 => drop(server.files.insert(format!("/lib/{name}.so"))),
        6 => drop(
            server
                .files
                .insert(format!("/share/tsearch_data/{name}.stop")),
        ),
        7 => drop(server.settings.insert(name.into())),
        8 => drop(server.facts.compressions.insert(name.into())),
        _ => drop(server.roles.insert(name.into())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn a_dump_is_refused_if_and_only_if_something_lacks(
        wanted in prop::collection::btree_set((0u8..10, 0u8..6), 0..12),
        had in prop::collection::btree_set((0u8..10, 0u8..6), 0..40),
    ) {
        let mut needs = DumpNeeds::default();
        let mut server = server();
        let name = |number: u8| format!("name{number}");
        wanted.iter().for_each(|&(kind, number)| need(&mut needs, kind, &name(number)));
        had.iter().for_each(|&(kind, number)| give(&mut server, kind, &name(number)));
        // Functions and sessions look for libraries in the same directory.
        let has = |&(kind, number): &(u8, u8)| {
            had.contains(&(kind, number)) || matches!(kind, 4 | 5) && had.contains(&(9 - kind, number))
        };
        let lacking: Vec<&(u8, u8)> = wanted.iter().filter(|one| !has(one)).collect();
        let text = refusal_text(&needs, &server);
        prop_assert_eq!(text.is_empty(), lacking.is_empty(), "{}", &text);
        for &(_, number) in lacking {
            let (why, hint) = text.split_once('\n').expect("both");
            prop_assert!(why.contains(&name(number)) && !hint.is_empty(), "{}", &text);
        }
    }

    /// If a dump does not need a neutral database, each of its connections is to a database whose
    /// encoding converts to the next one.
    #[test]
    fn encodings_that_do_not_convert_need_a_neutral_database(
        encodings in prop::collection::vec(prop::sample::select(vec!["UTF8", "LATIN1", "EUC_JP", "SQL_ASCII", "MULE_INTERNAL"]), 1..6),
        base in prop::sample::select(vec!["UTF8", "LATIN1", "SQL_ASCII"]),
    ) {
        let section = |encoding: &&str| DumpSection {
            database: "x".into(),
            encoding: (*encoding).into(),
            client_encoding: (*encoding).into(),
            connects: true,
        };
        let needs = DumpNeeds { sections: encodings.iter().map(section).collect(), ..DumpNeeds::default() };
        // The entries of pg_conversion for these encodings.
        let converts = |a: &str, b: &str| {
            a == b || a == "SQL_ASCII" || b == "SQL_ASCII" || matches!((a, b), ("UTF8", "LATIN1" | "EUC_JP") | ("LATIN1" | "EUC_JP", "UTF8"))
        };
        let mut at = base;
        let mut fails = false;
        for encoding in &encodings {
            fails |= !converts(encoding, at);
            at = encoding;
        }
        prop_assert_eq!(needs_neutral(&needs, base), fails);
    }
}

#[test]
fn everything_missing_is_reported_at_once_with_hints() {
    let mut needs = DumpNeeds::default();
    for (kind, name) in [
        (0, "postgis"),
        (1, "de_DE.utf8"),
        (3, "fast"),
        (7, "old_snapshot_threshold"),
    ] {
        need(&mut needs, kind, name);
    }
    let text = refusal_text(&needs, &server());
    for part in [
        "there is no extension 'postgis' (database 'aleph')",
        "there is no locale 'de_DE.utf8'",
        "the directory /ts/fast of the tablespace 'fast' does not exist",
        "PostgreSQL 15 has no setting 'old_snapshot_threshold'",
        "nothing was written",
        "install 'postgis' for PostgreSQL 15",
        "install -d -m 700 -o postgres /ts/fast",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn features_of_every_server_are_not_asked_for() {
    let mut needs = DumpNeeds::default();
    for locale in ["C", "POSIX"] {
        need(&mut needs, 1, locale);
    }
    need(&mut needs, 7, "app.user");
    need(&mut needs, 8, "default");
    needs.tablespaces.insert("in_place".into(), String::new());
    assert_eq!(refusal_text(&needs, &server()), "");
    let without = Fake {
        facts: ServerFacts {
            has_plpgsql: false,
            ..server().facts
        },
        ..server()
    };
    assert!(refusal_text(&needs, &without).contains("plpgsql"));
    needs.icu.insert("icu".into(), "aleph".into());
    assert_eq!(refusal_text(&needs, &server()), "");
    let without = Fake {
        facts: ServerFacts {
            has_icu: false,
            ..server().facts
        },
        ..server()
    };
    assert!(refusal_text(&needs, &without).contains("built without ICU"));
}

#[test]
fn an_extension_that_must_be_loaded_first_is_looked_for_there() {
    let mut needs = DumpNeeds::default();
    let mut server = server();
    need(&mut needs, 0, "timescaledb");
    give(&mut server, 0, "timescaledb");
    assert!(refusal_text(&needs, &server).contains("shared_preload_libraries"));
    server.facts.preloaded = "pg_stat_statements, \"timescaledb\"".into();
    assert_eq!(refusal_text(&needs, &server), "");
    assert_eq!(notes(&needs, &server.facts).len(), 1);
}

#[test]
fn a_directory_must_be_fit_for_a_tablespace() {
    let mut needs = DumpNeeds::default();
    need(&mut needs, 3, "fast");
    let with = |directory: ServerDirectory| {
        let mut server = server();
        server.directories.insert("/ts/fast".into(), directory);
        server
    };
    assert_eq!(refusal_text(&needs, &with(ServerDirectory::Fit)), "");

    for (directory, what) in [
        (ServerDirectory::AnotherKind, "is not a directory"),
        (
            ServerDirectory::NotOwned,
            "is not owned by the server's user",
        ),
        (ServerDirectory::Used, "holds another server's tablespace"),
        (
            ServerDirectory::Unreadable("no".into()),
            "cannot be used: no",
        ),
    ] {
        assert!(
            refusal_text(&needs, &with(directory)).contains(what),
            "{what}"
        );
    }

    // The same server: the tablespace is dropped with its databases, unless others remain in it.
    let mut server = with(ServerDirectory::Used);
    let space = |name: &str, databases: &[&str]| Tablespace {
        name: name.into(),
        location: "/ts/fast".into(),
        databases: databases.iter().map(|&name| name.to_owned()).collect(),
    };
    server.facts.tablespaces = vec![space("fast", &["aleph"])];
    assert_eq!(refusal_text(&needs, &server), "");

    server.facts.tablespaces = vec![space("fast", &["aleph", "other"])];
    assert!(refusal_text(&needs, &server).contains("used by databases that stay (other)"));
    server.facts.tablespaces = vec![space("another", &[])];
    assert!(refusal_text(&needs, &server).contains("belongs to the tablespace 'another'"));
}

#[test]
fn a_database_that_cannot_be_dropped_is_reported() {
    let mut server = server();
    let held = |database: &str| HeldTablespace {
        database: database.into(),
        prepared: vec!["tx1".into()],
        subscriptions: vec!["sub".into()],
        slots: vec!["slot".into()],
    };
    server.facts.held = vec![held("other")];
    assert_eq!(
        refusal_text(&DumpNeeds::default(), &server),
        "",
        "it is not dropped"
    );
    server.facts.held.push(held("aleph"));
    let text = refusal_text(&DumpNeeds::default(), &server);
    for part in [
        "prepared transactions (tx1)",
        "subscriptions (sub)",
        "in use (slot)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn inactive_subscriptions_and_publications_are_noted() {
    let mut needs = DumpNeeds::default();
    needs.subscriptions.insert("sub".into(), "aleph".into());
    needs.publications.insert("pub".into(), "aleph".into());
    let facts = |level: &str| ServerFacts {
        wal_level: level.into(),
        ..ServerFacts::default()
    };
    let lines = notes(&needs, &facts("replica"));
    assert!(
        lines.len() == 2 && lines[0].contains("sub") && lines[1].contains("replica"),
        "{lines:?}"
    );
    assert_eq!(notes(&needs, &facts("logical")).len(), 1);
}

/// `pg_dumpall` without `--clean`: the server used to refuse CREATE DATABASE in the middle of a
/// restore.
#[test]
fn objects_created_but_not_dropped_must_not_exist() {
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<BTreeSet<_>>()
    };
    let held = ["aleph", "postgres"].map(|name| HeldTablespace {
        database: name.into(),
        ..HeldTablespace::default()
    });
    let tablespaces = vec![Tablespace {
        name: "fast".into(),
        ..Tablespace::default()
    }];
    let facts = ServerFacts {
        held: held.to_vec(),
        tablespaces,
        ..ServerFacts::default()
    };

    let holding = BTreeSet::from(["postgres"]);
    let mut needs = DumpNeeds {
        made: set(&["aleph", "new"]),
        filled: set(&["aleph", "postgres"]),
        ..DumpNeeds::default()
    };
    needs.tablespaces.insert("fast".into(), "/ts".into());

    let whats: Vec<String> = kept(&needs, &facts, &holding)
        .into_iter()
        .map(|lack| lack.what)
        .collect();

    let starts = [
        "the database 'aleph' exists",
        "the database 'postgres' holds tables",
        "the tablespace 'fast'",
    ];
    assert!(
        whats.len() == 3
            && whats
                .iter()
                .zip(starts)
                .all(|(what, start)| what.starts_with(start)),
        "{whats:?}"
    );

    needs.dropped = set(&["aleph", "postgres"]);
    needs.dropped_tablespaces = set(&["fast"]);
    assert_eq!(kept(&needs, &facts, &holding), []);
}
