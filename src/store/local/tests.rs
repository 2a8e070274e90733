//! Tests of a local store beyond the contract that the suite checks.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::store::{Replica, list_all, suite};
use crate::types::{LeaseId, SegmentId};

fn pack(number: u8) -> ObjectKey {
    ObjectKey::Pack(PackId::new([number; 32]))
}

fn put(store: &dyn Store, key: &ObjectKey) {
    store
        .put(key, ObjectBody::Bytes(b"bytes"), PutMode::CreateOnly)
        .expect("put");
}

fn new_store() -> (tempfile::TempDir, LocalStore) {
    let root = tempfile::tempdir().expect("a directory");
    let store = LocalStore::create(root.path().join("repo")).expect("create");
    (root, store)
}

fn path_of(store: &LocalStore, key: &ObjectKey) -> PathBuf {
    Path::new(store.address()).join(key.to_string())
}

#[test]
fn a_pack_set_aside_is_the_same_file() {
    use std::os::unix::fs::MetadataExt;
    let (_root, store) = new_store();
    put(&store, &pack(1));
    let inode = fs::metadata(path_of(&store, &pack(1)))
        .expect("there")
        .ino();
    // A file that cannot be read at all.
    fs::set_permissions(path_of(&store, &pack(1)), fs::Permissions::from_mode(0o0))
        .expect("changed");
    let aside = ObjectKey::QuarantinedPack(PackId::new([1; 32]));
    store.rename(&pack(1), &aside).expect("set aside");
    assert_eq!(
        fs::metadata(path_of(&store, &aside)).expect("there").ino(),
        inode
    );
    // A crash can leave this on a file system that has only hard links: both names of one file.
    fs::hard_link(path_of(&store, &aside), path_of(&store, &pack(1))).expect("linked");
    store.rename(&pack(1), &aside).expect("ended");
    assert!(!path_of(&store, &pack(1)).exists());
    assert_eq!(
        fs::metadata(path_of(&store, &aside)).expect("there").ino(),
        inode
    );
}

#[test]
fn it_keeps_the_contract() {
    let root = tempfile::tempdir().expect("a directory");
    let number = std::cell::Cell::new(0);
    suite::run(|| {
        number.set(number.get() + 1);
        let path = root.path().join(format!("deep/{}", number.get()));
        Arc::new(LocalStore::create(path).expect("create"))
    });
}

#[test]
fn an_empty_directory_is_a_store_too() {
    let root = tempfile::tempdir().expect("a directory");
    let store = LocalStore::open(root.path()).expect("open");
    assert_eq!(
        fs::read_dir(root.path()).expect("list").count(),
        0,
        "opening writes nothing"
    );
    assert_eq!(list_all(&store, ObjectDir::Packs).expect("list"), []);
    assert!(store.get(&pack(1), 9).expect_err("missing").is_not_found());
    put(&store, &pack(1));
    assert_eq!(list_all(&store, ObjectDir::Packs).expect("list").len(), 1);
}

