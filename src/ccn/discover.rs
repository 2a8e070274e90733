//! Finds the parts of a node in a compose project, and asks the engine for their names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::compose::{ComposeProject, ComposeService, MountSource, ServiceMount};
use super::docker::{Container, ContainerMount, Docker, DockerError, DockerVolume};
use super::profile::SourceLocation;
use crate::advice::{Advice, NodeAdvice};
use crate::sys::{Dir, FileKind};

mod places;

/// The directory of pyaleph's files, in its container.
const LOCAL_STORAGE: &str = "/var/lib/pyaleph";
/// The directory of kubo's repository, in its container.
const IPFS: &str = "/data/ipfs";
/// The paths of pyaleph's keys and configuration, in its container.
const KEYS: &str = "/opt/pyaleph/keys";
const CONFIG: &str = "/opt/pyaleph/config.yml";
/// The directory of PostgreSQL's databases, in its container.
const DATABASE: &str = "/var/lib/postgresql";
/// PostgreSQL's user, if neither the container nor the compose file names one.
const DEFAULT_USER: &str = "postgres";

/// The queries that discovery makes of an engine.
pub trait EngineAnswers {
    /// Returns all containers of a compose project.
    fn project(&self, project: &str) -> Result<Vec<Container>, DockerError>;
    /// Returns the volume of this name; `None` if there is no such volume.
    fn volume(&self, name: &str) -> Result<Option<DockerVolume>, DockerError>;
    /// Returns the compose projects that have a container with this label.
    fn projects_with_label(
        &self,
        label: &str,
        value: &str,
    ) -> Result<BTreeSet<String>, DockerError>;
}

impl EngineAnswers for Docker {
    fn project(&self, project: &str) -> Result<Vec<Container>, DockerError> {
        Self::project(self, project)
    }

    fn volume(&self, name: &str) -> Result<Option<DockerVolume>, DockerError> {
        Self::volume(self, name)
    }

    fn projects_with_label(
        &self,
        label: &str,
        value: &str,
    ) -> Result<BTreeSet<String>, DockerError> {
        let filter = format!("label={label}={value}");
        let format = "{{.Label \"com.docker.compose.project\"}}";
        let answer = self.run(&["ps", "-a", "--filter", &filter, "--format", format])?;
        let answer = String::from_utf8_lossy(&answer);
        let lines = answer
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    }
}

/// The parts of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeDiscovery {
    pub project: String,
    /// The directory of the compose file.
    pub directory: PathBuf,
    /// The compose files that were read.
    pub files: Vec<PathBuf>,
    /// The reason why the engine was not asked or did not answer.
    pub no_engine: Option<String>,
    pub database: Option<FoundDatabase>,
    pub local_storage: Option<FoundTree>,
    /// The repository of the kubo service that pyaleph adds files to.
    pub ipfs: Option<FoundTree>,
    /// The repositories of other kubo services.
    pub other_ipfs: Vec<FoundTree>,
    pub keys: Option<FoundTree>,
    /// The configuration, and other files of its directory that are worth keeping.
    pub config: Option<FoundFiles>,
    /// Files of the compose file's directory, if the configuration is elsewhere.
    pub compose: Option<FoundFiles>,
    /// Containers that write to the node's data.
    pub writers: Vec<String>,
    /// Notes for the operator.
    pub notes: Vec<DiscoveryNote>,
}

/// A note for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryNote {
    /// One sentence.
    pub text: String,
    /// Advice on it, if there is any.
    pub advice: Option<Advice>,
}

impl From<String> for DiscoveryNote {
    /// Creates a note without advice.
    fn from(text: String) -> Self {
        Self { text, advice: None }
    }
}

/// The database's service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDatabase {
    pub service: String,
    pub container: String,
    /// `running`, `exited` …; `None` if there is no such container, or no engine answered.
    pub state: Option<String>,
    pub user: String,
    /// The database that the image creates when it first starts.
    pub database: String,
    /// The location of the server's files.
    pub data: Option<SourceLocation>,
}

