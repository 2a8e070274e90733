//! Hosts with trees and caches, a store that they share, and reading snapshots back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use icecore::Error;
use icecore::format::{SnapshotState, SourceKind};
use icecore::observe::Recording;
use icecore::ops::backup::{BackupOptions, SourceSpec, TreeSpec};
use icecore::ops::verify::{FindingKind, VerifyOptions, VerifyReport, verify};
use icecore::read::content::write_content;
use icecore::repo::{ChunkReader, MergedRuns, OnDamage, RepoError, Repository, RunStreams, Secret};
use icecore::store::SharedStore;
use icecore::task::{Cancel, Task};
use icecore::types::{Content, Entry, Node, SnapshotId};

use crate::tree::{Thing, Things, Tree};

/// Contents of a snapshot by source name.
pub type Held = BTreeMap<String, Things>;

/// Creates a temporary directory for trees and caches, in memory if the machine supports that.
pub fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let made = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    made.expect("a temporary directory")
}

pub fn init(store: &SharedStore) {
    Repository::init(store, &Secret::empty(), "model").expect("init");
}

/// A machine that makes backups.
pub struct Host {
    pub name: &'static str,
    pub tree: Tree,
    pub blocks: Tree,
    /// The dump of its database; empty if it has none.
    pub dump: Vec<u8>,
    /// True if it makes a checkpoint whenever it can.
    pub checkpoints: bool,
    dir: PathBuf,
}

impl Host {
    pub fn new(name: &'static str, dir: PathBuf) -> Self {
        let tree = Tree::new(dir.join("tree"));
        let blocks = Tree::new(dir.join("blocks"));
        Self {
            name,
            tree,
            blocks,
            dump: Vec::new(),
            checkpoints: false,
            dir,
        }
    }

    pub fn cache(&self) -> PathBuf {
        self.dir.join("cache")
    }

    /// Returns the directory for a copy of the cache that can be put back later.
    pub fn old_cache(&self) -> PathBuf {
        self.dir.join("old-cache")
    }

    pub fn open(&self, store: &SharedStore) -> Result<Repository, RepoError> {
        let repo = Repository::open(SharedStore::clone(store), &Secret::empty(), &self.cache())?;
        Ok(repo.with_client(self.name))
    }

    /// Returns the contents that a backup made now must have.
    pub fn held(&self) -> Held {
        let mut held = Held::new();
        held.insert("tree".into(), self.tree.things.clone());
        held.insert("blocks".into(), self.blocks.things.clone());
        if !self.dump.is_empty() {
            held.insert(
                "db".into(),
                Things::from([(String::new(), Thing::File(self.dump.clone()))]),
            );
        }
        held
    }

    pub fn options(&self) -> BackupOptions {
        let tree = |tree: &Tree, name: &str, immutable| {
            SourceSpec::Tree(Box::new(TreeSpec {
                immutable,
                ..TreeSpec::new(name, tree.root())
            }))
        };

        let mut sources = vec![
            tree(&self.tree, "tree", false),
            tree(&self.blocks, "blocks", true),
        ];
        if !self.dump.is_empty() {
            let input = Box::new(std::io::Cursor::new(self.dump.clone()));
            sources.push(SourceSpec::Stream {
                name: "db".into(),
                input,
            });
        }

        let often = if self.checkpoints {
            Duration::ZERO
        } else {
            Duration::from_secs(300)
        };

        BackupOptions {
            checkpoint_every: often,
            allow_empty: true,
            level: 1,
            threads: Some(1),
            grain_seconds: Some(0),
            ..BackupOptions::new(self.name, sources)
        }
    }
}

/// Reads everything in a snapshot through the library, which checks every chunk.
pub fn read_back(repo: &Repository, id: &SnapshotId) -> Result<Held, Error> {
    let snapshot = repo.read_snapshot(id)?;
    let reader = ChunkReader::new(repo, 4 << 20);
    let content = |content: &Content| -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        write_content(
            &reader,
            content,
            &mut out,
            Task::new(&Recording::default(), &Cancel::new()),
        )?;
        Ok(out)
    };

    let mut held = Held::new();
    for source in &snapshot.sources {
        let mut things = Things::new();
        match &source.kind {
            SourceKind::Stream {
                content: stream, ..
            } => {
                things.insert(String::new(), Thing::File(content(stream)?));
            }
            SourceKind::Tree { runs, .. } => {
                let mut merged = MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail)?;
                while let Some(entry) = merged.next_entry()? {
                    let thing = match &entry.node {
                        Node::File { content: file, .. } => Thing::File(content(file)?),
                        Node::Directory { .. } => Thing::Directory,
                        Node::Symlink { target, .. } => Thing::Symlink(text(target)),
                        _ => Thing::Symlink(odd(&entry)),
                    };
                    things.insert(text(&entry.path.to_slashed()), thing);
                }
            }
        }
        held.insert(source.name.clone(), things);
    }

    Ok(held)
}

fn odd(entry: &Entry) -> String {
    format!("what no tree here has: {entry:?}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the first difference as text, or `None` if both are equal.
pub fn difference(wanted: &Held, found: &Held) -> Option<String> {
    let flat = |held: &Held| -> BTreeMap<(String, String), Thing> {
        let all = held.iter().flat_map(|(source, things)| {
            things
                .iter()
                .map(move |(path, thing)| ((source.clone(), path.clone()), thing.clone()))
        });
        all.collect()
    };
    let wanted = flat(wanted);
    let found = flat(found);
    let keys: std::collections::BTreeSet<_> = wanted.keys().chain(found.keys()).collect();
    keys.into_iter()
        .find(|key| wanted.get(key) != found.get(key))
        .map(|key| {
            format!(
                "{}:{} should be {:?} and is {:?}",
                key.0,
                key.1,
                wanted.get(key),
                found.get(key)
            )
        })
}

/// Verifies structure and all data with a separate cache. Ignores late snapshots, which are not
/// damage.
pub fn verify_all(store: &SharedStore) -> Result<VerifyReport, String> {
    let dir = scratch();
    let repo = Repository::open(SharedStore::clone(store), &Secret::empty(), dir.path());
    let repo = repo.map_err(|err| format!("does not open: {err}"))?;
    let options = VerifyOptions {
        read_data: true,
        threads: 1,
        ..VerifyOptions::default()
    };
    let report = verify(
        &repo,
        &options,
        Task::new(&Recording::default(), &Cancel::new()),
    );
    let report = report.map_err(|err| format!("verify failed: {err}"))?;
    let bad = report
        .findings
        .iter()
        .find(|finding| finding.kind != FindingKind::LateSnapshot);
    match bad {
        Some(finding) => Err(format!("verify found {finding}")),
        None => Ok(report),
    }
}

/// Returns the names of all snapshots in the store except checkpoints.
pub fn committed(repo: &Repository) -> Result<Vec<SnapshotId>, Error> {
    let mut bad = None;
    let all = repo.snapshots(&mut |_, err| bad = Some(err))?;
    match bad {
        Some(err) => Err(err.into()),
        None => Ok(all
            .into_iter()
            .filter(|found| found.snapshot.state != SnapshotState::Checkpoint)
            .map(|found| found.id)
            .collect()),
    }
}

/// Wraps a store so that a test can share it.
pub fn shared<S: icecore::store::Store + 'static>(store: S) -> SharedStore {
    Arc::new(store)
}
