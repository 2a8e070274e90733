//! Files being written: under a temporary name, made durable, then renamed to their own name in one
//! step.
//!
//! State after a crash: before [`TempFile::publish`], only the temporary name. During it, either
//! name, with complete content in both cases, since the bytes are durable before the final name
//! exists. After it and the directory's sync, only the final name. Dropping an unpublished file
//! removes it, also after a write that failed because the disk is full.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Advice, Timespec, Timestamps, UTIME_NOW};

use crate::sys::random::random_name;
use crate::sys::{Dir, PathContext, PathError, boottime};

/// If a publication takes longer than this, the file's time is made durable as well.
const SLOW_PUBLICATION: Duration = Duration::from_secs(60);

/// Prefix of every temporary file's name; 32 hex digits follow.
pub const TEMP_PREFIX: &str = ".tmp-";

/// What to do if the final name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExistingFile {
    /// Keep it and fail with `AlreadyExists`.
    Refuse,
    /// Replace it in one step.
    Replace,
    /// As `Refuse`. On a file system without such a step: check, then rename. If two processes
    /// publish the name at the same moment there, one replaces the other, so use this only for
    /// names that no process gives to other bytes.
    RefuseSeen,
    /// As `Refuse`. On a file system without such a step: create the name with an empty file, which
    /// only one process can do, then replace it. A crash in between leaves the empty file.
    Reserve,
}

/// A file under a temporary name, removed when dropped.
#[derive(Debug)]
pub struct TempFile {
    dir: Arc<Dir>,
    name: String,
    file: File,
    /// True while the temporary name exists.
    named: bool,
}

impl TempFile {
    /// Creates an empty file in `dir` with these permission bits regardless of the umask.
    pub fn create(dir: &Arc<Dir>, mode: u32) -> Result<Self, PathError> {
        let name = format!(
            "{TEMP_PREFIX}{}",
            random_name().context("name a file in", dir.path())?
        );
        let file = dir.create_file(&name, mode)?;
        Ok(Self {
            dir: Arc::clone(dir),
            name,
            file,
            named: true,
        })
    }

