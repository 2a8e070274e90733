//! Tests of the filter: it replaces the right statements, and changes nothing else.

use proptest::prelude::*;

use super::*;

/// Filters a text fed in steps of these sizes.
fn filter(text: &[u8], role: &str, knows_restrict: bool, steps: &[usize]) -> io::Result<Vec<u8>> {
    feed(
        text,
        FilterRules {
            role: role.to_owned(),
            ..rules(knows_restrict)
        },
        steps,
    )
}

fn rules(knows_restrict: bool) -> FilterRules {
    FilterRules {
        role: "aleph".to_owned(),
        knows_restrict,
        knows_transaction_timeout: true,
        neutral: None,
        last_word: None,
    }
}

fn feed(text: &[u8], rules: FilterRules, steps: &[usize]) -> io::Result<Vec<u8>> {
    let mut out = RestoreFilter::new(Vec::new(), rules);
    let mut rest = text;
    let mut steps = steps.iter().cycle();
    while !rest.is_empty() {
        let step = steps
            .next()
            .copied()
            .unwrap_or(usize::MAX)
            .clamp(1, rest.len());
        out.write_all(&rest[..step])?;
        rest = &rest[step..];
    }
    out.finish()
        .map(|out| out.strip_prefix(PREFIX).map(<[u8]>::to_vec).unwrap_or(out))
}

