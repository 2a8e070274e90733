//! Any one page of a run is lost. No file is deleted for that reason, and the next backup has every
//! name of the page.

use super::*;
use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::ops::repair::{RepairSnapshotsOptions, repair_snapshots};
use crate::ops::restore::{RestoreOptions, RestoreTarget, SnapshotPath, restore};
use crate::ops::testing::{commit_as, lease};
use crate::repo::{Claims, Lease, OnDamage, Packer, PackerOptions, RunWriter};
use crate::store::Store;
use crate::types::{ChunkClass, ChunkId, Entry, EntryFlags, MissingNames, RelPath};

const FILES: u64 = 1400;

/// A tree in a repository with each chunk of its runs in a separate frame.
struct Paged {
    lab: Lab,
    /// Pages and roots.
    chunks: Vec<ChunkId>,
}

/// Captures the tree as immutable, so that unchanged directories are not listed. No entry counts as
/// racy.
fn capture(lab: &Lab, repo: &Repository) -> SnapshotId {
    let tree = TreeSpec {
        immutable: true,
        ..TreeSpec::new("tree", lab.tree())
    };
    let sources = vec![SourceSpec::Tree(Box::new(tree))];
    let options = BackupOptions {
        grain_seconds: Some(-60),
        ..BackupOptions::new("host", sources)
    };
    let report = backup(
        repo,
        options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("backed up");
    report.snapshot.expect("committed")
}

fn entries(repo: &Repository, id: SnapshotId) -> Vec<Entry> {
    let found = listed(repo)
        .into_iter()
        .find(|found| found.id == id)
        .expect("listed");
    let SourceKind::Tree { runs, .. } = &found.snapshot.sources[0].kind else {
        panic!("a tree")
    };
    let reader = ChunkReader::new(repo, 1 << 20);
    let mut merged =
        MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail).expect("opens");
    std::iter::from_fn(|| merged.next_entry().expect("read")).collect()
}

/// Stores metadata chunks, each in a separate frame.
fn store<T>(
    repo: &Repository,
    held: &Lease,
    work: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<ChunkId, crate::repo::RepoError>) -> T,
) -> T {
    let claims = Claims::new(repo.index()).expect("claims");
    let observer = Recording::default();
    std::thread::scope(|scope| {
        let options = PackerOptions {
            workers: 1,
            level: 1,
            dry_run: false,
        };

        let packer =
            Packer::start(scope, repo, Some(held), &claims, options, &observer).expect("started");

        let mut writer = packer.writer(ChunkClass::Metadata);
        let done = work(&mut |bytes| {
            let id = writer.add(bytes)?;
            writer.flush()?;
            Ok(id)
        });
        drop(writer);
        packer.finish().expect("stored");
        done
    })
}

/// Creates three directories, the last with a single file. `runs`: the files are spread over this
/// many runs, each of which has all directories.
fn paged(runs: u64) -> Paged {
    let lab = Lab::new();
    for n in 0..FILES {
        let dir = if n < FILES / 2 { "first" } else { "second" };
        let name = blake3::hash(&n.to_le_bytes());
        write(
            &lab.tree().join(format!("{dir}/{n:04}-{name}")),
            &n.to_le_bytes(),
        );
    }

    write(&lab.tree().join("third/only"), b"1");
    let repo = lab.open();
    let id = capture(&lab, &repo);
    let mut snapshot = repo.read_snapshot(&id).expect("read");
    let mut all = entries(&repo, id);
    all.iter_mut()
        .for_each(|entry| entry.flags = EntryFlags::empty());

    // Existing equal pages would be reused, with many in one frame, so delete them.
    for meta in lab.store.objects() {
        if matches!(
            meta.key,
            ObjectKey::Pack(_) | ObjectKey::Segment(_) | ObjectKey::Snapshot(_)
        ) {
            lab.store.delete(&meta.key).expect("deleted");
        }
    }
    repo.sync().expect("synced");

    let held = lease(&repo);
    let mut chunks = Vec::new();
    let refs = store(&repo, &held, |put| {
        let one = |run: u64| {
            let mut put = |bytes: &[u8]| put(bytes).inspect(|id| chunks.push(*id));
            let mut writer = RunWriter::new(&mut put);
            let is_in =
                |(n, entry): &(usize, &Entry)| entry.is_directory() || *n as u64 % runs == run;
            for (_, entry) in all.iter().enumerate().filter(is_in) {
                writer.push(entry, entry.is_directory()).expect("pushed");
            }
            writer.finish().expect("finished").expect("entries")
        };
        (0..runs).map(one).collect::<Vec<_>>()
    });

    let SourceKind::Tree { runs, .. } = &mut snapshot.sources[0].kind else {
        panic!("a tree")
    };
    *runs = refs;
    commit_as(&repo, held, |empty| empty.sources = snapshot.sources);
    Paged { lab, chunks }
}

