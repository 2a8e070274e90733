//! Reading a file's content, in the face of a file that changes meanwhile and of sizes and holes
//! that do not tell.
//!
//! The stat that an entry carries is the one that was judged: taken before the content was read,
//! with a clock read before it. A size is where the reading is expected to end; one read behind it
//! tells whether it does.

use std::io;
use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::capture::{FileJob, TreeShared};
use super::content::{ContentBuilder, CutError, Span, Window, Writers};
use crate::observe::Counter;
use crate::source::{HashChecker, HashName, SourceFile, Stat};
use crate::sys::now;
use crate::types::{Content, Extent, LITERAL_BYTES_MAX, WHOLE_FILE_BYTES_MAX};

/// Hard-link groups whose content is remembered, so that each is read once.
const LINK_GROUPS_MAX: usize = 64 << 10;

/// What reading a file gave.
pub(super) struct Reading {
    pub content: Content,
    /// The name is a hash of the content; none if that cannot be told.
    pub name_agrees: Option<bool>,
    pub is_torn: bool,
    /// The file may change, or has changed, without another stat than this one to tell.
    pub is_racy: bool,
    /// The stat that belongs to the content.
    pub stat: Stat,
}

/// A file as one stat describes it.
#[derive(Clone, Copy)]
struct Version {
    stat: Stat,
    is_racy: bool,
}

/// The content of a file that has other names.
#[derive(Clone)]
pub(super) struct Linked {
    version: Version,
    content: Content,
}

/// One pass over a file.
struct Pass {
    content: Content,
    name_agrees: Option<bool>,
    /// There was more behind the size that the stat told.
    is_longer: bool,
}

/// What one pass uses.
struct Pen<'p, 'a> {
    file: &'p SourceFile,
    hash: Option<&'p HashName>,
    window: &'p mut Window,
    writers: &'p mut Writers<'a>,
}

