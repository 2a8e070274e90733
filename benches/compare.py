#!/usr/bin/env python3
"""Compares icecore with its peers on whole backups, and writes the tables of docs/benchmarks.md.

    cargo build --release
    benches/compare.py --work DIR [--set usr] [--set dump] [--set blocks] [--runs 3] [--peers restic,borg,tar,rsync] [--quick]

Sets: `usr` is this machine's /usr; `dump` a pair of PostgreSQL dumps (make_dumps.sh); `blocks` a million small files named by
their hashes and 5,000 more (make_blocks.py). They are made in DIR/data once and kept; all else in DIR/run is removed.

What is measured: wall time; user and system CPU time of the command with all its children; the peak resident memory of
its largest process (what it shares with the measuring script is the floor, printed at the end); the repository's
apparent size. Sources and repositories are in the page cache: the disk is not measured. Each run takes the tools in
turn through all steps, so that a slow hour hits all; tables show medians, docs/benchmarks.json all figures.

The repository is made by a step of its own that is not timed. icecore and restic take zstd's default level, borg zstd,3; all
three encrypt. `tar` is `tar | zstd -3 -T2`, the plain reference without deduplication or encryption; `rsync` a plain copy.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = ["first", "unchanged", "changed", "restore", "verify"]
BLOCKS_NEW = 5_000


def sh(text: str, *args: object) -> list[str]:
    """A pipeline whose every part must succeed; arguments are $1, $2, …"""
    return ["bash", "-euo", "pipefail", "-c", text, "bash", *map(str, args)]


class Tool:
    """One tool's commands. A step that returns None is not measured. `stream` sets are one file given on stdin."""

    name = ""
    program = ""

    def __init__(self, home: Path, stream: bool):
        self.home, self.stream = home, stream
        self.repo, self.back = home / "repo", home / "back"
        self.env = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_CONFIG_HOME": str(home / "config"),
        }

    def version(self) -> str:
        raise NotImplementedError

    def init(self) -> list[str] | None:
        return None

    def backup(self, source: Path) -> list[str]:
        raise NotImplementedError

    def restore(self, source: Path) -> list[str]:
        """To `back`; for streams, to the file `back/stream`."""
        raise NotImplementedError

    def restored(self, source: Path) -> Path:
        return self.back / "stream" if self.stream else self.back

    def verify(self) -> list[str] | None:
        return None


def first_line(*command: str) -> str:
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return out.splitlines()[0].strip()


class Icecore(Tool):
    name = "icecore"
    options: list[str] = []

    def __init__(self, home: Path, stream: bool):
        super().__init__(home, stream)
        self.env |= {"ICECORE_REPO": str(self.repo), "ICECORE_PASSPHRASE": "x", "ICECORE_CACHE_DIR": str(home / "cache")}

    def version(self) -> str:
        return first_line(self.program, "--version")

    def init(self) -> list[str]:
        return [self.program, "-q", "init"]

    def backup(self, source: Path) -> list[str]:
        if self.stream:
            return sh('"$1" -q backup --stdin stream <"$2"', self.program, source)
        return [self.program, "-q", "backup", *self.options, f"tree={source}"]

    def restore(self, source: Path) -> list[str]:
        if self.stream:
            return [self.program, "-q", "restore", "latest:stream", str(self.back / "stream")]
        return [self.program, "-q", "restore", "latest:tree", str(self.back)]

    def verify(self) -> list[str]:
        return [self.program, "-q", "verify", "--read-data"]


class IcecoreImmutable(Icecore):
    name = "icecore --immutable"
    options = ["--immutable"]


