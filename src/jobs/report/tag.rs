//! Snapshots that were replaced by others with the same content.

use serde::Serialize;

use crate::ops::forget::UndeletedSnapshot;
use crate::ops::tag::RetaggedSnapshot;
use crate::types::to_u64;

/// A snapshot whose tags or protection were to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "tagged")]
pub struct TagRecord {
    /// Its id after the change.
    pub snapshot: String,
    /// Its id before; absent if nothing changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Its tags after the change.
    pub tags: Vec<String>,
    /// No policy drops it.
    pub protected: bool,
}

impl From<&RetaggedSnapshot> for TagRecord {
    fn from(done: &RetaggedSnapshot) -> Self {
        Self {
            snapshot: done.id.unwrap_or(done.from).to_string(),
            replaces: done.id.map(|_| done.from.to_string()),
            tags: done.tags.clone(),
            protected: done.protected,
        }
    }
}

/// The result of changing tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TagSummary {
    /// Snapshots that were replaced.
    pub changed: u64,
    /// Snapshots that were so already.
    pub unchanged: u64,
}

impl From<&[RetaggedSnapshot]> for TagSummary {
    fn from(done: &[RetaggedSnapshot]) -> Self {
        let changed = to_u64(done.iter().filter(|done| done.id.is_some()).count());
        Self {
            changed,
            unchanged: to_u64(done.len()) - changed,
        }
    }
}

/// A forgotten snapshot that was brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UndeleteSummary {
    /// Its id from now on.
    pub snapshot: String,
    /// Its id until now.
    pub replaces: String,
}

impl From<&UndeletedSnapshot> for UndeleteSummary {
    fn from(done: &UndeletedSnapshot) -> Self {
        Self {
            snapshot: done.id.to_string(),
            replaces: done.from.to_string(),
        }
    }
}
