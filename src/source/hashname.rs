//! Names that are hashes of the content ([R19](docs/protocol.md#r19)). An immutable source may skip
//! such files, and its first capture checks them.
//!
//! Only canonical spellings count; any other name that looks like a hash is an ordinary name. These
//! are recognized:
//! - 64 lower-case hex digits: the SHA-256 of the file;
//! - `<multihash>.data`, base32 in upper case without padding: a block of kubo's flatfs, with the
//!   block's own hash;
//! - CIDv0 (`Qm…`, base58) and CIDv1 (`b…`, base32 in lower case). Only a CIDv1 of codec *raw* with
//!   SHA-256 is the hash of the bytes; other CIDs name the root of a tree of blocks and cannot be
//!   checked from the file alone.

use aws_lc_rs::digest;

use crate::types::{hex, to_u64};

/// Multihash code of SHA-256.
const SHA2_256: u64 = 0x12;
/// Multihash code of the identity "hash", whose name is the content: it never has a file.
pub(super) const IDENTITY: u64 = 0x00;
/// Multicodec code of raw bytes.
const RAW: u64 = 0x55;
/// Digest lengths in bytes that kubo accepts. Shorter digests prove little, and ordinary names
/// would match.
const DIGEST_BYTES: std::ops::RangeInclusive<u64> = 20..=128;
/// Longest possible name: base32 of a 128-byte digest with its prefixes, and `.data`.
const NAME_BYTES_MAX: usize = 240;

/// The spelling of a hash name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashForm {
    /// 64 hex digits.
    Sha256Hex,
    /// A flatfs block.
    FlatfsBlock,
    /// `Qm…`.
    CidV0,
    /// `bafy…`, `bafk…`.
    CidV1,
}

/// A name that is a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashName {
    form: HashForm,
    sha256: Option<[u8; 32]>,
}

impl HashName {
    /// Parses a file's name. `None` if it is not a hash in canonical spelling.
    pub fn parse(name: &[u8]) -> Option<Self> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }

        if let Some(key) = name.strip_suffix(b".data") {
            let (code, digest) = multihash(&base32(key, b'A')?)?;
            return Some(Self {
                form: HashForm::FlatfsBlock,
                sha256: sha256_of(code, &digest),
            });
        }

        if let Some(sha256) = hex::decode_array(name) {
            return Some(Self {
                form: HashForm::Sha256Hex,
                sha256: Some(sha256),
            });
        }

        match name {
            [b'b', rest @ ..] => cid_v1(rest),
            [b'Q', b'm', ..] if name.len() == 46 => {
                let (code, digest) = multihash(&base58::<34>(name)?)?;
                (code == SHA2_256 && digest.len() == 32).then_some(Self {
                    form: HashForm::CidV0,
                    sha256: None,
                })
            }
            _ => None,
        }
    }

    /// Returns the spelling of the name.
    pub fn form(&self) -> HashForm {
        self.form
    }

    /// Returns the SHA-256 that the file's bytes must have. `None` if the bytes alone cannot
    /// confirm the name.
    pub fn expected_sha256(&self) -> Option<[u8; 32]> {
        self.sha256
    }

    /// Returns a checker for the file's bytes. `None` if the bytes alone cannot confirm the name.
    pub fn checker(&self) -> Option<HashChecker> {
        self.sha256.map(|expected| HashChecker {
            expected,
            context: digest::Context::new(&digest::SHA256),
        })
    }
}

/// Compares a file's bytes, passed in order, with the hash in its name.
pub struct HashChecker {
    expected: [u8; 32],
    context: digest::Context,
}

impl HashChecker {
    /// Adds the next bytes. A hole counts as zeros.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// Returns true if all bytes together have the hash.
    pub fn finish(self) -> bool {
        self.context.finish().as_ref() == self.expected
    }
}

fn cid_v1(text: &[u8]) -> Option<HashName> {
    let bytes = base32(text, b'a')?;
    let (version, rest) = varint(&bytes)?;
    let (codec, rest) = varint(rest)?;
    let (code, digest) = multihash(rest)?;
    let sha256 = if codec == RAW {
        sha256_of(code, &digest)
    } else {
        None
    };
    (version == 1).then_some(HashName {
        form: HashForm::CidV1,
        sha256,
    })
}

fn sha256_of(code: u64, digest: &[u8]) -> Option<[u8; 32]> {
    if code == SHA2_256 {
        digest.try_into().ok()
    } else {
        None
    }
}