#[test]
fn names_and_modes_are_the_formats() {
    let (_root, store) = new_store();
    let keys = [
        ObjectKey::Config(Replica::Second),
        ObjectKey::KeySlot("a".to_owned(), Replica::First),
        pack(0xab),
        ObjectKey::Lease(LeaseId::new([1; 16])),
    ];
    for key in &keys {
        put(&store, key);
        let path = path_of(&store, key);
        let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o600, "{key}");
        assert_eq!(mode(path.parent().expect("a directory")), 0o700, "{key}");
    }
    let id = "ab".repeat(32);
    assert!(
        Path::new(store.address())
            .join("packs/ab")
            .join(id)
            .is_file()
    );
    let left: Vec<_> = fs::read_dir(store.address())
        .expect("list")
        .map(|entry| entry.expect("entry").file_name())
        .filter(|name| name.to_string_lossy().starts_with(".tmp-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_error_or_a_dropped_spool_leaves_no_temporary_file() {
    let (_root, store) = new_store();
    put(&store, &pack(1));
    assert!(
        store
            .put(&pack(1), ObjectBody::Bytes(b"x"), PutMode::CreateOnly)
            .is_err()
    );
    let mut spool = store.spool().expect("spool");
    spool.append(b"x").expect("append");
    drop(spool);
    // A directory in the object's place makes the rename fail.
    fs::create_dir(path_of(&store, &ObjectKey::Config(Replica::First))).expect("create");
    assert!(
        store
            .put(
                &ObjectKey::Config(Replica::First),
                ObjectBody::Bytes(b"x"),
                PutMode::Replace
            )
            .is_err()
    );

    let names = fs::read_dir(store.address()).expect("list");
    let temporary = names.filter(|entry| {
        entry
            .as_ref()
            .expect("entry")
            .file_name()
            .to_string_lossy()
            .starts_with(".tmp-")
    });
    assert_eq!(temporary.count(), 0);
}

#[test]
fn foreign_names_are_passed_over() {
    let (root, store) = new_store();
    put(&store, &pack(1));
    put(&store, &ObjectKey::Segment(SegmentId::new([2; 32])));

    let base = Path::new(store.address());
    fs::write(base.join("lost+found"), b"").expect("write");
    fs::write(base.join(".tmp-0123"), b"left by a crash").expect("write");
    fs::write(base.join("packs/README"), b"").expect("write");
    fs::write(base.join("packs/02"), b"a file, not a directory").expect("write");
    fs::create_dir_all(base.join("packs/zz")).expect("create");
    fs::write(
        base.join("packs/01").join("03".repeat(32)),
        b"in the wrong directory",
    )
    .expect("write");
    fs::write(base.join("packs/01").join("AB".repeat(32)), b"upper case").expect("write");
    fs::create_dir(base.join("packs/01").join("fe".repeat(31) + "01")).expect("create");
    fs::write(base.join("index/notes.txt"), b"").expect("write");
    symlink(root.path(), base.join("index").join("04".repeat(32))).expect("symlink");

    let keys = |directory| -> Vec<_> {
        list_all(&store, directory)
            .expect("list")
            .into_iter()
            .map(|meta| meta.key)
            .collect()
    };

    assert_eq!(keys(ObjectDir::Packs), [pack(1)]);
    assert_eq!(
        keys(ObjectDir::Index),
        [ObjectKey::Segment(SegmentId::new([2; 32]))]
    );
}

#[test]
fn symlinks_lead_nowhere() {
    let (root, store) = new_store();
    let outside = root.path().join("outside");
    fs::create_dir(&outside).expect("create");
    fs::write(outside.join("secret"), b"secret").expect("write");
    let base = Path::new(store.address());
    let segment = ObjectKey::Segment(SegmentId::new([1; 32]));
    symlink(outside.join("secret"), path_of(&store, &segment)).expect("symlink");
    symlink(&outside, base.join("packs/01")).expect("symlink");
    let read = store.get(&segment, 99);
    assert!(matches!(read, Err(StoreError::Io { .. })), "{read:?}");
    let stat = store.stat(&segment);
    assert!(
        matches!(stat, Err(StoreError::NotFound { .. })),
        "as in a listing: {stat:?}"
    );

    assert!(store.read_at(&segment, 0, &mut [0]).is_err());
    assert!(
        store
            .put(&pack(1), ObjectBody::Bytes(b"x"), PutMode::CreateOnly)
            .is_err()
    );
    assert!(
        store
            .put(&segment, ObjectBody::Bytes(b"x"), PutMode::CreateOnly)
            .is_err()
    );
    assert_eq!(
        fs::read_dir(&outside).expect("list").count(),
        1,
        "nothing was written outside"
    );

    let slot = ObjectKey::KeySlot("../../outside/secret".to_owned(), Replica::First);
    assert!(matches!(store.get(&slot, 99), Err(StoreError::Io { .. })));
}

#[test]
fn a_pack_removed_or_cut_by_others_is_noticed_though_it_is_open() {
    let (_root, store) = new_store();
    let read = |number| store.read_at(&pack(number), 0, &mut [0; 5]);
    for number in 0..40 {
        put(&store, &pack(number));
        read(number).expect("read");
    }
    assert!(lock(&store.open_packs).len() == OPEN_PACKS_MAX);
    fs::remove_file(path_of(&store, &pack(39))).expect("remove");
    assert!(read(39).expect_err("removed").is_not_found());
    fs::write(path_of(&store, &pack(38)), b"abc").expect("write");
    assert!(matches!(
        read(38),
        Err(StoreError::Short {
            wanted: 5,
            found: 3,
            ..
        })
    ));
    read(0).expect("one that was closed meanwhile");
}

#[test]
fn a_store_that_went_away_is_not_an_empty_one() {
    let (_root, store) = new_store();
    put(&store, &pack(1));
    let base = PathBuf::from(store.address());
    fs::rename(&base, base.with_extension("away")).expect("rename");
    let unreachable = |error| matches!(error, StoreError::Unreachable { .. });
    fs::create_dir(&base).expect("an empty mount point");
    assert!(unreachable(store.get(&pack(2), 9).expect_err("gone")));
    fs::remove_dir_all(base.with_extension("away")).expect("remove");
    assert!(unreachable(store.get(&pack(1), 9).expect_err("gone")));
    assert!(unreachable(
        list_all(&store, ObjectDir::Packs).expect_err("gone")
    ));
    fs::remove_dir(&base).expect("remove");
    assert!(unreachable(
        list_all(&store, ObjectDir::Packs).expect_err("gone")
    ));
    assert!(unreachable(LocalStore::open(&base).expect_err("gone")));
}

#[test]
fn the_address_is_canonical() {
    let (root, store) = new_store();
    symlink(store.address(), root.path().join("link")).expect("symlink");
    let again = LocalStore::open(root.path().join("./link/../link")).expect("open");
    assert_eq!(again.address(), store.address());
    assert!(Path::new(store.address()).is_absolute() && store.properties().durable_put);
    assert_eq!(
        address_of(Path::new(std::ffi::OsStr::from_bytes(b"/a\xff"))),
        "/a\\xff"
    );
    let odd = root.path().join(std::ffi::OsStr::from_bytes(b"a\xff"));
    let odd_store = LocalStore::create(&odd).expect("create");
    assert!(odd_store.address().ends_with("/a\\xff"));
    assert_eq!(
        odd_store.local_path(),
        fs::canonicalize(&odd).ok().as_deref()
    );
    fs::write(root.path().join("file"), b"").expect("write");
    let error = LocalStore::open(root.path().join("file")).expect_err("a file");
    assert!(matches!(error, StoreError::Unreachable { .. }));
}

#[test]
fn directories_that_were_removed_are_made_again() {
    let (_root, store) = new_store();
    put(&store, &pack(1));
    fs::remove_dir_all(Path::new(store.address()).join("packs")).expect("remove");
    put(&store, &pack(1));
    assert_eq!(store.get(&pack(1), 9).expect("get"), b"bytes");
}

/// Runs on a tmpfs of 8 MiB, mounted for a separate process if root (or a user namespace) may do
/// that.
#[test]
fn a_full_disk_gets_its_room_back() {
    const CHILD: &str = "ICECORE_TEST_SMALL_FS";
    let Some(small) = std::env::var_os(CHILD) else {
        let root = tempfile::tempdir().expect("a directory");
        let is_root = rustix::process::geteuid().is_root();
        let script = "mount -t tmpfs -o size=8m none \"$ICECORE_TEST_SMALL_FS\" || exit 77; exec \"$0\" --exact \"$1\"";
        let child = std::process::Command::new("unshare")
            .args(if is_root {
                ["--mount"].as_slice()
            } else {
                &["--mount", "--map-root-user"]
            })
            .args(["sh", "-c", script])
            .arg(std::env::current_exe().expect("this test"))
            .arg("store::local::tests::a_full_disk_gets_its_room_back")
            .env(CHILD, root.path())
            .output()
            .expect("run");

        let output = String::from_utf8_lossy(&child.stdout);
        // An ordinary user may not be allowed to mount; tests/scripts/refusals.sh reports it where
        // the test is skipped.
        let is_left_out = !is_root && !output.contains("running 1 test");
        assert!(
            is_left_out || child.status.success() && output.contains("1 passed"),
            "{child:?}"
        );
        return;
    };

    let store = LocalStore::create(Path::new(&small).join("repo")).expect("create");
    let full = |result| matches!(result, Err(StoreError::Full { .. }));
    let piece = vec![1; 1 << 20];

    for _ in 0..3 {
        let mut spool = store.spool().expect("spool");
        assert!(full((0..64).try_for_each(|_| spool.append(&piece))));
        let error = store.put(&pack(2), ObjectBody::Spooled(spool), PutMode::CreateOnly);
        assert!(error.is_err(), "a spool that failed is spent");
        let large = vec![1; 64 << 20];
        assert!(full(store.put(
            &pack(1),
            ObjectBody::Bytes(&large),
            PutMode::CreateOnly
        )));
        assert_eq!(list_all(&store, ObjectDir::Packs).expect("list"), []);
    }

    store
        .put(&pack(1), ObjectBody::Bytes(&piece), PutMode::CreateOnly)
        .expect("there is room again");
}

/// A umask that removes all permissions must not lock the owner out. Runs in a separate process,
/// since the umask is shared by all threads.
#[test]
fn modes_do_not_depend_on_the_umask() {
    const CHILD: &str = "ICECORE_TEST_UMASK_ROOT";
    if let Some(root) = std::env::var_os(CHILD) {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
        let store = LocalStore::create(Path::new(&root).join("repo")).expect("create");
        put(&store, &pack(1));
        for (path, mode) in [("", 0o700), ("packs/01", 0o700)] {
            let found = fs::metadata(Path::new(store.address()).join(path))
                .expect("stat")
                .permissions();
            assert_eq!(found.mode() & 0o7777, mode);
        }
        let found = fs::metadata(path_of(&store, &pack(1)))
            .expect("stat")
            .permissions();
        assert_eq!(found.mode() & 0o7777, 0o600);
        return;
    }

    let root = tempfile::tempdir().expect("a directory");
    let name = "store::local::tests::modes_do_not_depend_on_the_umask";
    let child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name])
        .env(CHILD, root.path())
        .output()
        .expect("run");

    assert!(
        child.status.success(),
        "{}",
        String::from_utf8_lossy(&child.stdout)
    );
    assert!(
        root.path().join("repo/packs/01").is_dir(),
        "the child ran the test"
    );
}

