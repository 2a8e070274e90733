//! Nodes of many layouts, with an engine that answers from memory.

use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::ccn::compose::{ComposeRequest, load};
use crate::ccn::docker::ContainerMount;

const NODE: &str = "
services:
  core:
    image: example/core
    volumes:
      - ./config.yml:/opt/pyaleph/config.yml
      - ./keys:/opt/pyaleph/keys
      - files:/var/lib/pyaleph
  core-api:
    image: example/core
    volumes:
      - ./config.yml:/opt/pyaleph/config.yml:ro
      - files:/var/lib/pyaleph
  p2p:
    image: example/p2p
    volumes: ['./keys/node.der:/etc/p2p/node.der']
  postgres:
    image: postgres:15.1
    volumes: ['db:/var/lib/postgresql/data']
    environment: {POSTGRES_USER: aleph, POSTGRES_PASSWORD: very-secret, POSTGRES_DB: main}
  redis: {image: redis}
  ipfs:
    image: example/kubo
    volumes: ['ipfs:/data/ipfs', './init.sh:/container-init.d/init.sh:ro']
  watch:
    image: example/exporter
    volumes: ['/:/host:ro']
volumes: {files: , db: , ipfs: }
";

/// Files of a node's directory.
const FILES: [(&str, &str); 5] = [
    ("docker-compose.yml", NODE),
    ("config.yml", "x"),
    (".env", "A=b\n"),
    ("init.sh", "x"),
    ("notes.txt", "x"),
];

struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    fn new(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("node/keys")).expect("made");
        for (name, text) in files {
            fs::write(root.path().join("node").join(name), text).expect("written");
        }
        Self { root }
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("node")
    }

    fn project(&self, name: Option<&str>) -> ComposeProject {
        let environment = BTreeMap::new();
        load(ComposeRequest {
            path: &self.directory(),
            environment: &environment,
            project: name,
        })
        .expect("a project")
    }

    fn found(&self, engine: Option<&dyn EngineAnswers>) -> NodeDiscovery {
        discover(self.project(None), engine)
    }
}

#[derive(Default)]
struct Fake {
    containers: Vec<Container>,
    volumes: Vec<&'static str>,
    /// A label's value, and the project that has it.
    labels: Vec<(String, &'static str)>,
    dead: bool,
}

impl Fake {
    fn answer<T>(&self, answer: T) -> Result<T, DockerError> {
        if self.dead {
            Err(DockerError::NotInstalled)
        } else {
            Ok(answer)
        }
    }
}

impl EngineAnswers for Fake {
    fn project(&self, project: &str) -> Result<Vec<Container>, DockerError> {
        let of =
            |container: &&Container| container.service().is_some_and(|(name, _)| name == project);
        self.answer(self.containers.iter().filter(of).cloned().collect())
    }

    fn volume(&self, name: &str) -> Result<Option<DockerVolume>, DockerError> {
        let found = self.volumes.iter().find(|known| **known == name);
        self.answer(found.map(|name| DockerVolume {
            name: (*name).into(),
            mountpoint: format!("/v/{name}").into(),
            driver: "local".into(),
            options: None,
        }))
    }

