//! Unlocks a command's repository with a given passphrase, a key file or the terminal.

use std::path::{Path, PathBuf};

use icecore::repo::{RepoError, Secret, UnlockedRepo};
use icecore::store::SharedStore;
use icecore::types::RepoId;

use super::{NamedRepository, listen};
use crate::context::Context;
use crate::exit::CliError;
use crate::secret::{self, GivenPassphrase, PassphraseChoice};
use crate::signals::Interrupts;
use crate::ui::text;

impl Context<'_> {
    /// Converts a passphrase for a new key slot to a secret. Warns about anything odd in it.
    pub fn new_secret(&self, given: GivenPassphrase) -> Secret {
        self.warn_of(&given);
        if let Some(oddity) = given.oddity() {
            self.ui
                .warn(format_args!("warning: {}", text::clean(&oddity)));
        }
        Secret::passphrase(given.bytes)
    }

    fn warn_of(&self, given: &GivenPassphrase) {
        if let Some(warning) = &given.warning {
            self.ui
                .warn(format_args!("warning: {}", text::clean(warning)));
        }
    }

    /// Returns the statement about the passphrase on the command line, in the environment or in the
    /// configuration.
    pub(super) fn passphrase_choice(
        &self,
        place: &NamedRepository,
    ) -> Result<Option<PassphraseChoice>, CliError> {
        let choice = match secret::passphrase_choice(self.global, &self.env, self.option_prefix) {
            Ok(None) => self.configured(place),
            choice => choice,
        };
        let choice = choice.map_err(|error| self.refused_secret(error))?;
        if let Some(PassphraseChoice::Passphrase(given)) = &choice {
            self.warn_of(given);
        }
        Ok(choice)
    }

    /// Returns the configuration's statement about the passphrase.
    fn configured(&self, place: &NamedRepository) -> Result<Option<PassphraseChoice>, CliError> {
        let config = self.config()?;
        if place.own_config && config.no_passphrase {
            return Ok(Some(PassphraseChoice::NoPassphrase));
        }
        if let Some(file) = &config.passphrase_file {
            return secret::from_file(file).map(|given| Some(PassphraseChoice::Passphrase(given)));
        }
        let command = config
            .passphrase_command
            .as_deref()
            .map(secret::from_command)
            .transpose()?;
        Ok(command.map(PassphraseChoice::Passphrase))
    }

    /// Unlocks the repository. The `bool` is true if that took a secret.
    pub(super) fn unlock(
        &self,
        place: &NamedRepository,
        store: SharedStore,
        id: RepoId,
    ) -> Result<(UnlockedRepo, bool, Interrupts), CliError> {
        match self.passphrase_choice(place)? {
            Some(PassphraseChoice::Passphrase(given)) => return self.unlock_given(store, &given),
            Some(PassphraseChoice::NoPassphrase) => return self.unlock_unsealed(place, store, id),
            None => {}
        }

        let keys_dir = self.env.keys_dir();
        let key = keys_dir
            .as_ref()
            .map(|keys| secret::from_key_file(keys, id))
            .transpose()
            .map_err(|error| self.refused_secret(error))?
            .flatten();
        if let (Some(keys_dir), Some(key)) = (&keys_dir, key) {
            return self.unlock_with_key_file(store, secret::key_file_path(keys_dir, id), key);
        }

        if place.was_unsealed(id) {
            return self.unlock_unsealed(place, store, id);
        }

        // Tried only for a better message: a repository is never opened without a passphrase unless
        // the user stated that it has none.
        if self
            .try_secret(SharedStore::clone(&store), Secret::empty())
            .is_ok()
        {
            return Err(self.unexpectedly_open(place, id));
        }

        if !secret::has_terminal() {
            return Err(self.no_key(keys_dir.as_deref(), id));
        }
        self.unlock_asked(store)
    }

    fn unlock_with_key_file(
        &self,
        store: SharedStore,
        path: PathBuf,
        key: secret::Bytes,
    ) -> Result<(UnlockedRepo, bool, Interrupts), CliError> {
        // With a terminal, a prompt may follow, at which Ctrl-C must have its usual effect. Do not
        // listen to signals before it.
        let terminal = secret::has_terminal();
        let early = if terminal { None } else { Some(listen()?) };

        match self.try_secret(SharedStore::clone(&store), Secret::generated(key)) {
            Err(RepoError::WrongKey { .. }) => {
                let message = format!(
                    "the key file {} does not open this repository; was its key changed?",
                    path.display()
                );
                if !terminal {
                    let hint = format!(
                        "give the passphrase, or the right key file, with {}passphrase-file",
                        self.option_prefix
                    );
                    return Err(CliError::Locked {
                        message,
                        hint: Some(hint),
                    });
                }
                self.ui
                    .warn(format_args!("warning: {}", text::clean(&message)));
                self.unlock_asked(store)
            }
            unlocked => {
                let unlocked = unlocked.map_err(|error| self.locked(error))?;
                // Set only here: a command opens its repository once, or twice in the same way.
                let _ = self.key_file.set(path);
                Ok((unlocked, true, early.map_or_else(listen, Ok)?))
            }
        }
    }

    /// Opens a repository that should have no passphrase.
    fn unlock_unsealed(
        &self,
        place: &NamedRepository,
        store: SharedStore,
        id: RepoId,
    ) -> Result<(UnlockedRepo, bool, Interrupts), CliError> {
        let was_sealed = place.was_sealed(id);
        let accepted = self.global.accept_repository == Some(id);
        let interrupts = listen()?;
        match self.try_secret(store, Secret::empty()) {
            Ok(_) if was_sealed && !accepted => Err(self.unexpectedly_open(place, id)),
            Ok(unlocked) => Ok((unlocked, false, interrupts)),
            Err(RepoError::WrongKey { slots: 1.., .. }) => {
                let message = format!(
                    "cannot open {}: it has a passphrase, but none was expected",
                    place.location
                );
                Err(CliError::Locked {
                    message,
                    hint: Some(format!("give it with {}", self.passphrase_options())),
                })
            }
            Err(error) => Err(self.locked(error)),
        }
    }

    /// Returns the error for a repository that opens without a passphrase although nothing states
    /// that it should.
    fn unexpectedly_open(&self, place: &NamedRepository, id: RepoId) -> CliError {
        let prefix = self.option_prefix;
        let was_sealed = place.was_sealed(id);
        let (why, hint) = if was_sealed {
            (
                "it opens without a passphrase now, but needed one before",
                format!(
                    "another repository may have replaced it. To open it anyway: {prefix}no-passphrase {prefix}accept-repository {id}"
                ),
            )
        } else {
            (
                "it opens without a passphrase, and this was never confirmed",
                format!("if this is the right repository, confirm it once: {prefix}no-passphrase"),
            )
        };
        CliError::Locked {
            message: format!("cannot open {}: {why}", place.location),
            hint: Some(hint),
        }
    }

    /// Opens a repository with the given passphrase.
    fn unlock_given(
        &self,
        store: SharedStore,
        given: &GivenPassphrase,
    ) -> Result<(UnlockedRepo, bool, Interrupts), CliError> {
        let interrupts = listen()?;
        match self.try_secret(store, Secret::passphrase(given.bytes.clone())) {
            Ok(unlocked) => Ok((unlocked, true, interrupts)),
            Err(error @ RepoError::WrongKey { .. }) => Err(match given.oddity() {
                Some(oddity) => CliError::Locked {
                    message: format!("{error}; {oddity}"),
                    hint: Some(
                        "give the right passphrase; of a file, only one trailing newline is ignored".into(),
                    ),
                },
                None => self.locked(error),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds advice to the error of a repository that no key slot opens. The options are those of
    /// this repository, of two.
    fn locked(&self, error: RepoError) -> CliError {
        let hint = match &error {
            RepoError::WrongKey {
                slots: 0,
                costly: 0,
            } => {
                "its key slots are missing or damaged, and without one nothing can decrypt the data: copy the directory \
                 'keys' back from a copy of the repository"
                    .to_owned()
            }
            RepoError::WrongKey { costly: 0, .. } => {
                format!("give the right passphrase with {}", self.passphrase_options())
            }
            _ => return error.into(),
        };
        CliError::Locked {
            message: error.to_string(),
            hint: Some(hint),
        }
    }

    /// Returns the ways to give the passphrase of this repository.
    fn passphrase_options(&self) -> String {
        format!(
            "{prefix}passphrase-file, {prefix}passphrase-command or {}PASSPHRASE",
            self.env.prefix,
            prefix = self.option_prefix,
        )
    }

    /// Returns advice about a missing passphrase of this repository.
    fn give_passphrase(&self) -> String {
        format!(
            "use {}; for a repository without a passphrase, {}no-passphrase",
            self.passphrase_options(),
            self.option_prefix
        )
    }

    /// Adds advice to the error of a secret that was refused, if it has none.
    pub(super) fn refused_secret(&self, error: CliError) -> CliError {
        match error {
            CliError::Locked {
                message,
                hint: None,
            } => CliError::Locked {
                message,
                hint: Some(self.give_passphrase()),
            },
            other => other,
        }
    }

    /// Asks for the passphrase on the terminal and opens the repository with it.
    fn unlock_asked(
        &self,
        store: SharedStore,
    ) -> Result<(UnlockedRepo, bool, Interrupts), CliError> {
        let asked = secret::ask().map_err(|error| self.refused_secret(error))?;
        let secret = Secret::passphrase(asked);
        let interrupts = listen()?;
        let unlocked = self
            .try_secret(store, secret)
            .map_err(|error| self.locked(error))?;
        Ok((unlocked, true, interrupts))
    }

    /// Tries a secret on the key slots, first on the one that opened last time according to the
    /// cache.
    fn try_secret(&self, store: SharedStore, secret: Secret) -> Result<UnlockedRepo, RepoError> {
        let secret = if self.global.costly_key {
            secret.even_if_costly()
        } else {
            secret
        };
        UnlockedRepo::unlock_near(store, &secret, self.cache_root().ok().as_deref())
    }

    /// Returns the error for a repository without a given passphrase, a key file or a terminal to ask
    /// on.
    fn no_key(&self, keys_dir: Option<&Path>, id: RepoId) -> CliError {
        let give_one = self.give_passphrase();
        let (message, hint) = match keys_dir {
            Some(keys) => (
                format!(
                    "no key for this repository: {} is not there",
                    secret::key_file_path(keys, id).display()
                ),
                format!(
                    "put a copy of the key file back, or name it: {}passphrase-file COPY. For a passphrase: {give_one}",
                    self.option_prefix
                ),
            ),
            None => (
                "no passphrase was given for this repository".to_owned(),
                give_one,
            ),
        };
        CliError::Locked {
            message,
            hint: Some(hint),
        }
    }
}
