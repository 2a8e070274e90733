//! The parts of a source that a snapshot lacks.

use serde::Serialize;

use super::value::PathField;
use crate::ops::list::{LackingPath, LackingReport, SourceLacks};

/// The parts of a source that a snapshot lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingParts {
    /// Entries that are failed, stale or torn.
    pub incomplete: u64,
    /// Directories with missing names; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<u64>,
    /// Of these, directories from which something other than the rules of the backup kept names;
    /// absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<u64>,
    /// Paths that a repair could not save.
    pub lost_paths: u64,
    /// The first missing paths, in the order of paths.
    pub paths: Vec<MissingPathRecord>,
    /// The list of paths is not complete.
    pub cut: bool,
}

impl MissingParts {
    /// Returns `None` if nothing is known to be missing. `lacking` is `None` if no paths were
    /// listed.
    pub fn new(lacks: &SourceLacks, lacking: Option<&LackingReport>) -> Option<Self> {
        if lacks.is_nothing() {
            return None;
        }
        let paths = lacking.map_or(&[][..], |lacking| &lacking.paths);
        Some(Self {
            incomplete: lacks.incomplete,
            partial: lacks.partial,
            unseen: lacks.unseen,
            lost_paths: lacks.lost,
            paths: paths.iter().map(MissingPathRecord::from).collect(),
            cut: lacking.is_none_or(|lacking| lacking.is_cut),
        })
    }
}

/// A path of which the snapshot lacks something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MissingPathRecord {
    /// The path in the source.
    #[serde(flatten)]
    pub path: PathField,
    /// `failed`, `stale`, `torn`, `excluded`, `unseen` or `lost`.
    pub kind: &'static str,
    /// Why it could not be captured; absent if not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl From<&LackingPath> for MissingPathRecord {
    fn from(lacking: &LackingPath) -> Self {
        Self {
            path: PathField::new(&lacking.path.to_slashed()),
            kind: lacking.why.name(),
            reason: lacking.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_left_out_by_rules_are_missing_without_a_list() {
        let lacks = SourceLacks {
            partial: Some(3),
            unseen: Some(0),
            ..SourceLacks::default()
        };
        let value = serde_json::to_value(MissingParts::new(&lacks, None)).expect("JSON");
        let expected = serde_json::json!({
            "incomplete": 0, "partial": 3, "unseen": 0, "lost_paths": 0, "paths": [], "cut": true,
        });
        assert_eq!(value, expected);
        assert!(MissingParts::new(&SourceLacks::default(), None).is_none());
    }
}
