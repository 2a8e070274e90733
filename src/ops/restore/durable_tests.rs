//! Tests that a reported restore is true and durable: interrupted files do not look finished, kept
//! files are compared on request, leftovers are removed, and a dry run reports the same plan.

use std::fs::{self, FileTimes};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::tests::{World, clean, listing, noise, options, what};
use super::*;
use crate::dest::SyncMethod;
use crate::observe::{Counter, Observer, Problem, ProgressUnit, Recording};
use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::task::Cancel;

/// Stops the restore when it begins to sync, like a crash: written files exist, and none has its
/// time yet.
struct StopsAtSync<'a>(&'a Cancel);

impl Observer for StopsAtSync<'_> {
    fn add(&self, _: Counter, _: u64) {}
    fn phase(&self, phase: &Phase) {
        if matches!(phase, Phase::Sync { .. }) {
            self.0.cancel();
        }
    }
    fn expect(&self, _: u64, _: ProgressUnit) {}
    fn problem(&self, _: &Problem) {}
    fn detail(&self, _: &'static str, _: &crate::observe::Subject) {}
}

fn cut_off(world: &World, options: &RestoreOptions) {
    let cancel = Cancel::new();
    let target = RestoreTarget::Directory(world.target.path().into());
    let stopped = restore(
        &world.repo(),
        &what(Some("tree"), ""),
        target,
        options,
        Task::new(&StopsAtSync(&cancel), &cancel),
    );
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
}

fn set_time(path: &Path, time: SystemTime) {
    let file = fs::File::options().append(true).open(path).expect("open");
    file.set_times(FileTimes::new().set_modified(time))
        .expect("a time");
}

/// Changes bytes in place; size and time stay the same.
fn damage(path: &Path) {
    let time = fs::metadata(path)
        .and_then(|meta| meta.modified())
        .expect("a time");
    let mut bytes = fs::read(path).expect("read");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    let file = fs::File::options().write(true).open(path).expect("open");
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).expect("written");
    set_time(path, time);
}

#[test]
fn a_file_cut_off_before_the_sync_does_not_look_finished() {
    let world = World::new();
    let now = SystemTime::now();
    let second = Duration::from_secs(1);
    let times = [
        ("now", now),
        ("soon", now + second),
        ("just", now - second),
        ("later", now + 3 * second),
        ("ahead", now + Duration::from_secs(400_000_000)),
        ("epoch", SystemTime::UNIX_EPOCH),
        ("old", now - Duration::from_secs(1_000_000_000)),
    ];

    for (name, time) in times {
        for (kind, bytes) in [("big", noise(1, 300_000)), ("small", b"literal".to_vec())] {
            let name = format!("{name}/{kind}");
            world.write(&name, &bytes);
            set_time(&world.from(&name), time);
        }
    }
    world.backup();

    for overwrite in [OverwriteRule::IfChanged, OverwriteRule::Always] {
        cut_off(
            &world,
            &RestoreOptions {
                overwrite,
                ..options()
            },
        );
        for (name, time) in times {
            for kind in ["big", "small"] {
                let held = fs::metadata(world.to(&format!("{name}/{kind}")))
                    .and_then(|meta| meta.modified());
                let held = held.expect("it has its name");
                let apart = held
                    .duration_since(time)
                    .or_else(|_| time.duration_since(held));
                assert!(
                    apart.expect("a span") >= 2 * second,
                    "{name}: a coarse clock would take it for finished"
                );
            }
        }
    }

    // The bytes that a crash left are not trusted.
    for (name, _) in times {
        damage(&world.to(&format!("{name}/big")));
    }
    clean(&world.restore(&options()));
    assert_eq!(
        listing(world.target.path()),
        listing(world.from("").as_path())
    );
}

