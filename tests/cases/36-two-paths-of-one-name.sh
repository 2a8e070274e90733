#!/usr/bin/env bash
# Two jobs of one host give two directories one name. `status` had one row for both: the job that runs hid that the other one
# has stopped. And what a snapshot lacks could be learned from `ls --missing` alone.
# Right: a row for each path, in text, JSON and metrics, and --max-age judges each; a directory that was moved keeps one row;
# `status` and `snapshots --json` say what is missing.
. "$(dirname "$0")/lib.sh"
wrong() { echo "WRONG: $*: $(cat out)"; exit 1; }

mkdir -p a/data b/data/cache c && echo 1 >a/data/f && echo 2 >b/data/f && echo 3 >b/data/cache/x && echo 4 >c/f
ice -q backup --init data="$T/a/data" || exit 2
ice -q backup data="$T/b/data" --exclude cache/ 2>/dev/null || exit 2
ice -q backup data="$T/a/data" 2>/dev/null || exit 2
sleep 2
ice -q backup data="$T/b/data" --exclude cache/ 2>/dev/null || exit 2

ice status >out 2>&1 || wrong "status"
[ "$(grep -c "$T/[ab]/data" out)" = 2 ] || wrong "not a row for each path"
ice status --max-age 2s --prometheus metrics >out 2>&1 && wrong "the one that stopped is not told"
grep -q "warning: source data ($T/a/data) on host " out || wrong "it is not named"
grep -q "icecore_snapshots{.*path=\"$T/a/data\"} 2" metrics || wrong "metrics: $(cat metrics)"

ice status --json >out 2>&1 || wrong "status --json"
python3 - out "$T" <<'P' || wrong "status --json"
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
rows = {row['path']: row for row in rows if row['type'] == 'source_status'}
assert 'missing' not in rows[sys.argv[2] + '/a/data'], rows
missing = rows[sys.argv[2] + '/b/data']['missing']
assert missing == {'incomplete': 0, 'partial': 1, 'unseen': 0, 'lost_paths': 0, 'cut': False,
                   'paths': [{'path': '', 'kind': 'excluded'}]}, missing
P
ice snapshots --json >out 2>&1 || wrong "snapshots --json"
[ "$(grep -c '"kind":"excluded"' out)" = 2 ] || wrong "snapshots --json does not say what is missing"

# Both were moved to one place: that is one source.
ice -q backup data="$T/c" --moved 2>/dev/null || exit 2
ice status >out 2>&1 || wrong "status"
[ "$(grep -c "$T/" out)" = 1 ] && grep -q "$T/c$" out || wrong "a path that was left has a row"

# What could not be read is told, with the command that lists it.
if [ "$(id -u)" != 0 ]; then
    chmod 0 c/f
    ice -q backup data="$T/c" 2>/dev/null
    ice status >out 2>&1
    grep -q 'lacks 1 entry: icecore ls --missing [0-9a-f]*:data' out || wrong "what is missing is not told"
fi
echo "RIGHT: a row for each path, and what is missing is told"
