//! Setting damaged objects aside, in `quarantine/`: by another name where the store can rename, so
//! that their bytes stay where they are and need not be readable; else by a copy, made only of what
//! was read to its end.

use crate::Error;
use crate::chunk::ObjectHasher;
use crate::ops::Cancel;
use crate::repo::{RepoError, Repository};
use crate::store::{Body, ObjectKey, PutMode, StoreError};
use crate::types::{ObjectHash, PackId};

/// Objects are copied in pieces of this size: 1 MiB.
const PIECE: usize = 1 << 20;

/// What came of setting an object aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SetAside {
    /// It is in quarantine now, or another repair was faster.
    Done,
    /// Another object has its name in quarantine: both stay where they are.
    Taken,
    /// It cannot be read now and the store cannot rename: it stays where it is.
    Unreadable,
}

/// Moves an object to its place in quarantine.
///
/// A crash leaves it in one of the places, or in both: to do it again ends the same.
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
                // Another repair moved it since.
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

/// Moves what lies under a pack's name and is none to quarantine: under that name, or under the
/// hash of its bytes if other bytes came under that name before.
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

/// For stores that cannot rename: what is deleted was read to its end, and its copy was read back.
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
        .put(to, Body::Spooled(spool), PutMode::CreateOnly)
    {
        Ok(()) | Err(StoreError::Exists { .. }) => {}
        Err(err) => return Err(err.into()),
    }
    drop_twin(repo, from, hash_of(repo, to, cancel)? == Some(hash))
}

/// Deletes an object of which an equal one lies in quarantine.
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

/// Deletes an object that may be gone already.
pub(super) fn remove(repo: &Repository, key: &ObjectKey) -> Result<(), Error> {
    match repo.store().delete(key) {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

/// The hash of an object's bytes; none if it cannot be read to its end now.
fn hash_of(
    repo: &Repository,
    key: &ObjectKey,
    cancel: &Cancel,
) -> Result<Option<ObjectHash>, Error> {
    each_piece(repo, key, cancel, &mut |_| Ok(()))
}

/// Reads an object to its end; returns the hash of its bytes, or none if it cannot be read now.
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
        let mut piece = vec![0; (size - at).min(PIECE as u64) as usize];
        match repo.read_at(key, at, &mut piece) {
            Ok(()) => {}
            Err(err) if err.is_unreadable_now() => return Ok(None),
            Err(err) => return Err(err.into()),
        }
        hasher.update(&piece);
        each(&piece)?;
        at += piece.len() as u64;
    }
    Ok(Some(hasher.finish()))
}
