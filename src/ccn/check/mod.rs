//! Checks whether the files that a node's database refers to exist, in a snapshot or in the live
//! directories.
//!
//! The rows of the dump are sorted on disk by hash, which is the order of names in local storage,
//! and joined with the files there. Files that must be in kubo's blocks are sorted again, by the
//! paths of the blocks.

mod blocks;
mod context;
mod cursor;
mod live;
mod report;
mod snapshot;
mod stored;
mod tally;
mod target;
#[cfg(test)]
mod tests;

pub(super) use blocks::{stored_blocks, stored_file};
pub use report::{CheckReport, EachFinding, FileFinding, FileFindingKind, PlaceReport};
pub use target::{CheckTarget, LiveDirectories};

use self::context::CheckContext;
use self::cursor::FileCursor;
use self::live::{LiveBlocks, LiveDirectory};
use self::stored::{FileSide, HeldFile, NoFiles};
use self::tally::{BlamedPlace, CheckTally};
use super::NodeError;
use super::dump::{FileHome, FileRow, FileRows, FileType, PinRows};
use super::profile::NodeLayout;
use crate::Error;
use crate::format::SourceKind;
use crate::observe::{Problem, Severity};
use crate::read::ReadSession;
use crate::repo::StoredSnapshot;
use crate::source::FlatfsSharding;
use crate::sys::{PathError, Sorter};
use crate::task::{Cancel, Task};
use crate::types::Content;

/// Memory for sorting the files that must be in kubo, in bytes.
const SORT_BYTES: usize = 32 << 20;

/// Looks for the files that the snapshot's dump refers to, and checks whether each stored file
/// matches its name.
///
/// A file must exist if it has a pin other than a grace period. A file that vanishes while live
/// directories are read is not an error. The session has chosen the snapshot and updated the index. The
/// report's `missing` counts the files that the network must refill after a restore.
///
/// # Errors
/// Returns [`Error::NotThere`] if the snapshot has no dump, and [`NodeError::Dump`] if the dump is
/// not of pyaleph's database. A part of the file storage that the profile or the snapshot lacks is
/// reported as a problem.
pub fn check(
    session: &ReadSession<'_>,
    found: &StoredSnapshot,
    profile: &NodeLayout,
    against: &CheckTarget,
    task: Task<'_>,
    each: &mut EachFinding<'_>,
) -> Result<CheckReport, NodeError> {
    let files = read_files(session, found, profile, task)?;
    let at = CheckContext {
        session,
        found,
        against,
        task,
        scratch: session.repo().scratch_dir(),
    };

    let mut report = CheckReport {
        rows: files.counts,
        ..CheckReport::default()
    };
    let kept = at.blocks(profile.ipfs.as_ref())?;

    // Join the rows with local storage. Collect the files that must be in kubo.
    let mut blocks = Sorter::new(&at.scratch, SORT_BYTES);
    {
        let part = profile.local_storage.as_ref();
        let directory = at.directory(|directories| &directories.local_storage);
        let side = at.side(part, "local storage", directory, |directory, looking| {
            LiveDirectory::open(directory, looking).map(|side| Box::new(side) as _)
        })?;

        let name = part.map_or("", |part| &part.source);
        let tally = CheckTally::new(name, part.is_some(), &mut report.local, each);
        let mut out = BlocksOut {
            sharding: kept.sharding(),
            blocks: &mut blocks,
        };
        join_local(
            files,
            side,
            tally,
            &mut out,
            task.cancel,
            &mut report.pinned,
            &mut report.missing,
        )?;
    }

    // Join the collected files with kubo's blocks.
    let part = profile.ipfs.as_ref();
    let name = part.map_or("", |part| &part.source);
    let side = match kept.trouble() {
        Some(why) => {
            let message = format!("{why}; its blocks were not checked");
            task.observer
                .problem(&Problem::new(Severity::Missing, name, message));
            Box::new(NoFiles)
        }
        None => {
            let directory = at.directory(|directories| &directories.ipfs);
            at.side(part, "IPFS", directory, |directory, looking| {
                LiveBlocks::open(directory, looking).map(|side| Box::new(side) as _)
            })?
        }
    };

    let tally = CheckTally::new(
        name,
        part.is_some() && kept.trouble().is_none(),
        &mut report.ipfs,
        each,
    );
    join_blocks(blocks, side, tally, task.cancel, &mut report.missing)?;

    Ok(report)
}

/// The names in local storage that a node needs first: those of pinned files that are stored there.
pub struct PinnedNames {
    files: FileRows,
}

/// Reads from a snapshot's dump which files of local storage have a pin other than a grace period.
/// The session has chosen the snapshot and updated the index.
///
/// # Errors
/// The errors are those of [`check`].
pub fn pinned_local_names(
    session: &ReadSession<'_>,
    found: &StoredSnapshot,
    profile: &NodeLayout,
    task: Task<'_>,
) -> Result<PinnedNames, NodeError> {
    Ok(PinnedNames {
        files: read_files(session, found, profile, task)?,
    })
}

impl PinnedNames {
    /// Returns the next name, in the order of paths, each once; `None` at the end. There may be no
    /// file of that name.
    #[expect(
        clippy::should_implement_trait,
        reason = "an error ends it; Iterator would continue"
    )]
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, PathError> {
        while let Some(row) = self.files.next()? {
            if row.is_wanted_locally() {
                return Ok(Some(row.hash));
            }
        }
        Ok(None)
    }
}

