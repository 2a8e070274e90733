#!/usr/bin/env bash
# `backup src --exclude src/cache`: how tar, and borg (paths without the leading '/'), want it. Here it matches nothing: what was to be
# left out is captured, exit code 0, no word. The absolute forms are refused, since they cannot be meant.
# Right: refused, or a warning, with what to write instead (`/cache`), as long as the pattern matches nothing.
. "$(dirname "$0")/lib.sh"
mkdir -p "$T/w/srv/app/cache" && cd "$T/w" || exit 2
echo secret >srv/app/cache/secret; echo 1 >srv/app/1
setup ice -q -r "$R" init
bad=
try() {   # source, pattern
    ice -r "$R" backup app="$1" --exclude "$2" >"$T/out" 2>&1; rc=$?
    ice -r "$R" ls -R latest:app 2>/dev/null | grep -q secret || return 0
    [ $rc = 0 ] && ! grep -qF -e "$2" "$T/out" && { echo "backup $1 --exclude $2: captured, exit code 0, no word"; bad=x; }
}
try srv/app srv/app/cache
try ./srv/app srv/app/cache
try srv/app/ srv/app/cache/
try srv/app app/cache
try srv/app 'srv/app/cache/*'
try "$T/w/srv/app" "${T#/}/w/srv/app/cache"
try "$T/w/srv/app" '*/srv/app/cache'
try srv/app '**/srv/app/cache'
try srv/app 'sh:cache'
try srv/app '$PWD/srv/app/cache'
[ -z "$bad" ] || wrong "patterns that can match nothing were taken in silence"
right "each is named or works"