#[test]
fn a_file_that_is_never_replaced_gets_its_name_once_complete() {
    let world = World::new();
    for number in 0..300 {
        world.write(
            &format!("d/{number:03}"),
            &noise(number as u8, 700 + number),
        );
    }
    world.write("d/linked", b"one file of two names");
    fs::hard_link(world.from("d/linked"), world.from("d/twice")).expect("a link");
    world.backup();

    for overwrite in [
        OverwriteRule::Never,
        OverwriteRule::IfSizeDiffers,
        OverwriteRule::IfNewer,
    ] {
        let _ = fs::remove_dir_all(world.to("d"));
        let found = world.restore(&RestoreOptions {
            overwrite,
            ..options()
        });
        clean(&found);
        assert_eq!((found.0.files_written, found.0.hard_links), (302, 1));
        assert_eq!(listing(&world.to("d")), listing(&world.from("d")));
    }
}

#[test]
fn every_way_of_syncing_gives_the_same() {
    for durability in [SyncMethod::Full, SyncMethod::EachFile] {
        let world = World::new();
        world.write("a/file", &noise(1, 100_000));
        world.write("a/b/small", b"small");
        symlink("file", world.from("a/link")).expect("a link");
        fs::hard_link(world.from("a/file"), world.from("a/other")).expect("a link");
        world.backup();
        let options = RestoreOptions {
            durability,
            ..options()
        };
        clean(&world.restore(&options));
        assert_eq!(
            listing(world.target.path()),
            listing(world.from("").as_path())
        );

        // Change only an attribute.
        fs::set_permissions(world.to("a/b/small"), PermissionsExt::from_mode(0o600)).expect("mode");
        let again = world.restore(&options);
        clean(&again);
        assert_eq!(again.0.files_written, 0);
        assert_eq!(
            listing(world.target.path()),
            listing(world.from("").as_path())
        );

        let single = RestoreTarget::Directory(world.to("new/single"));
        clean(
            &world
                .restore_as(what(Some("dump"), ""), single, &options, None)
                .expect("restored"),
        );
        assert_eq!(
            fs::read(world.to("new/single")).expect("read"),
            noise(9, 3 << 20)
        );
    }
}

#[test]
fn verify_compares_kept_files_and_rewrites_those_that_differ() {
    let world = World::new();
    world.write("big", &noise(1, 900_000));
    world.write("literal", b"some bytes");
    world.write("whole", &noise(2, 5000));
    world.write("x/linked", &noise(3, 70_000));
    fs::hard_link(world.from("x/linked"), world.from("x/twin")).expect("a link");

    let sparse = fs::File::create(world.from("sparse")).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&sparse, &noise(4, 9000), 1 << 20).expect("written");
    sparse.set_len(8 << 20).expect("a hole at the end");
    world.backup();

    let verify = RestoreOptions {
        verify: true,
        ..options()
    };
    let first = world.restore(&verify);
    clean(&first);
    assert_eq!((first.0.verified, first.0.different), (5, 0));
    let second = world.restore(&verify);
    clean(&second);
    assert_eq!((second.0.files_written, second.0.verified), (0, 5));

    for name in ["big", "literal", "x/linked", "sparse"] {
        damage(&world.to(name));
    }
    // Without `verify`, only size and time count.
    clean(&world.restore(&options()));
    assert_ne!(fs::read(world.to("big")).expect("read"), noise(1, 900_000));

    let dry = world.restore(&RestoreOptions {
        dry_run: true,
        ..verify.clone()
    });
    assert_eq!(
        (dry.0.different, dry.0.files_written),
        (5, 5),
        "each name is looked at"
    );
    assert!(
        dry.1
            .planned_so_far()
            .contains(&"Overwrite tree/big".to_owned()),
        "{:?}",
        dry.1.planned_so_far()
    );

    let never = world.restore(&RestoreOptions {
        overwrite: OverwriteRule::Never,
        ..verify.clone()
    });
    assert_eq!(
        (never.0.different, never.0.failed, never.0.files_written),
        (5, 5, 0)
    );

    let healed = world.restore(&verify);
    assert!(healed.0.is_complete());
    assert_eq!((healed.0.different, healed.0.verified), (4, 5));
    assert_eq!(
        healed.1.problems().len(),
        4,
        "each is named: {:?}",
        healed.1.problems()
    );
    assert_eq!(
        listing(world.target.path()),
        listing(world.from("").as_path())
    );

    let linked = fs::metadata(world.to("x/linked"));
    let twin = fs::metadata(world.to("x/twin"));
    assert_eq!(linked.expect("there").ino(), twin.expect("there").ino());
}

