//! Executes a prepared restore.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use super::super::NodeError;
use super::super::check::{pinned_local_names, stored_blocks};
use super::super::kubo::{BlockStore, PASSING};
use super::plan::{NodePart, RestoreScope, RestoreStep};
use super::prepared::{PlacedPart, PreparedRestore};
use super::report::{NodeRestoreReport, PartReport};
use super::restored::remember;
use super::select::CaptureChooser;
use crate::Error;
use crate::advice::{Advice, NodeAdvice};
use crate::dest::OwnerPolicy;
use crate::format::{RunRef, SourceKind};
use crate::observe::{Observer, Phase, Problem, Severity};
use crate::ops::restore::{
    OverwriteRule, RestoreOptions, RestoreReport, RestoreTarget, SnapshotPath, restore_in,
};
use crate::repo::{ChunkReader, HostChoice, MergedRuns, OnDamage, RunStreams};
use crate::task::{Cancel, Task};
use crate::types::{RelPath, to_u64};

/// Directories of kubo's databases. The files of a database belong together, so each directory is
/// replaced as a whole. Later versions of kubo may have others, which are recognized by their
/// files.
const KUBO_DATABASES: [&str; 3] = ["/datastore/", "/badgerds/", "/pebbleds/"];
/// kubo's blocks, and the directories that contain them.
const KUBO_BLOCKS: &str = "/blocks/";
const KUBO_BLOCK_DIRECTORIES: &str = "/blocks/*/";
/// Upper limit of database directories. No kubo has this many.
const DATABASES_MAX: usize = 100;

/// One walk over a part: its patterns, and the handling of existing files.
struct DumpPass {
    include: Vec<String>,
    exclude: Vec<String>,
    overwrite: OverwriteRule,
    replace_whole: bool,
}

impl DumpPass {
    fn all(overwrite: OverwriteRule) -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            overwrite,
            replace_whole: false,
        }
    }
}

/// Returns the walks of a part. `databases`: patterns of directories in kubo's repository that are
/// replaced as a whole.
fn passes(part: NodePart, scope: RestoreScope, databases: Vec<String>) -> Vec<DumpPass> {
    let overwrite = match scope {
        RestoreScope::Files => OverwriteRule::IfSizeDiffers,
        RestoreScope::All | RestoreScope::Minimal => OverwriteRule::IfChanged,
    };
    match (part, scope) {
        (NodePart::Ipfs, RestoreScope::Files) => {
            // The other files belong to kubo, which may be running.
            vec![DumpPass {
                include: vec![KUBO_BLOCKS.to_owned()],
                ..DumpPass::all(overwrite)
            }]
        }
        (NodePart::Ipfs, _) => {
            let mut exclude = databases.clone();
            exclude.extend(PASSING.map(str::to_owned));
            if scope == RestoreScope::Minimal {
                exclude.push(KUBO_BLOCK_DIRECTORIES.to_owned());
            }
            let databases = DumpPass {
                include: databases,
                // Skips the blocks without reading their directories.
                exclude: vec![KUBO_BLOCKS.to_owned()],
                // Files of two databases do not make one, so files that are not in the snapshot are
                // deleted even if it does not account for them.
                replace_whole: true,
                ..DumpPass::all(overwrite)
            };
            vec![
                databases,
                DumpPass {
                    exclude,
                    ..DumpPass::all(overwrite)
                },
            ]
        }
        _ => vec![DumpPass::all(overwrite)],
    }
}

/// Returns patterns for the directories at the top of a captured kubo repository that contain a
/// database: the known ones, and those with the files by which LevelDB, Pebble and Badger find
/// their data. Directories that kubo creates again by itself are left out.
fn databases(
    reader: &ChunkReader<'_>,
    runs: &[RunRef],
    cancel: &Cancel,
) -> Result<Vec<String>, Error> {
    let mut found: Vec<String> = KUBO_DATABASES.map(str::to_owned).to_vec();
    let mut merged = MergedRuns::open(reader, runs, RunStreams::All, OnDamage::Skip)?;
    while let Some(entry) = merged.next_entry()? {
        cancel.check()?;
        let path = entry.path.to_slashed();
        if path == b"blocks" {
            // Skip all entries below it.
            merged.seek(b"blocks\x01");
            continue;
        }

        let Some(top) = path
            .split(|&byte| byte == b'/')
            .next()
            .filter(|top| top.len() < path.len())
        else {
            continue;
        };

        let name = entry.path.name().unwrap_or_default();
        let is_sign =
            name == b"CURRENT" || name == b"MANIFEST" || name.starts_with(b"marker.manifest.");
        if let (true, Ok(top)) = (is_sign, std::str::from_utf8(top)) {
            let pattern = format!("/{}/", escaped(top));
            if !found.contains(&pattern)
                && !PASSING.contains(&pattern.as_str())
                && found.len() < DATABASES_MAX
            {
                found.push(pattern);
            }
        }
    }
    Ok(found)
}

