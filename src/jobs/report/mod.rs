//! Results of operations as values that serialise with serde: one form for the command line's JSON
//! lines, a service and metrics.
//!
//! An *event* reports on a running operation, a *record* is one line of a command's data, and a
//! *summary* is its result. `docs/json.md` describes every key, and a test compares that page with
//! these types. Names of keys, and values that the page shows as code, never change.
//!
//! Naming: `*_bytes` and `bytes_*` are amounts in bytes, `size` is the plain size of one file or
//! stream, `*seconds` are durations. The noun stands first in what an operation did
//! (`files_written`), and last in what there is (`condemned_packs`). A value that does not exist is
//! absent, never null.

mod backup;
mod copy;
mod difference;
mod entry;
mod event;
mod forget;
mod key;
mod missing;
pub mod node;
mod prune;
mod repair;
mod restore;
mod snapshot;
mod stats;
mod status;
mod tag;
mod value;
mod verify;

pub use backup::BackupSummary;
pub use copy::{CopyRecord, CopySummary};
pub use difference::DifferenceRecord;
pub use entry::{EntryRecord, ListedSourceRecord, entry_kind_name, flag_names, missing_names};
pub use event::{
    CounterValues, DetailEvent, ErrorEvent, PlannedEvent, ProblemEvent, ProgressEvent,
    SummaryEvent, planned_verb_name, severity_name,
};
pub use forget::{DecisionRecord, ForgetSummary};
pub use key::{InitSummary, KeyRecord, KeySummary};
pub use missing::{MissingParts, MissingPathRecord};
pub use prune::{ObjectAmountRecord, PackAmountRecord, PruneSummary};
pub use repair::{
    DamagedPackRecord, RepairConfigSummary, RepairIndexSummary, RepairPacksSummary,
    RepairSnapshotsSummary, ReplacedSnapshotRecord,
};
pub use restore::RestoreSummary;
pub use snapshot::{ImageRecord, SnapshotRecord, SnapshotSourceRecord};
pub use stats::StatsRecord;
pub use status::{CaptureRecord, SourceStatusRecord, StatusSummary};
pub use tag::{TagRecord, TagSummary, UndeleteSummary};
pub use value::{LinkTargetField, PathField, PatternField, SubjectField, rfc3339};
pub use verify::{AffectedRecord, FindingRecord, VerifySummary};
