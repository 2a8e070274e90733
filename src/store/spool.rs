//! A file for writing a large object before its name is known.

use std::io::{self, Write};

use crate::store::StoreError;
use crate::sys::{PathError, TempFile};
use crate::types::to_u64;

/// After each of this many bytes the kernel is asked to start writing them, so that the sync in
/// `put` is short. On ext4, with packs of 64 MiB written over 0.2 s, a put takes 6–17 ms with this
/// and 39–50 ms without.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// Bytes that will become an object. If dropped without a put, nothing remains; after a crash a
/// temporary file may remain, which no listing shows.
///
/// Not buffered: each write is a system call, which suits the pieces of 100 KiB and more of packs.
#[derive(Debug)]
pub struct Spool {
    inner: SpoolInner,
    len: u64,
    /// A write failed: the content of the file is unknown and must never become an object.
    failed: bool,
}

#[derive(Debug)]
enum SpoolInner {
    Memory(Vec<u8>),
    Named {
        file: TempFile,
        /// The store's address, for errors.
        address: String,
        /// The start of writing was requested up to this offset.
        started: u64,
    },
}

/// Content of a spool, for the store that puts it.
pub(super) enum SpoolParts {
    Memory(Vec<u8>),
    Named(TempFile),
}

impl Spool {
    /// Returns a spool in memory, for stores that take objects as bytes.
    pub fn memory() -> Self {
        Self {
            inner: SpoolInner::Memory(Vec::new()),
            len: 0,
            failed: false,
        }
    }

    pub(super) fn named(file: TempFile, address: &str) -> Self {
        let inner = SpoolInner::Named {
            file,
            address: address.to_owned(),
            started: 0,
        };
        Self {
            inner,
            len: 0,
            failed: false,
        }
    }

    /// Returns the number of bytes written so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns true if nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends bytes. After an error the spool is unusable: every later write and the put fail.
    ///
    /// Returns [`StoreError::Full`] if there is no space; dropping the spool frees the space that
    /// it used.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.failed {
            return Err(spent());
        }
        match &mut self.inner {
            SpoolInner::Memory(held) => held.extend_from_slice(bytes),
            SpoolInner::Named {
                file,
                address,
                started,
            } => {
                if let Err(error) = file.write_all(bytes) {
                    self.failed = true;
                    return Err(StoreError::from_path(address, error));
                }
                let end = self.len + to_u64(bytes.len());
                if end - *started >= WRITEBACK_BYTES {
                    file.start_writeback(*started, end - *started);
                    *started = end;
                }
            }
        }
        self.len += to_u64(bytes.len());
        Ok(())
    }

    /// Fills `buf` with the written bytes at `offset`; reading beyond the end is an error.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        if self.failed {
            return Err(spent());
        }
        match &self.inner {
            SpoolInner::Memory(held) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let found = start
                    .checked_add(buf.len())
                    .and_then(|end| held.get(start..end));
                let source = || io::Error::from(io::ErrorKind::UnexpectedEof);
                buf.copy_from_slice(found.ok_or_else(|| StoreError::Io {
                    action: "read",
                    subject: "a spool".to_owned(),
                    source: source(),
                })?);
                Ok(())
            }
            SpoolInner::Named { file, address, .. } => file
                .read_at(offset, buf)
                .map_err(|error| StoreError::from_path(address, error)),
        }
    }

    /// Returns the content of the spool, or an error if a write to it failed.
    pub(super) fn into_parts(self) -> Result<SpoolParts, StoreError> {
        if self.failed {
            return Err(spent());
        }
        Ok(match self.inner {
            SpoolInner::Memory(bytes) => SpoolParts::Memory(bytes),
            SpoolInner::Named { file, .. } => SpoolParts::Named(file),
        })
    }

    /// Returns all bytes, read back from the file if there is one. The file is removed.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn into_bytes(self) -> Result<Vec<u8>, StoreError> {
        match self.into_parts()? {
            SpoolParts::Memory(bytes) => Ok(bytes),
            SpoolParts::Named(mut file) => file
                .read_all()
                .map_err(|error| StoreError::from_path("a spool", error)),
        }
    }
}

