//! A store in a directory of this machine.
//!
//! A put writes `.tmp-<random>` in the root, syncs it, renames it to its own name and syncs the
//! directory that holds it. What is there after a crash or a power cut, by step:
//!
//! | after | temporary name | object |
//! |---|---|---|
//! | the file's creation, any write, its sync | perhaps, of any length | no |
//! | making the object's directory | whole | no; the directory perhaps |
//! | the rename | whole, or gone | no, or whole: never torn, for the bytes were durable before the name was |
//! | the sync of the object's directory | gone | whole |
//!
//! A file system that can neither rename without replacing nor make hard links (some network
//! mounts) is looked at before the rename: names of objects hold 32 random bytes or a hash of them,
//! so nobody gives one to other bytes. The name of `config` is reserved by an empty file, which a
//! crash may leave: `init` writes `config.2` first, and either copy opens.
//!
//! So no other name of an object ever holds less than the object. An error in any step removes the
//! temporary name, so a full disk gets its room back; an error in the last step may leave the whole
//! object there, not yet durable.
//!
//! **Store time** is the file's modification time. It is not before the moment at which the object
//! became visible under its name: behind the rename, and before the put returns, the file gets the
//! file system's time of now. Who lists the object between the two sees it with the time of its
//! last write, which is earlier by the duration of the sync. Nobody relies on that one: the writer
//! learns its times after the put, and the protocol allows an hour. Where "now" would be this
//! machine's time instead of the server's (SMB, sshfs) the file keeps the time of its last write,
//! and a put that takes more than half of that hour fails.
//!
//! A directory is durable before the first object in it is reported stored, also if another process
//! made it and was killed before its own sync.

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
    Body, ObjectDir, ObjectKey, ObjectMeta, Properties, PutMode, Store, StoreError,
};
use crate::sys::{
    Dir, Existing, FileId, FileKind, FileStat, PathError, ReadFile, TempFile, boottime,
};
use crate::types::{PackId, Timestamp};

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// How many packs are kept open: a restore reads many ranges of a few packs, from several threads.
const OPEN_PACKS_MAX: usize = 16;
/// A disk's queue is well filled by this many readers.
const CONNECTIONS: usize = 8;
/// A put that takes longer fails where the object's time is that of its last write: half of what
/// the protocol allows.
const LONGEST_PUT: Duration = Duration::from_secs(30 * 60);
/// The directories that every repository has; those of parity and of quarantine are made when they
/// are needed.
const DIRECTORIES: [ObjectDir; 6] = [
    ObjectDir::Keys,
    ObjectDir::Packs,
    ObjectDir::Index,
    ObjectDir::Snapshots,
    ObjectDir::Forgotten,
    ObjectDir::Leases,
];

/// A store in a directory. Other files that came there later are left alone. Objects are reached
/// from the directory that was opened, one name at a time, so that no symlink leads out of it and a
/// medium unmounted meanwhile is noticed.
#[derive(Debug)]
pub struct LocalStore {
    root: Arc<Dir>,
    address: String,
    properties: Properties,
    /// The file system can date an object by its own clock.
    dates: bool,
    /// Names in the root, in `packs` and in `parity`, of directories that this process knows to
    /// survive a power cut.
    durable_top: Mutex<HashSet<String>>,
    durable_packs: Mutex<HashSet<String>>,
    durable_parity: Mutex<HashSet<String>>,
    /// The packs read last, the latest at the end.
    open_packs: Mutex<Vec<(PackId, Arc<ReadFile>)>>,
}

/// Where an object lies: `directory/fan/name`.
struct Place {
    directory: Option<&'static str>,
    fan: Option<String>,
    name: String,
}

