//! Domain values: ids, lengths, paths, entries, packs. No I/O, and no dependencies except `std`.
//!
//! A value that `index`, `store` or `source` needs too is defined here; the stored objects are in
//! `format`. Values are checked when they are built, so the layers above need not check them again.

mod entry;
pub mod hex;
mod id;
mod number;
mod pack;
mod params;
mod path;
mod size;
mod time;

pub use entry::{
    Content, DeviceNumber, Entry, EntryFlags, EntryKind, ExtendedAttribute, Extent,
    LITERAL_BYTES_MAX, Metadata, MissingNames, Node, Owner, XattrValue,
};
pub use id::{
    ChunkId, IdError, LeaseId, ObjectHash, PackId, PrefixMatch, RepoId, SegmentId, SnapshotId,
};
pub use number::{at_most, to_u64, to_usize};
pub use pack::{ChunkClass, ChunkInfo, FrameCodec, FrameInfo, PackInfo, SegmentBody};
pub use params::{ChunkProfile, ChunkSizes, ParamsError, WHOLE_FILE_BYTES_MAX};
pub use path::{NAME_BYTES_MAX, PATH_BYTES_MAX, PathProblem, RelPath};
pub use size::{ByteSize, FrameOffset, PackOffset, PlainLen, StoredLen};
pub use time::Timestamp;
