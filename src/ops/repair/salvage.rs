//! Salvage: chunks that no undamaged known pack holds are read from any other place and stored
//! again.

use std::collections::{BTreeMap, BTreeSet};

use super::pack_listing::{PackHolder, PackListing};
use crate::Error;
use crate::index::{ChunkLocation, FrameRow, PackState};
use crate::repo::{
    Claims, FrameWriter, Lease, PackedSource, Packer, PackerOptions, RepoError, Repository,
};
use crate::task::{Cancel, Task};
use crate::types::{ChunkClass, ChunkId, FrameOffset, PackId, to_u64};

/// Results of one salvage.
#[derive(Debug, Default)]
pub(super) struct SalvagedChunks {
    pub chunks: u64,
    /// Plain bytes of these chunks.
    pub bytes: u64,
    pub packed: PackedSource,
    /// Chunks that could not be read anywhere.
    pub lost: BTreeSet<ChunkId>,
}

/// Reads all chunks of `wanted` that are readable anywhere and stores them again.
///
/// Sources in this order: the `damaged` packs, other copies in packs in the store, dropped packs,
/// packs in quarantine. Without a lease nothing is stored, and the result lists the chunks that
/// would be.
pub(super) fn salvage(
    repo: &Repository,
    lease: Option<&Lease>,
    packs: &PackListing,
    damaged: &[PackHolder],
    wanted: BTreeSet<ChunkId>,
    task: Task<'_>,
) -> Result<SalvagedChunks, Error> {
    if wanted.is_empty() {
        return Ok(SalvagedChunks::default());
    }

    let claims = Claims::for_repair(repo.index());
    let options = PackerOptions {
        workers: 1,
        level: 3,
        dry_run: lease.is_none(),
    };

    std::thread::scope(|scope| {
        let packer = Packer::start(scope, repo, lease, &claims, options, task.observer)?;
        let writers = [
            packer.writer(ChunkClass::Data),
            packer.writer(ChunkClass::Metadata),
        ];
        let out = SalvagedChunks {
            lost: wanted,
            ..SalvagedChunks::default()
        };

        let mut work = SalvageWork {
            repo,
            packs,
            writers,
            out,
            cancel: task.cancel,
        };
        let read = work
            .run(damaged)
            .and_then(|()| Ok(work.writers.iter_mut().try_for_each(FrameWriter::flush)?));
        let SalvageWork {
            writers, mut out, ..
        } = work;

        // The packer ends when all writers are dropped.
        drop(writers);
        let packed = packer.finish();
        match (read, packed) {
            (Err(Error::Repo(RepoError::Stopped)), Err(err)) => Err(err.into()),
            (Err(err), _) => Err(err),
            (Ok(()), packed) => {
                out.packed = packed?;
                Ok(out)
            }
        }
    })
}

struct SalvageWork<'a> {
    repo: &'a Repository,
    packs: &'a PackListing,
    /// Writers of data frames and of metadata frames.
    writers: [FrameWriter<'a>; 2],
    /// Results so far. `lost` holds the chunks that are still wanted.
    out: SalvagedChunks,
    cancel: &'a Cancel,
}

impl SalvageWork<'_> {
    fn run(&mut self, damaged: &[PackHolder]) -> Result<(), Error> {
        for holder in damaged.iter().filter(|holder| holder.size > 0) {
            self.save_from(holder)?;
        }
        self.look_at_copies()?;
        for holder in self.packs.dropped.iter().chain(&self.packs.quarantined) {
            self.save_from(holder)?;
        }
        Ok(())
    }

    fn save_from(&mut self, holder: &PackHolder) -> Result<(), Error> {
        if self.out.lost.is_empty() {
            return Ok(());
        }
        let Some((head, frames)) = holder.contents(self.repo)? else {
            return Ok(());
        };
        for (number, frame) in (0..).zip(&frames) {
            self.cancel.check()?;
            if !frame
                .chunks
                .iter()
                .any(|chunk| self.out.lost.contains(&chunk.id))
            {
                continue;
            }
            if frame.end().is_none_or(|end| end.get() > holder.size) {
                continue;
            }

            let row = FrameRow::from(frame);
            let mut sealed = vec![0; row.stored.to_usize()];
            let plain = match self
                .repo
                .read_at(&holder.key, row.offset.get(), &mut sealed)
            {
                Ok(()) => self
                    .repo
                    .open_frame(&holder.key, &head, number, &row, sealed),
                Err(err) => Err(err.into()),
            };
            let plain = match plain {
                Ok(plain) => plain,
                Err(err) if err.is_unavailable() => continue,
                Err(err) => return Err(err.into()),
            };

            let mut offset = FrameOffset::default();
            for chunk in &frame.chunks {
                let bytes = plain.get(offset.range(chunk.len)).unwrap_or_default();
                self.keep(row.class, chunk.id, bytes)?;
                offset = offset.saturating_add(chunk.len);
            }
        }
        Ok(())
    }

    /// Reads other copies in packs in the store. Condemned and dropped packs are valid sources for
    /// reading.
    fn look_at_copies(&mut self) -> Result<(), Error> {
        let mut by_frame: BTreeMap<(PackId, u32), Vec<(ChunkId, ChunkLocation)>> = BTreeMap::new();
        for id in &self.out.lost {
            for copy in self.repo.with_index(|index| index.copies(id))? {
                if self.packs.is_whole(&copy.pack) {
                    by_frame
                        .entry((copy.pack, copy.frame))
                        .or_default()
                        .push((*id, copy));
                }
            }
        }

        for ((pack, number), chunks) in by_frame {
            self.cancel.check()?;
            if !chunks.iter().any(|(id, _)| self.out.lost.contains(id)) {
                continue;
            }
            let Some(row) = self.repo.frame_row(&pack, number)? else {
                continue;
            };

            let plain = match self.repo.read_frame(&pack, number, &row) {
                Ok(plain) => plain,
                Err(err) if err.is_unavailable() => continue,
                Err(err) => return Err(err.into()),
            };

            for (id, copy) in chunks {
                self.keep(row.class, id, plain.get(copy.range()).unwrap_or_default())?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, class: ChunkClass, id: ChunkId, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty()
            || !self.out.lost.contains(&id)
            || self.repo.keys().chunk_id(class, bytes) != id
        {
            return Ok(());
        }
        let writer = match class {
            ChunkClass::Data => &mut self.writers[0],
            ChunkClass::Metadata => &mut self.writers[1],
        };
        writer.add(bytes)?;
        self.out.lost.remove(&id);
        self.out.chunks += 1;
        self.out.bytes += to_u64(bytes.len());
        Ok(())
    }
}

/// Returns those of `ids` that no undamaged known pack in the store holds.
pub(super) fn without_good_copy(
    repo: &Repository,
    packs: &PackListing,
    ids: BTreeSet<ChunkId>,
) -> Result<BTreeSet<ChunkId>, Error> {
    let mut out = BTreeSet::new();
    for id in ids {
        let copies = repo.with_index(|index| index.copies(&id))?;
        if !copies
            .iter()
            .any(|copy| copy.state == PackState::Known && packs.is_whole(&copy.pack))
        {
            out.insert(id);
        }
    }
    Ok(out)
}
