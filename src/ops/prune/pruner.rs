//! A prune under way: its lease, its clock and the clients beside it.

use std::time::Duration;

use super::report::{PruneOptions, PruneReport};
use crate::Error;
use crate::format::LeaseKind;
use crate::repo::{FoundLease, Lease, LeaseTimes, Repository};
use crate::task::Task;
use crate::types::Timestamp;

/// Returns the shortest grace period that keeps writers safe: two margins and a lease's life.
pub(super) fn shortest_grace(times: &LeaseTimes) -> Duration {
    times.margin * 2 + times.expiry
}

/// One prune.
pub(super) struct Pruner<'a> {
    pub repo: &'a Repository,
    pub options: &'a PruneOptions,
    pub task: Task<'a>,
    pub times: LeaseTimes,
    /// `None` in a dry run on a store that takes no lease.
    pub lease: Option<&'a Lease>,
    /// True if something was condemned since the last survey.
    pub marked: bool,
    pub report: PruneReport,
}

impl<'a> Pruner<'a> {
    /// Starts without a lease.
    pub fn new(
        repo: &'a Repository,
        options: &'a PruneOptions,
        times: LeaseTimes,
        task: Task<'a>,
    ) -> Self {
        Self {
            repo,
            options,
            task,
            times,
            lease: None,
            marked: false,
            report: PruneReport::default(),
        }
    }

    /// Returns the store's time now, from a heartbeat of our own lease. Without a lease it returns
    /// this machine's time, which is only an estimate.
    pub fn store_time(&self) -> Result<Timestamp, Error> {
        match self.lease {
            Some(lease) => {
                lease.refresh(Duration::ZERO)?;
                Ok(lease.last_heartbeat())
            }
            None => Ok(crate::sys::now()),
        }
    }

    /// Returns the grace period that applies while other clients are active.
    pub fn grace(&self) -> Duration {
        self.options.grace.max(shortest_grace(&self.times))
    }

    /// Returns the leases of others that count. With `now`, the lease of an ended process of this
    /// machine does not count.
    pub fn leases_of_others(&self, now: Timestamp) -> Result<Vec<FoundLease>, Error> {
        let own = self.lease.map(Lease::id);
        let mut leases = self.repo.leases()?;
        leases.retain(|lease| {
            Some(lease.id) != own
                && lease.is_alive(now, &self.times)
                && !(self.options.now && lease.is_dead_here(self.repo.client()))
        });
        Ok(leases)
    }

    /// Returns true if another prune is running that goes first.
    pub fn other_prune(&self, lease: &Lease, now: Timestamp) -> Result<bool, Error> {
        let own = (lease.started(), lease.id());
        Ok(self.repo.leases()?.iter().any(|other| {
            other.id != lease.id()
                && other
                    .body
                    .as_ref()
                    .is_some_and(|body| body.kind == LeaseKind::Prune)
                && other.is_alive(now, &self.times)
                && !other.is_dead_here(self.repo.client())
                && (other.started(&self.times), other.id) < own
        }))
    }
}
