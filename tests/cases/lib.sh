# Sourced by each case: ICECORE=path/to/icecore bash NN-name.sh. Everything lies in $T, a private temporary directory, which is
# also the working directory.
# Exit code 0: the program is right. 1: it is wrong. 2: the case could not be set up. 77: it cannot be tried on this machine.
# The last line says what was seen.
# shellcheck shell=bash
set -u
: "${ICECORE:?the path of the icecore binary}"
CASES_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ICECORE=$(realpath "$ICECORE") || exit 2
T=$(mktemp -d) || exit 2
undo=()
leave() { local one; cd /; for one in "${undo[@]}"; do eval "$one" >/dev/null 2>&1; done; rm -rf "$T"; }
trap leave EXIT
export ICECORE HOME=$T/home ICECORE_CACHE_DIR=$T/cache ICECORE_REPO=$T/repo ICECORE_PASSPHRASE=x ICECORE_CONFIG=$T/icecore.toml LC_ALL=C.UTF-8
export ICECORE_STATE_DIR=${ICECORE_STATE_DIR:-$T/state}
mkdir -p "$HOME" && : >"$ICECORE_CONFIG" && cd "$T" || exit 2
ice() { "$ICECORE" "$@"; }
wrong() { echo "WRONG: $*"; exit 1; }
right() { echo "RIGHT: $*"; exit 0; }
cannot() { echo "CANNOT BE TRIED HERE: $*"; exit 77; }
