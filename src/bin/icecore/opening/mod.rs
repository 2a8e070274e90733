//! Opens or creates a command's repository: identifies it, unlocks it, and records its id.
//!
//! The order matters. First the id that the store shows is compared with the ids in icecore.toml
//! and with the pin, so that no secret is tried on another repository and nothing is sent to it.
//! Then a secret unlocks the repository, which proves the id. Then the pin is written. Only after
//! that the cache is opened and the operation begins.

mod cache;
mod pins;
pub mod temporary_cache;
mod unlock;

use std::path::Path;

use icecore::advice::{Advice, RepairAdvice};
use icecore::observe::{Observer, Problem, Severity};
use icecore::repo::{RepoError, Repository, Secret};
use icecore::store::{self, SharedStore, StoreAccess, StoreLocation, StoreOptions};
use icecore::sys::host_name;
use icecore::task::Cancel;
use icecore::types::RepoId;
use icecore::{Error, ErrorKind};

use self::pins::{KnownRepository, Pin, PinAddress, RememberedPin};
use self::temporary_cache::CacheNeed;
use crate::context::Context;
use crate::exit::CliError;
use crate::secret::{self, PassphraseChoice};
use crate::signals::Interrupts;
use crate::ui::text;

/// The source of a new repository's secret if the user gave none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NewSecret {
    /// The terminal if there is one, otherwise a random key file.
    AskOrKeyFile,
    /// A random key file.
    KeyFile,
}

/// The address of the repository, and everything known about it before the store is read.
#[derive(Clone)]
struct NamedRepository {
    location: StoreLocation,
    /// Its addresses, as typed first, each with its record in the state directory. Empty if the
    /// location cannot be resolved; then nothing is recorded.
    remembered: Vec<RememberedPin>,
    /// The repositories that icecore.toml names for this address. Empty: any.
    named: Vec<RepoId>,
    /// The configuration applies to this address.
    own_config: bool,
}

impl NamedRepository {
    /// Returns the pins of all addresses.
    fn pins(&self) -> impl Iterator<Item = Pin> {
        self.remembered.iter().filter_map(RememberedPin::pin)
    }

    /// Returns true if the repository was opened with a secret before, at any of the addresses.
    fn was_sealed(&self, id: RepoId) -> bool {
        self.pins().any(|pin| pin.sealed && pin.repository == id)
    }

    /// Returns true if the repository was opened without a passphrase before, and never with one.
    fn was_unsealed(&self, id: RepoId) -> bool {
        !self.was_sealed(id) && self.pins().any(|pin| pin.repository == id)
    }

    /// Returns the repository that should be here, if that is known.
    fn expected(&self) -> Option<RepoId> {
        self.named
            .first()
            .copied()
            .or_else(|| self.pins().next().map(|pin| pin.repository))
    }

    /// Converts the error of a store that cannot be opened or holds no repository. The message is a
    /// different one if a repository should be there.
    fn absent(&self, error: impl Into<Error>) -> CliError {
        let error = error.into();
        match self.expected() {
            Some(id) if error.kind() == ErrorKind::NoRepository => CliError::Absent {
                message: format!(
                    "there is no repository at {}: expected repository {id}",
                    self.location
                ),
                hint: Some(
                    "is the disk mounted? To give up that repository and create a new one: 'icecore init'"
                        .to_owned(),
                ),
            },
            _ => error.into(),
        }
    }
}

