//! A difference between two snapshots.

use serde::Serialize;

use super::value::PathField;
use crate::ops::diff::{ChangedParts, DiffItem, PathChange};

/// A path that differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "difference")]
pub struct DifferenceRecord {
    /// `added`, `removed`, `kind`, `content` or `metadata`.
    pub change: &'static str,
    /// Name of the source.
    pub source: String,
    /// The path in the source.
    #[serde(flatten)]
    pub path: PathField,
    /// Plain size in the older snapshot, of a file or stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_size: Option<u64>,
    /// Plain size in the newer snapshot, of a file or stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_size: Option<u64>,
}

impl From<&DiffItem<'_>> for DifferenceRecord {
    fn from(item: &DiffItem<'_>) -> Self {
        Self {
            change: match item.change {
                PathChange::Added => "added",
                PathChange::Removed => "removed",
                PathChange::Changed(ChangedParts::Kind) => "kind",
                PathChange::Changed(ChangedParts::Content) => "content",
                PathChange::Changed(ChangedParts::Metadata) => "metadata",
            },
            source: item.source.to_owned(),
            path: PathField::new(&item.path.to_slashed()),
            old_size: item.old_size,
            new_size: item.new_size,
        }
    }
}
