//! The mark: live chunks of packs that are not worth keeping are copied, then one segment condemns
//! the packs.
//!
//! Crash points: a copy without a segment is an orphan. Copies that a segment adds while their
//! originals are not yet condemned are duplicates; the next mark keeps the better pack. A pack is
//! condemned only after all its live chunks were read and matched their hashes, and are durable and
//! published elsewhere.

use std::time::Instant;

use super::live::{LiveChunks, PackUsage};
use super::plan::PrunePlan;
use super::pruner::Pruner;
use super::report::CopyStop;
use super::segments::SEGMENT_CHUNKS;
use super::survey::RepoSurvey;
use crate::Error;
use crate::advice::{Advice, RepairAdvice};
use crate::index::PackState;
use crate::observe::{Counter, Phase, Problem, ProgressUnit, Severity};
use crate::repo::{Lease, PackCopier, RepoError};
use crate::store::{ObjectKey, StoreError};
use crate::types::{ChunkId, FrameOffset, PackId, PackInfo, SegmentBody, to_u64};

/// Result of the copying.
#[derive(Debug, Default)]
struct CopiedPacks {
    /// Packs whose live chunks are durable and published elsewhere.
    safe: Vec<PackId>,
    /// Packs whose live chunks are durable once the copier is finished.
    waiting: Vec<PackId>,
}

