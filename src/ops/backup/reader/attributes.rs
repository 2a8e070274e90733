//! Builds an entry's metadata from a stat and extended attributes. If an attribute cannot be read
//! or does not fit, only that attribute is lost.

use super::content::{ChunkWriters, add_chunk};
use crate::format::PAGE_BYTES_MAX;
use crate::ops::backup::reason::reason;
use crate::repo::RepoError;
use crate::source::{OwnerNames, SourceStat, UnreadXattrs, XattrReader, metadata};
use crate::types::{ExtendedAttribute, Metadata, XattrValue};

/// Most bytes of an entry's attributes together. With more, the entry could outgrow its page.
const XATTR_BYTES_MAX: usize = PAGE_BYTES_MAX / 4;

/// An entry's metadata.
pub(in crate::ops::backup) struct DescribedEntry {
    pub meta: Metadata,
    /// Why attributes are missing, or are those of the previous entry. `None` if all are current.
    pub lacks: Option<String>,
}

/// Builds metadata. Attribute values that are too long for the entry become chunks. `old`: the
/// metadata of the previous entry, whose attributes replace those that cannot be read.
pub(in crate::ops::backup) fn describe(
    stat: &SourceStat,
    owners: &OwnerNames,
    attributes: XattrReader,
    old: Option<&Metadata>,
    writers: &mut ChunkWriters<'_>,
) -> Result<DescribedEntry, RepoError> {
    let described = metadata(stat, owners, attributes.values);
    let mut meta = described.meta;
    for (name, value) in described.long_xattrs {
        let (id, len) = add_chunk(&mut writers.metadata, &value)?;
        let at = meta.xattrs.partition_point(|xattr| xattr.name < name);
        meta.xattrs.insert(
            at,
            ExtendedAttribute {
                name,
                value: XattrValue::Chunk { id, len },
            },
        );
    }

    let mut lacks = None;
    if let Some(unread) = attributes.unread {
        stand_in(&mut meta, &unread, old);
        lacks = Some(reason("read the attributes", &unread.error));
    }
    if trim(&mut meta.xattrs) {
        lacks = Some("it has more extended attributes than an entry can hold".to_owned());
    }
    Ok(DescribedEntry { meta, lacks })
}

/// Copies the previous entry's values of attributes that cannot be read now. Values in chunks are
/// not copied: the chunks may be lost.
fn stand_in(meta: &mut Metadata, unread: &UnreadXattrs, old: Option<&Metadata>) {
    let old = old
        .filter(|old| old.inode == meta.inode)
        .map_or(&[][..], |old| &old.xattrs);
    for xattr in old
        .iter()
        .filter(|xattr| matches!(xattr.value, XattrValue::Inline(_)))
    {
        let is_unread = unread
            .names
            .as_ref()
            .is_none_or(|names| names.binary_search(&xattr.name).is_ok());
        if is_unread
            && let Err(at) = meta
                .xattrs
                .binary_search_by(|one| one.name.cmp(&xattr.name))
        {
            meta.xattrs.insert(at, xattr.clone());
        }
    }
}

/// Drops attributes that do not fit into an entry. Returns true if there were any.
fn trim(xattrs: &mut Vec<ExtendedAttribute>) -> bool {
    let count = xattrs.len();
    let mut bytes = 0;
    xattrs.retain(|xattr| {
        let value = match &xattr.value {
            XattrValue::Inline(value) => value.len(),
            XattrValue::Chunk { .. } => 40,
        };
        let size = xattr.name.len() + value + 8;
        let has_room = bytes + size <= XATTR_BYTES_MAX;
        bytes += if has_room { size } else { 0 };
        has_room
    });
    xattrs.len() < count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(name: &str, value: &[u8]) -> ExtendedAttribute {
        ExtendedAttribute {
            name: name.into(),
            value: XattrValue::Inline(value.to_vec()),
        }
    }

    fn names(meta: &Metadata) -> Vec<&str> {
        meta.xattrs
            .iter()
            .map(|xattr| std::str::from_utf8(&xattr.name).expect("text"))
            .collect()
    }

    #[test]
    fn unreadable_attributes_keep_their_previous_values() {
        let unread = |names: Option<Vec<&str>>| UnreadXattrs {
            names: names.map(|names| {
                names
                    .into_iter()
                    .map(|name| name.as_bytes().to_vec())
                    .collect()
            }),
            error: std::io::ErrorKind::PermissionDenied.into(),
        };

        let now = Metadata {
            inode: 7,
            xattrs: vec![inline("b", b"now")],
            ..Metadata::default()
        };
        let xattrs = vec![
            inline("a", b"old"),
            inline("b", b"old"),
            inline("c", b"old"),
        ];
        let old = Metadata {
            inode: 7,
            xattrs,
            ..Metadata::default()
        };
        let other = Metadata {
            inode: 8,
            ..old.clone()
        };
        for (unread, old, expected) in [
            (unread(None), Some(&old), vec!["a", "b", "c"]),
            (unread(Some(vec!["c"])), Some(&old), vec!["b", "c"]),
            (unread(Some(vec!["d"])), Some(&old), vec!["b"]),
            (unread(None), Some(&other), vec!["b"]),
            (unread(None), None, vec!["b"]),
        ] {
            let mut meta = now.clone();
            stand_in(&mut meta, &unread, old);
            assert_eq!(names(&meta), expected);
            assert_eq!(
                meta.xattrs[names(&meta)
                    .iter()
                    .position(|name| *name == "b")
                    .expect("b")],
                now.xattrs[0]
            );
        }
    }

    #[test]
    fn surplus_attributes_are_dropped() {
        let value = vec![7; 4096];
        let mut xattrs: Vec<ExtendedAttribute> = (0..100)
            .map(|n| inline(&format!("user.{n:03}"), &value))
            .collect();
        xattrs.push(inline("user.short", b"fits"));
        assert!(trim(&mut xattrs));
        let bytes: usize = xattrs.iter().map(|xattr| xattr.name.len() + 4096 + 8).sum();
        assert!(
            bytes > XATTR_BYTES_MAX - 10_000 && xattrs.len() < 100,
            "as many as have room"
        );
        assert_eq!(xattrs.last(), Some(&inline("user.short", b"fits")));
        assert!(!trim(&mut xattrs));
    }
}
