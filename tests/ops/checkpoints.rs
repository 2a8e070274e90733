//! Backups that are interrupted, crash and continue. In all cases the next backup that completes
//! holds the tree and does not read captured files again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use icecore::Error;
use icecore::format::{ObjectKind, SnapshotState, SourceKind, encode_segment};
use icecore::observe::{Counter, Observer, Phase, Problem, ProgressUnit, Recording};
use icecore::ops::backup::{BackupOptions, BackupReport, SourceSpec, TreeSpec};
use icecore::ops::verify::{VerifyOptions, verify};
use icecore::read::content::write_content;
use icecore::repo::{
    ChunkReader, EntryMention, HostChoice, MergedRuns, OnDamage, Repository, RunStreams,
    StoredSnapshot, seal_object,
};
use icecore::store::{MemoryStore, ObjectBody, ObjectKey, PutMode, Store};
use icecore::task::{Cancel, Task};
use icecore::testing::{TestRepo, noise, settle, tree_options};
use icecore::types::{Extent, LeaseId, Node, SegmentBody, SegmentId};
use proptest::prelude::*;

fn options_for(world: &TestRepo, immutable: bool) -> BackupOptions {
    let tree = TreeSpec {
        immutable,
        ..world.spec()
    };
    BackupOptions {
        allow_empty: true,
        grain_seconds: Some(2),
        ..tree_options(tree)
    }
}

fn run(world: &TestRepo, immutable: bool) -> (BackupReport, Recording) {
    world.backup(options_for(world, immutable))
}

/// Backs up until `stop_at` events were counted, then stops or dies according to `death`.
fn interrupted(
    world: &mut TestRepo,
    immutable: bool,
    (what, stop_at): Stop,
    every: Duration,
    death: Death,
) {
    let cancel = Cancel::new();
    let observer = Stopper {
        recording: Recording::default(),
        what,
        left: AtomicU64::new(stop_at),
        cancel: cancel.clone(),
        store: Arc::clone(&world.store),
        left_behind: Mutex::default(),
    };
    let options = BackupOptions {
        checkpoint_every: every,
        ..options_for(world, immutable)
    };
    let result = world.backup_with_task(options, Task::new(&observer, &cancel));
    assert!(
        matches!(result, Ok(_) | Err(Error::Interrupted)),
        "{result:?}"
    );
    let left_behind = observer.left_behind.into_inner().expect("not poisoned");
    if let (Death::Killed, Some(left_behind)) = (death, left_behind) {
        world.store = Arc::new(left_behind);
    }
}

fn checkpoints(world: &TestRepo) -> Vec<StoredSnapshot> {
    let mut all = world
        .open()
        .snapshots(&mut |id, err| panic!("{id}: {err}"))
        .expect("lists");
    all.retain(|found| found.snapshot.state == SnapshotState::Checkpoint);
    all
}

/// Returns the tree of a snapshot: a file's bytes, or `None` for a directory. Asserts that the
/// directory of each path exists.
fn state(repo: &Repository, found: &StoredSnapshot) -> BTreeMap<String, Option<Vec<u8>>> {
    let Some(source) = found.snapshot.source("tree") else {
        return BTreeMap::new();
    };
    let SourceKind::Tree { runs, .. } = &source.kind else {
        panic!("not a tree")
    };
    let reader = ChunkReader::new(repo, 1 << 20);
    let mut merged =
        MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail).expect("opens");
    let mut out: BTreeMap<String, Option<Vec<u8>>> = BTreeMap::new();
    while let Some(EntryMention { entry, .. }) = merged.next_mention().expect("reads") {
        let bytes = match &entry.node {
            Node::Removed => continue,
            Node::File { content, .. } => {
                let mut bytes = Vec::new();
                let observer = Recording::default();
                write_content(
                    &reader,
                    content,
                    &mut bytes,
                    Task::new(&observer, &Cancel::new()),
                )
                .expect("reads");
                Some(bytes)
            }
            Node::Directory { .. } => None,
            other => panic!("{}: {other:?}", entry.path),
        };

        let above = entry.path.parent().map(|above| above.to_string());
        if let Some(above) = above.filter(|above| above != "/") {
            assert_eq!(
                out.get(&above),
                Some(&None),
                "the directory of {} is there",
                entry.path
            );
        }
        out.insert(entry.path.to_string(), bytes);
    }
    out
}

