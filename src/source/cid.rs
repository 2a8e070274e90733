//! CIDs, which databases use as names of IPFS files, and the path of the block that a CID names in
//! kubo.

use crate::source::hashname::{IDENTITY, base32, base58, multihash, to_base32, varint};
use crate::types::{RelPath, to_u64};

/// Longest text that is parsed.
const TEXT_BYTES_MAX: usize = 256;

/// A CID: version 0 (`Qm…`), or version 1 in base32 (`b…`) or, with the usual length, base58
/// (`z…`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cid {
    /// `None` if the data are in the CID itself.
    multihash: Option<Vec<u8>>,
}

impl Cid {
    /// Parses a CID in canonical spelling.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let bytes = match text {
            [b'Q', b'm', ..] if text.len() == 46 => {
                let bytes = base58::<34>(text)?;
                let (code, digest) = multihash(&bytes)?;
                return (code == 0x12 && digest.len() == 32).then(|| Self {
                    multihash: Some(bytes.to_vec()),
                });
            }
            [b'b', rest @ ..] => base32(rest, b'a')?,
            [b'z', rest @ ..] => base58::<36>(rest)?.to_vec(),
            _ => return None,
        };
        let (1, rest) = varint(&bytes)? else {
            return None;
        };
        let (_codec, hash) = varint(rest)?;
        if let (IDENTITY, rest) = varint(hash)? {
            let (len, data) = varint(rest)?;
            return (len == to_u64(data.len())).then_some(Self { multihash: None });
        }
        multihash(hash)?;
        Some(Self {
            multihash: Some(hash.to_vec()),
        })
    }

    /// Returns the path of the root block in kubo's flatfs, relative to the repository's directory:
    /// `blocks/XX/<multihash>.data`. `None` if the data are in the CID itself.
    pub fn block_path(&self, sharding: FlatfsSharding) -> Option<RelPath> {
        let key = to_base32(self.multihash.as_ref()?, b'A');
        let directory = sharding.directory(&key);
        RelPath::from_slashed(&[b"blocks/", directory.as_slice(), b"/", &key, b".data"].concat())
            .ok()
    }
}

/// The letters of a block's key that name its directory in flatfs, and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlatfsSharding {
    /// The first letters.
    Prefix(usize),
    /// The last letters.
    Suffix(usize),
    /// The letters before the last one.
    NextToLast(usize),
}

impl Default for FlatfsSharding {
    /// Kubo's default.
    fn default() -> Self {
        Self::NextToLast(2)
    }
}

impl FlatfsSharding {
    /// Parses the content of the file `SHARDING`: `/repo/flatfs/shard/v1/next-to-last/2`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, count) = text
            .trim()
            .strip_prefix("/repo/flatfs/shard/v1/")?
            .split_once('/')?;
        let count = count
            .parse()
            .ok()
            .filter(|count| (1..=TEXT_BYTES_MAX).contains(count))?;
        match kind {
            "prefix" => Some(Self::Prefix(count)),
            "suffix" => Some(Self::Suffix(count)),
            "next-to-last" => Some(Self::NextToLast(count)),
            _ => None,
        }
    }

    /// Returns the directory of a key. A key that is too short is padded with `_`.
    fn directory(self, key: &[u8]) -> Vec<u8> {
        let padded = |count: usize| [&vec![b'_'; count][..], key].concat();
        match self {
            Self::Prefix(count) => [key, &vec![b'_'; count][..]].concat()[..count].to_vec(),
            Self::Suffix(count) => {
                let text = padded(count);
                text[text.len() - count..].to_vec()
            }
            Self::NextToLast(count) => {
                let text = padded(count + 1);
                let at = text.len() - count - 1;
                text[at..at + count].to_vec()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(cid: &str) -> Option<String> {
        let path = Cid::parse(cid.as_bytes())
            .expect("a CID")
            .block_path(FlatfsSharding::default())?;
        Some(String::from_utf8(path.to_slashed()).expect("ASCII"))
    }

    #[test]
    fn all_spellings_lead_to_one_block() {
        // Kubo's empty directory.
        for cid in [
            "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
            "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354",
            "zdj7WbTaiJT1fgatdet9Ei9iDB5hdCxkbVyhyh8YTUnXMiwYi",
        ] {
            let path = "blocks/X3/CIQFTFEEHEDF6KLBT32BFAGLXEZL4UWFNWM4LFTLMXQBCERZ6CMLX3Y.data";
            assert_eq!(block(cid).as_deref(), Some(path), "{cid}");
        }
        let raw =
            block("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e").expect("a block");
        assert!(
            raw.starts_with("blocks/") && raw.ends_with(".data") && raw.contains("/CIQL"),
            "{raw}"
        );
    }

    /// The same results as in go-ds-flatfs.
    #[test]
    fn a_repository_may_have_other_directories() {
        let cid = Cid::parse(b"QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn").expect("a CID");
        for (text, directory) in [
            ("/repo/flatfs/shard/v1/next-to-last/2", "X3"),
            ("/repo/flatfs/shard/v1/next-to-last/3\n", "LX3"),
            ("/repo/flatfs/shard/v1/prefix/5", "CIQFT"),
            ("/repo/flatfs/shard/v1/suffix/2", "3Y"),
        ] {
            let path = cid
                .block_path(FlatfsSharding::parse(text).expect(text))
                .expect("a block")
                .to_slashed();
            let path = String::from_utf8(path).expect("ASCII");
            assert_eq!(path.split('/').nth(1), Some(directory), "{text}");
        }

        assert_eq!(FlatfsSharding::NextToLast(3).directory(b"AB"), b"__A");
        assert_eq!(FlatfsSharding::Prefix(3).directory(b"A"), b"A__");
        for text in [
            "",
            "/repo/flatfs/shard/v1/other/2",
            "/repo/flatfs/shard/v2/prefix/2",
            "/repo/flatfs/shard/v1/prefix/0",
            "/repo/flatfs/shard/v1/prefix/99999",
        ] {
            assert_eq!(FlatfsSharding::parse(text), None, "{text}");
        }
    }

    #[test]
    fn data_in_the_name_have_no_block() {
        assert_eq!(block("bafkqabtimvwgy3yk"), None);
    }

    #[test]
    fn invalid_cids_are_refused() {
        for text in [
            "",
            "b",
            "z",
            "Qm",
            "bafy",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3N0",
            "BAFYBEICZSSCDSBS7FFQZ55ASQDF3SMV6KLCW3GOFSZVWLYARCI47BGF354",
            "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf35",
            "zdj7WbTaiJT1fgatdet9Ei9iDB5hdCxkbVyhyh8YTUnXMiwY",
        ] {
            assert_eq!(Cid::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Cid::parse(&[b'b'; 5000]), None);
    }
}
