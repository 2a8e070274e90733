//! `docs/json.md` has the keys that the library's reports serialise, and no others: fully filled
//! samples of each event, record and summary.

use std::collections::{BTreeMap, BTreeSet};

use icecore::ccn::restore::NodePart;
use icecore::jobs::config::{
    EffectiveConfig, EffectiveSetting, EffectiveSource, SettingOrigin, SettingValue,
};
use icecore::jobs::report::node::{
    CheckedPlaceRecord, FoundDatabaseRecord, FoundFilesRecord, FoundTreeRecord, NodeCheckSummary,
    NodeFileRecord, NodeInitSummary, NodePlanRecord, NodeRestoreSummary, ObstacleRecord,
    PlannedContainerRecord, PlannedDatabaseRecord, PlannedImageRecord, PlannedPartRecord,
    RestoredPartRecord,
};
use icecore::jobs::report::{
    AffectedRecord, BackupSummary, CaptureRecord, CopyRecord, CopySummary, CounterValues,
    DamagedPackRecord, DecisionRecord, DetailEvent, DifferenceRecord, EntryRecord, ErrorEvent,
    FindingRecord, ForgetSummary, ImageRecord, InitSummary, KeyRecord, KeySummary, LinkTargetField,
    ListedSourceRecord, MissingParts, MissingPathRecord, ObjectAmountRecord, PackAmountRecord,
    PathField, PatternField, PlannedEvent, ProblemEvent, ProgressEvent, PruneSummary,
    RepairConfigSummary, RepairIndexSummary, RepairPacksSummary, RepairSnapshotsSummary,
    ReplacedSnapshotRecord, RestoreSummary, SnapshotRecord, SnapshotSourceRecord,
    SourceStatusRecord, StatsRecord, StatusSummary, SubjectField, SummaryEvent, TagRecord,
    TagSummary, UndeleteSummary, VerifySummary,
};
use serde::Serialize;

use super::json_page::{JsonPage, PageObject, assert_keys};

/// Compares samples with the page, and remembers which objects of it were compared.
struct PageComparison {
    page: JsonPage,
    seen: BTreeSet<(String, String)>,
}

impl PageComparison {
    fn check(&mut self, section: &str, name: &str, sample: &impl Serialize) {
        self.check_with(section, name, sample, &[]);
    }

    /// Compares a sample that also has the keys of these objects.
    fn check_with(
        &mut self,
        section: &str,
        name: &str,
        sample: &impl Serialize,
        also: &[(&str, &str)],
    ) {
        let mut expected = PageObject::new();
        for (section, name) in [(section, name)].iter().chain(also) {
            let place = ((*section).to_owned(), (*name).to_owned());
            let Some(object) = self.page.objects.get(&place) else {
                panic!(
                    "docs/json.md has no table for {place:?}: {:?}",
                    self.page.objects.keys()
                );
            };
            expected.extend(object.clone());
            self.seen.insert(place);
        }
        let value = serde_json::to_value(sample).expect("JSON");
        assert_keys(&format!("{section} {name}"), &value, &expected, true);
    }
}

fn text() -> String {
    "a".to_owned()
}

fn path() -> PathField {
    PathField::new(b"a\xff")
}

fn subject() -> SubjectField {
    SubjectField::new(b"a\xff")
}

fn missing() -> MissingParts {
    MissingParts {
        incomplete: 1,
        partial: Some(1),
        unseen: Some(1),
        lost_paths: 1,
        paths: vec![missing_path()],
        cut: true,
    }
}

fn missing_path() -> MissingPathRecord {
    MissingPathRecord {
        path: path(),
        kind: "failed",
        reason: Some(text()),
    }
}

fn capture() -> CaptureRecord {
    CaptureRecord {
        snapshot: text(),
        committed: Some(text()),
        age_seconds: 1.0,
        complete: true,
    }
}

