//! Files outside a store, written completely and durably, by path.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::sys::{Dir, ExistingFile, PathContext, PathError, TempFile};

/// Writes a file atomically: at any time its name holds the old bytes (or does not exist) or all of
/// the new ones.
///
/// `mode` gives the permission bits, regardless of the umask. They are set before the first byte is
/// written, so a secret is never readable by others. A symlink at `path` is replaced, not followed.
/// When it returns `Ok` the file survives a power failure. After a crash a `.tmp-*` file may remain
/// beside it; after an error nothing does.
pub fn write_file(
    path: impl AsRef<Path>,
    bytes: &[u8],
    mode: u32,
    existing: ExistingFile,
) -> Result<(), PathError> {
    let path = path.as_ref();
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))
        .context("write", path)?;
    let dir = Arc::new(Dir::open(directory_of(path))?);
    let mut temp = TempFile::create(&dir, mode)?;
    temp.write_all(bytes)?;
    temp.publish(&dir, name, existing)?;
    dir.sync()
}

/// Makes the names in a directory durable.
pub fn fsync_dir(path: impl AsRef<Path>) -> Result<(), PathError> {
    Dir::open(path)?.sync()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_gets_its_mode_and_is_replaced_only_on_request() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("key");
        write_file(&path, b"one", 0o600, ExistingFile::Refuse).expect("write");
        assert_eq!(
            std::fs::metadata(&path).expect("stat").permissions().mode() & 0o7777,
            0o600
        );
        let error = write_file(&path, b"two", 0o600, ExistingFile::Refuse).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        write_file(&path, b"three", 0o644, ExistingFile::Replace).expect("write");
        assert_eq!(std::fs::read(&path).expect("read"), b"three");
        assert_eq!(
            std::fs::metadata(&path).expect("stat").permissions().mode() & 0o7777,
            0o644
        );
        assert_eq!(std::fs::read_dir(root.path()).expect("list").count(), 1);
        fsync_dir(root.path()).expect("sync");
        assert!(write_file(root.path().join(".."), b"", 0o600, ExistingFile::Replace).is_err());
    }
}
