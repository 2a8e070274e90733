//! Tests of the index against a naive model, against damage, and with several open handles at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;
use crate::types::{
    ChunkClass, ChunkId, ChunkInfo, FrameCodec, FrameInfo, FrameOffset, LeaseId, PackId, PackInfo,
    PackOffset, PlainLen, SegmentBody, SegmentId, StoredLen,
};

fn raw(kind: u8, number: u64) -> [u8; 32] {
    let mut bytes = [kind; 9];
    bytes[1..].copy_from_slice(&number.to_le_bytes());
    *blake3::hash(&bytes).as_bytes()
}

fn chunk(number: u64) -> ChunkId {
    ChunkId::new(raw(1, number))
}

fn pack_id(number: u64) -> PackId {
    PackId::new(raw(2, number))
}

fn segment(number: u64) -> SegmentId {
    SegmentId::new(raw(3, number))
}

/// Returns a pack of these chunks, in frames of three.
fn pack(number: u64, chunks: impl IntoIterator<Item = u64>) -> PackInfo {
    let chunks: Vec<ChunkInfo> = chunks
        .into_iter()
        .map(|n| ChunkInfo {
            id: chunk(n),
            len: PlainLen::new(1 + (n % 100) as u32),
        })
        .collect();

    let frames = chunks
        .chunks(3)
        .enumerate()
        .map(|(n, chunks)| FrameInfo {
            class: if n % 2 == 0 {
                ChunkClass::Data
            } else {
                ChunkClass::Metadata
            },
            codec: if n % 3 == 0 {
                FrameCodec::Plain
            } else {
                FrameCodec::Zstd
            },
            offset: PackOffset::new(n as u64 * 1000),
            stored: StoredLen::new(900 + n as u32),
            plain: PlainLen::new(chunks.iter().map(|chunk| chunk.len.get()).sum()),
            chunks: chunks.to_vec(),
        })
        .collect();

    PackInfo {
        id: pack_id(number),
        size: 100_000 + number,
        frames,
    }
}

fn adding(packs: Vec<PackInfo>) -> SegmentBody {
    SegmentBody {
        packs,
        ..SegmentBody::empty(LeaseId::new([7; 16]))
    }
}

fn open(dir: &Path) -> Index {
    let (index, opened) = Index::open(dir).expect("opens");
    assert!(
        !matches!(opened, OpenedIndex::Recreated { .. }),
        "{opened:?}"
    );
    index
}

const PACKS: u64 = 6;
const CHUNKS: u64 = 24;
const SEGMENTS: usize = 5;

/// Returns pack n of the property test. Some packs share chunks, one holds a chunk twice, one is
/// empty.
fn test_pack(number: u64) -> PackInfo {
    match number {
        0 => pack(0, []),
        1 => pack(1, [0, 1, 2, 0, 3]),
        n => pack(n, (n * 3)..(n * 3 + 9).min(CHUNKS)),
    }
}

#[derive(Debug, Clone)]
struct Plan {
    added: BTreeSet<u64>,
    condemned: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
    lost: BTreeSet<u64>,
    superseded: BTreeSet<u64>,
}

