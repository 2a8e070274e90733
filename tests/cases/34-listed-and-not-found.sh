#!/usr/bin/env bash
# Names that a directory lists and that cannot be found: names that end in a dot on SMB, some FUSE file systems. They were
# taken for deleted each time, exit code 0. A name that statx misses once and finds a moment later was lost too.
# Right: the first is reported (exit code 3) and what an older snapshot has of it is kept; the second is captured.
#
# Exit code 0: right, 1: wrong, 77: cannot be tried here.
. "$(dirname "$0")/engine/lib.sh"
needs strace
mkdir "$T/src"; echo precious >"$T/src/odd"; echo x >"$T/src/other"
setup ice -q -r "$R" init; setup ice -q -r "$R" backup src="$T/src"; echo more >>"$T/src/odd"
# missing WHEN: a backup in which statx does not find the name.
missing() { strace -f -qq -o "$T/calls" -P odd -e trace=statx -e inject=statx:error=ENOENT:when="$1" "$ICECORE" -r "$R" backup src="$T/src" >"$T/o" 2>&1; }
missing 1+; rc=$?; cat "$T/o"
grep -q INJECTED "$T/calls" || cannot "the name was not looked for by a call known here"
[ $rc = 3 ] && grep -q odd "$T/o" || wrong "a name that is listed and cannot be found: exit code $rc, $(cat "$T/o")"
[ "$(ice -q -r "$R" cat latest:src/odd 2>/dev/null)" = precious ] || wrong "what the older snapshot has of it is gone"
missing 1; rc=$?
got=$(ice -q -r "$R" cat latest:src/odd 2>/dev/null | tail -n 1)
[ $rc = 0 ] && [ "$got" = more ] || wrong "a name that was missed once: exit code $rc, captured '$got'"
right "reported with exit code 3 and kept; captured where it was missed once"