fn prune() -> PruneSummary {
    let packs = PackAmountRecord { packs: 1, bytes: 1 };
    let objects = ObjectAmountRecord {
        objects: 1,
        bytes: 1,
    };
    PruneSummary {
        dry_run: true,
        other_prune: true,
        roots: 1,
        chunks: 1,
        live: packs,
        dead: packs,
        adopted: packs,
        condemned: packs,
        copied: packs,
        copy_stopped: Some("full"),
        dropped: packs,
        bytes_freed: 1,
        pending: packs,
        pending_until: Some(text()),
        pending_reasons: vec![text()],
        held: packs,
        held_until: Some(text()),
        unreadable_snapshots: 1,
        vanished_snapshots: 1,
        quarantine_deleted: objects,
        quarantined: objects,
        segments_merged: 1,
        segments_deleted: 1,
        leases_deleted: 1,
        forgotten_deleted: 1,
        checkpoints_deleted: 1,
        unfinished_deleted: 1,
    }
}

fn checked_place() -> CheckedPlaceRecord {
    CheckedPlaceRecord {
        stored: 1,
        wanted: 1,
        missing_files: 1,
        missing_by_pin: BTreeMap::from([("tx", 1)]),
        wrong_name: 1,
        torn: 1,
        wrong_size: 1,
        vanished: 1,
    }
}

fn restored_part() -> RestoredPartRecord {
    RestoredPartRecord {
        part: NodePart::Keys,
        source: text(),
        snapshot: text(),
        place: text(),
        files_written: 1,
        files_unchanged: 1,
        bytes_written: 1,
        deleted: 1,
        failed: 1,
        incomplete: 1,
        left_out: 1,
        refused_metadata: 1,
        uncertain: 1,
    }
}

#[test]
fn the_page_has_the_keys_of_every_event_and_record() {
    let mut compared = PageComparison {
        page: JsonPage::read(),
        seen: BTreeSet::new(),
    };
    check_events(&mut compared);
    check_listings(&mut compared);
    check_config(&mut compared);
    check_results(&mut compared);
    check_maintenance(&mut compared);
    check_node(&mut compared);

    let described: BTreeSet<(String, String)> = compared.page.objects.keys().cloned().collect();
    let rest: Vec<&(String, String)> = described.difference(&compared.seen).collect();
    assert!(rest.is_empty(), "no sample of {rest:?}");
}

fn check_events(compared: &mut PageComparison) {
    let progress = ProgressEvent {
        phase: text(),
        seconds: 1.5,
        done: Some(1),
        total: Some(1),
        unit: Some("bytes"),
        counters: CounterValues::default(),
    };
    compared.check_with("progress", "", &progress, &[("Counters", "")]);
    let problem = ProblemEvent {
        severity: "note",
        subject: subject(),
        message: text(),
        hint: Some(text()),
    };
    compared.check("problem", "", &problem);
    let detail = DetailEvent {
        verb: text(),
        subject: subject(),
    };
    compared.check("detail", "", &detail);
    let planned = PlannedEvent {
        action: "write",
        source: text(),
        path: path(),
        mtime_here: Some(text()),
        here_is_newer: true,
    };
    compared.check("planned", "", &planned);
    let end = SummaryEvent {
        command: "backup",
        exit_code: 1,
        seconds: 1.5,
        body: &BTreeMap::<String, u64>::new(),
    };
    compared.check("summary and error", "summary", &end);
    let error = ErrorEvent {
        exit_code: 1,
        message: text(),
        hint: Some(text()),
    };
    compared.check("summary and error", "error", &error);
}

