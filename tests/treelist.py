#!/usr/bin/env python3
"""Lists a tree with all that a restore must bring back, one path a line, so that `diff` judges a restore.

    diff <(tests/treelist.py A) <(tests/treelist.py B)

Columns: path, kind, mode, owner, size, mtime in ns, then what the kind has: link target, device numbers, the first
path of the hard-link group, extended attributes (name=hex), SHA-256 of the content, `sparse` if less is allocated
than the size. Paths are sorted component by component as bytes. Goes through directory handles, so depth has no limit.
"""

import argparse
import errno
import hashlib
import os
import stat
import sys

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


def quoted(raw):
    """Bytes as one word of printable ASCII."""
    return "".join(chr(b) if 0x20 < b < 0x7F and b != 0x5C else "\\x%02x" % b for b in raw)


def without_atime(path, flags, dir_fd=None):
    try:
        return os.open(path, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        return os.open(path, flags, dir_fd=dir_fd)


def content_sum(fd, size):
    """SHA-256 of a file; holes are skipped on disk but hashed as zeros."""
    total = hashlib.sha256()
    zeros = bytes(1 << 20)
    at = 0

    def pad(until):
        nonlocal at
        while at < until:
            step = min(until - at, len(zeros))
            total.update(zeros[:step])
            at += step

    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            start = at
        pad(start)
        piece = os.pread(fd, 1 << 20, at)
        if not piece:
            break
        total.update(piece)
        at += len(piece)
    pad(size)
    return total.hexdigest()


class Lister:
    def __init__(self, options, out):
        self.options = options
        self.out = out
        self.groups = {}
        self.failed = False

    def xattrs(self, fd, name):
        path = b"/proc/self/fd/%d/%s" % (fd, name)
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return []
            raise
        if self.options.no_owner:
            names = [n for n in names if n.startswith("user.") or n.startswith("system.")]
        pairs = []
        for key in sorted(os.fsencode(n) for n in names):
            value = os.getxattr(path, key, follow_symlinks=False)
            pairs.append("%s=%s" % (quoted(key), value.hex()))
        return pairs

    def describe(self, fd, name, path, info):
        kind = stat.S_IFMT(info.st_mode)
        fields = [quoted(path) or ".", KINDS.get(kind, "?"), "%04o" % stat.S_IMODE(info.st_mode)]
        if not self.options.no_owner:
            fields.append("%d:%d" % (info.st_uid, info.st_gid))
        if kind == stat.S_IFREG:
            fields.append("size=%d" % info.st_size)
        if not self.options.no_times:
            fields.append("mtime=%d" % info.st_mtime_ns)
        if kind == stat.S_IFLNK:
            fields.append("-> " + quoted(os.readlink(name, dir_fd=fd)))
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            fields.append("rdev=%d,%d" % (os.major(info.st_rdev), os.minor(info.st_rdev)))
        if kind != stat.S_IFDIR and info.st_nlink > 1:
            first = self.groups.setdefault((info.st_dev, info.st_ino), quoted(path))
            fields.append("links=%d:%s" % (info.st_nlink, first))
        try:
            fields.extend(self.xattrs(fd, name))
            if kind == stat.S_IFREG:
                file = without_atime(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, fd)
                try:
                    fields.append("sha256=" + content_sum(file, info.st_size))
                finally:
                    os.close(file)
                if info.st_blocks * 512 < info.st_size and not self.options.no_sparse:
                    fields.append("sparse")
        except OSError as error:
            fields.append("unreadable(%s)" % errno.errorcode.get(error.errno, "?"))
            self.failed = True
        self.out.write(" ".join(fields) + "\n")

    def names(self, fd):
        with os.scandir(fd) as entries:
            return sorted(os.fsencode(entry.name) for entry in entries)

    def walk(self, root):
        """Holds one handle a level: depth costs descriptors, not recursion."""
        top = without_atime(root, os.O_RDONLY | os.O_DIRECTORY)
        self.describe(top, b".", b"", os.fstat(top))
        stack = [(top, b"", iter(self.names(top)))]
        while stack:
            fd, path, names = stack[-1]
            name = next(names, None)
            if name is None:
                os.close(fd)
                stack.pop()
                continue
            below = path + b"/" + name if path else name
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            self.describe(fd, name, below, info)
            if not stat.S_ISDIR(info.st_mode):
                continue
            try:
                child = without_atime(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, fd)
            except OSError as error:
                self.out.write("%s unlistable(%s)\n" % (quoted(below), errno.errorcode.get(error.errno, "?")))
                self.failed = True
                continue
            try:
                stack.append((child, below, iter(self.names(child))))
            except OSError as error:
                os.close(child)
                self.out.write("%s unlistable(%s)\n" % (quoted(below), errno.errorcode.get(error.errno, "?")))
                self.failed = True


def main():
    parser = argparse.ArgumentParser(description="List a tree so that diff can judge a restore.")
    parser.add_argument("--no-owner", action="store_true", help="leave out owners and root's own attributes")
    parser.add_argument("--no-times", action="store_true", help="leave out modification times")
    parser.add_argument("--no-sparse", action="store_true", help="leave out whether less is allocated than the size")
    parser.add_argument("tree")
    options = parser.parse_args()
    lister = Lister(options, sys.stdout)
    lister.walk(os.fsencode(options.tree))
    # What could not be read is in the list; the caller sees it in the exit code too.
    return 1 if lister.failed else 0


if __name__ == "__main__":
    sys.exit(main())
