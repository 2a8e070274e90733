//! Random trees, rules, unreadable directories, mounts and interrupted backups. Then the tree
//! changes and is restored with `--delete`. The expected result is computed from the true tree at
//! the backup and the names in the snapshot, never from its marks.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use icecore::dest::{OwnerPolicy, ProtectedDirs, SyncMethod};
use icecore::format::SnapshotState;
use icecore::observe::{Counter, Observer, Phase, Problem, ProgressUnit, Recording};
use icecore::ops::backup::{BackupOptions, TreeSpec, backup};
use icecore::ops::restore::RestoreOptions;
use icecore::source::{FilesFrom, SourceDir};
use icecore::task::{Cancel, Task};
use icecore::testing::{TestRepo, tree_options, write};
use icecore::types::{Entry, SnapshotId};

const SEEDS: u64 = 200;
/// Set when the test runs in its own mount namespace.
const OWN_MOUNTS: &str = "ICECORE_TEST_OWN_MOUNTS";
const NAMES: [&str; 9] = [
    "a", "b", "c", "d", "x.log", "y.log", "k.keep", "big", "cache",
];
const PATTERNS: [&str; 6] = ["*.log", "/a/", "b", "c/**", "big", "!x.log"];

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            None
        } else {
            Some(from[self.below(from.len())].clone())
        }
    }
}

/// Paths below a root; true for directories.
type Paths = BTreeMap<String, bool>;

fn paths(root: &Path) -> Paths {
    fn walk(at: &Path, prefix: &str, out: &mut Paths) {
        for entry in fs::read_dir(at).expect("listed") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("text");
            let path = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}/{name}")
            };
            let is_dir = entry.file_type().expect("a type").is_dir();
            out.insert(path.clone(), is_dir);
            if is_dir {
                walk(&entry.path(), &path, out);
            }
        }
    }
    let mut out = Paths::new();
    walk(root, "", &mut out);
    out
}

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Returns the names directly in a directory.
fn children<'p>(of: &'p Paths, dir: &'p str) -> impl Iterator<Item = (&'p String, bool)> {
    of.iter()
        .filter(move |(path, _)| parent_of(path) == dir)
        .map(|(path, is_dir)| (path, *is_dir))
}

fn is_in(path: &str, dir: &str) -> bool {
    dir.is_empty()
        || path == dir
        || path
            .strip_prefix(dir)
            .is_some_and(|rest| rest.starts_with('/'))
}

fn grow(rng: &mut Rng, at: &Path, depth: usize) {
    for _ in 0..rng.below(6) {
        let path = at.join(NAMES[rng.below(NAMES.len())]);
        if path.exists() {
            continue;
        }
        if depth < 3 && rng.chance(55) {
            fs::create_dir(&path).expect("a directory");
            if path.ends_with("cache") {
                write(
                    &path.join("CACHEDIR.TAG"),
                    b"Signature: 8a477f597d28d172789f06886806bc55",
                );
            }
            grow(rng, &path, depth + 1);
        } else {
            let len = if path.ends_with("big") {
                6000
            } else {
                10 + rng.below(300)
            };
            write(&path, &vec![rng.next() as u8; len]);
        }
    }
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
    .expect("removed");
}

/// File systems that are mounted in a tree, by their paths in it.
#[derive(Debug)]
struct Mounts {
    root: PathBuf,
    /// True if this process has its own mount namespace.
    can_mount: bool,
    at: BTreeSet<String>,
}

