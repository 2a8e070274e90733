#!/usr/bin/env bash
# restic and tar as an ordinary user: owners that only root can set are no news. A warning for each file and exit code 3 drown
# the one line that matters.
# Right: one line says how many owners were not set, exit code 0; what else is missing is still named, exit code 3.
#
# Exit code 0: right, 1: wrong, 77: cannot be tried here.
set -u
: "${ICECORE:?the path of the icecore binary}"
T=$(mktemp -d) || exit 2
trap 'cd /; rm -rf "$T"' EXIT
export HOME=$T/home ICECORE_CACHE_DIR=$T/cache ICECORE_REPO=$T/repo ICECORE_PASSPHRASE=x ICECORE_CONFIG=$T/icecore.toml LC_ALL=C.UTF-8
mkdir -p "$HOME" && : >"$ICECORE_CONFIG" && cd "$T" || exit 2
wrong() { echo "WRONG: $*"; exit 1; }
right() { echo "RIGHT: $*"; exit 0; }
cannot() { echo "CANNOT BE TRIED HERE: $*"; exit 77; }

[ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || cannot "root and setpriv are wanted"
mkdir s && for i in 1 2 3 4 5; do echo $i >s/$i; done
"$ICECORE" -q backup --init s || exit 2
mkdir theirs && chmod 755 "$T" && cp "$ICECORE" theirs/icecore && chown -R 65534:65534 theirs repo cache
user() { setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$T/theirs" ICECORE_CACHE_DIR="$T/theirs/cache" "$T/theirs/icecore" "$@"; }
user restore latest:s theirs/back >out 2>&1
rc=$?
cat out
[ $rc = 0 ] || wrong "exit code $rc"
[ "$(grep -c owner out)" = 1 ] && grep -q '6 owners were not set: not running as root (--no-owner' out || wrong "not one line of owners"
user restore latest:s theirs/quiet --no-owner >out 2>&1 && ! grep -q owner out || wrong "--no-owner is told all the same"
mknod s/device c 1 3 || cannot "no device nodes here"
"$ICECORE" -q backup s || exit 2
chown -R 65534:65534 repo
user restore latest:s theirs/more >out 2>&1
rc=$?
[ $rc = 3 ] && grep -q 's/device' out || wrong "a device that cannot be made: exit code $rc: $(cat out)"
right "owners are one line, the device is named"
