//! The library's advice, with the commands and options of the command line.

use std::borrow::Cow;

use icecore::advice::{Advice, DumpReader};

/// Returns the advice as a hint.
pub fn hint(advice: &Advice) -> Cow<'_, str> {
    if let Advice::Text(text) = advice {
        return Cow::Borrowed(text);
    }
    [
        on_access,
        on_snapshots,
        on_backups,
        on_restores,
        on_prunes,
        on_repairs,
        on_nodes,
        on_dumps,
    ]
    .iter()
    .find_map(|group| group(advice))
    .unwrap_or_else(|| format!("{advice:?}").into())
}

/// Returns advice on how to open a repository.
fn on_access(advice: &Advice) -> Option<Cow<'_, str>> {
    let text = match advice {
        Advice::CheckAddress => {
            "check the address given with --repo; 'icecore init' creates a repository"
        }
        Advice::SeparateDirectory => {
            "give the repository a separate directory, such as --repo DIRECTORY/icecore"
        }
        Advice::GivePassphrase => {
            "give the right passphrase with --passphrase-file, --passphrase-command or ICECORE_PASSPHRASE"
        }
        Advice::TryCostlySlots => {
            "give the right passphrase; --costly-key also tries the skipped slots, with up to 1 GiB of memory and minutes of time each"
        }
        Advice::Upgrade => "install a newer icecore",
        Advice::MoveCache => {
            "free space there, or set ICECORE_CACHE_DIR to a directory with room; the repository is intact"
        }
        Advice::ListKeySlots => "'icecore key list' shows the names",
        _ => return None,
    };
    Some(text.into())
}

/// Returns advice on snapshots and the paths in them.
fn on_snapshots(advice: &Advice) -> Option<Cow<'_, str>> {
    let text = match advice {
        Advice::ChooseHost => {
            "'icecore snapshots' lists ids, hosts and sources; choose whose 'latest' with --host HOST or --any-host"
        }
        Advice::ChooseSnapshot => {
            "'icecore snapshots' lists the ids, 'icecore snapshots --forgotten' those that 'undelete' brings back"
        }
        Advice::UsePrevious => {
            "to restore the previous snapshot, give its id; 'icecore verify' lists further damage"
        }
        Advice::ForgetNotWithdrawn => {
            "run it again: 'icecore verify' names that snapshot, no backup uses it as a parent, and it can be deleted or forgotten"
        }
        Advice::Undelete { id } => {
            return Some(format!("'icecore undelete {id}' brings it back").into());
        }
        Advice::GiveSuccessor => "give that id; 'icecore snapshots' lists it",
        Advice::Unprotect => "'icecore tag --unprotect' removes the protection",
        Advice::ForgetVanished { id } => {
            let text = format!("if that is intended, 'icecore forget {id}' ends this warning");
            return Some(text.into());
        }
        Advice::ListPaths { place } => {
            return Some(format!("'icecore ls {place}' lists the existing paths").into());
        }
        Advice::RestoreToList => "'icecore restore' lists them",
        Advice::RestoreLink => "'icecore restore' puts the link back",
        Advice::WriteTar { place } => {
            return Some(format!("'icecore cat {place}' writes it as tar").into());
        }
        _ => return None,
    };
    Some(text.into())
}

/// Returns advice on backups.
fn on_backups(advice: &Advice) -> Option<Cow<'_, str>> {
    let text = match advice {
        Advice::AllowEmpty => {
            "nothing was stored; if the source is meant to be empty, run it again with --allow-empty"
        }
        Advice::GiveSource => "give a path, --stdin or --command",
        Advice::NameOrMove { path } => {
            let text = format!(
                "if that is another directory, give it a name: NAME={path}; if it was moved, use --moved"
            );
            return Some(text.into());
        }
        Advice::UseNewestParent => "without --parent, the newest intact snapshot is used",
        Advice::MountOrAllowEmpty => "mount it, or use --allow-empty",
        Advice::Accept { source } => {
            let text = format!("if that is intended, run it again with --accept {source}");
            return Some(text.into());
        }
        _ => return None,
    };
    Some(text.into())
}

/// Returns advice on restores.
fn on_restores(advice: &Advice) -> Option<Cow<'_, str>> {
    let text = match advice {
        Advice::RestoreInPlace => "restore into that directory itself, or without --delete",
        Advice::DeleteExcluded => "--delete-excluded deletes them",
        Advice::RestoreWithoutOwners => "use --no-owner if that is intended",
        Advice::ExcludePattern { pattern } => {
            return Some(format!("write --exclude '{pattern}'").into());
        }
        _ => return None,
    };
    Some(text.into())
}

/// Returns advice on prunes.
fn on_prunes(advice: &Advice) -> Option<Cow<'_, str>> {
    let text = match advice {
        Advice::PruneAtOnce => "--now deletes at once, if no other client is active",
        Advice::PruneWithGrace => "prune without --now",
        Advice::PruneQuarantine => {
            "'icecore prune' deletes those from which nothing more can be saved"
        }
        _ => return None,
    };
    Some(text.into())
}

