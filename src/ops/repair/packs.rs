//! Repair of packs that are damaged or missing: chunks that can still be read are stored again, the
//! packs are condemned, chunks that cannot be read are recorded as lost, and damaged objects are
//! moved to quarantine.
//!
//! Saved chunks durable in new packs → segment with condemned packs and lost chunks → damaged
//! object moved to quarantine. States only move forward, so the next repair completes one that was
//! interrupted. Two concurrent repairs do no harm: both save, both condemn. A later prune drops
//! condemned packs. Each repair searches again for lost chunks, in packs that came back and in
//! quarantine. It also searches for chunks that snapshots need and that only dropped packs hold
//! (`dropped`).
//!
//! A pack that cannot be read now is not damaged. It is condemned too, so that backups do not refer
//! to it and store its chunks again when they read them, but it stays in `packs/`. Readers find its
//! chunks there once it can be read, a prune keeps it while a snapshot needs it, and a repair that
//! can read it stores its contents again. If many packs cannot be read, the medium is at fault and
//! such packs are not condemned either.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::dropped::dropped_and_there;
use super::index::report_unreadable;
use super::pack_listing::PackHolder;
use super::pack_repair::{BadPack, PackRepair};
use super::packs_report::{DamagedPack, PackFate, PacksReport, RepairPacksOptions};
use super::quarantine::{SetAside, set_aside, set_foreign_aside};
use super::salvage::{salvage, without_good_copy};
use crate::Error;
use crate::format::LeaseKind;
use crate::index::{Index, PackRow, PackState};
use crate::observe::{Phase, Problem, Severity};
use crate::ops::memory;
use crate::ops::packs::stat_pack;
use crate::ops::verify::{check_all, digest};
use crate::read::reading_lease;
use crate::repo::{Lease, RebuiltIndex, RepoError, Repository};
use crate::store::{ObjectDir, ObjectKey, list_all};
use crate::task::Task;
use crate::types::{ChunkId, PackId, PrefixMatch, to_u64, to_usize};

/// Damaged packs are processed in batches of about this many chunks, so that their ids fit in
/// memory and in a segment.
const BATCH_CHUNKS: usize = 256 << 10;

/// Up to this many packs that cannot be read now count as individual bad packs, even if that is a
/// large share of all packs.
const UNREADABLE_FEW: u64 = 8;

/// Finds damaged packs, stores their readable chunks again, and moves the packs to quarantine.
///
/// Chunks that cannot be read anywhere are recorded as lost in a segment. The next backup of a
/// source that still has them stores them again. Nothing is deleted that is not in quarantine.
///
/// # Errors
/// [`Error::Interrupted`] if cancelled; the next repair continues from there.
pub fn repair_packs(
    repo: &Repository,
    options: &RepairPacksOptions,
    task: Task<'_>,
) -> Result<PacksReport, Error> {
    let lease = if options.dry_run {
        None
    } else {
        repo.check_writable()?;
        Some(Lease::take(repo, LeaseKind::Repair)?)
    };
    let reading = if options.dry_run {
        reading_lease(repo, LeaseKind::Repair)?
    } else {
        None
    };

    let mut repair = PackRepair::new(repo, lease.as_ref(), options.set_aside_unreadable, task);
    repair.run(options)?;

    let report = repair.report;
    drop((lease, reading));
    Ok(report)
}

