#!/usr/bin/env bash
# restic and tar as an ordinary user: owners that only root can set are no news. A warning for each file and exit code 3 drown
# the one line that matters.
# Right: one line says how many owners were not set, exit code 0; what else is missing is still named, exit code 3.
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || cannot "root and setpriv are wanted"
mkdir s && for i in 1 2 3 4 5; do echo $i >s/$i; done
"$ICECORE" -q backup --init s || exit 2
mkdir theirs && chmod 755 "$T" && cp "$ICECORE" theirs/icecore && chown -R 65534:65534 theirs repo cache
user() { setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$T/theirs" ICECORE_CACHE_DIR="$T/theirs/cache" "$T/theirs/icecore" "$@"; }
user restore latest:s theirs/back >out 2>&1
rc=$?
cat out
[ $rc = 0 ] || wrong "exit code $rc"
[ "$(grep -c 'owners were' out)" = 1 ] && grep -q '6 owners were not set: not running as root' out || wrong "not one line of owners"
grep -q '^hint: use --no-owner' out || wrong "the option is not named"
user restore latest:s theirs/quiet --no-owner >out 2>&1 && ! grep -q owner out || wrong "--no-owner is reported"
mknod s/device c 1 3 || cannot "no device nodes here"
"$ICECORE" -q backup s || exit 2
chown -R 65534:65534 repo
user restore latest:s theirs/more >out 2>&1
rc=$?
[ $rc = 3 ] && grep -q 's/device' out || wrong "a device that cannot be made: exit code $rc: $(cat out)"
right "owners are one line, the device is named"
