//! Tests of the plan: accepted and refused captures, and messages.

use super::super::super::profile::{DatabaseServer, NodeDatabase, NodeSource, ServerAccess};
use super::*;
use crate::format::{FORMAT_VERSION, LostContent, LostPath, Snapshot, SourceCounts};
use crate::types::{Content, LeaseId, SnapshotId};

fn profile() -> NodeLayout {
    let part = |source: &str| {
        Some(NodeSource {
            source: source.into(),
            place: SourceLocation::Path(format!("/srv/{source}").into()),
        })
    };
    let access = ServerAccess::Direct {
        address: None,
        port: None,
        password_file: None,
    };
    NodeLayout {
        database: Some(NodeDatabase {
            source: "db".into(),
            server: DatabaseServer { access, user: None },
        }),
        local_storage: part("local"),
        ipfs: part("ipfs"),
        keys: part("keys"),
        config: part("config"),
        project: None,
        writers: Vec::new(),
    }
}

/// A snapshot committed at this second. Its sources were captured in this order for 10 s each, the
/// first one 100 s before the commit.
fn snapshot(number: u8, second: i64, sources: &[&str]) -> StoredSnapshot {
    let at = Timestamp::from_seconds;
    let record = |(place, name): (usize, &&str)| {
        let started = second - 100 + 10 * place as i64;
        let kind = if name.starts_with("db") {
            SourceKind::Stream {
                command: Vec::new(),
                content: Content::default(),
            }
        } else {
            SourceKind::Tree {
                path: b"/x".to_vec(),
                immutable: false,
                runs: Vec::new(),
            }
        };
        SourceRecord {
            name: (*name).to_owned(),
            kind,
            profile: "tree".into(),
            started: at(started),
            ended: at(started + 10),
            digest: [0; 32],
            counts: SourceCounts::default(),
            suspect: None,
            numeric_owners: false,
            moved_from: Vec::new(),
        }
    };

    let snapshot = Snapshot {
        format: FORMAT_VERSION,
        state: SnapshotState::Complete,
        host: "node".into(),
        tags: Vec::new(),
        program: "test".into(),
        started: at(second - 100),
        ended: at(second),
        lease: LeaseId::new([0; 16]),
        heartbeat: at(second),
        parents: Vec::new(),
        sources: sources.iter().enumerate().map(record).collect(),
        images: Vec::new(),
        protected: false,
        replaces: None,
        original: None,
        committed: None,
        lost: None,
        other: Default::default(),
    };

    StoredSnapshot {
        id: SnapshotId::new([number; 32]),
        stored: at(second),
        snapshot,
    }
}

const ALL: [&str; 5] = ["db", "local", "ipfs", "keys", "config"];

fn good(number: u8, second: i64) -> StoredSnapshot {
    snapshot(number, second, &ALL)
}

fn spoil(
    mut snapshot: StoredSnapshot,
    source: &str,
    by: impl FnOnce(&mut SourceRecord),
) -> StoredSnapshot {
    by(snapshot
        .snapshot
        .sources
        .iter_mut()
        .find(|record| record.name == source)
        .expect("there"));
    snapshot
}

fn picks(picks: &[(&StoredSnapshot, Option<&str>)]) -> Vec<PartPick> {
    let pick = |&(snapshot, source): &(&StoredSnapshot, Option<&str>)| PartPick {
        is_latest: false,
        snapshot: snapshot.clone(),
        source: source.map(str::to_owned),
    };
    picks.iter().map(pick).collect()
}

fn refusal(result: Result<RestorePlan, NodeError>) -> (String, Advice) {
    match result {
        Err(NodeError::Refused { why, advice }) => (why, advice),
        other => panic!("{other:?}"),
    }
}

/// Returns the advice without the alternative to name the capture itself.
fn first_of(advice: Advice) -> Advice {
    match advice {
        Advice::Node(NodeAdvice::OrNameThis { first, .. }) => *first,
        advice => advice,
    }
}

fn parts(plan: &RestorePlan) -> Vec<(NodePart, u8)> {
    plan.steps
        .iter()
        .map(|step| (step.part, step.snapshot.id.as_bytes()[0]))
        .collect()
}

