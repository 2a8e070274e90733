//! Repairs: what is damaged is saved or told as lost, whatever the moment at which the repair is cut off.

mod packs;

use std::sync::Arc;

use crate::observe::Recording;
use crate::ops::Cancel;
use crate::ops::content::write_content;
use crate::ops::list::{SnapshotFilter, snapshots};
use crate::ops::testing::{Lab, noise, write};
use crate::ops::verify::{VerifyOptions, VerifyReport, verify};
use crate::repo::{ChunkReader, Repository, Secret, StoredSnapshot};
use crate::store::{FaultyStore, ObjectKey, SharedStore};
use crate::types::{ByteSize, PackId};

/// Small and large files, a stream with list nodes.
fn sample() -> (Lab, Vec<u8>) {
    let lab = Lab::new();
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
    let options = VerifyOptions { read_data: true, memory: ByteSize(96 << 20), ..VerifyOptions::default() };
    verify(&lab.open(), &options, &Recording::default(), &Cancel::new()).expect("verified")
}

fn assert_clean(lab: &Lab) {
    let report = check(lab);
    assert!(report.is_clean() && report.affected.is_empty(), "{report:#?}");
}

/// The repository behind a store that can die, with a cache of its own.
fn on_faulty(lab: &Lab, faulty: &Arc<FaultyStore>, cache: &tempfile::TempDir) -> Repository {
    let store: SharedStore = faulty.clone();
    assert_eq!(store.address(), crate::store::Store::address(lab.store.as_ref()));
    Repository::open(store, &Secret::empty(), cache.path()).expect("opens")
}

fn listed(repo: &Repository) -> Vec<StoredSnapshot> {
    snapshots(repo, &SnapshotFilter::default(), &Recording::default()).expect("listed")
}

/// The bytes of the stream `db` of a snapshot.
fn stream_of(repo: &Repository, found: &StoredSnapshot) -> Result<Vec<u8>, crate::Error> {
    repo.sync()?;
    let source = found.snapshot.source("db").expect("the stream");
    let crate::format::SourceKind::Stream { content, .. } = &source.kind else { panic!("a stream") };
    let mut out = Vec::new();
    let reader = ChunkReader::new(repo, 1 << 20);
    write_content(&reader, content, &mut out, &Cancel::new(), &Recording::default())?;
    Ok(out)
}