fn check_listings(compared: &mut PageComparison) {
    let source = SnapshotSourceRecord {
        name: text(),
        kind: "tree",
        path: Some(path()),
        command: Some(vec![text()]),
        size: Some(1),
        incomplete: 1,
        suspect: Some(text()),
        missing: Some(missing()),
    };
    compared.check("snapshots", "sources", &source);
    let image = ImageRecord {
        service: text(),
        image: text(),
        id: text(),
        digest: Some(text()),
        sources: vec![text()],
    };
    compared.check("snapshots", "images", &image);
    let snapshot = SnapshotRecord {
        id: text(),
        host: text(),
        time: Some(text()),
        started: Some(text()),
        ended: Some(text()),
        state: text(),
        tags: vec![text()],
        protected: true,
        lost_paths: Some(1),
        original: Some(text()),
        forgotten: Some(text()),
        sources: vec![source],
        images: vec![image],
    };
    compared.check("snapshots", "", &snapshot);
    compared.check("Missing parts", "", &missing());
    compared.check("Missing parts", "paths", &missing_path());

    let source = ListedSourceRecord {
        name: text(),
        kind: "tree",
        size: Some(1),
        time: Some(text()),
        started: Some(text()),
        partial: Some(1),
    };
    compared.check("ls and find", "source", &source);
    let entry = EntryRecord {
        snapshot: Some(text()),
        source: text(),
        path: path(),
        kind: "file",
        size: Some(1),
        mode: Some(1),
        uid: Some(1),
        gid: Some(1),
        mtime: Some(text()),
        target: Some(LinkTargetField::new(b"a\xff")),
        flags: vec!["torn"],
        missing_names: Some("unseen"),
        reason: Some(text()),
    };
    compared.check("ls and find", "entry", &entry);
    let difference = DifferenceRecord {
        change: "added",
        source: text(),
        path: path(),
        old_size: Some(1),
        new_size: Some(1),
    };
    compared.check("diff", "", &difference);
    let stats = StatsRecord {
        snapshots: 1,
        checkpoints: 1,
        segments: 1,
        packs: 1,
        condemned_packs: 1,
        chunks: 1,
        data_bytes: 1,
        metadata_bytes: 1,
        stored_bytes: 1,
        latest_sources: 1,
        latest_files: 1,
        latest_bytes: 1,
        cache_bytes: 1,
    };
    compared.check("stats", "", &stats);
    let source = SourceStatusRecord {
        host: text(),
        source: text(),
        path: Some(path()),
        snapshots: 1,
        good: Some(capture()),
        newest: capture(),
        state: "complete",
        suspect: Some(text()),
        missing: Some(missing()),
    };
    compared.check("status", "source_status", &source);
    compared.check("status", "good newest", &capture());
    let status = StatusSummary {
        sources: 1,
        packs: 1,
        stored_bytes: 1,
        condemned_packs: 1,
        condemned_bytes: 1,
        live_leases: 1,
        unverified_since: Some(text()),
        packs_listed: Some(text()),
        vanished_snapshots: vec![text()],
    };
    compared.check("status", "summary", &status);
}

fn check_config(compared: &mut PageComparison) {
    let setting = EffectiveSetting {
        key: "backup.level",
        value: SettingValue::Number(3),
        origin: SettingOrigin::File,
    };
    compared.check("config show", "settings", &setting);
    let source = EffectiveSource {
        name: text(),
        settings: vec![setting.clone()],
    };
    compared.check("config show", "sources", &source);
    let config = EffectiveConfig {
        file: Some(text()),
        settings: vec![setting],
        sources: vec![source],
    };
    compared.check("config show", "", &config);
}

