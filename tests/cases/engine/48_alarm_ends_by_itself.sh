#!/usr/bin/env bash
# A key has changed (unchanged = "alarm") and a dump is 5 bytes (smallest): "the snapshot does not count until --accept takes it". The good
# snapshots are forgotten by name (an operator who cleans up, or who changed the key), only the suspect one is left. The next backup finds
# no good one to compare with: complete, exit code 0, `status` 0: alarm and suspicion end though nobody accepted anything.
# Right: while the newest snapshot of a source is suspect and no good one is left, the source stays suspect until --accept.
. "$(dirname "$0")/lib.sh"
mkdir "$T/keys"; echo k >"$T/keys/k"; seq 100000 >"$T/dump"
cat >"$T/c.toml" <<X
repository = "$R"
[[source]]
name = "db"
kind = "command"
command = "cat $T/dump"
smallest = "50%"
[[source]]
name = "keys"
kind = "tree"
path = "$T/keys"
unchanged = "alarm"
X
export ICECORE_STATE_DIR=$T/state ICECORE_CONFIG=$T/c.toml
setup ice -q init
setup ice -q backup
good=$(ice snapshots | awk 'NR == 2 { print $1 }')
echo tiny >"$T/dump"; echo CHANGED >"$T/keys/k"
ice -q backup; [ $? = 5 ] || { echo "NOT SET UP: no alarm"; exit 2; }
setup ice -q forget "$good"
ice backup; rc=$?
ice status; state=$?
[ $rc != 0 ] && [ $state != 0 ] || wrong "nobody accepted it, and it counts: backup ends with $rc, status with $state"
ice -q backup --accept db --accept keys || wrong "--accept ends with $?"
ice -q status || wrong "the alarm stays after --accept"
right "suspect until it is accepted"
