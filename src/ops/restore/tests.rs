//! Tests of round trips through backup and restore, overwriting, deleting, and small windows.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::dest::SyncMethod;
use crate::observe::{Counter, Recording};
use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::repo::{ChunkReader, HostChoice, RepoError, Secret};
use crate::store::{MemoryStore, ObjectDir, SharedStore, list_all};
use crate::task::Cancel;
use crate::types::Extent;

pub(super) struct World {
    tree: TempDir,
    pub target: TempDir,
    cache: TempDir,
    pub store: Arc<MemoryStore>,
}

impl World {
    pub fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let shared: SharedStore = store.clone();
        Repository::init(&shared, &Secret::empty(), "test").expect("init");
        let dir = || tempfile::tempdir().expect("a directory");
        Self {
            tree: dir(),
            target: dir(),
            cache: dir(),
            store,
        }
    }

    pub fn repo(&self) -> Repository {
        let shared: SharedStore = self.store.clone();
        Repository::open(shared, &Secret::empty(), self.cache.path()).expect("open")
    }

    pub fn from(&self, name: &str) -> PathBuf {
        self.tree.path().join(name)
    }

    pub fn to(&self, name: &str) -> PathBuf {
        self.target.path().join(name)
    }

    pub fn write(&self, name: &str, content: &[u8]) {
        let path = self.from(name);
        fs::create_dir_all(path.parent().expect("has a parent")).expect("directories");
        fs::write(path, content).expect("written");
    }

    pub fn backup(&self) {
        let tree = TreeSpec::new("tree", self.tree.path());
        let dump = SourceSpec::Stream {
            name: "dump".into(),
            input: Box::new(std::io::Cursor::new(noise(9, 3 << 20))),
        };
        let options = BackupOptions::new("host", vec![SourceSpec::Tree(Box::new(tree)), dump]);
        backup(
            &self.repo(),
            options,
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("backup");
    }

    pub fn restore_as(
        &self,
        what: SnapshotPath,
        target: RestoreTarget<'_>,
        options: &RestoreOptions,
        limits: Option<WindowLimits>,
    ) -> Result<(RestoreReport, Recording), Error> {
        let observer = Recording::default();
        let limits = limits.unwrap_or(WindowLimits::for_memory(options.memory));
        let report = restore_with(
            &self.repo(),
            &what,
            target,
            options,
            Task::new(&observer, &Cancel::new()),
            limits,
        )?;
        Ok((report, observer))
    }

    /// Restores the tree's contents directly into the target.
    pub fn restore(&self, options: &RestoreOptions) -> (RestoreReport, Recording) {
        let target = RestoreTarget::Directory(self.target.path().into());
        self.restore_as(what(Some("tree"), ""), target, options, None)
            .expect("restore")
    }
}

pub(super) fn what(source: Option<&str>, path: &str) -> SnapshotPath {
    SnapshotPath {
        snapshot: "latest".into(),
        source: source.map(str::to_owned),
        path: RelPath::from_slashed(path.as_bytes()).expect("a path"),
    }
}

pub(super) fn options() -> RestoreOptions {
    let durability = SyncMethod::Skipped;
    RestoreOptions {
        owner: OwnerPolicy::Numeric,
        durability,
        ..RestoreOptions::default()
    }
}

fn tiny() -> WindowLimits {
    WindowLimits {
        window_bytes: 1 << 20,
        window_wants: 3,
        window_content: 1 << 30,
        open_files: 2,
        link_groups: 1,
        link_bytes: 1 << 20,
        unsettled_files: 2,
        unsettled_bytes: 1 << 20,
    }
}

/// Returns incompressible bytes, the same ones for one seed.
pub(super) fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new_keyed(&[seed; 32])
        .finalize_xof()
        .fill(&mut out);
    out
}

