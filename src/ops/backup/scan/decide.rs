//! Decides what the scan does with each path, from its name, its stat, its previous entry and the
//! rules alone. Nothing here looks at the file system; [`Scan`](super::state::Scan) acts.

use super::candidate::TimedStat;
use super::rules::ScanRules;
use super::windows::RacyWindows;
use crate::source::{FsKind, HashName, ListedName, NeededName, SourceStat, StatKind};
use crate::types::{Entry, EntryFlags, MissingNames, Node, RelPath};

/// A larger file of a kernel file system is not read: it represents memory or a device.
const KERNEL_FILE_BYTES_MAX: u64 = 1 << 30;

/// The treatment of a listed name of an immutable source, whose stat is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameDecision {
    /// The previous entry is kept without a look at the file.
    Unchanged,
    /// A new file: its stat is taken together with others.
    Collect,
    /// Its stat is taken now.
    Look,
}

/// The treatment of an existing path.
#[derive(Debug)]
pub(super) enum PathDecision<'r> {
    /// A directory is opened and walked.
    Enter,
    /// A directory is not part of the snapshot, and its previous entry is removed.
    LeaveOut(DirectoryOutside),
    /// The path leads to listed paths and is not a directory, so none of them exists.
    Miss(NeededName<'r>),
    /// Anything but a directory is compared with its previous entry.
    Capture(CaptureDecision),
}

/// Why a directory is not part of the snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DirectoryOutside {
    /// It is the directory of the repository, the cache or the state.
    Own,
    /// The user's patterns exclude it.
    Excluded,
}

impl DirectoryOutside {
    /// Returns the mark for the directory that holds it.
    pub(super) fn missing_names(self) -> MissingNames {
        match self {
            Self::Own => MissingNames::Unseen,
            Self::Excluded => MissingNames::Excluded,
        }
    }
}

/// The decision about a path that is not a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CaptureDecision {
    pub action: CaptureAction,
    /// The next change of the path may leave no trace in its stat
    /// ([R17](docs/protocol.md#r17)).
    pub is_racy: bool,
    /// The directory must be listed again next time, also if the path is captured without a
    /// failure ([R7](docs/protocol.md#r7), [R19](docs/protocol.md#r19)).
    pub revisit: bool,
}

/// The treatment of a path that is not a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaptureAction {
    /// The previous entry is kept. With `revisit` its directory must be listed again next time.
    /// The caller reads the file if a chunk of its content is lost.
    Unchanged { revisit: bool },
    /// A file is given to the reader threads.
    Read,
    /// The entry of a link, a device or the like is made and compared with the previous one.
    Record,
    /// The user's rules leave it out, and its previous entry is removed.
    Exclude,
    /// It cannot be captured, for this reason.
    Fail(&'static str),
}

/// How an open directory is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DirectoryDecision {
    /// It is unchanged and not listed: its subdirectories are those of the previous snapshot.
    Skip,
    /// The kernel generates the files of this mount. Only the entry of the directory is captured.
    LeaveKernel,
    /// The rules keep the walk on the file system of the root. Only its entry is captured.
    LeaveMount,
    /// It is listed.
    List,
}

/// The treatment of a subdirectory of a skipped directory. It is known from the previous snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubdirectoryDecision {
    /// It is unchanged. It is opened only if it has subdirectories.
    Skip,
    /// It is opened and walked.
    Enter,
    /// It became something else while the directory was skipped.
    Replaced,
    /// It is our own directory, and its previous entry is removed.
    LeaveOut,
}

/// An existing path, as far as a decision depends on it.
pub(super) struct ObservedPath<'p> {
    pub path: &'p RelPath,
    pub name: &'p [u8],
    pub seen: TimedStat,
    pub previous: Option<&'p Entry>,
}

impl<'a> ScanRules<'a> {
    /// Returns true if the stats of all listed names are taken: names that are hashes of their
    /// content are not trusted.
    pub(super) fn looks_at_each_name(&self) -> bool {
        !self.immutable || self.no_skip
    }

    /// Decides about an existing path.
    pub(super) fn decide(
        &self,
        observed: &ObservedPath<'_>,
        windows: &RacyWindows,
    ) -> PathDecision<'a> {
        let stat = &observed.seen.stat;
        if stat.kind == StatKind::Directory {
            return match self.outside(observed.path, stat) {
                Some(why) => PathDecision::LeaveOut(why),
                None => PathDecision::Enter,
            };
        }

        // A directory of listed paths that is something else is not captured.
        let needed = self.files_from.and_then(|list| list.needed(observed.path));
        if let Some(needed) = needed.filter(|needed| !needed.is_listed) {
            return PathDecision::Miss(needed);
        }