/// Returns a pattern that matches only this name.
fn escaped(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars()
        .flat_map(|c| [(!is_plain(c)).then_some('\\'), Some(c)])
        .flatten()
        .collect()
}

impl PreparedRestore<'_> {
    /// Executes the restore. Paths that cannot be restored are problems, not errors; see
    /// [`NodeRestoreReport`].
    ///
    /// # Errors
    /// Returns the first obstacle, or the error that stopped the restore. In the latter case the
    /// parts after the current one are unchanged. The node must not be started before a restore has
    /// finished.
    pub fn execute(mut self, task: Task<'_>) -> Result<NodeRestoreReport, NodeError> {
        if !self.obstacles.is_empty() {
            return Err(self.obstacles.swap_remove(0));
        }
        let mut report = NodeRestoreReport::default();

        // If the dump does not list the pinned files, stop here, before the first write.
        let choosers: Vec<_> = self
            .steps
            .iter()
            .map(|placed| self.chooser(placed.step.part, task))
            .collect::<Result<_, _>>()?;

        for (placed, chooser) in self.steps.iter().zip(choosers) {
            let done = match placed.step.part {
                NodePart::Database => self.restore_database(placed, task)?,
                _ => self.files(placed, chooser, task)?,
            };
            let is_whole = done.failed + done.incomplete + done.uncertain == 0;
            let part = done.part;
            report.parts.push(done);
            if part == NodePart::Keys && !is_whole {
                return Err(NodeError::Refused {
                    why: "the keys could not be restored completely; nothing else was touched"
                        .into(),
                    advice: "fix the problems reported above, and run it again".into(),
                });
            }
        }

        task.observer.phase(&Phase::End);
        Ok(report)
    }

    pub(super) fn files(
        &self,
        placed: &PlacedPart,
        chooser: Option<Arc<CaptureChooser>>,
        task: Task<'_>,
    ) -> Result<PartReport, NodeError> {
        let PlacedPart { step, spot } = placed;
        let mut report = PartReport::new(placed);
        let Some(spot) = spot else { return Ok(report) };
        let directory = spot.make(self.profile.project.as_deref(), self.docker)?;

        // Record the capture before the first write: a part that is half restored counts as
        // restored.
        self.remember(step, task.observer);

        let databases = match &step.record().kind {
            SourceKind::Tree { runs, .. } if step.part == NodePart::Ipfs => {
                databases(self.session.reader(), runs, task.cancel)?
            }
            _ => Vec::new(),
        };

        for pass in passes(step.part, self.options.scope, databases) {
            let patterns =
                |patterns: Vec<String>| patterns.into_iter().map(OsString::from).collect();
            let options = RestoreOptions {
                include: patterns(pass.include),
                exclude: patterns(pass.exclude),
                select: chooser.clone().map(|chooser| chooser as _),
                overwrite: pass.overwrite,
                replace_whole: pass.replace_whole,
                // Containers have their own users, so the names of users on this machine do not
                // apply.
                owner: OwnerPolicy::Numeric,
                memory: self.options.memory,
                protect: self.options.protect.clone(),
                host: HostChoice::Any,
                ..RestoreOptions::default()
            };
            let what = SnapshotPath {
                snapshot: step.snapshot.id.to_string(),
                source: Some(step.record().name.clone()),
                path: RelPath::root(),
            };

            report.add(&restore_in(
                &self.session,
                &what,
                RestoreTarget::Directory(directory.clone()),
                &options,
            )?);
        }

        if let Some(chooser) = chooser {
            let left_out = chooser.left_out();
            report.left_out = left_out.count;
            report_left_out(
                &report.source,
                &left_out.paths,
                left_out.count,
                task.observer,
            );
        }

        if step.part == NodePart::Ipfs && self.options.scope == RestoreScope::Files {
            report_of_kubo(&report.source, &directory, task.observer);
            if let SourceKind::Tree { runs, .. } = &step.record().kind {
                report_of_blocks(
                    &report.source,
                    &stored_blocks(self.session.reader(), runs, task.cancel)?,
                    task.observer,
                );
            }
        }

        Ok(report)
    }

    /// Returns the filter for single files of a part.
    pub(super) fn chooser(
        &self,
        part: NodePart,
        task: Task<'_>,
    ) -> Result<Option<Arc<CaptureChooser>>, NodeError> {
        if !part.is_file_storage() {
            return Ok(None);
        }

        let database = match (part, self.options.scope) {
            (NodePart::LocalStorage, RestoreScope::Minimal) => self.step(NodePart::Database),
            _ => None,
        };

        let pinned = match database {
            Some(PlacedPart { step, .. }) => Some(pinned_local_names(
                &self.session,
                &step.snapshot,
                self.profile,
                task,
            )?),
            None => None,
        };

        Ok(Some(Arc::new(CaptureChooser::new(pinned)?)))
    }

    /// Records which capture is restored, for the comparison in later restores.
    fn remember(&self, step: &RestoreStep, observer: &dyn Observer) {
        if let Err(err) = remember(self.options.state.as_ref(), self.profile, step) {
            let what = format!(
                "cannot record that it was restored, so a later restore of other parts will not know how old it is: {err}: {}",
                err.source
            );
            observer.problem(&Problem::new(
                Severity::Warning,
                step.record().name.clone(),
                what,
            ));
        }
    }

    fn restore_database(
        &self,
        placed: &PlacedPart,
        task: Task<'_>,
    ) -> Result<PartReport, NodeError> {
        let mut report = PartReport::new(placed);
        if let (Some(database), Some(preview)) = (self.database(task), self.database.as_ref()) {
            self.remember(&placed.step, task.observer);
            for view in database.restore(preview)? {
                report.failed += 1;
                let what = format!(
                    "a materialized view stays empty: {view}; once the cause is fixed, connect to that database as the application does and run: refresh materialized view NAME"
                );
                task.observer
                    .problem(&Problem::new(Severity::Missing, &report.source, what));
            }
            report.bytes_written = database.content.size;
            report.written = 1;
        }
        Ok(report)
    }
}

