//! Applies metadata to the target: reads long attribute values, and reports refusals.

use std::io;

use super::writer::WindowWriter;
use crate::dest::{MetaPart, MetaReport, MetaToSet};
use crate::error::Error;
use crate::read::fetch::{is_of_one_object, with_sources};
use crate::types::{ChunkClass, Metadata, RelPath, XattrValue};

impl WindowWriter<'_> {
    /// Calls `act` with a path's metadata and reports the refused parts. Returns the path's device
    /// and inode. The outer error ends the restore; the inner one concerns only this path.
    pub fn with_meta(
        &self,
        path: &RelPath,
        meta: &Metadata,
        act: impl FnOnce(&MetaToSet<'_>) -> io::Result<MetaReport>,
    ) -> Result<io::Result<(u64, u64)>, Error> {
        let mut values: Vec<(&[u8], std::borrow::Cow<'_, [u8]>)> = Vec::new();
        for xattr in &meta.xattrs {
            let value = match &xattr.value {
                XattrValue::Inline(bytes) => bytes.as_slice().into(),
                XattrValue::Chunk { id, .. } => {
                    match self.job.reader.chunk(ChunkClass::Metadata, id) {
                        Ok(bytes) => bytes.into(),
                        Err(err) if is_of_one_object(&err) => {
                            let name = xattr.name.escape_ascii();
                            let why =
                                format!("attribute {name} cannot be read: {}", with_sources(&err));
                            self.job.tally.damaged_meta(self.subject(path), &why);
                            continue;
                        }
                        Err(err) => return Err(err.into()),
                    }
                }
            };
            values.push((&xattr.name, value));
        }

        let xattrs: Vec<(&[u8], &[u8])> = values
            .iter()
            .map(|(name, value)| (*name, value.as_ref()))
            .collect();

        Ok(act(&MetaToSet {
            meta,
            xattrs: &xattrs,
        })
        .map(|report| {
            self.report_refused(path, meta, &report);
            (report.device, report.inode)
        }))
    }

    fn report_refused(&self, path: &RelPath, meta: &Metadata, report: &MetaReport) {
        for refusal in &report.refused {
            // Only root may give files away. For other users, one line at the end covers all of
            // them.
            let is_usual = refusal.errno == rustix::io::Errno::PERM.raw_os_error();
            if refusal.what == MetaPart::Owner && is_usual && !self.tree.is_roots() {
                self.job.tally.owner_not_set();
                continue;
            }
            let what = match &refusal.what {
                MetaPart::Owner => format!("owner {}:{}", meta.owner.uid, meta.owner.gid),
                MetaPart::Mode => format!("mode {:o}", meta.mode),
                MetaPart::Times => "modification time".to_owned(),
                MetaPart::Xattr(name) if name.is_empty() => "attributes".to_owned(),
                MetaPart::Xattr(name) => format!("attribute {}", name.escape_ascii()),
            };
            let error = io::Error::from_raw_os_error(refusal.errno);
            self.job
                .tally
                .refused(self.subject(path), &format!("cannot set {what}: {error}"));
        }
    }
}