#[test]
fn parts_come_back_in_order_the_database_last() {
    let one = good(1, 1000);
    let made = plan(&profile(), &picks(&[(&one, None)]), RestoreScope::All, &[]).expect("a plan");
    let order: Vec<NodePart> = made.steps.iter().map(|step| step.part).collect();
    assert_eq!(order, NodePart::ALL);
    assert!(
        made.warnings.is_empty() && !made.lacks_files,
        "{:?}",
        made.warnings
    );
    let files = plan(
        &profile(),
        &picks(&[(&one, None)]),
        RestoreScope::Files,
        &[],
    )
    .expect("a plan");
    assert_eq!(
        parts(&files),
        [(NodePart::LocalStorage, 1), (NodePart::Ipfs, 1)]
    );
}

#[test]
fn single_sources_take_the_place_of_a_snapshot_s() {
    let one = good(1, 1000);
    let two = good(2, 2000);
    let both = picks(&[(&one, None), (&two, Some("local"))]);
    let made = plan(&profile(), &both, RestoreScope::All, &[]).expect("younger files are accepted");
    assert_eq!(
        made.step(NodePart::LocalStorage)
            .expect("there")
            .snapshot
            .id,
        two.id
    );
    assert_eq!(
        made.step(NodePart::Ipfs).expect("there").snapshot.id,
        one.id
    );

    let keys = plan(
        &profile(),
        &picks(&[(&one, Some("keys"))]),
        RestoreScope::All,
        &[],
    )
    .expect("a plan");
    assert_eq!(parts(&keys), [(NodePart::Keys, 1)]);
    for bad in [
        picks(&[(&one, None), (&two, None)]),
        picks(&[(&one, Some("db")), (&two, Some("db"))]),
        picks(&[(&one, Some("other"))]),
    ] {
        let err = plan(&profile(), &bad, RestoreScope::All, &[]).expect_err("refused");
        assert_eq!(err.kind(), crate::ErrorKind::Usage);
    }

    let err = plan(
        &profile(),
        &picks(&[(&one, Some("db"))]),
        RestoreScope::Files,
        &[],
    )
    .expect_err("refused");
    assert_eq!(err.kind(), crate::ErrorKind::Usage);
    assert_eq!(
        err.advice(),
        Some(Advice::Node(NodeAdvice::RestoreAllParts))
    );
}

#[test]
fn file_storage_older_than_the_database_is_refused() {
    let one = good(1, 1000);
    let two = good(2, 2000);
    let all = [one.clone(), two.clone()];
    let (why, advice) = refusal(plan(
        &profile(),
        &picks(&[(&two, None), (&one, Some("local"))]),
        RestoreScope::All,
        &all,
    ));
    assert!(
        why.contains("older than the database") && why.contains("committed earlier"),
        "{why}"
    );
    assert_eq!(
        advice,
        Advice::from(format!(
            "use newer files ({}:local), or an older database",
            two.id.short()
        ))
    );
    let made = plan(
        &profile(),
        &picks(&[(&two, None), (&one, Some("db"))]),
        RestoreScope::All,
        &all,
    );
    assert_eq!(made.expect("the reverse is accepted").steps.len(), 5);
    // Without a database, files cannot be older than it.
    let alone = picks(&[(&one, Some("local"))]);
    assert!(plan(&profile(), &alone, RestoreScope::All, &all).is_ok());
}

#[test]
fn within_a_snapshot_the_order_of_sources_counts() {
    let wrong = snapshot(1, 1000, &["local", "db", "ipfs", "keys", "config"]);
    let (why, advice) = refusal(plan(
        &profile(),
        &picks(&[(&wrong, None)]),
        RestoreScope::All,
        &[],
    ));
    assert!(why.contains("captured before the database"), "{why}");
    let files = format!("{}:local", wrong.id.short());
    let database = "db".into();
    assert_eq!(
        advice,
        Advice::Node(NodeAdvice::BackUpInOrder { database, files })
    );
}

#[test]
fn a_capture_that_began_while_the_database_was_dumped_is_refused() {
    let one = good(1, 1000);
    let two = good(2, 2000);
    let at = Timestamp::from_seconds;
    // A scan that began early and took a long time.
    let early = spoil(two.clone(), "ipfs", |record| record.started = at(905));
    let (why, _) = refusal(plan(
        &profile(),
        &picks(&[(&one, None), (&early, Some("ipfs"))]),
        RestoreScope::All,
        &[],
    ));
    assert!(why.contains("began before"), "{why}");
    // A clock that is a day off is ignored in favour of the store's.
    let off = spoil(two, "ipfs", |record| record.started = at(-200_000));
    assert!(
        plan(
            &profile(),
            &picks(&[(&one, None), (&off, Some("ipfs"))]),
            RestoreScope::All,
            &[]
        )
        .is_ok()
    );
}