/// Reads the dump of the profile's database in the snapshot.
fn read_files(
    session: &ReadSession<'_>,
    found: &StoredSnapshot,
    profile: &NodeLayout,
    task: Task<'_>,
) -> Result<FileRows, NodeError> {
    let Some(database) = &profile.database else {
        return Err(Error::usage("no source is configured as the node's database".into()).into());
    };
    let content = dump_of(found, &database.source)?;
    if let Some(why) = found
        .snapshot
        .source(&database.source)
        .and_then(|source| source.suspect.as_ref())
    {
        task.observer.problem(&Problem::new(
            Severity::Note,
            &database.source,
            format!("suspect: {why}"),
        ));
    }
    FileRows::read(session, &database.source, content, task)
}

fn dump_of<'a>(found: &'a StoredSnapshot, name: &str) -> Result<&'a Content, Error> {
    let id = found.id.short();
    match found.snapshot.source(name).map(|source| &source.kind) {
        Some(SourceKind::Stream { content, .. }) => Ok(content),
        Some(SourceKind::Tree { .. }) => Err(Error::NotThere(format!(
            "source '{name}' of snapshot {id} is a tree, not a dump"
        ))),
        None => Err(Error::NotThere(format!(
            "snapshot {id} has no source '{name}'"
        ))),
    }
}

/// Collects the files that must be in kubo, for the second join.
struct BlocksOut<'a> {
    sharding: FlatfsSharding,
    blocks: &'a mut Sorter,
}

/// Joins the rows with local storage. Files that must be in kubo are collected for the second join.
fn join_local(
    mut files: FileRows,
    side: Box<dyn FileSide + '_>,
    mut tally: CheckTally<'_, '_>,
    out: &mut BlocksOut<'_>,
    cancel: &Cancel,
    pinned: &mut u64,
    missing: &mut u64,
) -> Result<(), NodeError> {
    let mut stored = FileCursor::new(side);
    while let Some(row) = files.next()? {
        cancel.check()?;
        let (home, block) = row.home(out.sharding);
        let needed = row.pins.must_be_there();
        *pinned += u64::from(needed);

        let there = stored.at(&row.hash, &mut tally)?;
        let copy = look_at(there, &row, &mut tally)?;

        let mut is_missing = false;
        if needed && home != FileHome::Ipfs {
            tally.wanted(1);
            if copy == StorageCopy::None {
                is_missing = tally.missing(&row.hash, &row.hash, row.pins)?;
            }
        }

        *missing += u64::from(is_missing);
        // Except for directories, the node looks into local storage first.
        let has_copy = copy == StorageCopy::Good && row.kind != FileType::Directory;
        if needed
            && let Some(block) = block
            && (home == FileHome::Both || home == FileHome::Ipfs && !has_copy)
        {
            out.blocks.push(
                block.key(),
                &BlockWant::encode(is_missing, row.pins, &row.hash),
            )?;
        }
    }
    stored.rest(&mut tally)
}

/// A file's copy in local storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StorageCopy {
    Good,
    /// It exists, but its own content or size shows that it does not match the row.
    Bad,
    None,
}

/// Reports an error of a file in local storage that has a row.
fn look_at(
    there: Option<&mut HeldFile>,
    row: &FileRow,
    tally: &mut CheckTally<'_, '_>,
) -> Result<StorageCopy, NodeError> {
    let Some(held) = there else {
        return Ok(StorageCopy::None);
    };

    let (size, fault) = match held {
        HeldFile::File { size, fault } => (*size, fault.take()),
        HeldFile::Vanished => return Ok(StorageCopy::Good),
        HeldFile::NoFile => return Ok(StorageCopy::None),
    };

    let blamed = BlamedPlace {
        hash: &row.hash,
        path: &row.hash,
        pins: row.pins,
    };

    if let Some(fault) = fault {
        tally.fault(fault, blamed)?;
    }
    if let (Some(stored), Some(expected)) = (size, row.stored_size())
        && stored != expected
    {
        tally.size(stored, expected, blamed)?;
        return Ok(StorageCopy::Bad);
    }

    Ok(if fault.is_some() {
        StorageCopy::Bad
    } else {
        StorageCopy::Good
    })
}

/// Joins the files that must be in kubo with its blocks.
fn join_blocks(
    blocks: Sorter,
    side: Box<dyn FileSide + '_>,
    mut tally: CheckTally<'_, '_>,
    cancel: &Cancel,
    missing: &mut u64,
) -> Result<(), NodeError> {
    let mut stored = FileCursor::new(side);
    let mut wants = blocks.finish()?;
    while let Some((key, value)) = wants.next()? {
        cancel.check()?;
        let want = BlockWant::decode(value);
        tally.wanted(1);

        match stored.at(key, &mut tally)? {
            Some(HeldFile::File { fault, .. }) => {
                if let Some(fault) = fault.take() {
                    tally.fault(
                        fault,
                        BlamedPlace {
                            hash: want.hash,
                            path: key,
                            pins: want.pins,
                        },
                    )?;
                }
            }
            Some(HeldFile::Vanished) => {}
            Some(HeldFile::NoFile) | None => {
                let is_reported = tally.missing(want.hash, key, want.pins)?;
                *missing += u64::from(is_reported && !want.is_missing);
            }
        }
    }

    stored.rest(&mut tally)
}

/// A file whose root block is looked up, as a record of the sorter.
struct BlockWant<'a> {
    /// True if it was already counted as missing in local storage.
    is_missing: bool,
    pins: PinRows,
    hash: &'a [u8],
}

impl<'a> BlockWant<'a> {
    fn encode(is_missing: bool, pins: PinRows, hash: &[u8]) -> Vec<u8> {
        [&[u8::from(is_missing), pins.to_byte()], hash].concat()
    }

    fn decode(value: &'a [u8]) -> Self {
        let (head, hash) = value.split_at(2);
        Self {
            is_missing: head[0] != 0,
            pins: PinRows::from_byte(head[1]),
            hash,
        }
    }
}
