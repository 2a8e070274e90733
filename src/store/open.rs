//! Opening a store: the one place that chooses the back end of a location and wraps it.

use std::io;
use std::sync::Arc;

use super::{LocalStore, ReadOnlyStore, SharedStore, StoreError, StoreLocation};

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreOptions {
    /// What the caller does with the store.
    pub access: StoreAccess,
}

/// What the caller of [`open`] does with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreAccess {
    /// Reads and writes a store that exists.
    #[default]
    ReadWrite,
    /// Reads and writes a store, which is created if it does not exist.
    Create,
    /// Reads a store that exists. Every write fails with [`StoreError::ReadOnly`].
    ReadOnly,
}

/// Opens the store at a location: its back end, and around it the wrappers that the options ask for.
///
/// A store that does not exist is [`StoreError::Unreachable`], unless the caller may create it.
/// Remote stores are not supported yet: they return an error of kind `Unsupported`.
pub fn open(location: &StoreLocation, options: &StoreOptions) -> Result<SharedStore, StoreError> {
    let back_end: SharedStore = match location {
        StoreLocation::Local(path) => Arc::new(match options.access {
            StoreAccess::ReadWrite | StoreAccess::ReadOnly => LocalStore::open(path)?,
            StoreAccess::Create => LocalStore::create(path)?,
        }),
        StoreLocation::Sftp { .. } | StoreLocation::S3 { .. } => {
            return Err(unsupported(location));
        }
    };

    Ok(match options.access {
        StoreAccess::ReadWrite | StoreAccess::Create => back_end,
        StoreAccess::ReadOnly => Arc::new(ReadOnlyStore::new(back_end)),
    })
}

fn unsupported(location: &StoreLocation) -> StoreError {
    let text = "remote repositories are not supported yet; use a local path";
    let source = io::Error::new(io::ErrorKind::Unsupported, text);
    StoreError::Io {
        action: "open",
        subject: location.to_string(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ObjectBody, ObjectKey, PutMode};
    use crate::types::LeaseId;

    fn open_as(location: &StoreLocation, access: StoreAccess) -> Result<SharedStore, StoreError> {
        open(location, &StoreOptions { access })
    }

    #[test]
    fn remote_stores_are_reported_as_unsupported() {
        for text in ["me@host:/srv", "s3://bucket/x"] {
            let location = StoreLocation::parse(text).expect("good");
            for access in [
                StoreAccess::ReadWrite,
                StoreAccess::Create,
                StoreAccess::ReadOnly,
            ] {
                let StoreError::Io { source, .. } =
                    open_as(&location, access).expect_err("unsupported")
                else {
                    panic!("another error")
                };
                assert_eq!(source.kind(), io::ErrorKind::Unsupported);
            }
        }
    }

    #[test]
    fn a_local_store_is_opened_only_if_it_exists() {
        let root = tempfile::tempdir().expect("a directory");
        let location = StoreLocation::parse(root.path().join("repo")).expect("a path");
        for access in [StoreAccess::ReadWrite, StoreAccess::ReadOnly] {
            assert!(matches!(
                open_as(&location, access),
                Err(StoreError::Unreachable { .. })
            ));
        }
        let made = open_as(&location, StoreAccess::Create).expect("create");
        let opened = open(&location, &StoreOptions::default()).expect("open");
        assert_eq!(opened.address(), made.address());
        assert!(!opened.properties().read_only);
    }

    #[test]
    fn a_store_opened_for_reading_refuses_writes() {
        let root = tempfile::tempdir().expect("a directory");
        let location = StoreLocation::parse(root.path().join("repo")).expect("a path");
        let key = ObjectKey::Lease(LeaseId::new([9; 16]));
        let written = open_as(&location, StoreAccess::Create).expect("create");
        written
            .put(&key, ObjectBody::Bytes(b"x"), PutMode::CreateOnly)
            .expect("put");

        let read = open_as(&location, StoreAccess::ReadOnly).expect("open");
        assert!(read.properties().read_only);
        assert_eq!(read.get(&key, 9).expect("get"), b"x");
        assert!(matches!(
            read.delete(&key),
            Err(StoreError::ReadOnly { .. })
        ));
        assert_eq!(written.get(&key, 9).expect("still there"), b"x");
    }
}