/// Splits a multihash into code and digest. Nothing may follow the digest.
pub(super) fn multihash(bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (code, rest) = varint(bytes)?;
    let (len, digest) = varint(rest)?;
    let fits = len == to_u64(digest.len()) && DIGEST_BYTES.contains(&len) && code != IDENTITY;
    fits.then(|| (code, digest.to_vec()))
}

/// Reads a minimal LEB128 number of up to 63 bits.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().enumerate().take(9) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            // A last byte of zero adds nothing, so the encoding is not minimal.
            return (byte != 0 || i == 0).then_some((value, &bytes[i + 1..]));
        }
    }
    None
}

/// Decodes base32 (RFC 4648) without padding; `first` is `A` or `a`, the alphabet's case. Spare
/// bits must be zero and too few for another byte, so that each value has one spelling.
pub(super) fn base32(text: &[u8], first: u8) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 5 / 8);
    let mut bits = 0u32;
    let mut count = 0u32;
    for &byte in text {
        let digit = match byte {
            b'2'..=b'7' => byte - b'2' + 26,
            _ if byte >= first && byte < first + 26 => byte - first,
            _ => return None,
        };
        bits = bits << 5 | u32::from(digit);
        count += 5;
        if count >= 8 {
            count -= 8;
            out.push(low_byte(bits >> count));
            bits &= (1 << count) - 1;
        }
    }
    (count < 5 && bits == 0).then_some(out)
}

/// Returns the lowest eight bits.
fn low_byte(bits: u32) -> u8 {
    let [byte, ..] = bits.to_le_bytes();
    byte
}

/// Encodes base32 (RFC 4648) without padding; `first` is `A` or `a`.
pub(super) fn to_base32(bytes: &[u8], first: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 8 / 5 + 1);
    let letter = |digit: u8| {
        if digit < 26 {
            first + digit
        } else {
            b'2' + (digit - 26)
        }
    };
    let mut bits = 0u32;
    let mut count = 0u32;
    for &byte in bytes {
        bits = bits << 8 | u32::from(byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            out.push(letter(low_byte(bits >> count & 31)));
        }
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        out.push(letter(low_byte(bits << (5 - count) & 31)));
    }
    out
}