#[track_caller]
fn becomes(text: &str, knows_restrict: bool, expected: &str) {
    for steps in [&[usize::MAX][..], &[1], &[3, 7]] {
        let out = filter(text.as_bytes(), "aleph", knows_restrict, steps).expect("filtered");
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}

/// Returns the statements that drop a database. `literal` is its name inside a literal, `name` as
/// spelled in a statement.
fn dropped(literal: &str, name: &str) -> String {
    let update = "UPDATE pg_catalog.pg_database SET datistemplate = false WHERE datistemplate AND datname = ";
    format!("{update}'{literal}';\nDROP DATABASE IF EXISTS {name};\n")
}

const COPY: &str = "COPY public.t (a) FROM stdin;\n\\restrict k\n\\unrestrict k\nDROP ROLE aleph;\nDROP DATABASE x;\n\\connect x\n\\.\n";

#[test]
fn globals_are_made_to_run() {
    let text = "-- head\n\nDROP DATABASE aleph;\nDROP DATABASE \"Odd; 'it\"\"db\";\nDROP TABLESPACE fast;\nDROP ROLE aleph;\nDROP ROLE reader;\nCREATE ROLE aleph;\nALTER ROLE aleph WITH NOSUPERUSER LOGIN PASSWORD 'x;y';\nCREATE ROLE reader;\nALTER ROLE reader WITH LOGIN;\nALTER ROLE aleph SET work_mem TO '1MB';\nGRANT reader TO aleph GRANTED BY aleph;\n";
    let databases = dropped("aleph", "aleph") + &dropped("Odd; ''it\"db", "\"Odd; 'it\"\"db\"");
    let expected = "DROP TABLESPACE IF EXISTS fast;\nALTER ROLE aleph RESET ALL;\nDO $restore$BEGIN DROP ROLE IF EXISTS reader; EXCEPTION WHEN dependent_objects_still_exist THEN ALTER ROLE reader RESET ALL; END$restore$;\n-- The role that connects exists already.\n-- The attributes of the connected role are set at the end.\nDO $restore$BEGIN CREATE ROLE reader; EXCEPTION WHEN duplicate_object THEN NULL; END$restore$;\nALTER ROLE reader WITH LOGIN;\nALTER ROLE aleph SET work_mem TO '1MB';\nGRANT reader TO aleph GRANTED BY aleph;\n\nALTER ROLE aleph WITH NOSUPERUSER LOGIN PASSWORD 'x;y';\n";
    becomes(text, true, &format!("-- head\n\n{databases}{expected}"));
}

#[test]
fn after_the_first_connection_only_database_drops_change() {
    let text =
        "\\connect template1\nDROP ROLE reader;\nCREATE ROLE aleph;\nDROP DATABASE postgres;\n";
    becomes(
        text,
        true,
        &text.replace(
            "DROP DATABASE postgres;\n",
            &dropped("postgres", "postgres"),
        ),
    );
}

#[test]
fn text_that_looks_like_a_statement_passes() {
    for text in [
        COPY.to_owned(),
        format!("COMMENT ON TABLE t IS 'it''s\n{}';\n", COPY.replace("\\.\n", "")),
        "CREATE FUNCTION f() RETURNS void AS $$\nDROP ROLE aleph;\n\\restrict k\n$$ LANGUAGE sql;\n"
            .to_owned(),
        "/*\nDROP DATABASE x;\n*/\n-- DROP DATABASE x;\n".to_owned(),
        "DROP DATABASE x\n;\nDROP DATABASE a; DROP DATABASE b;\n".to_owned(),
        "SELECT 1\nDROP DATABASE x;\n DROP DATABASE x;\n".to_owned(),
        "ALTER ROLE alephs WITH LOGIN;\nALTER ROLE \"Aleph\" WITH LOGIN;\n".to_owned(),
    ] {
        becomes(&text, true, &text);
        becomes(&text, false, &text);
    }
}

/// `pg_dumpall --clean --if-exists` used to stop half-way, because the connected role cannot be
/// dropped.
#[test]
fn drop_if_exists_is_treated_like_drop() {
    for (with, without) in [
        ("DROP ROLE IF EXISTS aleph;\n", "DROP ROLE aleph;\n"),
        ("DROP ROLE IF EXISTS x;\n", "DROP ROLE x;\n"),
        ("DROP DATABASE IF EXISTS x;\n", "DROP DATABASE x;\n"),
        ("DROP TABLESPACE IF EXISTS x;\n", "DROP TABLESPACE x;\n"),
    ] {
        let filtered = |text: &str| filter(text.as_bytes(), "aleph", true, &[3]).expect("filtered");
        assert_eq!(filtered(with), filtered(without), "{with}");
        assert_ne!(filtered(without), without.as_bytes());
    }
}

/// Its query may need a search path, which dumps set to an empty one, or another server.
#[test]
fn a_view_that_cannot_be_refreshed_ends_no_restore() {
    becomes(
        "REFRESH MATERIALIZED VIEW app.\"it's\";\n",
        true,
        "DO $restore$BEGIN REFRESH MATERIALIZED VIEW app.\"it's\"; EXCEPTION WHEN others THEN RAISE WARNING 'icecore: not refreshed: % in %: %', 'app.\"it''s\"', current_database(), SQLERRM; END$restore$;\n",
    );
    let two = "REFRESH MATERIALIZED VIEW app.\"two\nlines\";\n";
    becomes(two, true, two);
}

#[test]
fn the_pair_goes_where_psql_does_not_know_it() {
    let text = format!(
        "\\restrict k\nSELECT 1;\n{COPY}\\unrestrict k\n\\connect x\n\\restrict l\n\\unrestrict l\n"
    );
    becomes(&text, true, &text);
    becomes(
        &text,
        false,
        &format!("--\nSELECT 1;\n{COPY}--\n\\connect x\n--\n--\n"),
    );
    for bad in [
        "\\restrict k\n\\restrict k\n\\unrestrict k\n",
        "\\restrict k\n \\! id\n\\unrestrict k\n",
        "\\restrict k\nSELECT 1 \\! id\n;\n\\unrestrict k\n",
        "\\restrict k\n\\unrestrict j\n\\unrestrict k\n",
        "\\restrict k\n\\connect x\n\\unrestrict k\n",
        "\\restrict k\nSELECT 1;\n",
        "SELECT 'a\n",
    ] {
        assert!(
            filter(bad.as_bytes(), "aleph", false, &[usize::MAX]).is_err(),
            "{bad}"
        );
    }
}

/// A dump of a hostile server may contain commands of psql that run programs on this machine.
/// Programs older than `\restrict` wrote dumps without it, and a server that sees the key can end
/// the restricted section.
#[test]
fn no_command_of_psql_passes_but_a_dump_s_own() {
    for knows_restrict in [true, false] {
        for bad in [
            "\\! id\n",
            "SELECT 1;\n\\copy t to program 'id'\n",
            " \\! id\n",
            "SELECT 1 \\! id\n;\n",
            "SELECT 1 \\g |id\n",
            "SELECT 1; \\! id\n",
            "\\restrict k\n\\unrestrict k\n\\! id\n",
            "\\restrict k\n\\! id\n\\unrestrict k\n",
            "\\restrict k\n \\! id\n\\unrestrict k\n",
            "\\restrict k\nSELECT 1 \\! id\n;\n\\unrestrict k\n",
            "\\connect a `id`\n",
            "CREATE FUNCTION f() RETURNS int AS $$x$$ LANGUAGE sql; \\! id\n",
            "COPY t (a) FROM stdin;\n\\.\n\\! id\n",
        ] {
            for steps in [&[usize::MAX][..], &[1], &[9, 2]] {
                let err = filter(bad.as_bytes(), "aleph", knows_restrict, steps).expect_err(bad);
                assert_eq!(err.kind(), io::ErrorKind::InvalidData, "{bad}");
            }
        }
    }
}

#[test]
fn an_older_server_gets_no_setting_that_it_does_not_know() {
    let text = "SET statement_timeout = 0;\nSET transaction_timeout = 0;\nSELECT '\nSET transaction_timeout = 0;\n';\n";
    becomes(text, true, text);
    let old = FilterRules {
        knows_transaction_timeout: false,
        ..rules(true)
    };
    for steps in [&[usize::MAX][..], &[1], &[3, 7]] {
        let out = feed(text.as_bytes(), old.clone(), steps).expect("filtered");
        let out = String::from_utf8(out).expect("text");
        assert_eq!(out, text.replacen("SET transaction_timeout = 0;", "--", 1));
    }
}

/// If its input ends too early, `psql` runs the part that it got and exits with 0.
#[test]
fn the_last_word_comes_after_everything() {
    let with_word = FilterRules {
        last_word: Some("w0rd".to_owned()),
        ..rules(true)
    };
    let text = "ALTER ROLE aleph WITH LOGIN;\nSELECT 1;\n";
    let out = String::from_utf8(
        feed(text.as_bytes(), with_word.clone(), &[usize::MAX]).expect("filtered"),
    );
    assert!(
        out.expect("text")
            .ends_with("\nALTER ROLE aleph WITH LOGIN;\n\n\\warn w0rd\n")
    );
    assert!(feed(b"SELECT 'cut", with_word, &[usize::MAX]).is_err());
}

#[test]
fn lines_of_any_length_take_bounded_memory() {
    let mut out = RestoreFilter::new(io::sink(), rules(true));
    out.write_all(b"COPY t (a) FROM stdin;\nD").expect("taken");
    let step = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        out.write_all(&step).expect("taken");
    }
    out.write_all(b"\n\\.\nDROP ROLE ").expect("taken");
    for _ in 0..64 {
        out.write_all(&step).expect("taken");
        assert!(
            out.held
                .as_ref()
                .is_none_or(|held| held.len() <= LINE_BYTES_MAX)
        );
    }
    out.write_all(b";\n").expect("taken");
    out.finish().expect("at rest");
}