impl Plan {
    fn body(&self) -> SegmentBody {
        let ids = |set: &BTreeSet<u64>| {
            let mut ids: Vec<PackId> = set.iter().map(|n| pack_id(*n)).collect();
            ids.sort();
            ids
        };
        let mut lost: Vec<ChunkId> = self.lost.iter().map(|n| chunk(*n)).collect();
        let mut superseded: Vec<SegmentId> = self.superseded.iter().map(|n| segment(*n)).collect();
        lost.sort();
        superseded.sort();
        SegmentBody {
            condemned: ids(&self.condemned),
            dropped: ids(&self.dropped),
            lost,
            superseded,
            ..adding(self.added.iter().map(|n| test_pack(*n)).collect())
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Load(usize),
    LoadByAnother(usize),
    Unload(usize),
    UnloadByAnother(usize),
    Transfer(usize, usize),
    Reopen,
    Recreate,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let some = |end: u64, most: usize| prop::collection::btree_set(0..end, 0..=most);
    let plan = (
        some(PACKS, 4),
        some(PACKS, 2),
        some(PACKS, 2),
        some(CHUNKS, 4),
        some(SEGMENTS as u64, 2),
    );
    prop::collection::vec(plan, SEGMENTS).prop_map(|plans| {
        plans
            .into_iter()
            .map(|(added, condemned, dropped, lost, superseded)| Plan {
                added,
                condemned,
                dropped,
                lost,
                superseded,
            })
            .collect()
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any = 0..SEGMENTS;
    let step = prop_oneof![
        6 => any.clone().prop_map(Step::Load),
        2 => any.clone().prop_map(Step::LoadByAnother),
        3 => any.clone().prop_map(Step::Unload),
        1 => any.clone().prop_map(Step::UnloadByAnother),
        3 => (any.clone(), any).prop_map(|(old, to)| Step::Transfer(old, to)),
        2 => Just(Step::Reopen),
        1 => Just(Step::Recreate),
    ];
    prop::collection::vec(step, 1..14)
}

/// The loaded segments and their claims; everything else is derived from them by searching.
#[derive(Default)]
struct Model(BTreeMap<usize, Plan>);

impl Model {
    fn transfer(&mut self, old: usize, to: usize) {
        if old == to || !self.0.contains_key(&to) {
            return;
        }
        let Some(from) = self.0.remove(&old) else {
            return;
        };
        let into = self.0.get_mut(&to).expect("it is loaded");
        into.added
            .extend(from.added.difference(&into.dropped.clone()));
        into.condemned.extend(from.condemned);
        into.dropped.extend(from.dropped);
        into.lost.extend(from.lost);
        into.superseded.extend(from.superseded);
    }

    fn added(&self, pack: u64) -> bool {
        self.0.values().any(|plan| plan.added.contains(&pack))
    }

    fn state(&self, pack: u64) -> Option<PackState> {
        if self.0.values().any(|plan| plan.dropped.contains(&pack)) {
            Some(PackState::Dropped)
        } else if self.0.values().any(|plan| plan.condemned.contains(&pack)) {
            Some(PackState::Condemned)
        } else if self.added(pack) {
            Some(PackState::Known)
        } else {
            None
        }
    }

    /// Returns pack, state, frame, offset, length and position of all copies, best first.
    fn copies(&self, id: u64) -> Vec<(PackState, PackId, u32, FrameOffset, PlainLen, u64)> {
        let mut copies = Vec::new();
        for number in (0..PACKS).filter(|number| self.added(*number)) {
            let state = self.state(number).expect("added packs have a state");
            let mut position = 0;
            let mut first = None;
            for (frame, info) in (0_u32..).zip(&test_pack(number).frames) {
                let mut offset = FrameOffset::default();
                for found in &info.chunks {
                    if found.id == chunk(id) && first.is_none() {
                        first = Some((state, pack_id(number), frame, offset, found.len, position));
                    }
                    offset = offset.saturating_add(found.len);
                    position += 1;
                }
            }
            copies.extend(first);
        }
        copies.sort();
        copies
    }

    fn compare(&self, index: &Index) {
        let loaded: BTreeSet<SegmentId> = self.0.keys().map(|n| segment(*n as u64)).collect();
        assert_eq!(index.loaded().expect("loaded"), loaded);
        let mut rows = BTreeMap::new();
        for number in 0..PACKS {
            let row = index.pack(&pack_id(number)).expect("pack");
            assert_eq!(
                row.map(|row| row.state),
                self.state(number),
                "pack {number}"
            );
            let Some(row) = row else { continue };
            assert_eq!(row.added, self.added(number), "pack {number}");
            let info = test_pack(number);
            let frames = if row.added {
                info.frames.len() as u32
            } else {
                0
            };
            assert_eq!(row.frames, frames);
            for n in 0..=info.frames.len() as u32 {
                let frame = index.frame(&pack_id(number), n).expect("frame");
                let expected = info
                    .frames
                    .get(n as usize)
                    .filter(|_| row.added)
                    .map(|frame| FrameRow {
                        class: frame.class,
                        codec: frame.codec,
                        offset: frame.offset,
                        stored: frame.stored,
                        plain: frame.plain,
                        chunks: frame.chunks.len() as u32,
                    });
                assert_eq!(frame, expected, "frame {n} of pack {number}");
            }
            rows.insert(row.id, row);
        }
        assert_eq!(
            index.packs().expect("packs"),
            rows.values().copied().collect::<Vec<_>>()
        );
        let mut spans: Vec<_> = rows
            .values()
            .map(|row| row.base..row.base + u64::from(row.chunks))
            .collect();
        spans.sort_by_key(|span| (span.start, span.end));
        assert!(
            spans
                .iter()
                .filter(|span| !span.is_empty())
                .is_sorted_by(|a, b| a.end <= b.start)
        );
        let end = index.chunk_numbers_end().expect("end");
        assert!(spans.iter().all(|span| span.end <= end));

        let ids: Vec<ChunkId> = (0..CHUNKS + 3).map(chunk).collect();
        let mut found = vec![None; 3];
        index.lookup(&ids, &mut found).expect("lookup");
        assert_eq!(found.len(), ids.len());
        for (number, best) in (0..).zip(&found) {
            let all = index.copies(&chunk(number)).expect("copies");
            let reported: Vec<_> = all
                .iter()
                .map(|c| {
                    (
                        c.state,
                        c.pack,
                        c.frame,
                        c.offset,
                        c.len,
                        c.number - rows[&c.pack].base,
                    )
                })
                .collect();
            assert_eq!(reported, self.copies(number), "chunk {number}");
            assert_eq!(best.as_ref(), all.first());
            assert_eq!(&index.lookup_one(&chunk(number)).expect("one"), best);
        }

        let lost: BTreeSet<ChunkId> = self
            .0
            .values()
            .flat_map(|plan| &plan.lost)
            .filter(|id| {
                self.copies(**id)
                    .first()
                    .is_none_or(|best| best.0 != PackState::Known)
            })
            .map(|id| chunk(*id))
            .collect();
        assert_eq!(index.lost().expect("lost"), lost);
        for old in 0..SEGMENTS as u64 {
            let by = self
                .0
                .iter()
                .filter(|(_, plan)| plan.superseded.contains(&old));
            let lowest = by.map(|(n, _)| segment(*n as u64)).min();
            assert_eq!(index.superseder(&segment(old)).expect("superseder"), lowest);
        }
        let held = rows
            .values()
            .filter(|row| row.added && row.state != PackState::Dropped);
        assert_eq!(index.totals().expect("totals").packs, held.count() as u64);
        assert_eq!(
            index.is_empty().expect("is_empty"),
            found.iter().all(Option::is_none)
        );
        index.check().expect("all sums fit");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_index_depends_on_the_loaded_segments_alone(plans in plans(), steps in steps()) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut index = Some(open(dir.path()));
        let mut model = Model::default();
        for step in steps {
            let now = index.as_ref().expect("open");
            match step {
                Step::Load(n) | Step::LoadByAnother(n) => {
                    let body = plans[n].body();
                    if matches!(step, Step::Load(_)) {
                        now.load(segment(n as u64), &body).expect("load");
                    } else {
                        open(dir.path()).load(segment(n as u64), &body).expect("load");
                    }
                    model.0.entry(n).or_insert_with(|| plans[n].clone());
                }
                Step::Unload(n) => {
                    now.unload(&segment(n as u64)).expect("unload");
                    model.0.remove(&n);
                }
                Step::UnloadByAnother(n) => {
                    open(dir.path()).unload(&segment(n as u64)).expect("unload");
                    model.0.remove(&n);
                }
                Step::Transfer(old, to) => {
                    match now.transfer(&segment(old as u64), &segment(to as u64)) {
                        Ok(()) => prop_assert!(model.0.contains_key(&to)),
                        Err(IndexError::NotLoaded { .. }) => prop_assert!(!model.0.contains_key(&to)),
                        Err(error) => panic!("{error}"),
                    }
                    model.transfer(old, to);
                }
                Step::Reopen => {
                    drop(index.take());
                    index = Some(open(dir.path()));
                }
                Step::Recreate => {
                    let before = now.generation();
                    now.recreate("a test").expect("recreate");
                    prop_assert!(now.generation() > before);
                    model = Model::default();
                }
            }
            model.compare(index.as_ref().expect("open"));
        }
    }
}

/// Copies a closed index directory, byte for byte.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

fn database(dir: &Path) -> PathBuf {
    fs::read_dir(dir)
        .expect("listed")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "sqlite")
        })
        .expect("a database")
}

/// A small generator, so that a seed determines the whole test.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

const MANY: u64 = 1500;

/// Fills and closes an index of `MANY` chunks, some in two packs. Returns the copies of each chunk.
fn filled(dir: &Path) -> Vec<Vec<ChunkLocation>> {
    let index = open(dir);
    for n in 0..10 {
        let mut body = adding(vec![pack(n, n * 150..(n * 150 + 160).min(MANY))]);
        body.lost = vec![chunk(MANY + n)];
        index.load(segment(n), &body).expect("load");
    }
    let body = SegmentBody {
        condemned: vec![pack_id(3)],
        dropped: vec![pack_id(4)],
        ..adding(Vec::new())
    };
    index.load(segment(10), &body).expect("load");
    (0..MANY + 20)
        .map(|n| index.copies(&chunk(n)).expect("copies"))
        .collect()
}

/// Opens a directory and compares every answer with the truth. Returns true if damage was noticed.
fn right_or_damaged(dir: &Path, truth: &[Vec<ChunkLocation>], what: &str) -> bool {
    let index = match Index::open(dir).expect("damage is no error of open") {
        (_, OpenedIndex::Recreated { .. }) => return true,
        (index, _) => index,
    };

    let mut noticed = false;
    let mut missed = false;
    for (number, copies) in (0..).zip(truth) {
        match index.copies(&chunk(number)) {
            Ok(found) => {
                assert!(
                    found.iter().all(|copy| copies.contains(copy)),
                    "{what}: chunk {number}: {found:?}"
                );
                missed |= found.len() != copies.len();
            }
            Err(error) => {
                assert!(error.is_damage(), "{what}: {error:?}");
                noticed = true;
            }
        }
    }

    let checked = index.check();
    assert!(
        !missed || checked.as_ref().is_err_and(IndexError::is_damage),
        "{what}: a hidden row passed the check"
    );
    noticed |= checked.is_err();
    drop(index);
    if noticed {
        let (index, opened) = Index::open(dir).expect("opens");
        assert!(
            matches!(opened, OpenedIndex::Recreated { .. }),
            "{what}: damage that was met is forgotten"
        );
        assert!(index.is_empty().expect("is_empty"));
    }
    noticed
}

#[test]
fn a_damaged_page_gives_right_answers_or_damage() {
    let home = tempfile::tempdir().expect("a directory");
    let base = tempfile::tempdir().expect("a directory");
    let truth = filled(base.path());
    let mut noticed = 0;
    for seed in 1..=300_u64 {
        let dir = home.path().join(seed.to_string());
        copy(base.path(), &dir);
        let path = database(&dir);
        let mut bytes = fs::read(&path).expect("read");
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let page = random.below(bytes.len() / 4096) * 4096;
        for _ in 0..=random.below(4) {
            // Half of the changes hit the page's header and cell pointers, where a byte does the
            // most damage.
            let span = if random.below(2) == 0 { 64 } else { 4096 };
            bytes[page + random.below(span)] ^= 1 + random.below(255) as u8;
        }
        fs::write(&path, bytes).expect("written");
        noticed += u32::from(right_or_damaged(&dir, &truth, &format!("seed {seed}")));
        fs::remove_dir_all(&dir).expect("removed");
    }
    assert!(noticed > 100, "only {noticed} of 300 damages were noticed");
}

/// A random byte in the header once caused "unsupported file format", which is not one of SQLite's
/// error codes for damage, so opening failed permanently. Another one made the file read-only.
#[test]
fn a_damaged_header_never_ends_in_an_error() {
    let home = tempfile::tempdir().expect("a directory");
    let base = tempfile::tempdir().expect("a directory");
    let truth = filled(base.path());
    let truth = &truth[..40];
    for (byte, flip) in (0..108).flat_map(|byte| [1, 3, 0x80].map(|flip| (byte, flip))) {
        let dir = home.path().join(format!("{byte}-{flip}"));
        copy(base.path(), &dir);
        let path = database(&dir);
        let mut bytes = fs::read(&path).expect("read");
        bytes[byte] ^= flip;
        fs::write(&path, bytes).expect("written");
        let what = format!("header byte {byte} ^ {flip}");
        if !right_or_damaged(&dir, truth, &what) {
            match open(&dir).load(segment(99), &adding(vec![pack(99, 0..9)])) {
                Ok(()) => {}
                Err(error) => assert!(error.is_damage(), "{what}: {error:?}"),
            }
        }
        fs::remove_dir_all(&dir).expect("removed");
    }
}

#[test]
fn cut_off_empty_and_foreign_files_give_way_to_a_new_one() {
    let home = tempfile::tempdir().expect("a directory");
    let base = tempfile::tempdir().expect("a directory");
    let truth = filled(base.path());
    let whole = fs::read(database(base.path())).expect("read");
    let text = "This is a text and no database at all.\n"
        .repeat(300)
        .into_bytes();
    let contents = [
        &whole[..0],
        &whole[..50],
        &whole[..4096],
        &whole[..whole.len() / 8192 * 4096],
        &text,
    ];
    for (n, bytes) in contents.into_iter().enumerate() {
        let dir = home.path().join(n.to_string());
        copy(base.path(), &dir);
        fs::write(database(&dir), bytes).expect("written");
        assert!(right_or_damaged(&dir, &truth, &format!("content {n}")));
    }
}

#[test]
fn another_schema_a_lost_file_and_a_bad_pointer_give_way_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let recreated = |what: &str| {
        let (index, opened) = Index::open(dir.path()).expect("opens");
        assert!(
            matches!(opened, OpenedIndex::Recreated { .. }),
            "{what}: {opened:?}"
        );
        assert!(index.loaded().expect("loaded").is_empty());
        index
            .load(segment(1), &adding(vec![pack(1, 0..9)]))
            .expect("load");
    };

