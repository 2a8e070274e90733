//! The library's advice, with the commands and options of the command line.

use std::borrow::Cow;

use icecore::advice::{
    AccessAdvice, Advice, BackupAdvice, DumpAdvice, DumpReader, NodeAdvice, PruneAdvice,
    RepairAdvice, RestoreAdvice, SnapshotAdvice,
};

/// Returns the advice as a hint.
pub fn hint(advice: &Advice) -> Cow<'_, str> {
    match advice {
        Advice::Text(text) => Cow::Borrowed(text),
        Advice::Access(advice) => on_access(advice),
        Advice::Snapshot(advice) => on_snapshots(advice),
        Advice::Backup(advice) => on_backups(advice),
        Advice::Restore(advice) => on_restores(advice),
        Advice::Prune(advice) => on_prunes(advice),
        Advice::Repair(advice) => on_repairs(advice),
        Advice::Node(advice) => on_nodes(advice),
        Advice::Dump(advice) => on_dumps(advice),
    }
}

/// Returns advice on how to open a repository.
fn on_access(advice: &AccessAdvice) -> Cow<'_, str> {
    let text = match advice {
        AccessAdvice::CheckAddress => {
            "check the address given with --repo; 'icecore init' creates a repository"
        }
        AccessAdvice::SeparateDirectory => {
            "give the repository a separate directory, such as --repo DIRECTORY/icecore"
        }
        AccessAdvice::GivePassphrase => {
            "give the right passphrase with --passphrase-file, --passphrase-command or ICECORE_PASSPHRASE"
        }
        AccessAdvice::TryCostlySlots => {
            "give the right passphrase; --costly-key also tries the skipped slots, with up to 1 GiB of memory and minutes of time each"
        }
        AccessAdvice::Upgrade => "install a newer icecore",
        AccessAdvice::MoveCache => {
            "free space there, or set ICECORE_CACHE_DIR to a directory with room; the repository is intact"
        }
        AccessAdvice::ListKeySlots => "'icecore key list' shows the names",
    };
    text.into()
}

/// Returns advice on snapshots and the paths in them.
fn on_snapshots(advice: &SnapshotAdvice) -> Cow<'_, str> {
    let text = match advice {
        SnapshotAdvice::ChooseHost => {
            "'icecore snapshots' lists ids, hosts and sources; choose whose 'latest' with --host HOST or --any-host"
        }
        SnapshotAdvice::ChooseSnapshot => {
            "'icecore snapshots' lists the ids, 'icecore snapshots --forgotten' those that 'undelete' brings back"
        }
        SnapshotAdvice::UsePrevious => {
            "to restore the previous snapshot, give its id; 'icecore verify' lists further damage"
        }
        SnapshotAdvice::ForgetNotWithdrawn => {
            "run it again: 'icecore verify' names that snapshot, no backup uses it as a parent, and it can be deleted or forgotten"
        }
        SnapshotAdvice::Undelete { id } => {
            return format!("'icecore undelete {id}' brings it back").into();
        }
        SnapshotAdvice::GiveSuccessor => "give that id; 'icecore snapshots' lists it",
        SnapshotAdvice::Unprotect => "'icecore tag --unprotect' removes the protection",
        SnapshotAdvice::ForgetVanished { id } => {
            let text = format!("if that is intended, 'icecore forget {id}' ends this warning");
            return text.into();
        }
        SnapshotAdvice::ListPaths { place } => {
            return format!("'icecore ls {place}' lists the existing paths").into();
        }
        SnapshotAdvice::RestoreToList => "'icecore restore' lists them",
        SnapshotAdvice::RestoreLink => "'icecore restore' puts the link back",
        SnapshotAdvice::WriteTar { place } => {
            return format!("'icecore cat {place}' writes it as tar").into();
        }
    };
    text.into()
}

/// Returns advice on backups.
fn on_backups(advice: &BackupAdvice) -> Cow<'_, str> {
    let text = match advice {
        BackupAdvice::AllowEmpty => {
            "nothing was stored; if the source is meant to be empty, run it again with --allow-empty"
        }
        BackupAdvice::GiveSource => "give a path, --stdin or --command",
        BackupAdvice::NameOrMove { path } => {
            let text = format!(
                "if that is another directory, give it a name: NAME={path}; if it was moved, use --moved"
            );
            return text.into();
        }
        BackupAdvice::UseNewestParent => "without --parent, the newest intact snapshot is used",
        BackupAdvice::MountOrAllowEmpty => "mount it, or use --allow-empty",
        BackupAdvice::Accept { source } => {
            let text = format!("if that is intended, run it again with --accept {source}");
            return text.into();
        }
    };
    text.into()
}

