//! What kind of file system holds a directory, and what follows from it for a backup.

/// Seconds within which a change of a directory, a link or a device may leave its times as they
/// are: what clocks of file systems (2 s on FAT) and of the kernel are coarse by.
const NAME_SECONDS: i64 = 3;
/// The same where another machine keeps the clock.
const NETWORK_SECONDS: i64 = 60;

/// Whose changes and clocks a file system shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsKind {
    Local,
    /// Also FUSE: another machine may stand behind it.
    Network,
    /// Objects of the kernel that look like files, made while they are read: procfs, sysfs, cgroups
    /// and the like.
    Kernel,
}

impl FsKind {
    /// How close to now, in seconds, the times of something without content are not to be trusted
    /// (PROTOCOL R17).
    pub fn name_window_seconds(self) -> i64 {
        match self {
            Self::Local | Self::Kernel => NAME_SECONDS,
            Self::Network => NETWORK_SECONDS,
        }
    }

    /// The same for a file that holds something. A page of a shared mapping that was written gets
    /// no new time for further writes until the kernel has stored it, at most `writeback_seconds`
    /// later.
    pub fn content_window_seconds(self, writeback_seconds: i64) -> i64 {
        match self {
            Self::Local => writeback_seconds.max(NAME_SECONDS),
            Self::Network | Self::Kernel => NETWORK_SECONDS.max(writeback_seconds),
        }
    }

    /// By the type that `statfs` tells.
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
