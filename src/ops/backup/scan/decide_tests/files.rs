//! Decisions about files, links and the like, and about listed names.

use super::{
    CLOCK, DEVICE, ORDINARY, UNCHANGED, UNCHANGED_REVISIT, WINDOW_SECONDS, action, at, captured,
    decide, directory, entry, failed, file, file_of, filter, meta_of, path_of, rules, stat,
};
use crate::ops::backup::scan::candidate::TimedStat;
use crate::ops::backup::scan::decide::{CaptureAction, ObservedPath};
use crate::ops::backup::scan::rules::ScanRules;
use crate::ops::backup::scan::windows::RacyWindows;
use crate::source::{FilesFrom, FilterOptions, FsKind, ListedName, SourceStat, StatKind};
use crate::types::{EntryFlags, MissingNames, Node, RelPath};

/// [R17](docs/protocol.md#r17): any difference between the stat and the entry is a change.
#[test]
fn a_file_is_read_if_its_stat_differs_in_any_way() {
    let everything = filter(FilterOptions::default());
    let rules = rules(&everything);
    let read = CaptureAction::Read;
    let same = stat();
    let rows = [
        ("the same", same, UNCHANGED),
        ("longer", SourceStat { size: 11, ..same }, read),
        ("shorter", SourceStat { size: 9, ..same }, read),
        (
            "newer",
            SourceStat {
                mtime: at(999),
                ..same
            },
            read,
        ),
        (
            "older",
            SourceStat {
                mtime: at(1001),
                ..same
            },
            read,
        ),
        (
            "changed later",
            SourceStat {
                ctime: at(899),
                ..same
            },
            read,
        ),
        (
            "changed earlier",
            SourceStat {
                ctime: at(901),
                ..same
            },
            read,
        ),
        ("another inode", SourceStat { inode: 8, ..same }, read),
        // The change of a mode or an owner shows in the ctime.
        (
            "another mode alone",
            SourceStat {
                mode: 0o600,
                ..same
            },
            UNCHANGED,
        ),
        (
            "another device",
            SourceStat { device: 2, ..same },
            UNCHANGED,
        ),
    ];
    let previous = file(EntryFlags::empty());
    for (row, stat, expected) in rows {
        assert_eq!(action(&rules, stat, Some(&previous)), expected, "{row}");
    }
}

/// [R17](docs/protocol.md#r17): a racy file is read again, and so is one that was stale or torn.
#[test]
fn a_file_is_read_if_its_entry_is_not_a_settled_file() {
    let everything = filter(FilterOptions::default());
    let rules = rules(&everything);
    let link = entry(
        Node::Symlink {
            meta: meta_of(&stat()),
            target: b"to".to_vec(),
        },
        EntryFlags::empty(),
    );
    let rows = [
        ("nothing", None, CaptureAction::Read),
        ("a failure", Some(failed()), CaptureAction::Read),
        (
            "a directory",
            Some(directory(EntryFlags::empty())),
            CaptureAction::Read,
        ),
        ("a link", Some(link), CaptureAction::Read),
        ("racy", Some(file(EntryFlags::RACY)), CaptureAction::Read),
        ("stale", Some(file(EntryFlags::STALE)), CaptureAction::Read),
        ("torn", Some(file(EntryFlags::TORN)), CaptureAction::Read),
        ("settled", Some(file(EntryFlags::SETTLED)), UNCHANGED),
        ("cover", Some(file(EntryFlags::COVER)), UNCHANGED),
        // [R7](docs/protocol.md#r7): its directory must be listed again.
        (
            "provisional",
            Some(file(EntryFlags::PROVISIONAL)),
            UNCHANGED_REVISIT,
        ),
    ];
    for (row, previous, expected) in rows {
        assert_eq!(action(&rules, stat(), previous.as_ref()), expected, "{row}");
    }
}

/// The options of the user, and rules that differ from those of the previous snapshot.
#[test]
fn options_decide_what_counts_as_a_change() {
    let everything = filter(FilterOptions::default());
    let plain = || rules(&everything);
    let force = || ScanRules {
        force: true,
        ..plain()
    };
    let no_skip = || ScanRules {
        no_skip: true,
        ..plain()
    };
    let ignore_inode = || ScanRules {
        ignore_inode: true,
        ..plain()
    };
    let ignore_ctime = || ScanRules {
        ignore_ctime: true,
        ..plain()
    };

    let same = stat();
    let empty = SourceStat { size: 0, ..same };
    let other_inode = SourceStat { inode: 8, ..same };
    let other_ctime = SourceStat {
        ctime: at(800),
        ..same
    };
    let read = CaptureAction::Read;
    let rows = [
        ("force", force(), same, same, read),
        ("no skip, with content", no_skip(), same, same, UNCHANGED),
        ("no skip, empty", no_skip(), empty, empty, read),
        ("empty", plain(), empty, empty, UNCHANGED),
        (
            "ignored inode",
            ignore_inode(),
            same,
            other_inode,
            UNCHANGED,
        ),
        (
            "ignored inode, other ctime",
            ignore_inode(),
            same,
            other_ctime,
            read,
        ),
        (
            "ignored ctime",
            ignore_ctime(),
            same,
            other_ctime,
            UNCHANGED,
        ),
        (
            "ignored ctime, other inode",
            ignore_ctime(),
            same,
            other_inode,
            read,
        ),
        (
            "ignored ctime, other mode",
            ignore_ctime(),
            same,
            SourceStat {
                mode: 0o600,
                ..other_ctime
            },
            read,
        ),
        (
            "ignored ctime, other user",
            ignore_ctime(),
            same,
            SourceStat {
                uid: 9,
                ..other_ctime
            },
            read,
        ),
        (
            "ignored ctime, other group",
            ignore_ctime(),
            same,
            SourceStat {
                gid: 9,
                ..other_ctime
            },
            read,
        ),
    ];
    for (row, rules, before, now, expected) in rows {
        let previous = file_of(&before, EntryFlags::empty());
        assert_eq!(action(&rules, now, Some(&previous)), expected, "{row}");
    }
}

