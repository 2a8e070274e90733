//! Entries: one path of a tree source with its metadata and content.

use crate::types::{ChunkId, PlainLen, RelPath, Timestamp, to_u64};

/// Content of at most this many bytes is stored in the entry itself.
pub const LITERAL_BYTES_MAX: usize = 128;

/// The kind of an entry. The numbers are part of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    File = 1,
    Directory = 2,
    Symlink = 3,
    Fifo = 4,
    Socket = 5,
    Char = 6,
    Block = 7,
    Failed = 8,
    Removed = 9,
}

impl EntryKind {
    /// Returns the number in the format: the discriminant, which only a cast gives.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// A set of marks on an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EntryFlags(u16);

impl EntryFlags {
    /// Hides everything below this path in older runs.
    pub const COVER: Self = Self(1);
    /// A directory that must be listed next time: its listing was racy or failed, a child must be
    /// checked again, or, in an immutable source, it holds a file whose name is not a hash and that
    /// may change in place.
    pub const REVISIT: Self = Self(2);
    /// Modified so shortly before the stat that the next change may leave the stat unchanged, or
    /// known to have changed since. Read again next time.
    pub const RACY: Self = Self(4);
    /// An immutable file whose content does not match its name.
    pub const PROVISIONAL: Self = Self(8);
    /// The previous snapshot's entry, kept because the path could not be read this time. Or a
    /// current entry whose extended attributes could not be read or did not fit. Checked again next
    /// time.
    pub const STALE: Self = Self(16);
    /// Changed during both attempts to read it, and not only by growing.
    pub const TORN: Self = Self(32);
    /// An immutable file whose name does not verify its content, read twice with the same result.
    pub const SETTLED: Self = Self(64);
    /// A directory that held names that the snapshot lacks, so a name missing from the snapshot may
    /// have existed. Marks only the directory that held the name, not its parents.
    pub const PARTIAL: Self = Self(128);
    /// Only with [`EntryFlags::PARTIAL`]: some of these names were not left out by the user's
    /// rules, or this is unknown. Causes are an error, another file system, one of icecore's own
    /// directories, or an unfinished walk.
    pub const UNSEEN: Self = Self(256);
    /// A directory below the source's root on which a file system was mounted.
    pub const MOUNT: Self = Self(512);
    /// All flags of this format version.
    pub const ALL: Self = Self(1023);

    /// Returns the empty set.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Converts from the stored form. Unknown bits, and `UNSEEN` without `PARTIAL`, are refused.
    pub const fn from_bits(bits: u16) -> Option<Self> {
        let set = Self(bits);
        let is_known = bits & !Self::ALL.0 == 0;
        let is_legal = !set.contains(Self::UNSEEN) || set.contains(Self::PARTIAL);
        if is_known && is_legal {
            Some(set)
        } else {
            None
        }
    }

    /// Returns the stored form.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Returns true if all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns true if any of `other` is in this set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns why names of a directory with these flags are not in the snapshot, or `None` if the
    /// snapshot has all of its names.
    pub const fn missing_names(self) -> Option<MissingNames> {
        if self.contains(Self::UNSEEN) {
            Some(MissingNames::Unseen)
        } else if self.contains(Self::PARTIAL) {
            Some(MissingNames::Excluded)
        } else {
            None
        }
    }

    /// Returns this set with `other` added.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns this set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Reason why a snapshot lacks names that a directory held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissingNames {
    /// Only the user's rules left them out: patterns, a list of files, a size, a cache tag.
    Excluded,
    /// Some were left out for another reason, see [`EntryFlags::UNSEEN`].
    Unseen,
}

impl MissingNames {
    /// Returns the flags for this reason.
    pub const fn flags(self) -> EntryFlags {
        match self {
            Self::Excluded => EntryFlags::PARTIAL,
            Self::Unseen => EntryFlags::PARTIAL.with(EntryFlags::UNSEEN),
        }
    }
}

/// The owner of a path: numbers, and their names on the host of the backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    /// The user's name, up to 255 bytes; empty if the number has no name.
    pub user: Vec<u8>,
    /// The group's name, up to 255 bytes; empty if the number has no name.
    pub group: Vec<u8>,
}

/// The value of an extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum XattrValue {
    /// Up to 4 KiB, in the entry.
    Inline(Vec<u8>),
    /// Longer: one metadata chunk of this many bytes (at most 64 KiB on Linux).
    Chunk { id: ChunkId, len: PlainLen },
}

/// One extended attribute; POSIX ACLs and file capabilities are attributes too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExtendedAttribute {
    /// The name with its name space: `user.x`, `security.capability`; 1–255 bytes.
    pub name: Vec<u8>,
    pub value: XattrValue,
}

/// Metadata of a path from `stat` and `listxattr`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Metadata {
    /// The 12 permission bits, including setuid, setgid and sticky.
    pub mode: u16,
    pub owner: Owner,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub inode: u64,
    /// The device of the inode; 0 unless `nlink` is above 1 (device numbers change across boots).
    pub device: u64,
    /// Number of hard links; 1 for directories.
    pub nlink: u32,
    /// Sorted by name; names are unique.
    pub xattrs: Vec<ExtendedAttribute>,
}

