//! A snapshot's tree as a side of the join.

use super::stored::{FileFault, FileSide, HeldFile, StoredFile};
use crate::ccn::NodeError;
use crate::format::RunRef;
use crate::observe::{Counter, Problem, Severity};
use crate::read::ReadSession;
use crate::repo::{MergedRuns, OnDamage, RepoError, RunStreams};
use crate::source::HashName;
use crate::task::Task;
use crate::types::{Entry, EntryFlags, Node};

/// All paths of a tree source. Unreadable pages are reported as damage and skipped.
pub(super) struct SnapshotSide<'a> {
    session: &'a ReadSession<'a>,
    runs: MergedRuns<'a>,
    /// Snapshot and source, for messages.
    subject: String,
    task: Task<'a>,
}

impl<'a> SnapshotSide<'a> {
    pub fn open(
        session: &'a ReadSession<'a>,
        snapshot: &impl std::fmt::Display,
        source: &str,
        runs: &[RunRef],
        task: Task<'a>,
    ) -> Result<Self, RepoError> {
        let runs = MergedRuns::open(session.reader(), runs, RunStreams::All, OnDamage::Skip)?;
        Ok(Self {
            session,
            runs,
            subject: format!("{snapshot}:{source}"),
            task,
        })
    }
}

impl FileSide for SnapshotSide<'_> {
    fn next(&mut self) -> Result<Option<StoredFile>, NodeError> {
        loop {
            self.session.keep()?;
            let mention = self.runs.next_mention()?;
            for unread in self.runs.take_uncertain() {
                let until = unread
                    .until
                    .map_or_else(|| "the end".to_owned(), |until| until.to_string());
                let message = format!(
                    "the paths from {} to {until} are unknown: {}",
                    unread.from, unread.why
                );
                self.task
                    .observer
                    .problem(&Problem::new(Severity::Damage, &self.subject, message));
            }
            match mention.map(|mention| mention.entry) {
                None => return Ok(None),
                Some(Entry {
                    node: Node::Removed,
                    ..
                }) => {}
                Some(entry) => {
                    self.task.observer.add(Counter::Entries, 1);
                    return Ok(Some(stored(&entry)));
                }
            }
        }
    }
}

fn stored(entry: &Entry) -> StoredFile {
    let hash = entry.path.name().and_then(HashName::parse);
    let held = match &entry.node {
        Node::File { content, .. } => {
            // Both flags are also set on files without a hash as their name. These do not belong to
            // the node.
            let fault = match hash {
                Some(_) if entry.flags.contains(EntryFlags::PROVISIONAL) => Some(FileFault::Name),
                Some(_) if entry.flags.contains(EntryFlags::TORN) => Some(FileFault::Torn),
                _ => None,
            };
            HeldFile::File {
                size: Some(content.size),
                fault,
            }
        }
        _ => HeldFile::NoFile,
    };
    StoredFile {
        key: entry.path.key().to_vec(),
        is_hash: hash.is_some(),
        held,
    }
}