/// [R17](docs/protocol.md#r17): a young path is racy, and so is one from the future.
/// [R7](docs/protocol.md#r7): then its directory is listed again.
#[test]
fn a_young_path_is_racy_and_its_directory_is_listed_again() {
    let everything = filter(FilterOptions::default());
    let rules = rules(&everything);
    let rows = [
        ("old", at(1000), at(900), false),
        (
            "at the end of the window",
            at(1000),
            at(WINDOW_SECONDS),
            false,
        ),
        ("within the window", at(1000), at(WINDOW_SECONDS - 1), true),
        ("modified within the window", at(1), at(900), true),
        ("from the future", at(-1000), at(900), true),
    ];
    for (row, mtime, ctime, expected) in rows {
        for kind in [StatKind::File, StatKind::Symlink, StatKind::Fifo] {
            let stat = SourceStat {
                kind,
                mtime,
                ctime,
                ..stat()
            };
            let decision = captured(&decide(&rules, "name", stat, None));
            assert_eq!(decision.is_racy, expected, "{row}");
            assert_eq!(decision.revisit, expected, "{row}");
        }
    }
}

#[test]
fn files_are_excluded_by_size_and_kernel_memory_is_not_read() {
    let everything = filter(FilterOptions::default());
    let small = filter(FilterOptions {
        exclude_larger_than: Some(10),
        ..FilterOptions::default()
    });
    let of_size = |size| SourceStat { size, ..stat() };
    let huge = of_size((1 << 30) + 1);
    let (local, kernel) = (FsKind::Local, FsKind::Kernel);
    let fail = CaptureAction::Fail("it represents kernel memory, not a file");
    let rows = [
        (
            "at the limit",
            &small,
            of_size(10),
            local,
            CaptureAction::Read,
        ),
        (
            "above the limit",
            &small,
            of_size(11),
            local,
            CaptureAction::Exclude,
        ),
        ("a huge file", &everything, huge, local, CaptureAction::Read),
        ("kernel memory", &everything, huge, kernel, fail),
        (
            "a small kernel file",
            &everything,
            of_size(1 << 30),
            kernel,
            CaptureAction::Read,
        ),
        (
            "excluded kernel memory",
            &small,
            huge,
            kernel,
            CaptureAction::Exclude,
        ),
    ];
    for (row, filter, stat, kind, expected) in rows {
        let path = path_of("name");
        let observed = ObservedPath {
            name: ORDINARY,
            path: &path,
            seen: TimedStat { stat, clock: CLOCK },
            previous: None,
        };
        let windows = RacyWindows::fixed(WINDOW_SECONDS, DEVICE, kind);
        let decision = captured(&rules(filter).decide(&observed, &windows));
        assert_eq!(decision.action, expected, "{row}");
    }

    // The size of anything but a file does not count.
    for kind in [
        StatKind::Symlink,
        StatKind::Fifo,
        StatKind::Socket,
        StatKind::Char,
        StatKind::Block,
    ] {
        let stat = SourceStat { kind, ..huge };
        assert_eq!(action(&rules(&small), stat, None), CaptureAction::Record);
    }
}

#[test]
fn names_are_left_out_before_their_stat_where_that_is_enough() {
    let filter = filter(FilterOptions {
        excludes: vec!["*.tmp".into(), "cache/".into()],
        ..FilterOptions::default()
    });
    let list = FilesFrom::parse(b"a/b\n").expect("a list");
    let all = || rules(&filter);
    let listed = || ScanRules {
        files_from: Some(&list),
        ..all()
    };
    let name = |name: &str, kind_hint| ListedName {
        name: name.as_bytes().to_vec(),
        inode: 1,
        kind_hint,
    };
    let file = |text| name(text, Some(StatKind::File));
    let directory = |text| name(text, Some(StatKind::Directory));
    let root = RelPath::root();
    let excluded = Some(MissingNames::Excluded);
    let leftover = ".icecore-0123456789abcdef";
    let rows = [
        ("an ordinary file", all(), file("x"), false, None),
        ("an excluded file", all(), file("x.tmp"), false, excluded),
        (
            "an excluded directory",
            all(),
            directory("cache"),
            false,
            excluded,
        ),
        ("a file of that name", all(), file("cache"), false, None),
        (
            "a name without a type",
            all(),
            name("cache", None),
            false,
            None,
        ),
        ("a leftover", all(), file(leftover), false, excluded),
        (
            "a directory of that name",
            all(),
            directory(leftover),
            false,
            None,
        ),
        (
            "the tag of a cache",
            all(),
            file("CACHEDIR.TAG"),
            true,
            None,
        ),
        ("a file in a cache", all(), file("x"), true, excluded),
        ("not listed", listed(), file("x"), false, excluded),
        (
            "leads to a listed path",
            listed(),
            directory("a"),
            false,
            None,
        ),
        ("an unusable name", listed(), file("x/y"), false, None),
    ];
    for (row, rules, name, only_tag, expected) in rows {
        assert_eq!(rules.left_out(&root, &name, only_tag), expected, "{row}");
    }
}
