//! Small valid inputs of every decoder, as seeds for fuzzing.

use icecore::chunk::shrink_bytes;
use icecore::format::*;
use icecore::types::*;

const COMPOSE_USUAL: &str = "services:
  core:
    image: x
    volumes: [./config.yml:/opt/pyaleph/config.yml, './keys:/opt/pyaleph/keys', 'f:/var/lib/pyaleph']
  postgres:
    image: postgres:15.1
    volumes:
      - d:/var/lib/postgresql/data
    environment:
      POSTGRES_USER: ${USER:-aleph}
      POSTGRES_PASSWORD: secret
  ipfs: {image: k, volumes: ['i:/data/ipfs']}
volumes: {f: , d: , i: {external: true}}
";

const COMPOSE_FORMS: &str = "name: A b
x: &x {a: 1, image: 'q:${A:?no}', <<: {b: [c]}}
services:
  a: &a
    <<: *x
    image: $USER
    container_name: \"\\x41$$\"
    environment: ['POSTGRES_DB=${EMPTY:-${USER+b}}', POSTGRES_PASSWORD=s, POSTGRES_USER]
    volumes: !override
      - {type: bind, source: ../d, target: e, read_only: yes}
      - |
        /a:/data/ipfs:ro
  b: !reset null
  c: *a
volumes:
  v: {name: w, driver_opts: {o: bind, device: /d}}
";

/// Returns target, file name and bytes of each seed.
pub fn all() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let config = RepoConfig::new(RepoId::new([7; 16]), Timestamp::from_seconds(5));
    let mut slot = KeySlot::new(
        RepoId::new([1; 16]),
        Timestamp::from_seconds(9),
        "first".into(),
        (64, 1),
        [2; 32],
    );
    slot.wrapped = [8; 48];

    let chunk = Extent::Chunk {
        id: ChunkId::new([1; 32]),
        len: PlainLen::new(70_000),
    };
    let lists = [Extent::List {
        id: ChunkId::new([3; 32]),
        len: 5,
        depth: 1,
    }];
    let leaves = [
        chunk,
        Extent::Hole { len: 1 << 40 },
        Extent::Literal(b"end".to_vec()),
    ];

    let tree = |level| RunTree {
        level,
        refs: vec![page_ref("a"), page_ref("a/b"), page_ref("a.b")],
    };
    let root = RunRoot {
        directories: tree(0),
        others: tree(1),
    };

    vec![
        ("compose", "usual", COMPOSE_USUAL.into()),
        ("compose", "every-form", COMPOSE_FORMS.into()),
        (
            "config",
            "first",
            encode_config(&config, |bytes| *blake3::hash(bytes).as_bytes()),
        ),
        (
            "config",
            "newer",
            br#"{"format":9,"magic":"icecore repository","shape":"unknown"}"#.to_vec(),
        ),
        ("dump", "two-tables", DUMP.to_vec()),
        ("envelope", "pack", pack_object()),
        ("frame", "zstd", frame(&b"ice core ".repeat(300))),
        ("frame", "plain", frame(b"ab")),
        ("key_slot", "first", encode_key_slot(&slot)),
        ("lease", "first", encode_lease(&lease(None, vec![]))),
        (
            "lease",
            "later",
            encode_lease(&lease(Timestamp::new(5, 6), vec![SnapshotId::new([2; 32])])),
        ),
        ("list_node", "leaves", list_node(&leaves, 1)),
        ("list_node", "lists", list_node(&lists, 2)),
        ("pack_directory", "two-frames", encode_directory(&frames())),
        (
            "parity_head",
            "five-and-two",
            encode_parity_head(&parity_head()),
        ),
        (
            "run_node",
            "level-1",
            [vec![1], encode_node(&tree(1))].concat(),
        ),
        ("run_page", "every-kind", page(&every_kind())),
        ("run_page", "hash-names", page(&hash_names())),
        ("run_root", "two-trees", encode_root(&root)),
        ("run_root", "empty", encode_root(&RunRoot::default())),
        ("segment", "every-section", encode_segment(&segment())),
        (
            "snapshot",
            "tree-and-stream",
            encode_snapshot(&snapshot(&leaves)),
        ),
    ]
}