/// A directory of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTree {
    pub place: SourceLocation,
    /// The service that uses it, if one does.
    pub service: Option<String>,
    /// The directory on this machine, if it is known.
    pub directory: Option<PathBuf>,
}

/// Some files of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFiles {
    pub directory: PathBuf,
    /// Relative to the directory, in order.
    pub names: Vec<String>,
}

/// Finds the node's parts in a project.
///
/// `engine` is asked for containers and volumes. Without an engine, or if it does not answer, the
/// names are those that compose would give.
pub fn discover(mut project: ComposeProject, engine: Option<&dyn EngineAnswers>) -> NodeDiscovery {
    let mut finder = NodeFinder {
        containers: Vec::new(),
        engine,
        out: NodeDiscovery {
            directory: project.directory.clone(),
            files: project.files.clone(),
            notes: std::mem::take(&mut project.notes)
                .into_iter()
                .map(DiscoveryNote::from)
                .collect(),
            ..NodeDiscovery::default()
        },
    };
    finder.containers(&mut project);
    finder.out.project.clone_from(&project.name);
    finder.find(&project);
    finder.out
}

struct NodeFinder<'a> {
    engine: Option<&'a dyn EngineAnswers>,
    /// The project's containers, as the engine knows them.
    containers: Vec<Container>,
    out: NodeDiscovery,
}

