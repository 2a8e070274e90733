#!/usr/bin/env bash
# Two files of equal size and time are one inode in the target (a `cp -al`, a deduplicator) and two files in the snapshot, of different
# modes and attributes. A restore keeps both, gives the one inode first the one mode, then the other's: "2 unchanged", exit code 0, with
# --verify too; a second restore the same. The key is readable by all, and what is written to one changes the other.
# Right: what is one inode there and more than one in the snapshot is written apart, or named.
. "$(dirname "$0")/lib.sh"
mkdir "$T/s" "$T/d"; echo same >"$T/s/a-key"; echo same >"$T/s/b-public"; chmod 600 "$T/s/a-key"; chmod 644 "$T/s/b-public"
touch -d '1 hour ago' "$T"/s/*
setup ice -q -r "$R" init
setup ice -q -r "$R" backup "$T/s"
cp -p "$T/s/a-key" "$T/d/a-key"; ln "$T/d/a-key" "$T/d/b-public"
ice -r "$R" restore latest:s "$T/d" --verify; rc=$?
modes=$(cd "$T/d" && stat -c '%a' a-key b-public | tr '\n' ' ')
[ $rc = 0 ] || right "named, exit code $rc"
[ "$modes" = "600 644 " ] || wrong "exit code 0, and the modes are $modes instead of 600 644 (one inode still: $(stat -c %h "$T/d/a-key") names)"
right "they are two files again"
