#!/usr/bin/env bash
# A first backup that is stopped and killed again and again comes to its end without reading everything again; several
# at once into one repository all commit, and store little twice.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

repo=$T/repo
# 6,000 files, 120 MB that do not shrink, in directories of a hundred.
python3 - "$T/tree" <<'PY'
import os, random, sys
rng = random.Random(20260101)
for n in range(6000):
    directory = f"{sys.argv[1]}/{n // 1000}/{n // 100 % 10}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/{n}", "wb") as file:
        file.write(rng.randbytes(rng.randrange(40000)))
PY
tree_bytes=$(find "$T/tree" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
age
step 0 "a repository" ice init -r "$repo"

counter() {
    python3 - "$1" "$2" <<'PY'
import json, sys
name, path = sys.argv[1:]
best = 0
def walk(value):
    global best
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == name and isinstance(inner, int):
                best = max(best, inner)
            walk(inner)
for line in open(path, encoding="utf-8"):
    try:
        walk(json.loads(line))
    except ValueError:
        pass
print(best)
PY
}

# The highest level makes it slow enough for its checkpoints. Stops a backup when it has read about so many bytes more: by the kernel's count, since a killed process says nothing.
bytes_read=0
stopped() {
    local signal=$1 want=$2 title=$3 after=$4 pid got=0 began seen=0
    set -m
    "$ICECORE" -r "$repo" backup --checkpoint-every 1s --level 19 --threads 1 "$T/tree" >"$T/out" 2>"$T/err" </dev/null &
    pid=$!
    set +m
    while kill -0 "$pid" 2>/dev/null; do
        seen=$(awk '/^rchar/ { print $2 }' "/proc/$pid/io" 2>/dev/null || printf '%s' "$seen")
        ((${seen:-0} < after)) || break
        sleep 0.05
    done
    began=$(date +%s%N)
    kill -"$signal" "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || got=$?
    local took=$((($(date +%s%N) - began) / 1000000))
    bytes_read=$((bytes_read + ${seen:-0}))
    if grep -q 'panicked at' "$T/err"; then
        fail "$title: panicked: $(grep -m1 -A1 'panicked at' "$T/err")"
    elif [[ $got -ne $want ]]; then
        fail "$title: exit code $got, not $want: $(tail -n 2 "$T/err" | tr '\n' '|')"
    elif ((took > 5000)); then
        fail "$title: took $took ms to stop"
    else
        pass "$title: exit code $got after $took ms, $((${seen:-0} >> 20)) MiB read"
    fi
}

checkpoints() {
    ice -r "$repo" --json snapshots | grep -c '"checkpoint"' || true
}

# Each time a share of the tree is new. rchar counts what is read of the repository and the cache too.
round=0
for signal in INT KILL TERM KILL INT; do
    round=$((round + 1))
    want=130
    [[ $signal != KILL ]] || want=137
    stopped $signal $want "SIG$signal, round $round" 20000000
    step 0 "round $round: structure is right" ice -r "$repo" verify
done
if (($(checkpoints) > 0)); then pass "there is a checkpoint"; else fail "there is no checkpoint"; fi
step 1 "a checkpoint is never the latest" ice -r "$repo" ls latest
id=$(ice -r "$repo" --json snapshots | python3 -c '
import json, sys
found = []
def walk(value):
    if isinstance(value, dict):
        if value.get("state") == "checkpoint":
            found.append(value.get("id") or value.get("snapshot"))
        for inner in value.values():
            walk(inner)
    elif isinstance(value, list):
        for inner in value:
            walk(inner)
for line in sys.stdin:
    if line.strip():
        walk(json.loads(line))
print(found[-1])')
step 0 "a checkpoint is restored by its id" ice -r "$repo" restore "$id" "$T/part"
count=$(find "$T/part" -type f | wc -l)
if ((count > 300 && count < 6000)); then pass "$count of its files are there"; else fail "$count files in the checkpoint"; fi
said=$(rsync -acn --existing --itemize-changes "$T/tree/" "$T/part/" 2>&1 | grep '^>f' | head -n 3) || true
equal "$said" "" "each is what it should be"

step 0 "the backup comes to its end" ice -r "$repo" --json backup "$T/tree"
last_read=$(counter bytes_read "$T/out")
if ((last_read < tree_bytes * 8 / 10)); then
    pass "the last one read $((last_read >> 20)) of $((tree_bytes >> 20)) MiB"
else
    fail "the last one read $last_read of $tree_bytes bytes"
fi
if ((bytes_read + last_read < tree_bytes * 13 / 10 + 16000000)); then
    pass "all together read $(((bytes_read + last_read) >> 20)) MiB"
else
    fail "all together read $((bytes_read + last_read)) bytes, the tree has $tree_bytes"
fi
stored=$(repo_bytes "$repo")
# Each of the two kills costs what was read since the last checkpoint, 20 MB at most.
if ((stored < tree_bytes * 108 / 100 + 40000000)); then
    pass "one copy is stored, and what the kills cost: $((stored >> 20)) MiB"
else
    fail "$stored bytes are stored for $tree_bytes"
fi
equal "$(checkpoints)" 0 "no checkpoint is left"
equal "$(ice -r "$repo" --json ls latest --recursive | wc -l)" "$(ice -r "$repo" --json ls latest --recursive | sort -u | wc -l)" "each path once"
step 0 "restore" ice -r "$repo" restore latest:tree "$T/back"
same_tree "$T/tree" "$T/back" "rsync finds no difference"
verified "$repo"

# Several at once: of four overlapping trees, with caches of their own and with one cache.
mkdir -p "$T/many"
for n in 1 2 3 4; do
    cp -al "$T/tree/0" "$T/many/$n"
    mkdir "$T/many/$n/own"
    head -c 3000000 /dev/urandom >"$T/many/$n/own/file"
done
age
one_copy=$(($(find "$T/tree/0" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }') + 4 * 3000000))

together() {
    local title=$1 repo=$2 n pids=() cache got
    shift 2
    for n in 1 2 3 4; do
        cache=$T/cache
        [[ ${own_caches-} ]] && cache=$T/cache-$n
        ICECORE_CACHE_DIR=$cache "$ICECORE" -r "$repo" --json backup --host "h$n" "$@" "t$n=$T/many/$n" \
            >"$T/out.$n" 2>"$T/err.$n" </dev/null &
        pids+=($!)
    done
    for n in 1 2 3 4; do
        got=0
        wait "${pids[n - 1]}" || got=$?
        equal "$got" 0 "$title: backup $n ($(tail -n 1 "$T/err.$n"))"
    done
}

for own_caches in '' yes; do
    title="one cache"
    [[ -z $own_caches ]] || title="caches of their own"
    many=$T/many-repo$own_caches
    step 0 "$title: a repository" ice init -r "$many"
    together "$title" "$many" --checkpoint-every 1s
    stored=$(repo_bytes "$many")
    # What several store in the same interval is stored by each (at most four times the overlap).
    if ((stored < 4 * one_copy)); then pass "$title: $((stored >> 20)) MiB stored"; else fail "$title: $stored bytes stored"; fi
    verified "$many" "$title: verify --read-data finds nothing"
    before=$(objects "$many" packs)
    together "$title, again" "$many"
    equal "$(objects "$many" packs)" "$before" "$title: the second round stores no pack"
    equal "$(objects "$many" leases)" 0 "$title: no lease is left"
    equal "$(objects "$many" snapshots)" 8 "$title: eight snapshots, no checkpoint"
done
finish
