#!/usr/bin/env bash
# The source /srv holds /srv/disk, on which another file system was mounted at the last backup, with files. After a reboot it is not
# mounted: the backup finds an empty directory, removes all of it from the snapshot, complete, exit code 0, no word. A policy forgets the
# good ones. "A source that had entries and has none now is more likely an unmounted volume than an empty one": so is what was a mount
# point below it.
# Right: what the last snapshot has below the mount point is kept, with exit code 3, until `--allow-empty` says that it is right.
. "$(dirname "$0")/lib.sh"
needs root
mkdir -p "$T/srv/disk" "$T/srv/etc"; echo 1 >"$T/srv/etc/1"
mount -t tmpfs none "$T/srv/disk" 2>/dev/null || cannot "nothing can be mounted"
MOUNTS="$T/srv/disk"
for n in 1 2 3 4 5; do echo "$n" >"$T/srv/disk/$n"; done
setup ice -q -r "$R" init
setup ice -q -r "$R" backup "$T/srv"
umount "$T/srv/disk"
ice -r "$R" backup "$T/srv" >"$T/out" 2>&1; rc=$?
cat "$T/out"
[ $rc = 3 ] || wrong "what was on a disk that is not mounted now left the snapshot: exit code 0, $(ice -r "$R" status | sed -n 2p)"
for round in first second; do
    [ "$(ice -r "$R" ls -R latest:srv 2>/dev/null | grep -c disk/)" = 5 ] || wrong "after the $round backup the files of the disk are not in the snapshot"
    ice -q -r "$R" backup "$T/srv" >"$T/out" 2>&1; rc=$?
    [ $rc = 3 ] || wrong "another backup: exit code $rc"
done
ice -r "$R" backup "$T/srv" --allow-empty >/dev/null 2>&1 || wrong "and there is no way to say that it is right"
ice -r "$R" ls -R latest:srv | grep -q disk/ && wrong "--allow-empty did not take it"
right "exit code $rc"
