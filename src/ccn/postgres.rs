//! PostgreSQL's own programs: their command lines, inside a container or on this machine, and their
//! versions.

use std::time::Duration;

use super::ask::{NoAnswer, QueryLimits, answer};
use super::docker::{Docker, DockerError};
use super::profile::{DatabaseServer, ServerAccess};
use crate::source::{CommandError, SpawnOptions, StreamCommand};

/// Time that a dump waits for the lock of one table. A statement that holds the lock may take this
/// long. Without a limit, a session that was left open would block the backup for ever.
const LOCK_WAIT: Duration = Duration::from_secs(10 * 60);
/// Seconds for the programs to connect, for each address. A server may accept a connection and
/// never answer.
const CONNECT_SECONDS: &str = "15";
const CONNECT_TIMEOUT: &str = "PGCONNECT_TIMEOUT";
/// The variable for the session settings that the programs request when they connect.
const OPTIONS: &str = "PGOPTIONS";
/// Removed from the environment: the programs would request this encoding when they connect, and
/// not every database can convert to it.
const CLIENT_ENCODING: &str = "PGCLIENTENCODING";
/// Upper limit of an answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// The reason why one of PostgreSQL's programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("cannot read what {program} printed")]
    Read {
        program: String,
        source: std::io::Error,
    },
    #[error("{program} printed more than 1 MiB")]
    TooLong { program: String },
    /// The program did not answer in time and was ended.
    #[error("{program} did not answer within {seconds} s")]
    NoAnswer { program: String, seconds: u64 },
    /// The operation was cancelled.
    #[error("{program} was interrupted")]
    Interrupted { program: String },
    /// The program printed no version.
    #[error("{program} --version printed '{said}', which names no version")]
    NoVersion { program: String, said: String },
}

/// A version of PostgreSQL's programs, such as 15.14.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PostgresVersion {
    pub major: u32,
    pub minor: u32,
}

impl std::fmt::Display for PostgresVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl PostgresVersion {
    /// Parses `psql (PostgreSQL) 15.14 (Debian …)`. The minor number of a beta is 0.
    pub fn parse(output: &str) -> Option<Self> {
        let number = output
            .split_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = number.split(|c: char| !c.is_ascii_digit());
        let major = parts.next()?.parse().ok()?;
        let minor = parts
            .next()
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0);
        Some(Self { major, minor })
    }

    /// Returns true if the programs of this version write and understand `\restrict` and
    /// `\unrestrict`, which came with the releases of 2025-08-14 (CVE-2025-8714).
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
pub struct PostgresPrograms<'a> {
    server: &'a DatabaseServer,
    /// The container's name in the engine. `None`: the programs of this machine.
    container: Option<String>,
    /// The value of `PGOPTIONS` inside the container.
    container_options: Option<String>,
    /// True after [`Self::with_options`].
    has_options: bool,
    spawn: SpawnOptions,
    patience: QueryLimits,
}

impl<'a> PostgresPrograms<'a> {
    /// Finds the server's container, which must be running. `env_remove`: variables to hide from
    /// every program.
    pub fn find(
        server: &'a DatabaseServer,
        docker: &Docker,
        env_remove: &[String],
    ) -> Result<Self, DockerError> {
        let container = match &server.access {
            ServerAccess::Docker { container } => Some(docker.running_container(container)?),
            ServerAccess::Direct { .. } => None,
        };
        let container_options = container
            .as_ref()
            .and_then(|found| found.variable(OPTIONS))
            .map(str::to_owned);

        let mut env = Vec::new();
        if let ServerAccess::Direct { password_file, .. } = &server.access {
            env.push((CONNECT_TIMEOUT.to_owned(), CONNECT_SECONDS.into()));
            env.extend(
                password_file
                    .iter()
                    .map(|file| ("PGPASSFILE".to_owned(), file.into())),
            );
        }

        let spawn = SpawnOptions {
            env_remove: env_remove.to_vec(),
            env,
        };

        Ok(Self {
            server,
            container: container.map(|found| found.name),
            container_options,
            has_options: false,
            spawn,
            patience: docker.patience().clone(),
        })
    }

