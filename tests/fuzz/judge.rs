//! Rules for every decoder and any bytes: it does not panic, and it accepts only the one encoding
//! of a value. Used by the fuzz targets and by the ordinary test that replays their findings. Each
//! function returns true if the bytes were accepted.
#![allow(dead_code, reason = "each fuzz target uses one of these")]

use icecore::ccn::compose::read_text;
use icecore::ccn::discover::discover;
use icecore::ccn::dump::{CopyReader, DumpLexer, LineContext, RowError, WantedTable};
use icecore::ccn::template::{TemplateSettings, render};
use icecore::chunk::{FRAME_PLAIN_BYTES_MAX, open_bytes, shrink_bytes};
use icecore::format::*;
use icecore::types::{FrameCodec, PackOffset};

pub type Judge = fn(&[u8]) -> bool;

/// All targets by name.
pub const TARGETS: [(&str, Judge); 15] = [
    ("compose", compose),
    ("config", config),
    ("dump", dump),
    ("envelope", envelope),
    ("frame", frame),
    ("key_slot", key_slot),
    ("lease", lease),
    ("list_node", list_node),
    ("pack_directory", pack_directory),
    ("parity_head", parity_head),
    ("run_node", run_node),
    ("run_page", run_page),
    ("run_root", run_root),
    ("segment", segment),
    ("snapshot", snapshot),
];

/// Decodes, encodes and compares. The encodings may differ only if the bytes have fields of later
/// versions; the new one is then shorter and means the same.
fn one_encoding<T: PartialEq + std::fmt::Debug, E>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> bool {
    let before = tail_fields_skipped();
    let Ok(value) = decode(bytes) else {
        return false;
    };
    let skipped = tail_fields_skipped() > before;
    let again = encode(&value);
    if skipped {
        assert!(
            again.len() < bytes.len(),
            "fields were skipped, yet the encoding is no shorter"
        );
        assert_eq!(
            decode(&again).ok(),
            Some(value),
            "the encoding means another value"
        );
    } else {
        assert!(again == bytes, "two encodings of {value:?}");
    }
    true
}

/// For JSON, where white space and unknown fields are free: an encoded value decodes to the same
/// value.
fn stable<T: PartialEq + std::fmt::Debug, E>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> bool {
    let Ok(value) = decode(bytes) else {
        return false;
    };
    let again = encode(&value);
    let back = decode(&again).ok().expect("what was encoded decodes");
    assert_eq!(back, value);
    assert!(encode(&back) == again, "two encodings of {value:?}");
    true
}

pub fn pack_directory(bytes: &[u8]) -> bool {
    one_encoding(
        bytes,
        |bytes| decode_directory(bytes, PackOffset::new(1 << 30)),
        |frames| encode_directory(frames),
    )
}

/// The first byte is the codec, then come 3 bytes of stated plain length, then the frame.
pub fn frame(bytes: &[u8]) -> bool {
    let [codec, a, b, c, packed @ ..] = bytes else {
        return false;
    };
    let codec = if codec % 2 == 0 {
        FrameCodec::Plain
    } else {
        FrameCodec::Zstd
    };
    let stated = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
    let Ok(plain) = open_bytes(codec, packed.to_vec(), stated, FRAME_PLAIN_BYTES_MAX) else {
        return false;
    };
    assert_eq!(plain.len(), stated);
    assert!(stated <= FRAME_PLAIN_BYTES_MAX && plain.capacity() <= stated.max(packed.len()) + 64);
    let (codec, packed) = shrink_bytes(&plain).expect("compresses");
    assert!(open_bytes(codec, packed, stated, FRAME_PLAIN_BYTES_MAX).expect("opens") == plain);
    true
}

pub fn run_page(bytes: &[u8]) -> bool {
    one_encoding(bytes, decode_page, |entries| {
        assert!(
            entries.windows(2).all(|pair| pair[0].path < pair[1].path),
            "paths out of order"
        );
        let paths: usize = entries.iter().map(|entry| entry.path.key().len()).sum();
        assert!(paths <= PAGE_PATHS_MAX);
        let mut page = PageBuilder::new();
        entries.iter().for_each(|entry| page.push(entry));
        page.finish().expect("at least one entry").1
    })
}

/// The first byte is the level.
pub fn run_node(bytes: &[u8]) -> bool {
    let [level, bytes @ ..] = bytes else {
        return false;
    };
    one_encoding(bytes, |bytes| decode_node(bytes, *level), encode_node)
}

pub fn run_root(bytes: &[u8]) -> bool {
    one_encoding(bytes, decode_root, encode_root)
}

/// The first byte is the depth, then come 8 bytes of length.
pub fn list_node(bytes: &[u8]) -> bool {
    let Some(([depth, len @ ..], bytes)) = bytes.split_first_chunk::<9>() else {
        return false;
    };
    let len = u64::from_le_bytes(*len);
    one_encoding(
        bytes,
        |bytes| decode_list_node(bytes, len, *depth),
        |extents| encode_list_node(extents),
    )
}

pub fn segment(bytes: &[u8]) -> bool {
    one_encoding(bytes, decode_segment, encode_segment)
}

