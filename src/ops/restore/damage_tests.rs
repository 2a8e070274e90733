//! Tests of restores from damaged and hostile repositories.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

use super::tests::*;
use super::*;
use crate::format::{FORMAT_VERSION, LeaseKind, Snapshot, SnapshotState, SourceCounts};
use crate::observe::{Problem, Recording, Severity};
use crate::read::content::ContentReader;
use crate::repo::{
    ChunkReader, Claims, HostChoice, Lease, OnDamage, Packer, PackerOptions, RunStreams, RunWriter,
};
use crate::store::{ObjectDir, ObjectKey, Store, list_all};
use crate::sys::now;
use crate::types::{ChunkClass, Content, DeviceNumber, Extent, LeaseId, PlainLen, XattrValue};

#[test]
fn a_damaged_frame_takes_its_files_and_no_more() {
    let world = World::new();
    for number in 0..6 {
        world.write(&format!("f{number}"), &noise(number, 900_000));
    }
    world.backup();

    let repo = world.repo();
    repo.sync().expect("sync");
    let snapshot = repo
        .find_snapshot("latest", &HostChoice::Any)
        .expect("found")
        .snapshot;
    let SourceKind::Tree { runs, .. } = &snapshot.source("tree").expect("there").kind else {
        panic!()
    };

    let reader = ChunkReader::new(&repo, 1 << 20);
    let mut runs = MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail).expect("opens");
    runs.seek(b"f3");
    let entry = runs.next_entry().expect("reads").expect("there");
    let extent = ContentReader::new(&reader, entry.content().expect("a file")).next_extent();
    let Ok(Some(Extent::Chunk { id, .. })) = extent else {
        panic!("no chunk")
    };

    let place = repo.index().lookup_one(&id).expect("asked").expect("known");
    let row = repo
        .index()
        .frame(&place.pack, place.frame)
        .expect("asked")
        .expect("known");
    assert!(
        world
            .store
            .damage(&ObjectKey::Pack(place.pack), |bytes| bytes
                [row.offset.get() as usize + 9] ^=
                1)
    );

    let found = world.restore(&options());
    let damaged: Vec<Problem> = found
        .1
        .problems()
        .into_iter()
        .filter(|one| one.severity == Severity::Damage)
        .collect();
    assert!(!damaged.is_empty() && damaged.len() <= 3, "{damaged:?}");
    assert_eq!(found.0.failed, damaged.len() as u64);

    for number in 0..6 {
        let name = format!("f{number}");
        let is_hit = damaged
            .iter()
            .any(|one| one.subject == format!("tree/{name}"));
        assert_eq!(world.to(&name).exists(), !is_hit, "{name}");
        if !is_hit {
            assert_eq!(
                fs::read(world.to(&name)).expect("read"),
                noise(number, 900_000)
            );
        }
    }

    let left = fs::read_dir(world.target.path()).expect("list").count();
    assert_eq!(left, 6 - damaged.len(), "no temporary file is left");
    let packs = list_all(world.store.as_ref(), ObjectDir::Packs).expect("listed");
    // A stream without its pack is an error.
    for pack in packs {
        world.store.delete(&pack.key).expect("deleted");
    }
    let gone = world.restore_as(
        what(Some("dump"), ""),
        RestoreTarget::Stdout(&mut Vec::new()),
        &options(),
        None,
    );
    assert_eq!(
        gone.expect_err("nothing to read").kind(),
        crate::ErrorKind::Damage
    );
}