impl Mounts {
    /// Mounts a new file system on a directory of the tree, and fills it.
    fn add(&mut self, rng: &mut Rng, path: String) {
        let at = self.root.join(&path);
        let owner = "uid=65534,gid=65534,mode=755";
        if run(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                owner,
                "none",
                at.to_str().expect("text"),
            ],
        ) {
            grow(rng, &at, 2);
            self.at.insert(path);
        }
    }

    fn is_on(&self, path: &str) -> bool {
        self.at.contains(path)
    }

    /// Returns true if something is mounted on the path or below it.
    fn is_in_use(&self, path: &str) -> bool {
        self.at.iter().any(|at| is_in(at, path))
    }

    /// Returns the mount that contains a path, or `None` for the tree's own file system.
    fn of(&self, path: &str) -> Option<&String> {
        self.at.iter().rev().find(|at| is_in(path, at))
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for at in self.at.iter().rev() {
            run(
                "umount",
                &["-l", self.root.join(at).to_str().expect("text")],
            );
        }
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    std::process::Command::new(program)
        .args(args)
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs this test in its own mount namespace. Returns `None` if not allowed or already there.
fn in_own_mounts(test: &str) -> Option<bool> {
    let unshare = ["--mount", "--propagation", "private"];
    if std::env::var_os(OWN_MOUNTS).is_some()
        || !run("unshare", &[&unshare[..], &["true"]].concat())
    {
        return None;
    }
    let mut again = std::process::Command::new("unshare");
    again
        .args(unshare)
        .arg(std::env::current_exe().expect("known"))
        .args(["--exact", test, "--nocapture"]);
    Some(
        again
            .env(OWN_MOUNTS, "1")
            .status()
            .expect("started")
            .success(),
    )
}

/// Adds, removes, replaces and renames things at random. Mounts stay mounted.
fn change(rng: &mut Rng, root: &Path, mounts: &Mounts) {
    for _ in 0..2 + rng.below(8) {
        let all: Vec<(String, bool)> = paths(root).into_iter().collect();
        let mut dirs: Vec<String> = all
            .iter()
            .filter(|(_, is_dir)| *is_dir)
            .map(|(p, _)| p.clone())
            .collect();
        dirs.push(String::new());
        let dir = root.join(rng.pick(&dirs).expect("the root"));
        let one = rng.pick(&all).filter(|(path, _)| !mounts.is_in_use(path));
        match (rng.below(6), one) {
            (0, Some((path, _))) => remove(&root.join(path)),
            (1, Some((path, _))) => {
                remove(&root.join(&path));
                write(&root.join(path).join("inside").join("deeper"), b"new");
            }
            (2, Some((path, _))) => {
                remove(&root.join(&path));
                write(&root.join(path), b"a file now");
            }
            (3, Some((path, true))) => {
                let to = dir.join(NAMES[rng.below(NAMES.len())]);
                let to_path = to
                    .strip_prefix(root)
                    .expect("below")
                    .to_str()
                    .expect("text");
                if mounts.is_in_use(to_path) || mounts.of(to_path) != mounts.of(&path) {
                    continue;
                }
                if !to.starts_with(root.join(&path)) && !root.join(&path).starts_with(&to) {
                    if to.exists() {
                        remove(&to);
                    }
                    fs::rename(root.join(path), to).expect("renamed");
                }
            }
            (4, _) => grow(rng, &dir, 2),
            _ => {
                let new = dir.join(format!("new{}", rng.below(4)));
                if new.is_file() {
                    remove(&new);
                }
                if !new.join("x.log").is_dir() {
                    write(&new.join("x.log"), b"new");
                }
            }
        }
    }
}

/// One backup: its rules, the unreadable directories, and whether it was interrupted.
struct Capture {
    snapshot: SnapshotId,
    /// The true state of the tree.
    before: Paths,
    unreadable: BTreeSet<String>,
    never: Option<String>,
    /// Mount points that the backup did not enter.
    not_entered: BTreeSet<String>,
    is_checkpoint: bool,
}

/// Cancels after some entries.
struct Stopper {
    recording: Recording,
    left: AtomicU64,
    cancel: Cancel,
}

impl Observer for Stopper {
    fn add(&self, counter: Counter, amount: u64) {
        let is_due = counter == Counter::Entries
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    Some(left.saturating_sub(1))
                })
                == Ok(1);
        if is_due {
            self.cancel.cancel();
        }
        self.recording.add(counter, amount);
    }
    fn phase(&self, phase: &Phase) {
        self.recording.phase(phase);
    }
    fn expect(&self, total: u64, unit: ProgressUnit) {
        self.recording.expect(total, unit);
    }
    fn problem(&self, problem: &Problem) {
        self.recording.problem(problem);
    }
    fn detail(&self, verb: &'static str, subject: &icecore::observe::Subject) {
        self.recording.detail(verb, subject);
    }
}

