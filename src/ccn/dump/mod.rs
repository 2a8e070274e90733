//! Reads a PostgreSQL dump as a stream: its statements, its rows, and the files that pyaleph's
//! tables list.

mod command;
mod copy;
mod files;
mod filter;
mod head;
mod lexer;
mod name;
mod needs;
mod shape;
mod sql;

pub use copy::{CopyReader, DumpError, EachRow, ROW_BYTES_MAX, RowError, WantedTable, unescape};
pub use files::{FileHome, FileRow, FileRows, FileType, PinKind, PinRows, RowCounts};
pub use filter::{EMPTY_VIEW, FilterRules, RestoreFilter};
pub use head::{DumpHead, DumpKind, HeadReader};
pub use lexer::{CopyHeader, DumpLexer, DumpPiece, LineContext};
pub use needs::{DumpNeeds, DumpSection, NamedNeed, NeedsReader};
pub use shape::ShapeError;
