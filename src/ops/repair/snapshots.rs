//! Repairing snapshots: one that names what is lost gives way to a partial one that says so; one
//! that was set aside comes back when all that it names is there again.
//!
//! Chunks durable, segment → the new snapshot, which names the one that it replaces → the old one
//! is set aside. Of two that are listed the replaced one does not count, so a crash between the
//! steps shows nobody both, and the next repair ends it. Originals lie in `quarantine/`; a partial
//! one whose original came back goes the way of a forgotten one.

use std::collections::{BTreeMap, BTreeSet};

use super::dropped::{Root, dropped_and_there, missing};
use super::lost::LostList;
use super::partial::{MendedRuns, Mender};
use super::quarantine::{SetAside, remove, set_aside};
use crate::Error;
use crate::format::{
    LeaseKind, ObjectKind, SNAPSHOT_BYTES_MAX, Snapshot, SnapshotState, SourceKind, decode_snapshot,
};
use crate::index::{Index, Location, PackState};
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::ops::backup::Writers;
use crate::ops::packs::ListedPacks;
use crate::ops::verify::{Damage, Judge, suspects};
use crate::ops::walk::reading_lease;
use crate::ops::{Cancel, memory};
use crate::repo::{
    ChunkReader, Claims, Lease, Packer, PackerOptions, RepoError, Repository, StoredSnapshot,
    open_object, stored_limit,
};
use crate::store::{ObjectDir, ObjectKey, list_all};
use crate::types::{ByteSize, Class, PrefixMatch, RelPath, SnapshotId};

/// Which snapshots are repaired.
#[derive(Debug, Clone, PartialEq)]
pub struct RepairSnapshotsOptions {
    /// This machine's name, for the lease.
    pub host: String,
    /// These alone, given by id or unambiguous prefix; none: all.
    pub snapshots: Vec<String>,
    /// Set snapshots aside too that cannot be read now, as if they were damaged: for when they will
    /// not be readable again.
    pub set_aside_unreadable: bool,
    /// Look and tell, change nothing.
    pub dry_run: bool,
    /// Memory to keep within.
    pub memory: ByteSize,
}

impl Default for RepairSnapshotsOptions {
    fn default() -> Self {
        Self {
            host: String::new(),
            snapshots: Vec::new(),
            set_aside_unreadable: false,
            dry_run: false,
            memory: memory::BUDGET_DEFAULT,
        }
    }
}

/// A snapshot in whose place another was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    pub old: SnapshotId,
    /// None in a dry run.
    pub new: Option<SnapshotId>,
    /// Paths that the new one lacks something of; none are lacking in an original that came back.
    pub lost: u64,
}

/// What a repair of snapshots found and did; in a dry run, what it would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotsReport {
    pub looked_at: u64,
    /// Snapshots that gave way to partial ones.
    pub partial: Vec<Replaced>,
    /// Partial snapshots that gave way to their originals, or to ones that lack less.
    pub healed: Vec<Replaced>,
    /// What cannot be read as a snapshot and was set aside, and why: damaged, or put there by
    /// somebody without the key.
    pub set_aside: Vec<(ObjectKey, String)>,
    /// Snapshots that cannot be read themselves and stay where they are.
    pub unreadable: u64,
    /// Snapshots that cannot be read now, or need what cannot be read now: nothing was done with
    /// them.
    pub unreadable_now: u64,
}

impl SnapshotsReport {
    /// True if nothing was found that lacks something, or cannot be read.
    pub fn is_whole(&self) -> bool {
        self.partial.is_empty()
            && self.set_aside.is_empty()
            && self.unreadable == 0
            && self.unreadable_now == 0
    }
}

