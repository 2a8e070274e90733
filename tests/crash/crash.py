#!/usr/bin/env python3
"""Cuts the power at every step of icecore's operations, and looks whether the real binary gets along with what is left.

    crash.py BINARY DIRECTORY [--states N] [--seed S] [--only OPERATION[:CUT[:VARIANT]]] [--keep]

Each operation runs once under strace, with the repository and the cache directory in one box. From the log, trace.py tells what was
written, synced and renamed, and model.py what a disk may hold if the power fails after any of these calls. Each such state is
put into the box, and must be a repository in which everything that was committed is there and equal, that verifies, and takes the
next backup and prune. N states are drawn from all (0: all of them). DIRECTORY is best on a tmpfs; needs root, for mounts of its own.
"""

import argparse
import hashlib
import json
import os
import pickle
import random
import shutil
import stat
import subprocess
import sys
import time

import model
import trace

HOUR = 3600 * 10**9
PRUNES = True


class Failed(Exception):
    """A check did not hold."""


def tree_digest(root):
    """One hash over names, kinds, modes, sizes, times and contents of all below a directory."""
    total = hashlib.sha256()
    stack = [os.fsencode(root)]
    while stack:
        path = stack.pop()
        info = os.lstat(path)
        data = b""
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb") as file:
                data = file.read()
        elif stat.S_ISLNK(info.st_mode):
            data = os.readlink(path)
        elif stat.S_ISDIR(info.st_mode):
            stack += sorted((os.path.join(path, name) for name in os.listdir(path)), reverse=True)
        name = path[len(os.fsencode(root)) :]
        total.update(b"%s\0%o\0%d\0%d\0" % (name, info.st_mode, info.st_mtime_ns, len(data)))
        total.update(data)
    return total.hexdigest()


class Bench:
    """Where everything lies, and how icecore is run there."""

    def __init__(self, binary, top):
        self.binary, self.top = binary, top
        self.box = os.path.join(top, "box")
        self.repo = os.path.join(self.box, "repo")
        self.data = os.path.join(top, "data")
        self.secret = None

    def env(self):
        env = {"PATH": os.environ["PATH"], "HOME": os.path.join(self.top, "home"), "TZ": "UTC", "LC_ALL": "C"}
        env["ICECORE_CACHE_DIR"] = os.path.join(self.box, "cache")
        env["ICECORE_STATE_DIR"] = os.path.join(self.box, "state")
        if self.secret:
            env["ICECORE_PASSPHRASE_FILE"] = self.secret
        else:
            env["ICECORE_NO_PASSPHRASE"] = "1"
        return env

    def run(self, *words, codes=(0,), prefix=()):
        """Runs icecore with --json; returns its lines. Any other exit code, and any panic, is a failure."""
        command = [*prefix, self.binary, "--json", "-r", self.repo, *words]
        done = subprocess.run(command, env=self.env(), stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
        err = done.stderr.decode(errors="replace")
        if "panicked" in err:
            raise Failed(f"{' '.join(words)}: panicked: {err[-400:]}")
        if done.returncode not in codes:
            tail = (done.stdout.decode(errors="replace") + err).strip().splitlines()[-4:]
            raise Failed(f"{' '.join(words)}: exit code {done.returncode}: {' | '.join(tail)}")
        self.code = done.returncode
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]

    def backup(self, *words):
        lines = self.run("backup", *words, f"data={self.data}")
        return lines[-1]["snapshot"]

    def listed(self):
        return [line["id"] for line in self.run("snapshots") if line["type"] == "snapshot"]

    def restored(self, snapshot, codes=(0,)):
        target = os.path.join(self.box, "restored")
        shutil.rmtree(target, ignore_errors=True)
        self.run("restore", f"{snapshot}:data", target, codes=codes)
        found = tree_digest(target)
        shutil.rmtree(target)
        return found


# ------------------------------------------------------------------------------------------------------- operations


