#!/usr/bin/env bash
# The events of `backup --json` go to a file on a full disk: who reads them learns of no snapshot and of no error, and the exit code was 0.
# Right: the backup is made, and the exit code says that events are missing. A reader who leaves is no error.
. "$(dirname "$0")/lib.sh"
mkdir s && echo 1 >s/f
ice -q init || exit 2
for command in "backup s" "restore latest:s out" "verify"; do
    ice --json $command >/dev/full 2>err
    rc=$?
    [ $rc = 1 ] || wrong "$command: exit code $rc"
    grep -q '^error: .*standard output' err || wrong "$command: $(cat err)"
done
[ "$(ice snapshots --json | grep -c '"type":"snapshot"')" = 1 ] || wrong "the backup was not made"
(ice --json backup s; echo $? >code) | true
[ "$(cat code)" = 0 ] || wrong "a reader who leaves: exit code $(cat code)"
right "missing events are an error"
