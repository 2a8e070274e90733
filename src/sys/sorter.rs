//! Sorting in bounded memory. Records are collected in one arena, spilled sorted to unlinked files
//! when it is full, and merged when read.
//!
//! Memory is about `budget_bytes` while pushing (arena and index) and again while merging (one read
//! buffer per spill), never both. At most [`FAN_IN`] spills are merged at once; more are merged in
//! passes, so file descriptors stay bounded too. Spills are unnamed and sealed under a key that
//! only this process has, so a crash leaves no file and no readable bytes on the disk.

use std::cmp::Ordering;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::sealed::{SEALED_BYTES, SealedReader, SealedWriter};
use crate::sys::{PathContext, PathError};
use crate::types::to_usize;

/// Maximal number of spills in one merge.
const FAN_IN: usize = 64;
/// Bounds for a spill's read buffer while merging; the budget decides between them. The buffer
/// grows for a longer record.
const READ_BUFFER_BYTES: (usize, usize) = (SEALED_BYTES, 16 * SEALED_BYTES);
/// Before each record in a spill: key and value length, u32 little-endian each.
const HEADER_BYTES: usize = 8;

/// A record lent to the reader: key and value.
pub type Record<'a> = (&'a [u8], &'a [u8]);

/// Position of a record in the arena. `prefix` holds the key's first bytes, so most comparisons
/// need only the index.
struct SorterSlot {
    prefix: u64,
    offset: usize,
    key_len: u32,
    value_len: u32,
}

impl SorterSlot {
    fn key<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.offset..self.offset + to_usize(self.key_len)]
    }

    fn value<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        let start = self.offset + to_usize(self.key_len);
        &arena[start..start + to_usize(self.value_len)]
    }
}

/// Returns the key's first eight bytes as a number with the same order; shorter keys are padded
/// with zeros.
fn prefix_of(key: &[u8]) -> u64 {
    key.iter()
        .chain(std::iter::repeat(&0))
        .take(8)
        .fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}

/// Collects records (key and value, any bytes, less than 4 GiB each) and returns them in key order.
pub struct Sorter {
    scratch: PathBuf,
    budget_bytes: usize,
    arena: Vec<u8>,
    slots: Vec<SorterSlot>,
    /// In push order: the records of a spill were pushed before those of the next one.
    spills: Vec<SpillFile>,
}

/// One sorted file. `level` is the number of merges that its records have gone through.
struct SpillFile {
    file: SealedReader,
    level: u32,
}

impl Sorter {
    /// Returns an empty sorter that keeps up to about `budget_bytes` in memory and spills to
    /// unlinked files (mode 0600) in the directory `scratch`, which must exist when something is
    /// spilled.
    pub fn new(scratch: &Path, budget_bytes: usize) -> Self {
        Self {
            scratch: scratch.to_owned(),
            budget_bytes,
            arena: Vec::new(),
            slots: Vec::new(),
            spills: Vec::new(),
        }
    }

    /// Adds a record.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<(), PathError> {
        let lengths = u32::try_from(key.len())
            .ok()
            .zip(u32::try_from(value.len()).ok());
        let Some((key_len, value_len)) = lengths else {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge))
                .context("sort records in", &self.scratch);
        };

        let more = key.len() + value.len() + size_of::<SorterSlot>();
        if !self.slots.is_empty() && self.memory_bytes().saturating_add(more) > self.budget_bytes {
            self.spill()?;
        }

        let slot = SorterSlot {
            prefix: prefix_of(key),
            offset: self.arena.len(),
            key_len,
            value_len,
        };
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(value);
        self.slots.push(slot);
        Ok(())
    }

    /// Ends the input. Nothing is spilled if everything fits in memory.
    pub fn finish(mut self) -> Result<SortedRecords, PathError> {
        if self.spills.is_empty() {
            self.sort();
            let state = SorterState::Memory {
                arena: self.arena,
                slots: self.slots,
                next: 0,
            };
            return Ok(SortedRecords {
                scratch: self.scratch,
                state,
            });
        }

        if !self.slots.is_empty() {
            self.spill()?;
        }
        self.arena = Vec::new();
        self.slots = Vec::new();

        while self.spills.len() > FAN_IN {
            self.merge_last(FAN_IN)?;
        }

        let merge = SpillMerge::new(self.spills, self.budget_bytes)
            .context("read records from", &self.scratch)?;
        Ok(SortedRecords {
            scratch: self.scratch,
            state: SorterState::Merge(merge),
        })
    }

    fn memory_bytes(&self) -> usize {
        self.arena.len() + self.slots.len() * size_of::<SorterSlot>()
    }

    /// Sorts the records in memory. The offset decides between equal keys, which keeps push order
    /// without the extra memory of a stable sort.
    fn sort(&mut self) {
        let arena = &self.arena;
        self.slots.sort_unstable_by(|a, b| {
            a.prefix
                .cmp(&b.prefix)
                .then_with(|| a.key(arena).cmp(b.key(arena)))
                .then_with(|| a.offset.cmp(&b.offset))
        });
    }

    fn spill(&mut self) -> Result<(), PathError> {
        self.sort();
        let spill = self
            .write_spill()
            .context("write records to", &self.scratch)?;
        self.spills.push(spill);
        self.arena.clear();
        self.slots.clear();
        while self.has_full_level() {
            // Free the arena for the buffers of the merge.
            self.arena = Vec::new();
            self.slots = Vec::new();
            self.merge_last(FAN_IN)?;
        }
        Ok(())
    }

    fn write_spill(&self) -> io::Result<SpillFile> {
        let mut out = SpillWriter::new(&self.scratch)?;
        for slot in &self.slots {
            out.write(slot.key(&self.arena), slot.value(&self.arena))?;
        }
        out.finish(0)
    }

    /// Returns true if one level has enough spills at the end for a merge. Each record is then
    /// rewritten once per level, and the number of levels is logarithmic in the input.
    fn has_full_level(&self) -> bool {
        let Some(last) = self.spills.last() else {
            return false;
        };
        self.spills
            .iter()
            .rev()
            .take_while(|spill| spill.level == last.level)
            .count()
            >= FAN_IN
    }

    /// Merges the newest `count` spills into one that replaces them.
    fn merge_last(&mut self, count: usize) -> Result<(), PathError> {
        let inputs = self
            .spills
            .split_off(self.spills.len().saturating_sub(count));
        let level = inputs.iter().map(|spill| spill.level).max().unwrap_or(0) + 1;
        let merged = merge_to_spill(inputs, self.budget_bytes, &self.scratch, level);
        self.spills
            .push(merged.context("merge records in", &self.scratch)?);
        Ok(())
    }
}

