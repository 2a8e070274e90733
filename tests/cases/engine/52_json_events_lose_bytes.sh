#!/bin/bash
# JSON events of backup, restore and their warnings named paths as they are escaped for a terminal: a byte that is not UTF-8 as \xff, a
# newline as \n, a backslash doubled. `ls`, `find`, `diff` and `planned` have `path`, exact, and `path_hex`.
# Right: each event that names a path has its exact text, and its bytes in hex where that is not UTF-8.
. "$(dirname "$0")/lib.sh"
py <<'P'
import json
os.mkdir(f"{T}/s")
names = [b"n\xff", b"n\\xff", b"a\nb", b"a\\nb"]
for name in names: open(f"{T}/s".encode() + b"/" + name, "wb").write(name)
if ice("init").returncode: raise Exception("init")
def named(out):
    found = set()
    for line in out.splitlines():
        event = json.loads(line)
        if event["type"] not in ("detail", "problem"): continue
        hexes = [v for k, v in event.items() if k.endswith("_hex")]
        text = next(v for k, v in event.items() if k in ("path", "subject"))
        found.add(bytes.fromhex(hexes[0]) if hexes else text.encode())
    return found
def seen(*arguments):
    done = subprocess.run([ICECORE, "--json", "-v", "-r", R, *arguments], capture_output=True, stdin=subprocess.DEVNULL)
    return named(done.stdout)
for arguments in (("backup", f"{T}/s"), ("restore", "latest:s", f"{T}/d")):
    found = seen(*arguments)
    lost = [name for name in names if not any(f.endswith(name) and (f == name or f[-len(name)-1:-len(name)] in (b"/", b":")) for f in found)]
    if lost or len(found) < 4: wrong(f"{arguments[0]} -v --json names {sorted(found)}: not to be told from it: {lost}")
right("each name is in the events byte for byte")
P
