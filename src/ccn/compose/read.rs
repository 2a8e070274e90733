//! Reads the files of a project: finds them, substitutes variables, and merges them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::error::ComposeError;
use super::project::{ComposeProject, ComposeService, MountSource, ServiceMount, normalised};
use super::request::{ComposeFiles, ComposeRequest};
use super::variables::{ComposeVariables, Lines};
use super::yaml::{self, MergeRule, YamlEntry, YamlNode, YamlValue, shown};
use crate::sys::{Dir, PathError, read_bounded};

/// Names of the compose file, and of the file that overrides it, in the order of search.
const FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// Upper limit of a file's length, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Upper limit of the services of a project.
const SERVICES_MAX: usize = 1000;
/// Upper limit of the files of a project, for compose files and for files of variables each.
const FILES_MAX: usize = 64;

/// Reads a project: its compose file, the override file, and the `.env` file beside it.
pub fn load(request: ComposeRequest<'_>) -> Result<ComposeProject, ComposeError> {
    load_with(request, ComposeFiles::default())
}

/// Reads a project as it will be once `files` are written.
pub fn load_with(
    request: ComposeRequest<'_>,
    files: ComposeFiles<'_>,
) -> Result<ComposeProject, ComposeError> {
    let path = clean(request.path);
    let is_directory = Dir::open(&path).is_ok() || first_of(files, &path, &FILES).is_some();
    let directory = if is_directory {
        path.clone()
    } else {
        directory_of(&path)
    };

    let mut reader = ComposeReader {
        variables: ComposeVariables::new(request.environment),
        project: ComposeProject {
            directory: directory.clone(),
            ..ComposeProject::default()
        },
        laid_over: files,
        file: PathBuf::new(),
        named: None,
        home: request
            .environment
            .get("HOME")
            .map(PathBuf::from)
            .filter(|home| home.is_absolute()),
    };

    // The `.env` file comes first: it may name the compose files.
    reader.dot_env(&directory.join(".env"))?;
    let read = if is_directory {
        reader.files_of_directory()?
    } else {
        with_override(files, path)
    };
    for file in read {
        let text = bounded_text(files, &file)?;
        reader.read(&file, &text)?;
    }

    reader.finish(request.project)
}

/// Reads one compose file from memory, as if it were `docker-compose.yml` in that directory. Files
/// that it names are read from disk.
pub fn read_text(
    text: &str,
    directory: &Path,
    environment: &BTreeMap<String, String>,
) -> Result<ComposeProject, ComposeError> {
    let mut reader = ComposeReader {
        variables: ComposeVariables::new(environment),
        project: ComposeProject {
            directory: directory.to_owned(),
            ..ComposeProject::default()
        },
        laid_over: ComposeFiles::default(),
        file: PathBuf::new(),
        named: None,
        home: None,
    };
    reader.read(&directory.join("docker-compose.yml"), text)?;
    reader.finish(None)
}

/// Returns a named compose file and, if it has a usual name, its override file.
fn with_override(files: ComposeFiles<'_>, file: PathBuf) -> Vec<PathBuf> {
    let usual = file
        .file_name()
        .is_some_and(|name| FILES.iter().any(|usual| name == *usual));
    let over = if usual {
        first_of(files, &directory_of(&file), &OVERRIDES)
    } else {
        None
    };
    [Some(file), over].into_iter().flatten().collect()
}

fn directory_of(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("/")).to_owned()
}

fn first_of(files: ComposeFiles<'_>, directory: &Path, names: &[&str]) -> Option<PathBuf> {
    let open = Dir::open(directory).ok();
    let is_there = |file: &PathBuf, name: &str| {
        files.get(file).is_some() || open.as_ref().is_some_and(|open| open.stat(name).is_ok())
    };
    names
        .iter()
        .map(|name| (directory.join(name), name))
        .find(|(file, name)| is_there(file, name))
        .map(|(file, _)| file)
}

