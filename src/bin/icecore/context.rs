//! What every command needs first: the store, the passphrase, the open repository, a way to be interrupted.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use icecore::format::LeaseKind;
use icecore::observe::{Observer, Problem, Severity};
use icecore::ops::{Cancel, reading_lease};
use icecore::repo::{HostChoice, Lease, RepoError, Repository, Secret};
use icecore::store::{Location, SharedStore};
use icecore::sys::StateDir;
use icecore::types::RepoId;
use icecore::{Error, ErrorKind};

use crate::args::Global;
use crate::config::Config;
use crate::env::Env;
use crate::exit::CliError;
use crate::secret;
use crate::signals::Interrupts;
use crate::ui::{Meter, Ui, text};

/// A command's surroundings: options and environment.
pub struct Context<'a> {
    pub global: &'a Global,
    pub env: Env,
    pub ui: Ui,
    config: OnceCell<Config>,
    state: OnceCell<Option<StateDir>>,
}

/// Where the secret of a new repository comes from, if none is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewSecret {
    /// The empty passphrase: no secrecy.
    Empty,
    /// From the terminal if there is one, else a random key file.
    AskOrKeyFile,
    /// A random key file.
    KeyFile,
}

impl<'a> Context<'a> {
    /// The options given, and the environment of this process.
    pub fn new(global: &'a Global) -> Self {
        Self {
            global,
            env: Env::read(),
            ui: Ui::new(global),
            config: OnceCell::new(),
            state: OnceCell::new(),
        }
    }

