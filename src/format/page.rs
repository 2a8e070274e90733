//! Pages of runs: sorted entries with shared prefixes (docs/format.md, "Page").

use std::collections::HashSet;

use super::content::{put_content, read_content};
use super::wire::{
    WireError, WireReader, low_byte, put_bytes, put_number, put_record, put_time_after, time_after,
};
use crate::types::{
    ChunkId, DeviceNumber, Entry, EntryFlags, EntryKind, ExtendedAttribute, Metadata, Node, Owner,
    PATH_BYTES_MAX, PlainLen, RelPath, Timestamp, XattrValue, hex, to_u64, to_usize,
};

/// Maximal bytes of a page that is read: 1 MiB. Pages are closed once they reach 32 KiB.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
const SYMLINK_BYTES_MAX: usize = 4095;
const REASON_BYTES_MAX: usize = 1024;
const NAME_MAX: usize = 255;
const XATTR_INLINE_MAX: usize = 4096;
/// Maximal bytes of all paths of a page together, expanded: 2 MiB. A shared prefix costs a byte in
/// the page and up to 64 KiB in memory.
pub const PAGE_PATHS_MAX: usize = 2 << 20;
/// Shorter names are always stored as they are.
const PACKED_CHARS_MIN: usize = 8;

// Encodings of the part of a path after the shared prefix.
const AS_IS: u64 = 0;
const AS_HEX: u64 = 1;
const AS_BLOCK: u64 = 2;
const BLOCK_SUFFIX: &[u8] = b".data";

/// Collects entries, pushed in strictly ascending path order, into one page.
#[derive(Debug, Default)]
pub struct PageBuilder {
    owners: Vec<Owner>,
    owners_bytes: usize,
    body: Vec<u8>,
    scratch: Vec<u8>,
    entries: u64,
    paths_bytes: usize,
    first: Option<RelPath>,
    last_key: Vec<u8>,
    last_mtime: Timestamp,
}

impl PageBuilder {
    /// Returns an empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry. Its path must be above the last one's.
    pub fn push(&mut self, entry: &Entry) {
        debug_assert!(
            self.entries == 0 || entry.path.key() > self.last_key.as_slice(),
            "entries out of order"
        );
        let owner = entry.meta().map(|meta| self.owner_index(&meta.owner));
        let last_key = &self.last_key;
        let last_mtime = self.last_mtime;
        put_record(&mut self.body, &mut self.scratch, |out| {
            put_path(out, last_key, entry.path.key());
            put_node(out, entry, owner.unwrap_or(0), last_mtime);
        });
        if let Some(meta) = entry.meta() {
            self.last_mtime = meta.mtime;
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(entry.path.key());
        self.first.get_or_insert_with(|| entry.path.clone());
        self.entries += 1;
        self.paths_bytes += entry.path.key().len();
    }

    fn owner_index(&mut self, owner: &Owner) -> u64 {
        // Pages have few owners, and usually the last one is used again.
        let found = self.owners.iter().rposition(|known| known == owner);
        to_u64(found.unwrap_or_else(|| {
            self.owners_bytes += 12 + owner.user.len() + owner.group.len();
            self.owners.push(owner.clone());
            self.owners.len() - 1
        }))
    }

    /// Returns the approximate plain bytes so far.
    pub fn bytes(&self) -> usize {
        self.body.len() + self.owners_bytes
    }

    /// Returns the bytes of all paths so far, expanded.
    pub fn paths_bytes(&self) -> usize {
        self.paths_bytes
    }

    /// Returns the number of entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Ends the page and resets the builder. Returns the page's first path, its bytes and its
    /// number of entries, or `None` if it is empty.
    pub fn finish(&mut self) -> Option<(RelPath, Vec<u8>, u64)> {
        let done = std::mem::take(self);
        let first = done.first?;
        let mut out = Vec::with_capacity(done.body.len() + done.owners_bytes + 8);
        put_number(&mut out, to_u64(done.owners.len()));
        for owner in &done.owners {
            put_number(&mut out, u64::from(owner.uid));
            put_number(&mut out, u64::from(owner.gid));
            put_bytes(&mut out, &owner.user);
            put_bytes(&mut out, &owner.group);
        }
        out.extend_from_slice(&done.body);
        Some((first, out, done.entries))
    }
}

/// Decodes a page: entries in strictly ascending path order, at least one.
pub fn decode_page(bytes: &[u8]) -> Result<Vec<Entry>, WireError> {
    let mut reader = WireReader::new(bytes);
    if bytes.len() > PAGE_BYTES_MAX {
        return Err(reader.error("a page that is too long"));
    }

    let owners = read_owners(&mut reader)?;
    let mut entries: Vec<Entry> = Vec::with_capacity(reader.left() / 64);
    let mut context = PageContext {
        owners: &owners,
        owners_used: 0,
        last_mtime: Timestamp::default(),
    };

    let mut key = Vec::new();
    let mut paths_bytes = 0;
    while !reader.is_empty() {
        let mut record = reader.record()?;
        read_path(&mut record, &mut key, entries.is_empty())?;
        paths_bytes += key.len();
        if paths_bytes > PAGE_PATHS_MAX {
            return Err(record.error("a page whose paths are too long"));
        }
        let path =
            RelPath::from_key(key.as_slice()).map_err(|_| record.error("an invalid path"))?;
        let entry = read_node(record, path, &mut context)?;
        entries.push(entry);
    }
    // Unused owners and empty pages are refused, so that a page has one encoding.

    if context.owners_used != owners.len() {
        return Err(reader.error("an owner that no entry uses"));
    }
    if entries.is_empty() {
        Err(reader.error("a page without entries"))
    } else {
        Ok(entries)
    }
}

/// State shared by the entries of a page.
struct PageContext<'a> {
    owners: &'a [Owner],
    /// Number of owners used so far. Owners are listed in the order of their first use.
    owners_used: usize,
    last_mtime: Timestamp,
}