fn spent() -> StoreError {
    let source = io::Error::new(io::ErrorKind::InvalidInput, "an earlier write to it failed");
    StoreError::Io {
        action: "use",
        subject: "a spool".to_owned(),
        source,
    }
}

impl Write for Spool {
    /// Writes all bytes or fails; the error contains the [`StoreError`] and has its kind.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes)
            .map_err(|error| io::Error::new(error.io_kind(), error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StoreError {
    /// Converts an error on a path of the store at `address`.
    pub(super) fn from_path(address: &str, error: PathError) -> Self {
        let PathError {
            action,
            path,
            source,
        } = error;
        let address = address.to_owned();
        let subject = path.display().to_string();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Full { address, source }
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { address },
            io::ErrorKind::PermissionDenied => Self::Denied { subject, source },
            // The server of a network mount is gone.
            io::ErrorKind::StaleNetworkFileHandle
            | io::ErrorKind::NotConnected
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable => Self::Unreachable { address, source },
            _ => Self::Io {
                action,
                subject,
                source,
            },
        }
    }

    fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Full { source, .. }
            | Self::Denied { source, .. }
            | Self::Unreachable { source, .. }
            | Self::Io { source, .. } => source.kind(),
            Self::ReadOnly { .. } => io::ErrorKind::ReadOnlyFilesystem,
            Self::NotFound { .. } => io::ErrorKind::NotFound,
            Self::Exists { .. } => io::ErrorKind::AlreadyExists,
            Self::Short { .. } => io::ErrorKind::UnexpectedEof,
            Self::TooLong { .. } => io::ErrorKind::FileTooLarge,
            Self::Occupied { .. } => io::ErrorKind::DirectoryNotEmpty,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Dir;
    use std::sync::Arc;

    #[test]
    fn both_kinds_return_the_written_bytes() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = Arc::new(Dir::open(root.path()).expect("open"));
        let file = TempFile::create(&dir, 0o600).expect("create");
        for mut spool in [Spool::memory(), Spool::named(file, "here")] {
            assert!(spool.is_empty());
            let piece = vec![7; 3 << 20];
            for _ in 0..4 {
                spool.write_all(&piece).expect("write");
            }
            spool.append(b"end").expect("append");
            assert_eq!(spool.len(), (12 << 20) + 3);
            let bytes = spool.into_bytes().expect("bytes");
            assert!(bytes.len() == (12 << 20) + 3 && bytes.ends_with(b"\x07end"));
        }
        assert_eq!(std::fs::read_dir(root.path()).expect("list").count(), 0);
    }

    #[test]
    fn a_spool_that_failed_once_never_becomes_an_object() {
        let mut spool = Spool::memory();
        spool.failed = true;
        assert!(spool.append(b"more").is_err());
        assert!(spool.into_parts().is_err());
    }

    #[test]
    fn system_errors_become_store_errors() {
        let error = |code| {
            let source = io::Error::from_raw_os_error(code);
            StoreError::from_path(
                "here",
                PathError {
                    action: "write",
                    path: "p".into(),
                    source,
                },
            )
        };
        // ENOSPC, EDQUOT, EROFS, EACCES, EPERM, ESTALE, EIO as Linux numbers them.
        assert!(matches!(error(28), StoreError::Full { .. }));
        assert!(matches!(error(122), StoreError::Full { .. }));
        assert!(matches!(error(30), StoreError::ReadOnly { .. }));
        assert!(matches!(error(13), StoreError::Denied { .. }));
        assert!(matches!(error(1), StoreError::Denied { .. }));
        assert!(matches!(error(116), StoreError::Unreachable { .. }));
        assert!(matches!(error(5), StoreError::Io { .. }));
    }
}