/// A piece of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Extent {
    /// One chunk of `len` bytes (1 B – 2 MiB).
    Chunk { id: ChunkId, len: PlainLen },
    /// `len` zero bytes (at least 1) that occupy no space.
    Hole { len: u64 },
    /// 1–128 bytes stored in place.
    Literal(Vec<u8>),
    /// A list node (a metadata chunk) whose extents add up to `len` bytes. `depth` is 1 for a node
    /// without lists, and at most 8.
    List { id: ChunkId, len: u64, depth: u8 },
}

impl Extent {
    /// Returns the bytes of content in this piece.
    pub fn len(&self) -> u64 {
        match self {
            Self::Chunk { len, .. } => u64::from(*len),
            Self::Hole { len } | Self::List { len, .. } => *len,
            Self::Literal(bytes) => to_u64(bytes.len()),
        }
    }

    /// Returns true for a piece of length 0, which the format refuses.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file's content: extents in order, whose lengths add up to `size`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Content {
    pub size: u64,
    pub extents: Vec<Extent>,
}

/// A device's numbers, as for `mknod`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    pub major: u32,
    pub minor: u32,
}

/// The object at a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    File {
        meta: Metadata,
        content: Content,
    },
    Directory {
        meta: Metadata,
    },
    /// `target` has 1–4095 bytes without NUL.
    Symlink {
        meta: Metadata,
        target: Vec<u8>,
    },
    Fifo {
        meta: Metadata,
    },
    Socket {
        meta: Metadata,
    },
    Char {
        meta: Metadata,
        device: DeviceNumber,
    },
    Block {
        meta: Metadata,
        device: DeviceNumber,
    },
    /// Could not be captured, and the previous snapshot does not have it. The reason is a text for
    /// messages, up to 1 KiB of UTF-8.
    Failed {
        reason: String,
    },
    /// Existed in an older run and was removed.
    Removed,
    /// A kind of a later format version: kept by merges, refused by restore.
    Unknown {
        kind: u8,
        body: Vec<u8>,
    },
}

/// One path of a tree source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    pub path: RelPath,
    pub flags: EntryFlags,
    pub node: Node,
}

impl Entry {
    /// Returns the entry's kind, or `None` for a kind of a later format version.
    pub fn kind(&self) -> Option<EntryKind> {
        Some(match self.node {
            Node::File { .. } => EntryKind::File,
            Node::Directory { .. } => EntryKind::Directory,
            Node::Symlink { .. } => EntryKind::Symlink,
            Node::Fifo { .. } => EntryKind::Fifo,
            Node::Socket { .. } => EntryKind::Socket,
            Node::Char { .. } => EntryKind::Char,
            Node::Block { .. } => EntryKind::Block,
            Node::Failed { .. } => EntryKind::Failed,
            Node::Removed => EntryKind::Removed,
            Node::Unknown { .. } => return None,
        })
    }

    /// Returns true for a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.node, Node::Directory { .. })
    }

    /// Returns true for a regular file.
    pub fn is_file(&self) -> bool {
        matches!(self.node, Node::File { .. })
    }

    /// Returns true if it hides entries of older runs below its path: by the flag, or because it is
    /// not a directory.
    pub fn covers(&self) -> bool {
        self.flags.contains(EntryFlags::COVER) || !self.is_directory()
    }

    /// Returns the metadata, if the kind has any.
    pub fn meta(&self) -> Option<&Metadata> {
        match &self.node {
            Node::File { meta, .. }
            | Node::Directory { meta }
            | Node::Symlink { meta, .. }
            | Node::Fifo { meta }
            | Node::Socket { meta }
            | Node::Char { meta, .. }
            | Node::Block { meta, .. } => Some(meta),
            Node::Failed { .. } | Node::Removed | Node::Unknown { .. } => None,
        }
    }

    /// Returns the content of a regular file.
    pub fn content(&self) -> Option<&Content> {
        match &self.node {
            Node::File { content, .. } => Some(content),
            _ => None,
        }
    }

    /// Returns true if the entry is not a complete capture; such entries make a snapshot
    /// incomplete.
    pub fn is_incomplete(&self) -> bool {
        matches!(self.node, Node::Failed { .. })
            || self
                .flags
                .intersects(EntryFlags::STALE.with(EntryFlags::TORN))
    }

    /// Returns why names of this directory are not in the snapshot, or `None` if the snapshot has
    /// all of its names.
    pub fn missing_names(&self) -> Option<MissingNames> {
        self.flags.missing_names()
    }

    /// Returns true if the directory of this entry must be listed again next time.
    pub fn wants_revisit(&self) -> bool {
        self.is_incomplete()
            || self.flags.intersects(
                EntryFlags::RACY
                    .with(EntryFlags::PROVISIONAL)
                    .with(EntryFlags::REVISIT),
            )
    }
}
