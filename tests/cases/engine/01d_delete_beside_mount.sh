#!/bin/bash
# With `--one-file-system` what is mounted below the source is left out, and its mount point is in the snapshot, empty. A restore with
# `--delete` emptied the disk that was mounted there. Also: a repository that is met through a bind mount of it.
# Right: nothing is deleted on the mount, nor in the repository; what came beside them since goes.
. "$(dirname "$0")/lib.sh"
needs root
mkdir -p "$T/src/disk" "$T/src/bound" "$T/src/plain"
mount -t tmpfs none "$T/src/disk" 2>/dev/null || cannot "nothing can be mounted"
trap 'umount "$T/src/bound" 2>/dev/null; umount "$T/src/disk"' EXIT
echo only-copy >"$T/src/disk/file"; echo x >"$T/src/plain/x"
setup ice -q -r "$R" init
setup ice -q -r "$R" backup src="$T/src" --one-file-system
echo new >"$T/src/plain/new"
mount --bind "$R" "$T/src/bound" || cannot "no bind mounts"
ice -r "$R" restore latest:src "$T/src" --delete --delete-excluded; rc=$?
lost=
[ -e "$T/src/disk/file" ] || lost="a file on another file system"
[ -e "$R/config" ] && ice -q -r "$R" snapshots >/dev/null || lost="${lost:+$lost, }the repository"
[ -z "$lost" ] || wrong "restore --delete (exit code $rc) deleted: $lost"
[ ! -e "$T/src/plain/new" ] || wrong "restore --delete (exit code $rc) left what the snapshot accounts for as absent"
ice -r "$R" restore latest:src "$R/packs" 2>/dev/null && wrong "a restore into the repository was not refused"
right "what is mounted and the repository are still there (exit code $rc)"