fn merge_to_spill(
    inputs: Vec<SpillFile>,
    budget: usize,
    scratch: &Path,
    level: u32,
) -> io::Result<SpillFile> {
    let mut merge = SpillMerge::new(inputs, budget)?;
    let mut out = SpillWriter::new(scratch)?;
    while let Some((key, value)) = merge.next()? {
        out.write(key, value)?;
    }
    out.finish(level)
}

struct SpillWriter(SealedWriter);

impl SpillWriter {
    fn new(scratch: &Path) -> io::Result<Self> {
        SealedWriter::create(scratch).map(Self)
    }

    fn write(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        self.0
            .write(&u32::try_from(key.len()).map_err(too_long)?.to_le_bytes())?;
        self.0
            .write(&u32::try_from(value.len()).map_err(too_long)?.to_le_bytes())?;
        self.0.write(key)?;
        self.0.write(value)
    }

    fn finish(self, level: u32) -> io::Result<SpillFile> {
        Ok(SpillFile {
            file: self.0.finish()?,
            level,
        })
    }
}

/// Reads one spill forward. The current record is always complete in `buffer`.
struct SpillCursor {
    file: SealedReader,
    buffer: Vec<u8>,
    filled: usize,
    /// Position of the current record's key in `buffer`, and the two lengths.
    start: usize,
    key_len: usize,
    value_len: usize,
}

impl SpillCursor {
    fn new(spill: SpillFile, buffer_bytes: usize) -> Self {
        Self {
            file: spill.file,
            buffer: vec![0; buffer_bytes],
            filled: 0,
            start: 0,
            key_len: 0,
            value_len: 0,
        }
    }

    fn key(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.key_len]
    }

    fn record(&self) -> Record<'_> {
        let value = self.start + self.key_len;
        (self.key(), &self.buffer[value..value + self.value_len])
    }

    /// Advances to the next record; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        let mut at = self.start + self.key_len + self.value_len;
        if at == self.filled && self.file.is_at_end() {
            return Ok(false);
        }
        at = self.ensure(at, HEADER_BYTES)?;
        self.key_len = self.length_at(at)?;
        self.value_len = self.length_at(at + 4)?;
        at = self.ensure(at, HEADER_BYTES + self.key_len + self.value_len)?;
        self.start = at + HEADER_BYTES;
        Ok(true)
    }

    fn length_at(&self, at: usize) -> io::Result<usize> {
        let bytes: [u8; 4] = self.buffer[at..at + 4]
            .try_into()
            .map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok(to_usize(u32::from_le_bytes(bytes)))
    }

    /// Makes `len` bytes from `at` on available in the buffer, moving them to its front if needed.
    /// Returns their new position.
    fn ensure(&mut self, at: usize, len: usize) -> io::Result<usize> {
        if self.filled - at >= len {
            return Ok(at);
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        while self.filled < len {
            self.filled = self.file.read(&mut self.buffer, self.filled)?;
        }
        Ok(0)
    }
}

