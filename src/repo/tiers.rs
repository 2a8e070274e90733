//! Merging runs by tiers (PROTOCOL R9): about a dozen runs, each entry rewritten about ten times in
//! its life.

use super::{Mention, MergedRuns, RepoError, RunWriter};
use crate::format::RunRef;
use crate::types::{EntryFlags, Node};

/// Tells how many of the newest existing runs join a new one of `new_entries` mentions: while twice
/// the sum is at least the next run. `runs`: newest first. Each run that stays is thus more than
/// twice the next newer one, and their number grows with the logarithm of the entries. A backup
/// that adds nothing merges nothing.
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

/// Writes one run that says over older runs what the new mentions say over `old`.
///
/// `new` gives the newest mentions in strictly ascending path order; `old` are the runs to merge
/// with, of both streams, not yet read from. What a new mention covers is not read. With
/// `includes_oldest` nothing lies below the result: removals are dropped and cover flags cleared;
/// otherwise both are kept. None if there is nothing to say.
pub fn merged_into(
    mut new: impl FnMut() -> Result<Option<Mention>, RepoError>,
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
                (new_head, old_head) = (new()?, rest);
                newer
            }
        };
        push(mention, includes_oldest, &mut writer)?;
    }
    writer.finish()
}

/// Puts a new mention over the head of the old ones, whose path is not below it in the order;
/// returns it and the old head that is left.
fn over(
    mut newer: Mention,
    older: Option<Mention>,
    old: &mut MergedRuns<'_>,
) -> Result<(Mention, Option<Mention>), RepoError> {
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
            // What the old mention of this path hid stays hidden.
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
    mut mention: Mention,
    includes_oldest: bool,
    writer: &mut RunWriter<'_>,
) -> Result<(), RepoError> {
    if includes_oldest {
        if matches!(mention.entry.node, Node::Removed) {
            return Ok(());
        }
        mention.entry.flags = mention.entry.flags.without(EntryFlags::COVER);
        // Nothing lies below whose directory this path could have been.
        mention.in_directories = mention.entry.is_directory();
    }
    writer.push(&mention.entry, mention.in_directories)
}
