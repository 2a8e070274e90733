"""From a log of strace to the list of what a command did to the files below one directory.

    strace -f -ttt -xx -s 16777216 -e trace=CALLS -o LOG COMMAND

The list has these events, in the order in which the calls returned:

    ("entry", directory, name, node or None, needs)   a name set in a directory, or taken from it; kept only if event `needs` is
    ("write", node, offset, bytes)                 bytes of a file
    ("size", node, size)                           a file's length
    ("sync", node, before)                         what the node's events numbered below `before` did is durable
    ("sync all", before)                           so is what all nodes' events did
    ("time", node, ns)                             a file's or directory's modification time; None: that of the call
    ("said",), ("report",)                         a write to standard output, and the last one

Nodes are numbers; the first ones are those of the base. What the log holds and this cannot follow is an error, never left out.
"""

import os
import re
import stat

CALLS = (
    "open,openat,openat2,creat,close,dup,dup2,dup3,fcntl,lseek,read,write,pwrite64,writev,pwritev,pwritev2,truncate,ftruncate,fallocate,"
    "fsync,fdatasync,sync_file_range,sync,syncfs,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,"
    "rmdir,mmap,sendfile,copy_file_range,splice,mknod,mknodat,chdir,fchdir,vfork,fork,execve,io_uring_setup,utimensat"
)
LINE = re.compile(rb"^(\d+) +(\d+\.\d+) (.*)$")
CALL = re.compile(rb"^(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)( .*)?$", re.S)
UNFINISHED = re.compile(rb"^(\w+)\((.*) <unfinished \.\.\.>$", re.S)
RESUMED = re.compile(rb"^<\.\.\. (\w+) resumed>(.*)$", re.S)


class Unknown(Exception):
    """The log holds something that the model does not."""


class Node:
    """A file or a directory, as it was before the command ran (base) and as it is now (live)."""

    def __init__(self, number, directory):
        self.number, self.directory = number, directory
        self.base = {} if directory else b""
        self.live = {} if directory else 0
        self.mtime = None

    def __repr__(self):
        return f"{'directory' if self.directory else 'file'} {self.number}"


def load(root):
    """The base: nodes of everything below a directory, the directory itself first."""
    nodes = []

    def add(path):
        info = os.lstat(path)
        node = Node(len(nodes), stat.S_ISDIR(info.st_mode))
        node.mtime = info.st_mtime_ns
        nodes.append(node)
        if node.directory:
            for name in sorted(os.listdir(path)):
                child = add(os.path.join(path, name))
                node.base[name] = child.number
                node.live[name] = child
        elif stat.S_ISREG(info.st_mode):
            with open(path, "rb") as file:
                node.base = file.read()
            node.live = len(node.base)
        else:
            raise Unknown(f"{path!r} is neither a file nor a directory")
        return node

    add(os.fsencode(root))
    return nodes


def text_of(raw):
    """A string of the log, which is all \\xNN."""
    match = re.fullmatch(rb'"((?:\\x[0-9a-f]{2})*)"', raw)
    if not match:
        raise Unknown(f"not a whole string: {raw[:80]!r}")
    return bytes.fromhex(match[1].replace(b"\\x", b"").decode())


class Open:
    """An open file: its node and its offset, shared by what dup makes of it."""

    def __init__(self, node, append):
        self.node, self.append, self.offset = node, append, 0