/// The size of the pieces, and a dump with most of the forms that can mislead a reader.
const DUMP: &[u8] =
    b"\x05--\n\\connect a\nSELECT $_$\nCOPY x FROM stdin;\n$_$, E'\\'', 'a''\n', \"b\"\"\" /* ; */;\n\
CREATE FUNCTION f() BEGIN ATOMIC SELECT (1); END;\n\
COPY public.files (hash, size, type, \"x y\") FROM stdin;\nQ\\x41m\t-1\tfile\t\\N\n\\101\\n\t5\tdir\t\n\\.\n\
COPY public.file_pins (type, file_hash) FROM stdin;\ntx\tQ\n\\.\n-- end";

fn parity_head() -> ParityHead {
    let data = (0..5).map(|n| [n; 16]).collect();
    ParityHead {
        pack: PackId::new([7; 32]),
        pack_size: 17_000,
        shard: 4096,
        data,
        parity: vec![[8; 16], [9; 16]],
    }
}

fn path(text: &str) -> RelPath {
    RelPath::from_slashed(text.as_bytes()).expect("a good path")
}

fn page_ref(name: &str) -> PageRef {
    PageRef {
        first: path(name),
        id: ChunkId::new([4; 32]),
        entries: 3,
        bytes: 900,
    }
}

fn pack_object() -> Vec<u8> {
    let header = ObjectHeader {
        kind: ObjectKind::Pack,
        random: [5; 32],
        writer: LeaseId::new([6; 16]),
    };
    let mut out = vec![0];
    out.extend(encode_header(&header));
    out.extend(encode_body_prefix(FrameCodec::Plain, 3));
    out.extend([9; 19]);
    let directory_len = out.len() as u64 - 1 - HEADER_BYTES as u64;
    out.extend(encode_trailer(PackTrailer {
        directory_offset: PackOffset::new(HEADER_BYTES as u64),
        directory_len,
    }));
    out
}

fn frame(plain: &[u8]) -> Vec<u8> {
    let (codec, packed) = shrink_bytes(plain).expect("compresses");
    let len = (plain.len() as u32).to_le_bytes();
    [&[codec as u8, len[0], len[1], len[2]], packed.as_slice()].concat()
}

fn lease(started: Option<Timestamp>, parents: Vec<SnapshotId>) -> LeaseBody {
    let host = "node".into();
    let boot = "b".into();
    LeaseBody {
        id: LeaseId::new([1; 16]),
        kind: LeaseKind::Backup,
        host,
        boot,
        pid: 7,
        started,
        parents,
    }
}

fn list_node(extents: &[Extent], depth: u8) -> Vec<u8> {
    let len: u64 = extents.iter().map(Extent::len).sum();
    [
        &[depth],
        len.to_le_bytes().as_slice(),
        &encode_list_node(extents),
    ]
    .concat()
}

fn frames() -> Vec<FrameInfo> {
    let chunk = |n: u8, len| ChunkInfo {
        id: ChunkId::new([n; 32]),
        len: PlainLen::new(len),
    };
    let frame = |class, codec, offset, stored, chunks| FrameInfo {
        class,
        codec,
        offset: PackOffset::new(offset),
        stored: StoredLen::new(stored),
        plain: PlainLen::new(1000),
        chunks,
    };

    vec![
        frame(
            ChunkClass::Data,
            FrameCodec::Zstd,
            61,
            500,
            vec![chunk(1, 300), chunk(2, 700)],
        ),
        frame(
            ChunkClass::Metadata,
            FrameCodec::Plain,
            561,
            1016,
            vec![chunk(3, 1000)],
        ),
    ]
}

fn segment() -> SegmentBody {
    SegmentBody {
        writer: LeaseId::new([1; 16]),
        packs: vec![PackInfo {
            id: PackId::new([2; 32]),
            size: 2000,
            frames: frames(),
        }],
        condemned: vec![PackId::new([3; 32])],
        dropped: vec![PackId::new([4; 32]), PackId::new([5; 32])],
        lost: vec![ChunkId::new([1; 32])],
        superseded: vec![SegmentId::new([8; 32])],
    }
}