fn random_spec(
    rng: &mut Rng,
    world: &TestRepo,
    all: &[(String, bool)],
) -> (TreeSpec, Option<String>) {
    let mut spec = TreeSpec {
        immutable: rng.chance(30),
        ..world.spec()
    };
    let filter = &mut spec.filter;
    if rng.chance(50) {
        filter.excludes = (0..1 + rng.below(2))
            .filter_map(|_| rng.pick(&PATTERNS))
            .map(OsString::from)
            .collect();
    }
    filter.exclude_caches = rng.chance(30);
    filter.exclude_larger_than = rng.chance(30).then_some(4000);
    filter.one_file_system = rng.chance(50);
    let dirs: Vec<String> = all
        .iter()
        .filter(|(_, is_dir)| *is_dir)
        .map(|(path, _)| path.clone())
        .collect();
    let never = rng.pick(&dirs).filter(|_| rng.chance(30));
    filter.never = never
        .iter()
        .map(|path| SourceDir::open_root(&world.path(path)).expect("opens").id())
        .collect();
    if never.is_some() {
        // If a user rule excluded the same directory too, the judge could not know why it is
        // missing.
        (filter.excludes, filter.exclude_caches) = (Vec::new(), false);
    } else if rng.chance(25) {
        // Some listed paths do not exist, or lead through a file.
        let list: Vec<String> = (0..1 + rng.below(4))
            .filter_map(|_| {
                let (path, _) = rng.pick(all)?;
                let name = NAMES[rng.below(NAMES.len())];
                Some(match rng.below(8) {
                    0 => format!("{path}/{name}"),
                    1 => format!("{path}/gone/{name}"),
                    _ => path,
                })
            })
            .collect();
        spec.files_from = FilesFrom::parse(list.join("\n").as_bytes()).ok();
    }
    (spec, never)
}

fn capture(
    rng: &mut Rng,
    world: &TestRepo,
    user_cache: &Path,
    mounts: &mut Mounts,
) -> Option<Capture> {
    if mounts.can_mount && rng.chance(35) {
        let mut free = paths(world.tree.path());
        free.retain(|path, is_dir| *is_dir && !mounts.is_in_use(path));
        let free: Vec<String> = free.into_keys().collect();
        rng.pick(&free)
            .into_iter()
            .for_each(|path| mounts.add(rng, path));
    }
    let before = paths(world.tree.path());
    let all: Vec<(String, bool)> = before.clone().into_iter().collect();
    let (spec, never) = random_spec(rng, world, &all);
    let not_entered = if spec.filter.one_file_system {
        mounts.at.clone()
    } else {
        BTreeSet::new()
    };
    let unreadable: BTreeSet<String> = all
        .iter()
        .filter(|(path, is_dir)| *is_dir && Some(path) != never.as_ref() && rng.chance(18))
        .map(|(path, _)| path.clone())
        .collect();

    let cancel = Cancel::new();
    let stop = if rng.chance(45) {
        1 + rng.below(12) as u64
    } else {
        u64::MAX
    };
    let observer = Stopper {
        recording: Recording::default(),
        left: stop.into(),
        cancel: cancel.clone(),
    };
    let options = BackupOptions {
        allow_empty: true,
        threads: Some(1),
        ..tree_options(spec)
    };

    // In path order: the deepest directories are closed first and the highest ones opened first.
    let set = |path: &String, mode| {
        fs::set_permissions(world.path(path), PermissionsExt::from_mode(mode)).expect("set");
    };
    unreadable.iter().rev().for_each(|path| set(path, 0));
    let report = as_ordinary_user(|| {
        backup(
            &world.open_with_cache(user_cache),
            options,
            Task::new(&observer, &cancel),
        )
    });
    unreadable.iter().for_each(|path| set(path, 0o755));
    let (snapshot, is_checkpoint) = match report {
        Ok(report) => (report.snapshot?, false),
        Err(err) => {
            assert!(cancel.is_cancelled(), "{err:?}");
            let all = world.open().snapshots(&mut |_, _| {}).expect("listed");
            let newest = all
                .into_iter()
                .max_by_key(|one| (one.stored, one.snapshot.ended))?;
            if newest.snapshot.state != SnapshotState::Checkpoint {
                return None;
            }
            (newest.id, true)
        }
    };
    Some(Capture {
        snapshot,
        before,
        unreadable,
        never,
        not_entered,
        is_checkpoint,
    })
}

/// Runs `work` on a thread without root's rights, since root can read everything.
fn as_ordinary_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                rustix::thread::set_thread_groups(&[]).expect("no groups");
                rustix::thread::set_thread_gid(rustix::fs::Gid::from_raw(65534))
                    .expect("another group");
                rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(65534))
                    .expect("another user");
            }
            work()
        });
        worker.join().expect("it ended")
    })
}

/// Options of a restore.
#[derive(Debug)]
struct Asked {
    delete_excluded: bool,
    /// `--exclude '*.keep'`
    keeps: bool,
    /// `--include 'b/'`
    includes: bool,
    /// The path that is restored.
    sub: String,
    protected: Option<String>,
}

