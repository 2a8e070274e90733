#!/usr/bin/env python3
"""Reads a repository with standard packages alone: a second opinion on the format, written from docs/format.md.

    reader.py [--passphrase-file FILE] [--from-packs] REPO list
    reader.py [--passphrase-file FILE] [--from-packs] REPO restore SNAPSHOT TARGET
    reader.py [--passphrase-file FILE] REPO check

`list` prints one JSON object a snapshot. `restore` writes each source to TARGET/<name>. `check` compares every object with its
name, every segment with the packs' own directories, and every chunk with its id. The secret is in ICECORE_PASSPHRASE, in
--passphrase-file (less one line feed), or empty. With --from-packs segments are not looked at: chunks are found in the packs' directories.

It is strict: what the page does not allow is an error. It holds a whole tree in memory: it is a judge, not a tool.
"""

import argparse
import heapq
import json
import os
import re
import resource
import stat
import struct
import sys

import zstandard
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MIB = 1 << 20
CONTEXTS = {
    "data id": "icecore 2026-11-22 chunk id of data",
    "metadata id": "icecore 2026-11-22 chunk id of metadata",
    "data": "icecore 2026-11-22 seal data frames",
    "metadata": "icecore 2026-11-22 seal metadata frames",
    "index": "icecore 2026-11-22 seal pack directories and index segments",
    "snapshot": "icecore 2026-11-22 seal snapshots and leases",
    "mac": "icecore 2026-11-22 config mac",
    "check": "icecore 2026-11-22 check value of the master key",
}
PACK, SEGMENT, SNAPSHOT, LEASE = 1, 2, 3, 4
FRAME, DIRECTORY, BODY = 1, 2, 3
DATA, METADATA = 1, 2
FILE, DIRECTORY, SYMLINK, FIFO, SOCKET, CHAR, BLOCK, FAILED, REMOVED = range(1, 10)
COVER, PARTIAL, UNSEEN, FLAGS = 1, 128, 256, 1023
READ_FEATURES = set()


class Bad(Exception):
    """The repository does not hold to the page, or the secret is wrong."""


def need(condition, message):
    if not condition:
        raise Bad(message)


# --------------------------------------------------------------------------------------------------------- encoding


