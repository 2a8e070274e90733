//! Which names of directories that were there before belong to this restore.
//!
//! A file system without case, or one that normalizes names, takes two names of a snapshot for one. In a directory that
//! the restore made, nothing may be replaced, which is enough. In one that was there, what has a name may be replaced,
//! unless another path of this restore has found or written it before.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::target::{Dir, Existing};
use crate::types::{EntryKind, RelPath};

/// Bits of the filter: 8 MiB, used only where directories were there before. Two million names make one of a million
/// ask for a listing in vain.
const FILTER_BITS: u64 = 1 << 26;
const PROBES: u64 = 6;
/// Listings that may be read to tell hard links from one name in two spellings.
const LISTINGS_MAX: u64 = 10_000;

/// What is said of a path whose name is taken.
pub(super) const NAME_TAKEN: &str = "its name is taken: this file system takes it for the name of another path of this restore, or another program is writing here";

/// Directory, device and inode of what this restore has found or put under a name.
pub(super) struct Claimed {
    bits: OnceLock<Vec<AtomicU64>>,
    hasher: RandomState,
    listings: AtomicU64,
}

impl Claimed {
    pub fn new() -> Self {
        Self { bits: OnceLock::new(), hasher: RandomState::new(), listings: AtomicU64::new(0) }
    }

    /// Notes what has a name in a directory; true if it was noted before, or, rarely, if it seems so.
    pub fn add(&self, parent: &RelPath, identity: (u64, u64)) -> bool {
        self.note(self.hasher.hash_one((parent.key(), identity)))
    }

    /// Notes a name, whatever its case: some file systems number their inodes by path, so that one file has as many as it
    /// has spellings. True if one that differs in case alone was noted before.
    pub fn add_name(&self, parent: &RelPath, name: &[u8]) -> bool {
        let folded = String::from_utf8_lossy(name).to_lowercase();
        self.note(self.hasher.hash_one((parent.key(), "name", folded)))
    }

    fn note(&self, one: u64) -> bool {
        let mut was_there = true;
        let step = self.hasher.hash_one(one) | 1;
        let bits = self.bits.get_or_init(|| {
            let mut words = Vec::new();
            words.resize_with((FILTER_BITS / 64) as usize, AtomicU64::default);
            words
        });
        for probe in 0..PROBES {
            let bit = one.wrapping_add(step.wrapping_mul(probe)) % FILTER_BITS;
            let mask = 1 << (bit % 64);
            was_there &= bits[(bit / 64) as usize].fetch_or(mask, Ordering::Relaxed) & mask != 0;
        }
        was_there
    }

    /// True if this restore has found or put it there under another name.
    pub fn has(&self, parent: &RelPath, found: &Existing) -> bool {
        if self.bits.get().is_none() {
            return false;
        }
        // Noting what is asked for changes nothing: it is there.
        self.add(parent, (found.device, found.inode))
    }

    /// Notes what was found under a name; `is_twice` is what [`add_name`](Self::add_name) said of that.
    ///
    /// # Errors
    /// `AlreadyExists` if it is what another path of this restore stands for.
    pub fn claim(
        &self,
        parent: &RelPath,
        dir: &Dir,
        name: &[u8],
        found: &Existing,
        is_twice: bool,
    ) -> io::Result<()> {
        let is_known = self.add(parent, (found.device, found.inode));
        if !(is_known || is_twice) || !self.is_alias(dir, name, found)? {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, NAME_TAKEN))
    }

    /// True if the directory has no such name, though something is found by it. Hard links are names of their own.
    fn is_alias(&self, dir: &Dir, name: &[u8], found: &Existing) -> io::Result<bool> {
        let swapped: Vec<u8> = name.iter().map(|&b| swap_case(b)).collect();
        if name.is_ascii() && (swapped == name || dir.stat(&swapped)?.is_none()) {
            return Ok(false);
        }
        let is_one_name = found.nlink < 2 || found.kind == Some(EntryKind::Folder);
        if !is_one_name && self.listings.fetch_add(1, Ordering::Relaxed) >= LISTINGS_MAX {
            return Ok(false);
        }
        Ok(!dir.lists(name)?)
    }
}

fn swap_case(byte: u8) -> u8 {
    if byte.is_ascii_alphabetic() { byte ^ 0x20 } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_known_and_nothing_else() {
        let claimed = Claimed::new();
        let dir = |n: u64| RelPath::from_slashed(format!("d{n}").as_bytes()).expect("a path");
        for n in 0..20_000 {
            assert!(!claimed.add(&dir(n % 50), (1, n)), "{n}");
        }
        for n in 0..20_000 {
            assert!(claimed.add(&dir(n % 50), (1, n)), "{n}");
        }
        assert!(!claimed.add_name(&dir(1), b"README") && claimed.add_name(&dir(1), b"readme"));
        assert!(!claimed.add_name(&dir(2), b"readme"), "another directory");
        assert!(!claimed.add(&dir(1), (1, 0)), "another directory");
        assert!(!claimed.add(&dir(0), (2, 0)), "another device");
    }
}