    /// The surroundings of the other repository of a command that has two: the configuration is not about it.
    pub fn other<'b>(&self, global: &'b Global, ui: Ui) -> Context<'b> {
        Context {
            global,
            env: Env::read_other(),
            ui,
            config: OnceCell::from(Config::default()),
            state: OnceCell::from(self.state().cloned()),
        }
    }

    /// The configuration: that of the file that was named, which must be there, or of the usual one. Empty if there is
    /// none.
    pub fn config(&self) -> Result<&Config, CliError> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let named = self.global.config.as_ref().or(self.env.config.as_ref());
        let usual = self.env.config_file();
        let loaded = match named.or(usual.as_ref()) {
            Some(file) => Config::load(file)?,
            None => None,
        };
        if let (Some(file), None) = (named, &loaded) {
            return Err(CliError::usage(format!("there is no configuration file {}", file.display())));
        }
        Ok(self.config.get_or_init(|| loaded.unwrap_or_default()))
    }

    /// The host name of new snapshots, and whose snapshots `latest` chooses from: the configuration's, else this
    /// machine's.
    pub fn host(&self) -> Result<String, CliError> {
        Ok(self.config()?.host.clone().unwrap_or_else(host_name))
    }

    /// The repository's address as it was given: by `-r`, `ICECORE_REPO` or the configuration.
    pub fn repository_address(&self) -> Result<Option<OsString>, CliError> {
        let given = self.global.repo.as_ref().or(self.env.repo.as_ref());
        Ok(match given {
            Some(given) => Some(given.clone()),
            None => self.config()?.repository.clone(),
        })
    }

    fn location(&self) -> Result<Location, CliError> {
        let address = self.repository_address()?.ok_or_else(|| {
            CliError::usage("no repository named")
                .with_hint("use -r REPO, set ICECORE_REPO, or name it in icecore.toml")
        })?;
        Location::parse(&address).map_err(|e| CliError::usage(e.to_string()))
    }

    /// The folder that holds the index of each repository.
    pub fn cache_root(&self) -> Result<PathBuf, CliError> {
        if self.env.cache_dir.is_none()
            && let Some(dir) = &self.config()?.cache_dir
        {
            return Ok(dir.clone());
        }
        self.env.cache_root().ok_or_else(|| {
            CliError::usage("no folder for the index: HOME is not set").with_hint("set ICECORE_CACHE_DIR")
        })
    }

    /// The directory of what this machine must remember across runs. None, after a warning, where there is none.
    pub fn state(&self) -> Option<&StateDir> {
        let open = || {
            let opened = match self.env.state_root() {
                Some(root) => StateDir::open(root).map_err(|e| format!("{e}: {}", e.source)),
                None => Err("HOME is not set".to_owned()),
            };
            let warn = |why: String| {
                let what = "nothing is remembered for the next run";
                self.ui.warn(format_args!("warning: {what}: {}; set ICECORE_STATE_DIR", text::clean(&why)));
            };
            opened.map_err(warn).ok()
        };
        self.state.get_or_init(open).as_ref()
    }

    /// The folder of generated key files.
    fn keys_dir(&self) -> Result<PathBuf, CliError> {
        self.env.keys_dir().ok_or_else(|| {
            CliError::usage("no folder for the key file: HOME is not set").with_hint("set XDG_CONFIG_HOME")
        })
    }

    /// Opens the repository, with the passphrase from wherever it comes. Damage of its configuration is told.
    pub fn open(&self, observer: &dyn Observer) -> Result<(Repository, Cancel), CliError> {
        let store = self.location()?.open().map_err(Error::from)?;
        let id = Repository::identify(&store)?;
        self.open_as(store, id, observer)
    }

    fn open_as(
        &self,
        store: SharedStore,
        id: RepoId,
        observer: &dyn Observer,
    ) -> Result<(Repository, Cancel), CliError> {
        let cache_root = self.cache_root()?;
        let known = self.known_secret(id)?;
        let (repository, interrupts) = match known {
            Some(secret) => {
                let interrupts = listen()?;
                (Repository::open(store, &secret, &cache_root)?, interrupts)
            }
            // Perhaps it needs none; asking somebody for a passphrase that there is not would be odd.
            None => match Repository::open(SharedStore::clone(&store), &Secret::empty(), &cache_root) {
                Err(RepoError::WrongKey { .. }) => {
                    let secret = Secret::passphrase(secret::ask("Passphrase: ")?);
                    let interrupts = listen()?;
                    (Repository::open(store, &secret, &cache_root)?, interrupts)
                }
                opened => {
                    let repository = opened?;
                    // Said, so that a repository that was put in the place of a sealed one does not pass unseen.
                    let what = "it opens without a passphrase: whoever can reach it can read it";
                    observer.problem(&Problem::new(Severity::Note, "the repository", what));
                    (repository, listen()?)
                }
            },
        };
        let repository = repository.with_state(self.state().cloned());
        if let Some(damage) = repository.config_damage() {
            observer.problem(&Problem::new(Severity::Damage, "the configuration", damage));
        }
        Ok((repository, self.cancel(&interrupts)))
    }

    /// The passphrase that the command line, the environment or the configuration gives.
    fn given_secret(&self) -> Result<Option<secret::Bytes>, CliError> {
        if let Some(given) = secret::given(self.global, &self.env)? {
            return Ok(Some(given));
        }
        let config = self.config()?;
        if let Some(file) = &config.passphrase_file {
            return secret::from_file(file).map(Some);
        }
        config.passphrase_command.as_deref().map(secret::from_command).transpose()
    }

    /// The passphrase of an existing repository, if it is known without asking.
    fn known_secret(&self, id: RepoId) -> Result<Option<Secret>, CliError> {
        if let Some(given) = self.given_secret()? {
            return Ok(Some(Secret::passphrase(given)));
        }
        let key = self.env.keys_dir().map(|keys_dir| secret::from_key_file(&keys_dir, id)).transpose()?;
        Ok(key.flatten().map(Secret::generated))
    }

    /// Makes a repository, with so many percent of recovery data. Returns its id.
    pub fn init(&self, otherwise: NewSecret, parity: Option<u8>) -> Result<RepoId, CliError> {
        let (_, id) = self.init_at(&self.location()?, otherwise, parity)?;
        Ok(id)
    }

    /// Opens the repository, or makes it if there is none, with so many percent of recovery data.
    pub fn open_or_init(
        &self,
        parity: Option<u8>,
        observer: &dyn Observer,
    ) -> Result<(Repository, Cancel), CliError> {
        let location = self.location()?;
        let found =
            location.open().map_err(Error::from).and_then(|store| Ok((Repository::identify(&store)?, store)));
        let (id, store) = match found {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NoRepository => {
                let (store, id) = self.init_at(&location, NewSecret::KeyFile, parity)?;
                self.ui.note(format_args!("repository {id} made"));
                (id, store)
            }
            Err(e) => return Err(e.into()),
        };
        self.open_as(store, id, observer)
    }

    fn init_at(
        &self,
        location: &Location,
        otherwise: NewSecret,
        parity: Option<u8>,
    ) -> Result<(SharedStore, RepoId), CliError> {
        let store = location.create().map_err(Error::from)?;
        // Before anybody is asked for a passphrase; `init_as` looks again.
        match Repository::identify(&store) {
            Err(RepoError::NotFound { .. }) => {}
            Err(e) if !e.is_damage() => return Err(e.into()),
            _ => return Err(RepoError::AlreadyThere { address: store.address().to_owned() }.into()),
        }
        let id = new_id()?;
        let given = self.given_secret()?;
        if given.is_some() && otherwise == NewSecret::Empty {
            return Err(CliError::usage("--no-passphrase, and yet a passphrase was given"));
        }
        let (secret, key_file) = match (given, otherwise) {
            (Some(given), _) => (Secret::passphrase(given), None),
            (None, NewSecret::Empty) => (Secret::empty(), None),
            (None, NewSecret::AskOrKeyFile) if secret::has_terminal() => {
                (Secret::passphrase(secret::ask_new()?), None)
            }
            (None, _) => {
                // The key is safe on disk before anything is sealed with it.
                let (key, path) = secret::new_key_file(&self.keys_dir()?, id)?;
                (Secret::generated(key), Some(path))
            }
        };
        let made = Repository::init_with(&store, id, &secret, &host_name(), parity);
        match (made, key_file) {
            (Ok(_), Some(path)) => {
                self.ui.warn(format_args!("The key of this repository is in {}.", path.display()));
                self.ui.warn("Keep a copy elsewhere: without it the backup is lost.");
            }
            (Ok(_), None) => {}
            (Err(error), key_file) => {
                if let Some(path) = key_file {
                    drop_unused_key(&store, id, &path);
                }
                return Err(error.into());
            }
        }
        Ok((store, id))
    }

    /// What the first signal that asks us to end sets from now on.
    fn cancel(&self, interrupts: &Interrupts) -> Cancel {
        let cancel = Cancel::new();
        let (flag, ui) = (cancel.clone(), self.ui);
        interrupts.hand_over(move || {
            flag.cancel();
            ui.note("stopping; once more to stop at once");
        });
        cancel
    }

    /// Opens the repository and counts from here on: what most commands begin with.
    pub fn begin(&self) -> Result<(Repository, Meter, Cancel), CliError> {
        let meter = self.ui.meter();
        let (repository, cancel) = self.open(&meter)?;
        Ok((repository, meter, cancel))
    }

    /// The same for a command that looks into packs. The lease is to be kept until it is done.
    pub fn begin_reading(&self) -> Result<(Repository, Meter, Cancel, Option<Lease>), CliError> {
        let (repository, meter, cancel) = self.begin()?;
        let lease = reading_lease(&repository, LeaseKind::Restore, &host_name())?;
        Ok((repository, meter, cancel, lease))
    }
}

