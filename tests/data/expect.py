#!/usr/bin/env python3
"""Writes down what a golden repository holds: what tests/oracle/reader.py restores, if icecore restores the same.

    expect.py --icecore BINARY --reader COMMAND --secret SECRET REPO OUT
"""

import argparse
import json
import os
import shutil
import stat
import subprocess
import tempfile

from blake3 import blake3


def listing(root):
    """Path (in hex, for names need not be UTF-8) → kind, permission bits, time, BLAKE3 or target."""
    found = {}
    root = os.fsencode(root)
    for base, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(base, name)
            info = os.lstat(path)
            row = [stat.S_IFMT(info.st_mode) >> 12, stat.S_IMODE(info.st_mode), info.st_mtime_ns, ""]
            if stat.S_ISREG(info.st_mode):
                with open(path, "rb") as file:
                    row[3] = blake3(file.read()).hexdigest()
            elif stat.S_ISLNK(info.st_mode):
                row[1], row[3] = 0, os.readlink(path).hex()
            found[os.path.relpath(path, root).hex()] = row
    return found


def main():
    parser = argparse.ArgumentParser()
    for name in ("--icecore", "--reader", "--secret"):
        parser.add_argument(name, required=True)
    parser.add_argument("repo")
    parser.add_argument("out")
    options = parser.parse_args()
    env = {**os.environ, "ICECORE_PASSPHRASE": options.secret}
    if not options.secret:
        del env["ICECORE_PASSPHRASE"]
    reader = options.reader.split()

    def icecore(*words):
        done = subprocess.run([options.icecore, "--json", "-r", options.repo, *words], env=env, capture_output=True, check=False)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    listed = subprocess.run([*reader, options.repo, "list"], env=env, capture_output=True, check=True).stdout
    snapshots = {}
    with tempfile.TemporaryDirectory() as top:
        for line in listed.splitlines():
            snapshot = json.loads(line)
            mine, theirs = os.path.join(top, "mine"), os.path.join(top, "theirs")
            subprocess.run([*reader, options.repo, "restore", snapshot["id"], theirs], env=env, check=True)
            code, _ = icecore("restore", snapshot["id"], mine)
            if listing(mine) != listing(theirs):
                raise SystemExit(f"{snapshot['id']}: icecore and the reader differ")
            snapshots[snapshot["id"]] = {"state": snapshot["state"], "restore": code, "paths": listing(theirs)}
            shutil.rmtree(mine)
            shutil.rmtree(theirs)
    shown = [line["id"] for line in icecore("snapshots")[1] if line["type"] == "snapshot"]
    value = {
        "secret": options.secret,
        "verify": icecore("verify", "--read-data")[0],
        "shown": sorted(shown),
        "forgotten": sorted(os.listdir(os.path.join(options.repo, "forgotten"))),
        "snapshots": snapshots,
    }
    with open(options.out, "w", encoding="utf-8") as out:
        json.dump(value, out, sort_keys=True, indent=0)
        out.write("\n")


if __name__ == "__main__":
    main()
