//! Reads the environment. No other file does, except that `home.rs` reads `HOME`.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use zeroize::Zeroizing;

use crate::exit::CliError;
use crate::home;

/// The environment variables that matter to a command. Empty ones count as unset, except for the
/// passphrase.
#[derive(Default)]
pub struct Env {
    /// Prefix of the names of the passphrase variables: `ICECORE_`, or `ICECORE_TO_` for the second
    /// repository of a command that has two.
    pub prefix: &'static str,
    /// `ICECORE_REPO`
    pub repo: Option<OsString>,
    /// `ICECORE_PASSPHRASE`
    pub passphrase: Option<Zeroizing<Vec<u8>>>,
    /// `ICECORE_PASSPHRASE_FILE`
    pub passphrase_file: Option<PathBuf>,
    /// `ICECORE_PASSPHRASE_COMMAND`
    pub passphrase_command: Option<String>,
    /// `ICECORE_NO_PASSPHRASE`, as it was set.
    pub no_passphrase: Option<OsString>,
    /// `ICECORE_CONFIG`
    pub config: Option<PathBuf>,
    /// `ICECORE_CACHE_DIR`
    pub cache_dir: Option<PathBuf>,
    /// `ICECORE_STATE_DIR`
    pub state_dir: Option<PathBuf>,
    pub xdg_cache_home: Option<PathBuf>,
    pub xdg_config_home: Option<PathBuf>,
    pub xdg_state_home: Option<PathBuf>,
    pub home: Option<PathBuf>,
    /// True if the effective user is root.
    pub root: bool,
    /// The error of a variable with an invalid value.
    pub problem: Option<String>,
}

/// Variables that no child process may see.
pub const SECRET_VARIABLES: [&str; 6] = [
    "ICECORE_PASSPHRASE",
    "ICECORE_PASSPHRASE_FILE",
    "ICECORE_PASSPHRASE_COMMAND",
    "ICECORE_TO_PASSPHRASE",
    "ICECORE_TO_PASSPHRASE_FILE",
    "ICECORE_TO_PASSPHRASE_COMMAND",
];

impl Env {
    /// Reads the environment of this process.
    pub fn read() -> Self {
        let [passphrase, file, command, ..] = SECRET_VARIABLES;
        Self::read_secrets("ICECORE_", [passphrase, file, command])
    }

    /// Reads the environment for the second repository of a command that has two:
    /// `ICECORE_TO_PASSPHRASE` and so on.
    pub fn read_other() -> Self {
        let [.., passphrase, file, command] = SECRET_VARIABLES;
        let secrets = Self::read_secrets("ICECORE_TO_", [passphrase, file, command]);
        Self {
            repo: None,
            ..secrets
        }
    }

    /// Returns all variables that are text, except icecore's own secrets, for files that refer to
    /// variables.
    pub fn variables() -> BTreeMap<String, String> {
        let text = env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        text.filter(|(name, _)| !SECRET_VARIABLES.contains(&name.as_str()))
            .collect()
    }

    fn read_secrets(prefix: &'static str, [passphrase, file, command]: [&str; 3]) -> Self {
        let mut problem = None;
        let mut path = |name: &str| {
            let text = env::var_os(name).filter(|v| !v.is_empty())?;
            home::path(&text)
                .map_err(|why| problem = Some(format!("{name}: {why}")))
                .ok()
        };

        let text = |name: &str| env::var(name).ok().filter(|v| !v.is_empty());

        // The XDG rules require that a relative directory is ignored.
        let absolute = |name: &str| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };

