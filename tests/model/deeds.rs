//! Operations of a host, each as one call that can run on a separate thread.

use std::path::PathBuf;

use icecore::Error;
use icecore::observe::Recording;
use icecore::ops::backup::{BackupOptions, backup};
use icecore::ops::forget::{forget_named, undelete};
use icecore::ops::prune::{PruneOptions, prune};
use icecore::ops::repair::{RepairPacksOptions, repair_index, repair_packs};
use icecore::ops::tag::{TagChange, retag};
use icecore::repo::{HostChoice, Repository, Secret};
use icecore::store::SharedStore;
use icecore::task::{Cancel, Task};
use icecore::types::SnapshotId;

/// All inputs of an operation.
pub struct Job {
    pub store: SharedStore,
    pub cache: PathBuf,
    pub host: &'static str,
    pub work: Work,
}

/// An operation and its subject.
pub enum Work {
    Backup(Box<BackupOptions>),
    Prune { now: bool },
    Forget(SnapshotId),
    Undelete(SnapshotId),
    Tag(SnapshotId, u8),
    RepairIndex,
    RepairPacks,
    AddKey,
    ChangeKey,
}

/// The result of a successful operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Committed(SnapshotId),
    /// The same snapshot under another name.
    Replaced {
        from: SnapshotId,
        by: SnapshotId,
    },
    Done(String),
}

impl Job {
    pub fn run(self) -> Result<Outcome, Error> {
        let observer = Recording::default();
        let cancel = Cancel::new();
        let repo =
            Repository::open(self.store, &Secret::empty(), &self.cache)?.with_client(self.host);

        let done = match self.work {
            Work::Backup(options) => {
                let report = backup(&repo, *options, Task::new(&observer, &cancel))?;
                return Ok(Outcome::Committed(report.snapshot.expect("no dry run")));
            }
            Work::Prune { now } => {
                let options = PruneOptions {
                    now,
                    threads: 1,
                    level: 1,
                    ..PruneOptions::default()
                };
                let report = prune(&repo, &options, Task::new(&observer, &cancel))?;
                format!("{report:?}")
            }
            Work::Forget(id) => {
                forget_named(&repo, &[id.to_string()], &HostChoice::Any, false, &observer)?;
                String::new()
            }
            Work::Undelete(id) => {
                let back = undelete(&repo, &id.to_string(), Task::new(&observer, &cancel))?;
                return Ok(Outcome::Replaced {
                    from: back.from,
                    by: back.id,
                });
            }
            Work::Tag(id, tag) => {
                let change = TagChange {
                    set: Some(vec![tag.to_string()]),
                    ..TagChange::default()
                };
                let name = [id.to_string()];
                let done = retag(
                    &repo,
                    &name,
                    &HostChoice::Any,
                    &change,
                    Task::new(&observer, &cancel),
                )?;
                match done.first().and_then(|one| one.id) {
                    Some(by) => return Ok(Outcome::Replaced { from: id, by }),
                    None => String::new(),
                }
            }
            Work::RepairIndex => {
                format!("{:?}", repair_index(&repo, Task::new(&observer, &cancel))?)
            }
            Work::RepairPacks => {
                let options = RepairPacksOptions {
                    threads: 1,
                    ..Default::default()
                };
                format!(
                    "{:?}",
                    repair_packs(&repo, &options, Task::new(&observer, &cancel))?
                )
            }
            Work::AddKey => repo.add_key(&Secret::empty(), "another")?,
            Work::ChangeKey => repo.change_key(&Secret::empty(), "changed")?,
        };

        Ok(Outcome::Done(done))
    }
}
