//! Tests of checks, with a small node in a real repository and its directories.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::*;
use crate::ccn::docker::Docker;
use crate::ccn::profile::{DatabaseServer, NodeDatabase, NodeSource, ServerAccess, SourceLocation};
use crate::observe::Recording;
use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::ops::testing::{Lab, write};
use crate::repo::{HostChoice, Repository};
use crate::source::{Cid, FlatfsSharding};
use crate::types::hex;

const V0: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
const V1: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";
/// The root block of both of these CIDs.
const BLOCK: &str = "blocks/X3/CIQFTFEEHEDF6KLBT32BFAGLXEZL4UWFNWM4LFTLMXQBCERZ6CMLX3Y.data";
const BLOCK_BYTES: &[u8] = b"\x0a\x02\x08\x01";
/// The CID of `hello world` as a raw block.
const RAW: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
/// A directory that is not stored.
const OTHER: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
const MIB: i64 = 1 << 20;

fn sha(content: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
    hex::encode(digest.as_ref())
}

/// Builds a node.
struct Node {
    lab: Lab,
    files: String,
    pins: String,
}

impl Node {
    fn new() -> Self {
        let node = Self {
            lab: Lab::new(),
            files: String::new(),
            pins: String::new(),
        };
        fs::create_dir_all(node.path("local")).expect("made");
        fs::create_dir_all(node.path("ipfs/blocks")).expect("made");
        node
    }

    fn path(&self, below: &str) -> PathBuf {
        self.lab.tree().join(below)
    }

    /// Writes a file with an age at which it is no longer young.
    fn put(&self, below: &str, content: &[u8]) {
        write(&self.path(below), content);
        let file = fs::File::options()
            .write(true)
            .open(self.path(below))
            .expect("opens");
        file.set_modified(SystemTime::now() - Duration::from_secs(100))
            .expect("set");
    }

    fn row(&mut self, hash: &str, size: i64, kind: &str, pins: &[&str]) {
        self.files.push_str(&format!("{hash}\t{kind}\t{size}\n"));
        for pin in pins {
            self.pins.push_str(&format!("{hash}\t{pin}\t\\N\n"));
        }
    }

    /// Adds a correct file that is named by its SHA-256.
    fn good(&mut self, content: &[u8], pins: &[&str]) -> String {
        let hash = sha(content);
        self.put(&format!("local/{hash}"), content);
        self.row(&hash, content.len() as i64, "file", pins);
        hash
    }

    fn dump(&self) -> Vec<u8> {
        format!(
            "--\n\\connect aleph\n\nCOPY public.file_pins (file_hash, type, ref) FROM stdin;\n{}\\.\n\n\
             COPY public.files (hash, type, size) FROM stdin;\n{}\\.\n",
            self.pins, self.files
        )
        .into_bytes()
    }

