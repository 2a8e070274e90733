//! Keeps the last good capture of a source that has been suspect since, regardless of the policy.
//!
//! A suspect capture is compared with it, and it is restored if the suspicion was right. The ranks
//! alone do not keep it: with two sources, each may be good where the other is suspect, so that all
//! snapshots are suspect.

use std::collections::BTreeMap;

use super::decision::ForgetDecision;
use super::group::SourceNames;
use super::policy::KeepReason;
use super::unsettled::UnsettledGroup;
use crate::format::SnapshotState;
use crate::ops::things::SourceThing;
use crate::repo::StoredSnapshot;
use crate::types::SnapshotId;

/// Host, name of the source, and the thing that it captures.
type Source<'s> = (&'s str, &'s str, Option<SourceThing>);

/// Returns, by snapshot, the sources whose last good capture it holds while a newer one is suspect.
///
/// A snapshot that may be withdrawn does not count as good.
pub(super) fn find<'s>(
    snapshots: impl Iterator<Item = &'s StoredSnapshot>,
    unsettled: &UnsettledGroup,
    names: &SourceNames<'_>,
) -> BTreeMap<SnapshotId, Vec<String>> {
    let mut counted: Vec<&StoredSnapshot> = snapshots
        .filter(|one| one.snapshot.state != SnapshotState::Checkpoint)
        .collect();
    counted.sort_by_key(|one| (one.time(), one.order()));

    // For each source of a host, the newest good snapshot and whether a newer one is suspect.
    let mut last: BTreeMap<Source<'_>, (Option<SnapshotId>, bool)> = BTreeMap::new();
    for one in counted {
        for source in &one.snapshot.sources {
            let thing = names.thing(&one.snapshot.host, source);
            let state = last
                .entry((&one.snapshot.host, &source.name, thing))
                .or_default();
            if source.suspect.is_some() {
                state.1 = true;
            } else if !unsettled.has(one) {
                *state = (Some(one.id), false);
            }
        }
    }

    let mut out: BTreeMap<SnapshotId, Vec<String>> = BTreeMap::new();
    for ((_, source, _), (good, is_suspect)) in last {
        if let (Some(good), true) = (good, is_suspect) {
            out.entry(good).or_default().push(source.to_owned());
        }
    }
    out
}

/// Keeps the snapshots that were found, and adds the reason.
pub(super) fn keep(decisions: &mut [ForgetDecision], found: &BTreeMap<SnapshotId, Vec<String>>) {
    for one in decisions {
        let Some(sources) = found.get(&one.found.id) else {
            continue;
        };
        if !one.keep {
            one.reasons.retain(|reason| *reason != KeepReason::NoRule);
        }
        one.reasons
            .extend(sources.iter().cloned().map(KeepReason::LastGood));
        one.keep = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{DAY, add, ids, last, options, run};
    use crate::format::{SnapshotState, SourceCounts, SourceKind, SourceRecord};
    use crate::ops::testing::Lab;
    use crate::store::ObjectDir;
    use crate::types::{Content, SnapshotId};

    fn stream(name: &str, is_good: bool) -> SourceRecord {
        let content = Content {
            size: 0,
            extents: Vec::new(),
        };
        SourceRecord {
            name: name.into(),
            kind: SourceKind::Stream {
                command: Vec::new(),
                content,
            },
            profile: "stream-8k".into(),
            started: Default::default(),
            ended: Default::default(),
            digest: [0; 32],
            counts: SourceCounts::default(),
            suspect: (!is_good).then(|| "half its size".into()),
            numeric_owners: false,
            moved_from: Vec::new(),
        }
    }

    /// First the keys change, then the database shrinks as well, so all snapshots are suspect. The
    /// last good capture of each source must stay, since `node restore` names it as the newest good
    /// one.
    #[test]
    fn the_last_good_capture_of_each_source_is_kept() {
        let lab = Lab::new();
        let repo = lab.open();
        let states = [
            (true, true),
            (false, true),
            (false, true),
            (true, false),
            (false, false),
            (false, false),
        ];
        let made: Vec<SnapshotId> = states
            .into_iter()
            .map(|(db, keys)| {
                lab.store.clock().advance(DAY / 4);
                add(&lab, &repo, |snapshot| {
                    snapshot.sources = vec![stream("db", db), stream("keys", keys)];
                    let good = db && keys;
                    snapshot.state = if good {
                        SnapshotState::Complete
                    } else {
                        SnapshotState::Incomplete
                    };
                })
            })
            .collect();
        let report = run(&repo, &options(last(1)));

        let why = |n: usize| {
            let reasons = &report.groups[0].decisions[n].reasons;
            reasons
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };

        assert_eq!(why(0), "last 1", "complete");
        assert_eq!(
            (why(1), why(4)),
            ("no rule keeps it".into(), "no rule keeps it".into())
        );
        assert_eq!(
            (why(2), why(3)),
            ("last good keys".into(), "last good db".into())
        );
        assert_eq!(why(5), "suspect, but nothing is newer, last 1");
        let kept = [0, 2, 3, 5].map(|n| made[n]).into();
        assert_eq!(ids(repo.store(), ObjectDir::Snapshots), kept);

        // A good capture of both sources ends the protection.
        lab.store.clock().advance(60);
        let good = add(&lab, &repo, |snapshot| {
            snapshot.sources = vec![stream("db", true), stream("keys", true)];
        });
        run(
            &repo,
            &super::super::ForgetOptions {
                force: true,
                ..options(last(1))
            },
        );
        assert_eq!(ids(repo.store(), ObjectDir::Snapshots), [good].into());
    }

    /// A second job backs up only the database: its captures count, whichever group they are in.
    #[test]
    fn a_source_continues_in_another_set_of_sources() {
        let lab = Lab::new();
        let repo = lab.open();
        let one = |sources: Vec<SourceRecord>| {
            lab.store.clock().advance(DAY / 4);
            add(&lab, &repo, |snapshot| snapshot.sources = sources)
        };
        let first = one(vec![stream("db", true), stream("files", true)]);
        let second = one(vec![stream("db", false), stream("files", true)]);
        let third = one(vec![stream("db", true)]);
        let fourth = one(vec![stream("db", false)]);
        run(&repo, &options(last(1)));
        let kept = ids(repo.store(), ObjectDir::Snapshots);
        assert!(
            kept.contains(&third) && kept.contains(&fourth) && kept.contains(&second),
            "{kept:?}"
        );
        assert!(kept.contains(&first), "complete, in its group");
        one(vec![stream("db", true), stream("files", true)]);
        run(
            &repo,
            &super::super::ForgetOptions {
                force: true,
                ..options(last(1))
            },
        );
        assert!(!ids(repo.store(), ObjectDir::Snapshots).contains(&first));
    }
}
