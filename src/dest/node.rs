//! Creates links and special files: under a temporary name, then with their metadata, then renamed.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode};

use super::dir::{DestDir, component, open_path};
use super::meta::{self, MetaReport, MetaToSet, MetadataBefore, MetadataHandle, WhichTimes};
use super::temp::TempName;
use crate::types::{DeviceNumber, EntryKind};

/// Special files are first created for their owner alone; the entry's mode is set after its owner.
const MODE_UNTIL_SET: Mode = Mode::RUSR.union(Mode::WUSR);

/// Each method replaces an existing path, as far as the handle's [`ReplaceRule`](super::ReplaceRule) allows
/// it.
///
/// # Errors
///
/// `EISDIR` if the name is a directory, `AlreadyExists` if the existing path must not be replaced,
/// `PermissionDenied` for a device without the right to make one.
impl DestDir {
    /// Makes a symlink to `target`, 1–4095 bytes, which is not checked.
    pub fn symlink(
        &self,
        name: &[u8],
        target: &[u8],
        to_set: &MetaToSet<'_>,
    ) -> io::Result<MetaReport> {
        self.make_node(name, EntryKind::Symlink, to_set, |temp| {
            rustix::fs::symlinkat(target, self.fd(), temp)
        })
    }

    /// Makes a named pipe.
    pub fn fifo(&self, name: &[u8], to_set: &MetaToSet<'_>) -> io::Result<MetaReport> {
        self.make_special(name, EntryKind::Fifo, FileType::Fifo, 0, to_set)
    }