fn report_left_out(source: &str, paths: &[String], count: u64, observer: &dyn Observer) {
    for path in paths {
        let what =
            "its content does not match its name; left out, so that the node fetches it again";
        observer.problem(&Problem::new(
            Severity::Missing,
            format!("{source}/{path}"),
            what,
        ));
    }
    let untold = count.saturating_sub(to_u64(paths.len()));
    if untold > 0 {
        let what = format!("{untold} more files were left out for the same reason");
        observer.problem(&Problem::new(Severity::Missing, source, what));
    }
}

/// Warns if kubo's own files are missing: blocks without them are not a repository.
fn report_of_kubo(source: &str, directory: &Path, observer: &dyn Observer) {
    if !crate::sys::is_regular_file(&directory.join("config")) {
        let what = "there is no 'config' beside the blocks: kubo would start with a new identity";
        let problem = Problem::new(Severity::Missing, source, what);
        observer.problem(&problem.with_advice(Advice::Node(NodeAdvice::RestoreAllParts)));
    }
}

/// Warns if the blocks are not files: only a restore of the whole repository includes them.
fn report_of_blocks(source: &str, blocks: &BlockStore, observer: &dyn Observer) {
    if let BlockStore::Database(kind) = blocks {
        let what = format!(
            "this kubo stores blocks in a database ({kind}), which is not restored while kubo may be running"
        );
        let problem = Problem::new(Severity::Missing, source, what);
        observer.problem(&problem.with_advice(Advice::Node(NodeAdvice::StopKubo)));
    }
}

impl PartReport {
    fn new(placed: &PlacedPart) -> Self {
        let PlacedPart { step, spot } = placed;
        Self {
            part: step.part,
            source: step.record().name.clone(),
            snapshot: step.snapshot.id,
            place: spot.as_ref().map(ToString::to_string).unwrap_or_default(),
            written: 0,
            bytes_written: 0,
            unchanged: 0,
            deleted: 0,
            failed: 0,
            incomplete: 0,
            left_out: 0,
            refused_meta: 0,
            uncertain: 0,
        }
    }

    fn add(&mut self, pass: &RestoreReport) {
        self.written += pass.files_written;
        self.bytes_written += pass.bytes_written;
        self.unchanged += pass.files_unchanged;
        self.deleted += pass.deleted;
        self.failed += pass.failed;
        self.incomplete += pass.incomplete;
        self.refused_meta += pass.refused_meta;
        self.uncertain += to_u64(pass.uncertain.len());
    }
}
