//! The database to restore: the state of its server before the first write.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::NodeError;
use super::super::docker::{Docker, DockerError};
use super::super::dump::{DumpHead, DumpNeeds, HeadReader, NeedsReader, RestoreFilter, ShapeError};
use super::super::postgres::{PostgresError, PostgresPrograms};
use super::super::profile::{DatabaseServer, ServerAccess};
use super::catalogue::CatalogueQuery;
use super::lacks::{self, needs_neutral};
use super::preview::{ABOUT, ComparedServer, PreviewNote, RestorePreview, TABLES};
use super::psql::{last_error, query};
use super::settings;
use crate::advice::{Advice, DumpAdvice};
use crate::observe::{Phase, ProgressUnit};
use crate::read::ReadSession;
use crate::source::CommandError;
use crate::task::Task;
use crate::types::Content;

/// Pause between two attempts to reach the server.
const POLL: Duration = Duration::from_millis(250);
/// A server that only accepts connections from its own container may still be in setup. After this
/// time it is used as it is.
const SETUP_GRACE: Duration = Duration::from_secs(15);

/// Name of a database that accepts any encoding. It is created if the dump needs one, and dropped
/// at the end.
const NEUTRAL: &str = "icecore_restore";

/// The dump, and the server that receives it.
pub(super) struct DatabaseRestore<'a> {
    pub server: &'a DatabaseServer,
    pub docker: &'a Docker,
    pub env_remove: &'a [String],
    /// The operator's `PGOPTIONS`.
    pub pgoptions: Option<&'a str>,
    /// The source's name.
    pub source: &'a str,
    /// The dump's name, with its snapshot: `4f1c9a02:db`.
    pub name: String,
    pub content: &'a Content,
    pub session: &'a ReadSession<'a>,
    pub task: Task<'a>,
}

