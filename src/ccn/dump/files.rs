//! Reads the stored files that pyaleph's database lists: the rows of `files` and `file_pins`,
//! joined by hash.

use std::fmt;
use std::path::Path;

use super::copy::{CopyReader, DumpError, RowError, WantedTable};
use crate::Error;
use crate::ccn::NodeError;
use crate::observe::{Phase, ProgressUnit};
use crate::read::ReadSession;
use crate::source::{Cid, FlatfsSharding};
use crate::sys::{PathError, SortedRecords, Sorter};
use crate::task::Task;
use crate::types::{Content, RelPath};

/// Memory for sorting the rows, in bytes.
const SORT_BYTES: usize = 48 << 20;
/// Files of up to this many bytes that are named by a CID are in local storage, larger ones in
/// kubo.
const LOCAL_BYTES_MAX: i64 = 1 << 20;

const WANTED: [WantedTable; 2] = [
    WantedTable {
        table: "files",
        columns: &["hash", "size", "type"],
    },
    WantedTable {
        table: "file_pins",
        columns: &["file_hash", "type"],
    },
];

/// The reason why a node keeps a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PinKind {
    /// It is the content of a message, stored apart from the message.
    Content,
    /// A message refers to it.
    Message,
    /// It is a sync archive of a chain.
    Tx,
    /// It is no longer paid for, and will be deleted when the period ends.
    GracePeriod,
    /// A kind that this version does not know.
    Other,
}

impl PinKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Content,
        Self::Message,
        Self::Tx,
        Self::GracePeriod,
        Self::Other,
    ];

    /// Returns the kind's place in [`Self::ALL`].
    pub(in crate::ccn) const fn number(self) -> u8 {
        // The numbers of a `repr(u8)` are a `u8`, and count from 0.
        self as u8
    }

    fn parse(text: &[u8]) -> Self {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name().as_bytes() == text)
            .unwrap_or(Self::Other)
    }

    /// Returns the name of the kind in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Message => "message",
            Self::Tx => "tx",
            Self::GracePeriod => "grace_period",
            Self::Other => "other",
        }
    }
}

/// A set of kinds of pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PinRows(u8);

impl PinRows {
    /// Returns true if there is a pin of this kind.
    pub fn has(self, kind: PinKind) -> bool {
        self.0 & (1 << kind.number()) != 0
    }

    /// Returns this set with one more kind.
    #[must_use]
    pub fn with(self, kind: PinKind) -> Self {
        Self(self.0 | 1 << kind.number())
    }

    /// Returns true if the node must have the file: a pin other than a grace period exists.
    pub fn must_be_there(self) -> bool {
        self.0 & !Self::default().with(PinKind::GracePeriod).0 != 0
    }

    /// Returns the kinds in the set.
    pub fn kinds(self) -> impl Iterator<Item = PinKind> {
        PinKind::ALL.into_iter().filter(move |&kind| self.has(kind))
    }

    pub(in crate::ccn) fn to_byte(self) -> u8 {
        self.0
    }

    pub(in crate::ccn) fn from_byte(byte: u8) -> Self {
        Self(byte)
    }
}

impl fmt::Display for PinRows {
    /// Formats as `content,tx`, or `-` for an empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds = self.kinds();
        f.write_str(kinds.next().map_or("-", PinKind::name))?;
        kinds.try_for_each(|kind| write!(f, ",{}", kind.name()))
    }
}

/// The `type` of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FileType {
    File,
    Directory,
    /// A type that this version does not know. It is treated as a file of unknown size.
    Other,
}

impl FileType {
    /// Returns the type's number in the sorter's records.
    const fn number(self) -> u8 {
        // The numbers of a `repr(u8)` are a `u8`.
        self as u8
    }
}

/// Where the node stores a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileHome {
    /// In local storage, under its hash.
    Local,
    /// In kubo's blocks. A copy in local storage is sufficient as well, because the node looks
    /// there first.
    Ipfs,
    /// In both: a sync archive.
    Both,
}

