//! A small tree on disk and a naive model of it: a map from path to content.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use icecore::testing::noise;
use icecore::types::hex;

/// The object at a path.
#[derive(Clone, PartialEq, Eq)]
pub enum Thing {
    File(Vec<u8>),
    Directory,
    Symlink(String),
}

impl std::fmt::Debug for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(bytes) => {
                write!(
                    f,
                    "file of {} ({})",
                    bytes.len(),
                    &blake3::hash(bytes).to_hex()[..6]
                )
            }
            Self::Directory => f.write_str("directory"),
            Self::Symlink(to) => write!(f, "link to {to}"),
        }
    }
}

/// Things by path, components joined by `/`; the root is the empty path.
pub type Things = BTreeMap<String, Thing>;

/// SplitMix64: everything that a test draws follows from its seed.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// A directory and its model.
///
/// Each edit sets a modification time that was never used before, so that a scan detects the change
/// without waiting for the clock's grain.
pub struct Tree {
    root: PathBuf,
    pub things: Things,
    stamp: u64,
}

/// Few names, so that paths come back as other kinds; in the order of runs, not of text.
const NAMES: [&str; 12] = [
    "a", "a/b", "a/b/c", "a/b/d", "a.b", "c", "c/x", "c.x", "d", "d/e/f", "d/e/g", "z",
];

impl Tree {
    pub fn new(root: PathBuf) -> Self {
        fs::create_dir_all(&root).expect("makes the tree");
        let mut tree = Self {
            root,
            things: Things::new(),
            stamp: 0,
        };
        tree.things.insert(String::new(), Thing::Directory);
        tree.touch(&tree.root.clone());
        tree
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a few random edits.
    pub fn edit(&mut self, rng: &mut Rng) {
        for _ in 0..1 + rng.below(4) {
            let name = *rng.pick(&NAMES);
            match rng.below(12) {
                0 => self.put(name, Thing::Directory),
                1 => self.put(name, Thing::Symlink(rng.pick(&NAMES).to_string())),
                2 | 3 => self.remove(name),
                // A few contents come back, whose chunks a sweep may have deleted.
                4 => self.put(name, Thing::File(noise(rng.below(5), 3000))),
                5 => self.put(
                    name,
                    Thing::File(noise(rng.next(), 150_000 + rng.below(200_000) as usize)),
                ),
                6 => self.put(name, Thing::File(vec![b'x'; rng.below(129) as usize])),
                _ => self.put(
                    name,
                    Thing::File(noise(rng.next(), 130 + rng.below(4000) as usize)),
                ),
            }
        }
    }

    /// Puts a thing at a path and replaces the old one; creates the directories above it.
    pub fn put(&mut self, path: &str, thing: Thing) {
        let above: Vec<String> = path
            .match_indices('/')
            .map(|(at, _)| path[..at].to_owned())
            .collect();
        for directory in above {
            if self.things.get(&directory) != Some(&Thing::Directory) {
                self.put(&directory, Thing::Directory);
            }
        }

        if self.things.get(path) == Some(&Thing::Directory) && thing == Thing::Directory {
            return;
        }

        let target = self.root.join(path);
        let in_place = matches!(
            (self.things.get(path), &thing),
            (Some(Thing::File(_)), Thing::File(_))
        );
        if !in_place {
            self.remove(path);
        }

        match &thing {
            Thing::File(bytes) => fs::write(&target, bytes).expect("writes"),
            Thing::Directory => fs::create_dir(&target).expect("makes"),
            Thing::Symlink(to) => symlink(to, &target).expect("links"),
        }

        if !matches!(thing, Thing::Symlink(_)) {
            self.touch(&target);
        }
        self.things.insert(path.to_owned(), thing);
        self.touch_parent(&target);
    }

    /// Removes the thing at a path and everything below it.
    pub fn remove(&mut self, path: &str) {
        let Some(old) = self.things.remove(path) else {
            return;
        };
        let target = self.root.join(path);
        if old == Thing::Directory {
            fs::remove_dir_all(&target).expect("removes");
            let below = format!("{path}/");
            self.things.retain(|other, _| !other.starts_with(&below));
        } else {
            fs::remove_file(&target).expect("removes");
        }
        self.touch_parent(&target);
    }

    /// Adds or removes files named by the SHA-256 of their bytes, as in an immutable source.
    pub fn edit_blocks(&mut self, rng: &mut Rng) {
        for _ in 0..1 + rng.below(3) {
            let files: Vec<String> = self
                .things
                .iter()
                .filter(|(_, thing)| **thing != Thing::Directory)
                .map(|(path, _)| path.clone())
                .collect();
            if rng.below(3) == 0 && !files.is_empty() {
                self.remove(&rng.pick(&files).clone());
            } else {
                let bytes = noise(rng.below(40), 500);
                let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
                let name = hex::encode(hash.as_ref());
                let path = format!("{}/{name}", &name[..1]);
                if !self.things.contains_key(&path) {
                    self.put(&path, Thing::File(bytes));
                }
            }
        }
    }

    fn touch_parent(&mut self, target: &Path) {
        let parent = target.parent().expect("below the root").to_owned();
        self.touch(&parent);
    }

    fn touch(&mut self, target: &Path) {
        self.stamp += 1;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000 + self.stamp);
        fs::File::open(target)
            .and_then(|file| file.set_modified(time))
            .expect("sets the time");
    }
}
