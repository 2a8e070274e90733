//! Compose files of many forms.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::advice::{Advice, NodeAdvice};

/// A common layout: named volumes, with keys and configuration beside the file.
const USUAL: &str = r#"---
volumes:
  node-ipfs:
  node-files:
  node-db:

services:
  core:
    image: example/core:1
    volumes:
      - ./config.yml:/opt/pyaleph/config.yml
      - ./keys:/opt/pyaleph/keys
      - node-files:/var/lib/pyaleph
  postgres:
    image: postgres:15.1
    volumes:
      - node-db:/var/lib/postgresql/data
    environment:
      POSTGRES_USER: aleph
      POSTGRES_PASSWORD: very-secret
      OTHER: ${NOT_SET}
  ipfs:
    image: example/kubo
    volumes:
      - "node-ipfs:/data/ipfs"
    environment:
      - A=b
networks:
  node:
"#;

fn nothing() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn text(text: &str) -> Result<ComposeProject, ComposeError> {
    read_text(text, Path::new("/opt/Py Aleph"), &nothing())
}

#[track_caller]
fn wrong(compose: &str) -> (usize, String, String) {
    match text(compose).expect_err("not read") {
        ComposeError::Wrong {
            file,
            line,
            key,
            why,
        } => {
            assert_eq!(file, Path::new("/opt/Py Aleph/docker-compose.yml"));
            (line, key, why)
        }
        other => panic!("{other}"),
    }
}

/// Writes these files into a directory and reads it as a project.
fn directory(
    files: &[(&str, &str)],
    environment: &[(&str, &str)],
) -> (tempfile::TempDir, Result<ComposeProject, ComposeError>) {
    let root = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        fs::write(root.path().join(name), text).expect("written");
    }
    let environment = environment
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let project = load(ComposeRequest {
        path: root.path(),
        environment: &environment,
        project: None,
    });
    (root, project)
}

fn service<'p>(project: &'p ComposeProject, name: &str) -> &'p ComposeService {
    project
        .services
        .iter()
        .find(|service| service.name == name)
        .expect("the service")
}

#[test]
fn a_usual_file_is_read() {
    let project = text(USUAL).expect("read");
    assert_eq!((project.name.as_str(), project.named), ("pyaleph", false));
    assert_eq!(project.services.len(), 3);

    let core = service(&project, "core");
    assert_eq!(
        core.mounts[1].source,
        MountSource::Path("/opt/Py Aleph/keys".into())
    );
    assert_eq!(
        core.mounts[2].source,
        MountSource::Volume("node-files".into())
    );
    assert_eq!(core.mounts[2].target, "/var/lib/pyaleph");
    assert_eq!(project.volume_name("node-files"), "pyaleph_node-files");

    let postgres = service(&project, "postgres");
    assert_eq!(
        postgres.environment["POSTGRES_USER"].as_deref(),
        Some("aleph")
    );
    assert_eq!(project.container_name(postgres), "pyaleph-postgres-1");

    // Keys that are not needed are skipped, and no password is kept.
    assert_eq!(project.notes, Vec::<String>::new());
    assert_eq!(postgres.environment["POSTGRES_PASSWORD"], None);
    let shown = format!("{project:?}");
    assert!(
        !shown.contains("secret") && !shown.contains("\"aleph\""),
        "{shown}"
    );
}

