//! Listings of real backups and of hand-made runs.

use std::io::Read;

use super::*;
use crate::Error;
use crate::advice::{Advice, SnapshotAdvice};
use crate::observe::Recording;
use crate::ops::testing::{Lab, commit, lease, noise, reading, tree_kind, write, write_runs};
use crate::repo::{HostChoice, RepoError, Repository};
use crate::store::{ObjectBody, ObjectKey, PutMode, Store};
use crate::types::{
    Content, Entry, EntryFlags, ExtendedAttribute, Metadata, Node, RelPath, SnapshotId, Timestamp,
    XattrValue,
};

fn at(path: &str) -> RelPath {
    RelPath::from_slashed(path.as_bytes()).expect("legal")
}

fn what(source: &str, path: &str) -> ListedPath {
    let source = (!source.is_empty()).then(|| source.to_owned());
    ListedPath {
        snapshot: "latest".into(),
        hosts: HostChoice::Any,
        source,
        path: at(path),
    }
}

fn listed(repo: &Repository, what: &ListedPath, depth: ListDepth) -> Result<Vec<String>, Error> {
    let mut out = Vec::new();
    reading(repo, &Recording::default(), |session| {
        ls(session, what, depth, &mut |item| {
            out.push(match item {
                LsItem::Source { source, .. } => format!("[{}]", source.name),
                LsItem::Entry { entry, .. } => entry.path.to_string(),
            });
            Ok(())
        })
    })?;
    Ok(out)
}

fn sample() -> (Lab, Repository) {
    let lab = Lab::new();
    let tree = lab.tree();
    for path in ["a/x/1.txt", "a/x/2.md", "a/y", "a.b", "z/deep/down/3.txt"] {
        write(&tree.join(path), path.as_bytes());
    }
    let repo = lab.open();
    lab.backup(&repo, b"a dump");
    (lab, repo)
}

#[test]
fn ls_lists_sources_directories_and_files() {
    let (_lab, repo) = sample();
    assert_eq!(
        listed(&repo, &what("", ""), ListDepth::Children).expect("listed"),
        ["[db]", "[tree]"]
    );
    assert_eq!(
        listed(&repo, &what("db", ""), ListDepth::Children).expect("listed"),
        ["[db]"]
    );
    assert_eq!(
        listed(&repo, &what("tree", ""), ListDepth::Children).expect("listed"),
        ["a", "a.b", "z"]
    );
    assert_eq!(
        listed(&repo, &what("tree", "a"), ListDepth::Children).expect("listed"),
        ["a/x", "a/y"]
    );
    let below = ["a/x", "a/x/1.txt", "a/x/2.md", "a/y"];
    assert_eq!(
        listed(&repo, &what("tree", "a"), ListDepth::Everything).expect("listed"),
        below
    );
    assert_eq!(
        listed(&repo, &what("tree", "a/y"), ListDepth::Everything).expect("listed"),
        ["a/y"]
    );
    assert_eq!(
        listed(&repo, &what("", ""), ListDepth::Everything)
            .expect("listed")
            .len(),
        2 + 10
    );
    for bad in [
        what("tree", "nope"),
        what("none", ""),
        what("db", "x"),
        what("tree", "a/y/z"),
    ] {
        assert!(
            matches!(
                listed(&repo, &bad, ListDepth::Children),
                Err(Error::NoPath { .. } | Error::Repo(RepoError::NoSuchSnapshot { .. }))
            ),
            "{bad:?}"
        );
    }
}