class Recorder:
    """Runs operations one after another, some of them under strace."""

    def __init__(self, bench, rng):
        self.bench, self.rng, self.operations = bench, rng, []
        self.known, self.files = {}, 0

    def reset(self):
        shutil.rmtree(self.bench.box, ignore_errors=True)
        os.mkdir(self.bench.box)
        self.bench.secret = None

    def edit(self):
        """Changes the tree: some files anew, some changed, some gone."""
        data = self.bench.data
        os.makedirs(f"{data}/sub/directory", exist_ok=True)
        present = sorted(f for f in os.listdir(data) if f.startswith("f"))
        for name in self.rng.sample(present, min(len(present), 4)):
            path = os.path.join(data, name)
            if self.rng.random() < 0.4:
                os.unlink(path)
            else:
                with open(path, "ab") as file:
                    file.write(self.rng.randbytes(self.rng.randrange(1, 3000)))
        for _ in range(8):
            self.files += 1
            where = self.rng.choice(("", "sub/", "sub/directory/"))
            with open(f"{data}/{where}f{self.files}", "wb") as file:
                file.write(self.rng.randbytes(self.rng.choice((0, 50, 400, 5000, 40000))))
        # Older than what is too young to be judged by its times.
        for base, directories, files in os.walk(data, topdown=False):
            for name in files + ["."]:
                os.utime(os.path.join(base, name), ns=(10**18 + self.files, 10**18 + self.files))

    def backup(self):
        snapshot = self.bench.backup()
        self.known[snapshot] = tree_digest(self.bench.data)
        return snapshot

    def newest_but(self, other, tree):
        """The snapshot that a command made of another: what it holds is that one's tree."""
        (found,) = (snapshot for snapshot in self.bench.listed() if snapshot != other)
        self.known[found] = tree
        return found

    def shift(self, hours):
        """Moves the repository into the past: the store's clock is its files' times."""
        for base, _, files in os.walk(self.bench.repo):
            for name in files:
                path = os.path.join(base, name)
                at = os.stat(path).st_mtime_ns - hours * HOUR
                os.utime(path, ns=(at, at))

    def record(self, name, *words, must=(), after=(), gone=(), codes=(0,), **checks):
        """Runs `icecore WORDS` and keeps what it did. Snapshots of `must` are there at every cut, those of `after` once the
        command has reported, those of `gone` no longer then."""
        log = os.path.join(self.bench.top, "strace.log")
        nodes = trace.load(self.bench.box)
        traced = trace.Trace(self.bench.box, nodes)
        prefix = ("strace", "-f", "-q", "-ttt", "-xx", "-s", "16777216", "-e", f"trace={trace.CALLS}", "-o", log, "--")
        lines = self.bench.run(*words, codes=codes, prefix=prefix)
        events = traced.read(log)
        os.unlink(log)
        if not any(event[0] == "report" for event in events):
            raise Failed(f"{name}: nothing was written to standard output")
        self.agrees(name, traced)
        made = next((line["snapshot"] for line in reversed(lines) if isinstance(line.get("snapshot"), str)), None)
        if words[0] == "backup":
            self.known[made] = tree_digest(self.bench.data)
            after = (*after, made)
        self.operations.append(
            {"name": name, "words": words, "nodes": nodes, "times": traced.times, "events": events, "must": set(must), "after": set(after),
             "gone": set(gone), "known": dict(self.known), "secret": self.bench.secret, "tree": len(self.operations), **checks}
        )
        self.keep_tree()
        print(f"  {name}: {len(events)} events", flush=True)
        return made

    def agrees(self, name, traced):
        """The model, with everything kept, is what is on the disk: else it did not understand the log."""
        files, directories = model.state(traced.nodes, traced.times, traced.events, len(traced.events), "kept", 0)
        real = trace.load(self.bench.box)
        names = [b""]
        while names:
            path = names.pop()
            node = real[0]
            for part in path.split(b"/")[1:]:
                node = real[node.base[part]]
            if node.directory:
                if path not in directories:
                    raise trace.Unknown(f"{name}: the model has no directory {path!r}")
                names += [path + b"/" + child for child in node.base]
            elif not path.endswith(b"-shm") and files.pop(path, (None,))[0] != node.base:
                raise trace.Unknown(f"{name}: the model differs in {path!r}")
        left = [path for path in files if not path.endswith(b"-shm")]
        if left:
            raise trace.Unknown(f"{name}: the model has {left}, the disk has not")

    def keep_tree(self):
        """The tree as it is now, for the backups that follow a cut."""
        shutil.copytree(self.bench.data, os.path.join(self.bench.top, f"tree.{len(self.operations) - 1}"), symlinks=True)