/// Returns one line for each path below a directory, with everything that a restore must bring
/// back.
pub(super) fn listing(root: &Path) -> Vec<String> {
    fn walk(root: &Path, at: &Path, out: &mut Vec<String>) {
        let meta = fs::symlink_metadata(at).expect("stat");
        let kind = meta.file_type();
        let content = if kind.is_file() {
            blake3::hash(&fs::read(at).expect("read")).to_hex()[..16].to_owned()
        } else if kind.is_symlink() {
            format!("{:?}", fs::read_link(at).expect("link"))
        } else {
            String::new()
        };
        let xattr = xattr_of(at);
        let nlink = if meta.is_dir() { 0 } else { meta.nlink() };
        out.push(format!(
            "{:?} {:o} {}:{} {}.{} {nlink} {} {content} {xattr:?}",
            at.strip_prefix(root).expect("below"),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.rdev(),
        ));
        if meta.is_dir() {
            let mut names: Vec<_> = fs::read_dir(at)
                .expect("list")
                .map(|name| name.expect("a name").path())
                .collect();
            names.sort();
            names.iter().for_each(|name| walk(root, name, out));
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut out);
    out
}

pub(super) fn xattr_of(path: &Path) -> Option<String> {
    let mut value = vec![0; 64 << 10];
    let len = rustix::fs::lgetxattr(path, "user.test", &mut value).ok()?;
    Some(blake3::hash(&value[..len]).to_hex()[..16].to_owned())
}

fn set_xattr(path: &Path, value: &[u8]) {
    rustix::fs::lsetxattr(path, "user.test", value, rustix::fs::XattrFlags::empty())
        .expect("attribute");
}

/// Fills the tree with every kind of entry, and some files that span several frames.
fn fill(world: &World) {
    world.write("empty", b"");
    world.write("a/literal", b"tiny");
    world.write("a/one", &noise(1, 20_000));
    world.write("a/big", &noise(2, 5 << 20));
    world.write("b/again", &noise(2, 5 << 20));
    world.write("b/zeros", &vec![0; 300_000]);

    let sparse = fs::File::create(world.from("sparse")).expect("a file");
    use std::os::unix::fs::FileExt;
    sparse.write_all_at(b"begin", 0).expect("written");
    sparse
        .write_all_at(&noise(3, 100_000), 10 << 20)
        .expect("written");
    sparse.set_len(40 << 20).expect("a hole");
    fs::File::create(world.from("hole"))
        .expect("a file")
        .set_len(1 << 20)
        .expect("a hole");

    fs::hard_link(world.from("a/one"), world.from("b/linked")).expect("a link");
    fs::hard_link(world.from("a/literal"), world.from("linked")).expect("a link");
    fs::hard_link(world.from("a/literal"), world.from("z")).expect("a link");
    symlink("/no/where", world.from("link")).expect("a link");
    fs::create_dir(world.from("shut")).expect("a directory");
    world.write("shut/in", b"side");

    for (name, kind) in [
        ("fifo", rustix::fs::FileType::Fifo),
        ("socket", rustix::fs::FileType::Socket),
    ] {
        rustix::fs::mknodat(rustix::fs::CWD, world.from(name), kind, 0o640.into(), 0)
            .expect("made");
    }

    if rustix::process::geteuid().is_root() {
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            world.from("char"),
            kind,
            0o640.into(),
            0x103,
        )
        .expect("made");
        std::os::unix::fs::chown(world.from("a/big"), Some(1234), Some(5678)).expect("chown");
    }

    set_xattr(&world.from("a/one"), b"short");
    set_xattr(&world.from("a/big"), &[b'x'; 1000]);
    fs::set_permissions(world.from("shut"), PermissionsExt::from_mode(0o500)).expect("mode");
    fs::set_permissions(world.from("a/one"), PermissionsExt::from_mode(0o4711)).expect("mode");
}

pub(super) fn assert_equal(world: &World) {
    assert_eq!(listing(world.target.path()), listing(world.tree.path()));
}

pub(super) fn clean(found: &(RestoreReport, Recording)) {
    assert!(found.1.problems().is_empty(), "{:?}", found.1.problems());
    assert!(found.0.is_complete());
}

