//! Tests of the lexer with every trap that a dump can contain, fed whole and byte by byte.

use super::*;

/// Returns the place of each line: between statements, in one, in COPY data, or its end: `B`, `S`,
/// `C`, `E`.
fn places(text: &str, step: usize) -> String {
    let mut lexer = DumpLexer::new();
    let mut out = String::new();
    for mut part in text.as_bytes().chunks(step) {
        while let Some(piece) = lexer.next(&mut part) {
            if piece.ends {
                out.push(match piece.place {
                    LineContext::Between => 'B',
                    LineContext::Statement => 'S',
                    LineContext::CopyData => 'C',
                    LineContext::CopyEnd => 'E',
                });
            }
        }
    }
    out
}

#[track_caller]
fn check(text: &str, expected: &str) {
    for step in [usize::MAX, 1, 2, 3, 7] {
        assert_eq!(
            places(text, step.min(text.len().max(1))),
            expected,
            "step {step} of {text}"
        );
    }
}

#[test]
fn statements_comments_and_data_are_distinguished() {
    check(
        "--\n-- PostgreSQL database dump\n--\n\nSET a = 1;\n",
        "BBBBB",
    );
    check("CREATE TABLE a (\n    b integer\n);\nSELECT 1;\n", "BSSB");
    check(
        "COPY public.a (b) FROM stdin;\n1\n\\.\n\nSELECT 1;\n",
        "BCEBB",
    );
    check("COPY public.a (b) FROM stdin;\n\\.\n", "BE");
    check(
        "COPY a FROM stdin;\n\\N\n\\.x\n.\n\\\n\n\\.\r\nSELECT 1;\n",
        "BCCCCCEB",
    );
    check(
        "copy\npublic.a -- x\n from /* y */ StdIn;\n1;\n\\.\n",
        "BSSCE",
    );
    check("COPY a TO stdout;\nSELECT 1;\n", "BB");
    check("COPY (SELECT 1) TO stdout;\nSELECT 1;\n", "BB");
    check(
        "\\connect -reuse-previous=on \"dbname='it''s'\"\nSELECT 1;\n",
        "BB",
    );
    check("\\restrict o'x\nSELECT 1;\n\\unrestrict o'x\n", "BBB");
}

#[test]
fn text_that_looks_like_copy_begins_no_data() {
    let copy = "COPY public.files (hash) FROM stdin;\n";
    check(&format!("SELECT $$\n{copy}$$;\nSELECT 1;\n"), "BSSB");
    check(
        &format!("SELECT $_$ $$ $x$\n{copy}$x$_$;\nSELECT 1;\n"),
        "BSSB",
    );

    // The `$a$` in `$$a$` closes the quote.
    check("SELECT $a$ $$a$;\nSELECT 1;\n", "BB");
    check(&format!("SELECT 'it''s\n{copy}';\nSELECT 1;\n"), "BSSB");
    check(
        &format!("SELECT 'a\\';\nSELECT E'a\\'\n{copy}', e'''\\\\''';\nSELECT 1;\n"),
        "BBSSB",
    );
    check(&format!("SELECT \"a\"\"\n{copy}\";\nSELECT 1;\n"), "BSSB");
    check(
        &format!("/* a /* b */\n{copy}*/ SELECT 1;\nSELECT 1;\n"),
        "BSSB",
    );
    check(&format!("-- {copy}SELECT 1;\n"), "BB");
    check(&format!("SELECT 1\n{copy}SELECT 1;\n"), "BSB");
    check(
        &format!("CREATE RULE r AS ON INSERT TO a DO (SELECT 1;\n{copy});\nSELECT 1;\n"),
        "BSSB",
    );
    check(
        "SELECT 1 - 1 / 2 * 3, $1, a$b$ FROM c$$;\nSELECT 1;\n",
        "BB",
    );
    check("SELECT 1--;\n;\nSELECT '--', '/*';\n", "BSB");
}

