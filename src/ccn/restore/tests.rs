//! Tests of parts that are files: restored files, files left alone, and files left out.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::ccn::profile::{DatabaseServer, NodeDatabase, NodeSource};
use crate::dest::ProtectedDirs;
use crate::format::ServiceImage;
use crate::observe::Recording;
use crate::ops::backup::{BackupOptions, SourceSpec, TreeSpec, backup};
use crate::ops::memory::BUDGET_DEFAULT;
use crate::ops::testing::{Lab, lease, write};
use crate::repo::HostChoice;
use crate::types::hex;

fn sha(content: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
    hex::encode(digest.as_ref())
}

/// A node that was backed up, and another place to restore it to.
struct Node {
    lab: Lab,
    to: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self {
            lab: Lab::new(),
            to: tempfile::tempdir().expect("a directory"),
        };
        for content in ["pinned", "not pinned"] {
            node.put(&format!("local/{}", sha(content.as_bytes())), content);
        }
        node.put(&format!("local/{}", sha(b"torn file")), "torn");
        for (path, content) in [
            ("ipfs/config", "identity"),
            ("ipfs/datastore/CURRENT", "current"),
            ("ipfs/blocks/SHARDING", "next-to-last/2"),
            ("ipfs/blocks/AA/one.data", "a block"),
            ("keys/node-secret.pkcs8.der", "secret"),
        ] {
            node.put(path, content);
        }
        let mode = |path: &str, mode| {
            fs::set_permissions(node.lab.tree().join(path), PermissionsExt::from_mode(mode))
                .expect("mode");
        };
        mode("local", 0o2750);
        mode("keys", 0o700);
        mode("keys/node-secret.pkcs8.der", 0o600);
        node.backup();
        node
    }

    fn put(&self, below: &str, content: &str) {
        write(&self.lab.tree().join(below), content.as_bytes());
    }

    fn backup(&self) {
        let pinned = sha(b"pinned");
        let torn = sha(b"torn file");
        let dump = format!(
            "COPY public.file_pins (file_hash, type) FROM stdin;\n{pinned}\tmessage\n{torn}\tmessage\n\\.\n\
             COPY public.files (hash, type, size) FROM stdin;\n{pinned}\tfile\t6\n{torn}\tfile\t9\n\\.\n"
        );

        let tree = |name: &str, immutable| {
            let spec = TreeSpec {
                immutable,
                ..TreeSpec::new(name, self.lab.tree().join(name))
            };
            SourceSpec::Tree(Box::new(spec))
        };

        let input = Box::new(std::io::Cursor::new(dump.into_bytes()));
        let db = SourceSpec::Stream {
            name: "db".into(),
            input,
        };

        let sources = vec![
            db,
            tree("local", true),
            tree("ipfs", true),
            tree("keys", false),
        ];

        let options = BackupOptions::new("host", sources);
        backup(
            &self.lab.open(),
            options,
            Task::new(&Recording::default(), &Cancel::new()),
        )
        .expect("backed up");
    }

    fn to(&self, below: &str) -> PathBuf {
        self.to.path().join(below)
    }

    fn read(&self, below: &str) -> Option<String> {
        fs::read_to_string(self.to(below)).ok()
    }

    fn profile(&self) -> NodeLayout {
        let part = |name: &str| {
            Some(NodeSource {
                source: name.into(),
                place: SourceLocation::Path(self.to(name)),
            })
        };
        let access = ServerAccess::Direct {
            address: Some(self.to.path().display().to_string()),
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
            ..NodeLayout::default()
        }
    }

    /// Restores these sources, without the database's server.
    fn restore(&self, scope: RestoreScope, sources: &[&str]) -> (NodeRestoreReport, Recording) {
        let repo = self.lab.open();
        let profile = self.profile();
        let docker = Docker::default();
        let options = options(scope);
        let observer = Recording::default();
        let cancel = Cancel::new();
        let asked: Vec<(&str, Option<&str>)> =
            sources.iter().map(|&one| ("latest", Some(one))).collect();
        let prepared = prepare(
            &repo,
            &profile,
            &docker,
            &asked,
            &options,
            Task::new(&observer, &cancel),
        )
        .expect("a plan");
        assert!(prepared.obstacles.is_empty(), "{:?}", prepared.obstacles);
        let report = prepared
            .execute(Task::new(&observer, &cancel))
            .expect("restored");
        (report, observer)
    }
}

