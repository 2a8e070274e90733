//! Conversion between bytes and values, as specified in `docs/format.md`. There is no I/O and there
//! are no keys here: `repo` opens sealed data. The stored objects are defined here; values that
//! `index`, `store` or `source` needs too are in `types`.
//!
//! Every decoder is bounded: it allocates memory only in proportion to its input, and refuses input
//! that an encoder of this version would not have written.

#![cfg_attr(
    not(test),
    warn(clippy::cast_possible_truncation, clippy::cast_lossless)
)]

mod config;
mod content;
mod envelope;
mod frames;
mod image;
mod keyslot;
mod lease;
mod page;
mod parity;
mod run;
mod segment;
mod snapshot;
mod text;
mod wire;

pub use config::{RepoConfig, RepoFeatures, decode_config, encode_config};
pub use content::{
    LIST_ENTRIES_MAX, LIST_ENTRIES_MIN, decode_list_node, encode_list_node, ends_list_node,
};
pub use envelope::{
    HEADER_BYTES, ObjectHeader, ObjectKind, PackTrailer, SealedBody, TRAILER_BYTES, decode_body,
    decode_header, decode_trailer, encode_body_prefix, encode_header, encode_trailer,
};
pub use frames::{decode_directory, encode_directory};
pub use image::{IMAGE_TEXT_BYTES_MAX, IMAGES_MAX, ServiceImage, legal_images};
pub use keyslot::{KeySlot, decode_key_slot, encode_key_slot, key_slot_aad};
pub use lease::{LeaseBody, LeaseKind, decode_lease, encode_lease};
pub use page::{PAGE_BYTES_MAX, PAGE_PATHS_MAX, PageBuilder, decode_page};
pub use parity::{
    PARITY_END_BYTES, PARITY_HEAD_BYTES_LEAST, PARITY_HEAD_BYTES_MAX, ParityHead,
    decode_parity_end, decode_parity_head, encode_parity_end, encode_parity_head, parity_head_len,
};
pub use run::{
    LEVEL_MAX, NODE_BYTES_TARGET, NODE_REFS_MIN, PageRef, RunRoot, RunTree, decode_node,
    decode_root, encode_node, encode_root,
};
pub use segment::{SEGMENT_BYTES_MAX, decode_segment, encode_segment};
pub use snapshot::{
    LostContent, LostPath, RunRef, SNAPSHOT_BYTES_MAX, Snapshot, SnapshotState, SourceCounts,
    SourceKind, SourceRecord, decode_snapshot, encode_snapshot,
};
pub use text::JsonError;
pub use wire::WireError;
#[cfg(any(test, feature = "testing"))]
pub use wire::tail_fields_skipped;

/// The format version that this code writes, and the newest one that it reads.
pub const FORMAT_VERSION: u32 = 1;
