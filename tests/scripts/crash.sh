#!/usr/bin/env bash
# The power is cut at every system call of the real binary's operations: tests/crash/. CRASH_STATES is how many of the states
# are tried (0: all, some 30,000), CRASH_SEED repeats a run, CRASH_ONLY=OPERATION:CUT:VARIANT one state.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

command -v strace >/dev/null || die "no strace (Debian package strace)"
if have_root "the crash simulator"; then
    # In memory: a state is a hundred files, and its checks sync a lot.
    place=$T/crash
    if [[ -d /dev/shm && -w /dev/shm ]]; then
        place=$(mktemp -d /dev/shm/icecore-crash.XXXXXX)
        [[ -n ${KEEP-} ]] || cleanups+=("rm -rf --one-file-system '$place'")
    else
        mkdir "$place"
    fi
    options=(--states "${CRASH_STATES:-800}" --seed "${CRASH_SEED:-$RANDOM}")
    [[ -z ${CRASH_ONLY-} ]] || options+=(--only "$CRASH_ONLY")
    [[ -z ${KEEP-} ]] || options+=(--keep)
    if env -u ICECORE_PASSPHRASE -u ICECORE_CACHE_DIR python3 "$TESTS/crash/crash.py" "$ICECORE" "$place" "${options[@]}"; then
        pass "every state is a repository that goes on"
    else
        fail "some states are not"
    fi
fi
finish
