#!/usr/bin/env bash
# Makes the golden repositories: ICECORE=target/release/icecore tests/data/make.sh [NAME]...
#
# Each is a folder with repo.tar (a repository with its files' times, which are the store's clock: git does not keep them) and
# expected.json (what tests/golden.rs must find in it). They are made once for a version of the format and never again: a
# repository that was remade proves nothing. NAME: plain, passphrase, parity, states (all that are not there, if none is given).
set -euo pipefail
export LC_ALL=C TZ=UTC
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${ICECORE:?ICECORE must be the path of the icecore binary}"
ICECORE=$(realpath -e "$ICECORE")
T=$(mktemp -d "${TMPDIR:-/tmp}/icecore-golden.XXXXXX")
trap 'rm -rf --one-file-system "$T"' EXIT
for name in $(compgen -e | grep -E '^ICECORE_' || true); do unset "$name"; done
export HOME=$T/home XDG_CONFIG_HOME=$T/config ICECORE_CACHE_DIR=$T/cache ICECORE_STATE_DIR=$T/state
python3 -m venv "$T/venv"
"$T/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/../oracle/requirements.txt"
repo=$T/repo tree=$T/tree

ice() {
    "$ICECORE" -q -r "$repo" "$@"
}

# some KIB SEED: bytes that nothing makes smaller.
some() {
    python3 -c 'import random, sys; sys.stdout.buffer.write(random.Random(sys.argv[2]).randbytes(int(sys.argv[1]) * 1024))' "$1" "$2"
}

# A small tree of all kinds of entries that need no root and no special file system.
plant() {
    rm -rf "$tree" && mkdir -p "$tree/sub/deep/er" "$tree/empty"
    : >"$tree/zero"
    printf 'a literal' >"$tree/literal"
    some 60 one >"$tree/chunk"
    some 300 two >"$tree/chunks"
    for i in $(seq 40); do printf 'number %s\n' "$i" >"$tree/sub/$i"; done
    printf 'odd' >"$tree/"$'not utf-8 \xff'
    printf 'new line' >"$tree/"$'new\nline'
    printf '%0.s-' $(seq 4000) >"$tree/sub/deep/er/dashes"
    truncate -s 3M "$tree/sparse" && printf 'island' | dd of="$tree/sparse" bs=1 seek=1500000 conv=notrunc status=none
    ln "$tree/literal" "$tree/sub/hard link"
    ln -s ../literal "$tree/sub/symlink"
    ln -s nowhere "$tree/dangling"
    mkfifo "$tree/fifo"
    chmod 700 "$tree/sub/deep"
    chmod 4755 "$tree/sub/1"
    setfattr -n user.golden -v value "$tree/literal"
    data=$(printf 'immutable')
    mkdir "$tree/local"
    printf '%s' "$data" >"$tree/local/$(printf '%s' "$data" | sha256sum | cut -c1-64)"
    find "$tree" -depth -exec touch -h -d '2026-01-02T03:04:05.678901234Z' {} +
}

change() {
    printf 'changed %s\n' "$1" >>"$tree/literal"
    some 20 "$1" >"$tree/new.$1"
    rm -f "$tree/sub/$1"
    find "$tree" -depth -exec touch -h -d "2026-02-0$1T03:04:05Z" {} +
}

dump() {
    seq -f 'row %.0f of the dump' 1 "$1"
}

# The repository's clock is its files' times: this moves all that is there into the past.
past() {
    find "$repo" -type f -exec python3 -c '
import os, sys
for path in sys.argv[2:]:
    at = os.stat(path).st_mtime_ns - int(sys.argv[1]) * 3600 * 10**9
    os.utime(path, ns=(at, at))' "$1" {} +
}

# newest FOLDER: the object that was written last.
newest() {
    find "$repo/$1" -type f -printf '%T@ %f\n' | sort -n | tail -n 1 | cut -d' ' -f2
}

