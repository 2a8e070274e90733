#!/usr/bin/env bash
# An attribute or an ACL is set on a directory right after a backup has looked at it, within one tick of the file system's clock: the
# times of the directory are those that the backup saw. The walk takes attributes over from the last snapshot where the times are equal,
# and a source whose files never change is not even listed: the attribute was in no snapshot until the directory changed again.
# Right: the next backup reads the attributes of a directory that was young when it was looked at.
. "$(dirname "$0")/lib.sh"
needs setfattr setfacl getfattr
ext4 64M "$T/mnt" -I 128
setup ice -q -r "$R" init
tried=0
for n in 1 2 3 4 5 6 7 8; do
    src=$T/mnt/src$n; mkdir -p "$src/plain/d" "$src/fixed/d"
    sleep "$(date +%N | awk '{ printf "%.3f", 1.02 - $1 / 1e9 }')"
    # Odd rounds: a source of which nothing in a directory that kept its times is looked at.
    way=; dir=$src/plain; [ $((n % 2)) = 0 ] || { way=--immutable; dir=$src/fixed; }
    touch "$dir/d" "$dir"
    setup ice -q -r "$R" backup "s$n=$dir" $way
    before=$(stat -c %z "$dir/d")
    setfattr -n user.late -v 1 "$dir/d"; setfacl -d -m u:12:rx "$dir/d"
    [ "$(stat -c %z "$dir/d")" = "$before" ] || continue
    sleep 3
    ice -q -r "$R" backup "s$n=$dir" $way; rc=$?
    rm -rf "$T/o"; setup ice -q -r "$R" restore "latest:s$n" "$T/o"
    got=$(getfattr --absolute-names -d -m - "$T/o/d" 2>/dev/null | grep -cE '^(user.late|system.posix_acl_default)')
    [ "$got" = 2 ] || wrong "exit code $rc, and of two attributes set within one tick the newest snapshot has $got ${way:+(with $way)}"
    tried=$((tried + 1)); [ $tried -lt 2 ] || right "they were in the next snapshot"
done
[ $tried -gt 0 ] || cannot "no attribute was set within one tick of a backup"
right "they were in the next snapshot"
