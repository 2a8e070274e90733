//! Sequences of runs against a map: after any writes, merges and seeks, the runs describe the same
//! entries as the map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::run_writer::RunShape;
use super::super::{
    ChunkReader, EntryMention, MergedRuns, OnDamage, PutChunk, RepoError, Repository, RunStreams,
    RunWriter, merged_into, tiers_to_merge,
};
use super::{Fixture, OPTIONS, lease, pack};
use crate::format::{PageRef, RunRef, decode_node, decode_root};
use crate::repo::Lease;
use crate::store::ObjectKey;
use crate::types::{
    ChunkClass, ChunkId, Content, Entry, EntryFlags, Extent, Metadata, Node, PackId, RelPath,
    Timestamp,
};

/// A few entries per page and a few pages per node, so that small trees have many of both. With five
/// references in each node, the format's five levels have room for 3,125 pages: more than the
/// entries that the random steps can make.
const SHAPE: RunShape = RunShape {
    page_bytes: 120,
    node_bytes: 260,
    node_refs_min: 5,
};

/// An entry's content. The number stands for everything that can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Directory(u8),
    File(u8),
    Link(u8),
}

impl Thing {
    fn is_directory(self) -> bool {
        matches!(self, Self::Directory(_))
    }
}

type Model = BTreeMap<RelPath, Thing>;

fn path(text: &str) -> RelPath {
    RelPath::from_slashed(text.as_bytes()).expect("a good path")
}

fn entry(path: &RelPath, thing: Thing) -> Entry {
    let meta = |n: u8| Metadata {
        mtime: Timestamp::from_seconds(n.into()),
        nlink: 1,
        ..Metadata::default()
    };
    let node = match thing {
        Thing::Directory(n) => Node::Directory { meta: meta(n) },
        Thing::File(n) => {
            let content = Content {
                size: 2,
                extents: vec![Extent::Literal(vec![n, 1])],
            };
            Node::File {
                meta: meta(n),
                content,
            }
        }
        Thing::Link(n) => Node::Symlink {
            meta: meta(n),
            target: vec![b'x', n.max(1)],
        },
    };
    Entry {
        path: path.clone(),
        flags: EntryFlags::empty(),
        node,
    }
}

/// One change of the tree.
#[derive(Debug, Clone)]
enum Edit {
    /// Puts an entry. Missing directories above it are made, and replace other entries.
    Put(RelPath, Thing),
    Remove(RelPath),
    /// Many files in a directory.
    Fill(RelPath, u8),
}

fn apply(model: &mut Model, edit: &Edit) {
    match edit {
        Edit::Put(path, thing) => {
            let mut above = path.parent();
            while let Some(directory) = above {
                if !model
                    .get(&directory)
                    .is_some_and(|thing| thing.is_directory())
                {
                    model.insert(directory.clone(), Thing::Directory(0));
                }
                above = directory.parent();
            }
            if !thing.is_directory() {
                model.retain(|other, _| !other.is_below(path));
            }
            model.insert(path.clone(), *thing);
        }
        Edit::Remove(path) => model.retain(|other, _| other != path && !other.is_below(path)),
        Edit::Fill(path, count) => {
            apply(model, &Edit::Put(path.clone(), Thing::Directory(9)));
            for n in 0..*count {
                let name = format!("{:08x}", u32::from(n).wrapping_mul(0x9e37_79b9));
                model.insert(
                    path.join(name.as_bytes()).expect("a good path"),
                    Thing::File(n),
                );
            }
        }
    }
}

/// Returns the mentions that a backup writes for the change from `before` to `now`, exactly as
/// [R8](docs/protocol.md#r8) requires. Paths for which `again` is true are mentioned even if
/// unchanged.
fn mentions(before: &Model, now: &Model, again: &dyn Fn(&RelPath) -> bool) -> Vec<EntryMention> {
    let mut out = Vec::new();
    let is_directory =
        |model: &Model, path: &RelPath| model.get(path).is_some_and(|thing| thing.is_directory());
    let paths: std::collections::BTreeSet<&RelPath> = before.keys().chain(now.keys()).collect();

    for path in paths {
        let was_directory = is_directory(before, path);
        match (before.get(path), now.get(path)) {
            (Some(old), Some(new)) if old == new && !again(path) => {}
            (_, Some(new)) => {
                let mut entry = entry(path, *new);
                if new.is_directory() && !was_directory {
                    entry.flags = EntryFlags::COVER;
                }
                out.push(EntryMention {
                    entry,
                    in_directories: new.is_directory() || was_directory,
                });
            }
            // Entries of a directory that no longer exists need no removal.
            (_, None)
                if path
                    .parent()
                    .is_some_and(|parent| !is_directory(now, &parent)) => {}
            (_, None) => {
                let entry = Entry {
                    path: path.clone(),
                    flags: EntryFlags::empty(),
                    node: Node::Removed,
                };
                out.push(EntryMention {
                    entry,
                    in_directories: was_directory,
                });
            }
        }
    }
    out
}

