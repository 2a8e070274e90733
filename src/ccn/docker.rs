//! The Docker engine, through the `docker` program: looks up containers and volumes, and creates
//! volumes.
//!
//! The program is used rather than the engine's socket because it supports contexts, `DOCKER_HOST`
//! and rootless engines as the operator has set them up.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::ask::{NoAnswer, QueryLimits, answer};
use crate::advice::Advice;
use crate::source::{ChildEnding, CommandError, SpawnOptions, StreamCommand};
use crate::sys::{is_directory, is_mount_point};
use crate::task::Cancel;

/// Upper limit of an answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The reason why a request to the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// There is no `docker` program.
    #[error("the 'docker' program is not installed")]
    NotInstalled,
    /// The program is installed, but the engine does not answer.
    #[error("the Docker engine does not answer: {why}")]
    Unreachable { why: String },
    /// The program did not answer in time and was ended.
    #[error("docker {what} did not answer within {seconds} s")]
    NoAnswer { what: String, seconds: u64 },
    /// The operation was cancelled.
    #[error("docker {what} was interrupted")]
    Interrupted { what: String },
    #[error("there is no container '{name}'{}", also(.tried))]
    NoContainer { name: String, tried: Option<String> },
    #[error("the container '{name}' is not running (it is {state})")]
    NotRunning { name: String, state: String },
    #[error("there is no Docker volume '{name}'")]
    NoVolume { name: String },
    /// The volume's files are not at its directory now.
    #[error("the directory of the Docker volume '{name}', {}, {why}", .directory.display())]
    VolumeNotHere {
        name: String,
        directory: PathBuf,
        why: String,
    },
    /// The program failed for another reason.
    #[error("docker {what} failed: {why}")]
    Failed { what: String, why: String },
    /// The output of the program cannot be parsed.
    #[error("cannot parse the output of docker {what}: {why}")]
    BadAnswer { what: String, why: String },
}

fn also(tried: &Option<String>) -> String {
    tried
        .as_ref()
        .map_or_else(String::new, |tried| format!(", nor '{tried}'"))
}

impl DockerError {
    /// Returns advice for the operator, where there is any.
    pub fn advice(&self) -> Option<Advice> {
        match self {
            Self::NotInstalled => Some(
                "install Docker, or name paths and a server's address instead of volumes and a container".into(),
            ),
            Self::Unreachable { .. } | Self::NoAnswer { .. } => {
                Some("is the engine running, and may this user reach it?".into())
            }
            Self::NoContainer { .. } => Some("'docker ps -a' lists the containers".into()),
            Self::NotRunning { .. } => Some("start it: docker compose up -d, or docker start".into()),
            Self::NoVolume { .. } => Some("'docker volume ls' lists the volumes".into()),
            Self::VolumeNotHere { .. } => Some(
                "the engine mounts such a volume while a container uses it: start one that writes nothing, or name the directory with 'path'".into(),
            ),
            Self::Failed { .. } | Self::BadAnswer { .. } | Self::Interrupted { .. } => None,
        }
    }
}

/// A container, with the properties that icecore uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// The image's name, as given when the container was created.
    pub image: String,
    /// The image's id in the engine: `sha256:…`.
    pub image_id: String,
    /// `running`, `exited`, `paused` …
    pub state: String,
    pub labels: BTreeMap<String, String>,
    /// `NAME=value`, as passed to the container's processes.
    pub env: Vec<String>,
    pub mounts: Vec<ContainerMount>,
}