        let is_racy = stat.is_racy(observed.seen.clock, windows.seconds(stat));
        // An ordinary name may change in place, which the times of its directory do not show.
        let is_ordinary = self.immutable && HashName::parse(observed.name).is_none();
        PathDecision::Capture(CaptureDecision {
            action: self.action(observed, windows),
            is_racy,
            revisit: is_racy || is_ordinary,
        })
    }

    /// Returns why a directory is not part of the snapshot, or `None` if it is. If the listing has
    /// no types, patterns for directories apply only now.
    fn outside(&self, path: &RelPath, stat: &SourceStat) -> Option<DirectoryOutside> {
        if self.filter.is_never(stat.id()) {
            Some(DirectoryOutside::Own)
        } else if self.filter.excludes(path, true) {
            Some(DirectoryOutside::Excluded)
        } else {
            None
        }
    }

    fn action(&self, observed: &ObservedPath<'_>, windows: &RacyWindows) -> CaptureAction {
        let stat = &observed.seen.stat;
        if stat.kind != StatKind::File {
            return CaptureAction::Record;
        }
        if self.filter.excludes_size(stat.size) {
            return CaptureAction::Exclude;
        }
        if stat.size > KERNEL_FILE_BYTES_MAX && windows.kind(stat) == FsKind::Kernel {
            return CaptureAction::Fail("it represents kernel memory, not a file");
        }

        match observed.previous {
            Some(previous) if self.is_unchanged(previous, observed.name, stat) => {
                CaptureAction::Unchanged {
                    revisit: previous.wants_revisit(),
                }
            }
            _ => CaptureAction::Read,
        }
    }

    /// Returns true if a file is the one of its previous entry, by its stat
    /// ([R17](docs/protocol.md#r17)).
    fn is_unchanged(&self, previous: &Entry, name: &[u8], stat: &SourceStat) -> bool {
        let Node::File { meta, content } = &previous.node else {
            return false;
        };
        let again = EntryFlags::RACY
            .with(EntryFlags::STALE)
            .with(EntryFlags::TORN);

        let unsettled = self.immutable
            && !previous.flags.contains(EntryFlags::SETTLED)
            && HashName::parse(name).is_some_and(|hash| hash.expected_sha256().is_none());

        // An empty file was accepted by its size alone, under rules that have changed since.
        let is_suspect = stat.size == 0 && self.no_skip;
        !self.force
            && !is_suspect
            && !unsettled
            && !previous.flags.intersects(again)
            && content.size == stat.size
            && meta.mtime == stat.mtime
            && (self.ignore_inode || meta.inode == stat.inode)
            && (meta.ctime == stat.ctime
                || self.ignore_ctime
                    && (meta.mode, meta.owner.uid, meta.owner.gid)
                        == (stat.mode, stat.uid, stat.gid))
    }

    /// Decides how an open directory is walked. `kind`: of its file system. `above`: the device of
    /// the directory that holds it, `None` for the root.
    pub(super) fn decide_directory(
        &self,
        stat: &SourceStat,
        previous: Option<&Entry>,
        kind: FsKind,
        above: Option<u64>,
    ) -> DirectoryDecision {
        if kind == FsKind::Kernel && above.is_some_and(|device| device != stat.device) {
            DirectoryDecision::LeaveKernel
        } else if self.may_skip(stat, previous) {
            DirectoryDecision::Skip
        } else if self.filter.excludes_mount(&self.root, stat) {
            DirectoryDecision::LeaveMount
        } else {
            DirectoryDecision::List
        }
    }

    /// Decides about a subdirectory of a skipped directory.
    pub(super) fn decide_subdirectory(
        &self,
        stat: &SourceStat,
        previous: &Entry,
    ) -> SubdirectoryDecision {
        if stat.kind != StatKind::Directory {
            SubdirectoryDecision::Replaced
        } else if self.filter.is_never(stat.id()) {
            SubdirectoryDecision::LeaveOut
        } else if self.may_skip(stat, Some(previous)) {
            SubdirectoryDecision::Skip
        } else {
            SubdirectoryDecision::Enter
        }
    }

    /// Returns true for an unchanged directory of an immutable source, which is not listed
    /// ([R7](docs/protocol.md#r7), [R19](docs/protocol.md#r19)).
    fn may_skip(&self, stat: &SourceStat, previous: Option<&Entry>) -> bool {
        self.immutable
            && !self.no_skip
            && previous.is_some_and(|previous| {
                !must_be_listed(previous)
                    && matches!(&previous.node, Node::Directory { meta }
                        if (meta.mtime, meta.ctime, meta.inode) == (stat.mtime, stat.ctime, stat.inode))
            })
    }

    /// Returns true if the attributes of a directory are those of its previous entry: its ctime and
    /// inode are unchanged, and were not racy then.
    pub(super) fn keeps_attributes(&self, stat: &SourceStat, previous: Option<&Entry>) -> bool {
        !self.no_skip
            && previous.is_some_and(|previous| {
                !must_be_listed(previous)
                    && previous
                        .meta()
                        .is_some_and(|meta| (meta.ctime, meta.inode) == (stat.ctime, stat.inode))
            })
    }
}

fn must_be_listed(directory: &Entry) -> bool {
    directory
        .flags
        .intersects(EntryFlags::REVISIT.with(EntryFlags::STALE))
}

/// Decides about a listed name of an immutable source.
pub(super) fn decide_name(previous: Option<&Entry>, name: &ListedName) -> NameDecision {
    match previous {
        Some(previous) if is_settled(previous, name) => NameDecision::Unchanged,
        None if name.kind_hint == Some(StatKind::File) => NameDecision::Collect,
        _ => NameDecision::Look,
    }
}

/// Returns true if a name of an immutable source need not be looked at: its hash was checked, or it
/// is settled, and the inode and type are the same ([R19](docs/protocol.md#r19)).
fn is_settled(previous: &Entry, name: &ListedName) -> bool {
    let open = EntryFlags::RACY
        .with(EntryFlags::STALE)
        .with(EntryFlags::TORN)
        .with(EntryFlags::PROVISIONAL);
    let Some(hash) = HashName::parse(&name.name) else {
        return false;
    };
    previous.is_file()
        && !previous.flags.intersects(open)
        && (hash.expected_sha256().is_some() || previous.flags.contains(EntryFlags::SETTLED))
        && name.kind_hint == Some(StatKind::File)
        && previous.meta().is_some_and(|meta| meta.inode == name.inode)
}
