//! Leases: a writer's or reader's sign of life (docs/format.md, "Lease").

use serde::{Deserialize, Serialize};

use super::text::{JsonError, as_text, as_texts, as_time_option, from_json, to_json};
use crate::types::{LeaseId, SnapshotId, Timestamp};

/// The operation of the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseKind {
    Backup,
    Restore,
    Verify,
    Repair,
    Prune,
}

/// A lease's plain content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseBody {
    #[serde(with = "as_text")]
    pub id: LeaseId,
    pub kind: LeaseKind,
    pub host: String,
    /// The machine's boot id. With the process id it identifies a dead holder on the same machine.
    pub boot: String,
    pub pid: u32,
    /// The store's time of the first heartbeat. Absent in the first heartbeat itself, whose
    /// modification time it is.
    #[serde(with = "as_time_option", default)]
    pub started: Option<Timestamp>,
    /// The snapshots that the holder depends on.
    #[serde(with = "as_texts", default)]
    pub parents: Vec<SnapshotId>,
}

/// Encodes a lease's plain bytes.
pub fn encode_lease(lease: &LeaseBody) -> Vec<u8> {
    to_json(lease)
}

/// Decodes a lease's plain bytes.
pub fn decode_lease(bytes: &[u8]) -> Result<LeaseBody, JsonError> {
    from_json(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_round_trip() {
        let mut lease = LeaseBody {
            id: LeaseId::new([1; 16]),
            kind: LeaseKind::Backup,
            host: "node".into(),
            boot: "b".into(),
            pid: 7,
            started: None,
            parents: vec![],
        };
        assert_eq!(decode_lease(&encode_lease(&lease)), Ok(lease.clone()));
        lease.started = Timestamp::new(5, 6);
        lease.parents.push(SnapshotId::new([2; 32]));
        assert_eq!(decode_lease(&encode_lease(&lease)), Ok(lease));
    }
}