class Restic(Tool):
    name = "restic"
    program = "restic"

    def __init__(self, home: Path, stream: bool):
        super().__init__(home, stream)
        self.env |= {"RESTIC_REPOSITORY": str(self.repo), "RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": str(home / "cache")}

    def version(self) -> str:
        return " ".join(first_line("restic", "version").split()[:2])

    def init(self) -> list[str]:
        return ["restic", "-q", "init"]

    def backup(self, source: Path) -> list[str]:
        if self.stream:
            return sh('restic -q backup --compression auto --stdin --stdin-filename stream <"$1"', source)
        return ["restic", "-q", "backup", "--compression", "auto", str(source)]

    def restore(self, source: Path) -> list[str]:
        if self.stream:
            return sh('restic -q dump latest /stream >"$1/stream"', self.back)
        return ["restic", "-q", "restore", "latest", "--target", str(self.back)]

    def restored(self, source: Path) -> Path:
        return self.back / "stream" if self.stream else self.back / str(source).lstrip("/")

    def verify(self) -> list[str]:
        return ["restic", "-q", "check", "--read-data"]


class Borg(Tool):
    name = "borg"
    program = "borg"

    def __init__(self, home: Path, stream: bool):
        super().__init__(home, stream)
        self.env |= {"BORG_REPO": str(self.repo), "BORG_PASSPHRASE": "x", "BORG_BASE_DIR": str(home)}
        self.count = 0

    def version(self) -> str:
        return first_line(self.program, "--version")

    def init(self) -> list[str]:
        return [self.program, "init", "-e", "repokey-blake2"]

    def backup(self, source: Path) -> list[str]:
        self.count += 1
        archive = f"::a{self.count}"
        if self.stream:
            return sh('"$1" create --compression zstd,3 "$2" - <"$3"', self.program, archive, source)
        return [self.program, "create", "--compression", "zstd,3", archive, str(source)]

    def restore(self, source: Path) -> list[str]:
        if self.stream:
            return sh('"$1" extract --stdout "$2" >"$3/stream"', self.program, f"::a{self.count}", self.back)
        return sh('cd "$3"; exec "$1" extract "$2"', self.program, f"::a{self.count}", self.back)

    def restored(self, source: Path) -> Path:
        return self.back / "stream" if self.stream else self.back / str(source).lstrip("/")

    def verify(self) -> list[str]:
        return [self.program, "check", "--verify-data"]


class Tar(Tool):
    name = "tar and zstd"
    program = "zstd"

    def version(self) -> str:
        return "zstd " + first_line("zstd", "-V").split("v")[-1].split(",")[0]

    def init(self) -> list[str]:
        return ["mkdir", "-p", str(self.repo)]

    def backup(self, source: Path) -> list[str]:
        if self.stream:
            return sh('zstd -q -3 -T2 -f -o "$2/all" <"$1"', source, self.repo)
        return sh('tar -C "$1" -cf - . | zstd -q -3 -T2 -f -o "$2/all"', source, self.repo)

    def restore(self, source: Path) -> list[str]:
        if self.stream:
            return sh('zstd -q -d -f -o "$2/stream" <"$1/all"', self.repo, self.back)
        return sh('zstd -q -dc <"$1/all" | tar -C "$2" -xpf -', self.repo, self.back)

    def verify(self) -> list[str]:
        return ["zstd", "-q", "-t", str(self.repo / "all")]


class Rsync(Tool):
    name = "rsync -a"
    program = "rsync"

    def version(self) -> str:
        return " ".join(first_line("rsync", "--version").split()[:3])

    def init(self) -> list[str]:
        return ["mkdir", "-p", str(self.repo)]

    def backup(self, source: Path) -> list[str]:
        return ["rsync", "-a", str(source), f"{self.repo}/stream"] if self.stream else ["rsync", "-a", f"{source}/", f"{self.repo}/"]

    def restore(self, source: Path) -> list[str]:
        return ["rsync", "-a", f"{self.repo}/", f"{self.back}/"]


PEERS = {"restic": Restic, "borg": Borg, "tar": Tar, "rsync": Rsync}


# ---------------------------------------------------------------------------------------------------------- measuring


