//! Finds the entries of an archive that are further names of a file already in it.

use std::collections::HashMap;

use crate::ops::restore::link_digest;
use crate::types::Node;

/// Files with several names that are remembered at a time, and bytes of their names. Files beyond
/// these limits are written in full under each name.
const FILES_MAX: usize = 64 << 10;
const NAME_BYTES_MAX: usize = 8 << 20;

/// The files with several names that are in the archive.
#[derive(Default)]
pub(super) struct TarLinks {
    /// By device and inode.
    files: HashMap<(u64, u64), WrittenFile>,
    name_bytes: usize,
}

struct WrittenFile {
    /// Of size, time and content: another file may have the same inode by now.
    digest: [u8; 32],
    /// The first of its names in the archive.
    name: Vec<u8>,
    /// Further names of the file that may still follow.
    left: u32,
}

impl TarLinks {
    /// Returns the name under which the archive already holds the file. Returns `None` for the
    /// first name of a file, which is remembered as `name`.
    pub fn first_name(&mut self, node: &Node, name: &[u8]) -> Option<Vec<u8>> {
        let (meta, digest) = link_digest(node)?;
        let key = (meta.device, meta.inode);
        let Some(written) = self.files.get_mut(&key) else {
            if self.files.len() < FILES_MAX && self.name_bytes + name.len() <= NAME_BYTES_MAX {
                self.name_bytes += name.len();
                self.files.insert(
                    key,
                    WrittenFile {
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