#[test]
fn a_directory_that_refuses_writes_is_read_only() {
    let (_root, store) = new_store();
    put(&store, &pack(1));
    assert!(!store.properties().read_only);
    if rustix::process::geteuid().is_root() {
        // Permissions do not restrict root.
        return;
    }
    fs::set_permissions(store.address(), fs::Permissions::from_mode(0o500)).expect("chmod");
    let locked = LocalStore::open(store.address()).expect("open");
    assert!(locked.properties().read_only);
    assert_eq!(locked.get(&pack(1), 9).expect("get"), b"bytes");
    let error = locked
        .put(&pack(2), ObjectBody::Bytes(b"x"), PutMode::CreateOnly)
        .expect_err("refused");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    fs::set_permissions(store.address(), fs::Permissions::from_mode(0o700)).expect("chmod");
}

#[test]
fn old_unfinished_writes_are_swept_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = LocalStore::create(directory.path()).expect("makes");
    let spool = store.spool().expect("a spool");
    let old = format!(".tmp-{}", "0".repeat(32));
    for name in [old.as_str(), ".tmp-notes", ".tmpl"] {
        std::fs::write(directory.path().join(name), b"12345").expect("writes");
    }
    let later = Timestamp::from(std::time::SystemTime::now()).plus_seconds(60);
    assert_eq!(
        store
            .sweep_unfinished(later.plus_seconds(-3600))
            .expect("sweeps"),
        (0, 0),
        "all are young"
    );
    drop(spool);
    assert_eq!(store.sweep_unfinished(later).expect("sweeps"), (1, 5));
    assert!(!directory.path().join(&old).exists());
    assert!(
        directory.path().join(".tmp-notes").exists() && directory.path().join(".tmpl").exists()
    );
}

