//! Writes a stream's or file's bytes, or a directory as tar, to an output.

use std::io::Write;

use super::path::ListedPath;
use super::tar::write_tar;
use crate::Error;
use crate::advice::{Advice, SnapshotAdvice};
use crate::format::SourceKind;
use crate::observe::ProgressUnit;
use crate::ops::absent::no_path;
use crate::read::ReadSession;
use crate::read::lost::report_lost;
use crate::read::source_of;
use crate::read::tree::TreeReader;
use crate::repo::OnDamage;
use crate::types::Node;

/// Writes a stream or file to `out` as it was captured, or a directory as a tar archive.
///
/// Names in the archive are relative to the directory, which is its first entry, `./`. Names of any
/// bytes and length, sizes above 8 GiB, times to the nanosecond and extended attributes
/// (`SCHILY.xattr`) are in the forms that GNU tar and bsdtar read. Sockets, and paths that were not
/// captured, are left out and reported as missing. Holes are zeros. Further names of a file are
/// hard links to the first.
///
/// # Errors
/// Damage ends the operation: an archive or file that continued after a gap would look complete.
/// Bytes that were already written stay written.
pub fn cat(session: &ReadSession<'_>, what: &ListedPath, out: &mut dyn Write) -> Result<(), Error> {
    let Some(name) = &what.source else {
        return Err(Error::usage(
            "which source? write SNAP:SOURCE or SNAP:SOURCE/PATH".into(),
        ));
    };

    let task = session.task();
    let reader = session.reader();
    let found = what.find(session)?;
    let source = source_of(&found, &what.snapshot, name, &what.path)?;

    report_lost(&found.snapshot, name, &what.path, task.observer);
    match &source.kind {
        SourceKind::Stream { content, .. } if what.path.is_root() => {
            task.observer.expect(content.size, ProgressUnit::Bytes);
            session.write_content(content, out, task)?;
        }
        SourceKind::Stream { .. } => return Err(no_path(reader, found.id, source, &what.path)),
        SourceKind::Tree { runs, .. } => {
            let mut walk = TreeReader::open(reader, runs, OnDamage::Fail)?;
            let entry = walk
                .entry_at(&what.path)?
                .ok_or_else(|| no_path(reader, found.id, source, &what.path))?;

            match &entry.node {
                Node::File { content, .. } => {
                    task.observer.expect(content.size, ProgressUnit::Bytes);
                    session.write_content(content, out, task)?;
                }
                Node::Directory { .. } => {
                    write_tar(session, &mut walk, &entry, out)?;
                }
                Node::Symlink { target, .. } => {
                    let target = String::from_utf8_lossy(target);
                    return Err(Error::Usage {
                        why: format!(
                            "'{}' is a symbolic link to '{target}', which is not followed",
                            entry.path
                        ),
                        advice: Some(Advice::Snapshot(SnapshotAdvice::RestoreLink)),
                    });
                }
                _ => {
                    let what = format!("'{}' is neither a file nor a directory", entry.path);
                    return Err(Error::usage(what));
                }
            }
        }
    }
    Ok(())
}
