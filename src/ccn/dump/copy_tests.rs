//! Tests of the reader: text in COPY's text format is decoded correctly, regardless of the
//! surrounding statements.

use proptest::prelude::*;

use super::*;

const TABLES: [WantedTable; 2] = [
    WantedTable {
        table: "files",
        columns: &["hash", "size"],
    },
    WantedTable {
        table: "other",
        columns: &["b", "a", "b"],
    },
];

type Rows = Vec<(usize, Vec<Option<Vec<u8>>>)>;

fn read(text: &[u8], steps: &[usize]) -> Result<Rows, DumpError> {
    let mut rows = Rows::new();
    let mut each = |table: usize, fields: &[Option<Vec<u8>>]| {
        rows.push((table, fields.to_vec()));
        Ok(())
    };
    let mut reader = CopyReader::new(&TABLES, &mut each);
    let mut rest = text;
    let mut steps = steps.iter().cycle();
    while !rest.is_empty() {
        let step = steps
            .next()
            .copied()
            .unwrap_or(usize::MAX)
            .clamp(1, rest.len());
        if reader.write_all(&rest[..step]).is_err() {
            return Err(reader.take_error().expect("why it failed"));
        }
        rest = &rest[step..];
    }
    reader.finish()?;
    Ok(rows)
}

/// Encodes a field as the server writes it, or in another form that the server reads.
fn escape(field: Option<&[u8]>, form: u8) -> Vec<u8> {
    let Some(field) = field else {
        return b"\\N".to_vec();
    };
    let mut out = Vec::new();
    for (at, &byte) in field.iter().enumerate() {
        let next_is_digit = field.get(at + 1).is_some_and(u8::is_ascii_hexdigit);
        let letter = match byte {
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x0b => b'v',
            b'\\' => b'\\',
            _ => 0,
        };
        match form {
            1 => out.extend(format!("\\{byte:03o}").bytes()),
            2 => out.extend(format!("\\x{byte:02x}").bytes()),
            3 if !next_is_digit => out.extend(format!("\\x{byte:x}").bytes()),
            4 if !next_is_digit => out.extend(format!("\\{byte:o}").bytes()),
            5 if !byte.is_ascii_alphanumeric() && letter == 0 => out.extend([b'\\', byte]),
            _ if letter != 0 => out.extend([b'\\', letter]),
            _ => out.push(byte),
        }
    }
    out
}