impl DatabaseRestore<'_> {
    /// Reads the first part of the dump.
    pub fn head(&self) -> Result<DumpHead, NodeError> {
        let mut head = HeadReader::new();
        let read = self.session.write_content(
            self.content,
            &mut head,
            Task::new(&crate::observe::Counters::default(), self.task.cancel),
        );

        if !head.is_done() {
            read?;
        }
        let head = head.into_head();
        if !head.is_cluster {
            let is = head.kind.what();
            return Err(NodeError::Refused {
                why: format!(
                    "'{}' is not the dump of a whole cluster by pg_dumpall{is}",
                    self.source
                ),
                advice: Advice::Dump(DumpAdvice::RestoreDump {
                    dump: self.name.clone(),
                    reader: head.kind.reader(),
                }),
            });
        }
        Ok(head)
    }

    /// Queries the server, waiting at most this long for it.
    pub fn preview(&self, head: DumpHead, wait: Duration) -> Result<RestorePreview, NodeError> {
        let (about, base) = self.reach(wait)?;
        let programs = self.asking()?;

        // Count the tables of the databases that would be replaced.
        let mut there = about.databases;
        for one in &mut there {
            one.is_replaced = head.databases.contains(&one.name)
                || one.name == "postgres"
                || one.name == "template1";
            if one.is_replaced && one.can_connect {
                one.tables = Some(self.tables(&programs, &one.name)?);
            }
        }

        Ok(RestorePreview {
            brings: head.databases,
            dumped_from: head.version,
            server_version: about.version,
            role: about.role,
            there,
            base,
            psql: programs.version("psql")?,
            is_superuser: about.is_superuser,
            is_standby: about.is_standby,
            compared: ComparedServer::default(),
        })
    }

    /// Reads the whole dump and compares its requirements with the server. The role must be a
    /// superuser.
    ///
    /// The restore itself reads the dump again. Reading it here finds unreadable parts, and
    /// commands that `psql` must not get, before anything is dropped.
    pub fn compare(&self, preview: &RestorePreview) -> Result<ComparedServer, NodeError> {
        let needs = self.needs(preview)?;
        let programs = self.asking()?;
        let server = CatalogueQuery {
            programs: &programs,
            base: preview.base,
            dump: &self.name,
        };

        let facts = server.facts().map_err(|err| self.explain_failure(err))?;

        let replaced: BTreeSet<&str> = preview
            .there
            .iter()
            .filter(|there| there.is_replaced)
            .map(|there| there.name.as_str())
            .collect();
        let holding: BTreeSet<&str> = preview
            .there
            .iter()
            .filter(|there| there.is_held())
            .map(|there| there.name.as_str())
            .collect();

        let mut lacks = lacks::lacks(&needs, &facts, &replaced, &server)
            .map_err(|err| self.explain_failure(err))?;
        lacks.extend(lacks::kept(&needs, &facts, &holding));
        let mut compared = ComparedServer {
            lacks,
            notes: lacks::notes(&needs, &facts),
            neutral: None,
            cannot_mix: None,
        };

        // Some encodings require a connection to a neutral database before each part.
        if needs_neutral(&needs, &facts.base_encoding) {
            match needs.sections.iter().find(|section| !section.connects) {
                None => compared.neutral = Some(self.neutral(&programs, preview)?),
                Some(section) => compared.cannot_mix = Some(section.database.clone()),
            }
        }

        Ok(compared)
    }

    /// Collects the requirements of the dump. The dump also passes through the filter, which
    /// rejects text that is not a dump.
    fn needs(&self, preview: &RestorePreview) -> Result<DumpNeeds, NodeError> {
        self.task.observer.phase(&Phase::Dump {
            name: self.source.to_owned(),
        });
        self.task
            .observer
            .expect(self.content.size, ProgressUnit::Bytes);
        let mut both = TeeWriter {
            filter: RestoreFilter::new(io::sink(), preview.rules(None)),
            needs: NeedsReader::new(),
            refused: None,
        };
        let written = self
            .session
            .write_content(self.content, &mut both, self.task);
        let TeeWriter {
            filter,
            needs,
            refused,
        } = both;

        // The filter's own error is more precise than that of the interrupted read.
        let ended = match refused {
            Some(why) => Err(why),
            None => {
                written?;
                filter.finish().map(drop).map_err(|err| err.to_string())
            }
        };

        ended.map_err(|why| NodeError::Refused {
            why: format!(
                "the dump '{}' is not the output of pg_dumpall: {why}",
                self.source
            ),
            advice: Advice::Dump(DumpAdvice::UseOtherDump {
                dump: self.name.clone(),
            }),
        })?;

        let needs = needs.into_needs();
        let dump = self.name.clone();
        match &needs.misshapen {
            None => Ok(needs),
            Some(ShapeError::Torn(why)) => Err(NodeError::Refused {
                why: format!(
                    "the dump '{}' is not complete output of pg_dumpall: {why}",
                    self.source
                ),
                advice: Advice::Dump(DumpAdvice::UseOtherDump { dump }),
            }),
            Some(ShapeError::Partial(why)) => Err(NodeError::Refused {
                why: format!("the dump '{}' cannot restore a cluster: {why}", self.source),
                advice: Advice::Dump(DumpAdvice::DumpCluster { dump }),
            }),
        }
    }

    /// Returns a name that neither the dump nor the server has. An empty database of that name,
    /// left by an interrupted restore, counts as free.
    fn neutral(
        &self,
        programs: &PostgresPrograms<'_>,
        preview: &RestorePreview,
    ) -> Result<String, NodeError> {
        let mut name = NEUTRAL.to_owned();
        loop {
            let is_brought = preview.brings.contains(&name);
            let is_free = match preview.there.iter().find(|there| there.name == name) {
                None => true,
                Some(there) => there.can_connect && self.tables(programs, &there.name)? == 0,
            };
            if is_free && !is_brought {
                return Ok(name);
            }
            name.push('_');
        }
    }

    /// Returns the programs, for sessions that only read.
    fn asking(&self) -> Result<PostgresPrograms<'_>, DockerError> {
        let programs = PostgresPrograms::find(self.server, self.docker, self.env_remove)?;
        Ok(programs.with_options(self.pgoptions, settings::asking))
    }

    /// Returns the programs, for the session that receives the dump.
    pub fn writing(&self, preview: &RestorePreview) -> Result<PostgresPrograms<'_>, DockerError> {
        let programs = PostgresPrograms::find(self.server, self.docker, self.env_remove)?;
        Ok(programs.with_options(self.pgoptions, |own| {
            settings::writing(own, preview.server_major())
        }))
    }

    /// Queries the server until it answers or the time is over.
    fn reach(&self, wait: Duration) -> Result<(PreviewNote, &'static str), NodeError> {
        let start = Instant::now();
        let is_inside = matches!(self.server.access, ServerAccess::Docker { .. });
        let mut heard: Option<Instant> = None;
        loop {
            let late = start.elapsed() >= wait;
            match self.ask() {
                // On its first start, the image runs a temporary server for its own scripts.
                Ok((about, _))
                    if is_inside
                        && !about.listens
                        && !late
                        && heard.get_or_insert_with(Instant::now).elapsed() < SETUP_GRACE => {}
                Ok(found) => return Ok(found),
                Err(err) if late || !is_passing(&err) => return Err(self.explain_failure(err)),
                Err(_) => {}
            }
            let until = Instant::now() + POLL;
            while Instant::now() < until {
                self.task.check()?;
                std::thread::sleep(POLL / 5);
            }
        }
    }

    fn ask(&self) -> Result<(PreviewNote, &'static str), NodeError> {
        let programs = self.asking()?;
        let ask = |base| {
            programs
                .output(query(&programs, base, ABOUT))
                .map(|output| (output, base))
        };
        // An interrupted restore may have left the server without `postgres`, or with half of it.
        let (output, base) = ask("postgres").or_else(|err| ask("template1").map_err(|_| err))?;
        let about = serde_json::from_str(output.trim()).map_err(|err| NodeError::Refused {
            why: format!("cannot parse the database server's answer: {err}"),
            advice: "is it PostgreSQL 10 or later?".into(),
        })?;
        Ok((about, base))
    }

    fn tables(&self, programs: &PostgresPrograms<'_>, database: &str) -> Result<u64, NodeError> {
        let output = programs
            .output(query(programs, database, TABLES))
            .map_err(|err| self.explain_failure(err.into()))?;
        output.trim().parse().map_err(|_| NodeError::Refused {
            why: format!(
                "cannot count the tables of '{database}', the database server answered: {}",
                output.trim()
            ),
            advice: "the configured user must be allowed to read each of its databases".into(),
        })
    }
}