/// Changes one byte at a random offset, in every kind of content.
#[test]
fn verify_finds_any_changed_byte() {
    let seed = getrandom::u64().expect("random") as usize;
    println!("seed {seed}");
    let world = World::new();
    let file = fs::File::create(world.from("f")).expect("a file");
    for (at, len) in [(0, 1000), (200_000, 300_000), (3 << 20, 1)] {
        std::os::unix::fs::FileExt::write_all_at(&file, &noise(7, len), at).expect("written");
    }
    file.set_len(4 << 20).expect("a length");
    world.backup();
    clean(&world.restore(&options()));

    let verify = RestoreOptions {
        verify: true,
        ..options()
    };
    for round in 0..12 {
        let path = world.to("f");
        let time = fs::metadata(&path)
            .and_then(|meta| meta.modified())
            .expect("a time");

        let mut bytes = fs::read(&path).expect("read");
        let at = seed.wrapping_mul(round + 1).wrapping_mul(0x9e37_79b9) % bytes.len();
        bytes[at] = bytes[at].wrapping_add(1);
        let file = fs::File::options().write(true).open(&path).expect("open");
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..=at], at as u64)
            .expect("written");

        set_time(&path, time);
        assert_eq!(world.restore(&verify).0.different, 1, "byte {at}");
        assert_eq!(listing(&path), listing(&world.from("f")), "byte {at}");
    }
}

#[test]
fn leftovers_of_a_killed_restore_are_removed_and_not_backed_up() {
    let world = World::new();
    world.write("a/file", b"1");
    world.write("b/file", b"2");
    world.backup();
    clean(&world.restore(&options()));
    let names = ["a/.icecore-0123456789abcdef", "b/.icecore-fedcba9876543210"];
    let leave = || {
        for name in names {
            fs::write(world.to(name), "half of a file").expect("written");
        }
        fs::write(world.to("b/.icecore-notes"), "the user's").expect("written");
    };

    leave();
    let dry = world.restore(&RestoreOptions {
        dry_run: true,
        ..options()
    });
    assert_eq!(dry.0.leftovers, 2);
    assert!(names.iter().all(|name| world.to(name).exists()));

    // A backup of the target skips the leftovers and reports them.
    let trees = [
        TreeSpec::new("tree", world.from("")),
        TreeSpec::new("again", world.target.path()),
    ];
    let sources = trees
        .into_iter()
        .map(|tree| SourceSpec::Tree(Box::new(tree)))
        .collect();
    let backed = BackupOptions::new("host", sources);
    let observer = Recording::default();
    backup(&world.repo(), backed, Task::new(&observer, &Cancel::new())).expect("backup");
    assert!(
        observer
            .problems()
            .iter()
            .any(|problem| problem.message.contains("2 unfinished files")),
        "{:?}",
        observer.problems()
    );

    let copy = RestoreTarget::Directory(world.to("copy"));
    clean(
        &world
            .restore_as(what(Some("again"), ""), copy, &options(), None)
            .expect("restored"),
    );
    assert!(!world.to("copy/a/.icecore-0123456789abcdef").exists());
    assert!(world.to("copy/b/.icecore-notes").exists());

    let found = world.restore(&RestoreOptions {
        include: vec!["/a".into()],
        ..options()
    });
    assert_eq!(found.0.leftovers, 1, "only where it writes");
    leave();
    assert_eq!(world.restore(&options()).0.leftovers, 2);
    assert!(names.iter().all(|name| !world.to(name).exists()));
    assert!(world.to("b/.icecore-notes").exists());

    // A restore of a single file clears the directory that it is written to.
    leave();
    let single = RestoreTarget::Directory(world.to("a"));
    let (report, _) = world
        .restore_as(what(Some("tree"), "a/file"), single, &options(), None)
        .expect("restored");
    assert_eq!(report.leftovers, 1);
}

