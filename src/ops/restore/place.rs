//! Chooses the place in the target that a source is restored to.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::job::RestoreJob;
use crate::advice::{Advice, RestoreAdvice};
use crate::dest::{DestTree, InUse, MetaPolicy, OwnerPolicy};
use crate::error::Error;
use crate::format::{SourceKind, SourceRecord};
use crate::sys::{PathError, is_special};
use crate::types::{PathProblem, RelPath};

/// An open target, and the path in it of the restored root.
#[derive(Debug)]
pub(super) struct TargetRoot {
    /// `None` in a dry run whose target does not exist.
    pub tree: Option<DestTree>,
    /// Path in the tree of the restored directory or file.
    pub base: RelPath,
    /// Path of the tree's root, for messages.
    pub path: PathBuf,
}

impl TargetRoot {
    /// Places a directory. Its contents go directly into `target` if it is restored `alone`,
    /// otherwise into a directory of its name.
    pub fn for_tree(
        target: &Path,
        name: &[u8],
        alone: bool,
        job: &RestoreJob<'_>,
        owner: OwnerPolicy,
    ) -> Result<Self, Error> {
        let base = if alone {
            RelPath::root()
        } else {
            component(name)?
        };
        Ok(Self {
            tree: open(target, job, owner)?,
            base,
            path: target.to_owned(),
        })
    }

    /// Places a single file. It goes into `target` if that is a directory or if other sources go
    /// there too; otherwise `target` is the file's new path.
    ///
    /// # Errors
    /// [`Error::Usage`] if `target` is a device, a FIFO or similar: the user wants to write into
    /// it, and a restore would replace it by a file.
    pub fn for_one(
        target: &Path,
        name: &[u8],
        alone: bool,
        job: &RestoreJob<'_>,
        owner: OwnerPolicy,
    ) -> Result<Self, Error> {
        let wants_directory = !alone || target.as_os_str().as_bytes().ends_with(b"/");
        if wants_directory {
            let path = target.to_owned();
            return Ok(Self {
                tree: open(target, job, owner)?,
                base: component(name)?,
                path,
            });
        }

        if is_special(target) {
            let target = target.display();
            return Err(Error::usage(format!(
                "{target} is not a file; use '-' for standard output"
            )));
        }

        check_around(target, job)?;

        // `target` is an existing directory, or the path of the file in an existing directory.
        match open_tree(target, false, job, owner) {
            Ok(tree) => Ok(Self {
                tree: Some(tree),
                base: component(name)?,
                path: target.to_owned(),
            }),
            Err(err)
                if matches!(
                    err.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                let Some(name) = target.file_name() else {
                    return Err(err.into());
                };
                let parent = target
                    .parent()
                    .filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                let tree = open(parent, job, owner)?;
                Ok(Self {
                    tree,
                    base: component(name.as_bytes())?,
                    path: parent.to_owned(),
                })
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Returns the target path of a source path. `sub` is the path in the source that is restored
    /// to `base`.
    pub fn target_of(&self, sub: &RelPath, path: &RelPath) -> io::Result<RelPath> {
        swap_prefix(path, sub, &self.base).map_err(io::Error::other)
    }

    /// Returns the source path that is restored to a target path.
    pub fn source_of(&self, sub: &RelPath, target: &RelPath) -> RelPath {
        // A path that is too long for the format cannot come from the source.
        swap_prefix(target, &self.base, sub).unwrap_or_default()
    }
}

/// Replaces the prefix `from` of `path` by `to`.
fn swap_prefix(path: &RelPath, from: &RelPath, to: &RelPath) -> Result<RelPath, PathProblem> {
    let below = path.key().get(from.key().len()..).unwrap_or_default();
    let below = below.strip_prefix(&[0]).unwrap_or(below);
    let mut key = to.key().to_vec();
    if !key.is_empty() && !below.is_empty() {
        key.push(0);
    }
    key.extend_from_slice(below);
    RelPath::from_key(key)
}

fn component(name: &[u8]) -> Result<RelPath, Error> {
    RelPath::root()
        .join(name)
        .map_err(|err| Error::usage(err.to_string()))
}

/// Opens a target directory. Creates it if it is missing, except in a dry run.
fn open(
    target: &Path,
    job: &RestoreJob<'_>,
    owner: OwnerPolicy,
) -> Result<Option<DestTree>, Error> {
    let is_dry = job.options.dry_run;
    check_around(target, job)?;
    match open_tree(target, !is_dry, job, owner) {
        Ok(tree) => Ok(Some(tree)),
        Err(err) if is_dry && err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(err.into()),
    }
}

fn open_tree(
    path: &Path,
    create: bool,
    job: &RestoreJob<'_>,
    owner: OwnerPolicy,
) -> Result<DestTree, PathError> {
    let policy = MetaPolicy::of_this_user(owner);
    DestTree::open_with(
        path,
        create,
        policy,
        job.options.durability,
        job.protection.clone(),
    )
}

/// Rejects a target inside the repository or another protected directory, before anything is
/// created.
fn check_around(target: &Path, job: &RestoreJob<'_>) -> Result<(), Error> {
    let Err(err) = job.protection.check_around(target) else {
        return Ok(());
    };
    let target = target.display();
    match InUse::of(&err) {
        Some(InUse { what }) => Err(Error::Refused {
            why: format!("cannot restore into {target}: it is, or is inside, {what}"),
            advice: "restore into another directory and copy the files from there".into(),
        }),
        // Opening it gives a better error.
        None => Ok(()),
    }
}

/// Refuses to delete in a directory above the captured one: the user meant the captured directory,
/// and everything beside it would be deleted. `sub` is the restored path of the source.
pub(super) fn refuse_above(
    target: &Path,
    source: &SourceRecord,
    sub: &RelPath,
    job: &RestoreJob<'_>,
) -> Result<(), Error> {
    let SourceKind::Tree { path, .. } = &source.kind else {
        return Ok(());
    };
    if !job.options.deletes() || job.options.replace_whole {
        return Ok(());
    }
    let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    let Some(target_identity) = identity(target) else {
        return Ok(());
    };
    let is_target = |path: &Path| identity(path) == Some(target_identity);

    let mut shown = PathBuf::from(OsStr::from_bytes(path));
    shown.extend(
        sub.key()
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(OsStr::from_bytes),
    );
    let is_above = shown
        .ancestors()
        .skip(1)
        .filter(|above| above.is_absolute())
        .any(is_target);
    // A snapshot of another machine has different paths, but the system's root is above all of
    // them.
    let is_whole_system = is_target(Path::new("/")) && shown != Path::new("/");
    if !is_above && !is_whole_system {
        return Ok(());
    }

    Err(Error::Refused {
        why: format!(
            "cannot delete in {}: the snapshot holds only {}, and everything beside it would be deleted",
            target.display(),
            shown.display()
        ),
        advice: Advice::Restore(RestoreAdvice::RestoreInPlace),
    })
}