impl DatabaseRestore<'_> {
    /// Turns a failed query into an error of one line, with advice on how to reach the server.
    fn explain_failure(&self, err: NodeError) -> NodeError {
        match err {
            NodeError::Postgres(PostgresError::Command(CommandError::Failed { ending, stderr_tail, .. })) => {
                let message = last_error(&stderr_tail);
                let advice = match &self.server.access {
                    ServerAccess::Docker { .. } => "it must run and accept the configured user; start it: docker compose up -d postgres".to_owned(),
                    ServerAccess::Direct { password_file, .. } => unreachable_advice(&message, password_file.as_deref()),
                };
                let why = format!("the database server does not answer ({ending}): {message}");
                NodeError::Refused { why, advice: advice.into() }
            }
            NodeError::Docker(DockerError::NoContainer { name, .. }) => NodeError::Refused {
                why: format!("there is no container '{name}' to restore the database into"),
                advice: "restore keys and configuration first (SNAP:SOURCE names single sources), then start the database: docker compose up -d postgres".into(),
            },
            err => err,
        }
    }
}

/// Returns advice on an unreachable server outside of containers. `message`: the error of `psql`.
fn unreachable_advice(message: &str, password_file: Option<&Path>) -> String {
    let is_password = ["password", "pg_hba.conf", "authentication"]
        .iter()
        .any(|sign| message.contains(sign));
    match (is_password, password_file) {
        (true, Some(file)) => format!(
            "the server must accept the configured user: {} must exist, have mode 0600, and hold a line HOST:PORT:*:USER:PASSWORD that matches 'address', 'port' and 'user' in icecore.toml",
            file.display()
        ),
        (true, None) => "the server must accept the configured user: set 'password_file' in icecore.toml (in the format of .pgpass), and check 'user' there".to_owned(),
        (false, _) => "the server must run at the 'address' and 'port' of icecore.toml and accept the configured 'user'".to_owned(),
    }
}

/// Passes a dump to the filter and to the reader of its requirements.
struct TeeWriter {
    filter: RestoreFilter<io::Sink>,
    needs: NeedsReader,
    /// The error of the filter.
    refused: Option<String>,
}

impl Write for TeeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(err) = self.filter.write_all(bytes) {
            self.refused = Some(err.to_string());
            return Err(err);
        }
        self.needs.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns true if another attempt may succeed.
fn is_passing(err: &NodeError) -> bool {
    matches!(
        err,
        NodeError::Docker(DockerError::NotRunning { .. })
            | NodeError::Postgres(PostgresError::Command(CommandError::Failed { .. }))
    )
}
