//! Arbitrary valid values of every format: an encoded value decodes to the same value, and changed
//! bytes keep the rules of `judge.rs`.

use icecore::format::*;
use icecore::types::*;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::judge;

fn hash() -> impl Strategy<Value = [u8; 32]> {
    any::<[u8; 32]>()
}

fn time() -> impl Strategy<Value = Timestamp> {
    (any::<i64>(), 0u32..1_000_000_000).prop_map(|(s, n)| Timestamp::new(s, n).expect("legal"))
}

/// Mostly valid.
fn images() -> impl Strategy<Value = Vec<ServiceImage>> {
    let id = prop_oneof![9 => hash().prop_map(|hash| format!("sha256:{}", ChunkId::new(hash))), 1 => "\\PC{0,9}"];
    let image = (
        "[a-d_-]{0,3}",
        "\\PC{0,3}[a-z:]{1,300}",
        id,
        any::<bool>(),
        vec("[ -~]{0,9}", 0..3),
    );
    let image = image.prop_map(|(service, image, id, is_pulled, sources)| ServiceImage {
        digest: is_pulled.then(|| format!("{service}@{id}")),
        service,
        image,
        id,
        sources,
    });
    vec(image, 0..6)
}

fn path() -> impl Strategy<Value = RelPath> {
    let name = prop_oneof![
        "[a-c.]{1,3}x",
        "[0-9a-f]{6,12}",
        "[A-Z2-7]{7,12}\\.data",
        vec(1u8.., 1..20).prop_map(|name| name
            .iter()
            .map(|&b| if b == b'/' { 'x' } else { char::from(b) })
            .collect()),
    ];
    vec(name, 0..4).prop_map(|names| {
        names.iter().fold(RelPath::root(), |path, name| {
            path.join(name.as_bytes()).unwrap_or(path)
        })
    })
}

fn extents() -> impl Strategy<Value = Vec<Extent>> {
    let extent = prop_oneof![
        4 => (hash(), 1u32..2 << 20).prop_map(|(id, len)| Extent::Chunk {
            id: ChunkId::new(id),
            len: PlainLen::new(len),
        }),
        1 => (1u64..1 << 40).prop_map(|len| Extent::Hole { len }),
        1 => vec(any::<u8>(), 1..=128).prop_map(Extent::Literal),
        1 => (hash(), 1u64..1 << 40, 1u8..=8)
            .prop_map(|(id, len, depth)| Extent::List { id: ChunkId::new(id), len, depth }),
    ];
    vec(extent, 0..20)
}

fn meta() -> impl Strategy<Value = Metadata> {
    let owner = (0u32..3, 0u32..3, "[ab]?").prop_map(|(uid, gid, user)| Owner {
        uid,
        gid,
        user: user.into_bytes(),
        group: vec![],
    });
    let value = prop_oneof![
        vec(any::<u8>(), 0..40).prop_map(XattrValue::Inline),
        (hash(), 1u32..=1 << 16).prop_map(|(id, len)| XattrValue::Chunk {
            id: ChunkId::new(id),
            len: PlainLen::new(len),
        }),
    ];

    let xattrs = btree_map(vec(1u8.., 1..10), value, 0..3);
    let numbers = (0u16..=0o7777, any::<u64>(), any::<u64>(), 0u32..4);

    (owner, time(), time(), numbers, xattrs).prop_map(
        |(owner, mtime, ctime, (mode, inode, device, nlink), xattrs)| Metadata {
            mode,
            owner,
            mtime,
            ctime,
            inode,
            device: if nlink > 1 { device } else { 0 },
            nlink,
            xattrs: xattrs
                .into_iter()
                .map(|(name, value)| ExtendedAttribute { name, value })
                .collect(),
        },
    )
}

fn node() -> impl Strategy<Value = Node> {
    let device =
        (any::<u32>(), any::<u32>()).prop_map(|(major, minor)| DeviceNumber { major, minor });
    prop_oneof![
        4 => (meta(), extents()).prop_map(|(meta, extents)| {
            let size = extents.iter().map(Extent::len).sum();
            Node::File { meta, content: Content { size, extents } }
        }),
        2 => meta().prop_map(|meta| Node::Directory { meta }),
        1 => (meta(), vec(1u8.., 1..50)).prop_map(|(meta, target)| Node::Symlink { meta, target }),
        1 => meta().prop_map(|meta| Node::Fifo { meta }),
        1 => (meta(), device.clone()).prop_map(|(meta, device)| Node::Char { meta, device }),
        1 => (meta(), device).prop_map(|(meta, device)| Node::Block { meta, device }),
        1 => ".{0,20}".prop_map(|reason| Node::Failed { reason }),
        1 => Just(Node::Removed),
        1 => (10u8.., vec(any::<u8>(), 0..10)).prop_map(|(kind, body)| Node::Unknown { kind, body }),
    ]
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let flags = (0u16..512).prop_filter_map("unseen only with partial", EntryFlags::from_bits);
    btree_map(path(), (flags, node()), 1..20).prop_map(|entries| {
        let entry = |(path, (flags, node))| Entry { path, flags, node };
        entries.into_iter().map(entry).collect()
    })
}

