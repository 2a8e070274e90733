//! The context of a command: options, environment, configuration, and the places of files.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use icecore::dest::ProtectedDirs;
use icecore::jobs::config::Config;
use icecore::ops::list::ListedPath;
use icecore::repo::{HostChoice, Repository};
use icecore::store::StoreLocation;
use icecore::sys::StateDir;
use icecore::sys::host_name;
use icecore::task::Cancel;

use crate::env::Env;
use crate::exit::CliError;
use crate::global::Global;
use crate::opening::temporary_cache::{CacheNeed, TemporaryCache};
use crate::parse::{self, SnapPath};
use crate::ui::{Meter, Ui, text};

/// The context of a command: options, environment and configuration.
pub struct Context<'a> {
    pub global: &'a Global,
    pub env: Env,
    pub ui: Ui,
    config: OnceCell<Config>,
    state: OnceCell<Option<StateDir>>,
    /// The key file that opened the repository.
    pub(crate) key_file: OnceCell<PathBuf>,
    /// Replaces a cache that is not writable. Deleted at the end.
    pub(crate) temporary_cache: OnceCell<TemporaryCache>,
    /// Prefix of this repository's options: `--`, or `--to-` for the second repository of a command
    /// that has two.
    pub(crate) option_prefix: &'static str,
}

impl<'a> Context<'a> {
    /// Creates a context of the given options and the environment of this process.
    pub fn new(global: &'a Global) -> Self {
        Self {
            global,
            env: Env::read(),
            ui: Ui::new(global),
            config: OnceCell::new(),
            state: OnceCell::new(),
            key_file: OnceCell::new(),
            temporary_cache: OnceCell::new(),
            option_prefix: "--",
        }
    }

