//! Records which names in existing directories belong to this restore.
//!
//! A case-insensitive file system, or one that normalizes names, treats two names of a snapshot as
//! one. In a directory that the restore made, nothing may be replaced, and that rule is enough. In
//! an existing directory a name may be replaced, unless another path of this restore has found or
//! written it before.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dest::{DestDir, FoundEntry};
use crate::types::{EntryKind, RelPath, at_most, to_u64};

/// Bits of the filter: 8 MiB, allocated only if directories existed before. With two million names,
/// one name in a million causes an unnecessary listing.
const FILTER_BITS: usize = 1 << 26;
const PROBES: u64 = 6;
/// Limit of the listings read to distinguish hard links from one name in two spellings.
const LISTINGS_MAX: u64 = 10_000;

/// Why a path whose name is taken cannot be restored.
pub(super) const NAME_TAKEN: &str = "its name is taken: this file system treats it as the name of another path of this restore, or another program is writing here";

/// Directory, device and inode of each file that this restore has found or put under a name.
pub(super) struct ClaimedNames {
    bits: OnceLock<Vec<AtomicU64>>,
    hasher: RandomState,
    listings: AtomicU64,
}

impl ClaimedNames {
    pub fn new() -> Self {
        Self {
            bits: OnceLock::new(),
            hasher: RandomState::new(),
            listings: AtomicU64::new(0),
        }
    }

    /// Records a file in a directory. Returns true if it was recorded before, or, rarely, if the
    /// filter only suggests so.
    pub fn add(&self, parent: &RelPath, identity: (u64, u64)) -> bool {
        self.note(self.hasher.hash_one((parent.key(), identity)))
    }

    /// Records a name, ignoring case and Unicode form: some file systems number inodes by path, so
    /// one file has a different number for each spelling. Returns true if a possible other spelling
    /// of the name was recorded before.
    pub fn add_name(&self, parent: &RelPath, name: &[u8]) -> bool {
        self.note(self.hasher.hash_one((parent.key(), "name", folded(name))))
    }

    fn note(&self, one: u64) -> bool {
        let mut was_there = true;
        let step = self.hasher.hash_one(one) | 1;
        let bits = self.bits.get_or_init(|| {
            let mut words = Vec::new();
            words.resize_with(FILTER_BITS / 64, AtomicU64::default);
            words
        });
        for probe in 0..PROBES {
            let hash = one.wrapping_add(step.wrapping_mul(probe));
            let bit = at_most(hash % to_u64(FILTER_BITS), FILTER_BITS - 1);
            let mask = 1 << (bit % 64);
            was_there &= bits[bit / 64].fetch_or(mask, Ordering::Relaxed) & mask != 0;
        }
        was_there
    }

    /// Returns true if this restore has found or put the file there under another name.
    pub fn has(&self, parent: &RelPath, found: &FoundEntry) -> bool {
        if self.bits.get().is_none() {
            return false;
        }
        // Recording it is harmless, because it is there.
        self.add(parent, (found.device, found.inode))
    }

    /// Records the file found under a name. `is_twice` is the result of
    /// [`add_name`](Self::add_name) for that name.
    ///
    /// # Errors
    /// `AlreadyExists` if the file belongs to another path of this restore.
    pub fn claim(
        &self,
        parent: &RelPath,
        dir: &DestDir,
        name: &[u8],
        found: &FoundEntry,
        is_twice: bool,
    ) -> io::Result<()> {
        let is_known = self.add(parent, (found.device, found.inode));
        let is_taken = match (is_known, is_twice) {
            (false, false) => false,
            (_, true) => self.is_alias(dir, name, found, is_known)? || ignores_case(dir, name)?,
            (true, false) => self.is_alias(dir, name, found, true)?,
        };
        if !is_taken {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, NAME_TAKEN))
    }

    /// Returns true if the directory does not list this name, although a lookup finds a file by it.
    /// Hard links are separate names. `is_known`: the file was recorded before.
    fn is_alias(
        &self,
        dir: &DestDir,
        name: &[u8],
        found: &FoundEntry,
        is_known: bool,
    ) -> io::Result<bool> {
        let swapped: Vec<u8> = name.iter().map(|&b| swap_case(b)).collect();
        if name.is_ascii() && (swapped == name || dir.stat(&swapped)?.is_none()) {
            return Ok(false);
        }
        // In some languages many names are equal only after folding, so listings are limited.
        let is_one_name = (is_known || name.is_ascii())
            && (found.nlink < 2 || found.kind == Some(EntryKind::Directory));
        if !is_one_name && self.listings.fetch_add(1, Ordering::Relaxed) >= LISTINGS_MAX {
            return Ok(false);
        }
        Ok(!dir.lists(name)?)
    }
}