/// A head of recovery data. The end of the bytes is also read as the object's end.
pub fn parity_head(bytes: &[u8]) -> bool {
    if let Some(end) = bytes.len().checked_sub(PARITY_END_BYTES)
        && let Ok(len) = decode_parity_end(&bytes[end..])
    {
        assert!(len <= PARITY_HEAD_BYTES_MAX);
        assert_eq!(encode_parity_end(len), bytes[end..]);
    }
    let Ok(head) = decode_parity_head(bytes) else {
        return false;
    };
    assert_eq!(head.encoded_len(), bytes.len());
    assert_eq!(
        parity_head_len(&bytes[..PARITY_HEAD_BYTES_LEAST]),
        Ok(bytes.len())
    );
    one_encoding(bytes, decode_parity_head, encode_parity_head)
}

pub fn snapshot(bytes: &[u8]) -> bool {
    stable(bytes, decode_snapshot, encode_snapshot)
}

pub fn config(bytes: &[u8]) -> bool {
    let Ok((value, protected, mac)) = decode_config(bytes) else {
        return false;
    };
    if value.format > FORMAT_VERSION {
        return true;
    }
    assert!(bytes.starts_with(protected));
    let again = encode_config(&value, |_| mac);
    let (back, _, same_mac) = decode_config(&again).expect("what was encoded decodes");
    assert_eq!((back, same_mac), (value, mac));
    true
}

/// The first byte is the size of the pieces in which the dump is fed a second time, which must make
/// no difference.
pub fn dump(bytes: &[u8]) -> bool {
    let [step, bytes @ ..] = bytes else {
        return false;
    };
    let whole = rows(bytes, bytes.len().max(1));
    let pieces = rows(bytes, usize::from(*step).max(1));
    assert_eq!(whole, pieces);
    whole.1.is_none()
}

type Row = Vec<Option<Vec<u8>>>;

/// Returns the rows of a dump fed in pieces of this size, and the reason if it was refused.
fn rows(bytes: &[u8], step: usize) -> (Vec<Row>, Option<String>) {
    const WANTED: [WantedTable; 2] = [
        WantedTable {
            table: "files",
            columns: &["hash", "size", "type"],
        },
        WantedTable {
            table: "file_pins",
            columns: &["file_hash", "type"],
        },
    ];

    let mut lexer = DumpLexer::new();
    let mut joined = Vec::new();
    for mut part in bytes.chunks(step) {
        while let Some(piece) = lexer.next(&mut part) {
            assert!(piece.ends == piece.bytes.ends_with(b"\n") && !piece.bytes.is_empty());
            assert!(piece.place != LineContext::CopyEnd || piece.ends);
            joined.extend_from_slice(piece.bytes);
        }
    }
    assert!(joined == bytes, "the lexer lost or made bytes");

    let mut rows = Vec::new();
    let mut each = |_: usize, fields: &[Option<Vec<u8>>]| {
        rows.push(fields.to_vec());
        if fields[0].is_none() {
            Err(RowError::Bad("NULL".into()))
        } else {
            Ok(())
        }
    };

    let mut reader = CopyReader::new(&WANTED, &mut each);
    let fed = bytes
        .chunks(step)
        .try_for_each(|part| std::io::Write::write_all(&mut reader, part));
    let error = match fed {
        Ok(()) => reader.finish().err(),
        Err(_) => Some(reader.take_error().expect("a reason")),
    };
    (rows, error.map(|error| error.to_string()))
}

/// A compose file, and the node found in it: the output is TOML without a password.
pub fn compose(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let directory = std::path::Path::new("/nonexistent/node");
    let variables = [("USER", "me"), ("EMPTY", "")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let Ok(project) = read_text(text, directory, &variables) else {
        return false;
    };
    assert!(!project.name.is_empty());
    let paths = project.services.iter().flat_map(|service| &service.mounts);
    assert!(paths.clone().all(|mount| mount.target.starts_with('/')));
    assert!(project.services.iter().all(|service| {
        service
            .environment
            .get("POSTGRES_PASSWORD")
            .is_none_or(Option::is_none)
    }));
    let written = render(&discover(project, None), &TemplateSettings::default());
    assert!(!written.contains('\r') && written.ends_with('\n'));
    true
}

pub fn key_slot(bytes: &[u8]) -> bool {
    one_encoding(bytes, decode_key_slot, encode_key_slot)
}

pub fn lease(bytes: &[u8]) -> bool {
    stable(bytes, decode_lease, encode_lease)
}

/// The first byte is the expected kind, then comes a whole object. Its end is also read as a pack's
/// trailer.
pub fn envelope(bytes: &[u8]) -> bool {
    let [kind, bytes @ ..] = bytes else {
        return false;
    };
    let kinds = [
        ObjectKind::Pack,
        ObjectKind::Segment,
        ObjectKind::Snapshot,
        ObjectKind::Lease,
    ];

    let kind = kinds[usize::from(*kind) % 4];
    if let Some(end) = bytes.len().checked_sub(TRAILER_BYTES)
        && let Ok(trailer) = decode_trailer(&bytes[end..], bytes.len() as u64, 1 << 20)
    {
        assert_eq!(encode_trailer(trailer), bytes[end..]);
        assert_eq!(
            trailer.directory_offset.get() + trailer.directory_len,
            end as u64
        );
    }

    let Ok((header, len)) = decode_header(bytes, kind) else {
        return false;
    };
    assert_eq!(header.kind, kind);
    if len == HEADER_BYTES {
        assert_eq!(encode_header(&header), bytes[..len]);
    }

    if let Ok(body) = decode_body(&bytes[len..], 1 << 20) {
        assert!(body.plain_len <= 1 << 20);
        let prefix = encode_body_prefix(body.codec, body.plain_len);
        assert_eq!([prefix.as_slice(), body.sealed].concat(), bytes[len..]);
    }
    true
}
