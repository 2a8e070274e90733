//! A store that stops at a given write or call: it dies there, as in a crash, or runs a hook first.

use std::path::Path;
use std::sync::Mutex;

use icecore::store::{
    KeyKind, ObjectBody, ObjectDir, ObjectKey, ObjectMeta, PutMode, SharedStore, Spool, Store,
    StoreError, StoreProperties,
};
use icecore::sys::FileId;

/// The fate of the write at which the store is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// Nothing of it is stored.
    Lost,
    /// All of it is stored, but its caller gets an error.
    Landed,
}

/// Runs before a call continues.
pub type Hook = Box<dyn FnOnce() + Send>;

enum Plan {
    Through,
    /// This many more writes succeed.
    Die {
        left: u64,
        last: Last,
    },
    /// This many more calls succeed.
    Call {
        left: u64,
        hook: Hook,
    },
    /// Waits until an object of this kind is put.
    Put {
        kind: KeyKind,
        hook: Hook,
    },
    Dead,
}

/// Wraps another store and cuts it at a given point.
pub struct CutStore {
    inner: SharedStore,
    plan: Mutex<Plan>,
}

impl std::fmt::Debug for CutStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CutStore")
    }
}

impl CutStore {
    /// Dies at the write after the first `writes`.
    pub fn dying(inner: SharedStore, writes: u64, last: Last) -> Self {
        Self::with(inner, Plan::Die { left: writes, last })
    }

    /// Calls `hook` on the calling thread, before the call after the first `calls`.
    pub fn hooked(inner: SharedStore, calls: u64, hook: Hook) -> Self {
        Self::with(inner, Plan::Call { left: calls, hook })
    }

    /// Calls `hook` before the first object of this kind is put.
    pub fn hooked_before(inner: SharedStore, kind: KeyKind, hook: Hook) -> Self {
        Self::with(inner, Plan::Put { kind, hook })
    }

    fn with(inner: SharedStore, plan: Plan) -> Self {
        Self {
            inner,
            plan: Mutex::new(plan),
        }
    }

    /// Returns true once the store has died.
    pub fn is_dead(&self) -> bool {
        matches!(*self.plan.lock().expect("the plan"), Plan::Dead)
    }

    fn dead(&self) -> StoreError {
        let source =
            std::io::Error::new(std::io::ErrorKind::HostUnreachable, "the store is cut off");
        StoreError::Unreachable {
            address: "model".into(),
            source,
        }
    }

    fn enter(&self) -> Result<(), StoreError> {
        let hook = {
            let mut plan = self.plan.lock().expect("the plan");
            match std::mem::replace(&mut *plan, Plan::Through) {
                Plan::Call { left: 0, hook } => Some(hook),
                Plan::Call { left, hook } => {
                    *plan = Plan::Call {
                        left: left - 1,
                        hook,
                    };
                    None
                }
                Plan::Dead => {
                    *plan = Plan::Dead;
                    return Err(self.dead());
                }
                other => {
                    *plan = other;
                    None
                }
            }
        };
        hook.into_iter().for_each(|hook| hook());
        Ok(())
    }

    fn write(&self, act: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.enter()?;
        // Hold the lock, so that no other write passes during the cut.
        let mut plan = self.plan.lock().expect("the plan");
        match &mut *plan {
            Plan::Die { left: 0, last } => {
                if *last == Last::Landed {
                    let _ = act();
                }
                *plan = Plan::Dead;
                Err(self.dead())
            }
            Plan::Die { left, .. } => {
                *left -= 1;
                act()
            }
            Plan::Dead => Err(self.dead()),
            Plan::Through | Plan::Call { .. } | Plan::Put { .. } => {
                drop(plan);
                act()
            }
        }
    }
}

impl Store for CutStore {
    fn address(&self) -> &str {
        self.inner.address()
    }

    fn directory(&self) -> Option<FileId> {
        self.inner.directory()
    }

    fn local_path(&self) -> Option<&Path> {
        self.inner.local_path()
    }

    fn properties(&self) -> StoreProperties {
        self.inner.properties()
    }

    fn put(&self, key: &ObjectKey, body: ObjectBody<'_>, mode: PutMode) -> Result<(), StoreError> {
        let hook = {
            let mut plan = self.plan.lock().expect("the plan");
            match std::mem::replace(&mut *plan, Plan::Through) {
                Plan::Put { kind, hook } if kind == KeyKind::from(key) => Some(hook),
                other => {
                    *plan = other;
                    None
                }
            }
        };
        hook.into_iter().for_each(|hook| hook());
        self.write(|| self.inner.put(key, body, mode))
    }

    fn spool(&self) -> Result<Spool, StoreError> {
        self.inner.spool()
    }

    fn get(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.enter()?;
        self.inner.get(key, limit)
    }

    fn read_at(&self, key: &ObjectKey, offset: u64, buf: &mut [u8]) -> Result<(), StoreError> {
        self.enter()?;
        self.inner.read_at(key, offset, buf)
    }

    fn stat(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        self.enter()?;
        self.inner.stat(key)
    }

    fn list(
        &self,
        directory: ObjectDir,
        each: &mut dyn FnMut(ObjectMeta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.enter()?;
        self.inner.list(directory, each)
    }

    fn rename(&self, from: &ObjectKey, to: &ObjectKey) -> Result<(), StoreError> {
        self.write(|| self.inner.rename(from, to))
    }

    fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.write(|| self.inner.delete(key))
    }
}