/// Data or metadata, packed or plain, gap before the frame, bytes saved, chunks.
type RawFrame = (bool, bool, u64, u32, Vec<([u8; 32], u32)>);

fn frames() -> impl Strategy<Value = Vec<FrameInfo>> {
    let chunks = vec((hash(), 1u32..1000), 1..5);
    let frame = (any::<bool>(), any::<bool>(), 0u64..100, 0u32..1000, chunks);
    vec(frame, 0..5).prop_map(|frames| {
        let mut end = 61;
        let frame = |(data, zstd, gap, less, chunks): RawFrame| {
            let chunks: Vec<ChunkInfo> = chunks
                .into_iter()
                .map(|(id, len)| ChunkInfo {
                    id: ChunkId::new(id),
                    len: PlainLen::new(len),
                })
                .collect();

            let plain: u32 = chunks.iter().map(|chunk| chunk.len.get()).sum();
            let stored = if zstd {
                plain - 1 - less % plain
            } else {
                plain
            } + 16;
            let offset = end + gap;
            end = offset + u64::from(stored);

            FrameInfo {
                class: if data {
                    ChunkClass::Data
                } else {
                    ChunkClass::Metadata
                },
                codec: if zstd {
                    FrameCodec::Zstd
                } else {
                    FrameCodec::Plain
                },
                offset: PackOffset::new(offset),
                stored: StoredLen::new(stored),
                plain: PlainLen::new(plain),
                chunks,
            }
        };
        frames.into_iter().map(frame).collect()
    })
}

fn segments() -> impl Strategy<Value = SegmentBody> {
    let pack = (hash(), frames(), 0u64..1000).prop_map(|(id, frames, more)| {
        let end = frames
            .last()
            .map_or(61, |frame| frame.end().expect("a sum").get());
        PackInfo {
            id: PackId::new(id),
            size: end + more,
            frames,
        }
    });
    let ids = || prop::collection::btree_set(hash(), 0..4);
    (vec(pack, 0..3), ids(), ids(), ids(), ids()).prop_map(
        |(packs, condemned, dropped, lost, superseded)| SegmentBody {
            writer: LeaseId::new([1; 16]),
            packs,
            condemned: condemned.into_iter().map(PackId::new).collect(),
            dropped: dropped.into_iter().map(PackId::new).collect(),
            lost: lost.into_iter().map(ChunkId::new).collect(),
            superseded: superseded.into_iter().map(SegmentId::new).collect(),
        },
    )
}

fn trees(level: u8) -> impl Strategy<Value = RunTree> {
    btree_map(path(), (hash(), 1u64.., any::<u64>()), 1..10).prop_map(move |refs| {
        let page = |(first, (id, entries, bytes))| PageRef {
            first,
            id: ChunkId::new(id),
            entries,
            bytes,
        };
        RunTree {
            level,
            refs: refs.into_iter().map(page).collect(),
        }
    })
}

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Harm {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Double(Index, Index),
}

fn harms() -> impl Strategy<Value = Vec<Harm>> {
    let at = any::<Index>;
    vec(
        prop_oneof![
            4 => (at(), any::<u8>()).prop_map(|(at, byte)| Harm::Set(at, byte)),
            1 => (at(), any::<u8>()).prop_map(|(at, byte)| Harm::Insert(at, byte)),
            1 => at().prop_map(Harm::Remove),
            1 => (at(), at()).prop_map(|(from, to)| Harm::Double(from, to)),
        ],
        1..5,
    )
}

