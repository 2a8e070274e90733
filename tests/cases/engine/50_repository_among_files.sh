#!/bin/bash
# `init` in a directory that holds other files made all of them "the repository": a backup of the directory above left them out, with
# exit code 0 and no word.
# Right: every way to make a repository refuses such a directory, and leaves it as it is. A directory with lost+found alone is taken. Files
# that are put into the repository's directory later are named by a backup of what is above.
. "$(dirname "$0")/lib.sh"
mkdir -p "$T/data/docs" "$T/s"; echo precious >"$T/data/docs/thesis"; echo x >"$T/s/f"
export ICECORE_TO_PASSPHRASE=secret ICECORE_STATE_DIR=$T/state
setup ice -q -r "$R" init
setup ice -q -r "$R" backup "$T/s"
refused() {
    "$@" >"$T/out" 2>&1 && wrong "accepted: ${*//$T\//}"
    grep -q '^hint: .*--repo DIRECTORY' "$T/out" || wrong "no hint: ${*//$T\//}: $(tail -1 "$T/out")"
    [ "$(ls -A "$T/data/docs")" = thesis ] || wrong "something was made there: ${*//$T\//}"
}
refused ice -r "$T/data/docs" init
refused ice -r "$T/data/docs" backup --init "$T/s"

mkdir -p "$T/data/repo/lost+found"
R=$T/data/repo
setup ice -q -r "$R" init
ice -r "$R" backup data="$T/data" >"$T/out" 2>&1 || wrong "a backup around the repository: exit code $?"
! grep -q "not part of it" "$T/out" || wrong "lost+found is taken for somebody's file"
echo precious >"$R/notes"
ice -r "$R" backup data="$T/data" >"$T/out" 2>&1; rc=$?
[ $rc = 0 ] && grep -q "^warning: data:repo: .*'notes'" "$T/out" || wrong "a file in the repository's directory is not named (exit code $rc)"
right "refused; and named where it came later"