/// A k-way merge. `heap` is a binary min-heap of cursor numbers by (key, number), so equal keys are
/// returned in push order.
struct SpillMerge {
    cursors: Vec<SpillCursor>,
    heap: Vec<usize>,
    /// The record of the heap's first cursor was returned, so the cursor must advance before the
    /// next one.
    given: bool,
}

impl SpillMerge {
    fn new(spills: Vec<SpillFile>, budget_bytes: usize) -> io::Result<Self> {
        let (least, most) = READ_BUFFER_BYTES;
        let buffer_bytes = (budget_bytes / spills.len().max(1)).clamp(least, most);
        let mut cursors = Vec::with_capacity(spills.len());
        for spill in spills {
            let mut cursor = SpillCursor::new(spill, buffer_bytes);
            if cursor.advance()? {
                cursors.push(cursor);
            }
        }
        let heap = (0..cursors.len()).collect();
        let mut merge = Self {
            cursors,
            heap,
            given: false,
        };
        for at in (0..merge.heap.len() / 2).rev() {
            merge.sift_down(at);
        }
        Ok(merge)
    }

    fn next(&mut self) -> io::Result<Option<Record<'_>>> {
        if self.given
            && let Some(&first) = self.heap.first()
        {
            if !self.cursors[first].advance()? {
                self.heap.swap_remove(0);
            }
            self.sift_down(0);
        }
        self.given = true;
        Ok(self.heap.first().map(|&first| self.cursors[first].record()))
    }

    fn order(&self, a: usize, b: usize) -> Ordering {
        let (a, b) = (self.heap[a], self.heap[b]);
        self.cursors[a]
            .key()
            .cmp(self.cursors[b].key())
            .then(a.cmp(&b))
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && self.order(child, least).is_lt() {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}

enum SorterState {
    Memory {
        arena: Vec<u8>,
        slots: Vec<SorterSlot>,
        next: usize,
    },
    Merge(SpillMerge),
}

/// The sorted records: keys ascending as unsigned bytes, equal keys in push order.
pub struct SortedRecords {
    scratch: PathBuf,
    state: SorterState,
}

impl SortedRecords {
    /// Returns the next record, (key, value), or `None` at the end. After an error it must not be
    /// called again.
    #[expect(
        clippy::should_implement_trait,
        reason = "the record is borrowed from a buffer; Iterator cannot express that"
    )]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, PathError> {
        match &mut self.state {
            SorterState::Memory { arena, slots, next } => Ok(slots.get(*next).map(|slot| {
                *next += 1;
                (slot.key(arena), slot.value(arena))
            })),
            SorterState::Merge(merge) => merge.next().context("read records from", &self.scratch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sort_with(records: &[(Vec<u8>, Vec<u8>)], budget: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let dir = tempfile::tempdir().expect("a directory");
        let mut sorter = Sorter::new(dir.path(), budget);
        for (key, value) in records {
            sorter.push(key, value).expect("pushed");
        }
        let mut sorted = sorter.finish().expect("finished");
        let mut out = Vec::new();
        while let Some((key, value)) = sorted.next().expect("read") {
            out.push((key.to_vec(), value.to_vec()));
        }
        assert!(sorted.next().expect("still at the end").is_none());
        assert_eq!(
            std::fs::read_dir(dir.path()).expect("listed").count(),
            0,
            "spills have no name"
        );
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        // Short keys over few bytes give many equal keys and prefixes of one another; zeros test
        // the padded prefix.
        #[test]
        fn sorts_like_a_stable_sort_at_any_budget(
            keys in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 0..12), 0..400),
            budget in 0usize..4000,
        ) {
            let records: Vec<_> =
                keys.into_iter().enumerate().map(|(i, key)| (key, i.to_string().into_bytes())).collect();
            let mut expected = records.clone();
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(sort_with(&records, budget), expected);
        }
    }

    #[test]
    fn thousands_of_spills_are_merged_in_passes() {
        let records: Vec<_> = (0..9000u32)
            .map(|i| (vec![(i * 37 % 251) as u8], i.to_le_bytes().to_vec()))
            .collect();
        let mut expected = records.clone();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(sort_with(&records, 1), expected);
    }

    #[test]
    fn a_record_longer_than_the_buffers_comes_back_whole() {
        let records: Vec<_> = (0..4u8)
            .rev()
            .map(|i| (vec![i; 300_000], vec![i; 70_000]))
            .collect();
        let expected: Vec<_> = records.iter().rev().cloned().collect();
        assert_eq!(sort_with(&records, 1000), expected);
    }

    #[test]
    fn a_missing_scratch_directory_is_named() {
        let mut sorter = Sorter::new(Path::new("/nonexistent/scratch"), 1);
        sorter.push(b"b", b"").expect("the first stays in memory");
        let error = sorter
            .push(b"a", b"")
            .expect_err("no directory to spill to");
        assert_eq!(error.path, Path::new("/nonexistent/scratch"));
    }
}
