#!/usr/bin/env bash
# A restore of a pattern that matches nothing (a typing mistake, a path as restic and borg take it) wrote nothing and ended
# with 0: a script that checks the exit code goes on as if the files were back.
# Right: each pattern that matches nothing is named, also beside one that matches, exit code 3, with a hint; so with
# --dry-run and --json. A negated pattern selects nothing and is not named.
. "$(dirname "$0")/lib.sh"
wrong() { echo "WRONG: $*: $(cat out)"; exit 1; }

mkdir -p s/git/deep other && echo 1 >s/git/deep/f && echo 2 >s/notes.txt && echo 3 >other/g
ice -q backup --init s other || exit 2

# expect CODE WORDS…: restores, then each line of $named is in the output, and nothing else is named.
expect() {
    local code=$1 rc=0 line
    shift
    ice restore "$@" >out 2>&1 || rc=$?
    [ "$rc" = "$code" ] || wrong "$*: exit code $rc, not $code"
    for line in $named; do grep -qF -- "--include '$line' matches nothing" out || wrong "$*: '$line' is not named"; done
    # shellcheck disable=SC2086
    [ "$(grep -c 'matches nothing' out)" = "$(set -- $named; echo $#)" ] || wrong "$*: something else is named"
}
for dry in '' --dry-run; do
    named=nosuch expect 3 latest:s to $dry --include nosuch
    grep -q '^hint: ' out || wrong "no hint"
    named='nosuch *.pdf' expect 3 latest to $dry --include nosuch --include '*.txt' --include '*.pdf'
    named='' expect 0 latest to $dry --include g --include notes.txt
    named='' expect 0 latest:s to $dry --include git --include /git/deep/f --include '!nosuch'
    named="$T/s/git" expect 3 latest:s to $dry --include "$T/s/git"
    grep -q "^hint: .*--include '/git'" out || wrong "the hint does not say how to write it"
    named=s/git expect 3 latest to $dry --include s/git
    grep -q "^hint: .*--include '/git'" out || wrong "the hint does not say how to write it"
    named='/f' expect 3 latest:s/git/deep to $dry --include /f
    grep -q "^hint: .*--include '/git/deep/f'" out || wrong "the hint does not say how to write it"
    named=f expect 3 latest:s to $dry --include f --exclude git
    named='' expect 3 latest:s to $dry --include notes.txt --include '!*.txt'
    grep -q 'select nothing' out || wrong "what selects nothing together is not named"
done
[ -e to/s/notes.txt ] && [ -e to/other/g ] && [ -e to/git/deep/f ] || wrong "what matches is not restored"

rc=0
ice restore latest:s to --json --include nosuch --include $'odd\xff' >out 2>err || rc=$?
[ "$rc" = 3 ] || wrong "--json: exit code $rc"
python3 - out <<'P' || wrong "--json"
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
told = [line['message'] for line in lines if line['type'] == 'problem' and line['severity'] == 'missing']
assert len(told) == 2 and "'nosuch' matches nothing" in told[0], told
end = lines[-1]
assert end['exit_code'] == 3 and [one.get('pattern_hex') for one in end['unmatched']] == [None, '6f6464ff'], end
P
rc=0
ice restore latest:s/notes.txt - --include nosuch >out 2>&1 || rc=$?
[ "$rc" = 2 ] || wrong "a pattern with '-': exit code $rc, not 2"
echo "RIGHT: what matches nothing is named"
