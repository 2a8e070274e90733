//! What every command needs first: the store, the passphrase, the open repository, a way to be interrupted.

use std::path::PathBuf;

use icecore::observe::Observer;
use icecore::store::SharedStore;
use icecore::types::RepoId;

use crate::args::Global;
use crate::engine::ops::{Cancel, Selector, Snap};
use crate::engine::repo::{InitOptions, OpenOptions, Probe, Repository, Secret};
use crate::engine::{ErrorKind, store};
use crate::env::Env;
use crate::exit::CliError;
use crate::parse::{SnapPath, SnapRef};
use crate::secret;
use crate::signals::Interrupts;
use crate::ui::{Meter, Ui};

/// A command's surroundings: options and environment.
pub struct Context<'a> {
    pub global: &'a Global,
    pub env: Env,
    pub ui: Ui,
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
        Self { global, env: Env::read(), ui: Ui::new(global) }
    }

    /// The store that `-r` or `ICECORE_REPO` names.
    pub fn store(&self) -> Result<SharedStore, CliError> {
        let address = self.global.repo.as_ref().or(self.env.repo.as_ref()).ok_or_else(|| {
            CliError::usage("no repository named").with_hint("use -r REPO or set ICECORE_REPO")
        })?;
        Ok(store::locate(address)?)
    }

    /// The folder that holds the index of each repository.
    pub fn cache_root(&self) -> Result<PathBuf, CliError> {
        self.env.cache_root().ok_or_else(|| {
            CliError::usage("no folder for the index: HOME is not set").with_hint("set ICECORE_CACHE_DIR")
        })
    }

    /// The folder of generated key files.
    fn keys_dir(&self) -> Result<PathBuf, CliError> {
        self.env.keys_dir().ok_or_else(|| {
            CliError::usage("no folder for the key file: HOME is not set").with_hint("set XDG_CONFIG_HOME")
        })
    }

    /// Opens the repository, with the passphrase from wherever it comes.
    pub fn open(&self, observer: &dyn Observer) -> Result<(Repository, Cancel), CliError> {
        let store = self.store()?;
        let probe = Repository::probe(&store)?;
        self.open_probed(store, &probe, observer)
    }

    fn open_probed(
        &self,
        store: SharedStore,
        probe: &Probe,
        observer: &dyn Observer,
    ) -> Result<(Repository, Cancel), CliError> {
        let options = OpenOptions { cache_root: self.cache_root()? };
        let secret = self.secret_of(probe)?;
        let interrupts = listen()?;
        let repository = Repository::open(store, &secret, options, observer)?;
        Ok((repository, self.cancel(&interrupts)))
    }

    /// The passphrase of an existing repository.
    fn secret_of(&self, probe: &Probe) -> Result<Secret, CliError> {
        if let Some(given) = secret::given(self.global, &self.env)? {
            return Ok(Secret(given));
        }
        if let Some(keys_dir) = self.env.keys_dir()
            && let Some(key) = secret::from_key_file(&keys_dir, probe.id)?
        {
            return Ok(Secret(key));
        }
        if probe.open_to_all {
            return Ok(Secret(secret::Bytes::default()));
        }
        secret::ask("Passphrase: ").map(Secret)
    }

    /// Makes a repository. Returns its id.
    pub fn init(&self, otherwise: NewSecret) -> Result<RepoId, CliError> {
        self.init_in(self.store()?, otherwise).map(|(.., id)| id)
    }

    /// Opens the repository, or makes it if there is none.
    pub fn open_or_init(&self, observer: &dyn Observer) -> Result<(Repository, Cancel), CliError> {
        let store = self.store()?;
        match Repository::probe(&store) {
            Ok(probe) => self.open_probed(store, &probe, observer),
            Err(e) if e.kind() == ErrorKind::NoRepository => {
                let (repository, cancel, _) = self.init_in(store, NewSecret::KeyFile)?;
                Ok((repository, cancel))
            }
            Err(e) => Err(e.into()),
        }
    }

    fn init_in(
        &self,
        store: SharedStore,
        otherwise: NewSecret,
    ) -> Result<(Repository, Cancel, RepoId), CliError> {
        let id = new_id()?;
        let given = secret::given(self.global, &self.env)?;
        if given.is_some() && otherwise == NewSecret::Empty {
            return Err(CliError::usage("--no-passphrase, and yet a passphrase was given"));
        }
        let (secret, key_file) = match (given, otherwise) {
            (Some(given), _) => (given, None),
            (None, NewSecret::Empty) => (secret::Bytes::default(), None),
            (None, NewSecret::AskOrKeyFile) if secret::has_terminal() => (secret::ask_new()?, None),
            (None, _) => {
                // The key is safe on disk before anything is sealed with it.
                let (key, path) = secret::new_key_file(&self.keys_dir()?, id)?;
                (key, Some(path))
            }
        };
        let random_key = key_file.is_some();
        let interrupts = listen()?;
        let options = InitOptions { id, cache_root: self.cache_root()?, random_key };
        match Repository::init(store.clone(), &Secret(secret), options) {
            Ok(repository) => {
                if let Some(path) = key_file {
                    let path = path.display();
                    self.ui.warn(format_args!("The key of this repository is in {path}."));
                    self.ui.warn("Keep a copy elsewhere: without it the backup is lost.");
                }
                Ok((repository, self.cancel(&interrupts), id))
            }
            Err(error) => {
                if let Some(path) = key_file {
                    drop_unused_key(&store, id, &path);
                }
                Err(error.into())
            }
        }
    }

    /// What the first SIGINT or SIGTERM from now on sets.
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
}

/// Removes the key file of a repository that was not made. Kept where it may have been: an `init` whose last answer was
/// lost has made it.
fn drop_unused_key(store: &SharedStore, id: RepoId, path: &std::path::Path) {
    let unused = match Repository::probe(store) {
        Ok(probe) => probe.id != id,
        Err(e) => e.kind() == ErrorKind::NoRepository,
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
    /// The snapshot as the library takes it.
    pub fn snap(&self, snap: &SnapRef) -> Snap {
        match snap {
            SnapRef::Prefix(prefix) => Snap::Prefix(prefix.clone()),
            SnapRef::Latest if self.any_host => Snap::Latest { host: None },
            SnapRef::Latest => Snap::Latest { host: Some(self.host.clone().unwrap_or_else(host_name)) },
        }
    }

    /// What is selected, as the library takes it.
    pub fn selector(&self, what: &SnapPath) -> Selector {
        Selector { snap: self.snap(&what.snap), source: what.source.clone(), path: what.path.clone() }
    }
}

/// This machine's name.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