/// Returns a file's text.
fn bounded_text(files: ComposeFiles<'_>, file: &Path) -> Result<String, ComposeError> {
    let bytes = match files.get(file) {
        Some(bytes) => bytes,
        None => read_bounded(file, FILE_BYTES_MAX)?,
    };
    String::from_utf8(bytes).map_err(|err| {
        let before = &err.as_bytes()[..err.utf8_error().valid_up_to()];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        let why = "this is not UTF-8".to_owned();
        ComposeError::Wrong {
            file: file.to_owned(),
            line,
            key: String::new(),
            why,
        }
    })
}

struct ComposeReader<'a> {
    variables: ComposeVariables<'a>,
    project: ComposeProject,
    laid_over: ComposeFiles<'a>,
    /// The file that is being read.
    file: PathBuf,
    /// The value of `name:` in a file.
    named: Option<String>,
    home: Option<PathBuf>,
}

impl ComposeReader<'_> {
    fn wrong(&self, line: usize, key: impl Into<String>, why: impl Into<String>) -> ComposeError {
        ComposeError::Wrong {
            file: self.file.clone(),
            line,
            key: key.into(),
            why: why.into(),
        }
    }

    /// Returns the compose files of a directory: those that `COMPOSE_FILE` names, or else the usual
    /// ones.
    fn files_of_directory(&self) -> Result<Vec<PathBuf>, ComposeError> {
        let directory = &self.project.directory;
        if let Some(named) = self
            .variables
            .get("COMPOSE_FILE")
            .filter(|named| !named.is_empty())
        {
            let between = self
                .variables
                .get("COMPOSE_PATH_SEPARATOR")
                .filter(|text| !text.is_empty());
            let names = named
                .split(between.unwrap_or(":"))
                .filter(|name| !name.is_empty());
            return Ok(names
                .take(FILES_MAX)
                .map(|name| clean(&directory.join(name)))
                .collect());
        }
        let Some(file) = first_of(self.laid_over, directory, &FILES) else {
            return Err(ComposeError::NoFile {
                directory: directory.clone(),
            });
        };
        let over = first_of(self.laid_over, directory, &OVERRIDES);
        Ok([Some(file), over].into_iter().flatten().collect())
    }

    /// Adds the variables of the `.env` file, if there is one.
    fn dot_env(&mut self, file: &Path) -> Result<(), ComposeError> {
        match self.env_file(file) {
            Ok(lines) => {
                self.variables.add_file(lines);
                Ok(())
            }
            Err(ComposeError::Path(err)) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(err) => Err(err),
        }
    }

    fn env_file(&mut self, file: &Path) -> Result<Lines, ComposeError> {
        let text = bounded_text(self.laid_over, file)?;
        let lines = self.variables.read_file(&text).map_err(|(line, why)| {
            let file = file.to_owned();
            ComposeError::Wrong {
                file,
                line,
                key: String::new(),
                why,
            }
        })?;
        if !self.project.env_files.iter().any(|known| known == file) {
            self.project.env_files.push(file.to_owned());
        }
        Ok(lines)
    }

    /// Reads a compose file and merges it into those before.
    fn read(&mut self, file: &Path, text: &str) -> Result<(), ComposeError> {
        self.file = file.to_owned();
        self.project.files.push(file.to_owned());
        let root = yaml::read(text).map_err(|err| self.wrong(err.line, "", err.why))?;
        let Some(root) = root else {
            return Err(self.wrong(1, "", "the file is empty"));
        };
        if !matches!(root.value, YamlValue::Map(_)) {
            return Err(self.wrong(root.line, "", "a compose file is a map: services, volumes"));
        }

        if let Some(name) = root.get("name") {
            self.named = self.text(name, "name")?;
        }
        if let Some(include) = root.get("include") {
            self.note(
                include.line,
                "'include' is ignored: included files are not read",
            );
        }

        for volume in self.entries(root.get("volumes"), "volumes")? {
            self.volume(volume)?;
        }

        match root.get("services") {
            Some(services) => {
                for service in self.entries(Some(services), "services")? {
                    if self.project.services.len() >= SERVICES_MAX {
                        return Err(self.wrong(service.line, "services", "too many services"));
                    }
                    self.service(service)?;
                }
            }
            // The first version of the format had only services, at the top level. An override may
            // have none.
            None if self.project.files.len() == 1 => {
                return Err(self.wrong(root.line, "services", "there are no services"));
            }
            None => {}
        }

        Ok(())
    }

    fn note(&mut self, line: usize, what: &str) {
        let note = format!("{}:{line}: {what}", self.file.display());
        self.project.notes.push(note);
    }

    /// Returns the entries of a map; an empty slice if the map is missing.
    fn entries<'n>(
        &self,
        entry: Option<&'n YamlEntry>,
        key: &str,
    ) -> Result<&'n [YamlEntry], ComposeError> {
        match entry.map(|entry| (&entry.value.value, entry.line)) {
            None | Some((YamlValue::Null, _)) => Ok(&[]),
            Some((YamlValue::Map(entries), _)) => Ok(entries),
            Some((_, line)) => Err(self.wrong(line, key, "this must be a map")),
        }
    }

    /// Returns a text with its variables substituted; `None` for a null value.
    fn text(&mut self, entry: &YamlEntry, key: &str) -> Result<Option<String>, ComposeError> {
        self.node_text(&entry.value, entry.line, key)
    }

    fn node_text(
        &mut self,
        node: &YamlNode,
        line: usize,
        key: &str,
    ) -> Result<Option<String>, ComposeError> {
        match &node.value {
            YamlValue::Null => Ok(None),
            YamlValue::Text(text) => self
                .variables
                .fill(text)
                .map(Some)
                .map_err(|why| self.wrong(line, key, why)),
            YamlValue::List(_) | YamlValue::Map(_) => {
                Err(self.wrong(line, key, "this must be a string"))
            }
        }
    }

    fn truth(&mut self, entry: &YamlEntry, key: &str) -> Result<bool, ComposeError> {
        let text = self.text(entry, key)?.unwrap_or_default();
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" | "1" => Ok(true),
            "" | "false" | "no" | "off" | "n" | "0" => Ok(false),
            other => Err(self.wrong(
                entry.line,
                key,
                format!("'{}' is neither true nor false", shown(other)),
            )),
        }
    }

    fn volume(&mut self, entry: &YamlEntry) -> Result<(), ComposeError> {
        let key = format!("volumes.{}", shown(&entry.key));
        let mut volume = self
            .project
            .volumes
            .get(&entry.key)
            .cloned()
            .unwrap_or_default();

        self.entries(Some(entry), &key)?;
        let node = &entry.value;
        if let Some(name) = node.get("name") {
            volume.name = self.text(name, &format!("{key}.name"))?;
        }
        if let Some(external) = node.get("external") {
            let key = format!("{key}.external");
            // Older files set the name there.
            match external.value.get("name") {
                Some(name) => {
                    volume.external = true;
                    volume.name = self.text(name, &format!("{key}.name"))?;
                }
                None if matches!(external.value.value, YamlValue::Map(_)) => volume.external = true,
                None => volume.external = self.truth(external, &key)?,
            }
        }
        if let Some(options) = node.get("driver_opts") {
            volume.device = self.device(options, &format!("{key}.driver_opts"))?;
        }

        self.project.volumes.insert(entry.key.clone(), volume);
        Ok(())
    }

    /// Returns the directory that a volume binds to, as in `o: bind` and `device: /srv/x`.
    fn device(&mut self, options: &YamlEntry, key: &str) -> Result<Option<PathBuf>, ComposeError> {
        self.entries(Some(options), key)?;
        let (Some(how), Some(device)) = (options.value.get("o"), options.value.get("device"))
        else {
            return Ok(None);
        };
        let how = self.text(how, &format!("{key}.o"))?.unwrap_or_default();
        let device = self
            .text(device, &format!("{key}.device"))?
            .unwrap_or_default();
        let bind = how
            .split(',')
            .any(|word| matches!(word.trim(), "bind" | "rbind"));
        let path = Path::new(&device);
        Ok((bind && path.is_absolute()).then(|| clean(path)))
    }

    fn service(&mut self, entry: &YamlEntry) -> Result<(), ComposeError> {
        let key = format!("services.{}", shown(&entry.key));
        let at = self
            .project
            .services
            .iter()
            .position(|known| known.name == entry.key);

        if entry.value.merging == MergeRule::Reset {
            at.map(|at| self.project.services.remove(at));
            return Ok(());
        }
        self.entries(Some(entry), &key)?;

        // `!override` starts from an empty service.
        let known = at.filter(|_| entry.value.merging == MergeRule::Usual);
        let mut service = match known {
            Some(at) => self.project.services[at].clone(),
            None => ComposeService {
                name: entry.key.clone(),
                ..ComposeService::default()
            },
        };

        // `env_file` comes before `environment`, whose values take precedence.
        let node = &entry.value;
        if let Some(extends) = node.get("extends") {
            let what = format!("'extends' of service '{}' is ignored", shown(&entry.key));
            self.note(extends.line, &what);
        }
        if let Some(image) = node.get("image") {
            service.image = self.text(image, &format!("{key}.image"))?;
        }
        if let Some(name) = node.get("container_name") {
            service.container_name = self.text(name, &format!("{key}.container_name"))?;
        }
        if let Some(files) = node.get("env_file") {
            self.env_files(files, &format!("{key}.env_file"), &mut service)?;
        }
        if let Some(environment) = node.get("environment") {
            self.environment(environment, &format!("{key}.environment"), &mut service)?;
        }
        if let Some(volumes) = node.get("volumes") {
            self.mounts(volumes, &format!("{key}.volumes"), &mut service)?;
        }

        match at {
            Some(at) => self.project.services[at] = service,
            None => self.project.services.push(service),
        }
        Ok(())
    }

    /// Reads files of variables. The caller reads `environment` afterwards, which takes precedence.
    fn env_files(
        &mut self,
        entry: &YamlEntry,
        key: &str,
        service: &mut ComposeService,
    ) -> Result<(), ComposeError> {
        let nodes = match &entry.value.value {
            YamlValue::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(&entry.value),
        };

        // An entry is a path, or a map of `path` and `required`.
        for node in nodes {
            let mut required = true;
            let path = match (&node.value, node.get("path")) {
                (YamlValue::Map(_), None) => {
                    return Err(self.wrong(node.line, key, "a 'path' is missing"));
                }
                (YamlValue::Map(_), Some(path)) => {
                    if let Some(entry) = node.get("required") {
                        required = self.truth(entry, &format!("{key}.required"))?;
                    }
                    self.text(path, &format!("{key}.path"))?
                }
                _ => self.node_text(node, node.line, key)?,
            };

            let Some(path) = path.filter(|path| !path.is_empty()) else {
                continue;
            };

            if self.project.env_files.len() >= FILES_MAX {
                return Err(self.wrong(node.line, key, "too many files"));
            }
            let path = self
                .absolute(&path)
                .map_err(|why| self.wrong(node.line, key, why))?;

            match self.env_file(&path) {
                Ok(lines) => self.keep_variables(lines, service),
                Err(ComposeError::Path(PathError { source, .. })) if !required => drop(source),
                Err(ComposeError::Path(err)) => {
                    return Err(self.wrong(node.line, key, format!("{err}: {}", err.source)));
                }
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    fn environment(
        &mut self,
        entry: &YamlEntry,
        key: &str,
        service: &mut ComposeService,
    ) -> Result<(), ComposeError> {
        if entry.value.merging != MergeRule::Usual {
            service.environment.clear();
        }

        let mut lines = Vec::new();
        match &entry.value.value {
            YamlValue::Null => {}
            YamlValue::Map(entries) => {
                for entry in entries.iter().filter(|entry| is_kept(&entry.key)) {
                    // Values of passwords are not read.
                    let value = if is_secret(&entry.key) {
                        Some(String::new())
                    } else {
                        self.text(entry, &format!("{key}.{}", shown(&entry.key)))?
                    };
                    lines.push((entry.key.clone(), value));
                }
            }
            YamlValue::List(nodes) => {
                for node in nodes {
                    let YamlValue::Text(text) = &node.value else {
                        return Err(self.wrong(
                            node.line,
                            key,
                            "this must be a list of NAME=VALUE",
                        ));
                    };
                    let (name, value) = match text.split_once('=') {
                        Some((name, value)) => (name, Some(value)),
                        None => (text.as_str(), None),
                    };
                    if !is_kept(name) {
                        continue;
                    }
                    let value = value
                        .filter(|_| !is_secret(name))
                        .map(|value| self.variables.fill(value));
                    let value = value.transpose().map_err(|why| {
                        self.wrong(node.line, format!("{key}.{}", shown(name)), why)
                    })?;
                    lines.push((name.to_owned(), value));
                }
            }
            YamlValue::Text(_) => {
                return Err(self.wrong(entry.line, key, "this must be a map or a list"));
            }
        }

        self.keep_variables(lines, service);
        Ok(())
    }

    /// Keeps PostgreSQL's variables. A name without a value takes it from the environment.
    fn keep_variables(&self, lines: Lines, service: &mut ComposeService) {
        for (name, value) in lines {
            if !is_kept(&name) {
                continue;
            }
            let value = value.or_else(|| self.variables.get(&name).map(str::to_owned));
            let value = value.filter(|_| !is_secret(&name));
            service.environment.insert(name, value);
        }
    }

    fn mounts(
        &mut self,
        entry: &YamlEntry,
        key: &str,
        service: &mut ComposeService,
    ) -> Result<(), ComposeError> {
        if entry.value.merging != MergeRule::Usual {
            service.mounts.clear();
        }
        let nodes = match &entry.value.value {
            YamlValue::Null => return Ok(()),
            YamlValue::List(nodes) => nodes,
            _ => return Err(self.wrong(entry.line, key, "this must be a list")),
        };
        // A later mount replaces an earlier one of the same directory.
        let mut at: BTreeMap<String, usize> = BTreeMap::new();
        at.extend(
            service
                .mounts
                .iter()
                .enumerate()
                .map(|(n, mount)| (mount.target.clone(), n)),
        );

        for node in nodes {
            let mount = match &node.value {
                YamlValue::Text(text) => {
                    let text = self.variables.fill(text);
                    text.and_then(|text| self.short_mount(&text))
                        .map_err(|why| self.wrong(node.line, key, why))?
                }
                YamlValue::Map(_) => self.long_mount(node, key)?,
                _ => return Err(self.wrong(node.line, key, "this is not a mount")),
            };

            match at.get(&mount.target) {
                Some(&n) => service.mounts[n] = mount,
                None => {
                    at.insert(mount.target.clone(), service.mounts.len());
                    service.mounts.push(mount);
                }
            }
        }
        Ok(())
    }

    /// Parses `TARGET`, `SOURCE:TARGET` or `SOURCE:TARGET:MODE`.
    fn short_mount(&self, text: &str) -> Result<ServiceMount, String> {
        let mut parts = text.splitn(3, ':');
        let first = parts.next().unwrap_or_default();
        let second = parts.next();
        let mode = parts.next().unwrap_or_default();
        let (source, target) = match second {
            None => (MountSource::Nameless, first),
            Some(target) if first.starts_with(['.', '/', '~']) => {
                (MountSource::Path(self.absolute(first)?), target)
            }
            Some(target) => (MountSource::Volume(first.to_owned()), target),
        };
        if target.is_empty() || matches!(&source, MountSource::Volume(name) if name.is_empty()) {
            return Err(format!("'{}' is not SOURCE:TARGET", shown(text)));
        }
        let read_only = mode.split(',').any(|word| word == "ro");
        Ok(ServiceMount {
            source,
            target: clean_target(target),
            read_only,
        })
    }

    fn long_mount(&mut self, node: &YamlNode, key: &str) -> Result<ServiceMount, ComposeError> {
        let mut get = |names: &[&str]| match names.iter().find_map(|name| node.get(name)) {
            Some(entry) => self.text(entry, &format!("{key}.{}", entry.key)),
            None => Ok(None),
        };
        let kind = get(&["type"])?;
        let source = get(&["source", "src"])?.filter(|source| !source.is_empty());
        let target = get(&["target", "dst", "destination"])?.filter(|target| !target.is_empty());
        let read_only = match node.get("read_only") {
            Some(entry) => self.truth(entry, &format!("{key}.read_only"))?,
            None => false,
        };

        let Some(target) = target else {
            return Err(self.wrong(node.line, key, "a mount without a target"));
        };

        let source = match (kind.as_deref(), source) {
            (Some("bind"), Some(source)) => MountSource::Path(
                self.absolute(&source)
                    .map_err(|why| self.wrong(node.line, key, why))?,
            ),
            (Some("bind"), None) => {
                return Err(self.wrong(node.line, key, "a bind mount without a source"));
            }
            (Some("volume") | None, Some(source)) => MountSource::Volume(source),
            _ => MountSource::Nameless,
        };

        Ok(ServiceMount {
            source,
            target: clean_target(&target),
            read_only,
        })
    }

    /// Resolves a path of the compose file, relative to the project's directory or the user's home.
    fn absolute(&self, path: &str) -> Result<PathBuf, String> {
        if path.contains('\0') {
            return Err("a path with a NUL byte".to_owned());
        }
        let home = || self.home.clone().ok_or("'~' means HOME, which is not set");
        if path == "~" {
            return Ok(home()?);
        }
        if let Some(below) = path.strip_prefix("~/") {
            return Ok(clean(&home()?.join(below)));
        }
        if path.starts_with('~') {
            return Err(format!(
                "the home directory in '{}' is unknown",
                shown(path)
            ));
        }
        Ok(clean(&self.project.directory.join(path)))
    }

    /// Sets the project's name, and adds a note for each variable that is not set.
    fn finish(mut self, requested: Option<&str>) -> Result<ComposeProject, ComposeError> {
        // Options and variables take precedence over `name:` and the directory's name.
        let variable = || {
            self.variables
                .get("COMPOSE_PROJECT_NAME")
                .filter(|name| !name.is_empty())
        };
        let given = requested
            .or_else(variable)
            .map(normalised)
            .filter(|name| !name.is_empty());
        self.project.named = given.is_some();

        let directory = self
            .project
            .directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let usual = [self.named.take(), directory].into_iter().flatten();
        let name = given.or_else(|| {
            usual
                .map(|name| normalised(&name))
                .find(|name| !name.is_empty())
        });
        let directory = self.project.directory.clone();
        self.project.name = name.ok_or(ComposeError::NoName { directory })?;

        let unset: BTreeSet<String> = std::mem::take(&mut self.variables.unset)
            .into_iter()
            .collect();
        for name in unset {
            self.project
                .notes
                .push(format!("the variable {name} is not set: read as empty"));
        }

        Ok(self.project)
    }
}

/// Only variables of PostgreSQL's image are kept, so that no other secret is.
fn is_kept(name: &str) -> bool {
    name.starts_with("POSTGRES_")
}

fn is_secret(name: &str) -> bool {
    name.contains("PASSWORD") && !name.ends_with("_FILE")
}

/// Removes `.`, `..` and doubled slashes from an absolute path, as compose does: only by the text,
/// without following symlinks.
pub(in super::super) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

fn clean_target(target: &str) -> String {
    clean(&Path::new("/").join(target))
        .to_string_lossy()
        .into_owned()
}
