//! Decisions about directories.

use super::{
    DEVICE, at, captured, decide, directory, directory_stat, failed, file, filter, rules, stat,
};
use crate::ops::backup::scan::decide::{
    CaptureAction, DirectoryDecision, DirectoryOutside, PathDecision, SubdirectoryDecision,
};
use crate::ops::backup::scan::rules::ScanRules;
use crate::source::{DirectoryId, FilesFrom, FilterOptions, FsKind, SourceStat};
use crate::types::{EntryFlags, MissingNames};

/// [R7](docs/protocol.md#r7): only a directory without the flag *revisit* may be skipped, and
/// [R19](docs/protocol.md#r19): only in an immutable source.
#[test]
fn a_directory_is_skipped_only_if_nothing_in_it_can_have_changed() {
    let everything = filter(FilterOptions::default());
    let immutable = || ScanRules {
        immutable: true,
        ..rules(&everything)
    };
    let no_skip = || ScanRules {
        no_skip: true,
        ..immutable()
    };
    let same = directory_stat();
    let some = |flags| Some(directory(flags));
    let plain = || some(EntryFlags::empty());
    let (skip, list) = (DirectoryDecision::Skip, DirectoryDecision::List);
    let rows = [
        ("unchanged", immutable(), plain(), same, skip),
        (
            "partial",
            immutable(),
            some(EntryFlags::PARTIAL),
            same,
            skip,
        ),
        ("a mutable source", rules(&everything), plain(), same, list),
        ("other rules", no_skip(), plain(), same, list),
        (
            "revisit",
            immutable(),
            some(EntryFlags::REVISIT),
            same,
            list,
        ),
        ("stale", immutable(), some(EntryFlags::STALE), same, list),
        (
            "newer",
            immutable(),
            plain(),
            SourceStat {
                mtime: at(999),
                ..same
            },
            list,
        ),
        (
            "older",
            immutable(),
            plain(),
            SourceStat {
                mtime: at(1001),
                ..same
            },
            list,
        ),
        (
            "another ctime",
            immutable(),
            plain(),
            SourceStat {
                ctime: at(899),
                ..same
            },
            list,
        ),
        (
            "another inode",
            immutable(),
            plain(),
            SourceStat { inode: 8, ..same },
            list,
        ),
        ("new", immutable(), None, same, list),
        ("a failure before", immutable(), Some(failed()), same, list),
        (
            "a file before",
            immutable(),
            Some(file(EntryFlags::empty())),
            same,
            list,
        ),
    ];
    for (row, rules, previous, stat, expected) in rows {
        let decision =
            rules.decide_directory(&stat, previous.as_ref(), FsKind::Local, Some(DEVICE));
        assert_eq!(decision, expected, "{row}");

        // The same rule for a subdirectory that is known from the previous snapshot.
        let Some(previous) = previous else { continue };
        let expected = match expected {
            DirectoryDecision::Skip => SubdirectoryDecision::Skip,
            _ => SubdirectoryDecision::Enter,
        };
        assert_eq!(
            rules.decide_subdirectory(&stat, &previous),
            expected,
            "{row}"
        );
    }
}

#[test]
fn mounts_are_entered_as_the_rules_allow() {
    let everything = filter(FilterOptions::default());
    let one = filter(FilterOptions {
        one_file_system: true,
        ..FilterOptions::default()
    });
    let immutable = |filter| ScanRules {
        immutable: true,
        ..rules(filter)
    };
    let here = directory_stat();
    let there = SourceStat { device: 2, ..here };
    let (local, kernel) = (FsKind::Local, FsKind::Kernel);
    let known = directory(EntryFlags::empty());
    let some = Some(&known);
    let above = Some(DEVICE);
    let list = DirectoryDecision::List;
    let leave_mount = DirectoryDecision::LeaveMount;
    let leave_kernel = DirectoryDecision::LeaveKernel;
    let skip = DirectoryDecision::Skip;
    let rows = [
        (
            "a mount",
            rules(&everything),
            there,
            None,
            local,
            above,
            list,
        ),
        (
            "a forbidden mount",
            rules(&one),
            there,
            None,
            local,
            above,
            leave_mount,
        ),
        ("no mount", rules(&one), here, None, local, above, list),
        ("the root", rules(&one), here, None, local, None, list),
        (
            "an unchanged mount",
            immutable(&one),
            there,
            some,
            local,
            above,
            skip,
        ),
        (
            "a kernel mount",
            rules(&everything),
            there,
            None,
            kernel,
            above,
            leave_kernel,
        ),
        (
            "a forbidden one",
            rules(&one),
            there,
            None,
            kernel,
            above,
            leave_kernel,
        ),
        (
            "an unchanged one",
            immutable(&one),
            there,
            some,
            kernel,
            above,
            leave_kernel,
        ),
        (
            "below one",
            rules(&everything),
            here,
            None,
            kernel,
            above,
            list,
        ),
        (
            "unchanged below one",
            immutable(&one),
            here,
            some,
            kernel,
            above,
            skip,
        ),
        (
            "a kernel root",
            rules(&everything),
            here,
            None,
            kernel,
            None,
            list,
        ),
    ];
    for (row, rules, stat, previous, kind, above, expected) in rows {
        let decision = rules.decide_directory(&stat, previous, kind, above);
        assert_eq!(decision, expected, "{row}");
    }
}