fn check_results(compared: &mut PageComparison) {
    let init = InitSummary { repository: text() };
    compared.check("init and key", "summary init", &init);
    let slot = KeySummary { slot: text() };
    compared.check("init and key", "summary key add change remove", &slot);
    let key = KeyRecord {
        slot: text(),
        label: text(),
        created: Some(text()),
        current: true,
        damage: Some(text()),
    };
    compared.check("init and key", "key", &key);
    let backup = BackupSummary {
        snapshot: Some(text()),
        state: text(),
        dry_run: true,
        segments_written: 1,
        counters: CounterValues::default(),
    };
    compared.check_with("backup", "", &backup, &[("Counters", "")]);
    let pattern = PatternField::new(b"a\xff");
    compared.check("restore", "unmatched", &pattern);
    let restore = RestoreSummary {
        snapshot: text(),
        dry_run: true,
        entries: 1,
        files_written: 1,
        files_unchanged: 1,
        newer_here: 1,
        hard_links: 1,
        bytes_written: 1,
        deleted: 1,
        not_deleted: 1,
        failed: 1,
        incomplete: 1,
        refused_metadata: 1,
        owners_not_set: 1,
        verified: 1,
        different: 1,
        leftovers: 1,
        uncertain: 1,
        unmatched: vec![pattern],
    };
    compared.check("restore", "", &restore);
    let copy = CopyRecord {
        snapshot: text(),
        outcome: "copied",
        copy: Some(text()),
        reason: Some(text()),
    };
    compared.check("copy", "copy", &copy);
    let copied = CopySummary {
        dry_run: true,
        copied: 1,
        present: 1,
        failed: 1,
        packs_written: 1,
        bytes_stored: 1,
    };
    compared.check("copy", "summary", &copied);
    let undelete = UndeleteSummary {
        snapshot: text(),
        replaces: text(),
    };
    compared.check("undelete and tag", "summary undelete", &undelete);
    let tagged = TagRecord {
        snapshot: text(),
        replaces: Some(text()),
        tags: vec![text()],
        protected: true,
    };
    compared.check("undelete and tag", "tagged", &tagged);
    let tag = TagSummary {
        changed: 1,
        unchanged: 1,
    };
    compared.check("undelete and tag", "summary tag", &tag);
}

fn check_maintenance(compared: &mut PageComparison) {
    let finding = FindingRecord {
        object: text(),
        kind: text(),
        message: text(),
    };
    compared.check("verify", "finding", &finding);
    let affected = AffectedRecord {
        snapshot: text(),
        source: text(),
        path: path(),
        hit: "content",
    };
    compared.check("verify", "affected", &affected);
    let verify = VerifySummary {
        snapshots: 1,
        segments: 1,
        packs: 1,
        packs_read: 1,
        bytes_fetched: 1,
        bytes_read: 1,
        chunks: 1,
        orphan_packs: 1,
        never_verified: 1,
        findings: 1,
        affected: 1,
    };
    compared.check("verify", "summary", &verify);
    let decision = DecisionRecord {
        snapshot: text(),
        host: text(),
        sources: vec![text()],
        tags: vec![text()],
        time: Some(text()),
        state: text(),
        action: "keep",
        reasons: vec![text()],
    };
    compared.check("forget", "decision", &decision);
    let forget = ForgetSummary {
        dry_run: true,
        kept: 1,
        dropped: 1,
        refused: 1,
        prune: Some(prune()),
    };
    compared.check("forget", "summary", &forget);
    compared.check("prune", "", &prune());

    let index = RepairIndexSummary {
        packs_adopted: 1,
        chunks_adopted: 1,
        segments_written: 1,
        unreadable_packs: 1,
        damaged_segments: 1,
    };
    compared.check("repair", "summary repair index", &index);
    let config = RepairConfigSummary {
        written: vec![text()],
    };
    compared.check("repair", "summary repair config", &config);
    let pack = DamagedPackRecord {
        pack: text(),
        message: text(),
        fate: "healed",
    };
    compared.check("repair", "damaged_pack", &pack);
    let packs = RepairPacksSummary {
        dry_run: true,
        packs: 1,
        packs_read: 1,
        damaged: 1,
        chunks_saved: 1,
        bytes_saved: 1,
        lost_chunks: 1,
        lost_for_now: 1,
        unreadable_now: 1,
        still_lost: 1,
        packs_adopted: 1,
        parity_written: 1,
    };
    compared.check("repair", "summary repair packs", &packs);
    let replaced = ReplacedSnapshotRecord {
        snapshot: Some(text()),
        replaces: text(),
        lost_paths: 1,
    };
    compared.check("repair", "replaced_snapshot", &replaced);
    let snapshots = RepairSnapshotsSummary {
        dry_run: true,
        snapshots: 1,
        damaged: 1,
        healed: 1,
        unreadable: 1,
        unreadable_now: 1,
        set_aside: 1,
    };
    compared.check("repair", "summary repair snapshots", &snapshots);
}