/// Returns advice on restores.
fn on_restores(advice: &RestoreAdvice) -> Cow<'_, str> {
    let text = match advice {
        RestoreAdvice::RestoreInPlace => "restore into that directory itself, or without --delete",
        RestoreAdvice::DeleteExcluded => "--delete-excluded deletes them",
        RestoreAdvice::RestoreWithoutOwners => "use --no-owner if that is intended",
        RestoreAdvice::ExcludePattern { pattern } => {
            return format!("write --exclude '{pattern}'").into();
        }
    };
    text.into()
}

/// Returns advice on prunes.
fn on_prunes(advice: &PruneAdvice) -> Cow<'_, str> {
    let text = match advice {
        PruneAdvice::PruneAtOnce => "--now deletes at once, if no other client is active",
        PruneAdvice::PruneWithGrace => "prune without --now",
        PruneAdvice::PruneQuarantine => {
            "'icecore prune' deletes those from which nothing more can be saved"
        }
    };
    text.into()
}

/// Returns advice on damage.
fn on_repairs(advice: &RepairAdvice) -> Cow<'_, str> {
    let text = match advice {
        RepairAdvice::Verify => "'icecore verify' lists the affected files",
        RepairAdvice::VerifyData => "run 'icecore verify --read-data' to list the affected files",
        RepairAdvice::RebuildIndex => "'icecore repair index' rebuilds its records from the packs",
        RepairAdvice::RepairConfig => "'icecore repair config' restores it from the other copy",
        RepairAdvice::RepairOwnKeySlot => {
            "'icecore repair config' repairs the slot that opened the repository; create other slots again"
        }
        RepairAdvice::RemoveKeySlot { name } => {
            return format!("'icecore key remove {name}' removes the slot").into();
        }
        RepairAdvice::RepairPacksFirst => {
            "run 'icecore repair packs' first, which records the lost chunks"
        }
        RepairAdvice::StoreDroppedAgain => {
            "'icecore repair packs' stores the chunks again that snapshots need"
        }
        RepairAdvice::RestoreDropped => {
            "'icecore repair packs', then 'icecore repair snapshots', restore it"
        }
        RepairAdvice::WriteParity => "'icecore repair packs' writes it",
        RepairAdvice::ListLosses => "'icecore repair packs' lists the losses of older snapshots",
        RepairAdvice::FindMissingPacks => {
            "a prune may have deleted it for good; if not, 'icecore repair packs' lists the missing packs. Other snapshots of the same source may hold the files"
        }
        RepairAdvice::RepairSnapshots => {
            "'icecore repair snapshots' moves unreadable snapshots to quarantine, and heals those that a cache has"
        }
        RepairAdvice::RepairPacksAndSnapshots => {
            "'icecore verify' lists the affected files; run 'icecore repair packs', then 'icecore repair snapshots'"
        }
    };
    text.into()
}

/// Returns a finding with its advice, as one text.
pub fn advised<'t>(what: &'t str, advice: Option<&Advice>) -> Cow<'t, str> {
    match advice {
        Some(advice) => format!("{what}; {}", hint(advice)).into(),
        None => what.into(),
    }
}

/// Returns advice on a node and its parts.
fn on_nodes(advice: &NodeAdvice) -> Cow<'_, str> {
    match advice {
        NodeAdvice::PipeDump => "write DUMP | icecore backup --stdin NAME".into(),
        NodeAdvice::NameComposeFile => {
            "name it: icecore node init COMPOSE_FILE; without Docker, write icecore.toml by hand".into()
        }
        NodeAdvice::NameProject => "use --project NAME".into(),
        NodeAdvice::NameCapture { capture } => {
            format!("name another capture of it after the snapshot: {capture}").into()
        }
        NodeAdvice::OrNameThis { first, capture } => {
            format!("{}; or name this one, to restore it anyway: {capture}", hint(first)).into()
        }
        NodeAdvice::CopyBack { source } => format!(
            "no snapshot has a good '{source}'; 'icecore restore SNAP:{source}' restores what there is, to be copied back by hand"
        )
        .into(),
        NodeAdvice::BackUpInOrder { database, files } => format!(
            "no snapshot holds a database that old; back up again, with the [[source]] of the files below that of '{database}'; or restore the files by hand: icecore restore {files} DIRECTORY"
        )
        .into(),
        NodeAdvice::RestoreSeparately => "use 'icecore restore' for it".into(),
        NodeAdvice::RestoreAllParts => "restore it without --files first".into(),
        NodeAdvice::StopKubo => "stop kubo and restore it without --files".into(),
        NodeAdvice::CheckNode => "'icecore node check --live' lists them".into(),
        NodeAdvice::CheckNodeOrRestoreAll { snapshot } => format!(
            "'icecore node check --live' lists them, 'icecore node restore {snapshot}' restores all parts"
        )
        .into(),
        NodeAdvice::InOneCommand { first, record } => format!(
            "{}, with its files in one command; if another database has replaced it since: rm {}",
            hint(first),
            record.display()
        )
        .into(),
        NodeAdvice::KeepSecrets => {
            "keep a copy of it, it may be the only one; then use --replace if the snapshot's is the right one".into()
        }
        NodeAdvice::AllowReplace => "use --replace if that is what you want".into(),
    }
}

