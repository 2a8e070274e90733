#!/bin/bash
# A restore over two file systems: another one is mounted below the target. One syncfs of the target's own says nothing of it.
# Right: after a power cut that both survive, the files on both are whole.
. "$(dirname "$0")/lib.sh"
mkdir -p "$T/src/inner/deep"; for d in . inner inner/deep; do head -c 300K /dev/urandom >"$T/src/$d/f"; truncate -s 1M "$T/src/$d/f"; done
ln "$T/src/inner/f" "$T/src/inner/twin"; ln -s f "$T/src/inner/link"
setup ice -q -r "$R" init; setup ice -q -r "$R" backup src="$T/src"
ext4 64M "$T/outer"; mkdir "$T/outer/inner"; truncate -s 64M "$T/two.img"; mkfs.ext4 -q "$T/two.img" >/dev/null 2>&1 || cannot "mkfs.ext4 failed"
mount -o loop "$T/two.img" "$T/outer/inner" || cannot "no loop mounts"; MOUNTS="$T/outer/inner $MOUNTS"; rm -rf "$T/outer/inner/lost+found"
ice -q -r "$R" restore latest:src "$T/outer"; rc=$?
cp --sparse=always "$T/outer.img" "$T/cut1.img"; cp --sparse=always "$T/two.img" "$T/cut2.img"     # the power cut
[ $rc = 0 ] || wrong "exit code $rc"
mkdir "$T/cut"; mount -o loop "$T/cut1.img" "$T/cut" && mount -o loop "$T/cut2.img" "$T/cut/inner" || cannot "the disks cannot be mounted after the cut"
MOUNTS="$T/cut/inner $T/cut $MOUNTS"
for f in f inner/f inner/twin inner/deep/f; do
    cmp -s "$T/src/$f" "$T/cut/$f" || wrong "$f is ruined"
    [ "$(stat -c '%y %a' "$T/src/$f")" = "$(stat -c '%y %a' "$T/cut/$f")" ] || wrong "$f has lost its time or mode"
done
[ "$(stat -c '%y %a' "$T/src/inner/deep")" = "$(stat -c '%y %a' "$T/cut/inner/deep")" ] || wrong "a directory has lost its time or mode"
right "what was restored to two file systems survives a power cut"
