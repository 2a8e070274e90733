#!/usr/bin/env bash
# A source lies on a network mount whose server was restarted or has exported another disk: what is opened, listed, looked at or read
# there gives ESTALE (or ENOTCONN, of a dead FUSE process). ESTALE also means that a file was removed by another machine, which is how
# it is taken for gone.
# Right: nothing is taken for gone that is still listed; exit code 3, or 1 with a word about the mount where the source itself cannot be
# reached; the last version of everything is in the newest snapshot.
. "$(dirname "$0")/lib.sh"
needs strace
mkdir -p "$T/src/dir"; echo one >"$T/src/file"; echo two >"$T/src/dir/inner"
setup ice -q -r "$R" init
setup ice -q -r "$R" backup src="$T/src"
sleep 2.1
tried=0
# stale ERROR CALLS PATH EXIT-CODE: the calls on this path fail in one backup.
stale() {
    echo more >>"$T/src/file"; echo more >>"$T/src/dir/inner"
    strace -f -qq -o "$T/calls" -P "$3" -e "trace=$2" -e "inject=$2:error=$1" "$ICECORE" -r "$R" backup src="$T/src" >"$T/out" 2>&1; rc=$?
    grep -q INJECTED "$T/calls" || { echo "== $1, $2 on $3: not met"; return; }
    tried=$((tried + 1))
    echo "== $1, $2 on $3: exit code $rc"
    [ $rc = "$4" ] || { cat "$T/out"; wrong "$1 at $2 of $3: exit code $rc, not $4"; }
    local name
    for name in file dir/inner; do
        [ -n "$(ice -q -r "$R" cat "latest:src/$name" 2>/dev/null)" ] || { cat "$T/out"; wrong "$1 at $2 of $3: $name is gone from the newest snapshot"; }
    done
    [ $rc = 3 ] || grep -q 'mount it again' "$T/out" || { cat "$T/out"; wrong "$1 at $2 of $3: no word about the mount"; }
}
for error in ESTALE ENOTCONN; do
    stale $error pread64 "$T/src/file" 3
    stale $error getdents64 "$T/src/dir" 3
    stale $error statx file 3
    stale $error statx dir 3
    stale $error openat,openat2 file 3
    stale $error openat,openat2 dir 3
    stale $error statx "$T/src" 1
    stale $error openat "$T/src" 1
done
[ $tried -gt 8 ] || cannot "only $tried of the calls were met"
# A file that is gone is gone, ESTALE or not.
rm "$T/src/file"
ice -q -r "$R" backup src="$T/src" || wrong "a file was removed: exit code $?"
! ice -q -r "$R" cat latest:src/file >/dev/null 2>&1 || wrong "a removed file is in the newest snapshot"
right "nothing was taken for gone in $tried places"
