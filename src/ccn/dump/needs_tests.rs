//! Tests of the requirements: each form is found, and nothing that only looks like one.

use proptest::prelude::*;

use super::*;

fn collect(text: &str, step: usize) -> DumpNeeds {
    let mut reader = NeedsReader::new();
    for part in text.as_bytes().chunks(step.max(1)) {
        reader.write_all(part).expect("taken");
    }
    reader.into_needs()
}

fn names(named: &NamedNeed) -> Vec<(&str, &str)> {
    named
        .iter()
        .map(|(name, database)| (name.as_str(), database.as_str()))
        .collect()
}

/// A dump in the form that pg_dumpall writes, without statements that do not matter here.
const DUMP: &str = r#"--
-- PostgreSQL database cluster dump
--
\restrict k
SET default_transaction_read_only = off;
SET client_encoding = 'UTF8';
DROP DATABASE aleph;
CREATE ROLE "R 2";
CREATE ROLE r1;
ALTER ROLE r1 WITH NOSUPERUSER LOGIN PASSWORD 'CREATE EXTENSION no;';
ALTER ROLE r1 SET "TimeZone" TO 'UTC';
GRANT pg_monitor TO r1 GRANTED BY boss;
GRANT r1 TO "R 2" WITH ADMIN OPTION GRANTED BY r1;
CREATE TABLESPACE fast OWNER r1 LOCATION '/srv/a''b';
\unrestrict k
--
-- PostgreSQL database dump
--
\restrict l
SET client_encoding = 'EUC_JP';
CREATE DATABASE aleph WITH TEMPLATE = template0 ENCODING = 'EUC_JP' LOCALE_PROVIDER = libc LOCALE = 'ja_JP.eucJP' TABLESPACE = fast;
ALTER DATABASE aleph OWNER TO r1;
\unrestrict l
\connect aleph
\restrict l
SET client_encoding = 'LATIN1';
ALTER DATABASE aleph SET old_snapshot_threshold TO '1min';
ALTER DATABASE aleph SET session_preload_libraries TO 'auto_explain', '"My lib"';
ALTER ROLE r1 IN DATABASE aleph SET local_preload_libraries TO 'x';
ALTER ROLE r1 IN DATABASE aleph SET "app.user" TO 'y';
CREATE SCHEMA sch;
ALTER SCHEMA sch OWNER TO "R 2";
CREATE OR REPLACE PROCEDURAL LANGUAGE plx;
CREATE TRUSTED LANGUAGE ply HANDLER public.handler;
CREATE EXTENSION IF NOT EXISTS postgis WITH SCHEMA public;
CREATE EXTENSION IF NOT EXISTS "uuid-ossp" WITH SCHEMA public;
CREATE COLLATION public.cc (provider = libc, locale = 'de_DE.utf8');
CREATE COLLATION public.old (lc_collate = 'fr_FR', lc_ctype = 'C');
CREATE COLLATION public.nd (provider = icu, deterministic = false, locale = 'und');
CREATE FUNCTION public.f(a text DEFAULT 'x AS ''no'', 1'::text) RETURNS real
    LANGUAGE c STRICT
    SET work_mem TO '4MB'
    AS '$libdir/fuzzy', 'symbol';
CREATE FUNCTION public.g() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
CREATE EXTENSION no;
ALTER TABLE no OWNER TO nobody;
$_$;
CREATE TEXT SEARCH DICTIONARY public.d (
    TEMPLATE = pg_catalog.ispell,
    dictfile = 'german', afffile = 'deutsch', stopwords = 'kurz' );
CREATE TEXT SEARCH DICTIONARY public.e (
    TEMPLATE = pg_catalog.thesaurus,
    dictfile = 'words', dictionary = 'x' );
CREATE TABLE public.t (a text, "to" text);
ALTER TABLE ONLY public.t ALTER COLUMN a SET COMPRESSION lz4;
ALTER TABLE public.t OWNER TO owner;
COPY public.t (a) FROM stdin;
CREATE EXTENSION no;
\connect no
ALTER TABLE t OWNER TO nobody;
\.
COMMENT ON TABLE public.t IS 'it''s
CREATE EXTENSION no;
';
CREATE POLICY p ON public.t TO watcher USING ((a)::interval year to month IS NULL);
CREATE USER MAPPING FOR mapped SERVER s;
CREATE PUBLICATION pub FOR ALL TABLES;
CREATE SUBSCRIPTION sub CONNECTION 'host=x' PUBLICATION pub WITH (connect = false);
GRANT SELECT ON TABLE public.t TO PUBLIC;
GRANT ALL ON FUNCTION public.f(a text) TO reader WITH GRANT OPTION;
REVOKE ALL ON SCHEMA public FROM former;
ALTER DEFAULT PRIVILEGES FOR ROLE defaulting IN SCHEMA sch GRANT SELECT ON TABLES TO "R 2";
SET SESSION AUTHORIZATION 'acting';
SET SESSION AUTHORIZATION DEFAULT;
"#;