#[test]
fn mounts_are_read_in_both_forms() {
    let project = text(
        "services:
  a:
    volumes:
      - /srv/x/../y:/a
      - ../k:/b/:ro,z
      - plain:/c
      - /anonymous
      - {type: bind, source: ./d, target: /d, read_only: true}
      - type: volume
        source: long
        target: /e
      - type: tmpfs
        target: /f
      - type: volume
        target: /g
      - /srv/later:/a
volumes:
  long: {name: its-own}
  out: {external: true}
  old: {external: {name: older}}
  not: {external: \"false\"}
  dev: {driver_opts: {type: none, o: 'bind', device: /srv/dev/}}
  nfs: {driver_opts: {type: nfs, o: 'addr=x', device: ':/x'}}
",
    )
    .expect("read");

    let mounts = &service(&project, "a").mounts;
    let path = |path: &str| MountSource::Path(path.into());
    let volume = |name: &str| MountSource::Volume(name.into());
    let all: Vec<(&str, MountSource, bool)> = mounts
        .iter()
        .map(|mount| (mount.target.as_str(), mount.source.clone(), mount.read_only))
        .collect();
    assert_eq!(
        all,
        [
            ("/a", path("/srv/later"), false),
            ("/b", path("/opt/k"), true),
            ("/c", volume("plain"), false),
            ("/anonymous", MountSource::Nameless, false),
            ("/d", path("/opt/Py Aleph/d"), true),
            ("/e", volume("long"), false),
            ("/f", MountSource::Nameless, false),
            ("/g", MountSource::Nameless, false),
        ]
    );

    let names = ["long", "out", "old", "not", "plain"].map(|key| project.volume_name(key));
    assert_eq!(
        names,
        ["its-own", "out", "older", "pyaleph_not", "pyaleph_plain"]
    );
    assert_eq!(
        project.volumes["dev"].device.as_deref(),
        Some(Path::new("/srv/dev"))
    );
    assert_eq!(project.volumes["nfs"].device, None);
}

#[test]
fn variables_come_from_the_environment_and_the_env_file() {
    let compose = "name: ${NAME:-x}
services:
  db:
    image: ${IMAGE}:${TAG:-15}
    container_name: $WHO-db
    environment: [\"POSTGRES_USER=${WHO:?give it}\", POSTGRES_DB, 'POSTGRES_PASSWORD=$$1$x']
    volumes: ['${DIR-./data}:/var/lib/postgresql/data', '~/k:/k']
";
    let env = "# variables\nWHO=file\nIMAGE='library/postgres'\nPOSTGRES_DB=main\nNAME=From-File\n";
    let (root, project) = directory(
        &[("docker-compose.yml", compose), (".env", env)],
        &[("WHO", "me"), ("HOME", "/home/u"), ("ODD", "1")],
    );
    let project = project.expect("read");
    assert_eq!((project.name.as_str(), project.named), ("from-file", false));
    let db = service(&project, "db");
    assert_eq!(db.image.as_deref(), Some("library/postgres:15"));
    assert_eq!(db.container_name.as_deref(), Some("me-db"));
    assert_eq!(db.environment["POSTGRES_USER"].as_deref(), Some("me"));
    assert_eq!(db.environment["POSTGRES_DB"].as_deref(), Some("main"));
    assert_eq!(
        db.mounts[0].source,
        MountSource::Path(root.path().join("data"))
    );
    assert_eq!(db.mounts[1].source, MountSource::Path("/home/u/k".into()));
    assert_eq!(project.env_files, [root.path().join(".env")]);
    assert_eq!(project.notes, Vec::<String>::new());
}

#[test]
fn a_project_is_named_as_compose_names_it() {
    let compose = "name: Told.Here\nservices: {a: {image: x}}\n";
    let load = |environment: &[(&str, &str)], env: &str, project: Option<&str>| {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("_The Directory.1");
        fs::create_dir(&directory).expect("made");
        let compose = if env == "no name" {
            "services: {a: {image: x}}\n"
        } else {
            compose
        };
        fs::write(directory.join("compose.yaml"), compose).expect("written");
        fs::write(
            directory.join(".env"),
            if env == "no name" { "" } else { env },
        )
        .expect("written");
        let environment = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let read = load(ComposeRequest {
            path: &directory,
            environment: &environment,
            project,
        })
        .expect("read");
        (read.name, read.named)
    };

    let named = |name: &str, is_given| (name.to_owned(), is_given);
    let variable = [("COMPOSE_PROJECT_NAME", "var")];
    assert_eq!(load(&variable, "", Some("Given")), named("given", true));
    assert_eq!(
        load(&variable, "COMPOSE_PROJECT_NAME=file\n", None),
        named("var", true)
    );
    assert_eq!(
        load(&[], "COMPOSE_PROJECT_NAME=file\n", None),
        named("file", true)
    );
    assert_eq!(
        load(&[("COMPOSE_PROJECT_NAME", "")], "", None),
        named("toldhere", false)
    );
    assert_eq!(load(&[], "no name", None), named("thedirectory1", false));

    let err = read_text("services: {}\n", Path::new("/opt/…"), &nothing()).expect_err("no name");
    assert!(matches!(err, ComposeError::NoName { .. }));
    assert_eq!(err.advice(), Some(Advice::Node(NodeAdvice::NameProject)));
}

#[test]
fn an_override_is_laid_over() {
    let (root, project) = directory(
        &[
            ("docker-compose.yml", USUAL),
            (
                "docker-compose.override.yml",
                "services:
  postgres:
    image: registry.example/postgres:16
    environment: [POSTGRES_DB=other]
  core:
    volumes: ['/mnt/keys:/opt/pyaleph/keys', './extra:/extra']
  ipfs:
    volumes: !override ['/mnt/ipfs:/data/ipfs']
  more: {image: x}
",
            ),
        ],
        &[],
    );
    let project = project.expect("read");
    assert_eq!(project.files.len(), 2);

    let postgres = service(&project, "postgres");
    assert_eq!(
        postgres.image.as_deref(),
        Some("registry.example/postgres:16")
    );
    assert_eq!(
        postgres.environment["POSTGRES_USER"].as_deref(),
        Some("aleph")
    );
    assert_eq!(
        postgres.environment["POSTGRES_DB"].as_deref(),
        Some("other")
    );

    let core = service(&project, "core");
    assert_eq!(core.mounts.len(), 4);
    assert_eq!(core.mounts[1].source, MountSource::Path("/mnt/keys".into()));
    assert_eq!(service(&project, "ipfs").mounts.len(), 1);
    assert_eq!(
        service(&project, "ipfs").mounts[0].source,
        MountSource::Path("/mnt/ipfs".into())
    );
    assert_eq!(project.services.len(), 4);

    // Naming the usual file gives the same project. A file of another name is read without an
    // override.
    let path = root.path().join("docker-compose.yml");
    let named = load(ComposeRequest {
        path: &path,
        environment: &nothing(),
        project: None,
    })
    .expect("read");
    assert_eq!(named.files.len(), 2);

    let path = root.path().join("docker-compose.override.yml");
    let named = load(ComposeRequest {
        path: &path,
        environment: &nothing(),
        project: None,
    })
    .expect("read");
    assert_eq!(named.files.len(), 1);
}

#[test]
fn compose_file_names_the_files() {
    let one = "services: {a: {image: x}}\n";
    let (_root, project) = directory(
        &[
            ("a.yml", one),
            ("b.yml", "services: {b: {image: y}}\n"),
            (".env", "COMPOSE_FILE=a.yml:b.yml\n"),
        ],
        &[],
    );
    assert_eq!(project.expect("read").services.len(), 2);
}

#[test]
fn files_of_variables_are_read_and_outweighed() {
    let compose = "services:
  a:
    env_file: [one.env, {path: two.env}, {path: none.env, required: false}]
    environment: {POSTGRES_DB: here}
  b:
    env_file: one.env
";
    let (root, project) = directory(
        &[
            ("docker-compose.yml", compose),
            (
                "one.env",
                "POSTGRES_USER=one\nPOSTGRES_DB=one\nPOSTGRES_PASSWORD=s3cret\n",
            ),
            ("two.env", "POSTGRES_USER=two\nNOT=kept\n"),
        ],
        &[],
    );

    let project = project.expect("read");
    let a = service(&project, "a");
    assert_eq!(a.environment["POSTGRES_USER"].as_deref(), Some("two"));
    assert_eq!(a.environment["POSTGRES_DB"].as_deref(), Some("here"));
    assert_eq!(
        (
            a.environment.len(),
            a.environment["POSTGRES_PASSWORD"].clone()
        ),
        (3, None)
    );
    assert_eq!(
        service(&project, "b").environment["POSTGRES_USER"].as_deref(),
        Some("one")
    );
    assert_eq!(
        project.env_files,
        ["one.env", "two.env"].map(|name| root.path().join(name))
    );

    let (_root, project) = directory(
        &[("compose.yml", "services:\n  a:\n    env_file: none.env\n")],
        &[],
    );
    let message = project.expect_err("missing").to_string();
    assert!(
        message.contains("compose.yml:3: services.a.env_file: cannot read"),
        "{message}"
    );

    let (_root, project) = directory(
        &[
            ("compose.yml", "services:\n  a:\n    env_file: bad.env\n"),
            ("bad.env", "A=1\nwhat is this s3cret\n"),
        ],
        &[],
    );
    let message = project.expect_err("bad").to_string();
    assert!(
        message.contains("bad.env:2: ") && !message.contains("s3cret"),
        "{message}"
    );
}

#[test]
fn unsupported_keys_and_unset_variables_are_noted() {
    let project = text(
        "include: [other.yml]\nservices:\n  a:\n    extends: {service: b}\n    image: '$WHAT'\n  b: {image: x}\n",
    )
    .expect("read");
    assert_eq!(project.notes.len(), 3, "{:?}", project.notes);
    assert!(project.notes[0].contains("docker-compose.yml:1: 'include'"));
    assert!(project.notes[1].contains(":4: 'extends' of service 'a'"));
    assert_eq!(
        project.notes[2],
        "the variable WHAT is not set: read as empty"
    );
}

#[test]
fn errors_name_file_line_and_key() {
    assert_eq!(
        text("services:\n  a:\n    image: ${X:?no image}\n")
            .expect_err("unset")
            .to_string(),
        "/opt/Py Aleph/docker-compose.yml:3: services.a.image: the variable X must be set: no image"
    );

    let is = |compose: &str, line: usize, key: &str| {
        let (at, named, why) = wrong(compose);
        assert_eq!((at, named.as_str()), (line, key), "{why}");
    };

    is("services:\n  a:\n    image: [x]\n", 3, "services.a.image");
    is("services: text\n", 1, "services");
    is("services:\n  a: text\n", 2, "services.a");
    is("services: {}\nvolumes: [x]\n", 2, "volumes");
    is(
        "services: {}\nvolumes:\n  a:\n    external: perhaps\n",
        4,
        "volumes.a.external",
    );
    is(
        "services:\n  a:\n    volumes:\n      - /a:/b\n      - [x]\n",
        5,
        "services.a.volumes",
    );
    is(
        "services:\n  a:\n    volumes:\n      - 'x:'\n",
        4,
        "services.a.volumes",
    );
    is("services:\n  a:\n    volumes: x\n", 3, "services.a.volumes");
    is(
        "services:\n  a:\n    volumes:\n      - type: bind\n        target: /x\n",
        4,
        "services.a.volumes",
    );
    is(
        "services:\n  a:\n    volumes:\n      - source: x\n",
        4,
        "services.a.volumes",
    );
    is(
        "services:\n  a:\n    volumes: ['~/x:/x']\n",
        3,
        "services.a.volumes",
    );
    is(
        "services:\n  a:\n    environment:\n      POSTGRES_USER: $1\n",
        4,
        "services.a.environment.POSTGRES_USER",
    );
    is(
        "services:\n  a:\n    environment:\n      - POSTGRES_DB=${\n",
        4,
        "services.a.environment.POSTGRES_DB",
    );

    is("volumes: {}\n", 1, "services");
    is("", 1, "");
    is("- a\n", 1, "");
    is("services:\n\ta: b\n", 2, "");

    let many: String = (0..2000).map(|n| format!("  s{n}: {{}}\n")).collect();
    is(&format!("services:\n{many}"), 1002, "services");
}

#[test]
fn missing_and_invalid_files_are_errors() {
    let (root, project) = directory(&[], &[]);
    let err = project.expect_err("no file");
    assert!(matches!(err, ComposeError::NoFile { .. }));
    assert_eq!(
        err.advice(),
        Some(Advice::Node(NodeAdvice::NameComposeFile))
    );

    let path = root.path().join("none.yml");
    let err = load(ComposeRequest {
        path: &path,
        environment: &nothing(),
        project: None,
    })
    .expect_err("none");
    assert!(matches!(err, ComposeError::Path(_)));

    fs::write(&path, b"services: {}\n# \xff\n").expect("written");
    let err = load(ComposeRequest {
        path: &path,
        environment: &nothing(),
        project: None,
    })
    .expect_err("bytes");
    assert!(
        err.to_string().ends_with("none.yml:2: this is not UTF-8"),
        "{err}"
    );

    fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("written");
    let err = load(ComposeRequest {
        path: &path,
        environment: &nothing(),
        project: None,
    })
    .expect_err("long");
    assert!(matches!(err, ComposeError::Path(_)));
}