def years(record):
    """A repository is made, filled, and shared."""
    bench = record.bench
    record.reset()
    record.edit()
    record.record("init", "init", "--no-passphrase", unmade=True)
    first = record.record("first backup", "backup", f"data={bench.data}")
    record.edit()
    second = record.record("second backup", "backup", f"data={bench.data}", must=[first])
    both = [first, second]
    other = os.path.join(bench.top, "key")
    record.record("key add", "key", "add", "--new-key-file", other, must=both, also=other)
    bench.secret = other
    slots = {line["slot"]: line["current"] for line in bench.run("key", "list") if line["type"] == "key"}
    empty = next(slot for slot, current in slots.items() if not current)
    record.record("key remove", "key", "remove", empty, must=both)
    third = os.path.join(bench.top, "key.changed")
    record.record("key change", "key", "change", "--new-key-file", third, must=both, instead=third)


def begun(record):
    """A repository with two snapshots."""
    record.reset()
    record.bench.run("init", "--no-passphrase")
    record.edit()
    first = record.backup()
    record.edit()
    return first, record.backup()


def forgetting(record):
    """Snapshots are tagged, forgotten and brought back."""
    bench = record.bench
    first, second = begun(record)
    tree = record.known[first]
    record.record("tag", "tag", first, "--add", "kept", must=[second], remade=first, always=2)
    first = record.newest_but(second, tree)
    record.record("forget", "forget", first, must=[second], gone=[first])
    # It comes back as an object of its own.
    record.record("undelete", "undelete", first, must=[second], remade=first, always=1)


def pruning(record):
    """What nobody needs is marked and swept, at once and after the grace."""
    bench = record.bench
    first, second = begun(record)
    bench.run("forget", first)
    record.record("prune --now", "prune", "--now", must=[second], gone=[first])
    record.edit()
    fourth = record.backup()
    record.edit()
    fifth = record.backup()
    bench.run("forget", second)
    record.shift(30)
    record.record("mark", "prune", must=[fourth, fifth])
    record.shift(30)
    record.record("sweep", "prune", must=[fourth, fifth], gone=[second])
    record.edit()
    record.record("backup after the sweep", "backup", f"data={bench.data}", must=[fourth, fifth])


def restoring(record):
    """A snapshot is restored: into nothing, over an older state, where nothing may be replaced, and a stream to a file."""
    bench = record.bench
    first, second = begun(record)
    target = os.path.join(bench.box, "target")
    whole = {"target": "target", "snapshot": second}
    record.record("restore", "restore", f"{second}:data", target, **whole)
    shutil.rmtree(target)
    bench.run("restore", f"{first}:data", target)
    with open(os.path.join(target, "mine"), "wb") as file:
        file.write(b"not in the snapshot")
    record.record("restore over another", "restore", f"{second}:data", target, "--delete", **whole)
    shutil.rmtree(target)
    record.record("restore --overwrite never", "restore", f"{second}:data", target, "--overwrite", "never", **whole, contents=True)
    shutil.rmtree(target)
    dump = os.path.join(bench.top, "dump")
    with open(dump, "wb") as file:
        file.write(record.rng.randbytes(90_000))
    third = bench.run("backup", "--command", f"dump=cat {dump}")[-1]["snapshot"]
    os.mkdir(target)
    record.record("restore of a stream", "restore", f"{third}:dump", os.path.join(target, "dump"), target="target", dump=dump)
    shutil.rmtree(target)


