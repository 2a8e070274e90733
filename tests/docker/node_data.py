#!/usr/bin/env python3
"""A node's data, made from a seed: file storage, kubo's repository, the database's rows that agree with them, and an hour
of writes.

    node_data.py keys DIRECTORY
    node_data.py make --state S --local DIR --kubo DIR [--seed N] [--files N] [--blocks N] [--posts N]
    node_data.py sql --state S                    tables and rows, to be piped into psql
    node_data.py mutate --state S [--seconds T]   an hour of writes: files change now, SQL goes to standard output
    node_data.py half begin|end --state S         a file half-written under its final name; the rest and its rows' SQL
    node_data.py pick --state S [--pin P] [--type T] [--place P] [-n N]   paths of stored files, relative to their directory; all with -n 0
    node_data.py pinned --state S                 names of local storage that a pin other than a grace period needs
    node_data.py counts --state S                 what is pinned, as JSON

The state directory S keeps where things lie and what was made; `mutate` and `half` go on from there. Files are written before
their rows and removed before them, as pyaleph does it.
"""

import argparse
import datetime
import hashlib
import json
import os
import random
import sys
import time
from pathlib import Path

import cids
from node_rows import Rows

OWNER_LOCAL, OWNER_KUBO = (1000, 1000), (1000, 100)
NOW = int(datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone.utc).timestamp())
DAY = 86_400
ROOT = os.geteuid() == 0

# One stored file: name, size and type of its row, its pins (joined by +; `none`: a row alone; `no-row`), place
# (local, both, kubo), flatfs path of its root block or -, message, time.
FIELDS = ["name", "size", "type", "pins", "place", "block", "item", "time"]


class Storage:
    """The two directories; writes as their owners do."""

    def __init__(self, local: Path, kubo: Path):
        self.local, self.blocks, self.kubo = local, kubo / "blocks", kubo
        self.shards: set[str] = set()

    def write(self, path: "str | Path", data: bytes, owner: "tuple[int, int]", when: int) -> None:
        handle = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
        try:
            os.write(handle, data) if data else None
            if ROOT:
                os.fchown(handle, *owner)
            os.utime(handle, ns=(when * 10**9, when * 10**9))
        finally:
            os.close(handle)

    def put_local(self, name: str, data: bytes, when: int) -> None:
        self.write(f"{self.local}/{name}", data, OWNER_LOCAL, when)

    def put_block(self, digest: bytes, data: bytes, when: int) -> str:
        path = cids.block_path(digest)
        shard = path[:2]
        if shard not in self.shards:
            directory = self.blocks / shard
            directory.mkdir(parents=True, exist_ok=True)
            if ROOT:
                os.chown(directory, *OWNER_KUBO)
            self.shards.add(shard)
        self.write(f"{self.blocks}/{path}", data, OWNER_KUBO, when)
        return path


class Maker:
    """Makes stored files with their ledger lines."""

    def __init__(self, rng: random.Random, storage: Storage):
        self.rng, self.storage = rng, storage
        words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 11))) for _ in range(2000)]
        self.text = " ".join(rng.choices(words, k=40_000)).encode()

    def content(self, size: int) -> bytes:
        """Random bytes, or text with a random head."""
        if self.rng.random() < 0.6 or size < 64:
            return self.rng.randbytes(size)
        at = self.rng.randrange(len(self.text) - size) if size < len(self.text) else 0
        return self.rng.randbytes(16).hex().encode() + self.text[at : at + size - 32]

    def size(self) -> int:
        return min(4096, max(100, int(self.rng.lognormvariate(6.5, 0.8))))

    def item(self) -> str:
        return self.rng.randbytes(32).hex()

    def line(self, name: str, size: int, kind: str, pins: str, place: str, block: str, item: str, when: int) -> list:
        return [name, size, kind, pins, place, block, item, when]

    def hashed(self, pins: str, when: int, data: "bytes | None" = None) -> list:
        """A file named by its SHA-256, in local storage. A content pin's file is its own message."""
        data = self.content(self.size()) if data is None else data
        name = hashlib.sha256(data).hexdigest()
        self.storage.put_local(name, data, when)
        return self.line(name, len(data), "file", pins, "local", "-", name if pins == "content" else self.item(), when)

    def cached(self, pins: str, when: int, version: int) -> list:
        """A CID of at most 1 MiB: kubo's block, and the file in local storage."""
        data = self.content(self.size())
        block = data if version == 1 else cids.unixfs_file(data)
        digest = cids.digest_of(block)
        name = cids.cid_v1(digest, cids.RAW) if version == 1 else cids.cid_v0(digest)
        self.storage.put_local(name, data, when)
        path = self.storage.put_block(digest, block, when)
        return self.line(name, len(data), "file", pins, "both", path, self.item(), when)

    def leaves(self, count: int, size: "int | None", when: int) -> "list[tuple[bytes, int]]":
        out = []
        for _ in range(count):
            data = self.content(size or self.size())
            digest = cids.digest_of(data)
            self.storage.put_block(digest, data, when)
            out.append((digest, len(data)))
        return out

    def large(self, pins: str, when: int) -> list:
        """A CID above 1 MiB: kubo alone has it."""
        leaves = self.leaves(5, 262_144, when)
        root = cids.unixfs_large(leaves)
        digest = cids.digest_of(root)
        path = self.storage.put_block(digest, root, when)
        name = cids.cid_v0(digest) if self.rng.random() < 0.5 else cids.cid_v1(digest, cids.DAG_PB)
        return self.line(name, sum(n for _, n in leaves), "file", pins, "kubo", path, self.item(), when)

    def directory(self, pins: str, when: int, count: int) -> list:
        """A `dir`, its size the cumulative one: of the files and of the directory's own block."""
        leaves = self.leaves(count, None, when)
        root = cids.unixfs_directory([(f"file-{i}.json", digest, size) for i, (digest, size) in enumerate(leaves)])
        digest = cids.digest_of(root)
        path = self.storage.put_block(digest, root, when)
        return self.line(cids.cid_v0(digest), len(root) + sum(n for _, n in leaves), "dir", pins, "kubo", path, self.item(), when)


