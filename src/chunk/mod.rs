//! Pure computation on bytes: cutting, naming, compressing, sealing. No files, no repository.

mod codec;
mod cut;
mod hash;
mod keys;
mod parity;
mod seal;
mod wrap;

pub use codec::{
    CodecError, Compressor, FRAME_PLAIN_BYTES_MAX, FrameOpener, open_bytes, shrink_bytes,
};
pub use cut::{CHUNK_BYTES_MAX, next_cut};
pub use hash::{ObjectHasher, object_hash};
pub use keys::{Keys, MasterKey, SealClass};
pub use parity::{
    ParityError, ParityShape, ReadAt, SHARD_HASH_BYTES, ShardHash, encode as encode_parity,
    read_data_shard, recover, shard_hash,
};
pub use seal::{ObjectSeal, PartKind, SealBroken, TAG_BYTES};
pub use wrap::{Argon2Cost, KeyError, WRAPPED_BYTES, wrap_key};
