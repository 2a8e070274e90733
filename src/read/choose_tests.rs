//! The snapshot that a name refers to, and the reports about it.

use super::*;
use crate::advice::{Advice, SnapshotAdvice};
use crate::format::SourceCounts;
use crate::observe::Recording;
use crate::ops::testing::{Lab, commit_as, lease};
use crate::types::{Content, SnapshotId};

fn record(name: &str, suspect: Option<&str>) -> SourceRecord {
    SourceRecord {
        name: name.into(),
        kind: SourceKind::Stream {
            command: vec!["dump".into()],
            content: Content::default(),
        },
        profile: "stream-8k".into(),
        started: Default::default(),
        ended: Default::default(),
        digest: [0; 32],
        counts: SourceCounts::default(),
        suspect: suspect.map(str::to_owned),
        numeric_owners: false,
        moved_from: Vec::new(),
    }
}

/// Commits a snapshot of these sources an hour after the last one.
fn add(lab: &Lab, host: &str, sources: &[(&str, Option<&str>)]) -> SnapshotId {
    let repo = lab.open();
    lab.store.clock().advance(3600);
    commit_as(&repo, lease(&repo), |snapshot| {
        snapshot.host = host.into();
        snapshot.sources = sources
            .iter()
            .map(|(name, suspect)| record(name, *suspect))
            .collect();
    })
}

fn own(host: &str) -> HostChoice {
    HostChoice::Own(host.into())
}

fn ask(
    lab: &Lab,
    text: &str,
    hosts: &HostChoice,
    source: Option<&str>,
) -> (Result<SnapshotId, String>, Vec<(Severity, String)>) {
    let observer = Recording::default();
    let found = choose(&lab.open(), text, hosts, source, &observer);
    let found = found.map(|found| found.id).map_err(|err| err.to_string());
    (
        found,
        observer
            .problems()
            .into_iter()
            .map(|one| (one.severity, one.to_string()))
            .collect(),
    )
}

/// Returns the text of the error, and its advice.
fn refused(
    lab: &Lab,
    text: &str,
    hosts: &HostChoice,
    source: Option<&str>,
) -> (String, Option<Advice>) {
    let observer = Recording::default();
    let err = choose(&lab.open(), text, hosts, source, &observer).expect_err("no such snapshot");
    (err.to_string(), err.advice())
}

#[test]
fn latest_of_a_source_is_the_newest_that_has_it() {
    let lab = Lab::new();
    let both = add(&lab, "web", &[("a", None), ("b", None)]);
    let a = add(&lab, "web", &[("a", None)]);
    let b = add(&lab, "web", &[("b", None)]);
    add(&lab, "db", &[("c", None)]);
    assert_eq!(ask(&lab, "latest", &own("web"), None), (Ok(b), Vec::new()));
    assert_eq!(
        ask(&lab, "latest", &own("web"), Some("b")),
        (Ok(b), Vec::new())
    );

    let (found, notes) = ask(&lab, "latest", &own("web"), Some("a"));
    assert_eq!((found, notes.len(), notes[0].0), (Ok(a), 1, Severity::Note));
    assert!(
        notes[0].1.contains(&b.short()) && notes[0].1.contains("newest with a source 'a'"),
        "{notes:?}"
    );
    assert_eq!(
        ask(&lab, &both.to_string()[..9], &own("web"), Some("a")),
        (Ok(both), Vec::new())
    );

    // A missing source: the error lists the host's sources, and the host that has it.

    let (why, advice) = refused(&lab, "latest", &own("web"), Some("c"));
    assert!(
        why.contains("host web has no source 'c'; it has a, b; other hosts have it: db"),
        "{why}"
    );
    assert_eq!(advice, Some(Advice::Snapshot(SnapshotAdvice::ChooseHost)));

    let (why, advice) = refused(&lab, "latest", &own("web"), Some("d"));
    assert!(
        why.ends_with("host web has no source 'd'; it has a, b"),
        "{why}"
    );
    assert_eq!(advice, None, "no host has it");
}

#[test]
fn a_suspect_snapshot_is_returned_with_a_warning() {
    let lab = Lab::new();
    let good = add(&lab, "web", &[("db", None), ("etc", None)]);
    let bad = add(&lab, "web", &[("db", Some("much smaller")), ("etc", None)]);

    for source in [None, Some("db")] {
        let (found, problems) = ask(&lab, "latest", &own("web"), source);
        let line = format!(
            "snapshot {} is suspect: db: much smaller; the last good one is {}",
            bad.short(),
            good.short()
        );
        assert_eq!(
            (found, problems),
            (Ok(bad), vec![(Severity::Missing, line.clone())])
        );
        // Chosen by its id: only a note, because the user has seen that it is suspect.
        assert_eq!(
            ask(&lab, &bad.to_string(), &own("web"), source).1,
            [(Severity::Note, line)]
        );
    }

    assert_eq!(
        ask(&lab, "latest", &own("web"), Some("etc")),
        (Ok(bad), Vec::new()),
        "that one is good"
    );

    let other = add(&lab, "other", &[("db", Some("a fifth"))]);
    let (found, problems) = ask(&lab, "latest", &own("other"), Some("db"));
    assert!(
        found == Ok(other) && problems[0].1.ends_with("a fifth; there is no good one"),
        "{problems:?}"
    );
}

