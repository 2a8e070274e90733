//! Sealing: AES-256-GCM with a separate key for each object, so that no nonce can repeat.
//!
//! The object key is derived from the class's sealing key and 32 random bytes in the object's
//! header. A nonce consists of the part's kind and number, and each number is used only once per
//! object key. If building an object fails, its random bytes are discarded with it.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::keys::{Keys, SealClass};
use crate::types::FrameCodec;

/// Bytes that sealing adds to a message.
pub const TAG_BYTES: usize = 16;

/// The kind of a sealed part. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PartKind {
    /// A frame of a pack; its number is its position in the pack.
    Frame = 1,
    /// A pack's directory; number 0.
    Directory = 2,
    /// The only part of a segment, a snapshot or a lease; number 0.
    Body = 3,
}

impl PartKind {
    /// Returns the number in the format: the discriminant, which only a cast gives.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// The sealed bytes were modified, or were sealed with another key, name, place or length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealBroken;

impl fmt::Display for SealBroken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("decryption failed: the bytes were changed, or encrypted with another key")
    }
}

impl std::error::Error for SealBroken {}

/// Seals and opens the parts of one object in one class.
pub struct ObjectSeal {
    key: LessSafeKey,
    header: Vec<u8>,
}

impl fmt::Debug for ObjectSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectSeal(…)")
    }
}

impl ObjectSeal {
    /// Binds to an object: `header` is its envelope header as stored, `random` the 32 random bytes
    /// in the header.
    pub fn new(keys: &Keys, class: SealClass, random: &[u8; 32], header: &[u8]) -> Self {
        let key = keys.object_key(class, random);
        let key =
            UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("AES-256 takes a key of 32 bytes");
        Self {
            key: LessSafeKey::new(key),
            header: header.to_vec(),
        }
    }

    fn nonce(part: PartKind, number: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[0] = part.number();
        nonce[4..].copy_from_slice(&u64_big_endian(number));
        Nonce::assume_unique_for_key(nonce)
    }

    fn aad(&self, part: PartKind, number: u64, codec: FrameCodec, plain_len: u64) -> Aad<Vec<u8>> {
        let mut aad = Vec::with_capacity(self.header.len() + 18);
        aad.extend_from_slice(&self.header);
        aad.push(part.number());
        aad.extend_from_slice(&number.to_le_bytes());
        aad.push(codec.number());
        aad.extend_from_slice(&plain_len.to_le_bytes());
        Aad::from(aad)
    }

    /// Seals `bytes` in place and appends the tag. The caller must use each (part, number) only
    /// once.
    pub fn seal(
        &self,
        part: PartKind,
        number: u64,
        codec: FrameCodec,
        plain_len: u64,
        bytes: &mut Vec<u8>,
    ) {
        let aad = self.aad(part, number, codec, plain_len);
        let tag = self
            .key
            .seal_in_place_separate_tag(Self::nonce(part, number), aad, bytes)
            .expect("a part is far below the 64 GiB that AES-GCM takes");
        bytes.extend_from_slice(tag.as_ref());
    }

    /// Opens sealed bytes in place and removes the tag.
    pub fn open(
        &self,
        part: PartKind,
        number: u64,
        codec: FrameCodec,
        plain_len: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), SealBroken> {
        let aad = self.aad(part, number, codec, plain_len);
        let opened = self
            .key
            .open_in_place(Self::nonce(part, number), aad, bytes)
            .map_err(|_| SealBroken)?
            .len();
        bytes.truncate(opened);
        Ok(())
    }
}

#[expect(
    clippy::big_endian_bytes,
    reason = "the nonce's number is big-endian by the format"
)]
fn u64_big_endian(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::MasterKey;

    #[test]
    fn a_seal_binds_header_part_number_codec_and_length() {
        let keys = Keys::derive(&MasterKey::new([9; 32]));
        let seal = ObjectSeal::new(&keys, SealClass::Data, &[1; 32], b"header");
        let mut sealed = b"plain".to_vec();
        seal.seal(PartKind::Frame, 3, FrameCodec::Plain, 5, &mut sealed);
        assert_eq!(sealed.len(), 5 + TAG_BYTES);

        let open = |seal: &ObjectSeal, part, number, codec, len| {
            let mut bytes = sealed.clone();
            seal.open(part, number, codec, len, &mut bytes)
                .map(|()| bytes)
        };
        assert_eq!(
            open(&seal, PartKind::Frame, 3, FrameCodec::Plain, 5),
            Ok(b"plain".to_vec())
        );
        assert!(open(&seal, PartKind::Directory, 3, FrameCodec::Plain, 5).is_err());
        assert!(open(&seal, PartKind::Frame, 4, FrameCodec::Plain, 5).is_err());
        assert!(open(&seal, PartKind::Frame, 3, FrameCodec::Zstd, 5).is_err());
        assert!(open(&seal, PartKind::Frame, 3, FrameCodec::Plain, 6).is_err());

        let moved = ObjectSeal::new(&keys, SealClass::Data, &[1; 32], b"Header");
        assert!(open(&moved, PartKind::Frame, 3, FrameCodec::Plain, 5).is_err());
        let other = ObjectSeal::new(&keys, SealClass::Metadata, &[1; 32], b"header");
        assert!(open(&other, PartKind::Frame, 3, FrameCodec::Plain, 5).is_err());
        assert!(
            seal.open(PartKind::Frame, 0, FrameCodec::Plain, 0, &mut vec![0; 3])
                .is_err()
        );
    }
}