fn check_node(compared: &mut PageComparison) {
    let database = FoundDatabaseRecord {
        service: text(),
        container: text(),
        state: Some(text()),
        user: text(),
        database: text(),
    };
    compared.check("node init", "database", &database);
    let tree = FoundTreeRecord {
        service: Some(text()),
        volume: Some(text()),
        path: Some(text()),
    };
    compared.check("node init", "local_storage ipfs keys", &tree);
    let files = FoundFilesRecord {
        path: text(),
        only: vec![text()],
    };
    compared.check("node init", "config compose", &files);
    let init = NodeInitSummary {
        file: text(),
        project: text(),
        compose_files: vec![text()],
        no_engine: Some(text()),
        database: Some(database),
        local_storage: Some(tree.clone()),
        ipfs: Some(tree.clone()),
        keys: Some(tree),
        config: Some(files.clone()),
        compose: Some(files),
        writers: vec![text()],
        notes: vec![text()],
        address: Some(text()),
    };
    compared.check("node init", "", &init);

    let file = NodeFileRecord {
        kind: text(),
        hash: text(),
        pins: vec!["tx"],
        source: text(),
        path: text(),
        size: Some(1),
        expected_size: Some(1),
    };
    compared.check("node check", "file", &file);
    let check = NodeCheckSummary {
        snapshot: text(),
        live: true,
        files: 1,
        pins: 1,
        pinned: 1,
        missing_files: 1,
        mismatches: 1,
        local_storage: checked_place(),
        ipfs: checked_place(),
    };
    compared.check("node check", "summary", &check);
    compared.check("node check", "local_storage ipfs", &checked_place());

    for (name, item) in plan_items() {
        compared.check("node restore", name, &item);
    }
    let restore = NodeRestoreSummary {
        parts: vec![restored_part()],
        refill: 1,
    };
    compared.check("node restore", "summary", &restore);
    compared.check("node restore", "parts", &restored_part());
}

fn plan_items() -> [(&'static str, NodePlanRecord); 5] {
    let step = NodePlanRecord::Step(PlannedPartRecord {
        part: NodePart::LocalStorage,
        source: text(),
        snapshot: text(),
        started: Some(text()),
        bytes: 1,
        entries: 1,
        place: text(),
        is_new: true,
    });
    let container = NodePlanRecord::Container(PlannedContainerRecord {
        name: text(),
        state: Some(text()),
        must_stop: true,
    });
    let image = NodePlanRecord::Image(PlannedImageRecord {
        service: text(),
        snapshot: text(),
        image: text(),
        id: text(),
        digest: Some(text()),
        state: "same",
        reason: Some(text()),
        image_here: Some(text()),
        digest_here: Some(text()),
        pin: Some(text()),
    });
    let database = NodePlanRecord::Database(PlannedDatabaseRecord {
        name: text(),
        exists: true,
        tables: Some(1),
        bytes: 1,
        sessions: vec![text()],
    });
    let obstacle = NodePlanRecord::Obstacle(ObstacleRecord {
        message: text(),
        hint: Some(text()),
    });
    [
        ("step", step),
        ("container", container),
        ("image", image),
        ("database", database),
        ("obstacle", obstacle),
    ]
}

#[test]
fn amounts_have_packs_or_objects() {
    let value = serde_json::to_value(prune()).expect("JSON");
    assert_eq!(value["live"], serde_json::json!({"packs": 1, "bytes": 1}));
    let objects = serde_json::json!({"objects": 1, "bytes": 1});
    assert_eq!(value["quarantined"], objects);
}