    fn capture(&self, immutable: bool) -> (Repository, StoredSnapshot) {
        let repo = self.lab.open();
        let tree = |name: &str, path: &str| {
            SourceSpec::Tree(Box::new(TreeSpec {
                immutable,
                ..TreeSpec::new(name, self.path(path))
            }))
        };
        let input = Box::new(std::io::Cursor::new(self.dump()));
        let sources = vec![
            SourceSpec::Stream {
                name: "db".into(),
                input,
            },
            tree("local-storage", "local"),
            tree("ipfs", "ipfs"),
        ];
        let options = BackupOptions {
            allow_empty: true,
            ..BackupOptions::new("host", sources)
        };
        backup(
            &repo,
            options,
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("backed up");
        let found = repo
            .find_snapshot("latest", &HostChoice::Any)
            .expect("a snapshot");
        (repo, found)
    }

    fn check(&self, against: &CheckTarget, profile: &NodeLayout) -> Checked {
        let (repo, found) = self.capture(true);
        Checked::new(&repo, &found, profile, against)
    }

    fn snapshot(&self) -> Checked {
        self.check(&CheckTarget::Snapshot, &profile())
    }

    fn live(&self, quick: bool) -> Checked {
        let directories =
            LiveDirectories::find(&self.live_profile(), &Docker::default()).expect("paths");
        self.check(&CheckTarget::Live { directories, quick }, &profile())
    }

    fn live_profile(&self) -> NodeLayout {
        let mut profile = profile();
        let part = |source: &str, path: &str| {
            Some(NodeSource {
                source: source.into(),
                place: SourceLocation::Path(self.path(path)),
            })
        };
        (profile.local_storage, profile.ipfs) =
            (part("local-storage", "local"), part("ipfs", "ipfs"));
        profile
    }
}

fn profile() -> NodeLayout {
    let access = ServerAccess::Direct {
        address: None,
        port: None,
        password_file: None,
    };
    let part = |source: &str| {
        Some(NodeSource {
            source: source.into(),
            place: SourceLocation::Volume("no-such-volume".into()),
        })
    };
    NodeLayout {
        database: Some(NodeDatabase {
            source: "db".into(),
            server: DatabaseServer { access, user: None },
        }),
        local_storage: part("local-storage"),
        ipfs: part("ipfs"),
        ..NodeLayout::default()
    }
}

struct Checked {
    report: CheckReport,
    lines: Vec<String>,
    problems: Vec<String>,
}

impl Checked {
    fn new(
        repo: &Repository,
        found: &StoredSnapshot,
        profile: &NodeLayout,
        against: &CheckTarget,
    ) -> Self {
        let observer = Recording::default();
        let mut lines = Vec::new();
        let cancel = Cancel::new();
        let task = Task::new(&observer, &cancel);
        let session = ReadSession::open(repo, task).expect("a session");
        let report = check(&session, found, profile, against, task, &mut |finding| {
            lines.push(finding.to_string().replace('\t', " "));
            Ok(())
        });

        let problems = observer
            .problems()
            .iter()
            .map(ToString::to_string)
            .collect();
        Self {
            report: report.expect("checked"),
            lines,
            problems,
        }
    }
}

/// A node with all required files, and some that are not required.
fn whole_node() -> Node {
    let mut node = Node::new();
    for number in 0..600u32 {
        node.good(
            format!("file {number}").as_bytes(),
            &[["content"], ["message"]][number as usize % 2],
        );
    }

    // Pinned only by a grace period, or not at all: these may be missing.
    node.row(&sha(b"gone"), 4, "file", &["grace_period"]);
    node.row(&sha(b"gone too"), 8, "file", &[]);
    node.row(OTHER, 5 * MIB, "dir", &["grace_period"]);

    // An unknown size, and a directory's size, which includes its content.
    let hash = sha(b"unsized");
    node.put(&format!("local/{hash}"), b"unsized");
    node.row(&hash, -1, "file", &["message"]);
    node.row(V1, 123_456, "dir", &["message", "grace_period"]);
    node.put(&format!("ipfs/{BLOCK}"), BLOCK_BYTES);

    // A small file with a CID, and a sync archive.
    node.put(&format!("local/{RAW}"), b"hello world");
    node.row(RAW, 11, "file", &["tx"]);
    let raw_block = String::from_utf8(
        Cid::parse(RAW.as_bytes())
            .and_then(|cid| cid.block_path(FlatfsSharding::default()))
            .expect("a block")
            .to_slashed(),
    );
    node.put(
        &format!("ipfs/{}", raw_block.expect("ASCII")),
        b"hello world",
    );
    node.put(&format!("local/{V0}"), b"small");
    node.row(V0, 5, "file", &["content"]);

    // Files that do not belong to the node.
    node.put("local/notes.txt", b"x");
    node.put("local/directory/x", b"x");
    node.put("ipfs/config", b"{}");
    node.put(
        "ipfs/blocks/SHARDING",
        b"/repo/flatfs/shard/v1/next-to-last/2",
    );
    node
}

#[test]
fn a_whole_node_lacks_nothing() {
    let node = whole_node();
    for checked in [node.snapshot(), node.live(false), node.live(true)] {
        assert_eq!(
            (&checked.lines[..], &checked.problems[..]),
            (&[][..], &[][..])
        );
        let report = checked.report;
        assert_eq!((report.rows.files, report.rows.pins), (607, 607));
        assert_eq!(
            (report.pinned, report.missing, report.mismatches()),
            (604, 0, 0)
        );
        assert!(report.is_complete());
        assert_eq!((report.local.wanted, report.local.stored), (603, 603));
        assert_eq!((report.ipfs.wanted, report.ipfs.stored), (2, 2));
    }
}

#[test]
fn missing_pinned_files_are_reported_by_kind_and_place() {
    let mut node = whole_node();
    let mut gone: Vec<String> = (0..3)
        .map(|n: u32| sha(format!("file {n}").as_bytes()))
        .collect();
    gone.sort();
    for hash in &gone {
        fs::remove_file(node.path(&format!("local/{hash}"))).expect("removed");
    }

    // A second CID of the same block, a sync archive that is missing in both places, and one
    // without a local copy.
    fs::remove_file(node.path(&format!("ipfs/{BLOCK}"))).expect("removed");
    fs::remove_file(node.path(&format!("local/{RAW}"))).expect("removed");
    node.row(OTHER, 3, "file", &["tx"]);
    node.row("not/a\\tname", 3, "file", &["later"]);
    let other = Cid::parse(OTHER.as_bytes())
        .and_then(|cid| cid.block_path(FlatfsSharding::default()))
        .expect("a block")
        .to_string();

    for checked in [node.snapshot(), node.live(false), node.live(true)] {
        let mut expected: Vec<String> = Vec::new();
        for hash in &gone {
            let kind = if *hash == sha(b"file 1") {
                "message"
            } else {
                "content"
            };
            expected.push(format!("missing {hash} {kind} local-storage/{hash}"));
        }

        expected.push(format!("missing {RAW} tx local-storage/{RAW}"));
        expected.push(format!(
            "missing {OTHER} tx,grace_period local-storage/{OTHER}"
        ));
        expected.push("missing not/a\\tname other local-storage/not/a\\tname".into());
        expected.push(format!("missing {V1} message,grace_period ipfs/{BLOCK}"));
        expected.push(format!("missing {OTHER} tx,grace_period ipfs/{other}"));

        let mut lines = checked.lines.clone();
        lines.sort();
        expected.sort();
        assert_eq!(lines, expected);

        let report = checked.report;
        assert_eq!(
            (report.missing, report.local.missing, report.ipfs.missing),
            (7, 6, 2)
        );
        assert_eq!(report.local.missing_by_kind, [2, 1, 2, 1, 1]);
        assert_eq!(report.ipfs.missing_by_kind, [0, 1, 1, 2, 0]);
        assert_eq!(report.mismatches(), 0);
    }
}

#[test]
fn mismatches_of_name_or_row_are_reported_pinned_or_not() {
    let mut node = whole_node();
    let torn = node.good(b"all of this", &["message"]);
    node.put(&format!("local/{torn}"), b"all of");
    let flipped = node.good(b"as long", &[]);
    node.put(&format!("local/{flipped}"), b"AS LONG");
    let no_row = sha(b"no row");
    node.put(&format!("local/{no_row}"), b"other");
    node.put(&format!("local/{V0}"), b"smal");
    node.put(&format!("local/{RAW}"), b"hello_world");
    node.put(&format!("ipfs/{BLOCK}"), b"\x0a\x02\x08\x02");

    let by_content = [
        format!("wrong-name {flipped} - local-storage/{flipped}"),
        format!("wrong-name {torn} message local-storage/{torn}"),
        format!("wrong-name {no_row} - local-storage/{no_row}"),
        format!("wrong-name {RAW} tx local-storage/{RAW}"),
        format!("wrong-name {V1} message,grace_period ipfs/{BLOCK}"),
    ];
    let by_size = [
        format!("wrong-size {torn} message local-storage/{torn}"),
        format!("wrong-size {V0} content local-storage/{V0}"),
    ];
    let sorted = |lines: &mut Vec<String>| {
        lines.sort();
        lines.clone()
    };
    let all = sorted(&mut by_content.iter().chain(&by_size).cloned().collect());

    for mut checked in [node.snapshot(), node.live(false)] {
        assert_eq!(sorted(&mut checked.lines), all);
        let report = checked.report;
        assert_eq!(
            (
                report.local.wrong_name,
                report.local.wrong_size,
                report.ipfs.wrong_name
            ),
            (4, 2, 1)
        );
        assert_eq!((report.missing, report.mismatches()), (0, 7));
    }

    assert_eq!(
        sorted(&mut node.live(true).lines),
        sorted(&mut by_size.to_vec()),
        "sizes alone"
    );
}

#[test]
fn a_larger_file_lies_in_kubo_or_whole_in_local_storage() {
    let mut node = Node::new();
    let long = vec![7; MIB as usize + 1];
    node.row(V0, long.len() as i64, "file", &["message"]);
    assert_eq!(
        node.snapshot().lines,
        [format!("missing {V0} message ipfs/{BLOCK}")]
    );
    node.put(&format!("local/{V0}"), &long);
    assert!(node.snapshot().lines.is_empty());
    node.put(&format!("local/{V0}"), &long[1..]);
    let half = node.snapshot();
    assert_eq!(half.lines.len(), 2, "{:?}", half.lines);
    node.put(&format!("ipfs/{BLOCK}"), BLOCK_BYTES);
    fs::remove_file(node.path(&format!("local/{V0}"))).expect("removed");
    assert!(node.snapshot().lines.is_empty());
    // A directory cannot be in local storage.
    let mut directory = Node::new();
    directory.row(V0, 5, "dir", &["message"]);
    directory.put(&format!("local/{V0}"), b"12345");
    assert_eq!(directory.snapshot().report.ipfs.missing, 1);
}

#[test]
fn a_file_half_written_is_looked_at_again() {
    let mut node = Node::new();
    let hash = node.good(b"written in two steps", &["message"]);
    let path = node.path(&format!("local/{hash}"));
    let directories = LiveDirectories {
        local_storage: Some(node.path("local")),
        ipfs: Some(node.path("ipfs")),
    };
    let (repo, found) = node.capture(true);
    fs::write(&path, b"written in").expect("half");
    let checked = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(200));
            fs::write(&path, b"written in two steps").expect("whole");
        });
        Checked::new(
            &repo,
            &found,
            &profile(),
            &CheckTarget::Live {
                directories,
                quick: false,
            },
        )
    });

    assert_eq!(
        (&checked.lines[..], &checked.problems[..]),
        (&[][..], &[][..])
    );
}