    fn projects_with_label(&self, _: &str, value: &str) -> Result<BTreeSet<String>, DockerError> {
        let found = self.labels.iter().filter(|(known, _)| known == value);
        self.answer(found.map(|(_, project)| (*project).to_owned()).collect())
    }
}

fn container(project: &str, service: &str, name: &str, state: &str) -> Container {
    let labels = [
        ("com.docker.compose.project", project),
        ("com.docker.compose.service", service),
    ];
    Container {
        name: name.into(),
        image: "x".into(),
        image_id: String::new(),
        state: state.into(),
        labels: labels
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        env: Vec::new(),
        mounts: Vec::new(),
    }
}

fn volume(name: &str) -> Option<SourceLocation> {
    Some(SourceLocation::Volume(name.into()))
}

fn place(found: &Option<FoundTree>) -> Option<SourceLocation> {
    found.as_ref().map(|found| found.place.clone())
}

#[test]
fn without_an_engine_names_are_those_of_compose() {
    let node = Fixture::new(&FILES);
    for engine in [
        None,
        Some(&Fake {
            dead: true,
            ..Fake::default()
        } as &dyn EngineAnswers),
    ] {
        let found = node.found(engine);
        assert_eq!(found.no_engine.is_some(), engine.is_some());

        let database = found.database.expect("a database");
        assert_eq!(
            (database.container.as_str(), database.state),
            ("node-postgres-1", None)
        );
        assert_eq!(
            (database.user.as_str(), database.database.as_str()),
            ("aleph", "main")
        );
        assert_eq!(database.data, volume("node_db"));

        assert_eq!(place(&found.local_storage), volume("node_files"));
        assert_eq!(place(&found.ipfs), volume("node_ipfs"));
        assert_eq!(
            place(&found.keys),
            Some(SourceLocation::Path(node.directory().join("keys")))
        );

        let config = found.config.expect("the configuration");
        assert_eq!(config.directory, node.directory());
        assert_eq!(
            config.names,
            [".env", "config.yml", "docker-compose.yml", "init.sh"]
        );
        assert_eq!(found.compose, None);

        assert_eq!(
            found.writers,
            [
                "node-core-1",
                "node-core-api-1",
                "node-p2p-1",
                "node-ipfs-1"
            ]
        );

        assert_eq!(found.notes, Vec::<DiscoveryNote>::new());
    }
}

#[test]
fn the_engine_knows_the_names_of_either_version() {
    let node = Fixture::new(&FILES);
    for joint in ["_", "-"] {
        let name = |service: &str, n: u8| format!("node{joint}{service}{joint}{n}");
        let mut postgres = container("node", "postgres", &name("postgres", 1), "running");
        postgres.env = vec![
            "PATH=/bin".into(),
            "POSTGRES_USER=postgres".into(),
            "POSTGRES_DB=real".into(),
        ];
        let mut once = container("node", "core", "node_core_run_1", "exited");
        once.labels
            .insert("com.docker.compose.oneoff".into(), "True".into());
        let mut ipfs = container("node", "ipfs", &name("ipfs", 1), "running");
        let real = ContainerMount {
            volume: "old_ipfs".into(),
            source: "/v/old".into(),
            destination: IPFS.into(),
        };
        ipfs.mounts = vec![real];
        let core = |n| container("node", "core", &name("core", n), "running");
        let engine = Fake {
            containers: vec![
                once,
                core(2),
                core(1),
                ipfs,
                postgres,
                container("other", "core", "o", "running"),
            ],
            volumes: vec!["node_files"],
            ..Fake::default()
        };

        let found = node.found(Some(&engine));
        let database = found.database.expect("a database");
        assert_eq!(
            (database.container, database.state.as_deref()),
            (name("postgres", 1), Some("running"))
        );
        assert_eq!(
            (database.user.as_str(), database.database.as_str()),
            ("postgres", "real")
        );
        assert_eq!(
            found.local_storage.expect("files").directory,
            Some("/v/node_files".into())
        );
        assert_eq!(place(&found.ipfs), volume("old_ipfs"));

        // A service without a container has the name that compose would give.
        let writers = [
            name("core", 1),
            name("core", 2),
            "node-core-api-1".into(),
            "node-p2p-1".into(),
            name("ipfs", 1),
        ];
        assert_eq!(found.writers, writers);

        let notes: Vec<&str> = found.notes.iter().map(|note| note.text.as_str()).collect();
        let notes = notes.join("\n");
        assert!(
            notes.contains("user 'postgres'") && notes.contains("no volume 'node_db' yet"),
            "{notes}"
        );
    }
}

#[test]
fn a_project_that_runs_under_another_name_is_found_by_its_directory() {
    let node = Fixture::new(&FILES);
    let directory = node.directory().to_string_lossy().into_owned();
    let running = vec![container(
        "pyaleph",
        "postgres",
        "pyaleph_postgres_1",
        "exited",
    )];
    let labels = vec![(directory.clone(), "pyaleph")];
    let engine = Fake {
        containers: running.clone(),
        labels,
        ..Fake::default()
    };
    let found = node.found(Some(&engine));
    assert_eq!(found.project, "pyaleph");
    assert_eq!(
        found.database.expect("a database").container,
        "pyaleph_postgres_1"
    );
    assert_eq!(place(&found.local_storage), volume("pyaleph_files"));
    assert!(
        found.notes[0]
            .text
            .contains("runs as 'pyaleph', not as 'node'")
    );

    // A name that was given is kept. Of two projects, neither is chosen.
    let given = discover(node.project(Some("mine")), Some(&engine));
    assert_eq!(
        (
            given.project.as_str(),
            given.notes[0]
                .text
                .contains("'pyaleph' from this directory")
        ),
        ("mine", true)
    );

    let file = format!("{directory}/docker-compose.yml");
    let labels = vec![(directory, "pyaleph"), (file, "second")];
    let found = node.found(Some(&Fake {
        containers: running,
        labels,
        ..Fake::default()
    }));
    assert_eq!(found.project, "node");
    assert!(
        found.notes[0].text.contains("'pyaleph', 'second'"),
        "{:?}",
        found.notes
    );
    assert_eq!(
        found.notes[0].advice,
        Some(Advice::Node(NodeAdvice::NameProject))
    );

    let none = node.found(Some(&Fake::default()));
    assert!(
        none.notes[0]
            .text
            .contains("no container of project 'node'")
    );
}

#[test]
fn bind_mounts_and_other_directories_are_found() {
    let node = Fixture::new(&[(
        "docker-compose.yml",
        "
services:
  core:
    image: x
    volumes: ['/srv/etc/config.yml:/opt/pyaleph/config.yml', '/srv/files:/var/lib/pyaleph/', '/srv/my/keys:/k']
  db:
    image: registry.example:5000/library/postgres@sha256:00
    container_name: the-db
    volumes: ['/srv/db:/var/lib/postgresql/data']
  kubo:
    image: x
    container_name: kubo
    volumes: ['dev:/data/ipfs']
  backup:
    image: x
    volumes: ['/srv:/srv']
volumes:
  dev: {driver_opts: {o: bind, type: none, device: /mnt/ipfs}}
",
    )]);
    let found = node.found(None);
    let path = |path: &str| Some(SourceLocation::Path(path.into()));
    assert_eq!(place(&found.local_storage), path("/srv/files"));
    assert_eq!(place(&found.ipfs), path("/mnt/ipfs"));
    assert_eq!(place(&found.keys), path("/srv/my/keys"));

    let database = found.database.expect("a database");
    assert_eq!(
        (database.container.as_str(), database.user.as_str()),
        ("the-db", "postgres")
    );
    assert_eq!(database.data, path("/srv/db"));

    let files = |directory: &str, name: &str| {
        Some(FoundFiles {
            directory: directory.into(),
            names: vec![name.to_owned()],
        })
    };
    assert_eq!(found.config, files("/srv/etc", "config.yml"));
    assert_eq!(
        found.compose,
        files(&node.directory().to_string_lossy(), "docker-compose.yml")
    );
    assert_eq!(found.writers, ["node-core-1", "kubo", "node-backup-1"]);

    // Missing paths are reported.
    for missing in [
        "/srv/files",
        "/mnt/ipfs",
        "/srv/my/keys",
        "/srv/etc/config.yml",
    ] {
        assert!(
            found
                .notes
                .iter()
                .any(|note| note.text == format!("cannot find {missing}")),
            "{missing}"
        );
    }
}

#[test]
fn missing_parts_are_not_found() {
    let node = Fixture::new(&[("compose.yml", "services: {web: {image: nginx}}\n")]);
    fs::remove_dir(node.directory().join("keys")).expect("removed");
    let found = node.found(None);
    assert!(found.database.is_none() && found.local_storage.is_none() && found.ipfs.is_none());
    assert!(found.keys.is_none() && found.config.is_none() && found.writers.is_empty());
    assert_eq!(found.compose.expect("the file").names, ["compose.yml"]);

    // Without a mount, files beside the compose file are found. A service may be recognized by its
    // variables alone.
    let node = Fixture::new(&[
        (
            "compose.yml",
            "services: {sql: {image: mirror/pg, environment: [POSTGRES_PASSWORD]}, web: {image: x}}\n",
        ),
        ("config.yml", "x"),
    ]);
    let found = node.found(None);
    assert_eq!(
        place(&found.keys),
        Some(SourceLocation::Path(node.directory().join("keys")))
    );
    assert_eq!(
        found.config.expect("the files").names,
        ["compose.yml", "config.yml"]
    );
    assert_eq!(found.database.expect("a database").container, "node-sql-1");
}

#[test]
fn keys_are_found_by_file_name_and_a_symlink_is_noted() {
    let node = Fixture::new(&[(
        "compose.yml",
        "services: {p2p: {image: x, volumes: ['./keys/a.der:/a.der', './config.yml:/c.yml']}}\n",
    )]);
    std::os::unix::fs::symlink("/etc/hostname", node.directory().join("config.yml"))
        .expect("linked");
    let found = node.found(None);
    assert_eq!(
        place(&found.keys),
        Some(SourceLocation::Path(node.directory().join("keys")))
    );
    assert_eq!(found.writers, ["node-p2p-1"]);
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.text.contains("is a symlink")),
        "{:?}",
        found.notes
    );
}