def repairs(record):
    """What was lost is put back as far as it can be."""
    bench = record.bench
    first, second = begun(record)
    for name in os.listdir(f"{bench.repo}/index"):
        os.unlink(f"{bench.repo}/index/{name}")
    record.record("repair index", "repair", "index", must=[first, second], again=[("repair", "index")])
    os.unlink(f"{bench.repo}/config")
    record.record("repair config", "repair", "config", must=[first, second], again=[("repair", "config")])
    # What the second backup brought is damaged: what the first one has must stay.
    pack = max(packs(bench), key=os.path.getmtime)
    spoil(pack, record.rng)
    again = [("repair", "packs"), ("repair", "snapshots")]
    shaky = {"again": again, "again_codes": (0, 3, 4), "lossy": True}
    record.record("repair packs", "repair", "packs", must=[first], codes=(0, 3, 4), **shaky)
    record.record("repair snapshots", "repair", "snapshots", must=[first], codes=(0, 3, 4), **shaky)


def parity(record):
    bench = record.bench
    record.reset()
    bench.run("init", "--no-passphrase", "--parity", "30")
    record.edit()
    first = record.backup()
    record.edit()
    second = record.record("backup with parity", "backup", f"data={bench.data}", must=[first])
    for pack in packs(bench):
        spoil(pack, record.rng)
    record.record("repair packs with parity", "repair", "packs", must=[first, second], again=[("repair", "packs")])


def packs(bench):
    return [os.path.join(base, name) for base, _, files in os.walk(f"{bench.repo}/packs") for name in files]


def spoil(path, rng):
    """Some bytes within 4 KiB are wrong; the file's time stays."""
    info = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(rng.randrange(max(1, info.st_size - 600)))
        file.write(rng.randbytes(500))
    os.utime(path, ns=(info.st_mtime_ns, info.st_mtime_ns))


# ------------------------------------------------------------------------------------------------------------ checks