/// Returns true if the directory lists `name` and also finds it in another case. Then this spelling
/// is the only one that the directory has for both, in whichever order they were looked up.
fn ignores_case(dir: &DestDir, name: &[u8]) -> io::Result<bool> {
    let swapped: Vec<u8> = name.iter().map(|&byte| swap_case(byte)).collect();
    Ok(swapped != name && dir.stat(&swapped)?.is_some() && !dir.lists(&swapped)?)
}

/// Converts a name to lower case, with one mark for each letter that has a combining mark or may be
/// written with one (Unicode Standard Annex 15). All spellings of a name give the same result;
/// sometimes different names do too.
fn folded(name: &[u8]) -> String {
    const MARKED: char = '\u{fffc}';
    let mut out = String::with_capacity(name.len());
    for c in String::from_utf8_lossy(name).to_lowercase().chars() {
        match c {
            // Combining marks, and the vowels and final consonants of Hangul.
            '\u{300}'..='\u{36f}'
            | '\u{591}'..='\u{5bd}'
            | '\u{653}'..='\u{655}'
            | '\u{93c}'
            | '\u{9bc}'
            | '\u{1161}'..='\u{11ff}'
            | '\u{3099}'..='\u{309a}' => {
                if out.pop().is_some() {
                    out.push(MARKED);
                }
            }
            _ if is_composed(c) => out.push(MARKED),
            other => out.push(other),
        }
    }
    out
}

/// Returns true for lower-case letters that may be written as another letter and a combining mark,
/// and for a few other letters of their blocks.
fn is_composed(c: char) -> bool {
    match c {
        // Latin, Greek, Arabic, Devanagari, Bengali, Latin and Greek extended, Hangul, Hebrew.
        '\u{c0}'..='\u{24f}'
        | '\u{390}'
        | '\u{3ac}'..='\u{3b0}'
        | '\u{3ca}'..='\u{3ce}'
        | '\u{622}'..='\u{626}'
        | '\u{958}'..='\u{95f}'
        | '\u{9dc}'..='\u{9df}'
        | '\u{1e00}'..='\u{1fff}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{fb1d}'..='\u{fb4e}' => true,
        // Cyrillic.
        '\u{439}'
        | '\u{450}'
        | '\u{451}'
        | '\u{453}'
        | '\u{457}'
        | '\u{45c}'..='\u{45e}'
        | '\u{477}' => true,
        '\u{4c2}' | '\u{4d1}'..='\u{4f9}' => true,
        // Kana with a sound mark. Katakana have the order of hiragana.
        '\u{3041}'..='\u{30fe}' => {
            let place = u32::from(c) - if c >= '\u{30a1}' { 0x30a1 } else { 0x3041 };
            match place {
                0x0b..=0x21 => place % 2 == 1,
                0x24 | 0x26 | 0x28 | 0x53 | 0x5d => true,
                0x2f..=0x3c => place % 3 != 1,
                _ => false,
            }
        }
        _ => false,
    }
}

fn swap_case(byte: u8) -> u8 {
    if byte.is_ascii_alphabetic() {
        byte ^ 0x20
    } else {
        byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_added_names_are_known() {
        let claimed = ClaimedNames::new();
        let dir = |n: u64| RelPath::from_slashed(format!("d{n}").as_bytes()).expect("a path");
        for n in 0..20_000 {
            assert!(!claimed.add(&dir(n % 50), (1, n)), "{n}");
        }
        for n in 0..20_000 {
            assert!(claimed.add(&dir(n % 50), (1, n)), "{n}");
        }

        assert!(!claimed.add_name(&dir(1), b"README") && claimed.add_name(&dir(1), b"readme"));
        assert!(!claimed.add_name(&dir(2), b"readme"), "another directory");
        assert!(!claimed.add_name(&dir(1), "caf\u{e9}".as_bytes()));
        assert!(claimed.add_name(&dir(1), "CAFE\u{301}".as_bytes()));

        for (composed, apart) in [
            ("\u{439}", "\u{438}\u{306}"),
            ("\u{304c}", "\u{304b}\u{3099}"),
            ("\u{30d1}", "\u{30cf}\u{309a}"),
            ("\u{d55c}", "\u{1112}\u{1161}\u{11ab}"),
            ("\u{1ed9}", "o\u{323}\u{302}"),
            ("\u{390}", "\u{3b9}\u{308}\u{301}"),
        ] {
            assert_eq!(
                folded(composed.as_bytes()),
                folded(apart.as_bytes()),
                "{composed}"
            );
        }

        assert_ne!(folded("и".as_bytes()), folded("н".as_bytes()));
        assert_ne!(folded("か".as_bytes()), folded("き".as_bytes()));
        assert!(!claimed.add(&dir(1), (1, 0)), "another directory");
        assert!(!claimed.add(&dir(0), (2, 0)), "another device");
    }
}