    filled(dir.path());
    Connection::open(database(dir.path()))
        .and_then(|c| c.pragma_update(None, "user_version", 9))
        .expect("set");
    recreated("schema");
    fs::remove_file(database(dir.path())).expect("removed");
    recreated("lost file");
    fs::write(dir.path().join("current"), "").expect("written");
    recreated("pointer");

    let databases = fs::read_dir(dir.path()).expect("listed").filter(|entry| {
        entry
            .as_ref()
            .expect("an entry")
            .path()
            .extension()
            .is_some_and(|extension| extension == "sqlite")
    });
    assert_eq!(databases.count(), 1, "what nobody has open is cleared away");

    fs::remove_dir_all(dir.path()).expect("removed");
    let (_, opened) = Index::open(dir.path()).expect("opens");
    assert_eq!(opened, OpenedIndex::Created);
}

#[test]
fn two_openings_take_turns() {
    let dir = tempfile::tempdir().expect("a directory");
    let a = open(dir.path());
    let b = open(dir.path());
    std::thread::scope(|scope| {
        for (index, odd) in [(&a, 0), (&b, 1)] {
            scope.spawn(move || {
                for n in 0..40 {
                    // Each handle loads its own segments, and both load every fourth.
                    if n % 2 == odd || n % 4 == 0 {
                        index
                            .load(segment(n), &adding(vec![pack(n, n * 5..n * 5 + 10)]))
                            .expect("load");
                    }
                    assert!(index.loaded().expect("loaded").len() <= 40);
                }
            });
        }
    });

    for index in [&a, &b] {
        assert_eq!(index.loaded().expect("loaded").len(), 40);
        assert_eq!(index.totals().expect("totals").chunks, 400);
        index.check().expect("all sums fit");
    }
    for n in 0..200 {
        assert_eq!(
            a.copies(&chunk(n)).expect("copies"),
            b.copies(&chunk(n)).expect("copies")
        );
    }
    // One handle switches to a new database; the other keeps the one that it has open.
    a.recreate("a test").expect("recreate");
    assert!(a.is_empty().expect("is_empty"));
    b.load(segment(50), &adding(vec![pack(50, 300..310)]))
        .expect("load");
    assert_eq!(b.loaded().expect("loaded").len(), 41);
    assert!(open(dir.path()).is_empty().expect("is_empty"));
}

