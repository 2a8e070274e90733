//! Maps an entry's owner to local user and group numbers.

use std::collections::HashMap;

use rustix::fs::{Mode, OFlags};

use crate::types::Owner;

/// Limit of the bytes read from `/etc/passwd` and `/etc/group`; later names are not mapped.
const NAMES_FILE_BYTES_MAX: usize = 16 << 20;

/// How owners are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnerPolicy {
    /// The local ids of the entry's user and group names, from `/etc/passwd` and `/etc/group`. The
    /// entry's numbers are used if a name is empty or unknown here. Number 0 stays 0 regardless of
    /// its name. A restore uses [`Numeric`](Self::Numeric) for sources that record owners only as
    /// numbers.
    #[default]
    Names,
    /// The entry's numbers.
    Numeric,
    /// Owners are not set: new paths belong to the restoring user.
    Keep,
}

/// How metadata is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaPolicy {
    pub owner: OwnerPolicy,
    /// True if the effective user is root. For an ordinary user, own directories are made writable
    /// during the restore, and the mode is checked for bits that the kernel drops silently.
    pub is_root: bool,
}

impl MetaPolicy {
    /// Returns the policy for the effective user of this thread.
    pub fn of_this_user(owner: OwnerPolicy) -> Self {
        Self {
            owner,
            is_root: rustix::process::geteuid().is_root(),
        }
    }
}

/// The policy with the machine's names.
#[derive(Debug)]
pub(super) struct LocalOwners {
    policy: OwnerPolicy,
    users: HashMap<Vec<u8>, u32>,
    groups: HashMap<Vec<u8>, u32>,
}

impl LocalOwners {
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

    /// Returns true if owners are set at all.
    pub(super) fn are_set(&self) -> bool {
        self.policy != OwnerPolicy::Keep
    }

    /// Returns the user and group number that the entry's owner has on this machine.
    pub(super) fn local_ids(&self, owner: &Owner) -> (u32, u32) {
        (
            local_id(&self.users, owner.uid, &owner.user),
            local_id(&self.groups, owner.gid, &owner.group),
        )
    }
}

fn local_id(names: &HashMap<Vec<u8>, u32>, number: u32, name: &[u8]) -> u32 {
    // A file of root's must not go to another user because root has another name here, and vice
    // versa.
    match names.get(name) {
        Some(&local) if number != 0 && local != 0 => local,
        _ => number,
    }
}

/// Reads names and numbers from a file in the format of `passwd(5)`. Returns an empty map if it
/// cannot be read; then numbers are used.
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
            // As with getpwnam, the first line of a name counts.
            names.entry(name.to_vec()).or_insert(number);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(policy: OwnerPolicy) -> LocalOwners {
        LocalOwners {
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
        let owners = LocalOwners::load(OwnerPolicy::Names);
        assert_eq!(owners.users.get(b"root".as_slice()), Some(&0));
        assert!(LocalOwners::load(OwnerPolicy::Numeric).users.is_empty());
    }
}
