//! Tests of owners, modes, ACLs, attributes and times, set and refused.

use std::os::unix::fs::PermissionsExt;

use rustix::fs::OFlags;

use super::*;
use crate::dest::testing::{
    acl_value, as_ordinary_user, fixture, found, is_root, open, own_meta, path, plain, root_of,
};
use crate::dest::{DestDir, OwnerPolicy};

fn xattrs_of(dir: &DestDir, name: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let fd = rustix::fs::openat(
        dir.fd(),
        name,
        OFlags::RDONLY | OFlags::NOFOLLOW,
        Mode::empty(),
    )
    .expect("open");
    let handle = MetadataHandle::open(fd.as_fd());
    let names = handle.xattr_names().expect("names");
    let mut found: Vec<_> = names
        .split(|&b| b == 0)
        .filter(|name| is_managed(name))
        .map(|name| {
            let mut value = vec![0; XATTR_BYTES_MAX];
            let length = handle.xattr(name, &mut value).expect("a value");
            (name.to_vec(), value[..length].to_vec())
        })
        .collect();
    found.sort();
    found
}

fn refused(report: &MetaReport) -> Vec<(MetaPart, Errno)> {
    report
        .refused
        .iter()
        .map(|r| (r.what.clone(), Errno::from_raw_os_error(r.errno)))
        .collect()
}

#[test]
fn attributes_and_acls_are_set() {
    let (_directory, tree) = fixture();
    let root = root_of(&tree);
    let meta = own_meta(0o770);
    let acl = acl_value(4321);
    let long = vec![7; 3000];
    let xattrs: [(&[u8], &[u8]); 4] = [
        (b"system.posix_acl_access", &acl),
        (b"user.empty", b""),
        (b"user.long", &long),
        (b"user.\xff", b"\0\x01"),
    ];

    let to_set = MetaToSet {
        meta: &meta,
        xattrs: &xattrs,
    };
    assert_eq!(
        refused(&root.write_file(b"f", b"x", &to_set).expect("a file")),
        []
    );

    let expected = xattrs.map(|(name, value)| (name.to_vec(), value.to_vec()));
    assert_eq!(xattrs_of(&root, b"f"), expected);
    assert_eq!(found(&root, b"f").mode, 0o770);

    // Missing attributes are removed, and different ones are changed.
    let fewer: [(&[u8], &[u8]); 1] = [(b"user.empty", b"no more")];
    let to_set = MetaToSet {
        meta: &meta,
        xattrs: &fewer,
    };
    assert!(
        root.set_meta(b"f", EntryKind::File, &to_set)
            .expect("set")
            .is_clean()
    );

    assert_eq!(
        xattrs_of(&root, b"f"),
        [(b"user.empty".to_vec(), b"no more".to_vec())]
    );
    assert_eq!(found(&root, b"f").mode, 0o770);
}

#[test]
fn an_acl_inherited_from_a_default_acl_is_removed() {
    let (_directory, tree) = fixture();
    let root = root_of(&tree);
    let acl = acl_value(4321);
    let (directory, _) = tree.make_directory(&path("d")).expect("a directory");
    // The handle remembers that it gives none, until the directory gets one.
    assert!(!directory.gives_acl());
    let meta = own_meta(0o750);
    let with_default: [(&[u8], &[u8]); 1] = [(acl::DEFAULT, &acl)];
    let to_set = MetaToSet {
        meta: &meta,
        xattrs: &with_default,
    };
    assert!(
        directory
            .set_directory_meta(&to_set)
            .expect("set")
            .is_clean()
    );
    // Check that it does inherit.
    rustix::fs::mkdirat(directory.fd(), c"control", Mode::RWXU).expect("a directory");
    assert_eq!(xattrs_of(&directory, b"control").len(), 2);

    let meta = own_meta(0o644);
    assert!(
        directory
            .write_file(b"f", b"x", &plain(&meta))
            .expect("a file")
            .is_clean()
    );
    assert_eq!(xattrs_of(&directory, b"f"), []);
    assert_eq!(found(&directory, b"f").mode, 0o644);
    assert!(
        directory
            .fifo(b"p", &plain(&meta))
            .expect("a pipe")
            .is_clean()
    );
    assert_eq!(found(&directory, b"p").mode, 0o644);
    let fd = crate::dest::dir::open_path(directory.fd(), b"p").expect("a handle");
    assert_eq!(
        MetadataHandle::path(fd.as_fd())
            .xattr_names()
            .expect("names"),
        b""
    );
    let (inner, _) = directory.make_directory(b"inner").expect("a directory");
    assert_eq!(xattrs_of(&directory, b"inner"), []);
    assert!(!inner.gives_acl());

    // Setting the metadata of the directory itself removes it.
    assert!(
        directory
            .set_directory_meta(&plain(&own_meta(0o755)))
            .expect("set")
            .is_clean()
    );
    assert_eq!(xattrs_of(&root, b"d"), []);
    assert_eq!(found(&root, b"d").mode, 0o755);
}