#[test]
fn a_dry_run_lists_what_it_would_do() {
    let world = World::new();
    for name in ["old", "newer", "same", "new", "gone/deep"] {
        world.write(name, name.as_bytes());
        set_time(
            &world.from(name),
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
        );
    }
    world.backup();
    clean(&world.restore(&options()));

    fs::remove_file(world.to("new")).expect("removed");
    fs::write(world.to("newer"), "changed by hand").expect("written");
    fs::write(world.to("old"), "an old state").expect("written");
    set_time(
        &world.to("old"),
        SystemTime::UNIX_EPOCH + Duration::from_secs(999_999_999),
    );
    fs::write(world.to("mine"), "mine").expect("written");

    let before = listing(world.target.path());
    let dry = world.restore(&RestoreOptions {
        dry_run: true,
        delete: true,
        ..options()
    });

    let expected = [
        "Write tree/new",
        "Overwrite tree/newer (newer)",
        "Overwrite tree/old",
        "Delete tree/mine",
    ];
    assert_eq!(dry.1.planned_so_far(), expected);
    assert_eq!(
        (dry.0.files_written, dry.0.deleted, dry.0.files_unchanged),
        (3, 1, 2)
    );
    assert_eq!(listing(world.target.path()), before);
}

#[test]
fn a_created_target_gets_the_mode_and_time_of_its_source() {
    let world = World::new();
    world.write("a/f", b"1");
    world.write("a/g", b"1");
    fs::set_permissions(world.from(""), PermissionsExt::from_mode(0o751)).expect("mode");
    fs::set_permissions(world.from("a"), PermissionsExt::from_mode(0o715)).expect("mode");
    set_time_of_directory(&world.from("a"));
    set_time_of_directory(&world.from(""));

    world.backup();
    let look = |path: &Path| {
        let meta = fs::metadata(path).expect("there");
        (meta.mode() & 0o7777, meta.mtime())
    };

    for (number, (from, include)) in [
        ("", vec![]),
        ("", vec!["f".into()]),
        ("a", vec!["f".into()]),
        ("a", vec![]),
    ]
    .into_iter()
    .enumerate()
    {
        for overwrite in [OverwriteRule::IfChanged, OverwriteRule::Never] {
            let to = world.to(&format!("{number}-{overwrite:?}/made/on the way"));
            let options = RestoreOptions {
                include: include.clone(),
                overwrite,
                ..options()
            };
            let target = RestoreTarget::Directory(to.clone());
            clean(
                &world
                    .restore_as(what(Some("tree"), from), target, &options, None)
                    .expect("restored"),
            );
            assert_eq!(
                look(&to),
                look(&world.from(from)),
                "{from} {include:?} {overwrite:?}"
            );
        }
    }

    // An existing directory that is not selected itself stays unchanged.
    let to = world.to("there");
    fs::create_dir(&to).expect("made");
    fs::set_permissions(&to, PermissionsExt::from_mode(0o700)).expect("mode");
    let only = RestoreOptions {
        include: vec!["f".into()],
        ..options()
    };
    clean(
        &world
            .restore_as(
                what(Some("tree"), ""),
                RestoreTarget::Directory(to.clone()),
                &only,
                None,
            )
            .expect("restored"),
    );
    assert_eq!(look(&to).0, 0o700);
}

fn set_time_of_directory(path: &Path) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(path)
        .and_then(|dir| dir.set_modified(time))
        .expect("a time");
}