fn quoted(name: &str, form: u8) -> String {
    if form.is_multiple_of(2) {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}

/// Bytes, many of them special characters; never NUL, which PostgreSQL's texts cannot contain.
fn field() -> impl Strategy<Value = Option<Vec<u8>>> {
    let byte = prop_oneof![
        3 => prop::sample::select(b"\\.\n\r\t\x08\x0b\x0cNx01789abfF'\"$;-".to_vec()),
        1 => 1u8..=255,
    ];
    prop::option::weighted(0.9, prop::collection::vec(byte, 0..12))
}

/// Statements that may be between tables.
fn noise() -> impl Strategy<Value = String> {
    let copy = "COPY public.files (hash, size) FROM stdin;\nx\t1\n\\.\n";
    prop::sample::select(vec![
        String::new(),
        "--\n-- Name: files; Type: TABLE\n--\n\n".to_owned(),
        format!("CREATE FUNCTION f() RETURNS text AS $_$\n{copy}$_$ LANGUAGE sql;\n"),
        format!("COMMENT ON TABLE public.files IS 'it''s\n{copy}';\n"),
        format!("SELECT E'\\'\n{copy}';\n"),
        format!("/* {copy} */\n"),
        "\\connect other\n".to_owned(),
        "COPY public.unwanted (a) FROM stdin;\n'\n$$\n/*\nCOPY public.files (hash, size) FROM stdin;\n\\.\n"
            .to_owned(),
        "COPY private.files (hash) FROM stdin;\nx\n\\.\n".to_owned(),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn rows_come_back_in_pieces_of_any_size(
        rows in prop::collection::vec([field(), field(), field()], 0..12),
        forms in prop::collection::vec(0u8..6, 8),
        order in Just(vec![0usize, 1, 2]).prop_shuffle(),
        noises in [noise(), noise(), noise()],
        steps in prop::collection::vec(1usize..40, 1..6),
    ) {
        // The columns are in any order. One of them is not wanted.
        let names = ["hash", "size", "created"];
        let list: Vec<String> =
            order.iter().zip(&forms).map(|(&at, &form)| quoted(names[at], form)).collect();
        let mut text = noises[0].clone().into_bytes();
        text.extend(format!("COPY public.{} ({}) FROM stdin;\n", quoted("files", forms[7]), list.join(", ")).bytes());
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<Vec<u8>> = order
                .iter()
                .map(|&at| escape(row[at].as_deref(), forms[(number + at) % forms.len()]))
                .collect();
            text.extend(cells.join(&b'\t'));
            text.push(b'\n');
        }

        text.extend(b"\\.\n");
        text.extend(noises[1].bytes());
        text.extend(b"COPY public.other (a, b) FROM stdin;\n1\t2\n\\.\n");
        text.extend(noises[2].bytes());
        let mut expected: Rows =
            rows.iter().map(|row| (0, vec![row[0].clone(), row[1].clone()])).collect();
        let one = Some(b"1".to_vec());
        let two = Some(b"2".to_vec());
        expected.push((1, vec![two.clone(), one, two]));
        prop_assert_eq!(read(&text, &steps).expect("a dump"), expected);
    }
}

fn why(text: &str) -> String {
    let whole = format!("{text}COPY public.other (a, b) FROM stdin;\n1\t2\n\\.\n");
    let error = read(whole.as_bytes(), &[]).expect_err("refused");
    assert_eq!(
        read(whole.as_bytes(), &[1])
            .expect_err("refused")
            .to_string(),
        error.to_string()
    );
    error.to_string()
}

#[test]
fn an_unusable_dump_is_refused_with_the_reason() {
    assert_eq!(
        why(""),
        "it has no rows of a table public.files (COPY … FROM stdin)"
    );
    assert_eq!(
        why("COPY public.files (hash) FROM stdin;\n\\.\n"),
        "its table public.files has no column size"
    );
    assert_eq!(
        why("COPY public.files (hash, size) FROM stdin;\na\t1\nb\n\\.\n"),
        "row 2 of its table public.files: 1 columns instead of 2"
    );
    assert_eq!(
        why("COPY public.files (hash, size) FROM stdin CSV;\n\\.\n"),
        "its table public.files is not in COPY's text format"
    );

    let long = "x".repeat(ROW_BYTES_MAX);
    assert_eq!(
        why(&format!(
            "COPY public.files (hash, size) FROM stdin;\n{long}\t1\n\\.\n"
        )),
        "row 1 of its table public.files: longer than 1 MiB"
    );

    let cut = "COPY public.files (hash, size) FROM stdin;\na\t1\n";
    assert_eq!(
        read(cut.as_bytes(), &[]).expect_err("cut").to_string(),
        "it is truncated"
    );
}

/// A cluster may contain another application's table of the same name. The check of a node used to
/// stop there.
#[test]
fn tables_of_other_databases_with_other_columns_are_passed_over() {
    let others = "COPY public.files (id, name) FROM stdin;\n7\tx\n\\.\nCOPY public.files (id) FROM stdin CSV;\n7\n\\.\n";
    let own = "COPY public.files (hash, size) FROM stdin;\na\t1\n\\.\n";
    let rest = "COPY public.other (a, b) FROM stdin;\n\\.\n";
    let expected = vec![(0, vec![Some(b"a".to_vec()), Some(b"1".to_vec())])];
    for text in [
        format!("{others}{own}{rest}"),
        format!("{own}{rest}{others}"),
    ] {
        assert_eq!(read(text.as_bytes(), &[5]).expect("a dump"), expected);
    }
}

#[test]
fn long_lines_elsewhere_pass() {
    let long = "x".repeat(3 * ROW_BYTES_MAX);
    let text = format!(
        "COPY public.messages (a) FROM stdin;\n{long}\n\\.\nSELECT '{long}';\n\
         COPY files (size, hash) FROM stdin;\n1\ta\n\\.\nCOPY other (b, a) FROM stdin;\n\\.\n"
    );
    let expected = vec![(0, vec![Some(b"a".to_vec()), Some(b"1".to_vec())])];
    assert_eq!(read(text.as_bytes(), &[4096]).expect("a dump"), expected);
}

#[test]
fn odd_escapes_are_read_as_the_server_reads_them() {
    for (field, expected) in [
        (&b"a\\"[..], &b"a"[..]),
        (b"\\q\\.", b"q."),
        (b"\\xg\\x", b"xgx"),
        (b"\\x4\\x41\\x412", b"\x04AA2"),
        (b"\\1\\12\\1234\\8", b"\x01\nS48"),
        (b"\\777", b"\xff"),
        (b"\\\\N", b"\\N"),
    ] {
        let mut out = b"old".to_vec();
        unescape(field, &mut out);
        assert_eq!(out, expected, "{}", String::from_utf8_lossy(field));
    }
}