/// Commits a snapshot of hand-made entries; `put` may store chunks.
fn commit(
    world: &World,
    entries: impl FnOnce(&mut dyn FnMut(ChunkClass, &[u8]) -> crate::types::ChunkId) -> Vec<Entry>,
) {
    let repo = world.repo();
    repo.sync().expect("sync");
    let lease = Lease::take(&repo, LeaseKind::Backup).expect("a lease");
    let claims = Claims::new(repo.index()).expect("claims");
    let observer = Recording::default();

    let run = std::thread::scope(|scope| {
        let options = PackerOptions {
            workers: 1,
            level: 3,
            dry_run: false,
        };
        let packer =
            Packer::start(scope, &repo, Some(&lease), &claims, options, &observer).expect("packer");

        let mut data = packer.writer(ChunkClass::Data);
        let mut metadata = packer.writer(ChunkClass::Metadata);
        let entries = entries(&mut |class, bytes| match class {
            ChunkClass::Data => data.add(bytes).expect("stored"),
            ChunkClass::Metadata => metadata.add(bytes).expect("stored"),
        });

        let mut put = |bytes: &[u8]| metadata.add(bytes);
        let mut writer = RunWriter::new(&mut put);
        for entry in &entries {
            writer.push(entry, entry.is_directory()).expect("pushed");
        }
        let run = writer.finish().expect("finished").expect("a run");

        data.flush().expect("flushed");
        metadata.flush().expect("flushed");
        drop((data, metadata));
        packer.finish().expect("packed");
        run
    });

    let source = SourceRecord {
        name: "tree".into(),
        kind: SourceKind::Tree {
            path: b"/x".to_vec(),
            immutable: false,
            runs: vec![run],
        },
        profile: "tree".into(),
        started: now(),
        ended: now(),
        digest: [0; 32],
        counts: SourceCounts::default(),
        suspect: None,
        numeric_owners: false,
        moved_from: Vec::new(),
    };

    let snapshot = Snapshot {
        format: FORMAT_VERSION,
        state: SnapshotState::Complete,
        host: "host".into(),
        tags: Vec::new(),
        program: "test".into(),
        started: now(),
        ended: now(),
        lease: LeaseId::new([0; 16]),
        heartbeat: now(),
        parents: Vec::new(),
        sources: vec![source],
        images: Vec::new(),
        protected: false,
        replaces: None,
        original: None,
        committed: None,
        lost: None,
        other: Default::default(),
    };
    repo.commit(lease, snapshot).expect("committed");
}

fn meta(mode: u16) -> Metadata {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    Metadata {
        mode,
        owner: Owner {
            uid,
            gid,
            ..Owner::default()
        },
        nlink: 1,
        ..Metadata::default()
    }
}

fn entry(path: &str, node: Node) -> Entry {
    Entry {
        path: RelPath::from_slashed(path.as_bytes()).expect("a path"),
        flags: EntryFlags::empty(),
        node,
    }
}

fn literal(text: &str) -> Node {
    let extents = vec![Extent::Literal(text.as_bytes().to_vec())];
    Node::File {
        meta: meta(0o644),
        content: Content {
            size: text.len() as u64,
            extents,
        },
    }
}

#[test]
fn a_hostile_snapshot_cannot_write_outside() {
    let world = World::new();
    let outside = tempfile::tempdir().expect("a directory outside");
    let out = outside.path().as_os_str().as_encoded_bytes().to_vec();
    commit(&world, |_| {
        vec![
            entry("", Node::Directory { meta: meta(0o755) }),
            // A link, and paths below it in the same run.
            entry(
                "a",
                Node::Symlink {
                    meta: meta(0o777),
                    target: out.clone(),
                },
            ),
            entry("a/evil", literal("written through")),
            entry("a/sub", Node::Directory { meta: meta(0o755) }),
            entry("a/sub/evil", literal("written through")),
            // Below a directory without an entry.
            entry("b/c", literal("fine")),
            // A directory where the target has a link out of the target.
            entry("there", Node::Directory { meta: meta(0o755) }),
            entry("there/x", literal("inside")),
            entry(
                "unknown",
                Node::Unknown {
                    kind: 99,
                    body: Vec::new(),
                },
            ),
            entry(
                "with-reason",
                Node::Failed {
                    reason: "it was not readable".into(),
                },
            ),
        ]
    });
    symlink(outside.path(), world.to("there")).expect("a link");

    let (report, observer) = world.restore(&options());
    assert_eq!(
        fs::read_dir(outside.path()).expect("list").count(),
        0,
        "nothing outside"
    );
    assert_eq!(fs::read(world.to("there/x")).expect("inside"), b"inside");
    assert_eq!(fs::read(world.to("b/c")).expect("inside"), b"fine");
    assert!(
        fs::symlink_metadata(world.to("a"))
            .expect("stat")
            .is_symlink()
    );

    assert_eq!((report.failed, report.incomplete), (3, 2));
    let problems = observer.problems();
    assert!(
        problems
            .iter()
            .any(|one| one.subject == "tree/a/sub/evil" && one.severity == Severity::Damage)
    );
    assert!(
        problems
            .iter()
            .any(|one| one.message.contains("it was not readable"))
    );
}

