//! Check by structure alone whether one snapshot can be restored. For callers about to rely on that
//! snapshot.

use super::damage::{FoundDamage, PackDamage};
use super::reach::ReachedChunks;
use crate::Error;
use crate::index::{Index, PackState};
use crate::ops::packs::ListedPacks;
use crate::repo::{ChunkReader, Repository, StoredSnapshot};
use crate::task::Cancel;

/// Size of the cache of metadata frames while walking.
const CACHE_BYTES: usize = 16 << 20;

/// Describes the sources of a snapshot that need chunks outside of the held packs that are in the
/// store with the right size. Returns `None` if all chunks resolve.
///
/// The index must include everything published before the call.
pub(crate) fn missing(
    repo: &Repository,
    found: &StoredSnapshot,
    cancel: &Cancel,
) -> Result<Option<String>, Error> {
    let mut made_sure = false;
    loop {
        let generation = repo.index().generation();

        let damage = absent_packs(repo)?;
        let reader = ChunkReader::new(repo, CACHE_BYTES);
        let reach = ReachedChunks::run(&reader, std::slice::from_ref(found), &damage, cancel)?;
        if repo.index().generation() != generation {
            continue;
        }

        if reach.suspects.is_empty() {
            return Ok(None);
        }
        if !made_sure {
            made_sure = true;
            repo.confirm_misses()?;
            continue;
        }
        let sources = &found.snapshot.sources;
        let mut names: Vec<&str> = reach
            .suspects
            .iter()
            .filter_map(|&(_, n)| Some(sources.get(n)?.name.as_str()))
            .collect();
        names.dedup();
        return Ok(Some(match reach.unreadable.first() {
            Some((what, reason)) => {
                format!("source {}: {what}: {}", names.join(", "), reason.why)
            }
            None => format!(
                "source {}: chunks of its files are in no usable pack",
                names.join(", ")
            ),
        }));
    }
}

/// Returns the held packs that are missing from the store or have the wrong size there.
fn absent_packs(repo: &Repository) -> Result<FoundDamage, Error> {
    let mut listed = ListedPacks::list(repo)?;
    let mut damage = FoundDamage::default();
    for pack in repo.with_index(Index::packs)? {
        let is_held = pack.added && pack.state != PackState::Dropped;
        if is_held && listed.take(repo, &pack.id)? != Some(pack.size) {
            damage.add(
                pack.id,
                PackDamage {
                    missing: true,
                    ..PackDamage::default()
                },
            );
        }
    }
    Ok(damage)
}
