//! Finds names of a restore that are hard links of one file ([R23](docs/protocol.md#r23)).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::link_group::{LinkGroup, LinkLeader, LinkMembership, link_digest};
use super::walk::RestoreWalk;
use crate::types::{Node, RelPath};

impl RestoreWalk<'_> {
    /// Finds the group of hard links of an entry: names of one inode with equal size, mtime and
    /// content.
    pub(super) fn group(&mut self, target: &RelPath, node: &Node) -> LinkMembership {
        let Some((meta, digest)) = link_digest(node) else {
            return LinkMembership::Alone;
        };

        let key = (meta.device, meta.inode);
        if let Some(group) = self.groups.get_mut(&key) {
            if group.digest != digest {
                return LinkMembership::Alone;
            }
            let leader = Arc::clone(&group.leader);
            group.left = group.left.saturating_sub(1);
            if group.left == 0 {
                self.group_bytes -= leader.path.key().len();
                self.groups.remove(&key);
            }
            return LinkMembership::Follower(leader);
        }

        let limits = &self.job.limits;
        let len = target.key().len();
        if self.groups.len() >= limits.link_groups || self.group_bytes + len > limits.link_bytes {
            return LinkMembership::Alone;
        }

        let leader = Arc::new(LinkLeader {
            path: target.clone(),
            has_failed: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
        });
        self.group_bytes += len;
        self.groups.insert(
            key,
            LinkGroup {
                leader: Arc::clone(&leader),
                digest,
                left: meta.nlink - 1,
            },
        );
        LinkMembership::Leader(leader)
    }
}
