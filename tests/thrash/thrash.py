#!/usr/bin/env python3
"""Many icecore processes on one repository, killed at random, and a judge that knows what each snapshot must hold.

    thrash.py BINARY DIRECTORY [--seconds N] [--seed S]

Three hosts back up a tree each that changes between their backups; others restore, verify, forget, undelete, tag and prune; one
kills, stops and interrupts whatever runs. A command that was not killed must do its work. A restore never gives wrong bytes.
At the end everything that was committed and not forgotten is there and equal.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

HOSTS = ("one", "two", "three")
TEMPORARY = (".icecore-", ".tmp-")


def listing(root):
    """Path → what a restore must bring back of it."""
    found = {}
    for base, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(base, name)
            info = os.lstat(path)
            content = ""
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    content = hashlib.sha256(file.read()).hexdigest()
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, root)] = (info.st_mode, info.st_mtime_ns if not stat.S_ISDIR(info.st_mode) else 0, content)
    return found


class Thrash:
    def __init__(self, options):
        self.binary, self.top = options.binary, options.directory
        self.repo = os.path.join(self.top, "repo")
        self.seed = options.seed
        self.until = time.monotonic() + options.seconds
        self.lock = threading.Lock()
        self.running = {}
        self.attempts = {host: [] for host in HOSTS}
        # Snapshot → its listing; those that a command may have forgotten; what a re-tag has replaced.
        self.committed, self.let_go = {}, set()
        self.counts, self.failures, self.history = {}, [], []

    def over(self):
        return time.monotonic() >= self.until

    def fail(self, what):
        with self.lock:
            self.failures.append(what)
        print(f"FAIL {what}", flush=True)

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def run(self, cache, *words, chaos=True):
        """Exit code and JSON lines; the code is negative, or 130, if the process was sent a signal."""
        env = {"PATH": os.environ["PATH"], "HOME": self.top, "TZ": "UTC", "LC_ALL": "C", "ICECORE_CACHE_DIR": os.path.join(self.top, f"cache.{cache}"), "ICECORE_STATE_DIR": os.path.join(self.top, "state"), "ICECORE_NO_PASSPHRASE": "1"}
        command = [self.binary, "--json", "-r", self.repo, *words]
        began = time.monotonic()
        with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            if chaos:
                with self.lock:
                    self.running[process.pid] = words[0]
            try:
                out, err = process.communicate(timeout=300)
            except subprocess.TimeoutExpired:
                self.fail(f"{' '.join(words)}: still running after 300 s")
                process.kill()
                out, err = process.communicate()
            finally:
                with self.lock:
                    self.running.pop(process.pid, None)
        text = err.decode(errors="replace")
        if "panicked" in text:
            self.fail(f"{' '.join(words)}: panicked: {text[-500:]}")
        self.error = text
        with self.lock:
            self.history.append(f"{began:.2f}-{time.monotonic():.2f} {' '.join(words)}: {process.returncode} {out.decode(errors='replace')[-300:]!r}")
        self.count(f"{words[0]}: {'killed' if process.returncode < 0 else 'interrupted' if process.returncode == 130 else process.returncode}")
        lines = []
        for line in out.splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                if process.returncode >= 0:
                    self.fail(f"{' '.join(words)}: not JSON: {line[:200]!r}")
        tail = " | ".join((out.decode(errors="replace") + text).strip().splitlines()[-4:])
        return process.returncode, lines, tail

    def signalled(self, code):
        return code < 0 or code == 130

    # ----------------------------------------------------------------------------------------------------- roles

    def edit(self, host, rng):
        tree = os.path.join(self.top, f"tree.{host}")
        os.makedirs(os.path.join(tree, "sub"), exist_ok=True)
        names = sorted(os.listdir(os.path.join(tree, "sub")))
        for name in rng.sample(names, min(len(names), rng.randrange(1, 12))):
            path = os.path.join(tree, "sub", name)
            if rng.random() < 0.5:
                os.unlink(path)
            else:
                with open(path, "ab") as file:
                    file.write(rng.randbytes(rng.randrange(1, 5000)))
        for _ in range(rng.randrange(1, 25)):
            # Some contents are the same on all hosts: they are deduplicated against one another's.
            source = random.Random(rng.randrange(60)) if rng.random() < 0.5 else rng
            with open(os.path.join(tree, "sub", f"{rng.randrange(200)}"), "wb") as file:
                file.write(source.randbytes(source.choice((10, 2000, 60_000, 700_000))))
        return tree

    def backs_up(self, host, rng):
        while not self.over():
            tree = self.edit(host, rng)
            wanted = listing(tree)
            with self.lock:
                self.attempts[host].append(wanted)
            code, lines, tail = self.run(rng.choice((host, "shared")), "backup", "--host", host, f"data={tree}")
            if code == 0:
                with self.lock:
                    self.committed[lines[-1]["snapshot"]] = wanted
            elif not self.signalled(code):
                self.fail(f"backup of {host}: exit code {code}: {tail}")

    def snapshots(self, chaos=True):
        code, lines, tail = self.run("shared", "snapshots", chaos=chaos)
        if code and not self.signalled(code):
            self.fail(f"snapshots: exit code {code}: {tail}")
        return [line for line in lines if line["type"] == "snapshot" and line["state"] != "checkpoint"] if code == 0 else []

    def right(self, snapshot, target, whole):
        """Whether a restored tree is what was backed up: all of it, or (not whole) nothing else."""
        got = listing(target)
        with self.lock:
            wanted = [self.committed[snapshot["id"]]] if snapshot["id"] in self.committed else list(self.attempts[snapshot["host"]])
        if whole:
            return any(got == want for want in wanted)
        # Directories get their modes last; a file that has its own name is whole.
        files = {p: v for p, v in got.items() if not stat.S_ISDIR(v[0]) and not os.path.basename(p).startswith(TEMPORARY)}
        return any(all(p in want and want[p][2] == v[2] for p, v in files.items()) for want in wanted)

    def restored(self, snapshot, rng, chaos=True):
        target = os.path.join(self.top, f"restored.{threading.get_ident()}")
        shutil.rmtree(target, ignore_errors=True)
        code, _, tail = self.run(rng.choice(("restore", "shared")), "restore", f"{snapshot['id']}:data", target, chaos=chaos)
        short = f"{snapshot['id'][:8]} of {snapshot['host']}"
        if os.path.isdir(target) and not self.right(snapshot, target, code == 0):
            kept = f"{target}.wrong"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(target, kept, symlinks=True)
            self.fail(f"restore of {short}, exit code {code}: wrong bytes in {kept}")
        with self.lock:
            gone = snapshot["id"] in self.let_go
        if code and not self.signalled(code) and not gone:
            self.fail(f"restore of {short}: exit code {code}: {tail}")
        return code

    def restores(self, rng):
        while not self.over():
            if snapshots := self.snapshots():
                self.restored(rng.choice(snapshots), rng)
            else:
                time.sleep(0.2)

    def verifies(self, rng):
        while not self.over():
            code, _, tail = self.run(rng.choice(("verify", "shared")), "verify", *rng.choice((("--read-data",), ())))
            if code and not self.signalled(code):
                self.fail(f"verify: exit code {code}: {tail}")
            time.sleep(rng.random())

    def forgets(self, rng):
        forgotten = []
        while not self.over():
            time.sleep(rng.random() * 0.6)
            snapshots = self.snapshots()
            if len(snapshots) < 6:
                continue
            how = rng.random()
            if how < 0.15 and forgotten:
                # Brought back, if no prune was quicker: that is refused with 1.
                snapshot = forgotten.pop()
                # It comes back as a snapshot object of its own.
                code, lines, tail = self.run("forget", "undelete", snapshot["id"])
                if code == 0:
                    with self.lock:
                        if snapshot["id"] in self.committed:
                            self.committed[lines[-1]["snapshot"]] = self.committed[snapshot["id"]]
                elif code not in (0, 1) and not self.signalled(code):
                    self.fail(f"undelete: exit code {code}: {tail}")
                continue
            if how < 0.3:
                host = rng.choice(HOSTS)
                with self.lock:
                    of_host = {s["id"] for s in snapshots if s["host"] == host}
                    self.let_go |= of_host
                code, _, tail = self.run("forget", "forget", "--host", host, "--keep-last", "4", "--force")
                if code == 0:
                    left = {s["id"] for s in self.snapshots(chaos=False)}
                    with self.lock:
                        self.let_go -= of_host & left
            else:
                snapshot = rng.choice(snapshots[:-3])
                with self.lock:
                    self.let_go.add(snapshot["id"])
                code, _, tail = self.run("forget", "forget", snapshot["id"])
                forgotten.append(snapshot)
            if code and not self.signalled(code):
                self.fail(f"forget: exit code {code}: {tail}")

    def prunes(self, rng):
        while not self.over():
            time.sleep(rng.random())
            words = rng.choice((("--now",), ("--now",), (), ("--dry-run",), ("--now", "--max-repack", "1MiB")))
            code, _, tail = self.run(rng.choice(("prune", "shared")), "prune", *words)
            if code and not self.signalled(code):
                self.fail(f"prune {' '.join(words)}: exit code {code}: {tail}")

    def kills(self, rng):
        """kill -9 mostly; the others are an orderly end, and a pause in the middle."""
        while not self.over():
            time.sleep(rng.random() * 0.4)
            with self.lock:
                if not self.running:
                    continue
                pid = rng.choice(sorted(self.running))
                how = rng.choices((signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP), (12, 1, 1, 2))[0]
                try:
                    os.kill(pid, how)
                except ProcessLookupError:
                    continue
            self.count(f"signal {how.name}")
            if how == signal.SIGSTOP:
                threading.Timer(rng.random() * 3, self.go_on, (pid,)).start()

    def go_on(self, pid):
        with self.lock:
            if pid in self.running:
                os.kill(pid, signal.SIGCONT)

    # ------------------------------------------------------------------------------------------------------- end

    def must(self, title, *words):
        code, lines, tail = self.run("end", *words, chaos=False)
        if code:
            self.fail(f"{title}: exit code {code}: {tail}")
        return lines

    def ends(self, rng):
        self.must("prune at the end", "prune", "--now")
        self.must("verify at the end", "verify", "--read-data")
        snapshots = self.snapshots(chaos=False)
        listed = {snapshot["id"] for snapshot in snapshots}
        for gone in set(self.committed) - self.let_go - listed:
            self.fail(f"snapshot {gone[:8]} was committed, nobody forgot it, and it is gone")
            # What concerned it, and what else forgot anything.
            told = [line for line in self.history if gone[:8] in line or " forget " in line or " undelete " in line]
            print("\n".join(f"    {line}" for line in told))
        for snapshot in snapshots:
            self.restored(snapshot, rng, chaos=False)
        # All but the last of each host go; a day later so do the remains of who was killed.
        for host in HOSTS:
            self.must("forget at the end", "forget", "--host", host, "--keep-last", "1", "--force")
        for base, _, files in os.walk(self.repo):
            for name in files:
                if name.startswith(".tmp-") or base.endswith("leases"):
                    os.utime(os.path.join(base, name), (time.time() - 2 * 86400,) * 2)
        for _ in range(3):
            self.must("the last prune", "prune", "--now")
        left = [n for n in os.listdir(self.repo) if n.startswith(".tmp-")] + os.listdir(os.path.join(self.repo, "leases"))
        if left:
            self.fail(f"a prune left {len(left)} old leases and temporary files: {left[:3]}")
        self.must("the last verify", "verify", "--read-data")
        snapshots = self.snapshots(chaos=False)
        if len(snapshots) > len(HOSTS):
            self.fail(f"{len(snapshots)} snapshots after all but {len(HOSTS)} were forgotten")
        for snapshot in snapshots:
            self.restored(snapshot, rng, chaos=False)
        held = sum(os.path.getsize(os.path.join(base, name)) for base, _, files in os.walk(os.path.join(self.repo, "packs")) for name in files)
        needed = sum(os.path.getsize(os.path.join(base, name)) for host in HOSTS for base, _, files in os.walk(os.path.join(self.top, f"tree.{host}")) for name in files)
        print(f"packs: {held >> 10} KiB for trees of {needed >> 10} KiB")
        if held > 1.5 * needed + (4 << 20):
            self.fail(f"the packs take {held >> 10} KiB, three trees {needed >> 10} KiB")

    def all(self):
        self.must("init", "init", "--no-passphrase")
        roles = [("backup " + host, self.backs_up, host) for host in HOSTS]
        roles += [("restore", self.restores), ("restore 2", self.restores), ("verify", self.verifies), ("forget", self.forgets)]
        roles += [("prune", self.prunes), ("kill", self.kills)]

        def play(name, role, *args):
            try:
                role(*args, random.Random(f"{self.seed}:{name}"))
            except Exception as error:  # a thread that ends must not end unnoticed
                self.fail(f"{name}: {type(error).__name__}: {error}")

        threads = [threading.Thread(target=play, args=role) for role in roles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.ends(random.Random(f"{self.seed}:end"))
        for what in sorted(self.counts):
            print(f"  {what}: {self.counts[what]}")
        for role in ("backup: 0", "backup: killed", "restore: 0", "restore: killed", "verify: 0", "forget: 0", "prune: 0", "prune: killed"):
            if not self.counts.get(role):
                self.fail(f"it never came to '{role}': more seconds")
        print(f"{len(self.committed)} snapshots committed, {len(self.let_go)} let go, {len(self.failures)} failures")
        return 1 if self.failures else 0


def main():
    parser = argparse.ArgumentParser(description="Thrash a repository.")
    parser.add_argument("binary")
    parser.add_argument("directory")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default=str(random.randrange(10**6)))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    return Thrash(options).all()


if __name__ == "__main__":
    sys.exit(main())
