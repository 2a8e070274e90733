//! Examines an object that could not be read: it is damaged, foreign, or only unreachable at the
//! moment.

use super::{RepoError, Repository, open_object, stored_limit};
use crate::chunk::object_hash;
use crate::format::ObjectKind;
use crate::store::{ObjectKey, StoreError};
use crate::types::{ObjectHash, Timestamp, to_u64};

/// The result of an examination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackVerdict {
    /// It no longer exists.
    Gone,
    /// It cannot be read to its end now, so nothing is known about its content.
    UnreadableNow(String),
    /// It was read to its end twice with the same bytes, and either its hash is not its name or it
    /// was not sealed with this repository's key. `hash` is the hash of its bytes, or `None` if it
    /// is longer than such an object may be.
    Broken {
        hash: Option<ObjectHash>,
        what: String,
        stored: Timestamp,
    },
    /// It was sealed with this repository's key, under its name.
    Authentic,
}

impl Repository {
    /// Examines an object of one sealed part (a segment or snapshot) of at most `limit` plain
    /// bytes. Reads the store, not the cache.
    ///
    /// # Errors
    /// If the store cannot be reached.
    pub fn examine(
        &self,
        key: &ObjectKey,
        kind: ObjectKind,
        limit: usize,
    ) -> Result<PackVerdict, RepoError> {
        let meta = match self.store().stat(key) {
            Ok(meta) => meta,
            Err(StoreError::NotFound { .. }) => return Ok(PackVerdict::Gone),
            Err(err) if err.is_unreadable_now() => {
                return Ok(PackVerdict::UnreadableNow(err.to_string()));
            }
            Err(err) => return Err(err.into()),
        };

        let stored = meta.modified;
        if meta.size > stored_limit(limit) {
            let what = format!(
                "it has {} bytes, too many for an object of its kind",
                meta.size
            );
            return Ok(PackVerdict::Broken {
                hash: None,
                what,
                stored,
            });
        }

        // Two reads that differ show a bad connection or medium, not a damaged object.
        let mut first: Option<Vec<u8>> = None;
        for _ in 0..2 {
            let bytes = match self.store().get(key, stored_limit(limit)) {
                Ok(bytes) => bytes,
                Err(StoreError::NotFound { .. }) => return Ok(PackVerdict::Gone),
                Err(err @ (StoreError::Short { .. } | StoreError::TooLong { .. })) => {
                    return Ok(PackVerdict::UnreadableNow(err.to_string()));
                }
                Err(err) if err.is_unreadable_now() => {
                    return Ok(PackVerdict::UnreadableNow(err.to_string()));
                }
                Err(err) => return Err(err.into()),
            };
            if to_u64(bytes.len()) != meta.size
                || first.as_ref().is_some_and(|first| *first != bytes)
            {
                return Ok(PackVerdict::UnreadableNow(
                    "two reads of it gave different bytes".into(),
                ));
            }
            first = Some(bytes);
        }

        let bytes = first.unwrap_or_default();
        Ok(match open_object(self.keys(), kind, key, &bytes, limit) {
            Ok(_) => PackVerdict::Authentic,
            Err(RepoError::Damaged { what, .. }) => PackVerdict::Broken {
                hash: Some(object_hash(&bytes)),
                what,
                stored,
            },
            Err(err) => return Err(err),
        })
    }
}