fn harmed(mut bytes: Vec<u8>, harms: &[Harm]) -> Vec<u8> {
    for harm in harms {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        match harm {
            Harm::Set(at, byte) => bytes[at.index(len)] = *byte,
            Harm::Insert(at, byte) => bytes.insert(at.index(len), *byte),
            Harm::Remove(at) => drop(bytes.remove(at.index(len))),
            Harm::Double(from, to) => {
                let (from, to) = (
                    from.index(len).min(to.index(len)),
                    from.index(len).max(to.index(len)),
                );
                let part = bytes[from..to].to_vec();
                bytes.splice(from..from, part);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn pages(entries in entries(), harms in harms()) {
        let mut page = PageBuilder::new();
        entries.iter().for_each(|entry| page.push(entry));
        let (first, bytes, count) = page.finish().expect("not empty");
        let decoded = decode_page(&bytes);
        prop_assert_eq!(decoded.as_ref(), Ok(&entries));
        prop_assert_eq!((&first, count), (&entries[0].path, entries.len() as u64));
        prop_assert!(judge::run_page(&bytes));
        judge::run_page(&harmed(bytes, &harms));
    }

    #[test]
    fn list_nodes(extents in extents(), depth in 0u8..10, harms in harms()) {
        // One kind: chunks, holes and literals, or lists of the depth below.
        let fits = |extent: &Extent| matches!(extent, Extent::List { .. }) == (depth > 1);
        let extents: Vec<Extent> = extents
            .into_iter()
            .filter(fits)
            .map(|extent| match extent {
                Extent::List { id, len, .. } => Extent::List { id, len, depth: (depth - 1).clamp(1, 8) },
                other => other,
            })
            .collect();
        let len: u64 = extents.iter().map(Extent::len).sum();
        let bytes = encode_list_node(&extents);
        if (1..=9).contains(&depth) {
            prop_assert_eq!(decode_list_node(&bytes, len, depth), Ok(extents));
        }
        let framed = [&[depth], len.to_le_bytes().as_slice(), &harmed(bytes, &harms)].concat();
        judge::list_node(&framed);
    }

    #[test]
    fn directories_and_segments(frames in frames(), body in segments(), harms in harms()) {
        let bytes = encode_directory(&frames);
        prop_assert_eq!(decode_directory(&bytes, PackOffset::new(1 << 30)), Ok(frames));
        judge::pack_directory(&harmed(bytes, &harms));
        let bytes = encode_segment(&body);
        prop_assert_eq!(decode_segment(&bytes), Ok(body));
        judge::segment(&harmed(bytes, &harms));
    }

    #[test]
    fn roots_and_nodes(directories in trees(0), others in trees(3), harms in harms()) {
        let bytes = encode_node(&others);
        let decoded = decode_node(&bytes, 3);
        prop_assert_eq!(decoded.as_ref(), Ok(&others));
        judge::run_node(&[vec![3], harmed(bytes, &harms)].concat());
        let root = RunRoot { directories, others };
        let bytes = encode_root(&root);
        prop_assert_eq!(decode_root(&bytes), Ok(root));
        judge::run_root(&harmed(bytes, &harms));
    }

    #[test]
    fn json(
        path in vec(any::<u8>(), 0..20), text in ".{0,12}", at in time(), extents in extents(), images in images(),
        harms in harms(),
    ) {
        let lease = LeaseBody {
            id: LeaseId::new([1; 16]),
            kind: LeaseKind::Prune,
            host: text.clone(),
            boot: text.clone(),
            pid: at.nanos(),
            started: Some(at),
            parents: vec![SnapshotId::new([7; 32])],
        };
        let bytes = encode_lease(&lease);
        prop_assert_eq!(decode_lease(&bytes), Ok(lease));
        judge::lease(&harmed(bytes, &harms));

        let slot = KeySlot::new(RepoId::new([2; 16]), at, text.clone(), (at.nanos(), 3), [4; 32]);
        let bytes = encode_key_slot(&slot);
        prop_assert_eq!(decode_key_slot(&bytes), Ok(slot));
        judge::key_slot(&harmed(bytes, &harms));

        let bytes = encode_config(&RepoConfig::new(RepoId::new([2; 16]), at), |_| [3; 32]);
        prop_assert_eq!(decode_config(&bytes).map(|(config, ..)| config.created), Ok(at));
        judge::config(&harmed(bytes, &harms));

        let mut snapshot = crate::seeds::snapshot(&extents);
        (snapshot.host, snapshot.started) = (text.clone(), at);
        snapshot.tags = vec![text];
        snapshot.sources[0].counts.partial = (at.nanos() % 2 == 0).then_some(at.nanos().into());
        let SourceKind::Tree { path: root, .. } = &mut snapshot.sources[0].kind else { unreachable!("a tree") };
        *root = path;
        snapshot.images = legal_images(images);
        let bytes = encode_snapshot(&snapshot);
        prop_assert_eq!(decode_snapshot(&bytes), Ok(snapshot));
        judge::snapshot(&harmed(bytes, &harms));
    }

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..300)) {
        for (_, judge) in judge::TARGETS {
            judge(&bytes);
        }
    }
}

/// Counts that the input cannot hold are refused before memory is allocated for them: 2^62 ids,
/// extents, frames. An allocation of that size would abort the test.
#[test]
fn absurd_counts_are_refused() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
    let after = |bytes: &[u8]| [bytes, &huge, &[1; 64]].concat();
    assert!(decode_page(&after(&[])).is_err(), "owners");
    assert!(
        decode_directory(&after(&[]), PackOffset::new(1 << 40)).is_err(),
        "frames"
    );
    assert!(
        decode_root(&after(&[0])).is_err() && decode_node(&after(&[1]), 1).is_err(),
        "references"
    );
    assert!(decode_list_node(&after(&[]), 1, 1).is_err(), "extents");
    assert!(decode_segment(&after(&[1; 16])).is_err(), "packs");
    for section in 1..=4 {
        assert!(
            decode_segment(&after(&[&[1; 16][..], &[0].repeat(section)].concat())).is_err(),
            "ids"
        );
    }
    assert!(
        decode_snapshot(br#"{"sources":[{"kind":"stream","content":[{"hole":{"len":1e300}}]}]}"#)
            .is_err()
    );

    // Deep nesting does not exhaust the stack.
    let deep = [b"{\"other\":".as_slice(), &b"[".repeat(100_000)].concat();
    assert!(
        decode_snapshot(&deep).is_err()
            && decode_lease(&deep).is_err()
            && decode_config(&deep).is_err()
    );
}