fn options(scope: RestoreScope) -> NodeRestoreOptions {
    NodeRestoreOptions {
        scope,
        replace: false,
        wait: Duration::ZERO,
        hosts: HostChoice::Any,
        env_remove: Vec::new(),
        is_dry_run: false,
        environment: BTreeMap::new(),
        pgoptions: None,
        protect: ProtectedDirs::default(),
        memory: BUDGET_DEFAULT,
        state: None,
    }
}

#[test]
fn parts_come_back_with_modes_and_without_torn_files() {
    let node = Node::new();
    let (report, observer) = node.restore(RestoreScope::All, &["keys", "local", "ipfs"]);
    let mode = |below| {
        fs::metadata(node.to(below))
            .expect("stat")
            .permissions()
            .mode()
            & 0o7777
    };
    assert_eq!(
        (
            mode("keys"),
            mode("keys/node-secret.pkcs8.der"),
            mode("local")
        ),
        (0o700, 0o600, 0o2750)
    );

    for content in ["pinned", "not pinned"] {
        assert_eq!(
            node.read(&format!("local/{}", sha(content.as_bytes())))
                .as_deref(),
            Some(content)
        );
    }

    let torn = sha(b"torn file");
    assert_eq!(node.read(&format!("local/{torn}")), None);
    assert_eq!(
        report
            .parts
            .iter()
            .map(|part| part.left_out)
            .collect::<Vec<_>>(),
        [0, 1, 0]
    );

    assert!(!report.is_complete() && !report.has_damage());
    assert!(
        observer
            .problems()
            .iter()
            .any(|one| one.subject == format!("local/{torn}"))
    );
    assert_eq!(
        node.read("ipfs/blocks/AA/one.data").as_deref(),
        Some("a block")
    );
}

/// An existing key may be the only copy: the node was set up again, or got another key since.
#[test]
fn other_keys_and_another_identity_are_not_overwritten_unasked() {
    let node = Node::new();
    let key = "keys/node-secret.pkcs8.der";
    let repo = node.lab.open();
    let profile = node.profile();
    let docker = Docker::default();
    let prepared = |replace: bool| {
        let options = NodeRestoreOptions {
            replace,
            ..options(RestoreScope::All)
        };
        let asked = [("latest", Some("keys")), ("latest", Some("ipfs"))];
        let observer = Recording::default();
        let cancel = Cancel::new();
        let prepared = prepare(
            &repo,
            &profile,
            &docker,
            &asked,
            &options,
            Task::new(&observer, &cancel),
        )
        .expect("a plan");
        prepared
            .obstacles
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };

    // No files yet, and then the same files.
    assert_eq!(prepared(false), [""; 0]);
    node.restore(RestoreScope::All, &["keys", "ipfs"]);
    assert_eq!(prepared(false), [""; 0]);

    write(&node.to(key), b"a key of its own");
    write(&node.to("ipfs/config"), b"another identity");
    let obstacles = prepared(false);
    assert!(
        obstacles.len() == 2 && obstacles[0].contains("'node-secret.pkcs8.der'"),
        "{obstacles:?}"
    );
    assert!(
        obstacles[1].contains("kubo's identity") && obstacles[1].contains("'config'"),
        "{obstacles:?}"
    );
    assert_eq!(prepared(true), [""; 0]);
    assert_eq!(node.read(key).as_deref(), Some("a key of its own"));
}