#[test]
fn every_kind_comes_back_as_it_was() {
    let world = World::new();
    fill(&world);
    world.backup();

    let first = world.restore(&RestoreOptions {
        verify: true,
        ..options()
    });
    clean(&first);
    assert_equal(&world);
    assert_eq!(first.0.hard_links, 3);
    let allocated = |path: PathBuf| fs::metadata(path).expect("stat").blocks() * 512;
    assert!(allocated(world.to("sparse")) < 1 << 20, "holes stay holes");
    assert_eq!(allocated(world.to("hole")), 0);

    // A second restore writes nothing.
    let second = world.restore(&options());
    clean(&second);
    assert_eq!((second.0.files_written, second.0.bytes_written), (0, 0));
    assert_eq!(second.0.files_unchanged, first.0.files_written);
    assert_equal(&world);

    // `Always` writes everything again.
    let third = world.restore(&RestoreOptions {
        overwrite: OverwriteRule::Always,
        ..options()
    });
    clean(&third);
    assert_equal(&world);
    assert_eq!(third.0.bytes_written, first.0.bytes_written);
}

#[test]
fn windows_of_three_chunks_give_the_same() {
    let world = World::new();
    fill(&world);
    for number in 0..40 {
        world.write(
            &format!("many/{number:02}"),
            &noise(number, 200_000 + usize::from(number)),
        );
    }
    world.backup();

    for open_files in [2, 100] {
        for window_wants in [1, 3, 50] {
            let limits = WindowLimits {
                window_wants,
                open_files,
                ..tiny()
            };
            let target =
                RestoreTarget::Directory(world.to(&format!("{open_files}-{window_wants}")));
            let found = world.restore_as(what(Some("tree"), ""), target, &options(), Some(limits));
            let found = found.expect("restore");
            clean(&found);
            let to = world.to(&format!("{open_files}-{window_wants}"));
            let strip = |lines: Vec<String>| -> Vec<String> {
                // With one remembered group, some links become separate files.
                lines
                    .into_iter()
                    .filter(|line| !line.contains("link") && !line.contains("literal"))
                    .filter(|line| !line.contains("\"z\"") && !line.contains("one"))
                    .collect()
            };
            assert_eq!(strip(listing(&to)), strip(listing(world.tree.path())));
            fs::set_permissions(to.join("shut"), PermissionsExt::from_mode(0o700)).expect("mode");
            fs::remove_dir_all(&to).expect("removed");
        }
    }
}

#[test]
fn all_sources_single_files_and_streams_find_their_place() {
    let world = World::new();
    world.write("a/file", b"some content that is longer than a literal may be, so that it becomes a chunk of its own, which takes 128 bytes and a few more");
    world.backup();
    let content = fs::read(world.from("a/file")).expect("read");
    let dump = noise(9, 3 << 20);
    let go = |what: SnapshotPath, to: &str| {
        world
            .restore_as(
                what,
                RestoreTarget::Directory(world.to(to)),
                &options(),
                None,
            )
            .expect("restore")
    };

    clean(&go(what(None, ""), "all"));
    assert_eq!(listing(&world.to("all/tree")), listing(world.tree.path()));
    assert_eq!(fs::read(world.to("all/dump")).expect("read"), dump);
    clean(&go(what(Some("tree"), "a/file"), "name"));
    assert_eq!(fs::read(world.to("name")).expect("read"), content);
    clean(&go(what(Some("tree"), "a/file"), "all"));
    assert_eq!(fs::read(world.to("all/file")).expect("read"), content);
    clean(&go(what(Some("tree"), "a"), "sub"));
    assert_eq!(fs::read(world.to("sub/file")).expect("read"), content);
    clean(&go(what(Some("dump"), ""), "dumped"));
    assert_eq!(fs::read(world.to("dumped")).expect("read"), dump);

    for (what, expected) in [
        (what(Some("dump"), ""), &dump),
        (what(Some("tree"), "a/file"), &content),
    ] {
        let mut out = Vec::new();
        world
            .restore_as(what, RestoreTarget::Stdout(&mut out), &options(), None)
            .expect("restore");
        assert!(out == *expected);
    }

    for bad in [
        what(Some("no"), ""),
        what(Some("tree"), "a/no"),
        what(Some("dump"), "x"),
    ] {
        let error = world.restore_as(
            bad,
            RestoreTarget::Directory(world.to("bad")),
            &options(),
            None,
        );
        assert!(
            matches!(
                error,
                Err(Error::NoPath { .. } | Error::Repo(RepoError::NoSuchSnapshot { .. }))
            ),
            "{error:?}"
        );
    }

    let error = world.restore_as(
        what(Some("tree"), "a"),
        RestoreTarget::Stdout(&mut Vec::new()),
        &options(),
        None,
    );
    assert!(matches!(error, Err(Error::Usage { .. })));
}