    /// Makes a socket that no process listens on.
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
        self.make_special(
            name,
            EntryKind::Char,
            FileType::CharacterDevice,
            number,
            to_set,
        )
    }

    /// Makes a block device.
    pub fn block_device(
        &self,
        name: &[u8],
        device: DeviceNumber,
        to_set: &MetaToSet<'_>,
    ) -> io::Result<MetaReport> {
        let number = rustix::fs::makedev(device.major, device.minor);
        self.make_special(
            name,
            EntryKind::Block,
            FileType::BlockDevice,
            number,
            to_set,
        )
    }

    /// Makes `name` another name of `from_name` in `from`. If `from_name` is a link, it is not
    /// followed.
    ///
    /// # Errors
    ///
    /// `EMLINK`, `EXDEV` and `EPERM` mean that this inode takes no more names here: write the file
    /// again instead.
    pub fn hard_link(&self, name: &[u8], from: &Self, from_name: &[u8]) -> io::Result<()> {
        let from_name = component(from_name)?;
        component(name)?;
        let (temp, ()) = TempName::make(self, |temp| {
            rustix::fs::linkat(from.fd(), from_name, self.fd(), temp, AtFlags::empty())
        })?;
        let temp_name = temp.as_bytes().to_vec();
        temp.rename(name)?;
        // If `name` was a name of this inode already, rename does nothing and both names remain.
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
        let made = self.make_node(name, kind, to_set, |temp| {
            rustix::fs::mknodat(self.fd(), temp, file_type, MODE_UNTIL_SET, device)
        });
        let is_device = matches!(kind, EntryKind::Char | EntryKind::Block);
        made.map_err(|err| match err.raw_os_error() {
            Some(errno) if is_device && errno == rustix::io::Errno::PERM.raw_os_error() => {
                io::Error::new(err.kind(), "this user may not create a device")
            }
            _ => err,
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
        let before = MetadataBefore::New {
            inherited_acl: self.gives_acl(),
        };
        let report = meta::apply(
            self.rules(),
            &MetadataHandle::path(fd.as_fd()),
            kind,
            before,
            to_set,
            WhichTimes::Now,
        )?;
        temp.rename(name)?;
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dest::testing::{
        errno, fixture, found, is_root, names, own_meta, path, plain, root_of,
    };
    use crate::types::Timestamp;
    use rustix::io::Errno;

    #[test]
    fn every_kind_is_created_as_requested() {
        let (_directory, tree) = fixture();
        let root = root_of(&tree);
        let mut meta = own_meta(0o6751);
        if is_root() {
            (meta.owner.uid, meta.owner.gid) = (1234, 5678);
        }

        let to_set = plain(&meta);
        let device = DeviceNumber { major: 1, minor: 3 };
        let mut made = vec![
            (
                b"link".as_slice(),
                EntryKind::Symlink,
                root.symlink(b"link", b"/no/where\xff", &to_set),
            ),
            (b"fifo", EntryKind::Fifo, root.fifo(b"fifo", &to_set)),
            (
                b"socket",
                EntryKind::Socket,
                root.socket(b"socket", &to_set),
            ),
            (
                b"file\xff\n",
                EntryKind::File,
                root.write_file(b"file\xff\n", b"content", &to_set),
            ),
        ];

        if is_root() {
            made.push((
                b"char",
                EntryKind::Char,
                root.char_device(b"char", device, &to_set),
            ));
            let wide = DeviceNumber {
                major: 4095,
                minor: 1_048_575,
            };
            made.push((
                b"block",
                EntryKind::Block,
                root.block_device(b"block", wide, &to_set),
            ));
        }

        let count = made.len();
        for (name, kind, result) in made {
            assert!(result.expect("made").is_clean(), "{kind:?}");
            let found = found(&root, name);
            assert_eq!(found.kind, Some(kind));
            assert_eq!(
                found.mode,
                if kind == EntryKind::Symlink {
                    0o777
                } else {
                    0o6751
                },
                "{kind:?}"
            );
            assert_eq!(
                (found.uid, found.gid),
                (meta.owner.uid, meta.owner.gid),
                "{kind:?}"
            );
            assert_eq!(found.mtime, meta.mtime, "{kind:?}");

            match kind {
                EntryKind::Char => assert_eq!(found.rdev, device),
                EntryKind::Block => assert_eq!(
                    found.rdev,
                    DeviceNumber {
                        major: 4095,
                        minor: 1_048_575
                    }
                ),
                _ => assert_eq!(found.rdev, DeviceNumber { major: 0, minor: 0 }),
            }
        }

        assert_eq!(root.read_link(b"link").expect("a target"), b"/no/where\xff");
        assert_eq!(names(&root).len(), count, "nothing temporary is left");

        // Special files are never opened; links are never followed.
        for name in [b"link".as_slice(), b"fifo", b"socket"] {
            let error = root.open_existing_file(name).expect_err("no regular file");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn an_existing_path_is_replaced_unless_it_is_a_directory() {
        let (_directory, tree) = fixture();
        let root = root_of(&tree);
        let meta = own_meta(0o644);
        let _ = root
            .write_file(b"x", b"old", &plain(&meta))
            .expect("a file");
        let _ = root
            .symlink(b"x", b"target", &plain(&meta))
            .expect("a link");
        let _ = root
            .symlink(b"x", b"another", &plain(&meta))
            .expect("a link");
        let _ = root.fifo(b"x", &plain(&meta)).expect("a pipe");
        assert_eq!(found(&root, b"x").kind, Some(EntryKind::Fifo));

        tree.make_directory(&path("directory"))
            .expect("a directory");
        assert_eq!(
            errno(root.fifo(b"directory", &plain(&meta))),
            Some(Errno::ISDIR)
        );
        assert_eq!(
            errno(root.write_file(b"directory", b"", &plain(&meta))),
            Some(Errno::ISDIR)
        );
        assert_eq!(
            names(&root),
            [b"directory".as_slice(), b"x"],
            "nothing temporary is left"
        );
    }

    #[test]
    fn hard_links_share_an_inode_and_leave_nothing_behind() {
        let (_directory, tree) = fixture();
        let (directory, _) = tree.make_directory(&path("d")).expect("a directory");
        let root = root_of(&tree);
        let meta = own_meta(0o644);
        let _ = root
            .write_file(b"a", b"content", &plain(&meta))
            .expect("a file");
        directory.hard_link(b"b", &root, b"a").expect("a link");
        assert_eq!(found(&directory, b"b").inode, found(&root, b"a").inode);
        assert_eq!(found(&root, b"a").nlink, 2);
        // Again, with a rename that does nothing.
        directory.hard_link(b"b", &root, b"a").expect("a link");
        assert_eq!(found(&root, b"a").nlink, 2);
        assert_eq!(names(&directory), [b"b"]);
        // A symlink itself gets another name.
        let _ = root.symlink(b"s", b"a", &plain(&meta)).expect("a link");
        root.hard_link(b"t", &root, b"s").expect("a link");
        assert_eq!(found(&root, b"t").kind, Some(EntryKind::Symlink));
    }

    #[test]
    fn a_links_own_metadata_can_be_set_again() {
        let (_directory, tree) = fixture();
        let root = root_of(&tree);
        let mut meta = own_meta(0o644);
        let _ = root
            .write_file(b"file", b"", &plain(&meta))
            .expect("a file");
        let _ = root
            .symlink(b"link", b"file", &plain(&meta))
            .expect("a link");
        meta.mtime = Timestamp::new(-5, 999_999_999).expect("a time");
        assert!(
            root.set_meta(b"link", EntryKind::Symlink, &plain(&meta))
                .expect("set")
                .is_clean()
        );
        assert_eq!(found(&root, b"link").mtime, meta.mtime);
        assert_eq!(found(&root, b"file").mtime, own_meta(0).mtime);
        assert!(
            root.set_meta(b"link", EntryKind::File, &plain(&meta))
                .is_err(),
            "another kind is refused"
        );
    }
}