class Wire:
    """Reads the encodings of the page from bytes, none of them twice."""

    def __init__(self, data, what):
        self.data, self.at, self.what = data, 0, what

    def take(self, count):
        need(self.at + count <= len(self.data), f"{self.what}: ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self):
        return self.take(1)[0]

    def number(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
        need(byte or not shift, f"{self.what}: a number that is longer than it need be")
        need(value < 1 << 64, f"{self.what}: a number of more than 64 bits")
        return value

    def signed(self):
        value = self.number()
        return value >> 1 ^ -(value & 1)

    def string(self, least=0, most=1 << 62):
        length = self.number()
        need(least <= length <= most, f"{self.what}: a byte string of {length} bytes")
        return self.take(length)

    def time_after(self, then):
        seconds, nanoseconds = then[0] + self.signed(), then[1] + self.signed()
        need(0 <= nanoseconds < 10**9, f"{self.what}: {nanoseconds} nanoseconds")
        return ((seconds + (1 << 63)) % (1 << 64) - (1 << 63), nanoseconds)

    def record(self, what):
        return Wire(self.string(), what)

    def done(self):
        return self.at == len(self.data)

    def tail(self):
        while not self.done():
            tag = self.number()
            self.string()
            need(tag % 2 == 0, f"{self.what}: needs a newer reader (tag {tag})")

    def end(self):
        need(self.done(), f"{self.what}: {len(self.data) - self.at} bytes too many")


def parse_json(raw, what):
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise Bad(f"{what}: not JSON: {error}") from error
    again = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    need(again == raw, f"{what}: not in the page's form of JSON (no white space, keys sorted)")
    return value


def unhex(text, size, what):
    need(len(text) == 2 * size and all(c in "0123456789abcdef" for c in text), f"{what}: not {size} bytes in hex")
    return bytes.fromhex(text)


# ------------------------------------------------------------------------------------------------------------- keys


def opened(key, nonce, sealed, associated, what):
    try:
        return AESGCM(key).decrypt(nonce, sealed, associated)
    except InvalidTag as error:
        raise Bad(f"{what}: its seal is broken") from error


def inflate(codec, stored, plain_length, what):
    if codec == 1:
        try:
            stored = zstandard.ZstdDecompressor().decompress(stored, max_output_size=plain_length)
        except zstandard.ZstdError as error:
            raise Bad(f"{what}: {error}") from error
    else:
        need(codec == 0, f"{what}: codec {codec}")
    need(len(stored) == plain_length, f"{what}: opens to {len(stored)} bytes, not {plain_length}")
    return stored


def master_key(repo, secret):
    """The master key and the repository's id, from the first slot that the secret opens; either copy of a slot does."""
    names = sorted(os.listdir(os.path.join(repo, "keys")))
    problem = Bad("no key slots")
    for name in names:
        try:
            with open(os.path.join(repo, "keys", name), "rb") as file:
                return slot_opened(file.read(), secret, f"keys/{name}")
        except Bad as error:
            problem = error
    raise problem


def slot_opened(raw, secret, what):
    need(raw.endswith(b"\n") and len(raw) <= 65536, f"{what}: no line feed at its end, or too long")
    slot = parse_json(raw[:-1], what)
    need(slot["magic"] == "icecore key" and slot["format"] == 1, f"{what}: not a key slot of format 1")
    need(slot["memory_kib"] <= MIB and slot["passes"] <= 100, f"{what}: costs too much to open")
    salt, wrapped = unhex(slot["salt"], 32, what), unhex(slot["wrapped"], 48, what)
    key = hash_secret_raw(secret, salt, slot["passes"], slot["memory_kib"], 1, 32, Type.ID, version=0x13)
    associated = raw[:-1].replace(slot["wrapped"].encode(), b"0" * 96)
    master = opened(key, bytes(12), wrapped, associated, f"{what}, opened with this secret")
    check = blake3(master, derive_key_context=CONTEXTS["check"]).hexdigest()
    need(check == slot["check"], f"{what}: opens to another master key than its check value")
    return master, slot["repository"]


class Keys:
    def __init__(self, master):
        self.of = {name: blake3(master, derive_key_context=context).digest() for name, context in CONTEXTS.items()}

    def chunk_id(self, klass, data):
        return blake3(data, key=self.of["data id" if klass == DATA else "metadata id"]).digest()

    def part(self, seal, header, part, number, codec, plain_length, sealed, what):
        """Opens one sealed part of an object and undoes its codec."""
        key = blake3(header[13:45], key=self.of[seal]).digest()
        nonce = struct.pack(">B3xQ", part, number)
        associated = header + struct.pack("<BQBQ", part, number, codec, plain_length)
        return inflate(codec, opened(key, nonce, sealed, associated, what), plain_length, what)


def header_of(raw, kind, what):
    need(raw[:8] == b"icecore\n", f"{what}: not an object of icecore")
    need(raw[8] == kind and raw[9] == 1, f"{what}: kind {raw[8]}, version {raw[9]}")
    (length,) = struct.unpack_from("<H", raw, 10)
    need(61 <= length <= 4096 and raw[12] == 0, f"{what}: header of {length} bytes, key mode {raw[12]}")
    return raw[:length]


# ------------------------------------------------------------------------------------------------------- repository


class Frame:
    def __init__(self, number, klass, codec, offset, stored, plain, chunks):
        self.number, self.klass, self.codec = number, klass, codec
        self.offset, self.stored, self.plain, self.chunks = offset, stored, plain, chunks

    def row(self):
        return (self.klass, self.codec, self.offset, self.stored, self.plain, tuple(self.chunks))


def frame_list(wire):
    frames, end = [], 0
    for number in range(wire.number()):
        klass, codec = wire.byte(), wire.byte()
        need(klass in (DATA, METADATA), f"{wire.what}: frame {number} of class {klass}")
        offset = end + wire.number()
        stored, plain, count = wire.number(), wire.number(), wire.number()
        chunks = [(wire.take(32), wire.number()) for _ in range(count)]
        need(0 < plain <= 4 * MIB and stored <= plain + 16, f"{wire.what}: frame {number} of {stored} and {plain} bytes")
        need(all(0 < size <= 2 * MIB for _, size in chunks) and count <= 65536, f"{wire.what}: frame {number}'s chunks")
        need(sum(size for _, size in chunks) == plain, f"{wire.what}: frame {number}'s chunks do not add up")
        frames.append(Frame(number, klass, codec, offset, stored, plain, chunks))
        end = offset + stored
    return frames


class Repository:
    def __init__(self, path, secret, from_packs=False):
        self.path = path
        self.frames = {}
        self.packs = {}
        with self.open("config") as file:
            raw = file.read()
        need(len(raw) <= 65536 and raw.endswith(b'"}\n'), "config: not a config")
        need(raw[-75:-67] == b',"mac":"', "config: its last field is not the MAC")
        before, mac = raw[:-75], raw[-67:-3].decode()
        config = parse_json(before + b"}", "config")
        need(config["magic"] == "icecore repository" and config["format"] == 1, "config: not a repository of format 1")
        unknown = set(config["features"]["read"]) - READ_FEATURES
        need(not unknown, f"config: needs a reader that knows {sorted(unknown)}")
        master, repository = master_key(path, secret)
        need(repository == config["repository"], "the key slot is another repository's")
        self.keys = Keys(master)
        need(blake3(before, key=self.keys.of["mac"]).hexdigest() == mac, "config: its MAC is wrong")
        # Chunk id → where its copies are, best first: packs that are known, then condemned, then dropped.
        self.copies = {}
        segments = {} if from_packs else self.segments()
        if from_packs:
            state = {pack: (0, self.directory(pack)) for pack in self.names("packs")}
        else:
            condemned = set().union(*(s["condemned"] for s in segments.values()))
            dropped = set().union(*(s["dropped"] for s in segments.values()))
            state = {}
            for segment in segments.values():
                for pack, (_, frames) in segment["added"].items():
                    state[pack] = (2 if pack in dropped else 1 if pack in condemned else 0, frames)
        for pack, (rank, frames) in state.items():
            for frame in frames:
                at = 0
                for chunk, size in frame.chunks:
                    self.copies.setdefault(chunk, []).append((rank, pack, frame, at, size))
                    at += size
        for copies in self.copies.values():
            copies.sort(key=lambda copy: copy[:2])

    def open(self, *names):
        return open(os.path.join(self.path, *names), "rb")

    def names(self, directory):
        """The ids of the objects in a directory, oldest first."""
        found = []
        for base, _, files in os.walk(os.path.join(self.path, directory)):
            for name in files:
                unhex(name, 32, f"{directory}/{name}")
                if directory == "packs":
                    need(os.path.basename(base) == name[-2:], f"packs: {name} is in the wrong directory")
                found.append((os.stat(os.path.join(base, name)).st_mtime_ns, name))
        return [bytes.fromhex(name) for _, name in sorted(found)]

    def object(self, directory, name):
        """An object's bytes, which hash to its name."""
        parts = (directory, name.hex()[-2:], name.hex()) if directory == "packs" else (directory, name.hex())
        try:
            with self.open(*parts) as file:
                raw = file.read()
        except FileNotFoundError as error:
            raise Bad(f"{'/'.join(parts)}: is not there") from error
        need(blake3(raw).digest() == name, f"{'/'.join(parts)}: its bytes do not hash to its name")
        return raw

    def body(self, directory, name, kind, seal, most):
        raw = self.object(directory, name)
        what = f"{directory}/{name.hex()}"
        header = header_of(raw, kind, what)
        codec, plain = struct.unpack_from("<BQ", raw, len(header))
        need(plain <= most, f"{what}: {plain} bytes plain")
        return self.keys.part(seal, header, BODY, 0, codec, plain, raw[len(header) + 9 :], what)

    def segments(self):
        found = {}
        for name in self.names("index"):
            wire = Wire(self.body("index", name, SEGMENT, "index", 64 * MIB), f"index/{name.hex()}")
            wire.take(16)
            added = {}
            for _ in range(wire.number()):
                record = wire.record(wire.what)
                pack, size = record.take(32), record.number()
                added[pack] = (size, frame_list(record))
                record.tail()
            found[name] = {"added": added}
            for section in ("condemned", "dropped", "lost", "superseded"):
                ids = [wire.take(32) for _ in range(wire.number())]
                need(all(a < b for a, b in zip(ids, ids[1:])), f"{wire.what}: {section} is not ascending")
                found[name][section] = set(ids)
            wire.tail()
        return found

    def pack(self, name):
        if name not in self.packs:
            while len(self.packs) >= 4:
                self.packs.pop(next(iter(self.packs)))
            self.packs[name] = self.object("packs", name)
        return self.packs[name]

    def directory(self, name):
        raw, what = self.pack(name), f"pack {name.hex()}"
        header = header_of(raw, PACK, what)
        offset, length, magic = struct.unpack("<QQ8s", raw[-24:])
        need(magic == b"icepack\n" and offset + length == len(raw) - 24, f"{what}: its trailer is wrong")
        codec, plain = struct.unpack_from("<BQ", raw, offset)
        need(plain <= 16 * MIB, f"{what}: a directory of {plain} bytes")
        sealed = raw[offset + 9 : offset + length]
        wire = Wire(self.keys.part("index", header, DIRECTORY, 0, codec, plain, sealed, what), what)
        frames = frame_list(wire)
        wire.end()
        need(not frames or frames[0].offset >= len(header), f"{what}: a frame lies in the header")
        need(not frames or frames[-1].offset + frames[-1].stored <= offset, f"{what}: a frame lies in the directory")
        return frames

    def frame(self, pack, frame):
        key = (pack, frame.number)
        if key not in self.frames:
            while len(self.frames) >= 16:
                self.frames.pop(next(iter(self.frames)))
            raw, what = self.pack(pack), f"pack {pack.hex()}, frame {frame.number}"
            seal = "data" if frame.klass == DATA else "metadata"
            sealed = raw[frame.offset : frame.offset + frame.stored]
            self.frames[key] = self.keys.part(
                seal, header_of(raw, PACK, what), FRAME, frame.number, frame.codec, frame.plain, sealed, what
            )
        return self.frames[key]

    def chunk(self, klass, chunk, length=None):
        problem = Bad(f"chunk {chunk.hex()} is in no pack")
        for _, pack, frame, at, size in self.copies.get(chunk, ()):
            try:
                data = self.frame(pack, frame)[at : at + size]
                need(frame.klass == klass, f"chunk {chunk.hex()} is of the other class")
                need(self.keys.chunk_id(klass, data) == chunk, f"chunk {chunk.hex()}: its bytes do not hash to its id")
                need(length in (None, size), f"chunk {chunk.hex()} has {size} bytes, not {length}")
                return data
            except Bad as error:
                problem = error
        raise problem

    def snapshots(self, directory="snapshots"):
        found = []
        for name in self.names(directory):
            what = f"{directory}/{name.hex()}"
            snapshot = parse_json(self.body(directory, name, SNAPSHOT, "snapshot", 16 * MIB), what)
            check_images(snapshot.get("images", []), what)
            found.append((name.hex(), snapshot))
        return found


DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]{32,128}")


def check_images(images, what):
    """The container images of a node's services."""
    need(len(images) <= 256, f"{what}: {len(images)} images")
    services = [image["service"] for image in images]
    need(services == sorted(set(services)), f"{what}: images out of order")
    for image in images:
        sources = image.get("sources", [])
        texts = [image["service"], image["image"], image["id"], *sources]
        need(DIGEST.fullmatch(image["id"]), f"{what}: an image's id {image['id']!r}")
        if "digest" in image:
            texts.append(image["digest"])
            name, _, digest = image["digest"].partition("@")
            need(name and DIGEST.fullmatch(digest), f"{what}: an image's digest {image['digest']!r}")
        need(len(sources) <= 64, f"{what}: an image of {len(sources)} sources")
        for text in texts:
            need(re.fullmatch(r"[!-~]{1,512}", text), f"{what}: an image's text {text!r}")


# ------------------------------------------------------------------------------------------------- contents and runs


def extent(wire):
    tag = wire.byte()
    if tag == 0:
        return ("chunk", wire.take(32), wire.number())
    if tag == 1:
        return ("hole", None, wire.number())
    if tag == 2:
        data = wire.string(1, 128)
        return ("literal", data, len(data))
    need(tag == 3, f"{wire.what}: an extent of tag {tag}")
    node, length, depth = wire.take(32), wire.number(), wire.byte()
    return ("list", node, length, depth)


def extent_of_json(value):
    ((tag, fields),) = value.items()
    if tag == "literal":
        data = bytes.fromhex(fields["bytes"])
        return ("literal", data, len(data))
    if tag == "hole":
        return ("hole", None, fields["len"])
    chunk = unhex(fields["id"], 32, "an extent")
    return (tag, chunk, fields["len"]) if tag == "chunk" else (tag, chunk, fields["len"], fields["depth"])


def pieces(repo, extents, depth=9):
    """Flattens list nodes: (bytes or None for a hole, length), in order."""
    for item in extents:
        if item[0] == "chunk":
            yield repo.chunk(DATA, item[1], item[2]), item[2]
        elif item[0] == "literal":
            yield item[1], item[2]
        elif item[0] == "hole":
            yield None, item[2]
        else:
            need(item[0] == "list" and 1 <= item[3] <= 8 and item[3] < depth, "a list node of the wrong depth")
            wire = Wire(repo.chunk(METADATA, item[1]), f"list node {item[1].hex()}")
            inner = [extent(wire) for _ in range(wire.number())]
            wire.end()
            need(len(inner) <= 64 and sum(e[2] for e in inner) == item[2], f"{wire.what}: does not add up")
            need(all((e[0] == "list") == (item[3] > 1) for e in inner), f"{wire.what}: lists at the wrong depth")
            yield from pieces(repo, inner, item[3])


class Entry:
    path = kind = flags = None
    mode = owner = mtime = inode = links = device = None
    xattrs, extents, target, rdev, reason = (), (), b"", None, b""


def packed(raw, count, bits, alphabet):
    value = int.from_bytes(raw, "big")
    spare = len(raw) * 8 - count * bits
    need(spare < 8 and value & ((1 << spare) - 1) == 0, "a packed name whose last byte is not filled with zeros")
    return bytes(alphabet[value >> (spare + bits * (count - 1 - i)) & ((1 << bits) - 1)] for i in range(count))


def rest_of_path(wire):
    count, form = divmod(wire.number(), 4)
    if form == 0:
        return wire.take(count)
    if form == 1:
        return packed(wire.take((count * 4 + 7) // 8), count, 4, b"0123456789abcdef")
    need(form == 2, f"{wire.what}: a path of form {form}")
    return packed(wire.take((count * 5 + 7) // 8), count, 5, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") + b".data"


def entries_of_page(repo, chunk):
    wire = Wire(repo.chunk(METADATA, chunk), f"page {chunk.hex()}")
    owners = []
    for _ in range(wire.number()):
        owners.append((wire.number(), wire.number(), wire.string(0, 255), wire.string(0, 255)))
    path, then, first = b"", (0, 0), True
    while not wire.done():
        record, entry = wire.record(wire.what), Entry()
        shared = record.number()
        need(shared <= len(path), f"{wire.what}: shares more than there is")
        entry.path = path[:shared] + rest_of_path(record)
        need(first or entry.path > path, f"{wire.what}: paths do not ascend")
        parts = entry.path.split(b"\0") if entry.path else []
        need(not any(p in (b"", b".", b"..") or b"/" in p or len(p) > 4095 for p in parts), f"{wire.what}: a bad path")
        need(len(entry.path) <= 65536, f"{wire.what}: a path that is too long")
        path, first = entry.path, False
        entry.kind, entry.flags = record.byte(), record.number()
        need(1 <= entry.kind <= 9, f"{wire.what}: an entry of kind {entry.kind}")
        need(entry.flags & ~FLAGS == 0, f"{wire.what}: flags {entry.flags}")
        need(not entry.flags & UNSEEN or entry.flags & PARTIAL, f"{wire.what}: unseen and not partial")
        if entry.kind <= BLOCK:
            entry.mode, entry.owner = record.number(), owners[record.number()]
            need(entry.mode < 0o10000, f"{wire.what}: permission bits {entry.mode:o}")
            entry.mtime = then = record.time_after(then)
            record.time_after(entry.mtime)
            entry.inode, entry.links = record.number(), record.number()
            entry.device = record.number() if entry.links > 1 else None
            entry.xattrs = []
            for _ in range(record.number()):
                name, form = record.string(1, 255), record.byte()
                need(form in (0, 1), f"{wire.what}: an attribute of form {form}")
                if form == 0:
                    value = record.string(0, 4096)
                else:
                    attribute = record.take(32)
                    value = repo.chunk(METADATA, attribute, record.number())
                need(not entry.xattrs or entry.xattrs[-1][0] < name, f"{wire.what}: attributes do not ascend")
                entry.xattrs.append((name, value))
        if entry.kind == FILE:
            entry.extents = [extent(record) for _ in range(record.number())]
            need(len(entry.extents) <= 16, f"{wire.what}: more than 16 extents in an entry")
        elif entry.kind == SYMLINK:
            entry.target = record.string(1, 4095)
        elif entry.kind in (CHAR, BLOCK):
            entry.rdev = (record.number(), record.number())
        elif entry.kind == FAILED:
            entry.reason = record.string(0, 1024)
        record.tail()
        yield entry


def tree_of_pages(repo, wire, level_of=None):
    """The entries below one tree of a run's root, page by page."""
    level = wire.number()
    need(level <= 4 and level_of in (None, level), f"{wire.what}: level {level}")
    for _ in range(wire.number()):
        reference = wire.record(wire.what)
        first, chunk, count, _ = reference.string(0, 65536), reference.take(32), reference.number(), reference.number()
        reference.tail()
        if level:
            node = Wire(repo.chunk(METADATA, chunk), f"node {chunk.hex()}")
            below = list(tree_of_pages(repo, node, level - 1))
            node.end()
        else:
            below = list(entries_of_page(repo, chunk))
        need(below and below[0].path == first, f"{wire.what}: a reference does not begin where it says")
        need(len(below) == count, f"{wire.what}: a reference to {count} entries that are {len(below)}")
        yield from below


def run_entries(repo, root):
    wire = Wire(repo.chunk(METADATA, root), f"run {root.hex()}")
    directories, others = list(tree_of_pages(repo, wire)), list(tree_of_pages(repo, wire))
    wire.tail()
    merged = list(heapq.merge(directories, others, key=lambda e: e.path))
    need(all(a.path < b.path for a, b in zip(merged, merged[1:])), f"{wire.what}: a path is there twice, or out of order")
    return merged


def above(path):
    """The paths of the directories that a path lies in, the root's first."""
    if path:
        yield b""
        at = path.find(b"\0")
        while at >= 0:
            yield path[:at]
            at = path.find(b"\0", at + 1)


def tree_entries(repo, source):
    """What a tree source holds, in path order: of its runs the newest mention of each path."""
    won, covers = {}, set()
    for run in source["runs"]:
        entries = run_entries(repo, unhex(run["root"], 32, "a run's root"))
        need(len(entries) == run["entries"], f"run {run['root']}: {len(entries)} entries, not {run['entries']}")
        added = set()
        for entry in entries:
            if any(directory in covers for directory in above(entry.path)):
                continue
            won.setdefault(entry.path, entry)
            if entry.kind != DIRECTORY or entry.flags & COVER:
                added.add(entry.path)
        covers |= added
    return [won[path] for path in sorted(won) if won[path].kind != REMOVED]


# ---------------------------------------------------------------------------------------------------------- restore


def write_content(repo, fd, extents):
    size = 0
    for data, length in pieces(repo, extents):
        if data is not None:
            os.pwrite(fd, data, size)
        size += length
    os.ftruncate(fd, size)


class Target:
    """Writes entries in path order below open directory handles."""

    def __init__(self, repo, root):
        self.repo, self.root = repo, os.fsencode(root)
        self.stack, self.links, self.missing = [], {}, []

    def close_above(self, path):
        while self.stack and not (self.stack[-1][0] == b"" or path.startswith(self.stack[-1][0] + b"\0")):
            self.leave()

    def leave(self):
        _, fd, entry = self.stack.pop()
        self.describe(entry, fd=fd)
        os.close(fd)

    def describe(self, entry, fd=None, name=None, directory=None):
        """Owner, attributes, mode and time, in the order in which none undoes another."""
        at = {"dir_fd": directory, "follow_symlinks": False} if fd is None else {}
        what = name if fd is None else fd
        uid, gid, _, _ = entry.owner
        if os.geteuid() == 0:
            os.chown(what, uid, gid, **at)
        path = fd if fd is not None else b"/proc/self/fd/%d/%s" % (directory, name)
        if entry.kind != SYMLINK:
            os.chmod(path, entry.mode)
        for key, value in entry.xattrs:
            os.setxattr(path, key, value, **({} if fd is not None else {"follow_symlinks": False}))
        nanoseconds = entry.mtime[0] * 10**9 + entry.mtime[1]
        os.utime(what, ns=(nanoseconds, nanoseconds), **at)

    def put(self, entry):
        if entry.kind == FAILED:
            self.missing.append((entry.path, entry.reason))
            return
        if not entry.path:
            os.mkdir(self.root, 0o700)
            self.stack.append((b"", os.open(self.root, os.O_RDONLY | os.O_DIRECTORY), entry))
            return
        self.close_above(entry.path)
        parent, _, name = entry.path.rpartition(b"\0")
        need(self.stack and self.stack[-1][0] == parent, f"{entry.path!r}: lies in no directory of the snapshot")
        directory = self.stack[-1][1]
        if entry.kind == DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=directory)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            self.stack.append((entry.path, fd, entry))
            return
        # Several names of one file: device, inode, and all that they would share must agree.
        group = (entry.device, entry.inode, entry.kind, entry.mtime, entry.mode, tuple(entry.extents), entry.target)
        if entry.links > 1 and group in self.links:
            first = os.open(self.links[group][0], os.O_PATH)
            os.link(self.links[group][1], name, src_dir_fd=first, dst_dir_fd=directory, follow_symlinks=False)
            os.close(first)
            return
        if entry.kind == FILE:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=directory)
            write_content(self.repo, fd, entry.extents)
            self.describe(entry, fd=fd)
            os.close(fd)
        else:
            self.make(entry, name, directory)
            self.describe(entry, name=name, directory=directory)
        if entry.links > 1:
            self.links[group] = (os.readlink(b"/proc/self/fd/%d" % directory), name)

    @staticmethod
    def make(entry, name, directory):
        if entry.kind == SYMLINK:
            os.symlink(entry.target, name, dir_fd=directory)
        elif entry.kind in (FIFO, SOCKET):
            os.mknod(name, (stat.S_IFIFO if entry.kind == FIFO else stat.S_IFSOCK) | 0o600, dir_fd=directory)
        else:
            kind = stat.S_IFCHR if entry.kind == CHAR else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(*entry.rdev), dir_fd=directory)

    def finish(self):
        while self.stack:
            self.leave()


def restore(repo, snapshot, target):
    """Writes every source below target; returns what the snapshot itself says it lacks."""
    os.makedirs(target, exist_ok=True)
    missing = []
    for source in snapshot["sources"]:
        name = source["name"]
        need(name not in (".", "..") and "/" not in name, f"a source called {name!r}")
        where = os.path.join(target, name)
        if source["kind"] == "stream":
            fd = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            write_content(repo, fd, [extent_of_json(e) for e in source["content"]])
            seconds, nanoseconds = source["ended"]
            os.utime(fd, ns=(seconds * 10**9 + nanoseconds,) * 2)
            os.close(fd)
        else:
            need(source["kind"] == "tree", f"a source of kind {source['kind']!r}")
            out = Target(repo, where)
            for entry in tree_entries(repo, source):
                out.put(entry)
            out.finish()
            missing += [(name, path, reason) for path, reason in out.missing]
    return missing


def check(repo):
    """Objects against names, segments against directories, chunks against ids; returns the counts."""
    counts = {"packs": 0, "chunks": 0, "segments": 0, "snapshots": 0}
    told = {}
    for segment in repo.segments().values():
        counts["segments"] += 1
        for pack, row in segment["added"].items():
            need(told.setdefault(pack, row)[0] == row[0], f"pack {pack.hex()}: two segments disagree")
    for pack in repo.names("packs"):
        counts["packs"] += 1
        directory = repo.directory(pack)
        if pack in told:
            need(told[pack][0] == len(repo.pack(pack)), f"pack {pack.hex()}: the segment has another size")
            same = [f.row() for f in told[pack][1]] == [f.row() for f in directory]
            need(same, f"pack {pack.hex()}: the segment tells of other frames than its directory")
        for frame in directory:
            data, at = repo.frame(pack, frame), 0
            for chunk, size in frame.chunks:
                counts["chunks"] += 1
                right = repo.keys.chunk_id(frame.klass, data[at : at + size]) == chunk
                need(right, f"pack {pack.hex()}: chunk {chunk.hex()} does not hash to its id")
                at += size
    counts["snapshots"] = len(repo.snapshots()) + len(repo.snapshots("forgotten"))
    return counts


def main():
    parser = argparse.ArgumentParser(description="Read an icecore repository with standard packages.")
    parser.add_argument("--passphrase-file")
    parser.add_argument("--from-packs", action="store_true", help="look at no segment, but at the packs' directories")
    parser.add_argument("repo")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    commands.add_parser("check")
    sub = commands.add_parser("restore")
    sub.add_argument("snapshot")
    sub.add_argument("target")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    secret = os.environ.get("ICECORE_PASSPHRASE", "").encode()
    if options.passphrase_file:
        with open(options.passphrase_file, "rb") as file:
            secret = file.read().removesuffix(b"\n")
    try:
        repo = Repository(options.repo, secret, options.from_packs)
        if options.command == "list":
            for name, snapshot in repo.snapshots():
                print(json.dumps({"id": name, **snapshot}))
        elif options.command == "check":
            print(json.dumps(check(repo)))
        else:
            found = [s for name, s in repo.snapshots() if name.startswith(options.snapshot)]
            need(len(found) == 1, f"{len(found)} snapshots begin with {options.snapshot!r}")
            for source, path, reason in restore(repo, found[0], options.target):
                print(f"reader: not in the snapshot: {source}: {path!r}: {reason.decode()}", file=sys.stderr)
    except Bad as error:
        print(f"reader: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
