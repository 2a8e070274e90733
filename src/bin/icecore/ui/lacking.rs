//! Formats the parts of a source that a snapshot lacks, as JSON and as text.

use icecore::ops::list::{LackingPath, LackingReport, SourceLacks};
use serde::Serialize;

use super::{json, text};

/// The parts of a source that a snapshot lacks.
#[derive(Debug, Serialize)]
pub struct LackingLines<'a> {
    /// Entries that are failed, stale or torn.
    incomplete: u64,
    /// Directories with missing names; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial: Option<u64>,
    /// Of these, directories from which something other than the rules of the backup kept names;
    /// absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unseen: Option<u64>,
    /// Paths that a repair could not save.
    lost: u64,
    /// The first missing paths, in the order of paths.
    paths: Vec<MissingPath<'a>>,
    /// The list is not complete; `icecore ls --missing` lists all.
    cut: bool,
}

#[derive(Debug, Serialize)]
struct MissingPath<'a> {
    #[serde(flatten)]
    path: json::PathField,
    /// `failed`, `stale`, `torn`, `excluded`, `unseen` or `lost`.
    why: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> LackingLines<'a> {
    /// Returns `None` if nothing is known to be missing. `lacking` is `None` if no paths were
    /// listed.
    pub fn new(lacks: &SourceLacks, lacking: Option<&'a LackingReport>) -> Option<Self> {
        if lacks.is_nothing() {
            return None;
        }
        let paths = lacking.map_or(&[][..], |lacking| &lacking.paths);
        Some(Self {
            incomplete: lacks.incomplete,
            partial: lacks.partial,
            unseen: lacks.unseen,
            lost: lacks.lost,
            paths: paths.iter().map(MissingPath::new).collect(),
            cut: lacking.is_none_or(|lacking| lacking.is_cut),
        })
    }
}

impl<'a> MissingPath<'a> {
    fn new(one: &'a LackingPath) -> Self {
        Self {
            path: json::PathField::new(&one.path.to_slashed()),
            why: one.why.name(),
            reason: one.reason.as_deref(),
        }
    }
}

/// Describes how much is missing, except for names that the rules of the backup left out. Returns
/// `None` if that is nothing.
pub fn how_much(lacks: &SourceLacks) -> Option<String> {
    let lost = lacks.lost + u64::from(lacks.lost == 0 && lacks.is_lost_cut);
    let parts = [
        (
            lacks.incomplete,
            text::counted(lacks.incomplete, "entry", "entries"),
        ),
        (lacks.unseen.unwrap_or(0), {
            let unseen = lacks.unseen.unwrap_or(0);
            format!(
                "names in {}",
                text::counted(unseen, "directory", "directories")
            )
        }),
        (lost, {
            let more = if lacks.is_lost_cut { "at least " } else { "" };
            format!(
                "{more}{} since a repair",
                text::counted(lost, "path", "paths")
            )
        }),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(_, part)| part)
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_left_out_by_rules_are_not_counted() {
        let lacks = SourceLacks {
            partial: Some(3),
            unseen: Some(0),
            ..SourceLacks::default()
        };
        assert_eq!(how_much(&lacks), None);
        let value = serde_json::to_value(LackingLines::new(&lacks, None)).expect("JSON");
        let expected = serde_json::json!({
            "incomplete": 0, "partial": 3, "unseen": 0, "lost": 0, "paths": [], "cut": true,
        });
        assert_eq!(value, expected);
        assert!(LackingLines::new(&SourceLacks::default(), None).is_none());
    }

    #[test]
    fn each_kind_is_counted() {
        let lacks = SourceLacks {
            incomplete: 1,
            partial: Some(3),
            unseen: Some(2),
            lost: 4,
            is_lost_cut: false,
        };
        let amount = how_much(&lacks).expect("something");
        assert_eq!(
            amount,
            "1 entry, names in 2 directories, 4 paths since a repair"
        );
        let lacks = SourceLacks {
            is_lost_cut: true,
            ..SourceLacks::default()
        };
        assert_eq!(
            how_much(&lacks).as_deref(),
            Some("at least 1 path since a repair")
        );
    }
}
