//! Tests of reading sessions: each reading operation holds a lease while it reads, and ranges of a
//! content are those of the whole.

use std::path::PathBuf;
use std::sync::Arc;

use crate::Error;
use crate::format::LeaseKind;
use crate::observe::{Recording, Severity};
use crate::ops::copy::{CopyOptions, copy};
use crate::ops::diff::diff;
use crate::ops::forget::forget_named;
use crate::ops::list::{ListDepth, ListedPath, SnapshotFilter, cat, find, ls, missing, stats};
use crate::ops::memory::BUDGET_DEFAULT;
use crate::ops::prune::{PruneOptions, prune};
use crate::ops::restore::{RestoreOptions, RestoreTarget, SnapshotPath, restore};
use crate::ops::testing::{Lab, noise, reading, write};
use crate::read::tree::TreeReader;
use crate::repo::{HostChoice, OnDamage, Repository};
use crate::store::{HookedStore, KeyKind, Store, StoreOperation};
use crate::task::{Cancel, Task};
use crate::types::{Content, RelPath};

fn whole(source: &str) -> ListedPath {
    ListedPath {
        snapshot: "latest".into(),
        hosts: HostChoice::Any,
        source: Some(source.into()),
        path: RelPath::root(),
    }
}

type Reading<'a> = &'a dyn Fn(&Repository, &Recording) -> Result<(), Error>;

