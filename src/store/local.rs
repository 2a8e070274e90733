//! A store in a directory of this machine.
//!
//! A put writes `.tmp-<random>` in the root, syncs it, renames it to its own name and syncs the
//! directory of that name. Files after a crash or a power failure, by the last completed step:
//!
//! | last completed step | temporary name | object |
//! |---|---|---|
//! | the file's creation, any write, its sync | perhaps, of any length | no |
//! | creating the object's directory | complete | no; the directory perhaps |
//! | the rename | complete, or gone | no, or complete: never torn, since the bytes were durable before the name |
//! | the sync of the object's directory | gone | complete |
//!
//! A file system that can neither rename without replacing nor make hard links (some network
//! mounts) is checked for the name before the rename. Names of objects contain 32 random bytes or a
//! hash of them, so no two writers give one name to different bytes. The name of `config` is
//! reserved with an empty file, which a crash may leave: `init` writes `config.2` first, and either
//! copy opens.
//!
//! So no other name of an object ever holds less than the object. An error in any step removes the
//! temporary file, so a full disk gets its space back. An error in the last step may leave the
//! whole object, not yet durable.
//!
//! **Store time** is the file's modification time. It is not before the moment at which the object
//! became visible under its name: after the rename, and before the put returns, the file's time is
//! set to the file system's current time. A reader that lists the object between these steps sees
//! the time of its last write, which is earlier by the duration of the sync. No client relies on
//! that time: the writer reads the times after the put, and the protocol allows an hour. If "now"
//! would be this machine's time instead of the server's (SMB, sshfs), the file keeps the time of
//! its last write, and a put that takes more than half of that hour fails.
//!
//! A directory is durable before the first object in it is reported as stored, even if another
//! process created the directory and was killed before its own sync.

mod names;
mod reserve;

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use names::is_foreign;

use crate::store::spool::{Spool, SpoolParts};
use crate::store::{
    ObjectBody, ObjectDir, ObjectKey, ObjectMeta, PutMode, Store, StoreError, StoreProperties,
};
use crate::sys::{
    Dir, ExistingFile, FileId, FileKind, FileStat, PathError, ReadFile, TempFile, boottime,
};
use crate::types::{PackId, Timestamp, to_u64};

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Number of packs kept open: a restore reads many ranges of a few packs, from several threads.
const OPEN_PACKS_MAX: usize = 16;
/// This many readers fill a disk's queue well.
const CONNECTIONS: usize = 8;
/// Maximal duration of a put if the object keeps the time of its last write: half of the time that
/// the protocol allows.
const LONGEST_PUT: Duration = Duration::from_secs(30 * 60);
/// A store in a directory. Other files that were added there later are left alone. Objects are
/// accessed from the opened directory, one name at a time, so no symlink leads out of it, and an
/// unmounted medium is noticed.
#[derive(Debug)]
pub struct LocalStore {
    root: Arc<Dir>,
    address: String,
    properties: StoreProperties,
    /// True if the file system can date an object by its own clock.
    dates: bool,
    /// Names of directories in the root, in `packs` and in `parity` that this process knows to
    /// survive a power failure.
    durable_top: Mutex<HashSet<String>>,
    durable_packs: Mutex<HashSet<String>>,
    durable_parity: Mutex<HashSet<String>>,
    /// The most recently read packs, the latest at the end.
    open_packs: Mutex<Vec<(PackId, Arc<ReadFile>)>>,
}

/// Path of an object in the store: `directory/fan/name`.
struct ObjectPath {
    directory: Option<&'static str>,
    fan: Option<String>,
    name: String,
}

impl LocalStore {
    /// Creates the directory, its missing parents and the directories of objects, all durable, and
    /// opens the store. A directory that already contains a store, or part of one, is used as it
    /// is.
    ///
    /// # Errors
    /// [`StoreError::Occupied`] if the directory contains anything else: a backup of a directory
    /// above the store would leave those files out.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let failed = |error| StoreError::from_path(&path.display().to_string(), error);

        let root =
            Dir::create_all(path, DIRECTORY_MODE).map_err(|error| unreachable_root(path, error))?;
        if let Some(name) = names::first_foreign(&root).map_err(failed)? {
            return Err(StoreError::Occupied {
                address: path.display().to_string(),
                name,
            });
        }

        for directory in names::DIRECTORIES {
            root.make_dir(directory.name(), DIRECTORY_MODE)
                .map_err(failed)?;
        }