/// Asserts that the repository and each checkpoint are sound.
fn assert_sound(world: &TestRepo) {
    let repo = world.open();
    let report = verify(
        &repo,
        &VerifyOptions::default(),
        Task::new(&Recording::default(), &Cancel::new()),
    );
    let report = report.expect("verified");
    assert!(report.is_clean(), "{:?}", report.findings);
    for found in checkpoints(world) {
        state(&repo, &found);
    }
}

fn assert_latest_is_the_tree(world: &TestRepo) {
    let repo = world.open();
    repo.sync().expect("synced");
    let latest = repo
        .find_snapshot("latest", &HostChoice::Any)
        .expect("there is one");
    assert_eq!(latest.snapshot.state, SnapshotState::Complete);
    let mut expected = BTreeMap::new();
    walk(world.tree.path(), world.tree.path(), &mut expected);
    let mut found = state(&repo, &latest);
    found.remove("/");
    assert_eq!(found, expected);
}

fn walk(root: &Path, directory: &Path, out: &mut BTreeMap<String, Option<Vec<u8>>>) {
    for entry in fs::read_dir(directory).expect("lists") {
        let path = entry.expect("reads").path();
        let name = path
            .strip_prefix(root)
            .expect("below")
            .to_string_lossy()
            .into_owned();
        if path.is_dir() {
            out.insert(name, None);
            walk(root, &path, out);
        } else {
            out.insert(name, Some(fs::read(&path).expect("reads")));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    /// The backup is asked to stop and makes a last checkpoint.
    Asked,
    /// The store stays as it was at that moment, including the lease.
    Killed,
}

/// Events that are counted until a stop.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    /// Files that were read.
    Files,
    /// Files that were read and all visited paths.
    Anything,
}

type Stop = (What, u64);

/// Asks to stop after the given number of events, and keeps a copy of the store as a death at that
/// moment would leave it.
struct Stopper {
    recording: Recording,
    what: What,
    left: AtomicU64,
    cancel: Cancel,
    store: Arc<MemoryStore>,
    left_behind: Mutex<Option<MemoryStore>>,
}

impl Observer for Stopper {
    fn add(&self, counter: Counter, amount: u64) {
        self.recording.add(counter, amount);
        let is_file = matches!(counter, Counter::FilesNew | Counter::FilesChanged);
        if is_file || counter == Counter::Entries {
            // Give the checkpoint thread time, and let the readers keep up with the walk.
            std::thread::sleep(Duration::from_micros(500));
        }
        if is_file || self.what == What::Anything && counter == Counter::Entries {
            let left = self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    Some(left.saturating_sub(amount))
                });
            if left == Ok(1) {
                *self.left_behind.lock().expect("not poisoned") = Some(self.store.fork());
                self.cancel.cancel();
            }
        }
    }
    fn phase(&self, phase: &Phase) {
        self.recording.phase(phase);
    }
    fn expect(&self, _: u64, _: ProgressUnit) {}
    fn problem(&self, problem: &Problem) {
        panic!("{problem}");
    }
    fn detail(&self, _: &'static str, _: &icecore::observe::Subject) {}
}

#[test]
fn an_interrupted_backup_resumes_at_its_checkpoint() {
    let mut world = TestRepo::new();
    for n in 0..60 {
        world.write(&format!("d{}/f{n}", n % 7), &vec![n; 1000 + usize::from(n)]);
    }
    settle();

    interrupted(
        &mut world,
        false,
        (What::Files, 40),
        Duration::from_secs(300),
        Death::Asked,
    );
    let left = checkpoints(&world);
    assert_eq!(left.len(), 1);
    assert!(
        world
            .store
            .objects()
            .iter()
            .all(|meta| !matches!(meta.key, ObjectKey::Lease(_)))
    );

    let repo = world.open();
    assert!(
        repo.find_snapshot("latest", &HostChoice::Any).is_err(),
        "a checkpoint is never the latest"
    );
    assert!(
        repo.find_snapshot(&left[0].id.to_string(), &HostChoice::Any)
            .is_ok(),
        "it has a name"
    );

    repo.sync().expect("synced");
    let captured = state(&repo, &left[0]).values().flatten().count();
    assert!(captured >= 20, "{captured} files");
    assert_sound(&world);

    let (report, seen) = run(&world, false);
    assert_eq!(report.sources[0].parent, Some(left[0].id));
    assert_eq!(
        seen.get(Counter::FilesUnchanged),
        captured as u64,
        "none of these is read again"
    );
    assert_eq!(seen.get(Counter::FilesNew), 60 - captured as u64);
    assert_latest_is_the_tree(&world);
    assert_eq!(checkpoints(&world).len(), 0, "the commit clears them away");
}