/// Puts partial snapshots in the place of those that name what is lost, and originals back where
/// nothing is lost any more. What lies in packs that are damaged and were not repaired is not
/// noticed: `repair packs` comes first.
///
/// # Errors
/// [`RepoError::Refused`] if packs are missing that `repair packs` was not told of, or if what
/// snapshots lack may be in dropped packs that are there. [`Error::Interrupted`] if cancelled; what
/// was put in place until then stays.
pub fn repair_snapshots(
    repo: &Repository,
    options: &RepairSnapshotsOptions,
    observer: &dyn Observer,
    cancel: &Cancel,
) -> Result<SnapshotsReport, Error> {
    let lease = match options.dry_run {
        true => reading_lease(repo, LeaseKind::Repair, &options.host)?,
        false => {
            repo.check_writable()?;
            Some(Lease::take(
                repo,
                LeaseKind::Repair,
                &options.host,
                repo.lease_times(),
            )?)
        }
    };
    observer.phase(&Phase::Index);
    let plan = memory::plan(options.memory, 1);
    let reader = ChunkReader::new(repo, plan.frame_cache_bytes);
    let report = SnapshotsReport::default();
    let mut repair = Repair {
        repo,
        options,
        lease: lease.as_ref(),
        reader: &reader,
        sorter_bytes: plan.sorter_bytes,
        observer,
        cancel,
        report,
    };
    repair.run()?;
    let report = repair.report;
    if let Some(lease) = lease {
        // A lease that cannot be deleted expires by itself.
        let _ = lease.release();
    }
    Ok(report)
}

pub(super) struct Repair<'a> {
    pub repo: &'a Repository,
    pub options: &'a RepairSnapshotsOptions,
    pub lease: Option<&'a Lease>,
    reader: &'a ChunkReader<'a>,
    sorter_bytes: usize,
    pub observer: &'a dyn Observer,
    pub cancel: &'a Cancel,
    pub report: SnapshotsReport,
}

