//! Setting damaged objects aside: copied into `quarantine/` first, deleted from their place second.

use crate::Error;
use crate::chunk::ObjectHasher;
use crate::ops::Cancel;
use crate::repo::{RepoError, Repository};
use crate::store::{Body, ObjectKey, PutMode, Store, StoreError};

/// Objects are copied in pieces of this size: 1 MiB.
const PIECE: usize = 1 << 20;
/// Where a piece cannot be read, it is tried again in sectors of 4 KiB.
const SECTOR: usize = 4 << 10;

/// Copies an object to its place in quarantine, then deletes it. What the medium does not give reads as zeros there.
///
/// False if there is another object of that name in quarantine already: then nothing was deleted. A crash leaves the
/// copy beside the object, or both gone their way: to do it again ends the same.
pub(super) fn set_aside(
    repo: &Repository,
    from: &ObjectKey,
    to: &ObjectKey,
    cancel: &Cancel,
) -> Result<bool, Error> {
    let store = repo.store();
    let size = match store.stat(from) {
        Ok(meta) => meta.size,
        Err(StoreError::NotFound { .. }) => return Ok(true),
        Err(err) => return Err(err.into()),
    };
    let mut spool = store.spool()?;
    let mut hasher = ObjectHasher::default();
    let copied = each_piece(store, from, size, cancel, &mut |bytes| {
        hasher.update(bytes);
        Ok(spool.append(bytes)?)
    });
    match copied {
        // Another repair has just set it aside.
        Err(Error::Repo(RepoError::Store(StoreError::NotFound { .. }))) => return Ok(true),
        copied => copied?,
    }
    match store.put(to, Body::Spooled(spool), PutMode::CreateOnly) {
        Ok(()) => {}
        Err(StoreError::Exists { .. }) => {
            let held = store.stat(to)?.size;
            let mut other = ObjectHasher::default();
            each_piece(store, to, held, cancel, &mut |bytes| {
                other.update(bytes);
                Ok(())
            })?;
            if other.finish() != hasher.finish() {
                return Ok(false);
            }
        }
        Err(err) => return Err(err.into()),
    }
    remove(repo, from)?;
    Ok(true)
}

/// Deletes an object that may be gone already.
pub(super) fn remove(repo: &Repository, key: &ObjectKey) -> Result<(), Error> {
    match repo.store().delete(key) {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(err) => Err(err.into()),
    }
}

fn each_piece(
    store: &dyn Store,
    key: &ObjectKey,
    size: u64,
    cancel: &Cancel,
    each: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut at = 0;
    while at < size {
        cancel.check()?;
        let mut piece = vec![0; (size - at).min(PIECE as u64) as usize];
        read_what_goes(store, key, at, &mut piece)?;
        each(&piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Fills `buf` with what the medium gives; sectors that it does not give are zeros.
pub(super) fn read_what_goes(
    store: &dyn Store,
    key: &ObjectKey,
    at: u64,
    buf: &mut [u8],
) -> Result<(), StoreError> {
    match store.read_at(key, at, buf) {
        Err(err) if err.is_bad_medium() => {}
        other => return other,
    }
    let mut start = 0;
    while start < buf.len() {
        // Up to the next boundary of a sector in the object.
        let len = (SECTOR - (at as usize + start) % SECTOR).min(buf.len() - start);
        let sector = &mut buf[start..start + len];
        match store.read_at(key, at + start as u64, sector) {
            Err(err) if err.is_bad_medium() => sector.fill(0),
            other => other?,
        }
        start += len;
    }
    Ok(())
}
