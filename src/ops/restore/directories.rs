//! Makes the directories of a restore on the way down, and sets their metadata at the end.

use std::io;

use super::claimed::NAME_TAKEN;
use super::kept::{KeptReason, found_value};
use super::options::OverwriteRule;
use super::walk::{LevelState, RestoreLevel, RestoreWalk};
use crate::dest::InUse;
use crate::error::Error;
use crate::format::{PageBuilder, decode_page};
use crate::observe::Severity;
use crate::repo::RepoError;
use crate::sys::Sorter;
use crate::types::{Entry, EntryFlags, EntryKind, Metadata, Node, RelPath};

/// Anything else at the place of a directory is left alone.
const IN_THE_WAY: &str = "something that is not a directory has its name";

const NEWER_IN_THE_WAY: &str =
    "something that is not a directory has its name, and the snapshot's directory is not newer";

impl RestoreWalk<'_> {
    /// Leaves the directories that do not contain `path`.
    pub(super) fn leave_levels(&mut self, path: &RelPath) {
        while let Some(level) = self.levels.last() {
            let key = path.key();
            let len = level.key_len;
            let is_in = len == 0 && !key.is_empty()
                || key.len() > len && key[len] == 0 && key[..len] == self.here[..len];
            if is_in {
                return;
            }
            self.levels.pop();
            self.here
                .truncate(self.levels.last().map_or(0, |level| level.key_len));
            self.dir = None;
        }
    }

    pub(super) fn push_level(&mut self, path: &RelPath, state: LevelState) {
        self.here.clear();
        self.here.extend_from_slice(path.key());
        self.levels.push(RestoreLevel {
            key_len: path.key().len(),
            state,
        });
        self.dir = None;
    }

    pub(super) fn directory(
        &mut self,
        path: &RelPath,
        meta: &Metadata,
        flags: EntryFlags,
    ) -> Result<(), Error> {
        // Where the snapshot shows an older state, the existing file may never have been captured.
        let may_replace = self.job.options.replace_whole || !self.is_stale(path, flags);

        let made = self
            .reach_parent(path)
            .and_then(|()| self.make(path, meta, may_replace, self.is_fresh(path)));

        let is_fresh = match made {
            Ok(is_fresh) => is_fresh,
            Err(err) => {
                self.refuse(path, &err, ", nor is anything below it")?;
                if path.is_root() {
                    return Err(self.path_error("restore into", path, err));
                }
                self.skip_below(path);
                return Ok(());
            }
        };

        self.push_level(path, LevelState::There { is_fresh });
        if is_fresh || !self.job.options.overwrite.leaves_most() {
            self.remember(path, meta)?;
        }
        if !is_fresh {
            self.clear_leftovers(path)?;
        }

        if !is_fresh && self.job.options.deletes() {
            let doubt = match self.doubt(path, flags) {
                None if self.is_mounted_since(path, flags) => Some(KeptReason::Mounted),
                doubt => doubt,
            };
            self.note_names(path, doubt)?;
        }
        Ok(())
    }

    /// Makes the missing directories above `path`.
    pub(super) fn reach_parent(&mut self, path: &RelPath) -> io::Result<()> {
        if *path == self.sub {
            return Ok(());
        }

        // Directories that were not selected themselves.
        for n in 0..self.levels.len() {
            if let LevelState::Pending(meta) = &self.levels[n].state {
                let meta = meta.clone();
                let above = path_of(&self.here[..self.levels[n].key_len])?;
                let is_above_fresh = n > 0
                    && matches!(
                        self.levels[n - 1].state,
                        LevelState::There { is_fresh: true }
                    );
                let is_stale = self
                    .stale
                    .as_ref()
                    .is_some_and(|stale| above == *stale || above.is_below(stale));
                let is_fresh = self.make(&above, &meta, !is_stale, is_above_fresh)?;
                self.levels[n].state = LevelState::There { is_fresh };
                if !is_fresh {
                    self.clear_leftovers(&above).map_err(io::Error::other)?;
                }
                if is_fresh {
                    self.remember(&above, &meta).map_err(io::Error::other)?;
                }
            }
        }
        // Directories without an entry, because a page of the runs could not be read.
        let key = path.key();
        let parent_len = key.iter().rposition(|&b| b == 0).unwrap_or(0);
        while self
            .levels
            .last()
            .is_none_or(|level| level.key_len < parent_len)
        {
            let from = self
                .levels
                .last()
                .map_or(self.sub.key().len(), |level| level.key_len + 1);
            let len = if self.levels.is_empty() {
                from
            } else {
                from + key[from..]
                    .iter()
                    .position(|&b| b == 0)
                    .unwrap_or(key.len() - from)
            };

            let above = path_of(&key[..len])?;
            let is_fresh = self.make(&above, &Metadata::default(), false, self.is_fresh(&above))?;
            self.push_level(&above, LevelState::There { is_fresh });
        }
        Ok(())
    }

    /// Makes a directory; returns true if it did not exist. `meta` is its metadata in the snapshot.
    /// `is_above_fresh`: this restore made the directory above, so an existing name belongs to
    /// another path of this restore.
    fn make(
        &self,
        path: &RelPath,
        meta: &Metadata,
        may_replace: bool,
        is_above_fresh: bool,
    ) -> io::Result<bool> {
        let target = self.target_of(path)?;
        let Some(tree) = &self.place.tree else {
            return Ok(true);
        };

        if self.job.options.overwrite == OverwriteRule::IfNewer
            && let (Some(parent), Some(name)) = (target.parent(), target.name())
            && let Ok(Some(found)) = tree.directory(&parent).and_then(|dir| dir.stat(name))
            && found.kind != Some(EntryKind::Directory)
            && found.mtime >= meta.mtime
        {
            return Err(io::Error::other(NEWER_IN_THE_WAY));
        }

        if self.job.options.dry_run {
            return match tree.directory(&target) {
                Err(err) if InUse::of(&err).is_some() => Err(err),
                found => Ok(found.is_err()),
            };
        }

        let taken = || io::Error::new(io::ErrorKind::AlreadyExists, NAME_TAKEN);
        let may_replace =
            may_replace && !is_above_fresh && !self.job.options.overwrite.leaves_most();
        let is_twice = match (target.parent(), target.name()) {
            (Some(parent), Some(name)) if !is_above_fresh => {
                self.job.claimed.add_name(&parent, name)
            }
            _ => false,
        };

        let (dir, is_new) = match tree.make_directory(&target) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists && may_replace => {
                if let (Some(parent), Some(name)) = (target.parent(), target.name()) {
                    let dir = tree.directory(&parent)?;
                    if let Some(found) = dir.stat(name)? {
                        self.job
                            .claimed
                            .claim(&parent, &dir, name, &found, is_twice)?;
                    }
                    dir.remove(name, false)?;
                }
                tree.make_directory(&target)?
            }
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                return Err(if is_above_fresh {
                    taken()
                } else {
                    io::Error::other(IN_THE_WAY)
                });
            }
            result => result?,
        };

        // Record the name as this restore's, unless the directory above is fresh.
        let (Some(parent), Some(name), false) = (target.parent(), target.name(), is_above_fresh)
        else {
            return if is_new || !is_above_fresh {
                Ok(is_new)
            } else {
                Err(taken())
            };
        };

        let found = dir.stat_self()?;
        if is_new {
            self.job.claimed.add(&parent, (found.device, found.inode));
        } else {
            self.job
                .claimed
                .claim(&parent, &tree.directory(&parent)?, name, &found, is_twice)?;
        }
        Ok(is_new)
    }

    /// Removes the temporary files that killed restores left in an existing directory. A dry run
    /// only reports them.
    pub(super) fn clear_leftovers(&mut self, path: &RelPath) -> Result<(), Error> {
        let Some(tree) = &self.place.tree else {
            return Ok(());
        };
        let is_dry = self.job.options.dry_run;
        let found = self
            .target_of(path)
            .and_then(|target| tree.directory(&target)?.leftovers(!is_dry));

        match found {
            Ok(names) => {
                for name in names {
                    self.job.tally.leftover();
                    let verb = if is_dry {
                        "would remove leftover"
                    } else {
                        "removed leftover"
                    };
                    if self.job.task.observer.wants_detail() {
                        // Temporary names are short, so the join fails only if the path is too long
                        // already.
                        let subject = path
                            .join(&name)
                            .map_or_else(|_| self.subject(path), |path| self.subject(&path));
                        self.job.task.observer.detail(verb, &subject);
                    }
                }
                Ok(())
            }
            // The directory cannot be listed. That matters only if files must be written in it.
            Err(_) => Ok(()),
        }
    }

    /// Removes leftovers from the directory that a single file or stream is restored to.
    pub(super) fn clear_beside_a_file(&mut self, first: Option<&Entry>) -> Result<(), Error> {
        let Some(tree) = &self.place.tree else {
            return Ok(());
        };
        if first.is_none_or(Entry::is_directory) {
            return Ok(());
        }
        let parent = self.place.base.parent().unwrap_or_default();
        let is_dry = self.job.options.dry_run;
        if let Ok(names) = tree
            .directory(&parent)
            .and_then(|dir| dir.leftovers(!is_dry))
        {
            names.iter().for_each(|_| self.job.tally.leftover());
        }
        Ok(())
    }

    /// Stores a directory's metadata until everything in it is done.
    fn remember(&mut self, path: &RelPath, meta: &Metadata) -> Result<(), Error> {
        if self.job.options.dry_run {
            return Ok(());
        }
        let target = self
            .target_of(path)
            .map_err(|err| self.path_error("restore", path, err))?;
        if target.is_root() {
            self.root_mode = None;
        }

        // The length of a path is limited, so its depth fits.
        let depth = u32::try_from(target.depth()).unwrap_or(u32::MAX);
        let mut key = (!depth).to_le_bytes().to_vec();
        key.reverse();
        key.extend_from_slice(target.key());

        let node = Node::Directory { meta: meta.clone() };
        let mut page = PageBuilder::new();
        page.push(&Entry {
            path: RelPath::root(),
            flags: EntryFlags::empty(),
            node,
        });
        if let Some((_, value, _)) = page.finish() {
            self.directories.push(&key, &value)?;
        }
        Ok(())
    }

    /// Sets the metadata of directories, deepest first: work in a directory would change the times
    /// of one that is finished.
    pub(super) fn finish_directories(&mut self) -> Result<(), Error> {
        let Some(execution) = &self.execution else {
            return Ok(());
        };
        let directories = std::mem::replace(
            &mut self.directories,
            Sorter::new(&self.job.repo.scratch_dir(), 0),
        );
        let mut directories = directories.finish()?;

        // Keys begin with the complement of the depth.
        while let Some((key, value)) = directories.next()? {
            self.job.task.check()?;
            let broken = |err: &dyn std::fmt::Display| RepoError::damaged("a sorted record", err);
            let path = RelPath::from_key(&key[4..]).map_err(|err| broken(&err))?;
            let entries = decode_page(value).map_err(|err| broken(&err))?;
            let Some(meta) = entries.first().and_then(Entry::meta) else {
                continue;
            };

            let set = execution.with_meta(&path, meta, |to_set| {
                execution.tree.directory(&path)?.set_directory_meta(to_set)
            })?;
            if let Err(err) = set {
                let why = format!("its metadata cannot be set: {err}");
                self.job
                    .tally
                    .fail(Severity::Missing, execution.subject(&path), &why);
            }
        }

        if let Some(mode) = self.root_mode.take() {
            let set = execution.tree.set_root_mode(mode);
            set.map_err(|err| self.path_error("restore the mode of", &self.sub, err))?;
        }

        Ok(())
    }

    /// Returns true if something is mounted on a directory of the target now and was not when the
    /// snapshot was made: the snapshot knows nothing of its contents. The target directory that the
    /// user named is not checked.
    fn is_mounted_since(&self, path: &RelPath, flags: EntryFlags) -> bool {
        let Some(tree) = &self.place.tree else {
            return false;
        };
        if *path == self.sub || flags.contains(EntryFlags::MOUNT) || self.job.options.replace_whole
        {
            return false;
        }
        // If the check fails, nothing is deleted in the directory.
        let found = self
            .target_of(path)
            .and_then(|target| tree.directory(&target)?.is_mount_point());
        found.unwrap_or(true)
    }

    /// Records the names in a directory, and whether each may be deleted if the snapshot lacks it.
    fn note_names(&mut self, path: &RelPath, doubt: Option<KeptReason>) -> Result<(), Error> {
        let Some(tree) = &self.place.tree else {
            return Ok(());
        };
        let mut failure = None;
        let mut key = path.key().to_vec();
        if !key.is_empty() {
            key.push(0);
        }
        let len = key.len();
        let found = &mut self.found;
        let listed = self.place.target_of(&self.sub, path).and_then(|target| {
            tree.directory(&target)?.names(|name, kind| {
                key.truncate(len);
                key.extend_from_slice(name);
                found.push(&key, &found_value(doubt, kind)).map_err(|err| {
                    failure = Some(err);
                    io::ErrorKind::Other.into()
                })
            })
        });
        match (failure, listed) {
            (Some(err), _) => Err(err.into()),
            (None, Err(err)) => self.refuse(path, &err, ": cannot be listed"),
            (None, Ok(())) => Ok(()),
        }
    }
}

fn path_of(key: &[u8]) -> io::Result<RelPath> {
    RelPath::from_key(key).map_err(io::Error::other)
}
