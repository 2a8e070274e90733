#!/usr/bin/env bash
# `restore latest:etc / --delete` (meant: `latest:etc /etc`): everything in / that is not in the source goes, exit code 0. restic refuses
# it: "'--target / --delete' must be combined with an include or exclude filter".
# Right: refused before anything is written (dry run too), unless the source was / itself.
. "$(dirname "$0")/lib.sh"
needs root
mkdir "$T/etc"; echo 1 >"$T/etc/fstab"
setup ice -q -r "$R" init
setup ice -q -r "$R" backup etc="$T/etc"
ice -r "$R" restore latest:etc / --delete --dry-run >"$T/out" 2>&1; rc=$?
n=$(grep -c 'would delete' "$T/out")
[ "$n" = 0 ] || wrong "a dry run with exit code $rc lists $n deletions in /, /usr among them: $(grep -m1 usr "$T/out")"
[ $rc != 0 ] || wrong "exit code 0"
mkdir "$T/etc/sub" && setup ice -q -r "$R" backup etc="$T/etc"
mkdir "$T/beside" && echo 1 >"$T/beside/1"
for what in latest:etc latest:etc/sub; do
    ice -r "$R" restore "$what" "$T" --delete >"$T/out" 2>&1 && wrong "$what into the directory above it, with --delete: exit code 0"
    [ -e "$T/beside/1" ] || wrong "$what into the directory above it deleted what lies beside it"
done
ice -r "$R" restore latest:etc "$T/etc" --delete >"$T/out" 2>&1 || wrong "into the directory itself: $(cat "$T/out")"
right "refused: $(tail -2 "$T/out")"