#[test]
fn attributes_of_a_directory_are_kept_while_its_ctime_holds() {
    let everything = filter(FilterOptions::default());
    let plain = || rules(&everything);
    let no_skip = || ScanRules {
        no_skip: true,
        ..plain()
    };
    let same = directory_stat();
    let some = |flags| Some(directory(flags));
    let known = || some(EntryFlags::empty());
    let other_mtime = SourceStat {
        mtime: at(1),
        ..same
    };
    let other_ctime = SourceStat {
        ctime: at(1),
        ..same
    };
    let other_inode = SourceStat { inode: 8, ..same };
    let rows = [
        ("unchanged", plain(), known(), same, true),
        ("new names", plain(), known(), other_mtime, true),
        ("another ctime", plain(), known(), other_ctime, false),
        ("another inode", plain(), known(), other_inode, false),
        ("revisit", plain(), some(EntryFlags::REVISIT), same, false),
        ("stale", plain(), some(EntryFlags::STALE), same, false),
        ("other rules", no_skip(), known(), same, false),
        ("new", plain(), None, same, false),
        ("a failure before", plain(), Some(failed()), same, false),
    ];
    for (row, rules, previous, stat, expected) in rows {
        let keeps = rules.keeps_attributes(&stat, previous.as_ref());
        assert_eq!(keeps, expected, "{row}");
    }
}

#[test]
fn a_directory_is_entered_unless_it_is_excluded_or_our_own() {
    let own = DirectoryId {
        device: DEVICE,
        inode: 99,
    };
    let filter = filter(FilterOptions {
        excludes: vec!["cache/".into()],
        never: vec![own],
        ..FilterOptions::default()
    });
    let rules = rules(&filter);
    let own_stat = SourceStat {
        inode: own.inode,
        ..directory_stat()
    };
    let rows = [
        ("data", directory_stat(), None),
        ("cache", directory_stat(), Some(DirectoryOutside::Excluded)),
        ("data", own_stat, Some(DirectoryOutside::Own)),
        // Names in it are missing for another reason than the user's rules.
        ("cache", own_stat, Some(DirectoryOutside::Own)),
    ];
    for (path, stat, expected) in rows {
        let outside = match decide(&rules, path, stat, None) {
            PathDecision::Enter => None,
            PathDecision::LeaveOut(why) => Some(why),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(outside, expected, "{path}");
    }
    assert_eq!(DirectoryOutside::Own.missing_names(), MissingNames::Unseen);
    assert_eq!(
        DirectoryOutside::Excluded.missing_names(),
        MissingNames::Excluded
    );

    // A pattern for directories does not apply to a file, nor does the inode of a directory.
    let file = SourceStat {
        inode: own.inode,
        ..stat()
    };
    let decision = captured(&decide(&rules, "cache", file, None));
    assert_eq!(decision.action, CaptureAction::Read);

    // A subdirectory that the previous snapshot has, of a directory that is skipped.
    let known = directory(EntryFlags::empty());
    let rows = [
        (own_stat, SubdirectoryDecision::LeaveOut),
        (file, SubdirectoryDecision::Replaced),
        (directory_stat(), SubdirectoryDecision::Enter),
    ];
    for (stat, expected) in rows {
        assert_eq!(rules.decide_subdirectory(&stat, &known), expected);
    }
}

/// [R7](docs/protocol.md#r7): a listed path below something that is not a directory is missing.
#[test]
fn only_a_directory_leads_to_listed_paths() {
    let everything = filter(FilterOptions::default());
    let list = FilesFrom::parse(b"a/b\nc\n").expect("a list");
    let rules = ScanRules {
        files_from: Some(&list),
        ..rules(&everything)
    };
    let rows = [
        ("a", stat(), "miss"),
        ("a", directory_stat(), "enter"),
        ("a/b", stat(), "capture"),
        ("a/b", directory_stat(), "enter"),
        ("c", stat(), "capture"),
        // Below a listed directory everything is captured.
        ("c/d", stat(), "capture"),
    ];
    for (path, stat, expected) in rows {
        let decision = match decide(&rules, path, stat, None) {
            PathDecision::Miss(_) => "miss",
            PathDecision::Enter => "enter",
            PathDecision::Capture(_) => "capture",
            PathDecision::LeaveOut(_) => "leave out",
        };
        assert_eq!(decision, expected, "{path}");
    }
}
