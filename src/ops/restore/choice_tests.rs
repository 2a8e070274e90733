//! Tests of the choice of paths: files that are newer, and patterns.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tests::{World, assert_equal, clean, options, what};
use super::*;
use crate::advice::RestoreAdvice;

#[test]
fn only_entries_that_are_newer_in_the_snapshot_are_written() {
    let world = World::new();
    let names = [
        "absent",
        "equal",
        "newer-here",
        "older-here",
        "same-time",
        "dir/in",
        "blocked/in",
    ];
    for name in names {
        world.write(name, b"snapshot");
    }
    symlink("snapshot", world.from("link")).expect("a link");
    symlink("snapshot", world.from("old-link")).expect("a link");
    world.backup();
    let if_newer = RestoreOptions {
        overwrite: OverwriteRule::IfNewer,
        ..options()
    };
    clean(&world.restore(&if_newer));
    assert_equal(&world);

    let at = |name: &str, ahead: i64| {
        let mtime = fs::metadata(world.from(name))
            .expect("stat")
            .modified()
            .expect("a time");
        let moved = Duration::from_secs(ahead.unsigned_abs());
        let mtime = if ahead < 0 {
            mtime - moved
        } else {
            mtime + moved
        };
        fs::File::open(world.to(name))
            .expect("a file")
            .set_modified(mtime)
            .expect("a time");
    };
    for (name, ahead) in [("newer-here", 60), ("older-here", -60), ("same-time", 0)] {
        fs::write(world.to(name), "mine").expect("written");
        at(name, ahead);
    }
    fs::remove_file(world.to("absent")).expect("removed");
    fs::remove_file(world.to("link")).expect("removed");
    symlink("mine", world.to("link")).expect("a link");
    fs::set_permissions(world.to("equal"), PermissionsExt::from_mode(0o600)).expect("mode");
    fs::remove_dir_all(world.to("blocked")).expect("removed");
    fs::write(world.to("blocked"), "mine").expect("a file in a directory's place");

    let dry = world.restore(&RestoreOptions {
        dry_run: true,
        ..if_newer.clone()
    });
    let planned = dry.1.planned_so_far();
    assert_eq!(planned, ["Write tree/absent", "Overwrite tree/older-here"]);
    let found = world.restore(&if_newer);
    for (report, observer) in [&dry, &found] {
        assert_eq!(
            (report.files_written, report.newer_here, report.failed),
            (2, 3, 1)
        );
        assert_eq!(observer.problems()[0].subject, "tree/blocked");
    }

    let read =
        |name: &str| String::from_utf8(fs::read(world.to(name)).expect("read")).expect("text");
    assert_eq!(
        (read("newer-here"), read("same-time")),
        ("mine".into(), "mine".into())
    );
    assert_eq!(
        (read("absent"), read("older-here")),
        ("snapshot".into(), "snapshot".into())
    );
    assert_eq!(read("blocked"), "mine");
    assert_eq!(
        fs::read_link(world.to("link")).expect("a link"),
        Path::new("mine")
    );
    let mode = |path: PathBuf| fs::metadata(path).expect("stat").permissions().mode();
    assert_eq!(
        mode(world.to("equal")),
        mode(world.from("equal")),
        "what is the same gets its metadata"
    );

    // `verify` reports the paths that were left.
    let verified = world.restore(&RestoreOptions {
        verify: true,
        ..if_newer.clone()
    });
    assert_eq!(
        (verified.0.different, verified.0.files_written),
        (2, 0),
        "{:?}",
        verified.1.problems()
    );

    fs::remove_file(world.to("blocked")).expect("removed");
    fs::remove_file(world.to("link")).expect("removed");
    fs::create_dir(world.to("link"))
        .expect("an empty directory in a link's place, newer than the link");
    let found = world.restore(&if_newer);
    clean(&found);
    assert!(world.to("link").is_dir() && read("blocked/in") == "snapshot");
}

