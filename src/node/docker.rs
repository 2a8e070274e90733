//! The Docker engine, by the `docker` program: containers and volumes looked up, volumes made.
//!
//! The program is used rather than the engine's socket because it knows contexts, `DOCKER_HOST` and
//! rootless engines as the operator has them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::ask::{NoAnswer, Patience, answer};
use crate::ops::Cancel;
use crate::source::{CommandError, Ending, SpawnOptions, StreamCommand};
use crate::sys::{is_directory, is_mount_point};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Why the engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// There is no `docker` program.
    #[error("the 'docker' program is not installed")]
    NotInstalled,
    /// The program is there, the engine does not answer.
    #[error("the Docker engine does not answer: {why}")]
    Unreachable { why: String },
    /// The program hangs: it was given up.
    #[error("docker {what} gave no answer within {seconds} s")]
    NoAnswer { what: String, seconds: u64 },
    /// We were asked to stop meanwhile.
    #[error("docker {what} was interrupted")]
    Interrupted { what: String },
    #[error("there is no container '{name}'{}", also(.tried))]
    NoContainer { name: String, tried: Option<String> },
    #[error("the container '{name}' is not running (it is {state})")]
    NotRunning { name: String, state: String },
    #[error("there is no Docker volume '{name}'")]
    NoVolume { name: String },
    /// Its files are not where they should be now.
    #[error("the directory of the Docker volume '{name}', {}, {why}", .directory.display())]
    VolumeNotHere {
        name: String,
        directory: PathBuf,
        why: String,
    },
    /// The program said no for another reason.
    #[error("docker {what} failed: {why}")]
    Failed { what: String, why: String },
    /// Its answer is not what it should be.
    #[error("the answer to docker {what} cannot be read: {why}")]
    BadAnswer { what: String, why: String },
}

fn also(tried: &Option<String>) -> String {
    tried
        .as_ref()
        .map_or_else(String::new, |tried| format!(", nor '{tried}'"))
}

impl DockerError {
    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotInstalled => Some(
                "install Docker, or name paths and a server's address instead of volumes and a container",
            ),
            Self::Unreachable { .. } | Self::NoAnswer { .. } => {
                Some("is the engine running, and may this user reach it?")
            }
            Self::NoContainer { .. } => Some("'docker ps -a' lists the containers there are"),
            Self::NotRunning { .. } => Some("start it: docker compose up -d, or docker start"),
            Self::NoVolume { .. } => Some("'docker volume ls' lists the volumes there are"),
            Self::VolumeNotHere { .. } => Some(
                "the engine mounts such a volume while a container uses it: let one that writes nothing do so, or name the directory by 'path'",
            ),
            Self::Failed { .. } | Self::BadAnswer { .. } | Self::Interrupted { .. } => None,
        }
    }
}

/// A container, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    /// As it was named when the container was made.
    pub image: String,
    /// The engine's own name of that image: `sha256:…`.
    pub image_id: String,
    /// `running`, `exited`, `paused` …
    pub state: String,
    pub labels: BTreeMap<String, String>,
    /// `NAME=value`, as the container's processes get it.
    pub env: Vec<String>,
    pub mounts: Vec<Mount>,
}

impl Container {
    /// True if its processes are at work.
    pub fn is_running(&self) -> bool {
        matches!(self.state.as_str(), "running" | "restarting")
    }

    /// A variable that the container's processes get.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }

