//! Tests of repairs: damaged data is saved or reported as lost, wherever the repair is interrupted.

mod dropped;
mod faults;
mod matrix;
mod packs;
mod pages;
mod parity;
mod quarantine;
mod snapshots;
mod unreadable;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::format::SourceKind;
use crate::observe::Recording;
use crate::ops::list::{SnapshotFilter, snapshots};
use crate::ops::repair::{
    PacksReport, RepairPacksOptions, RepairSnapshotsOptions, repair_config, repair_packs,
    repair_snapshots,
};
use crate::ops::testing::{Lab, noise, write};
use crate::ops::verify::{VerifyOptions, VerifyReport, verify};
use crate::read::content::write_content;
use crate::repo::{
    ChunkReader, MergedRuns, OnDamage, Repository, RunStreams, Secret, StoredSnapshot,
};
use crate::store::{FaultyStore, ObjectKey, SharedStore};
use crate::task::{Cancel, Task};
use crate::types::{ByteSize, PackId, SnapshotId};

/// A repository with a snapshot of small and large files and of a stream with list nodes.
fn sample() -> (Lab, Vec<u8>) {
    sample_in(Lab::new())
}

fn sample_in(lab: Lab) -> (Lab, Vec<u8>) {
    let tree = lab.tree();
    let words = b"some words that are too long to be kept in the entry itself. ".repeat(9);
    write(&tree.join("a/small"), &words);
    write(&tree.join("b/large"), &noise(1, 1_500_000));
    write(&tree.join("c/d/e"), &noise(4, 3000));
    let stream = noise(2, 300_000);
    lab.backup(&lab.open(), &stream);
    (lab, stream)
}

fn packs(lab: &Lab) -> Vec<(PackId, u64)> {
    let pack = |meta: crate::store::ObjectMeta| match meta.key {
        ObjectKey::Pack(id) => Some((id, meta.size)),
        _ => None,
    };
    lab.store.objects().into_iter().filter_map(pack).collect()
}

fn check(lab: &Lab) -> VerifyReport {
    let options = VerifyOptions {
        read_data: true,
        memory: ByteSize(96 << 20),
        ..VerifyOptions::default()
    };
    verify(
        &lab.open(),
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("verified")
}

fn assert_clean(lab: &Lab) {
    let report = check(lab);
    assert!(
        report.is_clean() && report.affected.is_empty(),
        "{report:#?}"
    );
}

fn packs_options() -> RepairPacksOptions {
    RepairPacksOptions {
        threads: 1,
        memory: ByteSize(96 << 20),
        ..RepairPacksOptions::default()
    }
}

fn repair(repo: &Repository) -> Result<PacksReport, crate::Error> {
    repair_packs(
        repo,
        &packs_options(),
        Task::new(&Recording::default(), &Cancel::new()),
    )
}

/// Opens the repository on a store that can die, with a separate cache.
fn on_faulty(lab: &Lab, faulty: &Arc<FaultyStore>, cache: &tempfile::TempDir) -> Repository {
    let store: SharedStore = faulty.clone();
    assert_eq!(
        store.address(),
        crate::store::Store::address(lab.store.as_ref())
    );
    Repository::open(store, &Secret::empty(), cache.path()).expect("opens")
}

fn listed(repo: &Repository) -> Vec<StoredSnapshot> {
    snapshots(repo, &SnapshotFilter::default(), &Recording::default()).expect("listed")
}

/// Returns every file of a snapshot's tree with its bytes.
fn files_of(repo: &Repository, found: &StoredSnapshot) -> BTreeMap<String, Vec<u8>> {
    repo.sync().expect("synced");
    let source = found.snapshot.source("tree").expect("the tree");
    let SourceKind::Tree { runs, .. } = &source.kind else {
        panic!("a tree")
    };
    let reader = ChunkReader::new(repo, 1 << 20);
    let mut merged =
        MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail).expect("opens");
    let mut out = BTreeMap::new();
    while let Some(entry) = merged.next_entry().expect("read") {
        if let Some(content) = entry.content() {
            let mut bytes = Vec::new();
            let observer = Recording::default();
            write_content(
                &reader,
                content,
                &mut bytes,
                Task::new(&observer, &Cancel::new()),
            )
            .expect("read");
            out.insert(entry.path.to_string(), bytes);
        }
    }
    out
}

/// Returns every file of the directory that is backed up, with its bytes.
fn files_on_disk(lab: &Lab) -> BTreeMap<String, Vec<u8>> {
    let root = lab.tree();
    let files = walkdir::WalkDir::new(&root)
        .into_iter()
        .map(|entry| entry.expect("listed"));
    files
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let name = entry
                .path()
                .strip_prefix(&root)
                .expect("below")
                .display()
                .to_string();
            (name, std::fs::read(entry.path()).expect("read"))
        })
        .collect()
}

/// Returns the bytes of the stream `db` of a snapshot.
fn stream_of(repo: &Repository, found: &StoredSnapshot) -> Result<Vec<u8>, crate::Error> {
    repo.sync()?;
    let source = found.snapshot.source("db").expect("the stream");
    let SourceKind::Stream { content, .. } = &source.kind else {
        panic!("a stream")
    };
    let mut out = Vec::new();
    let reader = ChunkReader::new(repo, 1 << 20);
    write_content(
        &reader,
        content,
        &mut out,
        Task::new(&Recording::default(), &Cancel::new()),
    )?;
    Ok(out)
}

/// The files and the stream of a snapshot.
type Content = (BTreeMap<String, Vec<u8>>, Vec<u8>);

/// Returns the contents of each snapshot before the damage, by the snapshot's id.
fn contents(lab: &Lab) -> BTreeMap<SnapshotId, Content> {
    let repo = lab.open();
    let held = listed(&repo).into_iter();
    held.map(|found| {
        (
            found.id,
            (
                files_of(&repo, &found),
                stream_of(&repo, &found).expect("read"),
            ),
        )
    })
    .collect()
}

/// Runs all repairs in the recommended order.
fn run_repairs(repo: &Repository) -> Result<(), crate::Error> {
    let observer = Recording::default();
    let cancel = Cancel::new();
    repair_config(repo, &cancel)?;
    repair(repo)?;
    repair_snapshots(
        repo,
        &RepairSnapshotsOptions::default(),
        Task::new(&observer, &cancel),
    )?;
    Ok(())
}