fn read_owners(reader: &mut WireReader<'_>) -> Result<Vec<Owner>, WireError> {
    let count = reader.count(4)?;
    let mut owners = Vec::with_capacity(count);
    for _ in 0..count {
        owners.push(Owner {
            uid: reader.u32()?,
            gid: reader.u32()?,
            user: reader.bytes(NAME_MAX)?.to_vec(),
            group: reader.bytes(NAME_MAX)?.to_vec(),
        });
    }
    if count > 1 && owners.iter().collect::<HashSet<_>>().len() != count {
        return Err(reader.error("an owner listed twice"));
    }
    Ok(owners)
}

fn put_path(out: &mut Vec<u8>, last: &[u8], key: &[u8]) {
    let shared = last.iter().zip(key).take_while(|(a, b)| a == b).count();
    put_number(out, to_u64(shared));
    let suffix = &key[shared..];
    if is_hex(suffix) {
        put_number(out, to_u64(suffix.len()) << 2 | AS_HEX);
        put_bits(out, suffix.iter().filter_map(|&c| hex::digit_value(c)), 4);
    } else if let Some(block) = block_name(suffix) {
        put_number(out, to_u64(block.len()) << 2 | AS_BLOCK);
        put_bits(out, block.iter().filter_map(|&c| base32_value(c)), 5);
    } else {
        put_number(out, to_u64(suffix.len()) << 2 | AS_IS);
        out.extend_from_slice(suffix);
    }
}

/// Returns true for a suffix that is stored as the bytes of its hex digits.
fn is_hex(suffix: &[u8]) -> bool {
    suffix.len() >= PACKED_CHARS_MIN && suffix.iter().all(|&c| hex::digit_value(c).is_some())
}

/// Returns the base32 part of a suffix that is stored as a block's name, or `None` for any other.
fn block_name(suffix: &[u8]) -> Option<&[u8]> {
    let block = suffix.strip_suffix(BLOCK_SUFFIX)?;
    (block.len() >= PACKED_CHARS_MIN && block.iter().all(|&c| base32_value(c).is_some()))
        .then_some(block)
}

/// Replaces the previous path in `key` by the next one, which must be above it and encoded as by
/// [`put_path`].
fn read_path(
    reader: &mut WireReader<'_>,
    key: &mut Vec<u8>,
    is_first: bool,
) -> Result<(), WireError> {
    let shared = usize::try_from(reader.number()?)
        .ok()
        .filter(|&shared| shared <= key.len())
        .ok_or_else(|| reader.error("a shared prefix longer than the previous path"))?;
    let replaced = key.get(shared).copied();
    key.truncate(shared);

    let head = reader.number()?;
    let chars = usize::try_from(head >> 2)
        .ok()
        .filter(|&chars| chars <= PATH_BYTES_MAX)
        .ok_or_else(|| reader.error("a path that is too long"))?;

    match head & 3 {
        AS_IS => {
            let suffix = reader.take(chars)?;
            if is_hex(suffix) || block_name(suffix).is_some() {
                return Err(reader.error("a name that should be packed"));
            }
            key.extend_from_slice(suffix);
        }
        AS_HEX | AS_BLOCK if chars < PACKED_CHARS_MIN => {
            return Err(reader.error("a packed name that is too short to be packed"));
        }
        AS_HEX => read_bits(reader, key, chars, 4, hex::DIGITS)?,
        AS_BLOCK => {
            read_bits(reader, key, chars, 5, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")?;
            key.extend_from_slice(BLOCK_SUFFIX);
        }
        _ => return Err(reader.error("an unknown encoding of a name")),
    }

    // The path must be above the previous one and share its longest prefix, so the first byte after
    // the prefix must be greater.
    if !is_first && key.get(shared).copied() <= replaced {
        return Err(reader.error("paths out of order, or a shared prefix that is too short"));
    }
    Ok(())
}

fn base32_value(c: u8) -> Option<u8> {
    match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'2'..=b'7' => Some(c - b'2' + 26),
        _ => None,
    }
}