#[test]
fn each_need_is_found_with_its_database() {
    for step in [1, 7, 4096, usize::MAX] {
        let needs = collect(DUMP, step.min(DUMP.len()));
        let aleph =
            |list: &[&'static str]| list.iter().map(|&name| (name, "aleph")).collect::<Vec<_>>();

        assert_eq!(
            names(&needs.extensions),
            aleph(&["plx", "postgis", "uuid-ossp"])
        );
        assert_eq!(
            names(&needs.locales),
            aleph(&["C", "de_DE.utf8", "fr_FR", "ja_JP.eucJP"])
        );
        assert_eq!(names(&needs.icu), aleph(&["icu"]));
        assert_eq!(names(&needs.encodings), aleph(&["EUC_JP"]));

        assert_eq!(
            needs.tablespaces.get("fast").map(String::as_str),
            Some("/srv/a'b")
        );
        assert_eq!(names(&needs.libraries), aleph(&["$libdir/fuzzy"]));
        assert_eq!(
            names(&needs.preloads),
            aleph(&["$libdir/plugins/x", "My lib", "auto_explain"])
        );
        assert_eq!(
            names(&needs.dictionaries),
            aleph(&["deutsch.affix", "german.dict", "kurz.stop", "words.ths"])
        );

        let settings: Vec<&str> = needs.settings.keys().map(String::as_str).collect();
        let own = [
            "app.user",
            "local_preload_libraries",
            "old_snapshot_threshold",
            "session_preload_libraries",
        ];
        assert_eq!(settings, [&own[..], &["timezone", "work_mem"]].concat());

        assert_eq!(names(&needs.compressions), aleph(&["lz4"]));

        let roles: Vec<&str> = needs.roles.keys().map(String::as_str).collect();
        let named = [
            "acting",
            "boss",
            "defaulting",
            "former",
            "mapped",
            "owner",
            "pg_monitor",
            "reader",
            "watcher",
        ];
        assert_eq!(roles, named);

        assert_eq!(
            (names(&needs.subscriptions), names(&needs.publications)),
            (aleph(&["sub"]), aleph(&["pub"]))
        );

        let section = DumpSection {
            database: "aleph".into(),
            encoding: "EUC_JP".into(),
            client_encoding: "EUC_JP".into(),
            connects: true,
        };
        assert_eq!(
            (needs.globals_encoding.as_str(), needs.sections),
            ("UTF8", vec![section])
        );
    }
}

#[test]
fn a_statement_of_any_length_takes_bounded_memory() {
    let mut reader = NeedsReader::new();
    reader
        .write_all(
            b"CREATE EXTENSION a;\nCREATE FUNCTION f() RETURNS int LANGUAGE c AS '$libdir/x', '",
        )
        .expect("taken");
    let step = vec![b'\n'; 1 << 16];
    for _ in 0..200 {
        reader.write_all(&step).expect("taken");
        assert!(reader.statement.capacity() <= 4 * STATEMENT_BYTES_MAX);
    }
    reader
        .write_all(b"';\nCREATE EXTENSION b;\n")
        .expect("taken");
    assert_eq!(
        names(&reader.into_needs().extensions),
        [("a", ""), ("b", "")]
    );
}

/// Texts that would be requirements if they were statements.
fn bait() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "CREATE EXTENSION bait;",
        "CREATE EXTENSION IF NOT EXISTS bait WITH SCHEMA public;",
        "CREATE DATABASE bait ENCODING = 'BAIT' LOCALE = 'bait';",
        "CREATE COLLATION bait (provider = icu, locale = 'bait');",
        "CREATE TABLESPACE bait LOCATION '/bait';",
        "CREATE FUNCTION bait() RETURNS int LANGUAGE c AS '$libdir/bait', 'x';",
        "ALTER DATABASE bait SET bait TO 'x';",
        "ALTER ROLE bait SET session_preload_libraries TO 'bait';",
        "ALTER TABLE bait OWNER TO bait;",
        "ALTER TABLE ONLY bait ALTER COLUMN a SET COMPRESSION bait;",
        "GRANT SELECT ON bait TO bait;",
        "CREATE SUBSCRIPTION bait CONNECTION 'x' PUBLICATION y;",
        "CREATE TEXT SEARCH DICTIONARY bait (TEMPLATE = ispell, dictfile = 'bait');",
        "-- PostgreSQL database dump",
        "\\connect bait",
        "'",
        "''",
        "\"",
        "$$",
        "$_$",
        "/*",
        "*/",
        "--",
        "(",
        ")",
        ";",
        "E'\\''",
        "plain",
        "",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn text_inside_of_rows_literals_bodies_and_comments_is_no_need(
        blocks in prop::collection::vec((0u8..7, prop::collection::vec(bait(), 0..8)), 0..8),
        step in 1usize..200,
    ) {
        let mut text = String::new();
        let mut wanted = Vec::new();
        for (number, (kind, lines)) in blocks.iter().enumerate() {
            let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let literal = body.replace('\'', "''");
            match kind {
                0 => text += &format!("COPY t (a) FROM stdin;\n{}\\.\n", body.replace("\\.", "")),
                1 => text += &format!("COMMENT ON TABLE t IS '{literal}';\n"),
                2 => text += &format!("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $x$\n{body}$x$;\n"),
                3 => text += &format!("CREATE VIEW \"{}\" AS SELECT 1;\n", body.replace('"', "\"\"")),
                4 => text += &format!("/* {} */\n", body.replace("/*", "").replace("*/", "")),
                5 => text += &format!("-- {}\nSELECT E'{}';\n", body.replace('\n', " "), literal.replace('\\', "\\\\")),
                // A requirement between them is still found.
                _ => {
                    text += &format!("CREATE EXTENSION /* {} */ e{number};\n", body.replace("/*", "").replace("*/", ""));
                    wanted.push(format!("e{number}"));
                }
            }
        }

        let needs = collect(&text, step);
        let found: Vec<String> = needs.extensions.keys().cloned().collect();
        wanted.sort();
        prop_assert_eq!(found, wanted);

        let rest = DumpNeeds { extensions: NamedNeed::new(), misshapen: None, ..needs };
        prop_assert_eq!(rest, DumpNeeds::default());
    }
}
