#!/usr/bin/env bash
# The SQLite index is only an index: gone, damaged, old or another's, the next command's answer is the same.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

SEED=${SEED:-$RANDOM}
printf 'seed %s\n' "$SEED"
RANDOM=$SEED
repo=$T/repo
mkdir "$T/data"
cp -a /usr/include/linux "$T/data/" 2>/dev/null || cp -a /usr/share/perl5 "$T/data/" || die "no tree of some size on this machine"
head -c 3000000 /dev/urandom >"$T/data/random"

# The cache directory's SQLite files (by their magic).
databases() {
    local file
    find "${1:-$ICECORE_CACHE_DIR}" -type f -size +0 -print0 2>/dev/null | while IFS= read -r -d '' file; do
        if [[ $(head -c 15 "$file" | tr -d '\0') == 'SQLite format 3' ]]; then printf '%s\n' "$file"; fi
    done
}

# Everything we can ask, after the index was spoiled; TITLE says how.
n=0
asked() {
    local title=$1
    n=$((n + 1))
    case $((n % 4)) in
    0)
        step 0 "$title, then restore" ice -r "$repo" restore latest:data "$T/back.$n"
        same_tree "$T/data" "$T/back.$n" "$title: rsync finds no difference"
        rm -rf "$T/back.$n"
        ;;
    1)
        printf '%s\n' "$title" >"$T/data/changed"
        head -c 100000 /dev/urandom >>"$T/data/changed"
        step 0 "$title, then backup" ice -r "$repo" backup "$T/data"
        step 0 "$title, cat" ice -r "$repo" cat latest:data/changed
        same_file "$T/data/changed" "$T/out" "$title: what was backed up is there"
        ;;
    2)
        step 0 "$title, then ls" ice -r "$repo" ls latest:data/random
        step 0 "$title, then cat" ice -r "$repo" cat latest:data/random
        same_file "$T/data/random" "$T/out" "$title: cat is equal"
        ;;
    3) step 0 "$title, then verify" ice -r "$repo" verify ;;
    esac
}

step 0 "init" ice -r "$repo" init
rm -rf "$ICECORE_CACHE_DIR"
step 0 "first backup" ice -r "$repo" backup "$T/data"
[[ -n $(databases) ]] || die "no SQLite file in the cache directory"
cp -a "$ICECORE_CACHE_DIR" "$T/cache.old"

rm -rf "$ICECORE_CACHE_DIR"
step 0 "unchanged backup without the index" ice --json -r "$repo" backup "$T/data"
field_is chunks_new -eq 0 "no chunk is stored twice"
for command in "snapshots" "ls latest:data" "find random" "stats" "verify"; do
    rm -rf "$ICECORE_CACHE_DIR"
    # shellcheck disable=SC2086  # words on purpose
    step 0 "$command without the index" ice -r "$repo" $command
done
for _ in 1 2 3 4; do
    rm -rf "$ICECORE_CACHE_DIR"
    asked "the cache directory deleted"
done

