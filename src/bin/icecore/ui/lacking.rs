//! Describes for people the parts of a source that a snapshot lacks.

use icecore::ops::list::SourceLacks;

use super::text;

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
