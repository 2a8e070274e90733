//! Reading a repository's content: trees, files and streams, and what a snapshot reaches.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_lossless)
)]

pub mod content;
pub(crate) mod fetch;
pub(crate) mod lost;
pub(crate) mod reach;
mod session;
pub(crate) mod tree;

pub use session::{ReadSession, reading_lease};
