//! Reading small files completely, up to a limit.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::sys::{PathContext, PathError};

/// Reads a file of at most `max_bytes`.
///
/// # Errors
/// `FileTooLarge` for a longer file: nothing is truncated silently.
pub fn read_bounded(path: &Path, max_bytes: usize) -> Result<Vec<u8>, PathError> {
    let mut out = Vec::new();
    let limit = u64::try_from(max_bytes)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut out))
        .and_then(|_| {
            if out.len() > max_bytes {
                Err(io::Error::from(io::ErrorKind::FileTooLarge))
            } else {
                Ok(())
            }
        })
        .context("read", path)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_past_the_bound_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        std::fs::write(&path, b"12345").expect("written");
        assert_eq!(read_bounded(&path, 5).expect("fits"), b"12345");
        assert_eq!(
            read_bounded(&path, 4).expect_err("too long").kind(),
            io::ErrorKind::FileTooLarge
        );
    }
}