#[test]
fn checkpoints_leave_no_trace_in_the_committed_snapshot() {
    let mut world = TestRepo::new();
    for n in 0..200 {
        world.write(&format!("d{}/f{n}", n % 7), &[n; 900]);
    }
    let puts = |world: &TestRepo| {
        world
            .store
            .objects()
            .iter()
            .filter(|meta| is_pack(&meta.key))
            .count()
    };

    interrupted(
        &mut world,
        false,
        (What::Files, 1000),
        Duration::from_millis(2),
        Death::Asked,
    );
    assert!(puts(&world) > 2, "there were checkpoints");
    assert_latest_is_the_tree(&world);
    assert_eq!(checkpoints(&world).len(), 0);

    let repo = world.open();
    let latest = repo
        .find_snapshot("latest", &HostChoice::Any)
        .expect("there");
    let SourceKind::Tree { runs, .. } = &latest.snapshot.sources[0].kind else {
        panic!("not a tree")
    };
    assert_eq!(
        runs.iter().map(|run| run.entries).collect::<Vec<_>>(),
        [208],
        "files, directories and the root"
    );
    assert_eq!(latest.snapshot.parents, []);
}

/// The entry of a new directory hides older runs below that path. After a checkpoint it must not:
/// it would hide the directory's own files in the checkpoint's run.
#[test]
fn a_new_directory_keeps_what_a_checkpoint_took_of_it() {
    let mut world = TestRepo::new();
    world.write("a", b"a");
    world.write("new", b"a file that will be a directory");
    run(&world, false);
    fs::remove_file(world.path("new")).expect("removed");
    for n in 0..300 {
        world.write(&format!("new/f{n}"), &[1; 300]);
    }
    interrupted(
        &mut world,
        false,
        (What::Files, 1000),
        Duration::from_millis(2),
        Death::Asked,
    );
    assert_latest_is_the_tree(&world);
    assert_sound(&world);
}

fn is_pack(key: &ObjectKey) -> bool {
    matches!(key, ObjectKey::Pack(_))
}

#[test]
fn a_killed_backup_leaves_its_last_checkpoint() {
    let mut world = TestRepo::new();
    for n in 0..100 {
        world.write(&format!("d{}/f{n}", n % 7), &vec![n; 1000 + usize::from(n)]);
    }
    settle();
    interrupted(
        &mut world,
        false,
        (What::Files, 90),
        Duration::from_millis(2),
        Death::Killed,
    );
    let left = checkpoints(&world);
    assert!(
        !left.is_empty() && left.len() <= 2,
        "{} checkpoints",
        left.len()
    );
    assert_sound(&world);

    let (_, seen) = run(&world, false);
    assert!(
        seen.get(Counter::FilesUnchanged) > 0,
        "something was captured before"
    );
    assert_latest_is_the_tree(&world);
    assert_sound(&world);
    // The lease may still be alive, so its checkpoint is kept.
    assert_eq!(checkpoints(&world).len(), left.len());

    let day = 24 * 3600;
    world.store.clock().advance(day);
    world.write("new", b"new");
    run(&world, false);
    assert_eq!(
        checkpoints(&world).len(),
        0,
        "overtaken, and the lease has ended"
    );
    assert_latest_is_the_tree(&world);
}