/// Returns advice on damage.
fn on_repairs(advice: &Advice) -> Option<Cow<'_, str>> {
    let text = match advice {
        Advice::Verify => "'icecore verify' lists the affected files",
        Advice::VerifyData => "run 'icecore verify --read-data' to list the affected files",
        Advice::RebuildIndex => "'icecore repair index' rebuilds its records from the packs",
        Advice::RepairConfig => "'icecore repair config' restores it from the other copy",
        Advice::RepairOwnKeySlot => {
            "'icecore repair config' repairs the slot that opened the repository; create other slots again"
        }
        Advice::RemoveKeySlot { name } => {
            return Some(format!("'icecore key remove {name}' removes the slot").into());
        }
        Advice::RepairPacksFirst => {
            "run 'icecore repair packs' first, which records the lost chunks"
        }
        Advice::StoreDroppedAgain => {
            "'icecore repair packs' stores the chunks again that snapshots need"
        }
        Advice::RestoreDropped => {
            "'icecore repair packs', then 'icecore repair snapshots', restore it"
        }
        Advice::WriteParity => "'icecore repair packs' writes it",
        Advice::ListLosses => "'icecore repair packs' lists the losses of older snapshots",
        Advice::FindMissingPacks => {
            "a prune may have deleted it for good; if not, 'icecore repair packs' lists the missing packs. Other snapshots of the same source may hold the files"
        }
        Advice::RepairSnapshots => {
            "'icecore repair snapshots' moves unreadable snapshots to quarantine, and heals those that a cache has"
        }
        Advice::RepairPacksAndSnapshots => {
            "'icecore verify' lists the affected files; run 'icecore repair packs', then 'icecore repair snapshots'"
        }
        _ => return None,
    };
    Some(text.into())
}

/// Returns a finding with its advice, as one text.
pub fn advised<'t>(what: &'t str, advice: Option<&Advice>) -> Cow<'t, str> {
    match advice {
        Some(advice) => format!("{what}; {}", hint(advice)).into(),
        None => what.into(),
    }
}

/// Returns advice on a node and its parts.
fn on_nodes(advice: &Advice) -> Option<Cow<'_, str>> {
    let hint = match advice {
        Advice::PipeDump => "write DUMP | icecore backup --stdin NAME".into(),
        Advice::NameComposeFile => {
            "name it: icecore node init COMPOSE_FILE; without Docker, write icecore.toml by hand".into()
        }
        Advice::NameProject => "use --project NAME".into(),
        Advice::NameCapture { capture } => {
            format!("name another capture of it after the snapshot: {capture}").into()
        }
        Advice::OrNameThis { first, capture } => {
            format!("{}; or name this one, to restore it anyway: {capture}", hint(first)).into()
        }
        Advice::CopyBack { source } => format!(
            "no snapshot has a good '{source}'; 'icecore restore SNAP:{source}' restores what there is, to be copied back by hand"
        )
        .into(),
        Advice::BackUpInOrder { database, files } => format!(
            "no snapshot holds a database that old; back up again, with the [[source]] of the files below that of '{database}'; or restore the files by hand: icecore restore {files} DIRECTORY"
        )
        .into(),
        Advice::RestoreSeparately => "use 'icecore restore' for it".into(),
        Advice::RestoreAllParts => "restore it without --files first".into(),
        Advice::StopKubo => "stop kubo and restore it without --files".into(),
        Advice::CheckNode => "'icecore node check --live' lists them".into(),
        Advice::CheckNodeOrRestoreAll { snapshot } => format!(
            "'icecore node check --live' lists them, 'icecore node restore {snapshot}' restores all parts"
        )
        .into(),
        Advice::InOneCommand { first, record } => format!(
            "{}, with its files in one command; if another database has replaced it since: rm {}",
            hint(first),
            record.display()
        )
        .into(),
        Advice::KeepSecrets => {
            "keep a copy of it, it may be the only one; then use --replace if the snapshot's is the right one".into()
        }
        Advice::AllowReplace => "use --replace if that is what you want".into(),
        _ => return None,
    };
    Some(hint)
}

