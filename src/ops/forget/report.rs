//! Options and report of forgetting by policy.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;

use super::decision::ForgetGroup;
use super::group::{GroupBy, GroupKey};
use super::guard::GuardRefusal;
use super::policy::Policy;
use crate::ops::list::SnapshotFilter;

/// Options of forgetting by policy.
#[derive(Debug, Clone)]
pub struct ForgetOptions {
    pub policy: Policy,
    /// Snapshots that it does not accept are neither counted nor changed.
    pub filter: SnapshotFilter,
    pub group_by: GroupBy,
    /// Sources with a fixed name from a configuration. Their paths and programs are not compared,
    /// so their history continues at another path.
    pub by_name: BTreeSet<String>,
    /// The time zone of the calendar periods.
    pub zone: TimeZone,
    /// Also forget from groups that [`ForgetGroup::refusal`] protects.
    pub force: bool,
    /// Decide and report, but change nothing.
    pub dry_run: bool,
}

/// Decisions of a policy, and whether they were carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct ForgetReport {
    pub groups: Vec<ForgetGroup>,
    /// Number of kept snapshots, including all those of refused groups.
    pub kept: u64,
    /// Number of forgotten snapshots; in a dry run, of those to be forgotten. Excludes refused
    /// groups.
    pub dropped: u64,
    /// Groups that were left unchanged because they would lose too much.
    pub refused: Vec<GuardRefusal>,
}

impl ForgetReport {
    /// Returns true if nothing of this group is forgotten, regardless of the decisions.
    pub fn is_refused(&self, key: &GroupKey) -> bool {
        self.refused.iter().any(|refusal| refusal.key == *key)
    }
}