    /// True if this is its name, in the spelling of either version of compose.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || other_spelling(name).is_some_and(|other| other == self.name)
    }

    /// The compose project and service that it belongs to.
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
pub struct Mount {
    /// The volume's name; empty for a bind mount.
    #[serde(rename = "Name", default)]
    pub volume: String,
    /// The directory or file on this machine.
    #[serde(rename = "Source", default)]
    pub source: PathBuf,
    /// Where it is in the container.
    #[serde(rename = "Destination")]
    pub destination: PathBuf,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Volume {
    #[serde(rename = "Name")]
    pub name: String,
    /// Its directory on the engine's machine.
    #[serde(rename = "Mountpoint")]
    pub mountpoint: PathBuf,
    #[serde(rename = "Driver", default)]
    pub driver: String,
    /// What the driver was given: a file system, a directory or a share that lies elsewhere.
    #[serde(rename = "Options", default)]
    pub options: Option<BTreeMap<String, String>>,
}

impl Volume {
    /// The directory on this machine that holds the volume's files now.
    ///
    /// # Errors
    /// The engine mounts some volumes (a share, a disk, another driver's) only while a container
    /// uses them. Until then their directory is an empty one of the disk below, which nobody would
    /// ever look into again.
    pub fn directory(&self) -> Result<PathBuf, DockerError> {
        let option = |name: &str| {
            self.options
                .as_ref()
                .and_then(|options| options.get(name))
                .map_or("", String::as_str)
        };
        let (device, is_bind) = (
            option("device"),
            option("o").split(',').any(|word| word == "bind"),
        );
        let is_local = matches!(self.driver.as_str(), "" | "local");
        let directory = match is_local && is_bind && device.starts_with('/') {
            true => PathBuf::from(device),
            false => self.mountpoint.clone(),
        };
        let not_here = |why: &str| DockerError::VolumeNotHere {
            name: self.name.clone(),
            directory: directory.clone(),
            why: why.to_owned(),
        };
        if !is_directory(&directory) {
            return Err(not_here(
                "is not on this machine, or this user may not look at it",
            ));
        }
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
struct Inspected {
    name: String,
    #[serde(default)]
    image: String,
    state: InspectedState,
    config: InspectedConfig,
    #[serde(default)]
    mounts: Vec<Mount>,
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
    /// Environment variables that the program does not get: those that hold our own secrets.
    env_remove: Vec<String>,
    patience: Patience,
}

impl Docker {
    /// The engine of this machine, or that of the user's Docker context.
    pub fn new(env_remove: Vec<String>) -> Self {
        Self {
            env_remove,
            patience: Patience::default(),
        }
    }

    /// The same, who waits for no answer once `cancel` is set.
    pub fn until(mut self, cancel: &Cancel) -> Self {
        self.patience.cancel = cancel.clone();
        self
    }

    /// How long its answers are waited for, and those of programs in its containers.
    pub(super) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Runs `docker` with these words and returns what it printed. One that hangs is ended after a
    /// minute.
    ///
    /// # Errors
    /// Anything but exit code 0, with the end of what it said.
    pub fn run(&self, words: &[&str]) -> Result<Vec<u8>, DockerError> {
        self.run_partly(words).map_err(|(err, _)| err)
    }

    /// The same; an error comes with what the program printed before it.
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
                NoAnswer::Command { err, said } => {
                    printed = said;
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

    /// True if the engine answers.
    pub fn is_there(&self) -> bool {
        self.run(&["version", "--format", "{{.Server.Version}}"])
            .is_ok()
    }

    /// The container of exactly this name or id; none if there is none.
    pub fn container(&self, name: &str) -> Result<Option<Container>, DockerError> {
        let answer = match self.run(&["inspect", "--type", "container", "--", name]) {
            Err(DockerError::Failed { why, .. }) if is_missing(&why) => return Ok(None),
            other => other?,
        };
        Ok(containers(&answer, "inspect")?.pop())
    }

    /// The container of this name, or of the name that another version of compose would have given
    /// it: `pyaleph_postgres_1` and `pyaleph-postgres-1` are the same one.
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

    /// As [`Docker::find_container`], and it runs.
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

    /// All containers of a compose project, running or not.
    pub fn project(&self, project: &str) -> Result<Vec<Container>, DockerError> {
        let label = format!("label=com.docker.compose.project={project}");
        self.listed(&["ps", "-aq", "--no-trunc", "--filter", &label])
    }

    /// All running containers that use a volume.
    pub fn users_of_volume(&self, volume: &str) -> Result<Vec<Container>, DockerError> {
        let filter = format!("volume={volume}");
        self.listed(&["ps", "-q", "--no-trunc", "--filter", &filter])
    }

    /// The containers of these names, running or not, in the spelling of either version of compose.
    /// Names of which there is no container are passed over.
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

    /// The volume of this name; none if there is none.
    pub fn volume(&self, name: &str) -> Result<Option<Volume>, DockerError> {
        let answer = match self.run(&["volume", "inspect", "--", name]) {
            Err(DockerError::Failed { why, .. }) if is_missing(&why) => return Ok(None),
            other => other?,
        };
        let mut found: Vec<Volume> = answer_json(&answer, "volume inspect")?;
        Ok(found.pop())
    }

    /// Makes a volume with these labels, as compose would label it.
    pub fn create_volume(
        &self,
        name: &str,
        labels: &[(&str, &str)],
    ) -> Result<Volume, DockerError> {
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

/// What clients, old and new ones and podman, say in any case if the engine does not answer.
const UNREACHABLE: [&str; 5] = [
    "cannot connect to the docker daemon",
    "failed to connect to the docker api",
    "cannot connect to podman",
    "error during connect",
    "permission denied while trying",
];

/// What they say if what was asked about is not there. Not "no such file": that may be the engine's
/// socket.
const MISSING: [&str; 5] = [
    "no such container",
    "no such volume",
    "no such object",
    "no such image",
    "image not known",
];

/// What `docker` said, as an error: the engine out of reach is told apart.
fn complaint(what: String, stderr: &str, ending: Ending) -> DockerError {
    let mut said: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    // The same for each of many things that were asked about.
    said.dedup();
    let why = if said.is_empty() {
        ending.to_string()
    } else {
        said.join("; ")
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
    let found: Vec<Inspected> = answer_json(answer, what)?;
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

/// An image's id with its algorithm, which podman leaves out.
pub(super) fn full_id(id: &str) -> String {
    let is_bare = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_bare {
        format!("sha256:{id}")
    } else {
        id.to_owned()
    }
}

/// A name as a pattern that matches it alone.
fn escaped(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    name.chars()
        .flat_map(|c| [(!is_plain(c)).then_some('\\'), Some(c)])
        .flatten()
        .collect()
}

/// The name that another version of compose gives the same container: version 1 joins project,
/// service and number by `_`, version 2 by `-`. Only the two joints are changed where they can be
/// told: before the last number, and before the service.
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
    // A service's own name may hold the joint; a project's rarely does.
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
    fn an_engine_out_of_reach_is_told_apart() {
        let complained = |said: &str| complaint("inspect".into(), said, Ending::Code(1));
        for said in [
            "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?\n",
            "failed to connect to the docker API at unix:///x: connect: no such file or directory\n",
            "Cannot connect to Podman. Please verify your connection to the Linux system: dial unix /x: connect: no such file or directory\n",
        ] {
            let err = complained(said);
            assert!(matches!(err, DockerError::Unreachable { .. }), "{err}");
        }
        for said in [
            "Error: No such container: x\n",
            "Error response from daemon: get x: no such volume\n",
            "Error: no such object: \"x\"\n",
        ] {
            let err = complained(said);
            assert!(
                matches!(&err, DockerError::Failed { why, .. } if is_missing(why)),
                "{err}"
            );
        }
        // A failure of whatever kind is no proof that something is not there.
        let err = complained("dial unix /x: no such host; no such file or directory\n");
        assert!(
            matches!(&err, DockerError::Failed { why, .. } if !is_missing(why)),
            "{err}"
        );
        let err = complaint("inspect".into(), "", Ending::Code(3));
        assert_eq!(err.to_string(), "docker inspect failed: exit code 3");
    }

    /// The engine mounts a share only while a container uses the volume. A restore needs all of
    /// them stopped: it wrote below the mount point, and the node that was started then was empty.
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
            answer_json::<Vec<Volume>>(text.as_bytes(), "volume inspect")
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
