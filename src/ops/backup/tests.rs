//! A stopped backup: directories that are not done, runs that are being merged.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use super::reader::job::{FileJob, JobBatch};
use super::run::sink::{DirectoryNode, EntrySink};
use super::run::stack::RunStack;
use crate::observe::Counters;
use crate::ops::testing::{Lab, lease, write_runs};
use crate::repo::{ChunkReader, Claims, Packer, PackerOptions, RepoError};
use crate::source::SourceDir;
use crate::types::{Entry, EntryFlags, Metadata, Node, RelPath};

/// Returns the flags in a checkpoint of the directory after `settled`, its last reference, was
/// dropped.
pub(super) fn flags_after(settled: Arc<DirectoryNode>) -> EntryFlags {
    let scratch = tempfile::tempdir().expect("a directory");
    let sink = EntrySink::new(scratch.path(), 1 << 20);
    sink.begin(&settled);
    sink.settle(settled).expect("put");
    let mut batch = sink.cut().expect("cut").expect("an entry");
    let flags = batch
        .sorted
        .next()
        .expect("reads")
        .expect("an entry")
        .entry
        .flags;
    assert!(batch.sorted.next().expect("reads").is_none());
    flags
}

pub(super) fn node() -> Arc<DirectoryNode> {
    Arc::new(DirectoryNode::new(
        RelPath::root(),
        Metadata::default(),
        None,
        false,
    ))
}

fn job(directory: &Path, node: Option<Arc<DirectoryNode>>) -> FileJob {
    let directory = SourceDir::open_root(directory).expect("opens");
    let stat = directory.stat_self().expect("stat");
    let path = RelPath::root().join(b"unread").expect("a path");
    FileJob {
        directory,
        name: b"unread".to_vec(),
        path,
        stat,
        is_racy: false,
        window_seconds: 0,
        previous: None,
        node,
    }
}

/// Of two files of a directory, one was dropped unread because the backup was asked to stop. Then
/// the other was done and dropped the last reference to the directory, whose entry went into the
/// last checkpoint as complete. The next backup of an immutable source skipped the directory, and
/// the file never got into a snapshot.
#[test]
fn a_directory_with_an_unread_file_is_listed_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = node();
    assert!(
        !flags_after(self::node()).contains(EntryFlags::REVISIT),
        "all of it was seen"
    );
    drop(job(dir.path(), Some(Arc::clone(&node))));
    let flags = flags_after(node);
    assert!(flags.contains(EntryFlags::REVISIT), "it is listed again");
    assert!(
        flags.contains(EntryFlags::UNSEEN),
        "and accounts for nothing"
    );
}

/// 64 workers with batches of 32 directories each, and two more waiting for each of them, needed
/// 6,000 descriptors.
#[test]
fn a_batch_of_files_holds_few_directories_open() {
    let directories: Vec<_> = (0..40)
        .map(|_| tempfile::tempdir().expect("a directory"))
        .collect();
    let fill = |files_each: usize| {
        let mut batch = JobBatch::default();
        let mut jobs = directories
            .iter()
            .flat_map(|dir| std::iter::repeat_n(dir, files_each));
        jobs.position(|dir| batch.push(job(dir.path(), None)))
            .map(|last| last + 1)
    };
    assert_eq!([1, 3, 8, 40].map(fill), [8, 22, 32, 32].map(Some));
}

/// At the end of a source, runs of millions of entries may be merged after the last new entry, and
/// only new entries led to a check for cancellation.
#[test]
fn a_merge_with_only_old_entries_left_can_be_stopped() {
    let lab = Lab::new();
    let repo = lab.open();
    let held = lease(&repo);
    let entry = |n: u32| Entry {
        path: RelPath::root()
            .join(format!("{n:06}").as_bytes())
            .expect("a path"),
        flags: EntryFlags::empty(),
        node: Node::Fifo {
            meta: Metadata::default(),
        },
    };

    let runs = [
        (0..4000).map(entry).collect(),
        (4000..8000).map(entry).collect(),
    ];
    let (all, _) = write_runs(&repo, &held, &runs, &[]);
    let mut runs = RunStack { all, own: 2 };
    let claims = Claims::new(repo.index()).expect("claims");
    let observer = Counters::default();

    let reader = ChunkReader::new(&repo, 0);
    let checks = Cell::new(0);
    let is_stopped = || checks.replace(checks.get() + 1) > 0;

    std::thread::scope(|scope| {
        let options = PackerOptions {
            workers: 1,
            level: 1,
            dry_run: false,
        };
        let packer =
            Packer::start(scope, &repo, Some(&held), &claims, options, &observer).expect("started");
        let merged = runs.complete(&packer.feed(), &reader, None, 0, &is_stopped);
        assert!(matches!(merged, Err(RepoError::Stopped)), "{merged:?}");
        packer.finish().expect("finished");
    });
}