    /// Creates the context of the second repository of a command that has two. The configuration
    /// does not apply to it.
    pub fn other<'b>(&self, global: &'b Global, ui: Ui) -> Context<'b> {
        Context {
            global,
            env: Env::read_other(),
            ui,
            config: OnceCell::from(Config::default()),
            state: OnceCell::from(self.state().cloned()),
            key_file: OnceCell::new(),
            temporary_cache: OnceCell::new(),
            option_prefix: "--to-",
        }
    }

    /// Returns the configuration: from the file that the user named, which must exist, or from the
    /// default file. Empty if there is none.
    pub fn config(&self) -> Result<&Config, CliError> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let named = self.global.config.as_ref().or(self.env.config.as_ref());
        let usual = self.env.config_file();
        let loaded = match named.or(usual.as_ref()) {
            Some(file) => Config::load(file, self.env.home.as_deref())?,
            None => None,
        };
        if let (Some(file), None) = (named, &loaded) {
            return Err(no_config(file));
        }
        Ok(self.config.get_or_init(|| loaded.unwrap_or_default()))
    }

    /// Checks the named file and the variables for a command that may not need them: a missing file
    /// or an invalid variable is an error in any case.
    pub fn check(&self) -> Result<(), CliError> {
        self.env.check()?;
        match self.global.config.as_ref().or(self.env.config.as_ref()) {
            Some(file) if !file.exists() => Err(no_config(file)),
            _ => Ok(()),
        }
    }

    /// Returns the host name of new snapshots, which `latest` also selects by: the configuration's,
    /// otherwise this machine's.
    pub fn host(&self) -> Result<String, CliError> {
        match &self.config()?.host {
            Some(host) => Ok(host.clone()),
            None if host_name().is_empty() => {
                Err(CliError::usage("this machine has no host name").with_hint("use --host HOST"))
            }
            None => Ok(host_name()),
        }
    }

    /// Returns the repository's address as given by `-r`, `ICECORE_REPO` or the configuration.
    pub fn repository_address(&self) -> Result<Option<OsString>, CliError> {
        let given = self.global.repo.as_ref().or(self.env.repo.as_ref());
        Ok(match given {
            Some(given) => Some(given.clone()),
            None => self.config()?.repository.clone(),
        })
    }

    pub(crate) fn location(&self) -> Result<StoreLocation, CliError> {
        let address = self.repository_address()?.ok_or_else(|| {
            CliError::usage("no repository given")
                .with_hint("use -r REPO, set ICECORE_REPO, or set it in icecore.toml")
        })?;
        let address = parse::address(&address)
            .map_err(|why| CliError::usage(format!("invalid repository address: {why}")))?;
        StoreLocation::parse(&address).map_err(|e| CliError::usage(e.to_string()))
    }

    /// Returns the directory that holds the index of each repository.
    pub fn cache_root(&self) -> Result<PathBuf, CliError> {
        if self.env.cache_dir.is_none()
            && let Some(dir) = &self.config()?.cache_dir
        {
            return Ok(dir.clone());
        }
        self.env.cache_root().ok_or_else(|| {
            CliError::usage("no directory for the index: HOME is not set")
                .with_hint("set ICECORE_CACHE_DIR")
        })
    }

    /// Returns the directory of state that this machine keeps across runs. Returns `None`, after a
    /// warning, if there is none.
    pub fn state(&self) -> Option<&StateDir> {
        let open = || {
            let opened = match self.env.state_root() {
                Some(root) => StateDir::open(root).map_err(|e| format!("{e}: {}", e.source)),
                None => Err("HOME is not set".to_owned()),
            };
            let warn = |why: String| {
                // A file that names the repository makes the record unnecessary.
                if self
                    .config()
                    .is_ok_and(|config| config.repository_ids.is_empty())
                {
                    let what = "nothing is remembered for the next run";
                    self.ui.warn(format_args!(
                        "warning: {what}: {}; set ICECORE_STATE_DIR",
                        text::clean(&why)
                    ));
                }
            };
            opened.map_err(warn).ok()
        };
        self.state.get_or_init(open).as_ref()
    }

    /// Returns the paths that a restore must not touch so that this program keeps working:
    /// settings, keys, and the files named in its options.
    pub fn protection(&self) -> Result<ProtectedDirs, CliError> {
        let config = self.config()?;
        let mut held = ProtectedDirs::default();
        let settings = self.env.config_dir();
        let configuration = self.global.config.as_ref().or(self.env.config.as_ref());
        let passphrases = [
            self.global.passphrase_file.as_ref(),
            self.env.passphrase_file.as_ref(),
            config.passphrase_file.as_ref(),
        ];
        for (path, what) in [(
            settings.as_ref(),
            "the settings directory, which holds the keys",
        )]
        .into_iter()
        .chain([(configuration, "the configuration file in use")])
        .chain(passphrases.map(|file| (file, "the passphrase file in use")))
        {
            if let Some(path) = path {
                held.add(path, what);
            }
        }
        Ok(held)
    }

    /// Returns the directory of generated key files.
    pub(crate) fn keys_dir(&self) -> Result<PathBuf, CliError> {
        self.env.keys_dir().ok_or_else(|| {
            CliError::usage("no directory for the key file: HOME is not set")
                .with_hint("set XDG_CONFIG_HOME")
        })
    }

    /// Converts a selected path for the library.
    pub fn listed_path(
        &self,
        selected: &SnapPath,
        hosts: &HostArgs,
    ) -> Result<ListedPath, CliError> {
        let SnapPath { snap, source, path } = selected.clone();
        Ok(ListedPath {
            snapshot: snap,
            hosts: hosts.choice(self)?,
            source,
            path,
        })
    }

    /// Opens the repository and starts counting, as most commands do first.
    pub fn begin(&self) -> Result<(Repository, Meter, Cancel), CliError> {
        let meter = self.ui.meter();
        let (repository, cancel) = self.open_with(CacheNeed::Temporary, &meter)?;
        Ok((repository, meter, cancel))
    }
}

/// Selects the hosts whose snapshots `latest` chooses from.
#[derive(Debug, Default, Clone, clap::Args)]
pub struct HostArgs {
    /// Host whose newest snapshot 'latest' means (default: this host; if it has none, the only host
    /// that has one)
    #[arg(long, value_name = "HOST", value_parser = parse::host, conflicts_with = "any_host")]
    pub host: Option<String>,
    /// 'latest' is the newest snapshot of any host
    #[arg(long)]
    pub any_host: bool,
}

impl HostArgs {
    /// Converts the options for the library.
    pub fn choice(&self, context: &Context<'_>) -> Result<HostChoice, CliError> {
        if self.any_host {
            return Ok(HostChoice::Any);
        }
        Ok(match &self.host {
            Some(host) => HostChoice::Host(host.clone()),
            None => HostChoice::Own(context.host()?),
        })
    }
}

fn no_config(file: &Path) -> CliError {
    CliError::usage(format!("there is no configuration file {}", file.display()))
}
