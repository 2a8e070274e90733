//! Recovery data of packs: written when a pack is put, read when a pack is damaged (docs/format.md,
//! "Parity").

use std::collections::BTreeMap;

use super::{RepoError, Repository};
use crate::chunk::{
    ObjectHasher, ParityError, ParityShape, ReadAt, encode_parity, read_data_shard, recover,
    shard_hash,
};
use crate::format::{
    PARITY_END_BYTES, PARITY_HEAD_BYTES_LEAST, PARITY_HEAD_BYTES_MAX, ParityHead,
    decode_parity_end, decode_parity_head, encode_parity_end, encode_parity_head, parity_head_len,
};
use crate::store::{ObjectBody, ObjectKey, PutMode, Spool, StoreError};
use crate::types::{PackId, at_most, to_u64, to_usize};

/// The state of a pack's recovery data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParityState {
    Whole,
    Missing,
    /// It exists, but is damaged as described.
    Damaged(String),
}

/// The recovery data of a pack.
#[derive(Debug)]
struct FoundShards {
    head: ParityHead,
    shape: ParityShape,
    /// Offset of the first parity shard in the object.
    shards_at: u64,
}

impl Repository {
    /// Puts a pack and, if the repository has recovery data, that of the pack. Every pack is put
    /// here. Returns the bytes of both.
    ///
    /// Both are durable when it returns. A crash between them leaves a pack without recovery data,
    /// which `repair packs` adds.
    pub fn put_pack(&self, id: &PackId, spool: Spool) -> Result<u64, RepoError> {
        let size = spool.len();
        let parity = match self.config().parity {
            Some(percent) if size > 0 => Some(parity_of(id, size, percent, &mut |at, buf| {
                spool.read_at(at, buf)
            })?),
            _ => None,
        };
        self.store().put(
            &ObjectKey::Pack(*id),
            ObjectBody::Spooled(spool),
            PutMode::CreateOnly,
        )?;
        let mut bytes = size;
        if let Some(parity) = parity {
            self.store().put(
                &ObjectKey::Parity(*id),
                ObjectBody::Bytes(&parity),
                PutMode::CreateOnly,
            )?;
            bytes += to_u64(parity.len());
        }
        Ok(bytes)
    }