/// The error for a missing path names the obstacle in every command, and the listing that it
/// advises works.
#[test]
fn the_error_for_a_missing_path_names_the_obstacle() {
    let (lab, repo) = sample();
    std::os::unix::fs::symlink("x", lab.tree().join("a/link")).expect("a link");
    lab.backup(&repo, b"a dump");

    for (source, path, why, place) in [
        ("tree", "a/link/1.txt", "'a/link' is a symbolic link", None),
        ("tree", "a/y/z/deeper", "'a/y' is not a directory", None),
        ("tree", "a/nope/deeper", "in this snapshot", Some(":tree/a")),
        ("tree", "nope", "in this snapshot", Some(":tree")),
        ("db", "x", "it is a stream", None),
    ] {
        let what = what(source, path);
        let mut errors =
            vec![listed(&repo, &what, ListDepth::Everything).expect_err("it is not there")];
        let observer = Recording::default();
        errors.push(
            reading(&repo, &observer, |session| {
                cat(session, &what, &mut Vec::new())
            })
            .expect_err("not there"),
        );
        errors.push(
            reading(&repo, &observer, |session| {
                missing(session, &what, &mut |_| Ok(()))
            })
            .expect_err("not there"),
        );
        for error in errors {
            let advised = match error.advice() {
                Some(Advice::Snapshot(SnapshotAdvice::ListPaths { place })) => Some(place),
                _ => None,
            };
            assert_eq!(advised.is_some(), place.is_some(), "{error:?}");
            let ends_with = |end| advised.as_ref().is_some_and(|it| it.ends_with(end));
            assert!(place.is_none_or(ends_with), "{error:?}");
            let error = error.to_string();
            assert!(
                error.contains(why) && error.contains(&format!("'{path}'")),
                "{error}"
            );
        }
    }

    let error = reading(&repo, &Recording::default(), |session| {
        cat(session, &what("tree", "a/link"), &mut Vec::new())
    });
    assert!(
        error
            .expect_err("a link")
            .to_string()
            .contains("a symbolic link to 'x'")
    );
}

/// A lookup of a path must not show entries that a newer run removed above it.
#[test]
fn a_removal_above_the_path_hides_it() {
    let (lab, repo) = sample();
    std::fs::remove_dir_all(lab.tree().join("a")).expect("removed");
    lab.backup(&repo, b"");
    assert!(matches!(
        listed(&repo, &what("tree", "a/x"), ListDepth::Children),
        Err(Error::NoPath { .. })
    ));
    assert_eq!(
        listed(&repo, &what("tree", ""), ListDepth::Children).expect("listed"),
        ["a.b", "z"]
    );
}

#[test]
fn find_lists_each_snapshot_that_holds_a_path() {
    let (lab, repo) = sample();
    std::fs::remove_file(lab.tree().join("a/x/1.txt")).expect("removed");
    lab.backup(&repo, b"");
    let hits = |glob: &str, filter: &SnapshotFilter| {
        let mut out = Vec::new();
        reading(&repo, &Recording::default(), |session| {
            find(session, glob.as_ref(), filter, &mut |item| {
                out.push((item.snapshot.id, item.entry.path.to_string()));
                Ok(())
            })
        })
        .expect("found");
        out
    };
    let all = hits("*.txt", &SnapshotFilter::default());
    let paths: Vec<&str> = all.iter().map(|(_, path)| path.as_str()).collect();
    assert_eq!(
        paths,
        ["z/deep/down/3.txt", "a/x/1.txt", "z/deep/down/3.txt"],
        "newest first"
    );
    assert_ne!(all[0].0, all[1].0);
    assert_eq!(hits("/a/*", &SnapshotFilter::default()).len(), 4);
    assert!(
        hits("y/", &SnapshotFilter::default()).is_empty(),
        "a file is no directory"
    );

    let nobody = SnapshotFilter {
        host: Some("other".into()),
        ..SnapshotFilter::default()
    };
    assert!(hits("*.txt", &nobody).is_empty());

    let report = |glob: &str, filter: &SnapshotFilter| {
        reading(&repo, &Recording::default(), |session| {
            find(session, glob.as_ref(), filter, &mut |_| Ok(()))
        })
    };

    let all = SnapshotFilter::default();
    assert_eq!(
        report("*.txt", &all).expect("found"),
        FindReport {
            found: 3,
            snapshots: 2,
            meant: None
        }
    );

    let own = lab.tree().join("a/y");
    for pattern in ["tree/a/y", "/tree/a/y", own.to_str().expect("text")] {
        let report = report(pattern, &all).expect("searched");
        assert_eq!(
            (report.found, report.meant),
            (0, Some("/a/y".into())),
            "{pattern}"
        );
    }
    assert_eq!(
        report("*.txt", &nobody).expect("searched"),
        FindReport::default()
    );

    for (bad, expected) in [
        ("[", "the pattern, '['"),
        ("", "the pattern, ''"),
        ("!y", "write '\\!y'"),
    ] {
        let error = report(bad, &all)
            .expect_err("it can match nothing")
            .to_string();
        assert!(
            error.contains(expected) && !error.contains("exclude"),
            "{bad}: {error}"
        );
    }
}