#[test]
fn a_suspect_capture_is_used_if_it_is_named() {
    let base = good(1, 1000);
    for source in ["db", "keys"] {
        let doubtful = spoil(good(1, 1000), source, |record| {
            record.suspect = Some("half its size".into());
        });

        let (why, advice) = refusal(plan(
            &profile(),
            &picks(&[(&doubtful, None)]),
            RestoreScope::All,
            &[],
        ));
        assert!(why.contains("half its size"), "{why}");
        let first = Advice::Node(NodeAdvice::CopyBack {
            source: source.into(),
        });
        assert_eq!(
            advice,
            Advice::Node(NodeAdvice::OrNameThis {
                first: Box::new(first),
                capture: format!("{}:{source}", doubtful.id.short()),
            })
        );

        let named = [(&base, None), (&doubtful, Some(source))];
        let plan_of = |snapshot: &StoredSnapshot| {
            plan(
                &profile(),
                &picks(&[(&base, None), (snapshot, Some(source))]),
                RestoreScope::All,
                &[],
            )
        };

        let taken = plan(&profile(), &picks(&named), RestoreScope::All, &[]).expect("named");
        assert!(
            taken
                .warnings
                .iter()
                .any(|warning| warning.message.contains("half its size"))
        );

        // An incomplete capture is refused even by its id.
        assert!(
            plan_of(&spoil(doubtful, source, |record| record
                .counts
                .incomplete = 1))
            .is_err()
        );
    }
}

#[test]
fn a_database_or_keys_that_are_not_whole_are_refused_with_advice() {
    let old = good(1, 1000);
    for source in ["db", "keys"] {
        let spoilt = [
            spoil(good(3, 3000), source, |record| {
                record.suspect = Some("half its size".into());
            }),
            spoil(good(3, 3000), source, |record| record.counts.incomplete = 2),
            {
                let mut lost = good(3, 3000);
                let paths = vec![LostPath {
                    source: source.into(),
                    path: Vec::new(),
                    bytes: None,
                }];
                lost.snapshot.lost = Some(LostContent { count: 1, paths });
                lost
            },
            {
                let mut lost = good(3, 3000);
                lost.snapshot.lost = Some(LostContent {
                    count: 9,
                    paths: Vec::new(),
                });
                lost
            },
            snapshot(
                3,
                3000,
                &ALL.into_iter()
                    .filter(|name| *name != source)
                    .collect::<Vec<_>>(),
            ),
        ];

        for bad in spoilt {
            let other = StoredSnapshot {
                id: SnapshotId::new([9; 32]),
                snapshot: Snapshot {
                    host: "else".into(),
                    ..old.snapshot.clone()
                },
                ..old.clone()
            };
            let younger = good(5, 5000);
            let all = [old.clone(), bad.clone(), other, younger];

            // If the list of losses is not complete, no part of that snapshot is trusted, and the
            // first part is reported.
            let is_unnamed = bad
                .snapshot
                .lost
                .as_ref()
                .is_some_and(|lost| lost.count == 9);
            let reported = if is_unnamed { "keys" } else { source };

            let (_, advice) = refusal(plan(
                &profile(),
                &picks(&[(&bad, None)]),
                RestoreScope::All,
                &all,
            ));
            let capture = format!("{}:{reported}", old.id.short());
            assert_eq!(
                first_of(advice),
                Advice::Node(NodeAdvice::NameCapture { capture })
            );

            let (_, advice) = refusal(plan(
                &profile(),
                &picks(&[(&bad, None)]),
                RestoreScope::All,
                &all[1..3],
            ));
            let left = Advice::Node(NodeAdvice::CopyBack {
                source: reported.to_owned(),
            });
            assert_eq!(first_of(advice), left);

            let both = picks(&[(&bad, None), (&old, Some(source))]);
            let made = plan(&profile(), &both, RestoreScope::All, &all);
            assert_eq!(made.is_err(), is_unnamed, "{made:?}");
        }
    }
}

