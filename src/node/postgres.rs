//! PostgreSQL's own programs: which words run them, inside a container or here, and what they can do.

use std::io::Read;

use super::docker::{Docker, DockerError};
use super::profile::{Access, Server};
use crate::source::{CommandError, SpawnOptions, StreamCommand};

/// The line at the end of what `pg_dumpall` writes: a dump without it is not whole.
pub const DUMP_COMPLETE: &str = "-- PostgreSQL database cluster dump complete";

/// Why one of PostgreSQL's programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("cannot read what {program} printed")]
    Read { program: String, source: std::io::Error },
    /// Its answer is not what it should be.
    #[error("{program} --version printed '{said}', which names no version")]
    NoVersion { program: String, said: String },
}

/// A version of PostgreSQL's programs, such as 15.14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// Reads `psql (PostgreSQL) 15.14 (Debian …)`; of a beta the minor number is 0.
    pub fn parse(said: &str) -> Option<Self> {
        let number = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = number.split(|c: char| !c.is_ascii_digit());
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        Some(Self { major, minor })
    }

    /// True if the programs of this version write and know `\restrict` and `\unrestrict`, which came with the
    /// releases of 2025-08-14 (CVE-2025-8714).
    pub fn knows_restrict(self) -> bool {
        let first = match self.major {
            ..13 => return false,
            13 => 22,
            14 => 19,
            15 => 14,
            16 => 10,
            17 => 6,
            18.. => return true,
        };
        self.minor >= first
    }
}

/// The programs of one server.
#[derive(Debug, Clone)]
pub struct Programs<'a> {
    server: &'a Server,
    /// The container as the engine knows it; none: the machine's own programs.
    container: Option<String>,
    spawn: SpawnOptions,
}

impl<'a> Programs<'a> {
    /// Finds the server's container, which must run. `env_remove`: variables that no program gets to see.
    pub fn find(server: &'a Server, docker: &Docker, env_remove: &[String]) -> Result<Self, DockerError> {
        let container = match &server.access {
            Access::Docker { container } => Some(docker.running_container(container)?.name),
            Access::Direct { .. } => None,
        };
        let mut env = Vec::new();
        if let Access::Direct { password_file: Some(file), .. } = &server.access {
            env.push(("PGPASSFILE".to_owned(), file.clone().into_os_string()));
        }
        Ok(Self { server, container, spawn: SpawnOptions { env_remove: env_remove.to_vec(), env } })
    }

    /// How the programs are to be started.
    pub fn spawn_options(&self) -> &SpawnOptions {
        &self.spawn
    }

    /// The words that run a program with these arguments; it connects as the server's user and never asks for a
    /// password.
    pub fn words(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let mut words = self.bare(program);
        if let Access::Direct { address, port, .. } = &self.server.access {
            words.extend(address.iter().map(|address| format!("--host={address}")));
            words.extend(port.iter().map(|port| format!("--port={port}")));
        }
        words.extend(self.server.user.iter().map(|user| format!("--username={user}")));
        words.push("--no-password".to_owned());
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        words
    }

    /// The words that run a program where the server's programs are; nothing connects. Never with a terminal, which
    /// would turn every newline into two bytes.
    fn bare(&self, program: &str) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        if let Some(container) = &self.container {
            words.extend(["docker", "exec", "-i", container].map(str::to_owned));
        }
        words.push(program.to_owned());
        words
    }

    /// What a program prints, at most 1 MiB.
    pub fn output(&self, words: Vec<String>) -> Result<String, PostgresError> {
        let command = StreamCommand::from_words(words)?;
        let mut running = command.spawn(&self.spawn)?;
        let mut said = Vec::new();
        let read = (&mut running).take(1 << 20).read_to_end(&mut said);
        read.map_err(|source| PostgresError::Read { program: command.shown(), source })?;
        running.finish()?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// The version of a program.
    pub fn version(&self, program: &str) -> Result<Version, PostgresError> {
        let mut words = self.bare(program);
        words.push("--version".to_owned());
        let said = self.output(words)?;
        Version::parse(&said).ok_or_else(|| PostgresError::NoVersion {
            program: program.to_owned(),
            said: said.trim().chars().take(200).collect(),
        })
    }

    /// A dump of the whole cluster: with what drops the old one, and with a steady `\restrict` key where
    /// the program takes one, so that an unchanged database gives an unchanged stream.
    pub fn dump_command(&self, restrict_key: &str) -> Result<StreamCommand, PostgresError> {
        let key = format!("--restrict-key={restrict_key}");
        let mut arguments = vec!["--clean"];
        if self.version("pg_dumpall")?.knows_restrict() {
            arguments.push(&key);
        }
        Ok(StreamCommand::from_words(self.words("pg_dumpall", &arguments))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let version = |text: &str| Version::parse(text).expect("a version");
        let debian = version("psql (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n");
        assert_eq!((debian.major, debian.minor), (15, 14));
        assert!(debian.knows_restrict());
        assert!(!version("psql (PostgreSQL) 15.1").knows_restrict());
        assert!(!version("pg_dumpall (PostgreSQL) 12.22").knows_restrict());
        assert!(version("psql (PostgreSQL) 18beta3").knows_restrict());
        assert!(version("psql (PostgreSQL) 17.6").knows_restrict() && !version("x 17.5").knows_restrict());
        assert_eq!(Version::parse("no number"), None);
    }

    #[test]
    fn words_go_into_the_container_or_to_the_address() {
        let access = Access::Docker { container: "c".into() };
        let server = Server { access, user: Some("aleph".into()) };
        let spawn = SpawnOptions::default();
        let inside = Programs { server: &server, container: Some("c".into()), spawn: spawn.clone() };
        let words = inside.words("psql", &["-X"]);
        assert_eq!(words.join(" "), "docker exec -i c psql --username=aleph --no-password -X");
        let access =
            Access::Direct { address: Some("/run/pg".into()), port: Some(5433), password_file: None };
        let server = Server { access, user: None };
        let here = Programs { server: &server, container: None, spawn };
        let words = here.words("pg_dumpall", &["--clean"]);
        assert_eq!(words.join(" "), "pg_dumpall --host=/run/pg --port=5433 --no-password --clean");
    }
}
