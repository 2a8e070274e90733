//! Writes a directory as a tar archive: GNU headers, and PAX records for data that they cannot
//! hold.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use tar::{Builder, EntryType, Header};

use super::tar_links::TarLinks;
use crate::Error;
use crate::observe::{Counter, Problem, Severity, Subject};
use crate::read::ReadSession;
use crate::read::tree::TreeReader;
use crate::repo::RepoError;
use crate::sys::PathError;
use crate::task::Task;
use crate::types::{
    ChunkClass, Content, Entry, Extent, Metadata, Node, RelPath, XattrValue, at_most, to_u64,
};

/// Files up to this size are read through the reader's cache of frames, since their neighbours are
/// in the same frames; larger files by windows on all cores. 2 MiB.
const SMALL_BYTES: u64 = 2 << 20;
const BLOCK: usize = 512;
/// Bytes of a name and of a target that fit into a header.
const NAME_BYTES: usize = 100;
/// The name of an entry that holds the next entry's name or target.
const LONG_NAME: &[u8] = b"././@LongLink";

/// Writes a directory and everything below it. `walk` is positioned directly after the directory's
/// own entry, `top`.
pub(super) fn write_tar(
    session: &ReadSession<'_>,
    walk: &mut TreeReader<'_>,
    top: &Entry,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut archive = TarArchive {
        session,
        task: session.task(),
        top: &top.path,
        links: TarLinks::default(),
        builder: Builder::new(out),
    };
    archive.add(top)?;
    while let Some(entry) = walk.next_below(&top.path)? {
        session.keep()?;
        archive.add(&entry)?;
    }
    archive
        .builder
        .into_inner()
        .and_then(Write::flush)
        .map_err(output_error)
}

struct TarArchive<'a, 'o> {
    session: &'a ReadSession<'a>,
    task: Task<'a>,
    top: &'a RelPath,
    links: TarLinks,
    builder: Builder<&'o mut dyn Write>,
}

impl TarArchive<'_, '_> {
    fn add(&mut self, entry: &Entry) -> Result<(), Error> {
        self.task.observer.add(Counter::Entries, 1);
        let (kind, meta) = match &entry.node {
            Node::File { meta, .. } => (EntryType::Regular, meta),
            Node::Directory { meta } => (EntryType::Directory, meta),
            Node::Symlink { meta, .. } => (EntryType::Symlink, meta),
            Node::Fifo { meta } => (EntryType::Fifo, meta),
            Node::Char { meta, .. } => (EntryType::Char, meta),
            Node::Block { meta, .. } => (EntryType::Block, meta),
            Node::Socket { .. } => return self.leave_out(entry, "tar cannot hold sockets"),
            Node::Failed { reason } => return self.leave_out(entry, reason),
            Node::Unknown { .. } | Node::Removed => {
                return self.leave_out(entry, "its kind needs a newer icecore");
            }
        };

        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(u32::from(meta.mode));
        header.set_uid(u64::from(meta.owner.uid));
        header.set_gid(u64::from(meta.owner.gid));
        // Times before 1970 are only in the PAX record.
        header.set_mtime(u64::try_from(meta.mtime.seconds()).unwrap_or(0));
        // Owner names that are too long or not UTF-8 are omitted; the numbers remain.
        if let Some(header) = header.as_gnu_mut() {
            put_name(&mut header.uname, &meta.owner.user);
            put_name(&mut header.gname, &meta.owner.group);
        }

        if let Node::Char { device, .. } | Node::Block { device, .. } = &entry.node {
            header
                .set_device_major(device.major)
                .map_err(output_error)?;
            header
                .set_device_minor(device.minor)
                .map_err(output_error)?;
        }

        let name = self.name_of(entry);
        if let Some(first) = self.links.first_name(&entry.node, &name) {
            // Its attributes are those of the file, which is already in the archive.
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            self.name(&mut header, &name, &first)?;
            return self
                .builder
                .append(&header, io::empty())
                .map_err(output_error);
        }

        self.records(entry, meta)?;
        let target: &[u8] = if let Node::Symlink { target, .. } = &entry.node {
            target
        } else {
            b""
        };

        header.set_size(entry.content().map_or(0, |content| content.size));
        self.name(&mut header, &name, target)?;
        let Node::File { content, .. } = &entry.node else {
            return self
                .builder
                .append(&header, io::empty())
                .map_err(output_error);
        };
        // Append the header without data, so that the library adds no padding: the content is
        // written after it.
        self.builder
            .append(&header, io::empty())
            .map_err(output_error)?;
        self.content(content)
    }

    /// Puts the name and a link's target into the header byte for byte. The library's own function
    /// drops redundant parts of a path, such as the second slash of `a//b`, makes `//` of a link to
    /// `/`, and refuses a long name that is not UTF-8.
    fn name(&mut self, header: &mut Header, name: &[u8], target: &[u8]) -> Result<(), Error> {
        for (kind, bytes) in [
            (EntryType::GNULongLink, target),
            (EntryType::GNULongName, name),
        ] {
            if bytes.len() > NAME_BYTES {
                self.long_name(kind, bytes)?;
            }
        }
        header
            .set_link_name_literal(&target[..target.len().min(NAME_BYTES)])
            .map_err(output_error)?;
        let name = &name[..name.len().min(NAME_BYTES)];
        if let Some(header) = header.as_gnu_mut() {
            header.name[..name.len()].copy_from_slice(name);
        }
        header.set_cksum();
        Ok(())
    }

