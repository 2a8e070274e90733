//! Merging runs by tiers ([R9](docs/protocol.md#r9)). A source has about a dozen runs, and each
//! entry is rewritten about ten times in its life.

use super::{EntryMention, MergedRuns, RepoError, RunWriter};
use crate::format::RunRef;
use crate::types::{EntryFlags, Node};

/// Returns how many of the newest existing runs join a new run of `new_entries` mentions. `runs` is
/// sorted newest first.
///
/// A run joins if twice the sum of all newer mentions is at least its size. So each remaining run
/// is more than twice as large as the next newer one, and the number of runs grows with the
/// logarithm of the entries. A backup that adds nothing merges nothing.
pub fn tiers_to_merge(new_entries: u64, runs: &[RunRef]) -> usize {
    if new_entries == 0 {
        return 0;
    }
    let mut sum = new_entries;
    let joins = |run: &&RunRef| {
        let joins = sum.saturating_mul(2) >= run.entries;
        sum = sum.saturating_add(run.entries);
        joins
    };
    runs.iter().take_while(joins).count()
}

/// Writes one run whose effect on older runs equals that of the new mentions over `old`.
///
/// `new` returns the newest mentions in strictly ascending path order. `old` is the runs to merge
/// with, both streams, not yet read from. Entries that a new mention covers are not read. With
/// `includes_oldest` there are no runs below the result, so removals are dropped and cover flags
/// cleared; otherwise both are kept. Returns `None` if the result is empty.
pub fn merged_into(
    mut new: impl FnMut() -> Result<Option<EntryMention>, RepoError>,
    mut old: MergedRuns<'_>,
    includes_oldest: bool,
    mut writer: RunWriter<'_>,
) -> Result<Option<RunRef>, RepoError> {
    let mut new_head = new()?;
    let mut old_head = old.next_mention()?;

    loop {
        let mention = match (new_head.take(), old_head.take()) {
            (None, None) => break,
            (None, Some(older)) => {
                old_head = old.next_mention()?;
                older
            }
            (Some(newer), Some(older)) if older.entry.path < newer.entry.path => {
                new_head = Some(newer);
                old_head = old.next_mention()?;
                older
            }
            (Some(newer), older) => {
                let (newer, rest) = over(newer, older, &mut old)?;
                new_head = new()?;
                old_head = rest;
                newer
            }
        };
        push(mention, includes_oldest, &mut writer)?;
    }

    writer.finish()
}

/// Puts a new mention over the head of the old ones. The head's path must not sort before the new
/// one's. Returns the merged mention and the remaining old head.
fn over(
    mut newer: EntryMention,
    older: Option<EntryMention>,
    old: &mut MergedRuns<'_>,
) -> Result<(EntryMention, Option<EntryMention>), RepoError> {
    let covers = newer.entry.covers();
    if covers {
        match newer.entry.path.after_subtree() {
            Some(after) => old.seek(&after),
            None => old.exhaust(),
        }
    }
    let rest = match older {
        Some(older) if older.entry.path == newer.entry.path => {
            newer.in_directories |= older.in_directories;
            // Entries that the old mention of this path hid stay hidden.
            if older.entry.covers() && newer.entry.is_directory() {
                newer.entry.flags = newer.entry.flags.with(EntryFlags::COVER);
            }
            old.next_mention()?
        }
        Some(older) if covers && older.entry.path.is_below(&newer.entry.path) => {
            old.next_mention()?
        }
        rest => rest,
    };
    Ok((newer, rest))
}

fn push(
    mut mention: EntryMention,
    includes_oldest: bool,
    writer: &mut RunWriter<'_>,
) -> Result<(), RepoError> {
    if includes_oldest {
        if matches!(mention.entry.node, Node::Removed) {
            return Ok(());
        }
        mention.entry.flags = mention.entry.flags.without(EntryFlags::COVER);
        // There are no older runs in which this path could be a directory.
        mention.in_directories = mention.entry.is_directory();
    }
    writer.push(&mention.entry, mention.in_directories)
}
