//! Support for Core Channel Nodes: compose files, Docker, PostgreSQL, and the files that a database
//! refers to.
//!
//! This layer is built on the operations below it and on the `docker` and PostgreSQL programs of
//! the machine, run without a shell and without a terminal.

mod ask;
pub mod check;
pub mod compose;
pub mod discover;
pub mod docker;
pub mod dump;
mod error;
pub mod images;
pub mod kubo;
pub mod postgres;
pub mod profile;
pub mod restore;
pub mod template;

pub use error::NodeError;
