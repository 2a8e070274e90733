//! Whole sealed objects: segments, snapshots, leases.

use super::RepoError;
use super::system::random;
use crate::chunk::{
    Keys, ObjectSeal, PartKind, SealClass, TAG_BYTES, object_hash, open_bytes, shrink_bytes,
};
use crate::format::{
    ObjectHeader, ObjectKind, decode_body, decode_header, encode_body_prefix, encode_header,
};
use crate::store::ObjectKey;
use crate::types::{LeaseId, ObjectHash, to_u64};

fn class_of(kind: ObjectKind) -> SealClass {
    match kind {
        ObjectKind::Pack | ObjectKind::Segment => SealClass::Index,
        ObjectKind::Snapshot | ObjectKind::Lease => SealClass::Snapshot,
    }
}

/// Compresses and seals an object of one part. Returns its bytes and its name.
pub fn seal_object(
    keys: &Keys,
    kind: ObjectKind,
    writer: LeaseId,
    plain: &[u8],
) -> Result<(Vec<u8>, ObjectHash), RepoError> {
    let header = ObjectHeader {
        kind,
        random: random()?,
        writer,
    };
    let mut out = encode_header(&header);

    let seal = ObjectSeal::new(keys, class_of(kind), &header.random, &out);
    let (codec, mut body) = shrink_bytes(plain)?;
    seal.seal(PartKind::Body, 0, codec, to_u64(plain.len()), &mut body);
    out.reserve(body.len() + 16);
    out.extend_from_slice(&encode_body_prefix(codec, plain.len()));
    out.extend_from_slice(&body);

    let name = object_hash(&out);
    Ok((out, name))
}

/// Opens an object. Returns its header, which names the writer, and its plain bytes, at most
/// `limit`.
///
/// If the object is named by its content, the name is checked first.
pub fn open_object(
    keys: &Keys,
    kind: ObjectKind,
    key: &ObjectKey,
    bytes: &[u8],
    limit: usize,
) -> Result<(ObjectHeader, Vec<u8>), RepoError> {
    let name = match key {
        ObjectKey::Segment(id) => Some(*id.as_bytes()),
        ObjectKey::Snapshot(id) | ObjectKey::Forgotten(id) | ObjectKey::QuarantinedSnapshot(id) => {
            Some(*id.as_bytes())
        }
        _ => None,
    };
    if name.is_some_and(|name| name != *object_hash(bytes).as_bytes()) {
        return Err(RepoError::bad_object(
            key,
            "its bytes do not hash to its name",
        ));
    }

    let bad = |what: &dyn std::fmt::Display| RepoError::bad_object(key, what);
    let (header, header_len) = decode_header(bytes, kind).map_err(|err| bad(&err))?;
    let body = decode_body(&bytes[header_len..], limit).map_err(|err| bad(&err))?;

    let seal = ObjectSeal::new(keys, class_of(kind), &header.random, &bytes[..header_len]);
    let mut plain = body.sealed.to_vec();
    let plain_len = to_u64(body.plain_len);
    seal.open(PartKind::Body, 0, body.codec, plain_len, &mut plain)
        .map_err(|err| bad(&err))?;
    let plain = open_bytes(body.codec, plain, body.plain_len, limit).map_err(|err| bad(&err))?;

    Ok((header, plain))
}

/// Returns the most stored bytes that an object of this many plain bytes can have.
pub const fn stored_limit(plain_limit: usize) -> u64 {
    to_u64(stored_limit_in_memory(plain_limit))
}

/// Like [`stored_limit`], for a buffer.
pub(super) const fn stored_limit_in_memory(plain_limit: usize) -> usize {
    // A header (which may grow to 4 KiB), prefix and tag. Data that does not shrink is stored
    // plain.
    plain_limit + 4096 + 16 + TAG_BYTES
}
