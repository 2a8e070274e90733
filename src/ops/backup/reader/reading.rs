//! Reads the content of a file that may change during the reading, and whose size and holes may be
//! wrong.
//!
//! An entry carries the stat that was taken before the content was read, judged against a clock
//! read before that stat. The size says where the content should end; one read past it checks that
//! it does.

use std::io;
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::content::{ChunkWriters, ContentBuilder, CutBuffer, CutError, DataSpan, add_chunk};
use super::file_version::{FileVersion, LinkedFile, is_same_version, version};
use super::job::FileJob;
use crate::observe::Counter;
use crate::ops::backup::shared::TreeShared;
use crate::source::{HashChecker, HashName, SourceFile, SourceStat};
use crate::types::{Content, Extent, LITERAL_BYTES_MAX, WHOLE_FILE_BYTES_MAX, at_most, to_u64};

/// Hard-link groups whose content is remembered, so that each is read once.
const LINK_GROUPS_MAX: usize = 64 << 10;

/// The result of reading a file.
pub(super) struct FileReading {
    pub content: Content,
    /// Whether the content matches the hash in the name. `None` if that cannot be checked.
    pub name_agrees: Option<bool>,
    pub is_torn: bool,
    /// The file may change, or may have changed, without a change of its stat.
    pub is_racy: bool,
    /// The stat that belongs to the content.
    pub stat: SourceStat,
}

/// One pass over a file.
struct ReadPass {
    content: Content,
    name_agrees: Option<bool>,
    /// There were more bytes after the size in the stat.
    is_longer: bool,
}

/// The file and the buffers of a pass.
struct EntryPen<'p, 'a> {
    file: &'p SourceFile,
    hash: Option<&'p HashName>,
    window: &'p mut CutBuffer,
    writers: &'p mut ChunkWriters<'a>,
}

