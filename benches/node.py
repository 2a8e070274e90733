#!/usr/bin/env python3
"""Compares icecore with restic and with `pg_dumpall` and rsync on a Core Channel Node, and writes its section of docs/benchmarks.md.

    cargo build --release
    benches/node.py --work DIR [--scale 1] [--runs 3] [--icecore BIN] [--write]

tests/docker/play.sh stands the node up on a private Docker engine, in a directory in DIR that goes away at the end: root, and what
tests/run installs, is needed. At scale 1 that is a dump of 236 MB, 50,000 files in local storage and 20,000 blocks of kubo's.

Each tool backs up the whole node (dump, file storage, keys, settings), the unchanged node, and the node an hour of writes
later (node_data.py: 0.8 % of the rows touched, 0.5 % new files, some collected). For the last, repository and cache are put
back to what they were before each run. Dump and files are backed up into repositories of their own too, to tell their bytes
apart. At the end the unchanged file storage alone is backed up again and again, and an empty directory into the same repository:
what that takes is start-up, passphrase, index and commit, and the rest the scan.

Time and memory are measured as compare.py measures them: what runs in the database's container belongs to the engine and is not
counted, for no tool. `stored` is the bytes of all files in a repository that are new or were rewritten. Bars are judged by medians.
"""

import argparse
import datetime
import hashlib
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from compare import ROOT, first_line, machine, measured, sh, warm, write_doc

NAME = "node"
STEPS = {"first": "first", "unchanged": "unchanged", "hour": "an hour later"}
# What of kubo's repository no tool is to take, as in tests/docker/lib.sh.
JUNK = ["repo.lock", "api", "gateway", "datastore/LOCK", "blocks/.temp", "blocks/*/put-*"]
DUMP = "docker exec -i {postgres} pg_dumpall -c -U aleph </dev/null"


class Node:
    """The node that stands beside this script."""

    def __init__(self) -> None:
        self.directory, self.temporary = Path(os.environ["NODE"]), Path(os.environ["T"])
        self.work = self.temporary / "bench"
        self.work.mkdir()
        self.postgres = f"{os.environ['PROJECT']}_postgres_1"
        self.local, self.kubo = (Path(self.shell(f"volume {name}").strip()) for name in ("pyaleph-local-storage", "pyaleph-ipfs"))

    def shell(self, text: str) -> str:
        """Commands that know lib.sh's functions."""
        prelude = 'set -euo pipefail; die() { echo "$*" >&2; exit 1; }; . "$LIB"; . "$TESTS/docker/toml_for_node.sh"; '
        return subprocess.run(["bash", "-c", prelude + text], stdout=subprocess.PIPE, text=True, check=True).stdout

    def toml(self, repository: Path) -> str:
        return self.shell(f"toml_for_node {self.directory} {repository}")

    def hour(self) -> None:
        self.shell("hour")
        self.settle()

    def touch(self) -> None:
        """Local storage's directory changes, as it does every hour: icecore looks at names there that are not settled."""
        mark = self.local / "passing.tmp"
        mark.touch()
        mark.unlink()
        self.settle()

    def settle(self) -> None:
        """Waits until all is older than any racy window, and lies in the page cache."""
        self.shell("pg_value checkpoint")
        time.sleep(37)
        for directory in (self.local, self.kubo):
            warm(directory)

    def stored(self) -> "set[str]":
        """Paths of file storage but what kubo rewrites in place and what no backup takes."""
        found = set()
        for root in (self.local, self.kubo):
            for directory, _, names in os.walk(root):
                if not re.search(r"/(datastore|\.temp)$", directory):
                    found.update(f"{directory}/{name}" for name in names if not name.startswith("put-"))
        return found


# -------------------------------------------------------------------------------------------------------------- tools


