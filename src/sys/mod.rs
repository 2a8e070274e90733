//! The machine: files written whole and durably, errors that name their path, sorting outside memory, clocks.

pub mod clock;
mod error;
mod read;
mod sorter;

pub use error::{PathContext, PathError};
pub use read::read_bounded;
pub use sorter::{Record, Sorted, Sorter};