#[test]
fn content_that_contradicts_its_entry_is_reported() {
    let world = World::new();
    commit(&world, |put| {
        let id = put(ChunkClass::Data, &noise(1, 5000));
        let missing = crate::types::ChunkId::new([7; 32]);
        let file = |extents: Vec<Extent>| {
            let size = extents.iter().map(Extent::len).sum();
            Node::File {
                meta: meta(0o644),
                content: Content { size, extents },
            }
        };

        let value = put(ChunkClass::Metadata, &[b'v'; 6000]);
        let mut with_xattr = meta(0o644);
        with_xattr.xattrs = vec![crate::types::ExtendedAttribute {
            name: b"user.test".to_vec(),
            value: XattrValue::Chunk {
                id: value,
                len: PlainLen::new(6000),
            },
        }];

        let content = Content {
            size: 5000,
            extents: vec![Extent::Chunk {
                id,
                len: PlainLen::new(5000),
            }],
        };

        vec![
            entry("", Node::Directory { meta: meta(0o755) }),
            entry(
                "good",
                Node::File {
                    meta: with_xattr,
                    content,
                },
            ),
            entry(
                "length",
                file(vec![Extent::Chunk {
                    id,
                    len: PlainLen::new(4999),
                }]),
            ),
            entry(
                "list",
                file(vec![Extent::List {
                    id: missing,
                    len: 9,
                    depth: 1,
                }]),
            ),
            entry(
                "missing",
                file(vec![
                    Extent::Chunk {
                        id: missing,
                        len: PlainLen::new(9),
                    },
                    Extent::Chunk {
                        id,
                        len: PlainLen::new(5000),
                    },
                ]),
            ),
            entry(
                "mixed",
                file(vec![
                    Extent::Literal(b"l".to_vec()),
                    Extent::Chunk {
                        id,
                        len: PlainLen::new(5000),
                    },
                    Extent::Hole { len: 9 },
                ]),
            ),
        ]
    });

    let (report, observer) = world.restore(&options());
    // The file system may lack room for the attribute.
    let damaged = observer
        .problems()
        .into_iter()
        .filter(|one| one.severity == Severity::Damage);
    let mut named: Vec<String> = damaged.map(|one| one.subject).collect();
    named.sort();
    assert_eq!(
        named,
        ["tree/length", "tree/list", "tree/missing"],
        "{:?}",
        observer.problems()
    );
    assert_eq!(report.failed, 3);

    assert_eq!(fs::read(world.to("good")).expect("read"), noise(1, 5000));
    let mixed = [b"l".as_slice(), &noise(1, 5000), &[0; 9]].concat();
    assert_eq!(fs::read(world.to("mixed")).expect("read"), mixed);
    assert!(!world.to("missing").exists());

    if xattr_of(&world.to("good")).is_some() {
        assert_eq!(
            xattr_of(&world.to("good")),
            Some(blake3::hash(&[b'v'; 6000]).to_hex()[..16].to_owned())
        );
    }
}

#[test]
fn an_unreadable_page_is_reported_and_deletes_nothing() {
    let world = World::new();
    for number in 0..2000 {
        world.write(&format!("{number:04}-{}", "n".repeat(60)), b"x");
    }
    world.backup();
    clean(&world.restore(&options()));
    fs::write(world.to("mine"), "x").expect("written");

    // Damage one metadata frame; the index and the snapshot are intact.
    let packs = list_all(world.store.as_ref(), ObjectDir::Packs).expect("listed");
    let mut hit = false;
    for pack in packs {
        let ObjectKey::Pack(id) = pack.key else {
            continue;
        };
        let repo = world.repo();
        repo.sync().expect("sync");
        for number in 0..8 {
            let Some(row) = repo.index().frame(&id, number).expect("asked") else {
                break;
            };
            if row.class == ChunkClass::Metadata && row.plain.get() > 60_000 && !hit {
                let at = row.offset.get() as usize + 100;
                hit = world
                    .store
                    .damage(&ObjectKey::Pack(id), |bytes| bytes[at] ^= 1);
            }
        }
    }
    assert!(hit);

    let what = what(Some("tree"), "");
    let target = RestoreTarget::Directory(world.target.path().into());
    match world.restore_as(
        what,
        target,
        &RestoreOptions {
            delete: true,
            ..options()
        },
        None,
    ) {
        Ok((report, observer)) => {
            assert!(!report.uncertain.is_empty() && !report.is_complete());
            assert!(
                observer
                    .problems()
                    .iter()
                    .any(|one| one.severity == Severity::Damage)
            );
        }
        Err(err) => assert_eq!(err.kind(), crate::ErrorKind::Damage),
    }
    assert!(world.to("mine").exists(), "nothing is deleted in the dark");
}

#[test]
fn devices_of_other_numbers_are_replaced() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new();
    let device = DeviceNumber { major: 1, minor: 3 };
    commit(&world, |_| {
        vec![
            entry("", Node::Directory { meta: meta(0o755) }),
            entry(
                "null",
                Node::Char {
                    meta: meta(0o666),
                    device,
                },
            ),
        ]
    });
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, world.to("null"), kind, 0o640.into(), 0x105)
        .expect("made");
    clean(&world.restore(&options()));
    let found = fs::metadata(world.to("null")).expect("stat");
    assert!(found.file_type().is_char_device() && found.rdev() == 0x103);
    assert_eq!(world.restore(&options()).0.files_unchanged, 1);
}
