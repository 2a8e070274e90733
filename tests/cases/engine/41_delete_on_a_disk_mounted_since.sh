#!/usr/bin/env bash
# The disk on SRC/disk was not mounted when the backup ran (after a reboot): its mount point is in the snapshot, an empty directory. It is
# mounted again, and `restore latest:src SRC --delete` empties it. So does a bind mount.
# Right: a directory on which something is mounted now, and was not then, keeps what the snapshot lacks, and is named.
. "$(dirname "$0")/lib.sh"
needs root
mkdir -p "$T/src/disk" "$T/src/plain"; echo x >"$T/src/plain/x"
setup ice -q -r "$R" init
setup ice -q -r "$R" backup src="$T/src"
mount -t tmpfs none "$T/src/disk" 2>/dev/null || cannot "nothing can be mounted"
MOUNTS="$T/src/disk"
echo only-copy >"$T/src/disk/file"; echo new >"$T/src/plain/new"
ice -r "$R" restore latest:src "$T/src" --delete; rc=$?
[ -e "$T/src/disk/file" ] || wrong "restore --delete (exit code $rc) deleted what lies on a disk that was not mounted when it was backed up"
[ ! -e "$T/src/plain/new" ] || wrong "what the snapshot accounts for as absent stayed"
right "the disk is untouched (exit code $rc)"
