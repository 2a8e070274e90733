"""What may be on the disk after a power cut: a file system that keeps what was synced and, of the rest, what it likes.

It is weaker than ext4: bytes not synced may be lost page by page, also those of a file whose name is durable; names not synced by
a sync of their directory may be lost in any combination. A rename is kept whole, or as a second name, or not at all. A file's
sync says nothing of its name. A file's time is one more change that may be lost or kept by itself.
"""

import hashlib
import os
import random

PAGE = 4096
CHANGES = ("entry", "write", "size", "time")
VARIANTS = ("kept", "lost", "data lost", "names lost", "prefix", "subset", "subset again")


def durable(events, cut):
    """Of the first `cut` events, the numbers of those that a sync among them has made durable."""
    synced, all_before = {}, 0
    for event in events[:cut]:
        if event[0] == "sync":
            synced[event[1]] = max(synced.get(event[1], 0), event[2])
        elif event[0] == "sync all":
            all_before = max(all_before, event[1])
    return {i for i, e in enumerate(events[:cut]) if e[0] in CHANGES and i < max(all_before, synced.get(e[1], 0))}


def pieces(event):
    """A write as the pages that it touches."""
    _, node, offset, data = event
    at = 0
    while at < len(data):
        step = min(len(data) - at, PAGE - (offset + at) % PAGE)
        yield ("write", node, offset + at, data[at : at + step])
        at += step


def chosen(events, cut, variant, rng):
    """The events that took effect: durable ones, and of the pending ones those that the variant keeps; and the numbers of those
    that took effect whole."""
    safe = durable(events, cut)
    keep, kept = [], set()
    limit, odds = {}, rng.choice((0.2, 0.5, 0.8))
    if variant == "prefix":
        for node in {e[1] for e in events[:cut] if e[0] in CHANGES}:
            mine = [i for i, e in enumerate(events[:cut]) if len(e) > 1 and e[1] == node]
            limit[node] = rng.choice(mine + [cut])
    for i, event in enumerate(events[:cut]):
        if event[0] not in CHANGES:
            continue
        if i not in safe:
            if variant == "lost" or variant == "data lost" and event[0] in ("write", "size") or variant == "names lost" and event[0] == "entry":
                continue
            if variant == "prefix" and i >= limit[event[1]]:
                continue
            if variant.startswith("subset"):
                if event[0] == "write":
                    for piece in pieces(event):
                        if rng.random() < odds:
                            keep.append(piece)
                        elif rng.random() < 0.5:
                            # The length reached the disk, the bytes did not.
                            keep.append(("grow", piece[1], piece[2] + len(piece[3])))
                    continue
                if rng.random() >= odds:
                    continue
        if event[0] == "entry" and event[4] is not None and event[4] not in kept:
            continue
        kept.add(i)
        keep.append(event)
    return keep, kept


def state(nodes, times, events, cut, variant, seed):
    """The files after the cut: path → (bytes, mtime in ns), and the directories' paths."""
    rng = random.Random(seed)
    contents, entries, mtimes = {}, {}, {}
    for node in nodes:
        (entries if node.directory else contents)[node.number] = node.base.copy() if node.directory else node.base
        mtimes[node.number] = node.mtime
    took_effect, whole = chosen(events, cut, variant, rng)
    for event in took_effect:
        if event[0] == "time":
            continue
        if event[0] == "entry":
            if event[3] is None:
                entries[event[1]].pop(event[2], None)
            else:
                entries[event[1]][event[2]] = event[3]
            continue
        held = contents[event[1]]
        if event[0] == "size":
            contents[event[1]] = held[: event[2]].ljust(event[2], b"\0")
        elif event[0] == "grow":
            contents[event[1]] = held.ljust(event[2], b"\0")
        else:
            _, node, offset, data = event
            contents[node] = held[:offset].ljust(offset, b"\0") + data + held[offset + len(data) :]
    for i, event in enumerate(events[:cut]):
        if event[0] in ("write", "size"):
            mtimes[event[1]] = int(times[i] * 1e9)
        elif event[0] == "time" and i in whole:
            mtimes[event[1]] = int(times[i] * 1e9) if event[2] is None else event[2]
        elif event[0] == "entry" and event[3] is not None and mtimes[event[3]] is None:
            mtimes[event[3]] = int(times[i] * 1e9)
    files, directories = {}, []
    walk = [(b"", 0)]
    while walk:
        path, number = walk.pop()
        if number in entries:
            directories.append(path)
            walk += [(path + b"/" + name, child) for name, child in entries[number].items()]
        else:
            files[path] = (contents[number], mtimes[number])
    return files, sorted(directories)


def digest(files, directories):
    total = hashlib.sha256()
    for path in directories:
        total.update(b"d%s\0" % path)
    for path in sorted(files):
        data = files[path][0]
        total.update(b"f%s\0%d\0" % (path, len(data)))
        total.update(data)
    return total.hexdigest()


def write(root, files, directories):
    """Puts a state into an empty directory."""
    root = os.fsencode(root)
    for path in directories:
        if path:
            os.mkdir(root + path, 0o700)
    for path, (data, mtime) in files.items():
        fd = os.open(root + path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.writev(fd, [data]) if data else None
            if mtime is not None:
                os.utime(fd, ns=(mtime, mtime))
        finally:
            os.close(fd)