/// Computes which paths must still exist.
struct Judge<'j> {
    capture: &'j Capture,
    held: &'j BTreeMap<String, Entry>,
    now: &'j Paths,
    mounts: &'j Mounts,
    request: &'j Asked,
    stays: BTreeSet<String>,
}

impl Judge<'_> {
    fn keep_all(&mut self, path: &str) {
        let below: Vec<String> = self
            .now
            .keys()
            .filter(|other| is_in(other, path))
            .cloned()
            .collect();
        self.stays.extend(below);
    }

    /// Removes everything of a path that may be removed; returns true if something of it stays.
    fn remove(&mut self, path: &str, is_dir: bool) -> bool {
        let is_kept = self.request.keeps && name_of(path).ends_with(".keep");
        if is_kept || self.request.protected.as_deref() == Some(path) || self.mounts.is_on(path) {
            self.keep_all(path);
            return true;
        }
        let below: Vec<(String, bool)> = children(self.now, path)
            .map(|(path, is_dir)| (path.clone(), is_dir))
            .collect();
        let mut stays = false;
        for (child, is_dir) in below.into_iter().filter(|_| is_dir) {
            stays |= self.remove(&child, is_dir);
        }
        if stays {
            self.stays.insert(path.to_owned());
        }
        stays
    }

    /// Returns true if the snapshot accounts for the names that it lacks directly in a directory.
    fn accounts_for(&self, dir: &str, is_stale: bool) -> bool {
        let lacks: Vec<&String> = children(&self.capture.before, dir)
            .map(|(path, _)| path)
            .filter(|path| !self.held.contains_key(*path))
            .collect();
        let never = self.capture.never.as_ref();
        !is_stale
            && !self.capture.is_checkpoint
            && !self.capture.not_entered.contains(dir)
            && (lacks.is_empty()
                || self.request.delete_excluded && !lacks.iter().any(|path| never == Some(*path)))
    }

    /// Judges a directory that is in the snapshot and exists.
    fn directory(&mut self, dir: &str, is_selected: bool, is_stale: bool) {
        let is_stale = is_stale || self.capture.unreadable.contains(dir);
        let there: Vec<(String, bool)> = children(self.now, dir)
            .map(|(path, is_dir)| (path.clone(), is_dir))
            .collect();
        for (path, is_dir) in there {
            let is_kept = self.request.keeps && name_of(&path).ends_with(".keep");
            if is_kept || self.request.protected.as_ref() == Some(&path) {
                self.keep_all(&path);
                continue;
            }
            match self.held.get(&path) {
                None if is_selected && self.accounts_for(dir, is_stale) => {
                    self.remove(&path, is_dir);
                }
                None => self.keep_all(&path),
                Some(entry) if entry.is_directory() && is_dir => {
                    let selected = is_selected || self.request.includes && name_of(&path) == "b";
                    self.directory(&path, selected, is_stale);
                }
                // The target has a directory, and the snapshot has something else.
                Some(entry) if is_dir => {
                    let was_seen = !is_stale && !self.capture.is_checkpoint;
                    let was_seen = was_seen && !self.capture.unreadable.contains(&path);
                    let goes =
                        entry.meta().is_some() && was_seen && is_selected && !self.request.keeps;
                    if goes {
                        self.remove(&path, true);
                    } else {
                        self.keep_all(&path);
                    }
                }
                // Overwritten at most; an older state never replaces another kind of thing.
                Some(_) => {}
            }
        }
    }
}

/// Counts the cases, so that the test cannot pass without meeting them.
#[derive(Debug, Default)]
struct Met {
    gone: u64,
    left: u64,
    checkpoints: u64,
    unreadable: u64,
    /// Names on file systems that were not entered.
    on_mounts: u64,
}