/// Another machine forgets every snapshot and prunes, after the operation listed snapshots and
/// segments and before it reads packs. The operation reads everything that it listed.
#[test]
fn a_prune_in_the_middle_deletes_nothing_that_a_reader_needs() {
    let cancel = Cancel::new();
    let target = tempfile::tempdir().expect("a directory");
    let elsewhere = Lab::new();

    let operations: [(&str, Reading<'_>); 8] = [
        ("ls", &|repo, seen| {
            reading(repo, seen, |session| {
                ls(session, &whole("tree"), ListDepth::Everything, &mut |_| {
                    Ok(())
                })
            })
        }),
        ("missing", &|repo, seen| {
            reading(repo, seen, |session| {
                missing(session, &whole("tree"), &mut |_| Ok(()))
            })
        }),
        ("find", &|repo, seen| {
            reading(repo, seen, |session| {
                let all = SnapshotFilter::default();
                find(session, "f1".as_ref(), &all, &mut |_| Ok(()))
            })
            .map(|report| assert_eq!(report.found, 2))
        }),
        ("stats", &|repo, seen| {
            let stats = reading(repo, seen, stats)?;
            assert_eq!(stats.latest_files, 5, "four files and a stream");
            Ok(())
        }),
        ("diff", &|repo, seen| {
            let first = oldest(repo);
            reading(repo, seen, |session| {
                diff(session, &first, "latest", &HostChoice::Any, &mut |_| Ok(()))
            })
        }),
        ("cat", &|repo, seen| {
            let mut out = Vec::new();
            reading(repo, seen, |session| cat(session, &whole("db"), &mut out))?;
            assert_eq!(out, noise(9, 400_000));
            Ok(())
        }),
        ("restore", &|repo, seen| {
            let what = SnapshotPath {
                snapshot: "latest".into(),
                source: Some("tree".into()),
                path: RelPath::root(),
            };
            let target = RestoreTarget::Directory(target.path().join("t"));
            let task = Task::new(seen, &cancel);
            let report = restore(repo, &what, target, &RestoreOptions::default(), task)?;
            assert_eq!(report.failed, 0);
            Ok(())
        }),
        ("copy", &|repo, seen| {
            let task = Task::new(seen, &cancel);
            let options = CopyOptions {
                names: Vec::new(),
                hosts: HostChoice::Any,
                filter: SnapshotFilter::default(),
                level: 3,
                threads: 1,
                memory: BUDGET_DEFAULT,
                dry_run: false,
            };
            let report = copy(repo, &elsewhere.open(), &options, task)?;
            assert!(report.items.len() >= 2);
            Ok(())
        }),
    ];

    for (name, operation) in operations {
        let lab = Lab::new();
        let repo = lab.open();
        for n in 0..4 {
            write(&lab.tree().join(format!("f{n}")), &noise(n, 300_000));
        }
        lab.backup(&repo, &noise(8, 400_000));
        write(&lab.tree().join("f0"), &noise(7, 300_000));
        lab.backup(&repo, &noise(9, 400_000));
        lab.store.clock().advance(7 * 86_400);

        let cache = tempfile::tempdir().expect("a directory");
        let other = open_at(&lab, cache.path().to_owned()).with_client("elsewhere");
        let held = Arc::new(std::sync::Mutex::new(None));
        let in_hook = Arc::clone(&held);
        let hook = Box::new(move |_: &dyn Store| {
            let leases = other.leases().expect("listed");
            let kinds = leases
                .iter()
                .filter_map(|lease| Some(lease.body.as_ref()?.kind));
            *in_hook.lock().expect("no panic") = Some(kinds.collect::<Vec<_>>());
            forget_and_prune(&other);
        });
        let hooked = HookedStore::after(
            lab.store.clone(),
            StoreOperation::List,
            KeyKind::Segment,
            hook,
        );
        let hooked = Arc::new(hooked);
        let fresh = tempfile::tempdir().expect("a directory");
        let reader = Repository::open(hooked.clone(), &crate::repo::Secret::empty(), fresh.path())
            .expect("opens");

        let seen = Recording::default();
        operation(&reader, &seen).unwrap_or_else(|err| panic!("{name}: {err}"));
        assert!(hooked.was_called(), "{name}");
        let kinds = held.lock().expect("no panic").take().expect("the hook ran");
        assert_eq!(kinds, [LeaseKind::Restore], "{name}");
        let damage: Vec<_> = seen
            .problems()
            .into_iter()
            .filter(|problem| problem.severity >= Severity::Missing)
            .collect();
        assert!(damage.is_empty(), "{name}: {damage:?}");
        assert_eq!(lab.open().leases().expect("listed"), [], "{name}: released");
    }
}

fn open_at(lab: &Lab, cache: PathBuf) -> Repository {
    Repository::open(lab.store.clone(), &crate::repo::Secret::empty(), &cache).expect("opens")
}

fn oldest(repo: &Repository) -> String {
    let all = repo.listed_snapshots().expect("listed");
    let (first, _) = all.iter().min_by_key(|(_, stored)| *stored).expect("one");
    first.to_string()
}

fn forget_and_prune(repo: &Repository) {
    let seen = Recording::default();
    let ids: Vec<String> = repo
        .snapshots(&mut |_, err| panic!("{err}"))
        .expect("listed")
        .into_iter()
        .map(|found| found.id.to_string())
        .collect();
    forget_named(repo, &ids, &HostChoice::Any, false, &seen).expect("forgotten");
    let options = PruneOptions {
        now: true,
        ..PruneOptions::default()
    };
    prune(repo, &options, Task::new(&seen, &Cancel::new())).expect("pruned");
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn a_range_of_a_content_is_that_of_the_whole() {
    let lab = Lab::new();
    let repo = lab.open();
    let large = noise(1, 9_000_000);
    write(&lab.tree().join("large"), &large);
    write(&lab.tree().join("small"), b"a few bytes");
    write(&lab.tree().join("empty"), b"");
    let file = std::fs::File::create(lab.tree().join("sparse")).expect("made");
    file.set_len(5_000_000).expect("set");
    std::os::unix::fs::FileExt::write_all_at(&file, &large[..1_500_000], 2_000_000)
        .expect("written");
    lab.backup(&repo, b"");

    let seed = 0x1ce_c04e;
    println!("seed {seed}");
    let mut state = seed;
    for name in ["large", "small", "empty", "sparse"] {
        let expected = std::fs::read(lab.tree().join(name)).expect("read");
        let content = content_of(&repo, name);
        reading(&repo, &Recording::default(), |session| {
            for _ in 0..60 {
                let at = next(&mut state) % (expected.len() as u64 + 10);
                let len = match next(&mut state) % 3 {
                    0 => next(&mut state) % 10,
                    1 => next(&mut state) % 5000,
                    _ => next(&mut state) % 3_000_000,
                };
                let mut buffer = vec![0xaa; len as usize];
                let read = session
                    .content_at(&content, at, &mut buffer)
                    .unwrap_or_else(|err| panic!("{name} at {at}: {err}"));
                let start = expected.len().min(at as usize);
                let end = expected.len().min(at as usize + len as usize);
                assert_eq!(read, end - start, "{name} at {at}, {len} bytes");
                assert!(
                    buffer[..read] == expected[start..end],
                    "{name} at {at}, {len} bytes"
                );
                assert!(
                    buffer[read..].iter().all(|&byte| byte == 0xaa),
                    "the rest is not touched"
                );
            }
        });
    }
}

fn content_of(repo: &Repository, name: &str) -> Content {
    repo.sync().expect("synced");
    let found = repo
        .find_snapshot("latest", &HostChoice::Any)
        .expect("found")
        .snapshot;
    let crate::format::SourceKind::Tree { runs, .. } = &found.source("tree").expect("there").kind
    else {
        panic!("not a tree")
    };
    let reader = crate::repo::ChunkReader::new(repo, 1 << 20);
    let mut walk = TreeReader::open(&reader, runs, OnDamage::Fail).expect("opens");
    let path = RelPath::from_slashed(name.as_bytes()).expect("a path");
    let entry = walk.entry_at(&path).expect("read").expect("there");
    entry.content().expect("a file").clone()
}
