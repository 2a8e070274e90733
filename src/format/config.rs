//! `config`: the only unencrypted object, checked before anything else is read (docs/format.md,
//! "config").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FORMAT_VERSION;
use super::text::{JsonError, as_text, as_time, from_json, to_json};
use crate::types::{ChunkProfile, RepoId, Timestamp, hex};

const MAGIC: &str = "icecore repository";
const BYTES_MAX: usize = 64 << 10;
/// Separator between the bytes under the MAC and the MAC.
const MAC_FIELD: &[u8] = b",\"mac\":\"";
const END: &[u8] = b"\"}\n";

/// Features that a client must support before it performs this kind of operation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepoFeatures {
    pub read: Vec<String>,
    pub write: Vec<String>,
    pub prune: Vec<String>,
}

/// A repository's identity and settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepoConfig {
    magic: String,
    /// Format version of the repository.
    pub format: u32,
    #[serde(with = "as_text")]
    pub repository: RepoId,
    #[serde(with = "as_time")]
    pub created: Timestamp,
    pub features: RepoFeatures,
    /// Size of the recovery data written for each pack, in percent of the pack's size, 1 to 100.
    /// `None` means no recovery data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parity: Option<u8>,
    /// The cutter's pinned settings: minimum, average and maximum of each profile, and the
    /// algorithm.
    cutting: BTreeMap<String, CutSetting>,
}

/// One of the cutter's settings. Numbers are integers: a fraction might not be read back exactly as
/// written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum CutSetting {
    Sizes([u32; 3]),
    Text(String),
}

/// Returns the cutter's settings that are pinned in every repository of this format version.
fn cutting() -> BTreeMap<String, CutSetting> {
    let profile = |profile: ChunkProfile| {
        let sizes = profile.sizes_at(0);
        (
            profile.name().to_owned(),
            CutSetting::Sizes([sizes.min(), sizes.average(), sizes.max()]),
        )
    };
    let algorithm = CutSetting::Text("fastcdc-2020 normalization 1 seed 0".into());
    ChunkProfile::ALL
        .map(profile)
        .into_iter()
        .chain([("algorithm".to_owned(), algorithm)])
        .collect()
}

impl RepoConfig {
    /// Returns the config of a new repository.
    pub fn new(repository: RepoId, created: Timestamp) -> Self {
        Self {
            magic: MAGIC.into(),
            format: FORMAT_VERSION,
            repository,
            created,
            features: RepoFeatures::default(),
            parity: None,
            cutting: cutting(),
        }
    }
}

/// Encodes a config. `mac` gets the bytes to protect, and its result becomes the last field.
pub fn encode_config(config: &RepoConfig, mac: impl FnOnce(&[u8]) -> [u8; 32]) -> Vec<u8> {
    let mut out = to_json(config);
    out.pop(); // the closing brace follows the MAC
    let mac = hex::encode(&mac(&out));
    out.extend_from_slice(MAC_FIELD);
    out.extend_from_slice(mac.as_bytes());
    out.extend_from_slice(END);
    out
}

/// Decodes a config. Returns the value, the bytes under the MAC, and the MAC, to be checked once
/// the key is open.
///
/// Of a newer format only the version is decoded, so that the caller can name it in the error.
pub fn decode_config(bytes: &[u8]) -> Result<(RepoConfig, &[u8], [u8; 32]), JsonError> {
    if bytes.len() > BYTES_MAX {
        return Err(JsonError("longer than 64 KiB".into()));
    }
    #[derive(Deserialize)]
    struct FormatVersion {
        magic: String,
        format: u32,
    }

    let version: FormatVersion = from_json(bytes)?;
    if version.magic != MAGIC {
        return Err(JsonError("not the config of an icecore repository".into()));
    }
    if version.format > FORMAT_VERSION {
        let mut config = RepoConfig::new(RepoId::new([0; 16]), Timestamp::default());
        config.format = version.format;
        return Ok((config, &[], [0; 32]));
    }

    let tail = MAC_FIELD.len() + 64 + END.len();
    let split = bytes
        .len()
        .checked_sub(tail)
        .ok_or_else(|| JsonError("too short".into()))?;
    let (protected, rest) = bytes.split_at(split);
    let mac = rest
        .strip_prefix(MAC_FIELD)
        .and_then(|rest| rest.strip_suffix(END))
        .and_then(hex::decode_array)
        .ok_or_else(|| JsonError("the last field is not the MAC".into()))?;

    let config: RepoConfig = from_json(bytes)?;
    Ok((config, protected, mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(bytes: &[u8]) -> [u8; 32] {
        *blake3::hash(bytes).as_bytes()
    }

    #[test]
    fn every_byte_of_a_config_is_under_the_mac_or_checked() {
        let config = RepoConfig::new(RepoId::new([7; 16]), Timestamp::from_seconds(5));
        let bytes = encode_config(&config, mac);
        let accepts = |bytes: &[u8]| {
            decode_config(bytes)
                .is_ok_and(|(c, under, m)| c.format == FORMAT_VERSION && mac(under) == m)
        };
        assert!(accepts(&bytes));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(!accepts(&bad), "byte {at}");
        }
    }

    #[test]
    fn the_version_of_a_newer_config_is_readable() {
        let text = br#"{"format":9,"magic":"icecore repository","shape":"unknown"}"#;
        assert_eq!(decode_config(text).map(|(config, ..)| config.format), Ok(9));
        assert!(decode_config(b"{}").is_err());
        assert!(decode_config(&[b' '; 70_000]).is_err());
    }
}
