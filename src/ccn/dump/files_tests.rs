//! Tests of the rows of `files` and `file_pins`.

use std::io::Write;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const V0: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
const V1: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
const INLINE: &str = "bafkqabtimvwgy3yk";

fn read(files: &[(&str, &str, &str)], pins: &[(&str, &str)]) -> Result<FileRows, NodeError> {
    let dir = tempfile::tempdir().expect("a directory");
    let mut text = "COPY public.file_pins (id, file_hash, created, type) FROM stdin;\n".to_owned();
    for (number, (hash, kind)) in pins.iter().enumerate() {
        text.push_str(&format!(
            "{number}\t{hash}\t2024-01-01 00:00:00+00\t{kind}\n"
        ));
    }
    text.push_str("\\.\nCOPY public.files (hash, size, type) FROM stdin;\n");
    for (hash, size, kind) in files {
        text.push_str(&format!("{hash}\t{size}\t{kind}\n"));
    }
    text.push_str("\\.\n");
    FileRows::collect(dir.path(), "db", |out| {
        // Only the reader can fail here, and it stores the reason.
        let _ = out.write_all(text.as_bytes());
        Ok(())
    })
}

fn all(mut files: FileRows) -> Vec<FileRow> {
    std::iter::from_fn(|| files.next().expect("read")).collect()
}

#[test]
fn rows_and_pins_come_together_by_hash() {
    let files = read(
        &[
            ("b", "-1", "file"),
            ("a", "5000000000", "dir"),
            ("d", "3", "link"),
            ("c", "1", "file"),
        ],
        &[
            ("b", "tx"),
            ("none", "message"),
            ("b", "message"),
            ("b", "tx"),
            ("c", "grace_period"),
            ("d", "later"),
        ],
    )
    .expect("a dump");

    assert_eq!(files.counts, RowCounts { files: 4, pins: 6 });

    let rows = all(files);
    let shown: Vec<String> = rows
        .iter()
        .map(|row| {
            let hash = String::from_utf8_lossy(&row.hash);
            format!(
                "{hash} {} {:?} {} {}",
                row.size,
                row.kind,
                row.pins,
                row.pins.must_be_there()
            )
        })
        .collect();

    assert_eq!(
        shown,
        [
            "a 5000000000 Directory - false",
            "b -1 File message,tx true",
            "c 1 File grace_period false",
            "d 3 Other other true",
        ]
    );

    assert_eq!(
        rows.iter().map(FileRow::stored_size).collect::<Vec<_>>(),
        [None, None, Some(1), None]
    );
}

#[test]
fn a_dump_without_the_tables_is_refused() {
    let err = FileRows::collect(Path::new("/"), "db", |_| Ok(()))
        .err()
        .expect("refused");
    assert!(
        full_message(&err).starts_with("the dump 'db' cannot be read: it has no rows"),
        "{err}"
    );
    for (row, why) in [
        (("\\N", "1", "file"), "its hash is NULL"),
        (("a", "x1", "file"), "its size is 'x1'"),
        (("a", "1", "\\N"), "its type is NULL"),
    ] {
        let err = read(&[row], &[]).err().expect("refused");
        assert!(
            full_message(&err).ends_with(&format!("row 1 of its table public.files: {why}")),
            "{err}"
        );
    }
    let full = FileRows::collect(Path::new("/"), "db", |_| Err(Error::Interrupted))
        .err()
        .expect("fails");
    assert!(
        matches!(full, NodeError::Engine(Error::Interrupted)),
        "{full}"
    );
}

fn full_message(err: &NodeError) -> String {
    let source = std::error::Error::source(err).map(ToString::to_string);
    format!("{err}: {}", source.unwrap_or_default())
}

#[test]
fn where_a_file_lies_follows_from_its_name_size_type_and_pins() {
    let mib = 1 << 20;
    let none = PinRows::default();
    let content = none.with(PinKind::Content);
    let tx = none.with(PinKind::Tx);

    for (hash, size, kind, pins, home, locally) in [
        (HEX, 5 * mib, FileType::File, content, FileHome::Local, true),
        (HEX, 5, FileType::File, tx, FileHome::Local, true),
        (HEX, 5, FileType::File, none, FileHome::Local, false),
        (V0, mib, FileType::File, content, FileHome::Local, true),
        (V1, -1, FileType::File, content, FileHome::Local, true),
        (
            V1,
            mib + 1,
            FileType::File,
            none.with(PinKind::Message),
            FileHome::Ipfs,
            false,
        ),
        (V1, mib + 1, FileType::File, content, FileHome::Ipfs, true),
        (
            V0,
            3,
            FileType::Directory,
            none.with(PinKind::Message),
            FileHome::Ipfs,
            false,
        ),
        (V0, 3, FileType::Directory, tx, FileHome::Ipfs, false),
        (V0, 3, FileType::File, tx, FileHome::Both, true),
        (V0, 3 * mib, FileType::File, tx, FileHome::Both, true),
        (
            INLINE,
            3 * mib,
            FileType::File,
            none.with(PinKind::GracePeriod),
            FileHome::Local,
            false,
        ),
    ] {
        let row = FileRow {
            hash: hash.into(),
            size,
            kind,
            pins,
        };

        assert_eq!(
            (
                row.home(FlatfsSharding::default()).0,
                row.is_wanted_locally()
            ),
            (home, locally),
            "{row:?}"
        );
        assert_eq!(
            row.home(FlatfsSharding::default()).1.is_some(),
            hash.len() != 64 && hash != INLINE
        );
    }
}
