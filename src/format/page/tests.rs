//! Pages round-trip, have one encoding, and damaged, unordered or oversized pages are refused.

use super::*;
use crate::types::{Content, Extent, PlainLen};

fn path(text: &str) -> RelPath {
    RelPath::from_slashed(text.as_bytes()).expect("a good path")
}

fn meta(inode: u64) -> Metadata {
    Metadata {
        mode: 0o644,
        owner: Owner {
            uid: 1000,
            gid: 1000,
            user: b"aleph".to_vec(),
            group: b"aleph".to_vec(),
        },
        mtime: Timestamp::new(1_700_000_000, 123_456_789).expect("legal"),
        ctime: Timestamp::new(1_700_000_001, 5).expect("legal"),
        inode,
        device: 0,
        nlink: 1,
        xattrs: vec![],
    }
}

fn file(at: &str, inode: u64) -> Entry {
    let extents = vec![Extent::Chunk {
        id: ChunkId::new([inode as u8; 32]),
        len: PlainLen::new(400),
    }];
    let node = Node::File {
        meta: meta(inode),
        content: Content { size: 400, extents },
    };
    Entry {
        path: path(at),
        flags: EntryFlags::empty(),
        node,
    }
}

fn every_kind() -> Vec<Entry> {
    let hash = "ab".repeat(32);
    let mut odd = meta(9);
    odd.nlink = 3;
    odd.device = 77;
    odd.mtime = Timestamp::new(-5, 999_999_999).expect("legal");
    odd.xattrs = vec![
        ExtendedAttribute {
            name: b"user.a".to_vec(),
            value: XattrValue::Inline(vec![0, 255]),
        },
        ExtendedAttribute {
            name: b"user.b".to_vec(),
            value: XattrValue::Chunk {
                id: ChunkId::new([3; 32]),
                len: PlainLen::new(9000),
            },
        },
    ];

    let device = DeviceNumber { major: 8, minor: 1 };
    let nodes = vec![
        ("", Node::Directory { meta: meta(1) }),
        (
            "a",
            Node::Symlink {
                meta: meta(2),
                target: b"../x".to_vec(),
            },
        ),
        ("b", Node::Fifo { meta: meta(3) }),
        ("c", Node::Socket { meta: meta(4) }),
        (
            "d",
            Node::Char {
                meta: meta(5),
                device,
            },
        ),
        (
            "e",
            Node::Block {
                meta: meta(6),
                device,
            },
        ),
        (
            "f",
            Node::Failed {
                reason: "cannot open: denied".into(),
            },
        ),
        ("g", Node::Removed),
        (
            "h",
            Node::Unknown {
                kind: 200,
                body: vec![1, 2, 3],
            },
        ),
        (
            "i",
            Node::File {
                meta: odd,
                content: Content::default(),
            },
        ),
    ];

    let mut out: Vec<Entry> = nodes
        .into_iter()
        .map(|(at, node)| Entry {
            path: path(at),
            flags: EntryFlags::COVER,
            node,
        })
        .collect();

    out.push(file(&format!("x/{hash}"), 10));
    out.push(file(&format!("y/CIQ{}.data", "A7".repeat(26)), 11));
    out.push(file("z/0123456789abcde", 12));
    out
}

fn page_of(entries: &[Entry]) -> Vec<u8> {
    let mut builder = PageBuilder::new();
    entries.iter().for_each(|entry| builder.push(entry));
    builder.finish().expect("not empty").1
}

#[test]
fn every_kind_round_trips() {
    let entries = every_kind();
    let bytes = page_of(&entries);
    let decoded = decode_page(&bytes).expect("decodes");
    assert_eq!(decoded, entries);
    assert_eq!(page_of(&decoded), bytes, "one value, one encoding");
}

#[test]
fn cut_or_changed_pages_never_pass_for_the_same() {
    let entries = every_kind();
    let bytes = page_of(&entries);
    for end in 0..bytes.len() {
        assert_ne!(
            decode_page(&bytes[..end]),
            Ok(entries.clone()),
            "cut at {end}"
        );
    }
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x11;
        assert_ne!(decode_page(&bad), Ok(entries.clone()), "byte {at}");
    }
}

#[test]
fn a_new_hash_named_file_costs_little() {
    let entries: Vec<Entry> = (0..300u64)
        .map(|i| {
            let hash = blake3::hash(&i.to_le_bytes()).to_hex();
            file(&format!("blocks/{hash}"), i + 1_000_000)
        })
        .collect();
    let mut sorted = entries;
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let bytes = page_of(&sorted);
    assert!(
        bytes.len() / sorted.len() <= 100,
        "{} bytes an entry",
        bytes.len() / sorted.len()
    );
}

