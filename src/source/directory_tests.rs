//! Tests of directories, listings, files and attributes on a real file system.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};

use rustix::fs::{XattrFlags, mkdirat, mkfifoat, setxattr};

use super::*;
use crate::source::listing::ListedName;
use crate::source::stat::StatKind;
use crate::types::Timestamp;

fn all_names(listing: &mut NameListing, batch: usize) -> Vec<ListedName> {
    let mut out = Vec::new();
    let mut all = Vec::new();
    while listing.next_batch(&mut out, batch).expect("a batch") > 0 {
        all.append(&mut out);
    }
    all
}

#[test]
fn names_come_sorted_from_memory_and_from_scratch_alike() {
    let dir = tempfile::tempdir().expect("a directory");
    let scratch = tempfile::tempdir().expect("a directory");

    let mut expected = BTreeSet::new();
    for i in 0..3000u32 {
        let name = format!("{:08x}", i.wrapping_mul(2_654_435_761));
        fs::write(dir.path().join(&name), b"").expect("written");
        expected.insert(name.into_bytes());
    }
    for odd in [&b"\xff\xfe"[..], b"a\nb", b"-x", b" ", b"a.b", b"a", b"..."] {
        fs::write(dir.path().join(OsStr::from_bytes(odd)), b"").expect("written");
        expected.insert(odd.to_vec());
    }
    fs::create_dir(dir.path().join("sub")).expect("made");
    expected.insert(b"sub".to_vec());

    let directory = SourceDir::open_root(dir.path()).expect("opened");
    let mut in_memory = directory.list(scratch.path(), 32 << 20).expect("listed");
    assert_eq!(in_memory.total(), expected.len() as u64);
    let names = all_names(&mut in_memory, 100);
    assert!(names.iter().map(|listed| &listed.name).eq(expected.iter()));
    let mut spilled = directory
        .clone()
        .list(scratch.path(), 20_000)
        .expect("listed");
    assert_eq!(
        all_names(&mut spilled, 7),
        names,
        "twice from one handle, sorted outside memory"
    );

    for listed in &names {
        let stat = directory.stat(&listed.name).expect("stat");
        assert_eq!(stat.inode, listed.inode);
        assert!(listed.kind_hint.is_none_or(|kind| kind == stat.kind));
    }

    let batch: Vec<&[u8]> = names.iter().map(|listed| listed.name.as_slice()).collect();
    let stats = directory.stat_many(&batch);
    assert!(
        stats
            .iter()
            .zip(&names)
            .all(|(stat, listed)| stat.as_ref().is_ok_and(|s| s.inode == listed.inode))
    );
    assert!(directory.stat_many(&["gone"])[0].is_err());
}

#[test]
fn a_scratch_directory_that_fails_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    (0..50).for_each(|i| fs::write(dir.path().join(format!("{i}")), b"").expect("written"));
    let directory = SourceDir::open_root(dir.path()).expect("opened");
    let error = directory
        .list(Path::new("/nonexistent"), 100)
        .err()
        .expect("no scratch");
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<PathError>());
    assert_eq!(inner.expect("a path error").path, Path::new("/nonexistent"));
}

#[test]
fn a_tree_deeper_than_any_path_is_walked_down_and_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = SourceDir::open_root(dir.path()).expect("opened");
    let name = [b'n'; 200];
    let mut here = root.clone();
    let mut ids = vec![root.id()];
    for _ in 0..60 {
        mkdirat(&here.inner.fd, name.as_slice(), Mode::RWXU).expect("made");
        here = here.open_child(&name).expect("opened");
        ids.push(here.id());
    }
    mkfifoat(&here.inner.fd, "end", Mode::RUSR).expect("made");
    assert_eq!(here.stat(b"end").expect("stat").kind, StatKind::Fifo);
    assert!(
        here.xattrs(b"end").expect("a name").unread.is_none(),
        "12 KB below the root"
    );
    assert_eq!(
        here.reopen_parent(root.id())
            .expect_err("not the root")
            .raw_os_error(),
        Some(116)
    );
    for &id in ids.iter().rev().skip(1) {
        here = here.reopen_parent(id).expect("the parent");
    }
    assert_eq!(here.stat_self().expect("stat").id(), root.id());
    // `remove_dir_all` of the test's directory works by handles too.
}

#[test]
fn stat_returns_all_metadata_and_follows_no_link() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("f"), b"12345").expect("written");
    fs::set_permissions(dir.path().join("f"), fs::Permissions::from_mode(0o6751)).expect("set");
    fs::hard_link(dir.path().join("f"), dir.path().join("g")).expect("linked");
    symlink("/nonexistent/target", dir.path().join("l")).expect("linked");

    let directory = SourceDir::open_root(dir.path()).expect("opened");
    let stat = directory.stat(b"f").expect("stat");
    let expected = fs::metadata(dir.path().join("f")).expect("stat");
    assert_eq!(
        (stat.kind, stat.mode, stat.size, stat.nlink),
        (StatKind::File, 0o6751, 5, 2)
    );
    assert_eq!(
        (stat.inode, stat.device, stat.uid),
        (expected.ino(), expected.dev(), expected.uid())
    );
    assert_eq!(
        Timestamp::new(expected.mtime(), expected.mtime_nsec() as u32),
        Some(stat.mtime)
    );
    assert_eq!(directory.mount_id(), stat.mount_id);

    let link = directory.stat(b"l").expect("stat");
    assert_eq!((link.kind, link.size), (StatKind::Symlink, 19));
    assert_eq!(
        directory.read_link(b"l").expect("read"),
        b"/nonexistent/target"
    );
    assert!(directory.open_file(b"l").is_err() && directory.open_child(b"l").is_err());
    for outside in [&b".."[..], b".", b"", b"a/b", b"/etc", b"a\0"] {
        assert!(directory.stat(outside).is_err() && directory.open_child(outside).is_err());
    }

    let null = SourceDir::open_root(Path::new("/dev"))
        .expect("opened")
        .stat(b"null")
        .expect("stat");
    assert_eq!(
        (null.kind, null.rdev.major, null.rdev.minor),
        (StatKind::Char, 1, 3)
    );
}