/// The compose file, the configuration and the script that sets up kubo are in one source, so they
/// are always of the same snapshot. kubo's repository may be of another one.
#[test]
fn settings_of_another_snapshot_than_kubo_and_the_database_are_reported() {
    let old = good(1, 1000);
    let new = good(2, 2000);
    let warnings_of = |asked: &[(&StoredSnapshot, Option<&str>)]| {
        let made = plan(&profile(), &picks(asked), RestoreScope::All, &[]).expect("a plan");
        made.warnings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(warnings_of(&[(&new, None)]), [""; 0]);
    assert_eq!(
        warnings_of(&[(&new, Some("config")), (&new, Some("ipfs"))]),
        [""; 0]
    );

    let warnings = warnings_of(&[(&old, None), (&new, Some("ipfs"))]);
    let wanted = format!(
        "from another snapshot than the IPFS of {}:ipfs:",
        new.id.short()
    );
    assert!(
        warnings.len() == 1 && warnings[0].contains(&wanted),
        "{warnings:?}"
    );
    assert!(
        warnings[0].starts_with(&format!("{}:config: ", old.id.short())),
        "{warnings:?}"
    );

    let warnings = warnings_of(&[(&new, None), (&old, Some("config"))]);
    assert!(
        warnings.len() == 1 && warnings[0].contains(":ipfs and the database of "),
        "{warnings:?}"
    );
    assert_eq!(
        warnings_of(&[(&new, Some("config"))]),
        [""; 0],
        "nothing that it could not fit"
    );
}

#[test]
fn incomplete_file_storage_is_reported_and_used() {
    let bad = spoil(good(1, 1000), "local", |record| {
        record.counts.incomplete = 1;
    });
    let made = plan(&profile(), &picks(&[(&bad, None)]), RestoreScope::All, &[]).expect("a plan");
    assert_eq!(made.steps.len(), 5);
    assert!(made.lacks_files);
    assert!(
        made.warnings[0].message.contains("network"),
        "{:?}",
        made.warnings
    );

    let less = snapshot(1, 1000, &["db", "keys", "extra"]);
    let made = plan(&profile(), &picks(&[(&less, None)]), RestoreScope::All, &[]).expect("a plan");
    assert_eq!(parts(&made), [(NodePart::Keys, 1), (NodePart::Database, 1)]);
    let warnings: Vec<(&str, Severity)> = made
        .warnings
        .iter()
        .map(|one| (one.subject.as_str(), one.severity))
        .collect();
    assert_eq!(
        warnings,
        [
            ("config", Severity::Missing),
            ("local", Severity::Missing),
            ("ipfs", Severity::Missing),
            ("extra", Severity::Note)
        ]
    );
}

/// `node restore NEW:db`, then `node restore OLD --files`: each command on its own has nothing to
/// compare.
#[test]
fn files_are_compared_with_the_database_that_was_restored_before() {
    use super::super::restored::{compare, remember};
    use crate::sys::StateDir;

    let root = tempfile::tempdir().expect("a directory");
    let state = StateDir::open(root.path().join("state")).expect("opened");
    let old = good(1, 1000);
    let new = good(2, 2000);
    let mut tagged = StoredSnapshot {
        id: SnapshotId::new([3; 32]),
        ..new.clone()
    };
    tagged.snapshot = Snapshot {
        replaces: None,
        ..new.successor()
    };
    let all = [old.clone(), new.clone(), tagged.clone()];
    let files_of = |one: &StoredSnapshot, scope, picked: Option<&str>| {
        plan(&profile(), &picks(&[(one, picked)]), scope, &all).expect("a plan")
    };
    let forms = |one: &StoredSnapshot| {
        [
            files_of(one, RestoreScope::Files, None),
            files_of(one, RestoreScope::All, Some("local")),
            files_of(one, RestoreScope::All, Some("ipfs")),
        ]
    };

    // Without a record of the database, the plan warns of later captures of the database, if there
    // are any.
    for plan in forms(&old) {
        let warning = compare(Some(&state), &profile(), &plan, &all)
            .expect("allowed")
            .expect("a warning");
        assert!(
            warning.severity == Severity::Warning
                && warning.advice == Some(Advice::Node(NodeAdvice::CheckNode)),
            "{warning:?}"
        );
    }

    assert_eq!(
        compare(None, &profile(), &forms(&new)[0], &all[..2]).expect("allowed"),
        None
    );

    for database in [&new, &tagged] {
        let step = RestoreStep::of(NodePart::Database, database, "db").expect("a database");
        remember(Some(&state), &profile(), &step).expect("remembered");
        for plan in forms(&old) {
            let err = compare(Some(&state), &profile(), &plan, &all).expect_err("older files");
            assert!(
                err.to_string().contains("that database was restored here"),
                "{err}"
            );
            let Some(Advice::Node(NodeAdvice::InOneCommand { first, record })) = err.advice()
            else {
                panic!("{err:?}");
            };
            assert!(
                matches!(&*first, Advice::Text(text) if text.contains(":local") || text.contains(":ipfs")),
                "{first:?}"
            );
            assert!(record.to_string_lossy().contains("restored-"), "{record:?}");
        }
        for plan in forms(&new) {
            assert_eq!(
                compare(Some(&state), &profile(), &plan, &all[..2]).expect("allowed"),
                None
            );
        }
    }

    // A drill restores to another server and other places.
    let mut drill = profile();
    drill.local_storage = Some(NodeSource {
        source: "local".into(),
        place: SourceLocation::Path("/var/tmp/drill".into()),
    });
    assert!(
        compare(Some(&state), &drill, &forms(&old)[0], &all)
            .expect("allowed")
            .is_some()
    );

    // If the database is of the same snapshot, earlier restores do not matter.
    let both = plan(&profile(), &picks(&[(&old, None)]), RestoreScope::All, &all).expect("a plan");
    assert_eq!(
        compare(Some(&state), &profile(), &both, &all).expect("allowed"),
        None
    );
}

/// `node restore OLD --files`, then `node restore NEW:db`: the node may have run in between, so
/// this is only a warning.
#[test]
fn a_database_is_compared_with_the_files_that_were_restored_before() {
    use super::super::restored::{compare, remember};
    use crate::sys::StateDir;

    let root = tempfile::tempdir().expect("a directory");
    let state = StateDir::open(root.path().join("state")).expect("opened");
    let old = good(1, 1000);
    let new = good(2, 2000);
    let all = [old.clone(), new.clone()];
    let compared = |one: &StoredSnapshot, picked: Option<&str>| {
        let plan = plan(
            &profile(),
            &picks(&[(one, picked)]),
            RestoreScope::All,
            &all,
        )
        .expect("a plan");
        compare(Some(&state), &profile(), &plan, &all).expect("allowed")
    };
    assert_eq!(compared(&new, Some("db")), None);

    for (part, source) in [(NodePart::LocalStorage, "local"), (NodePart::Ipfs, "ipfs")] {
        let files = |one| RestoreStep::of(part, one, source).expect("files");
        remember(Some(&state), &profile(), &files(&old)).expect("remembered");
        let warning = compared(&new, Some("db")).expect("a warning");
        assert_eq!(warning.severity, Severity::Warning);
        assert!(
            warning.message.contains(part.name()) && warning.message.contains(&old.id.short()),
            "{warning:?}"
        );
        let snapshot = new.id.short();
        assert_eq!(
            warning.advice,
            Some(Advice::Node(NodeAdvice::CheckNodeOrRestoreAll { snapshot }))
        );
        assert_eq!(compared(&old, Some("db")), None);
        assert_eq!(compared(&new, None), None);

        remember(Some(&state), &profile(), &files(&new)).expect("remembered");
        assert_eq!(compared(&new, Some("db")), None);
    }
}

#[test]
fn files_that_no_database_fits_get_advice() {
    let old = good(1, 1000);
    let new = good(2, 2000);
    let younger = snapshot(3, 3000, &["db"]);
    let all = [old.clone(), new.clone(), younger.clone()];
    let advice_of = |all: &[StoredSnapshot]| {
        refusal(plan(
            &profile(),
            &picks(&[(&new, Some("local")), (&younger, Some("db"))]),
            RestoreScope::All,
            all,
        ))
        .1
    };

    assert_eq!(
        advice_of(&all),
        Advice::from(format!(
            "use the database of an older snapshot: {}:db",
            new.id.short()
        ))
    );

    let backwards = snapshot(4, 4000, &["local", "db", "ipfs", "keys"]);
    let (_, advice) = refusal(plan(
        &profile(),
        &picks(&[(&backwards, None)]),
        RestoreScope::All,
        std::slice::from_ref(&backwards),
    ));
    let files = format!("{}:local", backwards.id.short());
    let database = "db".into();
    assert_eq!(
        advice,
        Advice::Node(NodeAdvice::BackUpInOrder { database, files })
    );
}
