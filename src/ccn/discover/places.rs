//! Finds kubo's repositories, of which there may be several, and volumes that no source covers.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::compose::{
    ComposeProject, ComposeService, IpfsHosts, MountSource, ServiceMount, ipfs_hosts,
};
use super::super::kubo::BlockStore;
use super::super::profile::SourceLocation;
use super::{CONFIG, DiscoveryNote, IPFS, NodeFinder, mounted_at, paths};

/// Length of the name that the engine gives to a volume without one.
const NAMELESS_DIGITS: usize = 64;

impl NodeFinder<'_> {
    /// Finds kubo's repositories. Of several, the node's is that of the service which pyaleph's
    /// configuration names.
    pub(super) fn ipfs(&mut self, project: &ComposeProject) {
        let hosts = config_file(project).map_or_else(IpfsHosts::default, |file| ipfs_hosts(&file));
        let wanted = hosts.pinning.as_ref().or(hosts.host.as_ref());

        let mut found: Vec<(&ComposeService, &ServiceMount)> = Vec::new();
        for service in &project.services {
            let mounts = service.mounts.iter().filter(|mount| mount.target == IPFS);
            found.extend(mounts.map(|mount| (service, mount)));
        }
        // Another service may mount the same repository as kubo. Count a repository once, for the
        // service that the configuration names, if any.
        let mut seen = BTreeSet::new();
        let is_wanted =
            |service: &ComposeService| wanted.is_some_and(|host| is_called(service, host));
        found.sort_by_key(|(service, _)| !is_wanted(service));
        found.retain(|(service, mount)| {
            let place = self
                .mounted(project, service, mount)
                .map(|place| format!("{place:?}"));
            seen.insert(place.unwrap_or_else(|| service.name.clone()))
        });

        let names: Vec<&str> = found
            .iter()
            .map(|(service, _)| service.name.as_str())
            .collect();
        let is_named = found.first().is_some_and(|(service, _)| is_wanted(service));
        match (names.as_slice(), wanted) {
            ([first, others @ ..], _) if !others.is_empty() => {
                let why = match (is_named, &hosts.pinning) {
                    (true, Some(_)) => "ipfs.pinning.host of config.yml names it",
                    (true, None) => "ipfs.host of config.yml names it",
                    (false, _) => "config.yml names neither, and it is the first",
                };
                self.note(format!(
                    "several services have a kubo repository: files seem to be added to '{first}' ({why}); '{}' is captured too, as a separate source",
                    others.join("', '")
                ));
            }
            ([only], Some(host)) if !is_named && !is_local(host) => self.note(format!(
                "config.yml says that files are added to kubo at '{host}', which is not a service here: only the repository of '{only}' is captured"
            )),
            ([], Some(host)) if !is_local(host) => self.note(format!(
                "config.yml says that files are added to kubo at '{host}', which is not a service here: its repository is not captured"
            )),
            _ => {}
        }

        let mut trees: Vec<_> = found
            .into_iter()
            .filter_map(|(service, mount)| self.place(project, service, mount))
            .collect();

        for tree in &trees {
            let trouble = tree
                .directory
                .as_deref()
                .and_then(|directory| BlockStore::at(directory).trouble());
            if let Some(trouble) = trouble {
                self.note(trouble);
            }
        }

        if !trees.is_empty() {
            self.out.ipfs = Some(trees.remove(0));
        }
        self.out.other_ipfs = trees;
    }

    /// Adds a note for each volume of the project that no source covers.
    pub(super) fn uncovered(&mut self, project: &ComposeProject) {
        let parts = [&self.out.local_storage, &self.out.ipfs, &self.out.keys];
        let mut covered: Vec<SourceLocation> = parts
            .into_iter()
            .flatten()
            .map(|part| part.place.clone())
            .collect();
        covered.extend(self.out.other_ipfs.iter().map(|part| part.place.clone()));
        covered.extend(
            self.out
                .database
                .as_ref()
                .and_then(|database| database.data.clone()),
        );

        let mut reported: BTreeSet<String> = BTreeSet::new();
        let mut notes = Vec::new();

        for service in &project.services {
            for mount in &service.mounts {
                let target = &mount.target;
                match &mount.source {
                    MountSource::Path(_) => {}
                    MountSource::Nameless => {
                        // If the container exists, the loop over its mounts reports the volume.
                        if self.real(service, target).is_none() && !self.is_of_a_part(target) {
                            notes.push(format!(
                                "{target} of '{}' is in an anonymous volume, which no source covers",
                                service.name
                            ));
                        }
                    }
                    MountSource::Volume(_) => {
                        let Some(place @ SourceLocation::Volume(name)) =
                            &self.mounted(project, service, mount)
                        else {
                            continue;
                        };
                        if !covered.contains(place) && reported.insert(name.clone()) {
                            notes.push(format!(
                                "no source covers the volume '{name}' ({target} of '{}'): if its data cannot be recreated, add a [[source]] with volume = \"{name}\"",
                                service.name
                            ));
                        }
                    }
                }
            }

            // Containers may have volumes without a name that the compose file does not show.
            for container in self.of_service(service) {
                for mount in container
                    .mounts
                    .iter()
                    .filter(|mount| is_nameless(&mount.volume))
                {
                    let is_covered =
                        covered.contains(&SourceLocation::Volume(mount.volume.clone()));
                    if !is_covered && reported.insert(mount.volume.clone()) {
                        notes.push(format!(
                            "{} of '{}' is in an anonymous volume, which no source covers and compose may lose: name it in the compose file if its data cannot be recreated",
                            mount.destination.display(),
                            service.name
                        ));
                    }
                }
            }
        }

        self.out
            .notes
            .extend(notes.into_iter().map(DiscoveryNote::from));
    }

    /// Returns true if a part of the node is at this path of its container.
    fn is_of_a_part(&self, target: &str) -> bool {
        [super::LOCAL_STORAGE, IPFS, super::KEYS].contains(&target)
            || target.starts_with(super::DATABASE)
    }
}

/// Returns the path of pyaleph's configuration on this machine, mounted or beside the compose file.
fn config_file(project: &ComposeProject) -> Option<std::path::PathBuf> {
    let named = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name == "config.yml" || name == "config.yaml")
    };
    match mounted_at(project, CONFIG).map(|(_, mount)| &mount.source) {
        Some(MountSource::Path(path)) => Some(path.clone()),
        _ => {
            let mounted = paths(project)
                .map(|(_, path)| path)
                .find(|path| named(path));
            Some(mounted.map_or_else(|| project.directory.join("config.yml"), Path::to_owned))
        }
    }
}

/// Returns true if other containers of the project reach the service by this name.
fn is_called(service: &ComposeService, host: &str) -> bool {
    service.name == host || service.container_name.as_deref() == Some(host)
}

fn is_local(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "::1")
}

fn is_nameless(volume: &str) -> bool {
    volume.len() == NAMELESS_DIGITS && volume.bytes().all(|byte| byte.is_ascii_hexdigit())
}
