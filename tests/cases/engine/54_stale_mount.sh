#!/usr/bin/env bash
# The repository's mount is stale, or its disk gives an error (ESTALE, EIO, ENOTCONN of a dead sshfs) when its directory is opened: "cannot
# reach …", "hint: … 'icecore init' makes a new repository". Who follows it makes a second one, or learns that it is no way on.
# Right: the hint speaks of the mount; init is offered only where nothing is there.
. "$(dirname "$0")/lib.sh"
needs strace
mkdir "$T/s"; echo 1 >"$T/s/f"
setup ice -q -r "$R" init
setup ice -q -r "$R" backup "$T/s"
bad=
for error in ESTALE EIO ENOTCONN EHOSTDOWN ETIMEDOUT EACCES; do
    timeout 60 strace -f -qq -o /dev/null -P "$R" -e trace=openat,openat2 -e inject=openat,openat2:error=$error "$ICECORE" -r "$R" snapshots >"$T/out" 2>&1; rc=$?
    [ $rc != 0 ] || continue
    sed "s/^/$error: /" "$T/out"
    ! grep -q "init" "$T/out" || bad="$bad $error"
done
[ -z "$bad" ] || wrong "'icecore init' is the advice for:$bad"
right "the advice is about the mount"