#[test]
fn names_are_read_as_the_server_does() {
    let plain = |text: &str| SqlName::parse(text.as_bytes()).map(|name| name.plain());
    assert_eq!(plain("aleph").as_deref(), Some(&b"aleph"[..]));
    assert_eq!(plain("ALEPH").as_deref(), Some(&b"aleph"[..]));
    assert_eq!(plain("\"A\"\"b; c\"").as_deref(), Some(&b"A\"b; c"[..]));
    for bad in ["", "\"open", "a b", "a;", "\"a\"b", "a.b"] {
        assert_eq!(plain(bad), None, "{bad}");
    }
}

/// Lines that would be replaced if they were between statements.
fn bait() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "DROP ROLE aleph;",
        "DROP ROLE r;",
        "CREATE ROLE aleph;",
        "ALTER ROLE aleph WITH LOGIN;",
        "DROP DATABASE d;",
        "DROP TABLESPACE t;",
        "\\restrict k",
        "\\unrestrict k",
        "\\connect d",
        "\\!",
        "plain",
        "",
        "-- x",
        "$$",
        "a\\\\.b\t\\N",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn rows_literals_and_bodies_are_never_touched(
        blocks in prop::collection::vec((0u8..4, prop::collection::vec(bait(), 0..8)), 0..6),
        knows in any::<bool>(),
        steps in prop::collection::vec(1usize..60, 1..6),
    ) {
        let mut text = String::from("\\restrict k\n");
        for (kind, lines) in &blocks {
            let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
            match kind {
                0 => text += &format!("COPY t (a, b) FROM stdin;\n{body}\\.\n\n"),
                1 => text += &format!("COMMENT ON TABLE t IS '{}';\n", body.replace('\'', "''")),
                2 => text += &format!("CREATE FUNCTION f() RETURNS int AS $_$\n{body}$_$ LANGUAGE sql;\n"),
                _ => text += &format!("/* {body} */\nCREATE VIEW \"{}\" AS SELECT 1;\n", body.replace('"', "\"\"")),
            }
        }
        let end = "\\unrestrict k\n";
        let all = format!("{text}{end}");
        let out = filter(all.as_bytes(), "aleph", knows, &steps).expect("filtered");
        let expected = if knows { all.clone() } else {
            format!("--\n{}--\n", text.strip_prefix("\\restrict k\n").expect("it begins so"))
        };
        prop_assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}

