//! Moves damaged objects to `quarantine/`. If the store can rename, the object is renamed: its
//! bytes are not read and need not be readable. Otherwise it is copied, and only an object that was
//! read to its end is deleted.

use crate::Error;
use crate::chunk::ObjectHasher;
use crate::repo::{RepoError, Repository};
use crate::store::{ObjectBody, ObjectKey, PutMode, StoreError};
use crate::task::Cancel;
use crate::types::{ObjectHash, PackId, at_most, to_u64};

/// Size of the pieces in which objects are copied: 1 MiB.
const PIECE: usize = 1 << 20;

/// Result of moving an object to quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetAside {
    /// The object is in quarantine now, or another repair was faster.
    Done,
    /// Another object has its name in quarantine; both stay in place.
    Taken,
    /// The object cannot be read now and the store cannot rename; it stays in place.
    Unreadable,
}

/// Moves an object to its place in quarantine.
///
/// A crash leaves it in one of the places, or in both. Repeating the call completes the move.
pub(super) fn set_aside(
    repo: &Repository,
    from: &ObjectKey,
    to: &ObjectKey,
    cancel: &Cancel,
) -> Result<SetAside, Error> {
    let store = repo.store();
    if !store.properties().rename {
        return copy_aside(repo, from, to, cancel);
    }
    match store.rename(from, to) {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(SetAside::Done),
        Err(StoreError::Exists { .. }) => {
            let one = match hash_of(repo, from, cancel) {
                // Another repair has moved it since.
                Err(err) if is_gone(&err) => return Ok(SetAside::Done),
                hash => hash?,
            };
            let other = match hash_of(repo, to, cancel) {
                Err(err) if is_gone(&err) => return Ok(SetAside::Taken),
                hash => hash?,
            };
            drop_twin(repo, from, one.is_some() && one == other)
        }
        Err(err) => Err(err.into()),
    }
}

/// Moves an object under a pack's name that is not a pack to quarantine: under that name, or under
/// the hash of its bytes if quarantine has other bytes under that name.
pub(super) fn set_foreign_aside(
    repo: &Repository,
    id: PackId,
    cancel: &Cancel,
) -> Result<SetAside, Error> {
    let from = ObjectKey::Pack(id);
    match set_aside(repo, &from, &ObjectKey::QuarantinedPack(id), cancel)? {
        SetAside::Taken => match hash_of(repo, &from, cancel)? {
            Some(hash) => set_aside(
                repo,
                &from,
                &ObjectKey::QuarantinedPack(hash.into()),
                cancel,
            ),
            None => Ok(SetAside::Taken),
        },
        done => Ok(done),
    }
}

/// Copies an object to quarantine and deletes it, for stores that cannot rename. The object is
/// deleted only after it was read to its end and its copy was read back.
fn copy_aside(
    repo: &Repository,
    from: &ObjectKey,
    to: &ObjectKey,
    cancel: &Cancel,
) -> Result<SetAside, Error> {
    let mut spool = repo.store().spool()?;
    let read = each_piece(repo, from, cancel, &mut |bytes| Ok(spool.append(bytes)?));

    let hash = match read {
        Ok(Some(hash)) => hash,
        Ok(None) => return Ok(SetAside::Unreadable),
        Err(err) if is_gone(&err) => return Ok(SetAside::Done),
        Err(err) => return Err(err),
    };

    match repo
        .store()
        .put(to, ObjectBody::Spooled(spool), PutMode::CreateOnly)
    {
        Ok(()) | Err(StoreError::Exists { .. }) => {}
        Err(err) => return Err(err.into()),
    }

    drop_twin(repo, from, hash_of(repo, to, cancel)? == Some(hash))
}

/// Deletes an object if quarantine has an equal one.
fn drop_twin(repo: &Repository, from: &ObjectKey, is_equal: bool) -> Result<SetAside, Error> {
    if !is_equal {
        return Ok(SetAside::Taken);
    }
    remove(repo, from)?;
    Ok(SetAside::Done)
}

fn is_gone(err: &Error) -> bool {
    matches!(
        err,
        Error::Repo(RepoError::Store(StoreError::NotFound { .. }))
    )
}

/// Deletes an object; a missing object is not an error.
pub(super) fn remove(repo: &Repository, key: &ObjectKey) -> Result<(), Error> {
    match repo.store().delete(key) {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// Returns the hash of an object's bytes, or `None` if it cannot be read to its end now.
fn hash_of(
    repo: &Repository,
    key: &ObjectKey,
    cancel: &Cancel,
) -> Result<Option<ObjectHash>, Error> {
    each_piece(repo, key, cancel, &mut |_| Ok(()))
}

/// Reads an object to its end and returns the hash of its bytes, or `None` if it cannot be read
/// now. `each` gets the pieces in order.
fn each_piece(
    repo: &Repository,
    key: &ObjectKey,
    cancel: &Cancel,
    each: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<Option<ObjectHash>, Error> {
    let size = match repo.store().stat(key) {
        Ok(meta) => meta.size,
        Err(err) if err.is_unreadable_now() => return Ok(None),
        Err(err) => return Err(err.into()),
    };

    let mut hasher = ObjectHasher::default();
    let mut at = 0;
    while at < size {
        cancel.check()?;
        let mut piece = vec![0; at_most(size - at, PIECE)];
        match repo.read_at(key, at, &mut piece) {
            Ok(()) => {}
            Err(err) if err.is_unreadable_now() => return Ok(None),
            Err(err) => return Err(err.into()),
        }
        hasher.update(&piece);
        each(&piece)?;
        at += to_u64(piece.len());
    }
    Ok(Some(hasher.finish()))
}