    /// Writes the recovery data of an undamaged pack in the store, and replaces any that exists.
    pub fn write_parity(&self, id: &PackId, size: u64, percent: u8) -> Result<(), RepoError> {
        let pack = ObjectKey::Pack(*id);
        let mut hasher = ObjectHasher::default();
        let store = self.store();
        let mut at = 0;
        while at < size {
            let mut piece = vec![0; at_most(size - at, 1 << 20)];
            self.read_at(&pack, at, &mut piece)?;
            hasher.update(&piece);
            at += to_u64(piece.len());
        }

        if size == 0 || PackId::from(hasher.finish()) != *id {
            return Err(RepoError::bad_object(
                &pack,
                "its bytes do not hash to its name",
            ));
        }
        let parity = parity_of(id, size, percent, &mut |at, buf| {
            self.read_at(&pack, at, buf)
        })?;

        let key = ObjectKey::Parity(*id);
        match store.delete(&key) {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(err) => return Err(err.into()),
        }

        match store.put(&key, ObjectBody::Bytes(&parity), PutMode::CreateOnly) {
            // Another repair wrote it first.
            Ok(()) | Err(StoreError::Exists { .. }) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }

    /// Reads all recovery data of a pack and checks it.
    pub fn check_parity(&self, id: &PackId, size: u64) -> Result<ParityState, RepoError> {
        let found = match self.find_parity(id) {
            Ok(Some((found, None))) => found,
            Ok(Some((_, Some(what)))) => return Ok(ParityState::Damaged(what)),
            Ok(None) => return Ok(ParityState::Missing),
            Err(err) if err.is_unavailable() => return Ok(ParityState::Damaged(err.to_string())),
            Err(err) => return Err(err),
        };

        if found.shape.size != size {
            return Ok(ParityState::Damaged(format!(
                "it belongs to a pack of {} bytes",
                found.shape.size
            )));
        }

        let bad = self
            .whole_parity(id, &found)?
            .iter()
            .filter(|whole| !**whole)
            .count();

        Ok(match bad {
            0 => ParityState::Whole,
            bad => ParityState::Damaged(format!(
                "{bad} of {} shards are damaged",
                found.shape.parity
            )),
        })
    }

    /// Reconstructs a pack's bytes from the undamaged parts of `copies` (given with their sizes)
    /// and the pack's recovery data. The result hashes to the pack's name. If the parts do not
    /// suffice, the error counts as damage ([`RepoError::is_damage`]).
    pub fn reconstruct(
        &self,
        id: &PackId,
        copies: &[(ObjectKey, u64)],
    ) -> Result<Spool, RepoError> {
        let key = ObjectKey::Parity(*id);
        let missing = || RepoError::bad_object(&key, "there is no recovery data");
        let (found, _) = self.find_parity(id)?.ok_or_else(missing)?;
        let FoundShards { head, shape, .. } = &found;

        // For each data shard, find a copy in which it is undamaged.
        let mut from: Vec<Option<&ObjectKey>> = vec![None; to_usize(shape.data)];
        let mut buf = Vec::new();
        for (n, from) in (0..shape.data).zip(&mut from) {
            for (copy, _) in copies
                .iter()
                .filter(|(_, size)| shard_end(shape, n) <= *size)
            {
                let mut read = |at, part: &mut [u8]| self.read_at(copy, at, part);
                match read_data_shard(shape, n, &mut buf, &mut read).map_err(RepoError::from) {
                    Ok(()) if head.data.get(to_usize(n)) == Some(&shard_hash(&buf)) => {
                        *from = Some(copy);
                        break;
                    }
                    Ok(()) => {}
                    Err(err) if err.is_unavailable() => {}
                    Err(err) => return Err(err),
                }
            }
        }

        let is_whole: Vec<bool> = from.iter().map(Option::is_some).collect();
        let parity_is_whole = if is_whole.iter().all(|whole| *whole) {
            Vec::new()
        } else {
            self.whole_parity(id, &found)?
        };

        let mut read = |at: u64, part: &mut [u8]| {
            let number = usize::try_from(at / u64::from(shape.shard)).ok();
            let copy = number.and_then(|number| *from.get(number)?);
            copy.map_or(Ok(()), |copy| self.read_at(copy, at, part))
        };
        let mut read_parity =
            |at: u64, part: &mut [u8]| self.read_at(&key, found.shards_at + at, part);

        let lost = recover(
            shape,
            &is_whole,
            &parity_is_whole,
            &mut read,
            &mut read_parity,
        )
        .map_err(|err| parity_error(&key, err))?;

        self.assemble(id, shape, &lost, &mut read)
    }

    fn assemble(
        &self,
        id: &PackId,
        shape: &ParityShape,
        recovered: &BTreeMap<u32, Vec<u8>>,
        read: &mut ReadAt<'_, StoreError>,
    ) -> Result<Spool, RepoError> {
        let mut spool = self.store().spool()?;
        let mut hasher = ObjectHasher::default();
        let mut buf = Vec::new();
        for n in 0..shape.data {
            let bytes = match recovered.get(&n) {
                Some(bytes) => bytes,
                None => {
                    read_data_shard(shape, n, &mut buf, read)?;
                    &buf
                }
            };
            let bytes = &bytes[..shape.data_len(n)];
            hasher.update(bytes);
            spool.append(bytes)?;
        }
        if PackId::from(hasher.finish()) != *id {
            let what = "the rebuilt pack does not hash to its name";
            return Err(RepoError::bad_object(&ObjectKey::Parity(*id), what));
        }
        Ok(spool)
    }

    /// Returns for each parity shard whether it is undamaged.
    fn whole_parity(&self, id: &PackId, found: &FoundShards) -> Result<Vec<bool>, RepoError> {
        let key = ObjectKey::Parity(*id);
        let mut shard = vec![0; to_usize(found.shape.shard)];
        let mut out = Vec::with_capacity(found.head.parity.len());
        for (n, hash) in (0..).zip(&found.head.parity) {
            let at = found.shards_at + n * u64::from(found.shape.shard);
            out.push(
                match self.read_at(&key, at, &mut shard).map_err(RepoError::from) {
                    Ok(()) => shard_hash(&shard) == *hash,
                    Err(err) if err.is_unavailable() => false,
                    Err(err) => return Err(err),
                },
            );
        }
        Ok(out)
    }

    /// Reads the head of a pack's recovery data, from the first copy or the second. Returns `None`
    /// if there is no such object. The text describes the damage of the other copy or of the size.
    fn find_parity(&self, id: &PackId) -> Result<Option<(FoundShards, Option<String>)>, RepoError> {
        let key = ObjectKey::Parity(*id);
        let size = match self.store().stat(&key) {
            Ok(meta) => meta.size,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(err) => return Err(err.into()),
        };

        let first = self.first_head(&key);
        let second = self.second_head(&key, size);
        let (head, what) = match (first, second) {
            (Ok(first), Ok(second)) if first == second => (first, None),
            (Ok(_), Ok(_)) => return Err(RepoError::bad_object(&key, "its two heads differ")),
            (Ok(first), Err(err)) if err.is_unavailable() => {
                (first, Some(format!("its second head: {err}")))
            }
            (Err(err), Ok(second)) if err.is_unavailable() => {
                (second, Some(format!("its first head: {err}")))
            }
            (Err(err), _) | (_, Err(err)) => return Err(err),
        };

        let shape = ParityShape {
            size: head.pack_size,
            shard: head.shard,
            data: head.data_count(),
            parity: head.parity_count(),
        };
        if head.pack != *id || !shape.is_legal() {
            return Err(RepoError::bad_object(&key, "it belongs to another pack"));
        }

        let shards_at = to_u64(head.encoded_len());
        let expected = 2 * shards_at + shape.parity_bytes() + to_u64(PARITY_END_BYTES);
        let what = what.or_else(|| {
            (size != expected).then(|| format!("it has {size} bytes and should have {expected}"))
        });

        Ok(Some((
            FoundShards {
                head,
                shape,
                shards_at,
            },
            what,
        )))
    }

    fn first_head(&self, key: &ObjectKey) -> Result<ParityHead, RepoError> {
        let bad = |err: &dyn std::fmt::Display| RepoError::bad_object(key, err);
        let mut bytes = vec![0; PARITY_HEAD_BYTES_LEAST];
        self.read_at(key, 0, &mut bytes)?;
        let len = parity_head_len(&bytes).map_err(|err| bad(&err))?;
        bytes.resize(len.min(PARITY_HEAD_BYTES_MAX), 0);
        self.read_at(key, 0, &mut bytes)?;
        decode_parity_head(&bytes).map_err(|err| bad(&err))
    }

    fn second_head(&self, key: &ObjectKey, size: u64) -> Result<ParityHead, RepoError> {
        let bad = |err: &dyn std::fmt::Display| RepoError::bad_object(key, err);
        let end_at = size
            .checked_sub(to_u64(PARITY_END_BYTES))
            .ok_or_else(|| bad(&"it is truncated"))?;
        let mut end = [0; PARITY_END_BYTES];
        self.read_at(key, end_at, &mut end)?;
        let len = decode_parity_end(&end).map_err(|err| bad(&err))?;
        let at = end_at
            .checked_sub(to_u64(len))
            .ok_or_else(|| bad(&"it is truncated"))?;
        let mut bytes = vec![0; len];
        self.read_at(key, at, &mut bytes)?;
        decode_parity_head(&bytes).map_err(|err| bad(&err))
    }
}

/// Returns the end of data shard `n` in the pack.
fn shard_end(shape: &ParityShape, n: u32) -> u64 {
    u64::from(n) * u64::from(shape.shard) + to_u64(shape.data_len(n))
}

/// Returns the bytes of a parity object.
fn parity_of(
    id: &PackId,
    size: u64,
    percent: u8,
    read: &mut ReadAt<'_, StoreError>,
) -> Result<Vec<u8>, RepoError> {
    let key = ObjectKey::Parity(*id);
    let shape = ParityShape::new(size, percent)
        .ok_or_else(|| RepoError::refused(format!("pack {id} is too large for recovery data")))?;
    let mut data = Vec::with_capacity(to_usize(shape.data));
    let mut buf = Vec::new();
    for n in 0..shape.data {
        read_data_shard(&shape, n, &mut buf, read)?;
        data.push(shard_hash(&buf));
    }

    let shards = encode_parity(&shape, read).map_err(|err| parity_error(&key, err))?;
    let parity = shards
        .chunks(to_usize(shape.shard))
        .map(shard_hash)
        .collect();

    let head = encode_parity_head(&ParityHead {
        pack: *id,
        pack_size: size,
        shard: shape.shard,
        data,
        parity,
    });

    let mut out = Vec::with_capacity(2 * head.len() + shards.len() + PARITY_END_BYTES);
    out.extend_from_slice(&head);
    out.extend_from_slice(&shards);
    out.extend_from_slice(&head);
    out.extend_from_slice(&encode_parity_end(head.len()));
    Ok(out)
}

fn parity_error(key: &ObjectKey, err: ParityError<StoreError>) -> RepoError {
    match err {
        ParityError::Read(err) => err.into(),
        err => RepoError::bad_object(key, err),
    }
}