/// Patterns for --exclude that are written like paths in listings and other programs would exclude
/// nothing, and the restore would write those paths.
#[test]
fn exclude_patterns_that_begin_with_the_path_or_name_of_a_source_are_refused() {
    let world = World::new();
    for name in ["a/x.txt", "b/z", "dump/y"] {
        world.write(name, b"1");
    }
    world.backup();

    let own = world.from("a").into_os_string();
    let restore_excluding = |source: Option<&str>, path: &str, exclude: &std::ffi::OsStr| {
        let options = RestoreOptions {
            exclude: vec![exclude.to_owned()],
            ..options()
        };
        world.restore_as(
            what(source, path),
            RestoreTarget::Directory(world.to("new")),
            &options,
            None,
        )
    };

    for pattern in [own.as_os_str(), "tree/a".as_ref(), "/tree/a".as_ref()] {
        for (source, path) in [(None, ""), (Some("tree"), ""), (Some("tree"), "a")] {
            let error = restore_excluding(source, path, pattern).expect_err("refused");
            assert_eq!(
                error.advice(),
                Some(Advice::Restore(RestoreAdvice::ExcludePattern {
                    pattern: "/a".into()
                })),
                "{pattern:?}: {error}"
            );
            assert!(!world.to("new").exists(), "nothing is written");
        }
    }

    // A name at the root of a source, a different name, and the right forms.
    for pattern in ["dump/y", "trees/a", "/a", "a", "!tree", "tree/"] {
        assert!(
            restore_excluding(None, "", pattern.as_ref()).is_ok(),
            "{pattern}"
        );
    }
}

/// A pattern that matches nothing is reported, regardless of the other patterns and of the source.
#[test]
fn include_patterns_that_match_nothing_are_in_the_report() {
    let world = World::new();
    for name in ["a/x.txt", "a/deep/y.bin", "b/z"] {
        world.write(name, b"1");
    }
    world.backup();

    let restore_matching =
        |source: Option<&str>, path: &str, include: &[&str], exclude: &[&str], dry_run: bool| {
            let patterns = |all: &[&str]| all.iter().map(Into::into).collect();
            let options = RestoreOptions {
                include: patterns(include),
                exclude: patterns(exclude),
                dry_run,
                ..options()
            };
            let target = RestoreTarget::Directory(world.to("new"));
            let (report, _) = world
                .restore_as(what(source, path), target, &options, None)
                .expect("restored");
            let names = report
                .unmatched
                .iter()
                .map(|one| one.pattern.to_string_lossy().into_owned());
            (names.collect::<Vec<_>>(), report.entries)
        };

    for dry_run in [true, false] {
        for (source, path, include, exclude, unmatched) in [
            (None, "", &["nosuch"][..], &[][..], &["nosuch"][..]),
            (
                Some("tree"),
                "",
                &["nosuch", "*.txt", "/y.bin"],
                &[],
                &["nosuch", "/y.bin"],
            ),
            // Below a directory that is selected as a whole, and above the restored path.
            (
                Some("tree"),
                "",
                &["a/", "/a/deep/y.bin", "z/"],
                &[],
                &["z/"],
            ),
            (Some("tree"), "a/deep", &["/a", "b"], &[], &["b"]),
            (Some("tree"), "b/z", &["z", "x.txt"], &[], &["x.txt"]),
            // An excluded path is not a match; a pattern that selects nothing needs no match.
            (Some("tree"), "", &["y.bin", "z"], &["deep/"], &["y.bin"]),
            (Some("tree"), "", &["z", "!nosuch"], &["nosuch-either"], &[]),
            (Some("dump"), "", &["dump"], &[], &["dump"]),
        ] {
            let (found, _) = restore_matching(source, path, include, exclude, dry_run);
            assert_eq!(found, unmatched, "{include:?} {exclude:?} {path}");
        }
    }

    assert_eq!(
        restore_matching(Some("tree"), "", &["z", "!z"], &[], true),
        (Vec::new(), 0)
    );
}
