#!/usr/bin/env bash
# restic/restic#1402, #1212 and pull 2906, borgbackup/borg#2337, rustic-rs/rustic#1108: directories on the way to what a pattern
# selects come back with other modes and owners.
# Directories on the way are right here, all but the topmost: with --include and SNAP:SOURCE it stays as it was made, 0700 of who
# restores. Without --include, with --exclude, and with a whole snapshot (SNAP) it gets its own.
# Right: a target directory that restore makes gets the metadata of the directory that it stands for.
. "$(dirname "$0")/lib.sh"

mkdir -p s/a && echo 1 >s/a/f && chmod 755 s && touch -d 2001-01-01 s/a s
ice -q backup --init s || exit 2
ice -q restore latest:s one --include f
ice -q restore latest:s two --exclude g
ice -q restore latest three --include f
stat -c '%a %y %n' one one/a two three/s
[ "$(stat -c %a one)" = 755 ] && right "as captured" || wrong "the topmost directory is $(stat -c %a one), not 755"
