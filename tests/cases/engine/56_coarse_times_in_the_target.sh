#!/usr/bin/env bash
# The target's file system keeps coarser times than the snapshot: 1 s (ext4 with inodes of 128 bytes, ext3, HFS+), 100 ns (SMB, NTFS), 2 s
# (FAT). The kernel cuts the time that a restore sets, the next restore finds another one: everything is written again at each run, so a
# restore that was cut off never gets on, and a dry run lists all as "would overwrite". rsync has --modify-window for it.
# Right: what has the time that this file system makes of the snapshot's, and its size, is unchanged.
. "$(dirname "$0")/lib.sh"
ext4 20M "$T/old" -I 128
mkdir "$T/s"; for n in 1 2 3 4 5; do echo "$n" >"$T/s/$n"; done
touch -d '2026-01-02 03:04:05.678901234' "$T"/s/*
setup ice -q -r "$R" init
setup ice -q -r "$R" backup "$T/s"
setup ice -q -r "$R" restore latest:s "$T/old/d"
[ "$(stat -c %y "$T/old/d/1" | cut -d. -f2 | cut -c1-3)" = 000 ] || cannot "this file system keeps nanoseconds"
ice -r "$R" restore latest:s "$T/old/d" >"$T/out" 2>&1; rc=$?
cat "$T/out"
grep -q '5 unchanged' "$T/out" || wrong "the second restore (exit code $rc) wrote everything again"
echo X >"$T/old/d/1"; touch -d '2026-01-02 03:04:06' "$T/old/d/1"
setup ice -q -r "$R" restore latest:s "$T/old/d"
[ "$(cat "$T/old/d/1")" = 1 ] || wrong "a file with another time was left"
right "what is there is unchanged"
