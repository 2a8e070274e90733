//! Tests of images: answers of the engine, and the meaning of names.

use super::super::docker::ContainerMount;
use super::super::profile::{DatabaseServer, NodeDatabase, NodeSource};
use super::*;

const ID: &str = "sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a";
const DIGEST: &str = "sha256:1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b1b";

fn image(tags: &[&str], digests: &[&str]) -> LocalImage {
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    LocalImage {
        id: ID.into(),
        tags: texts(tags),
        digests: texts(digests),
    }
}

fn container(service: &str, state: &str, mounts: &[(&str, &str)]) -> Container {
    let label = |name: &str, value: &str| (format!("com.docker.compose.{name}"), value.to_owned());
    let mount = |&(volume, source): &(&str, &str)| ContainerMount {
        volume: volume.into(),
        source: source.into(),
        destination: "/x".into(),
    };
    Container {
        name: format!("p-{service}-1"),
        image: format!("{service}:stable"),
        image_id: ID.into(),
        state: state.into(),
        labels: BTreeMap::from([label("project", "p"), label("service", service)]),
        env: Vec::new(),
        mounts: mounts.iter().map(mount).collect(),
    }
}

fn profile() -> NodeLayout {
    let part = |source: &str, place| {
        Some(NodeSource {
            source: source.into(),
            place,
        })
    };
    let access = ServerAccess::Docker {
        container: "p_postgres_1".into(),
    };
    NodeLayout {
        database: Some(NodeDatabase {
            source: "db".into(),
            server: DatabaseServer { access, user: None },
        }),
        ipfs: part("kubo", SourceLocation::Volume("p_ipfs".into())),
        config: part("config", SourceLocation::Path("/opt/node".into())),
        keys: part("keys", SourceLocation::Path("/opt/node/keys".into())),
        ..NodeLayout::default()
    }
}

#[test]
fn an_inspected_image_is_read_with_and_without_a_digest() {
    let pulled = format!(
        r#"[{{"Id":"{ID}","RepoTags":["postgres:15.1","mirror.example:5000/postgres:15.1"],
        "RepoDigests":["mirror.example:5000/postgres@{DIGEST}","postgres@{DIGEST}"],"Size":7}}]"#
    );
    let images = local_images(pulled.as_bytes()).expect("read");
    assert_eq!(images[0].digests.len(), 2);

    let digest = |name: &str| digest_of(name, &images[0].digests).map(String::as_str);
    let usual = format!("postgres@{DIGEST}");
    assert_eq!(
        digest("docker.io/library/postgres:15.1"),
        Some(usual.as_str())
    );
    assert_eq!(
        digest("other"),
        Some(format!("mirror.example:5000/postgres@{DIGEST}").as_str())
    );

    // Images that were built or loaded on this machine are in no registry.
    for none in [
        "",
        r#","RepoTags":null,"RepoDigests":null"#,
        r#","RepoTags":[],"RepoDigests":[]"#,
    ] {
        let built = format!(r#"[{{"Id":"{ID}"{none}}}]"#);
        assert_eq!(
            local_images(built.as_bytes()).expect("read"),
            [image(&[], &[])]
        );
    }

    // Podman prints the id without its algorithm.
    let bare = format!(r#"[{{"Id":"{}"}}]"#, &ID[7..]);
    assert_eq!(local_images(bare.as_bytes()).expect("read")[0].id, ID);
    assert_eq!(local_images(b"[]").expect("read"), []);

    for bad in ["", "{}", r#"[{"RepoTags":[]}]"#, r#"[{"Id":7}]"#] {
        assert!(local_images(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn names_that_stand_for_one_image_are_known() {
    let images = [image(
        &["postgres:15", "reg:5000/a/b:latest"],
        &[&format!("postgres@{DIGEST}")],
    )];
    let is_found = |name: &str| found(name, &images).is_some();
    for name in [
        "postgres:15",
        "library/postgres:15",
        "docker.io/library/postgres:15",
        "reg:5000/a/b",
        ID,
        &ID[7..],
    ] {
        assert!(is_found(name), "{name}");
    }

    assert!(
        is_found(&format!("docker.io/postgres:99@{DIGEST}")),
        "the digest counts, not the tag"
    );

    for name in [
        "postgres",
        "postgres:15.1",
        "other/postgres:15",
        "a/b",
        "reg/a/b",
        "",
        "postgres:",
        "postgres@",
        "x/",
    ] {
        assert!(!is_found(name), "{name}");
    }

    assert!(!is_found(&format!("postgres@{ID}")));
}

#[test]
fn each_service_has_one_image_and_the_sources_that_it_uses() {
    let mut once = container("ipfs", "running", &[]);
    once.name = "p-ipfs-run-1".into();
    once.image = "another:1".into();
    once.labels
        .insert("com.docker.compose.oneoff".into(), "True".into());
    let mut second = container("ipfs", "running", &[]);
    second.name = "p-ipfs-2".into();
    let services = by_service(vec![
        once,
        container("ipfs", "exited", &[]),
        second,
        Container {
            labels: BTreeMap::new(),
            ..container("alone", "created", &[])
        },
    ]);

    let names: Vec<&str> = services
        .values()
        .map(|container| container.name.as_str())
        .collect();
    assert_eq!(
        (names, services.contains_key("p-alone-1")),
        (vec!["p-ipfs-2", "p-alone-1"], true)
    );

    let images = [image(&[], &[&format!("ipfs@{DIGEST}")])];
    let script = ("", "/opt/node/001-ipfs.sh");
    let kubo = container("ipfs", "running", &[("p_ipfs", "/v/_data"), script]);
    let used = in_use("ipfs", &kubo, &images, &profile());
    let sources = vec!["config".to_owned(), "kubo".to_owned()];
    let digest = Some(format!("ipfs@{DIGEST}"));
    assert_eq!(
        used,
        ServiceImage {
            service: "ipfs".into(),
            image: "ipfs:stable".into(),
            id: ID.into(),
            digest,
            sources
        }
    );

    // The server is found by its container's name, in the other spelling.
    let server = container("postgres", "running", &[("p_data", "/v2/_data")]);
    let used = in_use("postgres", &server, &[], &profile());
    assert_eq!((used.digest, used.sources), (None, vec!["db".to_owned()]));
}

/// An unreachable engine is an error for the caller, which only reports it.
#[test]
fn a_node_without_containers_asks_no_engine() {
    let access = ServerAccess::Direct {
        address: None,
        port: None,
        password_file: None,
    };
    let bare = NodeLayout {
        database: Some(NodeDatabase {
            source: "db".into(),
            server: DatabaseServer { access, user: None },
        }),
        ..NodeLayout::default()
    };
    let (images, err) = images_in_use(&bare, &Docker::default()).expect("nobody is asked");
    assert!(images.is_empty() && err.is_none());
}