#[test]
fn uncaptured_and_unnamed_parts_are_reported() {
    let node = whole_node();
    let (repo, found) = node.capture(false);
    let checked = Checked::new(&repo, &found, &profile(), &CheckTarget::Snapshot);
    assert_eq!(checked.problems.len(), 2, "{:?}", checked.problems);
    assert!(
        checked.problems[0].contains("names were not compared"),
        "{:?}",
        checked.problems
    );

    let unnamed = NodeLayout {
        ipfs: None,
        ..profile()
    };
    let checked = Checked::new(&repo, &found, &unnamed, &CheckTarget::Snapshot);
    assert_eq!(
        (checked.report.missing, checked.report.ipfs),
        (0, PlaceReport::default())
    );
    assert!(
        checked
            .problems
            .iter()
            .any(|problem| problem.contains("not checked")),
        "{:?}",
        checked.problems
    );

    let mut elsewhere = profile();
    elsewhere.ipfs = Some(NodeSource {
        source: "kubo".into(),
        place: SourceLocation::Volume("x".into()),
    });
    let checked = Checked::new(&repo, &found, &elsewhere, &CheckTarget::Snapshot);
    assert_eq!(checked.report.ipfs.missing, 2);
    assert!(
        checked
            .problems
            .iter()
            .any(|problem| problem.contains("does not have it")),
        "{:?}",
        checked.problems
    );
}