class Trace:
    def __init__(self, root, nodes):
        self.root, self.nodes = os.fsencode(root), nodes
        self.fds, self.events, self.times = {}, [], []

    def read(self, log):
        pending = {}
        with open(log, "rb") as lines:
            for line in lines:
                match = LINE.match(line.rstrip(b"\n"))
                if not match:
                    raise Unknown(f"line {line[:100]!r}")
                pid, time, rest = match[1], float(match[2]), match[3]
                if rest.startswith((b"+++", b"---")):
                    continue
                began = len(self.events)
                if unfinished := UNFINISHED.match(rest):
                    pending[pid] = (began, unfinished[1], unfinished[2])
                    continue
                if resumed := RESUMED.match(rest):
                    began, name, head = pending.pop(pid)
                    rest = name + b"(" + head + resumed[2]
                call = CALL.match(rest)
                if not call:
                    raise Unknown(f"call {rest[:100]!r}")
                if call[3] == b"?" or call[3].startswith(b"-"):
                    continue
                self.call(call[1].decode(), call[2], int(call[3], 0), began)
                self.times += [time] * (len(self.events) - len(self.times))
        said = [i for i, event in enumerate(self.events) if event == ("said",)]
        if said:
            self.events[said[-1]] = ("report",)
        return self.events

    # ------------------------------------------------------------------------------------------------- names

    def inside(self, path):
        return path == self.root or path.startswith(self.root + b"/")

    def find(self, dirfd, raw, follow=True):
        """(directory, name, node or None) of a path below the root; None if it lies elsewhere."""
        path = text_of(raw)
        if fd := re.fullmatch(rb"/proc/self/fd/(\d+)", path):
            file = self.fds.get(int(fd[1]))
            return (None, None, file.node) if file else None
        if path.startswith(b"/"):
            if not self.inside(path):
                return None
            directory, parts = self.nodes[0], path[len(self.root) :].split(b"/")
        else:
            number = None if dirfd is None or dirfd.startswith(b"AT_FDCWD") else int(re.match(rb"\d+", dirfd)[0])
            if number not in self.fds:
                return None
            directory, parts = self.fds[number].node, path.split(b"/")
        parts = [p for p in parts if p not in (b"", b".")]
        if not parts:
            return (None, None, directory)
        if parts == [b".."]:
            # None above the box.
            above = [node for node in self.nodes if node.directory and any(child is directory for child in node.live.values())]
            return (None, None, above[0]) if above else None
        if b".." in parts:
            raise Unknown(f"a path with ..: {path!r}")
        for part in parts[:-1]:
            directory = directory.live[part]
        return (directory, parts[-1], directory.live.get(parts[-1]))

    def fresh(self, directory):
        node = Node(len(self.nodes), directory)
        self.nodes.append(node)
        return node

    def set_entry(self, directory, name, node, needs=None):
        if node is None:
            del directory.live[name]
        else:
            directory.live[name] = node
        self.events.append(("entry", directory.number, name, None if node is None else node.number, needs))

    # ------------------------------------------------------------------------------------------------- calls

    def call(self, name, raw, value, began):
        args = raw.split(b", ")
        handler = getattr(self, "on_" + name, None)
        if handler is None:
            raise Unknown(f"a call that the model does not know: {name}")
        handler(args, value, began)

    def file(self, raw):
        match = re.match(rb"\d+", raw)
        return self.fds.get(int(match[0])) if match else None

    def opened(self, dirfd, path, flags, fd):
        self.fds.pop(fd, None)
        if b"O_TMPFILE" in flags:
            found = self.find(dirfd, path)
            if found:
                self.fds[fd] = Open(self.fresh(False), b"O_APPEND" in flags)
            return
        found = self.find(dirfd, path)
        if not found:
            return
        directory, name, node = found
        if node is None:
            if b"O_CREAT" not in flags:
                raise Unknown(f"opened what is not there: {text_of(path)!r}")
            node = self.fresh(False)
            self.set_entry(directory, name, node)
        elif b"O_TRUNC" in flags and not node.directory:
            self.resize(node, 0)
        self.fds[fd] = Open(node, b"O_APPEND" in flags)

    def on_open(self, args, fd, _):
        self.opened(None, args[0], args[1], fd)

    def on_openat(self, args, fd, _):
        self.opened(args[0], args[1], args[2], fd)

    def on_openat2(self, args, fd, _):
        self.opened(args[0], args[1], b", ".join(args[2:]), fd)

    def on_creat(self, args, fd, _):
        self.opened(None, args[0], b"O_CREAT|O_TRUNC", fd)

    def on_close(self, args, *_):
        self.fds.pop(int(re.match(rb"\d+", args[0])[0]), None)

    def on_dup(self, args, fd, _):
        file = self.file(args[0])
        self.fds.pop(fd, None)
        if file:
            self.fds[fd] = file

    on_dup2 = on_dup3 = on_dup

    def on_fcntl(self, args, fd, _):
        if args[1].startswith(b"F_DUPFD"):
            self.on_dup(args, fd, _)

    def on_lseek(self, args, offset, _):
        if file := self.file(args[0]):
            file.offset = offset

    def on_read(self, args, count, _):
        if file := self.file(args[0]):
            file.offset += count

    def resize(self, node, size):
        node.live = size
        self.events.append(("size", node.number, size))

    def put(self, node, offset, data):
        if node.directory:
            raise Unknown(f"a write to {node}")
        node.live = max(node.live, offset + len(data))
        if data:
            self.events.append(("write", node.number, offset, data))

    def on_write(self, args, count, _):
        if args[0] == b"1":
            self.events.append(("said",))
        if file := self.file(args[0]):
            offset = file.node.live if file.append else file.offset
            self.put(file.node, offset, text_of(args[1])[:count])
            file.offset = offset + count

    def on_writev(self, args, count, _):
        if file := self.file(args[0]):
            offset = file.node.live if file.append else file.offset
            self.put(file.node, offset, vector(args)[:count])
            file.offset = offset + count
        else:
            self.on_write([args[0], b'""'], 0, _)

    def on_pwrite64(self, args, count, _):
        if file := self.file(args[0]):
            self.put(file.node, int(args[3]), text_of(args[1])[:count])

    def on_pwritev(self, args, count, _):
        if file := self.file(args[0]):
            raise Unknown(f"pwritev to {file.node}, {count} bytes")

    on_pwritev2 = on_sendfile = on_copy_file_range = on_splice = on_pwritev

    def on_ftruncate(self, args, *_):
        if file := self.file(args[0]):
            self.resize(file.node, int(args[1]))

    def on_truncate(self, args, *_):
        if found := self.find(None, args[0]):
            self.resize(found[2], int(args[1]))

    def on_fallocate(self, args, *_):
        if file := self.file(args[0]):
            if args[1] not in (b"0", b"FALLOC_FL_KEEP_SIZE"):
                raise Unknown(f"fallocate {args[1]!r}")
            end = int(args[2]) + int(args[3])
            if args[1] == b"0" and end > file.node.live:
                self.resize(file.node, end)

    def on_fsync(self, args, _, began):
        if file := self.file(args[0]):
            self.events.append(("sync", file.node.number, began))

    on_fdatasync = on_fsync

    def on_sync_file_range(self, *_):
        """Promises nothing."""

    def on_sync(self, args, _, began):
        raise Unknown("sync")

    def on_syncfs(self, args, _, began):
        # All of the box lies on one file system.
        if self.file(args[0]):
            self.events.append(("sync all", began))

    def on_utimensat(self, args, *_):
        if args[1] == b"NULL":
            file = self.file(args[0])
            node = file.node if file else None
        else:
            found = self.find(args[0], args[1])
            node = found[2] if found else None
        if node is None:
            return
        spec = b", ".join(args[2:])
        if spec.startswith(b"[UTIME_NOW, UTIME_NOW]"):
            self.events.append(("time", node.number, None))
            return
        times = re.match(rb"\[(?:UTIME_OMIT|UTIME_NOW|\{[^}]*\}[^,]*), (?:(UTIME_OMIT)|\{tv_sec=(-?\d+), tv_nsec=(\d+)\})", spec)
        if not times:
            raise Unknown(f"utimensat {spec[:200]!r}")
        if not times[1]:
            self.events.append(("time", node.number, int(times[2]) * 10**9 + int(times[3])))

    def moved(self, source, target, flags=b""):
        if not source and not target:
            return
        if not source or not target or b"EXCHANGE" in flags or b"WHITEOUT" in flags:
            raise Unknown("a rename into the directory, out of it, or of an odd kind")
        if source[:2] == target[:2] or source[2] is target[2]:
            return
        self.set_entry(target[0], target[1], source[2])
        self.set_entry(source[0], source[1], None, needs=len(self.events) - 1)

    def on_rename(self, args, *_):
        self.moved(self.find(None, args[0]), self.find(None, args[1]))

    def on_renameat(self, args, *_):
        self.moved(self.find(args[0], args[1]), self.find(args[2], args[3]))

    def on_renameat2(self, args, *_):
        self.moved(self.find(args[0], args[1]), self.find(args[2], args[3]), args[4])

    def linked(self, source, target):
        if source and target:
            self.set_entry(target[0], target[1], source[2])
        elif source or target:
            raise Unknown("a hard link into the directory, or out of it")

    def on_link(self, args, *_):
        self.linked(self.find(None, args[0]), self.find(None, args[1]))

    def on_linkat(self, args, *_):
        self.linked(self.find(args[0], args[1]), self.find(args[2], args[3]))

    def on_symlink(self, args, *_):
        if self.find(None, args[1]):
            raise Unknown("a symlink")

    def on_symlinkat(self, args, *_):
        if self.find(args[1], args[2]):
            raise Unknown("a symlink")

    def removed(self, found):
        if found:
            self.set_entry(found[0], found[1], None)

    def on_unlink(self, args, *_):
        self.removed(self.find(None, args[0]))

    def on_unlinkat(self, args, *_):
        self.removed(self.find(args[0], args[1]))

    on_rmdir = on_unlink

    def made(self, found):
        if found:
            self.set_entry(found[0], found[1], self.fresh(True))

    def on_mkdir(self, args, *_):
        self.made(self.find(None, args[0]))

    def on_mkdirat(self, args, *_):
        self.made(self.find(args[0], args[1]))

    def on_mknod(self, args, *_):
        if self.find(None, args[0]):
            raise Unknown("a device node")

    def on_mknodat(self, args, *_):
        if self.find(args[0], args[1]):
            raise Unknown("a device node")

    def on_mmap(self, args, *_):
        """Shared memory of SQLite's is rebuilt after a crash and needs no model; nothing else may be mapped for writing."""
        if b"PROT_WRITE" in args[2] and b"MAP_SHARED" in args[3]:
            if file := self.file(args[4]):
                names = [n for node in self.nodes if node.directory for n, child in node.live.items() if child is file.node]
                if not all(name.endswith(b"-shm") for name in names):
                    raise Unknown(f"{names} mapped for writing")

    def on_chdir(self, args, *_):
        raise Unknown("a change of the working directory")

    on_fchdir = on_fork = on_vfork = on_io_uring_setup = on_chdir

    def on_execve(self, *_):
        if self.events:
            raise Unknown("another program was run")


def vector(args):
    return b"".join(text_of(m) for m in re.findall(rb'iov_base=("(?:\\x[0-9a-f]{2})*")', b", ".join(args)))