impl Context<'_> {
    /// Opens the repository, with the passphrase from any of its sources. Damage to its
    /// configuration is reported.
    pub fn open(&self, observer: &dyn Observer) -> Result<(Repository, Cancel), CliError> {
        self.open_with(CacheNeed::Lasting, observer)
    }

    /// Like [`Context::open`], for a command that may use a temporary cache.
    pub fn open_with(
        &self,
        need: CacheNeed,
        observer: &dyn Observer,
    ) -> Result<(Repository, Cancel), CliError> {
        let place = self.place()?;
        let store =
            store::open(&place.location, &StoreOptions::default()).map_err(|e| place.absent(e))?;
        self.open_at(&place, store, need, observer)
    }

    /// Opens the repository, or creates it with `parity` percent of recovery data if there is none
    /// and none was there before.
    pub fn open_or_init(
        &self,
        parity: Option<u8>,
        observer: &dyn Observer,
    ) -> Result<(Repository, Cancel), CliError> {
        let place = self.place()?;
        let found = store::open(&place.location, &StoreOptions::default())
            .map_err(Error::from)
            .and_then(|store| {
                Repository::identities(&store)?;
                Ok(store)
            });
        match found {
            Ok(store) => self.open_at(&place, store, CacheNeed::Lasting, observer),
            // An unmounted disk looks like this too. Create a repository only if none was here
            // before.
            Err(e) if e.kind() == ErrorKind::NoRepository && place.expected().is_none() => {
                let (store, id) = self.init_at(&place, NewSecret::KeyFile, parity)?;
                self.ui.note(format_args!("created repository {id}"));
                self.advise_naming(&place, id);
                // Look the address up again: it has a pin now.
                self.open_at(&self.place()?, store, CacheNeed::Lasting, observer)
            }
            Err(e) => Err(place.absent(e)),
        }
    }

    /// Creates a repository with `parity` percent of recovery data. Returns its id.
    pub fn init(&self, parity: Option<u8>) -> Result<RepoId, CliError> {
        let place = self.place()?;
        if let Some(id) = place.named.first() {
            let file = self.config()?.file.display();
            return Err(CliError::usage(format!(
                "{file} names repository {id}, and a new repository gets a new id"
            ))
            .with_hint("remove 'repository_id' from the file first"));
        }
        let (_, id) = self.init_at(&place, NewSecret::AskOrKeyFile, parity)?;
        self.advise_naming(&place, id);
        Ok(id)
    }

    /// Returns the repository that was used at this address before, if that is recorded.
    pub fn remembered(&self, location: &StoreLocation) -> Option<RepoId> {
        let remembered = RememberedPin::load(self.state(), PinAddress::all_of(location).ok()?);
        remembered
            .iter()
            .find_map(RememberedPin::pin)
            .map(|pin| pin.repository)
    }

    /// Prints how a configuration file about this repository can name it.
    fn advise_naming(&self, place: &NamedRepository, id: RepoId) {
        let Ok(config) = self.config() else { return };
        if config.repository.is_some() && place.own_config {
            let file = config.file.display().to_string();
            let what = format!(
                "to accept only this repository, add to {}: repository_id = \"{id}\"",
                text::clean(&file)
            );
            self.ui.note(what);
        }
    }

    fn place(&self) -> Result<NamedRepository, CliError> {
        let location = self.location()?;
        let addresses = PinAddress::all_of(&location).unwrap_or_else(|why| {
            self.ui
                .warn(format_args!("warning: cannot resolve {location}: {why}"));
            Vec::new()
        });
        let resolved = addresses.last().cloned();
        let remembered = RememberedPin::load(self.state(), addresses);

        for RememberedPin { address, known } in &remembered {
            if let KnownRepository::Damaged(why) | KnownRepository::Unreadable(why) = known {
                let what = format!("cannot read the remembered repository at {address}: {why}");
                self.ui
                    .warn(format_args!("warning: {}", text::clean(&what)));
            }
        }

        let config = self.config()?;
        // The file's settings apply to the file's own repository, not to one named on the command
        // line.
        let own = match &config.repository {
            None => true,
            Some(own) => {
                StoreLocation::parse(own)
                    .ok()
                    .and_then(|own| PinAddress::of(&own).ok())
                    == resolved
            }
        };

        Ok(NamedRepository {
            location,
            remembered,
            named: if own {
                config.repository_ids.clone()
            } else {
                Vec::new()
            },
            own_config: own,
        })
    }

    /// Chooses the repository that is meant among the ids that the store shows, or refuses.
    fn meant(&self, place: &NamedRepository, ids: &[RepoId]) -> Result<RepoId, CliError> {
        let shown = ids.first().map(ToString::to_string).unwrap_or_default();
        let refused = |message: String, hint: String| {
            Err(CliError::Locked {
                message,
                hint: Some(hint),
            })
        };

        let accept = self.global.accept_repository;

        // Ids in icecore.toml come first: --accept-repository does not override them.
        if !place.named.is_empty() {
            let Some(id) = ids.iter().find(|id| place.named.contains(id)) else {
                let file = self.config()?.file.display();
                let names: Vec<String> = place.named.iter().map(ToString::to_string).collect();
                let message = format!(
                    "cannot open {}: it is repository {shown}, not the one that {file} names ({})",
                    place.location,
                    names.join(", ")
                );
                return refused(
                    message,
                    "is the right disk mounted? 'repository_id' names the expected repository"
                        .into(),
                );
            };
            return Ok(*id);
        }

        if let Some(accepted) = accept {
            if ids.contains(&accepted) {
                return Ok(accepted);
            }
            let message = format!(
                "cannot open {}: it is repository {shown}, not {accepted}",
                place.location
            );
            return refused(
                message,
                format!(
                    "give the right id with {}accept-repository",
                    self.option_prefix
                ),
            );
        }

        // A link, or the place that it leads to, may have been replaced: each address must have led
        // to this repository.
        if let Some(pin) = place.pins().find(|pin| !ids.contains(&pin.repository)) {
            let message = format!(
                "cannot open {}: it is repository {shown}, not the one used before ({})",
                place.location, pin.repository
            );
            let option = format!("{}accept-repository {shown}", self.option_prefix);
            return refused(
                message,
                format!("is the right disk mounted? To accept this repository: {option}"),
            );
        }

        match place.pins().next() {
            Some(pin) => Ok(pin.repository),
            None => {
                // One of the two copies of the configuration may be damaged. The one with a key
                // file is right.
                let keys = self.env.keys_dir();
                let has_key = |id: &&RepoId| {
                    keys.as_ref()
                        .is_some_and(|keys| secret::key_file_path(keys, **id).exists())
                };
                let id = ids.iter().find(has_key).or(ids.first());
                id.copied()
                    .ok_or_else(|| CliError::usage("the repository has no id"))
            }
        }
    }

    fn open_at(
        &self,
        place: &NamedRepository,
        store: SharedStore,
        need: CacheNeed,
        observer: &dyn Observer,
    ) -> Result<(Repository, Cancel), CliError> {
        let ids = Repository::identities(&store).map_err(|e| place.absent(e))?;
        let id = self.meant(place, &ids)?;
        let (unlocked, sealed, interrupts) = self.unlock(place, store, id)?;

        // Check the id again now that the keys have proven it: the store may have shown another one
        // before.
        self.meant(place, &[unlocked.id()])?;
        self.remember(
            place,
            Pin {
                repository: unlocked.id(),
                sealed,
            },
        )?;

        if !sealed {
            let what = "it opens without a passphrase: anyone with its files can read them";
            observer.problem(&Problem::new(Severity::Note, "the repository", what));
        }

        let cache = self.open_cache(&unlocked, need)?;
        let repository = unlocked.with_cache(cache).with_state(self.state().cloned());
        if let Some(damage) = repository.config_damage() {
            let problem = Problem::new(Severity::Damage, "the configuration", damage);
            observer.problem(&problem.with_advice(Advice::Repair(RepairAdvice::RepairConfig)));
        }

        Ok((repository, self.cancel(&interrupts)))
    }

    /// Records which repository is at the address, if that is new.
    fn remember(&self, place: &NamedRepository, pin: Pin) -> Result<(), CliError> {
        let Some(state) = self.state() else {
            return Ok(());
        };
        if let Some(known) = place
            .pins()
            .find(|known| known.repository != pin.repository)
        {
            let new = pin.repository;
            let old = known.repository;
            self.ui.note(format_args!(
                "{} is now repository {new}; it was {old}",
                place.location
            ));
        }

        let is_new = |one: &&RememberedPin| {
            !matches!(one.known, KnownRepository::Unreadable(_)) && one.pin() != Some(pin)
        };
        for RememberedPin { address, known } in place.remembered.iter().filter(is_new) {
            match pin.store(state, address, known) {
                Ok(()) => {}
                // Another process was first. It may have found another repository.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                    let now = RememberedPin {
                        address: address.clone(),
                        known: Pin::load(state, address),
                    };
                    let now = NamedRepository {
                        remembered: vec![now],
                        ..place.clone()
                    };
                    self.meant(&now, &[pin.repository])?;
                }
                Err(e) => {
                    if place.named.is_empty() {
                        let what = format!(
                            "cannot remember which repository is at {address}: {e}: {}; set ICECORE_STATE_DIR",
                            e.source
                        );
                        self.ui
                            .warn(format_args!("warning: {}", text::clean(&what)));
                    }
                    break;
                }
            }
        }

        Ok(())
    }

    fn init_at(
        &self,
        place: &NamedRepository,
        otherwise: NewSecret,
        parity: Option<u8>,
    ) -> Result<(SharedStore, RepoId), CliError> {
        let options = StoreOptions {
            access: StoreAccess::Create,
        };
        let store = store::open(&place.location, &options).map_err(Error::from)?;
        // Check before asking for a passphrase; `init_with` checks again.
        match Repository::identify(&store) {
            Err(RepoError::NotFound { .. }) => {}
            Err(e) if !e.is_damage() => return Err(e.into()),
            _ => {
                return Err(RepoError::AlreadyThere {
                    address: store.address().to_owned(),
                }
                .into());
            }
        }

        let id = new_id()?;
        let (secret, key_file) = match (self.passphrase_choice(place)?, otherwise) {
            (Some(PassphraseChoice::Passphrase(given)), _) => (self.new_secret(given), None),
            (Some(PassphraseChoice::NoPassphrase), _) => (Secret::empty(), None),
            (None, NewSecret::AskOrKeyFile) if secret::has_terminal() => {
                let asked = secret::ask_new().map_err(|error| self.refused_secret(error))?;
                (Secret::passphrase(asked), None)
            }
            (None, _) => {
                // The key must be safe on disk before anything is encrypted with it.
                let (key, path) = secret::new_key_file(&self.keys_dir()?, id)?;
                (Secret::generated(key), Some(path))
            }
        };

        let sealed = !secret.is_empty();
        // Announce a new key file only once the repository exists, and delete it if none was
        // created.
        match (
            Repository::init_with(&store, id, &secret, &host_name(), parity),
            key_file,
        ) {
            (Ok(_), Some(path)) => {
                self.ui
                    .warn(format_args!("created key file {}", path.display()));
                self.ui
                    .warn("keep a copy elsewhere: without it the backup is lost");
            }
            (Ok(_), None) => {}
            (Err(error), key_file) => {
                if let Some(path) = key_file {
                    drop_unused_key(&store, id, &path);
                }
                return Err(error.into());
            }
        }

        self.remember(
            place,
            Pin {
                repository: id,
                sealed,
            },
        )?;
        Ok((store, id))
    }

    /// Returns a flag that the first termination signal sets from now on.
    fn cancel(&self, interrupts: &Interrupts) -> Cancel {
        let cancel = Cancel::new();
        let flag = cancel.clone();
        let ui = self.ui;
        interrupts.hand_over(move || {
            flag.cancel();
            ui.note("stopping cleanly; press Ctrl-C again to stop at once");
        });
        cancel
    }
}

/// Removes the key file of a repository that was not created. Keeps it if the repository may exist:
/// an `init` whose last answer was lost has created it.
fn drop_unused_key(store: &SharedStore, id: RepoId, path: &Path) {
    let unused = match Repository::identify(store) {
        Ok(found) => found != id,
        Err(e) => matches!(e, RepoError::NotFound { .. }),
    };
    if unused {
        // A superfluous key file does no harm.
        let _ = std::fs::remove_file(path);
    }
}

fn listen() -> Result<Interrupts, CliError> {
    Interrupts::listen().map_err(|e| CliError::failed("cannot install signal handlers", e))
}

fn new_id() -> Result<RepoId, CliError> {
    let mut bytes = [0; RepoId::LEN];
    getrandom::fill(&mut bytes)
        .map_err(|e| CliError::failed("cannot get random bytes from the system", e))?;
    Ok(RepoId::new(bytes))
}