# Restores each snapshot with the reader, has icecore agree, and writes what must be found from now on.
keep() {
    local name=$1 secret=$2
    # A client that never saw it: what this one remembers is not the repository's.
    rm -rf "$ICECORE_CACHE_DIR"
    "$T/venv/bin/python" "$here/expect.py" --icecore "$ICECORE" --reader "$T/venv/bin/python $here/../oracle/reader.py" --secret "$secret" "$repo" "$T/expected.json"
    mkdir -p "$here/$name"
    tar --create --file "$here/$name/repo.tar" --format=posix --sort=name --owner=0 --group=0 --numeric-owner \
        --pax-option=delete=atime,delete=ctime --exclude=./.reserve --directory "$repo" .
    mv "$T/expected.json" "$here/$name/expected.json"
    rm -rf "$repo" "$ICECORE_CACHE_DIR"
    unset ICECORE_PASSPHRASE
    printf 'made %s: %s\n' "$name" "$(du -h "$here/$name/repo.tar" | cut -f1)"
}

# Two snapshots, the second with a run of its own and a stream of several list nodes.
fill() {
    plant
    ice backup tree="$tree"
    change 2
    dump 60000 | ice backup --stdin dump --tag second tree="$tree"
}

make_plain() {
    ice init --no-passphrase
    fill
    keep plain ''
}

make_passphrase() {
    export ICECORE_PASSPHRASE='correct horse battery staple'
    ice init
    fill
    keep passphrase "$ICECORE_PASSPHRASE"
}

make_parity() {
    ice init --no-passphrase --parity 10
    fill
    keep parity ''
}

# All that a repository can hold besides: condemned, dropped and lost, superseded segments, a forgotten snapshot, a re-tagged
# one, a repaired one with its original in quarantine, orphans, a checkpoint, an old lease.
make_states() {
    local ids pack
    ice init --no-passphrase
    plant
    for i in 2 3 4 5; do
        ice backup tree="$tree"
        change $i
    done
    mapfile -t ids < <("$ICECORE" --json -r "$repo" snapshots | python3 -c 'import json, sys; [print(json.loads(l)["id"]) for l in sys.stdin if json.loads(l)["type"] == "snapshot"]')
    ice tag "${ids[1]}" --add tagged --protect
    ice forget "${ids[0]}"
    past 30
    ice prune
    past 30
    # Sweeps what the first has marked, and so leaves dropped packs and superseded segments.
    ice prune
    ice backup tree="$tree"
    # A pack that is gone: what it held is lost in the snapshots that name it.
    pack=$(find "$repo/packs" -type f -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2)
    some 30 lost >"$tree/lost" && touch -d '2026-03-01' "$tree/lost"
    ice backup tree="$tree"
    pack=$(find "$repo/packs" -type f -newer "$pack" | head -n 1)
    printf 'damage' | dd of="$pack" bs=1 seek=5000 conv=notrunc status=none
    ice repair packs || [[ $? -eq 4 ]]
    ice repair snapshots || [[ $? -eq 3 || $? -eq 4 ]]
    # A backup that was cut off between its segment and its snapshot, one before its segment, and one that was stopped.
    some 40 cut >"$tree/cut" && ice backup --host cut tree="$tree"
    rm "$repo/snapshots/$(newest snapshots)"
    some 41 orphan >"$tree/orphan" && ice backup --host cut tree="$tree"
    rm "$repo/snapshots/$(newest snapshots)" "$repo/index/$(newest index)"
    mkdir "$T/long" && head -c 1500M /dev/zero >"$T/long/zeros"
    "$ICECORE" -q -r "$repo" backup --host stopped tree="$tree" long="$T/long" &
    sleep 0.5
    kill -TERM $!
    wait $! || [[ $? -eq 130 ]]
    rm -r "$T/long"
    "$ICECORE" -q -r "$repo" backup --host killed --command 'endless=sleep 60' &
    sleep 1
    kill -KILL $!
    wait $! 2>/dev/null || true
    ice --json snapshots | grep -q checkpoint || printf 'make.sh: no checkpoint in it\n' >&2
    ice forget "$(ice --json snapshots | python3 -c 'import json, sys; print([json.loads(l) for l in sys.stdin if "snapshot" in l][1]["id"])')"
    keep states ''
}

names=("$@")
if ((${#names[@]} == 0)); then
    for name in plain passphrase parity states; do [[ -e $here/$name ]] || names+=("$name"); done
fi
for name in "${names[@]}"; do
    [[ ! -e $here/$name ]] || { printf 'make.sh: %s is there already\n' "$here/$name" >&2 && exit 1; }
    "make_$name"
done
