//! Entries: one path of a tree source with its metadata and content.

use crate::types::{ChunkId, RelPath, Timestamp};

/// Content of up to this many bytes is kept in the entry itself.
pub const LITERAL_BYTES_MAX: usize = 128;

/// What an entry is. The numbers are the format's.
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

/// A set of marks on an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EntryFlags(u16);

impl EntryFlags {
    /// Hides everything below this path in older runs.
    pub const COVER: Self = Self(1);
    /// A directory that must be listed next time: its listing was racy or failed, a child needs
    /// another look, or one of an immutable source is no hash and may change in place.
    pub const REVISIT: Self = Self(2);
    /// Modified so shortly before the stat that its next change may leave the stat as it is, or
    /// known to have changed since: read again next time.
    pub const RACY: Self = Self(4);
    /// An immutable file whose content does not match its name.
    pub const PROVISIONAL: Self = Self(8);
    /// The parent's entry, kept because the path could not be read this time; or an entry of now of
    /// which extended attributes could not be read or had no room. Looked at again next time.
    pub const STALE: Self = Self(16);
    /// Changed while it was read, twice, and not by growing alone.
    pub const TORN: Self = Self(32);
    /// An immutable file whose name proves nothing, read twice with the same result.
    pub const SETTLED: Self = Self(64);
    /// A directory that held names which the snapshot lacks: that a name is not in the snapshot
    /// does not say that it was not there. Marks the directory that held the name, none above it.
    pub const PARTIAL: Self = Self(128);
    /// Only with [`EntryFlags::PARTIAL`]: not all of these names were left out by the user's rules,
    /// or nobody knows. An error, another file system, a directory of icecore's own, a walk that
    /// did not come to its end.
    pub const UNSEEN: Self = Self(256);
    /// A directory on which something was mounted below the source's root.
    pub const MOUNT: Self = Self(512);
    /// Every flag of this format version.
    pub const ALL: Self = Self(1023);

    /// No mark.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// The set as the format stores it; unknown bits, and *unseen* without *partial*, are refused.
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

    /// The set as the format stores it.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// True if all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if any of `other` is in this set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Why names of a directory with these flags are not in the snapshot; none if every name that
    /// it held is there.
    pub const fn missing_names(self) -> Option<MissingNames> {
        if self.contains(Self::UNSEEN) {
            Some(MissingNames::Unseen)
        } else if self.contains(Self::PARTIAL) {
            Some(MissingNames::Excluded)
        } else {
            None
        }
    }

    /// This set and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Why a snapshot lacks names that a directory held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissingNames {
    /// The user's rules left them out, and nothing else did: patterns, a list of files, a size, a
    /// cache tag.
    Excluded,
    /// Some were left out for another reason: see [`EntryFlags::UNSEEN`].
    Unseen,
}

impl MissingNames {
    /// The flags that say so.
    pub const fn flags(self) -> EntryFlags {
        match self {
            Self::Excluded => EntryFlags::PARTIAL,
            Self::Unseen => EntryFlags::PARTIAL.with(EntryFlags::UNSEEN),
        }
    }
}

/// Who owns a path: numbers, and the names they had on the host that was backed up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    /// The user's name, up to 255 bytes; empty if the number has none.
    pub user: Vec<u8>,
    /// The group's name, up to 255 bytes; empty if the number has none.
    pub group: Vec<u8>,
}

/// The value of an extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum XattrValue {
    /// Up to 4 KiB, in the entry.
    Inline(Vec<u8>),
    /// Longer: one metadata chunk of this many bytes (Linux stops at 64 KiB).
    Chunk { id: ChunkId, len: u32 },
}

/// One extended attribute; POSIX ACLs and file capabilities are attributes too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Xattr {
    /// With its name space: `user.x`, `security.capability`; 1–255 bytes.
    pub name: Vec<u8>,
    pub value: XattrValue,
}

/// What `stat` and `listxattr` tell of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Metadata {
    /// The 12 permission bits, setuid, setgid and sticky included.
    pub mode: u16,
    pub owner: Owner,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
    pub inode: u64,
    /// The device that holds the inode; 0 unless `nlink` is above 1 (device numbers change across
    /// boots).
    pub device: u64,
    /// Number of hard links; 1 for directories.
    pub nlink: u32,
    /// Sorted by name, no name twice.
    pub xattrs: Vec<Xattr>,
}

/// A piece of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Extent {
    /// One chunk of `len` bytes (1 B – 2 MiB).
    Chunk { id: ChunkId, len: u32 },
    /// `len` zero bytes (at least 1) that take no room.
    Hole { len: u64 },
    /// 1–128 bytes in place.
    Literal(Vec<u8>),
    /// A list node (a metadata chunk) whose extents add up to `len` bytes. `depth` is 1 for a node
    /// without lists in it, at most 8.
    List { id: ChunkId, len: u64, depth: u8 },
}

impl Extent {
    /// Bytes of content that this piece stands for.
    pub fn len(&self) -> u64 {
        match self {
            Self::Chunk { len, .. } => u64::from(*len),
            Self::Hole { len } | Self::List { len, .. } => *len,
            Self::Literal(bytes) => bytes.len() as u64,
        }
    }

    /// True for a piece of no length, which the format refuses.
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

/// A device's numbers, as `mknod` takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    pub major: u32,
    pub minor: u32,
}

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    File {
        meta: Metadata,
        content: Content,
    },
    Directory {
        meta: Metadata,
    },
    /// `target`: 1–4095 bytes, any but NUL.
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
    /// Could not be captured, and no parent has it. The reason is for people, up to 1 KiB of UTF-8.
    Failed {
        reason: String,
    },
    /// Was there in an older run, is no more.
    Removed,
    /// A kind of a later format: kept by merges, refused by restore.
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
    /// The entry's kind; none for a kind of a later format.
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

    /// True for a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.node, Node::Directory { .. })
    }

    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        matches!(self.node, Node::File { .. })
    }

    /// True if it hides what older runs hold below its path: the flag, or any kind but a directory.
    pub fn covers(&self) -> bool {
        self.flags.contains(EntryFlags::COVER) || !self.is_directory()
    }

    /// The metadata, where the kind has any.
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

    /// A regular file's content.
    pub fn content(&self) -> Option<&Content> {
        match &self.node {
            Node::File { content, .. } => Some(content),
            _ => None,
        }
    }

    /// True if the entry is not a full capture of what was there: such entries make a snapshot
    /// incomplete.
    pub fn is_incomplete(&self) -> bool {
        matches!(self.node, Node::Failed { .. })
            || self
                .flags
                .intersects(EntryFlags::STALE.with(EntryFlags::TORN))
    }

    /// Why names of this directory are not in the snapshot; none if every name that it held is
    /// there.
    pub fn missing_names(&self) -> Option<MissingNames> {
        self.flags.missing_names()
    }

    /// True if the directory that holds this entry must be listed again next time.
    pub fn wants_revisit(&self) -> bool {
        self.is_incomplete()
            || self.flags.intersects(
                EntryFlags::RACY
                    .with(EntryFlags::PROVISIONAL)
                    .with(EntryFlags::REVISIT),
            )
    }
}