#[test]
fn a_check_needs_a_dump() {
    let node = Node::new();
    let (repo, found) = node.capture(true);
    let error_of = |profile: &NodeLayout, found: &StoredSnapshot| {
        let observer = Recording::default();
        let cancel = Cancel::new();
        let task = Task::new(&observer, &cancel);
        let session = ReadSession::open(&repo, task).expect("a session");
        let against = CheckTarget::Snapshot;
        let result = check(&session, found, profile, &against, task, &mut |_| Ok(()));
        result.expect_err("no dump").to_string()
    };

    let named = |source: &str| {
        let mut profile = profile();
        profile
            .database
            .iter_mut()
            .for_each(|database| database.source = source.into());
        profile
    };

    assert!(error_of(&NodeLayout::default(), &found).contains("no source is configured"));
    assert!(error_of(&named("postgres"), &found).contains("has no source 'postgres'"));
    assert!(error_of(&named("ipfs"), &found).contains("is a tree, not a dump"));

    let observer = Recording::default();
    let cancel = Cancel::new();
    let task = Task::new(&observer, &cancel);
    let session = ReadSession::open(&repo, task).expect("a session");
    cancel.cancel();
    let against = CheckTarget::Snapshot;
    let stopped = check(
        &session,
        &found,
        &profile(),
        &against,
        task,
        &mut |_| Ok(()),
    );

    assert!(matches!(
        stopped,
        Err(NodeError::Engine(Error::Interrupted))
    ));
}