/// Returns advice on the dump of a database.
fn on_dumps(advice: &Advice) -> Option<Cow<'_, str>> {
    let again = "restore it again with --replace, which replaces the incomplete data";
    let others = "nothing was written; use another snapshot's ('icecore snapshots' lists them)";
    let check = "or check it before you feed it to psql by hand";
    let hint = match advice {
        Advice::UseNewerServer => {
            return Some(
                "restore into a server of that version or a newer one; to change the dump by hand: icecore cat SNAP:SOURCE".into(),
            );
        }
        Advice::RestoreDump { dump, reader } => {
            format!(
                "nothing was written; to restore it by hand: {}",
                by_hand(dump, *reader)
            )
        }
        Advice::FeedDump { dump } => format!(
            "feed it to psql by hand, which continues after an error: icecore cat {dump} | psql -d postgres"
        ),
        Advice::UseOtherDump { dump } => format!("{others}, {check}: icecore cat {dump}"),
        Advice::DumpCluster { dump } => format!(
            "{others}, and let a source of kind \"postgresql\" make the dump, {check}: icecore cat {dump}"
        ),
        Advice::RestoreAgain { after: None } => return Some(again.into()),
        Advice::RestoreAgain { after: Some(after) } => format!("{after}, then {again}"),
        Advice::RemoveCause { dump } => format!(
            "the same dump would fail there again: remove the cause of the server's error, then {again}; or use another snapshot's; or feed it to psql by hand, which continues after an error: icecore cat {dump} | psql -d postgres"
        ),
        Advice::UseOtherDatabase { source } => format!(
            "the repository is damaged: 'icecore verify --read-data' shows what else is; use the database of another snapshot (SNAP:{source}) with --replace"
        ),
        _ => return None,
    };
    Some(hint.into())
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
                Advice::Undelete { id: text("12ab") },
                "'icecore undelete 12ab' brings it back",
            ),
            (
                Advice::ForgetVanished { id: text("12ab") },
                "if that is intended, 'icecore forget 12ab' ends this warning",
            ),
            (
                Advice::ListPaths {
                    place: text("12ab:tree/a"),
                },
                "'icecore ls 12ab:tree/a' lists the existing paths",
            ),
            (
                Advice::WriteTar {
                    place: text("latest:data"),
                },
                "'icecore cat latest:data' writes it as tar",
            ),
            (
                Advice::NameOrMove {
                    path: text("/srv/bob"),
                },
                "if that is another directory, give it a name: NAME=/srv/bob; if it was moved, use --moved",
            ),
            (
                Advice::Accept {
                    source: text("keys"),
                },
                "if that is intended, run it again with --accept keys",
            ),
            (
                Advice::ExcludePattern {
                    pattern: text("/a"),
                },
                "write --exclude '/a'",
            ),
            (
                Advice::RemoveKeySlot { name: text("00ff") },
                "'icecore key remove 00ff' removes the slot",
            ),
        ] {
            assert_eq!(hint(&advice), expected);
        }
    }

    #[test]
    fn advice_to_repair_names_the_command() {
        for (advice, command) in [
            (Advice::RepairConfig, "'icecore repair config'"),
            (Advice::RepairPacksFirst, "'icecore repair packs'"),
            (Advice::StoreDroppedAgain, "'icecore repair packs'"),
            (Advice::RepairPacksAndSnapshots, "'icecore repair packs'"),
            (Advice::UsePrevious, "give its id"),
            (Advice::ChooseHost, "--host HOST or --any-host"),
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
            text(&Advice::RestoreDump {
                dump: "4f1c:db".into(),
                reader,
            })
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
        let both = text(&Advice::InOneCommand {
            first: Box::new(first),
            record: "/state/restored-1".into(),
        });
        assert!(both.starts_with("use newer files (4f1c:local), "), "{both}");
        assert!(both.ends_with(": rm /state/restored-1"), "{both}");
    }

    #[test]
    fn a_capture_can_be_named_despite_the_first_advice() {
        let source = "db".into();
        let anyway = text(&Advice::OrNameThis {
            first: Box::new(Advice::CopyBack { source }),
            capture: "4f1c:db".into(),
        });
        assert!(
            anyway.contains("by hand; or name this one, to restore it anyway: 4f1c:db"),
            "{anyway}"
        );
    }

    #[test]
    fn missing_files_are_listed_by_a_check_of_the_running_node() {
        let snapshot = "4f1c".into();
        for advice in [
            Advice::CheckNode,
            Advice::CheckNodeOrRestoreAll { snapshot },
        ] {
            assert!(text(&advice).starts_with("'icecore node check --live' lists them"));
        }
    }

    #[test]
    fn a_half_restored_database_is_replaced() {
        let again = "restore it again with --replace, which replaces the incomplete data";
        assert_eq!(text(&Advice::RestoreAgain { after: None }), again);
        let after = Some("free space".into());
        assert_eq!(
            text(&Advice::RestoreAgain { after }),
            format!("free space, then {again}")
        );
    }

    #[test]
    fn each_advice_on_nodes_has_a_hint() {
        let name = || "4f1c:db".to_owned();
        for advice in [
            Advice::PipeDump,
            Advice::NameComposeFile,
            Advice::NameProject,
            Advice::NameCapture { capture: name() },
            Advice::BackUpInOrder {
                database: name(),
                files: name(),
            },
            Advice::RestoreSeparately,
            Advice::RestoreAllParts,
            Advice::StopKubo,
            Advice::KeepSecrets,
            Advice::AllowReplace,
            Advice::UseNewerServer,
            Advice::FeedDump { dump: name() },
            Advice::UseOtherDump { dump: name() },
            Advice::DumpCluster { dump: name() },
            Advice::RemoveCause { dump: name() },
            Advice::UseOtherDatabase { source: name() },
        ] {
            assert_ne!(text(&advice), "", "{advice:?}");
        }
    }
}
