//! A run's root and index nodes, which locate its pages (docs/format.md, "Run").

use super::wire::{WireError, WireReader, put_bytes, put_number, put_record};
use crate::types::{ChunkId, Entry, PATH_BYTES_MAX, RelPath, to_u64};

/// Nodes are closed once they reach this many bytes.
pub const NODE_BYTES_TARGET: usize = 64 << 10;
/// Minimal number of references in a node, even if their paths are long: with one or two in each
/// node, the tree over pages that begin with paths of 64 KiB would never end. A root of two such
/// trees still fits a chunk of 2 MiB.
pub const NODE_REFS_MIN: usize = 8;
/// Maximal number of node levels above the pages.
pub const LEVEL_MAX: u8 = 4;

/// Reference to a page or to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRef {
    /// The first path in it.
    pub first: RelPath,
    /// The metadata chunk that holds it.
    pub id: ChunkId,
    /// Number of entries in it or below it.
    pub entries: u64,
    /// Plain bytes of all pages in it or below it.
    pub bytes: u64,
}

impl PageRef {
    /// Returns true if these can be the page's entries: they begin with its first path, are as many
    /// as it records, and end before `until`.
    pub fn fits(&self, entries: &[Entry], until: Option<&RelPath>) -> bool {
        entries
            .first()
            .is_some_and(|first| first.path == self.first)
            && to_u64(entries.len()) == self.entries
            && until.is_none_or(|until| entries.last().is_some_and(|last| last.path < *until))
    }
}

/// References in path order: at level 0 to pages, at level n to nodes of level n − 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunTree {
    pub level: u8,
    pub refs: Vec<PageRef>,
}

/// A run: pages of directories (and of entries that replaced a directory), and pages of all others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunRoot {
    pub directories: RunTree,
    pub others: RunTree,
}

fn put_tree(out: &mut Vec<u8>, tree: &RunTree) {
    put_number(out, u64::from(tree.level));
    put_number(out, to_u64(tree.refs.len()));
    let mut scratch = Vec::new();
    for page in &tree.refs {
        put_record(out, &mut scratch, |out| {
            put_bytes(out, page.first.key());
            out.extend_from_slice(page.id.as_bytes());
            put_number(out, page.entries);
            put_number(out, page.bytes);
        });
    }
}

fn read_tree(reader: &mut WireReader<'_>) -> Result<RunTree, WireError> {
    let level = u8::try_from(reader.number()?)
        .ok()
        .filter(|&level| level <= LEVEL_MAX)
        .ok_or_else(|| reader.error("a run that is too deep"))?;

    let count = reader.count(36)?;
    let mut refs: Vec<PageRef> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut record = reader.record()?;
        let first = RelPath::from_key(record.bytes(PATH_BYTES_MAX)?)
            .map_err(|_| record.error("an invalid path"))?;
        if refs.last().is_some_and(|last| last.first >= first) {
            return Err(record.error("pages out of order"));
        }
        let id = ChunkId::new(record.array()?);
        let entries = record.number()?;
        let bytes = record.number()?;
        record.tail()?;
        if entries == 0 {
            return Err(reader.error("a page without entries"));
        }
        refs.push(PageRef {
            first,
            id,
            entries,
            bytes,
        });
    }

    if level > 0 && refs.is_empty() {
        return Err(reader.error("a node without pages"));
    }
    Ok(RunTree { level, refs })
}

/// Encodes an index node: references of one level.
pub fn encode_node(tree: &RunTree) -> Vec<u8> {
    let mut out = Vec::new();
    put_tree(&mut out, tree);
    out
}

/// Decodes an index node, which must be of this level.
pub fn decode_node(bytes: &[u8], level: u8) -> Result<RunTree, WireError> {
    let mut reader = WireReader::new(bytes);
    let tree = read_tree(&mut reader)?;
    reader.end()?;
    if tree.level != level || tree.refs.is_empty() {
        return Err(reader.error("a node of another level"));
    }
    Ok(tree)
}

/// Encodes a run's root.
pub fn encode_root(root: &RunRoot) -> Vec<u8> {
    let mut out = Vec::new();
    put_tree(&mut out, &root.directories);
    put_tree(&mut out, &root.others);
    out
}

/// Decodes a run's root.
pub fn decode_root(bytes: &[u8]) -> Result<RunRoot, WireError> {
    let mut reader = WireReader::new(bytes);
    let directories = read_tree(&mut reader)?;
    let others = read_tree(&mut reader)?;
    reader.tail()?;
    Ok(RunRoot {
        directories,
        others,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(name: &str) -> PageRef {
        let first = RelPath::from_slashed(name.as_bytes()).expect("a good path");
        PageRef {
            first,
            id: ChunkId::new([4; 32]),
            entries: 3,
            bytes: 900,
        }
    }

    #[test]
    fn roots_round_trip_and_refuse_disorder() {
        let tree = RunTree {
            level: 0,
            refs: vec![page("a"), page("a/b"), page("a.b")],
        };
        let root = RunRoot {
            directories: RunTree::default(),
            others: tree.clone(),
        };
        let bytes = encode_root(&root);
        assert_eq!(decode_root(&bytes), Ok(root.clone()));
        for end in 0..bytes.len() {
            assert!(decode_root(&bytes[..end]).is_err());
        }
        let wrong = RunTree {
            level: 0,
            refs: vec![page("b"), page("a")],
        };
        assert!(decode_node(&encode_node(&wrong), 0).is_err());
        assert!(decode_node(&encode_node(&tree), 1).is_err());
        let deep = RunTree { level: 5, ..tree };
        assert!(decode_node(&encode_node(&deep), 5).is_err());
    }
}