#[test]
fn a_database_of_kubo_is_not_mixed_with_existing_files() {
    let node = Node::new();
    for below in [
        "ipfs/datastore/000009.ldb",
        "ipfs/blocks/AA/mine.data",
        "ipfs/keystore/own",
    ] {
        write(&node.to(below), b"mine");
    }

    let (report, _) = node.restore(RestoreScope::All, &["ipfs"]);
    assert_eq!(report.parts[0].deleted, 1);
    assert_eq!(node.read("ipfs/datastore/000009.ldb"), None);
    assert_eq!(
        node.read("ipfs/datastore/CURRENT").as_deref(),
        Some("current")
    );
    assert!(
        node.read("ipfs/blocks/AA/mine.data").is_some() && node.read("ipfs/keystore/own").is_some()
    );

    // The same if the snapshot does not account for the names that are absent.
    let repo = node.lab.open();
    let mut snapshot = repo
        .find_snapshot("latest", &HostChoice::Any)
        .expect("found")
        .snapshot;
    snapshot
        .sources
        .iter_mut()
        .for_each(|source| source.counts.partial = None);
    snapshot.parents = Vec::new();
    repo.commit(lease(&repo), snapshot).expect("committed");
    write(&node.to("ipfs/datastore/000010.ldb"), b"mine");
    let (report, _) = node.restore(RestoreScope::All, &["ipfs"]);
    assert_eq!(report.parts[0].deleted, 1);
    assert_eq!(node.read("ipfs/datastore/000010.ldb"), None);
    assert!(
        node.read("ipfs/blocks/AA/mine.data").is_some() && node.read("ipfs/keystore/own").is_some()
    );
}

#[test]
fn beside_the_node_only_missing_and_cut_files_are_written() {
    let node = Node::new();
    let cut = sha(b"pinned");
    let kept = sha(b"not pinned");
    write(&node.to(&format!("local/{cut}")), b"pin");
    write(&node.to(&format!("local/{kept}")), b"NOT PINNED");
    write(&node.to("ipfs/config"), b"another identity");
    write(&node.to("ipfs/datastore/000009.ldb"), b"at work");

    node.restore(RestoreScope::Files, &["local", "ipfs"]);

    assert_eq!(
        node.read(&format!("local/{cut}")).as_deref(),
        Some("pinned")
    );
    assert_eq!(
        node.read(&format!("local/{kept}")).as_deref(),
        Some("NOT PINNED")
    );
    assert_eq!(
        node.read("ipfs/config").as_deref(),
        Some("another identity")
    );
    assert!(
        node.read("ipfs/datastore/CURRENT").is_none()
            && node.read("ipfs/datastore/000009.ldb").is_some()
    );
    assert_eq!(
        node.read("ipfs/blocks/AA/one.data").as_deref(),
        Some("a block")
    );
}

/// Newer versions of kubo have other databases. Those that kubo creates again are left out. An
/// unknown one is replaced as a whole, since files of different times do not make a database.
#[test]
fn kubo_s_newer_directories_are_left_out_or_replaced_as_a_whole() {
    let node = Node::new();
    for (path, content) in [
        ("ipfs/provider-keystore/0/CURRENT", "MANIFEST-000001"),
        ("ipfs/provider-keystore/0/MANIFEST-000001", "torn"),
        ("ipfs/autoconf/autoconf.json", "{}"),
        ("ipfs/telemetry_uuid", "uuid"),
        ("ipfs/new [db]/CURRENT", "MANIFEST-000007"),
        ("ipfs/new [db]/MANIFEST-000007", "x"),
        ("ipfs/keystore/key_self", "key"),
    ] {
        node.put(path, content);
    }

    node.backup();
    write(&node.to("ipfs/new [db]/000099.ldb"), b"of another time");
    write(&node.to("ipfs/keystore/key_other"), b"key");
    write(&node.to("ipfs/datastore/000099.ldb"), b"of another time");
    node.restore(RestoreScope::All, &["ipfs"]);
    for gone in [
        "ipfs/provider-keystore",
        "ipfs/autoconf",
        "ipfs/telemetry_uuid",
        "ipfs/new [db]/000099.ldb",
        "ipfs/datastore/000099.ldb",
    ] {
        assert!(!node.to(gone).exists(), "{gone}");
    }

    for there in [
        "ipfs/new [db]/CURRENT",
        "ipfs/new [db]/MANIFEST-000007",
        "ipfs/keystore/key_self",
        "ipfs/keystore/key_other",
    ] {
        assert!(node.read(there).is_some(), "{there}");
    }
}

