//! The part of POSIX ACLs that is needed to write them safely: attribute names, and the owning
//! group's rights.

/// The attribute that holds a path's own ACL.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute that holds the ACL which new paths in a directory inherit.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Version number before the attribute's entries (`linux/posix_acl_xattr.h`).
const VERSION: u32 = 2;
/// Tag of the owning group's entry.
const TAG_GROUP_OBJ: u16 = 0x04;

/// Returns the owning group's rights (0–7) in an ACL attribute: version (4 bytes), then tag (2),
/// rights (2), id (4) for each entry, little-endian. `None` if the value is not an ACL.
///
/// A path with an ACL shows the ACL's mask as its mode's group bits. So if the ACL cannot be set,
/// the mode alone would give the owning group too many rights.
pub(super) fn owning_group_rights(value: &[u8]) -> Option<u16> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION {
        return None;
    }
    entries.chunks_exact(8).find_map(|entry| {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        (tag == TAG_GROUP_OBJ).then(|| u16::from_le_bytes([entry[2], entry[3]]) & 7)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dest::testing::acl_value;

    #[test]
    fn the_owning_groups_rights_are_found() {
        assert_eq!(owning_group_rights(&acl_value(1234)), Some(4));
        assert_eq!(owning_group_rights(b""), None);
        assert_eq!(owning_group_rights(&[1, 0, 0, 0]), None);
        assert_eq!(owning_group_rights(&[2, 0, 0, 0, 4, 0, 7]), None);
    }
}