/// A row of `files` with the kinds of its pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// 64 hex digits or a CID. It is the file's name in local storage.
    pub hash: Vec<u8>,
    /// In bytes; negative if unknown. A directory's size includes its content.
    pub size: i64,
    pub kind: FileType,
    pub pins: PinRows,
}

impl FileRow {
    /// Returns where the node stores the file, and the path of its root block in kubo if it has
    /// one. Files named by SHA-256, and files of at most 1 MiB or unknown size named by a CID, are
    /// in local storage. Larger files and all directories are only in kubo. Sync archives are in
    /// both.
    pub fn home(&self, sharding: FlatfsSharding) -> (FileHome, Option<RelPath>) {
        // A file whose name is not a CID can only be in local storage. The same holds for an inline
        // CID, which includes the content of its root block.
        let Some(block) = Cid::parse(&self.hash).and_then(|cid| cid.block_path(sharding)) else {
            return (FileHome::Local, None);
        };
        let home = match self.kind {
            FileType::Directory => FileHome::Ipfs,
            _ if self.pins.has(PinKind::Tx) => FileHome::Both,
            _ if self.size <= LOCAL_BYTES_MAX => FileHome::Local,
            _ => FileHome::Ipfs,
        };
        (home, Some(block))
    }

    /// Returns the length that the copy in local storage must have, if the row has it.
    pub fn stored_size(&self) -> Option<u64> {
        if self.kind == FileType::File {
            u64::try_from(self.size).ok()
        } else {
            None
        }
    }

    /// Returns true if the node needs the file in local storage. A message's content is read from
    /// local storage regardless of its length.
    pub fn is_wanted_locally(&self) -> bool {
        self.pins.must_be_there()
            && (self.home(FlatfsSharding::default()).0 != FileHome::Ipfs
                || self.pins.has(PinKind::Content))
    }
}

/// The number of rows in a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowCounts {
    pub files: u64,
    pub pins: u64,
}

/// The files of a dump, each once, in ascending order of hashes: the order of names in a directory.
pub struct FileRows {
    sorted: SortedRecords,
    /// A record that was read ahead.
    ahead: Option<(Vec<u8>, CopiedRow)>,
    pub counts: RowCounts,
}

/// A record of the sorter.
#[derive(Debug, Clone, Copy)]
enum CopiedRow {
    File { size: i64, kind: FileType },
    Pin(PinKind),
}

/// Tag of a pin's record. A file's record has its type in this place.
const PIN_TAG: u8 = 255;

impl CopiedRow {
    fn encode(self) -> [u8; 9] {
        let (tag, value) = match self {
            Self::File { size, kind } => (kind.number(), size),
            Self::Pin(kind) => (PIN_TAG, i64::from(kind.number())),
        };
        let mut out = [tag; 9];
        out[1..].copy_from_slice(&value.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, value) = bytes.split_first()?;
        let value = i64::from_le_bytes(value.try_into().ok()?);
        if *tag == PIN_TAG {
            return Some(Self::Pin(*PinKind::ALL.get(usize::try_from(value).ok()?)?));
        }
        let types = [FileType::File, FileType::Directory, FileType::Other];
        let kind = types.into_iter().find(|&kind| kind.number() == *tag)?;
        Some(Self::File { size: value, kind })
    }
}

impl FileRows {
    /// Reads a captured dump. `source` is its name, for errors. `scratch` is the directory for rows
    /// beyond the memory budget.
    ///
    /// # Errors
    /// Returns [`NodeError::Dump`] if the content is not a dump of pyaleph's database.
    pub fn read(
        session: &ReadSession<'_>,
        source: &str,
        content: &Content,
        task: Task<'_>,
    ) -> Result<Self, NodeError> {
        task.observer.phase(&Phase::Dump {
            name: source.to_owned(),
        });
        task.observer.expect(content.size, ProgressUnit::Bytes);
        Self::collect(&session.repo().scratch_dir(), source, |out| {
            session.write_content(content, out, task)
        })
    }