impl LocalStore {
    /// Makes the directory, its missing parents and the directories of objects, all durable, and
    /// opens it. A directory that holds a store already, or part of one, is taken as it is.
    ///
    /// # Errors
    /// [`StoreError::Occupied`] if the directory holds anything else: a backup of what is above
    /// would leave that out.
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
        for directory in DIRECTORIES {
            root.make_dir(directory.name(), DIRECTORY_MODE)
                .map_err(failed)?;
        }
        root.sync().map_err(failed)?;
        Self::open(path)
    }

    /// Opens a directory that exists; [`StoreError::Unreachable`] if it does not. Nothing is
    /// written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let root = Dir::open_canonical(path).map_err(|error| unreachable_root(path, error))?;
        let address = address_of(root.path());
        let failed = |error| StoreError::from_path(&address, error);
        let read_only = root.is_read_only().map_err(failed)?;
        let properties = Properties {
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

    /// The error for a name that is not there: the object is missing, unless the whole store is.
    fn failed_on(&self, key: &ObjectKey, error: PathError) -> StoreError {
        if error.kind() != io::ErrorKind::NotFound {
            return self.failed(error);
        }
        match self.check_root() {
            Ok(()) => StoreError::NotFound { key: key.clone() },
            Err(gone) => gone,
        }
    }

    /// Fails if the root was removed, unmounted or replaced: an empty mount point must not pass for
    /// an empty store.
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
            "another directory has taken its place",
        )))
    }

    fn place(&self, key: &ObjectKey) -> Result<Place, StoreError> {
        let plain = |directory: ObjectDir, name: String| Place {
            directory: Some(directory.name()),
            fan: None,
            name,
        };
        Ok(match key {
            ObjectKey::Config(_) => Place {
                directory: None,
                fan: None,
                name: key.to_string(),
            },
            ObjectKey::KeySlot(slot, copy) => {
                let name = format!("{slot}{copy}");
                // A key built by hand may hold anything.
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
            ObjectKey::Pack(id) => Place {
                fan: Some(fan(*id)),
                ..plain(ObjectDir::Packs, id.to_string())
            },
            ObjectKey::Parity(id) => Place {
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

    /// The directory of an object, if it is there.
    fn find_dir(&self, place: &Place) -> Result<Arc<Dir>, PathError> {
        let Some(directory) = place.directory else {
            return Ok(Arc::clone(&self.root));
        };
        let dir = self.root.open_dir(directory)?;
        Ok(Arc::new(match &place.fan {
            Some(fan) => dir.open_dir(fan)?,
            None => dir,
        }))
    }

    /// The directory of an object, made where it is missing, and durable.
    fn make_dir(&self, place: &Place) -> Result<Arc<Dir>, PathError> {
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

    /// The object open for reading, and its size. Packs stay open for the next range.
    fn open_for_range(&self, key: &ObjectKey) -> Result<(Arc<ReadFile>, u64), StoreError> {
        let ObjectKey::Pack(id) = key else {
            let file = self.open_object(key)?;
            let size = file.stat().map_err(|error| self.failed(error))?.size;
            return Ok((Arc::new(file), size));
        };
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
            // A pack removed by another process is gone, whatever is still open here.
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

    /// Gives a written file its name, with a time that is not before the name.
    fn publish(
        &self,
        file: TempFile,
        dir: &Dir,
        name: &str,
        existing: Existing,
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

    /// Lists one directory's objects; what is no regular file, or vanishes meanwhile, is passed
    /// over.
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

    /// Lists the objects that lie one directory deeper, by the last byte of their id.
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
                // Vanished, or no directory: nothing that `get` would find either.
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
    /// The directory's canonical path; bytes that are not UTF-8 are written as `\xNN`.
    fn address(&self) -> &str {
        &self.address
    }

    fn directory(&self) -> Option<FileId> {
        self.root.stat_self().ok().map(|stat| stat.id)
    }

    fn properties(&self) -> Properties {
        self.properties
    }

    fn put(&self, key: &ObjectKey, body: Body<'_>, mode: PutMode) -> Result<(), StoreError> {
        let place = self.place(key)?;
        let failed = |error| self.failed(error);
        let write = |bytes: &[u8]| {
            let mut file = TempFile::create(&self.root, FILE_MODE)?;
            file.write_all(bytes)?;
            Ok(file)
        };
        let file = match body {
            Body::Bytes(bytes) => write(bytes).map_err(failed)?,
            Body::Spooled(spool) => match spool.into_parts()? {
                SpoolParts::Memory(bytes) => write(&bytes).map_err(failed)?,
                SpoolParts::Named(file) => file,
            },
        };
        let existing = match mode {
            // Its name is the only one that two writers give to different bytes.
            PutMode::CreateOnly if matches!(key, ObjectKey::Config(_)) => Existing::Reserve,
            PutMode::CreateOnly => Existing::RefuseSeen,
            PutMode::Replace => Existing::Replace,
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
            limit: usize::MAX as u64,
            found: size,
        };
        let mut bytes = vec![0; usize::try_from(size).map_err(too_long)?];
        file.read_exact_at(&mut bytes, 0)
            .map_err(|error| self.short(key, size, &file, error))?;
        Ok(bytes)
    }

    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        let (file, size) = self.open_for_range(key)?;
        let wanted = offset.saturating_add(buf.len() as u64);
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
        // As in a listing: a directory or a link that somebody put under an object's name is no
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
        let (old, new) = (self.place(from)?, self.place(to)?);
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
            // Not where the file is another user's; who needs the time looks at it.
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
            // A pack that a power cut brings back is garbage that the next prune removes again: no
            // sync, for there may be thousands. A withdrawn snapshot must not come back.
            self.close_pack(*id);
            return Ok(());
        }
        dir.sync().map_err(|error| self.failed(error))
    }

    fn sweep_unfinished(&self, before: Timestamp) -> Result<(u64, u64), StoreError> {
        let (mut count, mut bytes) = (0, 0);
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
            reserve::hold(&self.root)
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
    /// The error of a read that met the end before the size it had seen. Where the file has that
    /// size still, it was only this read that ended early.
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

/// The directory of this name, made where it is missing. It, and all its siblings of now, are known
/// durable afterwards, so that the cost is one sync of the parent for a process that finds all
/// directories there.
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

/// The name of a pack's directory: its last byte, since a name's first digits are what people type.
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
    // What is behind these locks is whole between any two statements: a panic elsewhere spoils
    // nothing.
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
