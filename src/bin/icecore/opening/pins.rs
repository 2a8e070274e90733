//! Pins: the repository that each address had at first use, recorded in the state directory, one
//! file per address.
//!
//! A store states which repository it holds in a file that anyone with write access to the store
//! can replace. Therefore the id found at first use is recorded here. Another id at the same
//! address is refused until the user accepts it. Pins are not secret, and losing them loses no
//! data: the next use creates them again.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use icecore::store::StoreLocation;
use icecore::sys::{ExistingFile, PathError, StateDir};
use icecore::types::{RepoId, hex};
use serde::{Deserialize, Serialize};

/// Name of the directory of pins in the state directory.
const DIRECTORY: &str = "repositories";
/// Longest pin file that is read. A path has at most 4 KiB, which JSON escapes and hex digits
/// multiply.
const FILE_BYTES_MAX: usize = 64 << 10;
/// Maximum number of links in one path, as in the kernel.
const LINKS_MAX: usize = 40;

/// One address of a repository: a path without `.` and repeated slashes, or a remote location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinAddress(Vec<u8>);

/// An address and its record in the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedPin {
    pub address: PinAddress,
    pub known: KnownRepository,
}

/// The repository recorded for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    pub repository: RepoId,
    /// False if the repository opens without a passphrase and the user confirmed that.
    pub sealed: bool,
}

/// The result of looking up an address in the state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownRepository {
    Nothing,
    Pinned(Pin),
    /// The file is unusable, for this reason. It is set aside before another takes its place.
    Damaged(String),
    /// The file cannot be read now, for this reason. It is not replaced.
    Unreadable(String),
}

/// The contents of a pin file.
#[derive(Serialize, Deserialize)]
struct PinRecord {
    /// For people, and as a check: the file name is derived from it.
    address: String,
    /// The address's bytes in hex if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address_hex: Option<String>,
    /// A hash of the other fields. Absent in pins of the first versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check: Option<String>,
    passphrase: bool,
    repository: String,
}

impl PinAddress {
    /// Returns the address of a location. Links of a local path are followed, even if their target
    /// does not exist at the moment: an unmounted disk has the same address as when it is mounted.
    pub fn of(location: &StoreLocation) -> io::Result<Self> {
        match location {
            StoreLocation::Local(path) => Ok(Self::of_path(resolved(path)?)),
            remote => Ok(Self(remote.to_string().into_bytes())),
        }
    }

    /// Returns every address that leads to a location: the path as typed, the path after each link
    /// on the way, and last the address of [`PinAddress::of`]. A link can be set to another target, so
    /// the final path alone does not identify the repository that the user means.
    pub fn all_of(location: &StoreLocation) -> io::Result<Vec<Self>> {
        match location {
            StoreLocation::Local(path) => {
                Ok(spellings(path)?.into_iter().map(Self::of_path).collect())
            }
            remote => Ok(vec![Self(remote.to_string().into_bytes())]),
        }
    }

    fn of_path(path: PathBuf) -> Self {
        Self(path.into_os_string().into_vec())
    }

    fn file_name(&self) -> String {
        format!("{}.json", &blake3::hash(&self.0).to_hex()[..32])
    }
}

impl fmt::Display for PinAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl RememberedPin {
    /// Looks up each of these addresses.
    pub fn load(state: Option<&StateDir>, addresses: Vec<PinAddress>) -> Vec<Self> {
        let with_known = |address| {
            let known = state.map_or(KnownRepository::Nothing, |state| Pin::load(state, &address));
            Self { address, known }
        };
        addresses.into_iter().map(with_known).collect()
    }

    /// Returns the pin, if there is one.
    pub fn pin(&self) -> Option<Pin> {
        match self.known {
            KnownRepository::Pinned(pin) => Some(pin),
            _ => None,
        }
    }
}