#[test]
fn paths_out_of_order_are_refused() {
    let mut out = vec![0];
    let mut scratch = Vec::new();
    for name in ["b", "a"] {
        put_record(&mut out, &mut scratch, |out| {
            put_path(out, b"", name.as_bytes());
            out.extend_from_slice(&[EntryKind::Removed as u8, 0]);
        });
    }
    assert!(decode_page(&out).is_err());
}

/// Returns a page of removals. Each path is given in its stored form: shared prefix, head, bytes.
fn page_of_paths(owners: &[u8], paths: &[(u64, u64, &[u8])]) -> Vec<u8> {
    let mut out = owners.to_vec();
    for (shared, head, bytes) in paths {
        put_record(&mut out, &mut Vec::new(), |out| {
            put_number(out, *shared);
            put_number(out, *head);
            out.extend_from_slice(bytes);
            out.extend_from_slice(&[EntryKind::Removed as u8, 0]);
        });
    }
    out
}

/// Each of these pages used to decode to a value with another encoding, so that one page had two
/// names.
#[test]
fn there_is_one_encoding_of_a_page() {
    let what = |bytes: &[u8]| decode_page(bytes).expect_err("refused").what;
    let as_is = |bytes: &'static [u8]| (0, (bytes.len() as u64) << 2 | AS_IS, bytes);
    assert!(decode_page(&page_of_paths(&[0], &[as_is(b"ab"), (1, 1 << 2, b"c")])).is_ok());

    let short = page_of_paths(&[0], &[as_is(b"ab"), as_is(b"ac")]);
    assert!(what(&short).contains("shared prefix"));
    assert!(what(&page_of_paths(&[0], &[as_is(b"ab"), (2, 0, b"")])).contains("out of order"));
    assert!(what(&page_of_paths(&[0], &[as_is(b"b"), as_is(b"a")])).contains("out of order"));
    assert!(what(&page_of_paths(&[0], &[as_is(b"01234567")])).contains("should be packed"));
    assert!(what(&page_of_paths(&[0], &[as_is(b"ABCDEFGH.data")])).contains("should be packed"));
    assert!(what(&page_of_paths(&[0], &[(0, 2 << 2 | AS_HEX, b"\x01")])).contains("too short"));

    let owner = [1, 5, 5, 0, 0];
    assert!(what(&page_of_paths(&owner, &[as_is(b"a")])).contains("no entry uses"));
    let twice = [2, 5, 5, 0, 0, 5, 5, 0, 0];
    assert!(what(&page_of_paths(&twice, &[as_is(b"a")])).contains("twice"));
    // Owners in the order of their first use, and in another order.
    let fifos = |first: u8, second: u8| {
        let mut out = vec![2, 5, 5, 0, 0, 6, 6, 0, 0];
        for (name, owner) in [(b'a', first), (b'b', second)] {
            let head = [0, 1 << 2, name, EntryKind::Fifo as u8, 0, 0, owner];
            put_bytes(&mut out, &[head.as_slice(), &[0; 7]].concat());
        }
        out
    };
    assert_eq!(
        decode_page(&fifos(0, 1)).map(|entries| entries.len()),
        Ok(2)
    );
    assert!(what(&fifos(1, 0)).contains("does not list here"));
}

/// A page of 1 MiB could name 100,000 paths of 64 KiB each, with one byte per prefix: 6 GiB.
#[test]
fn shared_prefixes_do_not_exhaust_memory() {
    let deep = vec![b'x'; 4000].repeat(15);
    let long: Vec<u8> = deep.chunks(4000).collect::<Vec<_>>().join(&0u8);
    let mut paths: Vec<(u64, u64, &[u8])> = vec![(0, (long.len() as u64) << 2 | AS_IS, &long)];
    let names: Vec<[u8; 2]> = (0..60u8).map(|n| [0, b'a' + n]).collect();
    paths.push((long.len() as u64, 2 << 2, &names[0]));
    for name in &names[1..30] {
        paths.push((long.len() as u64 + 1, 1 << 2, &name[1..]));
    }
    assert_eq!(
        decode_page(&page_of_paths(&[0], &paths)).map(|entries| entries.len()),
        Ok(31)
    );
    for name in &names[30..] {
        paths.push((long.len() as u64 + 1, 1 << 2, &name[1..]));
    }
    let refused = decode_page(&page_of_paths(&[0], &paths)).expect_err("refused");
    assert!(refused.what.contains("too long"), "{refused}");
}