fn bytes_of(repo: &Repository, what: &ListedPath, observer: &Recording) -> Vec<u8> {
    let mut out = Vec::new();
    reading(repo, observer, |session| cat(session, what, &mut out)).expect("read");
    out
}

#[test]
fn cat_gives_streams_files_and_directories() {
    let (_lab, repo) = sample();
    let observer = Recording::default();
    assert_eq!(bytes_of(&repo, &what("db", ""), &observer), b"a dump");
    assert_eq!(bytes_of(&repo, &what("tree", "a/y"), &observer), b"a/y");
    let archive = bytes_of(&repo, &what("tree", "a"), &observer);
    let mut archive = ::tar::Archive::new(archive.as_slice());
    let names: Vec<String> = archive
        .entries()
        .expect("entries")
        .map(|entry| String::from_utf8_lossy(&entry.expect("an entry").path_bytes()).into_owned())
        .collect();
    assert_eq!(names, ["./", "x/", "x/1.txt", "x/2.md", "y"]);
    assert!(observer.problems().is_empty());
}

/// Data that does not fit into a plain header: odd and long names, nanoseconds, attributes, times
/// before 1970.
#[test]
fn tar_holds_entries_that_need_extended_headers() {
    let lab = Lab::new();
    let repo = lab.open();
    let writer = lease(&repo);
    let data = noise(1, 100_000);
    let content = write_runs(&repo, &writer, &[], &[&data]).1.remove(0);
    let meta = Metadata {
        mode: 0o4755,
        mtime: Timestamp::new(-2, 250_000_000).expect("legal"),
        xattrs: vec![ExtendedAttribute {
            name: b"user.k".to_vec(),
            value: XattrValue::Inline(b"a\0b".to_vec()),
        }],
        ..Metadata::default()
    };
    let long = [vec![b'n'; 250], b"\xff".to_vec()].concat();
    let entry = |path: RelPath, node| Entry {
        path,
        flags: EntryFlags::empty(),
        node,
    };
    let directory = |path| {
        entry(
            path,
            Node::Directory {
                meta: Metadata::default(),
            },
        )
    };

    let file = RelPath::root().join(&long).expect("legal");
    let entries = vec![
        directory(RelPath::root()),
        entry(
            at("empty"),
            Node::File {
                meta: Metadata::default(),
                content: Content::default(),
            },
        ),
        entry(
            at("gone"),
            Node::Failed {
                reason: "no permission".into(),
            },
        ),
        entry(
            at("link"),
            Node::Symlink {
                meta: Metadata::default(),
                target: vec![b't'; 300],
            },
        ),
        entry(file, Node::File { meta, content }),
        entry(
            at("sock"),
            Node::Socket {
                meta: Metadata::default(),
            },
        ),
    ];

    let runs = write_runs(&repo, &writer, &[entries], &[]).0;
    commit(&repo, writer, vec![("t", tree_kind(&runs))]);
    let observer = Recording::default();
    let bytes = bytes_of(&repo, &what("t", ""), &observer);
    assert_eq!(
        observer.problems().len(),
        2,
        "the socket and the failed path"
    );

    let mut archive = ::tar::Archive::new(bytes.as_slice());
    let mut seen = Vec::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let mut records = Vec::new();
        if let Some(found) = entry.pax_extensions().expect("records") {
            records.extend(
                found
                    .map(|one| one.expect("a record"))
                    .map(|one| (one.key_bytes().to_vec(), one.value_bytes().to_vec())),
            );
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("read");
        let link = entry.link_name_bytes().map(|name| name.len());
        seen.push((
            entry.path_bytes().into_owned(),
            content.len(),
            link,
            records,
        ));
        if content.len() > 1 {
            assert!(content == data);
            assert_eq!(entry.header().mode().expect("a mode"), 0o4755);
        }
    }

    assert_eq!(seen.len(), 4, "{seen:?}");
    assert_eq!(seen[2].2, Some(300));
    assert_eq!(seen[3].0, long);
    let records = [
        (b"mtime".to_vec(), b"-1.750000000".to_vec()),
        (b"SCHILY.xattr.user.k".to_vec(), b"a\0b".to_vec()),
    ];
    assert_eq!(seen[3].3, records);
}