/// Decodes base58 (Bitcoin's alphabet) of `N` bytes, the first of which is not zero.
pub(super) fn base58<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut out = [0u8; N];
    for byte in text {
        let (mut carry, _) = (0u32..).zip(ALPHABET).find(|(_, letter)| *letter == byte)?;
        for place in out.iter_mut().rev() {
            carry += u32::from(*place) * 58;
            *place = low_byte(carry);
            carry >>= 8;
        }
        if carry != 0 {
            return None;
        }
    }
    (out[0] != 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_SHA256: &[u8] = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    /// Kubo's empty directory in three spellings.
    const BLOCK: &[u8] = b"CIQFTFEEHEDF6KLBT32BFAGLXEZL4UWFNWM4LFTLMXQBCERZ6CMLX3Y.data";
    const V0: &[u8] = b"QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
    const V1: &[u8] = b"bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
    /// Raw CIDs of no bytes at all and of `hello world`.
    const RAW_EMPTY: &[u8] = b"bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
    const RAW_HELLO: &[u8] = b"bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
    /// The block that these spellings name: an empty directory in protobuf.
    const EMPTY_DIRECTORY_BLOCK: &[u8] = b"\x0a\x02\x08\x01";

    fn parse(name: &[u8]) -> HashName {
        HashName::parse(name).expect("a hash name")
    }

    fn checks(name: &[u8], content: &[u8]) -> Option<bool> {
        let mut checker = parse(name).checker()?;
        content.chunks(3).for_each(|part| checker.update(part));
        Some(checker.finish())
    }

    #[test]
    fn real_names_are_recognized_and_checked() {
        for (name, form, content) in [
            (EMPTY_SHA256, HashForm::Sha256Hex, b"".as_slice()),
            (BLOCK, HashForm::FlatfsBlock, EMPTY_DIRECTORY_BLOCK),
            (RAW_EMPTY, HashForm::CidV1, b""),
            (RAW_HELLO, HashForm::CidV1, b"hello world"),
        ] {
            assert_eq!(parse(name).form(), form);
            assert_eq!(checks(name, content), Some(true));
            assert_eq!(checks(name, b"torn"), Some(false));
        }
        assert_eq!(
            parse(EMPTY_SHA256).expected_sha256(),
            parse(RAW_EMPTY).expected_sha256()
        );
    }

    #[test]
    fn a_cid_of_a_tree_of_blocks_is_not_checked() {
        for (name, form) in [(V0, HashForm::CidV0), (V1, HashForm::CidV1)] {
            assert_eq!(parse(name).form(), form);
            assert_eq!(parse(name).expected_sha256(), None);
            assert_eq!(checks(name, b""), None);
        }
    }

    #[test]
    fn a_block_with_another_hash_is_recognized_but_not_checked() {
        // blake2b-256, whose code takes three bytes.
        let mut bytes = vec![0xa0, 0xe4, 0x02, 0x20];
        bytes.extend([7; 32]);
        let name = [to_base32(&bytes, b'A'), b".data".to_vec()].concat();
        assert_eq!(
            HashName::parse(&name),
            Some(HashName {
                form: HashForm::FlatfsBlock,
                sha256: None
            })
        );
    }

    #[test]
    fn ordinary_names_are_not_hash_names() {
        for name in [
            "",
            "SHARDING",
            "_README",
            "diskUsage.cache",
            "config",
            "datastore",
            "b",
            "bb",
            "Qm",
            ".data",
            "AA.data",
            "README.data",
            "keystore",
            "blocks",
            "CIQ",
            "CIQA.data",
            "backup",
            "ba",
            "..",
        ] {
            assert_eq!(HashName::parse(name.as_bytes()), None, "{name}");
        }
        assert_eq!(HashName::parse(&[b'b'; 5000]), None);
    }

    #[test]
    fn only_canonical_spellings_count() {
        let upper = |name: &[u8]| name.to_ascii_uppercase();
        for name in [
            upper(EMPTY_SHA256),
            upper(V0),
            upper(V1),
            upper(RAW_EMPTY),
            BLOCK.to_ascii_lowercase(),
        ] {
            assert_eq!(HashName::parse(&name), None, "the other case");
        }

        for name in [EMPTY_SHA256, BLOCK, V0, V1, RAW_HELLO] {
            for (cut, added) in [
                (1, &b""[..]),
                (0, b"a"),
                (0, b"="),
                (0, b"\n"),
                (0, b".tmp"),
            ] {
                let changed = [&name[..name.len() - cut], added].concat();
                assert_eq!(
                    HashName::parse(&changed),
                    None,
                    "{}",
                    String::from_utf8_lossy(&changed)
                );
            }
        }

        // The spare bits of the last letter must be zero: 36 bytes leave 2 bits, 34 leave 3.
        let mut odd = RAW_HELLO.to_vec();
        *odd.last_mut().expect("a letter") += 1;
        assert_eq!(HashName::parse(&odd), None);
        let odd = [&BLOCK[..BLOCK.len() - 6], b"Z.data"].concat();
        assert_eq!(HashName::parse(&odd), None);
    }

    #[test]
    fn base32_round_trips() {
        for len in 0..40 {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 77 + 13) as u8).collect();
            assert_eq!(base32(&to_base32(&bytes, b'a'), b'a'), Some(bytes));
        }
    }

    #[test]
    fn malformed_multihashes_are_refused() {
        let digest = [9; 32];
        for head in [
            &[0x12, 0x1f][..],
            &[0x12, 0x21],
            &[0x92, 0x00, 0x20], // a code of two bytes where one is enough
            &[0x00, 0x20],       // identity
            &[
                0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x20,
            ],
        ] {
            let name = [
                to_base32(&[head, &digest].concat(), b'A'),
                b".data".to_vec(),
            ]
            .concat();
            assert_eq!(HashName::parse(&name), None, "{head:?}");
        }

        let version_2 = [&[2, 0x55, 0x12, 0x20][..], &digest].concat();
        assert_eq!(
            HashName::parse(&[b"b".to_vec(), to_base32(&version_2, b'a')].concat()),
            None
        );

        // 46 letters that are too large a number, or contain a letter outside the alphabet.
        assert_eq!(
            HashName::parse(&[b"Qm".to_vec(), vec![b'0'; 44]].concat()),
            None
        );
        assert_eq!(
            HashName::parse(&[b"Qm".to_vec(), vec![b'z'; 43]].concat()),
            None
        );
    }
}
