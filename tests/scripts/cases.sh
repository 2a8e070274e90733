#!/usr/bin/env bash
# Runs each script of tests/cases: a situation that once lost data or gave a wrong result, and what is right in it.
# A script ends with 0 (right), 1 (wrong) or 77 (it cannot be tried on this machine), and says in its last line what it saw.
#
# CASES="02 engine/19 …" runs only the scripts whose names begin so.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$TESTS/cases"
for case in [0-9]*.sh engine/[0-9]*.sh; do
    name=${case%.sh}
    if [[ -n ${CASES-} ]]; then
        wanted=
        for prefix in $CASES; do
            [[ $name != "$prefix"* ]] || wanted=1
        done
        [[ -n $wanted ]] || continue
    fi
    began=$SECONDS code=0
    # Home, settings and passphrase are each script's own.
    env -i PATH="$PATH" TMPDIR="$T" ICECORE="$ICECORE" ICECORE_STATE_DIR="$T/state/$name" bash "./$case" >"$T/case.out" 2>&1 </dev/null || code=$?
    last=$(tail -n 1 "$T/case.out")
    took="$((SECONDS - began)) s"
    case $code in
    0) pass "$name: $last ($took)" ;;
    77)
        skips=$((skips + 1))
        printf 'SKIP %s: %s\n' "$name" "$last"
        ;;
    *)
        if grep -q '^# PENDING' "$case"; then
            skips=$((skips + 1))
            printf 'PENDING %s: exit code %d: %s (%s)\n' "$name" "$code" "$last" "$took"
        else
            fail "$name: exit code $code: $last ($took)"
            sed 's/^/    /' "$T/case.out"
        fi
        ;;
    esac
done

finish
