//! The lease of a reader.

use crate::Error;
use crate::format::LeaseKind;
use crate::repo::{Lease, RepoError, Repository};
use crate::store::StoreError;

/// Takes a lease for an operation that reads packs, so that no prune deletes a pack in the
/// meantime. Returns `None` if the store cannot be written.
pub fn reading_lease(repo: &Repository, kind: LeaseKind) -> Result<Option<Lease>, Error> {
    if repo.store().properties().read_only {
        return Ok(None);
    }
    match Lease::take(repo, kind) {
        Ok(lease) => Ok(Some(lease)),
        Err(RepoError::Store(
            StoreError::ReadOnly { .. } | StoreError::Denied { .. } | StoreError::Full { .. },
        )) => Ok(None),
        Err(err) => Err(err.into()),
    }
}