/// A database's part sets its encoding while `psql` is still connected to the previous database.
#[test]
fn psql_goes_to_a_neutral_database_before_each_part_where_one_is_named() {
    let part = "--\n-- PostgreSQL database dump\n--\n\n\\restrict k\nSET client_encoding = 'LATIN1';\nCREATE DATABASE d;\n\\unrestrict k\n\\connect d\n\\restrict k\nCOPY t (a) FROM stdin;\n-- PostgreSQL database dump\n\\.\nCOMMENT ON TABLE t IS '\n-- PostgreSQL database dump\n';\n-- PostgreSQL database dump complete\n\\unrestrict k\n";
    let text = format!("-- PostgreSQL database cluster dump\n{part}{part}");
    becomes(&text, true, &text);
    let rules = FilterRules {
        neutral: Some("icecore_restore".to_owned()),
        ..rules(true)
    };
    for steps in [&[usize::MAX][..], &[1], &[3, 7]] {
        let out = feed(text.as_bytes(), rules.clone(), steps).expect("filtered");
        let with = part.replacen(
            "-- PostgreSQL database dump\n",
            "\\connect icecore_restore\n-- PostgreSQL database dump\n",
            1,
        );
        let expected = format!("-- PostgreSQL database cluster dump\n{with}{with}");
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}

/// A trigger that refuses DDL exists when the materialized views are refreshed.
#[test]
fn event_triggers_do_not_fire_while_the_rest_is_restored() {
    let text = "SELECT 1;\nCREATE EVENT TRIGGER no_ddl ON ddl_command_start\n   EXECUTE FUNCTION public.refuse();\n\nREFRESH MATERIALIZED VIEW public.m;\nSELECT '\nCREATE EVENT TRIGGER x';\n";
    let mut filter = RestoreFilter::new(Vec::new(), rules(true));
    filter.write_all(text.as_bytes()).expect("written");
    let out = String::from_utf8(filter.finish().expect("whole")).expect("text");
    let set = "SET session_replication_role = replica;\n";
    assert!(
        out.contains(&format!("{set}CREATE EVENT TRIGGER no_ddl")),
        "{out}"
    );
    assert_eq!(out.matches(set).count(), 1, "{out}");
}
