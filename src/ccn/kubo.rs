//! kubo's repository: the layout of its blocks, and the paths that a backup leaves out.

use std::path::Path;

use serde_json::Value;

use crate::source::FlatfsSharding;
use crate::sys::read_bounded;

/// Files that describe how blocks are stored, relative to the repository's directory.
pub const SHARDING: &str = "blocks/SHARDING";
pub const SPEC: &str = "datastore_spec";
/// Upper limit of their length, in bytes. No repository has longer ones.
pub const FILE_BYTES_MAX: usize = 64 << 10;

/// Paths that a running kubo keeps rewriting, and creates again if they are missing: the queue of
/// blocks to announce, configuration fetched from the network, and the id for its telemetry.
pub const PASSING: [&str; 3] = ["/provider-keystore/", "/autoconf/", "/telemetry_uuid"];

/// How a repository stores its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockStore {
    /// One file for each block.
    Flatfs(FlatfsSharding),
    /// A database of this kind, such as `pebbleds`. No file has the name of a block.
    Database(String),
    /// One file for each block, in a directory layout that this version does not know.
    Unknown(String),
}

impl Default for BlockStore {
    fn default() -> Self {
        Self::Flatfs(FlatfsSharding::default())
    }
}

impl BlockStore {
    /// Determines how blocks are stored from the contents of the two files. A missing file is
    /// ignored, and so is a specification that cannot be parsed.
    pub fn read(sharding: Option<&[u8]>, spec: Option<&[u8]>) -> Self {
        let spec: Option<Value> = spec.and_then(|text| serde_json::from_slice(text).ok());
        let mount = spec.as_ref().map(|spec| mount_of_blocks(spec, 0));
        let kind = mount
            .and_then(|mount| mount.get("type"))
            .and_then(Value::as_str);
        if let Some(kind) = kind.filter(|&kind| kind != "flatfs") {
            return Self::Database(kind.to_owned());
        }

        // `SHARDING` takes precedence over the specification's `shardFunc`.
        let shard_func = mount
            .and_then(|mount| mount.get("shardFunc"))
            .and_then(Value::as_str);
        let text = sharding.map(|text| String::from_utf8_lossy(text).trim().to_owned());
        match text
            .filter(|text| !text.is_empty())
            .or_else(|| shard_func.map(str::to_owned))
        {
            None => Self::default(),
            Some(text) => FlatfsSharding::parse(&text).map_or(Self::Unknown(text), Self::Flatfs),
        }
    }

    /// Determines how a repository on this machine stores its blocks.
    pub fn at(repository: &Path) -> Self {
        let read = |name: &str| read_bounded(&repository.join(name), FILE_BYTES_MAX).ok();
        Self::read(read(SHARDING).as_deref(), read(SPEC).as_deref())
    }

    /// Returns the directory layout of block files. For [`Self::Database`] and [`Self::Unknown`]
    /// this is the default layout, which means nothing.
    pub fn sharding(&self) -> FlatfsSharding {
        if let Self::Flatfs(sharding) = self {
            *sharding
        } else {
            FlatfsSharding::default()
        }
    }

    /// Returns the reason why blocks cannot be captured or looked up one by one, if there is one.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Flatfs(_) => None,
            Self::Database(kind) => Some(format!(
                "this kubo stores blocks in a database ({kind}), which is consistent in a backup only if kubo is stopped or from a file system snapshot: stop it in 'before' and start it in 'after'"
            )),
            Self::Unknown(text) => Some(format!(
                "this kubo keeps its blocks in a layout that icecore does not know ({text})"
            )),
        }
    }
}

/// Returns the part of a specification that describes blocks. Wrappers, such as one that measures,
/// hold it in `child`.
fn mount_of_blocks(spec: &Value, depth: u32) -> &Value {
    const DEPTH_MAX: u32 = 8;
    if depth > DEPTH_MAX {
        return spec;
    }
    if let Some(child) = spec.get("child") {
        return mount_of_blocks(child, depth + 1);
    }
    let Some(mounts) = spec.get("mounts").and_then(Value::as_array) else {
        return spec;
    };
    let at = |point: &str| {
        mounts
            .iter()
            .find(|mount| mount.get("mountpoint").and_then(Value::as_str) == Some(point))
    };
    at("/blocks")
        .or_else(|| at("/"))
        .map_or(spec, |mount| mount_of_blocks(mount, depth + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specifications are those of kubo's profiles `flatfs`, `pebbleds` and `badgerds`.
    #[test]
    fn the_block_store_is_read() {
        let flatfs = br#"{"mounts":[{"mountpoint":"/blocks","path":"blocks","shardFunc":"/repo/flatfs/shard/v1/next-to-last/2","type":"flatfs"},{"mountpoint":"/","path":"datastore","type":"levelds"}],"type":"mount"}"#;
        let three = b"/repo/flatfs/shard/v1/next-to-last/3\n";
        let blocks = |sharding: Option<&[u8]>, spec: &[u8]| BlockStore::read(sharding, Some(spec));
        assert_eq!(
            blocks(None, flatfs),
            BlockStore::Flatfs(FlatfsSharding::NextToLast(2))
        );
        assert_eq!(
            blocks(Some(three), flatfs),
            BlockStore::Flatfs(FlatfsSharding::NextToLast(3))
        );
        for (kind, spec) in [
            ("pebbleds", &br#"{"path":"pebbleds","type":"pebbleds"}"#[..]),
            ("badgerds", br#"{"path":"badgerds","type":"badgerds"}"#),
            ("levelds", br#"{"type":"mount","mounts":[{"mountpoint":"/","type":"measure","child":{"type":"levelds"}}]}"#),
        ] {
            assert_eq!(blocks(None, spec), BlockStore::Database(kind.into()));
            assert!(blocks(None, spec).trouble().is_some_and(|text| text.contains(kind)));
        }
        assert_eq!(BlockStore::read(None, None), BlockStore::default());
        assert_eq!(blocks(None, b"no json"), BlockStore::default());
        let odd = blocks(Some(b"/repo/flatfs/shard/v9/odd"), flatfs);
        assert!(
            matches!(&odd, BlockStore::Unknown(text) if text.ends_with("odd")),
            "{odd:?}"
        );
    }
}
