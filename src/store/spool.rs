//! A file in which a large object is written before its name is known.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

/// Bytes on their way to becoming an object. Dropped without being put, it leaves nothing behind.
#[derive(Debug)]
pub struct Spool {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Memory(Vec<u8>),
    /// `path` is removed on drop unless taken.
    Named {
        file: File,
        path: Option<PathBuf>,
    },
}
