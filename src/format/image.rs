//! The container images that a node's services ran with, in a snapshot (docs/format.md,
//! "Snapshot").

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::text::JsonError;
use crate::types::hex;

/// Maximal number of images in a snapshot.
pub const IMAGES_MAX: usize = 256;
/// Maximal bytes of a text: the engine accepts names of 255 bytes, tags of 128, and a digest.
pub const IMAGE_TEXT_BYTES_MAX: usize = 512;
/// Maximal number of sources of an image.
const SOURCES_MAX: usize = 64;

/// The image of a service's container at the time of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceImage {
    /// The service of the compose project, or the container's name if it belongs to no project.
    pub service: String,
    /// As the compose file names it: `postgres:15.1`.
    pub image: String,
    /// The engine's own name of the image: `sha256:…`. Another engine may use a different one for
    /// the same image.
    pub id: String,
    /// The image in its registry: `postgres@sha256:…`. `None` if it was never pulled or pushed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The node's sources that the container uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

impl ServiceImage {
    /// Returns true if every text is within the bounds of the format.
    fn is_legal(&self) -> bool {
        let texts = [&self.service, &self.image]
            .into_iter()
            .chain(&self.sources);
        texts.into_iter().all(|text| is_word(text))
            && self.sources.len() <= SOURCES_MAX
            && is_digest(&self.id)
            && self.digest.as_deref().is_none_or(is_pinned)
    }
}

/// Returns the images that an encoder may write: the legal ones, one per service, sorted by
/// service.
pub fn legal_images(images: impl IntoIterator<Item = ServiceImage>) -> Vec<ServiceImage> {
    let mut images: Vec<ServiceImage> = images.into_iter().filter(ServiceImage::is_legal).collect();
    images.sort_by(|a, b| a.service.cmp(&b.service));
    images.dedup_by(|a, b| a.service == b.service);
    images.truncate(IMAGES_MAX);
    images
}

/// Refuses any list that [`legal_images`] would not return.
pub(super) fn check(images: &[ServiceImage]) -> Result<(), JsonError> {
    if images.len() > IMAGES_MAX {
        return Err(JsonError(format!("more than {IMAGES_MAX} images")));
    }
    if let Some(bad) = images.iter().find(|image| !image.is_legal()) {
        let service: String = bad.service.chars().take(100).collect();
        return Err(JsonError(format!(
            "the image of service '{}' is invalid",
            service.escape_debug()
        )));
    }
    let services: BTreeSet<&str> = images.iter().map(|image| image.service.as_str()).collect();
    if services.len() != images.len() || !images.is_sorted_by(|a, b| a.service < b.service) {
        return Err(JsonError(
            "images out of the order of their services".into(),
        ));
    }
    Ok(())
}

/// Returns true for printable ASCII without blanks, within the bound.
fn is_word(text: &str) -> bool {
    (1..=IMAGE_TEXT_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns true for `sha256:…`, or a digest of another algorithm.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else {
        return false;
    };
    let is_hex = digits
        .bytes()
        .all(|digit| hex::digit_value(digit).is_some());
    let is_name = algorithm
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    !algorithm.is_empty()
        && is_name
        && is_hex
        && (32..=128).contains(&digits.len())
        && is_word(text)
}

/// Returns true for `NAME@sha256:…`.
fn is_pinned(text: &str) -> bool {
    text.split_once('@')
        .is_some_and(|(name, digest)| !name.is_empty() && is_digest(digest))
        && is_word(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(service: &str) -> ServiceImage {
        ServiceImage {
            service: service.into(),
            image: "ipfs/kubo:stable".into(),
            id: format!("sha256:{}", "0a".repeat(32)),
            digest: Some(format!("ipfs/kubo@sha256:{}", "1b".repeat(32))),
            sources: vec!["ipfs".into()],
        }
    }

    #[test]
    fn images_round_trip() {
        let same = image("ipfs");
        assert_eq!(
            serde_json::from_value(serde_json::json!(same)).ok(),
            Some(same.clone())
        );
        let bare = ServiceImage {
            digest: None,
            sources: Vec::new(),
            ..same
        };
        let value = serde_json::json!(bare);
        assert_eq!(
            value.as_object().map(serde_json::Map::len),
            Some(3),
            "what says nothing is absent"
        );
        assert_eq!(serde_json::from_value(value).ok(), Some(bare));
    }

    #[test]
    fn images_that_no_encoder_writes_are_refused() {
        let long = "x".repeat(IMAGE_TEXT_BYTES_MAX + 1);
        let bad = [
            ServiceImage {
                service: String::new(),
                ..image("a")
            },
            ServiceImage {
                service: long.clone(),
                ..image("a")
            },
            ServiceImage {
                image: "a\nimage: evil".into(),
                ..image("a")
            },
            ServiceImage {
                image: long.clone(),
                ..image("a")
            },
            ServiceImage {
                id: "latest".into(),
                ..image("a")
            },
            ServiceImage {
                id: format!("sha256:{}", "0A".repeat(32)),
                ..image("a")
            },
            ServiceImage {
                digest: Some(format!("sha256:{}", "0a".repeat(32))),
                ..image("a")
            },
            ServiceImage {
                sources: vec!["x".into(); SOURCES_MAX + 1],
                ..image("a")
            },
            ServiceImage {
                sources: vec![long],
                ..image("a")
            },
        ];

        for bad in bad {
            assert!(check(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
            assert_eq!(legal_images([bad, image("b")]), [image("b")]);
        }

        assert!(
            check(&[image("b"), image("a")]).is_err() && check(&[image("a"), image("a")]).is_err()
        );

        let many: Vec<ServiceImage> = (0..=IMAGES_MAX).map(|n| image(&format!("s{n}"))).collect();
        assert!(check(&many).is_err());
        let legal = legal_images(many.into_iter().rev());
        assert_eq!((legal.len(), check(&legal)), (IMAGES_MAX, Ok(())));
    }
}