#[test]
fn the_reserve_is_held_and_given_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = LocalStore::create(directory.path()).expect("makes");
    let size = || {
        std::fs::metadata(directory.path().join(".reserve"))
            .map(|meta| meta.len())
            .ok()
    };
    store.set_reserve(false).expect("none to give back");
    for _ in 0..2 {
        store.set_reserve(true).expect("held");
        assert_eq!(size(), Some(4 << 20));
    }
    store.set_reserve(false).expect("given back");
    assert_eq!(size(), None);
}

#[test]
fn a_directory_that_holds_other_files_is_not_taken() {
    let refused = |prepare: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().expect("a directory");
        prepare(dir.path());
        let before = names_below(dir.path());
        match LocalStore::create(dir.path()) {
            Ok(_) => None,
            Err(StoreError::Occupied { name, .. }) => {
                assert_eq!(names_below(dir.path()), before, "nothing is made there");
                Some(name)
            }
            Err(other) => panic!("{other}"),
        }
    };
    let file = |name: &'static str| {
        move |dir: &Path| {
            fs::create_dir_all(dir.join(name).parent().expect("a parent")).expect("a directory");
            fs::write(dir.join(name), b"x").expect("a file");
        }
    };
    let directory = |name: &'static str| {
        move |dir: &Path| fs::create_dir_all(dir.join(name)).expect("a directory")
    };

    for name in [
        "thesis",
        ".hidden",
        "packs",
        ".tmp-notes",
        "Config",
        "lost+found2",
    ] {
        assert_eq!(refused(&file(name)).as_deref(), Some(name));
    }
    // Names of a repository's directories that contain other things.
    for (name, first) in [
        ("packs/x", "packs"),
        ("index/notes.txt", "index"),
        ("keys/My Key", "keys"),
    ] {
        assert_eq!(refused(&file(name)).as_deref(), Some(first), "{name}");
    }
    assert_eq!(
        refused(&directory("snapshots/2024")).as_deref(),
        Some("snapshots")
    );
    assert_eq!(refused(&directory("photos")).as_deref(), Some("photos"));
    let odd = |dir: &Path| {
        let name = std::ffi::OsStr::from_bytes(b"caf\xe9");
        fs::write(dir.join(name), b"x").expect("a file");
    };
    assert_eq!(refused(&odd).as_deref(), Some("caf\u{fffd}"));
    let link = |dir: &Path| std::os::unix::fs::symlink("/etc", dir.join("packs")).expect("a link");
    assert_eq!(refused(&link).as_deref(), Some("packs"));

    // Names that the system creates, and those that an interrupted `init` leaves after each of its
    // steps.
    for name in [
        "lost+found",
        ".Trash-1000",
        "System Volume Information",
        "keys",
        "leases",
    ] {
        assert_eq!(refused(&directory(name)), None, "{name}");
    }
    for name in [
        ".DS_Store",
        ".nfs000000000001",
        "keys/0123456789abcdef.2",
        "keys/0123456789abcdef",
        "config.2",
    ] {
        assert_eq!(refused(&file(name)), None, "{name}");
    }
    let unfinished = format!(".tmp-{}", "0f".repeat(16));
    assert_eq!(
        refused(&|dir: &Path| fs::write(dir.join(&unfinished), b"x").expect("a file")),
        None
    );
    let whole = |dir: &Path| drop(LocalStore::create(dir).expect("makes"));
    assert_eq!(refused(&whole), None, "a store that is there is opened");
}

fn names_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("list") {
        let path = entry.expect("an entry").path();
        if path.symlink_metadata().expect("stat").is_dir() {
            found.extend(names_below(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}