        let no_passphrase = env::var_os(format!("{prefix}NO_PASSPHRASE"));
        let env = Self {
            prefix,
            repo: env::var_os("ICECORE_REPO").filter(|v| !v.is_empty()),
            passphrase: env::var_os(passphrase).map(|v| Zeroizing::new(v.into_encoded_bytes())),
            passphrase_file: path(file),
            passphrase_command: text(command),
            no_passphrase: no_passphrase.filter(|v| !v.is_empty()),
            config: path("ICECORE_CONFIG"),
            cache_dir: path("ICECORE_CACHE_DIR"),
            state_dir: path("ICECORE_STATE_DIR"),
            xdg_cache_home: absolute("XDG_CACHE_HOME"),
            xdg_config_home: absolute("XDG_CONFIG_HOME"),
            xdg_state_home: absolute("XDG_STATE_HOME"),
            home: home::home(),
            root: rustix::process::geteuid().is_root(),
            problem: None,
        };
        Self { problem, ..env }
    }

    /// Returns an error if a variable has an invalid value.
    pub fn check(&self) -> Result<(), CliError> {
        match &self.problem {
            Some(problem) => Err(CliError::usage(problem)),
            None => Ok(()),
        }
    }

    /// Returns true if the environment says that the repository has no passphrase.
    pub fn no_passphrase(&self) -> Result<bool, CliError> {
        match self
            .no_passphrase
            .as_ref()
            .map(|value| value.to_str().unwrap_or_default())
        {
            None | Some("0" | "no" | "false") => Ok(false),
            Some("1" | "yes" | "true") => Ok(true),
            Some(_) => {
                let prefix = self.prefix;
                let message = format!("{prefix}NO_PASSPHRASE must be 1 or 0");
                Err(CliError::usage(message))
            }
        }
    }

    /// Returns the directory under which each repository has its index: `ICECORE_CACHE_DIR`, for
    /// root `/var/cache/icecore`, otherwise `$XDG_CACHE_HOME/icecore` or `~/.cache/icecore`.
    /// Returns `None` if no variable gives a directory.
    pub fn cache_root(&self) -> Option<PathBuf> {
        if let Some(dir) = &self.cache_dir {
            return Some(dir.clone());
        }
        if self.root {
            return Some(PathBuf::from("/var/cache/icecore"));
        }
        let base = self
            .xdg_cache_home
            .clone()
            .or_else(|| self.home.as_ref().map(|home| home.join(".cache")))?;
        Some(base.join("icecore"))
    }

    /// Returns the directory of state that must be kept across runs: `ICECORE_STATE_DIR`, for root
    /// `/var/lib/icecore`, otherwise `$XDG_STATE_HOME/icecore` or `~/.local/state/icecore`. Returns
    /// `None` if no variable gives a directory.
    pub fn state_root(&self) -> Option<PathBuf> {
        if let Some(dir) = &self.state_dir {
            return Some(dir.clone());
        }
        if self.root {
            return Some(PathBuf::from("/var/lib/icecore"));
        }
        let base = self
            .xdg_state_home
            .clone()
            .or_else(|| self.home.as_ref().map(|home| home.join(".local/state")))?;
        Some(base.join("icecore"))
    }

    /// Returns the directory of generated key files: for root `/etc/icecore/keys`, otherwise
    /// `$XDG_CONFIG_HOME/icecore/keys` or `~/.config/icecore/keys`. Returns `None` if no variable
    /// gives a directory.
    pub fn keys_dir(&self) -> Option<PathBuf> {
        Some(self.config_dir()?.join("keys"))
    }

    /// Returns the default configuration file: for root `/etc/icecore/icecore.toml`, otherwise
    /// `$XDG_CONFIG_HOME/icecore/icecore.toml` or `~/.config/icecore/icecore.toml`.
    pub fn config_file(&self) -> Option<PathBuf> {
        Some(self.config_dir()?.join("icecore.toml"))
    }

    /// Returns the directory of settings and keys: for root `/etc/icecore`, otherwise
    /// `$XDG_CONFIG_HOME/icecore` or `~/.config/icecore`. Returns `None` if no variable gives a
    /// directory.
    pub fn config_dir(&self) -> Option<PathBuf> {
        if self.root {
            return Some(PathBuf::from("/etc/icecore"));
        }
        let base = self
            .xdg_config_home
            .clone()
            .or_else(|| self.home.as_ref().map(|home| home.join(".config")))?;
        Some(base.join("icecore"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Env {
        Env {
            home: Some("/home/u".into()),
            ..Env::default()
        }
    }

    #[test]
    fn the_cache_root_follows_the_user_and_the_environment() {
        assert_eq!(user().cache_root(), Some("/home/u/.cache/icecore".into()));
        let xdg = Env {
            xdg_cache_home: Some("/x".into()),
            ..user()
        };
        assert_eq!(xdg.cache_root(), Some("/x/icecore".into()));
        let root = Env {
            root: true,
            xdg_cache_home: Some("/x".into()),
            ..user()
        };
        assert_eq!(root.cache_root(), Some("/var/cache/icecore".into()));
        let explicit = Env {
            root: true,
            cache_dir: Some("/c".into()),
            ..user()
        };
        assert_eq!(explicit.cache_root(), Some("/c".into()));
        assert_eq!(Env::default().cache_root(), None);
    }

    #[test]
    fn the_state_root_follows_the_user_and_the_environment() {
        assert_eq!(
            user().state_root(),
            Some("/home/u/.local/state/icecore".into())
        );
        let xdg = Env {
            xdg_state_home: Some("/x".into()),
            ..user()
        };
        assert_eq!(xdg.state_root(), Some("/x/icecore".into()));
        let root = Env { root: true, ..xdg };
        assert_eq!(root.state_root(), Some("/var/lib/icecore".into()));
        assert_eq!(
            Env {
                state_dir: Some("/s".into()),
                ..root
            }
            .state_root(),
            Some("/s".into())
        );
        assert_eq!(Env::default().state_root(), None);
    }

    #[test]
    fn no_child_sees_a_passphrase_of_either_repository() {
        let (own, other) = SECRET_VARIABLES.split_at(3);
        for (own, other) in own.iter().zip(other) {
            assert_eq!(own.replace("ICECORE_", "ICECORE_TO_"), *other);
        }
    }

    #[test]
    fn key_files_lie_in_the_configuration() {
        assert_eq!(
            user().keys_dir(),
            Some("/home/u/.config/icecore/keys".into())
        );
        let xdg = Env {
            xdg_config_home: Some("/x".into()),
            ..user()
        };
        assert_eq!(xdg.keys_dir(), Some("/x/icecore/keys".into()));
        assert_eq!(
            Env { root: true, ..xdg }.keys_dir(),
            Some("/etc/icecore/keys".into())
        );
    }
}