impl TreeShared<'_> {
    /// Reads the content (PROTOCOL R17). A file that changes meanwhile is read again:
    ///
    /// - One that grew and has the same beginning the second time, byte for byte, is whole: between
    ///   the two readings it began with these bytes. That is a log.
    /// - Any other is kept as it was read last, and torn if it changed during that reading too.
    pub(super) fn read(
        &self,
        file: &SourceFile,
        job: &FileJob,
        hash: Option<&HashName>,
        window: &mut Window,
        writers: &mut Writers<'_>,
    ) -> Result<Reading, CutError> {
        let first = Version {
            stat: job.stat,
            is_racy: job.is_racy,
        };
        // A name that is a hash is checked against the bytes, so those are read for every name.
        if hash.is_none()
            && let Some(linked) = self.linked(&first.stat, file)
        {
            let is_racy = first.is_racy || linked.version.is_racy;
            let content = linked.content;
            return Ok(Reading {
                content,
                name_agrees: None,
                is_torn: false,
                is_racy,
                stat: first.stat,
            });
        }
        let mut pen = Pen {
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
        if is_growing && pass.content.size == first.stat.size {
            let again = self.pass(&mut pen, first)?;
            if again.content == pass.content {
                let Pass {
                    content,
                    name_agrees,
                    ..
                } = again;
                return Ok(Reading {
                    content,
                    name_agrees,
                    is_torn: false,
                    is_racy: true,
                    stat: first.stat,
                });
            }
        }

        let second = version(file, job)?;
        let pass = self.pass(&mut pen, second)?;
        let then = version(file, job)?;
        if is_same_version(&second.stat, &then.stat) {
            return self.steady(&mut pen, pass, second);
        }
        let Pass {
            content,
            name_agrees,
            ..
        } = pass;
        Ok(Reading {
            content,
            name_agrees,
            is_torn: true,
            is_racy: second.is_racy,
            stat: second.stat,
        })
    }

    /// A pass during which the file kept its stat. If there was more than its size says, the size
    /// says nothing: all is read.
    fn steady(
        &self,
        pen: &mut Pen<'_, '_>,
        pass: Pass,
        version: Version,
    ) -> Result<Reading, CutError> {
        let Version { stat, is_racy } = version;
        let pass = if pass.is_longer {
            self.pass_to_end(pen)?
        } else {
            pass
        };
        if stat.nlink > 1 {
            self.remember_link(version, &pass.content);
        }
        let Pass {
            content,
            name_agrees,
            ..
        } = pass;
        Ok(Reading {
            content,
            name_agrees,
            is_torn: false,
            is_racy,
            stat,
        })
    }

    /// Reads a file up to the size that its stat tells.
    fn pass(&self, pen: &mut Pen<'_, '_>, version: Version) -> Result<Pass, CutError> {
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
                // It was cut short while we read; the stat behind the reading tells.
                break;
            }
        }
        let is_longer = at == size
            && self
                .read_some(pen.file, &mut [0], size)
                .map_err(CutError::Read)?
                > 0;
        let content = builder.finish(pen.writers)?;
        Ok(Pass {
            content,
            name_agrees: checker.map(HashChecker::finish),
            is_longer,
        })
    }

    /// Reads a file whose size says nothing until there is no more.
    fn pass_to_end(&self, pen: &mut Pen<'_, '_>) -> Result<Pass, CutError> {
        let mut checker = pen.hash.and_then(HashName::checker);
        let mut builder = ContentBuilder::default();

        // What is so short that it is cut otherwise.
        let mut at = 0;
        let mut read = |buf: &mut [u8]| {
            let n = pen.file.read_at(buf, at)?;
            at += n as u64;
            Ok(n)
        };
        let short = pen
            .window
            .whole(&mut read, WHOLE_FILE_BYTES_MAX as usize + 1)
            .map_err(CutError::Read)?;
        let short = short.len() as u64;
        let is_all = short <= WHOLE_FILE_BYTES_MAX;
        let end = if is_all { short } else { u64::MAX };

        self.read_range(pen, 0..end, is_all, &mut builder, &mut checker)?;
        let content = builder.finish(pen.writers)?;
        Ok(Pass {
            content,
            name_agrees: checker.map(HashChecker::finish),
            is_longer: false,
        })
    }

    /// The next data at or behind `at`; what lies between is a hole. Of a file that is still being
    /// written the file system may tell holes where data waits to be written, so there the bytes of
    /// a hole are looked at.
    fn data_at(
        &self,
        file: &SourceFile,
        at: u64,
        version: Version,
    ) -> Result<Range<u64>, CutError> {
        let size = version.stat.size;
        let told = file
            .next_data(at)
            .map_err(CutError::Read)?
            .unwrap_or(size..size);
        let mut data = told.start.clamp(at, size)..told.end.clamp(at, size);
        if version.is_racy && data.start > at {
            let stop = || self.check().is_err();
            data.start = file
                .zeros_until(at..data.start, &stop)
                .map_err(CutError::Read)?;
        }
        Ok(data)
    }

    /// Hashes the zeros of a hole, which may be longer than anything that is read.
    fn hash_hole(&self, checker: &mut HashChecker, mut len: u64) -> Result<(), CutError> {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        while len > 0 {
            self.check()
                .map_err(|_| CutError::Read(io::ErrorKind::BrokenPipe.into()))?;
            let n = len.min(ZEROS.len() as u64);
            checker.update(&ZEROS[..n as usize]);
            len -= n;
        }
        Ok(())
    }

    fn read_some(&self, file: &SourceFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check().map_err(|_| io::ErrorKind::BrokenPipe)?;
        file.read_at(buf, offset)
    }

    /// Cuts one run of data; `is_all`: it is all that there is.
    fn read_range(
        &self,
        pen: &mut Pen<'_, '_>,
        range: Range<u64>,
        is_all: bool,
        builder: &mut ContentBuilder,
        checker: &mut Option<HashChecker>,
    ) -> Result<u64, CutError> {
        let Pen {
            file,
            window,
            writers,
            ..
        } = pen;
        let mut offset = range.start;
        let mut read = |buf: &mut [u8]| {
            let n = self.read_some(file, buf, offset)?;
            offset += n as u64;
            self.observer.add(Counter::BytesRead, n as u64);
            self.counts
                .bytes_read
                .fetch_add(n as u64, Ordering::Relaxed);
            self.check().map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(n)
        };
        let len = range.end - range.start;
        if is_all && (len <= LITERAL_BYTES_MAX as u64 || self.profile.is_whole(len)) {
            let bytes = window
                .whole(&mut read, len as usize)
                .map_err(CutError::Read)?;
            if let Some(checker) = checker {
                checker.update(bytes);
            }
            let read = bytes.len() as u64;
            let extent = match bytes.len() {
                0 => return Ok(0),
                n if n <= LITERAL_BYTES_MAX => Extent::Literal(bytes.to_vec()),
                n => Extent::Chunk {
                    id: writers.data.add(bytes)?,
                    len: n as u32,
                },
            };
            builder.push(extent, writers)?;
            return Ok(read);
        }
        let mut seen = |bytes: &[u8]| {
            if let Some(checker) = checker {
                checker.update(bytes);
            }
        };
        let span = Span {
            start: range.start,
            limit: len,
            profile: self.profile,
        };
        window.cut(&mut read, span, builder, writers, &mut seen)
    }

    /// The content of another name of the same file, read in this backup.
    fn linked(&self, stat: &Stat, file: &SourceFile) -> Option<Linked> {
        if stat.nlink < 2 {
            return None;
        }
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let linked = links.get(&(stat.device, stat.inode))?;
        let seen = &linked.version.stat;
        let same = is_same_version(seen, stat) && is_same_version(seen, file.opened_stat());
        same.then(|| linked.clone())
    }

    fn remember_link(&self, version: Version, content: &Content) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() < LINK_GROUPS_MAX {
            let linked = Linked {
                version,
                content: content.clone(),
            };
            links.insert((version.stat.device, version.stat.inode), linked);
        }
    }
}

/// The file as it is now.
fn version(file: &SourceFile, job: &FileJob) -> Result<Version, CutError> {
    let clock = now();
    let stat = file.stat().map_err(CutError::Read)?;
    Ok(Version {
        stat,
        is_racy: stat.is_racy(clock, job.window_seconds),
    })
}

/// True if two stats of a file tell of the same version of its content.
fn is_same_version(a: &Stat, b: &Stat) -> bool {
    (a.size, a.mtime, a.ctime, a.inode, a.device) == (b.size, b.mtime, b.ctime, b.inode, b.device)
}