fn meta(inode: u64, uid: u32) -> Metadata {
    Metadata {
        mode: 0o644,
        owner: Owner {
            uid,
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

fn page(entries: &[Entry]) -> Vec<u8> {
    let mut page = PageBuilder::new();
    entries.iter().for_each(|entry| page.push(entry));
    page.finish().expect("not empty").1
}

fn every_kind() -> Vec<Entry> {
    let mut odd = meta(9, 0);
    (odd.nlink, odd.device) = (3, 77);
    odd.mtime = Timestamp::new(-5, 999_999_999).expect("legal");
    let long = XattrValue::Chunk {
        id: ChunkId::new([3; 32]),
        len: PlainLen::new(9000),
    };
    odd.xattrs = vec![
        ExtendedAttribute {
            name: b"user.a".to_vec(),
            value: XattrValue::Inline(vec![0, 255]),
        },
        ExtendedAttribute {
            name: b"user.b".to_vec(),
            value: long,
        },
    ];

    let device = DeviceNumber { major: 8, minor: 1 };
    let content = Content {
        size: 3,
        extents: vec![Extent::Literal(b"abc".to_vec())],
    };
    let nodes = vec![
        (
            "",
            Node::Directory {
                meta: meta(1, 1000),
            },
        ),
        (
            "a",
            Node::Symlink {
                meta: meta(2, 1000),
                target: b"../x".to_vec(),
            },
        ),
        ("a/b", Node::Fifo { meta: meta(3, 0) }),
        ("c", Node::Socket { meta: meta(4, 1) }),
        (
            "d",
            Node::Char {
                meta: meta(5, 1),
                device,
            },
        ),
        (
            "e",
            Node::Block {
                meta: meta(6, 1),
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
        ("i", Node::File { meta: odd, content }),
    ];

    let entry = |(at, node)| Entry {
        path: path(at),
        flags: EntryFlags::COVER,
        node,
    };
    nodes.into_iter().map(entry).collect()
}

fn hash_names() -> Vec<Entry> {
    let file = |(at, inode): (String, u64)| {
        let extents = vec![Extent::Chunk {
            id: ChunkId::new([inode as u8; 32]),
            len: PlainLen::new(400),
        }];
        let node = Node::File {
            meta: meta(inode, 1000),
            content: Content { size: 400, extents },
        };
        Entry {
            path: path(&at),
            flags: EntryFlags::empty(),
            node,
        }
    };
    let names = [
        format!("x/{}", "ab".repeat(32)),
        format!("y/CIQ{}.data", "A7".repeat(26)),
        "z/0123456789abcde".into(),
        "z/0123456789abcdef".into(),
    ];
    names.into_iter().zip(10..).map(file).collect()
}

pub fn snapshot(extents: &[Extent]) -> Snapshot {
    let source = |name: &str, kind| SourceRecord {
        name: name.into(),
        kind,
        profile: "tree".into(),
        started: Timestamp::from_seconds(1),
        ended: Timestamp::from_seconds(2),
        digest: [4; 32],
        counts: SourceCounts::default(),
        suspect: None,
        numeric_owners: false,
        moved_from: Vec::new(),
    };

    let runs = vec![RunRef {
        root: ChunkId::new([9; 32]),
        entries: 5,
        bytes: 700,
        content: 9,
        hides: 0,
    }];

    let size = extents.iter().map(Extent::len).sum();
    let content = Content {
        size,
        extents: extents.to_vec(),
    };
    Snapshot {
        format: FORMAT_VERSION,
        state: SnapshotState::Complete,
        host: "node".into(),
        tags: vec!["hourly".into()],
        program: "icecore 0.1.0".into(),
        started: Timestamp::from_seconds(1),
        ended: Timestamp::new(2, 5).expect("legal"),
        lease: LeaseId::new([1; 16]),
        heartbeat: Timestamp::from_seconds(2),
        parents: vec![SnapshotId::new([2; 32])],
        sources: vec![
            source(
                "files",
                SourceKind::Tree {
                    path: b"/var/\xff".to_vec(),
                    immutable: true,
                    runs,
                },
            ),
            source(
                "db",
                SourceKind::Stream {
                    command: vec!["pg_dump".into()],
                    content,
                },
            ),
        ],
        images: vec![ServiceImage {
            service: "ipfs".into(),
            image: "ipfs/kubo:stable".into(),
            id: format!("sha256:{}", "0a".repeat(32)),
            digest: Some(format!("ipfs/kubo@sha256:{}", "1b".repeat(32))),
            sources: vec!["files".into()],
        }],
        protected: false,
        replaces: None,
        original: None,
        committed: None,
        lost: None,
        other: [("later".to_owned(), serde_json::json!({"b": 1}))].into(),
    }
}