/// `restore latest:db /dev/null`, as root, replaced /dev/null by a regular file.
#[test]
fn devices_fifos_and_sockets_are_not_replaced() {
    let world = World::new();
    world.write("file", b"some content");
    world.backup();

    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.to("fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .expect("made");
    let _socket = std::os::unix::net::UnixListener::bind(world.to("socket")).expect("made");
    symlink("/dev/null", world.to("null")).expect("made");
    // Like /dev/stdout; it may well lead to a file.
    symlink("/proc/self/fd/1", world.to("out")).expect("made");
    fs::write(world.to("plain"), b"").expect("written");
    symlink("plain", world.to("link")).expect("made");

    for name in ["fifo", "socket", "null", "out"] {
        let target = || RestoreTarget::Directory(world.to(name));
        let before = fs::symlink_metadata(world.to(name)).expect("there").ino();
        for what in [what(Some("dump"), ""), what(Some("tree"), "file")] {
            let error = world
                .restore_as(what, target(), &options(), None)
                .expect_err("refused");
            assert!(
                matches!(&error, Error::Usage { why, .. } if why.contains("'-'")),
                "{name}: {error}"
            );
        }
        assert_eq!(
            fs::symlink_metadata(world.to(name)).expect("there").ino(),
            before,
            "{name}"
        );
    }

    for name in ["plain", "link"] {
        let target = RestoreTarget::Directory(world.to(name));
        clean(
            &world
                .restore_as(what(Some("tree"), "file"), target, &options(), None)
                .expect("restored"),
        );
        assert_eq!(fs::read(world.to(name)).expect("reads"), b"some content");
    }
}

#[test]
fn a_stream_comes_out_through_windows_of_any_size() {
    let world = World::new();
    world.backup();
    let repo = world.repo();
    repo.sync().expect("sync");
    let found = repo
        .find_snapshot("latest", &HostChoice::Any)
        .expect("found");
    let SourceKind::Stream { content, .. } = &found.snapshot.source("dump").expect("there").kind
    else {
        panic!("no stream");
    };
    let reader = ChunkReader::new(&repo, 1 << 20);
    let mut content = content.clone();
    content.extents.push(Extent::Hole { len: 3_000_000 });
    content.extents.push(Extent::Literal(b"end".to_vec()));
    content.size += 3_000_003;

    let mut expected = noise(9, 3 << 20);
    expected.extend(vec![0; 3_000_000]);
    expected.extend(b"end");

    for (window_bytes, window_chunks, kept_bytes) in [
        (64 << 20, 64 << 10, 16 << 20),
        (10_000, 5, 0),
        (500_000, 9999, 4 << 20),
    ] {
        let mut out = Vec::new();
        let limits = StreamLimits {
            window_bytes,
            window_chunks,
            kept_bytes,
        };
        let counters = Recording::default();
        write_windows(
            &reader,
            None,
            &content,
            &mut out,
            Task::new(&counters, &Cancel::new()),
            limits,
            &mut || Ok(false),
        )
        .expect("written");
        assert!(out == expected);
        assert_eq!(counters.get(Counter::BytesRead), content.size);
    }
}

#[test]
fn the_overwrite_rule_decides_about_existing_entries() {
    let world = World::new();
    world.write("file", &noise(1, 1000));
    world.write("directory/in", b"x");
    symlink("to", world.from("link")).expect("a link");
    world.backup();
    let spoil = || {
        fs::write(world.to("file"), "mine").expect("written");
        let _ = fs::remove_dir_all(world.to("directory"));
        let _ = fs::remove_file(world.to("link"));
        symlink("/", world.to("directory")).expect("a link in a directory's place");
        fs::create_dir_all(world.to("link")).expect("a directory in a link's place");
    };

    spoil();
    let never = world.restore(&RestoreOptions {
        overwrite: OverwriteRule::Never,
        ..options()
    });
    assert_eq!(fs::read(world.to("file")).expect("read"), b"mine");
    assert!(
        fs::symlink_metadata(world.to("directory"))
            .expect("stat")
            .is_symlink()
    );
    assert_eq!(
        (never.0.failed, never.0.files_written),
        (1, 0),
        "{:?}",
        never.1.problems()
    );

    clean(&world.restore(&options()));
    assert_equal(&world);

    // Only --delete removes a directory that is not empty.
    fs::remove_file(world.to("link")).expect("removed");
    fs::create_dir(world.to("link")).expect("a directory");
    fs::write(world.to("link/mine"), "x").expect("written");
    let kept = world.restore(&options());
    assert_eq!(kept.0.failed, 1);
    assert!(
        kept.1.problems()[0].subject == "tree/link",
        "{:?}",
        kept.1.problems()
    );
    assert!(world.to("link/mine").exists());

    clean(&world.restore(&RestoreOptions {
        delete: true,
        ..options()
    }));
    assert_equal(&world);
}

#[test]
fn delete_removes_what_the_snapshot_lacks_and_nothing_else() {
    let world = World::new();
    world.write("a/keep", b"1");
    world.write("b/keep", b"1");
    world.backup();
    clean(&world.restore(&options()));
    let strew = || {
        for name in ["a/more/deep/x", "a/z", "b/cache/y", "top", "a.b"] {
            fs::create_dir_all(world.to(name).parent().expect("a parent")).expect("directories");
            fs::write(world.to(name), "x").expect("written");
        }
    };
    strew();
    let excluding = |delete| RestoreOptions {
        delete,
        exclude: vec!["cache/".into()],
        ..options()
    };

    clean(&world.restore(&excluding(false)));
    assert!(world.to("a/z").exists());

    let dry = world.restore(&RestoreOptions {
        dry_run: true,
        ..excluding(true)
    });
    assert_eq!((dry.0.deleted, dry.0.files_unchanged), (4, 2));
    assert!(world.to("a/z").exists());
    let found = world.restore(&excluding(true));
    clean(&found);
    assert_eq!(found.0.deleted, 4);
    assert!(world.to("b/cache/y").exists(), "what is excluded stays");

    // It deletes only below restored directories.
    strew();
    let include = RestoreOptions {
        delete: true,
        include: vec!["/a".into()],
        ..options()
    };
    assert_eq!(world.restore(&include).0.deleted, 2);
    assert!(world.to("top").exists() && world.to("b/cache").exists() && !world.to("a/z").exists());
    world.restore(&RestoreOptions {
        delete: true,
        ..options()
    });
    assert_equal(&world);
}

#[test]
fn patterns_choose_what_is_restored() {
    let world = World::new();
    for name in [
        "a/x.txt",
        "a/deep/y.txt",
        "a/deep/z.bin",
        "b/all/one",
        "b/all/two",
        "c/none",
    ] {
        world.write(name, name.as_bytes());
    }
    world.backup();
    let include = vec!["*.txt".into(), "all/".into()];
    let exclude = vec!["two".into()];
    clean(&world.restore(&RestoreOptions {
        include,
        exclude,
        ..options()
    }));

    let names: Vec<String> = listing(world.target.path())
        .iter()
        .map(|line| line.split('"').nth(1).unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "",
            "a",
            "a/deep",
            "a/deep/y.txt",
            "a/x.txt",
            "b",
            "b/all",
            "b/all/one"
        ]
    );
}