/// Packs values of `width` bits each, most significant bits first. The last byte is padded with
/// zeros.
fn put_bits(out: &mut Vec<u8>, values: impl Iterator<Item = u8>, width: u32) {
    let mut held = 0u32;
    let mut bits = 0;
    for value in values {
        held = held << width | u32::from(value);
        bits += width;
        if bits >= 8 {
            bits -= 8;
            out.push(low_byte(u64::from(held >> bits)));
        }
    }
    if bits > 0 {
        out.push(low_byte(u64::from(held << (8 - bits))));
    }
}

fn read_bits(
    reader: &mut WireReader<'_>,
    key: &mut Vec<u8>,
    chars: usize,
    width: u32,
    alphabet: &[u8],
) -> Result<(), WireError> {
    let bytes = reader.take((chars * to_usize(width)).div_ceil(8))?;
    let mut held = 0u32;
    let mut bits = 0;
    let mut next = bytes.iter();
    for _ in 0..chars {
        if bits < width {
            held = held << 8 | next.next().map_or(0, |&byte| u32::from(byte));
            bits += 8;
        }
        bits -= width;
        let value = held >> bits & ((1 << width) - 1);
        key.push(alphabet[to_usize(value)]);
    }
    if held & ((1 << bits) - 1) != 0 {
        return Err(reader.error("a packed name with bits after its end"));
    }
    Ok(())
}

fn kind_number(entry: &Entry) -> u8 {
    match (&entry.node, entry.kind()) {
        (Node::Unknown { kind, .. }, _) => *kind,
        (_, kind) => kind.map_or(0, EntryKind::number),
    }
}

fn put_node(out: &mut Vec<u8>, entry: &Entry, owner: u64, last_mtime: Timestamp) {
    out.push(kind_number(entry));
    put_number(out, u64::from(entry.flags.bits()));
    if let Some(meta) = entry.meta() {
        put_meta(out, meta, owner, last_mtime);
    }
    match &entry.node {
        Node::File { content, .. } => put_content(out, content),
        Node::Symlink { target, .. } => put_bytes(out, target),
        Node::Char { device, .. } | Node::Block { device, .. } => {
            put_number(out, u64::from(device.major));
            put_number(out, u64::from(device.minor));
        }
        Node::Failed { reason } => put_bytes(out, reason.as_bytes()),
        Node::Unknown { body, .. } => out.extend_from_slice(body),
        Node::Directory { .. } | Node::Fifo { .. } | Node::Socket { .. } | Node::Removed => {}
    }
}

fn put_meta(out: &mut Vec<u8>, meta: &Metadata, owner: u64, last_mtime: Timestamp) {
    put_number(out, u64::from(meta.mode));
    put_number(out, owner);
    put_time_after(out, meta.mtime, last_mtime);
    put_time_after(out, meta.ctime, meta.mtime);
    put_number(out, meta.inode);
    put_number(out, u64::from(meta.nlink));
    if meta.nlink > 1 {
        put_number(out, meta.device);
    }
    put_number(out, to_u64(meta.xattrs.len()));
    for xattr in &meta.xattrs {
        put_bytes(out, &xattr.name);
        match &xattr.value {
            XattrValue::Inline(value) => {
                out.push(0);
                put_bytes(out, value);
            }
            XattrValue::Chunk { id, len } => {
                out.push(1);
                out.extend_from_slice(id.as_bytes());
                put_number(out, u64::from(*len));
            }
        }
    }
}