/// A repository with one source, and the map of its expected content.
struct World {
    fixture: Fixture,
    repo: Repository,
    lease: Lease,
    runs: Vec<RunRef>,
    model: Model,
}

impl World {
    fn new() -> Self {
        let fixture = Fixture::new();
        let repo = fixture.open("a");
        let lease = lease(&repo);
        Self {
            fixture,
            repo,
            lease,
            runs: Vec::new(),
            model: Model::new(),
        }
    }

    /// Makes a backup after these edits. `join` is the number of runs to merge with; `None` leaves
    /// it to the tiers.
    fn backup(&mut self, edits: &[Edit], join: Option<usize>, again: &dyn Fn(&RelPath) -> bool) {
        let mut now = self.model.clone();
        now.entry(RelPath::root()).or_insert(Thing::Directory(1));
        edits.iter().for_each(|edit| apply(&mut now, edit));
        let new = mentions(&self.model, &now, again);
        let join = join
            .unwrap_or_else(|| tiers_to_merge(new.len() as u64, &self.runs))
            .min(self.runs.len());
        if !new.is_empty() {
            let rest = self.runs.split_off(join);
            let old = std::mem::replace(&mut self.runs, rest);
            let includes_oldest = self.runs.is_empty();
            let run = self.write(&new, &old, includes_oldest).expect("merges");
            self.runs.splice(0..0, run);
        }
        self.model = now;
    }

    fn write(
        &self,
        new: &[EntryMention],
        old: &[RunRef],
        includes_oldest: bool,
    ) -> Result<Option<RunRef>, RepoError> {
        let work = |put: &mut PutChunk<'_>| {
            let reader = ChunkReader::new(&self.repo, 1 << 20);
            let old = MergedRuns::open(&reader, old, RunStreams::All, OnDamage::Fail)?;
            let mut new = new.iter().cloned();
            let mut put = |bytes: &[u8]| put(bytes);
            merged_into(
                || Ok(new.next()),
                old,
                includes_oldest,
                RunWriter::with_shape(&mut put, SHAPE),
            )
        };
        let packed = pack(&self.repo, Some(&self.lease), OPTIONS, |_, metadata| {
            work(&mut |bytes: &[u8]| metadata.add(bytes))
        });
        packed.map(|(run, _)| run)
    }

    fn expected(&self) -> Vec<Entry> {
        self.model
            .iter()
            .map(|(path, thing)| entry(path, *thing))
            .collect()
    }

    fn read(&self, which: RunStreams) -> Result<Vec<Entry>, RepoError> {
        let reader = ChunkReader::new(&self.repo, 1 << 20);
        let mut merged = MergedRuns::open(&reader, &self.runs, which, OnDamage::Fail)?;
        let mut out = Vec::new();
        while let Some(entry) = merged.next_entry()? {
            out.push(uncovered(entry));
        }
        Ok(out)
    }

    fn check(&self) {
        assert_eq!(self.read(RunStreams::All).expect("reads"), self.expected());
        let shown = self.read(RunStreams::Directories).expect("reads");
        let (directories, others): (Vec<_>, Vec<_>) =
            shown.into_iter().partition(Entry::is_directory);
        let expected: Vec<Entry> = self
            .expected()
            .into_iter()
            .filter(Entry::is_directory)
            .collect();
        assert_eq!(directories, expected, "directory pages");
        for other in others {
            assert!(
                !self
                    .model
                    .get(&other.path)
                    .is_some_and(|thing| thing.is_directory()),
                "{}",
                other.path
            );
        }
    }

    /// Seeks from the start, after `steps` entries and after each other seek. The entries after a
    /// seek must be those that skipping would show.
    fn check_seeks(&self, which: RunStreams, steps: usize, keys: &[Vec<u8>]) {
        let all = self.read(which).expect("reads");
        let reader = ChunkReader::new(&self.repo, 1 << 20);
        let mut merged =
            MergedRuns::open(&reader, &self.runs, which, OnDamage::Fail).expect("opens");
        let mut at = 0;
        for key in keys {
            for _ in 0..steps {
                let next = merged.next_entry().expect("reads").map(uncovered);
                assert_eq!(next.as_ref(), all.get(at));
                at = (at + 1).min(all.len());
            }
            merged.seek(key);
            at = at.max(all.partition_point(|entry| entry.path.key() < key.as_slice()));
        }
        for expected in &all[at..] {
            assert_eq!(
                merged.next_entry().expect("reads").map(uncovered).as_ref(),
                Some(expected)
            );
        }
        assert_eq!(merged.next_entry().expect("reads"), None);
    }
}