impl Pin {
    /// Looks up an address.
    pub fn load(state: &StateDir, address: &PinAddress) -> KnownRepository {
        let name = address.file_name();
        let read = match existing(state) {
            Ok(Some(pins)) => pins.read(&name, FILE_BYTES_MAX),
            Ok(None) => return KnownRepository::Nothing,
            Err(error) => Err(error),
        };
        match read {
            Ok(None) => KnownRepository::Nothing,
            Ok(Some(bytes)) => match Self::decode(&bytes, address) {
                Ok(pin) => KnownRepository::Pinned(pin),
                Err(why) => KnownRepository::Damaged(why),
            },
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                KnownRepository::Damaged("the record is too long".to_owned())
            }
            Err(error) => KnownRepository::Unreadable(format!("{error}: {}", error.source)),
        }
    }

    /// Records this pin for an address, durably. `before` is the result of [`Pin::load`]; a damaged
    /// file is set aside.
    ///
    /// # Errors
    /// `AlreadyExists` if nothing was known and another process has pinned the address in the
    /// meantime.
    pub fn store(
        self,
        state: &StateDir,
        address: &PinAddress,
        before: &KnownRepository,
    ) -> Result<(), PathError> {
        let pins = state.sub(DIRECTORY)?;
        let name = address.file_name();
        let existing = match before {
            KnownRepository::Pinned(_) => ExistingFile::Replace,
            KnownRepository::Damaged(_) => {
                pins.set_aside(&name)?;
                ExistingFile::Refuse
            }
            KnownRepository::Nothing | KnownRepository::Unreadable(_) => ExistingFile::Refuse,
        };
        pins.write(&name, &self.encode(address), existing)
    }

    fn encode(self, address: &PinAddress) -> Vec<u8> {
        let text = std::str::from_utf8(&address.0);
        let record = PinRecord {
            address: address.to_string(),
            address_hex: text.is_err().then(|| hex::encode(&address.0)),
            check: Some(self.check(address)),
            passphrase: self.sealed,
            repository: self.repository.to_string(),
        };
        let mut bytes = serde_json::to_vec_pretty(&record).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    fn decode(bytes: &[u8], address: &PinAddress) -> Result<Self, String> {
        let record: PinRecord = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let same = match &record.address_hex {
            Some(digits) => *digits == hex::encode(&address.0),
            None => record.address.as_bytes() == address.0,
        };
        if !same {
            return Err("the record is for another address".to_owned());
        }
        let repository = record
            .repository
            .parse()
            .map_err(|e| format!("invalid repository id: {e}"))?;
        let pin = Self {
            repository,
            sealed: record.passphrase,
        };
        // Without this check, a flipped bit of the id would mean another repository, and every
        // command would refuse this one.
        if record
            .check
            .is_some_and(|check| check != pin.check(address))
        {
            return Err("the record's checksum does not match".to_owned());
        }
        Ok(pin)
    }

    /// Returns a hash of the pin, which detects damage. It is no protection against an attacker
    /// with write access to the file.
    fn check(self, address: &PinAddress) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.repository.to_string().as_bytes());
        hasher.update(&[u8::from(self.sealed)]);
        hasher.update(&address.0);
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

