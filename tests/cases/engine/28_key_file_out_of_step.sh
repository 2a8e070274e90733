#!/bin/bash
# `key change` from the key file to a passphrase. The key file stayed in its place, was tried before anybody was asked, and every
# command after it said that the passphrase is wrong, though none was given. A key file that was lost was not named at all.
# Right: the key file whose slot is gone makes way; one that is missing or does not open is named; its copy opens the repository.
. "$(dirname "$0")/lib.sh"
needs own-settings
unset ICECORE_PASSPHRASE
keys=$XDG_CONFIG_HOME/icecore/keys
[ "$(id -u)" != 0 ] || keys=/etc/icecore/keys
victim() { ice -r "$R" "$@" </dev/null 2>"$T/err"; }
names() { grep -qF -- "$1" "$T/err" || wrong "$2: the error does not name $1: $(cat "$T/err")"; }
mkdir "$T/src"; echo x >"$T/src/f"
setup victim backup --init src="$T/src"
key=$(echo "$keys"/*); [ -f "$key" ] || wrong "no key file"
cp "$key" "$T/copy"

# Lost, and the copy.
mv "$key" "$T/aside"
victim snapshots; rc=$?
[ $rc = 11 ] || wrong "without its key file: exit code $rc"
names "$key" "key file lost"; names "--passphrase-file" "key file lost"
ICECORE_PASSPHRASE_FILE=$T/copy victim snapshots || wrong "the copy does not open the repository"
mv "$T/aside" "$key"

# Not the right one.
tr 0-9a-f a-f0-9 <"$T/copy" >"$key"
victim snapshots; rc=$?
[ $rc = 11 ] || wrong "with a wrong key file: exit code $rc"
names "$key" "a wrong key file"
cat "$T/copy" >"$key"

# Changed to a passphrase, and back to a key file that is kept elsewhere.
(umask 077; echo secret >"$T/new")
victim key change --new-passphrase-file "$T/new" || wrong "key change: exit code $?: $(cat "$T/err")"
[ ! -e "$key" ] && [ -f "$key.old" ] || wrong "the old key file is still in its place"
victim --passphrase-file "$T/new" snapshots || wrong "the new passphrase does not open it"
victim --passphrase-file "$T/copy" snapshots && wrong "the old key still opens it"

# A slot that is removed takes its key file with it too.
victim --passphrase-file "$T/new" key add --new-key-file "$key" || wrong "key add: $(cat "$T/err")"
slot=$(victim --json key list | python3 -c 'import json, sys; print([l["slot"] for l in map(json.loads, sys.stdin) if l.get("current")][0])')
victim key remove "$slot" || wrong "key remove: $(cat "$T/err")"
[ ! -e "$key" ] && [ -f "$key.old-2" ] || wrong "the key file of a removed slot is still in its place: $(ls "$keys")"
right "a key file out of step is named, and makes way when its slot goes"
