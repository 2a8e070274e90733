//! Converts stats and attributes to an entry's metadata.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use crate::source::stat::{SourceStat, StatKind};
use crate::sys::{PathError, read_bounded};
use crate::types::{ExtendedAttribute, Metadata, Owner, XattrValue};

/// Attribute values up to this length stay in the entry; longer ones are stored as chunks.
pub const XATTR_INLINE_BYTES_MAX: usize = 4096;
/// Longest name of a user or group in an entry.
const NAME_BYTES_MAX: usize = 255;
/// Limit of a passwd or group file.
const DATABASE_BYTES_MAX: usize = 16 << 20;

/// The names of users and groups, read once.
///
/// They come only from `/etc/passwd` and `/etc/group`. Users known only to a directory service
/// (LDAP, systemd's dynamic users) have no name here, and their entries hold only the numbers.
#[derive(Debug, Clone, Default)]
pub struct OwnerNames {
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
}

impl OwnerNames {
    /// Reads this machine's files. A missing file counts as empty.
    pub fn read() -> Result<Self, PathError> {
        let read = |path: &str| match read_bounded(Path::new(path), DATABASE_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        };
        Ok(Self::parse(&read("/etc/passwd")?, &read("/etc/group")?))
    }

    /// Parses the contents of a passwd and a group file. If two lines have the same number, the
    /// first one counts; invalid lines are ignored.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        Self {
            users: names(passwd),
            groups: names(group),
        }
    }

    /// Returns the owner of a path, with its names if known.
    pub fn owner(&self, uid: u32, gid: u32) -> Owner {
        let name = |names: &HashMap<u32, Vec<u8>>, id| names.get(&id).cloned().unwrap_or_default();
        Owner {
            uid,
            gid,
            user: name(&self.users, uid),
            group: name(&self.groups, gid),
        }
    }
}

/// Maps numbers to names. Both files have lines `name:password:number…`.
fn names(file: &[u8]) -> HashMap<u32, Vec<u8>> {
    let mut out = HashMap::new();
    for line in file.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b':');
        let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        // `+` and `-` lines are switches of the old NIS, not users.
        let is_name =
            (1..=NAME_BYTES_MAX).contains(&name.len()) && !matches!(name[0], b'+' | b'-' | b'#');
        if let Some(number) = std::str::from_utf8(number)
            .ok()
            .and_then(|text| text.parse().ok())
            && is_name
        {
            out.entry(number).or_insert_with(|| name.to_vec());
        }
    }
    out
}

/// Metadata, and the attributes that are too long for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedFile {
    pub meta: Metadata,
    /// Name and value of the attributes over [`XATTR_INLINE_BYTES_MAX`], sorted by name. The caller
    /// stores the values as chunks and inserts them into `meta.xattrs` in the order of names.
    pub long_xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Builds an entry's metadata from a stat and the attributes, which are sorted by name.
///
/// The device is kept only if hard links need it, because it changes across boots. A directory's
/// link count, which counts its subdirectories, is recorded as 1.
pub fn metadata(
    stat: &SourceStat,
    owners: &OwnerNames,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
) -> DescribedFile {
    let nlink = if stat.kind == StatKind::Directory {
        1
    } else {
        stat.nlink
    };
    let (short, long_xattrs) = xattrs
        .into_iter()
        .partition::<Vec<_>, _>(|(_, value)| value.len() <= XATTR_INLINE_BYTES_MAX);
    let xattrs = short
        .into_iter()
        .map(|(name, value)| ExtendedAttribute {
            name,
            value: XattrValue::Inline(value),
        })
        .collect();
    let meta = Metadata {
        mode: stat.mode,
        owner: owners.owner(stat.uid, stat.gid),
        mtime: stat.mtime,
        ctime: stat.ctime,
        inode: stat.inode,
        device: if nlink > 1 { stat.device } else { 0 },
        nlink,
        xattrs,
    };
    DescribedFile { meta, long_xattrs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DeviceNumber, Timestamp};

    fn stat(kind: StatKind, nlink: u32) -> SourceStat {
        SourceStat {
            kind,
            mode: 0o4755,
            uid: 7,
            gid: 8,
            size: 1,
            mtime: Timestamp::from_seconds(-5),
            ctime: Timestamp::from_seconds(9),
            inode: 42,
            device: 99,
            nlink,
            rdev: DeviceNumber { major: 0, minor: 0 },
            blocks: 8,
            mount_id: 1,
        }
    }

    #[test]
    fn names_come_from_the_files_and_the_first_counts() {
        let owners = OwnerNames::parse(
            b"root:x:0:0::/:/bin/sh\nann:x:7:7::\nbob:x:7:7::\n+:::::\nbad\n-x:x:3:\n::4:\nz:x:nan:\n",
            b"staff:x:8:ann,bob\n",
        );
        assert_eq!(
            owners.owner(7, 8),
            Owner {
                uid: 7,
                gid: 8,
                user: b"ann".to_vec(),
                group: b"staff".to_vec()
            }
        );
        assert_eq!(
            owners.owner(3, 4),
            Owner {
                uid: 3,
                gid: 4,
                ..Owner::default()
            }
        );
        assert_eq!(owners.owner(0, 0).user, b"root");
        assert!(OwnerNames::read().is_ok());
    }

    #[test]
    fn the_device_is_kept_for_hard_links_alone() {
        let of =
            |kind, nlink| metadata(&stat(kind, nlink), &OwnerNames::default(), Vec::new()).meta;
        assert_eq!(
            (of(StatKind::File, 1).device, of(StatKind::File, 1).nlink),
            (0, 1)
        );
        assert_eq!(
            (of(StatKind::File, 2).device, of(StatKind::File, 2).nlink),
            (99, 2)
        );
        assert_eq!(
            (
                of(StatKind::Directory, 5).device,
                of(StatKind::Directory, 5).nlink
            ),
            (0, 1)
        );
        assert_eq!(of(StatKind::Fifo, 1).mode, 0o4755);
    }

    #[test]
    fn long_attributes_stay_outside() {
        let pairs = vec![
            (b"user.a".to_vec(), vec![1; XATTR_INLINE_BYTES_MAX]),
            (b"user.b".to_vec(), vec![2; XATTR_INLINE_BYTES_MAX + 1]),
            (b"user.c".to_vec(), vec![]),
        ];
        let described = metadata(&stat(StatKind::File, 1), &OwnerNames::default(), pairs);
        let names: Vec<_> = described
            .meta
            .xattrs
            .iter()
            .map(|xattr| xattr.name.as_slice())
            .collect();
        assert_eq!(names, [b"user.a", b"user.c"]);
        assert_eq!(described.long_xattrs.len(), 1);
    }
}