# Damage of many kinds.
spoil() {
    python3 - "$RANDOM" "$1" "$2" <<'PY'
import os, random, sys
seed, how, path = sys.argv[1:]
rng = random.Random(int(seed))
size = os.path.getsize(path)
with open(path, "r+b") as f:
    if how == "page":
        f.seek(rng.randrange(max(1, size // 4096)) * 4096)
        f.write(rng.randbytes(4096))
    elif how == "bytes":
        for _ in range(20):
            f.seek(rng.randrange(size))
            f.write(rng.randbytes(16))
    elif how == "header":
        f.seek(rng.randrange(100))
        f.write(rng.randbytes(8))
    elif how == "zeros":
        f.seek(rng.randrange(max(1, size // 2)))
        f.write(bytes(8192))
    elif how == "cut":
        f.truncate(rng.randrange(size))
    elif how == "empty":
        f.truncate(0)
    elif how == "text":
        f.truncate(0)
        f.write(b"this is not a database\n" * 1000)
PY
}
for how in page page page page page page bytes bytes bytes bytes header header zeros zeros cut cut empty text; do
    while IFS= read -r file; do
        spoil "$how" "$file"
    done < <(databases)
    asked "$how damaged"
done

# An older index, with the repository gone on since.
rm -rf "$ICECORE_CACHE_DIR"
for _ in 1 2 3 4; do
    rm -rf "$ICECORE_CACHE_DIR" && cp -a "$T/cache.old" "$ICECORE_CACHE_DIR"
    asked "an older index"
done

# Another repository's index in its place, and another icecore's schema.
step 0 "another repository" env ICECORE_CACHE_DIR="$T/cache.other" "$ICECORE" backup --init -r "$T/other" "$T/data/random"
mapfile -t others < <(databases "$T/cache.other" | sort)
equal "${#others[@]}" 2 "it has an index and a memory"
for other in "${others[@]}"; do
    for _ in 1 2 3 4; do
        while IFS= read -r file; do
            rm -f "$file-wal" "$file-shm"
            cp "$other" "$file"
        done < <(databases)
        name=${other##*/}
        asked "another repository's ${name%%[-.]*}"
    done
done
while IFS= read -r file; do
    python3 -c 'import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute("pragma user_version = 9999"); c.commit()' "$file"
done < <(databases)
asked "a newer icecore's index"

# A cache directory that cannot be: a file stands in its place.
rm -rf "$ICECORE_CACHE_DIR"
: >"$ICECORE_CACHE_DIR"
got=0
ice -r "$repo" ls latest:data >"$T/out" 2>"$T/err" || got=$?
if [[ $got -le 1 ]] && ! grep -q panicked "$T/err"; then pass "a file in the cache directory's place: exit code $got"; else fail "a file in the cache directory's place: exit code $got"; fi
rm -f "$ICECORE_CACHE_DIR"

# Two copies of one repository in turn at one path.
step 0 "before the copy" ice -r "$repo" backup "$T/data"
cp -a "$repo" "$T/copy"
for round in 1 2 3; do
    head -c 200000 /dev/urandom >"$T/data/round.$round"
    step 0 "round $round: backup into the one that is there" ice -r "$repo" backup "$T/data"
    step 0 "round $round: restore" ice -r "$repo" restore latest:data "$T/back.turn$round"
    same_tree "$T/data" "$T/back.turn$round" "round $round: rsync finds no difference"
    mv "$repo" "$T/swap" && mv "$T/copy" "$repo" && mv "$T/swap" "$T/copy"
done
head -c 200000 /dev/urandom >"$T/data/round.4"
step 0 "last backup" ice -r "$repo" backup "$T/data"
# Each copy lacks what the other got: a listing that lost snapshots is reported until somebody says that it is right.
step 4 "the one lacks snapshots that this machine saw" ice -r "$repo" --json verify --read-data
says 'vanished' "it says so"
equal "$(grep -c '"type":"finding"' "$T/out")" "$(grep -c 'vanished' "$T/out")" "and finds nothing else"
mapfile -t gone < <(grep '"type":"finding"' "$T/out" | grep -oE '[0-9a-f]{64}' | sort -u)
step 0 "they are not missed any more" ice -r "$repo" forget "${gone[@]}"
verified "$repo" "the one is right"
verified "$T/copy" "the other is right"

# Index segments gone: rebuilt from the packs themselves.
rm -f "$repo"/index/*
rm -rf "$ICECORE_CACHE_DIR"
step 0 "repair index" ice -r "$repo" repair index
if (($(objects "$repo" index))); then pass "there are index segments again"; else fail "no index segment after repair index"; fi
step 0 "restore after it" ice -r "$repo" restore latest:data "$T/back.repaired"
same_tree "$T/data" "$T/back.repaired" "rsync finds no difference"
step 0 "backup after it" ice --json -r "$repo" backup "$T/data"
field_is chunks_new -eq 0 "no chunk is stored twice"
verified "$repo"
finish