fn read_meta(
    reader: &mut WireReader<'_>,
    context: &mut PageContext<'_>,
) -> Result<Metadata, WireError> {
    let mode = u16::try_from(reader.number()?)
        .ok()
        .filter(|&mode| mode <= 0o7777)
        .ok_or_else(|| reader.error("permission bits beyond 07777"))?;

    let index = usize::try_from(reader.number()?)
        .ok()
        .filter(|&index| index <= context.owners_used);
    let owner = index.and_then(|index| context.owners.get(index));
    let owner = owner
        .ok_or_else(|| reader.error("an owner that the page does not list here"))?
        .clone();
    context.owners_used = context.owners_used.max(index.map_or(0, |index| index + 1));

    let mtime = time_after(reader, context.last_mtime)?;
    context.last_mtime = mtime;
    let ctime = time_after(reader, mtime)?;
    let inode = reader.number()?;
    let nlink = reader.u32()?;
    let device = if nlink > 1 { reader.number()? } else { 0 };

    let xattrs = read_xattrs(reader)?;

    Ok(Metadata {
        mode,
        owner,
        mtime,
        ctime,
        inode,
        device,
        nlink,
        xattrs,
    })
}

fn read_xattrs(reader: &mut WireReader<'_>) -> Result<Vec<ExtendedAttribute>, WireError> {
    let count = reader.count(3)?;
    let mut xattrs: Vec<ExtendedAttribute> = Vec::with_capacity(count);
    for _ in 0..count {
        let name = reader.bytes(NAME_MAX)?.to_vec();
        if name.is_empty()
            || name.contains(&0)
            || xattrs.last().is_some_and(|last| last.name >= name)
        {
            return Err(reader.error("attribute names out of order"));
        }

        let value = match reader.byte()? {
            0 => XattrValue::Inline(reader.bytes(XATTR_INLINE_MAX)?.to_vec()),
            1 => {
                let id = ChunkId::new(reader.array()?);
                let len = reader.u32()?;
                if len == 0 || len > 1 << 16 {
                    return Err(reader.error("an attribute of invalid length"));
                }
                XattrValue::Chunk {
                    id,
                    len: PlainLen::new(len),
                }
            }
            _ => {
                return Err(reader.error("an unknown encoding of an attribute"));
            }
        };

        xattrs.push(ExtendedAttribute { name, value });
    }
    Ok(xattrs)
}

fn known_kind(number: u8) -> Option<EntryKind> {
    use EntryKind::{Block, Char, Directory, Failed, Fifo, File, Removed, Socket, Symlink};
    [
        File, Directory, Symlink, Fifo, Socket, Char, Block, Failed, Removed,
    ]
    .into_iter()
    .find(|kind| kind.number() == number)
}

fn read_node(
    mut reader: WireReader<'_>,
    path: RelPath,
    context: &mut PageContext<'_>,
) -> Result<Entry, WireError> {
    let number = reader.byte()?;
    let bits = u16::try_from(reader.number()?).ok();
    let flags = bits.and_then(EntryFlags::from_bits);
    let flags = flags.ok_or_else(|| reader.error("unknown flags"))?;

    let Some(kind) = known_kind(number) else {
        // Merges copy the body unchanged into other pages. So an entry of a later kind must not
        // refer to the rest of its page, neither to the owners' list nor to the previous time.
        let left = reader.left();
        let body = reader.take(left)?.to_vec();
        return Ok(Entry {
            path,
            flags,
            node: Node::Unknown { kind: number, body },
        });
    };

    let mut meta = || read_meta(&mut reader, context);

    let node = match kind {
        EntryKind::File => {
            let meta = meta()?;
            Node::File {
                meta,
                content: read_content(&mut reader)?,
            }
        }
        EntryKind::Directory => Node::Directory { meta: meta()? },
        EntryKind::Symlink => {
            let meta = meta()?;
            let target = reader.bytes(SYMLINK_BYTES_MAX)?.to_vec();
            if target.is_empty() || target.contains(&0) {
                return Err(reader.error("an invalid link target"));
            }
            Node::Symlink { meta, target }
        }
        EntryKind::Fifo => Node::Fifo { meta: meta()? },
        EntryKind::Socket => Node::Socket { meta: meta()? },
        EntryKind::Char | EntryKind::Block => {
            let meta = meta()?;
            let device = DeviceNumber {
                major: reader.u32()?,
                minor: reader.u32()?,
            };
            if kind == EntryKind::Char {
                Node::Char { meta, device }
            } else {
                Node::Block { meta, device }
            }
        }
        EntryKind::Failed => {
            let reason = std::str::from_utf8(reader.bytes(REASON_BYTES_MAX)?);
            let reason = reason
                .map_err(|_| reader.error("a reason that is not UTF-8"))?
                .to_owned();
            Node::Failed { reason }
        }
        EntryKind::Removed => Node::Removed,
    };

    reader.tail()?;
    Ok(Entry { path, flags, node })
}

#[cfg(test)]
mod tests;
