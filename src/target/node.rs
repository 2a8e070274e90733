//! Links and special files: made under a temporary name, given their metadata, renamed.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode};

use super::dir::{Dir, component, open_path};
use super::meta::{self, Before, Handle, MetaReport, MetaToSet};
use super::temp::TempName;
use crate::types::{DeviceNumber, EntryKind};

/// Special files are made for their owner alone; the entry's mode comes after its owner.
const MODE_UNTIL_SET: Mode = Mode::RUSR.union(Mode::WUSR);

/// Each replaces what has the name, if that is no folder.
///
/// # Errors
///
/// `EISDIR` for a folder of that name; `EPERM` for a device without the right to make one.
impl Dir {
    /// Makes a symlink to `target`, 1–4095 bytes, which is not looked at.
    pub fn symlink(&self, name: &[u8], target: &[u8], to_set: &MetaToSet<'_>) -> io::Result<MetaReport> {
        self.make_node(name, EntryKind::Symlink, to_set, |temp| {
            rustix::fs::symlinkat(target, self.fd(), temp)
        })
    }

    /// Makes a named pipe.
    pub fn fifo(&self, name: &[u8], to_set: &MetaToSet<'_>) -> io::Result<MetaReport> {
        self.make_special(name, EntryKind::Fifo, FileType::Fifo, 0, to_set)
    }

    /// Makes a socket that nobody listens on.
    pub fn socket(&self, name: &[u8], to_set: &MetaToSet<'_>) -> io::Result<MetaReport> {
        self.make_special(name, EntryKind::Socket, FileType::Socket, 0, to_set)
    }

    /// Makes a character device.
    pub fn char_device(
        &self,
        name: &[u8],
        device: DeviceNumber,
        to_set: &MetaToSet<'_>,
    ) -> io::Result<MetaReport> {
        let number = rustix::fs::makedev(device.major, device.minor);
        self.make_special(name, EntryKind::Char, FileType::CharacterDevice, number, to_set)
    }

    /// Makes a block device.
    pub fn block_device(
        &self,
        name: &[u8],
        device: DeviceNumber,
        to_set: &MetaToSet<'_>,
    ) -> io::Result<MetaReport> {
        let number = rustix::fs::makedev(device.major, device.minor);
        self.make_special(name, EntryKind::Block, FileType::BlockDevice, number, to_set)
    }

    /// Makes `name` another name of `from_name` in `from`, which is not followed if it is a link itself.
    ///
    /// # Errors
    ///
    /// `EMLINK`, `EXDEV` and `EPERM` tell that this inode takes no (more) names here: write it again instead.
    pub fn hard_link(&self, name: &[u8], from: &Self, from_name: &[u8]) -> io::Result<()> {
        let from_name = component(from_name)?;
        component(name)?;
        let (temp, ()) = TempName::make(self, |temp| {
            rustix::fs::linkat(from.fd(), from_name, self.fd(), temp, AtFlags::empty())
        })?;
        let temp_name = temp.as_bytes().to_vec();
        temp.rename(name)?;
        // Where `name` was a name of this inode already, rename does nothing and both are left.
        match rustix::fs::unlinkat(self.fd(), &temp_name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn make_special(
        &self,
        name: &[u8],
        kind: EntryKind,
        file_type: FileType,
        device: u64,
        to_set: &MetaToSet<'_>,
    ) -> io::Result<MetaReport> {
        self.make_node(name, kind, to_set, |temp| {
            rustix::fs::mknodat(self.fd(), temp, file_type, MODE_UNTIL_SET, device)
        })
    }

    fn make_node(
        &self,
        name: &[u8],
        kind: EntryKind,
        to_set: &MetaToSet<'_>,
        make: impl FnMut(&[u8]) -> rustix::io::Result<()>,
    ) -> io::Result<MetaReport> {
        component(name)?;
        let (temp, ()) = TempName::make(self, make)?;
        let fd = open_path(self.fd(), temp.as_bytes())?;
        let before = Before::New { inherited_acl: self.gives_acl() };
        let report = meta::apply(self.rules(), &Handle::path(fd.as_fd()), kind, before, to_set)?;
        temp.rename(name)?;
        Ok(report)
    }
}