# -------------------------------------------------------------------------------------------------------------- state


class State:
    def __init__(self, directory: Path):
        self.directory = directory
        known = json.loads((directory / "node.json").read_text())
        self.settings = known
        self.storage = Storage(Path(known["local"]), Path(known["kubo"]))

    def lines(self) -> "list[list]":
        out = []
        for row in (self.directory / "files.tsv").read_text().splitlines():
            row = row.split("\t")
            row[1], row[7] = int(row[1]), int(row[7])
            out.append(row)
        return out

    def save(self, lines: "list[list]") -> None:
        new = self.directory / "files.tsv.new"
        new.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
        new.rename(self.directory / "files.tsv")
        self.settings["hours"] = self.settings.get("hours", 0)
        (self.directory / "node.json").write_text(json.dumps(self.settings))

    def rng(self, use: str) -> random.Random:
        return random.Random(f"{self.settings['seed']} {self.settings['hours']} {use}")


def make(args: argparse.Namespace) -> None:
    args.state.mkdir(parents=True, exist_ok=True)
    settings = {"seed": args.seed, "hours": 0, "posts": args.posts, "local": str(args.local), "kubo": str(args.kubo)}
    (args.state / "node.json").write_text(json.dumps(settings))
    state = State(args.state)
    rng = state.rng("make")
    (args.kubo / "blocks").mkdir(parents=True, exist_ok=True)
    args.local.mkdir(parents=True, exist_ok=True)
    if ROOT:
        os.chown(args.local, *OWNER_LOCAL)
    maker = Maker(rng, state.storage)
    lines = []

    def when() -> int:
        return NOW - rng.randrange(600 * DAY)

    lines.append(maker.hashed("message", when(), b""))
    lines.append(maker.hashed("message", when(), rng.randbytes(2 << 20)))
    cached, tx = max(12, args.files * 3 // 100), max(4, args.files // 200)
    for i in range(cached):
        lines.append(maker.cached("grace_period" if i % 40 == 39 else "message", when(), i % 2))
    for i in range(tx):
        lines.append(maker.cached("tx", when(), 0))
    # Sizes that pyaleph did not know.
    for line in lines[4:8]:
        line[1] = -1
    shares = [("content", 0.08), ("grace_period", 0.03), ("message+grace_period", 0.002), ("none", 0.01), ("no-row", 0.005)]
    for pins, share in shares:
        lines.extend(maker.hashed(pins, when()) for _ in range(max(4, int(args.files * share))))
    lines.extend(maker.hashed("message", when()) for _ in range(max(0, args.files - len(lines))))

    blocks = cached + tx
    for i in range(4 if args.blocks >= 5000 else 1):
        lines.append(maker.large("grace_period" if i == 3 else "message", when()))
        blocks += 6
    while blocks < args.blocks:
        count = min(60, max(3, args.blocks - blocks - 1))
        lines.append(maker.directory("grace_period" if rng.random() < 0.05 else "message", when(), count))
        blocks += count + 1
    lines[-1][1] = -1
    kubo_rest(args.kubo, rng)
    rng.shuffle(lines)
    state.save(lines)


def kubo_rest(kubo: Path, rng: random.Random) -> None:
    """What a kubo repository has beside blocks, and what a backup must leave out."""
    key = rng.randbytes(68).hex()
    config = {
        "Identity": {"PeerID": "12D3KooW" + "".join(rng.choices(cids.ALPHABET, k=44)), "PrivKey": key},
        "Datastore": {"StorageMax": "10GB", "StorageGCWatermark": 90, "GCPeriod": "1h"},
        "Addresses": {"API": "/ip4/0.0.0.0/tcp/5001", "Gateway": "/ip4/0.0.0.0/tcp/8080"},
    }
    spec = {
        "mounts": [
            {"mountpoint": "/blocks", "path": "blocks", "shardFunc": "/repo/flatfs/shard/v1/next-to-last/2", "type": "flatfs"},
            {"mountpoint": "/", "path": "datastore", "type": "levelds"},
        ],
        "type": "mount",
    }
    for name in ("datastore", "keystore", "blocks/.temp", "blocks/AA", "provider-keystore/0", "autoconf"):
        (kubo / name).mkdir(parents=True, exist_ok=True)
    kept = {
        "config": json.dumps(config, indent=2),
        "config.backup": json.dumps(config),
        "version": "17\n",
        "datastore_spec": json.dumps(spec),
        "blocks/SHARDING": "/repo/flatfs/shard/v1/next-to-last/2\n",
        "blocks/_README": "This is a repository of IPLD objects. Each object is in a single file, named by its multihash.\n",
        "blocks/diskUsage.cache": '{"diskUsage":123456,"accuracy":"initial-exact"}',
        "datastore/CURRENT": "MANIFEST-000004\n",
        "datastore/MANIFEST-000004": rng.randbytes(500),
        "datastore/000012.ldb": rng.randbytes(100_000),
        "datastore/000015.log": rng.randbytes(20_000),
        "keystore/key_onswyzq": rng.randbytes(64),
    }
    left_out = {"repo.lock": "", "api": "/ip4/127.0.0.1/tcp/5001", "gateway": "http://127.0.0.1:8080", "datastore/LOCK": ""}
    left_out |= {"provider-keystore/0/CURRENT": "MANIFEST-000002\n", "provider-keystore/0/MANIFEST-000002": rng.randbytes(200)}
    left_out |= {"autoconf/autoconf.json": "{}", "telemetry_uuid": "a-random-name"}
    left_out |= {"blocks/.temp/put-1": "half a block", "blocks/AA/put-2345": "half another"}
    for name, data in (kept | left_out).items():
        (kubo / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    for name in ("config", "config.backup", "keystore/key_onswyzq"):
        (kubo / name).chmod(0o600)
    (kubo / "keystore").chmod(0o700)
    if ROOT:
        written = [kubo / name for name in kept | left_out]
        for path in {kubo, *written, *(file.parent for file in written)}:
            os.chown(path, *OWNER_KUBO)


# ------------------------------------------------------------------------------------------------------------- writes


def mutate(args: argparse.Namespace) -> None:
    """0.8 % of rows touched (0.5 % new, 0.3 % updated), 0.5 % new files, some collected, in ten transactions."""
    state = State(args.state)
    state.settings["hours"] += 1
    hour = state.settings["hours"]
    rng = state.rng("mutate")
    lines = state.lines()
    maker = Maker(rng, state.storage)
    rows = Rows(rng, sys.stdout, hour)
    now = NOW + hour * 3600
    steps = 10
    files = sum(1 for line in lines if line[4] != "kubo")
    new = [max(1, files // 200 * (i + 1) // steps - files // 200 * i // steps) for i in range(steps)]
    doomed = [line for line in lines if line[3] in ("none", "grace_period")]
    doomed = rng.sample(doomed, max(2, len(doomed) // 10))
    gone = set()
    for step in range(steps):
        began = time.monotonic()
        made = []
        for i in range(new[step]):
            roll = rng.random()
            when = now + rng.randrange(300) * 10
            if roll < 0.05:
                made.append(maker.cached("message", when, rng.randrange(2)))
            elif roll < 0.08:
                made.append(maker.cached("tx", when, 0))
            elif roll < 0.09:
                made.append(maker.directory("message", when, 20))
            else:
                made.append(maker.hashed("content" if rng.random() < 0.1 else "message", when))
        lines.extend(made)
        collected = doomed[step::steps]
        for line in collected:
            collect(state.storage, line)
            gone.add(line[0])
        kubo_churn(state.storage.kubo, rng)
        rows.hour(step, steps, now, made, collected, state.settings["posts"])
        sys.stdout.flush()
        time.sleep(max(0.0, args.seconds / steps - (time.monotonic() - began)))
    state.save([line for line in lines if line[0] not in gone])


def collect(storage: Storage, line: list) -> None:
    if line[4] in ("local", "both"):
        (storage.local / line[0]).unlink()
    if line[4] in ("kubo", "both"):
        (storage.blocks / line[5]).unlink()


def kubo_churn(kubo: Path, rng: random.Random) -> None:
    """What kubo rewrites in place or replaces."""
    with open(kubo / "datastore/000015.log", "ab") as log:
        log.write(rng.randbytes(3000))
    with open(kubo / "datastore/000012.ldb", "r+b") as table:
        table.seek(rng.randrange(90_000))
        table.write(rng.randbytes(1000))
    (kubo / "blocks/diskUsage.cache").write_text('{"diskUsage":%d,"accuracy":"initial-exact"}' % rng.randrange(1 << 30))


def half(args: argparse.Namespace) -> None:
    state = State(args.state)
    rng = random.Random(f"{state.settings['seed']} half")
    data = rng.randbytes(50_000)
    name = hashlib.sha256(data).hexdigest()
    path = state.storage.local / name
    if args.what == "begin":
        path.write_bytes(data[:20_000])
        if ROOT:
            os.chown(path, *OWNER_LOCAL)
        print(name)
        return
    with open(path, "ab") as rest:
        rest.write(data[20_000:])
    line = [name, len(data), "file", "message", "local", "-", rng.randbytes(32).hex(), NOW + 9000]
    state.save([*state.lines(), line])
    Rows(rng, sys.stdout, 99).stored([line])


# ---------------------------------------------------------------------------------------------------------------- ask


def pick(args: argparse.Namespace) -> None:
    wanted = [
        line for line in State(args.state).lines()
        if args.pin in (None, line[3]) and args.type in (None, line[2]) and args.place in (None, line[4])
    ]
    for line in wanted[: args.n or len(wanted)]:
        print(f"blocks/{line[5]}" if line[4] == "kubo" else line[0])


def pinned(args: argparse.Namespace) -> None:
    for line in State(args.state).lines():
        if line[4] != "kubo" and set(line[3].split("+")) & {"message", "content", "tx"}:
            print(line[0])


def counts(args: argparse.Namespace) -> None:
    out: dict = {"pinned": 0, "rows": 0, "local": 0}
    for line in State(args.state).lines():
        pins = set(line[3].split("+"))
        out["rows"] += line[3] != "no-row"
        out["local"] += line[4] != "kubo"
        out["pinned"] += bool(pins & {"message", "content", "tx"})
        out[line[3]] = out.get(line[3], 0) + 1
    print(json.dumps(out))


def keys(args: argparse.Namespace) -> None:
    args.directory.mkdir(parents=True, exist_ok=True)
    for name, size in (("node-secret.pkcs8.der", 1217), ("node-secret.key", 1704), ("serialized-node-secret.key", 1192), ("node-pub.key", 451)):
        path = args.directory / name
        path.write_bytes(os.urandom(size))
        path.chmod(0o600)
        if ROOT:
            os.chown(path, *OWNER_LOCAL)
    args.directory.chmod(0o700)
    if ROOT:
        os.chown(args.directory, *OWNER_LOCAL)


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("keys")
    one.add_argument("directory", type=Path)
    all_ = {name: commands.add_parser(name) for name in ("make", "sql", "mutate", "half", "pick", "pinned", "counts")}
    for each in all_.values():
        each.add_argument("--state", type=Path, required=True)
    for name in ("local", "kubo"):
        all_["make"].add_argument(f"--{name}", type=Path, required=True)
    for name, default in (("seed", 1), ("files", 50_000), ("blocks", 20_000), ("posts", 30_000)):
        all_["make"].add_argument(f"--{name}", type=int, default=default)
    all_["mutate"].add_argument("--seconds", type=float, default=0)
    all_["half"].add_argument("what", choices=["begin", "end"])
    for name in ("pin", "type", "place"):
        all_["pick"].add_argument(f"--{name}")
    all_["pick"].add_argument("-n", type=int, default=1)
    args = parser.parse_args()
    if args.command == "sql":
        state = State(args.state)
        Rows(state.rng("rows"), sys.stdout, 0).everything(state.lines(), state.settings["posts"])
    else:
        globals()[args.command](args)


if __name__ == "__main__":
    main()
