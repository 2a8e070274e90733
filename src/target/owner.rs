//! Which local numbers an entry's owner gets.

use std::collections::HashMap;

use rustix::fs::{Mode, OFlags};

use crate::types::Owner;

/// `/etc/passwd` and `/etc/group` are read up to this many bytes; names beyond are not mapped.
const NAMES_FILE_BYTES_MAX: usize = 16 << 20;

/// What becomes of owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnerPolicy {
    /// The local ids of the entry's user and group names, as `/etc/passwd` and `/etc/group` have
    /// them; the entry's numbers where a name is empty or unknown here. Number 0 stays 0 whatever
    /// it was called. A restore takes [`Numeric`](Self::Numeric) for sources that say that their
    /// owners are numbers alone.
    #[default]
    Names,
    /// The entry's numbers.
    Numeric,
    /// Owners are not set: new paths belong to whoever restores.
    Keep,
}

/// How metadata is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaPolicy {
    pub owner: OwnerPolicy,
    /// True if the effective user is root. An ordinary user's own directories are made writable
    /// while they are written, and bits that the kernel drops silently are looked for.
    pub is_root: bool,
}

impl MetaPolicy {
    /// The policy for the effective user of this thread.
    pub fn of_this_user(owner: OwnerPolicy) -> Self {
        Self {
            owner,
            is_root: rustix::process::geteuid().is_root(),
        }
    }
}

/// The policy with the machine's names.
#[derive(Debug)]
pub(super) struct Owners {
    policy: OwnerPolicy,
    users: HashMap<Vec<u8>, u32>,
    groups: HashMap<Vec<u8>, u32>,
}

impl Owners {
    pub(super) fn load(policy: OwnerPolicy) -> Self {
        let (users, groups) = match policy {
            OwnerPolicy::Names => (read_names("/etc/passwd"), read_names("/etc/group")),
            OwnerPolicy::Numeric | OwnerPolicy::Keep => Default::default(),
        };
        Self {
            policy,
            users,
            groups,
        }
    }

    /// True if owners are to be set at all.
    pub(super) fn are_set(&self) -> bool {
        self.policy != OwnerPolicy::Keep
    }

    /// The user and group number that the entry's owner has on this machine.
    pub(super) fn local_ids(&self, owner: &Owner) -> (u32, u32) {
        (
            local_id(&self.users, owner.uid, &owner.user),
            local_id(&self.groups, owner.gid, &owner.group),
        )
    }
}

fn local_id(names: &HashMap<Vec<u8>, u32>, number: u32, name: &[u8]) -> u32 {
    // A file of root's must not become another's because root has another name here, nor the other
    // way round.
    match names.get(name) {
        Some(&local) if number != 0 && local != 0 => local,
        _ => number,
    }
}

/// Names and numbers of a file in the form of `passwd(5)`; none if it cannot be read: numbers are
/// used then.
fn read_names(path: &str) -> HashMap<Vec<u8>, u32> {
    let mut text = Vec::new();
    if let Ok(fd) = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        let mut block = [0; 8192];
        while text.len() < NAMES_FILE_BYTES_MAX {
            match rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut block)) {
                Ok(count) if count > 0 => text.extend_from_slice(&block[..count]),
                _ => break,
            }
        }
    }
    parse_names(&text)
}

fn parse_names(text: &[u8]) -> HashMap<Vec<u8>, u32> {
    let mut names = HashMap::new();
    for line in text.split(|&b| b == b'\n') {
        let mut fields = line.split(|&b| b == b':');
        let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let number = std::str::from_utf8(number)
            .ok()
            .and_then(|digits| digits.parse().ok());
        if let (Some(number), false) = (number, name.is_empty()) {
            // As getpwnam: the first line of a name counts.
            names.entry(name.to_vec()).or_insert(number);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(policy: OwnerPolicy) -> Owners {
        Owners {
            policy,
            users: parse_names(
                b"root:x:0:0::/root:/bin/sh\nann:x:1001:5::/:\nann:x:7:7\n:x:9:9\nbad:x:y\n",
            ),
            groups: parse_names(b"wheel:x:0:\nstaff:x:50:ann\n"),
        }
    }

    fn owner(uid: u32, gid: u32, user: &str, group: &str) -> Owner {
        Owner {
            uid,
            gid,
            user: user.into(),
            group: group.into(),
        }
    }

    #[test]
    fn names_map_to_local_numbers_and_fall_back_to_the_entrys() {
        let owners = owners(OwnerPolicy::Names);
        assert_eq!(
            owners.local_ids(&owner(500, 500, "ann", "staff")),
            (1001, 50)
        );
        assert_eq!(owners.local_ids(&owner(500, 501, "bob", "")), (500, 501));
        assert_eq!(owners.local_ids(&owner(500, 501, "bad", "")), (500, 501));
    }

    #[test]
    fn root_is_never_mapped() {
        let owners = owners(OwnerPolicy::Names);
        assert_eq!(owners.local_ids(&owner(0, 0, "ann", "staff")), (0, 0));
        assert_eq!(
            owners.local_ids(&owner(500, 501, "root", "wheel")),
            (500, 501)
        );
    }

    #[test]
    fn the_machines_own_names_are_read() {
        let owners = Owners::load(OwnerPolicy::Names);
        assert_eq!(owners.users.get(b"root".as_slice()), Some(&0));
        assert!(Owners::load(OwnerPolicy::Numeric).users.is_empty());
    }
}
