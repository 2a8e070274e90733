//! Advice for the user about an error or a problem.
//!
//! The library names what can be done. A front end writes it in its own terms: the command line
//! with commands and options.

use std::borrow::Cow;
use std::path::PathBuf;

/// What the user can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// Advice that every front end shows as it is.
    Text(Cow<'static, str>),
    Access(AccessAdvice),
    Snapshot(SnapshotAdvice),
    Backup(BackupAdvice),
    Restore(RestoreAdvice),
    Prune(PruneAdvice),
    Repair(RepairAdvice),
    Node(NodeAdvice),
    Dump(DumpAdvice),
}

/// Advice on opening a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessAdvice {
    /// Check the repository's address, or create a repository there.
    CheckAddress,
    /// Give the repository a directory of its own.
    SeparateDirectory,
    /// Give the right passphrase.
    GivePassphrase,
    /// Give the right passphrase, or try it also on the slots that need much memory and time.
    TryCostlySlots,
    /// Install a newer version.
    Upgrade,
    /// Free space for the cache, or choose another directory for it.
    MoveCache,
    /// Give a name from the list of key slots.
    ListKeySlots,
}

/// Advice on snapshots and the paths in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotAdvice {
    /// Choose the host whose newest snapshot is meant.
    ChooseHost,
    /// Choose an id from the list of snapshots, or of those that were forgotten.
    ChooseSnapshot,
    /// Restore the previous snapshot by its id, and verify the repository.
    UsePrevious,
    /// Run the backup again. The snapshot that could not be withdrawn can be deleted or forgotten.
    ForgetNotWithdrawn,
    /// Bring the forgotten snapshot back.
    Undelete { id: String },
    /// Give the id of the newer snapshot, from the list of snapshots.
    GiveSuccessor,
    /// Remove the snapshot's protection.
    Unprotect,
    /// Forget the missing snapshot, which ends the warning, if it was removed on purpose.
    ForgetVanished { id: String },
    /// List the existing paths. `place`: a snapshot, source and directory.
    ListPaths { place: String },
    /// Restore the snapshot, which lists the paths that lack data.
    RestoreToList,
    /// Restore the symbolic link.
    RestoreLink,
    /// Write the directory as a tar archive. `place`: a snapshot, source and directory.
    WriteTar { place: String },
}

/// Advice on backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupAdvice {
    /// Allow the source to be empty, if it is meant to be.
    AllowEmpty,
    /// Give something to back up.
    GiveSource,
    /// Give the source a name if it is another directory than before, or state that it was moved.
    NameOrMove { path: String },
    /// Choose no parent: the newest intact snapshot is used then.
    UseNewestParent,
    /// Mount the directory, or allow it to be empty.
    MountOrAllowEmpty,
    /// Accept the capture of this source, if its state is intended.
    Accept { source: String },
}

/// Advice on restores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestoreAdvice {
    /// Restore into the directory itself, or delete nothing.
    RestoreInPlace,
    /// Delete also the names that the backup excluded.
    DeleteExcluded,
    /// Restore without owners.
    RestoreWithoutOwners,
    /// Exclude this pattern instead, which begins at the source's root.
    ExcludePattern { pattern: String },
}

/// Advice on prunes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PruneAdvice {
    /// Prune at once, if no other client is active.
    PruneAtOnce,
    /// Prune with the usual grace period.
    PruneWithGrace,
    /// Prune, which deletes the objects in quarantine from which nothing more can be saved.
    PruneQuarantine,
}

/// Advice on damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairAdvice {
    /// Verify, which lists the affected files.
    Verify,
    /// Rebuild the index segment from the packs.
    RebuildIndex,
    /// Repair the configuration or the key slot from its other copy.
    RepairConfig,
    /// Repair the key slot that opened the repository, and create the others again.
    RepairOwnKeySlot,
    /// Remove the key slot.
    RemoveKeySlot { name: String },
    /// Repair packs first, which records the lost chunks.
    RepairPacksFirst,
    /// Repair packs, which stores chunks of dropped packs again.
    StoreDroppedAgain,
    /// Repair packs, then snapshots, which brings the data of dropped packs back.
    RestoreDropped,
    /// Repair packs, which writes recovery data.
    WriteParity,
    /// Repair packs, which lists the losses of older snapshots.
    ListLosses,
    /// Repair packs, which lists the missing ones, or use another snapshot of the source.
    FindMissingPacks,
    /// Verify with data, to list the affected files.
    VerifyData,
    /// Repair the snapshots: unreadable ones are set aside, and those in a cache are healed.
    RepairSnapshots,
    /// Verify, then repair packs, then snapshots.
    RepairPacksAndSnapshots,
}

/// Advice on a node and its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAdvice {
    /// Do the first, with the files in one command. If another database has replaced the recorded
    /// one since, delete the record.
    InOneCommand { first: Box<Advice>, record: PathBuf },
    /// Pipe a dump into a backup.
    PipeDump,
    /// Name the compose file, or write the configuration by hand.
    NameComposeFile,
    /// Name the compose project.
    NameProject,
    /// Name another capture of the part.
    NameCapture { capture: String },
    /// Do the first, or name this capture, to restore it anyway.
    OrNameThis { first: Box<Advice>, capture: String },
    /// Restore the available files of the source elsewhere, and copy them back by hand.
    CopyBack { source: String },
    /// Back up again with the files after the database, or restore these files by hand.
    BackUpInOrder { database: String, files: String },
    /// Restore the source separately: it is not a part of the node.
    RestoreSeparately,
    /// Restore the part together with all others, before the rest of the file storage.
    RestoreAllParts,
    /// Stop kubo, then restore its whole repository.
    StopKubo,
    /// Check the running node, to list its missing files.
    CheckNode,
    /// Check the running node, or restore all parts of this snapshot.
    CheckNodeOrRestoreAll { snapshot: String },
    /// Keep a copy of the existing secrets, then allow the restore to replace them.
    KeepSecrets,
    /// Allow the restore to replace existing data.
    AllowReplace,
}

/// Advice on the dump of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DumpAdvice {
    /// Restore into a newer database server, or change the dump by hand.
    UseNewerServer,
    /// Restore this dump by hand.
    RestoreDump { dump: String, reader: DumpReader },
    /// Feed this dump to `psql` by hand.
    FeedDump { dump: String },
    /// Use another snapshot's dump, or check this one and feed it by hand.
    UseOtherDump { dump: String },
    /// As [`Self::UseOtherDump`], and back up the database as a whole cluster.
    DumpCluster { dump: String },
    /// Restore the database again, after this step if there is one.
    RestoreAgain { after: Option<Cow<'static, str>> },
    /// Remove the cause of the server's error, use another dump, or feed this one by hand.
    RemoveCause { dump: String },
    /// Verify the repository's data, and use the database of another snapshot.
    UseOtherDatabase { source: String },
}

/// The program that restores a dump by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DumpReader {
    /// It is not known.
    Unknown,
    /// `psql`, into one database.
    Psql,
    /// `pg_restore`, into one database.
    PgRestore,
    /// `psql`, after this program has decompressed the dump.
    Decompressed(&'static str),
}

impl From<&'static str> for Advice {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Advice {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}