def measured(command: list[str], env: dict[str, str], what: str) -> dict[str, float]:
    """Runs to the end; wall and CPU seconds and peak resident bytes."""
    os.sync()
    log = Path(env["HOME"]) / "log"
    with open(log, "wb") as out:
        began = time.monotonic()
        child = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        tail = log.read_text(errors="replace")[-2000:]
        sys.exit(f"{what} failed with {child.returncode}: {' '.join(command)}\n{tail}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss * 1024}


def size_of(path: Path) -> int:
    return int(subprocess.run(["du", "-sb", "--apparent-size", path], capture_output=True, check=True).stdout.split()[0])


def warm(path: Path) -> None:
    """Reads it all once, so that it lies in the page cache."""
    subprocess.run(sh('if [[ -d $1 ]]; then tar -cf - -C "$1" . | cat >/dev/null; else cat "$1" >/dev/null; fi', path), check=False)


def check_restored(tool: Tool, source: Path) -> None:
    back = tool.restored(source)
    if tool.stream:
        same = subprocess.run(["cmp", source, back]).returncode == 0
        said = "differs"
    else:
        out = subprocess.run(["rsync", "-rlpn", "--size-only", "--delete", "--itemize-changes", f"{source}/", f"{back}/"], capture_output=True, text=True)
        said = out.stdout[:500] + out.stderr[:500]
        # The root directory's own mode is not every tool's business.
        same = not [line for line in said.splitlines() if not line.endswith(" ./")]
    if not same:
        sys.exit(f"{tool.name}: what was restored is not what was backed up: {said}")


def measure(tool: Tool, data: dict, record: dict) -> None:
    """One tool through all steps once; figures go to record[step]."""
    source = data["source"]

    def step(name: str, command: list[str] | None) -> None:
        if command is None:
            return
        figures = measured(command, tool.env, f"{tool.name}, {name}")
        figures["repo"] = size_of(tool.repo)
        record.setdefault(name, []).append(figures)
        print(f"  {tool.name:20} {name:10} {figures['wall']:8.2f} s {figures['cpu']:8.2f} s CPU {figures['rss'] / 2**20:7.0f} MiB, repository {figures['repo'] / 1e6:9.1f} MB", flush=True)

    shutil.rmtree(tool.home, ignore_errors=True)
    tool.home.mkdir(parents=True)
    tool.back.mkdir()
    warm(source)
    if command := tool.init():
        measured(command, tool.env, f"{tool.name}, init")
    time.sleep(37)  # older than any racy window
    step("first", tool.backup(source))
    step("unchanged", tool.backup(source))
    if "change" in data:
        # A second state of the same thing; what it adds to the repository is told.
        changed = data["change"]()
        time.sleep(37)
        step("changed", tool.backup(changed))
    else:
        changed = source
    step("restore", tool.restore(changed))
    check_restored(tool, changed)
    step("verify", tool.verify())
    if "undo" in data:
        data["undo"]()
    shutil.rmtree(tool.home)


# --------------------------------------------------------------------------------------------------------------- sets


def prepare(name: str, work: Path, quick: bool) -> dict:
    """The set's source; how it changes and changes back."""
    data = work / "data"
    data.mkdir(parents=True, exist_ok=True)
    if name == "usr":
        source = Path("/usr/include" if quick else "/usr")
        return {"source": source, "title": f"`{source}` of this machine", "stream": False}
    if name == "dump":
        scale, transactions = (1, 25) if quick else (20, 500)
        directory = data / f"dump-{scale}"
        if not (directory / "1.sql").exists():
            subprocess.run([ROOT / "benches/make_dumps.sh", directory, str(scale), str(transactions)], check=True)
        title = f"`pg_dump` of pgbench at scale {scale} on standard input; changed: {transactions} transactions later"
        return {"source": directory / "1.sql", "change": lambda: directory / "2.sql", "title": title, "stream": True}
    if name == "blocks":
        count, new = (20_000, 100) if quick else (1_000_000, BLOCKS_NEW)
        directory = data / f"blocks-{count}"
        make = [sys.executable, str(ROOT / "benches/make_blocks.py"), str(directory)]
        done = data / f"blocks-{count}.done"
        if not done.exists():
            subprocess.run([*make, "--count", str(count)], check=True)
            done.touch()
        extra = [*make, "--first", str(count), "--count", str(new)]

        def change() -> Path:
            subprocess.run(extra, check=True)
            return directory

        title = f"{count:,} files of 400 bytes named by their SHA-256 in 1,024 directories; changed: {new:,} new ones"
        return {"source": directory, "change": change, "undo": lambda: subprocess.run([*extra, "--remove"], check=True), "title": title, "stream": False}
    raise AssertionError(name)


def described(source: Path) -> str:
    out = subprocess.run(sh("find \"$1\" -type f -printf '%s\\n' | awk '{ n++; s += $1 } END { print n, s }'", source), capture_output=True, text=True)
    count, total = (out.stdout.split() + ["0", "0"])[:2]
    return f"{int(count):,} file{'s' if count != '1' else ''}, {float(total) / 1e6:,.0f} MB"


# ------------------------------------------------------------------------------------------------------------- report


def median(record: dict, step: str, key: str) -> float | None:
    runs = record.get(step)
    return statistics.median(r[key] for r in runs) if runs else None


def table(results: dict) -> list[str]:
    lines = ["| tool | step | wall s | CPU s | peak MiB | repository MB |", "|---|---|---:|---:|---:|---:|"]
    for tool, record in results["tools"].items():
        for step in STEPS:
            if step not in record:
                continue
            wall, cpu, rss, repo = (median(record, step, k) for k in ("wall", "cpu", "rss", "repo"))
            size = ""
            if step == "first":
                size = f"{repo / 1e6:,.1f}"
            elif step in ("unchanged", "changed"):
                before = median(record, "first" if step == "unchanged" else "unchanged", "repo")
                size = f"{(repo - before) / 1e6:+,.2f}"
            lines.append(f"| {tool} | {step} | {wall:.2f} | {cpu:.2f} | {rss / 2**20:.0f} | {size} |")
    return lines


def bars(name: str, tools: dict) -> list[str]:
    """What was aimed at, and what came out."""
    ours, fast = tools.get("icecore"), [tools[t] for t in ("restic", "borg") if t in tools]
    lines = []

    def bar(text: str, value: float | None, limit: float | None, unit: str) -> None:
        if value is not None and limit is not None:
            lines.append(f"- {'met' if value <= limit else 'NOT MET'}: {text}: {value:,.2f} {unit}, bar {limit:,.2f}")

    if not ours:
        return lines
    for step in ("first", "restore") if name != "blocks" else ():
        peers = [median(t, step, "wall") for t in fast]
        if peers:
            bar(f"{step} in half the time of the faster of the archivers", median(ours, step, "wall"), min(peers) / 2, "s")
        if "tar and zstd" in tools:
            bar(f"{step} within 1.5 × of tar and zstd", median(ours, step, "wall"), 1.5 * median(tools["tar and zstd"], step, "wall"), "s")
    if "rsync -a" in tools and name != "blocks":
        bar("unchanged no slower than rsync -a", median(ours, "unchanged", "wall"), median(tools["rsync -a"], "unchanged", "wall"), "s")
    if fast:
        bar("repository after the first backup smaller than the smaller", median(ours, "first", "repo") / 1e6, min(median(t, "first", "repo") for t in fast) / 1e6, "MB")
    bar("peak memory", max(median(ours, s, "rss") for s in ours) / 2**20, 256, "MiB")

    def added(record: dict) -> float | None:
        return (median(record, "changed", "repo") - median(record, "unchanged", "repo")) / 1e6 if "changed" in record else None

    if name == "blocks":
        bar("unchanged with stat", median(ours, "unchanged", "wall"), 5, "s")
        if immutable := tools.get("icecore --immutable"):
            bar("unchanged with --immutable", median(immutable, "unchanged", "wall"), 0.3, "s")
        bar("5,000 new blocks add", added(ours), 4, "MB")
    if name == "dump" and "restic" in tools:
        bar("the second dump adds at most a tenth of restic's bytes", added(ours), added(tools["restic"]) / 10, "MB")
    return lines


def machine() -> str:
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemTotal")) / 2**20
    return f"{len(os.sched_getaffinity(0))} cores ({model}), {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"


def write_doc(path: Path, name: str, lines: list[str]) -> None:
    begin, end = f"<!-- {name} begins -->", f"<!-- {name} ends -->"
    text = path.read_text()
    if begin not in text or end not in text:
        sys.exit(f"{path} has no markers for {name}")
    head, rest = text.split(begin, 1)
    path.write_text(head + begin + "\n" + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="directory for data and repositories; not a tmpfs")
    parser.add_argument("--set", action="append", choices=["usr", "dump", "blocks"], dest="sets")
    parser.add_argument("--peers", default="restic,borg,tar,rsync", help="which to compare with; empty for none")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small sets, to see that all works; writes no document")
    parser.add_argument("--icecore", type=Path, default=ROOT / "target/release/icecore", help="the binary; 'none' leaves it out")
    parser.add_argument("--borg", default="borg", help="borg's program, where it is not in PATH")
    parser.add_argument("--no-doc", action="store_true", help="write no document")
    args = parser.parse_args()

    work = args.work.resolve()
    Borg.program = args.borg
    tools: list[type[Tool]] = []
    if str(args.icecore) != "none":
        Icecore.program = str(args.icecore.resolve(strict=True))
        tools.append(Icecore)
    tools += [PEERS[name] for name in args.peers.split(",") if name]
    for tool in tools:
        if not shutil.which(tool.program):
            sys.exit(f"{tool.program} is not installed; leave it out with --peers")
    print(machine())

    doc, raw = ROOT / "docs/benchmarks.md", ROOT / "docs/benchmarks.json"
    (work / "run").mkdir(parents=True, exist_ok=True)
    for name in args.sets or ["usr", "dump", "blocks"]:
        data = prepare(name, work, args.quick)
        with_immutable = [IcecoreImmutable] if name == "blocks" and Icecore in tools else []
        results = {
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "title": data["title"],
            "data": described(data["source"]),
            "runs": args.runs,
            "versions": {},
            "tools": {},
        }
        print(f"{name}: {results['title']}: {results['data']}")
        for run in range(args.runs):
            print(f" run {run + 1} of {args.runs}")
            for kind in [*tools[:1], *with_immutable, *tools[1:]]:
                tool = kind(work / "run" / kind.name.replace(" ", ""), data["stream"])
                results["versions"].setdefault(kind.name, tool.version())
                measure(tool, data, results["tools"].setdefault(kind.name, {}))
        lines = [
            "",
            f"{results['title'][0].upper()}{results['title'][1:]}: {results['data']}. {results['date']}, {results['machine']}; "
            f"medians of {args.runs}; {', '.join(sorted(set(results['versions'].values())))}.",
            "",
            *table(results),
            "",
            *bars(name, results["tools"]),
            "",
        ]
        print("\n".join(lines))
        if not (args.quick or args.no_doc):
            write_doc(doc, name, lines)
            figures = json.loads(raw.read_text()) if raw.exists() else {}
            figures[name] = results
            raw.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    floor = measured(["true"], {"HOME": str(work / "run"), "PATH": os.environ["PATH"]}, "true")
    print(f"peak memory below {floor['rss'] / 2**20:.0f} MiB cannot be told")
    shutil.rmtree(work / "run", ignore_errors=True)


if __name__ == "__main__":
    main()