    /// Reads the dump that `feed` writes.
    fn collect(
        scratch: &Path,
        source: &str,
        feed: impl FnOnce(&mut CopyReader<'_>) -> Result<(), Error>,
    ) -> Result<Self, NodeError> {
        let mut sorter = Sorter::new(scratch, SORT_BYTES);
        let mut counts = RowCounts::default();
        let mut each = |table: usize, fields: &[Option<Vec<u8>>]| {
            let (hash, row) = parse(table, fields).map_err(RowError::Bad)?;
            match row {
                CopiedRow::File { .. } => counts.files += 1,
                CopiedRow::Pin(_) => counts.pins += 1,
            }
            sorter
                .push(hash, &row.encode())
                .map_err(|error: PathError| RowError::Other(error.into()))
        };

        // The reader's own error explains why `feed` failed.
        let mut rows = CopyReader::new(&WANTED, &mut each);
        let fed = feed(&mut rows);
        let read = match rows.take_error() {
            Some(error) => Err(error),
            None => fed.map_err(DumpError::Taker).and_then(|()| rows.finish()),
        };

        read.map_err(|error| match error {
            DumpError::Taker(error) => NodeError::Engine(error),
            error => NodeError::Dump {
                name: source.to_owned(),
                source: Box::new(error),
            },
        })?;

        Ok(Self {
            sorted: sorter.finish()?,
            ahead: None,
            counts,
        })
    }

    /// Returns the next file; `None` at the end. Pins of a file without a row are skipped.
    #[expect(
        clippy::should_implement_trait,
        reason = "an error ends it; Iterator would continue"
    )]
    pub fn next(&mut self) -> Result<Option<FileRow>, PathError> {
        loop {
            let Some((hash, first)) = self
                .ahead
                .take()
                .map_or_else(|| self.record(), |held| Ok(Some(held)))?
            else {
                return Ok(None);
            };
            let mut file = None;
            let mut pins = PinRows::default();

            // Merge all records of this hash.
            let mut row = Some(first);
            while let Some(this) = row.take() {
                match this {
                    CopiedRow::File { size, kind } => file = Some((size, kind)),
                    CopiedRow::Pin(kind) => pins = pins.with(kind),
                }
                match self.record()? {
                    Some((next, this)) if next == hash => row = Some(this),
                    other => self.ahead = other,
                }
            }

            if let Some((size, kind)) = file {
                return Ok(Some(FileRow {
                    hash,
                    size,
                    kind,
                    pins,
                }));
            }
        }
    }

    fn record(&mut self) -> Result<Option<(Vec<u8>, CopiedRow)>, PathError> {
        let Some((hash, row)) = self.sorted.next()? else {
            return Ok(None);
        };
        let row = CopiedRow::decode(row).expect("the sorter returns the records that were pushed");
        Ok(Some((hash.to_vec(), row)))
    }
}

/// Parses a row of `files` or `file_pins` into the file's hash and its record.
fn parse(table: usize, fields: &[Option<Vec<u8>>]) -> Result<(&[u8], CopiedRow), String> {
    let mut values = Vec::with_capacity(3);
    for (field, name) in fields.iter().zip(WANTED[table].columns) {
        values.push(
            field
                .as_deref()
                .ok_or_else(|| format!("its {name} is NULL"))?,
        );
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match values.as_slice() {
        [hash, size, kind] => {
            let number = std::str::from_utf8(size)
                .ok()
                .and_then(|size| size.parse().ok());
            let size = number.ok_or_else(|| format!("its size is '{}'", text(size)))?;
            let kind = match *kind {
                b"file" => FileType::File,
                b"dir" => FileType::Directory,
                _ => FileType::Other,
            };
            Ok((hash, CopiedRow::File { size, kind }))
        }
        [hash, kind] => Ok((hash, CopiedRow::Pin(PinKind::parse(kind)))),
        _ => Err("it has other columns than requested".into()),
    }
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