fn uncovered(mut entry: Entry) -> Entry {
    entry.flags = entry.flags.without(EntryFlags::COVER);
    entry
}

/// Few names, so that paths collide, and prefixes and extensions of one another, so that the order
/// by component matters.
fn any_path() -> impl Strategy<Value = RelPath> {
    let name = prop::sample::select(vec!["a", "a.b", "a\x01", "ab", "b", "0123456789abcdef"]);
    prop::collection::vec(name, 1..=4).prop_map(|names| path(&names.join("/")))
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let thing = (0u8..3, 0u8..4).prop_map(|(kind, n)| match kind {
        0 => Thing::Directory(n),
        1 => Thing::File(n),
        _ => Thing::Link(n),
    });
    prop_oneof![
        6 => (any_path(), thing).prop_map(|(path, thing)| Edit::Put(path, thing)),
        3 => any_path().prop_map(Edit::Remove),
        1 => (any_path(), 1u8..60).prop_map(|(path, count)| Edit::Fill(path, count)),
    ]
}

#[derive(Debug, Clone)]
struct Step {
    edits: Vec<Edit>,
    join: Option<usize>,
    again: u8,
    seeks: Vec<RelPath>,
    steps: usize,
}

fn any_step() -> impl Strategy<Value = Step> {
    let edits = prop::collection::vec(any_edit(), 0..6);
    let join = prop::option::weighted(0.5, 0usize..4);
    let seeks = prop::collection::vec(any_path(), 1..4);
    (edits, join, 0u8..8, seeks, 0usize..5).prop_map(|(edits, join, again, seeks, steps)| Step {
        edits,
        join,
        again,
        seeks,
        steps,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn runs_agree_with_a_map(steps in prop::collection::vec(any_step(), 1..10)) {
        let mut world = World::new();
        for step in steps {
            // Some unchanged paths are mentioned again, as racy files are.
            let again = |path: &RelPath| path.key().iter().map(|&b| b % 8).sum::<u8>() % 8 == step.again;
            world.backup(&step.edits, step.join, &again);
            world.check();
            let mut keys: Vec<Vec<u8>> = step.seeks.iter().map(|path| path.key().to_vec()).collect();
            keys.extend(step.seeks.iter().filter_map(RelPath::after_subtree));
            world.check_seeks(RunStreams::All, step.steps, &keys);
            keys.sort();
            world.check_seeks(RunStreams::Directories, step.steps, &keys);
            world.check_seeks(RunStreams::All, step.steps, &keys);
        }
    }
}

/// The largest tree of random steps fits into a run of the tests' shape.
#[test]
fn the_most_and_longest_names_of_random_steps_make_a_run() {
    let mut world = World::new();
    let longest = ["0123456789abcdef"; 4].join("/");
    for step in 0..9u8 {
        let edits: Vec<Edit> = (0..5u8)
            .map(|edit| Edit::Fill(path(&format!("{longest}/{step}{edit}")), 59))
            .collect();
        world.backup(&edits, Some(usize::MAX), &no_more);
    }
    world.check();
}

/// [R9](docs/protocol.md#r9): each run is more than twice as large as the next newer one.
#[test]
fn the_number_of_runs_grows_with_the_logarithm() {
    let run = |entries| RunRef {
        root: ChunkId::new([0; 32]),
        entries,
        bytes: 0,
        content: 0,
        hides: 0,
    };
    let mut runs: Vec<RunRef> = Vec::new();
    let (mut rewritten, mut total, mut most) = (0u64, 0u64, 0);
    for n in 0..10_000u64 {
        let new = 1 + n * 7919 % 100;
        let join = tiers_to_merge(new, &runs);
        let joined: u64 = runs.drain(..join).map(|run| run.entries).sum();
        rewritten += joined;
        total += new;
        runs.insert(0, run(new + joined));
        assert!(
            runs.windows(2)
                .all(|pair| pair[1].entries > 2 * pair[0].entries),
            "{runs:?}"
        );
        // 500,000 entries are 2^19.
        most = most.max(runs.len());
    }

    assert!(most <= 19, "{most} runs");
    assert!(
        rewritten < 12 * total,
        "each entry was rewritten {} times",
        rewritten / total
    );
    assert_eq!(
        tiers_to_merge(0, &runs),
        0,
        "a backup that adds nothing merges nothing"
    );
    assert_eq!(tiers_to_merge(u64::MAX, &runs), runs.len());
}

fn put(at: &str, thing: Thing) -> Edit {
    Edit::Put(path(at), thing)
}

fn no_more(_: &RelPath) -> bool {
    false
}

/// I15: the entries of a directory must not show through the file that replaced it, nor through the
/// directory that replaced the file, however the runs are merged.
#[test]
fn i15_a_directory_becomes_a_file_and_a_directory_again() {
    for join in [0, 1, 2] {
        let mut world = World::new();
        world.backup(
            &[put("a/b/c", Thing::File(1)), put("a.b", Thing::File(1))],
            Some(0),
            &no_more,
        );
        world.backup(&[put("a", Thing::File(2))], Some(join), &no_more);
        world.check();
        assert_eq!(world.model.len(), 3);
        world.backup(
            &[put("a", Thing::Directory(3)), put("a/d", Thing::File(3))],
            Some(join),
            &no_more,
        );
        world.check();
        assert!(!world.model.contains_key(&path("a/b")));
    }
}

/// I16: two newer runs are merged, one of them with a removal. The oldest run, which has the path,
/// is not merged. If the merge dropped the removal, the path would come back.
#[test]
fn i16_a_removal_survives_the_merge_of_the_newest_runs() {
    let mut world = World::new();
    world.backup(
        &[put("a/b", Thing::File(1)), put("c", Thing::File(1))],
        Some(0),
        &no_more,
    );
    world.backup(&[Edit::Remove(path("a"))], Some(0), &no_more);
    world.backup(&[put("c", Thing::File(2))], Some(1), &no_more);
    assert_eq!(world.runs.len(), 2);
    world.check();
    // Once the oldest run is merged too, the removal is dropped.
    world.backup(&[put("c", Thing::File(3))], Some(2), &no_more);
    world.check();
    let (runs, entries) = (world.runs.len(), world.runs[0].entries);
    assert_eq!((runs, entries), (1, 2), "the root and c alone");
}

/// I17: a directory is removed and made again with one child. When these two runs are merged, the
/// new directory's entry is the newest mention and the removal is dropped, so the merged entry must
/// have the removal's cover.
#[test]
fn i17_a_recreated_directory_still_hides_its_old_entries() {
    for (join_2, join_3) in [(0, 0), (0, 1), (1, 1), (0, 2)] {
        let mut world = World::new();
        world.backup(
            &[put("a/old", Thing::File(1)), put("b", Thing::File(1))],
            Some(0),
            &no_more,
        );
        world.backup(&[Edit::Remove(path("a"))], Some(join_2), &no_more);
        world.backup(&[put("a/new", Thing::File(1))], Some(join_3), &no_more);
        world.check();
        world.backup(&[put("a", Thing::Directory(5))], Some(1), &no_more);
        world.check();
        assert!(!world.model.contains_key(&path("a/old")));
    }
}

/// A seek below a path that a newer run made a file found the old directory's entries, because it
/// skipped the newer mention and its cover. Found by the property test; `ls SNAP:source/a/b` would
/// have listed them.
#[test]
fn a_seek_below_a_file_does_not_find_the_old_directory() {
    let mut world = World::new();
    world.backup(
        &[put("a/b/c", Thing::File(1)), put("b", Thing::File(1))],
        Some(0),
        &no_more,
    );
    world.backup(&[put("a", Thing::File(2))], Some(0), &no_more);
    for which in [RunStreams::All, RunStreams::Directories] {
        world.check_seeks(which, 0, &[path("a/b").key().to_vec()]);
        world.check_seeks(
            which,
            1,
            &[path("a/b/c").key().to_vec(), path("a").key().to_vec()],
        );
    }
}

/// Returns all page references below a tree of the newest run, left to right.
fn pages(world: &World, directories: bool) -> Vec<PageRef> {
    fn below(reader: &ChunkReader<'_>, level: u8, refs: Vec<PageRef>, out: &mut Vec<PageRef>) {
        for page in refs {
            if level == 0 {
                out.push(page);
                continue;
            }
            let bytes = reader.chunk(ChunkClass::Metadata, &page.id).expect("reads");
            below(
                reader,
                level - 1,
                decode_node(&bytes, level - 1).expect("decodes").refs,
                out,
            );
        }
    }

    let reader = ChunkReader::new(&world.repo, 1 << 20);
    let root = decode_root(
        &reader
            .chunk(ChunkClass::Metadata, &world.runs[0].root)
            .expect("reads"),
    )
    .expect("decodes");
    let tree = if directories {
        root.directories
    } else {
        root.others
    };
    assert!(tree.level > 0, "the test wants nodes");

    let mut out = Vec::new();
    below(&reader, tree.level, tree.refs, &mut out);
    out
}

/// I18: a page of the parent's newest run cannot be read. A backup reads strictly and must get an
/// error. Restore and `ls` continue, and report the range whose entries are uncertain. It ends at
/// the next page, even if that is in another node (it used to extend to the run's end).
#[test]
fn i18_an_unreadable_page_is_an_error_or_an_uncertain_range() {
    let mut world = World::new();
    world.backup(
        &[Edit::Fill(path("a"), 200), put("b", Thing::File(1))],
        Some(0),
        &no_more,
    );
    let all = pages(&world, false);
    assert!(all.len() > 20);
    let reader = ChunkReader::new(&world.repo, 1 << 20);
    for lost in [0, 5, 11, all.len() - 1] {
        // Make a run with one unreadable page: its reference names a chunk that does not exist.
        let missing = ChunkId::new([lost as u8; 32]);
        let runs = [with_page_lost(&world, &all[lost].id, &missing)];

        let mut strict = MergedRuns::open(&reader, &runs, RunStreams::All, OnDamage::Fail)
            .expect("the root is whole");
        let failure = loop {
            match strict.next_entry() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("page {lost} was passed over in silence"),
                Err(err) => break err,
            }
        };
        assert!(failure.is_damage(), "{failure}");

        let mut tolerant =
            MergedRuns::open(&reader, &runs, RunStreams::All, OnDamage::Skip).expect("opens");
        let mut shown = Vec::new();
        while let Some(entry) = tolerant.next_entry().expect("continues") {
            shown.push(uncovered(entry));
        }

        let uncertain = tolerant.take_uncertain();
        assert_eq!(uncertain.len(), 1, "{uncertain:?}");
        assert_eq!(uncertain[0].from, all[lost].first);
        assert_eq!(
            uncertain[0].until.as_ref(),
            all.get(lost + 1).map(|page| &page.first),
            "page {lost}"
        );

        let within = |entry: &Entry| {
            entry.is_file()
                && entry.path >= uncertain[0].from
                && uncertain[0]
                    .until
                    .as_ref()
                    .is_none_or(|until| entry.path < *until)
        };
        let certain: Vec<Entry> = world
            .expected()
            .into_iter()
            .filter(|entry| !within(entry))
            .collect();
        assert_eq!(shown, certain);
        assert_eq!(tolerant.take_uncertain(), []);
    }

    // With a whole run lost, everything is uncertain.
    let gone = RunRef {
        root: ChunkId::new([77; 32]),
        entries: 1,
        bytes: 1,
        content: 0,
        hides: 0,
    };
    let runs = [gone, world.runs[0].clone()];
    assert!(
        MergedRuns::open(&reader, &runs, RunStreams::All, OnDamage::Fail)
            .expect_err("strict")
            .is_damage()
    );
    let mut tolerant =
        MergedRuns::open(&reader, &runs, RunStreams::All, OnDamage::Skip).expect("opens");
    assert!(tolerant.next_entry().expect("continues").is_some());
    let uncertain = tolerant.take_uncertain();
    assert_eq!(
        (&uncertain[0].from, &uncertain[0].until),
        (&RelPath::root(), &None)
    );
}

/// Stores the world's run with one page's name replaced in its nodes and root.
fn with_page_lost(world: &World, page: &ChunkId, by: &ChunkId) -> RunRef {
    use crate::format::{RunTree, encode_node, encode_root};
    fn replaced(
        reader: &ChunkReader<'_>,
        put: &mut PutChunk<'_>,
        mut tree: RunTree,
        page: &ChunkId,
        by: &ChunkId,
    ) -> RunTree {
        for below in &mut tree.refs {
            if tree.level == 0 {
                if below.id == *page {
                    below.id = *by;
                }
                continue;
            }
            let bytes = reader
                .chunk(ChunkClass::Metadata, &below.id)
                .expect("reads");
            let node = decode_node(&bytes, tree.level - 1).expect("decodes");
            let node = replaced(reader, put, node, page, by);
            below.id = put(&encode_node(&node)).expect("puts");
        }
        tree
    }

    let reader = ChunkReader::new(&world.repo, 1 << 20);
    let mut root = decode_root(
        &reader
            .chunk(ChunkClass::Metadata, &world.runs[0].root)
            .expect("reads"),
    )
    .expect("decodes");

    let (run, _) = pack(&world.repo, Some(&world.lease), OPTIONS, |_, metadata| {
        let mut put = |bytes: &[u8]| metadata.add(bytes);
        root.others = replaced(&reader, &mut put, root.others, page, by);
        Ok(RunRef {
            root: put(&encode_root(&root))?,
            ..world.runs[0].clone()
        })
    })
    .expect("packs");
    run
}

/// Pages that begin with paths of tens of KiB used to give nodes of one reference each. Every page
/// added a level, and the run was deeper than its format allows, so it could not be read. This test
/// uses the format's own shape.
#[test]
fn runs_of_very_long_paths_can_be_read_again() {
    let world = World::new();
    let names: Vec<Vec<u8>> = (0..15u8).map(|n| vec![b'a' + n; 4000]).collect();
    let deep = names.iter().fold(RelPath::root(), |path, name| {
        path.join(name).expect("60 KiB")
    });
    let mut entries: Vec<Entry> = (0..2_000u32)
        .map(|n| {
            entry(
                &deep.join(format!("{n:06}").as_bytes()).expect("fits"),
                Thing::File(1),
            )
        })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));

    let (run, _) = pack(&world.repo, Some(&world.lease), OPTIONS, |_, metadata| {
        let mut put = |bytes: &[u8]| metadata.add(bytes);
        let mut writer = RunWriter::new(&mut put);
        entries
            .iter()
            .try_for_each(|entry| writer.push(entry, false))?;
        writer.finish()
    })
    .expect("packs");
    let reader = ChunkReader::new(&world.repo, 1 << 20);
    let mut merged = MergedRuns::open(
        &reader,
        &[run.expect("a run")],
        RunStreams::All,
        OnDamage::Fail,
    )
    .expect("opens");
    for expected in &entries {
        assert_eq!(merged.next_entry().expect("reads").as_ref(), Some(expected));
    }
    assert_eq!(merged.next_entry().expect("reads"), None);
}