        root.sync().map_err(failed)?;
        Self::open(path)
    }

    /// Opens an existing directory; [`StoreError::Unreachable`] if it does not exist. Nothing is
    /// written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let root = Dir::open_canonical(path).map_err(|error| unreachable_root(path, error))?;
        let address = address_of(root.path());
        let failed = |error| StoreError::from_path(&address, error);

        let read_only = root.is_read_only().map_err(failed)?;
        let properties = StoreProperties {
            create_only: true,
            durable_put: read_only || root.try_sync().map_err(failed)?,
            strong_listing: !root.is_network().map_err(failed)?,
            read_only,
            rename: true,
            connections: CONNECTIONS,
        };
        let dates = root.dates_by_its_own_clock().map_err(failed)?;

        Ok(Self {
            root: Arc::new(root),
            address,
            properties,
            dates,
            durable_top: Mutex::default(),
            durable_packs: Mutex::default(),
            durable_parity: Mutex::default(),
            open_packs: Mutex::default(),
        })
    }

    fn failed(&self, error: PathError) -> StoreError {
        StoreError::from_path(&self.address, error)
    }

    /// Returns the error for a missing name: the object is missing, or the whole store.
    fn failed_on(&self, key: &ObjectKey, error: PathError) -> StoreError {
        if error.kind() != io::ErrorKind::NotFound {
            return self.failed(error);
        }
        match self.check_root() {
            Ok(()) => StoreError::NotFound { key: key.clone() },
            Err(gone) => gone,
        }
    }

    /// Fails if the root was removed, unmounted or replaced: an empty mount point must not be
    /// mistaken for an empty store.
    fn check_root(&self) -> Result<(), StoreError> {
        let gone = |source| StoreError::Unreachable {
            address: self.address.clone(),
            source,
        };
        let now = Dir::open(self.root.path()).map_err(|error| gone(error.source))?;
        if same(&now, &self.root) {
            return Ok(());
        }
        Err(gone(io::Error::new(
            io::ErrorKind::NotFound,
            "another directory has replaced it",
        )))
    }

    fn place(&self, key: &ObjectKey) -> Result<ObjectPath, StoreError> {
        let plain = |directory: ObjectDir, name: String| ObjectPath {
            directory: Some(directory.name()),
            fan: None,
            name,
        };

        Ok(match key {
            ObjectKey::Config(_) => ObjectPath {
                directory: None,
                fan: None,
                name: key.to_string(),
            },
            ObjectKey::KeySlot(slot, copy) => {
                let name = format!("{slot}{copy}");
                // A key that was built by hand may contain anything.
                if ObjectKey::from_name(ObjectDir::Keys, &name).as_ref() != Some(key) {
                    let source =
                        io::Error::new(io::ErrorKind::InvalidInput, "not a key slot's name");
                    return Err(StoreError::Io {
                        action: "use",
                        subject: format!("{slot:?}"),
                        source,
                    });
                }
                plain(ObjectDir::Keys, name)
            }
            ObjectKey::Pack(id) => ObjectPath {
                fan: Some(fan(*id)),
                ..plain(ObjectDir::Packs, id.to_string())
            },
            ObjectKey::Parity(id) => ObjectPath {
                fan: Some(fan(*id)),
                ..plain(ObjectDir::Parity, id.to_string())
            },
            ObjectKey::QuarantinedPack(_)
            | ObjectKey::QuarantinedSnapshot(_)
            | ObjectKey::QuarantinedSegment(_) => {
                let text = key.to_string();
                plain(
                    ObjectDir::Quarantine,
                    text.rsplit('/').next().unwrap_or(&text).to_owned(),
                )
            }
            ObjectKey::Segment(id) => plain(ObjectDir::Index, id.to_string()),
            ObjectKey::Snapshot(id) => plain(ObjectDir::Snapshots, id.to_string()),
            ObjectKey::Forgotten(id) => plain(ObjectDir::Forgotten, id.to_string()),
            ObjectKey::Lease(id) => plain(ObjectDir::Leases, id.to_string()),
        })
    }

    /// Opens the directory of an object.
    fn find_dir(&self, place: &ObjectPath) -> Result<Arc<Dir>, PathError> {
        let Some(directory) = place.directory else {
            return Ok(Arc::clone(&self.root));
        };
        let dir = self.root.open_dir(directory)?;
        Ok(Arc::new(match &place.fan {
            Some(fan) => dir.open_dir(fan)?,
            None => dir,
        }))
    }

    /// Opens the directory of an object, creating it durably if it is missing.
    fn make_dir(&self, place: &ObjectPath) -> Result<Arc<Dir>, PathError> {
        let Some(directory) = place.directory else {
            return Ok(Arc::clone(&self.root));
        };
        let dir = ensure_dir(&self.root, directory, &self.durable_top)?;
        let durable = if directory == ObjectDir::Parity.name() {
            &self.durable_parity
        } else {
            &self.durable_packs
        };
        Ok(Arc::new(match &place.fan {
            Some(fan) => ensure_dir(&dir, fan, durable)?,
            None => dir,
        }))
    }

    fn open_object(&self, key: &ObjectKey) -> Result<ReadFile, StoreError> {
        let place = self.place(key)?;
        let open = || self.find_dir(&place)?.open_file(&place.name);
        open().map_err(|error| self.failed_on(key, error))
    }

    /// Opens the object for reading and returns its size. Packs stay open for the next range.
    fn open_for_range(&self, key: &ObjectKey) -> Result<(Arc<ReadFile>, u64), StoreError> {
        let ObjectKey::Pack(id) = key else {
            let file = self.open_object(key)?;
            let size = file.stat().map_err(|error| self.failed(error))?.size;
            return Ok((Arc::new(file), size));
        };

        // Look for the pack among the open ones, and move it to the end as the latest.
        let held = {
            let mut open = lock(&self.open_packs);
            let found = open.iter().position(|(held, _)| held == id);
            found.map(|at| {
                let held = open.remove(at);
                let file = Arc::clone(&held.1);
                open.push(held);
                file
            })
        };
        if let Some(file) = held {
            let stat = file.stat().map_err(|error| self.failed(error))?;
            // A pack that another process removed is gone, although it is still open here.
            if stat.links > 0 {
                return Ok((file, stat.size));
            }
            self.close_pack(*id);
        }

        let file = Arc::new(self.open_object(key)?);
        let size = file.stat().map_err(|error| self.failed(error))?.size;

        let mut open = lock(&self.open_packs);
        open.retain(|(held, _)| held != id);
        if open.len() == OPEN_PACKS_MAX {
            open.remove(0);
        }
        open.push((*id, Arc::clone(&file)));

        Ok((file, size))
    }

    fn close_pack(&self, id: PackId) {
        lock(&self.open_packs).retain(|(held, _)| *held != id);
    }

    /// Gives a written file its name, with a time that is not before the name appeared.
    fn publish(
        &self,
        file: TempFile,
        dir: &Dir,
        name: &str,
        existing: ExistingFile,
    ) -> Result<(), PathError> {
        if self.dates {
            return file.publish_dated(dir, name, existing);
        }
        let begun = boottime();
        file.publish(dir, name, existing)?;
        if boottime().saturating_sub(begun) <= LONGEST_PUT {
            return Ok(());
        }
        dir.remove_file(name)?;
        let source = io::Error::new(
            io::ErrorKind::TimedOut,
            "its sync took more than 30 minutes",
        );
        Err(PathError {
            action: "store",
            path: dir.path().join(name),
            source,
        })
    }

    /// Lists one directory's objects. Skips names that are not regular files or that vanish in the
    /// meantime.
    fn list_dir(
        &self,
        dir: &Dir,
        key_of: impl Fn(&str) -> Option<ObjectKey>,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for name in dir.names().map_err(|error| self.failed(error))? {
            let name = name.map_err(|error| self.failed(error))?;
            let Some(key) = key_of(&name) else { continue };
            match dir.stat(&name) {
                Ok(stat) if stat.kind == FileKind::File => each(meta_of(key, stat))?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(())
    }

    /// Lists objects that are stored one directory deeper, by the last byte of their id.
    fn list_fans(
        &self,
        packs: &Dir,
        key: fn(PackId) -> ObjectKey,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        for name in packs.names().map_err(|error| self.failed(error))? {
            let name = name.map_err(|error| self.failed(error))?;
            if !is_fan(&name) {
                continue;
            }
            let dir = match packs.open_dir(&name) {
                Ok(dir) => dir,
                // It vanished or is not a directory, so `get` would not find anything there either.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(self.failed(error)),
            };

            let key_of = |text: &str| {
                let id = text.parse().ok()?;
                (fan(id) == name).then(|| key(id))
            };
            self.list_dir(&dir, key_of, each)?;
        }
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for LocalStore {
    /// Returns the directory's canonical path; bytes that are not UTF-8 are written as `\xNN`.
    fn address(&self) -> &str {
        &self.address
    }

    fn directory(&self) -> Option<FileId> {
        self.root.stat_self().ok().map(|stat| stat.id)
    }

    fn local_path(&self) -> Option<&Path> {
        Some(self.root.path())
    }

    fn properties(&self) -> StoreProperties {
        self.properties
    }

    fn put(&self, key: &ObjectKey, body: ObjectBody<'_>, mode: PutMode) -> Result<(), StoreError> {
        let place = self.place(key)?;
        let failed = |error| self.failed(error);
        let write = |bytes: &[u8]| {
            let mut file = TempFile::create(&self.root, FILE_MODE)?;
            file.write_all(bytes)?;
            Ok(file)
        };

        let file = match body {
            ObjectBody::Bytes(bytes) => write(bytes).map_err(failed)?,
            ObjectBody::Spooled(spool) => match spool.into_parts()? {
                SpoolParts::Memory(bytes) => write(&bytes).map_err(failed)?,
                SpoolParts::Named(file) => file,
            },
        };

        let existing = match mode {
            // Only the name of `config` may be given to different bytes by two writers.
            PutMode::CreateOnly if matches!(key, ObjectKey::Config(_)) => ExistingFile::Reserve,
            PutMode::CreateOnly => ExistingFile::RefuseSeen,
            PutMode::Replace => ExistingFile::Replace,
        };

        let dir = self.make_dir(&place).map_err(failed)?;
        self.publish(file, &dir, &place.name, existing)
            .map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => StoreError::Exists { key: key.clone() },
                _ => self.failed(error),
            })?;
        dir.sync().map_err(failed)
    }

    fn spool(&self) -> Result<Spool, StoreError> {
        let file = TempFile::create(&self.root, FILE_MODE).map_err(|error| self.failed(error))?;
        Ok(Spool::named(file, &self.address))
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError> {
        let file = self.open_object(key)?;
        let size = file.stat().map_err(|error| self.failed(error))?.size;
        if size > limit {
            return Err(StoreError::TooLong {
                key: key.clone(),
                limit,
                found: size,
            });
        }
        let too_long = |_| StoreError::TooLong {
            key: key.clone(),
            limit: to_u64(usize::MAX),
            found: size,
        };
        let mut bytes = vec![0; usize::try_from(size).map_err(too_long)?];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|error| self.short(key, size, &file, error))?;
        Ok(bytes)
    }

    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let (file, size) = self.open_for_range(key)?;
        let wanted = offset.saturating_add(to_u64(buf.len()));
        if wanted > size {
            return Err(StoreError::Short {
                key: key.clone(),
                wanted,
                found: size,
            });
        }
        file.read_exact_at(buf, offset)
            .map_err(|error| self.short(key, wanted, &file, error))
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let place = self.place(key)?;
        let stat = || self.find_dir(&place)?.stat(&place.name);
        let stat = stat().map_err(|error| self.failed_on(key, error))?;
        // Consistent with a listing: a directory or a symlink under an object's name is not an
        // object.
        if stat.kind != FileKind::File {
            return Err(StoreError::NotFound { key: key.clone() });
        }
        Ok(meta_of(key.clone(), stat))
    }

    fn list(
        &self,
        directory: ObjectDir,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let dir = match self.root.open_dir(directory.name()) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.check_root(),
            Err(error) => return Err(self.failed(error)),
        };
        match directory {
            ObjectDir::Packs => self.list_fans(&dir, ObjectKey::Pack, each),
            ObjectDir::Parity => self.list_fans(&dir, ObjectKey::Parity, each),
            _ => self.list_dir(&dir, |name| ObjectKey::from_name(directory, name), each),
        }
    }

    fn rename(&self, from: &ObjectKey, to: &ObjectKey) -> Result<(), StoreError> {
        let old = self.place(from)?;
        let new = self.place(to)?;

        let source = self
            .find_dir(&old)
            .map_err(|error| self.failed_on(from, error))?;
        let target = self.make_dir(&new).map_err(|error| self.failed(error))?;

        if let ObjectKey::Pack(id) = from {
            self.close_pack(*id);
        }

        source
            .move_file(&old.name, &target, &new.name)
            .map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => StoreError::Exists { key: to.clone() },
                _ => self.failed_on(from, error),
            })?;

        if to.directory() == Some(ObjectDir::Quarantine) {
            // This fails if another user owns the file; code that needs the time checks it.
            let _ = target.touch(&new.name);
        }
        Ok(())
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let place = self.place(key)?;
        let delete = || {
            let dir = self.find_dir(&place)?;
            dir.remove_file(&place.name)?;
            Ok(dir)
        };
        let dir = delete().map_err(|error| self.failed_on(key, error))?;
        if matches!(key, ObjectKey::Parity(_)) {
            return Ok(());
        }
        if let ObjectKey::Pack(id) = key {
            // A pack that reappears after a power failure is garbage that the next prune removes
            // again, so it needs no sync; there may be thousands. A withdrawn snapshot must not
            // reappear.
            self.close_pack(*id);
            return Ok(());
        }
        dir.sync().map_err(|error| self.failed(error))
    }

    fn sweep_unfinished(&self, before: Timestamp) -> Result<(u64, u64), StoreError> {
        let mut count = 0;
        let mut bytes = 0;
        for name in self.root.names().map_err(|error| self.failed(error))? {
            let name = name.map_err(|error| self.failed(error))?;
            if !names::is_temporary(&name) {
                continue;
            }
            let remove = || -> Result<Option<u64>, PathError> {
                let stat = self.root.stat(&name)?;
                let is_old = stat.kind == FileKind::File && stat.modified < before;
                if is_old {
                    self.root.remove_file(&name)?;
                }
                Ok(is_old.then_some(stat.size))
            };
            match remove() {
                Ok(Some(size)) => (count, bytes) = (count + 1, bytes + size),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok((count, bytes))
    }

    fn set_reserve(&self, hold: bool) -> Result<(), StoreError> {
        let set = if hold {
            reserve::hold(&self.root, FILE_MODE)
        } else {
            reserve::give_back(&self.root)
        };
        set.map_err(|error| self.failed(error))
    }

    fn is_nearly_full(&self) -> bool {
        reserve::is_of_use(&self.root)
    }
}

impl LocalStore {
    /// Returns the error of a read that reached the end before the expected size. If the file still
    /// has that size, only this read ended early.
    fn short(&self, key: &ObjectKey, wanted: u64, file: &ReadFile, error: PathError) -> StoreError {
        match file.stat() {
            Ok(stat) if error.kind() == io::ErrorKind::UnexpectedEof && stat.size < wanted => {
                StoreError::Short {
                    key: key.clone(),
                    wanted,
                    found: stat.size,
                }
            }
            _ => self.failed(error),
        }
    }
}

/// Opens a directory of this name, creating it if it is missing. It and all its current siblings
/// are known to be durable afterwards, so a process that finds all directories present pays only
/// one sync of the parent.
fn ensure_dir(
    parent: &Dir,
    name: &str,
    durable: &Mutex<HashSet<String>>,
) -> Result<Dir, PathError> {
    if lock(durable).contains(name) {
        match parent.open_dir(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
    }

    parent.make_dir(name, DIRECTORY_MODE)?;
    let dir = parent.open_dir(name)?;

    let mut names = HashSet::from([name.to_owned()]);
    for other in parent.names()? {
        let other = other?;
        if is_fan(&other)
            || ObjectDir::ALL
                .iter()
                .any(|directory| directory.name() == other)
        {
            names.insert(other);
        }
    }

    parent.sync()?;
    lock(durable).extend(names);
    Ok(dir)
}

fn meta_of(key: ObjectKey, stat: FileStat) -> ObjectMeta {
    ObjectMeta {
        key,
        size: stat.size,
        modified: stat.modified,
    }
}

/// Returns the name of a pack's directory: its last byte, since people type the first digits of a
/// name.
fn fan(id: PackId) -> String {
    format!("{:02x}", id.as_bytes()[31])
}

fn is_fan(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn same(a: &Dir, b: &Dir) -> bool {
    matches!((a.stat_self(), b.stat_self()), (Ok(a), Ok(b)) if a.id == b.id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The state under these locks is consistent between any two statements, so a panic elsewhere
    // does no damage.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn address_of(path: &Path) -> String {
    path.as_os_str()
        .as_bytes()
        .utf8_chunks()
        .fold(String::new(), |mut address, part| {
            address.push_str(part.valid());
            part.invalid()
                .iter()
                .for_each(|byte| address.push_str(&format!("\\x{byte:02x}")));
            address
        })
}

fn unreachable_root(path: &Path, error: PathError) -> StoreError {
    let address = path.display().to_string();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreError::Unreachable {
            address,
            source: error.source,
        },
        _ => StoreError::from_path(&address, error),
    }
}

#[cfg(test)]
mod tests;
