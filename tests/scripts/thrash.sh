#!/usr/bin/env bash
# Many processes on one repository, killed at random: tests/thrash/. THRASH_SECONDS is how long (60), SEED repeats the choices,
# not the times.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

mkdir "$T/thrash"
if env -u ICECORE_PASSPHRASE -u ICECORE_CACHE_DIR python3 "$TESTS/thrash/thrash.py" "$ICECORE" "$T/thrash" --seconds "${THRASH_SECONDS:-60}" --seed "${SEED:-$RANDOM}"; then
    pass "whatever was killed, what was committed is there"
else
    fail "what was committed is not there, or a command that was not killed failed"
fi
finish