/// Returns advice on the dump of a database.
fn on_dumps(advice: &DumpAdvice) -> Cow<'_, str> {
    let again = "restore it again with --replace, which replaces the incomplete data";
    let others = "nothing was written; use another snapshot's ('icecore snapshots' lists them)";
    let check = "or check it before you feed it to psql by hand";
    let hint = match advice {
        DumpAdvice::UseNewerServer => {
            "restore into a server of that version or a newer one; to change the dump by hand: icecore cat SNAP:SOURCE"
                .to_owned()
        }
        DumpAdvice::RestoreDump { dump, reader } => {
            format!(
                "nothing was written; to restore it by hand: {}",
                by_hand(dump, *reader)
            )
        }
        DumpAdvice::FeedDump { dump } => format!(
            "feed it to psql by hand, which continues after an error: icecore cat {dump} | psql -d postgres"
        ),
        DumpAdvice::UseOtherDump { dump } => format!("{others}, {check}: icecore cat {dump}"),
        DumpAdvice::DumpCluster { dump } => format!(
            "{others}, and let a source of kind \"postgresql\" make the dump, {check}: icecore cat {dump}"
        ),
        DumpAdvice::RestoreAgain { after: None } => again.to_owned(),
        DumpAdvice::RestoreAgain { after: Some(after) } => format!("{after}, then {again}"),
        DumpAdvice::RemoveCause { dump } => format!(
            "the same dump would fail there again: remove the cause of the server's error, then {again}; or use another snapshot's; or feed it to psql by hand, which continues after an error: icecore cat {dump} | psql -d postgres"
        ),
        DumpAdvice::UseOtherDatabase { source } => format!(
            "the repository is damaged: 'icecore verify --read-data' shows what else is; use the database of another snapshot (SNAP:{source}) with --replace"
        ),
    };
    hint.into()
}

