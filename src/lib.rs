//! icecore: a deduplicating, encrypted, incremental archiver for file trees and database dumps.

pub mod chunk;
mod error;
pub mod format;
pub mod index;
pub mod node;
pub mod observe;
pub mod ops;
pub mod repo;
pub mod source;
pub mod store;
pub mod sys;
pub mod target;
pub mod types;

pub use error::{Error, ErrorKind};