#[test]
fn the_names_for_a_minimal_restore_are_the_pinned_ones_in_order() {
    let mut node = whole_node();
    node.row(OTHER, 5 * MIB, "file", &["content"]);
    let (repo, found) = node.capture(true);
    let observer = Recording::default();
    let cancel = Cancel::new();
    let task = Task::new(&observer, &cancel);
    let session = ReadSession::open(&repo, task).expect("a session");
    let mut names = pinned_local_names(&session, &found, &profile(), task).expect("read");
    let names: Vec<Vec<u8>> = std::iter::from_fn(|| names.next().expect("read")).collect();
    assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
    let has = |name: &str| names.iter().any(|found| found == name.as_bytes());
    assert!(has(V0) && has(RAW) && has(OTHER) && has(&sha(b"file 7")) && has(&sha(b"unsized")));
    assert!(!has(V1) && !has(&sha(b"gone")) && !has(&sha(b"gone too")));
    assert_eq!(names.len(), 604);
}

/// kubo recommends `next-to-last/3` for more than some millions of blocks. The check used to miss
/// every block then.
#[test]
fn blocks_are_looked_for_where_the_repository_keeps_them() {
    let mut node = Node::new();
    node.row(V1, 123_456, "dir", &["message"]);
    node.put(
        "ipfs/blocks/SHARDING",
        b"/repo/flatfs/shard/v1/next-to-last/3\n",
    );
    for (place, missing) in [("blocks/LX3", 0), ("blocks/X3", 1)] {
        let name = BLOCK.rsplit('/').next().expect("a name");
        node.put(&format!("ipfs/{place}/{name}"), BLOCK_BYTES);
        for checked in [node.snapshot(), node.live(false), node.live(true)] {
            assert_eq!(
                (checked.report.missing, checked.report.ipfs.wanted),
                (missing, 1),
                "{place}"
            );
            assert!(checked.problems.is_empty(), "{:?}", checked.problems);
        }
        fs::remove_dir_all(node.path(&format!("ipfs/{place}"))).expect("removed");
    }
}

/// A kubo that stores its blocks in a database has no file for any of them. The check used to
/// report each block as missing.
#[test]
fn a_block_database_is_reported_once_and_no_block_is_missing() {
    let node = whole_node();
    fs::remove_file(node.path(&format!("ipfs/{BLOCK}"))).expect("removed");
    node.put(
        "ipfs/datastore_spec",
        br#"{"path":"pebbleds","type":"pebbleds"}"#,
    );
    for checked in [node.snapshot(), node.live(false), node.live(true)] {
        assert_eq!((checked.report.missing, checked.report.ipfs.wanted), (0, 0));
        assert_eq!(checked.problems.len(), 1, "{:?}", checked.problems);
        assert!(
            checked.problems[0].contains("stores blocks in a database (pebbleds)"),
            "{:?}",
            checked.problems
        );
    }
    // An unknown layout is also reported once, and no block is missing.
    node.put("ipfs/datastore_spec", b"{}");
    node.put("ipfs/blocks/SHARDING", b"/repo/flatfs/shard/v9/odd/2");
    let checked = node.snapshot();
    assert!(
        checked.report.missing == 0 && checked.problems[0].contains("v9/odd/2"),
        "{:?}",
        checked.problems
    );
}