impl PackRepair<'_> {
    fn run(&mut self, options: &RepairPacksOptions) -> Result<(), Error> {
        self.task.observer.phase(&Phase::Index);
        self.adopt()?;
        self.task.observer.phase(&Phase::Structure);
        self.list()?;

        let bad = self.find(options)?;
        let bad = self.heal(bad)?;
        self.packs.bad = bad.iter().map(|bad| bad.row.id).collect();
        let bad = self.leave_to_the_medium(bad);
        self.search_for_lost()?;

        // Batches bound the ids that are in memory at once.
        let mut batch = Vec::new();
        let mut chunks = 0;
        for one in bad {
            chunks += to_usize(one.row.chunks);
            batch.push(one);
            if chunks >= BATCH_CHUNKS {
                self.deal_with(std::mem::take(&mut batch))?;
                chunks = 0;
            }
        }
        self.deal_with(batch)?;

        self.store_dropped_again()?;
        self.renew_parity()?;

        self.report.still_lost = to_u64(self.repo.with_index(Index::lost)?.len());
        if self.lease.is_some() {
            let new = self.report.lost_chunks + self.report.lost_for_now;
            self.report.still_lost = self.report.still_lost.saturating_sub(new);
        }
        Ok(())
    }

    /// Updates the index, orphan packs included.
    fn adopt(&mut self) -> Result<(), Error> {
        let Some(lease) = self.lease else {
            return crate::read::sync(self.repo, self.task.observer);
        };
        let go_on = || {
            if self.task.cancel.is_cancelled() {
                Err(RepoError::Stopped)
            } else {
                Ok(())
            }
        };

        let adopted = match self.repo.adopt_orphans(lease, &mut || go_on()) {
            Err(RepoError::Stopped) => return Err(Error::Interrupted),
            other => other?,
        };

        report_unreadable(&adopted, self.task.observer);
        let RebuiltIndex {
            packs,
            unreadable,
            unreadable_now,
            ..
        } = adopted;
        self.report.adopted_packs = packs;
        self.report.unreadable_now += to_u64(unreadable_now.len());

        for (id, what) in unreadable {
            lease.check()?;
            // A pack is written atomically and with its directory, so this object is not the
            // beginning of a pack.
            if set_foreign_aside(self.repo, id, self.task.cancel)? == SetAside::Done {
                self.report.damaged.push(DamagedPack {
                    id,
                    what,
                    fate: PackFate::Foreign,
                });
            }
        }
        Ok(())
    }

    /// Removes packs that cannot be read now from `bad` if their number shows that the medium or
    /// the connection fails.
    ///
    /// Condemning all of them would make backups store all their data again. These packs are
    /// reported and left alone.
    fn leave_to_the_medium(&mut self, bad: Vec<BadPack>) -> Vec<BadPack> {
        let unreadable = to_u64(bad.iter().filter(|bad| bad.now).count());
        self.report.unreadable_now += unreadable;
        let is_medium = unreadable > UNREADABLE_FEW && unreadable * 4 > self.report.packs_read;
        if !is_medium || self.set_aside_unreadable {
            return bad;
        }

        let (unreadable, bad): (Vec<BadPack>, Vec<BadPack>) =
            bad.into_iter().partition(|bad| bad.now);
        for BadPack { row, what, .. } in unreadable {
            let message =
                format!("cannot be read now, like many others, and was left unchanged: {what}");
            self.task.observer.problem(&Problem::new(
                Severity::Damage,
                ObjectKey::Pack(row.id),
                message,
            ));
            self.report.damaged.push(DamagedPack {
                id: row.id,
                what,
                fate: PackFate::Unreadable,
            });
        }
        bad
    }

    fn list(&mut self) -> Result<(), Error> {
        for meta in list_all(self.repo.store(), ObjectDir::Packs)? {
            if let ObjectKey::Pack(id) = meta.key {
                self.packs.listed.insert(id, meta.size);
            }
        }

        let mut found = Vec::new();
        for meta in list_all(self.repo.store(), ObjectDir::Quarantine)? {
            if let ObjectKey::QuarantinedPack(id) = meta.key {
                found.push((id, meta.size));
            }
        }

        let dropped = dropped_and_there(self.repo, |id| self.packs.listed.contains_key(id))?;

        let segment_entries = self.repo.segment_entries_of(
            &found
                .iter()
                .map(|&(id, _)| id)
                .chain(dropped.clone())
                .collect(),
        )?;
        let holder = |key, id, size| PackHolder {
            key,
            id,
            size,
            segment_entries: segment_entries.get(&id).cloned().unwrap_or_default(),
        };

        self.packs.quarantined = found
            .into_iter()
            .map(|(id, size)| holder(ObjectKey::QuarantinedPack(id), id, size))
            .collect();
        self.packs.dropped = dropped
            .into_iter()
            .map(|id| holder(ObjectKey::Pack(id), id, self.packs.listed[&id]))
            .collect();
        Ok(())
    }

    /// Returns the held packs that are damaged or missing.
    fn find(&mut self, options: &RepairPacksOptions) -> Result<Vec<BadPack>, Error> {
        let held: Vec<PackRow> = self
            .repo
            .with_index(Index::packs)?
            .into_iter()
            .filter(|pack| pack.added && pack.state != PackState::Dropped)
            .collect();
        self.report.packs = to_u64(held.len());
        let chosen = choose(&options.packs, &held)?;
        let mut bad = Vec::new();
        let mut plan = Vec::new();

        for row in held {
            self.task.check()?;
            let Some(size) = self.size_of(&row)? else {
                // A missing condemned pack was processed by an earlier repair. It is included
                // because segments may list chunks of it that the earlier repair did not know.
                bad.push(BadPack {
                    row,
                    size: 0,
                    what: "it is not in the store".into(),
                    now: false,
                });
                continue;
            };

            if size != row.size {
                let what = format!(
                    "it has {size} bytes in the store, {} in the index",
                    row.size
                );
                bad.push(BadPack {
                    row,
                    size,
                    what,
                    now: false,
                });
            } else if !options.quick
                && chosen
                    .as_ref()
                    .is_none_or(|chosen| chosen.contains(&row.id))
            {
                plan.push((row, size));
            }
        }

        if !plan.is_empty() {
            self.task.observer.phase(&Phase::Data);
            bad.extend(self.read(plan, options)?);
        }
        bad.sort_by_key(|bad| bad.row.id);
        Ok(bad)
    }

    /// Returns the pack's size in the store, or `None` if it is certainly missing.
    fn size_of(&mut self, row: &PackRow) -> Result<Option<u64>, Error> {
        if let Some(&size) = self.packs.listed.get(&row.id) {
            return Ok(Some(size));
        }
        // A single listing can be incomplete: list once more, then look up the name.
        if !self.listed_again {
            self.listed_again = true;
            self.relist(1)?;
            if let Some(&size) = self.packs.listed.get(&row.id) {
                return Ok(Some(size));
            }
        }
        let size = stat_pack(self.repo, &row.id)?.map(|meta| meta.size);
        if let Some(size) = size {
            self.packs.listed.insert(row.id, size);
        }
        Ok(size)
    }

    fn read(
        &mut self,
        plan: Vec<(PackRow, u64)>,
        options: &RepairPacksOptions,
    ) -> Result<Vec<BadPack>, Error> {
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let workers = memory::plan(options.memory, threads).workers;

        let digests = self.digests()?;
        let checks = check_all(self.repo, &plan, &digests, None, workers, self.task)?;
        self.report.packs_read = to_u64(checks.len());

        let rows: HashMap<PackId, (PackRow, u64)> =
            plan.into_iter().map(|one| (one.0.id, one)).collect();
        let bad_parity = checks
            .iter()
            .filter(|check| check.parity.is_some())
            .map(|check| check.id);
        self.packs.bad_parity = bad_parity.collect();

        let damaged = checks.into_iter().filter_map(|check| {
            let what = check.findings.into_iter().map(|(_, what)| what).next()?;
            let (row, size) = *rows.get(&check.id)?;
            Some(BadPack {
                row,
                size,
                what,
                now: check.unreadable_now,
            })
        });
        Ok(damaged.collect())
    }

    /// Returns a hash of each pack's frames and chunks as the segments list them.
    fn digests(&self) -> Result<HashMap<PackId, [u8; 32]>, Error> {
        let mut digests = HashMap::new();
        for id in self.repo.listed_segments()? {
            self.task.check()?;
            match self.repo.read_segment(&id) {
                Ok(body) => body.packs.iter().for_each(|pack| {
                    digests.entry(pack.id).or_insert_with(|| digest(pack));
                }),
                Err(err) if err.is_unavailable() => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(digests)
    }

    /// Searches for chunks that earlier repairs recorded as lost: they may have come back.
    fn search_for_lost(&mut self) -> Result<(), Error> {
        let lost = self.repo.with_index(Index::lost)?;
        let found = salvage(self.repo, self.lease, &self.packs, &[], lost, self.task)?;
        self.report.saved_chunks += found.chunks;
        self.report.saved_bytes += found.bytes;
        self.relist(found.packed.packs)
    }

    fn deal_with(&mut self, mut batch: Vec<BadPack>) -> Result<(), Error> {
        // A prune may have dropped some of them in the meantime.
        self.repo.sync()?;
        let mut held = Vec::new();
        for bad in batch.drain(..) {
            // Another repair may have put the intact pack back since the listing.
            let now = self.repo.store().stat(&ObjectKey::Pack(bad.row.id));
            if bad.size == 0 && now.is_ok_and(|now| now.size == bad.row.size) {
                continue;
            }
            let row = self.repo.with_index(|index| index.pack(&bad.row.id))?;
            if let Some(row) = row.filter(|row| row.added && row.state != PackState::Dropped) {
                held.push(BadPack { row, ..bad });
            }
        }
        if held.is_empty() {
            return Ok(());
        }

        let segment_entries = self
            .repo
            .segment_entries_of(&held.iter().map(|bad| bad.row.id).collect())?;
        let holders: Vec<PackHolder> = held
            .iter()
            .map(|bad| PackHolder {
                key: ObjectKey::Pack(bad.row.id),
                id: bad.row.id,
                size: bad.size,
                segment_entries: segment_entries
                    .get(&bad.row.id)
                    .cloned()
                    .unwrap_or_default(),
            })
            .collect();
        let mut ids: BTreeMap<PackId, BTreeSet<ChunkId>> = BTreeMap::new();
        for holder in &holders {
            ids.insert(holder.id, holder.ids(self.repo)?);
        }

        let wanted = without_good_copy(
            self.repo,
            &self.packs,
            ids.values().flatten().copied().collect(),
        )?;

        let repo = self.repo;
        let lease = self.lease;
        let saved = salvage(repo, lease, &self.packs, &holders, wanted, self.task)?;
        self.relist(saved.packed.packs)?;
        self.report.saved_chunks += saved.chunks;
        self.report.saved_bytes += saved.bytes;

        // Chunks that are recorded as lost already are not counted again.
        let known = self.repo.with_index(Index::lost)?;
        let lost: Vec<ChunkId> = saved.lost.difference(&known).copied().collect();
        let unreadable: BTreeSet<PackId> = held
            .iter()
            .filter(|bad| bad.now)
            .map(|bad| bad.row.id)
            .collect();
        let in_unreadable = |id: &ChunkId| {
            ids.iter()
                .any(|(pack, ids)| unreadable.contains(pack) && ids.contains(id))
        };
        let for_now = to_u64(lost.iter().filter(|id| in_unreadable(id)).count());
        self.report.lost_for_now += for_now;
        self.report.lost_chunks += to_u64(lost.len()) - for_now;

        for bad in &held {
            self.note(bad, ids.get(&bad.row.id), &saved.lost, &lost);
        }

        // The segment is published before any pack is moved. After a crash between the two, the
        // next repair moves the packs.
        self.publish(&held, lost)?;
        let all = self.set_aside_unreadable;
        for bad in held.iter().filter(|bad| bad.size > 0 && (!bad.now || all)) {
            self.set_aside(bad)?;
        }
        Ok(())
    }

    fn note(
        &mut self,
        bad: &BadPack,
        ids: Option<&BTreeSet<ChunkId>>,
        lost: &BTreeSet<ChunkId>,
        newly: &[ChunkId],
    ) {
        let hit = |ids: &BTreeSet<ChunkId>| ids.iter().filter(|id| lost.contains(id)).count();
        let gone = ids.map_or(0, hit);
        let is_new = ids.is_some_and(|ids| newly.iter().any(|id| ids.contains(id)));
        if bad.size == 0 && bad.row.state == PackState::Condemned && !is_new {
            // An earlier repair reported it.
            return;
        }

        let fate = match gone {
            0 => PackFate::Saved,
            _ if bad.now && !self.set_aside_unreadable => PackFate::LostForNow,
            _ => PackFate::Lost,
        };
        let all = ids.map_or(0, BTreeSet::len);

        let (severity, rest) = match fate {
            PackFate::Lost => (Severity::Damage, format!("{gone} of {all} chunks are lost")),
            PackFate::LostForNow => (
                Severity::Damage,
                format!("{gone} of {all} chunks are lost for now: the pack stays in place"),
            ),
            _ => (
                Severity::Note,
                "nothing is lost: all of its chunks are stored elsewhere".to_owned(),
            ),
        };

        let now = if bad.now {
            "it cannot be read now: "
        } else {
            ""
        };
        let message = format!("{now}{}; {rest}", bad.what);
        self.task.observer.problem(&Problem::new(
            severity,
            ObjectKey::Pack(bad.row.id),
            message,
        ));
        self.report.damaged.push(DamagedPack {
            id: bad.row.id,
            what: bad.what.clone(),
            fate,
        });
    }

    fn set_aside(&mut self, bad: &BadPack) -> Result<(), Error> {
        let Some(lease) = self.lease else {
            return Ok(());
        };
        lease.check()?;

        let from = ObjectKey::Pack(bad.row.id);
        let to = ObjectKey::QuarantinedPack(bad.row.id);
        let what = match set_aside(self.repo, &from, &to, self.task.cancel)? {
            SetAside::Done => None,
            SetAside::Taken => Some(format!("{to} already exists with different content")),
            SetAside::Unreadable => {
                Some("the store cannot rename it and it cannot be read".to_owned())
            }
        };

        if let Some(what) = what {
            let what = format!("it was left in place: {what}");
            self.task
                .observer
                .problem(&Problem::new(Severity::Note, from, what));
        }

        self.repo.forget_head(&bad.row.id);
        self.packs.listed.remove(&bad.row.id);
        Ok(())
    }
}

/// Returns the named packs, or `None` if `names` is empty.
fn choose(names: &[String], held: &[PackRow]) -> Result<Option<BTreeSet<PackId>>, Error> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut out = BTreeSet::new();
    for name in names {
        match PrefixMatch::find(&name.to_ascii_lowercase(), held.iter().map(|row| row.id)) {
            PrefixMatch::One(id) => {
                out.insert(id);
            }
            PrefixMatch::None => return Err(Error::NotThere(format!("there is no pack '{name}'"))),
            PrefixMatch::Many(ids) => {
                return Err(Error::usage(format!(
                    "{} packs begin with '{name}'",
                    ids.len()
                )));
            }
        }
    }
    Ok(Some(out))
}