fn one_world(seed: u64, can_mount: bool, met: &mut Met) {
    let rng = &mut Rng(seed);
    let world = TestRepo::new();
    // The cache for backups by an ordinary user.
    let user_cache = tempfile::tempdir().expect("a directory");
    let mut mounts = Mounts {
        root: world.tree.path().into(),
        can_mount,
        at: BTreeSet::new(),
    };
    for dir in [world.tree.path(), user_cache.path()] {
        fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("set");
        if rustix::process::geteuid().is_root() {
            chown(dir, Some(65534), Some(65534)).expect("given away");
        }
    }

    grow(rng, world.tree.path(), 0);
    let mut last = None;
    // Generations of runs, merged and not.
    for _ in 0..1 + rng.below(4) {
        last = capture(rng, &world, user_cache.path(), &mut mounts);
        if rng.chance(70) {
            change(rng, world.tree.path(), &mounts);
        }
    }

    let Some(capture) = last else { return };
    let held: BTreeMap<String, Entry> = world
        .entries(capture.snapshot)
        .into_iter()
        .map(|entry| {
            (
                entry.path.to_string().trim_start_matches('/').to_owned(),
                entry,
            )
        })
        .collect();

    let now = paths(world.tree.path());
    let directories: Vec<String> = held
        .iter()
        .filter(|(path, entry)| entry.is_directory() && now.get(*path) == Some(&true))
        .map(|(path, _)| path.clone())
        .collect();
    let dirs: Vec<String> = now
        .iter()
        .filter(|(_, is_dir)| **is_dir)
        .map(|(path, _)| path.clone())
        .collect();
    let sub = rng
        .pick(&directories)
        .filter(|_| rng.chance(25))
        .unwrap_or_default();
    let request = Asked {
        delete_excluded: rng.chance(40),
        keeps: rng.chance(25),
        includes: rng.chance(15),
        protected: rng
            .pick(&dirs)
            .filter(|path| rng.chance(30) && !is_in(&sub, path)),
        sub,
    };

    let capture = &capture;
    let mounts = &mounts;
    let mut judge = Judge {
        capture,
        held: &held,
        now: &now,
        mounts,
        request: &request,
        stays: BTreeSet::new(),
    };
    let outside: Vec<String> = now
        .keys()
        .filter(|path| !is_in(path, &request.sub))
        .cloned()
        .collect();
    judge.stays.extend(outside);
    let is_stale = capture
        .unreadable
        .iter()
        .any(|path| is_in(&request.sub, path));
    let is_selected = !request.includes || request.sub.split('/').any(|name| name == "b");
    judge.directory(&request.sub, is_selected, is_stale);
    let stays = judge.stays;

    let mut protect = ProtectedDirs::default();
    request
        .protected
        .iter()
        .for_each(|path| protect.add(&world.path(path), "in use by the test"));
    let options = RestoreOptions {
        delete: true,
        delete_excluded: request.delete_excluded,
        exclude: request
            .keeps
            .then(|| OsString::from("*.keep"))
            .into_iter()
            .collect(),
        include: request
            .includes
            .then(|| OsString::from("b/"))
            .into_iter()
            .collect(),
        protect,
        owner: OwnerPolicy::Keep,
        // Durability is tested elsewhere.
        durability: SyncMethod::Skipped,
        ..RestoreOptions::default()
    };
    world.restore(
        capture.snapshot,
        &request.sub,
        world.path(&request.sub),
        &options,
    );

    let left = paths(world.tree.path());
    met.checkpoints += u64::from(capture.is_checkpoint);
    met.unreadable += capture.unreadable.len() as u64;
    let is_on_mount = |path: &&String| {
        mounts
            .of(path)
            .is_some_and(|at| capture.not_entered.contains(at))
    };
    met.on_mounts += now.keys().filter(is_on_mount).count() as u64;
    for path in now.keys().filter(|path| !held.contains_key(*path)) {
        let is_there = left.contains_key(path);
        *if is_there {
            &mut met.left
        } else {
            &mut met.gone
        } += 1;
        assert_eq!(
            is_there,
            stays.contains(path),
            "seed {seed}: '{path}' is {}; {request:?}; checkpoint: {}, unreadable: {:?}, never: {:?}, {mounts:?}, not entered: {:?}",
            if is_there { "still there" } else { "gone" },
            capture.is_checkpoint,
            capture.unreadable,
            capture.never,
            capture.not_entered,
        );
    }
}

#[test]
fn nothing_is_deleted_that_the_snapshot_cannot_account_for() {
    if let Some(passed) =
        in_own_mounts("partial::property::nothing_is_deleted_that_the_snapshot_cannot_account_for")
    {
        assert!(passed, "with mounts of its own");
        return;
    }
    let can_mount = std::env::var_os(OWN_MOUNTS).is_some();
    let mut met = Met::default();
    for seed in 0..SEEDS {
        one_world(0x1ce_c04e + seed, can_mount, &mut met);
    }
    println!("{met:?}; mounts: {can_mount}");
    assert!(
        met.gone > 50 && met.left > 50 && met.checkpoints > 2 && met.unreadable > 5,
        "{met:?}"
    );
    assert!(met.on_mounts > 5 || !can_mount, "{met:?}");
}
