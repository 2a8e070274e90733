//! Check of one pack, read once from its first byte to its last.

use super::damage::PackDamage;
use super::objects::digest;
use super::report::FindingKind;
use crate::Error;
use crate::chunk::{FRAME_PLAIN_BYTES_MAX, ObjectHasher, TAG_BYTES};
use crate::format::{HEADER_BYTES, ObjectKind, decode_header};
use crate::index::{FrameRow, PackRow, PackState};
use crate::observe::Counter;
use crate::read::fetch::with_sources;
use crate::repo::{PackHead, ParityState, RepoError, Repository};
use crate::store::{ObjectKey, StoreError};
use crate::task::Task;
use crate::types::{ChunkInfo, FrameOffset, PackId, PackInfo, at_most, to_u64, to_usize};

/// Bytes outside of frames are read in pieces of this size: 1 MiB.
const PIECE: usize = 1 << 20;
/// The maximum stored size of a frame: data that does not compress is stored plain.
const FRAME_STORED_MAX: usize = FRAME_PLAIN_BYTES_MAX + TAG_BYTES;
/// Number of frames and chunks that a finding lists; further ones are counted.
const NAMED_MAX: usize = 12;

/// Result of reading one pack.
#[derive(Debug)]
pub(in crate::ops) struct PackCheck {
    pub id: PackId,
    /// Stored bytes read.
    pub bytes: u64,
    /// Plain bytes decrypted and checked.
    pub plain: u64,
    pub findings: Vec<(FindingKind, String)>,
    pub damage: PackDamage,
    /// Description of the damage to its recovery data.
    pub parity: Option<String>,
    /// It could not be read to its end this time; its contents are unknown.
    pub unreadable_now: bool,
}

/// Reads and checks a whole pack. The argument `listed_digest` is the hash of its frames and chunks
/// as the segments list them.
pub(super) fn check_pack(
    repo: &Repository,
    pack: &PackRow,
    size: u64,
    listed_digest: Option<&[u8; 32]>,
    task: Task<'_>,
) -> Result<PackCheck, Error> {
    let check = PackCheck {
        id: pack.id,
        bytes: 0,
        plain: 0,
        findings: Vec::new(),
        damage: PackDamage::default(),
        parity: None,
        unreadable_now: false,
    };
    let key = ObjectKey::Pack(pack.id);

    let mut pass = PackPass {
        repo,
        key,
        size,
        hasher: ObjectHasher::default(),
        at: 0,
        task,
        check,
    };

    let result = pass.run(pack, listed_digest);
    let mut check = pass.check;

    if repo.config().parity.is_some() {
        // Missing recovery data is reported once for all packs.
        if let ParityState::Damaged(what) = repo.check_parity(&pack.id, pack.size)? {
            check.parity = Some(what);
        }
    }

    match result {
        Ok(()) => Ok(check),
        Err(Error::Repo(RepoError::Store(StoreError::NotFound { .. }))) => {
            // Deleted since the listing. After a sync the index shows whether a prune or a repair
            // did it.
            repo.sync()?;
            match repo
                .index()
                .pack(&pack.id)?
                .filter(|pack| pack.added)
                .map(|pack| pack.state)
            {
                Some(PackState::Known) => {
                    check.findings.push((
                        FindingKind::ObjectMissing,
                        "it vanished while it was read".into(),
                    ));
                    check.damage.missing = true;
                }
                // A repair moved it to quarantine.
                Some(PackState::Condemned) => check.damage.gone = true,
                Some(PackState::Dropped) | None => {}
            }
            Ok(check)
        }
        Err(Error::Repo(RepoError::Store(err @ StoreError::Short { .. }))) => {
            check.findings.push((
                FindingKind::WrongSize,
                format!("it shrank while it was read: {err}"),
            ));
            check.damage.frames.extend(0..pack.frames);
            Ok(check)
        }
        Err(Error::Repo(RepoError::Store(err))) if err.is_unreadable_now() => {
            check
                .findings
                .push((FindingKind::UnreadableNow, with_sources(&err)));
            check.damage.frames.extend(0..pack.frames);
            check.unreadable_now = true;
            Ok(check)
        }
        Err(err) => Err(err),
    }
}