/// Opens the directory of pins if it exists. Reading creates nothing.
fn existing(state: &StateDir) -> Result<Option<StateDir>, PathError> {
    match state.existing_sub(DIRECTORY) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the absolute path without `.`, `..` and links. Components that do not exist are kept as
/// written.
pub fn resolved(path: &Path) -> io::Result<PathBuf> {
    let mut spellings = spellings(path)?;
    Ok(spellings.pop().unwrap_or_default())
}

/// Returns the absolute spellings of a path, one before each link that is followed; the last one is
/// [`resolved`]. A `..` after a link stays in a spelling, because its meaning depends on the link.
/// Links of `/proc` name an open object of a process and not a place, so a path through one has
/// only the resolved spelling.
fn spellings(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    push_components(&mut left, &std::path::absolute(path)?);

    let mut found = Vec::new();
    let mut is_lasting = true;
    let mut out = PathBuf::from("/");
    while let Some(part) = left.pop() {
        if part == OsStr::from_bytes(b"..") {
            out.pop();
            continue;
        }
        out.push(&part);
        let Ok(to) = fs::read_link(&out) else {
            continue;
        };
        if found.len() == LINKS_MAX {
            return Err(io::Error::other("too many symbolic links"));
        }

        // Record the spelling before this link is followed.
        is_lasting &= !out.starts_with("/proc");
        let rest: PathBuf = left.iter().rev().collect();
        found.push(if rest.as_os_str().is_empty() {
            out.clone()
        } else {
            out.join(rest)
        });
        out.pop();
        if to.is_absolute() {
            out = PathBuf::from("/");
        }
        push_components(&mut left, &to);
    }

    if !is_lasting {
        found.clear();
    }
    found.push(out);
    Ok(found)
}

/// Pushes a path's components onto a stack, the first one on top.
fn push_components(stack: &mut Vec<OsString>, path: &Path) {
    let wanted = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    stack.extend(wanted);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    const ONE: RepoId = RepoId::new([1; 16]);
    const TWO: RepoId = RepoId::new([2; 16]);

    fn address(path: impl AsRef<OsStr>) -> PinAddress {
        PinAddress::of(&StoreLocation::Local(path.as_ref().into())).expect("resolves")
    }

    #[test]
    fn a_pin_is_kept_moved_and_kept_apart_from_others() {
        let root = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(root.path()).expect("opens");
        let here = address("/srv/a");
        let there = address("/srv/b");
        assert_eq!(Pin::load(&state, &here), KnownRepository::Nothing);
        assert!(
            !root.path().join(DIRECTORY).exists(),
            "reading creates nothing"
        );

        let pin = Pin {
            repository: ONE,
            sealed: true,
        };
        pin.store(&state, &here, &KnownRepository::Nothing)
            .expect("stored");
        assert_eq!(Pin::load(&state, &here), KnownRepository::Pinned(pin));
        assert_eq!(Pin::load(&state, &there), KnownRepository::Nothing);

        let other = Pin {
            repository: TWO,
            sealed: false,
        };
        let raced = other
            .store(&state, &here, &KnownRepository::Nothing)
            .expect_err("another process was first");
        assert_eq!(raced.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(Pin::load(&state, &here), KnownRepository::Pinned(pin));

        other
            .store(&state, &here, &KnownRepository::Pinned(pin))
            .expect("moved");
        assert_eq!(Pin::load(&state, &here), KnownRepository::Pinned(other));
    }

    #[test]
    fn an_address_that_is_not_utf8_is_itself() {
        let root = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(root.path()).expect("opens");
        let names = [
            &b"/srv/caf\xe9"[..],
            b"/srv/caf\xe8",
            "/srv/caf\u{fffd}".as_bytes(),
        ];
        for (number, name) in names.into_iter().enumerate() {
            let pin = Pin {
                repository: RepoId::new([number as u8; 16]),
                sealed: true,
            };
            pin.store(
                &state,
                &address(OsStr::from_bytes(name)),
                &KnownRepository::Nothing,
            )
            .expect("stored");
        }
        for (number, name) in names.into_iter().enumerate() {
            let pin = Pin {
                repository: RepoId::new([number as u8; 16]),
                sealed: true,
            };
            assert_eq!(
                Pin::load(&state, &address(OsStr::from_bytes(name))),
                KnownRepository::Pinned(pin)
            );
        }
    }

    #[test]
    fn a_damaged_pin_is_no_pin_and_is_not_lost() {
        let root = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(root.path()).expect("opens");
        let here = address("/srv/a");
        let pin = Pin {
            repository: ONE,
            sealed: true,
        };

        let file = root.path().join(DIRECTORY).join(here.file_name());
        let elsewhere = String::from_utf8(pin.encode(&address("/srv/b"))).expect("UTF-8");
        let long = "x".repeat(FILE_BYTES_MAX + 1);
        let good = String::from_utf8(pin.encode(&here)).expect("UTF-8");
        let cut = &good[..good.len() / 2];

        for (number, junk) in ["", "{}", "\0\0", cut, &elsewhere, &long]
            .into_iter()
            .enumerate()
        {
            pin.store(&state, &here, &Pin::load(&state, &here))
                .expect("stored");
            fs::write(&file, junk).expect("damaged");
            let known = Pin::load(&state, &here);
            assert!(
                matches!(known, KnownRepository::Damaged(_)),
                "{junk:.20}: {known:?}"
            );
            pin.store(&state, &here, &known).expect("stored again");
            assert_eq!(Pin::load(&state, &here), KnownRepository::Pinned(pin));
            let aside = fs::read_dir(file.parent().expect("a parent"))
                .expect("list")
                .count()
                - 1;
            assert_eq!(aside, number + 1, "each damaged file is kept");
        }
    }

    /// Regression test: one flipped bit of the id named another repository, so every command
    /// refused this one.
    #[test]
    fn no_flipped_bit_of_a_pin_means_another_repository() {
        let root = tempfile::tempdir().expect("a directory");
        let here = address(root.path());
        for pin in [
            Pin {
                repository: ONE,
                sealed: true,
            },
            Pin {
                repository: TWO,
                sealed: false,
            },
        ] {
            let whole = pin.encode(&here);
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    Pin::decode(&flipped, &here).map_or(true, |read| read == pin),
                    "bit {bit}"
                );
            }
        }

        let mut old: serde_json::Value = serde_json::from_slice(
            &Pin {
                repository: ONE,
                sealed: true,
            }
            .encode(&here),
        )
        .expect("JSON");
        old.as_object_mut().expect("an object").remove("check");
        let read = Pin::decode(old.to_string().as_bytes(), &here);
        assert_eq!(
            read,
            Ok(Pin {
                repository: ONE,
                sealed: true
            }),
            "one without a check is read"
        );
    }

    #[test]
    fn links_are_resolved_even_if_their_target_is_missing() {
        let root = tempfile::tempdir().expect("a directory");
        let top = root.path().canonicalize().expect("there");
        fs::create_dir(top.join("disk")).expect("a directory");
        symlink("disk", top.join("relative")).expect("a link");
        symlink(top.join("gone/mount"), top.join("dangling")).expect("a link");
        symlink("loop", top.join("loop")).expect("a link");
        for (written, meant) in [
            ("disk/repo", "disk/repo"),
            ("disk//./repo/", "disk/repo"),
            ("relative/repo", "disk/repo"),
            ("relative/../relative/x/../repo", "disk/repo"),
            ("dangling/repo", "gone/mount/repo"),
            ("dangling/../repo", "gone/repo"),
        ] {
            assert_eq!(
                resolved(&top.join(written)).expect(written),
                top.join(meant),
                "{written}"
            );
        }
        assert!(resolved(&top.join("loop/repo")).is_err());
        let remote = StoreLocation::parse("me@Host:/srv/repo/").expect("a location");
        assert_eq!(
            PinAddress::of(&remote).expect("remote").to_string(),
            "sftp://me@host/srv/repo"
        );
    }

    #[test]
    fn every_link_on_the_way_gives_an_address() {
        let root = tempfile::tempdir().expect("a directory");
        let top = root.path().canonicalize().expect("there");
        fs::create_dir(top.join("disk")).expect("a directory");
        symlink("current/repo", top.join("backup")).expect("a link");
        symlink(top.join("disk"), top.join("current")).expect("a link");

        for (written, expected) in [
            ("disk//./repo/", &["disk/repo"][..]),
            ("backup/.", &["backup", "current/repo", "disk/repo"]),
            (
                "disk/../backup/x",
                &["backup/x", "current/repo/x", "disk/repo/x"],
            ),
            ("current/../repo", &["current/../repo", "repo"]),
        ] {
            let expected: Vec<PathBuf> = expected.iter().map(|path| top.join(path)).collect();
            assert_eq!(
                spellings(&top.join(written)).expect(written),
                expected,
                "{written}"
            );
        }

        let held = PathBuf::from("/proc/self/cwd/repo");
        let cwd = std::env::current_dir()
            .expect("there")
            .canonicalize()
            .expect("there");
        assert_eq!(
            spellings(&held).expect("resolves"),
            [cwd.join("repo")],
            "a process's own link names no place"
        );
    }

    proptest! {
        /// In a random tree of directories and links, an existing path resolves as in the kernel,
        /// and a missing one resolves to one address however it is spelled.
        #[test]
        fn resolving_agrees_with_the_kernel(
            links in proptest::collection::vec((0_usize..6, "(\\.\\./|[a-c]/){0,3}[a-c]"), 0..8),
            words in proptest::collection::vec("(\\.|\\.\\.|[a-c]|new)", 1..8),
        ) {
            let root = tempfile::tempdir().expect("a directory");
            let top = root.path().canonicalize().expect("there");
            let places = ["a", "b", "a/a", "a/b", "b/a", "a/a/c"];
            for place in places {
                fs::create_dir_all(top.join(place)).expect("a directory");
            }
            for (number, (place, to)) in links.iter().enumerate() {
                let name = ["c", "b", "a"][number % 3];
                // A name that is already taken stays as it is.
                let _ = symlink(to, top.join(places[*place]).join(name));
            }

            let written = top.join(words.join("/"));
            let found = resolved(&written);
            if let Ok(found) = &found {
                for spelling in spellings(&written).expect("it resolved") {
                    prop_assert_eq!(&resolved(&spelling).expect("the same"), found, "{}", spelling.display());
                }
            }

            match written.canonicalize() {
                Ok(kernel) => prop_assert_eq!(found.expect("it is there"), kernel),
                Err(_) => {
                    let Ok(found) = found else { return Ok(()) };
                    prop_assert_eq!(&resolved(&found).expect("again"), &found, "a resolved path stays");
                    let spelled = format!("{}//./{}/.", top.display(), words.join("/./"));
                    prop_assert_eq!(resolved(Path::new(&spelled)).expect("the same"), found);
                }
            }
        }
    }
}
