#!/usr/bin/env bash
# `backup /` went into /proc and /sys, where files are made while they are read: /proc/kcore says that it has 128 TiB.
# Right: a file system of the kernel that is mounted below a source is not entered, a note says so, the directory is kept; a
# source inside of one is captured.
#
# Exit code 0: right, 1: wrong, 77: cannot be tried here.
. "$(dirname "$0")/engine/lib.sh"
needs root
mkdir -p "$T/src/proc" "$T/src/deep/sys"; echo x >"$T/src/file"
mount -t proc proc "$T/src/proc" 2>/dev/null || cannot "no mounts"
MOUNTS=$T/src/proc
mount -t sysfs sysfs "$T/src/deep/sys" 2>/dev/null && MOUNTS="$MOUNTS $T/src/deep/sys"
setup ice -q -r "$R" init
timeout 120 "$ICECORE" -r "$R" backup src="$T/src" >"$T/o" 2>&1; rc=$?
held=$(ice -q -r "$R" ls --recursive latest:src | wc -l); say "exit code $rc, $held entries"; cat "$T/o"
[ $rc = 0 ] && [ "$held" -lt 10 ] || wrong "exit code $rc, $held entries"
grep -q 'not entered.*proc' "$T/o" || wrong "nothing was said of it"
ice -q -r "$R" ls latest:src | grep -q proc || wrong "the directory itself is not there"
ice -q -r "$R" backup kernel=/proc/sys/kernel/random >/dev/null 2>&1
[ "$(ice -q -r "$R" cat latest:kernel/boot_id)" = "$(cat /proc/sys/kernel/random/boot_id)" ] || wrong "a source inside of procfs is not captured"
right "not entered, and said; a source inside of procfs is captured"
