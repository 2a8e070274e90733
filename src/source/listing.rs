//! The names of one directory in order: few names are sorted in memory, millions with scratch
//! files.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{RawDir, RawDirEntry, SeekFrom, fstat, seek};
use rustix::io::Errno;

use crate::source::stat::StatKind;
use crate::sys::{PathError, SortedRecords, Sorter};
use crate::types::to_usize;

/// Names and their slots up to this many bytes are sorted without the sorter.
const IN_MEMORY_BYTES_MAX: usize = 4 << 20;
/// Buffer size of one `getdents64` call.
const READ_BUFFER_BYTES: usize = 64 << 10;

/// One name of a directory, as the listing returned it, without a stat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedName {
    pub name: Vec<u8>,
    pub inode: u64,
    /// `None` if the file system does not report kinds: stat the name.
    pub kind_hint: Option<StatKind>,
}

/// A directory's names without duplicates, ascending as unsigned bytes, without `.` and `..`.
pub struct NameListing {
    names: ListedNames,
    /// The name returned last, to skip a duplicate from the file system.
    last: Option<Vec<u8>>,
    total: u64,
}

enum ListedNames {
    Memory {
        arena: Vec<u8>,
        slots: Vec<ListingSlot>,
        next: usize,
    },
    Sorted(SortedRecords),
}

struct ListingSlot {
    inode: u64,
    start: u32,
    len: u16,
    kind: u8,
}

impl ListingSlot {
    fn name<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        let start = to_usize(self.start);
        &arena[start..start + usize::from(self.len)]
    }
}

impl NameListing {
    /// Reads a directory from the beginning to the end.
    pub(super) fn read(
        fd: BorrowedFd<'_>,
        scratch: &Path,
        memory_bytes: usize,
    ) -> io::Result<Self> {
        let in_memory_max = memory_bytes.min(IN_MEMORY_BYTES_MAX);
        let mut arena = Vec::new();
        let mut slots = Vec::<ListingSlot>::new();
        let mut sorter: Option<Sorter> = None;
        let mut total = 0;
        each_name(fd, |entry| {
            let name = entry.file_name().to_bytes();
            total += 1;
            let kind = StatKind::from_type(entry.file_type()).map_or(0, StatKind::to_byte);
            let slot = ListingSlot {
                inode: entry.ino(),
                start: u32::try_from(arena.len()).map_err(io::Error::other)?,
                len: u16::try_from(name.len()).map_err(io::Error::other)?,
                kind,
            };

            if let Some(sorter) = &mut sorter {
                return push(sorter, name, &slot);
            }

            arena.extend_from_slice(name);
            slots.push(slot);
            if arena.len() + slots.len() * size_of::<ListingSlot>() > in_memory_max {
                let mut all = Sorter::new(scratch, memory_bytes);
                slots
                    .iter()
                    .try_for_each(|slot| push(&mut all, slot.name(&arena), slot))?;
                (arena, slots) = (Vec::new(), Vec::new());
                sorter = Some(all);
            }
            Ok(())
        })?;

        let names = match sorter {
            Some(sorter) => ListedNames::Sorted(sorter.finish().map_err(scratch_error)?),
            None => {
                slots.sort_unstable_by(|a, b| a.name(&arena).cmp(b.name(&arena)));
                ListedNames::Memory {
                    arena,
                    slots,
                    next: 0,
                }
            }
        };
        Ok(Self {
            names,
            last: None,
            total,
        })
    }

    /// Returns the number of names read; duplicates from the file system count twice.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Replaces the contents of `out` by the next names, at most `max`. Returns their number, 0 at
    /// the end.
    pub fn next_batch(&mut self, out: &mut Vec<ListedName>, max: usize) -> io::Result<usize> {
        out.clear();
        while out.len() < max {
            let Some(listed) = self.names.next()? else {
                break;
            };
            let previous = out.last().map(|listed| &listed.name).or(self.last.as_ref());
            if previous != Some(&listed.name) {
                out.push(listed);
            }
        }
        if let Some(last) = out.last() {
            self.last = Some(last.name.clone());
        }
        Ok(out.len())
    }
}

impl ListedNames {
    fn next(&mut self) -> io::Result<Option<ListedName>> {
        match self {
            Self::Memory { arena, slots, next } => Ok(slots.get(*next).map(|slot| {
                *next += 1;
                ListedName {
                    name: slot.name(arena).to_vec(),
                    inode: slot.inode,
                    kind_hint: StatKind::from_byte(slot.kind),
                }
            })),
            Self::Sorted(sorted) => {
                let Some((name, value)) = sorted.next().map_err(scratch_error)? else {
                    return Ok(None);
                };
                let (inode, kind) = value
                    .split_first_chunk::<8>()
                    .ok_or_else(|| io::Error::other("a short record"))?;
                let kind_hint = kind.first().and_then(|&byte| StatKind::from_byte(byte));
                Ok(Some(ListedName {
                    name: name.to_vec(),
                    inode: u64::from_le_bytes(*inode),
                    kind_hint,
                }))
            }
        }
    }
}

/// Calls `each` for every name of a directory except `.` and `..`, from the beginning, in the order
/// of the file system.
pub(super) fn each_name(
    fd: BorrowedFd<'_>,
    mut each: impl FnMut(&RawDirEntry<'_>) -> io::Result<()>,
) -> io::Result<()> {
    seek(fd, SeekFrom::Start(0))?;
    let mut buffer = [const { MaybeUninit::uninit() }; READ_BUFFER_BYTES];
    let mut entries = RawDir::new(fd, &mut buffer);
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Ok(entry) => each(&entry)?,
            Err(Errno::INTR) => {}
            // A directory without links was removed while it is open, and so is empty. Otherwise
            // this is an error like any other.
            Err(Errno::NOENT) if fstat(fd)?.st_nlink == 0 => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn push(sorter: &mut Sorter, name: &[u8], slot: &ListingSlot) -> io::Result<()> {
    let mut value = [0; 9];
    value[..8].copy_from_slice(&slot.inode.to_le_bytes());
    value[8] = slot.kind;
    sorter.push(name, &value).map_err(scratch_error)
}

/// Keeps the scratch directory's path in the error, because the source is not the cause.
fn scratch_error(error: PathError) -> io::Error {
    io::Error::new(error.kind(), error)
}