impl Container {
    /// Returns true if the container is running or restarting.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "running" | "restarting")
    }

    /// Returns the value of an environment variable of the container's processes.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }

    /// Returns true if this is the container's name, in the spelling of either version of compose.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || other_spelling(name).is_some_and(|other| other == self.name)
    }

    /// Returns the compose project and service that the container belongs to.
    pub fn service(&self) -> Option<(&str, &str)> {
        let label = |name: &str| self.labels.get(name).map(String::as_str);
        Some((
            label("com.docker.compose.project")?,
            label("com.docker.compose.service")?,
        ))
    }
}

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ContainerMount {
    /// The volume's name; empty for a bind mount.
    #[serde(rename = "Name", default)]
    pub volume: String,
    /// The directory or file on this machine.
    #[serde(rename = "Source", default)]
    pub source: PathBuf,
    /// The path in the container.
    #[serde(rename = "Destination")]
    pub destination: PathBuf,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DockerVolume {
    #[serde(rename = "Name")]
    pub name: String,
    /// Its directory on the engine's machine.
    #[serde(rename = "Mountpoint")]
    pub mountpoint: PathBuf,
    #[serde(rename = "Driver", default)]
    pub driver: String,
    /// The options of the driver: a file system, a directory or a share to mount.
    #[serde(rename = "Options", default)]
    pub options: Option<BTreeMap<String, String>>,
}

impl DockerVolume {
    /// Returns the directory on this machine that holds the volume's files now.
    ///
    /// # Errors
    /// The engine mounts some volumes (a share, a disk, or a volume of another driver) only while a
    /// container uses them. Until then the directory is an empty one of the disk below, and data
    /// written there would be hidden by the next mount.
    pub fn directory(&self) -> Result<PathBuf, DockerError> {
        let option = |name: &str| {
            self.options
                .as_ref()
                .and_then(|options| options.get(name))
                .map_or("", String::as_str)
        };
        let device = option("device");
        let is_bind = option("o").split(',').any(|word| word == "bind");
        let is_local = matches!(self.driver.as_str(), "" | "local");
        let directory = if is_local && is_bind && device.starts_with('/') {
            PathBuf::from(device)
        } else {
            self.mountpoint.clone()
        };

        let not_here = |why: &str| DockerError::VolumeNotHere {
            name: self.name.clone(),
            directory: directory.clone(),
            why: why.to_owned(),
        };

        if !is_directory(&directory) {
            return Err(not_here(
                "is not on this machine, or this user may not access it",
            ));
        }

        // A plain directory needs no mount.
        let is_plain = is_local && (is_bind || device.is_empty() && option("type").is_empty());
        if is_plain || is_mount_point(&directory) {
            Ok(directory)
        } else {
            Err(not_here("is not mounted now"))
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedContainer {
    name: String,
    #[serde(default)]
    image: String,
    state: InspectedState,
    config: InspectedConfig,
    #[serde(default)]
    mounts: Vec<ContainerMount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedState {
    status: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    image: String,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

/// The engine that the `docker` program reaches.
#[derive(Debug, Clone, Default)]
pub struct Docker {
    /// Environment variables to hide from the program, because they hold icecore's own secrets.
    env_remove: Vec<String>,
    patience: QueryLimits,
}

impl Docker {
    /// Uses the engine of this machine, or that of the user's Docker context.
    pub fn new(env_remove: Vec<String>) -> Self {
        Self {
            env_remove,
            patience: QueryLimits::default(),
        }
    }

    /// Returns the same engine, which stops waiting for answers once `cancel` is set.
    pub fn until(mut self, cancel: &Cancel) -> Self {
        self.patience.cancel = cancel.clone();
        self
    }

    /// Returns the limits of the wait for the engine's answers. They also apply to programs in its
    /// containers.
    pub(super) fn patience(&self) -> &QueryLimits {
        &self.patience
    }

    /// Runs `docker` with these words and returns its output. A command that hangs is ended after a
    /// minute.
    ///
    /// # Errors
    /// Any exit code but 0 is an error, which has the end of the standard error stream.
    pub fn run(&self, words: &[&str]) -> Result<Vec<u8>, DockerError> {
        self.run_partly(words).map_err(|(err, _)| err)
    }

    /// As [`Self::run`], but an error comes with the output of the program before it.
    pub(super) fn run_partly(&self, words: &[&str]) -> Result<Vec<u8>, (DockerError, Vec<u8>)> {
        let what = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        let failed = |why: String| DockerError::Failed {
            what: what.clone(),
            why,
        };

        let all = std::iter::once("docker")
            .chain(words.iter().copied())
            .map(str::to_owned)
            .collect();
        let command =
            StreamCommand::from_words(all).map_err(|err| (failed(err.to_string()), Vec::new()))?;

        let options = SpawnOptions {
            env_remove: self.env_remove.clone(),
            ..Default::default()
        };

        answer(&command, &options, ANSWER_BYTES_MAX, &self.patience).map_err(|none| {
            let mut printed = Vec::new();
            let err = match none {
                NoAnswer::Command { err, output } => {
                    printed = output;
                    match err {
                        CommandError::NotFound { .. } => DockerError::NotInstalled,
                        CommandError::Failed {
                            stderr_tail,
                            ending,
                            ..
                        } => complaint(what.clone(), &stderr_tail, ending),
                        err => failed(err.to_string()),
                    }
                }
                NoAnswer::Read(err) => failed(err.to_string()),
                NoAnswer::TooLong => DockerError::BadAnswer {
                    what: what.clone(),
                    why: "it is longer than 16 MiB".into(),
                },
                NoAnswer::Late => DockerError::NoAnswer {
                    what: what.clone(),
                    seconds: self.patience.limit.as_secs(),
                },
                NoAnswer::Interrupted => DockerError::Interrupted { what: what.clone() },
            };
            (err, printed)
        })
    }

    /// Returns true if the engine answers.
    pub fn is_there(&self) -> bool {
        self.run(&["version", "--format", "{{.Server.Version}}"])
            .is_ok()
    }

    /// Returns the container of exactly this name or id; `None` if there is no such container.
    pub fn container(&self, name: &str) -> Result<Option<Container>, DockerError> {
        let answer = match self.run(&["inspect", "--type", "container", "--", name]) {
            Err(DockerError::Failed { why, .. }) if is_missing(&why) => return Ok(None),
            other => other?,
        };
        Ok(containers(&answer, "inspect")?.pop())
    }

    /// Returns the container of this name, or of the name that another version of compose would
    /// have given it: `pyaleph_postgres_1` and `pyaleph-postgres-1` are the same container.
    pub fn find_container(&self, name: &str) -> Result<Container, DockerError> {
        if let Some(found) = self.container(name)? {
            return Ok(found);
        }
        let tried = other_spelling(name);
        if let Some(tried) = &tried
            && let Some(found) = self.container(tried)?
        {
            return Ok(found);
        }
        Err(DockerError::NoContainer {
            name: name.to_owned(),
            tried,
        })
    }

    /// As [`Docker::find_container`], but the container must be running.
    pub fn running_container(&self, name: &str) -> Result<Container, DockerError> {
        let found = self.find_container(name)?;
        if found.state == "running" {
            return Ok(found);
        }
        Err(DockerError::NotRunning {
            name: found.name,
            state: found.state,
        })
    }

    /// Returns all containers of a compose project, running or not.
    pub fn project(&self, project: &str) -> Result<Vec<Container>, DockerError> {
        let label = format!("label=com.docker.compose.project={project}");
        self.listed(&["ps", "-aq", "--no-trunc", "--filter", &label])
    }

    /// Returns all running containers that use a volume.
    pub fn users_of_volume(&self, volume: &str) -> Result<Vec<Container>, DockerError> {
        let filter = format!("volume={volume}");
        self.listed(&["ps", "-q", "--no-trunc", "--filter", &filter])
    }

    /// Returns the containers of these names, running or not. Names may be in the spelling of
    /// either version of compose. Names without a container are skipped.
    pub fn named(&self, names: &[&str]) -> Result<Vec<Container>, DockerError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let spellings = names
            .iter()
            .flat_map(|name| [Some((*name).to_owned()), other_spelling(name)]);
        let filters: Vec<String> = spellings
            .flatten()
            .map(|name| format!("--filter=name=^{}$", escaped(&name)))
            .collect();
        let mut words = vec!["ps", "-aq", "--no-trunc"];
        words.extend(filters.iter().map(String::as_str));
        self.listed(&words)
    }

    fn listed(&self, words: &[&str]) -> Result<Vec<Container>, DockerError> {
        let ids = self.run(words)?;
        let ids = String::from_utf8_lossy(&ids).into_owned();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let words: Vec<&str> = ["inspect", "--type", "container", "--"]
            .into_iter()
            .chain(ids)
            .collect();
        containers(&self.run(&words)?, "inspect")
    }

    /// Returns the volume of this name; `None` if there is no such volume.
    pub fn volume(&self, name: &str) -> Result<Option<DockerVolume>, DockerError> {
        let answer = match self.run(&["volume", "inspect", "--", name]) {
            Err(DockerError::Failed { why, .. }) if is_missing(&why) => return Ok(None),
            other => other?,
        };
        let mut found: Vec<DockerVolume> = answer_json(&answer, "volume inspect")?;
        Ok(found.pop())
    }

    /// Creates a volume with these labels, as compose would label it.
    pub fn create_volume(
        &self,
        name: &str,
        labels: &[(&str, &str)],
    ) -> Result<DockerVolume, DockerError> {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("--label={key}={value}"))
            .collect();
        let mut words = vec!["volume", "create"];
        words.extend(labels.iter().map(String::as_str));
        words.extend(["--", name]);
        self.run(&words)?;
        self.volume(name)?.ok_or_else(|| DockerError::NoVolume {
            name: name.to_owned(),
        })
    }
}

/// Messages, in any letter case, of old and new clients and of podman, for an engine that does not
/// answer.
const UNREACHABLE: [&str; 5] = [
    "cannot connect to the docker daemon",
    "failed to connect to the docker api",
    "cannot connect to podman",
    "error during connect",
    "permission denied while trying",
];

/// Messages for an object that does not exist. "No such file" is not among them: it may refer to
/// the engine's socket.
const MISSING: [&str; 5] = [
    "no such container",
    "no such volume",
    "no such object",
    "no such image",
    "image not known",
];

/// Turns the messages of `docker` into an error. An unreachable engine has its own variant.
fn complaint(what: String, stderr: &str, ending: ChildEnding) -> DockerError {
    let mut lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    // `docker` repeats a message for each of several objects.
    lines.dedup();
    let why = if lines.is_empty() {
        ending.to_string()
    } else {
        lines.join("; ")
    };

    let lower = why.to_lowercase();
    if UNREACHABLE.iter().any(|sign| lower.contains(sign)) {
        return DockerError::Unreachable { why };
    }
    DockerError::Failed { what, why }
}

pub(super) fn is_missing(why: &str) -> bool {
    let lower = why.to_lowercase();
    MISSING.iter().any(|sign| lower.contains(sign))
}

pub(super) fn answer_json<T: serde::de::DeserializeOwned>(
    answer: &[u8],
    what: &str,
) -> Result<T, DockerError> {
    serde_json::from_slice(answer).map_err(|err| DockerError::BadAnswer {
        what: what.to_owned(),
        why: err.to_string(),
    })
}

fn containers(answer: &[u8], what: &str) -> Result<Vec<Container>, DockerError> {
    let found: Vec<InspectedContainer> = answer_json(answer, what)?;
    Ok(found
        .into_iter()
        .map(|one| Container {
            name: one.name.trim_start_matches('/').to_owned(),
            image: one.config.image,
            image_id: full_id(&one.image),
            state: one.state.status,
            labels: one.config.labels.unwrap_or_default(),
            env: one.config.env.unwrap_or_default(),
            mounts: one.mounts,
        })
        .collect())
}

/// Returns an image's id with its algorithm, which podman leaves out.
pub(super) fn full_id(id: &str) -> String {
    let is_bare = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_bare {
        format!("sha256:{id}")
    } else {
        id.to_owned()
    }
}

/// Returns a pattern that matches only this name.
fn escaped(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    name.chars()
        .flat_map(|c| [(!is_plain(c)).then_some('\\'), Some(c)])
        .flatten()
        .collect()
}

/// Returns the name that another version of compose gives the same container: version 1 joins
/// project, service and number by `_`, version 2 by `-`. Only two separators are changed: the first
/// one, which precedes the service, and the one before the final number.
fn other_spelling(name: &str) -> Option<String> {
    let (from, to) = if name.ends_with(|c: char| c.is_ascii_digit()) {
        let joint = name
            .rfind(|c: char| !c.is_ascii_digit())
            .map(|at| &name[at..=at])?;
        match joint {
            "_" => ("_", "-"),
            "-" => ("-", "_"),
            _ => return None,
        }
    } else {
        return None;
    };
    let (head, number) = name.rsplit_once(from)?;
    // A service's name may contain the separator; a project's name rarely does.
    let (project, service) = head.split_once(from)?;
    Some(format!("{project}{to}{service}{to}{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_compose_are_one_container() {
        let other = |name| other_spelling(name);
        assert_eq!(
            other("pyaleph_postgres_1").as_deref(),
            Some("pyaleph-postgres-1")
        );
        assert_eq!(
            other("pyaleph-postgres-1").as_deref(),
            Some("pyaleph_postgres_1")
        );
        assert_eq!(
            other("pyaleph-pyaleph-api-1").as_deref(),
            Some("pyaleph_pyaleph-api_1")
        );
        assert_eq!(
            other("pyaleph_pyaleph-api_12").as_deref(),
            Some("pyaleph-pyaleph-api-12")
        );
        assert_eq!(other("postgres"), None);
        assert_eq!(other("db1"), None);
        assert_eq!(other("db-1"), None);
    }

    #[test]
    fn an_unreachable_engine_is_a_distinct_error() {
        let complained = |stderr: &str| complaint("inspect".into(), stderr, ChildEnding::Code(1));
        for stderr in [
            "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n",
            "failed to connect to the docker API at unix:///x: connect: no such file or directory\n",
            "Cannot connect to Podman. Please verify your connection to the Linux system: dial unix /x: connect: no such file or directory\n",
        ] {
            let err = complained(stderr);
            assert!(matches!(err, DockerError::Unreachable { .. }), "{err}");
        }

        for stderr in [
            "Error: No such container: x\n",
            "Error response from daemon: get x: no such volume\n",
            "Error: no such object: \"x\"\n",
        ] {
            let err = complained(stderr);
            assert!(
                matches!(&err, DockerError::Failed { why, .. } if is_missing(why)),
                "{err}"
            );
        }

        // No other failure proves that an object does not exist.
        let err = complained("dial unix /x: no such host; no such file or directory\n");
        assert!(
            matches!(&err, DockerError::Failed { why, .. } if !is_missing(why)),
            "{err}"
        );

        let err = complaint("inspect".into(), "", ChildEnding::Code(3));
        assert_eq!(err.to_string(), "docker inspect failed: exit code 3");
    }

    /// The engine mounts a share only while a container uses the volume. A restore needs all of
    /// these containers stopped. It used to write below the mount point, and the node that was
    /// started then was empty.
    #[test]
    fn a_volume_s_files_are_where_its_driver_puts_them() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("_data");
        let other = directory.path().join("other");
        std::fs::create_dir(&data).expect("made");
        std::fs::create_dir(&other).expect("made");
        let volume = |driver: &str, options: &str| {
            let text = format!(
                r#"[{{"Name":"v","Driver":"{driver}","Mountpoint":"{}","Options":{options}}}]"#,
                data.display()
            );
            answer_json::<Vec<DockerVolume>>(text.as_bytes(), "volume inspect")
                .expect("read")
                .remove(0)
                .directory()
        };

        assert_eq!(volume("local", "null").expect("plain"), data);
        assert_eq!(volume("local", "{}").expect("plain"), data);
        assert_eq!(volume("local", r#"{"o":"size=1g"}"#).expect("plain"), data);

        let bind = format!(
            r#"{{"type":"none","o":"rw,bind","device":"{}"}}"#,
            other.display()
        );
        assert_eq!(volume("local", &bind).expect("bound"), other);

        let share = r#"{"type":"nfs","o":"addr=10.0.0.1","device":":/share"}"#;
        for (driver, options) in [
            ("local", share),
            ("local", r#"{"type":"tmpfs"}"#),
            ("rclone", "null"),
        ] {
            let err = volume(driver, options).expect_err("not mounted");
            assert!(err.to_string().ends_with("is not mounted now"), "{err}");
        }

        std::fs::remove_dir(&data).expect("removed");
        let err = volume("local", "null").expect_err("nothing there");
        assert!(err.to_string().contains("not on this machine"), "{err}");
    }

    #[test]
    fn an_inspected_container_is_read() {
        let answer = br#"[{"Name":"/p-postgres-1","State":{"Status":"running"},
            "Config":{"Image":"postgres:15.1","Env":["POSTGRES_USER=aleph"],
            "Labels":{"com.docker.compose.project":"p","com.docker.compose.service":"postgres"}},
            "Mounts":[{"Type":"volume","Name":"p_data","Source":"/v/_data","Destination":"/data"},
                      {"Type":"bind","Source":"/k","Destination":"/keys"}]}]"#;
        let found = containers(answer, "inspect")
            .expect("an answer")
            .pop()
            .expect("a container");
        assert_eq!(
            (found.name.as_str(), found.service()),
            ("p-postgres-1", Some(("p", "postgres")))
        );
        assert_eq!(found.mounts[0].volume, "p_data");
        assert_eq!(found.mounts[1].volume, "");
        assert!(found.is_running());
        assert!(containers(b"[{}]", "inspect").is_err());
    }
}