    /// Writes a name or target that is too long for the header as an entry before it, as GNU tar
    /// does.
    fn long_name(&mut self, kind: EntryType, bytes: &[u8]) -> Result<(), Error> {
        let mut header = Header::new_gnu();
        if let Some(header) = header.as_gnu_mut() {
            header.name[..LONG_NAME.len()].copy_from_slice(LONG_NAME);
        }
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(to_u64(bytes.len()) + 1);
        header.set_cksum();
        self.builder
            .append(&header, bytes.chain(&b"\0"[..]))
            .map_err(output_error)
    }

    fn leave_out(&self, entry: &Entry, why: &str) -> Result<(), Error> {
        self.task.observer.add(Counter::Failed, 1);
        self.task.observer.problem(&Problem::new(
            Severity::Missing,
            Subject::path(&entry.path),
            format!("left out: {why}"),
        ));
        Ok(())
    }

    /// Returns the name in the archive: relative to the directory, with a slash after directories.
    fn name_of(&self, entry: &Entry) -> Vec<u8> {
        let slashed = entry.path.to_slashed();
        let skip = if self.top.is_root() {
            0
        } else {
            self.top.key().len()
        };
        let rest = slashed[skip..]
            .strip_prefix(b"/")
            .unwrap_or(&slashed[skip..]);
        let mut name = if rest.is_empty() {
            b".".to_vec()
        } else {
            rest.to_vec()
        };
        if entry.is_directory() {
            name.push(b'/');
        }
        name
    }

    /// Writes the data that a GNU header cannot hold: nanoseconds and extended attributes.
    fn records(&mut self, entry: &Entry, meta: &Metadata) -> Result<(), Error> {
        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let seconds = meta.mtime.seconds();
        let nanos = meta.mtime.nanos();
        if nanos != 0 || seconds < 0 {
            records.push(("mtime".into(), decimal_time(seconds, nanos).into_bytes()));
        }

        for xattr in &meta.xattrs {
            // In a record the name ends at the first '=', and it must be UTF-8.
            let name = std::str::from_utf8(&xattr.name)
                .ok()
                .filter(|name| !name.contains('='));
            let Some(name) = name else {
                let what = "an extended attribute was left out: tar cannot hold its name";
                self.task.observer.problem(&Problem::new(
                    Severity::Missing,
                    Subject::path(&entry.path),
                    what,
                ));
                continue;
            };
            let value = match &xattr.value {
                XattrValue::Inline(bytes) => bytes.clone(),
                XattrValue::Chunk { id, .. } => {
                    self.session.reader().chunk(ChunkClass::Metadata, id)?
                }
            };
            records.push((format!("SCHILY.xattr.{name}"), value));
        }

        let records = records
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()));
        self.builder
            .append_pax_extensions(records)
            .map_err(output_error)
    }

    fn content(&mut self, content: &Content) -> Result<(), Error> {
        let is_flat = !content
            .extents
            .iter()
            .any(|extent| matches!(extent, Extent::List { .. }));
        let mut out = CountedWriter {
            inner: *self.builder.get_mut(),
            written: 0,
        };

        if content.size <= SMALL_BYTES && is_flat {
            for extent in &content.extents {
                let bytes = match extent {
                    Extent::Chunk { id, .. } => {
                        self.session.reader().chunk(ChunkClass::Data, id)?
                    }
                    Extent::Hole { len } => {
                        let what = "a hole is longer than its file";
                        let len = usize::try_from(*len)
                            .map_err(|_| RepoError::damaged("content", what))?;
                        vec![0; len]
                    }
                    Extent::Literal(bytes) => bytes.clone(),
                    Extent::List { .. } => continue,
                };
                out.write_all(&bytes).map_err(output_error)?;
                self.task
                    .observer
                    .add(Counter::BytesRead, to_u64(bytes.len()));
            }
        } else {
            self.session.write_content(content, &mut out, self.task)?;
        }

        if out.written != content.size {
            // The header holds the size: with another number of bytes, the archive would be misread
            // from here on.
            let what = format!(
                "a file has {} bytes, its entry records {}",
                out.written, content.size
            );
            return Err(RepoError::damaged("content", what).into());
        }

        let last = at_most(content.size % to_u64(BLOCK), BLOCK);
        let padding = (BLOCK - last) % BLOCK;
        out.write_all(&[0; BLOCK][..padding]).map_err(output_error)
    }
}

struct CountedWriter<'a> {
    inner: &'a mut dyn Write,
    written: u64,
}

impl Write for CountedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.written += to_u64(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn put_name(field: &mut [u8; 32], name: &[u8]) {
    if name.len() < field.len() && std::str::from_utf8(name).is_ok() {
        field[..name.len()].copy_from_slice(name);
    }
}

/// Formats seconds since 1970 with nine decimals. Before 1970 the fraction counts away from zero.
fn decimal_time(seconds: i64, nanos: u32) -> String {
    if seconds < 0 && nanos > 0 {
        format!(
            "-{}.{:09}",
            (seconds + 1).unsigned_abs(),
            1_000_000_000 - nanos
        )
    } else {
        format!("{seconds}.{nanos:09}")
    }
}

fn output_error(source: io::Error) -> Error {
    Error::Path(PathError {
        action: "write to",
        path: PathBuf::from("the output"),
        source,
    })
}