/// Further names of one file are links in the archive, to the first name in it. A file whose other
/// names are not in the archive is a regular file.
#[test]
fn tar_holds_hard_links() {
    let lab = Lab::new();
    for name in ["a/one", "b/outside"] {
        write(&lab.tree().join(name), name.as_bytes());
    }
    let long = "n".repeat(150);
    for (name, other) in [
        ("a/one", "a/two"),
        ("a/one", "z"),
        ("a/one", long.as_str()),
        ("b/outside", "a/inside"),
    ] {
        std::fs::hard_link(lab.tree().join(name), lab.tree().join(other)).expect("linked");
    }

    let repo = lab.open();
    lab.backup(&repo, b"");

    let held = |path: &str| {
        let bytes = bytes_of(&repo, &what("tree", path), &Recording::default());
        let mut archive = ::tar::Archive::new(bytes.as_slice());
        let entries = archive
            .entries()
            .expect("entries")
            .map(|entry| entry.expect("an entry"));
        let entries = entries.filter(|entry| !entry.header().entry_type().is_dir());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let entries = entries.map(|entry| {
            let link = entry
                .link_name_bytes()
                .map(|name| text(&name))
                .filter(|name| !name.is_empty());
            assert_eq!(link.is_some(), entry.header().entry_type().is_hard_link());
            assert_eq!(link.is_some(), entry.size() == 0);
            (text(&entry.path_bytes()), link)
        });
        entries.collect::<Vec<_>>()
    };

    let link = |name: &str, first: &str| (name.to_owned(), Some(first.to_owned()));
    let file = |name: &str| (name.to_owned(), None);

    assert_eq!(held("a"), [file("inside"), file("one"), link("two", "one")]);
    assert_eq!(
        held(""),
        [
            file("a/inside"),
            file("a/one"),
            link("a/two", "a/one"),
            link("b/outside", "a/inside"),
            link(&long, "a/one"),
            link("z", "a/one"),
        ]
    );
}

/// A library that treats names as paths drops redundant parts, and refuses names that are not text.
#[test]
fn tar_holds_names_and_targets_byte_for_byte() {
    let lab = Lab::new();
    let repo = lab.open();
    let writer = lease(&repo);
    let mut targets: Vec<Vec<u8>> = [
        "/", "//", "a//b", "a/./b", "./a", "a/", "..", "../..//", " ", "a\\b", "\n",
    ]
    .map(Into::into)
    .to_vec();
    // Around the 100 bytes that fit into a header, as text and as other bytes.
    for len in [1, 99, 100, 101, 155, 255, 256, 4095] {
        targets.push(vec![b'/'; len]);
        targets.push(
            noise(len as u64, len)
                .iter()
                .map(|&byte| byte.max(1))
                .collect(),
        );
    }

    let name_of = |i: usize| -> RelPath {
        let len = [1, 99, 100, 101, 255][i % 5];
        // The number keeps the order. In half of the names the first byte is not UTF-8.
        let first = if i.is_multiple_of(2) { b'a' } else { 0xff };
        let mut number = (i as u32 + 0x0101_0101).to_le_bytes();
        number.reverse();
        let name = [&[first][..], &number, &vec![0xfe; len]].concat();
        let name = &name[..name.len().min(255)];
        RelPath::root()
            .join(name)
            .and_then(|path| {
                if i.is_multiple_of(3) {
                    path.join(name)
                } else {
                    Ok(path)
                }
            })
            .expect("legal")
    };

    let link = |path: RelPath, target: &[u8]| Entry {
        path,
        flags: EntryFlags::empty(),
        node: Node::Symlink {
            meta: Metadata::default(),
            target: target.to_vec(),
        },
    };

    let mut entries: Vec<Entry> = targets
        .iter()
        .enumerate()
        .map(|(i, target)| link(name_of(i), target))
        .collect();
    let directories: Vec<Entry> = entries
        .iter()
        .filter_map(|entry| entry.path.parent().filter(|parent| !parent.is_root()))
        .chain([RelPath::root()])
        .map(|path| Entry {
            path,
            flags: EntryFlags::empty(),
            node: Node::Directory {
                meta: Metadata::default(),
            },
        })
        .collect();

    entries.extend(directories);
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let runs = write_runs(&repo, &writer, &[entries.clone()], &[]).0;
    commit(&repo, writer, vec![("t", tree_kind(&runs))]);

    let bytes = bytes_of(&repo, &what("t", ""), &Recording::default());
    let mut archive = ::tar::Archive::new(bytes.as_slice());
    let seen: Vec<(Vec<u8>, Option<Vec<u8>>)> = archive
        .entries()
        .expect("entries")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.header().entry_type().is_symlink())
        .map(|entry| {
            (
                entry.path_bytes().into_owned(),
                entry.link_name_bytes().map(std::borrow::Cow::into_owned),
            )
        })
        .collect();
    let expected: Vec<(Vec<u8>, Option<Vec<u8>>)> = entries
        .iter()
        .filter_map(|entry| match &entry.node {
            Node::Symlink { target, .. } => Some((entry.path.to_slashed(), Some(target.clone()))),
            _ => None,
        })
        .collect();
    assert!(
        seen == expected,
        "{} of {} links came out",
        seen.len(),
        expected.len()
    );
}

