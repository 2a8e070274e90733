#!/usr/bin/env bash
# `--command db='DUMP | gzip'`, `command = "DUMP > /tmp/x"`, `… && …`, `$HOME/…`: commands are run without a shell, so `|`, `>`, `&&` and the
# rest go to DUMP as words. Most programs refuse them; those that take any word print something else, and that is committed, exit code 0.
# Right: an unquoted shell operator or variable is refused (exit code 2): "no shell runs this; write sh -c '…'".
. "$(dirname "$0")/lib.sh"
setup ice -q -r "$R" init
bad=
while read -r line; do
    ice -q -r "$R" backup --command db="$line" >/dev/null 2>&1; rc=$?
    [ $rc = 2 ] || { bad=x; echo "exit code $rc: --command db=\"$line\""; }
done <<'X'
echo dump | gzip
echo dump > /nonexistent/x
echo one && echo two
echo one; echo two
echo $HOME
echo `date`
echo $(date)
X
ice -q -r "$R" backup --command db="echo 'a | b'" || wrong "a quoted '|' is refused"
[ -z "$bad" ] || wrong "words that only a shell understands were taken as words"
right "refused"
