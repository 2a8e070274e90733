#!/usr/bin/env bash
# Stands a node up on a private engine, runs a command beside it (a shell if none is named), and takes all down again.
#
#   ICECORE=target/debug/icecore SCALE=0.02 tests/docker/play.sh [CMD…]
#
# The command has DOCKER_HOST, COMPOSE_PROJECT_NAME, ICECORE, and as variables the node's directory NODE, the generator's state STATE,
# and the library LIB to source for `pg`, `volume`, `compose`, … in a script of its own. SCALE=1 is 200 MB of dump, 50,000 files, 20,000 blocks.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../scripts/lib.sh"
. "$TESTS/docker/lib.sh"

have_root "a Docker engine" || finish
engine
images
node_new "$T/node"
node_up "$T/node"
node_fill "${SCALE:-0.02}"
export NODE=$T/node STATE=$T/state LIB=$TESTS/docker/lib.sh TESTS T PROJECT
printf 'node in %s, volumes %s %s\nDOCKER_HOST=%s\n' "$NODE" "$(volume pyaleph-local-storage)" "$(volume pyaleph-ipfs)" "$DOCKER_HOST"
finished=yes
(($#)) || set -- bash --norc
cd "$NODE"
"$@"