/// Another backup that is still running may delete the checkpoint that this one began from. So this
/// one first makes a checkpoint of its own with the same content.
#[test]
fn a_parent_checkpoint_may_go_while_it_is_used() {
    struct Deleter {
        recording: Recording,
        store: Arc<MemoryStore>,
        victims: Vec<ObjectKey>,
    }
    impl Observer for Deleter {
        fn add(&self, counter: Counter, amount: u64) {
            self.recording.add(counter, amount);
        }
        fn phase(&self, phase: &Phase) {
            if matches!(phase, Phase::Source { .. }) {
                self.victims
                    .iter()
                    .for_each(|key| self.store.delete(key).expect("deleted"));
            }
        }
        fn expect(&self, _: u64, _: ProgressUnit) {}
        fn problem(&self, problem: &Problem) {
            panic!("{problem}");
        }
        fn detail(&self, _: &'static str, _: &icecore::observe::Subject) {}
    }

    let mut world = TestRepo::new();
    for n in 0..40 {
        world.write(&format!("f{n}"), &[n; 900]);
    }
    settle();
    interrupted(
        &mut world,
        false,
        (What::Files, 30),
        Duration::from_secs(300),
        Death::Asked,
    );
    let left = checkpoints(&world);
    assert_eq!(left.len(), 1);

    let victims = vec![ObjectKey::Snapshot(left[0].id)];
    let deleter = Deleter {
        recording: Recording::default(),
        store: Arc::clone(&world.store),
        victims,
    };
    world
        .backup_with_task(
            options_for(&world, false),
            Task::new(&deleter, &Cancel::new()),
        )
        .expect("committed all the same");
    assert!(
        deleter.recording.get(Counter::FilesUnchanged) > 0,
        "it went on from there"
    );
    assert_latest_is_the_tree(&world);
    assert_eq!(checkpoints(&world).len(), 0);
    assert_sound(&world);
}

/// After the filters change no file is skipped. A checkpoint in between must not have the digest of
/// the new filters, since most of its entries are still the parent's, captured under the old ones.
#[test]
fn a_checkpoint_under_new_filters_hides_no_newly_included_file() {
    let mut world = TestRepo::new();
    world.write("a/x", b"x");
    world.write("z/hidden.tmp", b"hidden");
    world.write("z/y", b"y");
    settle();
    let immutable = true;
    let mut options = options_for(&world, immutable);
    let SourceSpec::Tree(tree) = &mut options.sources[0] else {
        panic!("a tree")
    };
    tree.filter.excludes.push("*.tmp".into());
    world.backup(options);

    for n in 0..200 {
        world.write(&format!("a/new{n}"), b"new");
    }
    settle();
    // Stops before z is visited.
    interrupted(
        &mut world,
        immutable,
        (What::Files, 20),
        Duration::from_secs(300),
        Death::Asked,
    );
    run(&world, immutable);
    assert_latest_is_the_tree(&world);
}

/// Lost chunks are stored again if a file still has them; other files are not read.
#[test]
fn lost_chunks_heal_and_nothing_else_is_read() {
    let world = TestRepo::new();
    world.write("a/small", &noise(1, 5000));
    // Long enough for list nodes: chunks are 64 KiB.
    world.write("a/large", &noise(2, 6 << 20));
    world.write("b/other", &noise(3, 7000));
    settle();

    run(&world, false);
    let repo = world.open();
    repo.sync().expect("synced");
    let latest = repo
        .find_snapshot("latest", &HostChoice::Any)
        .expect("there");
    let SourceKind::Tree { runs, .. } = &latest.snapshot.sources[0].kind else {
        panic!("not a tree")
    };
    let reader = ChunkReader::new(&repo, 1 << 20);
    let mut merged =
        MergedRuns::open(&reader, runs, RunStreams::All, OnDamage::Fail).expect("opens");
    let mut lost = Vec::new();

    while let Some(entry) = merged.next_entry().expect("reads") {
        let Some(content) = entry.content() else {
            continue;
        };
        let mut extents = icecore::read::content::ContentReader::new(&reader, content);
        if entry.path.to_string().ends_with("other") {
            continue;
        }
        while let Some(extent) = extents.next_extent().expect("reads") {
            if let Extent::Chunk { id, .. } = extent {
                lost.push(id);
            }
        }
    }

    // A chunk near the end of the large file, and that of the small one. Their pack is condemned,
    // so they count as gone. Its other chunks are gone too, but not listed as lost.
    let mut lost = vec![lost[0], lost[lost.len() - 2], *lost.last().expect("chunks")];
    lost.sort();
    let condemned = repo
        .with_index(icecore::index::Index::packs)
        .expect("packs")
        .iter()
        .map(|pack| pack.id)
        .collect();
    let writer = LeaseId::new([9; 16]);
    let body = SegmentBody {
        condemned,
        lost: lost.clone(),
        ..SegmentBody::empty(writer)
    };

    let (bytes, name) = seal_object(
        repo.keys(),
        ObjectKind::Segment,
        writer,
        &encode_segment(&body),
    )
    .expect("sealed");
    let key = ObjectKey::Segment(SegmentId::from(name));
    world
        .store
        .put(&key, ObjectBody::Bytes(&bytes), PutMode::CreateOnly)
        .expect("put");
    drop(repo);

    let (_, seen) = run(&world, false);
    assert_eq!(seen.problems(), []);
    assert_eq!(
        seen.get(Counter::BytesRead),
        5000 + (6 << 20),
        "both files that lack something, not the other"
    );
    let repo = world.open();
    repo.sync().expect("synced");
    assert_eq!(
        repo.with_index(icecore::index::Index::lost)
            .expect("asked")
            .len(),
        0,
        "all is healed"
    );
    let (_, seen) = run(&world, false);
    assert_eq!(seen.get(Counter::BytesRead), 0);
}

#[derive(Debug, Clone)]
enum Edit {
    Write(Vec<u8>, u8),
    Remove(Vec<u8>),
    Directory(Vec<u8>),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    // Few names, so that files become directories and back.
    let path = || prop::collection::vec(0..3u8, 1..5);
    let edit = prop_oneof![
        6 => (path(), any::<u8>()).prop_map(|(path, seed)| Edit::Write(path, seed)),
        2 => path().prop_map(Edit::Remove),
        1 => path().prop_map(Edit::Directory),
    ];
    prop::collection::vec(edit, 5..60)
}

fn apply(root: &Path, edits: &[Edit], immutable: bool) {
    let place = |path: &[u8]| {
        path.iter()
            .fold(root.to_owned(), |at, part| at.join(format!("n{part}")))
    };

    // Replaces files that are in the way of a directory.
    let make = |directory: &Path| {
        let mut at = root.to_owned();
        for part in directory.strip_prefix(root).expect("below") {
            at.push(part);
            if at.is_file() {
                fs::remove_file(&at).expect("removed");
            }
        }
        fs::create_dir_all(directory).expect("made");
    };
    let clear = |path: &Path| {
        if path.is_dir() {
            fs::remove_dir_all(path).expect("removed");
        } else if path.exists() {
            fs::remove_file(path).expect("removed");
        }
    };

    for edit in edits {
        match edit {
            Edit::Write(path, seed) => {
                let path = place(path);
                if immutable && path.is_file() {
                    continue;
                }
                make(path.parent().expect("above"));
                clear(&path);
                fs::write(&path, vec![*seed; 200 + usize::from(*seed)]).expect("written");
            }
            Edit::Remove(path) => clear(&place(path)),
            Edit::Directory(path) => make(&place(path)),
        }
    }
}

/// How a run is interrupted: after how many events, the time between checkpoints (ms), and whether
/// it is killed.
fn stops() -> impl Strategy<Value = Vec<(u64, u64, bool)>> {
    prop::collection::vec(
        (
            1..80u64,
            prop::sample::select(vec![1u64, 3, 10_000]),
            any::<bool>(),
        ),
        0..4,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn a_backup_that_was_stopped_anywhere_holds_the_tree_in_the_end(
        rounds in prop::collection::vec((edits(), stops()), 1..4),
        immutable in any::<bool>(),
        settled in any::<bool>(),
    ) {
        let mut world = TestRepo::new();
        for (edits, stops) in rounds {
            apply(world.tree.path(), &edits, immutable);
            if settled {
                settle();
            }
            for (stop_at, every, killed) in stops {
                let death = if killed { Death::Killed } else { Death::Asked };
                interrupted(&mut world, immutable, (What::Anything, stop_at), Duration::from_millis(every), death);
                assert_sound(&world);
            }
            run(&world, immutable);
            assert_latest_is_the_tree(&world);
            assert_sound(&world);
        }
    }
}