    /// Returns the same programs with settings for each session. `options` derives them from the
    /// operator's settings: those inside the container, or `here` for the programs of this machine.
    #[must_use]
    pub fn with_options(
        mut self,
        here: Option<&str>,
        options: impl FnOnce(Option<&str>) -> String,
    ) -> Self {
        let inherited = if self.container.is_some() {
            self.container_options.as_deref()
        } else {
            here
        };
        let options = options(inherited);
        self.spawn.env.push((OPTIONS.to_owned(), options.into()));
        self.spawn.env_remove.push(CLIENT_ENCODING.to_owned());
        self.has_options = true;
        self
    }

    /// Returns the options for starting the programs.
    pub fn spawn_options(&self) -> &SpawnOptions {
        &self.spawn
    }

    /// Returns the command line of a program with these arguments. The program connects as the
    /// server's user and never asks for a password.
    pub fn words(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let mut words = self.bare(program);
        if let ServerAccess::Direct { address, port, .. } = &self.server.access {
            words.extend(address.iter().map(|address| format!("--host={address}")));
            words.extend(port.iter().map(|port| format!("--port={port}")));
        }
        words.extend(
            self.server
                .user
                .iter()
                .map(|user| format!("--username={user}")),
        );
        words.push("--no-password".to_owned());
        words.extend(arguments.iter().map(|&word| word.to_owned()));
        words
    }

    /// Returns the command line that runs a program where the server's programs are, without
    /// options for a connection. It never asks for a terminal, which would turn every newline into
    /// two bytes.
    fn bare(&self, program: &str) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        if let Some(container) = &self.container {
            let timeout = format!("--env={CONNECT_TIMEOUT}={CONNECT_SECONDS}");
            words.extend(["docker", "exec", "-i", &timeout].map(str::to_owned));
            if self.has_options {
                // `docker` passes on the value from its own environment.
                words.push(format!("--env={OPTIONS}"));
            }
            words.push(container.clone());
        }
        words.push(program.to_owned());
        words
    }

    /// Returns the output of a command, less than 1 MiB. A command that hangs is ended after a
    /// minute.
    pub fn output(&self, words: Vec<String>) -> Result<String, PostgresError> {
        let command = StreamCommand::from_words(words)?;
        let program = command.shown();
        let output = answer(&command, &self.spawn, ANSWER_BYTES_MAX, &self.patience);
        let output = output.map_err(|none| match none {
            NoAnswer::Command { err, .. } => PostgresError::Command(err),
            NoAnswer::Read(source) => PostgresError::Read { program, source },
            NoAnswer::TooLong => PostgresError::TooLong { program },
            NoAnswer::Late => PostgresError::NoAnswer {
                program,
                seconds: self.patience.limit.as_secs(),
            },
            NoAnswer::Interrupted => PostgresError::Interrupted { program },
        })?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Returns the version of a program.
    pub fn version(&self, program: &str) -> Result<PostgresVersion, PostgresError> {
        let mut words = self.bare(program);
        words.push("--version".to_owned());
        let output = self.output(words)?;
        PostgresVersion::parse(&output).ok_or_else(|| PostgresError::NoVersion {
            program: program.to_owned(),
            said: output.trim().chars().take(200).collect(),
        })
    }

    /// Returns the command that dumps the whole cluster. The dump drops the old objects first. Its
    /// `\restrict` key is fixed, if the program supports one, so that an unchanged database gives
    /// an unchanged stream. The dump fails if a table stays locked.
    pub fn dump_command(&self, restrict_key: &str) -> Result<StreamCommand, PostgresError> {
        let knows_restrict = self.version("pg_dumpall")?.knows_restrict();
        let arguments = dump_arguments(knows_restrict.then_some(restrict_key));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok(StreamCommand::from_words(
            self.words("pg_dumpall", &arguments),
        )?)
    }
}