impl Repair<'_> {
    fn run(&mut self) -> Result<(), Error> {
        self.set_unreadable_aside()?;
        let mut listed = self.list()?;
        crate::ops::sync_until(self.repo, self.observer, self.cancel)?;
        self.observer.phase(&Phase::Structure);
        self.end_what_was_begun(&mut listed)?;
        self.heal(&mut listed)?;
        listed.retain(|found| found.snapshot.state != SnapshotState::Checkpoint);
        if let Some(chosen) = choose(&self.options.snapshots, &listed)? {
            listed.retain(|found| chosen.contains(&found.id));
        }
        self.report.looked_at = listed.len() as u64;
        let (suspects, damage) = suspects(self.reader, listed.clone(), false, self.cancel)?;
        if damage.any_missing() {
            let why =
                "packs are missing; 'icecore repair packs' notes what is lost with them first";
            return Err(RepoError::Refused { why: why.into() }.into());
        }
        let ids: BTreeSet<SnapshotId> = suspects.iter().map(|&(id, _)| id).collect();
        self.refuse_for_dropped_packs(listed.iter().filter(|found| ids.contains(&found.id)))?;
        let mut runs = MendedRuns::new();
        for found in listed.iter().filter(|found| ids.contains(&found.id)) {
            self.cancel.check()?;
            self.replace(found, &damage, &mut runs)?;
        }
        Ok(())
    }

    /// Fails if what these snapshots lack may be in a dropped pack that is there: `repair packs`
    /// stores it again from there, or reports it as lost.
    fn refuse_for_dropped_packs<'s>(
        &self,
        suspects: impl Iterator<Item = &'s StoredSnapshot>,
    ) -> Result<(), Error> {
        let roots: Vec<Root> = suspects
            .map(|found| Root {
                snapshot: found.snapshot.clone(),
                is_listed: true,
            })
            .collect();
        if roots.is_empty() {
            return Ok(());
        }
        let packs = ListedPacks::list(self.repo)?;
        let dropped = dropped_and_there(self.repo, |id| packs.has(id))?;
        let Some(first) = dropped.first() else {
            return Ok(());
        };

        let lost = self.repo.ask_index(Index::lost)?;
        let mut is_held = |copy: &Location| Ok(copy.state != PackState::Dropped);
        if missing(self.repo, &roots, &lost, &mut is_held, self.cancel)?.is_empty() {
            return Ok(());
        }
        let why = format!(
            "cannot repair snapshots yet: what they lack may be in packs that were dropped and are there, {} of them, such as \
             {}; 'icecore repair packs' stores it again",
            dropped.len(),
            ObjectKey::Pack(*first)
        );
        Err(RepoError::Refused { why }.into())
    }

    /// The snapshots that can be read; the others were told of.
    fn list(&self) -> Result<Vec<StoredSnapshot>, Error> {
        Ok(self.repo.snapshots(&mut |_, _| {})?)
    }

    /// Ends repairs that were cut off between the new snapshot and the old one's way out.
    fn end_what_was_begun(&mut self, listed: &mut Vec<StoredSnapshot>) -> Result<(), Error> {
        let by_id: BTreeMap<SnapshotId, Snapshot> = listed
            .iter()
            .map(|found| (found.id, found.snapshot.clone()))
            .collect();
        let mut done = BTreeSet::new();
        for found in listed.iter() {
            let Some(old) = found.snapshot.replaces else {
                continue;
            };
            match by_id.get(&old) {
                // A partial one in the place of a better one; or a better one in the place of a
                // partial one.
                Some(_)
                    if found.snapshot.lost.is_some()
                        && is_more(&found.snapshot, by_id.get(&old)) =>
                {
                    self.quarantine(&old)?;
                    done.insert(old);
                }
                Some(partial) if partial.lost.is_some() => {
                    self.forget(&old)?;
                    done.insert(old);
                }
                _ => {}
            }
        }
        listed.retain(|found| !done.contains(&found.id));
        Ok(())
    }

    fn quarantine(&self, id: &SnapshotId) -> Result<(), Error> {
        let (from, to) = (
            ObjectKey::Snapshot(*id),
            ObjectKey::QuarantinedSnapshot(*id),
        );
        if !self.options.dry_run && set_aside(self.repo, &from, &to, self.cancel)? != SetAside::Done
        {
            return Err(RepoError::damaged(to, "it is there already, with other bytes").into());
        }
        Ok(())
    }

    fn forget(&self, id: &SnapshotId) -> Result<(), Error> {
        match self.lease {
            Some(lease) if !self.options.dry_run => Ok(self.repo.forget_snapshot(lease, id)?),
            _ => Ok(()),
        }
    }

    /// Puts originals back whose chunks all lie in known packs again.
    fn heal(&mut self, listed: &mut Vec<StoredSnapshot>) -> Result<(), Error> {
        let mut aside = self.quarantined()?;
        self.clear(&mut aside, listed)?;
        if aside.is_empty() {
            return Ok(());
        }
        let (bad, _) = suspects(self.reader, aside.clone(), true, self.cancel)?;
        let bad: BTreeSet<SnapshotId> = bad.into_iter().map(|(id, _)| id).collect();
        aside.retain(|found| !bad.contains(&found.id));
        // The best first.
        aside.sort_by_key(|found| lacks(&found.snapshot));
        let partials: Vec<StoredSnapshot> = listed
            .iter()
            .filter(|found| found.snapshot.lost.is_some())
            .cloned()
            .collect();
        for partial in partials {
            let root = partial.snapshot.original;
            let better = aside.iter().find(|found| {
                root == Some(found.snapshot.original.unwrap_or(found.id))
                    && lacks(&found.snapshot) < lacks(&partial.snapshot)
            });
            if let Some(better) = better {
                self.put_back(&partial, better, root)?;
                listed.retain(|found| found.id != partial.id);
            }
        }
        Ok(())
    }

    /// Lets go of what lies in quarantine although the original is listed again: nothing in it is
    /// not there too.
    fn clear(
        &self,
        aside: &mut Vec<StoredSnapshot>,
        listed: &[StoredSnapshot],
    ) -> Result<(), Error> {
        let is_back = |found: &StoredSnapshot| {
            let root = Some(found.snapshot.original.unwrap_or(found.id));
            let whole = listed
                .iter()
                .filter(|one| Some(one.first()) == root && lacks(&one.snapshot) == 0);
            let mut sources = whole.map(|one| &one.snapshot.sources);
            sources.any(|whole| found.snapshot.lost.is_some() || *whole == found.snapshot.sources)
        };
        let (back, rest): (Vec<_>, Vec<_>) = aside.drain(..).partition(is_back);
        *aside = rest;
        for found in back.iter().filter(|_| !self.options.dry_run) {
            remove(self.repo, &ObjectKey::QuarantinedSnapshot(found.id))?;
        }
        Ok(())
    }

    /// The snapshots in quarantine that can be read.
    fn quarantined(&self) -> Result<Vec<StoredSnapshot>, Error> {
        let mut out = Vec::new();
        for meta in list_all(self.repo.store(), ObjectDir::Quarantine)? {
            let ObjectKey::QuarantinedSnapshot(id) = meta.key else {
                continue;
            };
            let read = self
                .repo
                .store()
                .get(&meta.key, stored_limit(SNAPSHOT_BYTES_MAX));
            let opened = read.map_err(RepoError::from).and_then(|bytes| {
                let keys = self.repo.keys();
                open_object(
                    keys,
                    ObjectKind::Snapshot,
                    &meta.key,
                    &bytes,
                    SNAPSHOT_BYTES_MAX,
                )
            });
            match opened.map(|(_, plain)| decode_snapshot(&plain)) {
                Ok(Ok(snapshot)) => out.push(StoredSnapshot {
                    id,
                    stored: meta.modified,
                    snapshot,
                }),
                Ok(Err(_)) => {}
                Err(err) if err.is_unavailable() => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(out)
    }

    fn put_back(
        &mut self,
        partial: &StoredSnapshot,
        better: &StoredSnapshot,
        original: Option<SnapshotId>,
    ) -> Result<(), Error> {
        let mut replaced = Replaced {
            old: partial.id,
            new: None,
            lost: lacks(&better.snapshot),
        };
        if !self.options.dry_run {
            let lease = self.lease(partial)?;
            let snapshot = Snapshot {
                parents: vec![partial.id],
                // What was said of it meanwhile stays said.
                tags: partial.snapshot.tags.clone(),
                protected: partial.snapshot.protected,
                replaces: Some(partial.id),
                original,
                committed: Some(partial.committed()),
                ..better.snapshot.clone()
            };
            replaced.new = Some(self.repo.commit(lease, snapshot)?.id);
            self.forget(&partial.id)?;
            remove(self.repo, &ObjectKey::QuarantinedSnapshot(better.id))?;
        }
        let what = match replaced.lost {
            0 => "all that it holds is there again".to_owned(),
            lost => format!("{lost} of its paths lack something, fewer than before"),
        };
        self.observer.problem(&Problem::new(
            Severity::Note,
            ObjectKey::Snapshot(partial.id),
            what,
        ));
        self.report.healed.push(replaced);
        Ok(())
    }

    pub(super) fn lease(&self, parent: &StoredSnapshot) -> Result<Lease, Error> {
        let lease = Lease::take(
            self.repo,
            LeaseKind::Repair,
            &self.options.host,
            self.repo.lease_times(),
        )?;
        lease.set_parents(&[parent.id])?;
        Ok(lease)
    }

    /// Puts a partial snapshot in the place of one that names what is lost.
    fn replace(
        &mut self,
        found: &StoredSnapshot,
        damage: &Damage,
        runs: &mut MendedRuns,
    ) -> Result<(), Error> {
        let lease = if self.options.dry_run {
            None
        } else {
            Some(self.lease(found)?)
        };
        // A prune that came before the lease is known from here on.
        self.repo.sync()?;
        let mut nothing_kept = MendedRuns::new();
        let runs = if lease.is_some() {
            runs
        } else {
            &mut nothing_kept
        };
        let (mut snapshot, lost) = match self.mend(found, damage, runs, lease.as_ref()) {
            Ok(Some(mended)) => mended,
            Ok(None) => return Ok(()),
            // What it misses may come back: it stays as it is.
            Err(Error::Repo(err @ RepoError::ChunkUnreadable { now: true, .. })) => {
                self.report.unreadable_now += 1;
                let what = format!(
                    "{err}; the snapshot was left as it is: run this again once that can be read"
                );
                self.observer.problem(&Problem::new(
                    Severity::Damage,
                    ObjectKey::Snapshot(found.id),
                    what,
                ));
                return Ok(());
            }
            Err(err) => return Err(err),
        };
        let count = lost.count();
        snapshot.state = SnapshotState::Incomplete;
        snapshot.parents = vec![found.id];
        snapshot.replaces = Some(found.id);
        snapshot.original = Some(found.snapshot.original.unwrap_or(found.id));
        snapshot.committed = Some(found.committed());
        snapshot.lost = Some(lost.into_lost());
        let new = match lease {
            Some(lease) => {
                let committed = self.repo.commit(lease, snapshot)?;
                self.quarantine(&found.id)?;
                Some(committed.id)
            }
            None => None,
        };
        let what = format!("{count} of its paths lack something; the original is in quarantine");
        self.observer.problem(&Problem::new(
            Severity::Damage,
            ObjectKey::Snapshot(found.id),
            what,
        ));
        self.report.partial.push(Replaced {
            old: found.id,
            new,
            lost: count,
        });
        Ok(())
    }

    /// What is left of a snapshot; none if it proves whole.
    fn mend(
        &self,
        found: &StoredSnapshot,
        damage: &Damage,
        runs: &mut MendedRuns,
        lease: Option<&Lease>,
    ) -> Result<Option<(Snapshot, LostList)>, Error> {
        let claims = Claims::new(self.repo.index())?;
        let options = PackerOptions {
            workers: 1,
            level: 3,
            dry_run: lease.is_none(),
        };
        std::thread::scope(|scope| {
            let packer = Packer::start(scope, self.repo, lease, &claims, options, self.observer)?;
            let mut mender = Mender {
                reader: self.reader,
                judge: Judge::new(self.reader, damage),
                writers: Writers {
                    data: packer.writer(Class::Data),
                    metadata: packer.writer(Class::Metadata),
                },
                runs,
                lost: LostList::after(found.snapshot.lost.as_ref()),
                scratch: &self.repo.scratch_dir(),
                sorter_bytes: self.sorter_bytes,
                cancel: self.cancel,
            };
            let mended = mend_sources(&mut mender, &found.snapshot);
            let mended = mended.and_then(|mended| Ok(mender.writers.flush().map(|()| mended)?));
            let Mender { lost, writers, .. } = mender;
            drop(writers);
            match (mended, packer.finish()) {
                (Err(Error::Repo(RepoError::Stopped)), Err(err)) => Err(err.into()),
                (Err(err), _) => Err(err),
                (Ok(_), Err(err)) => Err(err.into()),
                (Ok(mended), Ok(_)) => Ok(mended.map(|snapshot| (snapshot, lost))),
            }
        })
    }
}

fn mend_sources(mender: &mut Mender<'_, '_>, old: &Snapshot) -> Result<Option<Snapshot>, Error> {
    let mut snapshot = old.clone();
    let mut is_changed = false;
    for source in &mut snapshot.sources {
        match &mut source.kind {
            SourceKind::Stream { content, .. } => {
                if let Some((left, bytes)) = mender.content(content)? {
                    mender.lost.add(&source.name, &RelPath::root(), Some(bytes));
                    *content = left;
                    source.counts.incomplete = 1;
                    is_changed = true;
                }
            }
            SourceKind::Tree { runs, .. } => {
                if let Some(left) = mender.tree(&source.name, runs)? {
                    *runs = left.runs;
                    source.counts.incomplete = left.incomplete;
                    // What is gone from its runs was there.
                    source.counts.partial = None;
                    is_changed = true;
                }
            }
        }
    }
    Ok(is_changed.then_some(snapshot))
}

/// How many paths a snapshot lacks something of.
pub(super) fn lacks(snapshot: &Snapshot) -> u64 {
    snapshot.lost.as_ref().map_or(0, |lost| lost.count)
}

/// True if the first lacks more than the second.
fn is_more(snapshot: &Snapshot, other: Option<&Snapshot>) -> bool {
    other.is_some_and(|other| lacks(snapshot) > lacks(other) || other.lost.is_none())
}

/// The snapshots that were named; none if none were.
fn choose(
    names: &[String],
    listed: &[StoredSnapshot],
) -> Result<Option<BTreeSet<SnapshotId>>, Error> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut out = BTreeSet::new();
    for name in names {
        match PrefixMatch::find(
            &name.to_ascii_lowercase(),
            listed.iter().map(|found| found.id),
        ) {
            PrefixMatch::One(id) => {
                out.insert(id);
            }
            PrefixMatch::None => {
                return Err(Error::NotThere(format!("there is no snapshot '{name}'")));
            }
            PrefixMatch::Many(ids) => {
                return Err(Error::Usage(format!(
                    "{} snapshots begin with '{name}'",
                    ids.len()
                )));
            }
        }
    }
    Ok(Some(out))
}