#[test]
fn blocks_in_a_database_are_not_promised_by_files_alone() {
    let node = Node::new();
    node.put(
        "ipfs/datastore_spec",
        r#"{"path":"pebbleds","type":"pebbleds"}"#,
    );
    node.backup();
    let (_, observer) = node.restore(RestoreScope::Files, &["ipfs"]);
    assert!(
        observer
            .problems()
            .iter()
            .any(|one| one.message.contains("blocks in a database (pebbleds)"))
    );
}

/// Images are compared with the compose file after the restore: the snapshot's, if the restore
/// includes it, with the variables of the snapshot's `.env` file; otherwise the existing one.
#[test]
fn images_are_compared_with_the_compose_file_as_it_will_be() {
    let node = Node::new();
    let compose =
        |image: &str| format!("services:\n  ipfs:\n    image: {image}\n  pyaleph:\n    build: .\n");
    node.put("config/docker-compose.yml", &compose("ipfs/kubo:$KUBO"));
    node.put("config/.env", "KUBO=stored\n");
    let image = |service: &str| ServiceImage {
        service: service.into(),
        image: "ipfs/kubo:ran".into(),
        id: format!("sha256:{}", "5c".repeat(32)),
        digest: None,
        sources: vec!["ipfs".into()],
    };
    let trees = ["ipfs", "config"]
        .map(|name| SourceSpec::Tree(Box::new(TreeSpec::new(name, node.lab.tree().join(name)))));

    // Not in order, and one with a name that is invalid for a container.
    let images = vec![image("pyaleph"), image("ipfs"), image("gone"), image("a b")];
    let backed_up = BackupOptions {
        images,
        ..BackupOptions::new("host", trees.into())
    };
    let done = backup(
        &node.lab.open(),
        backed_up,
        Task::new(&Recording::default(), &Cancel::new()),
    )
    .expect("backed up");
    let repo = node.lab.open();
    let id = done.snapshot.expect("committed").to_string();
    let stored = repo
        .find_snapshot(&id, &HostChoice::Any)
        .expect("found")
        .snapshot;
    let services: Vec<&str> = stored
        .images
        .iter()
        .map(|image| image.service.as_str())
        .collect();
    assert_eq!(services, ["gone", "ipfs", "pyaleph"]);

    let config = Some(NodeSource {
        source: "config".into(),
        place: SourceLocation::Path(node.to("config")),
    });
    let profile = NodeLayout {
        config,
        ..node.profile()
    };
    let docker = Docker::default();
    let compared = |sources: &[&str], scope: RestoreScope| {
        let options = options(scope);
        let asked: Vec<(&str, Option<&str>)> = sources
            .iter()
            .map(|&source| (id.as_str(), Some(source)))
            .collect();
        let observer = Recording::default();
        let cancel = Cancel::new();
        let prepared = prepare(
            &repo,
            &profile,
            &docker,
            &asked,
            &options,
            Task::new(&observer, &cancel),
        )
        .expect("a plan");
        let now = |check: &ImageCheck| match (&check.now, &check.verdict) {
            (Some(now), _) => now.clone(),
            (None, ImageVerdict::Unknown(why)) => why.clone(),
            (None, _) => panic!("{check:?}"),
        };
        prepared.images.iter().map(now).collect::<Vec<_>>()
    };

    let gone = "the compose file has no service 'gone'";
    let built = "the compose file names no image for it";
    assert_eq!(
        compared(&["config", "ipfs"], RestoreScope::All),
        [gone, "ipfs/kubo:stored", built]
    );
    assert_eq!(
        compared(&["ipfs"], RestoreScope::All),
        ["no compose file was found"; 3]
    );

    write(
        &node.to("config/docker-compose.yml"),
        compose("ipfs/kubo:here").as_bytes(),
    );
    assert_eq!(
        compared(&["ipfs"], RestoreScope::All),
        [gone, "ipfs/kubo:here", built]
    );
    assert_eq!(
        compared(&["config", "ipfs"], RestoreScope::All),
        [gone, "ipfs/kubo:stored", built]
    );

    write(&node.to("config/docker-compose.yml"), b"services: [");
    let bad = compared(&["ipfs"], RestoreScope::All);
    assert!(
        bad.iter()
            .all(|why| why.starts_with("cannot read the compose file: ")),
        "{bad:?}"
    );
    assert_eq!(
        compared(&["ipfs"], RestoreScope::Files),
        [""; 0],
        "the node runs already"
    );
}