/// Removes the key file of a repository that was not made. Kept where it may have been: an `init` whose last answer was
/// lost has made it.
fn drop_unused_key(store: &SharedStore, id: RepoId, path: &Path) {
    let unused = match Repository::identify(store) {
        Ok(found) => found != id,
        Err(e) => matches!(e, RepoError::NotFound { .. }),
    };
    if unused {
        // One key file too many does no harm.
        let _ = std::fs::remove_file(path);
    }
}

fn listen() -> Result<Interrupts, CliError> {
    Interrupts::listen().map_err(|e| CliError::failed("cannot listen to signals", e))
}

fn new_id() -> Result<RepoId, CliError> {
    let mut bytes = [0; RepoId::LEN];
    getrandom::fill(&mut bytes).map_err(|e| CliError::failed("the system gives no random bytes", e))?;
    Ok(RepoId::new(bytes))
}

/// Whose snapshots `latest` chooses from.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct HostArgs {
    /// Host whose newest snapshot 'latest' means (default: this one)
    #[arg(long, value_name = "HOST", conflicts_with = "any_host")]
    pub host: Option<String>,
    /// Let 'latest' mean the newest snapshot of any host
    #[arg(long)]
    pub any_host: bool,
}

impl HostArgs {
    /// As the library takes it.
    pub fn choice(&self, context: &Context<'_>) -> Result<HostChoice, CliError> {
        if self.any_host {
            return Ok(HostChoice::Any);
        }
        Ok(HostChoice::Host(match &self.host {
            Some(host) => host.clone(),
            None => context.host()?,
        }))
    }
}

/// This machine's name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
