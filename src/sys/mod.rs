//! The machine: atomic and durable file writes, errors that name their path, sorting in bounded
//! memory, clocks, child processes.

mod atomic;
mod beneath;
mod child;
pub mod clock;
mod dir;
mod error;
mod identity;
mod lock;
mod process;
mod random;
mod read;
mod recorded;
mod sealed;
mod shell;
mod shown;
mod sorter;
mod state;
mod temp;
mod writeback;

pub use atomic::{fsync_dir, write_file};
pub use beneath::open_beneath;
pub use child::{
    Canceller, ChildEnding, ChildPipe, ChildProcess, CommandError, PIPE_BYTES, STDERR_TAIL_BYTES,
    SpawnOptions, TERM_GRACE, watched,
};
pub use clock::{boottime, now};
pub use dir::{Dir, ReadFile};
pub use error::{PathContext, PathError};
pub use identity::{FileId, FileKind, FileStat, file_id};
pub use lock::{
    LockFile, is_directory, is_mount_point, is_regular_file, is_special, is_writable_by_any,
    private_directory, remove_if_there, remove_unlocked,
};
pub use process::{boot_id, check_proc, host_name, is_dead};
pub use random::random_bytes;
pub use read::read_bounded;
pub use recorded::recorded_path;
pub use shell::shell_syntax;
pub use shown::{masked, masked_output, shown};
pub use sorter::{Record, SortedRecords, Sorter};
pub use state::StateDir;
pub use temp::{ExistingFile, TEMP_PREFIX, TempFile};
pub use writeback::writeback_seconds;