    /// Returns the path of the file until it is published.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join(&self.name)
    }

    /// Adds bytes at the end. After an error the file's content is unknown: drop it.
    pub fn write_all(&mut self, bytes: &[u8]) -> Result<(), PathError> {
        self.file.write_all(bytes).context("write", self.path())
    }

    /// Asks the kernel to start writing this range to the disk, so that the final sync has little
    /// to do.
    pub fn start_writeback(&self, offset: u64, len: u64) {
        // On Linux this advice starts writing dirty pages and drops only clean ones, and a range
        // just written has no clean pages. `sync_file_range` would express this better, but has no
        // safe wrapper. The result of the advice does not matter: the sync reports write errors.
        if let Some(len) = NonZeroU64::new(len) {
            let _ = rustix::fs::fadvise(&self.file, offset, Some(len), Advice::DontNeed);
        }
    }

    /// Fills `buf` with the written bytes at `offset`.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), PathError> {
        self.file
            .read_exact_at(buf, offset)
            .context("read", self.path())
    }

    /// Reads back the whole content.
    pub fn read_all(&mut self) -> Result<Vec<u8>, PathError> {
        let mut bytes = Vec::new();
        self.file.rewind().context("seek in", self.path())?;
        self.file
            .read_to_end(&mut bytes)
            .context("read", self.path())?;
        Ok(bytes)
    }

    /// Makes the bytes durable, then moves the file to `name` in `dir`.
    ///
    /// The name is durable only after the caller's [`Dir::sync`] of `dir`. On any error the file is
    /// removed: after a failed sync the kernel may have dropped the pages that it could not write,
    /// and a second sync would wrongly succeed.
    pub fn publish(
        mut self,
        dir: &Dir,
        name: impl AsRef<Path>,
        existing: ExistingFile,
    ) -> Result<(), PathError> {
        let name = name.as_ref();
        self.file.sync_all().context("sync", self.path())?;
        match existing {
            ExistingFile::Replace => {
                self.dir.rename_over(&self.name, dir, name)?;
                self.named = false;
            }
            ExistingFile::Refuse => self.named = !self.dir.rename_new(&self.name, dir, name)?,
            ExistingFile::RefuseSeen | ExistingFile::Reserve => {
                match self.dir.rename_new(&self.name, dir, name) {
                    Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                        self.rename_in_two_steps(dir, name, existing)?;
                        self.named = false;
                    }
                    done => self.named = !done?,
                }
            }
        }
        Ok(())
    }

    /// Publishes like [`TempFile::publish`] and sets the file's time to the time of publication.
    ///
    /// The sync happens between the last write and the rename, and a process can be frozen there
    /// for hours (a stopped container, a hung disk). With the time of its last write the file would
    /// look that much older than its name when it appears. The file system takes the time from its
    /// own clock. If the sync took more than a minute the new time is made durable too; otherwise a
    /// power failure may leave a time that is less than a minute early.
    pub fn publish_dated(
        self,
        dir: &Dir,
        name: impl AsRef<Path>,
        existing: ExistingFile,
    ) -> Result<(), PathError> {
        let path = dir.path().join(name.as_ref());
        let begun = boottime();
        let file = self.file.try_clone().context("open", &path)?;
        self.publish(dir, name, existing)?;

        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };

        rustix::fs::futimens(&file, &times).context("set the time of", &path)?;
        if boottime().saturating_sub(begun) > SLOW_PUBLICATION {
            file.sync_all().context("sync", &path)?;
        }
        Ok(())
    }

    /// Publishes on file systems that can neither rename without replacing nor make hard links.
    fn rename_in_two_steps(
        &self,
        dir: &Dir,
        name: &Path,
        existing: ExistingFile,
    ) -> Result<(), PathError> {
        if existing == ExistingFile::RefuseSeen {
            return self.dir.rename_if_unseen(&self.name, dir, name);
        }
        drop(dir.create_file(name, 0o600)?);
        self.dir
            .rename_over(&self.name, dir, name)
            .inspect_err(|_| {
                // The empty file has no further use.
                let _ = dir.remove_file(name);
            })
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if self.named {
            // A drop cannot report an error; prune removes old temporary files.
            let _: Result<(), PathError> = self.dir.remove_file(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(path)
            .expect("list")
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_published_whole_or_leaves_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = Arc::new(Dir::open(root.path()).expect("open"));
        let temp = |bytes: &[u8]| {
            let mut temp = TempFile::create(&dir, 0o600).expect("create");
            temp.write_all(bytes).expect("write");
            temp
        };

        drop(temp(b"dropped"));
        assert_eq!(names(root.path()), [""; 0]);

        temp(b"first")
            .publish(&dir, "a", ExistingFile::Refuse)
            .expect("publish");
        let error = temp(b"second")
            .publish(&dir, "a", ExistingFile::Refuse)
            .expect_err("taken");
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(
            std::fs::read(root.path().join("a")).expect("read"),
            b"first"
        );

        temp(b"third")
            .publish(&dir, "a", ExistingFile::Replace)
            .expect("publish");
        assert_eq!(
            std::fs::read(root.path().join("a")).expect("read"),
            b"third"
        );
        assert_eq!(names(root.path()), ["a"]);
    }

    #[test]
    fn a_rename_in_two_steps_refuses_to_replace() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = Arc::new(Dir::open(root.path()).expect("open"));
        let publish = |bytes: &[u8], name: &str, existing| {
            let mut temp = TempFile::create(&dir, 0o600).expect("create");
            temp.write_all(bytes).expect("write");
            let done = temp.rename_in_two_steps(&dir, Path::new(name), existing);
            temp.named = done.is_err();
            done
        };
        for (name, existing) in [
            ("seen", ExistingFile::RefuseSeen),
            ("reserved", ExistingFile::Reserve),
        ] {
            publish(b"first", name, existing).expect("free");
            let error = publish(b"second", name, existing).expect_err("taken");
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
            assert_eq!(
                std::fs::read(root.path().join(name)).expect("read"),
                b"first"
            );
        }
        assert_eq!(names(root.path()), ["reserved", "seen"]);
    }

    #[test]
    fn a_file_returns_the_written_bytes() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = Arc::new(Dir::open(root.path()).expect("open"));
        let mut temp = TempFile::create(&dir, 0o600).expect("create");
        temp.write_all(b"one ").expect("write");
        temp.start_writeback(0, 4);
        temp.write_all(b"two").expect("write");
        assert_eq!(temp.read_all().expect("read"), b"one two");
    }
}
