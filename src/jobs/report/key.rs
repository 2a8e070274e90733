//! A new repository, and its key slots.

use serde::Serialize;

use super::value::rfc3339;
use crate::repo::SlotInfo;

/// A new repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitSummary {
    /// Id of the repository.
    pub repository: String,
}

/// A key slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "key")]
pub struct KeyRecord {
    /// Name of the slot.
    pub slot: String,
    /// Its label, usually the name of a machine.
    pub label: String,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// It opened the repository in this run.
    pub current: bool,
    /// The damage of one of its copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

impl From<&SlotInfo> for KeyRecord {
    fn from(slot: &SlotInfo) -> Self {
        Self {
            slot: slot.name.clone(),
            label: slot.label.clone(),
            created: rfc3339(slot.created),
            current: slot.current,
            damage: slot.damage.clone(),
        }
    }
}

/// A key slot that was written or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeySummary {
    /// Name of the slot.
    pub slot: String,
}
