//! Reads a PostgreSQL dump as a stream: its statements, its rows, and the files that pyaleph's
//! tables list.

mod command;
mod copy;
mod files;
mod filter;
mod head;
mod lexer;
mod needs;
mod shape;
mod sql;

pub use copy::{CopyReader, DumpError, EachRow, ROW_BYTES_MAX, RowError, Wanted, unescape};
pub use files::{FileRow, FileType, Files, Home, PinKind, Pins, RowCounts};
pub use filter::{EMPTY_VIEW, FilterRules, RestoreFilter};
pub use head::{DumpHead, DumpKind, HeadReader};
pub use lexer::{CopyHeader, DumpLexer, Piece, Place};
pub use needs::{Named, Needs, NeedsReader, Section};
pub use shape::Misshapen;