#[test]
fn capabilities_and_setuid_survive_a_change_of_owner() {
    if !is_root() {
        return;
    }
    let (_directory, tree) = fixture();
    let root = root_of(&tree);
    let mut meta = own_meta(0o6755);
    (meta.owner.uid, meta.owner.gid) = (1000, 1000);

    // cap_net_raw=ep, revision 2 (linux/capability.h).
    let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
    capability.extend_from_slice(&(1_u32 << 13).to_le_bytes());
    capability.extend_from_slice(&[0; 12]);
    let xattrs: [(&[u8], &[u8]); 2] = [(b"security.capability", &capability), (b"trusted.x", b"y")];
    let to_set = MetaToSet {
        meta: &meta,
        xattrs: &xattrs,
    };

    assert_eq!(
        refused(&root.write_file(b"f", b"x", &to_set).expect("a file")),
        []
    );
    let expected = xattrs.map(|(name, value)| (name.to_vec(), value.to_vec()));
    assert_eq!(xattrs_of(&root, b"f"), expected);

    (meta.owner.uid, meta.owner.gid) = (1001, 1001);
    let to_set = MetaToSet {
        meta: &meta,
        xattrs: &xattrs,
    };
    assert_eq!(
        refused(&root.set_meta(b"f", EntryKind::File, &to_set).expect("set")),
        []
    );
    assert_eq!(xattrs_of(&root, b"f"), expected);
    let found = found(&root, b"f");
    assert_eq!((found.mode, found.uid, found.gid), (0o6755, 1001, 1001));
}

#[test]
fn times_before_1970_and_after_2038_and_beyond() {
    let (_directory, tree) = fixture();
    let root = root_of(&tree);
    let mut meta = own_meta(0o644);
    for (seconds, nanos) in [
        (-1, 1),
        (-2_000_000_000, 999_999_999),
        (0, 0),
        (5_000_000_000, 1),
    ] {
        meta.mtime = Timestamp::new(seconds, nanos).expect("a time");
        assert_eq!(
            refused(&root.write_file(b"f", b"", &plain(&meta)).expect("a file")),
            []
        );
        assert_eq!(found(&root, b"f").mtime, meta.mtime);
    }
    // No file system of Linux can store this time: it is reported, and the file exists.
    meta.mtime = Timestamp::from_seconds(i64::MAX);
    let report = root
        .write_file(b"far", b"x", &plain(&meta))
        .expect("a file");
    if found(&root, b"far").mtime != meta.mtime {
        assert_eq!(refused(&report), [(MetaPart::Times, Errno::OVERFLOW)]);
    }
}

#[test]
fn directory_times_are_set_after_their_contents() {
    let (_directory, tree) = fixture();
    let (directory, _) = tree.make_directory(&path("d")).expect("a directory");
    let meta = own_meta(0o2750);
    let _ = directory
        .write_file(b"f", b"", &plain(&meta))
        .expect("a file");
    assert!(
        directory
            .set_directory_meta(&plain(&meta))
            .expect("set")
            .is_clean()
    );
    let found = found(&root_of(&tree), b"d");
    assert_eq!((found.mode, found.mtime), (0o2750, meta.mtime));
    // A directory with the setgid bit passes its group to new paths, which is corrected.
    assert!(
        directory
            .write_file(b"g", b"", &plain(&meta))
            .expect("a file")
            .is_clean()
    );
}

#[test]
fn an_equal_path_is_left_alone() {
    let (_directory, tree) = fixture();
    let root = root_of(&tree);
    let meta = own_meta(0o644);
    let _ = root.write_file(b"f", b"", &plain(&meta)).expect("a file");
    let changed = |dir: &DestDir| {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let mask = rustix::fs::StatxFlags::BASIC_STATS;
        let found = rustix::fs::statx(dir.fd(), b"f".as_slice(), flags, mask).expect("stat");
        (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec)
    };
    let before = changed(&root);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(
        root.set_meta(b"f", EntryKind::File, &plain(&meta))
            .expect("set")
            .is_clean()
    );
    assert_eq!(changed(&root), before);
}