def contents(root, times=True):
    """What the files below a directory hold, by path, with their times; a directory has neither."""
    found = {}
    for base, directories, files in os.walk(root):
        for name in directories:
            found[os.path.relpath(os.path.join(base, name), root)] = None
        for name in files:
            path = os.path.join(base, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = (os.stat(path).st_mtime_ns if times else 0, file.read())
    return found


def check_restore(bench, op, reported):
    """What was reported is whole; what was not becomes whole when the same restore runs again, which reads nothing back."""
    target = os.path.join(bench.box, op["target"])
    if "dump" in op:
        with open(op["dump"], "rb") as file:
            wanted = file.read()
        for again in (False, True):
            if again:
                bench.run(*op["words"])
            if again or reported:
                equal({name: data for name, (_, data) in contents(target).items()}, {"dump": wanted}, "the restored stream")
        return
    wanted = contents(bench.data)
    if reported:
        equal(contents(target), wanted, "what was reported as restored")
    bench.run(*op["words"])
    equal(contents(target), wanted, "the second restore")
    if not op.get("contents"):
        equal(tree_digest(target), op["known"][op["snapshot"]], "the second restore's metadata")


def check(bench, op, cut, rng):
    """Everything that must hold in the box, where the power failed at `cut` of the operation."""
    reported = any(event[0] == "report" for event in op["events"][:cut])
    bench.data = os.path.join(bench.top, f"tree.{op['tree']}")
    bench.secret = op["secret"]
    secrets = [op["secret"]]
    if "also" in op or "instead" in op:
        other = op.get("also") or op["instead"]
        if reported:
            secrets = [other] if "instead" in op else [op["secret"], other]
        else:
            secrets = [op["secret"], other]
    if op.get("unmade"):
        # Without a config there is no repository, with its second copy alone half of one.
        bench.run("snapshots", codes=(0,) if reported else (0, 4, 10))
        if bench.code == 10:
            bench.run("init", "--no-passphrase")
        elif bench.code == 4:
            bench.run("repair", "config")
    opening(bench, secrets, all_of_them=reported)
    if "target" in op:
        check_restore(bench, op, reported)
        return
    for words in op.get("again", ()):
        bench.run(*words, codes=op.get("again_codes", (0,)))
    lossy = op.get("lossy")
    bench.run("verify", "--read-data", codes=(0, 4) if lossy else (0,))
    listed = bench.listed()
    for snapshot in op["must"] | (op["after"] if reported else set()):
        if snapshot not in listed:
            raise Failed(f"snapshot {snapshot[:8]} is gone")
    for snapshot in op["gone"] if reported else ():
        if snapshot in listed:
            raise Failed(f"snapshot {snapshot[:8]} is still there")
    known = dict(op["known"])
    for snapshot in listed:
        if snapshot in known and not (lossy and snapshot not in op["must"]):
            equal(bench.restored(snapshot), known[snapshot], f"snapshot {snapshot[:8]}")
        elif "remade" in op:
            equal(bench.restored(snapshot), known[op["remade"]], f"the snapshot {snapshot[:8]}, made of another")
        elif not lossy:
            raise Failed(f"snapshot {snapshot[:8]} is one that was never reported")
    if "remade" in op and len(listed) < (2 if reported else op["always"]):
        raise Failed("neither the snapshot nor what was made of it is there")
    # Life goes on.
    fresh = bench.backup()
    known[fresh] = tree_digest(bench.data)
    equal(bench.restored(fresh), known[fresh], "the next backup")
    if PRUNES:
        bench.run("prune", *rng.choice(((), ("--now",))), codes=(0, 4) if lossy else (0,))
    bench.run("verify", "--read-data", codes=(0, 4) if lossy else (0,))
    for snapshot in {fresh, rng.choice(listed or [fresh])}:
        if snapshot in known and not (lossy and snapshot not in op["must"] | {fresh}):
            equal(bench.restored(snapshot), known[snapshot], f"after a prune, snapshot {snapshot[:8]}")


def opening(bench, secrets, all_of_them):
    """Takes the first secret that opens the repository; once the command has reported, each of them must."""
    problem = None
    for secret in secrets:
        bench.secret = secret
        try:
            # 4: of a slot only one copy was written.
            bench.run("key", "list", codes=(0,) if all_of_them else (0, 4))
            if not all_of_them:
                return
        except Failed as error:
            problem = error
            if all_of_them:
                raise
    if not all_of_them:
        raise problem


def equal(found, wanted, what):
    if found != wanted:
        raise Failed(f"{what} differs from what was backed up{difference(found, wanted)}")


def difference(found, wanted):
    """The first path that differs, where paths are known."""
    if not isinstance(found, dict):
        return ""
    odd = sorted(name for name in found.keys() | wanted.keys() if found.get(name, "") != wanted.get(name, ""))
    return f": {odd[:3]}"


def place(bench, op, task, keep=None):
    """Puts a state into the box."""
    files, directories = model.state(op["nodes"], op["times"], op["events"], task["cut"], task["variant"], task["seed"])
    for name in os.listdir(bench.box):
        shutil.rmtree(os.path.join(bench.box, name))
    model.write(bench.box, files, directories)
    if keep:
        shutil.rmtree(keep, ignore_errors=True)
        shutil.copytree(bench.box, keep)


def worker(bench, number, count):
    """Judges every count-th task, in a mount namespace where the box is a directory of its own."""
    with open(os.path.join(bench.top, "plan"), "rb") as file:
        operations, tasks, keep = pickle.load(file)
    own = os.path.join(bench.top, f"box.{number}")
    os.makedirs(own, exist_ok=True)
    subprocess.run(["mount", "--bind", own, bench.box], check=True)
    for at in range(number, len(tasks), count):
        task = tasks[at]
        op = operations[task["op"]]
        kept = os.path.join(bench.top, f"state.{at}") if keep else None
        place(bench, op, task, kept)
        try:
            check(bench, op, task["cut"], random.Random(task["seed"]))
            print(json.dumps({"at": at, "ok": True}), flush=True)
        except (Failed, subprocess.TimeoutExpired) as error:
            print(json.dumps({"at": at, "ok": False, "why": str(error), "kept": kept}), flush=True)


def told(event):
    if event[0] == "entry":
        return f"{'set' if event[3] is not None else 'remove'} the name {event[2].decode(errors='replace')}"
    return {"sync all": "sync all", "time": "set a time", "write": "write", "size": "set a length", "sync": "sync", "said": "said something", "report": "reported"}[event[0]]


def plan(operations, options):
    """The states to try: each is a cut of an operation and a choice of what was kept, no two the same."""
    rng = random.Random(options.seed)
    only = (options.only or "").split(":")
    every = []
    for number, op in enumerate(operations):
        if only[0] and only[0] != op["name"]:
            continue
        for cut in range(len(op["events"]) + 1):
            if len(only) > 1 and int(only[1]) != cut:
                continue
            for variant in model.VARIANTS:
                if len(only) > 2 and only[2] != variant:
                    continue
                every.append({"op": number, "cut": cut, "variant": variant, "seed": f"{options.seed}:{op['name']}:{cut}:{variant}"})
    candidates = len(every)
    if options.states:
        rng.shuffle(every)
    seen, tasks = set(), []
    for task in every:
        if options.states and len(tasks) >= options.states:
            break
        op = operations[task["op"]]
        files, directories = model.state(op["nodes"], op["times"], op["events"], task["cut"], task["variant"], task["seed"])
        reported = any(event[0] == "report" for event in op["events"][: task["cut"]])
        mark = (task["op"], reported, model.digest(files, directories))
        if mark not in seen:
            seen.add(mark)
            tasks.append(task)
    cuts = sum(len(op["events"]) + 1 for op in operations)
    print(f"{len(operations)} operations, {cuts} cut points, {candidates} candidates; {len(tasks)} different states to try", flush=True)
    return tasks


def main():
    parser = argparse.ArgumentParser(description="Cut the power at every step.")
    parser.add_argument("binary")
    parser.add_argument("directory")
    parser.add_argument("--states", type=int, default=600)
    parser.add_argument("--seed", default=str(random.randrange(10**6)))
    parser.add_argument("--only")
    parser.add_argument("--stories", default="years,forgetting,pruning,repairs,parity,restoring")
    parser.add_argument("--keep", action="store_true", help="keep every state, as it was before it was looked at")
    parser.add_argument("--worker", type=int)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    bench = Bench(options.binary, options.directory)
    if options.worker is not None:
        worker(bench, options.worker, options.workers)
        return 0
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    os.makedirs(bench.data, exist_ok=True)
    record = Recorder(bench, random.Random(options.seed))
    for story in options.stories.split(","):
        {"years": years, "forgetting": forgetting, "pruning": pruning, "repairs": repairs, "parity": parity, "restoring": restoring}[story](record)
    tasks = plan(record.operations, options)
    with open(os.path.join(bench.top, "plan"), "wb") as file:
        pickle.dump((record.operations, tasks, options.keep), file)
    command = [sys.executable, os.path.abspath(__file__), options.binary, options.directory, "--workers", str(options.workers), "--worker"]
    workers = [
        subprocess.Popen(["unshare", "--mount", "--propagation", "private", *command, str(i)], stdout=subprocess.PIPE)
        for i in range(options.workers)
    ]
    tried, failures = {}, 0
    for process in workers:
        for line in process.stdout:
            result = json.loads(line)
            task = tasks[result["at"]]
            op = record.operations[task["op"]]
            tried[op["name"]] = tried.get(op["name"], 0) + 1
            if not result["ok"]:
                failures += 1
                last = told(op["events"][task["cut"] - 1]) if task["cut"] else "nothing yet"
                print(f"FAIL {op['name']}:{task['cut']}:{task['variant']} (after: {last}): {result['why']} {result['kept'] or ''}", flush=True)
        if process.wait():
            failures += 1
            print(f"FAIL a worker ended with {process.returncode}")
    for name, count in tried.items():
        print(f"  {name}: {count} states")
    total = sum(tried.values())
    if total != len(tasks):
        failures += 1
        print(f"FAIL {total} of {len(tasks)} states were tried")
    print(f"{total} states tried in {time.monotonic() - began:.0f} s, {failures} failed")
    return 1 if failures or not total else 0


if __name__ == "__main__":
    sys.exit(main())