class Tool:
    """A tool and one repository of its own. `part` says what goes there: `all`, `db`, or `files` (file storage but for kubo's
    `datastore/`, which is rewritten in place)."""

    name = ""

    def __init__(self, node: Node, part: str):
        self.node, self.part = node, part
        self.home = node.work / f"{type(self).__name__.lower()}-{part}"
        self.saved = self.home.with_suffix(".saved")
        self.repo = self.home / "repo"
        self.record: dict[str, list] = {}
        self.env = {**os.environ, "HOME": str(self.home)}

    def version(self) -> str:
        raise NotImplementedError

    def init(self) -> list[str]:
        raise NotImplementedError

    def backup(self) -> list[str]:
        raise NotImplementedError

    def scan(self) -> list[str]:
        """File storage alone."""
        raise NotImplementedError

    def empty(self, directory: Path) -> "list[str] | None":
        return None

    def fresh(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        measured(self.init(), self.env, f"{self.name}, init")

    def save(self) -> None:
        shutil.rmtree(self.saved, ignore_errors=True)
        subprocess.run(["cp", "-a", self.home, self.saved], check=True)

    def put_back(self) -> None:
        shutil.rmtree(self.home)
        subprocess.run(["cp", "-a", self.saved, self.home], check=True)

    def run(self, step: str, command: list[str]) -> dict:
        before = objects(self.repo)
        figures: dict = measured(command, self.env, f"{self.name}, {self.part}, {step}")
        new = {name: about[0] for name, about in objects(self.repo).items() if before.get(name) != about}
        figures |= {"stored": sum(new.values()), "objects": len(new), "kinds": by_kind(new)}
        if counters := summary((self.home / "log").read_text(errors="replace")):
            figures["counters"] = counters
        self.record.setdefault(step, []).append(figures)
        print(
            f"  {self.name:22} {self.part:6} {step:10} {figures['wall']:7.2f} s {figures['cpu']:7.2f} s CPU {figures['rss'] / 2**20:5.0f} MiB,"
            f" stored {figures['stored']:12,} bytes in {figures['objects']:,} objects",
            flush=True,
        )
        return figures

    def median(self, step: str, key: str) -> float:
        return statistics.median(figures[key] for figures in self.record[step])


class Icecore(Tool):
    name = "icecore"
    program = ""
    sources = {"all": ["node", "backup"], "db": ["backup", "--source", "db"], "files": ["backup", "--source", "local-storage", "--source", "ipfs"]}

    def __init__(self, node: Node, part: str):
        super().__init__(node, part)
        config = self.home.with_suffix(".toml")
        text = node.toml(self.repo)
        config.write_text(text.replace('"/datastore/LOCK"', '"/datastore/"') if part == "files" else text)
        self.env |= {"ICECORE_CONFIG": str(config), "ICECORE_CACHE_DIR": str(self.home / "cache"), "ICECORE_PASSPHRASE": "x"}

    def version(self) -> str:
        return first_line(self.program, "--version")

    def init(self) -> list[str]:
        return [self.program, "-q", "init"]

    def backup(self) -> list[str]:
        return [self.program, "--json", *self.sources[self.part]]

    def scan(self) -> list[str]:
        return [self.program, "--json", *self.sources["files"]]

    def empty(self, directory: Path) -> list[str]:
        return [self.program, "--json", "backup", f"empty={directory}"]

    def puts(self) -> "dict[str, int] | None":
        """The backup once more under strace: objects put under their names, and deleted; all leases too."""
        if not shutil.which("strace"):
            return None
        log = self.node.work / "strace"
        calls = "rename,renameat,renameat2,link,linkat,unlink,unlinkat"
        measured(["strace", "-f", "-y", "-s", "4096", "-o", str(log), "-e", f"trace={calls}", *self.backup()], self.env, "icecore under strace")
        puts, leases, deletes = 0, 0, 0
        for line in log.read_text(errors="replace").splitlines():
            # Directories are open, and named by -y; a put ends with a rename of `.tmp-…`.
            if f"<{self.repo}" not in line or not line.endswith("= 0"):
                continue
            if re.search(r" (rename|link)", line):
                puts += 1
                leases += f"<{self.repo}/leases" in line
            elif '".tmp-' not in line:
                deletes += 1
        return {"puts": puts, "leases": leases, "deletes": deletes}


class Restic(Tool):
    name = "restic"

    def __init__(self, node: Node, part: str):
        super().__init__(node, part)
        self.env |= {"RESTIC_REPOSITORY": str(self.repo), "RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": str(self.home / "cache")}

    def version(self) -> str:
        return " ".join(first_line("restic", "version").split()[:2])

    def init(self) -> list[str]:
        return ["restic", "-q", "init", "--repository-version", "2"]

    def excludes(self) -> list[str]:
        return [f"--exclude={self.node.kubo}/{path}" for path in JUNK]

    def files(self, more: list[object]) -> list[str]:
        return ["restic", "-q", "backup", "--compression", "auto", *self.excludes(), str(self.node.local), str(self.node.kubo), *map(str, more)]

    def backup(self) -> list[str]:
        dump = f"{DUMP.format(postgres=self.node.postgres)} | restic -q backup --compression auto --stdin --stdin-filename db.sql"
        if self.part == "db":
            return sh(dump)
        if self.part == "files":
            return self.files([f"--exclude={self.node.kubo}/datastore"])
        rest = self.files([self.node.directory / name for name in ("keys", "config.yml", "docker-compose.yml")])
        return sh(f'{dump}; "$@"', *rest)

    def scan(self) -> list[str]:
        return self.files([])

    def empty(self, directory: Path) -> list[str]:
        return ["restic", "-q", "backup", "--compression", "auto", str(directory)]


class Plain(Tool):
    name = "pg_dumpall and rsync"

    def version(self) -> str:
        return " ".join(first_line("rsync", "--version").split()[:3])

    def init(self) -> list[str]:
        return ["mkdir", "-p", str(self.repo)]

    def rsync(self) -> str:
        junk = " ".join(f"'--exclude=/{path}'" for path in JUNK)
        return f'rsync -a --delete "$2/" "$1/local/"; rsync -a --delete {junk} "$3/" "$1/ipfs/"'

    def backup(self) -> list[str]:
        dump = f'{DUMP.format(postgres=self.node.postgres)} >"$1/db.sql"'
        rest = 'rsync -a "$4/keys" "$4/config.yml" "$4/docker-compose.yml" "$1/"'
        return sh(f"{dump}; {self.rsync()}; {rest}", self.repo, self.node.local, self.node.kubo, self.node.directory)

    def scan(self) -> list[str]:
        return sh(self.rsync(), self.repo, self.node.local, self.node.kubo)


def objects(repo: Path) -> "dict[str, tuple[int, int, int]]":
    """Every file below, by what tells a rewritten one."""
    found = {}
    for directory, _, names in os.walk(repo):
        for name in names:
            about = os.lstat(f"{directory}/{name}")
            found[os.path.relpath(f"{directory}/{name}", repo)] = (about.st_size, about.st_mtime_ns, about.st_ino)
    return found


def by_kind(new: "dict[str, int]") -> "dict[str, int]":
    kinds: dict[str, int] = {}
    for name, size in new.items():
        kind = name.split("/")[0]
        kinds[kind] = kinds.get(kind, 0) + size
    return kinds


def summary(log: str) -> "dict | None":
    """The counters of icecore's last JSON line."""
    for line in reversed(log.splitlines()):
        if line.startswith('{"type":"summary"'):
            return {key: value for key, value in json.loads(line).items() if isinstance(value, int) and not isinstance(value, bool)}
    return None


def new_data(paths: "set[str]") -> "dict[str, int]":
    """What the new files hold, each content once: as it is, and as `zstd -3` makes it file by file, where that is shorter."""
    plain, packed, seen = 0, 0, set()
    for path in sorted(paths):
        data = Path(path).read_bytes()
        digest = hashlib.sha256(data).digest()
        if digest not in seen:
            seen.add(digest)
            frame = subprocess.run(["zstd", "-q", "-3", "--no-check", "-c", path], stdout=subprocess.PIPE, check=True).stdout
            plain += len(data)
            packed += min(len(data), len(frame))
    return {"files": len(paths), "contents": len(seen), "plain": plain, "packed": packed}


# ---------------------------------------------------------------------------------------------------------- the course


def measure(node: Node, runs: int) -> "tuple[dict, list[Tool], dict[str, Tool]]":
    """All of it; what is known of the data, the tools on the whole node, and those on its parts by `tool part`."""
    tools: list[Tool] = [kind(node, "all") for kind in (Icecore, Restic, Plain)]
    parts = {f"{kind.name} {part}": kind(node, part) for part in ("db", "files") for kind in (Icecore, Restic)}
    every = [*tools, *parts.values()]
    node.settle()
    about: dict = {"storage_files": len(node.stored()), "dump": int(node.shell("dump_now | wc -c"))}

    for _ in range(runs):
        for tool in tools:
            tool.fresh()
            tool.run("first", tool.backup())
    for tool in parts.values():
        tool.fresh()
        tool.run("first", tool.backup())
    # icecore reads once more what a name cannot vouch for: CIDs of whole files. An old node's are settled.
    settling = [tools[0], parts["icecore files"]]
    node.touch()
    for tool in settling:
        tool.run("settle", tool.backup())
    for _ in range(runs):
        for tool in tools:
            tool.run("unchanged", tool.backup())
    for tool in parts.values():
        tool.run("unchanged", tool.backup())
    for tool in every:
        tool.save()

    before = node.stored()
    node.hour()
    after = node.stored()
    about |= {"new": new_data(after - before), "collected": len(before - after)}
    print(f"  an hour of writes: {about['new']}, collected {about['collected']}")
    ice = tools[0]
    assert isinstance(ice, Icecore)
    about["puts"] = ice.puts()
    for _ in range(runs):
        for tool in tools:
            tool.put_back()
            tool.run("hour", tool.backup())
    for tool in parts.values():
        tool.run("hour", tool.backup())
    # What the new files cost once more in the next hour's backup, beyond what a touched directory costs.
    for step in ("next hour", "touched"):
        node.touch()
        for tool in settling:
            tool.run(step, tool.backup())
    for tool in every:
        shutil.rmtree(tool.saved)

    empty = node.work / "empty"
    empty.mkdir()
    for turn in range(max(5, 2 * runs + 1) + 1):
        for tool in tools:
            # The first turn gives each its parent.
            tool.run("scan" if turn else "scan, before", tool.scan())
            if command := tool.empty(empty):
                tool.run("empty" if turn else "empty, before", command)
    return about, tools, parts


# ------------------------------------------------------------------------------------------------------------- report


def size(count: float) -> str:
    return f"{count / 1e6:,.2f} MB" if count >= 1e5 else f"{count:,.0f} B"


def report(about: dict, tools: list[Tool], parts: "dict[str, Tool]", runs: int, scale: float, versions: list[str]) -> "tuple[str, list[str]]":
    new = about["new"]
    title = (
        f"a node with a dump of {about['dump'] / 1e6:,.0f} MB and {about['storage_files']:,} stored files; an hour later, 0.8 % of the rows are touched, "
        f"{new['files']:,} files are new ({size(new['plain'])} of data) and {about['collected']:,} collected"
    )
    lines = [
        "",
        f"{title[0].upper()}{title[1:]}: scale {scale:g}. {datetime.date.today().isoformat()}, {machine()}; medians of {runs}; {', '.join(versions)}.",
        "",
        "| tool | step | wall s | CPU s | peak MiB | stored | objects |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for tool in tools:
        for step, shown in STEPS.items():
            wall, cpu, rss, stored, count = (tool.median(step, key) for key in ("wall", "cpu", "rss", "stored", "objects"))
            lines.append(f"| {tool.name} | {shown} | {wall:.2f} | {cpu:.2f} | {rss / 2**20:.0f} | {size(stored)} | {count:,.0f} |")
    if puts := about["puts"]:
        lines += [
            "",
            f"icecore's backup an hour later takes {puts['puts']} PUTs, {puts['leases']} of them of its lease, and {puts['deletes']} deletions (strace). "
            "restic puts and deletes a lock for each of its two snapshots besides; for rsync an object is a file copied.",
        ]

    lines += ["", "The parts, each in a repository of its own:", "", "| part | tool | first | unchanged | an hour later |", "|---|---|---:|---:|---:|"]
    for part, shown in (("db", "dump"), ("files", "files")):
        for kind in ("icecore", "restic"):
            tool = parts[f"{kind} {part}"]
            lines.append(f"| {shown} | {kind} | " + " | ".join(size(tool.median(step, "stored")) for step in STEPS) + " |")

    def beyond(kind: str) -> "tuple[float, float]":
        """Bytes a new file beyond plain and beyond compressed data, with what it costs once more in the next backup."""
        tool = parts[f"{kind} files"]
        stored = tool.median("hour", "stored")
        if "touched" in tool.record:
            stored += max(0, tool.median("next hour", "stored") - tool.median("touched", "stored"))
        return (stored - new["plain"]) / new["files"], (stored - new["packed"]) / new["files"]

    def bytes_of(part: str, beyond_data: int = 0) -> str:
        figures = parts[f"icecore {part}"].record["hour"][0]
        kinds = {kind: figures["kinds"][kind] - (beyond_data if kind == "packs" else 0) for kind in sorted(figures["kinds"])}
        return ", ".join(f"{kind} {count:,}" for kind, count in kinds.items())

    counters = parts["icecore db"].record["hour"][0]["counters"]
    lines += [
        "",
        f"For the dump icecore stores {counters['chunks_new']:,} new chunks and {counters['metadata_chunks_new']:,} nodes of its list, {size(counters['bytes_new'])} before compression; "
        f"bytes: {bytes_of('db')}.",
        "",
        f"The new files' data is {new['plain']:,} bytes, {new['packed']:,} as `zstd -3` makes of each alone. A new file costs beyond that: icecore {beyond('icecore')[1]:,.0f} bytes, "
        f"restic {beyond('restic')[1]:,.0f} (beyond the plain data {beyond('icecore')[0]:,.0f} and {beyond('restic')[0]:,.0f}). icecore's bytes beyond the data: {bytes_of('files', new['packed'])}.",
        "",
        "The unchanged file storage alone, and an empty directory into the same repository:",
        "",
        "| tool | files: wall s | CPU s | empty: wall s | CPU s | scan: wall s | CPU s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    scans = {}
    for tool in tools:
        whole = [tool.median("scan", key) for key in ("wall", "cpu")]
        none = [tool.median("empty", key) if "empty" in tool.record else 0.0 for key in ("wall", "cpu")]
        # Below a millisecond nothing can be told.
        scans[tool.name] = (whole, [max(0.001, a - b) for a, b in zip(whole, none)])
        shown = [*whole, *none, *scans[tool.name][1]]
        lines.append(f"| {tool.name} | {shown[0]:.3f} | {shown[1]:.3f} | {shown[2]:.3f} | {shown[3]:.3f} | {shown[4]:.3f} | {shown[5]:.3f} |")
    lines.append("")

    def bar(met: bool, text: str) -> None:
        lines.append(f"- {'met' if met else 'NOT MET'}: {text}")

    ours, theirs = (parts[f"{kind} db"].median("hour", "stored") for kind in ("icecore", "restic"))
    bar(ours <= theirs / 10, f"the dump stores at most a tenth of restic's bytes: {size(ours)}, bar {size(theirs / 10)}")
    bar(beyond("icecore")[1] <= 200, f"a new file costs beyond its compressed data, all counted: {beyond('icecore')[1]:,.0f} bytes, bar 200")
    net, whole = ([scans["restic"][i][j] / scans["icecore"][i][j] for j in (0, 1)] for i in (1, 0))
    bar(net[0] >= 20, f"the scan of unchanged files at 20 times restic's speed: {net[0]:,.0f} times, by CPU time {net[1]:,.0f}")
    bar(whole[0] >= 20, f"the same with start-up, passphrase and commit in both: {whole[0]:,.1f} times, by CPU time {whole[1]:,.1f}")
    return title, [*lines, ""]


def is_debug(binary: Path) -> bool:
    """Only builds with overflow checks have their messages."""
    return b"attempt to add with overflow" in binary.read_bytes()


def positive(text: str) -> float:
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError("a number above 0")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="directory for the node and repositories; not a tmpfs")
    parser.add_argument("--scale", type=positive, default=1.0, help="1 is the full size")
    parser.add_argument("--runs", type=int, default=3, help="of the whole node; file storage alone is scanned at least five times")
    parser.add_argument("--icecore", type=Path, default=ROOT / "target/release/icecore", help="the binary")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and docs/benchmarks.json")
    parser.add_argument("--beside-node", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.runs < 1:
        parser.error("--runs must be at least 1")

    if not args.beside_node:
        binary = args.icecore.resolve(strict=True)
        if args.write and is_debug(binary):
            sys.exit(f"{binary} is a debug build: its figures are not to be written down")
        for program in ("restic", "rsync", "zstd"):
            if not shutil.which(program):
                sys.exit(f"{program} is not installed")
        args.work.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "ICECORE": str(binary), "SCALE": f"{args.scale:g}", "TMPDIR": str(args.work.resolve())}
        again = [sys.executable, str(Path(__file__).resolve()), "--beside-node", *sys.argv[1:]]
        sys.exit(subprocess.run([str(ROOT / "tests/docker/play.sh"), *again], env=env).returncode)

    Icecore.program = os.environ["ICECORE"]
    about, tools, parts = measure(Node(), args.runs)
    versions = sorted(tool.version() for tool in tools)
    title, lines = report(about, tools, parts, args.runs, args.scale, versions)
    print("\n".join(lines))
    if args.write:
        write_doc(ROOT / "docs/benchmarks.md", NAME, lines)
        raw = ROOT / "docs/benchmarks.json"
        figures = json.loads(raw.read_text()) if raw.exists() else {}
        figures[NAME] = {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "title": title,
            "data": about,
            "runs": args.runs,
            "versions": {tool.name: tool.version() for tool in tools},
            "tools": {tool.name: tool.record for tool in tools} | {name: tool.record for name, tool in parts.items()},
        }
        raw.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