struct PackPass<'a> {
    repo: &'a Repository,
    key: ObjectKey,
    size: u64,
    hasher: ObjectHasher,
    /// All bytes before this offset are hashed.
    at: u64,
    task: Task<'a>,
    check: PackCheck,
}

/// A frame to open, and its chunks if the directory can be read.
struct FrameCheck {
    row: FrameRow,
    chunks: Vec<ChunkInfo>,
}

impl PackPass<'_> {
    fn run(&mut self, pack: &PackRow, listed_digest: Option<&[u8; 32]>) -> Result<(), Error> {
        let head = self.head()?;
        let frames = self.frames(pack, listed_digest)?;
        let mut broken: Vec<(u32, String)> = Vec::new();
        let mut wrong: Vec<String> = Vec::new();
        for (number, frame) in (0..).zip(&frames) {
            self.task.check()?;
            if let Err(what) = self.frame(&head, number, frame, &mut wrong)? {
                self.check.damage.frames.insert(number);
                broken.push((number, what));
            }
        }

        // Hash the bytes after the last frame.
        self.hash_until(self.size)?;
        if PackId::from(self.hasher.finish()) != self.check.id {
            let rest = if broken.is_empty() && wrong.is_empty() {
                "; its frames are still intact"
            } else {
                ""
            };
            self.find(
                FindingKind::HashMismatch,
                format!("its bytes do not hash to its name{rest}"),
            );
        }

        if let Some((_, first)) = broken.first() {
            let named: Vec<String> = broken
                .iter()
                .map(|(number, _)| number.to_string())
                .collect();
            let all = frames.len();
            let what = format!(
                "frame {} of {all} cannot be opened: {first}",
                enumerate(&named)
            );
            self.find(FindingKind::FrameDamaged, what);
        }

        if !wrong.is_empty() {
            let what = format!("chunk {} does not match its name", enumerate(&wrong));
            self.find(FindingKind::ChunkMismatch, what);
        }
        Ok(())
    }

    fn find(&mut self, kind: FindingKind, what: String) {
        self.check.findings.push((kind, what));
    }

    /// Reads the header from the store, never from the cache. The inner error describes the damage.
    fn head(&mut self) -> Result<Result<PackHead, String>, Error> {
        let mut bytes = vec![0; HEADER_BYTES];
        if self.size < to_u64(HEADER_BYTES) {
            return Ok(Err("the pack ends within its header".into()));
        }
        self.repo.read_at(&self.key, 0, &mut bytes)?;
        let len = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
        if len > HEADER_BYTES && len <= 4096 && to_u64(len) <= self.size {
            bytes.resize(len, 0);
            self.repo.read_at(&self.key, 0, &mut bytes)?;
        }
        Ok(match decode_header(&bytes, ObjectKind::Pack) {
            Ok((header, len)) => {
                bytes.truncate(len);
                Ok(PackHead {
                    header: bytes,
                    random: header.random,
                })
            }
            Err(err) => {
                self.find(
                    FindingKind::ObjectUnreadable,
                    format!("its header cannot be read: {err}"),
                );
                Err(format!("the header cannot be read: {err}"))
            }
        })
    }

    /// Returns the pack's frames from its own directory, after comparing it with the segments. If
    /// the directory cannot be read, the frames come from the index.
    fn frames(
        &mut self,
        pack: &PackRow,
        listed_digest: Option<&[u8; 32]>,
    ) -> Result<Vec<FrameCheck>, Error> {
        match self.repo.read_directory(&self.check.id, self.size) {
            Ok(info) => {
                let agrees = listed_digest.is_none_or(|listed| *listed == digest(&info))
                    && info.frames.len() == to_usize(pack.frames);
                if !agrees {
                    let what = "its directory differs from the index segments";
                    self.find(FindingKind::DirectoryMismatch, what.into());
                    // Even if the frames open by the pack's own directory, readers use the
                    // positions in the segments.
                    self.check.damage.frames.extend(0..pack.frames);
                }
                Ok(from_directory(info))
            }
            Err(err) if err.is_damage() => {
                if let RepoError::Store(err @ StoreError::NotFound { .. }) = err {
                    return Err(err.into());
                }
                self.find(
                    FindingKind::SealBroken,
                    format!("its directory cannot be read: {err}"),
                );

                let mut frames = Vec::with_capacity(to_usize(pack.frames));
                for number in 0..pack.frames {
                    let row = self.repo.frame_row(&pack.id, number)?;
                    frames.extend(row.map(|row| FrameCheck {
                        row,
                        chunks: Vec::new(),
                    }));
                }
                Ok(frames)
            }
            Err(err) => Err(err.into()),
        }
    }

    /// Reads, hashes and opens a frame and checks its chunks. The inner error describes the damage.
    fn frame(
        &mut self,
        head: &Result<PackHead, String>,
        number: u32,
        frame: &FrameCheck,
        wrong: &mut Vec<String>,
    ) -> Result<Result<(), String>, Error> {
        let row = &frame.row;
        let is_outside = row.end().is_none_or(|end| end.get() > self.size);
        if is_outside || row.offset.get() < self.at {
            return Ok(Err("it is outside the pack or overlaps another".into()));
        }
        let stored = row.stored.to_usize();
        if stored > FRAME_STORED_MAX {
            return Ok(Err("it is longer than allowed".into()));
        }

        self.hash_until(row.offset.get())?;
        let sealed = self.read(stored)?;

        let head = match head {
            Ok(head) => head,
            Err(what) => return Ok(Err(what.clone())),
        };
        let plain = match self.repo.open_frame(&self.key, head, number, row, sealed) {
            Ok(plain) => plain,
            Err(RepoError::Damaged { what, .. }) => return Ok(Err(what)),
            Err(err) if err.is_damage() => return Ok(Err(err.to_string())),
            Err(err) => return Err(err.into()),
        };

        self.check.plain += to_u64(plain.len());
        self.task
            .observer
            .add(Counter::BytesRead, to_u64(plain.len()));

        let mut offset = FrameOffset::default();
        for chunk in &frame.chunks {
            let bytes = plain.get(offset.range(chunk.len)).unwrap_or_default();
            if self.repo.keys().chunk_id(row.class, bytes) != chunk.id {
                self.check.damage.chunks.insert((number, offset));
                wrong.push(chunk.id.short());
            }
            offset = offset.saturating_add(chunk.len);
        }
        Ok(Ok(()))
    }

    fn hash_until(&mut self, end: u64) -> Result<(), Error> {
        while self.at < end {
            self.task.check()?;
            self.read(at_most(end - self.at, PIECE))?;
        }
        Ok(())
    }

    fn read(&mut self, len: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; len];
        self.repo.read_at(&self.key, self.at, &mut bytes)?;
        self.hasher.update(&bytes);
        self.at += to_u64(len);
        self.check.bytes += to_u64(len);
        self.task.observer.add(Counter::BytesFetched, to_u64(len));
        self.task.observer.add(Counter::Done, to_u64(len));
        Ok(bytes)
    }
}

fn from_directory(info: PackInfo) -> Vec<FrameCheck> {
    let frame = |frame: crate::types::FrameInfo| FrameCheck {
        row: FrameRow::from(&frame),
        chunks: frame.chunks,
    };
    info.frames.into_iter().map(frame).collect()
}

/// Returns names as a list, for example `1, 2, 3 and 40 more`.
fn enumerate(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMED_MAX)].join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
