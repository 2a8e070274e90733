#!/bin/bash
# The disk fails, or is full, when what was restored is written to it. A restore that does not ask (syncfs) reports success.
# Right: an error that says so, never 0, and the same restore again writes what may be ruined.
. "$(dirname "$0")/lib.sh"
needs root strace
mkdir "$T/src"; for i in 1 2 3; do head -c 200K /dev/urandom >"$T/src/f$i"; done; echo small >"$T/src/s"
setup ice -q -r "$R" init; setup ice -q -r "$R" backup src="$T/src"
ext4 64M "$T/mnt"
for error in EIO ENOSPC; do
    for when in 1 2; do
        rm -rf "$T/mnt/back"
        timeout 300 strace -f -qq -o /dev/null -e trace=syncfs -e inject=syncfs:error=$error:when=$when "$ICECORE" -r "$R" restore latest:src "$T/mnt/back" >"$T/o" 2>&1; rc=$?
        [ $rc = 1 ] || wrong "$error at sync $when: exit code $rc: $(cat "$T/o")"
        grep -q "cannot sync" "$T/o" && grep -q "^hint: " "$T/o" || wrong "$error at sync $when: it does not say so: $(cat "$T/o")"
        if [ $when = 1 ]; then      # the bytes may be lost: none of these files may be taken for finished
            for f in f1 f2 f3; do printf 'lost' | dd of="$T/mnt/back/$f" bs=1 seek=100 conv=notrunc 2>/dev/null; done
        fi
        ice -q -r "$R" restore latest:src "$T/mnt/back" || wrong "$error at sync $when: the next restore ended with $?"
        for f in f1 f2 f3 s; do cmp -s "$T/src/$f" "$T/mnt/back/$f" || wrong "$error at sync $when: after the next restore $f is ruined"; done
    done
done
# Where files are synced one by one: FUSE is not at hand everywhere, an overlay is.
mkdir "$T/lower" "$T/mnt/upper" "$T/mnt/work" "$T/merged"
if mount -t overlay -o lowerdir="$T/lower",upperdir="$T/mnt/upper",workdir="$T/mnt/work" none "$T/merged" 2>/dev/null; then
    MOUNTS="$T/merged $MOUNTS"
    timeout 300 strace -f -qq -o /dev/null -e trace=fsync -e inject=fsync:error=EIO:when=1 "$ICECORE" -r "$R" restore latest:src "$T/merged/back" >"$T/o" 2>&1; rc=$?
    [ $rc != 0 ] || wrong "EIO at fsync on an overlay: exit code 0: $(cat "$T/o")"
    ice -q -r "$R" restore latest:src "$T/merged/back" || wrong "the next restore onto the overlay ended with $?"
    for f in f1 f2 f3 s; do cmp -s "$T/src/$f" "$T/merged/back/$f" || wrong "on the overlay $f is ruined"; done
fi
right "a failed sync is an error, and the next restore writes everything again"