#[test]
fn without_owners_no_program_runs_as_another() {
    if !is_root() {
        return;
    }
    let (directory, _) = fixture();
    let tree = open(directory.path(), OwnerPolicy::Keep);
    let root = root_of(&tree);
    let mut meta = own_meta(0o6755);
    (meta.owner.uid, meta.owner.gid) = (1000, 0);
    let report = root.write_file(b"f", b"x", &plain(&meta)).expect("a file");
    assert_eq!(refused(&report), [(MetaPart::Mode, Errno::PERM)]);
    let found = found(&root, b"f");
    assert_eq!(
        (found.mode, found.uid),
        (0o2755, 0),
        "setuid to root would be another's program as root"
    );
}

#[test]
fn an_owner_that_the_kernel_cannot_have_is_refused() {
    let (_directory, tree) = fixture();
    let mut meta = own_meta(0o4755);
    meta.owner.uid = u32::MAX;
    let report = root_of(&tree)
        .write_file(b"f", b"x", &plain(&meta))
        .expect("a file");
    assert_eq!(
        refused(&report),
        [
            (MetaPart::Owner, Errno::INVAL),
            (MetaPart::Mode, Errno::PERM)
        ]
    );
}

#[test]
fn changes_refused_to_an_ordinary_user_are_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777))
        .expect("open to all");
    as_ordinary_user(|| {
        let tree = open(directory.path(), OwnerPolicy::Numeric);
        let root = root_of(&tree);
        let own = own_meta(0o4755);
        assert_eq!(
            refused(&root.write_file(b"own", b"x", &plain(&own)).expect("a file")),
            []
        );
        assert_eq!(found(&root, b"own").mode, 0o4755);

        let mut other = own_meta(0o6755);
        (other.owner.uid, other.owner.gid) = (0, 0);
        let xattrs: [(&[u8], &[u8]); 2] = [(b"trusted.x", b"y"), (b"user.x", b"y")];
        let to_set = MetaToSet {
            meta: &other,
            xattrs: &xattrs,
        };
        let report = root
            .write_file(b"other", b"x", &to_set)
            .expect("a file all the same");
        let expected = [
            (MetaPart::Owner, Errno::PERM),
            (MetaPart::Mode, Errno::PERM),
            (MetaPart::Xattr(b"trusted.x".to_vec()), Errno::PERM),
        ];
        assert_eq!(refused(&report), expected);
        let found = found(&root, b"other");
        assert_eq!((found.mode, found.mtime), (0o755, other.mtime));
        assert_eq!(
            xattrs_of(&root, b"other"),
            [(b"user.x".to_vec(), b"y".to_vec())]
        );

        // A restore can write into a user's own directory that the user has locked.
        let (inner, _) = tree.make_directory(&path("locked")).expect("a directory");
        assert!(
            inner
                .set_directory_meta(&plain(&own_meta(0o100)))
                .expect("set")
                .is_clean()
        );
        let tree = open(directory.path(), OwnerPolicy::Numeric);
        let (inner, is_new) = tree
            .make_directory(&path("locked/below"))
            .expect("a directory");
        assert!(is_new);
        let _ = inner.write_file(b"f", b"", &plain(&own)).expect("a file");
    });
}

#[test]
fn a_refused_acl_gives_the_owning_group_no_more_than_it_had() {
    let (_directory, tree) = fixture();
    let root = root_of(&tree);
    let meta = own_meta(0o670);
    let _ = root.write_file(b"f", b"", &plain(&meta)).expect("a file");
    let fd = root.open_existing_file(b"f").expect("a file");
    let mut setter = MetadataSetter {
        rules: root.rules(),
        handle: &MetadataHandle::open(fd.as_fd()),
        kind: EntryKind::File,
        now: found(&root, b"f"),
        report: MetaReport::default(),
    };
    let uid = setter.now.uid;
    let gid = setter.now.gid;

    // The kernel refuses an ACL without a version.
    let refused: [(&[u8], &[u8]); 1] = [(acl::ACCESS, b"no acl")];
    let bits = setter.set_acl(MetadataBefore::Existing, &refused);
    setter.set_mode(0o670 & bits, uid, gid, false);
    assert_eq!(found(&root, b"f").mode, 0o600);
    assert_eq!(0o670 & bits_without_acl(&acl_value(4321)), 0o640);
    assert!(
        setter
            .report
            .has_refused(&MetaPart::Xattr(acl::ACCESS.to_vec()))
    );
}
