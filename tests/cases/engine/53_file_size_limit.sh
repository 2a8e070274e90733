#!/usr/bin/env bash
# A limit on file sizes (ulimit -f, LimitFSIZE=) kills icecore by SIGXFSZ in the middle of a backup or restore: `after` does not run, so what
# `before` stopped stays stopped, on_failure does not run, no error is printed.
# Right: the signal is ignored, so that the write fails with EFBIG, which is an error like a full disk.
. "$(dirname "$0")/lib.sh"
mkdir "$T/s"; head -c 3000000 /dev/urandom >"$T/s/big"
cat >"$T/c.toml" <<X
repository = "$R"
[[source]]
name = "s"
kind = "tree"
path = "$T/s"
[hooks]
before = "touch $T/stopped"
after = "rm $T/stopped"
X
setup ice -q --config "$T/c.toml" init
(ulimit -f 1000; exec timeout 60 "$ICECORE" --config "$T/c.toml" backup) >"$T/out" 2>&1; rc=$?
cat "$T/out"
[ ! -e "$T/stopped" ] || wrong "killed (exit code $rc): 'after' did not run"
[ $rc = 1 ] || wrong "exit code $rc"
right "an error"
