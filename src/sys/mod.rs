//! The machine: files written whole and durably, errors that name their path, sorting outside memory, clocks.

mod atomic;
pub mod clock;
mod dir;
mod error;
mod identity;
mod lock;
mod process;
mod random;
mod read;
mod sorter;
mod temp;

pub use atomic::{fsync_dir, write_file};
pub use clock::{boottime, now};
pub use dir::{Dir, ReadFile};
pub use error::{PathContext, PathError};
pub use identity::{FileId, FileKind, FileStat, file_id};
pub use lock::{LockFile, is_regular_file, is_writable_by_any, private_folder, remove_if_there};
pub use process::{boot_id, is_dead};
pub use random::random_bytes;
pub use read::read_bounded;
pub use sorter::{Record, Sorted, Sorter};
pub use temp::{Existing, TEMP_PREFIX, TempFile};