/// An entry with megabytes of attributes made a page that no reader accepts. Now it is refused,
/// with its path in the error.
#[test]
fn an_entry_too_long_for_a_page_is_refused() {
    let mut long = entry(&path("a/long"), Thing::File(1));
    let Node::File { meta, .. } = &mut long.node else {
        unreachable!("a file")
    };
    meta.xattrs = (0..200)
        .map(|n| crate::types::ExtendedAttribute {
            name: format!("user.{n:04}").into_bytes(),
            value: crate::types::XattrValue::Inline(vec![7; 4096]),
        })
        .collect();
    let mut put = |_: &[u8]| Ok(ChunkId::new([1; 32]));
    let refused = RunWriter::new(&mut put)
        .push(&long, false)
        .expect_err("too long");
    assert!(refused.to_string().contains("a/long"), "{refused}");
}

/// Damage of the pack itself makes a strict read fail with the store's error.
#[test]
fn a_damaged_pack_under_a_run_is_damage() {
    let mut world = World::new();
    world.backup(&[Edit::Fill(path("a"), 50)], Some(0), &no_more);
    let packs: Vec<PackId> = world
        .repo
        .index()
        .packs()
        .expect("packs")
        .iter()
        .map(|pack| pack.id)
        .collect();
    for pack in packs {
        world
            .fixture
            .memory
            .damage(&ObjectKey::Pack(pack), |bytes| bytes[100] ^= 1);
    }
    assert!(
        world
            .read(RunStreams::All)
            .expect_err("damaged")
            .is_damage()
    );
}
