//! Reads extended attributes by path or by handle, while the file system may change.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::Errno;

/// Linux's limit for a value and for a list of names.
const XATTR_BYTES_MAX: usize = 64 << 10;
/// First try; most files have no attributes.
const FIRST_BYTES: usize = 512;

/// The object whose attributes are read.
pub(super) enum XattrPlace<'a> {
    /// A path below `/proc/self/fd`; its last component is not followed.
    Path(&'a [u8]),
    Handle(BorrowedFd<'a>),
}

impl XattrPlace<'_> {
    fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Path(path) => llistxattr(*path, buffer),
            Self::Handle(fd) => flistxattr(fd, buffer),
        }
    }

    fn get(&self, name: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Path(path) => lgetxattr(*path, name, buffer),
            Self::Handle(fd) => fgetxattr(fd, name, buffer),
        }
    }
}

/// A path's extended attributes, as far as they can be read.
#[derive(Debug, Default)]
pub struct XattrReader {
    /// Names and values, sorted by name, without duplicates.
    pub values: Vec<(Vec<u8>, Vec<u8>)>,
    pub unread: Option<UnreadXattrs>,
}

/// A failure to read attributes.
#[derive(Debug)]
pub struct UnreadXattrs {
    /// The attributes whose values cannot be read, sorted. `None` if the names could not be listed.
    pub names: Option<Vec<Vec<u8>>>,
    /// The first error.
    pub error: io::Error,
}

/// Reads all attributes that can be read. On a file system without attributes there are none. An
/// attribute that vanishes between the list and the read is left out.
pub(super) fn read_all(of: &XattrPlace<'_>) -> XattrReader {
    let names = match growing(|buffer| of.list(buffer)) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return XattrReader::default(),
        Err(error) => {
            let unread = UnreadXattrs {
                names: None,
                error: error.into(),
            };
            return XattrReader {
                values: Vec::new(),
                unread: Some(unread),
            };
        }
    };

    let mut values = Vec::new();
    let mut unread: Option<UnreadXattrs> = None;
    for name in names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        match growing(|buffer| of.get(name, buffer)) {
            Ok(value) => values.push((name.to_vec(), value)),
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => {
                let unread = unread.get_or_insert_with(|| UnreadXattrs {
                    names: None,
                    error: error.into(),
                });
                unread.names.get_or_insert_default().push(name.to_vec());
            }
        }
    }

    values.sort();
    values.dedup_by(|a, b| a.0 == b.0);
    if let Some(names) = unread.as_mut().and_then(|unread| unread.names.as_mut()) {
        names.sort();
    }
    XattrReader { values, unread }
}

/// Calls `read` again with a larger buffer if the result does not fit.
fn growing(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut first = [0; FIRST_BYTES];
    match read(&mut first) {
        Ok(len) => return Ok(first[..len].to_vec()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error),
    }
    // Nothing is larger than this, so a second size is enough.
    let mut all = vec![0; XATTR_BYTES_MAX];
    let len = read(&mut all)?;
    all.truncate(len);
    all.shrink_to_fit();
    Ok(all)
}
