//! Which entries of an archive are further names of a file that it holds already.

use std::collections::HashMap;

use crate::ops::restore::link_digest;
use crate::types::Node;

/// Files of several names that are remembered at once, and bytes of their names. What comes after
/// is written in full, as a file of its own.
const FILES_MAX: usize = 64 << 10;
const NAME_BYTES_MAX: usize = 8 << 20;

/// The files of several names that are in the archive.
#[derive(Default)]
pub(super) struct TarLinks {
    /// By device and inode.
    files: HashMap<(u64, u64), Written>,
    name_bytes: usize,
}

struct Written {
    /// Of size, time and content: another file may have the inode by now.
    digest: [u8; 32],
    /// The name in the archive of the first of its names.
    name: Vec<u8>,
    /// Names that the archive may still meet.
    left: u32,
}

impl TarLinks {
    /// The name under which the archive holds the file already; none for the first of a file's
    /// names, which is remembered as `name`.
    pub fn first_name(&mut self, node: &Node, name: &[u8]) -> Option<Vec<u8>> {
        let (meta, digest) = link_digest(node)?;
        let key = (meta.device, meta.inode);
        let Some(written) = self.files.get_mut(&key) else {
            if self.files.len() < FILES_MAX && self.name_bytes + name.len() <= NAME_BYTES_MAX {
                self.name_bytes += name.len();
                self.files.insert(
                    key,
                    Written {
                        digest,
                        name: name.to_vec(),
                        left: meta.nlink - 1,
                    },
                );
            }
            return None;
        };
        if written.digest != digest {
            return None;
        }
        written.left = written.left.saturating_sub(1);
        if written.left > 0 {
            return Some(written.name.clone());
        }
        let written = self.files.remove(&key)?;
        self.name_bytes -= written.name.len();
        Some(written.name)
    }
}