impl Pruner<'_> {
    /// Copies live chunks and condemns packs; updates the state of condemned packs in the survey.
    pub(super) fn mark(&mut self, lease: &Lease, survey: &mut RepoSurvey) -> Result<(), Error> {
        let plan = PrunePlan::make(survey.live.packs.values(), &survey.until);
        let mut condemned = plan.dead;
        let mut copier = PackCopier::new(self.repo, lease, self.options.level)?;
        let mut copied = CopiedPacks::default();
        self.report.copy_stopped = None;
        let before = copier.stored_bytes();

        let last = match self.copy(&mut copier, survey, &plan.copy, lease, &mut copied) {
            Ok(last) => last,
            Err(Error::Repo(RepoError::Store(StoreError::Full { .. }))) => {
                self.report.copy_stopped = Some(CopyStop::Full);
                copied.waiting.clear();
                self.throw_away(copier.abandon())?;
                Vec::new()
            }
            Err(err) => return Err(err),
        };

        // Publish the last copies and the condemned packs in one segment.
        copied.safe.append(&mut copied.waiting);
        self.report.copied.packs += to_u64(copied.safe.len());
        self.report.copied.bytes += copier.stored_bytes() - before;
        condemned.extend(copied.safe);
        condemned.retain(|id| {
            survey
                .live
                .packs
                .get(id)
                .is_some_and(|pack| pack.row.state == PackState::Known)
        });
        condemned.sort_unstable();
        let body = SegmentBody {
            packs: last,
            condemned,
            ..SegmentBody::empty(lease.id())
        };
        if body.is_empty() {
            return Ok(());
        }

        lease.check()?;
        let (segment, _) = self.repo.publish_segment(lease.id(), &body)?;

        let marked = self
            .repo
            .store()
            .stat(&ObjectKey::Segment(segment))?
            .modified;
        for id in &body.condemned {
            survey.marks.insert(*id, marked);
            if let Some(pack) = survey.live.packs.get_mut(id) {
                pack.row.state = PackState::Condemned;
                self.report.condemned.add(pack.row.size);
            }
        }
        self.marked |= !body.condemned.is_empty();
        Ok(())
    }

    /// Copies as much as the limits and the free space allow. Returns the new packs that no segment
    /// adds yet.
    fn copy(
        &mut self,
        copier: &mut PackCopier<'_>,
        survey: &RepoSurvey,
        packs: &[PackId],
        lease: &Lease,
        copied: &mut CopiedPacks,
    ) -> Result<Vec<PackInfo>, Error> {
        if packs.is_empty() {
            return Ok(Vec::new());
        }

        self.task.observer.phase(&Phase::Repack);
        let packs: Vec<&PackUsage> = packs
            .iter()
            .filter_map(|id| survey.live.packs.get(id))
            .collect();
        self.task.observer.expect(
            packs.iter().map(|pack| pack.live_bytes()).sum(),
            ProgressUnit::Bytes,
        );
        let begun = Instant::now();
        let mut taken = 0_u64;
        let mut chunks = 0;
        for pack in packs {
            self.task.check()?;
            lease.check()?;
            let bytes = pack.live_bytes();

            if self
                .options
                .max_repack
                .is_some_and(|max| taken + bytes > max.0)
            {
                self.report.copy_stopped = Some(CopyStop::MaxRepack);
                continue;
            }
            if self
                .options
                .max_time
                .is_some_and(|max| begun.elapsed() >= max)
            {
                self.report.copy_stopped = Some(CopyStop::MaxTime);
                break;
            }

            match self.copy_pack(copier, &survey.live, pack) {
                Ok(count) => {
                    taken += bytes;
                    chunks += count;
                    copied.waiting.push(pack.row.id);
                }
                Err(Error::Repo(err)) if err.is_unavailable() => {
                    let what = format!("{err}; it is kept unchanged");
                    let problem =
                        Problem::new(Severity::Damage, ObjectKey::Pack(pack.row.id), what);
                    self.task
                        .observer
                        .problem(&problem.with_advice(Advice::Repair(RepairAdvice::VerifyData)));
                }
                Err(err) => return Err(err),
            }

            self.task.observer.add(Counter::Done, bytes);
            if chunks >= SEGMENT_CHUNKS {
                let body = SegmentBody {
                    packs: copier.finish()?,
                    ..SegmentBody::empty(lease.id())
                };
                lease.check()?;
                self.repo.publish_segment(lease.id(), &body)?;
                copied.safe.append(&mut copied.waiting);
                chunks = 0;
            }
        }

        Ok(copier.finish()?)
    }

    /// Copies the live chunks of a pack. Returns the number of chunks in its directory.
    fn copy_pack(
        &self,
        copier: &mut PackCopier<'_>,
        live: &LiveChunks,
        pack: &PackUsage,
    ) -> Result<usize, Error> {
        let id = pack.row.id;
        let info = self.repo.read_directory(&id, pack.row.size)?;
        let mut found = 0_u64;
        for (number, frame) in (0_u32..).zip(&info.frames) {
            self.task.check()?;

            // Find the chunks of this frame whose copy here is the one that counts.
            let ids: Vec<ChunkId> = frame.chunks.iter().map(|chunk| chunk.id).collect();
            let mut is_live = vec![false; ids.len()];
            let mut offset = FrameOffset::default();
            let offsets: Vec<FrameOffset> = frame
                .chunks
                .iter()
                .map(|chunk| {
                    let at = offset;
                    offset = offset.saturating_add(chunk.len);
                    at
                })
                .collect();
            self.repo.with_index(|index| {
                is_live.fill(false);
                index.each_copy(&ids, &mut |n, copy| {
                    is_live[n] |= (copy.pack, copy.frame, copy.offset) == (id, number, offsets[n])
                        && copy.len == frame.chunks[n].len
                        && live.counts(&copy);
                })
            })?;

            let lens = frame
                .chunks
                .iter()
                .zip(&is_live)
                .filter(|(_, is_live)| **is_live);
            found += lens.map(|(chunk, _)| u64::from(chunk.len)).sum::<u64>();
            copier.frame(&id, number, frame, &is_live)?;
        }
        // The directory comes from the pack, the index from the segments. If they disagree, keep
        // the pack.
        if found != pack.live {
            let what = "its directory lacks chunks that the index segments list";
            return Err(RepoError::damaged(ObjectKey::Pack(id), what).into());
        }
        Ok(info.chunk_count())
    }

    /// Deletes new packs that no segment mentions.
    fn throw_away(&mut self, packs: Vec<PackInfo>) -> Result<(), Error> {
        for pack in packs {
            for key in [ObjectKey::Parity(pack.id), ObjectKey::Pack(pack.id)] {
                match self.repo.store().delete(&key) {
                    Err(err) if !err.is_not_found() => return Err(err.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}