/// Returns the arguments of `pg_dumpall`, which passes the lock timeout on to each `pg_dump`.
fn dump_arguments(restrict_key: Option<&str>) -> Vec<String> {
    let lock_wait = format!("--lock-wait-timeout={}", LOCK_WAIT.as_millis());
    let key = restrict_key.map(|key| format!("--restrict-key={key}"));
    ["--clean".to_owned(), lock_wait]
        .into_iter()
        .chain(key)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let version = |text: &str| PostgresVersion::parse(text).expect("a version");
        let debian = version("psql (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n");
        assert_eq!((debian.major, debian.minor), (15, 14));
        assert!(debian.knows_restrict());
        assert!(!version("psql (PostgreSQL) 15.1").knows_restrict());
        assert!(!version("pg_dumpall (PostgreSQL) 12.22").knows_restrict());
        assert!(version("psql (PostgreSQL) 18beta3").knows_restrict());
        assert!(
            version("psql (PostgreSQL) 17.6").knows_restrict()
                && !version("x 17.5").knows_restrict()
        );
        assert_eq!(PostgresVersion::parse("no number"), None);
    }

    #[test]
    fn words_go_into_the_container_or_to_the_address() {
        let access = ServerAccess::Docker {
            container: "c".into(),
        };
        let server = DatabaseServer {
            access,
            user: Some("aleph".into()),
        };

        let spawn = SpawnOptions::default();
        let inside = PostgresPrograms {
            server: &server,
            container: Some("c".into()),
            container_options: Some("-c work_mem=1GB".into()),
            has_options: false,
            spawn: spawn.clone(),
            patience: QueryLimits::default(),
        };

        let words = inside.words("psql", &["-X"]);
        assert_eq!(
            words.join(" "),
            "docker exec -i --env=PGCONNECT_TIMEOUT=15 c psql --username=aleph --no-password -X"
        );

        let inside = inside.with_options(Some("-c here=1"), |own| {
            format!("{} -c a=b", own.unwrap_or("none"))
        });
        assert!(
            inside
                .words("psql", &[])
                .join(" ")
                .contains("PGCONNECT_TIMEOUT=15 --env=PGOPTIONS c psql")
        );

        let value = |programs: &PostgresPrograms<'_>| {
            programs
                .spawn_options()
                .env
                .last()
                .cloned()
                .map(|(_, value)| value)
        };

        assert_eq!(value(&inside), Some("-c work_mem=1GB -c a=b".into()));

        let access = ServerAccess::Direct {
            address: Some("/run/pg".into()),
            port: Some(5433),
            password_file: None,
        };
        let server = DatabaseServer { access, user: None };
        let here = PostgresPrograms {
            server: &server,
            container: None,
            container_options: None,
            has_options: false,
            spawn,
            patience: QueryLimits::default(),
        };

        let words = here.words("pg_dumpall", &["--clean"]);
        assert_eq!(
            words.join(" "),
            "pg_dumpall --host=/run/pg --port=5433 --no-password --clean"
        );

        let here = here.with_options(Some("-c here=1"), |own| own.unwrap_or("none").to_owned());
        assert_eq!(value(&here), Some("-c here=1".into()));
    }

    #[test]
    fn a_dump_does_not_wait_for_ever_for_a_lock() {
        assert_eq!(
            dump_arguments(None),
            ["--clean", "--lock-wait-timeout=600000"]
        );
        assert_eq!(dump_arguments(Some("k"))[2], "--restrict-key=k");
    }

    /// A server that hangs accepts the connection and never answers, and then `psql` hangs as well.
    #[test]
    fn a_program_that_hangs_is_given_up_and_one_that_connects_has_a_time_for_it() {
        let access = ServerAccess::Direct {
            address: None,
            port: None,
            password_file: Some("/etc/pgpass".into()),
        };
        let server = DatabaseServer { access, user: None };
        let mut programs = PostgresPrograms::find(&server, &Docker::default(), &[]).expect("found");
        let env: Vec<&str> = programs
            .spawn_options()
            .env
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(env, ["PGCONNECT_TIMEOUT", "PGPASSFILE"]);
        programs.patience.limit = Duration::from_millis(10);
        let late = programs
            .output(vec!["sleep".into(), "1000".into()])
            .expect_err("too late");
        assert!(matches!(&late, PostgresError::NoAnswer { .. }), "{late}");
        assert!(
            late.to_string().starts_with("sleep 1000 did not answer"),
            "{late}"
        );
    }
}