#[test]
fn of_several_databases_the_likeliest_is_taken() {
    let compose = |first: &str| {
        format!(
            "services:
  a: {{image: postgres, {first}}}
  b: {{image: postgres, environment: [POSTGRES_USER=u], volumes: ['v:/var/lib/postgresql/data']}}
  c: {{image: x, environment: [POSTGRES_USER=w], volumes: ['v:/var/lib/postgresql/data']}}
"
        )
    };
    let found = |first: &str| {
        let node = Fixture::new(&[("compose.yml", &compose(first))]);
        let found = node.found(None);
        (
            found.database.expect("a database").service,
            found.notes.len(),
            found.writers,
        )
    };
    assert_eq!(
        found("command: psql"),
        ("b".into(), 0, vec!["node-c-1".into()])
    );
    let same = "environment: [POSTGRES_DB=x], volumes: ['/d:/var/lib/postgresql/data']";
    let (service, notes, _) = found(same);
    // The notes: the other database, its volume that no source covers, and the missing directory.
    assert_eq!((service.as_str(), notes), ("a", 3));
}

#[test]
fn images_of_postgresql_are_known() {
    let is = |image: &str| {
        has_postgres_image(&ComposeService {
            image: Some(image.into()),
            ..ComposeService::default()
        })
    };
    for image in [
        "postgres",
        "postgres:15",
        "library/postgres",
        "r.example:5000/x/postgres:16@sha256:00",
    ] {
        assert!(is(image), "{image}");
    }
    for image in [
        "postgres-exporter",
        "prom/postgres_exporter:1",
        "postgres/tool",
        "",
    ] {
        assert!(!is(image), "{image}");
    }
}

