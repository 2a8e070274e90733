//! Tables of decisions. Each row changes one thing in a case that is otherwise ordinary.

mod directories;
mod files;
mod immutable;

use super::candidate::TimedStat;
use super::decide::{CaptureAction, CaptureDecision, ObservedPath, PathDecision};
use super::rules::ScanRules;
use super::windows::RacyWindows;
use crate::source::{Filter, FilterOptions, FsKind, SourceStat, StatKind};
use crate::types::{
    Content, DeviceNumber, Entry, EntryFlags, Metadata, Node, Owner, RelPath, Timestamp,
};

/// A name that its bytes confirm.
const CHECKED: &[u8] = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// A name that is a hash, which the bytes alone cannot confirm.
const UNCHECKED: &[u8] = b"QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
/// A name that is not a hash.
const ORDINARY: &[u8] = b"name";

const CLOCK: Timestamp = Timestamp::from_seconds(1_000_000);
const WINDOW_SECONDS: i64 = 2;
/// The device of the root, and of most paths.
const DEVICE: u64 = 1;

fn at(seconds_before: i64) -> Timestamp {
    CLOCK.plus_seconds(-seconds_before)
}

fn path_of(text: &str) -> RelPath {
    RelPath::from_slashed(text.as_bytes()).expect("a path")
}

fn stat() -> SourceStat {
    SourceStat {
        kind: StatKind::File,
        mode: 0o644,
        uid: 5,
        gid: 6,
        size: 10,
        mtime: at(1000),
        ctime: at(900),
        inode: 7,
        device: DEVICE,
        nlink: 1,
        rdev: DeviceNumber { major: 0, minor: 0 },
        blocks: 8,
        mount_id: 1,
    }
}

fn directory_stat() -> SourceStat {
    SourceStat {
        kind: StatKind::Directory,
        ..stat()
    }
}

fn meta_of(stat: &SourceStat) -> Metadata {
    Metadata {
        mode: stat.mode,
        owner: Owner {
            uid: stat.uid,
            gid: stat.gid,
            ..Owner::default()
        },
        mtime: stat.mtime,
        ctime: stat.ctime,
        inode: stat.inode,
        ..Metadata::default()
    }
}

fn entry(node: Node, flags: EntryFlags) -> Entry {
    Entry {
        path: path_of("name"),
        flags,
        node,
    }
}

/// Returns the entry of a file as `stat()` describes it.
fn file(flags: EntryFlags) -> Entry {
    file_of(&stat(), flags)
}

fn file_of(stat: &SourceStat, flags: EntryFlags) -> Entry {
    let content = Content {
        size: stat.size,
        extents: Vec::new(),
    };
    let meta = meta_of(stat);
    entry(Node::File { meta, content }, flags)
}

fn directory(flags: EntryFlags) -> Entry {
    let meta = meta_of(&directory_stat());
    entry(Node::Directory { meta }, flags)
}

fn failed() -> Entry {
    let reason = "cannot read".to_owned();
    entry(Node::Failed { reason }, EntryFlags::empty())
}

fn filter(options: FilterOptions) -> Filter {
    Filter::new(&options).expect("a filter")
}

/// Returns rules that leave nothing out and accept nothing without a look.
fn rules(filter: &Filter) -> ScanRules<'_> {
    ScanRules {
        filter,
        files_from: None,
        immutable: false,
        no_skip: false,
        force: false,
        ignore_ctime: false,
        ignore_inode: false,
        root: directory_stat(),
    }
}

fn windows() -> RacyWindows {
    RacyWindows::fixed(WINDOW_SECONDS, DEVICE, FsKind::Local)
}

fn decide<'a>(
    rules: &ScanRules<'a>,
    path: &str,
    stat: SourceStat,
    previous: Option<&Entry>,
) -> PathDecision<'a> {
    let path = path_of(path);
    let observed = ObservedPath {
        name: path.name().unwrap_or_default(),
        path: &path,
        seen: TimedStat { stat, clock: CLOCK },
        previous,
    };
    rules.decide(&observed, &windows())
}

fn captured(decision: &PathDecision<'_>) -> CaptureDecision {
    match decision {
        PathDecision::Capture(decision) => *decision,
        other => panic!("not a file: {other:?}"),
    }
}

fn action(rules: &ScanRules<'_>, stat: SourceStat, previous: Option<&Entry>) -> CaptureAction {
    captured(&decide(rules, "name", stat, previous)).action
}

const UNCHANGED: CaptureAction = CaptureAction::Unchanged { revisit: false };
const UNCHANGED_REVISIT: CaptureAction = CaptureAction::Unchanged { revisit: true };