impl NodeFinder<'_> {
    fn note(&mut self, what: impl Into<String>) {
        self.out.notes.push(what.into().into());
    }

    /// Returns the engine's answer, or `None` if there is no engine. After an error, the engine is
    /// not asked again.
    fn ask<T>(
        &mut self,
        question: impl FnOnce(&dyn EngineAnswers) -> Result<T, DockerError>,
    ) -> Option<T> {
        let answer = question(self.engine?);
        answer
            .map_err(|err| {
                self.engine = None;
                self.out.no_engine = Some(err.to_string());
            })
            .ok()
    }

    /// Asks for the project's containers. If the project runs under another name, its name is
    /// changed to that.
    fn containers(&mut self, project: &mut ComposeProject) {
        let name = project.name.clone();
        let Some(found) = self.ask(|engine| engine.project(&name)) else {
            return;
        };
        self.containers = found;
        if !self.containers.is_empty() {
            return;
        }
        let other = self.running_here(project);
        match (other.len(), other.first()) {
            (1, Some(other)) if !project.named => {
                let other = other.clone();
                let Some(found) = self.ask(|engine| engine.project(&other)) else { return };
                self.note(format!("the project runs as '{other}', not as '{name}'"));
                self.containers = found;
                project.name = other;
            }
            (0, _) | (_, None) => self.note(format!(
                "the engine has no container of project '{name}': using the names that compose would give"
            )),
            _ => {
                let list = other.into_iter().collect::<Vec<_>>().join("', '");
                self.out.notes.push(DiscoveryNote {
                    text: format!(
                        "the engine has no container of project '{name}', only of '{list}' from this directory"
                    ),
                    advice: Some(Advice::Node(NodeAdvice::NameProject)),
                });
            }
        }
    }

    /// Returns the projects that have a container started from this directory, by its labels.
    fn running_here(&mut self, project: &ComposeProject) -> BTreeSet<String> {
        let mut directories = vec![project.directory.clone()];
        directories.extend(
            Dir::open_canonical(&project.directory)
                .ok()
                .map(|dir| dir.path().to_owned()),
        );
        directories.dedup();

        // Match by directory, with and without symlinks resolved, and by the list of compose files.
        let files = project
            .files
            .iter()
            .map(|file| file.to_string_lossy().into_owned())
            .collect::<Vec<_>>();
        let mut labels: Vec<(&str, String)> = directories
            .iter()
            .map(|directory| {
                (
                    "com.docker.compose.project.working_dir",
                    directory.to_string_lossy().into_owned(),
                )
            })
            .collect();
        labels.push(("com.docker.compose.project.config_files", files.join(",")));

        let mut found = BTreeSet::new();
        for (label, value) in labels {
            let more = self.ask(|engine| engine.projects_with_label(label, &value));
            found.extend(more.unwrap_or_default());
        }
        found
    }

    fn find(&mut self, project: &ComposeProject) {
        self.database(project);
        self.out.local_storage = self.tree(project, LOCAL_STORAGE);
        self.ipfs(project);
        self.keys(project);
        self.configuration(project);
        self.writers(project);
        self.uncovered(project);
    }

    /// Returns the containers of a service, as the engine knows them, without those of
    /// `docker compose run`.
    fn of_service(&self, service: &ComposeService) -> impl Iterator<Item = &Container> {
        let name = service.name.clone();
        self.containers.iter().filter(move |container| {
            let once = container
                .labels
                .get("com.docker.compose.oneoff")
                .is_some_and(|once| once == "True");
            !once && container.service().is_some_and(|(_, known)| known == name)
        })
    }

    fn database(&mut self, project: &ComposeProject) {
        // Choose the service: the image counts most, then the variables, then a mount of the
        // directory.
        let score = |service: &ComposeService| {
            let names = ["POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"];
            let has_variables = names
                .iter()
                .any(|name| service.environment.contains_key(*name));
            let data = service
                .mounts
                .iter()
                .any(|mount| mount.target.starts_with(DATABASE));
            let image = has_postgres_image(service);
            // A mount of that directory alone is not enough: a service that copies the files has
            // one too.
            if image || has_variables {
                4 * u8::from(image) + 2 * u8::from(has_variables) + u8::from(data)
            } else {
                0
            }
        };
        let best = project.services.iter().map(score).max().unwrap_or(0);
        let found: Vec<&ComposeService> = project
            .services
            .iter()
            .filter(|service| best > 0 && score(service) == best)
            .collect();

        let Some(&service) = found.first() else {
            return;
        };

        if found.len() > 1 {
            let names: Vec<&str> = found.iter().map(|service| service.name.as_str()).collect();
            self.note(format!(
                "several services look like PostgreSQL ('{}'): using the first",
                names.join("', '")
            ));
        }

        // A container, preferably a running one, shows the actual user and database. Its variables
        // take precedence over those of the compose file.
        let container = self
            .of_service(service)
            .min_by_key(|container| !container.is_running())
            .cloned();

        let variable = |name: &str| {
            service
                .environment
                .get(name)
                .cloned()
                .flatten()
                .filter(|v| !v.is_empty())
        };

        let runs_with = |name: &str| {
            let lines = &container.as_ref()?.env;
            let value = lines
                .iter()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.filter(|value| !value.is_empty()).map(str::to_owned)
        };
        let written = variable("POSTGRES_USER");
        let running = runs_with("POSTGRES_USER");

        // An image without these variables has the default user, and a database with the user's
        // name.
        let user = running
            .or_else(|| written.clone())
            .unwrap_or_else(|| DEFAULT_USER.to_owned());
        if container.is_some() && written.as_ref().is_some_and(|written| *written != user) {
            self.note(format!(
                "the database runs with user '{user}', the compose file has another one: check it"
            ));
        }
        if written.is_none() && service.environment.contains_key("POSTGRES_USER_FILE") {
            self.note("the database's user is in a file (POSTGRES_USER_FILE): fill it in");
        }

        let database = runs_with("POSTGRES_DB")
            .or_else(|| variable("POSTGRES_DB"))
            .unwrap_or_else(|| user.clone());

        let mount = service
            .mounts
            .iter()
            .find(|mount| mount.target.starts_with(DATABASE));
        let data = mount.and_then(|mount| self.place(project, service, mount));

        self.out.database = Some(FoundDatabase {
            service: service.name.clone(),
            container: match &container {
                Some(container) => container.name.clone(),
                None => project.container_name(service),
            },
            state: container.map(|container| container.state),
            user,
            database,
            data: data.map(|data| data.place),
        });
    }

    /// Finds the files mounted at a directory of a container.
    fn tree(&mut self, project: &ComposeProject, target: &str) -> Option<FoundTree> {
        let (service, mount) = mounted_at(project, target)?;
        self.place(project, service, mount)
    }

    /// Returns the mount that a service's container has at this directory, if there is such a
    /// container.
    fn real(&self, service: &ComposeService, target: &str) -> Option<ContainerMount> {
        let mut mounts = self
            .of_service(service)
            .flat_map(|container| &container.mounts);
        mounts
            .find(|mount| mount.destination == Path::new(target))
            .cloned()
    }

    /// Returns the location of a service's mount; `None` for a volume without a name.
    fn mounted(
        &self,
        project: &ComposeProject,
        service: &ComposeService,
        mount: &ServiceMount,
    ) -> Option<SourceLocation> {
        let key = match &mount.source {
            MountSource::Nameless => return None,
            MountSource::Path(path) => return Some(SourceLocation::Path(path.clone())),
            MountSource::Volume(key) => key,
        };
        if let Some(device) = project
            .volumes
            .get(key)
            .and_then(|volume| volume.device.clone())
        {
            return Some(SourceLocation::Path(device));
        }
        Some(match self.real(service, &mount.target) {
            Some(real) if real.volume.is_empty() => SourceLocation::Path(real.source),
            Some(real) => SourceLocation::Volume(real.volume),
            None => SourceLocation::Volume(project.volume_name(key)),
        })
    }

    /// Finds the location of a mount's files, from the engine or from the compose file.
    fn place(
        &mut self,
        project: &ComposeProject,
        service: &ComposeService,
        mount: &ServiceMount,
    ) -> Option<FoundTree> {
        let real = self.real(service, &mount.target);
        let service = Some(service.name.clone());

        let at = |directory: PathBuf| FoundTree {
            place: SourceLocation::Path(directory.clone()),
            service: service.clone(),
            directory: Some(directory),
        };

        let key = match &mount.source {
            MountSource::Nameless => {
                let real = real.filter(|real| !real.volume.is_empty())?;
                self.note(format!(
                    "{} is in an anonymous volume, which compose may lose",
                    mount.target
                ));
                return Some(FoundTree {
                    place: SourceLocation::Volume(real.volume),
                    service,
                    directory: Some(real.source),
                });
            }
            MountSource::Path(path) => {
                if let Some(real) = real.filter(|real| real.source != *path) {
                    self.differs(&mount.target, &real.source.display().to_string());
                }
                self.look_for(path);
                return Some(at(path.clone()));
            }
            MountSource::Volume(key) => key,
        };

        if let Some(device) = project
            .volumes
            .get(key)
            .and_then(|volume| volume.device.clone())
        {
            self.look_for(&device);
            return Some(at(device));
        }

        if let Some(real) = real {
            if real.volume.is_empty() {
                self.differs(&mount.target, &real.source.display().to_string());
                return Some(at(real.source));
            }
            return Some(FoundTree {
                place: SourceLocation::Volume(real.volume),
                service,
                directory: Some(real.source),
            });
        }

        // No container has the volume yet: ask for it by the name that compose would give.
        let name = project.volume_name(key);
        let answer = self.ask(|engine| engine.volume(&name));
        if matches!(answer, Some(None)) {
            self.note(format!("the engine has no volume '{name}' yet"));
        }
        let directory = answer.flatten().map(|volume| volume.mountpoint);
        Some(FoundTree {
            place: SourceLocation::Volume(name),
            service,
            directory,
        })
    }

    fn differs(&mut self, target: &str, real: &str) {
        self.note(format!(
            "the running container has {real} at {target}, unlike the compose file: check it"
        ));
    }

    fn look_for(&mut self, path: &Path) {
        if kind(path).is_none() {
            self.note(format!("cannot find {}", path.display()));
        }
    }

    /// Finds the keys: a mount at pyaleph's path for them, a mounted directory with that name (or a
    /// mounted file in one), or the directory `keys` beside the compose file.
    fn keys(&mut self, project: &ComposeProject) {
        if let Some(found) = self.tree(project, KEYS) {
            self.out.keys = Some(found);
            return;
        }

        let named = |path: &Path| path.file_name().is_some_and(|name| name == "keys");
        let mounted = paths(project).find_map(|(service, path)| {
            let directory = if named(path) {
                path
            } else {
                path.parent().filter(|parent| named(parent))?
            };
            Some((service.name.clone(), directory.to_owned()))
        });

        let beside = project.directory.join("keys");
        let (service, directory) = match mounted {
            Some((service, directory)) => (Some(service), directory),
            None if kind(&beside) == Some(FileKind::Directory) => (None, beside),
            None => return,
        };

        self.look_for(&directory);
        self.out.keys = Some(FoundTree {
            place: SourceLocation::Path(directory.clone()),
            service,
            directory: Some(directory),
        });
    }

    /// Finds the configuration, and the files beside the compose file that the node needs to start
    /// again.
    fn configuration(&mut self, project: &ComposeProject) {
        // Find the configuration: mounted at its path, mounted elsewhere, or beside the compose
        // file.
        let named = |path: &Path| {
            path.file_name()
                .is_some_and(|n| n == "config.yml" || n == "config.yaml")
        };
        let mounted = match mounted_at(project, CONFIG).map(|(_, mount)| &mount.source) {
            Some(MountSource::Path(path)) => Some(path.clone()),
            _ => paths(project)
                .map(|(_, path)| path)
                .find(|path| named(path))
                .map(Path::to_owned),
        };
        let beside = project.directory.join("config.yml");
        let config = mounted.or_else(|| kind(&beside).is_some().then_some(beside));

        // Keep the compose files, and the mounted files of their directory except the keys.
        let mut kept: BTreeSet<PathBuf> = project
            .files
            .iter()
            .chain(&project.env_files)
            .cloned()
            .collect();
        let in_keys = |path: &Path| match self
            .out
            .keys
            .as_ref()
            .and_then(|keys| keys.directory.as_ref())
        {
            Some(keys) => path.starts_with(keys),
            None => false,
        };
        let mounted = paths(project)
            .map(|(_, path)| path)
            .filter(|path| !in_keys(path));
        kept.extend(mounted.filter(|path| is_file(path)).map(Path::to_owned));
        kept.retain(|path| path.starts_with(&project.directory));

        let Some(config) = config else {
            self.out.compose = files_in(&project.directory, kept);
            return;
        };

        if config.starts_with(&project.directory) {
            kept.insert(config.clone());
            self.out.config = files_in(&project.directory, kept);
        } else if let Some(directory) = config.parent() {
            self.out.config = files_in(directory, BTreeSet::from([config.clone()]));
            self.out.compose = files_in(&project.directory, kept);
        }

        match kind(&config) {
            None => self.note(format!("cannot find {}", config.display())),
            Some(FileKind::Symlink) => self.note(format!(
                "{} is a symlink: the link is stored, not its target; name the target's directory",
                config.display()
            )),
            Some(_) => {}
        }
    }

    /// Finds the containers of services that use the node's data, except the database's own.
    fn writers(&mut self, project: &ComposeProject) {
        let database = self
            .out
            .database
            .as_ref()
            .map(|database| database.service.clone());

        // Collect the locations of the node's data.
        let parts = [&self.out.local_storage, &self.out.ipfs, &self.out.keys];
        let mut places: Vec<SourceLocation> = parts
            .into_iter()
            .flatten()
            .map(|part| part.place.clone())
            .collect();
        places.extend(self.out.other_ipfs.iter().map(|part| part.place.clone()));
        places.extend(
            self.out
                .database
                .as_ref()
                .and_then(|database| database.data.clone()),
        );

        let is_config =
            |name: &String| name.ends_with("config.yml") || name.ends_with("config.yaml");
        if let Some(config) = &self.out.config {
            let files = config.names.iter().filter(|name| is_config(name));
            places.extend(files.map(|name| SourceLocation::Path(config.directory.join(name))));
        }

        // A service without a container counts with the name that compose would give.
        let mut writers = Vec::new();
        for service in &project.services {
            let mut mounts = service.mounts.iter();
            let uses = mounts.any(|mount| {
                let mounted = self.mounted(project, service, mount);
                mounted.is_some_and(|mounted| {
                    places
                        .iter()
                        .any(|place| touches(&mounted, mount.read_only, place))
                })
            });

            if !uses || Some(&service.name) == database.as_ref() {
                continue;
            }

            let mut names: Vec<String> = self
                .of_service(service)
                .map(|found| found.name.clone())
                .collect();
            names.sort();
            if names.is_empty() {
                names.push(project.container_name(service));
            }
            writers.extend(names);
        }

        self.out.writers = writers;
    }
}

