//! Folders of a restore: made on the way down, given their metadata at the end.

use std::io;

use super::plan::{Level, LevelState, Walk};
use crate::error::Error;
use crate::format::{PageBuilder, decode_page};
use crate::observe::Severity;
use crate::repo::RepoError;
use crate::sys::Sorter;
use crate::types::{Entry, EntryFlags, Metadata, Node, RelPath};

impl Walk<'_> {
    /// Leaves folders that `path` is not in.
    pub(super) fn leave_levels(&mut self, path: &RelPath) {
        while let Some(level) = self.levels.last() {
            let (key, len) = (path.key(), level.key_len);
            let is_in = len == 0 && !key.is_empty()
                || key.len() > len && key[len] == 0 && key[..len] == self.here[..len];
            if is_in {
                return;
            }
            self.levels.pop();
            self.here.truncate(self.levels.last().map_or(0, |level| level.key_len));
            self.dir = None;
        }
    }

    pub(super) fn push_level(&mut self, path: &RelPath, state: LevelState) {
        self.here.clear();
        self.here.extend_from_slice(path.key());
        self.levels.push(Level { key_len: path.key().len(), state });
        self.dir = None;
    }

    pub(super) fn folder(&mut self, path: &RelPath, meta: &Metadata) -> Result<(), Error> {
        let made = self.reach_parent(path).and_then(|()| self.make(path, true));
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
        if !is_fresh && self.job.options.delete {
            self.note_names(path)?;
        }
        Ok(())
    }

    /// Makes the folders above `path` that are not there yet.
    pub(super) fn reach_parent(&mut self, path: &RelPath) -> io::Result<()> {
        if *path == self.sub {
            return Ok(());
        }
        for n in 0..self.levels.len() {
            if let LevelState::Pending(meta) = &self.levels[n].state {
                let meta = meta.clone();
                let above = path_of(&self.here[..self.levels[n].key_len])?;
                let is_fresh = self.make(&above, true)?;
                self.levels[n].state = LevelState::There { is_fresh };
                if is_fresh {
                    self.remember(&above, &meta).map_err(io::Error::other)?;
                }
            }
        }
        // Folders of which the snapshot tells nothing: a page could not be read.
        let key = path.key();
        let parent_len = key.iter().rposition(|&b| b == 0).unwrap_or(0);
        while self.levels.last().is_none_or(|level| level.key_len < parent_len) {
            let from = self.levels.last().map_or(self.sub.key().len(), |level| level.key_len + 1);
            let len = if self.levels.is_empty() {
                from
            } else {
                from + key[from..].iter().position(|&b| b == 0).unwrap_or(key.len() - from)
            };
            let above = path_of(&key[..len])?;
            let is_fresh = self.make(&above, false)?;
            self.push_level(&above, LevelState::There { is_fresh });
        }
        Ok(())
    }

    /// Makes a folder; true if it was not there.
    fn make(&self, path: &RelPath, may_replace: bool) -> io::Result<bool> {
        let target = self.target_of(path)?;
        let Some(tree) = &self.place.tree else { return Ok(true) };
        if self.job.options.dry_run {
            return Ok(tree.folder(&target).is_err());
        }
        let may_replace = may_replace && !self.job.options.overwrite.leaves_most();
        match tree.make_folder(&target) {
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists && may_replace => {
                if let (Some(parent), Some(name)) = (target.parent(), target.name()) {
                    tree.folder(&parent)?.remove(name, false)?;
                }
                tree.make_folder(&target).map(|(_, is_fresh)| is_fresh)
            }
            result => result.map(|(_, is_fresh)| is_fresh),
        }
    }

    /// Keeps a folder's metadata until all in it is done.
    fn remember(&mut self, path: &RelPath, meta: &Metadata) -> Result<(), Error> {
        if self.job.options.dry_run {
            return Ok(());
        }
        let target = self.target_of(path).map_err(|err| self.path_error("restore", path, err))?;
        let mut key = (!(target.depth() as u32)).to_le_bytes().to_vec();
        key.reverse();
        key.extend_from_slice(target.key());
        let node = Node::Folder { meta: meta.clone() };
        let mut page = PageBuilder::new();
        page.push(&Entry { path: RelPath::root(), flags: EntryFlags::empty(), node });
        if let Some((_, value, _)) = page.finish() {
            self.folders.push(&key, &value)?;
        }
        Ok(())
    }

    /// Gives folders their metadata, the deepest first: what is set on one is not undone by what is done below it.
    pub(super) fn finish_folders(&mut self) -> Result<(), Error> {
        let Some(execution) = &self.execution else { return Ok(()) };
        let folders = std::mem::replace(&mut self.folders, Sorter::new(&self.job.repo.scratch_dir(), 0));
        let mut folders = folders.finish()?;
        while let Some((key, value)) = folders.next()? {
            self.job.cancel.check()?;
            let broken = |err: &dyn std::fmt::Display| RepoError::damaged("a sorted record", err);
            let path = RelPath::from_key(&key[4..]).map_err(|err| broken(&err))?;
            let entries = decode_page(value).map_err(|err| broken(&err))?;
            let Some(meta) = entries.first().and_then(Entry::meta) else { continue };
            let set = execution
                .with_meta(&path, meta, |to_set| execution.tree.folder(&path)?.set_folder_meta(to_set))?;
            if let Err(err) = set {
                let why = format!("its metadata cannot be set: {err}");
                self.job.tally.fail(Severity::Missing, &execution.subject(&path), &why);
            }
        }
        Ok(())
    }

    fn note_names(&mut self, path: &RelPath) -> Result<(), Error> {
        let Some(tree) = &self.place.tree else { return Ok(()) };
        let mut failure = None;
        let mut key = path.key().to_vec();
        if !key.is_empty() {
            key.push(0);
        }
        let len = key.len();
        let found = &mut self.found;
        let listed = self.place.target_of(&self.sub, path).and_then(|target| {
            tree.folder(&target)?.names(|name, _| {
                key.truncate(len);
                key.extend_from_slice(name);
                found.push(&key, &[]).map_err(|err| {
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