#[test]
fn only_regular_files_are_opened_and_nothing_blocks() {
    let dir = tempfile::tempdir().expect("a directory");
    let directory = SourceDir::open_root(dir.path()).expect("opened");
    mkfifoat(&directory.inner.fd, "fifo", Mode::RUSR).expect("made");
    assert_eq!(
        directory.open_file(b"fifo").expect_err("a FIFO").kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(
        directory.open_file(b"none").expect_err("nothing").kind(),
        io::ErrorKind::NotFound
    );
    assert_eq!(
        SourceDir::open_root(Path::new("/nonexistent"))
            .expect_err("nothing")
            .kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn holes_are_found_wherever_they_lie() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = fs::File::create(dir.path().join("f")).expect("made");
    let mib = 1u64 << 20;
    file.write_all_at(&[1; 4096], mib).expect("written");
    file.write_all_at(&[2; 4096], 5 * mib).expect("written");
    file.set_len(9 * mib).expect("set");

    let directory = SourceDir::open_root(dir.path()).expect("opened");
    let mut source = directory.open_file(b"f").expect("opened");
    source.advise_sequential();
    let mut at = 0;
    let mut data = 0;
    let mut found = Vec::new();
    while let Some(range) = source.next_data(at).expect("sought") {
        assert!(range.start >= at && range.end > range.start);
        at = range.end;
        data += range.end - range.start;
        found.push(range);
    }
    // A file system without holes returns the whole file as one range; then there is nothing to
    // compare.
    if source.opened_stat().may_have_holes() {
        assert_eq!(found.len(), 2);
        assert!(found[0].contains(&mib) && found[1].contains(&(5 * mib)) && data < mib);
    }

    assert_eq!(source.next_data(9 * mib).expect("the end"), None);
    assert_eq!(source.next_data(99 * mib).expect("past the end"), None);
    let mut all = Vec::new();
    source
        .read_to_end(&mut all)
        .expect("seeking does not disturb reading");
    assert_eq!(
        (all.len() as u64, all[mib as usize], all[0]),
        (9 * mib, 1, 0)
    );

    let mut piece = [0; 10];
    assert_eq!(source.read_at(&mut piece, 9 * mib - 4).expect("read"), 4);
    source.set_position(5 * mib);
    assert_eq!(source.read(&mut piece).expect("read"), 10);
    assert_eq!(piece, [2; 10]);
    assert_eq!(source.stat().expect("stat").size, 9 * mib);
}

#[test]
fn attributes_are_sorted_complete_and_of_the_path_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f\u{e9}\n");
    fs::write(&path, b"x").expect("written");
    symlink("f\u{e9}\n", dir.path().join("l")).expect("linked");
    let long = vec![7; 3000];
    for (name, value) in [
        ("user.z", &b""[..]),
        ("user.a", b"\0\xff"),
        ("user.long", &long),
    ] {
        match setxattr(&path, name, value, XattrFlags::empty()) {
            Err(Errno::NOTSUP) => return,
            other => other.expect("set"),
        }
    }

    let directory = SourceDir::open_root(dir.path()).expect("opened");
    let name = "f\u{e9}\n".as_bytes();
    let user = |xattrs: XattrReader| -> Vec<_> {
        assert!(xattrs.unread.is_none());
        xattrs
            .values
            .into_iter()
            .filter(|(name, _)| name.starts_with(b"user."))
            .collect()
    };
    let expected = [
        (b"user.a".to_vec(), b"\0\xff".to_vec()),
        (b"user.long".to_vec(), long),
        (b"user.z".to_vec(), Vec::new()),
    ];
    assert_eq!(user(directory.xattrs(name).expect("a name")), expected);
    assert_eq!(
        user(directory.open_file(name).expect("opened").xattrs()),
        expected
    );
    assert_eq!(user(directory.xattrs(b"l").expect("a name")), []);
    assert_eq!(user(directory.xattrs_self()), []);
}

#[test]
fn a_path_changed_within_the_grain_or_in_the_future_is_racy() {
    let dir = tempfile::tempdir().expect("a directory");
    let directory = SourceDir::open_root(dir.path()).expect("opened");
    let stat = directory.stat_self().expect("stat");
    let changed = stat.mtime.max(stat.ctime);
    assert!(stat.is_racy(changed.plus_seconds(-100), 2));
    assert!(stat.is_racy(changed.plus_seconds(1), 2));
    assert!(!stat.is_racy(changed.plus_seconds(2), 2));
    assert!(stat.is_racy(
        changed.plus_seconds(2),
        FsKind::Network.name_window_seconds()
    ));
}

#[test]
fn network_file_systems_are_recognized_by_their_magic() {
    assert_eq!(FsKind::of(0x6969), FsKind::Network);
    assert_eq!(FsKind::of(0xff53_4d42_u32), FsKind::Network);
    assert_eq!(FsKind::of(0xef53), FsKind::Local);
    assert!(
        SourceDir::open_root(Path::new("/"))
            .expect("opened")
            .fs_kind()
            .is_ok()
    );
    let directory = SourceDir::open_root(Path::new("/proc")).expect("opened");
    assert_eq!(directory.fs_kind().expect("told"), FsKind::Kernel);
    assert!(directory.inner.fd.as_fd().as_raw_fd() >= 0);
}
