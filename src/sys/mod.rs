//! The machine: files written whole and durably, errors that name their path, sorting outside memory, clocks.

mod error;

pub use error::{PathContext, PathError};