#[test]
fn at_first_only_what_the_node_needs_to_start_comes_back() {
    let node = Node::new();
    let repo = node.lab.open();
    let profile = node.profile();
    let docker = Docker::default();
    let options = options(RestoreScope::Minimal);
    let observer = Recording::default();
    let cancel = Cancel::new();

    let found = repo
        .find_snapshot("latest", &HostChoice::Any)
        .expect("there");
    let pick = PartPick {
        snapshot: found,
        source: None,
        is_latest: false,
    };
    let plan = plan(&profile, &[pick], RestoreScope::Minimal, &[]).expect("a plan");
    crate::read::sync(&repo, &observer).expect("synced");

    let placed = |step: RestoreStep| {
        let spot = step
            .place
            .as_ref()
            .map(|place| ResolvedLocation::find(place, &docker).expect("a path"));
        PlacedPart { step, spot }
    };
    let session = ReadSession::open(&repo, Task::new(&observer, &cancel)).expect("a session");
    let prepared = PreparedRestore {
        session,
        profile: &profile,
        docker: &docker,
        options: &options,
        steps: plan.steps.into_iter().map(placed).collect(),
        writers: Vec::new(),
        database: None,
        images: Vec::new(),
        warnings: Vec::new(),
        obstacles: Vec::new(),
    };

    for part in [NodePart::LocalStorage, NodePart::Ipfs] {
        let placed = prepared.step(part).expect("a step");
        let chooser = prepared
            .chooser(part, Task::new(&observer, &cancel))
            .expect("chosen");
        prepared
            .files(placed, chooser, Task::new(&observer, &cancel))
            .expect("restored");
    }

    assert_eq!(
        node.read(&format!("local/{}", sha(b"pinned"))).as_deref(),
        Some("pinned")
    );
    assert_eq!(node.read(&format!("local/{}", sha(b"not pinned"))), None);
    assert_eq!(node.read("ipfs/config").as_deref(), Some("identity"));
    assert!(
        node.read("ipfs/blocks/SHARDING").is_some()
            && node.read("ipfs/datastore/CURRENT").is_some()
    );
    assert!(!node.to("ipfs/blocks/AA").exists());
}

#[test]
fn a_server_out_of_reach_stands_in_the_way_before_anything_is_written() {
    let node = Node::new();
    let repo = node.lab.open();
    let profile = node.profile();
    let docker = Docker::default();
    let options = options(RestoreScope::All);
    let observer = Recording::default();
    let cancel = Cancel::new();
    let err = prepare(
        &repo,
        &profile,
        &docker,
        &[("latest", None)],
        &options,
        Task::new(&observer, &cancel),
    );
    // The dump is not that of a cluster.
    let err = err.err().expect("refused");
    assert!(
        matches!(&err, NodeError::Refused { why, .. } if why.contains("pg_dumpall")),
        "{err:?}"
    );
    assert!(!node.to("keys").exists());
}

#[test]
fn files_to_refill_from_the_network_are_counted() {
    let node = Node::new();
    let repo = node.lab.open();
    let profile = node.profile();
    let found = repo
        .find_snapshot("latest", &HostChoice::Any)
        .expect("there");
    crate::read::sync(&repo, &Counters::default()).expect("synced");
    // Local storage has another name in the profile.
    let profile = NodeLayout {
        local_storage: Some(NodeSource {
            source: "elsewhere".into(),
            place: SourceLocation::Path(node.to("local")),
        }),
        ..profile
    };
    let pick = PartPick {
        snapshot: found,
        source: None,
        is_latest: false,
    };
    let plan = plan(&profile, &[pick], RestoreScope::All, &[]).expect("a plan");
    assert!(plan.lacks_files);
    let counters = Counters::default();
    let cancel = Cancel::new();
    let session = ReadSession::open(&repo, Task::new(&counters, &cancel)).expect("a session");
    let problem = refill(&session, &profile, &plan, &cancel)
        .expect("counted")
        .expect("some");
    assert!(problem.message.starts_with("2 pinned files"), "{problem:?}");
}