#[test]
fn bodies_in_the_standard_s_form_are_one_statement() {
    let body = "BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 END;\n SELECT 2;\nEND;\nSELECT 1;\n";
    check(
        &format!("CREATE FUNCTION public.f() RETURNS int\n LANGUAGE sql\n {body}"),
        "BSSSSSB",
    );
    check(&format!("CREATE OR REPLACE PROCEDURE p() {body}"), "BSSSB");
    check("BEGIN;\nSELECT 1;\nEND;\n", "BBB");
}

#[test]
fn the_head_of_a_copy_is_read_with_its_quotes() {
    let mut lexer = DumpLexer::new();
    let mut header = |mut text: &[u8]| {
        lexer.next(&mut text);
        let header = lexer.copy().cloned();
        lexer.next(&mut &b"\\.\n"[..]);
        header
    };
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect::<Vec<_>>()
    };
    let expected = CopyHeader {
        schema: Some(b"My \"Schema\"".to_vec()),
        table: b"from".to_vec(),
        columns: names(&["hash", "Size", "a;b", "caf\u{e9}"]),
        has_options: false,
    };
    let text =
        "COPY \"My \"\"Schema\"\"\".\"from\" (HASH, \"Size\", \"a;b\", caf\u{e9}) FROM stdin;\n";
    assert_eq!(header(text.as_bytes()), Some(expected));

    let plain = CopyHeader {
        table: b"a".to_vec(),
        ..CopyHeader::default()
    };
    assert_eq!(header(b"COPY a FROM stdin;\n"), Some(plain.clone()));
    assert_eq!(
        header(b"COPY a FROM stdin WITH (FORMAT csv);\n"),
        Some(CopyHeader {
            has_options: true,
            ..plain
        })
    );

    for text in [
        "COPY a FROM 'file';\n",
        "COPY a (b FROM stdin;\n",
        "COPY (a) FROM stdin;\n",
        "COPY;\n",
    ] {
        assert_eq!(header(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn rest_is_between_statements() {
    for (text, at_rest) in [
        ("", true),
        ("SELECT 1;\n-- end", true),
        ("SELECT 1;", true),
        ("SELECT 1", false),
        ("/* ", false),
        ("COPY a FROM stdin;", false),
        ("COPY a FROM stdin;\n1\n", false),
        ("COPY a FROM stdin;\n1\n\\.\n", true),
    ] {
        let mut lexer = DumpLexer::new();
        let mut rest = text.as_bytes();
        while lexer.next(&mut rest).is_some() {}
        assert_eq!(lexer.is_at_rest(), at_rest, "{text:?}");
    }
}

#[test]
fn endless_lines_and_heads_take_bounded_memory() {
    let mut lexer = DumpLexer::new();
    let mut feed = |text: &[u8], times: usize| {
        for _ in 0..times {
            let mut rest = text;
            while lexer.next(&mut rest).is_some() {}
        }
        lexer.head.capacity() + lexer.word.capacity() + lexer.tag.capacity()
    };
    let spaces = vec![b'a'; 1 << 16];
    assert!(feed(&spaces, 100) < 1 << 17, "a word");
    assert!(feed(b";COPY a (", 1) < 1 << 17);
    assert!(feed(b"b, ", 1 << 20) <= 2 * HEAD_BYTES_MAX, "a head");
    assert!(
        feed(b"$", 1) + feed(&spaces, 10) < 6 * HEAD_BYTES_MAX,
        "a tag"
    );
}

#[test]
fn commands_are_counted_wherever_psql_would_run_them() {
    for (text, commands) in [
        ("\\connect x\n \t\\! id\nSELECT 1 \\gexec\n;\n", 3),
        (
            "SELECT '\\', E'\\\\', \"\\\" -- \\\n, $$\\$$ /* \\ */;\n",
            0,
        ),
        ("COPY a FROM stdin;\n\\N\n\\.\n", 0),
    ] {
        let mut lexer = DumpLexer::new();
        let mut rest = text.as_bytes();
        while lexer.next(&mut rest).is_some() {}
        assert_eq!(lexer.commands(), commands, "{text}");
    }
}