#[test]
fn an_older_database_put_back_reports_its_own_segments() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = tempfile::tempdir().expect("a directory");
    open(dir.path())
        .load(segment(1), &adding(vec![pack(1, 0..9)]))
        .expect("load");
    copy(dir.path(), old.path());

    let body = SegmentBody {
        condemned: vec![pack_id(1)],
        ..adding(vec![pack(2, 5..20)])
    };
    open(dir.path()).load(segment(2), &body).expect("load");

    fs::remove_dir_all(dir.path()).expect("removed");
    copy(old.path(), dir.path());
    let index = open(dir.path());
    assert_eq!(
        index.loaded().expect("loaded"),
        BTreeSet::from([segment(1)])
    );
    assert_eq!(
        index
            .lookup_one(&chunk(5))
            .expect("one")
            .map(|found| found.pack),
        Some(pack_id(1))
    );

    index.load(segment(2), &body).expect("load");
    assert_eq!(
        index
            .lookup_one(&chunk(5))
            .expect("one")
            .map(|found| found.pack),
        Some(pack_id(2))
    );
    assert_eq!(
        index.lookup_one(&chunk(1)).expect("one").map(|f| f.state),
        Some(PackState::Condemned)
    );
}

#[test]
fn the_last_handle_to_close_an_index_marks_it_clean() {
    let dir = tempfile::tempdir().expect("a directory");
    let mark = || {
        let path = database(dir.path()).with_extension("open");
        fs::read(path).expect("read").first().copied()
    };
    let a = open(dir.path());
    a.load(segment(1), &adding(vec![pack(1, 0..9)]))
        .expect("load");
    let b = open(dir.path());
    drop(a);
    assert_eq!(mark(), Some(b'd'), "another may still write");
    drop(b);
    assert_eq!(mark(), Some(b'c'));
    // Reading leaves the mark alone, writing sets it again.
    let a = open(dir.path());
    a.totals().expect("totals");
    assert_eq!(mark(), Some(b'c'));
    a.unload(&segment(1)).expect("unload");
    assert_eq!(mark(), Some(b'd'));
}

#[test]
fn a_segment_that_cannot_be_true_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let index = open(dir.path());
    let mut bad = pack(1, 0..9);
    bad.frames[1].chunks[0].len = PlainLen::MAX;
    let refused = index.load(segment(1), &adding(vec![pack(2, 0..9), bad]));
    assert!(
        matches!(refused, Err(IndexError::Refused { .. })),
        "{refused:?}"
    );
    assert!(index.is_empty().expect("is_empty") && index.packs().expect("packs").is_empty());
    index.check().expect("all sums fit");
}

#[test]
fn content_left_over_from_a_false_segment_is_not_taken_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let index = open(dir.path());
    index
        .load(segment(9), &adding(vec![pack(9, 1000..1200)]))
        .expect("load");
    index
        .load(segment(1), &adding(vec![pack(1, 50..60)]))
        .expect("load");
    index.unload(&segment(1)).expect("unload");
    index
        .load(segment(2), &adding(vec![pack(1, 70..80)]))
        .expect("load");
    assert_eq!(index.lookup_one(&chunk(55)).expect("one"), None);
    assert!(index.lookup_one(&chunk(75)).expect("one").is_some());
    index.check().expect("all sums fit");
}
