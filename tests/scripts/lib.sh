# What the script tests share; sourced, not run. A test is `. lib.sh`, steps, `finish`.
# shellcheck shell=bash
#
# ICECORE is the binary under test. Everything lies in $T, which goes away at the end (KEEP=1 keeps it); home, settings and
# cache are private. Each step prints PASS or FAIL; a FAIL lets the rest run and the script end with 1.

set -euo pipefail
export LC_ALL=C TZ=UTC PATH=$PATH:/usr/sbin:/sbin
umask 022

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034  # for the scripts
TESTS=$(dirname "$HERE")
: "${ICECORE:?ICECORE must be the path of the icecore binary}"
T=$(mktemp -d "${TMPDIR:-/tmp}/icecore-test.XXXXXX")
chmod 755 "$T"

failures=0
steps=0
skips=0
cleanups=()
finished=

cleanup() {
    local status=$? i
    set +e
    for ((i = ${#cleanups[@]} - 1; i >= 0; i--)); do
        eval "${cleanups[i]}"
    done
    if [[ -n ${KEEP-} ]]; then
        printf 'kept %s\n' "$T"
    else
        rm -rf --one-file-system "$T"
    fi
    if [[ -z $finished ]]; then
        printf 'FAIL %s stopped before its end (status %d)\n' "$(basename "$0")" "$status"
        exit 1
    fi
    exit "$status"
}
trap cleanup EXIT

pass() {
    steps=$((steps + 1))
    printf 'PASS %s\n' "$*"
}

fail() {
    steps=$((steps + 1))
    failures=$((failures + 1))
    printf 'FAIL %s\n' "$*"
}

# A preparation went wrong: nothing that follows would mean anything.
die() {
    fail "$@"
    exit 1
}

# True if root's part can run; else a FAIL, or a SKIP for who asked for it.
have_root() {
    if [[ $EUID -eq 0 ]]; then
        return 0
    elif [[ -n ${ICECORE_TESTS_WITHOUT_ROOT-} ]]; then
        skips=$((skips + 1))
        printf 'SKIP %s: needs root\n' "$1"
    else
        fail "$1: needs root (ICECORE_TESTS_WITHOUT_ROOT=1 leaves it out)"
    fi
    return 1
}

# A copy that other users can reach.
mkdir -p "$T/bin" "$T/home" "$T/user"
cp "$ICECORE" "$T/bin/icecore"
ICECORE=$T/bin/icecore
for name in $(compgen -e | grep -E '^(ICECORE_|XDG_)' || true); do
    [[ $name == ICECORE_TESTS_WITHOUT_ROOT ]] || unset "$name"
done
export HOME=$T/home XDG_CONFIG_HOME=$T/home/config XDG_CACHE_HOME=$T/home/cache XDG_STATE_HOME=$T/home/state
export ICECORE_CACHE_DIR=$T/cache ICECORE_STATE_DIR=$T/state ICECORE_PASSPHRASE='correct horse'

ice() {
    timeout 900 "$ICECORE" "$@"
}

# as_user CMD…: as an ordinary user with a home of his own, if we are root.
as_user() {
    local settings=(HOME="$T/user" XDG_CONFIG_HOME="$T/user/config" XDG_CACHE_HOME="$T/user/cache"
        XDG_STATE_HOME="$T/user/state" ICECORE_CACHE_DIR="$T/user/icecore-cache"
        ICECORE_STATE_DIR="$T/user/icecore-state")
    if [[ $EUID -eq 0 ]]; then
        chown 65534:65534 "$T/user"
        setpriv --reuid=65534 --regid=65534 --clear-groups env "${settings[@]}" "$@"
    else
        env "${settings[@]}" "$@"
    fi
}

# step CODE TITLE CMD…: runs, keeps $T/out and $T/err, PASS if the exit code is CODE and nothing panicked.
step() {
    local want=$1 title=$2 got=0
    shift 2
    "$@" >"$T/out" 2>"$T/err" </dev/null || got=$?
    if grep -q 'panicked at' "$T/err"; then
        fail "$title: panicked: $(grep -m1 -A1 'panicked at' "$T/err" | tr '\n' ' ')"
    elif [[ $got -ne $want ]]; then
        fail "$title: exit code $got, not $want: $* ($(tail -n 3 "$T/err" | tr '\n' '|'))"
    else
        pass "$title"
    fi
}

# The last step's stderr is one `error:` line, at most one `hint:` behind it, and at most warnings and notes besides.
one_error_line() {
    local errors hints others
    errors=$(grep -c '^error: .' "$T/err" || true)
    hints=$(grep -c '^hint: .' "$T/err" || true)
    others=$(grep -vcE '^(error|hint|warning|note): |^$' "$T/err" || true)
    if [[ $errors -eq 1 && $hints -le 1 && $others -eq 0 ]]; then
        pass "$1: $(grep '^error: ' "$T/err" | cut -c1-160)"
    else
        fail "$1: wanted one error line, got: $(tr '\n' '|' <"$T/err")"
    fi
}

# says PATTERN TITLE: the last step's stderr or stdout has it (extended, case-insensitive).
says() {
    if grep -aiE -- "$1" "$T/err" "$T/out" >/dev/null; then
        pass "$2"
    else
        fail "$2: nothing like /$1/ in: $(cat "$T/err" "$T/out" | tail -n 5 | tr '\n' '|')"
    fi
}

# field NAME: the value of the last NAME in the last step's JSON lines, at any depth; fails if there is none.
field() {
    python3 - "$1" "$T/out" <<'PY'
import json, sys
name, path = sys.argv[1:]
values = []
def walk(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == name and not isinstance(inner, (dict, list)):
                values.append(inner)
            walk(inner)
    elif isinstance(value, list):
        for inner in value:
            walk(inner)
for line in open(path, encoding="utf-8"):
    if line.strip():
        walk(json.loads(line))
if not values:
    sys.exit(f"no {name!r} in the JSON output")
print(values[-1])
PY
}

# field_is NAME TEST VALUE TITLE: e.g. field_is chunks_new -eq 0 'no new chunk'
field_is() {
    local value
    if ! value=$(field "$1" 2>&1); then
        fail "$4: $value"
    elif [[ $value =~ ^[0-9]+$ ]] && test "$value" "$2" "$3"; then
        pass "$4 ($1 $value)"
    else
        fail "$4: $1 is $value, wanted $2 $3"
    fi
}

# equal A B TITLE: two words.
equal() {
    if [[ $1 == "$2" ]]; then
        pass "$3"
    else
        fail "$3: $1 is not $2"
    fi
}

same_file() {
    if cmp -s "$1" "$2"; then
        pass "$3"
    else
        fail "$3: $(cmp "$1" "$2" 2>&1 | head -n 1)"
    fi
}

# same_tree A B TITLE: rsync finds nothing to do, either way. Paths that rsync cannot reach are another judge's.
same_tree() {
    local from to said
    for from in "$1" "$2"; do
        to=$2
        [[ $from == "$1" ]] || to=$1
        said=$(rsync -aHAXnc --delete --ignore-errors --itemize-changes "$from/" "$to/" 2>"$T/rsync.err" | head -n 5) || true
        if grep -vE 'File name too long|^filename overflows max-path|^IO error encountered|^rsync error: some files/attrs were not transferred|^$' "$T/rsync.err" >/dev/null; then
            said+=" $(head -n 3 "$T/rsync.err")"
        fi
        if [[ -n $said ]]; then
            fail "$3: $(tr '\n' '|' <<<"$said")"
            return
        fi
    done
    pass "$3"
}

# How many objects of a kind a repository holds: objects REPO packs
objects() {
    { find "$1/$2" -type f 2>/dev/null || true; } | wc -l
}

repo_bytes() {
    du -sb --apparent-size "$1" | cut -f1
}

# Waits until what was just written is older than the racy window (35 s, by the kernel's usual settings), so that the next
# backup judges it by its times. A file that is younger is read again, and counts as unchanged if it is.
age() {
    sleep 37
}

# verified REPO [TITLE]: every byte of the repository is right.
verified() {
    step 0 "${2:-verify --read-data finds nothing}" ice -r "$1" verify --read-data
}

finish() {
    finished=yes
    local left_out=
    ((skips == 0)) || left_out=", $skips left out"
    printf '%s: %d steps, %d failed%s\n' "$(basename "$0")" "$steps" "$failures" "$left_out"
    exit $((failures > 0))
}
