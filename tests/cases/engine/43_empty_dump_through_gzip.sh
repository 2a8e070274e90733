#!/usr/bin/env bash
# `mysqldump app | gzip | icecore backup --stdin app.sql.gz` where mysqldump fails: gzip makes 20 bytes of nothing. That is as
# empty as a stream of no bytes, and the most usual form of it. Also zstd, xz, bzip2, and `--command … sh -c 'DUMP | gzip'`.
# Right: refused as an empty stream is, or suspect with exit code 3 (it is much smaller than the last good one), never "complete".
. "$(dirname "$0")/lib.sh"
needs gzip
head -c 300000 /dev/urandom | base64 >"$T/good"
setup ice -q -r "$R" init
gzip <"$T/good" | setup ice -q -r "$R" backup --stdin app.sql.gz
false | gzip | ice -r "$R" backup --stdin app.sql.gz >"$T/out" 2>&1; rc=$?
cat "$T/out"
[ $rc != 0 ] || wrong "20 bytes of gzip that hold nothing were committed as a complete backup, exit code 0: $(ice -r "$R" status 2>&1 | sed -n 2p)"
setup ice -q -r "$R" backup --command db="cat $T/good"
ice -r "$R" backup --command db="sh -c 'false | gzip'" >"$T/out" 2>&1; rc=$?
cat "$T/out"
[ $rc != 0 ] || wrong "a command's output of 20 bytes after 400 kB was committed as complete, exit code 0"
right "exit code $rc"