#[derive(Debug)]
struct Odd;

impl SelectPath for Odd {
    fn wants(&self, entry: &Entry) -> Result<bool, Error> {
        assert!(!entry.is_directory());
        Ok(entry.path.name().is_some_and(|name| name.ends_with(b"1")))
    }
}

#[test]
fn a_selector_chooses_entries() {
    let world = World::new();
    for name in ["a/1", "a/2", "b/2", "c1/21"] {
        world.write(name, name.as_bytes());
    }
    world.backup();
    let select = RestoreOptions {
        select: Some(Arc::new(Odd)),
        ..options()
    };
    let (report, _) = world.restore(&select);
    assert_eq!(report.files_written, 2);
    assert!(world.to("a/1").exists() && world.to("c1/21").exists());
    assert!(!world.to("a/2").exists() && world.to("b").exists() && !world.to("b/2").exists());

    // Entries that it does not choose are still in the snapshot, so --delete keeps them.
    fs::write(world.to("a/2"), "mine").expect("written");
    clean(&world.restore(&RestoreOptions {
        delete: true,
        ..select
    }));
    assert_eq!(fs::read(world.to("a/2")).expect("read"), b"mine");
}

#[test]
fn if_size_differs_replaces_only_files_of_another_size() {
    let world = World::new();
    for name in ["torn", "same", "new", "directory/in"] {
        world.write(name, b"12345");
    }
    world.backup();

    fs::write(world.to("torn"), "123").expect("written");
    fs::write(world.to("same"), "abcde").expect("written");
    fs::create_dir(world.to("directory")).expect("a directory");
    fs::set_permissions(world.to("directory"), PermissionsExt::from_mode(0o711)).expect("mode");

    clean(&world.restore(&RestoreOptions {
        overwrite: OverwriteRule::IfSizeDiffers,
        ..options()
    }));
    let read = |name: &str| fs::read(world.to(name)).expect("read");
    assert_eq!(
        (read("torn"), read("same")),
        (b"12345".to_vec(), b"abcde".to_vec())
    );
    assert_eq!(
        (read("new"), read("directory/in")),
        (b"12345".to_vec(), b"12345".to_vec())
    );
    assert_eq!(
        fs::metadata(world.to("directory"))
            .expect("stat")
            .permissions()
            .mode()
            & 0o777,
        0o711
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    let world = World::new();
    fill(&world);
    world.backup();
    let dry = RestoreOptions {
        dry_run: true,
        ..options()
    };
    let target = RestoreTarget::Directory(world.to("new"));
    let (report, _) = world
        .restore_as(what(None, ""), target, &dry, None)
        .expect("restore");
    assert!(!world.to("new").exists());
    assert!(report.files_written > 10 && report.bytes_written > 50 << 20);
}

#[test]
fn deep_paths_come_back() {
    let world = World::new();
    let mut deep = String::new();
    for _ in 0..15 {
        deep.push_str(&"d".repeat(200));
        deep.push('/');
    }
    world.write(&format!("{deep}file"), b"at the bottom");
    world.backup();
    clean(&world.restore(&options()));
    assert_equal(&world);
}

#[test]
fn a_cancelled_restore_leaves_no_temporary_file() {
    let world = World::new();
    world.write("big", &noise(1, 3 << 20));
    world.backup();
    let cancel = Cancel::new();
    cancel.cancel();
    let target = RestoreTarget::Directory(world.target.path().into());
    let result = restore(
        &world.repo(),
        &what(Some("tree"), ""),
        target,
        &options(),
        Task::new(&Recording::default(), &cancel),
    );
    assert!(matches!(result, Err(Error::Interrupted)));
    assert_eq!(fs::read_dir(world.target.path()).expect("list").count(), 0);
    assert!(
        list_all(world.store.as_ref(), ObjectDir::Leases)
            .expect("listed")
            .is_empty()
    );
}
