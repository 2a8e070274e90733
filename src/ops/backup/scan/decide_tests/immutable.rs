//! Decisions about the names of an immutable source.

use super::{
    CHECKED, ORDINARY, UNCHANGED, UNCHECKED, captured, decide, directory, failed, file, filter,
    rules, stat,
};
use crate::ops::backup::scan::decide::{CaptureAction, NameDecision, decide_name};
use crate::ops::backup::scan::rules::ScanRules;
use crate::source::{FilterOptions, ListedName, StatKind};
use crate::types::EntryFlags;

/// [R19](docs/protocol.md#r19): only names that are hashes are exempt from the stat.
#[test]
fn in_an_immutable_source_an_ordinary_name_has_its_directory_listed_again() {
    let everything = filter(FilterOptions::default());
    let immutable = || ScanRules {
        immutable: true,
        ..rules(&everything)
    };
    let read = CaptureAction::Read;
    let (plain, settled) = (EntryFlags::empty(), EntryFlags::SETTLED);
    let rows = [
        ("checked", immutable(), CHECKED, plain, UNCHANGED, false),
        ("not settled", immutable(), UNCHECKED, plain, read, false),
        ("settled", immutable(), UNCHECKED, settled, UNCHANGED, false),
        ("ordinary", immutable(), ORDINARY, plain, UNCHANGED, true),
        (
            "a mutable source",
            rules(&everything),
            UNCHECKED,
            plain,
            UNCHANGED,
            false,
        ),
        (
            "a mutable source",
            rules(&everything),
            ORDINARY,
            plain,
            UNCHANGED,
            false,
        ),
    ];
    for (row, rules, name, flags, expected, revisit) in rows {
        let name = std::str::from_utf8(name).expect("text");
        let decision = captured(&decide(&rules, name, stat(), Some(&file(flags))));
        assert_eq!(decision.action, expected, "{row}");
        assert_eq!(decision.revisit, revisit, "{row}");
    }
}

/// [R19](docs/protocol.md#r19): a name is exempt only while type and inode match its entry.
#[test]
fn a_listed_hash_is_exempt_from_the_stat_while_its_entry_holds() {
    let listed = |name: &[u8]| ListedName {
        name: name.to_vec(),
        inode: stat().inode,
        kind_hint: Some(StatKind::File),
    };
    let of_kind = |kind_hint| ListedName {
        kind_hint,
        ..listed(CHECKED)
    };
    let other_inode = ListedName {
        inode: 8,
        ..listed(CHECKED)
    };
    let unchanged = NameDecision::Unchanged;
    let look = NameDecision::Look;
    let some = |flags| Some(file(flags));
    let plain = || some(EntryFlags::empty());
    let rows = [
        ("checked", plain(), listed(CHECKED), unchanged),
        (
            "settled",
            some(EntryFlags::SETTLED),
            listed(UNCHECKED),
            unchanged,
        ),
        ("not settled", plain(), listed(UNCHECKED), look),
        (
            "ordinary",
            some(EntryFlags::SETTLED),
            listed(ORDINARY),
            look,
        ),
        ("racy", some(EntryFlags::RACY), listed(CHECKED), look),
        ("stale", some(EntryFlags::STALE), listed(CHECKED), look),
        ("torn", some(EntryFlags::TORN), listed(CHECKED), look),
        (
            "provisional",
            some(EntryFlags::PROVISIONAL),
            listed(CHECKED),
            look,
        ),
        ("another inode", plain(), other_inode, look),
        (
            "another type",
            plain(),
            of_kind(Some(StatKind::Symlink)),
            look,
        ),
        ("no type", plain(), of_kind(None), look),
        ("a failure before", Some(failed()), listed(CHECKED), look),
        (
            "a directory before",
            Some(directory(EntryFlags::empty())),
            listed(CHECKED),
            look,
        ),
        ("new", None, listed(CHECKED), NameDecision::Collect),
        (
            "new and ordinary",
            None,
            listed(ORDINARY),
            NameDecision::Collect,
        ),
        (
            "a new directory",
            None,
            of_kind(Some(StatKind::Directory)),
            look,
        ),
        ("new without a type", None, of_kind(None), look),
    ];
    for (row, previous, name, expected) in rows {
        assert_eq!(decide_name(previous.as_ref(), &name), expected, "{row}");
    }

    let everything = filter(FilterOptions::default());
    for (immutable, no_skip, expected) in [
        (false, false, true),
        (false, true, true),
        (true, true, true),
        (true, false, false),
    ] {
        let rules = ScanRules {
            immutable,
            no_skip,
            ..rules(&everything)
        };
        assert_eq!(
            rules.looks_at_each_name(),
            expected,
            "{immutable} {no_skip}"
        );
    }
}