/// Files are added to the daemon that config.yml names. Discovery used to take the first of two
/// services without a note.
#[test]
fn the_kubo_that_files_are_added_to_is_the_node_s_and_the_other_one_is_captured_too() {
    let node = NODE.replace(
        "  watch:",
        "  ipfs-pinning:\n    image: example/kubo\n    volumes: ['pinned:/data/ipfs']\n  watch:",
    );
    let node = node.replace("volumes: {files: ,", "volumes: {pinned: , files: ,");
    for (config, main, note) in [
        (
            "ipfs: {host: ipfs, pinning: {host: ipfs-pinning}}",
            "node_pinned",
            "ipfs.pinning.host",
        ),
        ("ipfs: {host: ipfs-pinning}", "node_pinned", "ipfs.host"),
        ("ipfs: {host: ipfs}", "node_ipfs", "ipfs.host"),
        ("x: y", "node_ipfs", "is the first"),
    ] {
        let files = [
            ("docker-compose.yml", node.as_str()),
            ("config.yml", config),
        ];

        let found = Fixture::new(&files).found(None);
        let other = if main == "node_ipfs" {
            "node_pinned"
        } else {
            "node_ipfs"
        };
        let place = |tree: &FoundTree| tree.place.clone();

        assert_eq!(
            found.ipfs.as_ref().map(place),
            Some(SourceLocation::Volume(main.into())),
            "{config}"
        );
        assert_eq!(
            found.other_ipfs.iter().map(place).collect::<Vec<_>>(),
            [SourceLocation::Volume(other.into())]
        );
        assert!(
            found
                .notes
                .iter()
                .any(|one| one.text.contains("several services") && one.text.contains(note)),
            "{:?}",
            found.notes
        );
        assert!(
            found
                .writers
                .iter()
                .any(|name| name.contains("ipfs-pinning")),
            "{:?}",
            found.writers
        );
    }

    let files = [
        ("docker-compose.yml", NODE),
        ("config.yml", "ipfs: {pinning: {host: far.example}}"),
    ];
    let found = Fixture::new(&files).found(None);
    assert!(
        found
            .notes
            .iter()
            .any(|note| note.text.contains("'far.example'")),
        "{:?}",
        found.notes
    );
}