#[test]
fn stats_add_up() {
    let (lab, repo) = sample();
    lab.backup(&repo, b"");
    let stats = reading(&repo, &Recording::default(), stats).expect("added up");
    assert_eq!((stats.snapshots, stats.checkpoints), (2, 0));

    assert_eq!(
        (stats.latest_sources, stats.latest_files),
        (2, 6),
        "five files, and the stream of the first"
    );

    let bytes = [
        "a/x/1.txt",
        "a/x/2.md",
        "a/y",
        "a.b",
        "z/deep/down/3.txt",
        "a dump",
    ];
    assert_eq!(
        stats.latest_bytes,
        bytes.iter().map(|text| text.len() as u64).sum::<u64>()
    );

    assert!(stats.packs > 0 && stats.stored_bytes > 0 && stats.cache_bytes > 0);

    let filter = SnapshotFilter {
        source: Some("db".into()),
        ..SnapshotFilter::default()
    };
    assert_eq!(
        snapshots(&repo, &filter, &Recording::default())
            .expect("listed")
            .len(),
        1
    );
}

/// Flips a byte of a snapshot's object, which keeps its store time.
fn spoil(lab: &Lab, id: SnapshotId) {
    let key = ObjectKey::Snapshot(id);
    let mut bytes = lab.store.get(&key, 1 << 20).expect("there");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let now = lab.store.clock().now();
    let then = lab.store.stat(&key).expect("there").modified;
    let back = now.seconds_since(then) as i64;
    lab.store.delete(&key).expect("deleted");
    lab.store.clock().advance(-back);
    lab.store
        .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
        .expect("put");
    lab.store.clock().advance(back);
}

/// The object of the newest snapshot was damaged, and `restore latest` silently restored the state
/// of an hour before. `forget latest` would have forgotten the last good snapshot.
#[test]
fn an_older_snapshot_does_not_pass_for_a_damaged_latest() {
    let lab = Lab::new();
    write(&lab.tree().join("a"), b"a");
    let made: Vec<SnapshotId> = (0..3)
        .map(|n| {
            lab.store.clock().advance(3600);
            lab.backup(&lab.open(), &[n])
        })
        .collect();
    // Forks have their own cache: ours would still hold the damaged snapshot intact.
    let fork = lab.fork();
    spoil(&fork, made[0]);
    let found = fork
        .open()
        .find_snapshot("latest", &HostChoice::Any)
        .expect("what is older does not matter");
    assert_eq!(found.id, made[2]);

    let fork = lab.fork();
    spoil(&fork, made[2]);
    let repo = fork.open();
    let error = Error::from(
        repo.find_snapshot("latest", &HostChoice::Any)
            .expect_err("refused"),
    );
    assert_eq!(error.kind(), crate::ErrorKind::Damage);
    assert!(error.to_string().ends_with(&made[1].short()), "{error}");
    assert_eq!(
        error.advice(),
        Some(Advice::Snapshot(SnapshotAdvice::UsePrevious))
    );

    let forget = |name: String| {
        crate::ops::forget::forget_named(
            &repo,
            &[name],
            &HostChoice::Any,
            false,
            &Recording::default(),
        )
    };
    assert!(forget("latest".into()).is_err());
    assert!(
        repo.find_snapshot(&made[1].to_string(), &HostChoice::Any)
            .is_ok(),
        "by its id it is had"
    );

    // The fork's clock started again at the present.
    fork.store.clock().advance(86_400);
    let next = fork.backup(&repo, b"next");
    assert_eq!(
        repo.find_snapshot("latest", &HostChoice::Any)
            .expect("newer than the damage")
            .id,
        next
    );
}
