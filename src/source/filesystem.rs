//! The kind of file system that holds a directory, and its consequences for a backup.

/// Seconds within which a change of a directory, a link or a device may leave its times unchanged:
/// the granularity of file system clocks (2 s on FAT) and of the kernel's.
const NAME_SECONDS: i64 = 3;
/// The same, if another machine keeps the clock.
const NETWORK_SECONDS: i64 = 60;

/// The kinds of file systems, by the origin of their changes and clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsKind {
    Local,
    /// Includes FUSE: its data may be on another machine.
    Network,
    /// Kernel objects that look like files and are generated when they are read: procfs, sysfs,
    /// cgroups and similar.
    Kernel,
}

impl FsKind {
    /// Returns how close to now, in seconds, the times of a path without content are unreliable
    /// ([R17](docs/protocol.md#r17)).
    pub fn name_window_seconds(self) -> i64 {
        match self {
            Self::Local | Self::Kernel => NAME_SECONDS,
            Self::Network => NETWORK_SECONDS,
        }
    }

    /// Returns the same for a file with content. After a write to a page of a shared mapping,
    /// further writes do not change the time until the kernel has stored the page, at most
    /// `writeback_seconds` later.
    pub fn content_window_seconds(self, writeback_seconds: i64) -> i64 {
        match self {
            Self::Local => writeback_seconds.max(NAME_SECONDS),
            Self::Network | Self::Kernel => NETWORK_SECONDS.max(writeback_seconds),
        }
    }

    /// Returns the kind for the type that `statfs` reports.
    pub(super) fn of(magic: u32) -> Self {
        match magic {
            0x6969            // NFS
            | 0x517b          // SMB, first version
            | 0xff53_4d42     // CIFS
            | 0xfe53_4d42     // SMB2 and later
            | 0x6573_5546     // FUSE: sshfs, s3fs, GlusterFS, virtiofs
            | 0x00c3_6400     // CEPH
            | 0x0102_1997     // 9P
            | 0x5346_414f     // OpenAFS
            | 0x6b41_4653     // the kernel's AFS
            | 0x7375_7245     // Coda
            | 0x0bd0_0bd0     // Lustre
            | 0x4750_4653     // GPFS
            | 0x7461_636f     // OCFS2
            | 0x0116_1970     // GFS2
            => Self::Network,
            0x9fa0            // procfs
            | 0x6265_6572     // sysfs
            | 0x0027_e0eb     // cgroup
            | 0x6367_7270     // cgroup2
            | 0x6462_6720     // debugfs
            | 0x7472_6163     // tracefs
            | 0x7363_6673     // securityfs
            | 0x6165_676c     // pstore
            | 0xde5e_81e4     // efivarfs
            | 0xcafe_4a11     // bpf
            | 0x6265_6570     // configfs
            | 0x1cd1          // devpts
            | 0x1980_0202     // mqueue
            | 0x9584_58f6     // hugetlbfs
            | 0x4249_4e4d     // binfmt_misc
            | 0xf97c_ff8c     // selinuxfs
            | 0x4341_5d53     // smackfs
            | 0x6573_5543     // fusectl
            | 0x6759_6969     // rpc_pipefs
            | 0x6e73_6673     // nsfs
            | 0xabba_1974     // xenfs
            | 0x0765_5821     // resctrl
            => Self::Kernel,
            _ => Self::Local,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_the_file_system() {
        let windows = |kind: FsKind| (kind.name_window_seconds(), kind.content_window_seconds(35));
        assert_eq!(windows(FsKind::of(0xef53)), (3, 35), "ext4");
        assert_eq!(windows(FsKind::of(0x6573_5546)), (60, 60), "FUSE");
        assert_eq!(windows(FsKind::of(0x9fa0)), (3, 60), "procfs");
        assert_eq!(
            FsKind::Network.content_window_seconds(120),
            120,
            "the kernel stores its pages later"
        );
    }
}