/// Returns the command that restores a dump by hand.
fn by_hand(dump: &str, reader: DumpReader) -> String {
    match reader {
        DumpReader::Unknown => format!("icecore cat {dump} writes it out"),
        DumpReader::Psql => format!(
            "icecore cat {dump} | psql -d DATABASE, where DATABASE exists and is empty (postgres, if the dump creates its database)"
        ),
        DumpReader::PgRestore => format!(
            "icecore cat {dump} | pg_restore -d DATABASE, where DATABASE exists and is empty"
        ),
        DumpReader::Decompressed(program) => {
            format!("icecore cat {dump} | {program} -d | psql -d postgres")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_with_values_names_them() {
        let text = |value: &str| value.to_owned();
        for (advice, expected) in [
            (
                Advice::Snapshot(SnapshotAdvice::Undelete { id: text("12ab") }),
                "'icecore undelete 12ab' brings it back",
            ),
            (
                Advice::Snapshot(SnapshotAdvice::ForgetVanished { id: text("12ab") }),
                "if that is intended, 'icecore forget 12ab' ends this warning",
            ),
            (
                Advice::Snapshot(SnapshotAdvice::ListPaths {
                    place: text("12ab:tree/a"),
                }),
                "'icecore ls 12ab:tree/a' lists the existing paths",
            ),
            (
                Advice::Snapshot(SnapshotAdvice::WriteTar {
                    place: text("latest:data"),
                }),
                "'icecore cat latest:data' writes it as tar",
            ),
            (
                Advice::Backup(BackupAdvice::NameOrMove {
                    path: text("/srv/bob"),
                }),
                "if that is another directory, give it a name: NAME=/srv/bob; if it was moved, use --moved",
            ),
            (
                Advice::Backup(BackupAdvice::Accept {
                    source: text("keys"),
                }),
                "if that is intended, run it again with --accept keys",
            ),
            (
                Advice::Restore(RestoreAdvice::ExcludePattern {
                    pattern: text("/a"),
                }),
                "write --exclude '/a'",
            ),
            (
                Advice::Repair(RepairAdvice::RemoveKeySlot { name: text("00ff") }),
                "'icecore key remove 00ff' removes the slot",
            ),
        ] {
            assert_eq!(hint(&advice), expected);
        }
    }

    #[test]
    fn advice_to_repair_names_the_command() {
        for (advice, command) in [
            (
                Advice::Repair(RepairAdvice::RepairConfig),
                "'icecore repair config'",
            ),
            (
                Advice::Repair(RepairAdvice::RepairPacksFirst),
                "'icecore repair packs'",
            ),
            (
                Advice::Repair(RepairAdvice::StoreDroppedAgain),
                "'icecore repair packs'",
            ),
            (
                Advice::Repair(RepairAdvice::RepairPacksAndSnapshots),
                "'icecore repair packs'",
            ),
            (Advice::Snapshot(SnapshotAdvice::UsePrevious), "give its id"),
            (
                Advice::Snapshot(SnapshotAdvice::ChooseHost),
                "--host HOST or --any-host",
            ),
        ] {
            assert!(hint(&advice).contains(command), "{advice:?}");
        }
    }

    fn text(advice: &Advice) -> String {
        hint(advice).into_owned()
    }

    #[test]
    fn a_dump_s_own_program_restores_it_by_hand() {
        let by = |reader| {
            text(&Advice::Dump(DumpAdvice::RestoreDump {
                dump: "4f1c:db".into(),
                reader,
            }))
        };
        for (reader, command) in [
            (DumpReader::Unknown, "icecore cat 4f1c:db writes it out"),
            (DumpReader::Psql, "icecore cat 4f1c:db | psql -d DATABASE, "),
            (
                DumpReader::PgRestore,
                "icecore cat 4f1c:db | pg_restore -d DATABASE, ",
            ),
            (
                DumpReader::Decompressed("zstd"),
                "icecore cat 4f1c:db | zstd -d | psql -d postgres",
            ),
        ] {
            assert!(
                by(reader).contains(&format!("to restore it by hand: {command}")),
                "{}",
                by(reader)
            );
        }
    }

    #[test]
    fn a_record_of_a_replaced_database_can_be_deleted() {
        let first = Advice::from("use newer files (4f1c:local), or an older database");
        let both = text(&Advice::Node(NodeAdvice::InOneCommand {
            first: Box::new(first),
            record: "/state/restored-1".into(),
        }));
        assert!(both.starts_with("use newer files (4f1c:local), "), "{both}");
        assert!(both.ends_with(": rm /state/restored-1"), "{both}");
    }

    #[test]
    fn a_capture_can_be_named_despite_the_first_advice() {
        let source = "db".into();
        let anyway = text(&Advice::Node(NodeAdvice::OrNameThis {
            first: Box::new(Advice::Node(NodeAdvice::CopyBack { source })),
            capture: "4f1c:db".into(),
        }));
        assert!(
            anyway.contains("by hand; or name this one, to restore it anyway: 4f1c:db"),
            "{anyway}"
        );
    }

    #[test]
    fn missing_files_are_listed_by_a_check_of_the_running_node() {
        let snapshot = "4f1c".into();
        for advice in [
            Advice::Node(NodeAdvice::CheckNode),
            Advice::Node(NodeAdvice::CheckNodeOrRestoreAll { snapshot }),
        ] {
            assert!(text(&advice).starts_with("'icecore node check --live' lists them"));
        }
    }

    #[test]
    fn a_half_restored_database_is_replaced() {
        let again = "restore it again with --replace, which replaces the incomplete data";
        assert_eq!(
            text(&Advice::Dump(DumpAdvice::RestoreAgain { after: None })),
            again
        );
        let after = Some("free space".into());
        assert_eq!(
            text(&Advice::Dump(DumpAdvice::RestoreAgain { after })),
            format!("free space, then {again}")
        );
    }

    #[test]
    fn each_advice_on_nodes_has_a_hint() {
        let name = || "4f1c:db".to_owned();
        for advice in [
            Advice::Node(NodeAdvice::PipeDump),
            Advice::Node(NodeAdvice::NameComposeFile),
            Advice::Node(NodeAdvice::NameProject),
            Advice::Node(NodeAdvice::NameCapture { capture: name() }),
            Advice::Node(NodeAdvice::BackUpInOrder {
                database: name(),
                files: name(),
            }),
            Advice::Node(NodeAdvice::RestoreSeparately),
            Advice::Node(NodeAdvice::RestoreAllParts),
            Advice::Node(NodeAdvice::StopKubo),
            Advice::Node(NodeAdvice::KeepSecrets),
            Advice::Node(NodeAdvice::AllowReplace),
            Advice::Dump(DumpAdvice::UseNewerServer),
            Advice::Dump(DumpAdvice::FeedDump { dump: name() }),
            Advice::Dump(DumpAdvice::UseOtherDump { dump: name() }),
            Advice::Dump(DumpAdvice::DumpCluster { dump: name() }),
            Advice::Dump(DumpAdvice::RemoveCause { dump: name() }),
            Advice::Dump(DumpAdvice::UseOtherDatabase { source: name() }),
        ] {
            assert_ne!(text(&advice), "", "{advice:?}");
        }
    }
}