#[test]
fn uncovered_volumes_are_noted_once_each() {
    let node = NODE.replace(
        "  redis: {image: redis}",
        "  caddy: {image: caddy, volumes: ['caddy-data:/data', 'caddy-config:/config', '/tmp/x']}\n  caddy2: {image: caddy, volumes: ['caddy-data:/data']}\n  grafana: {image: grafana}",
    );
    let node = node.replace(
        "volumes: {files: ,",
        "volumes: {caddy-data: , caddy-config: , files: ,",
    );
    let nameless = "0123456789abcdef".repeat(4);
    let mut grafana = container("node", "grafana", "node-grafana-1", "running");
    grafana.mounts = vec![ContainerMount {
        volume: nameless.clone(),
        source: format!("/v/{nameless}").into(),
        destination: "/var/lib/grafana".into(),
    }];
    let engine = Fake {
        containers: vec![grafana],
        ..Fake::default()
    };

    let found = Fixture::new(&[("docker-compose.yml", node.as_str()), ("config.yml", "x")])
        .found(Some(&engine));

    let note_count = |what: &str| {
        found
            .notes
            .iter()
            .filter(|note| note.text.contains(what))
            .count()
    };

    assert_eq!(
        (
            note_count("'node_caddy-data'"),
            note_count("'node_caddy-config'")
        ),
        (1, 1),
        "{:?}",
        found.notes
    );

    assert_eq!(
        (
            note_count("/var/lib/grafana of 'grafana'"),
            note_count("/tmp/x of 'caddy'")
        ),
        (1, 1),
        "{:?}",
        found.notes
    );

    for covered in ["node_files", "node_db", "node_ipfs"] {
        assert_eq!(
            note_count(&format!("covers the volume '{covered}'")),
            0,
            "{:?}",
            found.notes
        );
    }
}

/// Images of PostgreSQL 18 and later mount their volume one directory higher.
#[test]
fn a_database_s_volume_is_found_where_newer_images_have_it() {
    let node = NODE
        .replace("db:/var/lib/postgresql/data", "db:/var/lib/postgresql")
        .replace("postgres:15.1", "postgres:18");
    let found =
        Fixture::new(&[("docker-compose.yml", node.as_str()), ("config.yml", "x")]).found(None);
    let database = found.database.expect("a database");
    assert_eq!(
        database.data,
        Some(SourceLocation::Volume("node_db".into()))
    );
    assert!(
        found
            .notes
            .iter()
            .all(|note| !note.text.contains("node_db")),
        "{:?}",
        found.notes
    );
}