/// Returns true if a mount is at the place or below it, or contains it and is writable.
fn touches(mounted: &SourceLocation, read_only: bool, place: &SourceLocation) -> bool {
    match (mounted, place) {
        (SourceLocation::Volume(mounted), SourceLocation::Volume(name)) => mounted == name,
        (SourceLocation::Path(path), SourceLocation::Path(place)) => {
            path.starts_with(place) || (place.starts_with(path) && !read_only)
        }
        _ => false,
    }
}

/// Returns the service that has a mount at this directory of its container.
fn mounted_at<'p>(
    project: &'p ComposeProject,
    target: &str,
) -> Option<(&'p ComposeService, &'p ServiceMount)> {
    project.services.iter().find_map(|service| {
        let mount = service.mounts.iter().find(|mount| mount.target == target)?;
        Some((service, mount))
    })
}

/// Returns every path of this machine that a service mounts.
fn paths(project: &ComposeProject) -> impl Iterator<Item = (&ComposeService, &Path)> {
    project.services.iter().flat_map(|service| {
        service
            .mounts
            .iter()
            .filter_map(move |mount| match &mount.source {
                MountSource::Path(path) => Some((service, path.as_path())),
                _ => None,
            })
    })
}

/// Returns true for `postgres:15`, `registry/library/postgres@sha256:…` and the like.
fn has_postgres_image(service: &ComposeService) -> bool {
    let Some(image) = &service.image else {
        return false;
    };
    let name = image
        .split('@')
        .next()
        .unwrap_or_default()
        .rsplit('/')
        .next()
        .unwrap_or_default();
    name.split(':').next() == Some("postgres")
}

/// Returns the kind of file at a path; `None` if there is none. Symlinks are not followed.
fn kind(path: &Path) -> Option<FileKind> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Some(Dir::open(parent).ok()?.stat(name).ok()?.kind),
        _ => Some(FileKind::Directory),
    }
}

fn is_file(path: &Path) -> bool {
    matches!(kind(path), Some(FileKind::File | FileKind::Symlink)) && Dir::open(path).is_err()
}

fn files_in(directory: &Path, files: BTreeSet<PathBuf>) -> Option<FoundFiles> {
    let below = files
        .iter()
        .filter_map(|file| file.strip_prefix(directory).ok());
    let names: Vec<String> = below
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    (!names.is_empty()).then(|| FoundFiles {
        directory: directory.to_owned(),
        names,
    })
}

#[cfg(test)]
mod tests;
