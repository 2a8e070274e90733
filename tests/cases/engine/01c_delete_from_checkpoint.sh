#!/bin/bash
# A checkpoint holds what an interrupted backup had come to. `restore --delete` of one took all that it had not come to for deleted.
# Right: nothing is deleted.
. "$(dirname "$0")/lib.sh"
needs strace
mkdir -p "$T/src"
for d in $(seq 40); do mkdir "$T/src/d$d"; for f in $(seq 25); do head -c 20000 /dev/urandom >"$T/src/d$d/f$f"; done; done
setup ice -q -r "$R" init
id=
# Listing takes at least 8 s, so the backup is interrupted on the way.
for wait in 3 5 7; do
    strace -f -qq -o /dev/null -e trace=getdents64 -e inject=getdents64:delay_enter=200000 \
        timeout -s INT "$wait" "$ICECORE" -q -r "$R" backup src="$T/src" --checkpoint-every 1s
    id=$(ice -r "$R" snapshots --json 2>/dev/null | grep '"state":"checkpoint"' | grep -o '"id":"[0-9a-f]*"' | head -n 1 | cut -d'"' -f4)
    [ -z "$id" ] || break
done
[ -n "$id" ] || cannot "the backup left no checkpoint"
before=$(find "$T/src" -type f | wc -l)
ice -r "$R" restore "$id:src" "$T/src" --delete; rc=$?
after=$(find "$T/src" -type f | wc -l)
[ "$after" = "$before" ] || wrong "restore --delete of a checkpoint (exit code $rc) deleted $((before - after)) of $before files"
right "restore --delete of a checkpoint (exit code $rc) left all $before files"