/// On a new machine with another name, no snapshot of the old machine was found, and no message
/// said where they were.
#[test]
fn a_host_without_snapshots_gets_those_of_the_only_other_host() {
    let lab = Lab::new();
    let (none, _) = ask(&lab, "latest", &own("new"), None);
    assert_eq!(
        none,
        Err("no snapshot 'latest': the repository has no snapshots".into())
    );

    let old = add(&lab, "old", &[("a", None)]);
    let (found, notes) = ask(&lab, "latest", &own("new"), Some("a"));
    assert_eq!((found, notes[0].0), (Ok(old), Severity::Note));
    assert!(
        notes[0]
            .1
            .contains("this host, new, has none; it is from old"),
        "{notes:?}"
    );

    // An explicit host is taken literally. `forget latest` and `tag latest` never use another
    // host's snapshots.
    assert!(
        ask(&lab, "latest", &HostChoice::Host("new".into()), None)
            .0
            .is_err()
    );
    assert!(lab.open().find_snapshot("latest", &own("new")).is_err());

    add(&lab, "older", &[("a", None)]);
    let (why, advice) = refused(&lab, "latest", &own("new"), None);
    assert!(
        why.contains("host new has none; the repository has snapshots of old, older"),
        "{why}"
    );
    assert_eq!(
        advice,
        Some(Advice::Snapshot(SnapshotAdvice::ChooseHost)),
        "which one?"
    );
}

#[test]
fn the_error_for_an_unmatched_id_gives_the_reason() {
    let lab = Lab::new();
    let ids: Vec<SnapshotId> = (0..3).map(|_| add(&lab, "h", &[("a", None)])).collect();
    let ask = |text: &str| refused(&lab, text, &HostChoice::Any, None);

    let free = (0..=0xffff).map(|n| format!("{n:04x}"));
    let free = free
        .into_iter()
        .find(|text| ids.iter().all(|id| !id.to_string().starts_with(text)));
    let (why, advice) = ask(&free.expect("one"));
    assert!(
        why.contains("none of the repository's 3 snapshots"),
        "{why}"
    );
    assert_eq!(
        advice,
        Some(Advice::Snapshot(SnapshotAdvice::ChooseSnapshot))
    );
    assert!(ask("yesterday").0.contains("at least 4 hex digits"));

    let repo = lab.open();
    let held = lease(&repo);
    repo.forget_snapshot(&held, &ids[0]).expect("forgotten");
    let text = ids[0].short();
    let (why, advice) = ask(&text.to_string());
    assert!(why.ends_with("it was forgotten"), "{why}");
    let id = text.to_string();
    assert_eq!(
        advice,
        Some(Advice::Snapshot(SnapshotAdvice::Undelete { id }))
    );
}

#[test]
fn a_path_without_a_source_is_answered_with_the_form() {
    let lab = Lab::new();
    let repo = lab.open();
    let tree = |path: &str| SourceKind::Tree {
        path: path.into(),
        immutable: false,
        runs: Vec::new(),
    };
    let id = commit_as(&repo, lease(&repo), |snapshot| {
        let app = SourceRecord {
            kind: tree("/srv/app"),
            ..record("app", None)
        };
        let root = SourceRecord {
            kind: tree("/"),
            ..record("all", None)
        };
        snapshot.sources = vec![app, root, record("db", None)];
    });

    let found = repo
        .find_snapshot(&id.to_string(), &HostChoice::Any)
        .expect("there");
    for (path, example) in [
        ("srv/app", "latest:app;"),
        ("srv/app/x/y", "latest:app/x/y;"),
        ("srv/application", "latest:all/srv/application;"),
        ("db", "latest:all/db;"),
        ("", "latest:all;"),
    ] {
        let path = RelPath::from_slashed(path.as_bytes()).expect("a path");
        let why = source_of(&found, "latest", "", &path)
            .expect_err("no source")
            .to_string();
        assert!(why.contains("write SNAP:SOURCE/PATH, for example"), "{why}");
        assert!(
            why.contains(example) && why.ends_with("has the sources app, all, db"),
            "{example}: {why}"
        );
    }

    assert!(matches!(
        source_of(&found, "latest", "", &RelPath::root()),
        Err(Error::Usage { .. })
    ));
    assert!(matches!(
        source_of(&found, "latest", "no", &RelPath::root()),
        Err(Error::NotThere(_))
    ));
}

/// The store's clock was a year ahead for an hour: a snapshot built on one from that hour is still
/// newer.
#[test]
fn a_snapshot_is_newer_than_its_parent_despite_the_clock() {
    let lab = Lab::new();
    let repo = lab.open();
    let on = |parents: Vec<SnapshotId>| {
        lab.store.clock().advance(60);
        commit_as(&repo, lease(&repo), |snapshot| {
            snapshot.parents = parents;
            snapshot.sources = vec![record("a", None)];
        })
    };
    let first = on(Vec::new());
    lab.store.clock().advance(365 * 86_400);
    let ahead = on(vec![first]);
    assert_eq!(
        ask(&lab, "latest", &HostChoice::Any, Some("a")).0,
        Ok(ahead)
    );
    lab.store.clock().advance(-365 * 86_400);
    let back = on(vec![ahead]);
    let last = on(vec![back]);
    assert_eq!(ask(&lab, "latest", &HostChoice::Any, None).0, Ok(last));
    assert_eq!(
        ask(&lab, "latest", &HostChoice::Any, Some("a")),
        (Ok(last), Vec::new())
    );
}