impl TreeShared<'_> {
    /// Reads the content ([R17](docs/protocol.md#r17)). A file that changes during the reading is
    /// read again:
    ///
    /// - If it grew, and the second reading of the original length gives the same bytes, the
    ///   content is consistent: between the two readings the file began with these bytes. This is
    ///   how a log changes.
    /// - Otherwise the last reading is kept. It is torn if the file changed during that reading
    ///   too.
    pub(super) fn read(
        &self,
        file: &SourceFile,
        job: &FileJob,
        hash: Option<&HashName>,
        window: &mut CutBuffer,
        writers: &mut ChunkWriters<'_>,
    ) -> Result<FileReading, CutError> {
        let first = FileVersion {
            stat: job.stat,
            is_racy: job.is_racy,
        };
        // A name that is a hash is checked against the bytes, so they are read for each such name.
        if hash.is_none()
            && let Some(linked) = self.linked(&first.stat, file)
        {
            let is_racy = first.is_racy || linked.version.is_racy;
            let content = linked.content;
            return Ok(FileReading {
                content,
                name_agrees: None,
                is_torn: false,
                is_racy,
                stat: first.stat,
            });
        }

        let mut pen = EntryPen {
            file,
            hash,
            window,
            writers,
        };

        let pass = self.pass(&mut pen, first)?;
        let then = version(file, job)?;
        if is_same_version(&first.stat, &then.stat) {
            return self.steady(&mut pen, pass, first);
        }

        let is_growing = then.stat.size > first.stat.size && then.stat.id() == first.stat.id();

        // A growing file: read the original length again and compare.
        if is_growing && pass.content.size == first.stat.size {
            let again = self.pass(&mut pen, first)?;
            if again.content == pass.content {
                let ReadPass {
                    content,
                    name_agrees,
                    ..
                } = again;
                return Ok(FileReading {
                    content,
                    name_agrees,
                    is_torn: false,
                    is_racy: true,
                    stat: first.stat,
                });
            }
        }

        // Any other change: one more try.
        let second = version(file, job)?;
        let pass = self.pass(&mut pen, second)?;
        let then = version(file, job)?;
        if is_same_version(&second.stat, &then.stat) {
            return self.steady(&mut pen, pass, second);
        }

        let ReadPass {
            content,
            name_agrees,
            ..
        } = pass;

        Ok(FileReading {
            content,
            name_agrees,
            is_torn: true,
            is_racy: second.is_racy,
            stat: second.stat,
        })
    }

    /// Returns the result of a pass during which the file kept its stat. If the file has more bytes
    /// than its size says, the size is useless, and the file is read to its end.
    fn steady(
        &self,
        pen: &mut EntryPen<'_, '_>,
        pass: ReadPass,
        version: FileVersion,
    ) -> Result<FileReading, CutError> {
        let FileVersion { stat, is_racy } = version;
        let pass = if pass.is_longer {
            self.pass_to_end(pen)?
        } else {
            pass
        };

        if stat.nlink > 1 {
            self.remember_link(version, &pass.content);
        }

        let ReadPass {
            content,
            name_agrees,
            ..
        } = pass;
        Ok(FileReading {
            content,
            name_agrees,
            is_torn: false,
            is_racy,
            stat,
        })
    }

    /// Reads a file up to the size in its stat.
    fn pass(&self, pen: &mut EntryPen<'_, '_>, version: FileVersion) -> Result<ReadPass, CutError> {
        let mut checker = pen.hash.and_then(HashName::checker);
        let mut builder = ContentBuilder::default();
        let size = version.stat.size;
        let is_sparse = version.stat.may_have_holes();

        let mut at = 0;
        while at < size {
            let data = if is_sparse {
                self.data_at(pen.file, at, version)?
            } else {
                at..size
            };
            if data.start > at {
                if let Some(checker) = &mut checker {
                    self.hash_hole(checker, data.start - at)?;
                }
                builder.push(
                    Extent::Hole {
                        len: data.start - at,
                    },
                    pen.writers,
                )?;
            }
            if data.is_empty() {
                at = size;
                break;
            }

            let is_all = data == (0..size);
            let read = self.read_range(pen, data.clone(), is_all, &mut builder, &mut checker)?;
            at = data.start + read;
            if at < data.end {
                // The file became shorter during the reading; the caller sees that in the next
                // stat.
                break;
            }
        }

        let is_longer = at == size
            && self
                .read_some(pen.file, &mut [0], size)
                .map_err(CutError::Read)?
                > 0;

        let content = builder.finish(pen.writers)?;
        Ok(ReadPass {
            content,
            name_agrees: checker.map(HashChecker::finish),
            is_longer,
        })
    }

    /// Reads a file whose size is wrong until there are no more bytes.
    fn pass_to_end(&self, pen: &mut EntryPen<'_, '_>) -> Result<ReadPass, CutError> {
        let mut checker = pen.hash.and_then(HashName::checker);
        let mut builder = ContentBuilder::default();

        // A file that is small enough is cut as a whole.
        let mut at = 0;
        let mut read = |buf: &mut [u8]| {
            let n = pen.file.read_at(buf, at)?;
            at += to_u64(n);
            Ok(n)
        };
        let short = pen
            .window
            .whole(&mut read, WHOLE_FILE_BYTES_MAX + 1)
            .map_err(CutError::Read)?;
        let short = to_u64(short.len());
        let is_all = short <= WHOLE_FILE_BYTES_MAX;
        let end = if is_all { short } else { u64::MAX };

        self.read_range(pen, 0..end, is_all, &mut builder, &mut checker)?;
        let content = builder.finish(pen.writers)?;
        Ok(ReadPass {
            content,
            name_agrees: checker.map(HashChecker::finish),
            is_longer: false,
        })
    }

    /// Returns the next range of data at or after `at`; the bytes before it are a hole. The file
    /// system may report a hole where written data is not on disk yet. So if the file was modified
    /// recently, the bytes of the hole are checked.
    fn data_at(
        &self,
        file: &SourceFile,
        at: u64,
        version: FileVersion,
    ) -> Result<Range<u64>, CutError> {
        let size = version.stat.size;
        let reported = file
            .next_data(at)
            .map_err(CutError::Read)?
            .unwrap_or(size..size);
        let mut data = reported.start.clamp(at, size)..reported.end.clamp(at, size);
        if version.is_racy && data.start > at {
            let stop = || self.check().is_err();
            data.start = file
                .zeros_until(at..data.start, &stop)
                .map_err(CutError::Read)?;
        }
        Ok(data)
    }

    /// Hashes the zeros of a hole, in steps, as a hole can be larger than any buffer.
    fn hash_hole(&self, checker: &mut HashChecker, mut len: u64) -> Result<(), CutError> {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        while len > 0 {
            self.check()
                .map_err(|_| CutError::Read(io::ErrorKind::BrokenPipe.into()))?;
            let n = at_most(len, ZEROS.len());
            checker.update(&ZEROS[..n]);
            len -= to_u64(n);
        }
        Ok(())
    }

    fn read_some(&self, file: &SourceFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check().map_err(|_| io::ErrorKind::BrokenPipe)?;
        file.read_at(buf, offset)
    }

    /// Cuts one range of data. `is_all`: the range is the entire file.
    fn read_range(
        &self,
        pen: &mut EntryPen<'_, '_>,
        range: Range<u64>,
        is_all: bool,
        builder: &mut ContentBuilder,
        checker: &mut Option<HashChecker>,
    ) -> Result<u64, CutError> {
        let EntryPen {
            file,
            window,
            writers,
            ..
        } = pen;

        let mut offset = range.start;
        let mut read = |buf: &mut [u8]| {
            let n = self.read_some(file, buf, offset)?;
            offset += to_u64(n);
            self.task.observer.add(Counter::BytesRead, to_u64(n));
            self.counts
                .bytes_read
                .fetch_add(to_u64(n), Ordering::Relaxed);
            self.check().map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(n)
        };

        let len = range.end - range.start;

        // A small file is one literal or one chunk.
        if is_all && (len <= to_u64(LITERAL_BYTES_MAX) || self.profile.is_whole(len)) {
            let bytes = window.whole(&mut read, len).map_err(CutError::Read)?;
            if let Some(checker) = checker {
                checker.update(bytes);
            }
            let read = to_u64(bytes.len());
            let extent = match bytes.len() {
                0 => return Ok(0),
                n if n <= LITERAL_BYTES_MAX => Extent::Literal(bytes.to_vec()),
                _ => {
                    let (id, len) = add_chunk(&mut writers.data, bytes)?;
                    Extent::Chunk { id, len }
                }
            };
            builder.push(extent, writers)?;
            return Ok(read);
        }

        let mut seen = |bytes: &[u8]| {
            if let Some(checker) = checker {
                checker.update(bytes);
            }
        };

        let span = DataSpan {
            start: range.start,
            limit: len,
            profile: self.profile,
        };
        window.cut(&mut read, span, builder, writers, &mut seen)
    }

    /// Returns the content of another name of the same file, if this backup has read it.
    fn linked(&self, stat: &SourceStat, file: &SourceFile) -> Option<LinkedFile> {
        if stat.nlink < 2 {
            return None;
        }
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let linked = links.get(&(stat.device, stat.inode))?;
        let seen = &linked.version.stat;
        let same = is_same_version(seen, stat) && is_same_version(seen, file.opened_stat());
        same.then(|| linked.clone())
    }

    fn remember_link(&self, version: FileVersion, content: &Content) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() < LINK_GROUPS_MAX {
            let linked = LinkedFile {
                version,
                content: content.clone(),
            };
            links.insert((version.stat.device, version.stat.inode), linked);
        }
    }
}
