//! Stores of whole objects by key. The comments of the trait [`Store`] are the contract; `suite`
//! checks every store against it.

mod contract;
mod error;
mod key;
mod local;
mod locate;
mod open;
mod readonly;
mod spool;

// For tests: other stores and decorators, and the suite that checks each of them.
#[cfg(any(test, feature = "testing"))]
mod call;
#[cfg(any(test, feature = "testing"))]
mod faulty;
#[cfg(any(test, feature = "testing"))]
mod hooked;
#[cfg(any(test, feature = "testing"))]
mod memory;
#[cfg(any(test, feature = "testing"))]
mod model;
#[cfg(any(test, feature = "testing"))]
mod recording;
#[cfg(any(test, feature = "testing"))]
pub mod suite;

pub use contract::{
    ObjectBody, ObjectMeta, PutMode, SharedStore, Store, StoreProperties, list_all,
};
pub use error::StoreError;
pub use key::{ObjectDir, ObjectKey, Replica};
pub use local::{LocalStore, is_foreign};
pub use locate::{LocateError, StoreLocation};
pub use open::{StoreAccess, StoreOptions, open};
pub use readonly::ReadOnlyStore;
pub use spool::Spool;

#[cfg(any(test, feature = "testing"))]
pub use self::{
    call::{KeyKind, StoreOperation},
    faulty::{Fault, FaultEffect, FaultyStore, InjectedError},
    hooked::{Hook, HookedStore},
    memory::{MemoryStore, TestClock},
    model::{ListingLag, ModelStore, ModelWorld},
    recording::{RecordedCall, RecordingStore},
};