/// Returns the number of names that `restore --delete` deletes from the tree, or would delete.
fn deleted(lab: &Lab, repo: &Repository, id: SnapshotId, dry_run: bool) -> u64 {
    let what = SnapshotPath {
        snapshot: id.to_string(),
        source: Some("tree".into()),
        path: RelPath::root(),
    };
    let options = RestoreOptions {
        delete: true,
        delete_excluded: true,
        dry_run,
        ..RestoreOptions::default()
    };
    let observer = Recording::default();
    let target = RestoreTarget::Directory(lab.tree());
    match restore(
        repo,
        &what,
        target,
        &options,
        Task::new(&observer, &Cancel::new()),
    ) {
        Ok(report) => report.deleted,
        // The root of the only run was lost.
        Err(crate::Error::NoPath { .. }) => 0,
        Err(err) => panic!("{err}"),
    }
}

/// Returns directories of which the snapshot lacks names that it had, and that are not marked so.
fn silent(had: &[Entry], has: &[Entry]) -> Vec<String> {
    let shown = |path: &RelPath| has.iter().find(|entry| entry.path == *path);
    let lost = had.iter().filter(|entry| shown(&entry.path).is_none());
    let above = lost
        .filter_map(|entry| entry.path.parent())
        .collect::<std::collections::BTreeSet<_>>();
    let is_marked = |dir: &Entry| {
        dir.flags.contains(EntryFlags::REVISIT) && dir.missing_names() == Some(MissingNames::Unseen)
    };
    let silent = above.iter().filter_map(shown).filter(|dir| !is_marked(dir));
    silent.map(|dir| dir.path.to_string()).collect()
}

/// Loses each chunk in turn.
///
/// `comes_back`: the chunk is stored again before the next backup, as by the backup of another host
/// that has the same files, so that nothing is listed as lost any more.
fn lose_each(paged: &Paged, comes_back: bool) {
    let Paged { lab, chunks } = paged;
    let on_disk = files_on_disk(lab);
    let mut last = None;
    for (n, chunk) in chunks.iter().enumerate() {
        let fork = lab.fork();
        // The cache directory is never captured, so it is one of the rules. A different one would
        // make the backup skip nothing.
        let repo = lab.try_open_on(fork.store.clone()).expect("opens");
        repo.sync().expect("synced");
        let had = entries(&repo, listed(&repo)[0].id);

        let bytes = ChunkReader::new(&repo, 1 << 20)
            .chunk(ChunkClass::Metadata, chunk)
            .expect("read");
        let place = repo.locate(chunk).expect("asked").expect("there");
        let frame = repo
            .index()
            .frame(&place.pack, place.frame)
            .expect("asked")
            .expect("there");
        fork.store.damage(&ObjectKey::Pack(place.pack), |bytes| {
            bytes[frame.offset.get() as usize + 3] ^= 1;
        });
        assert_eq!(repair(&repo).expect("repaired").lost_chunks, 1, "chunk {n}");

        let observer = Recording::default();
        let cancel = Cancel::new();
        let report = repair_snapshots(
            &repo,
            &RepairSnapshotsOptions::default(),
            Task::new(&observer, &cancel),
        );
        let partial = report.expect("mended").partial[0].new.expect("committed");
        repo.sync().expect("synced");
        let has = entries(&repo, partial);
        assert!(has != had, "chunk {n}");
        assert_eq!(silent(&had, &has), Vec::<String>::new(), "chunk {n}");
        assert_eq!(deleted(lab, &repo, partial, true), 0, "chunk {n}");

        if comes_back {
            let held = lease(&repo);
            let id = store(&repo, &held, |put| put(&bytes).expect("stored"));
            assert_eq!(id, *chunk);
            repo.sync().expect("synced");
            assert!(repo.index().lost().expect("asked").is_empty());
        }

        let next = capture(lab, &repo);
        let found = listed(&repo)
            .into_iter()
            .find(|found| found.id == next)
            .expect("listed");

        assert_eq!(files_of(&repo, &found).len(), on_disk.len(), "chunk {n}");
        assert!(files_of(&repo, &found) == on_disk, "chunk {n}");
        assert_eq!(
            found.snapshot.sources[0].counts.partial,
            Some(0),
            "chunk {n}"
        );
        assert!(
            entries(&repo, next)
                .iter()
                .all(|entry| entry.missing_names().is_none()),
            "chunk {n}"
        );
        assert_eq!(deleted(lab, &repo, next, true), 0, "chunk {n}");

        last = Some((repo, partial));
    }

    let (repo, partial) = last.expect("one");
    deleted(lab, &repo, partial, false);
    assert!(files_on_disk(lab) == on_disk);
}

#[test]
fn no_name_is_deleted_or_omitted_if_any_page_is_lost() {
    let paged = paged(1);
    assert!(
        paged.chunks.len() >= 6,
        "a page of directories, four of files, a root"
    );
    lose_each(&paged, false);
}

#[test]
fn no_name_is_omitted_if_any_page_is_lost_and_stored_again() {
    lose_each(&paged(1), true);
}

#[test]
fn no_name_is_deleted_or_omitted_if_a_page_of_any_run_is_lost() {
    lose_each(&paged(2), true);
}
